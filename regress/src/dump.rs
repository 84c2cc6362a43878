//! Compares dumps of whole clusters (`pg_dumpall`), object by object: equal, but for what a lost server may lose.
//!
//! A sequence may be up to 32 increments ahead, because that many values are logged before they are given out (W9), and unlogged
//! relations come back empty (R11). Against another server the rows of a table may come in another order.

use std::collections::{BTreeMap, BTreeSet};

/// Values of a sequence that the log holds ahead (`SEQ_LOG_VALS` in `src/backend/commands/sequence.c`).
const SEQUENCE_VALUES_AHEAD: i128 = 32;

/// Lines of each part of a dump; the key is the database, the heading of `pg_dump` and a number for headings that come again.
#[derive(Debug, Default)]
pub struct Dump {
    parts: BTreeMap<String, Vec<String>>,
    increments: BTreeMap<String, i128>,
    unlogged: BTreeSet<String>,
}

/// Whether rows must come in the same order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rows {
    Ordered,
    Any,
}

impl Dump {
    pub fn parse(text: &str) -> Dump {
        let mut dump = Dump::default();
        let (mut database, mut heading, mut sequence) = (String::new(), "start".to_owned(), String::new());
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("\\connect ") {
                database = name.to_owned();
            }
            if line.starts_with("-- Name: ") || line.starts_with("-- Data for Name: ") {
                heading = format!("{database}: {}", line.trim_start_matches("-- "));
                let count = seen.entry(heading.clone()).or_insert(0);
                *count += 1;
                if *count > 1 {
                    heading = format!("{heading} #{count}");
                }
            }
            dump.note_sequence(&database, line, &mut sequence);
            if line.starts_with("CREATE UNLOGGED TABLE ") || line.starts_with("CREATE UNLOGGED SEQUENCE ") {
                let name = line.split_whitespace().nth(3).unwrap_or_default();
                dump.unlogged.insert(format!("{database}: {name}"));
            }
            // The random key that keeps a dump's rows from being taken for commands of psql.
            let keyed = line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
            if !keyed {
                dump.parts.entry(heading.clone()).or_default().push(line.to_owned());
            }
        }
        dump
    }

    /// For a comparison with another server, where large objects and TOAST tables have other numbers.
    pub fn parse_without_numbers(text: &str) -> Dump {
        let lines: Vec<String> = text.lines().map(without_numbers).collect();
        Dump::parse(&lines.join("\n"))
    }

    /// `CREATE SEQUENCE name` or `SEQUENCE NAME name`, then `INCREMENT BY n` on a line of its own.
    fn note_sequence(&mut self, database: &str, line: &str, sequence: &mut String) {
        let line = line.trim();
        for mark in ["CREATE SEQUENCE ", "CREATE UNLOGGED SEQUENCE ", "SEQUENCE NAME "] {
            if let Some(name) = line.strip_prefix(mark) {
                *sequence = format!("{database}: {name}");
            }
        }
        if let Some(step) = line.strip_prefix("INCREMENT BY ").and_then(|step| step.parse().ok()) {
            self.increments.insert(sequence.clone(), step);
        }
    }

    /// What in `later` is not as in `self` though it should be; one line for each part.
    pub fn differences(&self, later: &Dump, rows: Rows) -> Vec<String> {
        let keys: BTreeSet<&String> = self.parts.keys().chain(later.parts.keys()).collect();
        let mut found = Vec::new();
        for key in keys {
            let (ours, theirs) = (self.part(key, rows), later.part(key, rows));
            if ours == theirs || (self.may_be_empty(key) && is_empty(&theirs)) {
                continue;
            }
            let pairs = ours.iter().zip(&theirs);
            let first = pairs.clone().find(|(a, b)| a != b && !self.may_be_ahead(key, a, b));
            if ours.len() != theirs.len() || first.is_some() {
                let (a, b) = first.map_or(("", ""), |(a, b)| (a.as_str(), b.as_str()));
                found.push(format!("{key}: {} lines and {}: '{a}' and '{b}'", ours.len(), theirs.len()));
            }
        }
        found
    }

    /// Headings of the parts that differ.
    pub fn differing(&self, other: &Dump, rows: Rows) -> BTreeSet<String> {
        let keys = self.parts.keys().chain(other.parts.keys());
        keys.filter(|key| self.part(key, rows) != other.part(key, rows)).cloned().collect()
    }

    fn part(&self, key: &str, rows: Rows) -> Vec<String> {
        let mut lines = self.parts.get(key).cloned().unwrap_or_default();
        if rows == Rows::Any {
            lines.sort();
        }
        lines
    }

    /// Content of an unlogged relation, which a crash empties: `db: Data for Name: t; Type: TABLE DATA; Schema: s; …`.
    fn may_be_empty(&self, key: &str) -> bool {
        let field = |name: &str| key.split(&format!("{name}: ")).nth(1)?.split(';').next();
        let (Some(database), Some(name), Some(schema)) =
            (key.split(": ").next(), field("Name"), field("Schema"))
        else {
            return false;
        };
        let content = key.contains("Type: TABLE DATA") || key.contains("Type: SEQUENCE SET");
        content && self.unlogged.contains(&format!("{database}: {schema}.{name}"))
    }

    /// `SELECT pg_catalog.setval('public.s', 33, true);`
    fn may_be_ahead(&self, key: &str, before: &str, after: &str) -> bool {
        let value = |line: &str| -> Option<(String, i128)> {
            let (name, rest) = line.strip_prefix("SELECT pg_catalog.setval('")?.split_once("', ")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        let (Some((name, from)), Some((same, to))) = (value(before), value(after)) else { return false };
        let database = key.split(": ").next().unwrap_or_default();
        let Some(step) = self.increments.get(&format!("{database}: {name}")) else { return false };
        name == same
            && (to - from).signum() * step.signum() >= 0
            && (to - from).abs() <= SEQUENCE_VALUES_AHEAD * step.abs()
    }
}

/// Blanks the numbers of objects in a line that names an object by number.
fn without_numbers(line: &str) -> String {
    const BY_NUMBER: [&str; 5] = ["pg_toast_", "LARGE OBJECT", "BLOB", "lo_create", "lo_open"];
    if !BY_NUMBER.iter().any(|mark| line.contains(mark)) {
        return line.to_owned();
    }
    let mut out = String::new();
    for part in line.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit());
        if digits.len() >= 5 {
            out.push('N');
            out.push_str(&part[digits.len()..]);
        } else {
            out.push_str(part);
        }
    }
    out
}

/// No row, or a sequence that begins anew.
fn is_empty(lines: &[String]) -> bool {
    let says_nothing = |line: &String| line.is_empty() || line.starts_with("--") || line == "\\.";
    lines.iter().all(|line| says_nothing(line) || line.starts_with("COPY ") || line.ends_with(", false);"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\\connect d\n-- Name: s; Type: SEQUENCE; Schema: public; Owner: o\nCREATE SEQUENCE public.s\n    INCREMENT BY 2\n\
        -- Name: u; Type: TABLE; Schema: public; Owner: o\nCREATE UNLOGGED TABLE public.u (\n\
        -- Data for Name: u; Type: TABLE DATA; Schema: public; Owner: o\n1\n\
        -- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: o\n1\n2\n\
        -- Name: s; Type: SEQUENCE SET; Schema: public; Owner: o\nSELECT pg_catalog.setval('public.s', 10, true);\n";

    fn changed(from: &str, to: &str, rows: Rows) -> usize {
        assert!(DUMP.contains(from));
        Dump::parse(DUMP).differences(&Dump::parse(&DUMP.replace(from, to)), rows).len()
    }

    #[test]
    fn numbers_are_blanked_where_they_name_objects() {
        assert_eq!(
            without_numbers("pg_toast_42379_index and 9 LARGE OBJECT 35548"),
            "pg_toast_N_index and 9 LARGE OBJECT N"
        );
        assert_eq!(without_numbers("a row with 42379"), "a row with 42379");
    }

    #[test]
    fn only_sequences_ahead_and_empty_unlogged_tables_are_let_pass() {
        assert_eq!(changed("s', 10", "s', 74", Rows::Ordered), 0, "32 steps of 2");
        assert_eq!(changed("s', 10", "s', 76", Rows::Ordered), 1);
        assert_eq!(changed("s', 10", "s', 8", Rows::Ordered), 1, "values would be given out again");
        assert_eq!(changed("Owner: o\n1\n-- Data", "Owner: o\n-- Data", Rows::Ordered), 0);
        assert_eq!(changed("Owner: o\n1\n-- Data", "Owner: o\n2\n-- Data", Rows::Ordered), 1, "other rows");
        assert_eq!(changed("1\n2\n", "1\n", Rows::Ordered), 1);
        assert_eq!(changed("1\n2\n", "2\n1\n", Rows::Ordered), 1);
        assert_eq!(changed("1\n2\n", "2\n1\n", Rows::Any), 0);
        assert_eq!(changed("INCREMENT BY 2", "INCREMENT BY 3", Rows::Any), 1);
    }
}
