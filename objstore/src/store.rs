//! The seam: what every object store can do. Object-safe, so that daemons hold an `Arc<dyn ObjectStore>` and tests wrap it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{ObjectKey, StoreError};

pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// One state of one object, opaque; S3 calls it an entity tag. Two puts of a key never have the same version.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(pub String);

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a put may happen. Checked and done in one atomic step, also between processes; a loser gets [`StoreError::Conflict`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PutCondition {
    Always,
    IfAbsent,
    IfVersion(Version),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    pub bytes: Bytes,
    pub version: Version,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectInfo {
    pub key: ObjectKey,
    pub bytes: u64,
    pub version: Version,
}

pub trait ObjectStore: Send + Sync + fmt::Debug + 'static {
    /// Writes the whole object; durable when it returns. After [`StoreError::Unavailable`] it may or may not have happened.
    fn put<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Bytes,
        condition: PutCondition,
    ) -> StoreFuture<'a, Version>;
    fn get<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, Object>;
    /// Exactly the bytes of `range`; a range past the end is [`StoreError::BadRange`].
    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes>;
    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectInfo>;
    /// All objects whose name starts with `prefix` (text, also in the middle of a part), in the order of their names.
    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Vec<ObjectInfo>>;
    /// Removes the object; removing what does not exist is fine.
    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()>;
    /// Where this is, for messages to people.
    fn describe(&self) -> String;
}

impl<S: ObjectStore + ?Sized> ObjectStore for Arc<S> {
    fn put<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Bytes,
        condition: PutCondition,
    ) -> StoreFuture<'a, Version> {
        (**self).put(key, body, condition)
    }
    fn get<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, Object> {
        (**self).get(key)
    }
    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        (**self).get_range(key, range)
    }
    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectInfo> {
        (**self).head(key)
    }
    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Vec<ObjectInfo>> {
        (**self).list(prefix)
    }
    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        (**self).delete(key)
    }
    fn describe(&self) -> String {
        (**self).describe()
    }
}
