//! What a run says: one row a measurement, as JSON for programs and as a table for people. README.md describes the fields.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::markdown;

/// One measurement in one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub id: String,
    pub name: String,
    /// Median of ours, in `unit`.
    pub ours: f64,
    /// Median of the peer's, if there is a peer.
    pub peer: Option<f64>,
    /// Median of the ratios of the alternating rounds, ours ÷ peer.
    pub ratio: Option<f64>,
    pub unit: String,
    /// Rounds.
    pub n: usize,
    /// Smallest and largest: of the rounds' ratios if there is a peer, else of ours.
    pub min: f64,
    pub max: f64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

/// One alternating round.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub ours: f64,
    pub peer: f64,
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    assert!(!values.is_empty(), "a row without a measurement");
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// Four significant digits are more than a timing holds.
fn rounded(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let factor = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * factor).round() / factor
}

impl Row {
    /// A measurement beside its peer's.
    pub fn compared(id: &str, name: impl Into<String>, unit: &str, pairs: &[Pair]) -> Row {
        let ratios = sorted(pairs.iter().map(|pair| pair.ours / pair.peer));
        let ours = sorted(pairs.iter().map(|pair| pair.ours));
        let peer = sorted(pairs.iter().map(|pair| pair.peer));
        Row {
            id: id.to_owned(),
            name: name.into(),
            ours: rounded(median(&ours)),
            peer: Some(rounded(median(&peer))),
            ratio: Some(rounded(median(&ratios))),
            unit: unit.to_owned(),
            n: pairs.len(),
            min: rounded(ratios[0]),
            max: rounded(ratios[ratios.len() - 1]),
            note: String::new(),
            details: Value::Null,
        }
    }

    /// A measurement whose target is absolute.
    pub fn alone(id: &str, name: impl Into<String>, unit: &str, values: &[f64]) -> Row {
        let ours = sorted(values.iter().copied());
        Row {
            id: id.to_owned(),
            name: name.into(),
            ours: rounded(median(&ours)),
            peer: None,
            ratio: None,
            unit: unit.to_owned(),
            n: ours.len(),
            min: rounded(ours[0]),
            max: rounded(ours[ours.len() - 1]),
            note: String::new(),
            details: Value::Null,
        }
    }

    pub fn note(mut self, note: impl Into<String>) -> Row {
        self.note = note.into();
        self
    }

    pub fn details(mut self, details: Value) -> Row {
        self.details = details;
        self
    }

    /// The id without its variant: B2 of `B2.8`.
    pub fn benchmark(&self) -> &str {
        self.id.split('.').next().unwrap_or(&self.id)
    }

    fn line(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value}"));
        format!(
            "{:<20} {:<58} {:>9} {:>9} {:>7}  {:<9} {:>3} {:>8} {:>8}",
            self.id,
            self.name,
            self.ours,
            number(self.peer),
            number(self.ratio),
            self.unit,
            self.n,
            self.min,
            self.max
        )
    }
}

/// The rows of a run, shown as they come and written at the end.
pub struct Table {
    out: PathBuf,
    rows: Vec<Row>,
}

/// The machine's load averages, a hint of who else is at work.
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Progress, on standard error: standard output holds the table alone.
pub fn progress(what: &str) {
    eprintln!("    {what}");
}

impl Table {
    pub fn new(out: PathBuf) -> Table {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        println!("{cores} cores, load averages before the run: {}", load_average());
        println!(
            "{:<20} {:<58} {:>9} {:>9} {:>7}  {:<9} {:>3} {:>8} {:>8}",
            "id", "name", "ours", "peer", "ratio", "unit", "n", "min", "max"
        );
        Table { out, rows: Vec::new() }
    }

    pub fn add(&mut self, row: Row) {
        println!("{}", row.line());
        self.rows.push(row);
    }

    /// Prints the notes and writes the JSON, whole or not at all.
    pub fn finish(self) -> Result<()> {
        let mut notes = String::new();
        for row in self.rows.iter().filter(|row| !row.note.is_empty()) {
            writeln!(notes, "{}: {}", row.id, row.note)?;
        }
        print!("{notes}{}", markdown::waits(&self.rows));
        println!("load averages after the run: {}", load_average());
        let folder = self.out.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let new = self.out.with_extension("json.new");
        let text = serde_json::to_string_pretty(&self.rows)? + "\n";
        std::fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
        std::fs::rename(&new, &self.out).with_context(|| format!("cannot write {}", self.out.display()))?;
        println!("written: {}", self.out.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_has_the_median_and_the_bounds_of_the_rounds_ratios() {
        let pairs = [(300.0, 100.0), (100.0, 100.0), (100.0, 50.0)].map(|(ours, peer)| Pair { ours, peer });
        let row = Row::compared("B2.8", "x", "tps", &pairs);
        assert_eq!((row.ours, row.peer, row.ratio), (100.0, Some(100.0), Some(2.0)));
        assert_eq!((row.n, row.min, row.max), (3, 1.0, 3.0));
        assert_eq!(row.benchmark(), "B2");
    }

    #[test]
    fn a_row_alone_has_the_bounds_of_ours_and_no_peer() {
        let row = Row::alone("B9", "x", "ms", &[40.0, 10.0, 20.0, 33.0]);
        assert_eq!((row.ours, row.n, row.min, row.max), (26.5, 4, 10.0, 40.0));
        let json = serde_json::to_value(&row).expect("a row is JSON");
        assert_eq!((&json["peer"], &json["ratio"]), (&Value::Null, &Value::Null));
        assert!(json.get("note").is_none() && json.get("details").is_none());
    }

    #[test]
    fn four_digits_are_kept() {
        assert_eq!([rounded(1234.56), rounded(0.0123456), rounded(0.0)], [1235.0, 0.01235, 0.0]);
    }
}
