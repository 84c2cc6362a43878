//! What is taken over and what is refused, on a program in miniature. Real programs, whole and damaged, are in
//! `regress/tests/stock_programs.rs`.

use super::fake::{DATA, Fake, LEA, MD, TABLE, USERS, relative};
use super::{Patch, Plan, Refused, verify};

fn refused(fake: &Fake) -> Refused {
    verify(&fake.program()).expect_err("it must be refused")
}

#[test]
fn the_usual_program_is_taken_over() {
    let fake = Fake::usual();
    let plan = verify(&fake.program()).expect("as Debian's");
    let jump = fake.address("smgrregistersync") + 4;
    let before: [u8; 6] = [&relative(&[0xe9], jump, fake.address("mdregistersync"))[..], &[0x90]]
        .concat()
        .try_into()
        .expect("6");
    let after: [u8; 6] = relative(&[0xff, 0x25], jump, TABLE + 16 * 8).try_into().expect("6");
    assert_eq!(plan, Plan { table: TABLE, patch: Some(Patch { address: jump, before, after }) });
}

#[test]
fn without_endbr64_too() {
    let mut fake = Fake::usual();
    let (at, target) = (fake.address("smgrregistersync"), fake.address("mdregistersync"));
    fake.functions.iter_mut().find(|f| f.0 == "smgrregistersync").expect("there").2 = 5;
    let jump = relative(&[0xe9], at, target);
    fake.at(at)[..5].copy_from_slice(&jump);
    fake.at(at)[5..16].fill(0xcc);
    let patch = verify(&fake.program()).expect("as an older compiler's").patch.expect("a patch");
    assert_eq!((patch.address, patch.before[5]), (at, 0xcc));
    assert_eq!(patch.after.to_vec(), relative(&[0xff, 0x25], at, TABLE + 16 * 8));
}

#[test]
fn register_sync_through_the_table_needs_no_patch() {
    let mut fake = Fake::usual();
    fake.put("smgrregistersync", 0, &LEA, TABLE);
    fake.at(fake.address("smgrregistersync") + 7)[..2].copy_from_slice(&[0xff, 0xe0]);
    assert_eq!(verify(&fake.program()), Ok(Plan { table: TABLE, patch: None }));
}

#[test]
fn every_slot_counts() {
    for slot in 0..17 {
        let mut fake = Fake::usual();
        let other = if slot == 10 { "mdwritev" } else { "mdreadv" };
        fake.data[40 + slot] = fake.address(other);
        let Refused::Differs { table, found, .. } = refused(&fake) else { panic!("slot {slot}") };
        assert_eq!((table, found), (TABLE, fake.address(other)), "slot {slot}");
        let mut empty = Fake::usual();
        empty.data[40 + slot] = 0;
        assert_eq!(verify(&empty.program()).is_ok(), slot == 1, "slot {slot} empty");
        let mut strange = Fake::usual();
        strange.data[40 + slot] = fake.address("BufferGetBlock");
        assert!(matches!(refused(&strange), Refused::Differs { .. }), "slot {slot} strange");
    }
    let mut fake = Fake::usual();
    fake.data.swap(50, 51);
    let text = refused(&fake).to_string();
    assert!(
        text.starts_with("slot smgr_readv of the table at 0x") && text.contains("where mdreadv ("),
        "{text}"
    );
}

#[test]
fn an_unknown_layout() {
    // Another order of the slots, a slot more in the middle, no table, a table that is not aligned.
    let mut turned = Fake::usual();
    turned.data[40..57].reverse();
    assert_eq!(refused(&turned), Refused::NoTable);
    let mut longer = Fake::usual();
    let stranger = longer.address("BufferGetBlock");
    longer.data.insert(49, stranger);
    assert!(matches!(refused(&longer), Refused::Differs { slot: "smgr_prefetch", .. }));
    let mut none = Fake::usual();
    none.data[40..57].fill(0);
    assert_eq!(refused(&none), Refused::NoTable);
    let mut short = Fake::usual();
    short.data.truncate(56);
    assert_eq!(refused(&short), Refused::NoTable);
}

#[test]
fn two_tables() {
    let mut fake = Fake::usual();
    fake.data.copy_within(40..57, 70);
    assert_eq!(refused(&fake), Refused::TwoTables(TABLE, DATA + 70 * 8));
    // The second one with a slot of its own is no better.
    fake.data[75] = fake.address("BufferGetBlock");
    assert!(matches!(refused(&fake), Refused::Differs { table, .. } if table == DATA + 70 * 8));
}

#[test]
fn another_entry_beside() {
    for begin in [40 - 17, 40 + 17] {
        let mut fake = Fake::usual();
        let theirs = fake.address("AtEOXact_SMgr");
        fake.data[begin + 2..begin + 17].fill(theirs);
        assert_eq!(refused(&fake), Refused::MoreEntries(TABLE), "at {begin}");
        // Pointers to data, and code in some words only, are other things' (in a real program the table of sync.c follows).
        fake.data[begin + 5] = DATA;
        assert!(verify(&fake.program()).is_ok(), "at {begin}");
    }
}

#[test]
fn pointers_elsewhere() {
    let mut fake = Fake::usual();
    fake.data[90] = fake.address("mdreadv");
    assert_eq!(refused(&fake), Refused::PointedTo { function: "mdreadv", at: DATA + 90 * 8 });
}

/// Offset of free space in `AtEOXact_SMgr`.
const FREE: u64 = 8;

#[test]
fn calls_around_the_table() {
    let forms: [&[u8]; 5] = [&[0xe8], &[0xe9], &[0x0f, 0x84], &LEA, &[0x4c, 0x8d, 0x0d]];
    for function in MD {
        for form in forms {
            let mut fake = Fake::usual();
            let target = fake.address(function);
            fake.put("AtEOXact_SMgr", FREE, form, target);
            let free = ["mdinit", "mdsyncfiletag", "mdunlinkfiletag", "mdfiletagmatches"].contains(&function);
            assert_eq!(verify(&fake.program()).is_ok(), free, "{function} by {form:x?}");
            // md.c may call its own functions.
            let mut fake = Fake::usual();
            fake.put("mdtruncate", FREE, form, target);
            assert!(verify(&fake.program()).is_ok(), "{function} by {form:x?} from mdtruncate");
        }
    }
    let mut fake = Fake::usual();
    let target = fake.address("mdreadv");
    fake.put("AtEOXact_SMgr", FREE, &[0xe8], target);
    let at = fake.address("AtEOXact_SMgr") + FREE + 1;
    assert_eq!(
        refused(&fake),
        Refused::AroundTable { function: "mdreadv", caller: "AtEOXact_SMgr".to_owned(), at }
    );
    // Only smgrregistersync may jump to mdregistersync.
    let mut fake = Fake::usual();
    let target = fake.address("mdregistersync");
    fake.put("AtEOXact_SMgr", FREE, &[0xe9], target);
    assert!(matches!(refused(&fake), Refused::AroundTable { function: "mdregistersync", .. }));
}

#[test]
fn functions_that_do_not_use_the_table() {
    for name in USERS {
        let mut fake = Fake::usual();
        let at = fake.address(name);
        fake.at(at)[..7].fill(0x90);
        assert_eq!(refused(&fake), Refused::TableUnused(name));
    }
    let mut fake = Fake::usual();
    let at = fake.address("smgrregistersync");
    fake.at(at)[..9].fill(0x90);
    assert_eq!(refused(&fake), Refused::TableUnused("smgrregistersync"));
}

#[test]
fn functions_that_are_missing() {
    for name in MD.into_iter().take(16).chain(USERS).chain(["smgrregistersync"]) {
        let mut fake = Fake::usual();
        fake.functions.retain(|function| function.0 != name);
        if name == "smgrtruncate2" {
            assert!(verify(&fake.program()).is_ok());
        } else {
            let Refused::NoFunction(missing) = refused(&fake) else { panic!("{name}") };
            assert_eq!(missing, name);
        }
    }
}

#[test]
fn a_stranger_among_the_functions_of_md() {
    let mut fake = Fake::usual();
    let at = fake.address("mdextend") + 16;
    fake.functions.push(("smgr_bulk_finish".to_owned(), at, 4));
    assert_eq!(refused(&fake), Refused::Mixed("smgr_bulk_finish".to_owned()));
}

#[test]
fn unknown_forms_of_the_direct_jump() {
    let unknown = |change: &dyn Fn(&mut Fake, u64)| {
        let mut fake = Fake::usual();
        let at = fake.address("smgrregistersync");
        change(&mut fake, at);
        assert_eq!(refused(&fake), Refused::UnknownForm(at));
    };
    // A call instead of a jump; something before the jump; something after it; no room for one byte more.
    unknown(&|fake, at| fake.at(at + 4)[0] = 0xe8);
    unknown(&|fake, at| fake.at(at)[..4].fill(0x90));
    unknown(&|fake, at| {
        fake.functions.iter_mut().find(|f| f.1 == at).expect("there").2 = 10;
    });
    unknown(&|fake, at| fake.at(at + 9)[0] = 0x55);
    unknown(&|fake, at| fake.at(at + 15)[0] = 0xc3);
}

#[test]
fn a_program_that_cannot_be_read() {
    let fake = Fake::usual();
    let mut program = fake.program();
    program.dynamic = 0;
    assert_eq!(verify(&program), Err(Refused::Unreadable("symbol table")));
    let mut program = fake.program();
    program.segments.retain(|segment| segment.kind != super::program::Kind::ReadOnly);
    assert_eq!(verify(&program), Err(Refused::Unreadable("symbol table")));
    for cut in [1, 40, 200, 1000] {
        let mut program = fake.program();
        let symbols = program.segments[0].bytes.to_mut();
        let keep = symbols.len() - cut;
        symbols.drain(..cut);
        assert_eq!(symbols.len(), keep);
        program.segments[0].address += cut as u64;
        assert!(matches!(verify(&program), Err(Refused::Unreadable(_))), "cut {cut}");
    }
}
