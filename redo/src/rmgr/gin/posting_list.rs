//! Compressed posting lists (`src/backend/access/gin/ginpostinglist.c`): the encoding must be Postgres's to the byte, for
//! redo packs the lists of a page anew.
//!
//! A list ("segment") is its first row identifier as it is (6 bytes), the number of bytes that follow (2), then for each further
//! row the distance from the one before in 7-bit groups, low ones first, the highest bit of a byte saying that more
//! follow. A list of odd length ends in a zero. A row counts as its block number shifted by 11 bits plus its offset number.

use strata_common::BLOCK_BYTES;

use crate::error::Fault;
use crate::wire::u16_at;

/// Bytes of a row identifier (`ItemPointerData`): block number, high half first, and offset number.
pub const TID_BYTES: usize = 6;
/// Bytes before the distances.
const HEADER_BYTES: usize = TID_BYTES + 2;
/// Bits for the offset number (`MaxHeapTuplesPerPageBits`).
const OFFSET_BITS: u32 = 11;
/// Bits of a row.
const ROW_BITS: u32 = 32 + OFFSET_BITS;
/// Most bytes of a distance (`MaxBytesPerInteger`).
const DISTANCE_BYTES_MAX: usize = 7;

/// A row as a number, in the order of row identifiers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row(u64);

impl Row {
    /// Of the row identifier at the start of `tid`, which must have one.
    pub fn parse(tid: &[u8]) -> Result<Row, Fault> {
        let what = "a row identifier";
        let (high, low) = (u16_at(tid, 0, what)?, u16_at(tid, 2, what)?);
        let offset = u16_at(tid, 4, what)?;
        if offset >> OFFSET_BITS != 0 {
            return Err(Fault::Mismatch("a row identifier whose offset number no posting list can hold"));
        }
        Ok(Row((u64::from(high) << 16 | u64::from(low)) << OFFSET_BITS | u64::from(offset)))
    }

    fn tid(self) -> [u8; TID_BYTES] {
        let block = (self.0 >> OFFSET_BITS) as u32;
        let offset = (self.0 as u16) & ((1 << OFFSET_BITS) - 1);
        let mut tid = [0; TID_BYTES];
        tid[..2].copy_from_slice(&((block >> 16) as u16).to_le_bytes());
        tid[2..4].copy_from_slice(&(block as u16).to_le_bytes());
        tid[4..].copy_from_slice(&offset.to_le_bytes());
        tid
    }

    fn advanced(self, distance: u64) -> Result<Row, Fault> {
        // Both are below 2^50.
        let sum = self.0 + distance;
        if sum >> ROW_BITS == 0 {
            Ok(Row(sum))
        } else {
            Err(Fault::Mismatch("a posting list leads beyond the last row"))
        }
    }
}

/// Takes the first list off `bytes`, its padding included.
pub fn take_first<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let length = usize::from(u16_at(bytes, TID_BYTES, "a posting list")?);
    let split = bytes.split_at_checked(HEADER_BYTES + length.next_multiple_of(2));
    let (list, rest) = split.ok_or(Fault::Short { what: "a posting list" })?;
    *bytes = rest;
    Ok(list)
}

/// The distances of one list.
fn distances(list: &[u8]) -> Result<&[u8], Fault> {
    let length = usize::from(u16_at(list, TID_BYTES, "a posting list")?);
    list.get(HEADER_BYTES..HEADER_BYTES + length).ok_or(Fault::Short { what: "a posting list" })
}

/// The rows of one list (`ginPostingListDecode`).
pub fn decode(list: &[u8]) -> Result<Vec<Row>, Fault> {
    let distances = distances(list)?;
    let first = Row::parse(list)?;
    let mut rows = Vec::with_capacity(distances.len() + 1);
    rows.push(first);
    decode_behind(first, distances, &mut rows)?;
    Ok(rows)
}

/// Appends the rows that lie `distances` behind `last`.
fn decode_behind(mut last: Row, mut distances: &[u8], rows: &mut Vec<Row>) -> Result<(), Fault> {
    while !distances.is_empty() {
        last = last.advanced(take_distance(&mut distances)?)?;
        rows.push(last);
    }
    Ok(())
}

fn take_distance(bytes: &mut &[u8]) -> Result<u64, Fault> {
    let mut distance = 0;
    for (place, &byte) in bytes.iter().take(DISTANCE_BYTES_MAX).enumerate() {
        distance |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            *bytes = &bytes[place + 1..];
            return Ok(distance);
        }
    }
    Err(Fault::Mismatch("a distance in a posting list does not end"))
}

/// One list of all `rows`, which ascend (`ginCompressPostingList` with a page as its limit).
pub fn encode(rows: &[Row]) -> Result<Vec<u8>, Fault> {
    let Some((first, others)) = rows.split_first() else {
        return Err(Fault::Mismatch("a posting list without rows"));
    };
    let mut list = Vec::with_capacity(HEADER_BYTES + 2 * rows.len());
    list.extend(first.tid());
    list.extend([0; 2]);
    encode_behind(*first, others, list)
}

/// Completes `list`, whose last row is `last` so far, with `rows`.
fn encode_behind(last: Row, rows: &[Row], mut list: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let mut last = last.0;
    for row in rows {
        let Some(mut distance) = row.0.checked_sub(last) else {
            return Err(Fault::Mismatch("rows of a posting list do not ascend"));
        };
        while distance > 0x7f {
            list.push(0x80 | distance as u8 & 0x7f);
            distance >>= 7;
        }
        list.push(distance as u8);
        last = row.0;
    }
    if list.len() > BLOCK_BYTES {
        return Err(Fault::ItemLengths { total: list.len(), available: BLOCK_BYTES });
    }
    let length = (list.len() - HEADER_BYTES) as u16;
    list[TID_BYTES..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    if !length.is_multiple_of(2) {
        list.push(0);
    }
    Ok(list)
}

/// `list` with the rows `added`, which ascend, packed anew: the same as `encode` of `merge` of both. What lies before the first row that
/// comes is copied, not unpacked: most rows come at the end of a list.
pub fn with_rows(list: &[u8], added: &[Row]) -> Result<Vec<u8>, Fault> {
    let mut last = Row::parse(list)?;
    let next = match added.first() {
        Some(next) if *next > last => *next,
        _ => return encode(&merge(added, &decode(list)?)),
    };
    let all = distances(list)?;
    let mut behind = all;
    skip_below(next, &mut last, &mut behind);
    let kept = HEADER_BYTES + all.len() - behind.len();
    let mut rows = Vec::with_capacity(behind.len());
    decode_behind(last, behind, &mut rows)?;
    let mut new = Vec::with_capacity(list.len() + (added.len() + 1) * DISTANCE_BYTES_MAX);
    new.extend(&list[..kept]);
    if rows.is_empty() {
        encode_behind(last, added, new)
    } else {
        encode_behind(last, &merge(added, &rows), new)
    }
}

/// Takes distances off as long as they lead to rows before `next`, and as packing would write them.
fn skip_below(next: Row, last: &mut Row, distances: &mut &[u8]) {
    const MORE: u64 = 0x8080_8080_8080_8080;
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    const ADD_UP: u64 = 0x0001_0001_0001_0001;
    loop {
        // Eight rows at once, if each distance is one byte.
        while let Some((eight, rest)) = distances.split_first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight);
            let sum = ((word & EVEN) + (word >> 8 & EVEN)).wrapping_mul(ADD_UP) >> 48;
            if word & MORE != 0 || last.0 + sum >= next.0 {
                break;
            }
            last.0 += sum;
            *distances = rest;
        }
        let mut rest = *distances;
        let Ok(distance) = take_distance(&mut rest) else { return };
        let bytes = distances.len() - rest.len();
        let longer_than_packed = bytes > 1 && distances[bytes - 1] == 0;
        if longer_than_packed || last.0 + distance >= next.0 {
            return;
        }
        last.0 += distance;
        *distances = rest;
    }
}

/// The rows of both, which ascend, each row once (`ginMergeItemPointers`).
pub fn merge(a: &[Row], b: &[Row]) -> Vec<Row> {
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a, b);
    while let ([first, a_rest @ ..], [second, b_rest @ ..]) = (a, b) {
        merged.push(*first.min(second));
        if first <= second {
            a = a_rest;
        }
        if second <= first {
            b = b_rest;
        }
    }
    merged.extend_from_slice(a);
    merged.extend_from_slice(b);
    merged
}
