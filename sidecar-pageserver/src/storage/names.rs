//! Names of the objects: `timelines/<tenant>/<timeline>/index-<generation>`, `layers/<tenant>/<timeline>/<layer>` and
//! `objects/<tenant>/<timeline>/<name>`.
//!
//! Indexes have a prefix of their own, so that listing all timelines does not list all layers.

use strata_common::{Generation, TenantTimelineId};
use strata_objstore::{ObjectKey, StoreError};

use crate::core::layer::LayerName;
use crate::core::object::ObjectName;

pub const TIMELINES: &str = "timelines/";

pub fn index_prefix(id: TenantTimelineId) -> String {
    format!("{TIMELINES}{}/{}/index-", id.tenant, id.timeline)
}

pub fn index_key(id: TenantTimelineId, generation: Generation) -> Result<ObjectKey, StoreError> {
    ObjectKey::new(format!("{}{generation}", index_prefix(id)))
}

pub fn layer_prefix(id: TenantTimelineId) -> String {
    format!("layers/{}/{}/", id.tenant, id.timeline)
}

pub fn layer_key(id: TenantTimelineId, name: &LayerName) -> Result<ObjectKey, StoreError> {
    ObjectKey::new(format!("{}{name}", layer_prefix(id)))
}

pub fn object_prefix(id: TenantTimelineId) -> String {
    format!("objects/{}/{}/", id.tenant, id.timeline)
}

pub fn object_key(id: TenantTimelineId, name: ObjectName) -> Result<ObjectKey, StoreError> {
    ObjectKey::new(format!("{}{name}", object_prefix(id)))
}

/// Timeline and generation of an index object, or `None` if it is something else.
pub fn parse_index_key(key: &ObjectKey) -> Option<(TenantTimelineId, Generation)> {
    let mut parts = key.as_str().strip_prefix(TIMELINES)?.split('/');
    let id = TenantTimelineId { tenant: parts.next()?.parse().ok()?, timeline: parts.next()?.parse().ok()? };
    let digits = parts.next()?.strip_prefix("index-")?;
    let generation = Generation(u32::from_str_radix(digits, 16).ok()?);
    (parts.next().is_none() && generation.to_string() == digits).then_some((id, generation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_common::{TenantId, TimelineId};

    #[test]
    fn index_names_come_back() {
        let id = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
        let key = index_key(id, Generation(0x1f)).expect("a good name");
        assert!(key.as_str().ends_with("/index-0000001f"));
        assert_eq!(parse_index_key(&key), Some((id, Generation(0x1f))));
        for other in ["timelines/x/y/index-00000001", "layers/a", "timelines/a"] {
            assert_eq!(parse_index_key(&ObjectKey::new(other).expect("a good name")), None);
        }
    }
}
