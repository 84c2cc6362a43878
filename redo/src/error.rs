//! What can be wrong with a record, a stored change or the page it is for.
//!
//! Redo never panics on foreign bytes: it says what did not fit, and `RedoError` adds which page, which record and where
//! in the log, so that a message can be acted on without a debugger. The caller adds tenant and timeline. After an error
//! the page's content is undefined: throw it away.

use strata_common::Lsn;
use strata_pgwal::rmgr::record_name;

use crate::change::ChangeError;
use crate::effect::PageRef;
use crate::image::ImageError;

/// Why a record's effects cannot be told. None of these gets better by a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EffectError {
    /// A resource manager or a record type that this version does not redo. Nothing is lost: a later version may.
    #[error("no redo for record {name} (resource manager {rmid}, info {info:#04x})")]
    Unknown { rmid: u8, info: u8, name: String },
    /// The record's parts do not add up.
    #[error("malformed record {name} at {lsn}: {what}")]
    Malformed { name: String, lsn: Lsn, what: &'static str },
    /// A full-page image that cannot be restored.
    #[error("record {name} at {lsn}, block reference {id}: {source}")]
    Image { name: String, lsn: Lsn, id: u8, source: ImageError },
}

/// What did not fit when a change was applied to a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the page was never initialized")]
    PageIsNew,
    #[error("corrupt page pointers: lower {lower}, upper {upper}, special {special}")]
    PagePointers { lower: u16, upper: u16, special: u16 },
    #[error("no line pointer {offset}: the page has {count}")]
    NoLinePointer { offset: u16, count: u16 },
    #[error("line pointer {offset} is not that of a stored item")]
    ItemNotNormal { offset: u16 },
    #[error("line pointer {offset} points to {length} bytes at {at}, outside of the items")]
    ItemOutside { offset: u16, at: u16, length: u16 },
    #[error("line pointer {offset} is in use")]
    ItemInUse { offset: u16 },
    #[error("item {offset} cannot be added: the page has {count} line pointers, at most {limit}")]
    OffsetTooLarge { offset: u16, count: u16, limit: u16 },
    #[error("an item of {bytes} bytes does not fit between {lower} and {upper}")]
    NoSpace { bytes: usize, lower: u16, upper: u16 },
    #[error("items of {total} bytes in all do not fit into {available}")]
    ItemLengths { total: usize, available: usize },
    #[error("item numbers to delete are out of order or out of range")]
    DeleteOrder,
    #[error("{what} is cut short")]
    Short { what: &'static str },
    #[error("item {offset} of {length} bytes is too short for a tuple, or for what is copied from it")]
    TupleTooShort { offset: u16, length: u16 },
    #[error("{0}")]
    Mismatch(&'static str),
    /// The change is of a resource manager or record type that this version does not redo.
    #[error("this version does not redo it")]
    Unknown,
}

/// A change that could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("redo of {change} ending at {lsn} on {page}: {fault}")]
pub struct RedoError {
    pub page: PageRef,
    /// End of the record.
    pub lsn: Lsn,
    /// Name of the record, or of the kind of change.
    pub change: String,
    pub fault: Fault,
}

impl RedoError {
    #[cold]
    pub(crate) fn new(page: PageRef, lsn: Lsn, change: &[u8], fault: Fault) -> RedoError {
        RedoError { page, lsn, change: crate::change::name(change), fault }
    }
}

impl EffectError {
    #[cold]
    pub(crate) fn unknown(rmid: u8, info: u8) -> EffectError {
        EffectError::Unknown { rmid, info, name: record_name(rmid, info) }
    }

    /// The parts of `record` do not add up: `what` says which.
    #[cold]
    pub fn malformed(record: &strata_pgwal::DecodedRecord, what: &'static str) -> EffectError {
        EffectError::Malformed { name: record.name(), lsn: record.lsn, what }
    }
}
