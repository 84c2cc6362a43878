//! Files of results as Markdown: every row beside its target, and tables of latencies and of waits where rows have them. The tables of
//! `docs/benchmarks.md` are filled in by this from `docs/benchmarks.json`, never typed. A target is judged by the median.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::names;
use crate::report::Row;
use crate::waits::CORE;

/// What a target is about.
#[derive(Clone, Copy)]
enum Of {
    Ratio,
    Ours,
    /// Of the time that a restart without a cache takes, which is a row of its own.
    Cold,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}
use Bound::{AtLeast, AtMost};

/// Around each table of a page: which rows it has.
const BEGIN: &str = "<!-- table ";
const END: &str = "<!-- end -->";
/// Curves, which the plots show: not for the rows beside a page.
const CURVES: &str = "since_start_s_tps";

/// By id, with or without what stands behind its dot; of others nothing is demanded.
const TARGETS: [(&str, Of, Bound); 16] = [
    ("B1", Of::Ratio, AtLeast(0.95)),
    ("B2", Of::Ratio, AtLeast(1.0)),
    ("B3", Of::Ratio, AtLeast(0.8)),
    ("B4", Of::Ratio, AtMost(3.0)),
    ("B5", Of::Ratio, AtLeast(0.4)),
    ("B6.heap_insert", Of::Ours, AtLeast(1e6)),
    ("B6.heap_update", Of::Ours, AtLeast(1e6)),
    ("B6.btree_insert", Of::Ours, AtLeast(1e6)),
    ("B7", Of::Ratio, AtLeast(1.0)),
    ("B8", Of::Ours, AtMost(500.0)),
    ("B9", Of::Ours, AtMost(2000.0)),
    ("B10", Of::Ours, AtMost(50.0)),
    ("B12", Of::Ratio, AtLeast(1.0)),
    ("I4-seq-2ms", Of::Ratio, AtLeast(5.0)),
    ("I4-bitmap-2ms", Of::Ratio, AtLeast(4.0)),
    ("C2.kept", Of::Cold, AtMost(0.1)),
];

/// Rows of all files, those of a later file in the places of those that have their ids.
pub fn read(files: &[PathBuf]) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let more: Vec<Row> =
            serde_json::from_str(&text).with_context(|| format!("no results: {}", file.display()))?;
        for row in more {
            match rows.iter_mut().find(|known| known.id == row.id) {
                Some(known) => *known = row,
                None => rows.push(row),
            }
        }
    }
    Ok(rows)
}

/// Fills a page's tables in, and writes the rows beside it, as JSON.
pub fn write_page(page: &Path, mut rows: Vec<Row>) -> Result<()> {
    let text = std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let filled = fill(&text, &rows)?;
    for row in &mut rows {
        if let Value::Object(details) = &mut row.details {
            details.remove(CURVES);
        }
    }
    std::fs::write(page, filled).with_context(|| format!("cannot write {}", page.display()))?;
    let beside = page.with_extension("json");
    let json = serde_json::to_string_pretty(&rows)? + "\n";
    std::fs::write(&beside, json).with_context(|| format!("cannot write {}", beside.display()))
}

/// The page with its tables printed anew, each of the rows that its mark names.
fn fill(page: &str, rows: &[Row]) -> Result<String> {
    let mut parts = page.split(BEGIN);
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (ids, rest) = part.split_once(" -->").context("the mark of a table is not closed")?;
        let (_, rest) = rest.split_once(END).with_context(|| format!("the table {ids} has no end"))?;
        let is_meant = |row: &&Row| ids.split(',').any(|id| id == row.id || names(id, row.benchmark()));
        let meant: Vec<Row> = rows.iter().filter(is_meant).cloned().collect();
        ensure!(!meant.is_empty(), "there is no row of {ids}");
        let _ = write!(filled, "{BEGIN}{ids} -->\n\n{}\n{END}{rest}", tables(&meant));
    }
    Ok(filled)
}

/// All tables of these rows.
pub fn tables(rows: &[Row]) -> String {
    let tables = [figures(rows), latencies(rows), waits(rows)];
    tables.into_iter().filter(|table| !table.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Rows whose figures are not told better by `latencies`.
fn figures(rows: &[Row]) -> String {
    let mut table = "| id | measure | ours | peer | ratio | min … max | n | target | met |\n".to_owned()
        + "|---|---|--:|--:|--:|---|--:|---|---|\n";
    let head = table.len();
    for row in rows.iter().filter(|row| latency(row).is_none()) {
        let (target, met) = judge(row);
        let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), shown);
        let ratio = row.ratio.map_or_else(|| "–".to_owned(), three_digits);
        // Of ratios where there are some.
        let bound = if row.ratio.is_some() { three_digits } else { shown };
        let _ = writeln!(
            table,
            "| `{}` | {} ({}) | {} | {} | {ratio} | {} … {} | {} | {target} | {met} |",
            row.id,
            row.name,
            row.unit,
            shown(row.ours),
            optional(row.peer),
            bound(row.min),
            bound(row.max),
            row.n,
        );
    }
    if table.len() == head { String::new() } else { table }
}

/// The target, and whether the row meets it.
fn judge(row: &Row) -> (String, &'static str) {
    let is_of =
        |id: &str| row.id.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let Some((_, of, bound)) = TARGETS.iter().find(|(id, ..)| is_of(id)) else {
        return ("–".to_owned(), "–");
    };
    let (value, what) = match of {
        Of::Ratio => (row.ratio, String::new()),
        Of::Ours => (Some(row.ours), String::new()),
        Of::Cold => {
            let part = row.details["part_of_cold"].as_f64();
            (part, format!(" of `C2.cold`: {}", part.map_or_else(|| "?".to_owned(), three_digits)))
        }
    };
    let (sign, limit) = match bound {
        AtLeast(limit) => ("≥", *limit),
        AtMost(limit) => ("≤", *limit),
    };
    let met = match (value, bound) {
        (None, _) => "?",
        (Some(value), AtLeast(limit)) if value >= *limit => "yes",
        (Some(value), AtMost(limit)) if value <= *limit => "yes",
        _ => "**no**",
    };
    let limit = if limit < 10.0 { format!("{limit}") } else { shown(limit) };
    (format!("{sign} {limit}{what}"), met)
}

/// Percentiles of both sides, medians of the rounds; the ratio is of the one that the row's name says.
fn latencies(rows: &[Row]) -> String {
    let mut table = String::new();
    for (row, [ours, peer]) in rows.iter().filter_map(|row| Some((row, latency(row)?))) {
        if table.is_empty() {
            table.push_str("| id | measure | ours: p50, p95, p99, max (ms) | tps | peer: p50, p95, p99, max (ms) | tps | ratio | min … max |\n");
            table.push_str("|---|---|---|--:|---|--:|--:|---|\n");
        }
        let [ratio, min, max] = [row.ratio.unwrap_or_default(), row.min, row.max].map(three_digits);
        let _ =
            writeln!(table, "| `{}` | {} | {ours} | {peer} | {ratio} | {min} … {max} |", row.id, row.name);
    }
    table
}

/// Cells of both sides, of a row that has percentiles.
fn latency(row: &Row) -> Option<[String; 2]> {
    let side = |side: &str| -> Option<String> {
        let of = |key: &str| median(row.details[side].as_array()?, key);
        let keys = ["p50_ms", "p95_ms", "p99_ms", "max_ms"];
        let ms = keys.into_iter().map(of).collect::<Option<Vec<f64>>>()?;
        let ms: Vec<String> = ms.into_iter().map(three_digits).collect();
        Some(format!("{} | {}", ms.join(", "), shown(of("tps")?)))
    };
    Some([side("ours")?, side("peer")?])
}

fn median(rounds: &[Value], key: &str) -> Option<f64> {
    let values = rounds.iter().map(|round| round[key].as_f64()).collect::<Option<Vec<f64>>>()?;
    (!values.is_empty()).then(|| Row::alone("", "", "", &values).ours)
}

/// What statements waited for, of those rows that were looked at. Shares below a hundredth are left out.
pub fn waits(rows: &[Row]) -> String {
    let mut table = String::new();
    for row in rows {
        for side in ["ours", "peer"] {
            let seen = &row.details["waits"][side];
            let Some(shares) = seen["shares"].as_object() else { continue };
            if table.is_empty() {
                table.push_str("| id | side | samples | on a core | waits |\n|---|---|--:|--:|---|\n");
            }
            let share = |value: &Value| value.as_f64().unwrap_or_default() * 100.0;
            let mut waits: Vec<(f64, &str)> = shares
                .iter()
                .filter(|(event, _)| *event != CORE)
                .map(|(event, value)| (share(value), event.as_str()))
                .filter(|(percent, _)| *percent >= 1.0)
                .collect();
            waits.sort_by(|a, b| b.0.total_cmp(&a.0));
            let waits: Vec<String> =
                waits.iter().map(|(percent, event)| format!("{event} {percent:.0} %")).collect();
            let core = shares.get(CORE).map_or(0.0, share);
            let _ = writeln!(
                table,
                "| `{}` | {side} | {} | {core:.0} % | {} |",
                row.id,
                seen["samples"],
                waits.join(", ")
            );
        }
    }
    table
}

/// With commas, or in millions; four digits are there at most.
fn shown(value: f64) -> String {
    if value.abs() >= 1e6 {
        return format!("{} M", value / 1e6);
    }
    if value.abs() < 1000.0 {
        return format!("{value}");
    }
    let whole = value.round();
    format!("{},{:03}", (whole / 1000.0).trunc(), whole % 1000.0)
}

fn three_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (2 - value.abs().log10().floor() as i32).max(0) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `Table::finish` writes it, made by hand.
    const RESULTS: &str = r#"[
        {"id": "B1.1", "name": "reads, 1 client", "ours": 12610.0, "peer": 12330.0, "ratio": 0.962, "unit": "tps", "n": 5, "min": 0.9357,
         "max": 1.148, "note": "x"},
        {"id": "B12", "name": "COPY", "ours": 92.0, "peer": 113.6, "ratio": 0.8562, "unit": "MB/s", "n": 5, "min": 0.66, "max": 0.8914},
        {"id": "B6.heap_insert", "name": "redo", "ours": 20870000.0, "peer": null, "ratio": null, "unit": "1/s", "n": 3, "min": 999.5,
         "max": 21000000.0},
        {"id": "C2.kept", "name": "kept", "ours": 0.4, "peer": null, "ratio": null, "unit": "s", "n": 1, "min": 0.4, "max": 0.4,
         "details": {"part_of_cold": 0.056}},
        {"id": "C3.2", "name": "latency", "ours": 0.116, "peer": 0.108, "ratio": 0.6296, "unit": "ms", "n": 2, "min": 0.58, "max": 4.606,
         "details": {"ours": [{"p50_ms": 0.02, "p95_ms": 0.06, "p99_ms": 0.1, "max_ms": 7.0, "tps": 57000.0},
                              {"p50_ms": 0.04, "p95_ms": 0.06, "p99_ms": 0.1, "max_ms": 9.0, "tps": 58000.0}],
                     "peer": [{"p50_ms": 0.01, "p95_ms": 0.02, "p99_ms": 0.03, "max_ms": 5.4, "tps": 900.0}]}},
        {"id": "C5.ctas", "name": "CTAS", "ours": 58.37, "peer": 110.7, "ratio": 0.448, "unit": "MB/s", "n": 3, "min": 0.3811, "max": 0.5978,
         "details": {"waits": {"ours": {"samples": 800, "shares": {"core": 0.51, "StrataPageRequest": 0.33, "WALWrite": 0.155, "X": 0.005}}}}}
    ]"#;

    const TABLES: &str = "\
| id | measure | ours | peer | ratio | min … max | n | target | met |
|---|---|--:|--:|--:|---|--:|---|---|
| `B1.1` | reads, 1 client (tps) | 12,610 | 12,330 | 0.962 | 0.936 … 1.15 | 5 | ≥ 0.95 | yes |
| `B12` | COPY (MB/s) | 92 | 113.6 | 0.856 | 0.660 … 0.891 | 5 | ≥ 1 | **no** |
| `B6.heap_insert` | redo (1/s) | 20.87 M | – | – | 999.5 … 21 M | 3 | ≥ 1 M | yes |
| `C2.kept` | kept (s) | 0.4 | – | – | 0.4 … 0.4 | 1 | ≤ 0.1 of `C2.cold`: 0.0560 | yes |
| `C5.ctas` | CTAS (MB/s) | 58.37 | 110.7 | 0.448 | 0.381 … 0.598 | 3 | – | – |

| id | measure | ours: p50, p95, p99, max (ms) | tps | peer: p50, p95, p99, max (ms) | tps | ratio | min … max |
|---|---|---|--:|---|--:|--:|---|
| `C3.2` | latency | 0.0300, 0.0600, 0.100, 8.00 | 57,500 | 0.0100, 0.0200, 0.0300, 5.40 | 900 | 0.630 | 0.580 … 4.61 |

| id | side | samples | on a core | waits |
|---|---|--:|--:|---|
| `C5.ctas` | ours | 800 | 51 % | StrataPageRequest 33 %, WALWrite 16 % |
";

    fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file is written");
        path
    }

    #[test]
    fn a_file_of_results_becomes_tables() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = read(&[file(&folder, "a.json", RESULTS)]).expect("rows");
        assert_eq!(tables(&rows), TABLES);
    }

    #[test]
    fn a_later_file_has_the_newer_figure() {
        let folder = tempfile::tempdir().expect("a folder");
        let newer = r#"[{"id": "B12", "name": "COPY", "ours": 120.0, "peer": 119.0, "ratio": 1.008, "unit": "MB/s", "n": 1, "min": 1.008, "max": 1.008}]"#;
        let files = [file(&folder, "a.json", RESULTS), file(&folder, "b.json", newer)];
        let text = tables(&read(&files).expect("rows"));
        assert!(
            text.contains("| `B12` | COPY (MB/s) | 120 | 119 | 1.01 | 1.01 … 1.01 | 1 | ≥ 1 | yes |"),
            "{text}"
        );
        assert!(!text.contains("113.6") && text.contains("B1.1"), "{text}");
        assert!(read(&[file(&folder, "c.json", "{}")]).is_err());
    }

    #[test]
    fn a_page_is_filled_in_where_its_marks_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = read(&[file(&folder, "a.json", RESULTS)]).expect("rows");
        let page = "a\n<!-- table B12,C2.kept -->\nstale\n<!-- end -->\nb\n";
        let filled = fill(page, &rows).expect("a page");
        assert!(filled.starts_with("a\n<!-- table B12,C2.kept -->\n\n| id |"), "{filled}");
        assert!(filled.ends_with(" |\n\n<!-- end -->\nb\n") && !filled.contains("stale"), "{filled}");
        assert!(
            ["`B12`", "`C2.kept`"].iter().all(|id| filled.contains(id)) && !filled.contains("B1.1"),
            "{filled}"
        );
        assert_eq!(fill(&filled, &rows).expect("a page"), filled, "once more changes nothing");
        assert!(
            fill("<!-- table B99 --><!-- end -->", &rows).is_err()
                && fill("<!-- table B12 -->", &rows).is_err()
        );
    }

    #[test]
    fn the_page_has_the_tables_of_its_results() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let page = std::fs::read_to_string(docs.join("benchmarks.md")).expect("the page");
        let rows = read(&[docs.join("benchmarks.json")]).expect("its results");
        let filled = fill(&page, &rows).expect("a page with marks");
        assert!(
            filled == page,
            "strata-bench --markdown docs/benchmarks.json --page docs/benchmarks.md fills it in:\n{filled}"
        );
    }

    #[test]
    fn a_target_is_of_its_own_id_alone() {
        let row = |id: &str, ratio: f64| Row { ratio: Some(ratio), ..Row::alone(id, "", "", &[1.0]) };
        assert_eq!(judge(&row("B1.8", 0.94)), ("≥ 0.95".to_owned(), "**no**"));
        assert_eq!(judge(&row("B10.small", 0.1)), ("≤ 50".to_owned(), "yes"));
        assert_eq!(judge(&row("B6.hash_insert", 0.1)).1, "–");
        assert_eq!(judge(&row("I5-index-2ms", 0.1)).1, "–");
    }
}
