//! A server without our registration hook: its own table of storage managers is taken over (D2), if `strata_smgr::stock` finds
//! that everything is as it must be; otherwise the server does not start.
//!
//! Afterwards each function of `smgr.c` that can be called without shared memory is called once, with recorders in the table
//! (`probe`), so that a server whose calls go elsewhere for a reason that nobody thought of is refused, too.

mod loaded;
mod probe;
mod table;

use std::sync::atomic::{AtomicUsize, Ordering};

use strata_smgr::stock::{self, Patch, Plan};

use super::ffi::FSmgr;
use super::memory;

/// Address of the table once it is ours.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Takes the table over, or says why not.
pub fn take_over() -> Result<(), String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("that is known for x86-64 only".to_owned());
    }
    let program = loaded::main_program().ok_or("the program's headers cannot be read")?;
    let Plan { table, patch } = stock::verify(&program).map_err(|refused| refused.to_string())?;
    drop(program);
    let table = usize::try_from(table).map_err(|error| error.to_string())?;
    if let Some(patch) = patch {
        write_patch(&patch)?;
    }
    // SAFETY: the address was found and its content verified; both tables are whole; libraries are being loaded, so this process
    // has one thread, and nothing calls the storage manager.
    unsafe {
        write_table(table, &probe::TABLE)?;
        probe::run()?;
        write_table(table, &table::TABLE)?;
    }
    TAKEN.store(table, Ordering::Relaxed);
    Ok(())
}

/// After all libraries have been loaded: whether one of them has taken the table from us.
pub fn still_ours() -> bool {
    let address = TAKEN.load(Ordering::Relaxed);
    // SAFETY: the server's table, found at the take-over.
    address == 0
        || unsafe {
            std::slice::from_raw_parts(address as *const u8, size_of::<FSmgr>()) == bytes_of(&table::TABLE)
        }
}

fn bytes_of(entry: &'static FSmgr) -> &'static [u8] {
    // SAFETY: a plain struct of pointers, without padding.
    unsafe { std::slice::from_raw_parts((&raw const *entry).cast::<u8>(), size_of::<FSmgr>()) }
}

/// # Safety
/// `address` is the server's table; nothing uses it meanwhile.
unsafe fn write_table(address: usize, entry: &'static FSmgr) -> Result<(), String> {
    // SAFETY: the caller's promise.
    unsafe { memory::overwrite(address, bytes_of(entry)) }
}

fn write_patch(patch: &Patch) -> Result<(), String> {
    let address = usize::try_from(patch.address).map_err(|error| error.to_string())?;
    // SAFETY: the address lies in the program's code.
    let found = unsafe { std::slice::from_raw_parts(address as *const u8, patch.before.len()) };
    if found != patch.before {
        return Err(format!("the code at {address:#x} has changed"));
    }
    // SAFETY: verified: a jump and padding that nothing reaches, which a jump with the target in memory replaces.
    unsafe { memory::overwrite(address, &patch.after) }
}
