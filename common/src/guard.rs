//! The guards against the traps of `docs/traps.md`, by name, and a switch that takes one away for a test.
//!
//! A test that shows a trap proves something only if it fails without the guard. Each guard of the product asks [`Guard::holds`]. In a
//! normal build that is `true`, known to the compiler, and nothing can change it. Built with the feature `guards-off`, which only
//! `setup/build-guards-off.sh` switches on, the guard that the environment variable `STRATA_GUARD_OFF` names is gone in that process.
//! The suite `regress/tests/traps` runs each trap with its guard and without (`STRATA_TEST_GUARDS=off`).

/// Names one guard that is not there, in builds with the feature `guards-off`.
pub const VARIABLE: &str = "STRATA_GUARD_OFF";

macro_rules! guards {
    ($($(#[doc = $text:literal])+ $name:ident = $id:literal,)+) => {
        /// What keeps a trap shut.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Guard {
            $($(#[doc = $text])+ $name,)+
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
    /// Heap pages with command ids of running transactions are spilled.
    CommandIds = "W6-command-ids",
    // Visibility map and free space map.
    /// A written page with PD_ALL_VISIBLE raises its last-written LSN to the insert LSN.
    AllVisible = "V7-all-visible",
    // Relation size, existence, life and death.
    // LSN arithmetic and races.
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
        static OFF: OnceLock<Option<Guard>> = OnceLock::new();
        let off = OFF.get_or_init(|| {
            let id = std::env::var(VARIABLE).ok()?;
            Some(Guard::find(&id).unwrap_or_else(|| panic!("{VARIABLE}: there is no guard '{id}'")))
        });
        *off != Some(self)
    }
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
