//! Page images into the log: for pages that nothing else would log (V5, W9).

use pgrx::pg_sys;
use strata_common::{BLOCK_BYTES, BlockNumber, Lsn, RelFork};

use super::{ffi, state};

/// What of a page is logged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// All of it.
    Whole,
    /// Not the hole between the line pointers and the items.
    Standard,
}

/// Logs a page as it is, setting the copy's LSN, and raises what a read must reflect. Not in recovery, and not when the shutdown
/// checkpoint has begun: inserting there stops the server.
pub fn log(rel: RelFork, block: BlockNumber, page: &mut [u8; BLOCK_BYTES], layout: Layout) -> Lsn {
    let mut locator = ffi::locator_of(rel.rel);
    // SAFETY: a private copy of a page, which the record takes in.
    let lsn = Lsn(unsafe {
        pg_sys::log_newpage(
            &mut locator,
            ffi::raw_fork(rel.fork),
            block.0,
            page.as_mut_ptr().cast(),
            layout == Layout::Standard,
        )
    });
    state::last_written().raise_page(rel, block, lsn);
    state::last_written().raise_size(rel, lsn);
    lsn
}
