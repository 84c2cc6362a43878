//! The main program of this process as it lies in memory, for `strata_smgr::stock`.

use std::borrow::Cow;
use std::ffi::{c_int, c_void};

use strata_smgr::stock::program::{Kind, Program, Segment};

/// The first that the loader names is the main program.
unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: the loader's record, and the place that `main_program` passed.
    unsafe { *found.cast::<Option<Program<'static>>>() = program(&*info) };
    1
}

/// # Safety
/// `info` describes the main program, which stays where it is while this process lives.
unsafe fn program(info: &libc::dl_phdr_info) -> Option<Program<'static>> {
    // SAFETY: as many headers as the record says.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let dynamic = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC)?;
    let bias = info.dlpi_addr;
    let segments = headers.iter().filter(|header| header.p_type == libc::PT_LOAD).map(|header| {
        let address = bias + header.p_vaddr;
        let bytes = usize::try_from(header.p_memsz).ok()?;
        // SAFETY: the loader has mapped the segment for the life of the process.
        let memory = unsafe { std::slice::from_raw_parts(address as *const u8, bytes) };
        Some(match header.p_flags {
            flags if flags & libc::PF_X != 0 => {
                Segment { address, kind: Kind::Code, bytes: Cow::Borrowed(memory) }
            }
            // The server's variables: a copy, so that nothing changes while they are looked at.
            flags if flags & libc::PF_W != 0 => {
                Segment { address, kind: Kind::Data, bytes: Cow::Owned(memory.to_vec()) }
            }
            _ => Segment { address, kind: Kind::ReadOnly, bytes: Cow::Borrowed(memory) },
        })
    });
    Some(Program { bias, segments: segments.collect::<Option<Vec<_>>>()?, dynamic: bias + dynamic.p_vaddr })
}

pub fn main_program() -> Option<Program<'static>> {
    let mut found: Option<Program<'static>> = None;
    // SAFETY: the callback gets the place above, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut found).cast()) };
    found
}
