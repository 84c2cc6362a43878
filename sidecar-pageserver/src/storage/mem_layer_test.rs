//! What a layer in memory gives back is what was put, whatever the order, the sizes and the open chunk.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn key(b: u8) -> Key {
    Key([b; 18])
}

fn image(text: &'static str) -> Value {
    Value::Image(Bytes::from_static(text.as_bytes()))
}

fn change(text: &'static str) -> Value {
    Value::Change { bytes: Bytes::from_static(text.as_bytes()), will_init: false }
}

/// Everything, as the file of the layer gets it.
fn all(layer: &MemLayer) -> Vec<(Key, Vec<(Lsn, Value)>)> {
    let mut all = Vec::new();
    let visited: Result<(), ()> = layer.for_each(|key, versions| {
        all.push((key, versions.iter().map(|(lsn, value)| (*lsn, owned(*value))).collect()));
        Ok(())
    });
    visited.expect("nothing fails");
    all
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Image(bytes) => Value::Image(Bytes::copy_from_slice(bytes)),
        ValueRef::Change { bytes, will_init } => {
            Value::Change { bytes: Bytes::copy_from_slice(bytes), will_init }
        }
    }
}

fn read(layer: &MemLayer, lsn: u64, above: Option<u64>) -> (Option<Bytes>, Vec<Bytes>) {
    let mut collector = Collector::new(None);
    layer.collect(key(1), Lsn(lsn), above.map(Lsn), &mut collector);
    let found = collector.finish();
    (found.image.map(|i| i.1), found.changes.into_iter().map(|c| c.1).collect())
}

#[test]
fn within_an_lsn_the_last_image_wins_and_changes_stay_in_order() {
    let layer = MemLayer::new(Lsn(1));
    layer.put(Lsn(10), [(key(1), change("lost")), (key(1), image("first")), (key(1), image("a"))]);
    layer.put(Lsn(10), [(key(1), change("b")), (key(2), change("other")), (key(1), change("c"))]);
    layer.put(Lsn(20), [(key(1), change("d"))]);
    assert_eq!(read(&layer, 9, None), (None, vec![]));
    assert_eq!(read(&layer, 19, None), (Some("a".into()), vec!["b".into(), "c".into()]));
    assert_eq!(read(&layer, 20, None), (Some("a".into()), vec!["b".into(), "c".into(), "d".into()]));
    assert_eq!(read(&layer, 20, Some(10)), (None, vec!["d".into()]));
    assert!(layer.bytes() > 0);
}

#[test]
fn values_of_many_records_at_once_are_those_of_one_after_the_other() {
    let (single, together) = (MemLayer::new(Lsn(1)), MemLayer::new(Lsn(1)));
    let value = |n: u64| if n % 7 == 3 { image("i") } else { change("c") };
    // Over the end of a lock's share, inside of an LSN.
    let values: Vec<(Key, Lsn, Value)> =
        (0..3 * VALUES_PER_LOCK as u64).map(|n| (key((n % 5) as u8), Lsn(10 + n / 5), value(n))).collect();
    for (key, lsn, value) in values.clone() {
        single.put(lsn, [(key, value)]);
    }
    together.put_all(values);
    assert_eq!(all(&single), all(&together));
    assert_eq!(single.bytes(), together.bytes());
}

#[test]
fn long_chains_are_those_without_an_image_near_their_end() {
    let layer = MemLayer::new(Lsn(1));
    for lsn in 1..=5 {
        layer.put(Lsn(lsn), [(key(1), change("x")), (key(2), change("x"))]);
    }
    layer.put(Lsn(6), [(key(2), image("i"))]);
    assert_eq!(layer.long_chains(5), [(key(1), Lsn(5))]);
    assert_eq!(layer.long_chains(6), []);
}

/// The layer as it would be without any thought for speed: keys in order, each with its values.
#[derive(Default)]
struct Plain(BTreeMap<Key, Vec<(Lsn, Value)>>);

impl Plain {
    fn add(&mut self, key: Key, lsn: Lsn, value: Value) {
        let versions = self.0.entry(key).or_default();
        if value.is_root() {
            versions.retain(|(other, _)| *other < lsn);
        }
        versions.push((lsn, value));
    }

    fn collect(&self, key: Key, lsn: Lsn, above: Option<Lsn>, collector: &mut Collector) {
        let versions = self.0.get(&key).map_or(&[][..], Vec::as_slice);
        let wanted = |at: Lsn| at <= lsn && above.is_none_or(|above| at > above);
        for (at, value) in versions.iter().rev().filter(|(at, _)| wanted(*at)) {
            if collector.push(*at, value.clone()) == Progress::Done {
                break;
            }
        }
    }

    fn newest(&self, keys: KeyRange, lsn: Lsn) -> Vec<(Key, Lsn, Value)> {
        let newest = |versions: &Vec<(Lsn, Value)>| versions.iter().rev().find(|(at, _)| *at <= lsn).cloned();
        let inside = self.0.range(keys.first..=keys.last);
        inside.filter_map(|(key, versions)| newest(versions).map(|(at, value)| (*key, at, value))).collect()
    }

    fn long_chains(&self, changes_min: usize) -> Vec<(Key, Lsn)> {
        let changes = |versions: &[(Lsn, Value)]| {
            versions.iter().rev().take_while(|(_, value)| !value.is_root()).count()
        };
        let long = self.0.iter().filter(|(_, versions)| changes(versions) >= changes_min);
        long.filter_map(|(key, versions)| versions.last().map(|(lsn, _)| (*key, *lsn))).collect()
    }
}

/// Kind, length and key of a value; how far the LSN moves first.
fn puts() -> impl Strategy<Value = Vec<(u8, usize, u8, u8, u64)>> {
    // Long ones fill chunks, longer ones get their own.
    let length = prop_oneof![30 => 0usize..60, 3 => 90_000usize..110_000, 1 => CHUNK_BYTES / 4 - 1..CHUNK_BYTES / 4 + 3];
    proptest::collection::vec((0u8..6, length, 0u8..5, 0u8..3, prop_oneof![Just(0u64), 1u64..4]), 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn it_is_the_plain_map_of_versions(puts in puts(), together: bool, at in 0u64..300, above in proptest::option::of(0u64..300)) {
        let (layer, mut plain) = (MemLayer::new(Lsn(1)), Plain::default());
        let (mut lsn, mut waiting) = (Lsn(10), Vec::new());
        for (n, (kind, length, place, end, later)) in puts.iter().enumerate() {
            // Keys differ in their group, or only behind it.
            let mut key = Key([*place; 18]);
            key.0[17] = *end;
            lsn = lsn + *later;
            let bytes = Bytes::from(vec![n as u8; *length]);
            let value = match kind {
                0 => Value::Image(bytes),
                kind => Value::Change { bytes, will_init: *kind == 1 },
            };
            plain.add(key, lsn, value.clone());
            if together {
                waiting.push((key, lsn, value));
            } else {
                layer.put(lsn, [(key, value)]);
            }
        }
        layer.put_all(waiting);
        prop_assert_eq!(all(&layer), plain.0.clone().into_iter().collect::<Vec<_>>());
        for changes_min in [1, 3, 8] {
            prop_assert_eq!(layer.long_chains(changes_min), plain.long_chains(changes_min));
        }
        let range = KeyRange { first: Key([1; 18]), last: Key([3; 18]) };
        for range in [range, KeyRange::ALL] {
            let mut newest = Vec::new();
            layer.newest(range, Lsn(at), |key, at, value| newest.push((key, at, value)));
            newest.sort_by_key(|(key, _, _)| *key);
            prop_assert_eq!(newest, plain.newest(range, Lsn(at)));
        }
        for key in plain.0.keys() {
            let (mut ours, mut theirs) = (Collector::new(None), Collector::new(None));
            layer.collect(*key, Lsn(at), above.map(Lsn), &mut ours);
            plain.collect(*key, Lsn(at), above.map(Lsn), &mut theirs);
            prop_assert_eq!(ours.finish(), theirs.finish());
        }
    }
}
