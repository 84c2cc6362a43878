//! Known-bad variants of the proposer, for proving that the simulation finds such bugs. Never part of a normal build.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// K2: the donor is the longest log, whatever terms it is of.
    DonorByLength,
    /// K3: what a majority of voters held before the election is committed at once, without an entry of the own term.
    CommitOldTerms,
    /// K4: flushes below the term's start are counted.
    CountBelowTermStart,
    /// K16: any life of a member counts and its vote does.
    CountWiped,
}
