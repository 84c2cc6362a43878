//! How long a writer pauses for a pageserver that falls behind.
//!
//! Reads wait until the pageserver has the log that they must reflect, so a lag without bound would make every read of a page just
//! written wait without bound. Writers are slowed down, never stopped: the quorum keeps the log whether or not the pageserver lives, so
//! commits go on while it is away, each with the longest pause at most.

use std::time::Duration;

/// The longest pause of a commit.
pub const COMMIT_MAX: Duration = Duration::from_millis(100);
/// The longest pause of a writer whose relation has grown by another `GROWTH_BLOCKS` blocks: 25 MB/s. Shorter, because whoever lets the same
/// relation grow waits for it.
pub const GROWTH_MAX: Duration = Duration::from_millis(20);
/// 512 kB.
pub const GROWTH_BLOCKS: u32 = 64;

/// The pause of a writer that sees the pageserver `lag` bytes of log behind. None up to `limit` (0: there is none), then in proportion to
/// what is above it; `longest` from twice the limit on.
pub fn pause(lag: u64, limit: u64, longest: Duration) -> Duration {
    if limit == 0 || lag <= limit {
        return Duration::ZERO;
    }
    let excess = (lag - limit).min(limit);
    let micros = u128::from(excess) * longest.as_micros() / u128::from(limit);
    // What is above the limit costs something: one millisecond at least.
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn none_up_to_the_limit_and_the_longest_from_twice_as_much() {
        for (lag, millis) in [(0, 0), (100, 0), (101, 1), (150, 50), (200, 100), (u64::MAX, 100)] {
            assert_eq!(pause(lag, 100, COMMIT_MAX), Duration::from_millis(millis), "{lag}");
        }
        assert_eq!(pause(u64::MAX, 100, GROWTH_MAX), GROWTH_MAX);
        assert_eq!(pause(u64::MAX, 0, COMMIT_MAX), Duration::ZERO, "no limit");
    }

    proptest! {
        #[test]
        fn never_shorter_with_more_lag_and_never_too_long(lag: u64, more: u64, limit: u64) {
            let longer = pause(lag.saturating_add(more), limit, COMMIT_MAX);
            prop_assert!(pause(lag, limit, COMMIT_MAX) <= longer && longer <= COMMIT_MAX);
        }
    }
}
