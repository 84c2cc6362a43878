//! Random SQL from a seed: scripts for psql that create, change, move and check tables with every kind of index, what becomes of a
//! script on a server, and how two servers that ran the same one must agree.
//!
//! A script depends on its seed only, and its results on nothing physical: rows are counted, summed or ordered by a key, so that a
//! server on storage of its own must print the same, line by line.

pub mod agree;
pub mod script;
pub mod session;

/// A generator of numbers that is the same everywhere (splitmix64: a counter, mixed).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    pub fn from_seed(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// Another generator, for a part that must not depend on how many numbers this one has given.
    pub fn part(&self, number: u64) -> Numbers {
        let mut numbers = Numbers(self.0 ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        numbers.next();
        numbers
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        strata_common::hash::mix(self.0)
    }

    /// 0 … `bound` − 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len() as u64);
        &from[usize::try_from(at).expect("an index")]
    }
}

/// The seed that `STRATA_RANDOM_SEED` names, else `default`; printed, so that a run can be repeated.
pub fn seed(what: &str, default: u64) -> u64 {
    let given = std::env::var("STRATA_RANDOM_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or(default);
    eprintln!("{what}: seed {seed} (STRATA_RANDOM_SEED={seed} repeats it)");
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_the_seed_only() {
        let take = |seed: u64| {
            let mut numbers = Numbers::from_seed(seed).part(3);
            (0..20).map(|_| numbers.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
        assert!(take(7).iter().any(|n| *n > 500) && take(7).iter().any(|n| *n < 500));
    }
}
