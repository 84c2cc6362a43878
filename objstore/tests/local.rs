//! The local store keeps the seam's promises: between processes, after a crash's leftovers, and when its folder is no good.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use strata_objstore::{
    FaultRates, FaultyStore, LocalStore, ObjectKey, ObjectStore, PutCondition, RetryPolicy, RetryingStore,
    StoreError,
};

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("a good name")
}

async fn fresh() -> (tempfile::TempDir, LocalStore) {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = LocalStore::open(dir.path().join("store")).await.expect("opens");
    (dir, store)
}

#[tokio::test]
async fn objects_come_back_and_go() {
    let (_dir, store) = fresh().await;
    let body = Bytes::from_static(b"0123456789");
    let version = store.put(&key("a/b/c"), body.clone(), PutCondition::Always).await.expect("put");
    let object = store.get(&key("a/b/c")).await.expect("get");
    assert_eq!((object.bytes, object.version), (body, version.clone()));
    assert_eq!(store.get_range(&key("a/b/c"), 2..5).await.expect("range"), Bytes::from_static(b"234"));
    assert!(matches!(
        store.get_range(&key("a/b/c"), 5..11).await,
        Err(StoreError::BadRange { bytes: 10, .. })
    ));
    let info = store.head(&key("a/b/c")).await.expect("head");
    assert_eq!((info.bytes, info.version), (10, version));
    store.delete(&key("a/b/c")).await.expect("delete");
    store.delete(&key("a/b/c")).await.expect("a second delete is fine");
    assert_eq!(store.get(&key("a/b/c")).await, Err(StoreError::NotFound { key: key("a/b/c") }));
    assert_eq!(
        store.head(&key("a")).await,
        Err(StoreError::NotFound { key: key("a") }),
        "a folder is no object"
    );
}

#[tokio::test]
async fn listing_is_by_text_prefix_and_ordered() {
    let (_dir, store) = fresh().await;
    for name in ["t/1/index-2", "t/1/index-1", "t/10/x", "t/2/y", "u/1"] {
        store.put(&key(name), Bytes::new(), PutCondition::IfAbsent).await.expect("put");
    }
    let names = |found: Vec<strata_objstore::ObjectInfo>| {
        found.into_iter().map(|o| o.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(store.list("t/1/").await.expect("list")), ["t/1/index-1", "t/1/index-2"]);
    assert_eq!(names(store.list("t/1").await.expect("list")), ["t/1/index-1", "t/1/index-2", "t/10/x"]);
    assert_eq!(names(store.list("t/1/index-1").await.expect("list")), ["t/1/index-1"]);
    assert_eq!(store.list("").await.expect("list").len(), 5);
    assert_eq!(names(store.list("nothing/").await.expect("list")), Vec::<String>::new());
}

#[tokio::test]
async fn conditional_puts_hold_their_condition() {
    let (_dir, store) = fresh().await;
    let (k, b) = (key("index"), |text: &'static str| Bytes::from_static(text.as_bytes()));
    let first = store.put(&k, b("1"), PutCondition::IfAbsent).await.expect("absent");
    let conflict = Err(StoreError::Conflict { key: k.clone() });
    assert_eq!(store.put(&k, b("2"), PutCondition::IfAbsent).await, conflict);
    let second = store.put(&k, b("2"), PutCondition::IfVersion(first.clone())).await.expect("matches");
    assert_eq!(store.put(&k, b("3"), PutCondition::IfVersion(first)).await, conflict);
    store.put(&k, b("2"), PutCondition::Always).await.expect("always");
    // The same bytes again are another version: who held the old one has lost.
    assert_eq!(store.put(&k, b("4"), PutCondition::IfVersion(second)).await, conflict);
    assert_eq!(store.get(&k).await.expect("get").bytes, b("2"));
}

/// Each child adds one to a number 20 times by conditional put; any put that ignored its condition would lose an addition.
#[test]
fn conditional_puts_are_atomic_between_processes() {
    const CHILDREN: u64 = 8;
    const ADDITIONS: u64 = 20;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let add_in = |root: &str| {
        runtime.block_on(async {
            let store = LocalStore::open(root).await.expect("opens");
            for _ in 0..ADDITIONS {
                loop {
                    let (value, condition) = match store.get(&key("number")).await {
                        Ok(o) => (
                            std::str::from_utf8(&o.bytes).expect("text").parse::<u64>().expect("number"),
                            PutCondition::IfVersion(o.version),
                        ),
                        Err(StoreError::NotFound { .. }) => (0, PutCondition::IfAbsent),
                        Err(e) => panic!("{e}"),
                    };
                    match store.put(&key("number"), Bytes::from((value + 1).to_string()), condition).await {
                        Ok(_) => break,
                        Err(StoreError::Conflict { .. }) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            }
        });
    };
    if let Ok(root) = std::env::var("STRATA_TEST_STORE_CHILD") {
        return add_in(&root);
    }
    let dir = tempfile::tempdir().expect("temp dir");
    let me = std::env::current_exe().expect("own path");
    let children: Vec<_> = (0..CHILDREN)
        .map(|_| {
            Command::new(&me)
                .args(["conditional_puts_are_atomic_between_processes", "--exact", "--quiet"])
                .env("STRATA_TEST_STORE_CHILD", dir.path())
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("child")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("waits").success());
    }
    let total = std::fs::read_to_string(dir.path().join("number")).expect("the object is a plain file");
    assert_eq!(total, (CHILDREN * ADDITIONS).to_string());
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("file");
    std::fs::write(&file, b"x").expect("write");
    let message = LocalStore::open(&file).await.expect_err("a file is refused").to_string();
    assert_eq!(message, format!("object store {} cannot be used: it is not a folder", file.display()));
    let message = LocalStore::open(dir.path().join("no/parent")).await.expect_err("no parent").to_string();
    assert!(message.contains("cannot be used: No such file or directory"), "{message}");
    // The superuser may write everywhere, so this half means something for everybody else only.
    let sealed = dir.path().join("sealed");
    std::fs::create_dir(&sealed).expect("mkdir");
    std::fs::set_permissions(&sealed, std::fs::Permissions::from_mode(0o500)).expect("chmod");
    if std::fs::write(sealed.join("probe"), b"").is_err() {
        let message = LocalStore::open(&sealed).await.expect_err("refused").to_string();
        assert!(message.contains("Permission denied") && !message.contains('\n'), "{message}");
    }
}

#[tokio::test]
async fn leftovers_of_a_crash_are_removed_but_not_those_of_a_living_writer() {
    let (dir, store) = fresh().await;
    let temp = dir.path().join("store/.temp");
    std::fs::write(temp.join("1-1"), b"half").expect("write");
    let living = std::fs::File::create(temp.join("2-2")).expect("create");
    living.lock().expect("lock");
    drop(store);
    let store = LocalStore::open(dir.path().join("store")).await.expect("opens again");
    assert!(!temp.join("1-1").exists());
    assert!(temp.join("2-2").exists());
    assert_eq!(store.list("").await.expect("list"), [], "own files are no objects");
}

/// Another machine or container on the same folder may have our process id, and count from the same number.
#[tokio::test]
async fn a_put_does_not_touch_the_temporary_file_of_a_namesake() {
    let (dir, store) = fresh().await;
    let temp = dir.path().join("store/.temp");
    let names = || (0..1_000).map(|number| temp.join(format!("{}-{number}", std::process::id())));
    for name in names() {
        std::fs::write(name, b"being written").expect("write");
    }
    store.put(&key("a"), Bytes::from_static(b"ours"), PutCondition::Always).await.expect("put");
    for name in names() {
        assert_eq!(std::fs::read(&name).expect("still there"), b"being written");
    }
    assert_eq!(store.get(&key("a")).await.expect("get").bytes, "ours");
    assert_eq!(std::fs::read_dir(&temp).expect("readable").count(), 1_000, "ours is gone");
}

#[tokio::test]
async fn a_lost_answer_of_a_conditional_put_is_found_out() {
    let (_dir, store) = fresh().await;
    let faulty = FaultyStore::new(store, 7);
    faulty.set_rates(FaultRates {
        refused: 200,
        answer_lost: 400,
        delayed: 100,
        delay: Duration::from_millis(1),
    });
    let policy = RetryPolicy {
        tries_max: 40,
        delay_first: Duration::from_micros(10),
        delay_max: Duration::from_millis(1),
    };
    let store = RetryingStore::new(faulty, policy);
    let mut condition = PutCondition::IfAbsent;
    for number in 0..100 {
        let version = store.put(&key("index"), Bytes::from(format!("{number}")), condition).await;
        condition = PutCondition::IfVersion(version.expect("nobody else writes, so it must win"));
    }
    assert_eq!(store.get(&key("index")).await.expect("get").bytes, Bytes::from_static(b"99"));
}

#[tokio::test]
async fn a_store_that_is_away_is_given_up_after_a_bound() {
    let (_dir, store) = fresh().await;
    let faulty = FaultyStore::new(store, 7);
    faulty.set_down(true);
    let policy = RetryPolicy {
        tries_max: 3,
        delay_first: Duration::from_millis(1),
        delay_max: Duration::from_millis(1),
    };
    let store = RetryingStore::new(std::sync::Arc::new(faulty), policy);
    let result = store.put(&key("a"), Bytes::new(), PutCondition::Always).await;
    assert!(matches!(result, Err(ref e) if e.is_retryable()), "{result:?}");
}
