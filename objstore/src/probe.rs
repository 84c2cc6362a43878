//! Checks, before a store is trusted, that it does what the seam promises: reads what was written, and lets one of many racing conditional
//! puts win. Some stores accept the condition and ignore it; with such a one two writers could both believe that they own an index.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::join_all;

use crate::{ObjectKey, ObjectStore, PutCondition, StoreError, Version};

/// Writers in the race.
const RACERS: usize = 8;

static PROBES: AtomicU64 = AtomicU64::new(0);

/// Probes with a scratch name made from process id and time. The error is [`StoreError::Unusable`], one sentence.
pub async fn probe(store: &dyn ObjectStore) -> Result<(), StoreError> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let count = PROBES.fetch_add(1, Ordering::Relaxed);
    probe_with_nonce(store, &format!("{}-{nanos:x}-{count}", std::process::id())).await
}

/// Like [`probe`], under the scratch name `probe/<nonce>`, which nobody else may use at the same time.
pub async fn probe_with_nonce(store: &dyn ObjectStore, nonce: &str) -> Result<(), StoreError> {
    let unusable = |reason: String| StoreError::Unusable { store: store.describe(), reason };
    let key = ObjectKey::new(format!("probe/{nonce}"))?;
    let result = run(store, &key).await;
    let cleaned = store.delete(&key).await;
    match (result, cleaned) {
        (Err(reason), _) => Err(unusable(reason)),
        (Ok(()), Err(e)) => Err(unusable(e.to_string())),
        (Ok(()), Ok(())) => Ok(()),
    }
}

async fn run(store: &dyn ObjectStore, key: &ObjectKey) -> Result<(), String> {
    let fail = |e: StoreError| e.to_string();
    let first = race(store, key, PutCondition::IfAbsent, "create").await?;
    let second = race(store, key, PutCondition::IfVersion(first.clone()), "replace").await?;
    if first == second {
        return Err("two writes of one object have the same version".into());
    }
    match store.put(key, Bytes::from_static(b"late"), PutCondition::IfVersion(first)).await {
        Err(StoreError::Conflict { .. }) => {}
        Ok(_) => return Err("it ignores the condition of a conditional put".into()),
        Err(e) => return Err(fail(e)),
    }
    let whole = store.get(key).await.map_err(fail)?;
    let size = whole.bytes.len() as u64;
    let part = store.get_range(key, 1..size).await.map_err(fail)?;
    let info = store.head(key).await.map_err(fail)?;
    let listed = store.list(key.as_str()).await.map_err(fail)?;
    if whole.version != second || part != whole.bytes.slice(1..) || info.bytes != size || listed != [info] {
        return Err("what it reads is not what was written".into());
    }
    store.delete(key).await.map_err(fail)?;
    match store.get(key).await {
        Err(StoreError::NotFound { .. }) => Ok(()),
        Ok(_) => Err("a deleted object can still be read".into()),
        Err(e) => Err(fail(e)),
    }
}

async fn race(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    condition: PutCondition,
    what: &str,
) -> Result<Version, String> {
    let bodies = (0..RACERS).map(|racer| Bytes::from(format!("{what} by racer {racer}")));
    let results = join_all(bodies.map(|body| store.put(key, body, condition.clone()))).await;
    let mut winners = Vec::new();
    for result in results {
        match result {
            Ok(version) => winners.push(version),
            Err(StoreError::Conflict { .. }) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    match <[Version; 1]>::try_from(winners) {
        Ok([version]) => Ok(version),
        Err(winners) => Err(format!(
            "{} of {RACERS} racing writers won a conditional put, which must be exactly one",
            winners.len()
        )),
    }
}
