//! Bounded retries with back-off around a store, and the answer to the awkward case: a conditional put whose acknowledgement was lost.
//!
//! Such a put is tried again and then loses against itself. So after an uncertain try a conflict is not the last word: if the object holds
//! exactly our bytes the put has happened. Callers therefore make their conditional bodies unique (a writer's mark and a sequence number).

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::{Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, StoreError, StoreFuture, Version};

/// How often and how patiently. Delays double from `delay_first` to `delay_max`.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    pub tries_max: u32,
    pub delay_first: Duration,
    pub delay_max: Duration,
}

impl Default for RetryPolicy {
    /// About three seconds in all: longer outages are for callers, who know what to do meanwhile.
    fn default() -> RetryPolicy {
        RetryPolicy {
            tries_max: 6,
            delay_first: Duration::from_millis(50),
            delay_max: Duration::from_secs(2),
        }
    }
}

/// A store that tries again what [`StoreError::is_retryable`].
#[derive(Debug)]
pub struct RetryingStore<S> {
    inner: S,
    policy: RetryPolicy,
}

impl<S: ObjectStore> RetryingStore<S> {
    pub fn new(inner: S, policy: RetryPolicy) -> RetryingStore<S> {
        RetryingStore { inner, policy }
    }

    async fn retry<'a, T>(&'a self, call: impl Fn() -> StoreFuture<'a, T>) -> Result<T, StoreError> {
        let mut delay = self.policy.delay_first;
        for _ in 1..self.policy.tries_max {
            match call().await {
                Err(e) if e.is_retryable() => {
                    tracing::debug!(error = %e, "object store: trying again");
                }
                result => return result,
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(self.policy.delay_max);
        }
        call().await
    }

    async fn put_retrying(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: PutCondition,
    ) -> Result<Version, StoreError> {
        let mut delay = self.policy.delay_first;
        let mut uncertain = false;
        for number in 1..=self.policy.tries_max {
            match self.inner.put(key, body.clone(), condition.clone()).await {
                Err(StoreError::Conflict { .. }) if uncertain => return self.resolve(key, &body).await,
                Err(e) if e.is_retryable() && number < self.policy.tries_max => {
                    tracing::debug!(error = %e, "object store: trying again");
                    uncertain = true;
                }
                result => return result,
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(self.policy.delay_max);
        }
        unreachable!("the last try returns")
    }

    /// Was the put whose answer we never saw ours after all?
    async fn resolve(&self, key: &ObjectKey, body: &Bytes) -> Result<Version, StoreError> {
        match self.retry(|| self.inner.get(key)).await {
            Ok(object) if object.bytes == *body => Ok(object.version),
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(StoreError::Conflict { key: key.clone() }),
            Err(e) => Err(e),
        }
    }
}

impl<S: ObjectStore> ObjectStore for RetryingStore<S> {
    fn put<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Bytes,
        condition: PutCondition,
    ) -> StoreFuture<'a, Version> {
        Box::pin(self.put_retrying(key, body, condition))
    }
    fn get<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, Object> {
        Box::pin(self.retry(move || self.inner.get(key)))
    }
    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        Box::pin(self.retry(move || self.inner.get_range(key, range.clone())))
    }
    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.retry(move || self.inner.head(key)))
    }
    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Vec<ObjectInfo>> {
        Box::pin(self.retry(move || self.inner.list(prefix)))
    }
    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        Box::pin(self.retry(move || self.inner.delete(key)))
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}
