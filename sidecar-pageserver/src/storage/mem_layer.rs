//! The layer in memory that takes the log: values in the order of their puts, each knowing its key's value before.
//!
//! Ingest spends its time here, so that a put is a look into a hash table and two appends: an entry of fixed size, and the value's bytes
//! into a chunk of our own (the caller's buffers may be slices of something much larger, which would stay alive uncounted). A read goes
//! back from a key's newest value; what a read never asks for, the order of the keys, is made when the layer is written. After freezing
//! nothing is added any more; readers keep using it until its file is on disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{RwLock, RwLockReadGuard};

use bytes::Bytes;
use strata_common::Lsn;
use strata_common::hash::NumberMap;

use crate::core::collect::{Collector, Progress};
use crate::core::key::{Key, KeyRange, Value, ValueRef};

/// Values are copied into chunks of this size, bytes; larger ones get a chunk of their own.
const CHUNK_BYTES: usize = 1 << 20;
/// Values added before readers get their turn.
const VALUES_PER_LOCK: usize = 256;
/// What a value costs beside its bytes, and what a key does: an entry; its places in the table and in its group, with room to grow.
const VALUE_OVERHEAD_BYTES: u64 = size_of::<Entry>() as u64;
const KEY_OVERHEAD_BYTES: u64 = 96;
/// Keys that share so many bytes lie in one group: those of a fork.
const GROUP_BYTES: usize = 14;
/// Values looked at together before they are visited.
const TOUCHED_AT_ONCE: usize = 24;
/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub struct MemLayer {
    /// First LSN it may hold.
    pub begin: Lsn,
    content: RwLock<Content>,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Content {
    chains: NumberMap<Key, Chain>,
    /// The same keys for whoever asks for a range of them; in no order within a group.
    groups: BTreeMap<[u8; GROUP_BYTES], Vec<Key>>,
    entries: Vec<Entry>,
    /// Full chunks; empty where the open one belongs.
    chunks: Vec<Bytes>,
    open: Vec<u8>,
    /// Number of the open chunk, once there is one.
    open_chunk: Option<u32>,
}

/// The values of a key.
#[derive(Clone, Copy, Debug)]
struct Chain {
    /// Number of the key, from 0 in the order of their coming.
    key: u32,
    newest: u32,
    /// Values that are no roots, back to the last one that is.
    changes: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Image,
    Change,
    Init,
    /// Nothing can read it any more.
    Moot,
}

/// A value.
#[derive(Clone, Copy, Debug)]
struct Entry {
    lsn: Lsn,
    /// The value of the same key before it.
    before: u32,
    key: u32,
    chunk: u32,
    at: u32,
    length: u32,
    kind: Kind,
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
            let added: u64 = values
                .by_ref()
                .take(VALUES_PER_LOCK)
                .map(|(key, lsn, value)| content.add(key, lsn, value.as_ref()))
                .sum();
            drop(content);
            self.bytes.fetch_add(added, Ordering::Relaxed);
        }
    }

    /// Gives `collector` what it holds of `key` at or below `lsn` and above `above`.
    pub fn collect(&self, key: Key, lsn: Lsn, above: Option<Lsn>, collector: &mut Collector) -> Progress {
        let content = self.content();
        let Some(chain) = content.chains.get(&key) else { return collector.progress() };
        for entry in content.back_from(chain.newest).skip_while(|entry| entry.lsn > lsn) {
            if above.is_some_and(|above| entry.lsn <= above) {
                break;
            }
            if collector.push(entry.lsn, content.value(entry)) == Progress::Done {
                break;
            }
        }
        collector.progress()
    }

    /// Calls `visit` with the newest value at or below `lsn` of every key in `keys`, in no order.
    pub fn newest(&self, keys: KeyRange, lsn: Lsn, mut visit: impl FnMut(Key, Lsn, Value)) {
        let content = self.content();
        for keys_of_group in content.groups.range(group(keys.first)..=group(keys.last)).map(|(_, keys)| keys)
        {
            for key in keys_of_group.iter().filter(|key| keys.contains(**key)) {
                let newest = content.chains.get(key).map_or(NONE, |chain| chain.newest);
                if let Some(entry) = content.back_from(newest).find(|entry| entry.lsn <= lsn) {
                    visit(*key, entry.lsn, content.value(entry));
                }
            }
        }
    }

    /// Everything, by key and then in the order of the puts.
    pub fn for_each<E>(
        &self,
        mut visit: impl FnMut(Key, &[(Lsn, ValueRef<'_>)]) -> Result<(), E>,
    ) -> Result<(), E> {
        let content = self.content();
        let Sorted { keys, order } = content.sorted();
        let (mut at, mut touched) = (0, 0);
        let mut versions = Vec::new();
        for (key, end) in keys {
            versions.clear();
            for at in at..end {
                if at == touched {
                    touched = (at + TOUCHED_AT_ONCE).min(order.len());
                    content.touch(&order[at..touched]);
                }
                let entry = &content.entries[order[at] as usize];
                versions.push((entry.lsn, content.value_ref(entry)));
            }
            at = end;
            visit(key, &versions)?;
        }
        Ok(())
    }

    /// Keys that end in at least `changes_min` changes without a root among them, with the LSN of the last; by key.
    pub fn long_chains(&self, changes_min: usize) -> Vec<(Key, Lsn)> {
        let content = self.content();
        let long = content.chains.iter().filter(|(_, chain)| chain.changes as usize >= changes_min);
        let mut long: Vec<_> =
            long.map(|(key, chain)| (*key, content.entries[chain.newest as usize].lsn)).collect();
        long.sort_unstable();
        long
    }

    fn content(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().expect("no panic under this lock")
    }
}

/// All values by key, and the order of the puts within one.
struct Sorted {
    /// The keys in their order, and where in `order` their values end.
    keys: Vec<(Key, usize)>,
    /// Numbers of entries.
    order: Vec<u32>,
}

fn group(key: Key) -> [u8; GROUP_BYTES] {
    *key.0.first_chunk().expect("a key has more bytes")
}

impl Content {
    /// Returns what it costs, bytes.
    fn add(&mut self, key: Key, lsn: Lsn, value: ValueRef<'_>) -> u64 {
        let number = u32::try_from(self.entries.len()).ok().filter(|number| *number != NONE);
        let number = number.expect("memory is bounded to less than four thousand million values");
        let keys = self.chains.len() as u32;
        let chain = self.chains.entry(key).or_insert(Chain { key: keys, newest: NONE, changes: 0 });
        if value.is_root() {
            // Nothing put before it at the same LSN can ever be read (trap G3).
            while let Some(entry) =
                self.entries.get_mut(chain.newest as usize).filter(|entry| entry.lsn == lsn)
            {
                entry.kind = Kind::Moot;
                chain.newest = entry.before;
            }
            chain.changes = 0;
        } else {
            chain.changes += 1;
        }
        let before = std::mem::replace(&mut chain.newest, number);
        let chain = *chain;
        let (chunk, at) = self.copy(value.bytes());
        let kind = match value {
            ValueRef::Image(_) => Kind::Image,
            ValueRef::Change { will_init: false, .. } => Kind::Change,
            ValueRef::Change { will_init: true, .. } => Kind::Init,
        };
        let length = value.bytes().len() as u32;
        self.entries.push(Entry { lsn, before, key: chain.key, chunk, at, length, kind });
        let is_new = chain.key == keys;
        if is_new {
            self.groups.entry(group(key)).or_default().push(key);
        }
        u64::from(length) + VALUE_OVERHEAD_BYTES + if is_new { KEY_OVERHEAD_BYTES } else { 0 }
    }

    /// Puts a value's bytes into a chunk; says which, and where in it they begin.
    fn copy(&mut self, bytes: &[u8]) -> (u32, u32) {
        if bytes.len() > CHUNK_BYTES / 4 {
            self.chunks.push(Bytes::copy_from_slice(bytes));
            return (self.chunks.len() as u32 - 1, 0);
        }
        let open = match self.open_chunk {
            Some(open) if self.open.capacity() - self.open.len() >= bytes.len() => open,
            full => {
                let full_bytes = std::mem::replace(&mut self.open, Vec::with_capacity(CHUNK_BYTES));
                if let Some(full) = full {
                    self.chunks[full as usize] = Bytes::from(full_bytes);
                }
                self.chunks.push(Bytes::new());
                self.chunks.len() as u32 - 1
            }
        };
        self.open_chunk = Some(open);
        let at = self.open.len() as u32;
        self.open.extend_from_slice(bytes);
        (open, at)
    }

    /// A key's values from the entry `newest` back.
    fn back_from(&self, newest: u32) -> impl Iterator<Item = &Entry> {
        let entry = |number: u32| self.entries.get(number as usize);
        std::iter::successors(entry(newest), move |last| entry(last.before))
    }

    #[inline]
    fn bytes(&self, entry: &Entry) -> &[u8] {
        let chunk: &[u8] = if Some(entry.chunk) == self.open_chunk {
            &self.open
        } else {
            &self.chunks[entry.chunk as usize]
        };
        &chunk[entry.at as usize..][..entry.length as usize]
    }

    #[inline]
    fn value_ref(&self, entry: &Entry) -> ValueRef<'_> {
        let bytes = self.bytes(entry);
        match entry.kind {
            Kind::Image => ValueRef::Image(bytes),
            Kind::Change => ValueRef::Change { bytes, will_init: false },
            Kind::Init => ValueRef::Change { bytes, will_init: true },
            Kind::Moot => unreachable!("what is moot is in no chain and in no order"),
        }
    }

    /// A value that outlives the lock: a slice of its chunk, or a copy while that one still grows.
    fn value(&self, entry: &Entry) -> Value {
        let bytes = if Some(entry.chunk) == self.open_chunk {
            Bytes::copy_from_slice(self.bytes(entry))
        } else {
            self.chunks[entry.chunk as usize].slice(entry.at as usize..(entry.at + entry.length) as usize)
        };
        match self.value_ref(entry) {
            ValueRef::Image(_) => Value::Image(bytes),
            ValueRef::Change { will_init, .. } => Value::Change { bytes, will_init },
        }
    }

    /// Counts the values of each key, then gives each value its place: the values need not be compared.
    fn sorted(&self) -> Sorted {
        let live = || self.entries.iter().enumerate().filter(|(_, entry)| entry.kind != Kind::Moot);
        let mut places = vec![0usize; self.chains.len()];
        live().for_each(|(_, entry)| places[entry.key as usize] += 1);
        let mut keys = Vec::with_capacity(self.chains.len());
        let mut end = 0;
        for group in self.groups.values() {
            let mut group = group.clone();
            group.sort_unstable();
            for key in group {
                let place = &mut places[self.chains[&key].key as usize];
                end += std::mem::replace(place, end);
                keys.push((key, end));
            }
        }
        let mut order = vec![NONE; end];
        for (number, entry) in live() {
            let place = &mut places[entry.key as usize];
            order[*place] = number as u32;
            *place += 1;
        }
        Sorted { keys, order }
    }

    /// Reads a byte of each of these values. They lie anywhere, and the machine waits for many of them in the time of one if it is
    /// asked for all at once.
    fn touch(&self, numbers: &[u32]) {
        let mut sum = 0u8;
        for number in numbers {
            let bytes = self.bytes(&self.entries[*number as usize]);
            sum ^= bytes.first().unwrap_or(&0) ^ bytes.last().unwrap_or(&0);
        }
        std::hint::black_box(sum);
    }
}

#[cfg(test)]
#[path = "mem_layer_test.rs"]
mod tests;
