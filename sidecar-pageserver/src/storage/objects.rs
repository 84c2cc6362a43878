//! Small objects in the object store: put by conditional put, so that neither an earlier compute nor an earlier generation of the
//! pageserver ever replaces what a later one has written. They are hints, which the index does not name: one that is damaged is
//! refused when it is read, and the next put replaces it.

use bytes::Bytes;
use strata_common::Term;
use strata_objstore::{PutCondition, StoreError};

use super::error::StorageError;
use super::names;
use super::timeline::Timeline;
use crate::core::object::{ObjectName, SmallObject};

/// Each round is lost only to another process that writes at the same time.
const ROUNDS_MAX: usize = 8;

impl Timeline {
    /// Puts an object for a compute of `term`; durable when it returns. Never replaces what a later term has put.
    pub async fn put_object(&self, name: ObjectName, term: Term, content: Bytes) -> Result<(), StorageError> {
        let (bytes, max) = (content.len(), strata_proto::OBJECT_BYTES_MAX);
        if bytes > max {
            return Err(StorageError::TooLarge { what: "a small object", bytes, max });
        }
        let key = names::object_key(self.id, name)?;
        // A deletion waits for the one that is being written; others come again, so that their contents do not pile up here.
        let Ok(_one_at_a_time) = self.objects.try_lock() else {
            let reason = "another one is being put".to_owned();
            return Err(StoreError::Unavailable { operation: "put", what: key.to_string(), reason }.into());
        };
        let body =
            SmallObject { timeline: self.id, name, generation: self.generation, term, content }.encode();
        for _ in 0..ROUNDS_MAX {
            if let Some(why) = self.stopped.borrow().clone() {
                return Err(why);
            }
            let condition = match self.context.store.get(&key).await {
                Err(StoreError::NotFound { .. }) => PutCondition::IfAbsent,
                Err(error) => return Err(error.into()),
                Ok(there) => {
                    match SmallObject::decode(self.id, name, &there.bytes) {
                        Ok(there) => self.check_newer(&there, term)?,
                        Err(damage) => tracing::warn!(%key, %damage, "a damaged object is replaced"),
                    }
                    PutCondition::IfVersion(there.version)
                }
            };
            match self.context.store.put(&key, body.clone(), condition).await {
                Err(StoreError::Conflict { .. }) => {}
                result => return Ok(result.map(drop)?),
            }
        }
        let reason = "others write it all the time".to_owned();
        Err(StoreError::Unavailable { operation: "put", what: key.to_string(), reason }.into())
    }

    fn check_newer(&self, there: &SmallObject, term: Term) -> Result<(), StorageError> {
        if there.generation > self.generation {
            let by = format!("generation {}", there.generation);
            return Err(StorageError::Stale { id: self.id, own: self.generation, by });
        }
        if there.term > term {
            let (id, name, newest) = (self.id, there.name, there.term);
            return Err(StorageError::LaterTerm { id, name, asked: term, newest });
        }
        Ok(())
    }

    /// What was put last; failing that, what the nearest ancestor has that has one.
    pub async fn get_object(&self, name: ObjectName) -> Result<Option<SmallObject>, StorageError> {
        let mut timeline = self;
        loop {
            let key = names::object_key(timeline.id, name)?;
            match (timeline.context.store.get(&key).await, &timeline.ancestor) {
                (Ok(found), _) => {
                    let object = SmallObject::decode(timeline.id, name, &found.bytes);
                    return object.map(Some).map_err(|damage| StorageError::CorruptObject { key, damage });
                }
                (Err(StoreError::NotFound { .. }), Some((ancestor, _))) => timeline = ancestor,
                (Err(StoreError::NotFound { .. }), None) => return Ok(None),
                (Err(error), _) => return Err(error.into()),
            }
        }
    }
}
