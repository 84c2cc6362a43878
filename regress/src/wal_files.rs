//! The log of a cluster that does not run, read from its `pg_wal`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use strata_common::Lsn;
use strata_common::lsn::WAL_PAGE_BYTES;
use strata_pgwal::page_header::{FIRST_IS_CONTRECORD, WalPageHeader};
use strata_pgwal::segment::parse_segment_file_name;
use strata_pgwal::stream::StreamError;
use strata_pgwal::{ControlFile, RawRecord, WalStreamDecoder};

/// Contiguous bytes of the log.
#[derive(Debug)]
pub struct LogBytes {
    pub start: Lsn,
    pub bytes: Bytes,
    /// Names of the segment files, in order.
    pub file_names: Vec<String>,
}

/// `global/pg_control` of a data folder.
pub fn control_file(data: &Path) -> Result<ControlFile> {
    Ok(ControlFile::parse(&fs::read(data.join("global/pg_control"))?)?)
}

/// All segments of a data folder, which must follow one another.
pub fn read_log(data: &Path) -> Result<LogBytes> {
    let segment_bytes = control_file(data)?.segment_bytes();
    let mut segments = Vec::new();
    for entry in fs::read_dir(data.join("pg_wal"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some((_, start)) = parse_segment_file_name(&name, segment_bytes) {
            segments.push((start, name));
        }
    }
    segments.sort();
    let start = segments.first().context("pg_wal holds no segment")?.0;
    let mut bytes = Vec::new();
    for (at, name) in &segments {
        ensure!(*at == start + bytes.len() as u64, "segments before {name} are missing");
        bytes.extend_from_slice(&fs::read(data.join("pg_wal").join(name))?);
    }
    let file_names = segments.into_iter().map(|(_, name)| name).collect();
    Ok(LogBytes { start, bytes: bytes.into(), file_names })
}

impl LogBytes {
    /// The log from `lsn` on.
    pub fn from(&self, lsn: Lsn) -> Bytes {
        self.bytes.slice((lsn - self.start) as usize..)
    }

    /// Where the first record begins that does not begin before the first page.
    pub fn first_record(&self) -> Result<Lsn> {
        let mut page = self.start;
        loop {
            let header = WalPageHeader::parse(&self.from(page))?;
            let header_bytes = header.encode().len() as u64;
            if header.flags & FIRST_IS_CONTRECORD == 0 {
                return Ok(page + header_bytes);
            }
            let begin = (page + header_bytes + u64::from(header.remaining_bytes)).align_up();
            if begin < page + WAL_PAGE_BYTES {
                return Ok(begin);
            }
            page = page + WAL_PAGE_BYTES;
        }
    }
}

/// All records from `decoder`'s start to where the log stops making sense, and why it stops there.
pub fn records_to_end(
    decoder: &mut WalStreamDecoder,
    log: Bytes,
) -> Result<(Vec<RawRecord>, Option<StreamError>)> {
    let mut records = Vec::new();
    decoder.feed(log);
    loop {
        match decoder.next() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => return Ok((records, None)),
            Err(error) => return Ok((records, Some(error))),
        }
    }
}
