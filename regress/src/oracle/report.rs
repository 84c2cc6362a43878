//! Counts of an oracle run, by record type, and the mismatches.

use std::collections::BTreeMap;
use std::fmt;

use strata_common::Lsn;
use strata_pgwal::{DecodedRecord, rmgr};
use strata_redo::PageId;

use super::variant;

/// Mismatches that are kept with their text; the rest is only counted.
const MISMATCHES_KEPT_MAX: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TypeCounts {
    pub records: u64,
    /// Pages compared with an image.
    pub compared: u64,
    /// Pages restored from an image: equal by definition.
    pub restored: u64,
    /// Pages that the record names without an image.
    pub without_image: u64,
    pub mismatches: u64,
}

/// A page that is not what it should be.
#[derive(Clone, Debug)]
pub struct Mismatch {
    pub record: String,
    pub lsn: Lsn,
    pub page: Option<PageId>,
    pub text: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.record, self.lsn)?;
        if let Some(page) = self.page {
            write!(f, ", {page}")?;
        }
        write!(f, ": {}", self.text)
    }
}

#[derive(Default, Debug)]
pub struct Report {
    /// By record type, such as `Heap/INSERT+INIT`.
    pub types: BTreeMap<String, TypeCounts>,
    /// Branches of redo that a record type alone does not tell: how many records took each.
    pub variants: BTreeMap<&'static str, u64>,
    pub mismatches: Vec<Mismatch>,
    pub mismatch_count: u64,
}

impl Report {
    fn counts(&mut self, record: &DecodedRecord) -> &mut TypeCounts {
        self.types.entry(record.name()).or_default()
    }

    pub(super) fn saw(&mut self, record: &DecodedRecord) {
        self.counts(record).records += 1;
        variant::for_each(record, |name| *self.variants.entry(name).or_default() += 1);
    }

    pub(super) fn compared(&mut self, record: &DecodedRecord) {
        self.counts(record).compared += 1;
    }

    pub(super) fn restored(&mut self, record: &DecodedRecord) {
        self.counts(record).restored += 1;
    }

    pub(super) fn without_image(&mut self, record: &DecodedRecord) {
        self.counts(record).without_image += 1;
    }

    pub(super) fn mismatch(&mut self, record: &DecodedRecord, page: Option<PageId>, text: String) {
        self.counts(record).mismatches += 1;
        self.mismatch_count += 1;
        if self.mismatches.len() < MISMATCHES_KEPT_MAX {
            self.mismatches.push(Mismatch { record: record.name(), lsn: record.lsn, page, text });
        }
    }

    pub fn records(&self) -> u64 {
        self.types.values().map(|counts| counts.records).sum()
    }

    pub fn compared_pages(&self) -> u64 {
        self.types.values().map(|counts| counts.compared).sum()
    }

    /// Pages that a record names without an image: with checking on, none.
    pub fn pages_without_image(&self) -> u64 {
        self.types.values().map(|counts| counts.without_image).sum()
    }

    /// Adds what another run counted.
    pub fn absorb(&mut self, other: &Report) {
        for (name, counts) in &other.types {
            let sum = self.types.entry(name.clone()).or_default();
            sum.records += counts.records;
            sum.compared += counts.compared;
            sum.restored += counts.restored;
            sum.without_image += counts.without_image;
            sum.mismatches += counts.mismatches;
        }
        for (name, count) in &other.variants {
            *self.variants.entry(name).or_default() += count;
        }
        let room = MISMATCHES_KEPT_MAX.saturating_sub(self.mismatches.len());
        self.mismatches.extend(other.mismatches.iter().take(room).cloned());
        self.mismatch_count += other.mismatch_count;
    }

    /// Record types of Postgres that never appeared.
    pub fn unseen_types(&self) -> Vec<String> {
        rmgr::record_names().filter(|name| !self.types.contains_key(name)).collect()
    }

    /// Which of `wanted` never appeared, as record types or as variants.
    pub fn missing<'a>(&self, wanted: &[&'a str]) -> Vec<&'a str> {
        let seen = |name: &str| self.types.contains_key(name) || self.variants.contains_key(name);
        wanted.iter().copied().filter(|name| !seen(name)).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["record type", "records", "compared", "restored", "no image", "mismatches"];
        writeln!(
            f,
            "{:34}{:>9}{:>10}{:>10}{:>10}{:>12}",
            head[0], head[1], head[2], head[3], head[4], head[5]
        )?;
        for (name, TypeCounts { records, compared, restored, without_image, mismatches }) in &self.types {
            writeln!(
                f,
                "{name:34}{records:>9}{compared:>10}{restored:>10}{without_image:>10}{mismatches:>12}"
            )?;
        }
        for (name, count) in &self.variants {
            writeln!(f, "  {name:32}{count:>9}")?;
        }
        for mismatch in &self.mismatches {
            writeln!(f, "MISMATCH {mismatch}")?;
        }
        write!(f, "{} records, {} pages compared, ", self.records(), self.compared_pages())?;
        write!(f, "{} mismatches", self.mismatch_count)
    }
}
