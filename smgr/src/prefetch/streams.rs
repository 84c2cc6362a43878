//! Which blocks will be read soon: forks that a backend reads one block after the other, and how far ahead it pays to ask.
//!
//! A sequential scan gives the storage manager no advice (it relies on the system's own read-ahead), so it has to be recognised. A stream
//! begins when a few blocks were read in a row. Its window doubles whenever the reader has waited for a page that was asked for
//! ahead, so it becomes as long as the latency needs and no longer, and halves where blocks are left out. Several streams may read one
//! fork.

use std::ops::Range;

use strata_common::RelFork;

/// Streams that one backend may have; the one that was read longest ago makes place.
const STREAMS: usize = 16;
/// Blocks in a row that make a stream.
const BLOCKS_IN_A_ROW: u32 = 3;
/// The first window, blocks.
const WINDOW_MIN: u32 = 16;
/// Blocks between two reads of a stream that others have brought into shared buffers meanwhile.
const GAP_MAX: u32 = 32;
/// So many blocks are asked for at once, unless the window is shorter.
const PORTION: u32 = 16;

#[derive(Clone, Copy)]
struct Stream {
    rel: RelFork,
    /// Where the next read is expected.
    next: u32,
    in_a_row: u32,
    /// 0: not a stream yet.
    window: u32,
    /// All before is asked for, or read.
    ahead: u32,
    read_at: u64,
}

/// Empty at first.
#[derive(Default)]
pub struct Streams {
    streams: Vec<Stream>,
    reads: u64,
}

/// Which stream; valid until the next read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamNumber(usize);

impl Streams {
    /// Blocks `first` to `first + count` are being read, a fork has `size` blocks, and no window is longer than `window_max`. The
    /// stream that they belong to, if they do, and the blocks that should be asked for now, perhaps none.
    pub fn read(
        &mut self,
        rel: RelFork,
        first: u32,
        count: u32,
        size: u32,
        window_max: u32,
    ) -> Option<(StreamNumber, Range<u32>)> {
        self.reads += 1;
        let end = first.saturating_add(count);
        let Some(number) = self.streams.iter().position(|stream| stream.continues(rel, first)) else {
            self.begin(Stream {
                rel,
                next: end,
                in_a_row: count,
                window: 0,
                ahead: end,
                read_at: self.reads,
            });
            return None;
        };
        let stream = &mut self.streams[number];
        stream.read_at = self.reads;
        if first > stream.next {
            // Perhaps the blocks between are in shared buffers. Perhaps nobody wants them: then it is soon over.
            stream.window = if stream.window / 2 < WINDOW_MIN { 0 } else { stream.window / 2 };
            stream.in_a_row = 0;
        }
        stream.in_a_row = stream.in_a_row.saturating_add(count);
        stream.next = end;
        if stream.in_a_row >= BLOCKS_IN_A_ROW && stream.window == 0 {
            stream.window = WINDOW_MIN;
        }
        stream.window = stream.window.min(window_max);
        stream.ahead = stream.ahead.max(end);
        let wanted = end.saturating_add(stream.window).min(size);
        let portion = PORTION.min(stream.window / 2).max(1);
        let enough =
            wanted.saturating_sub(stream.ahead) >= portion || (wanted == size && wanted > stream.ahead);
        let range = if stream.window > 0 && enough { stream.ahead..wanted } else { end..end };
        (stream.window > 0).then_some((StreamNumber(number), range))
    }

    fn begin(&mut self, stream: Stream) {
        if self.streams.len() < STREAMS {
            return self.streams.push(stream);
        }
        // A stream outlives single reads that come between its own.
        let oldest = self.streams.iter_mut().min_by_key(|stream| (stream.window > 0, stream.read_at));
        if let Some(oldest) = oldest.filter(|oldest| oldest.window == 0) {
            *oldest = stream;
        } else if let Some(oldest) = self.streams.iter_mut().min_by_key(|stream| stream.read_at) {
            *oldest = stream;
        }
    }

    /// All before `ahead` is asked for.
    pub fn asked(&mut self, number: StreamNumber, ahead: u32) {
        if let Some(stream) = self.streams.get_mut(number.0) {
            stream.ahead = ahead;
        }
    }

    /// The reader of the stream has waited.
    pub fn waited(&mut self, number: StreamNumber, window_max: u32) {
        if let Some(stream) = self.streams.get_mut(number.0) {
            stream.window = stream.window.saturating_mul(2).min(window_max);
        }
    }
}

impl Stream {
    fn continues(&self, rel: RelFork, first: u32) -> bool {
        let gap = if self.window > 0 { GAP_MAX } else { 0 };
        self.rel == rel && first >= self.next && first - self.next <= gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_common::{ForkNumber, RelTag};

    const SIZE: u32 = 10_000;
    const MAX: u32 = 224;

    fn rel(number: u32) -> RelFork {
        RelTag { tablespace: 1663, database: 5, relation: number }.fork(ForkNumber::Main)
    }

    /// A reader that asks for all it is told to; what it was told.
    fn read(streams: &mut Streams, first: u32, count: u32) -> Range<u32> {
        match streams.read(rel(1), first, count, SIZE, MAX) {
            Some((number, range)) => {
                if !range.is_empty() {
                    streams.asked(number, range.end);
                }
                range
            }
            None => 0..0,
        }
    }

    #[test]
    fn a_scan_is_recognised_and_kept_ahead_of() {
        let mut streams = Streams::default();
        assert!(read(&mut streams, 0, 1).is_empty());
        assert_eq!(read(&mut streams, 1, 2), 3..19);
        let mut ahead = 19;
        for first in (3..200).step_by(4) {
            let range = read(&mut streams, first, 4);
            if !range.is_empty() {
                assert_eq!(range.start, ahead, "nothing twice, nothing left out");
                ahead = range.end;
            }
            assert!(ahead >= first + 4 && ahead <= first + 4 + WINDOW_MIN);
        }
    }

    #[test]
    fn the_window_grows_while_the_reader_waits_and_ends_with_the_fork() {
        let mut streams = Streams::default();
        read(&mut streams, 0, 16);
        let mut longest = 0;
        for first in (16..2000).step_by(16) {
            let (number, range) = streams.read(rel(1), first, 16, SIZE, MAX).expect("a stream");
            streams.asked(number, range.end.max(first + 16));
            streams.waited(number, MAX);
            longest = longest.max(range.end.saturating_sub(first + 16));
        }
        assert_eq!(longest, MAX);
        let (_, range) = streams.read(rel(1), 2000, 16, 2100, MAX).expect("a stream");
        assert!(range.end <= 2100);
        assert!(streams.read(rel(1), 2016, 84, 2100, MAX).expect("a stream").1.is_empty());
    }

    #[test]
    fn single_reads_are_no_stream() {
        let mut streams = Streams::default();
        for first in [5, 900, 6, 17, 3, 4, 2000, 18] {
            assert_eq!(streams.read(rel(1), first, 1, SIZE, MAX), None, "{first}");
        }
        // Nor does a window of 0 make one.
        for first in 100..200 {
            assert!(streams.read(rel(2), first, 1, SIZE, 0).is_none_or(|(_, range)| range.is_empty()));
        }
    }

    #[test]
    fn streams_side_by_side_and_with_gaps() {
        let (mut streams, mut ahead) = (Streams::default(), [0; 3]);
        for step in 0..50 {
            let mut told = Vec::new();
            for begin in [0, 3000, 6000] {
                told.push(read(&mut streams, begin + step * 2, 2));
            }
            // A reader of single blocks all over the fork does not end them.
            read(&mut streams, 9000 - 7 * step, 1);
            ahead.iter_mut().zip(&told).for_each(|(ahead, range)| *ahead = range.end.max(*ahead));
            let reached = [0, 3000, 6000].map(|begin| begin + step * 2 + 2);
            assert!(step < 2 || ahead.iter().zip(reached).all(|(ahead, reached)| *ahead > reached), "{step}");
        }
        // Others have read what lies between.
        let (number, _) = streams.read(rel(1), 100, 2, SIZE, MAX).expect("a stream");
        streams.waited(number, MAX);
        let (_, range) = streams.read(rel(1), 102 + GAP_MAX, 2, SIZE, MAX).expect("still one");
        assert_eq!(range.end, 104 + GAP_MAX + WINDOW_MIN);
        // One gap after the other: a sample, not a sequence.
        assert!(streams.read(rel(1), 110 + GAP_MAX, 2, SIZE, MAX).is_none());
        assert!(streams.read(rel(1), 5000, 2, SIZE, MAX).is_none());
    }
}
