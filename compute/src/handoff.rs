//! Election and the handoff record: what must be true of the log before a Postgres may start on it.
//!
//! A term is won, a majority holds all there is, and the log ends in a shutdown checkpoint, a genuine record appended in the new
//! term unless the log already ends in one (traps S1, S3, S6). The base backup is taken at the end of that record.

use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use strata_common::{Lsn, Term};
use strata_pgwal::checkpoint::CheckPoint;
use strata_pgwal::handoff::handoff_record;
use strata_pgwal::segment::{SegmentBytes, TimelineNumber};
use strata_pgwal::write::LogIdentity;
use strata_proto::pageserver::pageserver_client::PageserverClient;
use strata_proto::pageserver::{LogStateRequest, LogStateResponse};
use strata_walproposer::core::{AcceptorState, AcceptorStatus};
use strata_walproposer::{AcceptorAddress, Config, Error, Proposer, Status};

use crate::pageserver::Pageserver;
use crate::spec::{Endpoint, Phase, Spec};
use crate::state_file::StateFile;

/// Postgres's own timeline number: the only one there is here.
pub const TIMELINE: TimelineNumber = 1;
/// A compute that has lost its Postgres waits for a majority without end; a timer needs a number.
const REELECT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// One question to the pageserver waits this long; it is asked again until an answer comes.
const LOG_STATE_WAIT: Duration = Duration::from_secs(5);

/// A wait that lasts is told of this often.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// A term that is ours and the place where Postgres begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    pub term: Term,
    /// End of the shutdown checkpoint at which the base backup is taken.
    pub start_lsn: Lsn,
}

/// How the driver finds this compute's safekeepers.
pub fn driver_config(spec: &Spec) -> Config {
    Config::new(spec.timeline, addresses(&spec.safekeepers))
}

/// Safekeepers as the driver names them.
pub fn addresses(safekeepers: &[Endpoint]) -> Vec<AcceptorAddress> {
    safekeepers.iter().map(|s| AcceptorAddress { node: s.id, address: s.address.clone() }).collect()
}

/// Wins a term (`had`: the one that this supervisor had before) and makes the log end in a shutdown checkpoint that a majority holds.
pub async fn run(
    spec: &Spec,
    had: Option<Term>,
    pageserver: &mut Pageserver,
    state: &mut StateFile,
) -> anyhow::Result<Started> {
    let proposer = elect(spec, had, state).await?;
    state.step("election");
    let end = proposer.append_lsn();
    let log = wait_log_state(spec, pageserver, end, state).await?;
    state.step("pageserver_caught_up");
    let start_lsn =
        if log.ends_in_shutdown_checkpoint { end } else { append_record(spec, &proposer, &log, end).await? };
    let held = wait_saying(proposer.wait_committed(start_lsn), SAY_EVERY, || {
        let problem = lacking(&proposer.status(), start_lsn);
        tracing::warn!("{problem}");
        state.phase(Phase::Starting, problem)
    });
    held.await??;
    state.step("handoff_record");
    let term = proposer.term();
    proposer.release().await;
    Ok(Started { term, start_lsn })
}

/// Tries until a majority answers: with too few safekeepers there is nothing else to do, and the state says so.
///
/// A supervisor that `had` a term is beaten by any term that it did not ask for itself (SK-2, trap S2): it tries once, for as long
/// as it takes, so that it knows its own bids from another's.
async fn elect(spec: &Spec, had: Option<Term>, state: &mut StateFile) -> anyhow::Result<Proposer> {
    let mut config = driver_config(spec);
    config.had_term = had;
    if had.is_some() {
        state.phase(Phase::Starting, "waiting for a majority of safekeepers")?;
        config.timing.elect_max = REELECT_MAX;
        return Ok(Proposer::elect(config).await?);
    }
    config.timing.elect_max = Duration::from_secs(5);
    loop {
        match Proposer::elect(config.clone()).await {
            Ok(proposer) => return Ok(proposer),
            Err(error @ Error::Timeout { .. }) => {
                tracing::warn!("{error}");
                state.phase(Phase::Starting, error.to_string())?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the pageserver has the log up to `lsn` and says how it ends.
async fn wait_log_state(
    spec: &Spec,
    pageserver: &mut Pageserver,
    lsn: Lsn,
    state: &mut StateFile,
) -> anyhow::Result<LogStateResponse> {
    let wait_ms = u32::try_from(LOG_STATE_WAIT.as_millis()).context("a few seconds")?;
    loop {
        let request = LogStateRequest { timeline: Some(spec.timeline.into()), lsn: lsn.0, wait_ms };
        let mut client = PageserverClient::new(pageserver.channel());
        let status = match pageserver.ask(client.log_state(request)).await {
            Some(Ok(answer)) => return Ok(answer.into_inner()),
            Some(Err(status)) => status,
            None => continue,
        };
        use tonic::Code::{DeadlineExceeded, Unavailable, Unknown};
        if !matches!(status.code(), DeadlineExceeded | Unavailable | Unknown) {
            bail!("the pageserver cannot say how the log ends at {lsn}: {}", status.message());
        }
        let problem = format!("waiting for the pageserver to have the log up to {lsn}: {}", status.message());
        tracing::warn!("{problem}");
        state.phase(Phase::Starting, problem)?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Appends the handoff record at `end`; its own end.
async fn append_record(
    spec: &Spec,
    proposer: &Proposer,
    log: &LogStateResponse,
    end: Lsn,
) -> anyhow::Result<Lsn> {
    let checkpoint =
        CheckPoint::parse(&log.checkpoint).context("the pageserver's checkpoint is too short")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    let checkpoint =
        CheckPoint { time: i64::try_from(now.as_secs()).context("the clock is far ahead")?, ..checkpoint };
    let (record, _) = handoff_record(end, Lsn(log.prev_record_lsn), checkpoint, identity(spec)?);
    let after = record.end_lsn;
    proposer.append(record.begin, record.bytes).await?;
    Ok(after)
}

/// Waits as long as it takes (a stop of the supervisor ends it), and says so every now and then.
async fn wait_saying<T>(
    wait: impl Future<Output = T>,
    every: Duration,
    mut say: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<T> {
    tokio::pin!(wait);
    loop {
        tokio::select! {
            done = &mut wait => return Ok(done),
            () = tokio::time::sleep(every) => say()?,
        }
    }
}

/// Why a majority does not have the log up to `lsn` yet: who lacks it.
fn lacking(status: &Status, lsn: Lsn) -> String {
    let behind = status.acceptors.iter().filter(|acceptor| {
        acceptor.flush_lsn < lsn || matches!(acceptor.state, AcceptorState::Down | AcceptorState::Learner)
    });
    let one = |acceptor: &AcceptorStatus| {
        format!("safekeeper {} ({}, at {})", acceptor.node, acceptor.state.name(), acceptor.flush_lsn)
    };
    let behind: Vec<String> = behind.map(one).collect();
    let why =
        if status.problems.is_empty() { String::new() } else { format!(": {}", status.problems.join("; ")) };
    format!(
        "waiting for a majority of safekeepers to have the log up to {lsn}; without it are {}{why}",
        behind.join(", ")
    )
}

/// Whose log it is.
pub fn identity(spec: &Spec) -> anyhow::Result<LogIdentity> {
    let segment_bytes = SegmentBytes::new(spec.wal_segment_bytes.into());
    let segment_bytes =
        segment_bytes.with_context(|| format!("{} is no segment size", spec.wal_segment_bytes))?;
    Ok(LogIdentity { timeline: TIMELINE, system_id: spec.system_id, segment_bytes })
}

/// Why this compute is fenced, if that is what the error says.
pub fn fenced(error: &anyhow::Error) -> Option<String> {
    match error.downcast_ref::<Error>() {
        Some(error @ Error::Fenced { .. }) => Some(error.to_string()),
        _ => None,
    }
}

/// Asks the safekeepers whether another compute was elected. `None`: no, or none of a majority answers, which the next
/// election will find out.
pub async fn find_fence(spec: &Spec, started: &Started) -> Option<Error> {
    let asked =
        tokio::time::timeout(Duration::from_secs(3), Proposer::resume(driver_config(spec), started.term))
            .await;
    match asked {
        Ok(Err(error @ Error::Fenced { .. })) => Some(error),
        Ok(Ok(proposer)) => {
            proposer.release().await;
            None
        }
        Ok(Err(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_common::NodeId;

    fn acceptor(node: u64, state: AcceptorState, flush: u64) -> AcceptorStatus {
        AcceptorStatus {
            node: NodeId(node),
            address: String::new(),
            state,
            term: Term(2),
            flush_lsn: Lsn(flush),
            commit_lsn: Lsn(0),
            lag_bytes: 0,
            pageserver: Default::default(),
        }
    }

    #[test]
    fn who_lacks_the_log_is_named() {
        let acceptors = vec![
            acceptor(1, AcceptorState::Streaming, 0x200),
            acceptor(2, AcceptorState::CatchingUp, 0x100),
            acceptor(3, AcceptorState::Down, 0),
        ];
        let problems = vec!["safekeeper 3: connection refused".to_owned()];
        let text = lacking(&Status { acceptors, problems, ..Status::default() }, Lsn(0x200));
        assert_eq!(
            text,
            "waiting for a majority of safekeepers to have the log up to 0/200; without it are \
             safekeeper 2 (catching up, at 0/100), safekeeper 3 (down, at 0/0): safekeeper 3: connection refused"
        );
    }

    #[tokio::test]
    async fn a_wait_is_told_of_until_it_is_over() {
        let (done, wait) = tokio::sync::oneshot::channel();
        let mut done = Some(done);
        let mut said = 0;
        let waited = wait_saying(wait, Duration::from_millis(1), || {
            said += 1;
            if said == 3 {
                done.take().expect("said three times once").send(7).expect("it waits");
            }
            Ok(())
        });
        assert_eq!(waited.await.expect("nothing fails"), Ok(7));
        assert_eq!(said, 3);
        let refused =
            wait_saying(std::future::pending::<()>(), Duration::ZERO, || anyhow::bail!("disk full"));
        assert!(refused.await.is_err(), "what cannot be said ends the wait");
    }
}
