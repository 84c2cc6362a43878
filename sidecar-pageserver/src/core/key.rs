//! Keys and values of the storage. A key is eighteen bytes whose meaning is the service's; only their order matters here.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use strata_common::Lsn;

/// Length of a key, bytes.
pub const KEY_BYTES: usize = 18;

/// Largest value, bytes. Bounds what a reader must allocate for one block of a layer file.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Opaque ordered name of a page or of a small fact.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; KEY_BYTES]);

/// As three numbers, for hashers that like them better than bytes.
impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (high, low) = self.numbers();
        state.write_u64((high >> 64) as u64);
        state.write_u64(high as u64);
        state.write_u16(low);
    }
}

/// The order of the bytes, compared as two numbers: ingest compares keys more often than it does anything else.
impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Key) -> Ordering {
        self.numbers().cmp(&other.numbers())
    }
}

impl PartialOrd for Key {
    #[inline]
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Key {
    #[inline]
    fn numbers(&self) -> (u128, u16) {
        const { assert!(KEY_BYTES == 18) };
        let (high, low) = self.0.split_first_chunk::<16>().expect("a key has more bytes");
        (u128::from_be_bytes(*high), u16::from_be_bytes([low[0], low[1]]))
    }

    pub const MIN: Key = Key([0; KEY_BYTES]);
    pub const MAX: Key = Key([0xff; KEY_BYTES]);

    /// The next key in order, or `None` after [`Key::MAX`].
    pub fn next(self) -> Option<Key> {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let (sum, carry) = byte.overflowing_add(1);
            *byte = sum;
            if !carry {
                return Some(Key(bytes));
            }
        }
        None
    }

    /// The key before in order, or `None` before [`Key::MIN`].
    pub fn previous(self) -> Option<Key> {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let (difference, borrow) = byte.overflowing_sub(1);
            *byte = difference;
            if !borrow {
                return Some(Key(bytes));
            }
        }
        None
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Keys from `first` to `last`, both included (so that the whole space has a name).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct KeyRange {
    pub first: Key,
    pub last: Key,
}

impl KeyRange {
    pub const ALL: KeyRange = KeyRange { first: Key::MIN, last: Key::MAX };

    pub fn one(key: Key) -> KeyRange {
        KeyRange { first: key, last: key }
    }

    pub fn contains(&self, key: Key) -> bool {
        self.first <= key && key <= self.last
    }

    pub fn overlaps(&self, other: &KeyRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    pub fn covers(&self, other: &KeyRange) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// What a key is from an LSN on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// The whole content.
    Image(Bytes),
    /// A change of what was before; with `will_init` it needs nothing before it.
    Change { bytes: Bytes, will_init: bool },
}

/// A value that lies somewhere else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueRef<'a> {
    Image(&'a [u8]),
    Change { bytes: &'a [u8], will_init: bool },
}

impl<'a> ValueRef<'a> {
    pub fn bytes(self) -> &'a [u8] {
        match self {
            ValueRef::Image(bytes) | ValueRef::Change { bytes, .. } => bytes,
        }
    }

    /// True if nothing older is needed to know the key's content.
    pub fn is_root(self) -> bool {
        matches!(self, ValueRef::Image(_) | ValueRef::Change { will_init: true, .. })
    }
}

impl Value {
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Image(bytes) => ValueRef::Image(bytes),
            Value::Change { bytes, will_init } => ValueRef::Change { bytes, will_init: *will_init },
        }
    }

    pub fn bytes(&self) -> &Bytes {
        match self {
            Value::Image(bytes) | Value::Change { bytes, .. } => bytes,
        }
    }

    /// True if nothing older is needed to know the key's content.
    pub fn is_root(&self) -> bool {
        self.as_ref().is_root()
    }
}

/// What a key's content at an LSN is made of: the newest image or initialising change, and every change after it, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconstruct {
    pub image: Option<(Lsn, Bytes)>,
    pub changes: Vec<(Lsn, Bytes)>,
    /// There is an image, or the first change initialises. If false and there are changes, they apply to something that never
    /// was stored: redo decides (trap G17). If false and there are none, the key does not exist.
    pub rooted: bool,
}

impl Reconstruct {
    pub fn is_absent(&self) -> bool {
        self.image.is_none() && self.changes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_count_up() {
        assert_eq!(Key::MAX.next(), None);
        let mut low = [0; KEY_BYTES];
        low[17] = 0xff;
        let mut high = [0; KEY_BYTES];
        high[16] = 1;
        assert_eq!(Key(low).next(), Some(Key(high)));
        assert_eq!(Key(high).previous(), Some(Key(low)));
        assert_eq!(Key::MIN.previous(), None);
    }

    #[test]
    fn keys_go_in_the_order_of_their_bytes() {
        let mut keys = vec![Key::MIN, Key::MAX];
        for at in 0..KEY_BYTES {
            for byte in [1, 0x7f, 0x80, 0xff] {
                let mut bytes = [0x40; KEY_BYTES];
                bytes[at] = byte;
                keys.push(Key(bytes));
            }
        }
        for one in &keys {
            for other in &keys {
                assert_eq!(one.cmp(other), one.0.cmp(&other.0), "{one} and {other}");
            }
        }
    }

    #[test]
    fn ranges_include_both_ends() {
        let key = |b| Key([b; KEY_BYTES]);
        let range = KeyRange { first: key(2), last: key(4) };
        assert!(range.contains(key(2)) && range.contains(key(4)) && !range.contains(key(5)));
        assert!(range.overlaps(&KeyRange::one(key(4))) && !range.overlaps(&KeyRange::one(key(1))));
        assert!(KeyRange::ALL.covers(&range) && !range.covers(&KeyRange::ALL));
    }
}
