//! What the files of a Postgres 17 data directory are, told from their paths alone.
//!
//! Facts of Postgres: `src/common/relpath.c` (relation files), `src/backend/storage/file/fd.c` (temporary files),
//! `src/backend/access/transam/slru.c` (segment names), `src/backend/access/transam/twophase.c` (64-bit names in 17).
//! A path that is not named here carries nothing that a new compute needs (configuration, statistics, locks, old log).

use strata_common::{ForkNumber, RelFork, RelTag};
use strata_redo::slru::SlruKind;

/// `pg_default` and `pg_global` (`src/include/catalog/pg_tablespace.dat`).
pub const DEFAULT_TABLESPACE: u32 = 1663;
pub const GLOBAL_TABLESPACE: u32 = 1664;

/// Folder of Postgres 17 inside a tablespace (`TABLESPACE_VERSION_DIRECTORY`: major and catalog version).
pub const TABLESPACE_VERSION_FOLDER: &str = "PG_17_202406281";

/// Blocks in one file of a relation (`RELSEG_SIZE`): 1 GiB.
pub const BLOCKS_PER_FILE: u32 = 131_072;

/// A file that import reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Entry {
    /// `segment` counts files of `BLOCKS_PER_FILE`.
    Relation {
        rel: RelFork,
        segment: u32,
    },
    DatabaseVersion {
        tablespace: u32,
        database: u32,
    },
    RelMap {
        tablespace: u32,
        database: u32,
    },
    Slru {
        slru: SlruKind,
        segment: u32,
    },
    TwoPhase {
        xid: u64,
    },
    ControlFile,
    ClusterVersion,
    /// Saved statistics (S12).
    PgStat,
    /// Progress of replication origins.
    Origins,
    WalSegment {
        timeline: u32,
        high: u32,
        low: u32,
    },
    /// A tablespace folder itself, or the symbolic link to it.
    Tablespace {
        tablespace: u32,
    },
}

/// `None`: import does not need this file.
pub fn classify(path: &str) -> Option<Entry> {
    let path = path.strip_prefix("./").unwrap_or(path).trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["PG_VERSION"] => Some(Entry::ClusterVersion),
        ["global", "pg_control"] => Some(Entry::ControlFile),
        ["global", name] => database_file(GLOBAL_TABLESPACE, 0, name),
        ["base", database, name] => database_file(DEFAULT_TABLESPACE, decimal(database)?, name),
        ["pg_tblspc", tablespace] => Some(Entry::Tablespace { tablespace: decimal(tablespace)? }),
        ["pg_tblspc", tablespace, TABLESPACE_VERSION_FOLDER, database, name] => {
            database_file(decimal(tablespace)?, decimal(database)?, name)
        }
        ["pg_xact", name] => slru(SlruKind::Clog, name),
        ["pg_commit_ts", name] => slru(SlruKind::CommitTs, name),
        ["pg_multixact", "offsets", name] => slru(SlruKind::MultiXactOffsets, name),
        ["pg_multixact", "members", name] => slru(SlruKind::MultiXactMembers, name),
        ["pg_twophase", name] => {
            Some(Entry::TwoPhase { xid: u64::from_str_radix(hex(name, 16, 16)?, 16).ok()? })
        }
        ["pg_stat", "pgstat.stat"] => Some(Entry::PgStat),
        ["pg_logical", "replorigin_checkpoint"] => Some(Entry::Origins),
        ["pg_wal", name] => {
            let name = hex(name, 24, 24)?;
            let word = |at: usize| u32::from_str_radix(&name[at..at + 8], 16).ok();
            Some(Entry::WalSegment { timeline: word(0)?, high: word(8)?, low: word(16)? })
        }
        _ => None,
    }
}

fn database_file(tablespace: u32, database: u32, name: &str) -> Option<Entry> {
    match name {
        "PG_VERSION" => Some(Entry::DatabaseVersion { tablespace, database }),
        "pg_filenode.map" => Some(Entry::RelMap { tablespace, database }),
        _ => relation_file(tablespace, database, name),
    }
}

/// `16384`, `16384.1`, `16384_vm`, `16384_fsm.2`. Temporary relations (`t3_16384`) are not of a cluster that was shut down.
fn relation_file(tablespace: u32, database: u32, name: &str) -> Option<Entry> {
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) => (name, decimal(segment).filter(|segment| *segment > 0)?),
        None => (name, 0),
    };
    let (relation, fork) = match name.split_once('_') {
        Some((relation, suffix)) => {
            let fork = ForkNumber::ALL
                .into_iter()
                .find(|fork| fork.file_suffix().strip_prefix('_') == Some(suffix))?;
            (relation, fork)
        }
        None => (name, ForkNumber::Main),
    };
    let rel = RelTag { tablespace, database, relation: decimal(relation)? }.fork(fork);
    Some(Entry::Relation { rel, segment })
}

/// Segment names have at least four digits, five or six where the SLRU is large, and 15 where names are long.
fn slru(slru: SlruKind, name: &str) -> Option<Entry> {
    let segment = u32::from_str_radix(hex(name, 4, 8)?, 16).ok()?;
    Some(Entry::Slru { slru, segment })
}

/// Postgres writes OIDs without sign or leading zeros.
fn decimal(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn hex(text: &str, shortest: usize, longest: usize) -> Option<&str> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    ((shortest..=longest).contains(&text.len()) && digits).then_some(text)
}

/// Path of a relation's first file below the data directory, as Postgres names it.
pub fn relation_path(rel: RelFork) -> String {
    let RelTag { tablespace, database, relation } = rel.rel;
    let suffix = rel.fork.file_suffix();
    match database_folder(tablespace, database) {
        Some(folder) => format!("{folder}/{relation}{suffix}"),
        None => format!("global/{relation}{suffix}"),
    }
}

/// Folder of a database; `None` for the shared catalogs, which lie in `global`.
pub fn database_folder(tablespace: u32, database: u32) -> Option<String> {
    match tablespace {
        GLOBAL_TABLESPACE => None,
        DEFAULT_TABLESPACE => Some(format!("base/{database}")),
        _ => Some(format!("pg_tblspc/{tablespace}/{TABLESPACE_VERSION_FOLDER}/{database}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(tablespace: u32, database: u32, relation: u32, fork: ForkNumber) -> RelFork {
        RelTag { tablespace, database, relation }.fork(fork)
    }

    #[test]
    fn files_are_what_their_names_say() {
        let main = rel(1663, 5, 16384, ForkNumber::Main);
        let vm = rel(1664, 0, 1262, ForkNumber::VisibilityMap);
        let apart = rel(20000, 5, 16384, ForkNumber::Init);
        for (path, entry) in [
            ("PG_VERSION", Entry::ClusterVersion),
            ("./global/pg_control", Entry::ControlFile),
            ("base/5/16384", Entry::Relation { rel: main, segment: 0 }),
            ("base/5/16384.12", Entry::Relation { rel: main, segment: 12 }),
            ("global/1262_vm", Entry::Relation { rel: vm, segment: 0 }),
            ("pg_tblspc/20000/PG_17_202406281/5/16384_init", Entry::Relation { rel: apart, segment: 0 }),
            ("pg_tblspc/20000", Entry::Tablespace { tablespace: 20000 }),
            ("base/5/PG_VERSION", Entry::DatabaseVersion { tablespace: 1663, database: 5 }),
            ("global/pg_filenode.map", Entry::RelMap { tablespace: 1664, database: 0 }),
            ("pg_xact/0001", Entry::Slru { slru: SlruKind::Clog, segment: 1 }),
            (
                "pg_multixact/members/14078",
                Entry::Slru { slru: SlruKind::MultiXactMembers, segment: 0x14078 },
            ),
            ("pg_twophase/0000000100000003", Entry::TwoPhase { xid: 0x1_0000_0003 }),
            ("pg_stat/pgstat.stat", Entry::PgStat),
            ("pg_wal/00000001000000000000000A", Entry::WalSegment { timeline: 1, high: 0, low: 10 }),
        ] {
            assert_eq!(classify(path), Some(entry), "{path}");
        }
        for path in [
            "postgresql.conf",
            "base/pgsql_tmp/pgsql_tmp1.0",
            "base/5/t3_16384",
            "base/5/16384_abc",
            "base/5/016384",
            "base/5/16384.0",
            "base/5/99999999999",
            "pg_wal/archive_status/x",
            "pg_twophase/03",
            "pg_xact/zzzz",
            "base",
            "",
        ] {
            assert_eq!(classify(path), None, "{path}");
        }
    }

    #[test]
    fn paths_of_relations() {
        assert_eq!(relation_path(rel(1663, 5, 7, ForkNumber::FreeSpaceMap)), "base/5/7_fsm");
        assert_eq!(relation_path(rel(1664, 0, 7, ForkNumber::Main)), "global/7");
        assert_eq!(relation_path(rel(99, 5, 7, ForkNumber::Init)), "pg_tblspc/99/PG_17_202406281/5/7_init");
    }
}
