//! The control file comes back as it was saved; whatever happened to its bytes, it is refused and not half believed.

use std::path::PathBuf;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::shell::disk::faulty::FaultyDisk;

fn state() -> impl Strategy<Value = (TenantTimelineId, DurableState)> {
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 16]>());
    let positions = (1u64..1 << 40, 0u64..1 << 40, 0u64..1 << 40);
    let members = vec((any::<u64>(), any::<[u8; 16]>()), 0..5);
    let history = vec((any::<u64>(), any::<u64>()), 0..40);
    let rest = (any::<u64>(), option::of(any::<[u8; 16]>()), any::<u32>(), any::<u64>());
    (ids, positions, members, history, rest).prop_map(|(ids, (start, more, most), members, history, rest)| {
        let id = TenantTimelineId { tenant: TenantId(ids.0), timeline: TimelineId(ids.1) };
        let members = members.into_iter();
        let members = members.map(|(node, raw)| Member { node: NodeId(node), incarnation: Incarnation(raw) });
        let history = history.into_iter().map(|(term, lsn)| TermStart { term: Term(term), lsn: Lsn(lsn) });
        let state = DurableState {
            incarnation: Incarnation(ids.2),
            membership: Membership { generation: MembershipGeneration(rest.2), members: members.collect() },
            facts: LogFacts {
                system_id: SystemId(rest.3),
                pg_version_num: 170_011,
                wal_segment_bytes: 16 << 20,
            },
            start_lsn: Lsn(start),
            oldest_lsn: Lsn(start + more),
            commit_lsn: Lsn(start + more + most),
            term: Term(rest.0),
            vote: rest.1.map(Candidate),
            history: TermHistory(history.collect()),
        };
        (id, state)
    })
}

proptest! {
    #[test]
    fn what_was_saved_comes_back((id, state) in state()) {
        prop_assert_eq!(decode(&encode(id, &state)).expect("valid"), (id, state));
    }

    #[test]
    fn a_changed_byte_or_length_is_refused((id, state) in state(), at: prop::sample::Index, by in 1u8..) {
        let good = encode(id, &state);
        let mut changed = good.clone();
        changed[at.index(good.len())] ^= by;
        prop_assert!(decode(&changed).is_err());
        prop_assert!(decode(&good[..at.index(good.len())]).is_err());
        let longer: Vec<u8> = good.iter().copied().chain([by]).collect();
        prop_assert!(decode(&longer).is_err());
    }

    #[test]
    fn a_crash_while_saving_leaves_the_old_or_the_new_one((id, old) in state(), (_, new) in state(), seed: u64) {
        let disk = FaultyDisk::default();
        let dir = PathBuf::from("/t");
        save(&disk, &dir, id, &old).expect("room");
        // Everything of `save` but its last sync.
        let file = disk.create(&dir.join("control.new")).expect("room");
        file.write_all_at(&encode(id, &new), 0).expect("room");
        let is_synced = seed & 1 == 1;
        if is_synced {
            file.sync_all().expect("works");
            disk.rename(&dir.join("control.new"), &dir.join(CONTROL_FILE)).expect("there");
        }
        let mut random = seed;
        disk.crash(|below| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        });
        let found = load(&disk, &dir, id).expect("one of both");
        prop_assert!(found == old || (is_synced && found == new));
    }
}

#[test]
fn a_file_of_another_timeline_or_format_is_refused() {
    let id = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
    let facts = LogFacts { system_id: SystemId(1), pg_version_num: 170_011, wal_segment_bytes: 16 << 20 };
    let state = DurableState::new(Incarnation([3; 16]), Membership::default(), facts, Lsn(0x1000028));
    let disk = FaultyDisk::default();
    let dir = PathBuf::from("/t");
    assert!(matches!(load(&disk, &dir, id), Err(ControlError::Io(_))));
    save(&disk, &dir, id, &state).expect("room");
    let other = TenantTimelineId { timeline: TimelineId([4; 16]), ..id };
    assert!(matches!(load(&disk, &dir, other), Err(ControlError::Foreign { .. })));
    let mut newer = encode(id, &state);
    newer[8] = 2;
    let end = newer.len() - 4;
    let checksum = crc32c::crc32c(&newer[..end]).to_le_bytes();
    newer[end..].copy_from_slice(&checksum);
    assert!(matches!(decode(&newer), Err(ControlError::Version { found: 2 })));
}
