//! The index objects of a timeline: taking it over from lower generations, and writing it while it is ours.
//!
//! `core::attach` decides; here are the calls. Whoever loses a conditional put has been taken over and gets [`StorageError::Stale`].

use std::sync::Arc;

use strata_common::{Generation, TenantTimelineId};
use strata_objstore::{ObjectStore, PutCondition, StoreError, Version};

use super::error::StorageError;
use super::names;
use crate::core::attach::{AttachStep, Seen, next_step};
use crate::core::index::TimelineIndex;

/// Rounds of an attach: each loses only to another process that attaches at the same time.
const ROUNDS_MAX: usize = 32;

#[derive(Debug)]
pub struct IndexWriter {
    store: Arc<dyn ObjectStore>,
    id: TenantTimelineId,
    generation: Generation,
    mark: String,
    sequence: u64,
    version: Version,
}

struct Found {
    index: TimelineIndex,
    version: Version,
}

/// Makes this process's generation the owner of the timeline. `mark` is unique to the process.
pub async fn take_over(
    store: &Arc<dyn ObjectStore>,
    id: TenantTimelineId,
    generation: Generation,
    mark: &str,
) -> Result<(TimelineIndex, IndexWriter), StorageError> {
    let mut taken_from = None;
    let mut absent_before = false;
    for _ in 0..ROUNDS_MAX {
        let found = read_all(store, id).await?;
        // A listing that meets a take-over may miss both the old index, just removed, and the new one: look twice.
        if found.is_empty() && !absent_before {
            absent_before = true;
            continue;
        }
        absent_before = false;
        let seen: Vec<Seen> = found
            .iter()
            .map(|f| Seen { generation: f.index.generation, sealed_by: f.index.sealed_by })
            .collect();
        let at = |generation: Generation| found.iter().find(|f| f.index.generation == generation);
        let step = next_step(&seen, generation, taken_from);
        match step {
            AttachStep::Absent => return Err(StorageError::NotFound(id)),
            AttachStep::Stale { by } => return Err(stale(id, generation, format!("generation {by}"))),
            AttachStep::Seal(lower) => {
                let Some(found) = at(lower) else { continue };
                let mut sealed = found.index.clone();
                sealed.sealed_by = Some(generation);
                sealed.writer = mark.to_owned();
                put_or_look_again(store, &sealed, PutCondition::IfVersion(found.version.clone())).await?;
            }
            AttachStep::TakeOver { from } => {
                let Some(source) = at(from) else { continue };
                let mut index = source.index.clone();
                (index.generation, index.sealed_by) = (generation, None);
                index.writer = mark.to_owned();
                index.sequence += 1;
                let condition = match at(generation) {
                    Some(own) => PutCondition::IfVersion(own.version.clone()),
                    None => PutCondition::IfAbsent,
                };
                if put_or_look_again(store, &index, condition).await? {
                    taken_from = Some(from);
                }
            }
            AttachStep::Attached => {
                let own = at(generation).filter(|own| own.index.writer == mark);
                let Some(own) = own else {
                    return Err(stale(id, generation, "a process of the same generation".into()));
                };
                remove_lower(store, id, &seen, generation).await;
                let writer = IndexWriter {
                    store: store.clone(),
                    id,
                    generation,
                    mark: mark.to_owned(),
                    sequence: own.index.sequence,
                    version: own.version.clone(),
                };
                return Ok((own.index.clone(), writer));
            }
        }
    }
    Err(stale(id, generation, "several processes at once".into()))
}

/// Writes the first index of a new timeline. Whoever comes second gets [`StorageError::AlreadyExists`].
pub async fn create(
    store: &Arc<dyn ObjectStore>,
    mut index: TimelineIndex,
    mark: &str,
) -> Result<(TimelineIndex, IndexWriter), StorageError> {
    let (id, generation) = (index.id, index.generation);
    if !store.list(&names::index_prefix(id)).await?.is_empty() {
        return Err(StorageError::AlreadyExists(id));
    }
    index.writer = mark.to_owned();
    index.sequence = 1;
    let key = names::index_key(id, generation)?;
    let version = match store.put(&key, index.encode(), PutCondition::IfAbsent).await {
        Err(StoreError::Conflict { .. }) => return Err(StorageError::AlreadyExists(id)),
        result => result?,
    };
    let (store, mark) = (store.clone(), mark.to_owned());
    Ok((index, IndexWriter { store, id, generation, mark, sequence: 1, version }))
}

impl IndexWriter {
    /// Replaces our index. Once it fails as stale it always will.
    pub async fn write(&mut self, mut index: TimelineIndex) -> Result<(), StorageError> {
        assert_eq!(
            (index.id, index.generation),
            (self.id, self.generation),
            "an index is written to its place"
        );
        index.writer.clone_from(&self.mark);
        // A number is never used for two different contents, also if the first put's fate is unknown.
        self.sequence += 1;
        index.sequence = self.sequence;
        let key = names::index_key(self.id, self.generation)?;
        let condition = PutCondition::IfVersion(self.version.clone());
        match self.store.put(&key, index.encode(), condition).await {
            Ok(version) => {
                self.version = version;
                Ok(())
            }
            Err(StoreError::Conflict { .. }) => self.after_conflict(&key).await,
            Err(e) => Err(e.into()),
        }
    }

    /// An earlier put of ours, given up as unanswered, may have happened after all: then the version is ours to go on from.
    async fn after_conflict(&mut self, key: &strata_objstore::ObjectKey) -> Result<(), StorageError> {
        let by = match self.store.get(key).await {
            Ok(object) => {
                let index = decode(key, self.id, &object.bytes)?;
                if index.writer == self.mark && index.sealed_by.is_none() {
                    self.version = object.version;
                    return Err(StorageError::Store(StoreError::Unavailable {
                        operation: "put",
                        what: key.to_string(),
                        reason: "an earlier put of the index came late, it is written again".into(),
                    }));
                }
                index.sealed_by.map_or("another process".into(), |by| format!("generation {by}"))
            }
            Err(StoreError::NotFound { .. }) => "a later generation".into(),
            Err(e) => return Err(e.into()),
        };
        Err(stale(self.id, self.generation, by))
    }
}

/// The newest index of a timeline, without taking it over.
pub async fn peek(store: &Arc<dyn ObjectStore>, id: TenantTimelineId) -> Result<TimelineIndex, StorageError> {
    let found = read_all(store, id).await?;
    let newest = found.into_iter().max_by_key(|f| f.index.generation);
    newest.map(|f| f.index).ok_or(StorageError::NotFound(id))
}

/// Removes the index objects: the last step of a deletion.
pub async fn remove_all(store: &Arc<dyn ObjectStore>, id: TenantTimelineId) -> Result<(), StorageError> {
    // Ours goes last: if we stop half-way the deletion is still marked.
    for object in store.list(&names::index_prefix(id)).await? {
        store.delete(&object.key).await?;
    }
    Ok(())
}

async fn read_all(store: &Arc<dyn ObjectStore>, id: TenantTimelineId) -> Result<Vec<Found>, StorageError> {
    let mut found = Vec::new();
    for listed in store.list(&names::index_prefix(id)).await? {
        let Some((_, generation)) = names::parse_index_key(&listed.key) else { continue };
        let object = match store.get(&listed.key).await {
            Err(StoreError::NotFound { .. }) => continue,
            object => object?,
        };
        let index = decode(&listed.key, id, &object.bytes)?;
        if index.generation != generation {
            return Err(StorageError::Misnamed { key: listed.key, generation: index.generation });
        }
        found.push(Found { index, version: object.version });
    }
    Ok(found)
}

fn decode(
    key: &strata_objstore::ObjectKey,
    id: TenantTimelineId,
    bytes: &[u8],
) -> Result<TimelineIndex, StorageError> {
    TimelineIndex::decode(id, bytes).map_err(|source| StorageError::CorruptIndex { key: key.clone(), source })
}

/// False if somebody else was faster: the caller looks again.
async fn put_or_look_again(
    store: &Arc<dyn ObjectStore>,
    index: &TimelineIndex,
    condition: PutCondition,
) -> Result<bool, StorageError> {
    let key = names::index_key(index.id, index.generation)?;
    match store.put(&key, index.encode(), condition).await {
        Ok(_) => Ok(true),
        Err(StoreError::Conflict { .. }) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Sealed and taken over, they have no reader left. Failing is harmless: the next attach does it.
async fn remove_lower(store: &Arc<dyn ObjectStore>, id: TenantTimelineId, seen: &[Seen], own: Generation) {
    for lower in seen.iter().filter(|s| s.generation < own) {
        let Ok(key) = names::index_key(id, lower.generation) else { continue };
        if let Err(e) = store.delete(&key).await {
            tracing::warn!(%key, error = %e, "an old index stays until the next attach");
        }
    }
}

fn stale(id: TenantTimelineId, own: Generation, by: String) -> StorageError {
    StorageError::Stale { id, own, by }
}
