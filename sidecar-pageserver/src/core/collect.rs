//! Gathers what a key is made of from sources that are visited newest first, and says when to stop.
//!
//! Order within one LSN is the order of the puts (trap G3): an image or initialising change makes everything put before it at that LSN
//! moot, a change after it comes on top. The image in an image *layer* at an LSN holds every record that ends at or below that LSN, so
//! changes at the same LSN are not applied to it again; sources are asked with [`Collector::floor`] for that.

use bytes::Bytes;
use strata_common::Lsn;

use super::key::{Reconstruct, Value};

/// Whether older values matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    NeedOlder,
    Done,
}

#[derive(Debug)]
pub struct Collector {
    /// Values at or below this do not matter: a known image stands for them.
    floor: Option<(Lsn, Bytes)>,
    image: Option<(Lsn, Bytes)>,
    newest_first: Vec<(Lsn, Bytes)>,
    done: bool,
}

impl Collector {
    /// `known`: the key's content as of an LSN, from a cache; the search ends there.
    pub fn new(known: Option<(Lsn, Bytes)>) -> Collector {
        Collector { floor: known, image: None, newest_first: Vec::new(), done: false }
    }

    pub fn progress(&self) -> Progress {
        if self.done { Progress::Done } else { Progress::NeedOlder }
    }

    /// The LSN at and below which nothing matters any more.
    pub fn floor(&self) -> Option<Lsn> {
        self.floor.as_ref().map(|(lsn, _)| *lsn)
    }

    /// The next older value.
    pub fn push(&mut self, lsn: Lsn, value: Value) -> Progress {
        assert!(!self.done, "nothing is asked for after the root is found");
        if let Some((floor, image)) = &self.floor
            && lsn <= *floor
        {
            self.image = Some((*floor, image.clone()));
            self.done = true;
            return Progress::Done;
        }
        match value {
            Value::Image(bytes) => {
                self.image = Some((lsn, bytes));
                self.done = true;
            }
            Value::Change { bytes, will_init } => {
                self.newest_first.push((lsn, bytes));
                self.done = will_init;
            }
        }
        self.progress()
    }

    /// How many changes were pushed, for `cut`.
    pub fn changes(&self) -> usize {
        self.newest_first.len()
    }

    /// Takes back all but the first `changes`, for a source that failed half-way and did not come to a root.
    pub fn cut(&mut self, changes: usize) {
        assert!(!self.done, "a source that found the root did not fail");
        self.newest_first.truncate(changes);
    }

    /// No source has anything older, or it is known that the key did not exist before what was found.
    pub fn finish(mut self) -> Reconstruct {
        if !self.done
            && let Some(known) = self.floor.take()
        {
            self.image = Some(known);
            self.done = true;
        }
        self.newest_first.reverse();
        Reconstruct { image: self.image, changes: self.newest_first, rooted: self.done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &'static str, will_init: bool) -> Value {
        Value::Change { bytes: Bytes::from_static(text.as_bytes()), will_init }
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn an_image_ends_the_search_and_changes_come_oldest_first() {
        let mut c = Collector::new(None);
        assert_eq!(c.push(Lsn(30), change("c", false)), Progress::NeedOlder);
        assert_eq!(c.push(Lsn(20), change("b", false)), Progress::NeedOlder);
        assert_eq!(c.push(Lsn(20), Value::Image(bytes("a"))), Progress::Done);
        let r = c.finish();
        assert_eq!(r.image, Some((Lsn(20), bytes("a"))));
        assert_eq!(r.changes, [(Lsn(20), bytes("b")), (Lsn(30), bytes("c"))]);
        assert!(r.rooted);
    }

    #[test]
    fn an_initialising_change_ends_it_without_an_image() {
        let mut c = Collector::new(None);
        assert_eq!(c.push(Lsn(30), change("c", true)), Progress::Done);
        let r = c.finish();
        assert_eq!((r.image, r.changes.len(), r.rooted), (None, 1, true));
    }

    #[test]
    fn a_known_image_stands_for_everything_at_or_below_it() {
        let mut c = Collector::new(Some((Lsn(25), bytes("known"))));
        assert_eq!(c.push(Lsn(26), change("c", false)), Progress::NeedOlder);
        assert_eq!(c.push(Lsn(25), change("b", false)), Progress::Done);
        let r = c.finish();
        assert_eq!(r.image, Some((Lsn(25), bytes("known"))));
        assert_eq!(r.changes, [(Lsn(26), bytes("c"))]);
    }

    #[test]
    fn changes_without_a_root_say_so() {
        let mut c = Collector::new(None);
        c.push(Lsn(3), change("x", false));
        let r = c.finish();
        assert!(!r.rooted && !r.is_absent());
        assert!(Collector::new(None).finish().is_absent());
    }
}
