//! A whole Strata in a temporary folder, driven through the `strata` program as a user would: init, daemons, computes.
//!
//! Everything it started is killed when it goes out of scope, by the pids that `strata status` names.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use strata_common::guard::{self, Guard};
use tempfile::TempDir;

use crate::port_lease::PortLease;

/// Where the built programs lie; the suites' runner may set it.
pub const PROGRAMS_VARIABLE: &str = "STRATA_TEST_PROGRAMS";

/// Size of computes' local file caches where a test gives none.
pub const CACHE_SIZE_VARIABLE: &str = "STRATA_LFC_MAX_SIZE";

/// Folder of the built programs: next to where cargo puts the tests, unless the environment says otherwise.
pub fn programs() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release");
    std::env::var_os(PROGRAMS_VARIABLE).map_or(default, PathBuf::from)
}

/// What one call of `strata` said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

pub struct Whole {
    home: TempDir,
    bin_dir: PathBuf,
    /// Where its Postgres lies, if not where the programs say.
    tree: Option<PathBuf>,
    /// Given to every program.
    environment: Vec<(&'static str, String)>,
    ports: PortLease,
}

/// A running compute.
#[derive(Clone, Debug)]
pub struct Compute {
    pub name: String,
    pub connstr: String,
    pub pgid: i32,
    pub pgdata: PathBuf,
    pub port: u16,
}

impl Whole {
    /// `strata init` and `strata start` in a new folder.
    pub fn started() -> Result<Whole> {
        let whole = Whole::initialised(&[])?;
        whole.strata(&["start"])?;
        Ok(whole)
    }

    /// `started` with another Postgres.
    pub fn started_on(tree: PathBuf) -> Result<Whole> {
        let whole = Whole::make(Some(tree), &[])?;
        whole.strata(&["start"])?;
        Ok(whole)
    }

    /// `strata init` with further arguments, nothing running afterwards.
    pub fn initialised(arguments: &[&str]) -> Result<Whole> {
        Whole::make(None, arguments)
    }

    fn make(tree: Option<PathBuf>, arguments: &[&str]) -> Result<Whole> {
        let home = tempfile::Builder::new().prefix("strata-whole-").tempdir()?;
        // Postgres, another user if we are root, walks through to its own folder.
        std::fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let ports = PortLease::take()?;
        // Without the file cache a page that left its buffer comes from the pageserver, or the spill store: that is what tests are
        // to show. Those of the cache give it a size.
        let environment = vec![(CACHE_SIZE_VARIABLE, "0".to_owned())];
        let mut whole = Whole { home, bin_dir: PathBuf::new(), tree, environment, ports };
        let bin_dir = whole.strata(&["pg-bindir"])?;
        whole.bin_dir = PathBuf::from(bin_dir.trim());
        let base = whole.ports.base.to_string();
        whole.strata(&[&["init", "--port-base", &base], arguments].concat())?;
        Ok(whole)
    }

    /// Computes that are started from now on run the Postgres of this tree.
    pub fn use_tree(&mut self, tree: PathBuf) {
        self.tree = Some(tree);
    }

    /// Everything that is started from now on has this variable.
    pub fn set_environment(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    /// Everything that is started from now on goes without these guards, if it was built so that it can.
    pub fn take_away(&mut self, guards: &[Guard]) {
        let ids: Vec<&str> = guards.iter().map(|guard| guard.id()).collect();
        self.set_environment(guard::VARIABLE, &ids.join(","));
    }

    /// A port of this installation's that nobody listens at.
    pub fn spare_port(&self) -> u16 {
        self.ports.spare()
    }

    /// `$STRATA_DIR` of this one.
    pub fn dir(&self) -> PathBuf {
        self.home.path().join("strata")
    }

    /// A place for a test's own files, beside the installation.
    pub fn scratch(&self) -> &Path {
        self.home.path()
    }

    /// A command for `strata` on this installation.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs().join("strata"));
        command.env("STRATA_DIR", self.dir()).args(arguments).stdin(Stdio::null());
        if let Some(tree) = &self.tree {
            command.env("STRATA_PG_TREE", tree);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `strata` whatever comes of it.
    pub fn say(&self, arguments: &[&str]) -> Result<Said> {
        let output = self.command(arguments).output().context("cannot run strata: 'make build' builds it")?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { ok: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) })
    }

    /// Runs `strata`, which must succeed; its standard output.
    pub fn strata(&self, arguments: &[&str]) -> Result<String> {
        let said = self.say(arguments)?;
        ensure!(said.ok, "strata {}: {}{}", arguments.join(" "), said.stderr, self.logs());
        Ok(said.stdout)
    }

    /// Runs `strata --json`, which must succeed; the document.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.strata(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("strata {} printed no JSON: {text}", arguments.join(" ")))
    }

    /// The ends of all logs, for a failure's message.
    fn logs(&self) -> String {
        let mut text = String::new();
        let entries = std::fs::read_dir(self.dir().join("run")).into_iter().flatten().flatten();
        for path in
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "log"))
        {
            let log = std::fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(15)..].join("\n");
            text.push_str(&format!("\n--- {}\n{last}", path.display()));
        }
        text
    }

    /// `compute start`, with further arguments.
    pub fn start_compute(&self, name: &str, arguments: &[&str]) -> Result<Compute> {
        let shown = self.json(&[&["compute", "start", name], arguments].concat())?;
        let compute = Compute::from_json(&shown)?;
        let (port, base) = (compute.port, self.ports.base);
        ensure!(
            self.ports.has(port),
            "port {port} of '{name}' is not of the block that this test holds from {base} on"
        );
        Ok(compute)
    }

    /// `compute stop`; the LSN at which the log ends, if it stopped cleanly.
    pub fn stop_compute(&self, name: &str) -> Result<Option<String>> {
        let shown = self.json(&["compute", "stop", name])?;
        Ok(shown["end_lsn"].as_str().map(str::to_owned))
    }

    /// kill -9 of supervisor and postmaster, and the folder gone: what a lost machine looks like. Waits until no process is left.
    pub fn lose_compute(&self, compute: &Compute) -> Result<()> {
        killpg(Pid::from_raw(compute.pgid), Signal::SIGKILL)
            .context("the compute was not there to be killed")?;
        // The supervisor is its group's first process; one that has ended and is still listed does nothing any more.
        let is_gone = || process_state(compute.pgid).is_none_or(|state| state == 'Z');
        wait_until("the processes of the compute are gone", || {
            Ok(is_gone() && processes_in(&compute.pgdata)?.is_empty())
        })?;
        let folder = compute.pgdata.parent().context("a data directory has a parent")?;
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
    }

    /// kill -9 of a daemon such as ("safekeepers", 1).
    pub fn kill_node(&self, kind: &str, id: u64) -> Result<()> {
        let pid =
            self.node(kind, id)?["pid"].as_i64().with_context(|| format!("{kind} {id} does not run"))?;
        let pid = Pid::from_raw(i32::try_from(pid)?);
        kill(pid, Signal::SIGKILL)?;
        wait_until("the daemon is gone", || Ok(kill(pid, None).is_err()))
    }

    /// A node as `status --json` shows it.
    pub fn node(&self, kind: &str, id: u64) -> Result<Value> {
        let status = self.json(&["status"])?;
        let nodes = status[kind].as_array().with_context(|| format!("status shows no {kind}"))?;
        nodes
            .iter()
            .find(|node| node["id"] == id)
            .cloned()
            .with_context(|| format!("there is no {kind} {id}"))
    }

    /// The address of SQL clients' programs.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(name));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs SQL with psql, stopping at the first error; unaligned rows without heading.
    pub fn sql(&self, connstr: &str, sql: &str) -> Result<String> {
        let mut psql = self.program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", connstr, "-c", sql]);
        let output = psql.output().context("cannot run psql")?;
        if !output.status.success() {
            bail!("{sql}: {}{}", String::from_utf8_lossy(&output.stderr), self.logs());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The number in the last line of what SQL says.
    pub fn number(&self, compute: &Compute, sql: &str) -> Result<i64> {
        let text = self.sql(&compute.connstr, sql)?;
        let last = text.lines().last().unwrap_or_default();
        last.parse().with_context(|| format!("{sql}: '{text}' is no number"))
    }

    /// Runs a program of Postgres that must succeed; its output, both streams.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let output =
            self.program(name).args(arguments).output().with_context(|| format!("cannot run {name}"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(output.status.success(), "{name} {}: {text}{}", arguments.join(" "), self.logs());
        Ok(text)
    }

    /// kill -9 of all computes, their folders left.
    pub fn kill_computes(&self) {
        let Ok(status) = self.json(&["status"]) else { return };
        let groups =
            status["computes"].as_array().into_iter().flatten().filter_map(|row| row["pgid"].as_i64());
        for group in groups.filter_map(|group| i32::try_from(group).ok()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }

    /// `pg_amcheck --all --heapallindexed` must find nothing.
    pub fn amcheck(&self, compute: &Compute) -> Result<()> {
        let port = compute.port.to_string();
        let place = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        self.run("pg_amcheck", &[&place[..], &["--all", "--heapallindexed", "--install-missing"]].concat())?;
        Ok(())
    }
}

impl Compute {
    /// The connection string of another database.
    pub fn in_database(&self, database: &str) -> Result<String> {
        let (server, _) = self.connstr.rsplit_once('/').context("a connection string ends in a database")?;
        Ok(format!("{server}/{database}"))
    }

    /// Pid of the postmaster that runs now (line 1 of its file, `src/include/utils/pidfile.h`).
    pub fn postmaster(&self) -> Result<Pid> {
        let text = std::fs::read_to_string(self.pgdata.join("postmaster.pid"))?;
        Ok(Pid::from_raw(text.lines().next().context("a pid")?.trim().parse()?))
    }

    pub fn from_json(shown: &Value) -> Result<Compute> {
        let text = |key: &str| {
            shown[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {shown}"))
        };
        let number = |key: &str| shown[key].as_i64().with_context(|| format!("no {key} in {shown}"));
        Ok(Compute {
            name: text("name")?,
            connstr: text("connstr")?,
            pgid: i32::try_from(number("pgid")?)?,
            pgdata: PathBuf::from(text("pgdata")?),
            port: u16::try_from(number("port")?)?,
        })
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.dir().join("registry.json").is_file() {
            return;
        }
        // Computes first: with their quorum gone they would only wait. A stop that fails has been said by the test itself.
        self.kill_computes();
        let _ = self.say(&["stop"]);
    }
}

/// Arguments that give a compute settings, `name=value`.
pub fn sets<'a>(settings: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    settings.into_iter().flat_map(|setting| ["--set", setting]).collect()
}

/// Pids of live processes whose working directory is `folder` or below: Postgres's processes stay in their data directory.
pub fn processes_in(folder: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let inside = std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if inside {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The letter that `/proc` has for what a process does, such as T for one that is stopped. `None`: it has gone.
pub fn process_state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Far more than anything here needs, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Polls until `done` answers true.
pub fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !done()? {
        ensure!(begin.elapsed() < PATIENCE, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
