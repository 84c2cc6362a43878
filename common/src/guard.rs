//! The guards against the traps of `docs/traps.md`, by name, and a switch that takes one away for a test.
//!
//! A test that shows a trap proves something only if it fails without the guard. Each guard of the product asks [`Guard::holds`]. In a
//! normal build that is `true`, known to the compiler, and nothing can change it. Built with the feature `guards-off`, which only
//! `setup/build-guards-off.sh` switches on, the guards that the environment variable `STRATA_GUARD_OFF` names are gone in that process.
//! The suite `regress/tests/traps` runs each trap with its guard and without (`STRATA_TEST_GUARDS=off`).

/// Names guards that are not there, with commas between them, in builds with the feature `guards-off`.
pub const VARIABLE: &str = "STRATA_GUARD_OFF";

macro_rules! guards {
    ($($(#[doc = $text:literal])* $name:ident = $id:literal,)+) => {
        /// What keeps a trap shut.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Guard {
            $($(#[doc = $text])* $name,)+
        }

        impl Guard {
            pub const ALL: &'static [Guard] = &[$(Guard::$name,)+];

            /// Begins with the trap's id.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Guard::$name => $id,)+
                }
            }
        }
    };
}

guards! {
    // Pages that change without enough WAL.
    /// A page with content that was never logged stops the server when it leaves.
    NotLogged = "W1-not-logged",
    /// Pages of an index that is being built are spilled.
    BuildPages = "W2-build-pages",
    /// The spill store forgets a page that is written with content of the log.
    EntryDies = "W2-entry-dies",
    /// A cut cuts the spill store, too.
    SpillCut = "W2-cut",
    /// A commit is refused while a page of it is nowhere but in the spill store.
    OnlyCopies = "W2-only-copies",
    /// A page that leaves shared buffers is read again at its LSN at least.
    PageLsn = "W3-page-lsn",
    /// The log is flushed as far as a read must reflect it.
    FlushFirst = "W4-flush-first",
    /// A page that is written past shared buffers is read again at its LSN at least.
    DirectLsn = "W5-direct-lsn",
    /// A page that is added past shared buffers makes its fork longer.
    DirectSize = "W5-direct-size",
    /// Heap pages with command ids of running transactions are spilled.
    CommandIds = "W6-command-ids",
    /// A multixact counts as running.
    MultiRuns = "W6-multixact",
    /// Pages are looked at unless no running transaction can have changed them.
    QuietBound = "W6-quiet-bound",
    /// A spilled page is later read from the log as of its spilling at least.
    SpillRaises = "W6-spill-raises",
    /// Heap pages with speculative tokens of running transactions are spilled.
    SpeculativeTokens = "W7-speculative-tokens",
    /// Btree pages with the cycle id of a running vacuum are spilled.
    CycleIds = "W8-cycle-ids",
    /// The page of a sequence that is ahead of its log is spilled.
    SequenceAhead = "W9-sequence-ahead",
    /// A clean stop logs images of sequences that are ahead of their log.
    SequenceImages = "W9-sequence-images",
    /// A block beyond what the log knows of its fork is one of zeros.
    ZerosBeyondEnd = "W13-zeros-beyond-end",
    /// Blocks that a record skips get zeros over what was there.
    GapZeros = "W14-gap-zeros",
    /// A restored image has its record's end as its LSN.
    ImageLsn = "W15-image-lsn",
    /// A restored image has zeros in its hole.
    ImageHole = "W15-image-hole",
    /// A restored image of zeros gets no LSN.
    ImageOfZeros = "W15-image-of-zeros",
    /// Redo of GiST and hash goes on after an image.
    BeyondImage = "W16-beyond-image",
    /// Blocks that are added without log make the fork longer.
    GrownSize = "W17-grown-size",
    /// Pages of free space maps are spilled.
    FreeSpaceSpilled = "W18-free-space-spilled",
    // Visibility map and free space map.
    /// INSERT clears map bits.
    InsertClears = "V1-insert",
    /// UPDATE clears map bits of the page that it takes a row from.
    UpdateOldClears = "V1-update-old",
    /// UPDATE clears map bits of the page that it puts a row on.
    UpdateNewClears = "V1-update-new",
    /// DELETE clears map bits.
    DeleteClears = "V1-delete",
    /// A row's lock clears the frozen bit.
    LockClears = "V1-lock",
    /// A lock on a row's later version clears the frozen bit.
    LockUpdatedClears = "V1-lock-updated",
    /// An insertion of many rows clears map bits.
    MultiInsertClears = "V1-multi-insert",
    /// Bits of a map page that does not exist are not cleared.
    MissingMapPage = "V3-missing-map-page",
    /// Pages of maps are read again as of the last cut of their relation at least.
    CutMaps = "V4-cut-maps",
    /// A cut clears the tail of the visibility map's last page.
    CutTail = "V4-cut-tail",
    /// Free space maps are logged as images.
    FreeSpaceImages = "V5-free-space-images",
    /// A written page with PD_ALL_VISIBLE raises its last-written LSN to the insert LSN.
    AllVisible = "V7-all-visible",
    // Relation size, existence, life and death.
    /// A size that this server changed is not forgotten before the pageserver has it.
    SizesAheadOfTheLog = "R1-sizes-ahead-of-the-log",
    /// A new fork raises the last-written LSNs of its relation.
    CreateRaises = "R1-create-raises",
    /// A creation of what is there already changes nothing.
    CreateKeepsSize = "R2-create-keeps-size",
    /// A cut raises the last-written LSNs of MAIN.
    TruncationRaises = "R4-truncation-raises",
    /// A dropped relation leaves last-written LSNs that its number's next owner meets.
    DropRaises = "R5-drop-raises",
    /// A dropped relation's spilled pages go with it.
    DropPurgesSpill = "R5-drop-purges-spill",
    /// After the record of a commit or an abort nobody asks the pageserver.
    NoNetworkInCommit = "R6-no-network-in-commit",
    /// What cannot be removed after a commit is a warning.
    UnlinkWarns = "R6-unlink-warns",
    /// Drops at ingest look nothing up.
    DropsLookNothingUp = "R7-drops-look-nothing-up",
    /// CREATE DATABASE by file_copy raises what every read must reflect.
    CopiedDatabaseRaises = "R9-copied-database-raises",
    /// CREATE DATABASE by file_copy is refused if its one record would be too large.
    LargeCopyRefused = "R9-large-copy-refused",
    /// DROP DATABASE forgets sizes and spilled pages of all its relations.
    DropDatabaseForgets = "R9-drop-database-forgets",
    /// DROP DATABASE raises what every read must reflect.
    DropDatabaseRaises = "R9-drop-database-raises",
    /// ALTER DATABASE SET TABLESPACE is refused.
    DatabaseMoveRefused = "R9-database-move-refused",
    /// CREATE TABLESPACE with a location is refused.
    LocationRefused = "R9-location-refused",
    /// The last block number is nobody's.
    BlockLimit = "R10-block-limit",
    /// A base backup makes the MAIN fork of an unlogged relation from its INIT fork.
    MainFromInit = "R11-main-from-init",
    /// An INIT fork is remote, whatever its relation is.
    InitIsRemote = "R11-init-is-remote",
    /// An INIT fork made after MAIN leaves MAIN's content alone.
    InitAfterMain = "R11-init-after-main",
    RelationSize = "R12-pg_relation_size",
    TableSize = "R12-pg_table_size",
    IndexesSize = "R12-pg_indexes_size",
    TotalRelationSize = "R12-pg_total_relation_size",
    DatabaseSizeByOid = "R12-pg_database_size-oid",
    DatabaseSizeByName = "R12-pg_database_size-name",
    TablespaceSizeByOid = "R12-pg_tablespace_size-oid",
    TablespaceSizeByName = "R12-pg_tablespace_size-name",
    /// DROP TABLESPACE asks the pageserver whether relations are left.
    TablespaceLooked = "R12-drop-tablespace-looks",
    // The lines of the rule in docs/facts/persistence.md.
    RuleRedo = "R13-3-redo",
    RuleInitFork = "R13-4-init-fork",
    RuleNoRecord = "R13-5-no-record",
    RuleOtherDatabase = "R13-5-other-database",
    RuleRecordSaysNothing = "R13-5-a-record-says-nothing",
    RuleCatalog = "R13-6-9-catalog",
    RuleSharedBuffer = "R13-7-shared-buffer",
    RuleZeroPage = "R13-8-zeros-say-nothing",
    RulePageLsn = "R13-8-page-lsn",
    RuleStoredInit = "R13-10-init-fork",
    RuleStoredMain = "R13-10-main",
    RuleStoredNeither = "R13-10-neither",
    RuleStays = "R13-a-decision-stays",
    /// A new relation's number must not be in use on the pageserver.
    ReuseRefused = "R14-reuse-refused",
    // LSN arithmetic and races.
    /// An insert pointer behind a page header means the end of the page before.
    EndOfLastRecord = "L1-end-of-last-record",
    /// A record that is asked for at a page's start begins behind the header.
    BehindTheHeader = "L1-behind-the-header",
    /// A primary wants the latest, not an LSN by name.
    LatestWanted = "L2-latest-wanted",
    /// A page that was asked for ahead is used only if its last-written LSN has not risen since.
    PrefetchRecheck = "L3-prefetch-recheck",
    /// A page that was asked for ahead and not read is cached as of when it was asked for.
    KeptAsOfAsked = "L3-kept-as-of-asked",
    /// Last-written LSNs are raised in one step.
    RaisedInOneStep = "L4-raised-in-one-step",
    /// The start LSN lies under all last-written LSNs.
    FloorAtStart = "L7-floor-at-start",
    /// A stream's start LSN lies under all its requests.
    StreamStart = "L7-stream-start",
    /// The pageserver waits for the log that an answer must reflect.
    WaitForLog = "L8-wait-for-log",
    // Processes.
    /// Who waits for an answer is woken when it is there.
    OwnersWoken = "P7-owners-woken",
    // The local file cache.
    /// A cache is kept only if the log goes on where its server's ended.
    KeptAtTheEnd = "C7-kept-at-the-end",
    /// A block that is added is dropped from the cache.
    AddedForgotten = "C9-added-forgotten",
}

impl Guard {
    /// The guard with this id.
    pub fn find(id: &str) -> Option<Guard> {
        Guard::ALL.iter().copied().find(|guard| guard.id() == id)
    }

    /// Whether the guard is there: always, but in a test of itself.
    #[cfg(not(feature = "guards-off"))]
    #[inline(always)]
    pub const fn holds(self) -> bool {
        true
    }

    /// Whether the guard is there.
    ///
    /// # Panics
    /// If the environment names a guard that does not exist: the test would prove nothing.
    #[cfg(feature = "guards-off")]
    pub fn holds(self) -> bool {
        use std::sync::OnceLock;
        static OFF: OnceLock<Vec<Guard>> = OnceLock::new();
        let off = OFF.get_or_init(|| {
            let ids = std::env::var(VARIABLE).unwrap_or_default();
            let named =
                |id| Guard::find(id).unwrap_or_else(|| panic!("{VARIABLE}: there is no guard '{id}'"));
            ids.split(',').filter(|id| !id.is_empty()).map(named).collect()
        });
        !off.contains(&self) && OFF_HERE.get() != Some(self)
    }

    /// For tests of pure code: `sound` holds, and in a build with the feature `guards-off` it does not hold without the guard.
    ///
    /// # Panics
    /// If it is otherwise.
    pub fn is_needed_for(self, sound: impl Fn() -> bool) {
        prove(self, || assert!(sound(), "the guard {} does not help", self.id()));
    }
}

#[cfg(feature = "guards-off")]
thread_local! {
    /// The guard that is gone on this thread.
    static OFF_HERE: std::cell::Cell<Option<Guard>> = const { std::cell::Cell::new(None) };
}

/// Runs `body` without a guard, as far as this thread goes.
#[cfg(feature = "guards-off")]
pub fn without<T>(guard: Guard, body: impl FnOnce() -> T) -> T {
    struct Back(Option<Guard>);
    impl Drop for Back {
        fn drop(&mut self) {
            OFF_HERE.set(self.0);
        }
    }
    let _back = Back(OFF_HERE.replace(Some(guard)));
    body()
}

/// `body` for another thread, where the same guard is gone as on this one.
pub fn carried<T>(body: impl FnOnce() -> T) -> impl FnOnce() -> T {
    #[cfg(feature = "guards-off")]
    let off = OFF_HERE.get();
    move || {
        #[cfg(feature = "guards-off")]
        OFF_HERE.set(off);
        body()
    }
}

/// For tests of crates without a server: `test` passes; where guards can be taken away it must fail without this one.
///
/// # Panics
/// If `test` does, or if it does not notice that the guard is gone.
pub fn prove(guard: Guard, test: impl Fn()) {
    test();
    #[cfg(feature = "guards-off")]
    {
        let unnoticed =
            without(guard, || std::panic::catch_unwind(std::panic::AssertUnwindSafe(&test)).is_ok());
        assert!(!unnoticed, "without the guard {} nothing went wrong: the test shows nothing", guard.id());
    }
    #[cfg(not(feature = "guards-off"))]
    let _ = guard;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_begin_with_a_trap() {
        for guard in Guard::ALL {
            assert_eq!(Guard::find(guard.id()), Some(*guard));
            let trap = guard.id().split('-').next().unwrap_or_default();
            let number = trap.strip_prefix(['W', 'V', 'R', 'L', 'C', 'S', 'K', 'G', 'H', 'P']);
            assert!(number.is_some_and(|number| number.parse::<u8>().is_ok()), "{}", guard.id());
        }
    }
}
