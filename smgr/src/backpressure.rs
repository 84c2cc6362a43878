//! How long a writer pauses for a pageserver that falls behind.
//!
//! Reads wait until the pageserver has the log that they must reflect, so a lag without bound would make every read of a page just
//! written wait without bound. Writers are slowed down, never stopped: the quorum keeps the log whether or not the pageserver lives, so
//! commits go on while it is away, each with the longest pause at most.

use std::time::Duration;

/// What one look may cost a writer. It looks once for each commit and each time that a relation grows, which is up to half a megabyte of
/// a bulk load.
pub const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The pause of a writer that sees the pageserver `lag` bytes of log behind. None up to `limit` (0: there is none), then in proportion to
/// what is above it; the longest from twice the limit on.
pub fn pause(lag: u64, limit: u64) -> Duration {
    if limit == 0 || lag <= limit {
        return Duration::ZERO;
    }
    let excess = (lag - limit).min(limit);
    let micros = u128::from(excess) * PAUSE_MAX.as_micros() / u128::from(limit);
    // What is above the limit costs something: one millisecond at least.
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn none_up_to_the_limit_and_the_longest_from_twice_as_much() {
        assert_eq!(pause(0, 100), Duration::ZERO);
        assert_eq!(pause(100, 100), Duration::ZERO);
        assert_eq!(pause(101, 100), Duration::from_millis(1));
        assert_eq!(pause(150, 100), Duration::from_millis(50));
        assert_eq!(pause(200, 100), PAUSE_MAX);
        assert_eq!(pause(u64::MAX, 100), PAUSE_MAX);
        assert_eq!(pause(u64::MAX, 0), Duration::ZERO, "no limit");
    }

    proptest! {
        #[test]
        fn never_shorter_with_more_lag_and_never_too_long(lag: u64, more: u64, limit: u64) {
            let longer = pause(lag.saturating_add(more), limit);
            prop_assert!(pause(lag, limit) <= longer && longer <= PAUSE_MAX);
        }
    }
}
