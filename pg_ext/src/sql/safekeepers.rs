//! `strata_safekeepers()`, behind the view of that name: each safekeeper as the proposer worker sees it.

use std::sync::atomic::Ordering::Relaxed;

use pgrx::prelude::*;

use crate::guc;
use crate::wal::shared;

/// Rows of (id, address, state, term, flush LSN, commit LSN, lag in bytes behind what was sent). None without a quorum.
#[pg_extern]
fn strata_safekeepers() -> TableIterator<
    'static,
    (
        name!(id, i64),
        name!(address, String),
        name!(state, String),
        name!(term, i64),
        name!(flush_lsn, i64),
        name!(commit_lsn, i64),
        name!(lag_bytes, i64),
    ),
> {
    let addresses = guc::safekeepers().unwrap_or_else(|problem| pgrx::error!("{problem}"));
    let Some(shared) = shared::get() else { return TableIterator::new(Vec::new()) };
    let count = shared.safekeeper_count.load(Relaxed) as usize;
    let sent = shared.sent_lsn.load(Relaxed);
    let row = |place: &shared::SafekeeperSlot| {
        let id = place.id.load(Relaxed);
        let address = addresses.iter().find(|(node, _)| node.0 == id);
        let flush = place.flush_lsn.load(Relaxed);
        (
            id as i64,
            address.map_or_else(String::new, |(_, address)| address.clone()),
            shared::state_name(place.state.load(Relaxed)).to_owned(),
            place.term.load(Relaxed) as i64,
            flush as i64,
            place.commit_lsn.load(Relaxed) as i64,
            sent.saturating_sub(flush) as i64,
        )
    };
    let rows: Vec<_> = shared.safekeepers.iter().take(count).map(row).collect();
    TableIterator::new(rows)
}
