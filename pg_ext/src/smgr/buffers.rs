//! Looks at the server's buffer descriptors: is a page's memory a shared buffer, is the buffer permanent, is a page in any.
//!
//! From `src/include/storage/buf_internals.h`. Nothing here changes a buffer (W12).

use std::ffi::c_void;

use pgrx::pg_sys;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelFork, RelTag};
use strata_smgr::page::Page;

const BM_VALID: u32 = 1 << 24;
const BM_PERMANENT: u32 = 1 << 31;

/// Index of the shared buffer at an address, or `None` for other memory.
pub fn index_of(address: *const c_void) -> Option<usize> {
    // SAFETY: set once when shared memory is made.
    let (first, count) = unsafe { (pg_sys::BufferBlocks as usize, pg_sys::NBuffers as usize) };
    let offset = (address as usize).checked_sub(first)?;
    (offset < count * BLOCK_BYTES).then_some(offset / BLOCK_BYTES)
}

/// State word of a buffer.
fn state_word(index: usize) -> u32 {
    // SAFETY: an index of an existing buffer; the word is an atomic of the server's.
    unsafe {
        let descriptor = &raw const (*pg_sys::BufferDescriptors.add(index)).bufferdesc;
        std::ptr::read_volatile(&raw const (*descriptor).state.value)
    }
}

/// BM_PERMANENT of the buffer at an address, or `None` if the address is not in shared buffers.
pub fn permanence_at(address: *const c_void) -> Option<bool> {
    index_of(address).map(|index| state_word(index) & BM_PERMANENT != 0)
}

/// BM_PERMANENT of the buffer that holds a page, or `None` if none does.
pub fn permanence_of(rel: RelFork, block: BlockNumber) -> Option<bool> {
    look_up(rel, block, |index| state_word(index) & BM_PERMANENT != 0)
}

/// Whether a page is in shared buffers with valid content. One that is being read, or is going to be, is not.
pub fn has(rel: RelFork, block: BlockNumber) -> bool {
    look_up(rel, block, |index| state_word(index) & BM_VALID != 0).unwrap_or(false)
}

/// LSN of a page that is in shared buffers with valid content.
pub fn lsn_in_buffer(rel: RelFork, block: BlockNumber) -> Option<Lsn> {
    look_up(rel, block, |index| {
        if state_word(index) & BM_VALID == 0 {
            return None;
        }
        let mut bytes = [0u8; BLOCK_BYTES];
        // SAFETY: the mapping lock keeps the page in its buffer; the first bytes may change while they are copied, which at
        // worst gives one of two LSNs that are both valid or not.
        unsafe {
            let page = pg_sys::BufferBlocks.add(index * BLOCK_BYTES).cast::<u8>();
            std::ptr::copy_nonoverlapping(page, bytes.as_mut_ptr(), BLOCK_BYTES);
        }
        Some(Page::new(&bytes).lsn())
    })
    .flatten()
}

/// One byte of a page that is in shared buffers with valid content. Others may be changing it.
pub fn byte_of(rel: RelFork, block: BlockNumber, offset: usize) -> Option<u8> {
    assert!(offset < BLOCK_BYTES, "a byte of a page");
    let byte = |index: usize| {
        // SAFETY: the mapping lock keeps the page in its buffer, and the byte is within it.
        let read = || unsafe {
            std::ptr::read_volatile(pg_sys::BufferBlocks.add(index * BLOCK_BYTES + offset).cast::<u8>())
        };
        (state_word(index) & BM_VALID != 0).then(read)
    };
    look_up(rel, block, byte).flatten()
}

const BM_DIRTY: u32 = 1 << 23;

/// Writes dirty pages of permanent relations that `wanted` names, at most `most` of them; `wanted` is asked with the page locked.
/// For a process without a transaction, whose pins have an owner.
pub fn flush_dirty(most: usize, wanted: impl Fn(RelFork, BlockNumber, Page<'_>) -> bool) -> usize {
    const DIRTY: u32 = BM_DIRTY | BM_VALID | BM_PERMANENT;
    let mut flushed = 0;
    // SAFETY: set once when shared memory is made.
    let count = unsafe { pg_sys::NBuffers as usize };
    for index in 0..count {
        if flushed == most {
            break;
        }
        if state_word(index) & DIRTY != DIRTY {
            continue;
        }
        // SAFETY: an index of an existing buffer. The tag may change while it is read: taking the pin checks it.
        let tag = unsafe {
            std::ptr::read_volatile(&raw const (*pg_sys::BufferDescriptors.add(index)).bufferdesc.tag)
        };
        let Some(fork) = u8::try_from(tag.forkNum).ok().and_then(ForkNumber::from_raw) else { continue };
        let rel = RelTag {
            tablespace: tag.spcOid.to_u32(),
            database: tag.dbOid.to_u32(),
            relation: tag.relNumber.to_u32(),
        };
        // Pages of other kinds are not even pinned.
        if fork != ForkNumber::FreeSpaceMap && (fork != ForkNumber::Main || tag.blockNum != 0) {
            continue;
        }
        flushed += usize::from(flush_if(index, rel.fork(fork), BlockNumber(tag.blockNum), &wanted));
    }
    flushed
}

fn flush_if(
    index: usize,
    rel: RelFork,
    block: BlockNumber,
    wanted: impl Fn(RelFork, BlockNumber, Page<'_>) -> bool,
) -> bool {
    let buffer = i32::try_from(index + 1).expect("a buffer's number");
    // SAFETY: as any reader of bufmgr.c: pin, lock the content, look, unlock, unpin. The pin fails if the buffer holds another page
    // by now.
    unsafe {
        if !pg_sys::ReadRecentBuffer(
            super::ffi::locator_of(rel.rel),
            super::ffi::raw_fork(rel.fork),
            block.0,
            buffer,
        ) {
            return false;
        }
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
        let page = &*pg_sys::BufferBlocks.add(index * BLOCK_BYTES).cast::<[u8; BLOCK_BYTES]>();
        let wanted = wanted(rel, block, Page::new(page));
        if wanted {
            pg_sys::FlushOneBuffer(buffer);
        }
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
        pg_sys::ReleaseBuffer(buffer);
        wanted
    }
}

/// Finds a page's buffer and looks at it under the mapping lock. The caller holds none of these locks.
fn look_up<T>(rel: RelFork, block: BlockNumber, look: impl FnOnce(usize) -> T) -> Option<T> {
    let mut tag = pg_sys::BufferTag {
        spcOid: rel.rel.tablespace.into(),
        dbOid: rel.rel.database.into(),
        relNumber: rel.rel.relation.into(),
        forkNum: super::ffi::raw_fork(rel.fork),
        blockNum: block.0,
    };
    // SAFETY: as every look-up in bufmgr.c: hash, partition lock, search.
    unsafe {
        let hash = pg_sys::BufTableHashCode(&mut tag);
        let number =
            pg_sys::NUM_INDIVIDUAL_LWLOCKS as usize + hash as usize % pg_sys::NUM_BUFFER_PARTITIONS as usize;
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(number)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
        let index = pg_sys::BufTableLookup(&mut tag, hash);
        let result = usize::try_from(index).ok().map(look);
        pg_sys::LWLockRelease(lock);
        result
    }
}
