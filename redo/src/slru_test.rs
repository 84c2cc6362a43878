//! SLRU pages: each kind of change, at the first and the last entry.

use proptest::prelude::*;
use strata_common::Lsn;

use super::*;
use crate::{Fault, apply_slru};

fn applied(page: &mut Page, kind: SlruKind, change: &[u8]) -> Result<(), Fault> {
    apply_slru(page, SlruPage { kind, page: 3 }, Lsn(100), change).map_err(|error| error.fault)
}

#[test]
fn each_slru_has_its_folder() {
    let folders =
        [SlruKind::Clog, SlruKind::MultiXactOffsets, SlruKind::MultiXactMembers, SlruKind::CommitTs]
            .map(SlruKind::folder);
    assert_eq!(folders, ["pg_xact", "pg_multixact/offsets", "pg_multixact/members", "pg_commit_ts"]);
}

#[test]
fn statuses_are_two_bits_from_the_low_end() {
    let mut page = [0; BLOCK_BYTES];
    let change = encode_clog_status(XidStatus::Aborted, &[0, 3, 32_767]);
    applied(&mut page, SlruKind::Clog, &change).unwrap();
    assert_eq!((page[0], page[8191]), (0b1000_0010, 0b1000_0000));
    applied(&mut page, SlruKind::Clog, &encode_clog_status(XidStatus::Committed, &[1, 3])).unwrap();
    assert_eq!(page[0], 0b0100_0110);
}

#[test]
fn sub_committed_does_not_undo_committed() {
    let mut page = [0; BLOCK_BYTES];
    applied(&mut page, SlruKind::Clog, &encode_clog_status(XidStatus::Committed, &[5])).unwrap();
    applied(&mut page, SlruKind::Clog, &encode_clog_status(XidStatus::SubCommitted, &[5, 6])).unwrap();
    assert_eq!(page[1], 0b0011_0100);
}

#[test]
fn offsets_and_members_lie_as_in_multixact_c() {
    let mut page = [0; BLOCK_BYTES];
    let change = encode_multi_offsets(&[(0, 0x0403_0201), (2047, 9)]);
    applied(&mut page, SlruKind::MultiXactOffsets, &change).unwrap();
    assert_eq!((&page[..4], page[8188]), (&[1, 2, 3, 4][..], 9));

    let mut page = [0; BLOCK_BYTES];
    let members = [3, 4, 5].map(|n| MultiMember { xid: 0x100 + n, status: n as u8 });
    applied(&mut page, SlruKind::MultiXactMembers, &encode_multi_members(3, &members)).unwrap();
    // Member 3 ends the first group of 20 bytes, members 4 and 5 begin the second.
    assert_eq!((page[3], page[16], page[17]), (3, 3, 1));
    assert_eq!((page[20], page[21], page[24], page[28]), (4, 5, 4, 5));
    let last = encode_multi_members(1635, &members[..1]);
    applied(&mut page, SlruKind::MultiXactMembers, &last).unwrap();
    assert_eq!((page[8163], page[8176]), (3, 3));
    let beyond = encode_multi_members(1635, &members[..2]);
    let fault = applied(&mut page, SlruKind::MultiXactMembers, &beyond).unwrap_err();
    assert_eq!(fault, Fault::Mismatch("SLRU entry beyond its page"));
}

#[test]
fn times_are_ten_bytes_each() {
    let mut page = [0; BLOCK_BYTES];
    let change = encode_commit_ts(-2, 0x0201, &[0, 818]);
    applied(&mut page, SlruKind::CommitTs, &change).unwrap();
    let entry = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2];
    assert_eq!((&page[..10], &page[8180..8190]), (&entry[..], &entry[..]));
    assert!(applied(&mut page, SlruKind::CommitTs, &encode_commit_ts(0, 0, &[819])).is_err());
}

#[test]
fn zero_is_for_any_slru_and_the_others_for_their_own() {
    let mut page = [7; BLOCK_BYTES];
    let change = encode_clog_status(XidStatus::Committed, &[1]);
    assert_eq!(applied(&mut page, SlruKind::CommitTs, &change), Err(ChangeError::WrongPage.into()));
    for kind in SlruKind::ALL {
        page.fill(7);
        applied(&mut page, kind, &encode_zero()).unwrap();
        assert_eq!(page, [0; BLOCK_BYTES]);
    }
}

#[test]
fn errors_name_the_page() {
    let mut page = [0; BLOCK_BYTES];
    let id = SlruPage { kind: SlruKind::Clog, page: 3 };
    let vm_change = crate::change::encode_vm_clear(strata_common::BlockNumber(1), 3);
    let error = apply_slru(&mut page, id, Lsn(0x1_0000_0020), &vm_change).unwrap_err();
    let text = "redo of visibility map clear ending at 1/20 on page 3 of pg_xact: \
                a change of this kind is not one of such a page";
    assert_eq!(error.to_string(), text);
}

proptest! {
    #[test]
    fn random_changes_never_panic(
        kind in 16u8..22,
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        slru in 0usize..4,
    ) {
        let mut page = [0; BLOCK_BYTES];
        let change = [&[CHANGE_VERSION, kind], &bytes[..]].concat();
        let _ = applied(&mut page, SlruKind::ALL[slru], &change);
    }
}
