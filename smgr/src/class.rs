//! Which relation is permanent: the storage manager is not told, so it is derived (trap R13).
//!
//! A relation starts undecided and owns nothing; each thing seen of it may settle the question, and once settled it stays so
//! until the relation goes, but for one correction: a new INIT fork makes a relation unlogged (SET UNLOGGED writes a new
//! relation, so this only ever meets undecided ones and those already unlogged). A wrong answer loses data, so each
//! observation says nothing rather than something doubtful. Temporary relations never come here. `wal_level` must be at
//! least `replica`: with `minimal`, pages filled in bulk carry no LSN and `PrivatePage` would be wrong.

use strata_common::{Guard, Lsn};

/// How a relation is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Made, but not yet known as what. It has no content but zeros, and only its maker sees it.
    Undecided,
    /// In the log and on the pageserver.
    Permanent,
    /// In local files; only the INIT fork is on the pageserver.
    Unlogged,
}

/// Something seen of a relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observation {
    /// Redo makes a fork: only permanent relations and INIT forks are in the log.
    CreatedInRedo,
    /// The INIT fork is made.
    CreatedInitFork,
    /// Its maker calls again. `log_at_create` and `log_now` are the end of the maker's last record then and now. For a permanent
    /// relation a record lies between; one in another database is made by CREATE DATABASE, which logs nothing else between.
    MakerReturns { log_at_create: Lsn, log_now: Lsn, in_other_database: bool },
    /// The relation cache or the catalog says it (`relpersistence`).
    Catalog { permanent: bool },
    /// A page of MAIN, FSM or VM that lies, or is about to lie, in shared buffers, with its buffer's BM_PERMANENT.
    SharedBuffer { permanent: bool },
    /// A page that its maker hands over from private memory (bulk writes): a logged one carries the end of the maker's last record.
    PrivatePage { all_zero: bool, page_lsn: Lsn, log_now: Lsn },
    /// Not made in this server's life: which forks the pageserver has. Never "no INIT fork, so permanent": an index on an unlogged
    /// table that failed to build has neither.
    Stored { init: bool, main: bool },
}

/// What an observation says, if anything, about an undecided or unknown relation.
pub fn decide(observation: Observation) -> Option<Class> {
    use Observation as O;
    let of = |permanent| Some(if permanent { Class::Permanent } else { Class::Unlogged });
    match observation {
        O::CreatedInRedo if Guard::RuleRedo.holds() => of(true),
        O::CreatedInitFork if Guard::RuleInitFork.holds() => of(false),
        O::MakerReturns { log_at_create, log_now, .. }
            if log_at_create == log_now && Guard::RuleNoRecord.holds() =>
        {
            of(false)
        }
        O::MakerReturns { in_other_database: true, .. } if Guard::RuleOtherDatabase.holds() => of(true),
        O::MakerReturns { .. } if Guard::RuleRecordSaysNothing.holds() => None,
        O::Catalog { permanent } if Guard::RuleCatalog.holds() => of(permanent),
        O::SharedBuffer { permanent } if Guard::RuleSharedBuffer.holds() => of(permanent),
        O::PrivatePage { all_zero: true, .. } if Guard::RuleZeroPage.holds() => None,
        O::PrivatePage { page_lsn, log_now, .. } if Guard::RulePageLsn.holds() => {
            of(page_lsn == log_now && page_lsn.is_valid())
        }
        O::Stored { init: true, .. } if Guard::RuleStoredInit.holds() => of(false),
        O::Stored { main: true, .. } if Guard::RuleStoredMain.holds() => of(true),
        O::Stored { main: false, .. } if Guard::RuleStoredNeither.holds() => of(false),
        // Only without one of the guards: guessed, or left open.
        O::MakerReturns { .. } | O::Stored { main: false, .. } => of(true),
        O::CreatedInRedo
        | O::CreatedInitFork
        | O::Catalog { .. }
        | O::SharedBuffer { .. }
        | O::PrivatePage { .. }
        | O::Stored { .. } => None,
    }
}

/// The class after an observation. Decided relations stay what they are.
pub fn after(class: Class, observation: Observation) -> Class {
    match class {
        Class::Undecided => decide(observation).unwrap_or(Class::Undecided),
        decided if Guard::RuleStays.holds() => decided,
        decided => decide(observation).unwrap_or(decided),
    }
}

/// Whether an observation denies what was decided: a bug, and the shadow mode's check.
pub fn contradicts(class: Class, observation: Observation) -> bool {
    let certain = matches!(observation, Observation::Catalog { .. } | Observation::SharedBuffer { .. });
    certain && class != Class::Undecided && decide(observation) != Some(class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Class::{Permanent, Undecided, Unlogged};
    use Observation as O;
    use strata_common::guard::prove;

    const A: Lsn = Lsn(0x100_0028);
    const B: Lsn = Lsn(0x100_0060);

    fn returns(log_now: Lsn, in_other_database: bool) -> O {
        O::MakerReturns { log_at_create: A, log_now, in_other_database }
    }

    fn private(page_lsn: Lsn) -> O {
        O::PrivatePage { all_zero: false, page_lsn, log_now: B }
    }

    const ZERO: O = O::PrivatePage { all_zero: true, page_lsn: Lsn(0), log_now: B };

    /// Each line is needed.
    #[test]
    fn trap_r13_every_line_of_the_rule() {
        use Guard::*;
        for line in [
            RuleRedo,
            RuleInitFork,
            RuleNoRecord,
            RuleOtherDatabase,
            RuleRecordSaysNothing,
            RuleCatalog,
            RuleSharedBuffer,
            RuleZeroPage,
            RulePageLsn,
            RuleStoredInit,
            RuleStoredMain,
            RuleStoredNeither,
        ] {
            prove(line, every_line_of_the_rule);
        }
        prove(RuleStays, a_decision_stays);
    }

    /// One line of the rule each, as the story of one relation from its creation on.
    #[test]
    fn every_line_of_the_rule() {
        let stories: &[(&str, &[O], Class)] = &[
            ("nothing seen", &[], Undecided),
            ("3 redo makes it", &[O::CreatedInRedo], Permanent),
            (
                "4 CREATE UNLOGGED TABLE: INIT right after MAIN",
                &[returns(A, false), O::CreatedInitFork],
                Unlogged,
            ),
            ("4 INIT after another record (sequence)", &[returns(B, false), O::CreatedInitFork], Unlogged),
            ("5 no record since: not permanent", &[returns(A, false)], Unlogged),
            ("5 a record since says nothing here", &[returns(B, false)], Undecided),
            ("5 a record since, in another database", &[returns(B, true)], Permanent),
            ("5 CREATE DATABASE copies an unlogged relation", &[returns(A, true)], Unlogged),
            ("6 CREATE TABLE", &[returns(B, false), O::Catalog { permanent: true }], Permanent),
            ("6 an unlogged index", &[O::Catalog { permanent: false }], Unlogged),
            ("7 first zero-extension", &[returns(B, false), O::SharedBuffer { permanent: true }], Permanent),
            (
                "7 first zero-extension, unlogged",
                &[returns(B, false), O::SharedBuffer { permanent: false }],
                Unlogged,
            ),
            ("8 a logged private page", &[returns(B, false), private(B)], Permanent),
            ("8 an unlogged private page", &[returns(B, false), private(Lsn(0))], Unlogged),
            ("8 an old LSN is a copied unlogged page", &[returns(B, false), private(A)], Unlogged),
            ("8 zeros say nothing", &[returns(B, false), ZERO], Undecided),
            ("8 zeros, then a logged page", &[returns(B, false), ZERO, private(B)], Permanent),
            (
                "9 TRUNCATE leaves it empty until commit",
                &[returns(B, false), O::Catalog { permanent: true }],
                Permanent,
            ),
            ("10 unlogged before the start", &[O::Stored { init: true, main: false }], Unlogged),
            ("10 unlogged, MAIN known too", &[O::Stored { init: true, main: true }], Unlogged),
            ("10 permanent before the start", &[O::Stored { init: false, main: true }], Permanent),
            ("10 neither: local, never permanent", &[O::Stored { init: false, main: false }], Unlogged),
        ];
        for (what, seen, class) in stories {
            let end = seen.iter().fold(Undecided, |class, observation| after(class, *observation));
            assert_eq!(end, *class, "{what}");
        }
    }

    #[test]
    fn a_decision_stays() {
        for class in [Permanent, Unlogged] {
            for seen in [returns(A, false), private(A), private(B), O::Stored { init: false, main: true }] {
                assert_eq!(after(class, seen), class);
            }
        }
        assert!(contradicts(Permanent, O::SharedBuffer { permanent: false }));
        assert!(contradicts(Unlogged, O::Catalog { permanent: true }));
        assert!(!contradicts(Undecided, O::Catalog { permanent: true }));
        assert!(!contradicts(Permanent, private(A)));
    }
}
