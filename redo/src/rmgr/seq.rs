//! Sequence: the one record type of `src/backend/commands/sequence.c`, which makes the page anew.
//!
//! The record holds the whole tuple, 32 values ahead of what was handed out (W9).

use strata_pgwal::DecodedRecord;

use super::{Redo, push_page, required};
use crate::Page;
use crate::change::Keep;
use crate::effect::Effect;
use crate::error::{EffectError, Fault};
use crate::page::{self, AddItem};

/// Record type: the high four bits of `xl_info`.
pub mod info {
    pub const LOG: u8 = 0x00;
}

/// Bytes of `xl_seq_rec`: the relation's identity. The tuple follows.
const RECORD_BYTES: usize = 12;
/// Bytes of the tuple: a header of 24 and three columns (`src/include/commands/sequence.h`).
const TUPLE_BYTES: usize = 24 + 17;
/// What the special space of a sequence page holds (`SEQ_MAGIC`), bytes included.
const MAGIC: [u8; 4] = 0x1717_u32.to_le_bytes();

/// What a sequence record does: its page changes.
pub fn effects(record: &DecodedRecord, out: &mut Vec<Effect>) -> Result<(), EffectError> {
    if record.rmgr_info() != info::LOG {
        return Err(EffectError::unknown(record.rmid, record.rmgr_info()));
    }
    push_page(record, required(record, 0)?, Keep::ALL, out)
}

/// Redoes the page of a record.
pub fn apply(page: &mut Page, redo: &Redo<'_>) -> Result<(), Fault> {
    let change = &redo.change;
    if (change.info, change.id) != (info::LOG, 0) {
        return Err(Fault::Unknown);
    }
    let tuple = change.main.get(RECORD_BYTES..).filter(|tuple| tuple.len() >= TUPLE_BYTES);
    let tuple = tuple.ok_or(Fault::Short { what: "the tuple of a sequence" })?;
    page::init(page, MAGIC.len());
    let special = usize::from(page::special(page));
    page[special..special + MAGIC.len()].copy_from_slice(&MAGIC);
    page::add_item(page, tuple, AddItem::IndexBefore(1))?;
    page::set_lsn(page, redo.lsn);
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelTag};
    use strata_pgwal::rmgr;

    use super::*;
    use crate::effect::PageValue;

    fn record(main: &[u8]) -> DecodedRecord {
        let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 }.fork(ForkNumber::Main);
        DecodedRecord {
            lsn: Lsn(0x0100_0000),
            end_lsn: Lsn(0x0100_0100),
            prev: Lsn(0),
            xid: 0,
            rmid: rmgr::SEQ,
            info: info::LOG,
            origin: None,
            toplevel_xid: None,
            main_data: Bytes::copy_from_slice(main),
            blocks: vec![strata_pgwal::DecodedBlock {
                id: 0,
                rel,
                block: BlockNumber(0),
                will_init: true,
                image: None,
                data: Bytes::new(),
                has_data: false,
            }],
        }
    }

    fn redo(record: &DecodedRecord, target: &mut Page) -> Result<(), crate::RedoError> {
        let effects = crate::effects(record).expect("effects");
        let [Effect::Page { page, value: PageValue::Change { bytes, will_init: true } }] = &effects[..]
        else {
            panic!("one page, made anew: {effects:?}");
        };
        crate::apply(target, *page, record.end_lsn, bytes)
    }

    #[test]
    fn the_page_is_made_anew_around_the_tuple() {
        let mut target = [0x55; BLOCK_BYTES];
        redo(&record(&[[1; 12].as_slice(), &[9; 41]].concat()), &mut target).expect("redo");
        let span = page::stored_item(&target, 1).expect("an item");
        assert_eq!(target[span.range()], [9; 41]);
        assert_eq!(target[8184..8188], [0x17, 0x17, 0, 0]);
        assert_eq!((page::item_count(&target), page::lsn(&target)), (1, Lsn(0x0100_0100)));
    }

    #[test]
    fn a_record_cut_short_is_refused() {
        for bytes in [11, 12, 12 + 40] {
            assert!(redo(&record(&vec![1; bytes]), &mut [0; BLOCK_BYTES]).is_err(), "{bytes} bytes");
        }
    }
}
