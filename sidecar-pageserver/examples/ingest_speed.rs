//! How fast a log is taken in (B7 of the benchmarks): from a safekeeper's disk to the last record readable, layers written on the way.
//!
//! Given are a cleanly shut down data directory and the same one later, with the log that it has written since. Both daemons are the
//! real programs: the base is imported into a pageserver, which is stopped; a safekeeper is filled with the log by a proposer, as a
//! compute would; then the pageserver is started again, and the time is from that start until it says that it has the last record.
//! One JSON object goes to standard output.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use serde_json::json;
use strata_common::{Incarnation, Lsn, MembershipGeneration, NodeId, TenantId, TenantTimelineId, TimelineId};
use strata_pgwal::WalStreamDecoder;
use strata_proto::pageserver::import_timeline_request::{Header, Kind};
use strata_proto::pageserver::pageserver_client::PageserverClient;
use strata_proto::pageserver::{ImportTimelineRequest, ListTimelinesRequest, LogStateRequest};
use strata_proto::quorum::{Member, Membership};
use strata_proto::wal::safekeeper_client::SafekeeperClient;
use strata_proto::wal::{CreateTimelineRequest, ListTimelinesRequest as ListSafekeeperTimelines};
use strata_regress::wal_files::{control_file, read_log};
use strata_walproposer::{AcceptorAddress, Config, Proposer};
use tonic::transport::{Channel, Endpoint};

const ID: TenantTimelineId = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
const CLUSTER: &str = "00112233445566778899aabbccddeeff";
const PG_VERSION_NUM: u32 = 170_000;
const TAR_CHUNK_BYTES: usize = 1 << 20;
/// As long as a pageserver lets anybody wait; only a hang meets it.
const PATIENCE_MS: u32 = 60_000;
const POLL: Duration = Duration::from_millis(5);

#[derive(Parser, Debug)]
#[command(about)]
struct Arguments {
    /// Data directory that was shut down cleanly
    #[arg(long)]
    base: PathBuf,
    /// The same one later, stopped in any way
    #[arg(long)]
    written: PathBuf,
    /// Folder of strata-safekeeper and strata-pageserver
    #[arg(long)]
    programs: PathBuf,
}

/// A daemon, ended with this.
struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(mut command: Command) -> Result<Daemon> {
        let mut child = command.stderr(Stdio::piped()).spawn().with_context(|| format!("{command:?}"))?;
        let mut lines = BufReader::new(child.stderr.take().context("a pipe")?).lines();
        let ready = lines.find_map(|line| line.ok().filter(|line| line.contains("state=\"ready\"")));
        let ready = ready.with_context(|| format!("{command:?} did not get ready"))?;
        let address = ready.split_once("listen=").context("it says where it listens")?.1;
        let address = address.split_whitespace().next().context("an address")?.to_owned();
        // What it says later must not block it.
        drop(std::thread::spawn(move || lines.for_each(drop)));
        Ok(Daemon { child, address })
    }

    async fn channel(&self) -> Result<Channel> {
        Ok(Endpoint::from_shared(format!("http://{}", self.address))?.connect().await?)
    }

    /// Seconds that it has spent on cores: fields 14 and 15 of `/proc/PID/stat`, hundredths.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').context("a name in brackets")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    /// As a user stops it.
    fn stop(&mut self) -> Result<()> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(status.success() && self.child.wait()?.success(), "the daemon did not stop well");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The log between the two directories.
struct Log {
    bytes: Bytes,
    start: Lsn,
    records: u64,
}

fn log(arguments: &Arguments) -> Result<Log> {
    let control = control_file(&arguments.written)?;
    let checkpoint = control_file(&arguments.base)?.checkpoint;
    let all = read_log(&arguments.written)?;
    let mut decoder =
        WalStreamDecoder::new(checkpoint, control.segment_bytes()).with_system_id(control.system_id);
    decoder.feed(all.from(checkpoint));
    let base = decoder.next()?.context("the checkpoint that the base ends in")?;
    let mut records = 0;
    // Behind the last record lies what a segment is filled with.
    while let Ok(Some(_)) = decoder.next() {
        records += 1;
    }
    let (start, end) = (base.end_lsn, decoder.position());
    ensure!(records > 0, "there is no log behind {start}");
    Ok(Log {
        bytes: all.bytes.slice((start - all.start) as usize..(end - all.start) as usize),
        start,
        records,
    })
}

fn pageserver(arguments: &Arguments, home: &Path, generation: u32, safekeepers: &str) -> Result<Daemon> {
    let mut command = Command::new(arguments.programs.join("strata-pageserver"));
    command.args([
        "--id",
        "1",
        "--cluster",
        CLUSTER,
        "--listen",
        "127.0.0.1:0",
        "--safekeepers",
        safekeepers,
    ]);
    command.arg("--dir").arg(home.join("pageserver")).arg("--object-store").arg(home.join("store"));
    command.arg("--generation").arg(generation.to_string());
    Daemon::start(command)
}

/// The base as a timeline of a pageserver, which is gone again afterwards.
async fn import(arguments: &Arguments, home: &Path) -> Result<()> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all(".", &arguments.base)?;
    let tar = Bytes::from(tar.into_inner()?);
    let mut daemon = pageserver(arguments, home, 1, "")?;
    let header = Header { timeline: Some(ID.into()), system_id: 0, pg_version_num: PG_VERSION_NUM };
    let pieces = (0..tar.len()).step_by(TAR_CHUNK_BYTES);
    let pieces = pieces.map(move |at| Kind::Tar(tar.slice(at..(at + TAR_CHUNK_BYTES).min(tar.len()))));
    let messages = std::iter::once(Kind::Header(header)).chain(pieces);
    let messages = messages.map(|kind| ImportTimelineRequest { kind: Some(kind) }).collect::<Vec<_>>();
    let mut client = PageserverClient::new(daemon.channel().await?);
    client.import_timeline(tokio_stream::iter(messages)).await?;
    daemon.stop()
}

/// A safekeeper that has the log, committed.
async fn safekeeper(arguments: &Arguments, home: &Path, log: &Log) -> Result<Daemon> {
    let mut command = Command::new(arguments.programs.join("strata-safekeeper"));
    command.args(["--id", "1", "--cluster", CLUSTER, "--listen", "127.0.0.1:0"]);
    command.arg("--dir").arg(home.join("safekeeper"));
    let daemon = Daemon::start(command)?;
    let control = control_file(&arguments.base)?;
    let incarnation = Incarnation([1; 16]);
    let members = vec![Member { node: NodeId(1), incarnation }];
    let membership = Membership { generation: MembershipGeneration(1), members };
    let request = CreateTimelineRequest {
        timeline: Some(ID.into()),
        system_id: control.system_id.0,
        pg_version_num: PG_VERSION_NUM,
        wal_segment_bytes: u32::try_from(control.segment_bytes().get())?,
        start_lsn: log.start.0,
        incarnation: incarnation.to_vec().into(),
        membership: Some((&membership).into()),
    };
    SafekeeperClient::new(daemon.channel().await?).create_timeline(request).await?;
    let address = AcceptorAddress { node: NodeId(1), address: daemon.address.clone() };
    let proposer = Proposer::elect(Config::new(ID, vec![address])).await?;
    proposer.append(log.start, log.bytes.clone()).await?;
    let end = log.start + log.bytes.len() as u64;
    proposer.wait_committed(end).await?;
    // The safekeeper hears a little later what is committed, and only that is handed out.
    let mut client = SafekeeperClient::new(daemon.channel().await?);
    loop {
        let listed = client.list_timelines(ListSafekeeperTimelines {}).await?.into_inner().timelines;
        if listed.iter().any(|timeline| timeline.commit_lsn >= end.0) {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    proposer.release().await;
    Ok(daemon)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = tempfile::Builder::new().prefix("strata-ingest-").tempdir()?;
    let log = log(&arguments)?;
    import(&arguments, home.path()).await?;
    let safekeeper = safekeeper(&arguments, home.path(), &log).await?;

    let begin = Instant::now();
    let daemon = pageserver(&arguments, home.path(), 2, &format!("1={}", safekeeper.address))?;
    let mut client = PageserverClient::new(daemon.channel().await?);
    let end = log.start + log.bytes.len() as u64;
    let request = LogStateRequest { timeline: Some(ID.into()), lsn: end.0, wait_ms: PATIENCE_MS };
    client.log_state(request).await?;
    let seconds = begin.elapsed().as_secs_f64();

    let cpu_seconds = daemon.cpu_seconds()?;
    let timelines = client.list_timelines(ListTimelinesRequest {}).await?.into_inner().timelines;
    let timeline = timelines.first().context("the timeline")?;
    ensure!(timeline.last_record_lsn == end.0, "the pageserver has {timeline:?}, the log ends at {end}");
    let in_layers = timeline.disk_consistent_lsn.saturating_sub(log.start.0) as f64;
    let result = json!({
        "bytes": log.bytes.len(),
        "records": log.records,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "fraction_in_layers": in_layers / log.bytes.len() as f64,
        "layer_bytes": timeline.physical_bytes,
    });
    println!("{result}");
    Ok(())
}
