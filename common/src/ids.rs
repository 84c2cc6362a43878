//! Names of tenants, timelines, nodes and clusters. Sixteen-byte ids print as 32 lower-case hex digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseIdError {
    #[error("'{0}' is not an id: 32 hex digits are expected")]
    Text(String),
    #[error("an id has 16 bytes, not {0}")]
    Length(usize),
}

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            pub fn to_vec(self) -> Vec<u8> {
                self.0.to_vec()
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = ParseIdError;
            fn try_from(bytes: &[u8]) -> Result<Self, ParseIdError> {
                bytes.try_into().map($name).map_err(|_| ParseIdError::Length(bytes.len()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bad = || ParseIdError::Text(text.to_owned());
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(bad());
                }
                let raw = u128::from_str_radix(text, 16).map_err(|_| bad())?;
                Ok($name(raw.to_be_bytes()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id16!(
    /// An installation: all nodes that share an object store. A data folder belongs to one of them.
    ClusterId
);
id16!(
    /// A tenant: one Postgres cluster with all its branches.
    TenantId
);
id16!(
    /// A timeline: the storage of one branch. Not Postgres's timeline number, which is always 1 here.
    TimelineId
);
id16!(
    /// One life of a safekeeper's copy of a timeline. A copy whose disk was lost comes back under a new one (trap K16).
    Incarnation
);

/// A timeline with its tenant: what services are asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TenantTimelineId {
    pub tenant: TenantId,
    pub timeline: TimelineId,
}

impl fmt::Display for TenantTimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.timeline)
    }
}

impl fmt::Debug for TenantTimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id!(
    /// A safekeeper or pageserver process of this installation; lives outside its data folder.
    NodeId
);
number_id!(
    /// Postgres's `system_identifier` in `pg_control` (`src/include/catalog/pg_control.h`).
    SystemId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let text = "00112233445566778899aabbccddeeff";
        let id: TenantId = text.parse().expect("valid id");
        assert_eq!(id.to_string(), text);
        assert_eq!(TenantId::try_from(&id.to_vec()[..]), Ok(id));
        for bad in ["", "0011", "zz112233445566778899aabbccddeeff", "+0112233445566778899aabbccddeeff"] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
        assert_eq!(TimelineId::try_from(&[1u8, 2][..]), Err(ParseIdError::Length(2)));
    }
}
