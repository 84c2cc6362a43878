//! How much a suite does: the small size of `make test`, or the full one of `make soak`.
//!
//! One place for what the runner says (`run-suites.sh`); `sim`, which knows no Postgres and so not this crate, has its own.

/// Whether the full size is asked for: `STRATA_TEST_SIZE=full`.
pub fn is_full() -> bool {
    std::env::var("STRATA_TEST_SIZE").is_ok_and(|size| size == "full")
}
