//! The code around the table: nothing may call a function of the table without it.
//!
//! Every place in the code that looks like a call, a jump or a load of an address relative to the instruction is taken for one,
//! whatever stands before it: too many are found rather than too few, and one too many only means a refusal. Outside of `md.c`
//! none may lead to a function of the table, except the one that compilers are known to make: `smgrregistersync`, whose slot is
//! the last of the only entry, becomes a plain jump to `mdregistersync`. That jump is replaced by one through the table's slot,
//! which is what the source says. And every function of `smgr.c` that must use the table must refer to it.

use super::program::{Function, Functions, Program, Segment};
use super::table::{ENTRY_BYTES, Expected, REGISTER_SYNC};
use super::{Patch, Refused};

const REGISTER_SYNC_FUNCTION: &str = "smgrregistersync";

/// Functions of `smgr.c` that call through the table.
const USERS: [&str; 17] = [
    "smgropen",
    "smgrdestroyall",
    "smgrrelease",
    "smgrclose",
    "smgrexists",
    "smgrcreate",
    "smgrdosyncall",
    "smgrdounlinkall",
    "smgrextend",
    "smgrzeroextend",
    "smgrprefetch",
    "smgrreadv",
    "smgrwritev",
    "smgrwriteback",
    "smgrnblocks",
    "smgrtruncate",
    "smgrimmedsync",
];
/// The same, in the minor releases that have it.
const USERS_IN_SOME: [&str; 1] = ["smgrtruncate2"];

/// Functions of `md.c` beside those in the table.
const OTHERS_OF_MD: [&str; 6] = [
    "mdinit",
    "mdsyncfiletag",
    "mdunlinkfiletag",
    "mdfiletagmatches",
    "DropRelationFiles",
    "ForgetDatabaseSyncRequests",
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    CallOrJump,
    /// An operand relative to the instruction: a load, an address taken, a call through memory.
    Operand,
}

#[derive(Clone, Copy, Debug)]
struct Reference {
    /// Address of the four bytes of distance.
    at: u64,
    target: u64,
    form: Form,
}

/// Everything in `segment` that may refer to one of `wanted`, given with the lowest and highest address in it.
fn references(
    segment: &Segment<'_>,
    (low, high): (u64, u64),
    wanted: impl Fn(u64) -> bool,
) -> Vec<Reference> {
    let bytes = &segment.bytes;
    let mut found = Vec::new();
    for index in 1..bytes.len().saturating_sub(3) {
        let (before, last) = (if index > 1 { bytes[index - 2] } else { 0 }, bytes[index - 1]);
        let form = match last {
            // call rel32, jmp rel32
            0xe8 | 0xe9 => Form::CallOrJump,
            // jcc rel32
            0x80..=0x8f if before == 0x0f => Form::CallOrJump,
            // ModRM of an operand relative to rip
            _ if last & 0xc7 == 0x05 => Form::Operand,
            _ => continue,
        };
        let distance = i32::from_le_bytes(bytes[index..index + 4].try_into().expect("four bytes"));
        let at = segment.address + index as u64;
        let target = (at + 4).wrapping_add_signed(i64::from(distance));
        if (low..=high).contains(&target) && wanted(target) {
            found.push(Reference { at, target, form });
        }
    }
    found
}

/// All code of `md.c`: from the first to the last of its exported functions, which no function of another file may interrupt.
fn md_range(functions: &Functions, expected: &Expected) -> Result<(u64, u64), Refused> {
    let names: Vec<&str> = expected.guarded().map(|(name, _)| name).chain(OTHERS_OF_MD).collect();
    let of_table: Vec<&Function> =
        expected.guarded().map(|(name, _)| functions.get(name)).collect::<Result<_, _>>()?;
    let begin = of_table.iter().map(|function| function.address).min().unwrap_or(0);
    let end = of_table.iter().map(|function| function.end()).max().unwrap_or(0);
    match functions.iter().find(|f| (begin..end).contains(&f.address) && !names.contains(&f.name.as_str())) {
        Some(stranger) => Err(Refused::Mixed(stranger.name.clone())),
        None => Ok((begin, end)),
    }
}

/// Refuses code that goes around the table; the patch that `smgrregistersync` needs, if it needs one.
pub fn check(
    program: &Program<'_>,
    functions: &Functions,
    expected: &Expected,
    table: u64,
) -> Result<Option<Patch>, Refused> {
    let md = md_range(functions, expected)?;
    let register_sync = functions.get(REGISTER_SYNC_FUNCTION)?;
    let md_register_sync = expected.0[REGISTER_SYNC];
    let mut jumps_directly = false;
    for segment in program.code() {
        for reference in
            references(segment, md, |target| expected.guarded().any(|(_, address)| address == target))
        {
            let (at, target) = (reference.at, reference.target);
            if (md.0..md.1).contains(&at) {
                continue;
            }
            if register_sync.holds(at) && target == md_register_sync {
                jumps_directly = true;
                continue;
            }
            let function = expected.guarded().find(|(_, address)| *address == target);
            let function = function.map_or("md.c", |(name, _)| name);
            return Err(Refused::AroundTable { function, caller: functions.describe(at), at });
        }
    }
    let uses = uses_of_table(program, table);
    let used_by = |function: &Function| uses.iter().any(|at| function.holds(*at));
    for name in USERS {
        if !used_by(functions.get(name)?) {
            return Err(Refused::TableUnused(name));
        }
    }
    for name in USERS_IN_SOME {
        if functions.named(name).is_some_and(|function| !used_by(function)) {
            return Err(Refused::TableUnused(name));
        }
    }
    match (jumps_directly, used_by(register_sync)) {
        (false, true) => Ok(None),
        (false, false) => Err(Refused::TableUnused(REGISTER_SYNC_FUNCTION)),
        (true, _) => patch(program, register_sync, md_register_sync, table).map(Some),
    }
}

/// Places of operands that lie in the table.
fn uses_of_table(program: &Program<'_>, table: u64) -> Vec<u64> {
    let range = (table, table + ENTRY_BYTES - 1);
    let all = program.code().flat_map(|segment| references(segment, range, |_| true));
    all.filter(|reference| reference.form == Form::Operand).map(|reference| reference.at).collect()
}

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// Functions begin at multiples of this.
const ALIGNMENT: u64 = 16;

/// The function must be `[endbr64] jmp rel32` and nothing else, followed by padding up to where the next one may begin: the jump
/// through memory is one byte longer. The bytes that are replaced are known to the last.
fn patch(program: &Program<'_>, function: &Function, target: u64, table: u64) -> Result<Patch, Refused> {
    let unknown = || Refused::UnknownForm(function.address);
    let length = usize::try_from(function.bytes).map_err(|_| unknown())?;
    let padding = (function.end().next_multiple_of(ALIGNMENT) - function.end()) as usize;
    let bytes = program.bytes(function.address, length.saturating_add(padding)).ok_or_else(unknown)?;
    let (body, padding) = bytes.split_at(length);
    let skip = if body.starts_with(&ENDBR64) { ENDBR64.len() } else { 0 };
    let address = function.address + skip as u64;
    let [0xe9, distance @ ..] = &body[skip..] else { return Err(unknown()) };
    let distance: [u8; 4] = distance.try_into().map_err(|_| unknown())?;
    let goes_to = (address + 5).wrapping_add_signed(i64::from(i32::from_le_bytes(distance)));
    let one_more = padding.first().filter(|_| is_padding(padding)).ok_or_else(unknown)?;
    if goes_to != target {
        return Err(unknown());
    }
    let slot = table + REGISTER_SYNC as u64 * 8;
    let distance_to_slot = i32::try_from(slot.wrapping_sub(address + 6) as i64).map_err(|_| unknown())?;
    let mut before = [0xe9, 0, 0, 0, 0, *one_more];
    before[1..5].copy_from_slice(&distance);
    // jmp *slot(%rip)
    let mut after = [0xff, 0x25, 0, 0, 0, 0];
    after[2..].copy_from_slice(&distance_to_slot.to_le_bytes());
    Ok(Patch { address, before, after })
}

/// Whether bytes are instructions that do nothing, from the first to the last of them.
fn is_padding(mut bytes: &[u8]) -> bool {
    while let Some(length) = nop_bytes(bytes) {
        bytes = &bytes[length..];
    }
    bytes.is_empty()
}

/// Length of the instruction that does nothing, or of the trap that fills gaps, at the beginning of `bytes`.
fn nop_bytes(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&0xcc) {
        return Some(1);
    }
    let prefixes = bytes.iter().take_while(|byte| matches!(byte, 0x66 | 0x2e)).count();
    let length = match bytes[prefixes..] {
        [0x90, ..] => 1,
        [0x0f, 0x1f, 0x00, ..] => 3,
        [0x0f, 0x1f, 0x40, _, ..] => 4,
        [0x0f, 0x1f, 0x44, _, _, ..] => 5,
        [0x0f, 0x1f, 0x80, _, _, _, _, ..] => 7,
        [0x0f, 0x1f, 0x84, _, _, _, _, _, ..] => 8,
        _ => return None,
    };
    Some(prefixes + length)
}
