//! Reading little-endian fields of records and stored changes, with every length checked.
//!
//! A Postgres struct in a record is read at its offsets with `u16_at` and `u32_at`; a sequence of parts with `Parts`.
//! Out of bounds is `Fault::Short` with the name of what was read, never a panic.

use crate::error::Fault;

/// Two bytes at `at`, or `Fault::Short { what }`.
#[inline]
pub fn u16_at(bytes: &[u8], at: usize, what: &'static str) -> Result<u16, Fault> {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(field) => Ok(u16::from_le_bytes(*field)),
        None => Err(Fault::Short { what }),
    }
}

/// Four bytes at `at`, or `Fault::Short { what }`.
#[inline]
pub fn u32_at(bytes: &[u8], at: usize, what: &'static str) -> Result<u32, Fault> {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(field) => Ok(u32::from_le_bytes(*field)),
        None => Err(Fault::Short { what }),
    }
}

/// One byte at `at`, or `Fault::Short { what }`.
#[inline]
pub fn u8_at(bytes: &[u8], at: usize, what: &'static str) -> Result<u8, Fault> {
    bytes.get(at).copied().ok_or(Fault::Short { what })
}

/// Takes parts off the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Parts<'a> {
    /// `what` names the whole in errors.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Parts<'a> {
        Parts { rest: bytes, what }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], Fault> {
        match self.rest.split_at_checked(bytes) {
            Some((part, rest)) => {
                self.rest = rest;
                Ok(part)
            }
            None => Err(Fault::Short { what: self.what }),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        match self.rest.split_first_chunk::<N>() {
            Some((part, rest)) => {
                self.rest = rest;
                Ok(*part)
            }
            None => Err(Fault::Short { what: self.what }),
        }
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub fn i64(&mut self) -> Result<i64, Fault> {
        self.array().map(i64::from_le_bytes)
    }

    /// A length in LEB128, at most five bytes.
    #[inline]
    pub fn length(&mut self) -> Result<usize, Fault> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value as usize);
            }
        }
        Err(Fault::Short { what: self.what })
    }
}

/// Appends a length in LEB128.
pub fn put_length(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What `put_length` takes, bytes.
pub fn length_bytes(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// The little-endian `u16`s of a slice; a trailing odd byte is not part of it.
pub fn u16_list(bytes: &[u8]) -> impl DoubleEndedIterator<Item = u16> + ExactSizeIterator + Clone + '_ {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_round_trip_and_end() {
        for value in [0usize, 1, 127, 128, 300, 16_383, 16_384, 1 << 28, u32::MAX as usize] {
            let mut bytes = Vec::new();
            put_length(&mut bytes, value);
            assert_eq!(bytes.len(), length_bytes(value), "{value}");
            let mut parts = Parts::new(&bytes, "length");
            assert_eq!(parts.length(), Ok(value));
            assert!(parts.is_empty());
        }
        let endless = [0xff; 8];
        assert_eq!(Parts::new(&endless, "length").length(), Err(Fault::Short { what: "length" }));
    }

    #[test]
    fn short_reads_name_what_was_read() {
        assert_eq!(u16_at(&[1], 0, "flags"), Err(Fault::Short { what: "flags" }));
        assert_eq!(u32_at(&[0; 8], usize::MAX, "xid"), Err(Fault::Short { what: "xid" }));
        assert_eq!(u32_at(&[1, 2, 3, 4, 5], 1, "xid"), Ok(0x0504_0302));
        assert_eq!(u8_at(&[], 0, "byte"), Err(Fault::Short { what: "byte" }));
        let mut parts = Parts::new(&[1, 0, 2], "parts");
        assert_eq!(parts.u16(), Ok(1));
        assert_eq!(parts.take(2), Err(Fault::Short { what: "parts" }));
        assert_eq!(parts.rest(), [2]);
    }
}
