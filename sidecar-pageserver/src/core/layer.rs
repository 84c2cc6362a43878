//! Names and descriptions of layer files. A layer is immutable; its name says what it holds and which generation wrote it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use strata_common::{Generation, Lsn};

use super::key::{KEY_BYTES, Key, KeyRange};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LayerKind {
    /// Values at LSNs from `begin` to below `end`, of any keys in its range; an absent key says nothing.
    Delta,
    /// The content of every key of its range as of `begin` (inclusive); an absent key does not exist (trap G4).
    Image,
}

/// `delta.<begin>.<end>.<ordinal>.<generation>` or `image.<at>.<ordinal>.<generation>`, numbers in hex of fixed width.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerName {
    pub kind: LayerKind,
    pub begin: Lsn,
    /// Exclusive (trap G5). `begin + 1` for an image layer.
    pub end: Lsn,
    /// Tells layers of the same LSNs apart.
    pub ordinal: u32,
    pub generation: Generation,
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begin, end, ordinal, generation) = (self.begin.0, self.end.0, self.ordinal, self.generation.0);
        match self.kind {
            LayerKind::Delta => write!(f, "delta.{begin:016x}.{end:016x}.{ordinal:06x}.{generation:08x}"),
            LayerKind::Image => write!(f, "image.{begin:016x}.{ordinal:06x}.{generation:08x}"),
        }
    }
}

impl fmt::Debug for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the name of a layer")]
pub struct BadLayerName(pub String);

impl FromStr for LayerName {
    type Err = BadLayerName;

    fn from_str(text: &str) -> Result<LayerName, BadLayerName> {
        let bad = || BadLayerName(text.to_owned());
        let number = |part: &str| u64::from_str_radix(part, 16).map_err(|_| bad());
        let parts: Vec<&str> = text.split('.').collect();
        let (kind, begin, end, ordinal, generation) = match parts[..] {
            ["delta", begin, end, ordinal, generation] => {
                (LayerKind::Delta, number(begin)?, number(end)?, ordinal, generation)
            }
            ["image", at, ordinal, generation] => {
                let at = number(at)?;
                (LayerKind::Image, at, at.checked_add(1).ok_or_else(bad)?, ordinal, generation)
            }
            _ => return Err(bad()),
        };
        let small = |part| u32::try_from(number(part)?).map_err(|_| bad());
        let name = LayerName {
            kind,
            begin: Lsn(begin),
            end: Lsn(end),
            ordinal: small(ordinal)?,
            generation: Generation(small(generation)?),
        };
        // One layer, one spelling; and a layer that holds no LSN is none.
        if name.begin >= name.end || name.to_string() != text {
            return Err(bad());
        }
        Ok(name)
    }
}

impl Serialize for LayerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LayerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LayerName, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What an index says of a layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerDesc {
    pub name: LayerName,
    pub bytes: u64,
    /// CRC-32C of the whole file.
    pub crc: u32,
    #[serde(with = "key_range_hex")]
    pub keys: KeyRange,
}

mod key_range_hex {
    use super::*;

    pub fn serialize<S: Serializer>(range: &KeyRange, serializer: S) -> Result<S::Ok, S::Error> {
        [range.first.to_string(), range.last.to_string()].serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyRange, D::Error> {
        let [first, last] = <[String; 2]>::deserialize(deserializer)?;
        let key =
            |text: &str| parse_key(text).ok_or_else(|| serde::de::Error::custom("a key has 36 hex digits"));
        let range = KeyRange { first: key(&first)?, last: key(&last)? };
        if range.first > range.last {
            return Err(serde::de::Error::custom("a range of keys ends before it begins"));
        }
        Ok(range)
    }
}

fn parse_key(text: &str) -> Option<Key> {
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = Key::MIN;
    for (byte, digits) in key.0.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_print_and_parse_in_one_spelling() {
        let delta = "delta.0000000001000028.0000000001000100.000000.00000003";
        let image = "image.0000000001000028.00000a.00000001";
        for text in [delta, image] {
            assert_eq!(text.parse::<LayerName>().map(|n| n.to_string()), Ok(text.to_owned()));
        }
        let name: LayerName = image.parse().expect("good");
        assert_eq!((name.begin, name.end, name.ordinal), (Lsn(0x100_0028), Lsn(0x100_0029), 10));
        for bad in [
            "",
            "delta.1.2.0.1",
            "image.ffffffffffffffff.000000.00000001",
            "delta.0000000001000028.0000000001000028.000000.00000003",
            "delta.0000000001000028.0000000001000100.000000.00000003.temp",
            "image.000000000100002G.00000a.00000001",
        ] {
            assert!(bad.parse::<LayerName>().is_err(), "{bad}");
        }
    }
}
