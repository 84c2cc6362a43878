//! Writing to the server's read-only memory while the postmaster preloads libraries: tables that the loader has made read-only
//! after relocation, and a few bytes of code. Every process is forked from the postmaster later and has what was written.

use std::io;

/// One line of `/proc/self/maps`, as far as it matters here.
struct Mapping {
    begin: usize,
    end: usize,
    protection: i32,
}

fn mappings() -> io::Result<Vec<Mapping>> {
    let text = std::fs::read_to_string("/proc/self/maps")?;
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (begin, end) = range.split_once('-')?;
        let bit = |letter: char, bit: i32| if rest.chars().take(3).any(|c| c == letter) { bit } else { 0 };
        Some(Mapping {
            begin: usize::from_str_radix(begin, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            protection: bit('r', libc::PROT_READ) | bit('w', libc::PROT_WRITE) | bit('x', libc::PROT_EXEC),
        })
    };
    Ok(text.lines().filter_map(parse).collect())
}

fn protect(page: usize, bytes: usize, protection: i32) -> io::Result<()> {
    // SAFETY: changes what may be done with mapped pages; the callers only ever add rights, or give back those that were there.
    match unsafe { libc::mprotect(page as *mut libc::c_void, bytes, protection) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes `bytes` at an address whatever the protection of its pages, which is as before afterwards. Code stays executable all the
/// while: a signal's handler may lie beside what is changed.
///
/// # Safety
/// `address` is the server's, `bytes` are right there, this process has one thread and nothing reads there meanwhile.
pub unsafe fn overwrite(address: usize, bytes: &[u8]) -> Result<(), String> {
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(|e| e.to_string())?;
    let failed = |error: io::Error| format!("memory at {address:#x} cannot be made writable: {error}");
    let maps = mappings().map_err(failed)?;
    let pages = (address / page * page..address + bytes.len()).step_by(page);
    let before = pages
        .map(|page| {
            let mapping = maps.iter().find(|mapping| (mapping.begin..mapping.end).contains(&page));
            mapping.map(|mapping| (page, mapping.protection))
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| format!("there is no memory at {address:#x}"))?;
    for (begin, protection) in &before {
        protect(*begin, page, protection | libc::PROT_READ | libc::PROT_WRITE).map_err(failed)?;
    }
    // SAFETY: mapped and writable by now; the rest is the caller's promise.
    unsafe { std::ptr::copy(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    for (begin, protection) in &before {
        protect(*begin, page, *protection).map_err(failed)?;
    }
    // SAFETY: as above.
    let now = unsafe { std::slice::from_raw_parts(address as *const u8, bytes.len()) };
    if now == bytes { Ok(()) } else { Err(format!("memory at {address:#x} does not keep what is written")) }
}
