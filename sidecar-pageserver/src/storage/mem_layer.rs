//! The layer in memory that takes the log: values by key, each key's in the order of their puts.
//!
//! Values are copied into chunks of our own: the caller's buffers may be slices of something much larger, which would stay alive
//! uncounted. After freezing nothing is added any more; readers keep using it until its file is on disk.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use strata_common::Lsn;

use crate::core::collect::{Collector, Progress};
use crate::core::key::{Key, KeyRange, Value};

/// Values are copied into chunks of this size, bytes; larger ones get a chunk of their own.
const CHUNK_BYTES: usize = 1 << 20;
/// Values added before readers get their turn.
const VALUES_PER_LOCK: usize = 256;
/// What a value costs beside its bytes, about: entry, and its part of the map.
const VALUE_OVERHEAD_BYTES: u64 = 80;

#[derive(Debug)]
pub struct MemLayer {
    /// First LSN it may hold.
    pub begin: Lsn,
    content: RwLock<Content>,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Content {
    by_key: BTreeMap<Key, Vec<(Lsn, Value)>>,
    chunk: BytesMut,
}

impl MemLayer {
    pub fn new(begin: Lsn) -> MemLayer {
        MemLayer { begin, content: RwLock::default(), bytes: AtomicU64::new(0) }
    }

    /// Memory it holds, bytes, about.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Adds values of one LSN; LSNs never go down from put to put.
    pub fn put(&self, lsn: Lsn, values: impl IntoIterator<Item = (Key, Value)>) {
        self.put_all(values.into_iter().map(|(key, value)| (key, lsn, value)));
    }

    /// Adds values of LSNs that never go down. Readers get their turn in between: they see nothing of records that are not finished.
    pub fn put_all(&self, values: impl IntoIterator<Item = (Key, Lsn, Value)>) {
        let mut values = values.into_iter().peekable();
        while values.peek().is_some() {
            let mut content = self.content.write().expect("no panic under this lock");
            let mut added = 0;
            for (key, lsn, value) in values.by_ref().take(VALUES_PER_LOCK) {
                added += value.bytes().len() as u64 + VALUE_OVERHEAD_BYTES;
                content.add(key, lsn, value);
            }
            drop(content);
            self.bytes.fetch_add(added, Ordering::Relaxed);
        }
    }

    /// Gives `collector` what it holds of `key` at or below `lsn` and above `above`.
    pub fn collect(&self, key: Key, lsn: Lsn, above: Option<Lsn>, collector: &mut Collector) -> Progress {
        let content = self.content.read().expect("no panic under this lock");
        let Some(versions) = content.by_key.get(&key) else { return collector.progress() };
        let after = versions.partition_point(|(at, _)| *at <= lsn);
        for (at, value) in versions[..after].iter().rev() {
            if above.is_some_and(|above| *at <= above) {
                break;
            }
            if collector.push(*at, value.clone()) == Progress::Done {
                break;
            }
        }
        collector.progress()
    }

    /// Calls `visit` with the newest value at or below `lsn` of every key in `keys`.
    pub fn newest(&self, keys: KeyRange, lsn: Lsn, mut visit: impl FnMut(Key, Lsn, Value)) {
        let content = self.content.read().expect("no panic under this lock");
        for (key, versions) in content.by_key.range(keys.first..=keys.last) {
            let after = versions.partition_point(|(at, _)| *at <= lsn);
            if let Some((at, value)) = versions[..after].last() {
                visit(*key, *at, value.clone());
            }
        }
    }

    /// Everything, by key and then in the order of the puts.
    pub fn for_each<E>(&self, mut visit: impl FnMut(Key, &[(Lsn, Value)]) -> Result<(), E>) -> Result<(), E> {
        let content = self.content.read().expect("no panic under this lock");
        content.by_key.iter().try_for_each(|(key, versions)| visit(*key, versions))
    }

    /// Keys that end in at least `changes_min` changes without a root among them, with the LSN of the last.
    pub fn long_chains(&self, changes_min: usize) -> Vec<(Key, Lsn)> {
        let content = self.content.read().expect("no panic under this lock");
        let long = |versions: &[(Lsn, Value)]| {
            versions.len() >= changes_min
                && versions[versions.len() - changes_min..].iter().all(|(_, value)| !value.is_root())
        };
        let chains = content.by_key.iter().filter(|(_, versions)| long(versions));
        chains.filter_map(|(key, versions)| versions.last().map(|(lsn, _)| (*key, *lsn))).collect()
    }
}

impl Content {
    fn add(&mut self, key: Key, lsn: Lsn, value: Value) {
        let value = self.own(value);
        let versions = self.by_key.entry(key).or_default();
        if value.is_root() {
            // Nothing put before it at the same LSN can ever be read (trap G3).
            while versions.last().is_some_and(|(other, _)| *other == lsn) {
                versions.pop();
            }
        }
        versions.push((lsn, value));
    }

    fn own(&mut self, value: Value) -> Value {
        match value {
            Value::Image(bytes) => Value::Image(self.copy(&bytes)),
            Value::Change { bytes, will_init } => Value::Change { bytes: self.copy(&bytes), will_init },
        }
    }

    fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > CHUNK_BYTES / 4 {
            return Bytes::copy_from_slice(bytes);
        }
        if self.chunk.capacity() - self.chunk.len() < bytes.len() {
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES);
        }
        self.chunk.extend_from_slice(bytes);
        self.chunk.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(b: u8) -> Key {
        Key([b; 18])
    }

    fn image(text: &'static str) -> Value {
        Value::Image(Bytes::from_static(text.as_bytes()))
    }

    fn change(text: &'static str) -> Value {
        Value::Change { bytes: Bytes::from_static(text.as_bytes()), will_init: false }
    }

    fn read(layer: &MemLayer, lsn: u64, above: Option<u64>) -> (Option<Bytes>, Vec<Bytes>) {
        let mut collector = Collector::new(None);
        layer.collect(key(1), Lsn(lsn), above.map(Lsn), &mut collector);
        let found = collector.finish();
        (found.image.map(|i| i.1), found.changes.into_iter().map(|c| c.1).collect())
    }

    #[test]
    fn within_an_lsn_the_last_image_wins_and_changes_stay_in_order() {
        let layer = MemLayer::new(Lsn(1));
        layer.put(Lsn(10), [(key(1), change("lost")), (key(1), image("first")), (key(1), image("a"))]);
        layer.put(Lsn(10), [(key(1), change("b")), (key(2), change("other")), (key(1), change("c"))]);
        layer.put(Lsn(20), [(key(1), change("d"))]);
        assert_eq!(read(&layer, 9, None), (None, vec![]));
        assert_eq!(read(&layer, 19, None), (Some("a".into()), vec!["b".into(), "c".into()]));
        assert_eq!(read(&layer, 20, None), (Some("a".into()), vec!["b".into(), "c".into(), "d".into()]));
        assert_eq!(read(&layer, 20, Some(10)), (None, vec!["d".into()]));
        assert!(layer.bytes() > 0);
    }

    #[test]
    fn values_of_many_records_at_once_are_those_of_one_after_the_other() {
        let (single, together) = (MemLayer::new(Lsn(1)), MemLayer::new(Lsn(1)));
        let value = |n: u64| if n % 7 == 3 { image("i") } else { change("c") };
        // Over the end of a lock's share, inside of an LSN.
        let values: Vec<(Key, Lsn, Value)> = (0..3 * VALUES_PER_LOCK as u64)
            .map(|n| (key((n % 5) as u8), Lsn(10 + n / 5), value(n)))
            .collect();
        for (key, lsn, value) in values.clone() {
            single.put(lsn, [(key, value)]);
        }
        together.put_all(values);
        let all = |layer: &MemLayer| {
            let mut all = Vec::new();
            let visited: Result<(), ()> = layer.for_each(|key, versions| {
                all.push((key, versions.to_vec()));
                Ok(())
            });
            visited.map(|()| all)
        };
        assert_eq!(all(&single), all(&together));
        assert_eq!(single.bytes(), together.bytes());
    }

    #[test]
    fn long_chains_are_those_without_an_image_near_their_end() {
        let layer = MemLayer::new(Lsn(1));
        for lsn in 1..=5 {
            layer.put(Lsn(lsn), [(key(1), change("x")), (key(2), change("x"))]);
        }
        layer.put(Lsn(6), [(key(2), image("i"))]);
        assert_eq!(layer.long_chains(5), [(key(1), Lsn(5))]);
        assert_eq!(layer.long_chains(6), []);
    }
}
