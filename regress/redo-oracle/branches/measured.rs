//! Two exports of `llvm-cov`, put together: every region of code and every outcome of a condition, and who reached it.
//!
//! One function may be in an export several times, for each type that it was made for and in each crate: counts are added.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::source::{Source, Span};

/// `CounterMappingRegion::CodeRegion`.
const CODE_REGION: u64 = 0;

/// A piece of code, or a condition with one of its outcomes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    pub file: String,
    pub span: Span,
    pub outcome: Option<bool>,
}

#[derive(Clone, Copy, Default, Debug)]
pub struct Reached {
    pub by_corpus: bool,
    pub by_tests: bool,
}

impl Reached {
    pub fn by_any(self) -> bool {
        self.by_corpus || self.by_tests
    }
}

/// A line of code that nothing reaches in full, or that only unit tests do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Missing {
    pub file: String,
    pub function: String,
    pub code: String,
}

pub struct Measured {
    pub places: BTreeMap<Place, Reached>,
    sources: BTreeMap<String, Source>,
}

impl Measured {
    pub fn read(root: &Path, corpus: &Path, tests: &Path) -> Result<Measured> {
        let mut measured = Measured { places: BTreeMap::new(), sources: BTreeMap::new() };
        for (path, by_corpus) in [(corpus, true), (tests, false)] {
            let export: Value = serde_json::from_slice(&std::fs::read(path)?)
                .with_context(|| format!("{} is no export of llvm-cov", path.display()))?;
            let functions = export["data"][0]["functions"].as_array().context("functions")?;
            for function in functions {
                measured.add(root, function, by_corpus)?;
            }
        }
        Ok(measured)
    }

    fn add(&mut self, root: &Path, function: &Value, by_corpus: bool) -> Result<()> {
        let files: Vec<&str> =
            function["filenames"].as_array().context("files")?.iter().filter_map(Value::as_str).collect();
        let numbers = |row: &Value| -> Vec<u64> {
            row.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
        };
        let mut found = Vec::new();
        for row in function["regions"].as_array().context("regions")? {
            if let [line, column, end_line, end_column, count, file, _, CODE_REGION] = numbers(row)[..] {
                found.push(([line, column, end_line, end_column], file, None, count > 0));
            }
        }
        for row in function["branches"].as_array().context("branches")? {
            if let [line, column, end_line, end_column, taken, not_taken, file, ..] = numbers(row)[..] {
                let at = [line, column, end_line, end_column];
                found.push((at, file, Some(true), taken > 0));
                found.push((at, file, Some(false), not_taken > 0));
            }
        }
        for (at, file, outcome, reached) in found {
            let path = Path::new(files.get(file as usize).context("a file")?);
            let Ok(name) = path.strip_prefix(root) else { continue };
            let name = name.to_string_lossy().into_owned();
            if !self.sources.contains_key(&name) {
                let Some(source) = Source::read(root, &name)? else { continue };
                self.sources.insert(name.clone(), source);
            }
            let [line, column, end_line, end_column] = at.map(|number| number as usize);
            if self.sources[&name].is_test(line) {
                continue;
            }
            let span = Span { line, column, end_line, end_column };
            let who = self.places.entry(Place { file: name, span, outcome }).or_default();
            *if by_corpus { &mut who.by_corpus } else { &mut who.by_tests } |= reached;
        }
        Ok(())
    }

    /// Whether a place is an error return, or a condition's outcome that leads to one.
    fn refuses(&self, place: &Place) -> bool {
        let source = &self.sources[&place.file];
        match place.outcome {
            None => source.refuses(place.span),
            Some(outcome) => source.leads_to_refusal(place.span, outcome),
        }
    }

    fn missing(&self, place: &Place) -> Missing {
        let source = &self.sources[&place.file];
        let line = source.line(place.span.line);
        let code = match place.outcome {
            Some(outcome) => format!("{} is {outcome}", source.text(place.span)),
            None => line.to_owned(),
        };
        let function = source.function(place.span.line).to_owned();
        Missing { file: place.file.clone(), function, code }
    }

    /// What nothing reaches.
    pub fn unreached(&self) -> Vec<Missing> {
        self.listed(|reached, _| !reached.by_any())
    }

    /// What unit tests reach and the corpus does not, refusals left out, by function.
    pub fn reached_by_tests_alone(&self) -> BTreeMap<(String, String), usize> {
        let mut functions = BTreeMap::new();
        for missing in self.listed(|reached, refuses| reached.by_tests && !reached.by_corpus && !refuses) {
            *functions.entry((missing.file, missing.function)).or_default() += 1;
        }
        functions
    }

    fn listed(&self, wanted: impl Fn(Reached, bool) -> bool) -> Vec<Missing> {
        let chosen = self.places.iter().filter(|(place, reached)| wanted(**reached, self.refuses(place)));
        let mut listed: Vec<Missing> = chosen.map(|(place, _)| self.missing(place)).collect();
        // The brace behind an `if` without `else` says nothing that its condition's outcome does not say.
        listed.retain(|missing| missing.code != "}");
        listed.sort();
        listed.dedup();
        listed
    }

    /// By file: how much there is and who reaches how much of it, as rows of Markdown.
    pub fn table(&self) -> String {
        let mut files: BTreeMap<&str, [Share; 3]> = BTreeMap::new();
        for (place, reached) in &self.places {
            let of_file = files.entry(&place.file).or_default();
            of_file[usize::from(place.outcome.is_some())].count(*reached);
            if self.refuses(place) {
                of_file[2].count(*reached);
            }
        }
        let mut total = [Share::default(); 3];
        let mut table = String::from(
            "| file | code: workload | and unit tests | outcomes: workload | and unit tests | refusals: workload | and unit tests |\n\
             |---|--:|--:|--:|--:|--:|--:|\n",
        );
        for (file, shares) in &files {
            row(&mut table, file, shares);
            for (sum, share) in total.iter_mut().zip(shares) {
                sum.add(*share);
            }
        }
        row(&mut table, "**all**", &total);
        table
    }
}

/// How many places there are, and how many of them are reached.
#[derive(Clone, Copy, Default)]
struct Share {
    all: usize,
    by_corpus: usize,
    by_any: usize,
}

impl Share {
    fn count(&mut self, reached: Reached) {
        self.add(Share { all: 1, by_corpus: reached.by_corpus.into(), by_any: reached.by_any().into() });
    }

    fn add(&mut self, other: Share) {
        self.all += other.all;
        self.by_corpus += other.by_corpus;
        self.by_any += other.by_any;
    }
}

fn row(table: &mut String, name: &str, shares: &[Share; 3]) {
    let _ = write!(table, "| {name} |");
    for share in shares {
        for reached in [share.by_corpus, share.by_any] {
            let _ = write!(table, " {reached} of {} |", share.all);
        }
    }
    table.push('\n');
}
