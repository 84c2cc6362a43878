//! The table itself: an entry of `smgrsw` (`struct f_smgr`, `src/backend/storage/smgr/smgr.c` of Postgres 17), found by what it
//! holds. Every slot must hold the function that `md.c` exports for it, there must be one such entry only, nothing beside it may
//! look like another one, and no other memory of the program may hold the address of one of these functions.

use super::Refused;
use super::program::{Functions, Program, Segment};

pub const SLOTS: usize = 17;
pub const ENTRY_BYTES: u64 = SLOTS as u64 * 8;
/// Number of the slot of `smgrregistersync`.
pub const REGISTER_SYNC: usize = 16;
/// The slots `smgr_init` and `smgr_shutdown` may be empty; the others never are.
const FIRST_NEEDED: usize = 2;
/// So many slots as expected make a table that is meant to be this one.
const ALIKE_MIN: usize = 8;

/// Slots in the struct's order, each with the function that stands in it.
const NAMES: [(&str, Option<&str>); SLOTS] = [
    ("smgr_init", Some("mdinit")),
    ("smgr_shutdown", None),
    ("smgr_open", Some("mdopen")),
    ("smgr_close", Some("mdclose")),
    ("smgr_create", Some("mdcreate")),
    ("smgr_exists", Some("mdexists")),
    ("smgr_unlink", Some("mdunlink")),
    ("smgr_extend", Some("mdextend")),
    ("smgr_zeroextend", Some("mdzeroextend")),
    ("smgr_prefetch", Some("mdprefetch")),
    ("smgr_readv", Some("mdreadv")),
    ("smgr_writev", Some("mdwritev")),
    ("smgr_writeback", Some("mdwriteback")),
    ("smgr_nblocks", Some("mdnblocks")),
    ("smgr_truncate", Some("mdtruncate")),
    ("smgr_immedsync", Some("mdimmedsync")),
    ("smgr_registersync", Some("mdregistersync")),
];

/// What the slots must hold: addresses of functions, 0 for an empty slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected(pub [u64; SLOTS]);

impl Expected {
    pub fn of(functions: &Functions) -> Result<Expected, Refused> {
        let mut words = [0; SLOTS];
        for (word, (_, function)) in words.iter_mut().zip(NAMES) {
            if let Some(name) = function {
                *word = functions.get(name)?.address;
            }
        }
        Ok(Expected(words))
    }

    /// The functions that may be reached only through the table. `mdinit` sets up memory of `md.c`'s own and may be called by anybody.
    pub fn guarded(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES
            .into_iter()
            .zip(self.0)
            .skip(FIRST_NEEDED)
            .filter_map(|((_, name), address)| Some((name?, address)))
    }

    fn alike(&self, words: &[u64; SLOTS]) -> usize {
        self.0.iter().zip(words).filter(|(expected, found)| **expected != 0 && expected == found).count()
    }

    /// The first slot that differs, as a refusal.
    fn difference(&self, table: u64, words: &[u64; SLOTS]) -> Option<Refused> {
        let index = (0..SLOTS).find(|index| self.0[*index] != words[*index])?;
        let (slot, function) = NAMES[index];
        Some(Refused::Differs {
            table,
            slot,
            function: function.unwrap_or("nothing"),
            expected: self.0[index],
            found: words[index],
        })
    }
}

/// The aligned words of a segment with their addresses.
fn words<'s>(segment: &'s Segment<'_>) -> impl Iterator<Item = (u64, u64)> + 's {
    let skip = (segment.address.next_multiple_of(8) - segment.address) as usize;
    let aligned = segment.bytes.get(skip..).unwrap_or_default();
    let begin = segment.address + skip as u64;
    aligned.chunks_exact(8).enumerate().map(move |(index, bytes)| {
        (begin + index as u64 * 8, u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    })
}

fn entry_at(program: &Program<'_>, address: u64) -> Option<[u64; SLOTS]> {
    let mut words = [0; SLOTS];
    for (index, word) in words.iter_mut().enumerate() {
        *word = program.u64_at(address.checked_add(index as u64 * 8)?)?;
    }
    Some(words)
}

/// Address of the one table that is as expected.
pub fn find(program: &Program<'_>, expected: &Expected) -> Result<u64, Refused> {
    let (mut whole, mut alike) = (Vec::new(), Vec::new());
    let mut pointers = Vec::new();
    for segment in program.data() {
        for (address, word) in words(segment) {
            if let Some((function, _)) = expected.guarded().find(|(_, guarded)| *guarded == word) {
                pointers.push((address, function));
            }
            let Some(entry) = entry_at(program, address) else { continue };
            if entry == expected.0 {
                whole.push(address);
            } else if expected.alike(&entry) >= ALIKE_MIN {
                alike.push((address, entry));
            }
        }
    }
    if let [first, second, ..] = whole[..] {
        return Err(Refused::TwoTables(first, second));
    }
    if let Some(refused) = alike.iter().find_map(|(address, entry)| expected.difference(*address, entry)) {
        return Err(refused);
    }
    let table = *whole.first().ok_or(Refused::NoTable)?;
    let outside = |address: u64| !(table..table + ENTRY_BYTES).contains(&address);
    if let Some((at, function)) = pointers.into_iter().find(|(address, _)| outside(*address)) {
        return Err(Refused::PointedTo { function, at });
    }
    for beside in [table.checked_sub(ENTRY_BYTES), Some(table + ENTRY_BYTES)] {
        if beside
            .and_then(|address| entry_at(program, address))
            .is_some_and(|entry| looks_like_entry(program, &entry))
        {
            return Err(Refused::MoreEntries(table));
        }
    }
    Ok(table)
}

/// Whether an entry of another storage manager could look like this: code in every slot that must not be empty.
fn looks_like_entry(program: &Program<'_>, entry: &[u64; SLOTS]) -> bool {
    entry[FIRST_NEEDED..].iter().all(|word| program.is_code(*word))
}
