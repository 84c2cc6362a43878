//! System V shared memory that killed servers left.
//!
//! Postgres makes one small segment (`PGShmemHeader`, pg_shmem.h) so that a data directory has one server at a time, and finds the one of a
//! server that was killed by the directory's lock file. A compute's directory is laid down anew, so nobody would ever find it: after
//! some thousand losses the system would have no numbers left and no server could start. What is removed here is nobody's: of the
//! server's own user, of that size, attached to no process, and made by one that is gone.

use std::process::Command;

/// `sizeof(PGShmemHeader)` on 64-bit systems.
const HEADER_BYTES: u64 = 56;
const LIST: &str = "/proc/sysvipc/shm";

/// Removes them. A system that does not list them has none of ours; what cannot be removed stays for the next start.
pub fn remove_abandoned(uid: u32) {
    let Ok(list) = std::fs::read_to_string(LIST) else { return };
    let abandoned = abandoned(&list, uid, lives);
    if abandoned.is_empty() {
        return;
    }
    let mut ipcrm = Command::new("ipcrm");
    abandoned.iter().for_each(|id| _ = ipcrm.args(["-m", &id.to_string()]));
    match ipcrm.output() {
        Ok(output) if output.status.success() => {}
        // Another start may have been quicker with some; the others are tried again at the next one.
        Ok(output) => tracing::info!("ipcrm: {}", String::from_utf8_lossy(&output.stderr).trim_end()),
        Err(error) => {
            tracing::warn!(count = abandoned.len(), "shared memory of killed servers stays: ipcrm: {error}");
        }
    }
}

/// Whether a process works. One that has ended and was not waited for has no program any more.
fn lives(pid: u64) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    !program.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Ids of the segments in the kernel's list (its first line names the columns).
fn abandoned(list: &str, uid: u32, lives: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let names = lines.next().unwrap_or_default();
    let column = |row: &[&str], name: &str| -> Option<u64> {
        row.get(names.iter().position(|column| *column == name)?)?.parse().ok()
    };
    let is_abandoned = |row: &[&str]| {
        Some(
            column(row, "size")? == HEADER_BYTES
                && column(row, "nattch")? == 0
                && column(row, "uid")? == u64::from(uid)
                && !lives(column(row, "cpid")?),
        )
    };
    lines.filter(|row| is_abandoned(row) == Some(true)).filter_map(|row| column(&row, "shmid")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap
  10098715     622592   600                    56  1001  1001      0   107   112   107   112 1795241234 1795241235 1795241234                  4096                     0
  10022312          7   600                    56  1002  1002      4   107   112   107   112 1795241234          0 1795241234                  4096                     0
  10022313          8   600                    56  1003  1003      0   107   112   107   112 1795241234          0 1795241234                  4096                     0
  10022314          9   600                    56  1001  1001      0     0     0     0     0 1795241234          0 1795241234                  4096                     0
         0         10   600                  4096  1001  1001      0   107   112   107   112 1795241234          0 1795241234                  4096                     0
";

    #[test]
    fn only_what_is_nobodys_is_removed() {
        assert_eq!(abandoned(LIST, 107, |pid| pid == 1003), [622_592]);
        assert_eq!(abandoned(LIST, 107, |_| false), [622_592, 8]);
        assert!(abandoned(LIST, 107, |_| true).is_empty());
        for text in ["", "key shmid\n1 2\n", "shmid size nattch uid cpid\nx 56 0 107 1\n5 56\n"] {
            assert!(abandoned(text, 107, |_| false).is_empty(), "{text}");
        }
    }
}
