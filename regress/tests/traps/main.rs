//! The traps of `docs/traps.md` on a primary, each with a scenario that is sound with its guard and does harm without it
//! (`strata_regress::traps`). A test's name begins with the trap's id; `docs/traps-tested.md` lists them.
//!
//! `regress/run-suites.sh small traps` builds what it needs and runs all of them.

mod builds;
mod cached;
mod cycle_ids;
mod databases;
mod direct;
mod life;
mod lsn;
mod maps;
mod pages;
mod plain_index;
mod reuse;
mod sizes;
mod waits;
