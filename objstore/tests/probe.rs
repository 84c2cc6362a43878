//! The probe refuses a store that takes conditions and ignores them.

use std::ops::Range;

use bytes::Bytes;
use strata_objstore::{
    LocalStore, Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, StoreError, StoreFuture, Version,
    probe_with_nonce,
};

#[derive(Debug)]
struct IgnoresConditions(LocalStore);

impl ObjectStore for IgnoresConditions {
    fn put<'a>(&'a self, key: &'a ObjectKey, body: Bytes, _: PutCondition) -> StoreFuture<'a, Version> {
        self.0.put(key, body, PutCondition::Always)
    }
    fn get<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, Object> {
        self.0.get(key)
    }
    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        self.0.get_range(key, range)
    }
    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectInfo> {
        self.0.head(key)
    }
    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Vec<ObjectInfo>> {
        self.0.list(prefix)
    }
    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        self.0.delete(key)
    }
    fn describe(&self) -> String {
        "somewhere".into()
    }
}

#[tokio::test]
async fn a_store_without_conditions_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let local = LocalStore::open(dir.path()).await.expect("opens");
    probe_with_nonce(&local, "good").await.expect("the honest one passes");
    let refused = probe_with_nonce(&IgnoresConditions(local.clone()), "bad").await;
    let reason = "8 of 8 racing writers won a conditional put, which must be exactly one".to_owned();
    assert_eq!(refused, Err(StoreError::Unusable { store: "somewhere".into(), reason }));
    assert_eq!(local.list("probe/").await.expect("list"), [], "the scratch object is gone");
}
