//! Values inside a block: key (sharing a beginning with the one before), LSN relative to the layer's, kind, content.

use bytes::Bytes;
use strata_common::Lsn;

use crate::core::key::{KEY_BYTES, Key, VALUE_BYTES_MAX, Value, ValueRef};

const KIND_IMAGE: u8 = 0;
const KIND_CHANGE: u8 = 1;
const KIND_INIT: u8 = 2;

/// Appends an entry; `before` is the key of the entry before it in the same block.
pub fn encode(before: Option<Key>, key: Key, lsn_offset: u64, value: ValueRef<'_>, out: &mut Vec<u8>) {
    let shared = before.map_or(0, |b| b.0.iter().zip(&key.0).take_while(|(a, b)| a == b).count());
    out.push(shared as u8);
    out.extend_from_slice(&key.0[shared..]);
    out.push(match value {
        ValueRef::Image(_) => KIND_IMAGE,
        ValueRef::Change { will_init: false, .. } => KIND_CHANGE,
        ValueRef::Change { will_init: true, .. } => KIND_INIT,
    });
    put_varint(lsn_offset, out);
    put_varint(value.bytes().len() as u64, out);
    out.extend_from_slice(value.bytes());
}

/// Walks through the entries of a block. A value's bytes are a slice of the block's.
pub struct Entries {
    block: Bytes,
    at: usize,
    key: Key,
    begin: Lsn,
    first: bool,
}

/// An entry whose value has not been looked at yet.
pub struct Entry {
    pub key: Key,
    pub lsn: Lsn,
    kind: u8,
    from: usize,
    to: usize,
}

impl Entries {
    pub fn new(block: Bytes, begin: Lsn) -> Entries {
        Entries { block, at: 0, key: Key::MIN, begin, first: true }
    }

    /// The next entry, or `None` at the end; the error says what is wrong.
    pub fn next(&mut self) -> Result<Option<Entry>, &'static str> {
        if self.at == self.block.len() {
            return Ok(None);
        }
        let shared = usize::from(self.byte()?);
        if shared > KEY_BYTES || (self.first && shared > 0) {
            return Err("a key shares more than there is");
        }
        self.first = false;
        let suffix = self.block.get(self.at..self.at + (KEY_BYTES - shared)).ok_or("a key is cut off")?;
        self.key.0[shared..].copy_from_slice(suffix);
        self.at += KEY_BYTES - shared;
        let kind = self.byte()?;
        if kind > KIND_INIT {
            return Err("a value is of unknown kind");
        }
        let offset = self.varint()?;
        let lsn = self.begin.0.checked_add(offset).ok_or("an LSN is out of range")?;
        let length = usize::try_from(self.varint()?).map_err(|_| "a value is too long")?;
        if length > VALUE_BYTES_MAX || length > self.block.len() - self.at {
            return Err("a value is cut off");
        }
        let from = self.at;
        self.at += length;
        Ok(Some(Entry { key: self.key, lsn: Lsn(lsn), kind, from, to: self.at }))
    }

    pub fn value(&self, entry: &Entry) -> Value {
        let bytes = self.block.slice(entry.from..entry.to);
        match entry.kind {
            KIND_IMAGE => Value::Image(bytes),
            kind => Value::Change { bytes, will_init: kind == KIND_INIT },
        }
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        let byte = *self.block.get(self.at).ok_or("an entry is cut off")?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err("a number is too long");
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number is too long")
    }
}

/// Seven bits a byte, lowest first, high bit set on all but the last.
fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
