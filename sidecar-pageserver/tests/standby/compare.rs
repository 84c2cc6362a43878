//! What the pageserver answers as of an LSN against what a standby has on disk that stopped there.
//!
//! Both replayed the same log, so that nothing is let pass for one of them having worked without log. What may differ: hint bits that
//! the standby's one client set in catalogs (then both pages are masked), the LSN in pages of the visibility map (V6), and free space
//! maps, which are not in the log (V5). Relations of unlogged tables are their INIT forks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelFork, RelTag, TenantTimelineId};
use strata_pageserver::import::datadir::relation_path;
use strata_pageserver::keyspace::{self, KeyName, Kind, values::decode_blocks};
use strata_pageserver::node::EngineTimeline;
use strata_pgwal::rmgr;
use strata_redo::effect::DatabaseTag;
use strata_redo::mask::vm::Bits;
use strata_redo::{Page, SlruKind, SlruPage, mask};
use strata_regress::oracle::compare;
use strata_regress::points::Chance;
use strata_regress::replay::{fork_sizes, relation_maps, slru_pages};
use strata_regress::wal_files::control_file;

use crate::harness::Harness;

/// `FirstNormalObjectId`: relations below belong to Postgres.
const FIRST_NORMAL_OID: u32 = 16384;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    Size(RelFork),
    Page(RelFork, BlockNumber),
    RelMap(DatabaseTag),
    Slru(SlruPage),
    TwoPhase(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Size(rel) => write!(f, "size of {rel}"),
            Place::Page(rel, block) => write!(f, "{rel} block {block}"),
            Place::RelMap(of) => write!(f, "relation map of {}/{}", of.tablespace, of.database),
            Place::Slru(page) => write!(f, "{page}"),
            Place::TwoPhase(xid) => write!(f, "prepared transaction {xid}"),
        }
    }
}

pub struct Difference {
    pub place: Place,
    pub text: String,
}

/// Which relations' pages are compared.
pub struct Picked<'a>(Option<(usize, &'a mut Chance)>);

impl<'a> Picked<'a> {
    pub fn all() -> Picked<'a> {
        Picked(None)
    }

    /// Half of them from the workload's own relations, half from all there are.
    pub fn some(count: usize, chance: &'a mut Chance) -> Picked<'a> {
        Picked(Some((count, chance)))
    }

    fn relations(&mut self, sizes: &BTreeMap<RelFork, u32>) -> BTreeSet<RelTag> {
        let all: BTreeSet<RelTag> =
            sizes.iter().filter(|(_, blocks)| **blocks > 0).map(|(fork, _)| fork.rel).collect();
        let Some((count, chance)) = &mut self.0 else { return all };
        let own: Vec<RelTag> = all.iter().filter(|rel| rel.relation >= FIRST_NORMAL_OID).copied().collect();
        let mut picked: BTreeSet<RelTag> = chance.some(&own, *count / 2).into_iter().collect();
        let others: Vec<RelTag> = all.difference(&picked).copied().collect();
        picked.extend(chance.some(&others, *count - picked.len()));
        picked
    }
}

#[derive(Default, Debug)]
pub struct Counts {
    stops: usize,
    relations: usize,
    /// By resource manager of the page's kind; maps count as `None`.
    pages: BTreeMap<Option<u8>, usize>,
    /// Pages that are the same only once they are masked.
    masked: usize,
    sizes: usize,
    maps: usize,
    slru_pages: BTreeMap<&'static str, usize>,
    prepared: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages: usize = self.pages.values().sum();
        writeln!(
            f,
            "{} stops, {} relations, {pages} pages ({} of them masked), {} sizes, {} relation maps, {} prepared transactions",
            self.stops, self.relations, self.masked, self.sizes, self.maps, self.prepared
        )?;
        write!(f, "pages by kind {:?}, SLRU pages {:?}", self.pages, self.slru_pages)
    }
}

impl Counts {
    /// That nothing was left out without anybody noticing.
    pub fn check(&self, stops: usize) -> Result<()> {
        ensure!(self.stops == stops, "{} stops instead of {stops}", self.stops);
        let kinds = [
            rmgr::HEAP,
            rmgr::BTREE,
            rmgr::HASH,
            rmgr::GIN,
            rmgr::GIST,
            rmgr::SEQ,
            rmgr::SPGIST,
            rmgr::BRIN,
            rmgr::GENERIC,
        ];
        for kind in kinds.map(Some).into_iter().chain([None]) {
            ensure!(self.pages.contains_key(&kind), "no page of kind {kind:?} was compared");
        }
        let pages: usize = self.pages.values().sum();
        ensure!(self.masked * 20 < pages, "{} of {pages} pages are the same only when masked", self.masked);
        ensure!(self.slru_pages.len() == SlruKind::ALL.len(), "an SLRU was left out: {:?}", self.slru_pages);
        // The shared one and three databases' at every stop, and those of databases that come and go at some.
        ensure!(self.maps > 4 * stops, "{} relation maps in {stops} stops", self.maps);
        ensure!(self.prepared > 0, "no prepared transaction was compared");
        Ok(())
    }
}

/// Both sides at one LSN.
struct Sides<'a> {
    harness: &'a Harness,
    timeline: Arc<EngineTimeline>,
    lsn: Lsn,
    data: &'a Path,
    counts: &'a mut Counts,
    found: Vec<Difference>,
}

/// Everything but pages, and the pages of what is picked. `data` is the data folder of a standby that has written out.
pub fn compare(
    harness: &Harness,
    id: TenantTimelineId,
    lsn: Lsn,
    data: &Path,
    picked: &mut Picked,
    counts: &mut Counts,
) -> Result<Vec<Difference>> {
    let timeline = harness.timeline(id)?;
    let mut sides = Sides { harness, timeline, lsn, data, counts, found: Vec::new() };
    sides.counts.stops += 1;
    let sizes = sides.sizes()?;
    for rel in picked.relations(&sizes) {
        sides.counts.relations += 1;
        for (&fork, &blocks) in sizes.range(rel.fork(ForkNumber::Main)..=rel.fork(ForkNumber::Init)) {
            sides.fork(fork, blocks)?;
        }
    }
    sides.relation_maps()?;
    sides.slrus()?;
    sides.two_phase()?;
    Ok(sides.found)
}

impl Sides<'_> {
    fn differ(&mut self, place: Place, text: impl Into<String>) {
        self.found.push(Difference { place, text: text.into() });
    }

    fn scan(&self, kind: Kind) -> Result<Vec<(KeyName, Bytes)>> {
        let view = self.timeline.view(self.lsn);
        let found = self.harness.block_on(view.scan_live(keyspace::kind_range(kind)))?;
        found
            .into_iter()
            .map(|(key, value)| Ok((KeyName::of(key).context("a key has a name")?, value)))
            .collect()
    }

    /// Compares all sizes; those of the standby, without what is not in the log.
    fn sizes(&mut self) -> Result<BTreeMap<RelFork, u32>> {
        let mut theirs = fork_sizes(self.data)?;
        let unlogged: BTreeSet<RelTag> =
            theirs.keys().filter(|fork| fork.fork == ForkNumber::Init).map(|fork| fork.rel).collect();
        let is_logged = |fork: &RelFork| fork.fork == ForkNumber::Init || !unlogged.contains(&fork.rel);
        theirs.retain(|fork, _| is_logged(fork));
        let mut ours = BTreeMap::new();
        for (name, value) in self.scan(Kind::RelSize)? {
            if let (KeyName::RelSize(fork), Some(blocks)) = (name, decode_blocks(&value)?)
                && fork.fork != ForkNumber::FreeSpaceMap
                && is_logged(&fork)
            {
                ours.insert(fork, blocks);
            }
        }
        for fork in theirs.keys().chain(ours.keys()).copied().collect::<BTreeSet<_>>() {
            self.counts.sizes += 1;
            let (there, here) = (theirs.get(&fork), ours.get(&fork));
            if there != here {
                self.differ(Place::Size(fork), format!("{here:?} blocks, the standby has {there:?}"));
            }
        }
        Ok(theirs)
    }

    fn fork(&mut self, fork: RelFork, blocks: u32) -> Result<()> {
        let path = self.data.join(relation_path(fork));
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let (pages, _) = bytes.as_chunks::<BLOCK_BYTES>();
        ensure!(pages.len() == blocks as usize, "the standby changed {fork} while it was looked at");
        let ours = self.harness.block_on(self.timeline.rel_blocks(fork, self.lsn))?.unwrap_or(0);
        for (block, theirs) in (0..).map(BlockNumber).zip(pages) {
            let read = self.timeline.page(fork, block, ours, self.lsn);
            match self.harness.block_on(read) {
                Ok(page) => self.page(fork, block, &page[..].try_into()?, theirs),
                Err(error) => self.differ(Place::Page(fork, block), error.to_string()),
            }
        }
        Ok(())
    }

    fn page(&mut self, fork: RelFork, block: BlockNumber, ours: &Page, theirs: &Page) {
        let is_map = fork.fork == ForkNumber::VisibilityMap;
        let kind = if is_map { None } else { mask::resource_manager_of(theirs) };
        let is_zero = *theirs == [0; BLOCK_BYTES];
        if !is_zero {
            *self.counts.pages.entry(kind).or_default() += 1;
        }
        if ours == theirs {
            return;
        }
        let difference = match kind {
            _ if is_map => compare::map_pages(ours, theirs, Bits::Equal),
            Some(kind) => {
                self.counts.masked += 1;
                compare::pages(kind, block, ours, theirs)
            }
            None => Some("it is of no known kind, or zero, on the standby".to_owned()),
        };
        if let Some(text) = difference {
            self.differ(Place::Page(fork, block), text);
        }
    }

    fn relation_maps(&mut self) -> Result<()> {
        let theirs = relation_maps(self.data)?;
        let mut ours = BTreeMap::new();
        for (name, value) in self.scan(Kind::RelMap)? {
            if let KeyName::RelMap { tablespace, database } = name {
                ours.insert(DatabaseTag { tablespace, database }, value);
            }
        }
        for database in theirs.keys().chain(ours.keys()).copied().collect::<BTreeSet<_>>() {
            self.counts.maps += 1;
            if theirs.get(&database) != ours.get(&database) {
                self.differ(Place::RelMap(database), "another map, or only one side has it");
            }
        }
        Ok(())
    }

    fn slrus(&mut self) -> Result<()> {
        let theirs = slru_pages(self.data)?;
        let mut ours = BTreeSet::new();
        for kind in SlruKind::ALL {
            let view = self.timeline.view(self.lsn);
            for (segment, pages) in self.harness.block_on(view.slru_segments(kind))? {
                let first = segment * keyspace::SLRU_PAGES_PER_SEGMENT;
                ours.extend((first..first + pages).map(|page| SlruPage { kind, page: page.into() }));
            }
        }
        for page in theirs.keys().chain(&ours).copied().collect::<BTreeSet<_>>() {
            *self.counts.slru_pages.entry(page.kind.folder()).or_default() += 1;
            let Some(content) = theirs.get(&page) else {
                self.differ(Place::Slru(page), "the standby does not have it");
                continue;
            };
            if !ours.contains(&page) {
                self.differ(Place::Slru(page), "only the standby has it");
                continue;
            }
            let view = self.timeline.view(self.lsn);
            let found = self.harness.block_on(view.slru_page(page.kind, u32::try_from(page.page)?))?;
            let at = found.iter().zip(&content[..]).position(|(ours, theirs)| ours != theirs);
            if let Some(at) = at {
                self.differ(Place::Slru(page), format!("differs from byte {at} on"));
            }
        }
        Ok(())
    }

    /// A file is written for a transaction that was prepared before the checkpoint that the standby wrote out for
    /// (`CheckPointTwoPhase` in `src/backend/access/transam/twophase.c`); later ones are in its memory only.
    fn two_phase(&mut self) -> Result<()> {
        let redo = control_file(self.data)?.checkpoint_copy.redo;
        let mut theirs = BTreeMap::new();
        for entry in std::fs::read_dir(self.data.join("pg_twophase"))? {
            let entry = entry?;
            let xid = u64::from_str_radix(&entry.file_name().to_string_lossy(), 16)?;
            theirs.insert(xid, Bytes::from(std::fs::read(entry.path())?));
        }
        let mut ours = BTreeMap::new();
        let before = self.timeline.view(redo);
        for (name, value) in self.scan(Kind::TwoPhase)? {
            let KeyName::TwoPhase(xid) = name else { continue };
            if self.harness.block_on(before.value(keyspace::two_phase(xid)))?.is_some() {
                ours.insert(xid, value);
            }
        }
        for xid in theirs.keys().chain(ours.keys()).copied().collect::<BTreeSet<_>>() {
            self.counts.prepared += 1;
            if theirs.get(&xid) != ours.get(&xid) {
                self.differ(Place::TwoPhase(xid), "another file, or only one side has it");
            }
        }
        Ok(())
    }
}
