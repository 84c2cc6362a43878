//! The traps of `docs/traps.md` on a primary, each with a scenario that is sound with its guard and does harm without it
//! (`strata_regress::traps`). A test's name begins with the trap's id.
//!
//! `regress/run-suites.sh small traps` builds what it needs and runs all of them.

mod databases;
mod life;
mod lsn;
mod maps;
mod pages;
mod reuse;
