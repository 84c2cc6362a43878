//! Images of pages that change often, made while a layer is flushed, so that reading them does not replay all history.
//!
//! Storage decides when; redo lives here. What cannot be redone now stays as it is: reading it will say why (G17).

use bytes::Bytes;
use strata_common::Lsn;
use strata_redo::effect::{PageId, PageRef};
use strata_redo::slru::SlruPage;

use crate::keyspace::KeyName;
use crate::storage::{Key, Materialize, Reconstruct};
use crate::view::redo_page;

#[derive(Debug)]
pub struct PageImages;

impl Materialize for PageImages {
    fn image(&self, key: Key, _lsn: Lsn, parts: Reconstruct) -> Option<Bytes> {
        let name = match KeyName::of(key)? {
            KeyName::RelBlock(rel, block) => PageRef::Rel(PageId { rel, block }),
            KeyName::SlruBlock(kind, page) => PageRef::Slru(SlruPage { kind, page: u64::from(page) }),
            _ => return None,
        };
        if !parts.rooted {
            return None;
        }
        redo_page(name, parts).ok().map(|found| found.page)
    }
}
