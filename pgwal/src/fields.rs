//! Reading and writing little-endian C structs field by field.
//!
//! Postgres stores its structs as the machine lays them out (x86-64 here): little-endian numbers with padding. A reader
//! that runs short says so instead of panicking, because every byte that it meets comes from a disk or a network.

/// The bytes ended before the field did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} bytes were expected and {left} are left")]
pub struct Short {
    pub wanted: usize,
    pub left: usize,
}

/// Takes fields from the front of a byte slice.
#[derive(Clone, Debug)]
pub struct FieldReader<'a> {
    rest: &'a [u8],
    taken: usize,
}

impl<'a> FieldReader<'a> {
    pub fn new(bytes: &'a [u8]) -> FieldReader<'a> {
        FieldReader { rest: bytes, taken: 0 }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Bytes taken so far.
    pub fn taken(&self) -> usize {
        self.taken
    }

    pub fn take(&mut self, wanted: usize) -> Result<&'a [u8], Short> {
        let Some((head, tail)) = self.rest.split_at_checked(wanted) else {
            return Err(Short { wanted, left: self.rest.len() });
        };
        self.rest = tail;
        self.taken += wanted;
        Ok(head)
    }

    pub fn skip(&mut self, bytes: usize) -> Result<(), Short> {
        self.take(bytes).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(self.array::<1>()?[0])
    }

    /// A C `bool`: any byte but 0 is true.
    pub fn flag(&mut self) -> Result<bool, Short> {
        Ok(self.u8()? != 0)
    }

    pub fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Short> {
        self.array().map(i32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Short> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn f64(&mut self) -> Result<f64, Short> {
        self.array().map(f64::from_le_bytes)
    }

    /// A string that a zero byte ends; the zero is taken too.
    pub fn c_string(&mut self) -> Result<&'a [u8], Short> {
        let Some(length) = self.rest.iter().position(|&byte| byte == 0) else {
            return Err(Short { wanted: self.rest.len() + 1, left: self.rest.len() });
        };
        let text = self.take(length)?;
        self.skip(1)?;
        Ok(text)
    }
}

/// Appends fields to a byte vector.
#[derive(Debug, Default)]
pub struct FieldWriter {
    bytes: Vec<u8>,
}

impl FieldWriter {
    pub fn with_capacity(bytes: usize) -> FieldWriter {
        FieldWriter { bytes: Vec::with_capacity(bytes) }
    }

    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends zero bytes up to `length` in all.
    pub fn zero_to(&mut self, length: usize) -> &mut Self {
        assert!(self.bytes.len() <= length, "fields overlap: {} bytes before {length}", self.bytes.len());
        self.bytes.resize(length, 0);
        self
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn f64(&mut self, value: f64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn written(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = FieldWriter::default();
        writer.u8(1).flag(true).u16(2).u32(3).zero_to(16).u64(4).i64(-5).f64(1.5).put(b"name\0").i32(-6);
        let bytes = writer.into_bytes();
        let mut reader = FieldReader::new(&bytes);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.flag(), Ok(true));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.skip(8), Ok(()));
        assert_eq!(reader.taken(), 16);
        assert_eq!(reader.u64(), Ok(4));
        assert_eq!(reader.i64(), Ok(-5));
        assert_eq!(reader.f64(), Ok(1.5));
        assert_eq!(reader.c_string(), Ok(&b"name"[..]));
        assert_eq!(reader.u64(), Err(Short { wanted: 8, left: 4 }));
        assert_eq!(reader.i32(), Ok(-6));
        assert_eq!(reader.c_string(), Err(Short { wanted: 1, left: 0 }));
    }
}
