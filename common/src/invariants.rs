//! The ids of the system's invariants; `docs/invariants.md` explains each. Assertions, tests and metrics name them by these.

macro_rules! invariants {
    ($($name:ident $id:literal $text:literal;)*) => {
        /// A statement that must hold at every moment. Prints as its id.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Invariant { $(#[doc = $text] $name,)* }

        impl Invariant {
            pub const ALL: &'static [Invariant] = &[$(Invariant::$name,)*];

            pub fn id(self) -> &'static str {
                match self { $(Invariant::$name => $id,)* }
            }

            pub fn statement(self) -> &'static str {
                match self { $(Invariant::$name => $text,)* }
            }
        }
    };
}

invariants! {
    Sk1 "SK-1" "no acknowledged commit is lost while a majority of safekeeper disks survive";
    Sk2 "SK-2" "at most one proposer commits in a term; a loser's Postgres stops";
    Sk3 "SK-3" "flush is at least commit on a majority; both only grow";
    Sk4 "SK-4" "truncation never goes below the commit LSN";
    Sk5 "SK-5" "term and vote are durable before the answer leaves";
    Ps1 "PS-1" "a page at an LSN equals what vanilla Postgres has after replaying the same log to it";
    Ps2 "PS-2" "no object that a live index names is deleted";
    Ps3 "PS-3" "garbage collection never drops what the history window, a branch or a lease can read";
    Ps4 "PS-4" "a crash at any point reopens to a prefix; nothing acknowledged as remote-consistent is lost";
    Ps5 "PS-5" "every block read from disk or object store is checksummed before use";
    Cp1 "CP-1" "a reader never sees a page older than its last-written LSN";
    Cp2 "CP-2" "the local file cache never serves a page across drop, truncate or relfilenumber reuse";
    Cp3 "CP-3" "a page that the log cannot rebuild is never dropped";
    Cp4 "CP-4" "Postgres starts only at the LSN at which its base backup was taken";
    Lv1 "LV-1" "when faults stop, commits and reads resume in bounded time without an operator";
}

impl std::fmt::Display for Invariant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id())
    }
}
