//! One postmaster: started as the unprivileged user in the supervisor's process group, watched, stopped.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strata_common::Term;
use tokio::process::{Child, Command};

use crate::handoff::Started;
use crate::settings;
use crate::spec::Spec;

/// Postgres opens its door within this, or something is wrong.
const READY_MAX: Duration = Duration::from_secs(60);

pub struct Postmaster {
    child: Child,
    pid: Pid,
}

impl Postmaster {
    /// Starts Postgres and waits until it accepts connections. `kept_cache`: see `cache::proven`.
    pub async fn start(
        spec: &Spec,
        started: &Started,
        kept_cache: Option<Term>,
    ) -> anyhow::Result<Postmaster> {
        let program = spec.bin_dir.join("postgres");
        let mut command = Command::new(&program);
        command.arg("-D").arg(&spec.data_dir).args(settings::guards(spec, started, kept_cache));
        command
            .current_dir(&spec.data_dir)
            .env("HOME", &spec.data_dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if nix::unistd::Uid::effective().is_root() {
            // Setting the uid also drops root's supplementary groups.
            command.uid(spec.uid).gid(spec.gid);
        }
        die_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("Postgres ended at once")?;
        let pid = Pid::from_raw(i32::try_from(pid).context("a pid fits into 31 bits")?);
        let mut postmaster = Postmaster { child, pid };
        postmaster.wait_ready(spec).await?;
        Ok(postmaster)
    }

    /// The last line of `postmaster.pid` says "ready" when connections are accepted (miscadmin.h, PM_STATUS_READY).
    async fn wait_ready(&mut self, spec: &Spec) -> anyhow::Result<()> {
        let pid_file = spec.data_dir.join("postmaster.pid");
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for Postgres")? {
                bail!("Postgres ended at its start ({status}): see 'strata compute logs {}'", spec.name);
            }
            let text = std::fs::read_to_string(&pid_file).unwrap_or_default();
            if text.lines().nth(7).is_some_and(|line| line.trim_end() == "ready") {
                return Ok(());
            }
            if begin.elapsed() > READY_MAX {
                bail!(
                    "Postgres is not ready after {} s: see 'strata compute logs {}'",
                    READY_MAX.as_secs(),
                    spec.name
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for the end, however it comes. True: a clean exit.
    pub async fn wait(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.wait().await.context("cannot wait for Postgres")?.success())
    }

    /// A fast stop, bounded: when commits wait for a quorum that does not answer it never ends by itself, and an immediate
    /// stop shows none of them (trap S8). True: a clean one, whose shutdown checkpoint is in the local log.
    pub async fn stop(&mut self, limit: Duration) -> anyhow::Result<bool> {
        self.signal(Signal::SIGINT);
        match tokio::time::timeout(limit, self.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!("Postgres did not stop within {} s; stopping it at once", limit.as_secs());
                self.kill().await?;
                Ok(false)
            }
        }
    }

    /// An immediate stop: SIGQUIT, then SIGKILL.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGQUIT);
        if tokio::time::timeout(Duration::from_secs(5), self.wait()).await.is_err() {
            self.signal(Signal::SIGKILL);
            self.wait().await?;
        }
        Ok(())
    }

    /// Lets the server read its configuration files again.
    pub fn reload(&self) {
        self.signal(Signal::SIGHUP);
    }

    fn signal(&self, signal: Signal) {
        // Gone already is what was wanted.
        let _ = kill(self.pid, signal);
    }
}

/// The postmaster must not outlive its supervisor (trap S17). Its children see to themselves in the extension.
#[expect(unsafe_code, reason = "the only way to run something between fork and exec")]
fn die_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let set = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above.
        if nix::unistd::getppid() == parent {
            Ok(())
        } else {
            Err(std::io::Error::other("the supervisor is gone"))
        }
    };
    // SAFETY: the closure makes two system calls and allocates nothing (the error of the rare path aside, in a child that ends).
    unsafe { command.pre_exec(set) };
}
