//! Errands that sessions give to the keeper, in shared memory: they ask, wait, and are told what came of it.
//!
//! Sessions own no sockets and no threads (D8). All that ask before an errand begins share its outcome; who is cancelled or ends
//! leaves nothing behind. The outcome is written by the keeper alone, under a count that is odd meanwhile.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::workers;

/// Longest text of an outcome, in words of eight bytes.
const TEXT_WORDS: usize = 32;
/// How often a session looks.
const LOOK_MS: i64 = 50;

#[repr(C)]
#[derive(Default)]
pub struct Errand {
    /// How often it was asked for.
    asked: AtomicU64,
    /// Twice the last one whose outcome is there; one less while that is written.
    done: AtomicU64,
    /// 0: it failed, for the reason in `text`. Otherwise one more than its result.
    result: AtomicU64,
    text: [AtomicU64; TEXT_WORDS],
}

#[repr(C)]
#[derive(Default)]
pub struct Desk {
    /// Puts the list of cached pages into the object store; the result is how many it names.
    pub put: Errand,
    /// Fetches that list into a file beside the cache; the result is a `hot_list::Found`.
    pub get: Errand,
}

pub type Outcome = Result<u64, String>;

impl Errand {
    /// Has it done, and waits. Can be cancelled.
    pub fn run(&self) -> Outcome {
        let mine = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        loop {
            if let Some(outcome) = self.outcome(mine) {
                return outcome;
            }
            workers::nap(LOOK_MS);
            pgrx::check_for_interrupts!();
        }
    }

    fn outcome(&self, mine: u64) -> Option<Outcome> {
        let done = self.done.load(Ordering::Acquire);
        if !done.is_multiple_of(2) || done / 2 < mine {
            return None;
        }
        let result = self.result.load(Ordering::Relaxed);
        let text: Vec<u8> =
            self.text.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        fence(Ordering::Acquire);
        if self.done.load(Ordering::Relaxed) != done {
            return None;
        }
        let text = String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned();
        Some(result.checked_sub(1).ok_or(text))
    }

    /// The last one that somebody waits for.
    pub fn wanted(&self) -> Option<u64> {
        let asked = self.asked.load(Ordering::Acquire);
        (asked > self.done.load(Ordering::Relaxed) / 2).then_some(asked)
    }

    /// The keeper has done all up to `number`.
    pub fn finish(&self, number: u64, outcome: Outcome) {
        let (result, why) = match outcome {
            Ok(result) => (result.saturating_add(1), String::new()),
            Err(why) => (0, why),
        };
        let mut text = [0; TEXT_WORDS * 8];
        let end = why.floor_char_boundary(text.len());
        text[..end].copy_from_slice(&why.as_bytes()[..end]);
        self.done.store(2 * number - 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.result.store(result, Ordering::Relaxed);
        for (word, bytes) in self.text.iter().zip(text.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().expect("eight bytes")), Ordering::Relaxed);
        }
        self.done.store(2 * number, Ordering::Release);
    }
}
