//! Finds the end of the log when a timeline is opened, after a clean stop as after a crash.
//!
//! From a record's end that the log is known to have reached, records are read for as long as each is whole, has a right
//! checksum and points back at the one before. What follows (a torn write, the rest of a record that never came) was
//! never acknowledged: it is zeroed, so that nobody can find it later. The log is then made durable: what a killed
//! process left in the page cache is not on disk yet.

use bytes::Bytes;
use strata_common::Lsn;
use strata_pgwal::{SegmentBytes, WalStreamDecoder};

use super::reader::WalReader;
use super::segment::write_zeros;
use super::{LogFolder, StoreError};

/// How much is read at once, bytes.
const READ_BYTES: u64 = 1 << 20;

/// Returns the end of the last whole record. See [`super::WalStore::open`].
pub fn recover(folder: &LogFolder, oldest: Lsn, known: Lsn) -> Result<Lsn, StoreError> {
    assert!(oldest <= known, "the log begins at {oldest}, so it cannot end at {known}");
    folder.remove_temporary()?;
    let size = folder.segment_bytes.get();
    let gone: Vec<Lsn> = folder.list()?.into_iter().filter(|start| *start + size <= oldest).collect();
    folder.remove(&gone)?;
    check_is_complete(folder, oldest, known)?;
    let end = find_end(folder, known)?;
    let mut lsn = known;
    while folder.segment_start(lsn) < folder.segment_start(end) {
        let file = folder.open_existing(lsn)?;
        file.sync_data().map_err(|error| folder.error_at(lsn, error))?;
        lsn = folder.segment_bytes.next_segment(lsn);
    }
    cut_behind(folder, end)?;
    folder.sync_names()?;
    Ok(end)
}

/// Everything from `oldest` to `known` must be there; only its beginning and end are looked into.
fn check_is_complete(folder: &LogFolder, oldest: Lsn, known: Lsn) -> Result<(), StoreError> {
    let mut lsn = oldest;
    while lsn < known {
        folder.open_existing(lsn)?;
        lsn = folder.segment_bytes.next_segment(lsn);
    }
    Ok(())
}

fn find_end(folder: &LogFolder, known: Lsn) -> Result<Lsn, StoreError> {
    let mut decoder = WalStreamDecoder::new(known, folder.segment_bytes);
    let mut at = known;
    loop {
        let Some(file) = folder.open(at)? else { return Ok(decoder.position()) };
        let segment_end = folder.segment_bytes.next_segment(at);
        while at < segment_end {
            let length = (segment_end - at).min(READ_BYTES - at.0 % READ_BYTES);
            let mut bytes = vec![0; length as usize];
            let offset = offset_in(at, folder.segment_bytes);
            file.read_exact_at(&mut bytes, offset).map_err(|error| folder.error_at(at, error))?;
            decoder.feed(Bytes::from(bytes));
            at = at + length;
            loop {
                match decoder.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(reason) => {
                        tracing::debug!(%reason, end = %decoder.position(), "end of the log");
                        return Ok(decoder.position());
                    }
                }
            }
        }
    }
}

/// Whether one of the whole records from `known` on, itself a record's end, ends at `at`. The log must reach that far.
pub fn is_record_end(folder: &LogFolder, known: Lsn, at: Lsn) -> Result<bool, StoreError> {
    let mut decoder = WalStreamDecoder::new(known, folder.segment_bytes);
    let mut reader = WalReader::new(folder.clone());
    while decoder.fed_to() < at {
        decoder.feed(reader.read(decoder.fed_to(), at, READ_BYTES)?);
        loop {
            match decoder.next() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // Here the log was whole when it was written: only a cut in a wrong place can be read so.
                Err(_) => return Ok(false),
            }
        }
    }
    Ok(decoder.position() == at)
}

/// Zeroes what lies behind `end` in its segment, removes the segments behind, and makes both durable.
fn cut_behind(folder: &LogFolder, end: Lsn) -> Result<(), StoreError> {
    let start = folder.segment_start(end);
    let later: Vec<Lsn> = folder.list()?.into_iter().filter(|segment| *segment > start).collect();
    folder.remove(&later)?;
    let Some(file) = folder.open(end)? else { return Ok(()) };
    let offset = offset_in(end, folder.segment_bytes);
    let mut rest = vec![0; (folder.segment_bytes.get() - offset) as usize];
    file.read_exact_at(&mut rest, offset).map_err(|error| folder.error_at(end, error))?;
    if let Some(last) = rest.iter().rposition(|byte| *byte != 0) {
        tracing::info!(end = %end, bytes = last + 1, "discarding what lies behind the last whole record");
        write_zeros(&*file, offset, offset + last as u64 + 1).map_err(|error| folder.error_at(end, error))?;
    }
    file.sync_data().map_err(|error| folder.error_at(end, error))
}

fn offset_in(lsn: Lsn, segment_bytes: SegmentBytes) -> u64 {
    lsn.segment_offset(segment_bytes.get())
}
