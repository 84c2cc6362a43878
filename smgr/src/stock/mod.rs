//! Whether the storage manager of an unpatched server can be taken over, decided from the server's program as it lies in memory.
//!
//! `smgr.c` calls everything through the table `smgrsw`, which has one entry, `md.c`'s. The table has no name that a library
//! could ask for, but the functions in its slots have: so it can be found, and its slots be replaced. That is safe only if
//! nothing goes around it: a compiler that sees a table of one constant entry may call a function directly. So the table must
//! be there exactly once, slot by slot as expected (`table`), and the code is searched for calls that go around it (`code`).
//! Whatever is not as expected is refused: a page written to a file that nobody keeps is a lost page.
//!
//! Pure: memory comes in as slices with addresses, what to write where comes out. x86-64 only.

pub mod code;
pub mod program;
pub mod table;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod stock_test;

use program::Program;

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Address of the table's first slot.
    pub table: u64,
    /// Makes `smgrregistersync` jump through the table, if it does not.
    pub patch: Option<Patch>,
}

/// Some bytes of the program's code.
#[derive(Debug, PartialEq, Eq)]
pub struct Patch {
    pub address: u64,
    pub before: [u8; 6],
    pub after: [u8; 6],
}

/// Why the table is left alone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the program's {0} cannot be read")]
    Unreadable(&'static str),
    #[error("the program does not export {0}")]
    NoFunction(&'static str),
    #[error("no table of storage managers has the expected layout")]
    NoTable,
    #[error(
        "slot {slot} of the table at {table:#x} holds {found:#x} where {function} ({expected:#x}) was expected"
    )]
    Differs { table: u64, slot: &'static str, function: &'static str, expected: u64, found: u64 },
    #[error("there are two tables of storage managers, at {0:#x} and at {1:#x}")]
    TwoTables(u64, u64),
    #[error("the table at {0:#x} has another entry beside md.c's")]
    MoreEntries(u64),
    #[error("{function} is also pointed to from {at:#x}, outside of the table")]
    PointedTo { function: &'static str, at: u64 },
    #[error("{caller} refers to {function} at {at:#x} without the table")]
    AroundTable { function: &'static str, caller: String, at: u64 },
    #[error("{0} does not use the table")]
    TableUnused(&'static str),
    #[error("the functions of md.c do not lie together: {0} is among them")]
    Mixed(String),
    #[error("the code of smgrregistersync at {0:#x} has an unknown form")]
    UnknownForm(u64),
}

/// Decides from the whole program.
pub fn verify(program: &Program<'_>) -> Result<Plan, Refused> {
    let functions = program.functions()?;
    let slots = table::Expected::of(&functions)?;
    let table = table::find(program, &slots)?;
    let patch = code::check(program, &functions, &slots, table)?;
    Ok(Plan { table, patch })
}
