//! Random statements, the same on a compute and on vanilla storage: every row and every error must be the same, while other sessions
//! change tables of their own on the compute, its buffers are few, and every page is compared with a local copy
//! (`strata.compare_local`). Phases end in a kill in the middle of a transaction, or in a clean stop; then content, definitions and
//! indexes must be as on vanilla storage.
//!
//! `STRATA_RANDOM_SEED` repeats a run; a failed run leaves its scripts in the folder that it names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use strata_regress::dump::{Dump, Rows};
use strata_regress::evict::EVICT;
use strata_regress::postgres::{Cluster, Installation, run};
use strata_regress::random::agree::{any, same, serious, serious_log};
use strata_regress::random::script::{Writer, check_all, setup};
use strata_regress::random::session::{Errors, Printed, Session};
use strata_regress::random::{self, Numbers};
use strata_regress::size;
use strata_regress::suites::postgres_tree;
use strata_regress::whole::{Compute, Whole, sets, wait_until};

/// What a phase does.
struct Phase {
    buffers: &'static str,
    units: u64,
    /// Sessions beside the one whose results are compared.
    crowd: u64,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Killed with a transaction open.
    Loss,
    Stop,
}

const FEWEST: &str = "320kB";
const FEW: &str = "512kB";

const SMALL: &[Phase] = &[
    Phase { buffers: "1MB", units: 60, crowd: 2, end: End::Loss },
    Phase { buffers: FEWEST, units: 25, crowd: 0, end: End::Stop },
];

/// Repeated in full size.
const FULL: &[Phase] = &[
    Phase { buffers: "1MB", units: 250, crowd: 2, end: End::Loss },
    Phase { buffers: FEWEST, units: 150, crowd: 0, end: End::Loss },
    Phase { buffers: "16MB", units: 250, crowd: 4, end: End::Stop },
    Phase { buffers: FEW, units: 200, crowd: 0, end: End::Loss },
    Phase { buffers: "2MB", units: 250, crowd: 4, end: End::Loss },
];
const FULL_ROUNDS: u64 = 3;

/// A compute and a vanilla server that do the same.
struct Two {
    whole: Whole,
    compute: Compute,
    vanilla: Cluster,
    scripts: PathBuf,
}

fn start(whole: &Whole, buffers: &str) -> Result<Compute> {
    // With few buffers other sessions, also workers of autovacuum, would leave none to an index build, on any storage.
    let alone = [FEWEST, FEW].contains(&buffers);
    let autovacuum = format!("autovacuum={}", if alone { "off" } else { "on" });
    let buffers = format!("shared_buffers={buffers}");
    let fixed = ["strata.compare_local=on", "strata.keeper_interval=1s", "autovacuum_naptime=1s"];
    let settings = fixed.into_iter().chain([autovacuum.as_str(), buffers.as_str()]);
    whole.start_compute("a", &sets(settings))
}

impl Two {
    fn start(buffers: &str) -> Result<Two> {
        let whole = Whole::started()?;
        let compute = start(&whole, buffers)?;
        let mut vanilla = Cluster::init(&Installation::at(postgres_tree()?.join("bin"))?, &[])?;
        vanilla.start(&[("max_prepared_transactions", "64")])?;
        let scripts = whole.scratch().join("scripts");
        std::fs::create_dir(&scripts)?;
        let two = Two { whole, compute, vanilla, scripts };
        two.both("setup", &setup("lone"))?;
        two.on_compute("crowd-setup", &setup("crowd"), Errors::Text)?.finish()?;
        Ok(two)
    }

    fn on_compute(&self, name: &str, script: &str, errors: Errors) -> Result<Session> {
        let mut psql = self.whole.program("psql");
        psql.args(["-d", &self.compute.connstr]);
        Session::start(psql, errors, script, &self.scripts, name)
    }

    fn on_vanilla(&self, name: &str, script: &str) -> Result<Session> {
        let psql = self.vanilla.client("psql", "postgres");
        Session::start(psql, Errors::Code, script, &self.scripts, &format!("{name}-vanilla"))
    }

    /// Runs a script on both, which must print the same.
    fn both(&self, name: &str, script: &str) -> Result<()> {
        let ours = self.on_compute(name, script, Errors::Code)?;
        let theirs = self.on_vanilla(name, script)?.finish()?;
        let ours = ours.finish()?;
        self.judge(&ours.errors)?;
        same(&ours, &theirs).with_context(|| name.to_owned())?;
        let lines = ours.rows.lines().count();
        eprintln!("{name}: {lines} lines of rows are the same, and these errors: {}", ours.error_codes());
        Ok(())
    }

    /// Nothing that a session or the server said means damage.
    fn judge(&self, errors: &str) -> Result<()> {
        let log = std::fs::read(self.whole.dir().join("run/compute-a.log"))?;
        let log = String::from_utf8_lossy(&log).into_owned();
        let found = [serious(errors), serious_log(&log)].concat();
        ensure!(found.is_empty(), "this may not happen:\n{}", found.join("\n"));
        Ok(())
    }

    fn sql(&self, sql: &str) -> Result<[String; 2]> {
        Ok([self.whole.sql(&self.compute.connstr, sql)?, self.vanilla.sql(sql)?])
    }

    fn phase(&mut self, number: u64, phase: &Phase, next_buffers: &str, numbers: &Numbers) -> Result<()> {
        let mut crowd = Vec::new();
        for session in 1..=phase.crowd {
            let mut writer = Writer::new("crowd", session, numbers.part(session));
            let name = format!("phase-{number}-crowd-{session}");
            crowd.push(self.on_compute(&name, &writer.script(phase.units), Errors::Text)?);
        }
        let mut writer = Writer::new("lone", 0, numbers.part(0));
        self.both(&format!("phase-{number}"), &writer.script(phase.units))?;
        match phase.end {
            End::Loss => self.lose(number, &writer.open_transaction(), crowd)?,
            End::Stop => {
                for session in crowd {
                    self.judge(&session.finish()?.errors)?;
                }
                self.whole.stop_compute("a")?.context("a clean stop")?;
            }
        }
        self.compute = start(&self.whole, next_buffers)?;
        self.forget_what_is_lost(phase.end)?;
        self.compare(&format!("after-phase-{number}"), &mut numbers.part(99))?;
        let crowd = check_all("crowd", &mut numbers.part(99));
        let read = self.on_compute(&format!("after-phase-{number}-crowd"), &crowd, Errors::Text)?.finish()?;
        let found = any(&read.errors);
        ensure!(found.is_empty(), "tables that many sessions changed cannot be read:\n{}", found.join("\n"));
        self.whole.amcheck(&self.compute)?;
        self.judge("")
    }

    /// The compute is killed in the middle of a transaction, and of what the crowd does.
    fn lose(&self, number: u64, open: &str, mut crowd: Vec<Session>) -> Result<()> {
        const SLEEP: &str = "SELECT pg_sleep(600)";
        let name = format!("phase-{number}-open");
        let mut session = self.on_compute(&name, &format!("{open}{SLEEP};\n"), Errors::Text)?;
        let sleeps = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '{SLEEP}%' AND state = 'active' AND pid <> pg_backend_pid()"
        );
        wait_until("the open transaction has done its part", || {
            Ok(!session.is_running()? || self.whole.sql(&self.compute.connstr, &sleeps)? != "0")
        })?;
        let (is_open, mut busy) = (session.is_running()?, 0);
        for session in &mut crowd {
            busy += usize::from(session.is_running()?);
        }
        eprintln!(
            "{name}: killed with a transaction open: {is_open}, {busy} of {} others at work",
            crowd.len()
        );
        self.whole.lose_compute(&self.compute)?;
        for session in [session].into_iter().chain(crowd) {
            let Printed { errors, .. } = session.finish()?;
            // The blow itself is no mistake of the server's.
            let lost = |line: &&str| line.contains("connection") || line.contains("FATAL:");
            let others: Vec<&str> = errors.lines().filter(|line| !lost(line)).collect();
            self.judge(&others.join("\n"))?;
        }
        self.on_vanilla(&name, &format!("{open}ROLLBACK;\n"))?.finish()?;
        Ok(())
    }

    /// Unlogged tables are empty on a new compute (R11), and after a loss sequences may be ahead (W9): both servers go on alike.
    fn forget_what_is_lost(&self, end: End) -> Result<()> {
        const UNLOGGED: &str =
            "SELECT coalesce(string_agg('lone.' || relname, ', ' ORDER BY relname), '') FROM pg_class
            WHERE relnamespace = 'lone'::regnamespace AND relpersistence = 'u' AND relkind = 'r'";
        let [ours, theirs] = self.sql(UNLOGGED)?;
        ensure!(ours == theirs, "unlogged tables: {ours} here, {theirs} on vanilla storage");
        for table in ours.split(", ").filter(|table| !table.is_empty()) {
            let rows = self.whole.sql(&self.compute.connstr, &format!("SELECT count(*) FROM {table}"))?;
            ensure!(rows == "0", "unlogged {table} has {rows} rows after the compute is gone");
            self.sql(&format!("TRUNCATE {table}"))?;
        }
        for (sequence, step) in [("one", 1), ("ten", 10)] {
            let [ours, theirs] = self.sql(&format!("SELECT last_value, is_called FROM lone.{sequence}"))?;
            let value = |shown: &str| shown.split('|').next().unwrap_or_default().parse::<i64>();
            let ahead = value(&ours)? - value(&theirs)?;
            let may = if end == End::Loss { 32 * step } else { 0 };
            ensure!(
                (0..=may).contains(&ahead),
                "sequence {sequence}: {ours} here, {theirs} on vanilla storage"
            );
            let (last, called) = theirs.split_once('|').context("two columns")?;
            self.sql(&format!("SELECT setval('lone.{sequence}', {last}, '{called}')"))?;
        }
        Ok(())
    }

    /// Rows by every path, and definitions, are as on vanilla storage.
    fn compare(&self, name: &str, numbers: &mut Numbers) -> Result<()> {
        self.both(name, &check_all("lone", numbers))?;
        let ours = self.whole.run("pg_dump", &["-n", "lone", "-d", &self.compute.connstr])?;
        let theirs = run(self.vanilla.client("pg_dump", "postgres").args(["-n", "lone"]))?;
        let differences = Dump::parse(&theirs).differences(&Dump::parse(&ours), Rows::Any);
        ensure!(differences.is_empty(), "{name}, against vanilla storage:\n{}", differences.join("\n"));
        Ok(())
    }

    /// A row that is missing on one of the two is seen.
    fn sees_a_missing_row(&self, numbers: &mut Numbers) -> Result<()> {
        let check = check_all("lone", numbers);
        let ours = self.on_compute("proof", &check, Errors::Code)?.finish()?;
        let theirs = self
            .on_vanilla("proof", &format!("BEGIN; DELETE FROM lone.t0 WHERE id = 7;\n{check}ROLLBACK;\n"))?;
        let said = same(&ours, &theirs.finish()?);
        let said = said.err().context("a missing row was not seen: the comparison shows nothing")?;
        ensure!(said.to_string().starts_with("rows differ in line 2"), "{said}");
        Ok(())
    }
}

/// Scripts of a run that failed, kept; the test's folder goes away.
fn keep(scripts: &Path, seed: u64) -> String {
    let kept = std::env::temp_dir().join(format!("strata-random-{seed}"));
    let _ = std::fs::remove_dir_all(&kept);
    let copied = std::process::Command::new("cp").arg("-r").arg(scripts).arg(&kept).status();
    format!("scripts and what they printed: {} ({copied:?})", kept.display())
}

fn phases(seed: u64, phases: &[&Phase]) -> Result<()> {
    let numbers = Numbers::from_seed(seed);
    let mut two = Two::start(phases[0].buffers)?;
    let mut all = || -> Result<()> {
        two.sees_a_missing_row(&mut numbers.part(98))?;
        for (at, phase) in phases.iter().enumerate() {
            let next = phases.get(at + 1).map_or("16MB", |next| next.buffers);
            two.phase(at as u64, phase, next, &numbers.part(100 + at as u64))?;
        }
        Ok(())
    };
    let outcome = all();
    outcome.with_context(|| format!("seed {seed}; {}", keep(&two.scripts, seed)))
}

#[test]
fn the_same_statements_do_the_same() -> Result<()> {
    if !size::is_full() {
        return phases(random::seed("random_sql", 1), &SMALL.iter().collect::<Vec<_>>());
    }
    let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
    let all: Vec<&Phase> = (0..FULL_ROUNDS).flat_map(|_| FULL).collect();
    phases(random::seed("random_sql", now), &all)
}

/// A byte of the local copy of a page is changed: as if the pageserver had given another one.
#[test]
fn a_wrong_byte_in_a_page_is_seen() -> Result<()> {
    let whole = Whole::started()?;
    let compute = start(&whole, "1MB")?;
    whole.sql(&compute.connstr, &format!("{EVICT} CREATE TABLE t AS SELECT 'a value'::text AS v"))?;
    whole.sql(&compute.connstr, "CHECKPOINT")?;
    whole.sql(&compute.connstr, "SELECT evict('t')")?;
    ensure!(whole.sql(&compute.connstr, "SELECT v FROM t")? == "a value", "an untouched page is read");
    whole.sql(&compute.connstr, "SELECT evict('t')")?;
    let filenode = whole.sql(&compute.connstr, "SELECT pg_relation_filenode('t')")?;
    let copies = std::fs::read_dir(compute.pgdata.join("strata_shadow"))?.flatten().map(|entry| entry.path());
    let copy =
        copies.into_iter().find(|path| path.display().to_string().ends_with(&format!("_{filenode}_0")));
    let copy = copy.context("the table has no local copy")?;
    let mut bytes = std::fs::read(&copy)?;
    let at = bytes.windows(7).position(|window| window == b"a value").context("the copy has the row")?;
    bytes[at] ^= 1;
    std::fs::write(&copy, bytes)?;

    ensure!(whole.sql(&compute.connstr, "SELECT v FROM t").is_err(), "the page was read all the same");
    let log = String::from_utf8(std::fs::read(whole.dir().join("run/compute-a.log"))?)?;
    let found = serious_log(&log).join("\n");
    ensure!(
        found.contains("strata.compare_local: block 0 of")
            && found.contains("the pageserver's copy is another"),
        "{found}"
    );
    Ok(())
}
