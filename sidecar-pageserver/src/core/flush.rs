//! When an open layer is frozen, and when the log must wait for memory.
//!
//! Freezing happens between records only (trap G3). Memory is what the open and the frozen layers hold; a frozen layer's memory comes back
//! when its file is on disk. Above the bound the writer of the log waits; reads go on.

/// Sizes in bytes, ages in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct FlushPolicy {
    /// The open layer is frozen when it holds this much.
    pub layer_bytes_target: u64,
    /// ... or when its first value is this old; ten times this if it holds less than a 1024th of the target.
    pub open_age_ms_max: u64,
    /// Open and frozen layers of one timeline together never hold more than this plus one record.
    pub memory_bytes_max: u64,
}

/// Below this part of the target an open layer may become this many times as old.
const FEW_PARTS: u64 = 1024;
const FEW_AGES: u64 = 10;

#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryState {
    pub open_bytes: u64,
    /// Age of the open layer's first value; 0 if it is empty.
    pub open_age_ms: u64,
    pub frozen_bytes: u64,
}

impl FlushPolicy {
    pub fn should_freeze(&self, state: &MemoryState) -> bool {
        if state.open_bytes == 0 {
            return false;
        }
        // With the bound reached and nothing frozen, waiting would be for ever: freeze whatever there is.
        let stuck = state.frozen_bytes == 0 && self.must_wait(state);
        // A trickle would make a tiny layer at every such age, each with a file and a search of its own.
        let few = state.open_bytes < self.layer_bytes_target / FEW_PARTS;
        let age_ms_max = self.open_age_ms_max.saturating_mul(if few { FEW_AGES } else { 1 });
        state.open_bytes >= self.layer_bytes_target || state.open_age_ms >= age_ms_max || stuck
    }

    pub fn must_wait(&self, state: &MemoryState) -> bool {
        state.open_bytes + state.frozen_bytes >= self.memory_bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: FlushPolicy =
        FlushPolicy { layer_bytes_target: 100, open_age_ms_max: 1000, memory_bytes_max: 250 };

    fn state(open_bytes: u64, open_age_ms: u64, frozen_bytes: u64) -> MemoryState {
        MemoryState { open_bytes, open_age_ms, frozen_bytes }
    }

    #[test]
    fn size_or_age_freezes_and_an_empty_layer_never() {
        assert!(!POLICY.should_freeze(&state(99, 999, 0)));
        assert!(POLICY.should_freeze(&state(100, 0, 0)));
        assert!(POLICY.should_freeze(&state(1, 1000, 0)));
        assert!(!POLICY.should_freeze(&state(0, 5000, 0)));
    }

    #[test]
    fn a_trickle_makes_layers_ten_times_as_seldom() {
        let policy = FlushPolicy { layer_bytes_target: 1 << 20, memory_bytes_max: 1 << 21, ..POLICY };
        let freezes = |bytes, age| {
            policy.should_freeze(&MemoryState { open_age_ms: age, open_bytes: bytes, frozen_bytes: 0 })
        };
        assert!(!freezes(1, 9_999) && freezes(1, 10_000));
        assert!(!freezes(1024, 999) && freezes(1024, 1000));
    }

    #[test]
    fn the_bound_holds_open_and_frozen_together_and_never_deadlocks() {
        assert!(!POLICY.must_wait(&state(99, 0, 150)));
        assert!(POLICY.must_wait(&state(100, 0, 150)));
        let tiny = FlushPolicy { layer_bytes_target: 1000, ..POLICY };
        assert!(tiny.must_wait(&state(250, 0, 0)) && tiny.should_freeze(&state(250, 0, 0)));
    }
}
