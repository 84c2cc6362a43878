//! Who may write a timeline's index, and which files and objects stay when one is attached.
//!
//! A process attaches with a generation. It seals the indexes of lower generations (an overwrite, by conditional put, that makes the
//! next put of their writer fail), takes over the newest content, writes its own, and looks again: an index of a lower generation that
//! appeared meanwhile is sealed and taken over in its turn, one of a higher generation means that we are the stale one. So no writer of
//! a lower generation can report an LSN as remote-consistent that the higher one does not know of (PS-4).

use std::collections::HashMap;

use strata_common::Generation;

use super::layer::{LayerDesc, LayerName};

/// An index as listed, with what reading it showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    pub generation: Generation,
    pub sealed_by: Option<Generation>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttachStep {
    /// There is no index: no such timeline.
    Absent,
    /// A higher generation is there, or has sealed one: we are stale.
    Stale { by: Generation },
    /// Overwrite this one with our seal, then look again.
    Seal(Generation),
    /// Take the content of `from` and write it as our own.
    TakeOver { from: Generation },
    /// Ours stands and everything below is sealed.
    Attached,
}

/// The next step of attaching as `own`. `taken_from`: the index whose content our own already has, if we wrote one in this attempt.
pub fn next_step(seen: &[Seen], own: Generation, taken_from: Option<Generation>) -> AttachStep {
    let Some(highest) = seen.iter().map(|s| s.generation).max() else { return AttachStep::Absent };
    let highest = seen.iter().filter_map(|s| s.sealed_by).fold(highest, Generation::max);
    if highest > own {
        return AttachStep::Stale { by: highest };
    }
    let lower = || seen.iter().filter(|s| s.generation < own);
    if let Some(open) = lower().find(|s| s.sealed_by.is_none_or(|by| by < own)) {
        return AttachStep::Seal(open.generation);
    }
    let newest_lower = lower().map(|s| s.generation).max();
    let own_exists = seen.iter().any(|s| s.generation == own);
    match (taken_from, newest_lower) {
        // Left by an earlier process of our generation: its content is ours to go on from.
        (None, _) if own_exists => AttachStep::TakeOver { from: own },
        (None, Some(from)) => AttachStep::TakeOver { from },
        (None, None) => AttachStep::Absent,
        (Some(taken), Some(from)) if from > taken && taken != own => AttachStep::TakeOver { from },
        (Some(_), _) => AttachStep::Attached,
    }
}

/// Layer objects that no index will ever name: of a lower generation (whose writer is sealed off) and not in the index. Trap G7.
pub fn orphans(index: &[LayerDesc], objects: &[LayerName], own: Generation) -> Vec<LayerName> {
    let named: std::collections::HashSet<LayerName> = index.iter().map(|d| d.name).collect();
    objects.iter().filter(|name| name.generation < own && !named.contains(name)).copied().collect()
}

/// A file in a timeline's folder, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalFile {
    /// Named by the index with this size: used if its checksum is right as well.
    Check,
    /// Everything else: temporary files, layers from the future (trap G6), strangers.
    Delete,
}

pub fn local_file(index: &HashMap<LayerName, LayerDesc>, file_name: &str, bytes: u64) -> LocalFile {
    let known = file_name.parse().ok().and_then(|name: LayerName| index.get(&name));
    if known.is_some_and(|desc| desc.bytes == bytes) { LocalFile::Check } else { LocalFile::Delete }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(generation: u32, sealed_by: Option<u32>) -> Seen {
        Seen { generation: Generation(generation), sealed_by: sealed_by.map(Generation) }
    }

    const OWN: Generation = Generation(5);

    #[test]
    fn a_take_over_seals_takes_and_looks_again() {
        assert_eq!(next_step(&[], OWN, None), AttachStep::Absent);
        assert_eq!(next_step(&[seen(3, None)], OWN, None), AttachStep::Seal(Generation(3)));
        let sealed = seen(3, Some(5));
        assert_eq!(next_step(&[sealed], OWN, None), AttachStep::TakeOver { from: Generation(3) });
        let own = seen(5, None);
        assert_eq!(next_step(&[sealed, own], OWN, Some(Generation(3))), AttachStep::Attached);
    }

    #[test]
    fn a_lower_one_that_appears_late_is_sealed_and_taken_over_too() {
        let (sealed, own) = (seen(3, Some(5)), seen(5, None));
        let late = |by| [sealed, seen(4, by), own];
        assert_eq!(next_step(&late(None), OWN, Some(Generation(3))), AttachStep::Seal(Generation(4)));
        let next = next_step(&late(Some(5)), OWN, Some(Generation(3)));
        assert_eq!(next, AttachStep::TakeOver { from: Generation(4) });
    }

    #[test]
    fn a_higher_one_or_its_seal_means_stale() {
        assert_eq!(next_step(&[seen(6, None)], OWN, None), AttachStep::Stale { by: Generation(6) });
        assert_eq!(next_step(&[seen(3, Some(6))], OWN, None), AttachStep::Stale { by: Generation(6) });
        let ours = [seen(3, Some(5)), seen(5, Some(7))];
        assert_eq!(next_step(&ours, OWN, Some(Generation(3))), AttachStep::Stale { by: Generation(7) });
    }

    #[test]
    fn a_seal_of_a_lower_generation_is_not_ours() {
        assert_eq!(next_step(&[seen(3, Some(4))], OWN, None), AttachStep::Seal(Generation(3)));
    }

    #[test]
    fn our_own_from_an_earlier_process_is_the_truth() {
        let both = [seen(3, Some(5)), seen(5, None)];
        assert_eq!(next_step(&both, OWN, None), AttachStep::TakeOver { from: OWN });
        assert_eq!(next_step(&both, OWN, Some(OWN)), AttachStep::Attached);
    }

    #[test]
    fn only_what_the_index_names_stays() {
        let index = crate::core::index::tests::sample();
        let named = index.layers[0].clone();
        let other: LayerName = "image.0000000000000010.000001.00000001".parse().expect("a name");
        let newer: LayerName = "image.0000000000000010.000001.00000005".parse().expect("a name");
        assert_eq!(orphans(&index.layers, &[named.name, other, newer], OWN), [other]);
        let by_name = HashMap::from([(named.name, named.clone())]);
        let file = |name: &str, bytes| local_file(&by_name, name, bytes);
        assert_eq!(file(&named.name.to_string(), 5), LocalFile::Check);
        assert_eq!(file(&named.name.to_string(), 6), LocalFile::Delete);
        assert_eq!(file(&other.to_string(), 5), LocalFile::Delete);
        assert_eq!(file(&format!("{}.temp-1", named.name), 5), LocalFile::Delete);
    }
}
