//! The communicator's hands: a doorbell that any process can ring, and pages into shared memory.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::AtomicU32;

use strata_common::BLOCK_BYTES;
use strata_smgr::client;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::smgr::remote;

/// An eventfd made by the postmaster; every process inherits it.
pub struct Doorbell(AsyncFd<Inherited>);

/// A descriptor that is not ours to close.
struct Inherited(RawFd);

impl AsRawFd for Inherited {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Doorbell {
    pub fn new(descriptor: RawFd) -> std::io::Result<Doorbell> {
        // SAFETY: the postmaster's descriptor stays open as long as the process lives.
        unsafe { AsyncFd::register_with_interest(Inherited(descriptor), Interest::READABLE) }
            .map(Doorbell)
            .map_err(Into::into)
    }
}

impl client::Doorbell for Doorbell {
    async fn rung(&self) {
        // An error means that the runtime ends, and this with it.
        let Ok(mut ready) = self.0.readable().await else { return };
        let mut count = [0u8; 8];
        // SAFETY: reads the counter of an eventfd and sets it to 0. Nothing to read: someone was quicker, no harm.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        ready.clear_ready();
    }
}

/// Shared memory, mapped at the same address in every process.
pub struct SharedMemory;

impl client::Delivery for SharedMemory {
    fn write_page(&self, target: u64, page: &[u8]) {
        assert_eq!(page.len(), BLOCK_BYTES, "a page is whole");
        // SAFETY: the slot is in delivery, so its owner waits and the page is its own: a shared buffer in I/O, or a bounce page.
        unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), target as *mut u8, BLOCK_BYTES) };
    }

    fn wake(&self, word: &AtomicU32) -> u64 {
        remote::wake(word)
    }
}
