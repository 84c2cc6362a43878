//! Answers to page requests: wait until the log is there, read at the right LSN, say precisely what went wrong.
//!
//! Which LSN: a request names the LSN it wants and the LSN below which nothing may be missing (D7). The server waits for
//! the latter and reads at the former, but never above its last record: nothing changed since (L8).

pub mod cache;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use strata_common::{BLOCK_BYTES, BlockNumber, Guard, Lsn, RelFork};
use strata_proto::page::page_error::Kind as ErrorKind;
use strata_proto::page::page_request::Kind as Request;
use strata_proto::page::page_response::Kind as Answer;
use strata_proto::page::{DatabaseSize, GetPages, PageError, PageRequest, PageResponse, SlruSegment};

use crate::keyspace::{self, KeyName, Kind, values::decode_blocks};
use crate::store::{Store, StoreError};
use crate::timeline::{Timeline, WaitError};
use crate::view::ViewError;

/// Most pages in one request (`GetPages.count`).
pub const PAGES_PER_REQUEST_MAX: u32 = 32;

/// A request that waits longer for log gets RETRYABLE; the client asks again as long as its own user has patience.
pub const LOG_WAIT_MAX: Duration = Duration::from_secs(10);

/// What a request gets instead of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: ErrorKind,
    pub message: String,
}

impl Refusal {
    fn bad(message: impl ToString) -> Refusal {
        Refusal { kind: ErrorKind::BadRequest, message: message.to_string() }
    }
}

impl From<WaitError> for Refusal {
    fn from(error: WaitError) -> Refusal {
        let kind = match &error {
            WaitError::TimedOut { .. } | WaitError::Fenced { .. } | WaitError::Closed(_) => {
                ErrorKind::Retryable
            }
            WaitError::Parked { .. } => ErrorKind::Parked,
            WaitError::Broken { .. } => ErrorKind::Corruption,
        };
        Refusal { kind, message: error.to_string() }
    }
}

/// What kind of error a failed read is, for clients.
pub fn kind_of(error: &ViewError) -> ErrorKind {
    match error {
        ViewError::Store(StoreError::Unavailable(_) | StoreError::Fenced(_)) => ErrorKind::Retryable,
        ViewError::Store(StoreError::BelowHistory { .. }) | ViewError::NoMark(_) => ErrorKind::BelowHistory,
        ViewError::Store(StoreError::Corrupt(_)) | ViewError::Redo(_) | ViewError::Damaged { .. } => {
            ErrorKind::Corruption
        }
    }
}

/// Answers one request.
pub async fn answer<S: Store>(timeline: &Timeline<S>, request: PageRequest) -> PageResponse {
    let id = request.id;
    let kind = match try_answer(timeline, request).await {
        Ok(answer) => answer,
        Err(Refusal { kind, message }) => {
            if kind == ErrorKind::Corruption {
                tracing::error!(timeline = %timeline.id, %message, "a request met damage");
            }
            Answer::Error(PageError { kind: kind.into(), message })
        }
    };
    PageResponse { id, kind: Some(kind) }
}

/// Whether a request can be answered without waiting for log.
pub fn is_ready<S: Store>(timeline: &Timeline<S>, request: &PageRequest) -> bool {
    request.not_modified_since <= timeline.last_record().0
}

async fn try_answer<S: Store>(timeline: &Timeline<S>, request: PageRequest) -> Result<Answer, Refusal> {
    let (wanted, since) = (Lsn(request.request_lsn), Lsn(request.not_modified_since));
    if since > wanted {
        return Err(Refusal::bad(format!("not_modified_since {since} is above request_lsn {wanted}")));
    }
    if Guard::WaitForLog.holds() {
        timeline.wait_for(since, LOG_WAIT_MAX).await?;
    }
    let lsn = wanted.min(timeline.last_record());
    match request.kind.ok_or_else(|| Refusal::bad("the request asks for nothing"))? {
        Request::GetPages(pages) => Ok(Answer::Pages(get_pages(timeline, pages, lsn).await?)),
        Request::RelSize(rel) => {
            let blocks = size(timeline, RelFork::try_from(rel).map_err(Refusal::bad)?, lsn).await?;
            Ok(Answer::BlockCount(blocks.unwrap_or(0)))
        }
        Request::RelExists(rel) => {
            let blocks = size(timeline, RelFork::try_from(rel).map_err(Refusal::bad)?, lsn).await?;
            Ok(Answer::Exists(blocks.is_some()))
        }
        Request::DatabaseSize(database) => Ok(Answer::Bytes(database_bytes(timeline, database, lsn).await?)),
        Request::TablespaceUsed(tablespace) => {
            Ok(Answer::Exists(tablespace_used(timeline, tablespace, lsn).await?))
        }
        Request::SlruSegment(segment) => Ok(Answer::SlruSegment(slru_segment(timeline, segment, lsn).await?)),
    }
}

fn refuse<S: Store>(
    timeline: &Timeline<S>,
    lsn: Lsn,
    what: impl std::fmt::Display,
    error: &ViewError,
) -> Refusal {
    Refusal { kind: kind_of(error), message: format!("timeline {}, {what} at {lsn}: {error}", timeline.id) }
}

async fn size<S: Store>(timeline: &Timeline<S>, rel: RelFork, lsn: Lsn) -> Result<Option<u32>, Refusal> {
    let found = timeline.rel_blocks(rel, lsn).await;
    found.map_err(|e| refuse(timeline, lsn, format_args!("size of relation {rel}"), &e))
}

async fn get_pages<S: Store>(timeline: &Timeline<S>, request: GetPages, lsn: Lsn) -> Result<Bytes, Refusal> {
    let GetPages { rel, first_block, count } = request;
    let rel = rel.ok_or_else(|| Refusal::bad("rel is missing"))?;
    let rel = RelFork::try_from(rel).map_err(Refusal::bad)?;
    if !(1..=PAGES_PER_REQUEST_MAX).contains(&count) {
        return Err(Refusal::bad(format!(
            "{count} pages in one request: 1 to {PAGES_PER_REQUEST_MAX} are allowed"
        )));
    }
    let last = first_block.checked_add(count - 1).filter(|last| *last < BlockNumber::INVALID.0);
    let last =
        last.ok_or_else(|| Refusal::bad(format!("block {first_block} and the next {count} do not exist")))?;
    let blocks = size(timeline, rel, lsn).await?.unwrap_or(0);
    let read = |block: u32| async move {
        let page = timeline.page(rel, BlockNumber(block), blocks, lsn).await;
        page.map_err(|e| refuse(timeline, lsn, format_args!("relation {rel} block {block}"), &e))
    };
    if count == 1 {
        return read(first_block).await;
    }
    let mut pages = BytesMut::with_capacity(count as usize * BLOCK_BYTES);
    for block in first_block..=last {
        pages.extend_from_slice(&read(block).await?);
    }
    Ok(pages.freeze())
}

/// Sizes of all forks of all relations; what Postgres would find by looking at files, without INIT-only relations' MAIN.
async fn database_bytes<S: Store>(
    timeline: &Timeline<S>,
    request: DatabaseSize,
    lsn: Lsn,
) -> Result<u64, Refusal> {
    let DatabaseSize { tablespace, database } = request;
    let failed =
        |e: &ViewError| refuse(timeline, lsn, format_args!("size of database {tablespace}/{database}"), e);
    let view = timeline.view(lsn);
    let mut tablespaces = BTreeSet::from([tablespace]);
    if tablespace == 0 {
        let all = view.scan_live(keyspace::kind_range(Kind::Database)).await.map_err(|e| failed(&e))?;
        let of_database = |key| match KeyName::of(key) {
            Some(KeyName::Database { tablespace, database: found }) if found == database => Some(tablespace),
            _ => None,
        };
        tablespaces = all.into_iter().filter_map(|(key, _)| of_database(key)).collect();
        // A database may have relations in any tablespace of users.
        let all = view.scan_live(keyspace::kind_range(Kind::Tablespace)).await.map_err(|e| failed(&e))?;
        let named = |key| match KeyName::of(key) {
            Some(KeyName::Tablespace(tablespace)) => Some(tablespace),
            _ => None,
        };
        tablespaces.extend(all.into_iter().filter_map(|(key, _)| named(key)));
    }
    let mut blocks = 0;
    for tablespace in tablespaces {
        let range = keyspace::database_range(Kind::RelSize, tablespace, database);
        for (_, value) in view.scan_live(range).await.map_err(|e| failed(&e))? {
            blocks += decode_blocks(&value).ok().flatten().map_or(0, u64::from);
        }
    }
    Ok(blocks * BLOCK_BYTES as u64)
}

/// Whether any fork of any relation is there, empty ones included (R12: DROP TABLESPACE looks for files).
async fn tablespace_used<S: Store>(
    timeline: &Timeline<S>,
    tablespace: u32,
    lsn: Lsn,
) -> Result<bool, Refusal> {
    let failed = |e: &ViewError| refuse(timeline, lsn, format_args!("tablespace {tablespace}"), e);
    let sizes = keyspace::tablespace_range(Kind::RelSize, tablespace);
    let found = timeline.view(lsn).scan_live(sizes).await.map_err(|e| failed(&e))?;
    Ok(!found.is_empty())
}

async fn slru_segment<S: Store>(
    timeline: &Timeline<S>,
    request: SlruSegment,
    lsn: Lsn,
) -> Result<Bytes, Refusal> {
    let kind = u32::try_from(request.slru).ok().and_then(keyspace::slru_from_raw);
    let kind = kind.ok_or_else(|| Refusal::bad(format!("there is no SLRU {}", request.slru)))?;
    let found = timeline.view(lsn).slru_segment(kind, request.segment).await;
    found.map_err(|e| {
        refuse(timeline, lsn, format_args!("{} segment {:04X}", kind.folder(), request.segment), &e)
    })
}

/// Bytes of everything in a timeline, for `logical_bytes`.
pub async fn logical_bytes<S: Store>(timeline: &Timeline<S>) -> Result<u64, ViewError> {
    let view = timeline.view(timeline.last_record());
    let sizes = view.scan_live(keyspace::kind_range(Kind::RelSize)).await?;
    let blocks: u64 =
        sizes.iter().filter_map(|(_, value)| decode_blocks(value).ok().flatten()).map(u64::from).sum();
    Ok(blocks * BLOCK_BYTES as u64)
}
