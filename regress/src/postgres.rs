//! Temporary Postgres clusters for tests: made by initdb in a folder of their own, reached by a Unix socket in it, gone with it.
//!
//! Postgres refuses to run as root. If the tests do, servers run as the account that `STRATA_RUN_AS` names, else `strata`;
//! otherwise as the caller. No TCP port is ever opened, so that any number of suites can run side by side.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User, chown, geteuid};
use tempfile::TempDir;

/// Names the folder with `initdb`, `postgres`, `psql`; the suites' runner sets it.
pub const BIN_VARIABLE: &str = "STRATA_TEST_PG_BIN";
/// How long a server may take to come up or go down; far more than it needs, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// An installed Postgres and the account that its programs run as.
#[derive(Clone, Debug)]
pub struct Installation {
    bin: PathBuf,
    /// Set if we are root.
    run_as: Option<(Uid, Gid)>,
}

impl Installation {
    /// The installation that the environment names.
    pub fn from_env() -> Result<Installation> {
        let bin = std::env::var_os(BIN_VARIABLE).with_context(|| {
            format!(
                "{BIN_VARIABLE} is not set: run the tests by `make test`, or set it to Postgres's bin folder"
            )
        })?;
        Installation::at(PathBuf::from(bin))
    }

    /// The installation whose programs lie in `bin`.
    pub fn at(bin: PathBuf) -> Result<Installation> {
        ensure!(bin.join("postgres").is_file(), "there is no postgres in {}", bin.display());
        let run_as = if geteuid().is_root() {
            let name = std::env::var("STRATA_RUN_AS").unwrap_or_else(|_| "strata".to_owned());
            let user = User::from_name(&name)?.with_context(|| {
                format!("user {name}, which Postgres would run as, does not exist: run `make setup`")
            })?;
            Some((user.uid, user.gid))
        } else {
            None
        };
        Ok(Installation { bin, run_as })
    }

    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A command for one of Postgres's programs, as the unprivileged user and without the caller's Postgres settings.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.as_server_user(self.bin.join(program));
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command
    }

    /// A command for any program, run as the user that owns the clusters.
    pub fn as_server_user(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env("HOME", "/tmp").env("LC_ALL", "C").stdin(Stdio::null());
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
    }

    /// A new folder under the system's temporary one that the unprivileged user can write.
    pub fn temp_dir(&self) -> Result<TempDir> {
        let dir = tempfile::Builder::new().prefix("strata-test-").tempdir()?;
        self.give(dir.path())?;
        Ok(dir)
    }

    /// Makes the unprivileged user the owner of `path`.
    pub fn give(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.run_as {
            chown(path, Some(uid), Some(gid)).with_context(|| format!("chown {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes a file that the unprivileged user owns, readable by it alone as Postgres wants its own.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        self.give(path)
    }
}

/// Runs `command` to its end; its standard output, or an error with all that it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// How a server is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Waits for clients to leave.
    Smart,
    /// Ends transactions; leaves a shutdown checkpoint.
    Fast,
    /// Like a crash: recovery follows.
    Immediate,
}

/// A cluster in a temporary folder; its server, if it runs, ends with it.
#[derive(Debug)]
pub struct Cluster {
    installation: Installation,
    home: TempDir,
    server: Option<Child>,
}

impl Cluster {
    /// Makes a cluster: superuser `postgres`, trusted locally, UTF8, C locale, plus `initdb_args`.
    pub fn init(installation: &Installation, initdb_args: &[&str]) -> Result<Cluster> {
        let home = installation.temp_dir()?;
        let mut initdb = installation.command("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        initdb.arg("-D").arg(home.path().join("data")).args(initdb_args);
        run(&mut initdb)?;
        Ok(Cluster { installation: installation.clone(), home, server: None })
    }

    /// A copy of this cluster, which must not be running.
    pub fn copy(&self) -> Result<Cluster> {
        ensure!(self.server.is_none(), "a running cluster cannot be copied");
        let home = self.installation.temp_dir()?;
        let mut copy = self.installation.as_server_user("cp");
        copy.arg("-a").arg(self.data()).arg(home.path().join("data"));
        run(&mut copy)?;
        Ok(Cluster { installation: self.installation.clone(), home, server: None })
    }

    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The folder of the Unix socket, and of anything else that a test wants next to the data folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("server.log")
    }

    /// What the server has logged since it was started last.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.log_path())?).into_owned())
    }

    /// Starts the server with `settings` on its command line, and waits until it accepts connections.
    pub fn start(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        ensure!(self.server.is_none(), "the server is running");
        let log = fs::File::create(self.log_path())?;
        let mut postgres = self.installation.command("postgres");
        postgres.arg("-D").arg(self.data());
        // Tests crash processes, never the machine: nothing is gained by waiting for its disk.
        let own = [("listen_addresses", ""), ("unix_socket_permissions", "0777"), ("fsync", "off")];
        for (name, value) in own.iter().chain(settings) {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        postgres.arg("-c").arg(format!("unix_socket_directories={}", self.home.path().display()));
        // dblink and postgres_fdw connect from the server to itself and name neither host nor user.
        postgres.env("PGHOST", self.home.path()).env("PGUSER", "postgres");
        postgres.stdout(log.try_clone()?).stderr(log);
        self.server = Some(postgres.spawn().context("start postgres")?);
        self.wait_until_ready()
    }

    /// Starts the server, which was shut down, as a standby of nobody and promotes it: its log goes on on a new timeline.
    pub fn start_promoted(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        self.installation.write(&self.data().join("standby.signal"), b"")?;
        self.start(settings)?;
        let promoted = self.sql("SELECT pg_promote(true, 600)")?;
        ensure!(promoted == "t", "the server was not promoted:\n{}", self.log()?);
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let server = self.server.as_mut().context("the server was started")?;
            let pid = server.id();
            if let Some(status) = server.try_wait()? {
                self.server = None;
                bail!("postgres ended while starting ({status}):\n{}", self.log()?);
            }
            // Line 8 of postmaster.pid is the state (`src/include/utils/pidfile.h`).
            let pid_file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let own = pid_file.lines().next().and_then(|pid| pid.parse().ok()) == Some(pid);
            if own && pid_file.lines().nth(7).is_some_and(|state| state.trim() == "ready") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "postgres is not ready:\n{}", self.log()?);
            std::thread::sleep(POLL);
        }
    }

    /// Process id of the postmaster, if it was started and not stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Stops the server and waits until it is gone.
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        let mut server = self.server.take().context("the server is not running")?;
        let signal = match how {
            Stop::Smart => Signal::SIGTERM,
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
        };
        kill(Pid::from_raw(i32::try_from(server.id())?), signal)?;
        let deadline = Instant::now() + PATIENCE;
        while server.try_wait()?.is_none() {
            if Instant::now() > deadline {
                server.kill()?;
                server.wait()?;
                bail!("postgres did not stop:\n{}", self.log()?);
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// A client program that is told how to reach the server.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = self.installation.command(program);
        command.env("PGHOST", self.home.path()).env("PGUSER", "postgres").env("PGDATABASE", database);
        command
    }

    /// Runs a script with psql in `database`; rows unaligned, one a line. The first error ends it.
    pub fn sql_in(&self, database: &str, script: &str) -> Result<String> {
        let mut psql = self.client("psql", database);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        let mut child = psql
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start psql")?;
        let mut stdin = child.stdin.take().context("stdin is a pipe")?;
        let script_bytes = script.as_bytes().to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&script_bytes));
        let output = child.wait_with_output()?;
        // A psql that failed has stopped reading; its own message is the one that matters.
        let written = writer.join();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql: {}\n{errors}", output.status);
        ensure!(matches!(written, Ok(Ok(()))), "psql did not read its script");
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// Runs a script in database `postgres`.
    pub fn sql(&self, script: &str) -> Result<String> {
        self.sql_in("postgres", script)
    }

    /// Runs pgbench with a custom script: `clients` sessions, `transactions` each. Errors of SQL are not its errors.
    pub fn pgbench(&self, script: &str, clients: u32, transactions: u32) -> Result<String> {
        let file = self.home.path().join("pgbench.sql");
        self.installation.write(&file, script.as_bytes())?;
        let mut pgbench = self.client("pgbench", "postgres");
        pgbench.args(["-n", "-c", &clients.to_string(), "-j", "2", "-t", &transactions.to_string()]);
        run(pgbench.arg("-f").arg(&file))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_some() {
            // The folder goes away next; a server that did not stop is killed in there.
            let _ = self.stop(Stop::Immediate);
        }
    }
}
