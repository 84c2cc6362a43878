//! Checks on the tree that a machine can make: lengths, header comments, words that must not be there, ids that must resolve,
//! dependencies that must not come in. What it refuses is named with file and line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Every file that git tracks or would track, below the root.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git ls-files failed");
    let list = String::from_utf8(output.stdout).expect("paths are UTF-8");
    list.lines().map(|line| root().join(line)).filter(|path| path.is_file()).collect()
}

fn with_ending(ending: &str) -> Vec<(PathBuf, String)> {
    let matching = files().into_iter().filter(|path| path.extension().is_some_and(|e| e == ending));
    matching.map(|path| (path.clone(), std::fs::read_to_string(&path).expect("a text file"))).collect()
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let sources = with_ending("rs");
    assert!(sources.len() > 10, "the walk found the sources");
    let mut found = Vec::new();
    for (path, text) in &sources {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", path.display()));
        }
        if !text.starts_with("//!") {
            found.push(format!("{}: does not begin with a header comment", path.display()));
        }
    }
    assert_none("files", &found);
}

/// Lengths of functions in rustfmt's layout: from a line with `fn` to the closing brace at its own indent.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_function = |line: &str| {
        let words = line.trim_start().split('(').next().unwrap_or_default();
        words.split_whitespace().any(|word| word == "fn") && !line.trim_start().starts_with("//")
    };
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
        let closing = format!("{}}}", " ".repeat(indent(line)));
        let body = lines[start..].iter().position(|later| {
            *later == closing || later.trim_end().ends_with(';') && indent(later) == indent(line)
        });
        let length = body.map_or(1, |offset| offset + 1);
        if length > FUNCTION_LINES_MAX {
            found.push((start + 1, length));
        }
    }
    found
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for (path, text) in with_ending("rs") {
        for (line, length) in long_functions(&text) {
            found.push(format!("{}:{line}: {length} lines, at most {FUNCTION_LINES_MAX}", path.display()));
        }
    }
    assert_none("functions", &found);
}

#[test]
fn the_function_check_sees_a_long_function() {
    let body = "    work();\n".repeat(FUNCTION_LINES_MAX);
    assert_eq!(long_functions(&format!("pub fn long() {{\n{body}}}\n")), [(1, FUNCTION_LINES_MAX + 2)]);
    assert!(long_functions("fn short() {\n    work();\n}\n").is_empty());
}

#[test]
fn no_unfinished_marks() {
    // Put together here so that this file does not find itself.
    let marks = ["todo!", "unimplemented!", "dbg!"].map(|word| format!("{word}(")).into_iter();
    let marks: Vec<String> =
        marks.chain([["FIX", "ME"].concat(), ["X", "XX:"].concat(), ["#[ign", "ore]"].concat()]).collect();
    // The one reason to leave a test out: `make soak` runs it.
    let left_out = ["#[ign", "ore = "].concat();
    let reason = "\"full size: --include-ignored\"";
    let mut found = Vec::new();
    for (path, text) in with_ending("rs").into_iter().chain(with_ending("sh")) {
        for (number, line) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(mark.as_str())) {
                found.push(format!("{}:{}: {mark}", path.display(), number + 1));
            }
            if line.contains(&left_out) && !line.contains(reason) {
                found.push(format!(
                    "{}:{}: a test is left out for another reason",
                    path.display(),
                    number + 1
                ));
            }
        }
    }
    assert_none("unfinished", &found);
}

/// Ids such as SK-1 or W6 at the beginning of a table cell or list item of a page in `docs/`.
fn defined_ids() -> BTreeSet<String> {
    let read = |name: &str| std::fs::read_to_string(root().join("docs").join(name)).expect("the page exists");
    let invariants = read("invariants.md");
    let cells =
        invariants.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next().map(str::to_owned));
    let traps = read("traps.md");
    let words =
        traps.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| is_trap_id(word)).map(str::to_owned);
    cells.chain(words).collect()
}

fn is_trap_id(word: &str) -> bool {
    let Some(first) = word.chars().next() else { return false };
    "WVRLCSKGHP".contains(first)
        && word.len() > 1
        && word.len() < 4
        && word[1..].bytes().all(|b| b.is_ascii_digit())
}

fn is_invariant_id(word: &str) -> bool {
    let Some((letters, digits)) = word.split_once('-') else { return false };
    ["SK", "PS", "CP", "LV"].contains(&letters)
        && !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
}

#[test]
fn ids_of_invariants_and_traps_resolve() {
    let defined = defined_ids();
    assert!(defined.contains("SK-1") && defined.contains("W6"), "the pages were read: {defined:?}");
    let mut found = Vec::new();
    for (path, text) in with_ending("rs") {
        for (number, line) in text.lines().enumerate() {
            let Some(comment) = line.find("//").map(|at| &line[at..]) else { continue };
            let words = comment.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            for word in words.filter(|word| is_invariant_id(word) || is_trap_id(word)) {
                if !defined.contains(word) {
                    found.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    assert_none("ids that docs/invariants.md and docs/traps.md do not define", &found);
}

#[test]
fn invariants_in_code_are_those_of_the_page() {
    let page = std::fs::read_to_string(root().join("docs/invariants.md")).expect("the page exists");
    for invariant in strata_common::invariants::Invariant::ALL {
        assert!(page.contains(&format!("| {invariant} |")), "{invariant} is not in docs/invariants.md");
    }
}

#[test]
fn banned_dependencies_stay_out() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml exists");
    let banned: Vec<&str> =
        deny.lines().filter_map(|line| line.strip_prefix("name = \"")?.split('"').next()).collect();
    assert!(banned.contains(&"aws-lc-sys"), "deny.toml was read");
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock exists");
    let found: Vec<String> = banned
        .iter()
        .filter(|name| lock.contains(&format!("name = \"{name}\"\n")))
        .map(|name| format!("{name} is in Cargo.lock"))
        .collect();
    assert_none("banned dependencies", &found);
}

#[test]
fn suites_are_in_their_readme() {
    let readme = std::fs::read_to_string(root().join("regress/README.md")).expect("the page exists");
    let suites = std::fs::read_dir(root().join("regress/tests")).expect("the folder exists").flatten();
    let names: Vec<String> =
        suites.map(|entry| format!("tests/{}", entry.file_name().to_string_lossy())).collect();
    assert!(names.len() > 40, "the suites were found");
    let missing = names.into_iter().filter(|name| name.ends_with(".rs") && !readme.contains(name.as_str()));
    assert_none("suites that regress/README.md does not name", &missing.collect::<Vec<_>>());
    let named = readme.split('`').filter(|word| word.starts_with("tests/"));
    let gone = named.filter(|word| !root().join("regress").join(word).exists()).map(str::to_owned);
    assert_none("suites that regress/README.md names and that are gone", &gone.collect::<Vec<_>>());
}

/// A page that says which test shows a trap must not name one that has another name now.
#[test]
fn tests_of_traps_are_there() {
    let page = std::fs::read_to_string(root().join("docs/traps-tested.md")).expect("the page exists");
    let sources: String = with_ending("rs").into_iter().map(|(_, text)| text).collect();
    let is_name = |word: &&str| {
        let plain = word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        plain && word.matches('_').count() > 3
    };
    let names: Vec<&str> = page.split('`').filter(is_name).collect();
    assert!(names.len() > 40, "the tests were found: {}", names.len());
    let gone = names.into_iter().filter(|name| !sources.contains(&format!("fn {name}()")));
    assert_none(
        "tests that docs/traps-tested.md names and that are gone",
        &gone.map(str::to_owned).collect::<Vec<_>>(),
    );
}

/// Every trap of pages, maps, relations and LSNs (W, V, R, L) has its row in `docs/traps-tested.md`, be it one that says why no test can.
#[test]
fn traps_of_a_primary_have_a_row() {
    let read = |name: &str| std::fs::read_to_string(root().join("docs").join(name)).expect("the page exists");
    let (traps, tested) = (read("traps.md"), read("traps-tested.md"));
    let ids = traps.lines().filter_map(|line| line.strip_prefix("- ")?.split(' ').next());
    let of_a_primary: Vec<&str> =
        ids.filter(|id| is_trap_id(id) && id.starts_with(['W', 'V', 'R', 'L'])).collect();
    assert!(of_a_primary.len() > 40, "the traps were read");
    let has_row = |id: &str| {
        let firsts = tested.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
        firsts.flat_map(|first| first.split([',', ' '])).any(|word| word == id)
    };
    let missing = of_a_primary.into_iter().filter(|id| !has_row(id)).map(str::to_owned);
    assert_none("traps without a row", &missing.collect::<Vec<_>>());
}

#[test]
fn sql_objects_are_in_their_page() {
    let page = std::fs::read_to_string(root().join("docs/sql.md")).expect("the page exists");
    let sql = std::fs::read_to_string(root().join("pg_ext/sql/strata--0.2.sql")).expect("the file exists");
    let names = sql.lines().filter_map(|line| {
        let rest = line.strip_prefix("CREATE FUNCTION ").or_else(|| line.strip_prefix("CREATE VIEW "))?;
        rest.split(['(', ' ']).next()
    });
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 20, "the objects were read");
    let missing = names.into_iter().filter(|name| !page.contains(&format!("`{name}"))).map(str::to_owned);
    assert_none("objects that docs/sql.md does not name", &missing.collect::<Vec<_>>());
}

#[test]
fn components_have_a_readme() {
    let members = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml exists");
    let folders: Vec<&str> = members
        .lines()
        .skip_while(|line| !line.starts_with("members"))
        .skip(1)
        .take_while(|line| !line.starts_with(']'))
        .filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","))
        .collect();
    assert!(folders.len() > 5, "the members were read");
    let missing = folders.iter().filter(|folder| !root().join(folder).join("README.md").is_file());
    assert_none("folders without README.md", &missing.map(|folder| (*folder).to_owned()).collect::<Vec<_>>());
}
