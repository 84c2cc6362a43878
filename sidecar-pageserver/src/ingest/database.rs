//! Records that act on every relation of a database at once: DROP DATABASE, and CREATE DATABASE with strategy file_copy,
//! which is also what moves a database between tablespaces (R9, G15).
//!
//! Both first hand everything gathered so far to storage, because they look at the database as it is before the record.

use bytes::Bytes;
use strata_common::{BLOCK_BYTES, BlockNumber, Lsn, RelFork, RelTag};
use strata_redo::effect::DatabaseTag;

use crate::ingest::{Ingest, IngestError, cannot};
use crate::keyspace::values::{decode_blocks, present, tombstone};
use crate::keyspace::{self, KeyName, Kind};
use crate::store::Store;

/// Pages that one record may copy, bytes: all of them are in memory at once, because no layer ends inside a record (G3).
const COPY_BYTES_MAX: u64 = 256 << 20;

impl<S: Store> Ingest<S> {
    pub(super) async fn drop_database(&mut self, lsn: Lsn, tag: DatabaseTag) -> Result<(), IngestError> {
        let DatabaseTag { tablespace, database } = tag;
        let view = self.view_before();
        for (key, value) in view.scan(keyspace::database_range(Kind::RelSize, tablespace, database)).await? {
            if let (Some(KeyName::RelSize(rel)), Some(_)) = (KeyName::of(key), decode_blocks(&value)?) {
                self.gone(lsn, rel);
            }
        }
        self.put_image(lsn, keyspace::rel_map(tablespace, database), tombstone());
        self.put_image(lsn, keyspace::database(tablespace, database), tombstone());
        Ok(())
    }

    /// Every page as it is at this record: what the primary copied was flushed by a checkpoint just before.
    pub(super) async fn copy_database(
        &mut self,
        lsn: Lsn,
        from: DatabaseTag,
        to: DatabaseTag,
    ) -> Result<(), IngestError> {
        let view = self.view_before();
        let sizes = keyspace::database_range(Kind::RelSize, from.tablespace, from.database);
        let mut forks: Vec<(RelFork, u32)> = Vec::new();
        for (key, value) in view.scan(sizes).await? {
            if let (Some(KeyName::RelSize(rel)), Some(blocks)) = (KeyName::of(key), decode_blocks(&value)?) {
                forks.push((rel, blocks));
            }
        }
        let bytes = forks.iter().map(|(_, blocks)| u64::from(*blocks) * BLOCK_BYTES as u64).sum::<u64>();
        if bytes > COPY_BYTES_MAX {
            return Err(cannot(format!(
                "it copies a database of {bytes} bytes at once, {COPY_BYTES_MAX} are possible; strategy wal_log has no such bound"
            )));
        }
        for (rel, blocks) in forks {
            let tag = RelTag { tablespace: to.tablespace, database: to.database, relation: rel.rel.relation };
            let copy = tag.fork(rel.fork);
            self.born(lsn, copy, blocks);
            for block in (0..blocks).map(BlockNumber) {
                let page = view.page(rel, block).await?;
                let page = if page.iter().all(|byte| *byte == 0) { Bytes::new() } else { page };
                self.put_image(lsn, keyspace::rel_block(copy, block), page);
            }
            if self.wants_flush() {
                self.put_batch()?;
            }
        }
        if let Some(map) = view.value(keyspace::rel_map(from.tablespace, from.database)).await? {
            self.put_image(lsn, keyspace::rel_map(to.tablespace, to.database), map);
        }
        self.put_image(lsn, keyspace::database(to.tablespace, to.database), present());
        Ok(())
    }
}
