//! Names of objects: parts joined by `/`, plain enough to be file names and S3 keys alike.

use std::fmt;

use crate::StoreError;

/// Longest name, bytes; S3 allows 1024.
const KEY_BYTES_MAX: usize = 900;
/// Longest part, bytes; file systems allow 255.
const PART_BYTES_MAX: usize = 200;

/// Name of an object. Parts never start with a dot, so a store may keep its own files under such names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    pub fn new(text: impl Into<String>) -> Result<ObjectKey, StoreError> {
        let text = text.into();
        let good_part = |part: &str| {
            !part.is_empty()
                && part.len() <= PART_BYTES_MAX
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.len() > KEY_BYTES_MAX || !text.split('/').all(good_part) {
            return Err(StoreError::BadKey(text));
        }
        Ok(ObjectKey(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_pass() {
        for good in ["a", "timelines/00ff/index-00000001", "x/y.z_1-2"] {
            assert_eq!(ObjectKey::new(good).map(|k| k.as_str().to_owned()), Ok(good.to_owned()));
        }
        let long = "a".repeat(PART_BYTES_MAX + 1);
        for bad in ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".tmp/x", "a b", "ä", long.as_str()] {
            assert!(ObjectKey::new(bad).is_err(), "{bad}");
        }
        assert_eq!(ObjectKey::new("a/b/c").map(|k| k.file_name().to_owned()), Ok("c".to_owned()));
    }
}
