//! The part of the term's log that this proposer still holds: chunks as they were appended, oldest first.
//!
//! What is not committed stays whatever it costs (it may exist nowhere else); what is committed goes beyond a bound.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use strata_common::Lsn;

/// Chunks below this size are put together into one message; larger ones are sent as they are, without a copy.
const JOIN_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct LogWindow {
    chunks: VecDeque<(Lsn, Bytes)>,
    base: Lsn,
    end: Lsn,
}

impl LogWindow {
    pub fn starting_at(lsn: Lsn) -> LogWindow {
        LogWindow { chunks: VecDeque::new(), base: lsn, end: lsn }
    }

    /// The lowest position that can be sent from here.
    pub fn base(&self) -> Lsn {
        self.base
    }

    pub fn end(&self) -> Lsn {
        self.end
    }

    pub fn push(&mut self, begin: Lsn, wal: Bytes) {
        assert_eq!(begin, self.end, "log is appended without a gap");
        if !wal.is_empty() {
            self.end = begin + wal.len() as u64;
            self.chunks.push_back((begin, wal));
        }
    }

    /// Log from `from`, at least one byte and at most `bytes_max`. `from` lies in the window, below its end.
    pub fn read(&self, from: Lsn, bytes_max: usize) -> Bytes {
        assert!(from >= self.base && from < self.end, "{from} is held ({} to {})", self.base, self.end);
        let index = self.chunks.partition_point(|(begin, _)| *begin <= from) - 1;
        let (begin, chunk) = &self.chunks[index];
        let first = chunk.slice((from - *begin) as usize..);
        let join_max = JOIN_BYTES_MAX.min(bytes_max);
        let next = self.chunks.get(index + 1).map_or(usize::MAX, |(_, next)| next.len());
        if first.len() >= join_max || first.len().saturating_add(next) > join_max {
            return first.slice(..first.len().min(bytes_max));
        }
        let mut joined = BytesMut::from(&first[..]);
        for (_, chunk) in self.chunks.iter().skip(index + 1) {
            if joined.len() + chunk.len() > join_max {
                break;
            }
            joined.extend_from_slice(chunk);
        }
        joined.freeze()
    }

    /// Forgets the oldest chunks, but none that reaches above `commit`, until at most `bytes_max` are left.
    pub fn trim(&mut self, commit: Lsn, bytes_max: u64) {
        while self.end - self.base > bytes_max {
            let Some((begin, chunk)) = self.chunks.front() else { return };
            let end = *begin + chunk.len() as u64;
            if end > commit {
                return;
            }
            self.base = end;
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_chunks_are_joined_and_large_ones_are_not_copied() {
        let mut log = LogWindow::starting_at(Lsn(100));
        let large = Bytes::from(vec![1; JOIN_BYTES_MAX]);
        log.push(Lsn(100), Bytes::from_static(b"abc"));
        log.push(Lsn(103), Bytes::from_static(b"defg"));
        log.push(Lsn(107), large.clone());
        assert_eq!(&log.read(Lsn(101), 1 << 20)[..], b"bcdefg");
        assert_eq!(&log.read(Lsn(101), 4)[..], b"bc", "chunks are joined whole");
        assert_eq!(&log.read(Lsn(103), 2)[..], b"de");
        assert_eq!(log.read(Lsn(107), 1 << 20).as_ptr(), large.as_ptr());
        log.trim(Lsn(106), 0);
        assert_eq!((log.base(), log.end()), (Lsn(103), Lsn(107 + JOIN_BYTES_MAX as u64)));
    }
}
