//! Which layers of a timeline can hold a key's values, newest first.
//!
//! Delta layers do not overlap in LSNs, so they are kept in the order of their LSNs; image layers are grouped by LSN, and those of one LSN
//! do not overlap in keys. A search takes the newest image layer at or below the asked LSN that covers the key: it ends the search whether
//! or not it holds the key (trap G4), and only delta layers with LSNs above it matter. `L` is whatever the shell reads a layer with.

use std::collections::BTreeMap;

use strata_common::Lsn;

use super::key::{Key, KeyRange};
use super::layer::{LayerDesc, LayerKind, LayerName};

#[derive(Clone, Debug)]
pub struct Entry<L> {
    pub name: LayerName,
    pub keys: KeyRange,
    pub layer: L,
}

#[derive(Clone, Debug)]
pub struct LayerMap<L> {
    /// In the order of their LSNs.
    deltas: Vec<Entry<L>>,
    /// By LSN, then in the order of their first keys.
    images: BTreeMap<Lsn, Vec<Entry<L>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("layers {0} and {1} overlap")]
pub struct Overlap(pub LayerName, pub LayerName);

impl<L: Clone> Default for LayerMap<L> {
    fn default() -> LayerMap<L> {
        LayerMap { deltas: Vec::new(), images: BTreeMap::new() }
    }
}

impl<L: Clone> LayerMap<L> {
    pub fn insert(&mut self, desc: &LayerDesc, layer: L) -> Result<(), Overlap> {
        let entry = Entry { name: desc.name, keys: desc.keys, layer };
        let (list, at) = match desc.name.kind {
            LayerKind::Delta => {
                let at = self.deltas.partition_point(|e| e.name.begin < entry.name.begin);
                (&mut self.deltas, at)
            }
            LayerKind::Image => {
                let group = self.images.entry(entry.name.begin).or_default();
                let at = group.partition_point(|e| e.keys.first < entry.keys.first);
                (group, at)
            }
        };
        let neighbours = [at.checked_sub(1).and_then(|i| list.get(i)), list.get(at)];
        if let Some(other) = neighbours.into_iter().flatten().find(|other| overlap(other, &entry)) {
            return Err(Overlap(other.name, entry.name));
        }
        list.insert(at, entry);
        Ok(())
    }

    /// The newest image layer at or below `lsn` that covers `key`.
    pub fn image_for(&self, key: Key, lsn: Lsn) -> Option<&Entry<L>> {
        self.images.range(..=lsn).rev().find_map(|(_, group)| {
            let after = group.partition_point(|e| e.keys.first <= key);
            group[..after].last().filter(|e| e.keys.contains(key))
        })
    }

    /// Delta layers that may hold values of `keys` at or below `lsn` and above `above`, newest first.
    pub fn deltas(&self, keys: KeyRange, lsn: Lsn, above: Option<Lsn>) -> impl Iterator<Item = &Entry<L>> {
        let after = self.deltas.partition_point(|e| e.name.begin <= lsn);
        self.deltas[..after]
            .iter()
            .rev()
            .take_while(move |e| above.is_none_or(|above| e.name.end.0 > above.0.saturating_add(1)))
            .filter(move |e| e.keys.overlaps(&keys))
    }

    /// Image layers at or below `lsn` that touch `keys`, newest first.
    pub fn images(&self, keys: KeyRange, lsn: Lsn) -> impl Iterator<Item = &Entry<L>> {
        self.images.range(..=lsn).rev().flat_map(|(_, group)| group).filter(move |e| e.keys.overlaps(&keys))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry<L>> {
        self.images.values().flatten().chain(&self.deltas)
    }

    pub fn delta_count(&self) -> usize {
        self.deltas.len()
    }
}

/// Of two layers of one kind (and, for images, of one LSN).
fn overlap<L>(a: &Entry<L>, b: &Entry<L>) -> bool {
    match a.name.kind {
        LayerKind::Delta => a.name.begin < b.name.end && b.name.begin < a.name.end,
        LayerKind::Image => a.keys.overlaps(&b.keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_common::Generation;

    fn key(b: u8) -> Key {
        Key([b; 18])
    }

    fn desc(kind: LayerKind, begin: u64, end: u64, first: u8, last: u8) -> LayerDesc {
        let name = LayerName {
            kind,
            begin: Lsn(begin),
            end: Lsn(end),
            ordinal: u32::from(first),
            generation: Generation(1),
        };
        LayerDesc { name, bytes: 0, crc: 0, keys: KeyRange { first: key(first), last: key(last) } }
    }

    fn map() -> LayerMap<&'static str> {
        let mut map = LayerMap::default();
        for (d, n) in [
            (desc(LayerKind::Image, 10, 11, 0, 99), "low keys at 10"),
            (desc(LayerKind::Image, 10, 11, 100, 255), "high keys at 10"),
            (desc(LayerKind::Delta, 21, 31, 50, 60), "21..31"),
            (desc(LayerKind::Delta, 11, 21, 0, 255), "11..21"),
            (desc(LayerKind::Image, 20, 21, 0, 99), "low keys at 20"),
        ] {
            map.insert(&d, n).expect("no overlap");
        }
        map
    }

    #[test]
    fn the_newest_covering_image_is_found() {
        let map = map();
        let image = |k, lsn| map.image_for(key(k), Lsn(lsn)).map(|e| e.layer);
        assert_eq!(image(5, 9), None);
        assert_eq!(image(5, 10), Some("low keys at 10"));
        assert_eq!(image(5, 19), Some("low keys at 10"));
        assert_eq!(image(5, 20), Some("low keys at 20"));
        assert_eq!(image(100, 500), Some("high keys at 10"));
    }

    #[test]
    fn only_deltas_above_the_image_that_may_hold_the_key_are_visited_newest_first() {
        let map = map();
        let deltas = |k, lsn, above: Option<u64>| {
            map.deltas(KeyRange::one(key(k)), Lsn(lsn), above.map(Lsn)).map(|e| e.layer).collect::<Vec<_>>()
        };
        assert_eq!(deltas(55, 40, Some(10)), ["21..31", "11..21"]);
        assert_eq!(deltas(55, 40, Some(19)), ["21..31", "11..21"], "LSN 20 is in the older one");
        assert_eq!(deltas(55, 40, Some(20)), ["21..31"], "nothing in it is above 20");
        assert_eq!(deltas(55, 20, Some(10)), ["11..21"]);
        assert_eq!(deltas(70, 40, None), ["11..21"]);
        assert_eq!(deltas(55, 10, None), Vec::<&str>::new());
    }

    #[test]
    fn overlapping_layers_are_refused() {
        let mut map = map();
        assert!(map.insert(&desc(LayerKind::Delta, 30, 40, 0, 1), "x").is_err());
        assert!(map.insert(&desc(LayerKind::Delta, 5, 12, 0, 1), "x").is_err());
        assert!(map.insert(&desc(LayerKind::Image, 10, 11, 99, 99), "x").is_err());
        assert!(map.insert(&desc(LayerKind::Delta, 31, 40, 0, 1), "x").is_ok());
        assert_eq!((map.iter().count(), map.delta_count()), (6, 3));
    }
}
