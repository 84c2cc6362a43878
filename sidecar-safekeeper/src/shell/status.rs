//! Errors of the service as gRPC statuses; `safekeeper.proto` says which is which.

use strata_common::{Lsn, TenantTimelineId};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::core::Refusal;

/// Metadata of an `OUT_OF_RANGE` answer: where the log begins, as a decimal number.
pub const OLDEST_LSN_KEY: &str = "strata-oldest-lsn";

/// Why an acceptor refused.
pub fn of_refusal(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::Generation { .. } | Refusal::Term { .. } => Code::FailedPrecondition,
        Refusal::Gap { .. } | Refusal::NotAnnounced => Code::Aborted,
        Refusal::History(_) | Refusal::Content(_) => Code::InvalidArgument,
        Refusal::BelowCommit { .. } | Refusal::Stopped(_) => Code::DataLoss,
        Refusal::Busy => Code::Unavailable,
    };
    Status::new(code, refusal.to_string())
}

/// Log that is not here any more.
pub fn removed(asked: Lsn, oldest: Lsn) -> Status {
    let mut status =
        Status::out_of_range(format!("log at {asked} was removed here; the oldest is at {oldest}"));
    status.metadata_mut().insert(OLDEST_LSN_KEY, MetadataValue::from(oldest.0));
    status
}

/// Where the log begins, if that is what a peer's status is about.
pub fn oldest_of(status: &Status) -> Option<Lsn> {
    let value = status.metadata().get(OLDEST_LSN_KEY).filter(|_| status.code() == Code::OutOfRange)?;
    value.to_str().ok()?.parse().ok().map(Lsn)
}

pub fn unknown(timeline: TenantTimelineId) -> Status {
    Status::not_found(format!("timeline {timeline} was never created here"))
}

pub fn disk_full(problem: &str) -> Status {
    Status::resource_exhausted(problem)
}

pub fn stopping() -> Status {
    Status::unavailable("this safekeeper is being stopped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_learns_where_the_log_begins() {
        assert_eq!(oldest_of(&removed(Lsn(16), Lsn(0x1_0000_0028))), Some(Lsn(0x1_0000_0028)));
        assert_eq!(oldest_of(&Status::out_of_range("something else")), None);
        assert_eq!(oldest_of(&stopping()), None);
    }
}
