//! The table against a plain map, and what must never be forgotten.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use strata_common::guard::prove;

fn tag(relation: u32) -> RelTag {
    RelTag { tablespace: 1663, database: 5, relation }
}

#[derive(Clone, Debug)]
enum Op {
    Meet(u32),
    Make(u32),
    Extend(u32, u8, u32),
    Truncate(u32, u8, u32),
    Learn(u32, u8, u32),
    Remove(u32),
    EndOfMaker(u32),
    Settle(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let rel = 0u32..60;
    prop_oneof![
        4 => rel.clone().prop_map(Op::Meet),
        2 => rel.clone().prop_map(Op::Make),
        3 => (rel.clone(), 0u8..4, 0u32..99).prop_map(|(r, f, b)| Op::Extend(r, f, b)),
        1 => (rel.clone(), 0u8..4, 0u32..99).prop_map(|(r, f, b)| Op::Truncate(r, f, b)),
        3 => (rel.clone(), 0u8..4, 0u32..99).prop_map(|(r, f, b)| Op::Learn(r, f, b)),
        2 => rel.clone().prop_map(Op::Remove),
        2 => rel.clone().prop_map(Op::EndOfMaker),
        2 => rel.prop_map(Op::Settle),
    ]
}

fn apply(entry: &mut RelEntry, op: &Op) {
    let fork = |raw: u8| ForkNumber::from_raw(raw).expect("a fork");
    match *op {
        Op::Extend(_, f, blocks) => entry.extend(fork(f), blocks),
        Op::Truncate(_, f, blocks) => entry.truncate(fork(f), blocks),
        Op::Learn(_, f, blocks) => drop(entry.learn(fork(f), ForkSize::Blocks(blocks))),
        Op::EndOfMaker(_) => entry.maker_pid = 0,
        Op::Settle(_) => {
            let seen = *entry;
            assert!(entry.settle(&seen));
        }
        Op::Meet(_) | Op::Make(_) | Op::Remove(_) => unreachable!("handled by the caller"),
    }
}

proptest! {
    /// R1: whatever is in the table equals the map; what is missing from it is missing because it may be forgotten.
    #[test]
    fn equals_a_map(ops in proptest::collection::vec(op(), 1..400)) {
        let (mut cells, mut used) = ([RelEntry::FREE; 32], 0);
        let mut table = RelPartition::new(&mut cells, &mut used);
        let mut model: HashMap<RelTag, RelEntry> = HashMap::new();
        for op in ops {
            let (Op::Meet(rel) | Op::Make(rel) | Op::Extend(rel, ..) | Op::Truncate(rel, ..) | Op::Learn(rel, ..)
                | Op::Remove(rel) | Op::EndOfMaker(rel) | Op::Settle(rel)) = op;
            let tag = tag(rel);
            match op {
                Op::Meet(_) => {
                    if let Ok(entry) = table.get_or_put(tag, Room::Ordinary, || RelEntry::met(tag, Class::Permanent)) {
                        model.insert(tag, *entry);
                    }
                }
                Op::Make(_) => {
                    if let Ok(entry) = table.put(RelEntry::made(tag, Class::Permanent, 7, 99), Room::Ordinary) {
                        model.insert(tag, *entry);
                    }
                }
                Op::Remove(_) => {
                    let there = table.remove(tag).is_some();
                    let modelled = model.remove(&tag);
                    prop_assert!(there || modelled.is_none_or(|entry| entry.can_be_forgotten()));
                }
                _ => if let Some(entry) = table.get_mut(tag) {
                    apply(entry, &op);
                    apply(model.get_mut(&tag).expect("in the model"), &op);
                },
            }
            model.retain(|tag, entry| table.get(*tag).is_some() || !entry.can_be_forgotten());
            prop_assert_eq!(table.len(), table.entries().count());
            prop_assert_eq!(table.len(), model.len());
            for (tag, entry) in &model {
                let cell = table.get(*tag).expect("kept");
                prop_assert_eq!((cell.class, cell.forks, cell.maker_pid), (entry.class, entry.forks, entry.maker_pid));
            }
        }
    }
}

#[test]
fn trap_r1_sizes_of_ours_are_never_forgotten() {
    prove(Guard::SizesAheadOfTheLog, sizes_of_ours_are_never_forgotten);
}

#[test]
fn trap_r10_the_last_block_number_is_nobodys() {
    prove(Guard::BlockLimit, || {
        assert!(may_grow(0, u32::MAX - 1) && may_grow(u32::MAX - 2, 1));
        for (first, count) in
            [(u32::MAX - 1, 1), (u32::MAX, 1), (0, u32::MAX), (u32::MAX - 64, 64), (u32::MAX, u32::MAX)]
        {
            assert!(!may_grow(first, count), "{count} blocks from {first} on");
        }
    });
}

fn sizes_of_ours_are_never_forgotten() {
    let (mut cells, mut used) = ([RelEntry::FREE; 8], 0);
    let mut table = RelPartition::new(&mut cells, &mut used);
    for relation in 0..7 {
        table
            .put(RelEntry::met(tag(relation), Class::Permanent), Room::Ordinary)
            .expect("room")
            .extend(ForkNumber::Main, 1);
    }
    assert_eq!(table.put(RelEntry::met(tag(7), Class::Permanent), Room::Ordinary).err(), Some(Full));
    let seen = *table.get(tag(3)).expect("there");
    assert!(table.get_mut(tag(3)).expect("there").settle(&seen));
    assert!(table.put(RelEntry::met(tag(7), Class::Permanent), Room::Ordinary).is_ok());
    assert!(table.get(tag(3)).is_none(), "the settled one went");
}

#[test]
fn an_answer_never_replaces_what_is_known() {
    let mut entry = RelEntry::met(tag(1), Class::Permanent);
    assert_eq!(entry.learn(ForkNumber::Main, ForkSize::Blocks(5)), ForkSize::Blocks(5));
    entry.extend(ForkNumber::Main, 9);
    assert_eq!(entry.learn(ForkNumber::Main, ForkSize::Blocks(5)), ForkSize::Blocks(9));
    entry.truncate(ForkNumber::Main, 2);
    assert_eq!(entry.learn(ForkNumber::Main, ForkSize::Blocks(9)), ForkSize::Blocks(2));
    entry.create_fork(ForkNumber::Main);
    assert_eq!(entry.fork(ForkNumber::Main).size, ForkSize::Blocks(2), "R2");
}

#[test]
fn a_changed_entry_is_not_settled() {
    let mut entry = RelEntry::made(tag(1), Class::Permanent, 0, 0);
    let seen = entry;
    entry.extend(ForkNumber::Main, 1);
    assert!(!entry.settle(&seen) && entry.fork(ForkNumber::Main).ours);
}

/// A page that must be spilled finds room where nothing else does; the reserve is given back first.
#[test]
fn the_reserve_is_for_what_cannot_wait() {
    let (mut cells, mut used) = ([RelEntry::FREE; 64], 0);
    let mut table = RelPartition::new(&mut cells, &mut used);
    let mut relation = 0;
    let mut fill = |table: &mut RelPartition<'_>, room| {
        loop {
            relation += 1;
            match table.put(RelEntry::met(tag(relation), Class::Permanent), room) {
                Ok(entry) => entry.extend(ForkNumber::Main, 1),
                Err(Full) => return table.len(),
            }
        }
    };
    assert_eq!(fill(&mut table, Room::Ordinary), 56);
    assert_eq!(fill(&mut table, Room::Reserve), 62, "a free cell must stay, or a search would not end");
    assert!(table.is_crowded());
    let settled: Vec<RelEntry> = table.entries().take(20).copied().collect();
    for seen in &settled {
        assert!(table.get_mut(seen.tag).expect("there").settle(seen));
    }
    table.put(RelEntry::met(tag(999), Class::Permanent), Room::Ordinary).expect("others went");
    assert_eq!(table.len(), 56);
}

/// Sizes of files are not the pageserver's: only the INIT fork of an unlogged relation has to agree.
#[test]
fn an_unlogged_relation_can_be_settled() {
    let mut entry = RelEntry::made(tag(1), Class::Unlogged, 7, 0);
    entry.create_fork(ForkNumber::Init);
    assert!(!entry.can_be_settled(), "its maker runs");
    entry.maker_pid = 0;
    assert!(entry.can_be_settled());
    let stored: Vec<ForkNumber> = ForkNumber::ALL.into_iter().filter(|fork| entry.is_stored(*fork)).collect();
    assert_eq!(stored, [ForkNumber::Init]);
    let seen = entry;
    assert!(entry.settle(&seen) && entry.can_be_forgotten());
}
