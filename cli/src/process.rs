//! Background processes: started detached with their output in a log file, known by pid and start time (a pid alone may
//! have been given to somebody else), ended by signal and waited for.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::home::write_whole;

/// A process that was started: alive as long as a process with this pid has this start time.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Running {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot.
    pub started_ticks: u64,
}

impl Running {
    /// What the pid file says, whether or not the process is still there. `None` without a readable pid file.
    pub fn read(pid_file: &Path) -> Option<Running> {
        serde_json::from_str(&std::fs::read_to_string(pid_file).ok()?).ok()
    }

    /// The process of a pid file, if it is alive.
    pub fn alive(pid_file: &Path) -> Option<Running> {
        Running::read(pid_file).filter(|process| process.is_alive())
    }

    pub fn of(pid: i32) -> Option<Running> {
        start_ticks(pid).map(|started_ticks| Running { pid, started_ticks })
    }

    pub fn is_alive(self) -> bool {
        start_ticks(self.pid) == Some(self.started_ticks)
    }

    pub fn signal(self, signal: Signal) {
        if self.is_alive() {
            // Gone in between is what was wanted.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until the process is gone; false if it still is there after `limit`.
    pub async fn wait_gone(self, limit: Duration) -> bool {
        let begin = Instant::now();
        while self.is_alive() {
            if begin.elapsed() > limit {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }
}

/// Start time of a live process; a zombie counts as gone.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name stands in parentheses and may hold anything; the fields after it are plain.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Starts `command` as the leader of a session and process group of its own, with no descriptor of ours but the log.
pub fn start(what: &str, mut command: Command, pid_file: &Path, log: &Path) -> anyhow::Result<Running> {
    let program = command.get_program().to_string_lossy().into_owned();
    for folder in [pid_file.parent(), log.parent()].into_iter().flatten() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let open = || File::options().create(true).append(true).open(log);
    let out = open().with_context(|| format!("cannot open {}", log.display()))?;
    let err = out.try_clone().context("cannot duplicate the log's descriptor")?;
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let pid = i32::try_from(child.id()).context("a pid fits into 31 bits")?;
    // What is refused may have ended before we look; a zombie counts as gone.
    let running = Running::of(pid).with_context(|| format!("{what} did not start: {}", last_words(log)))?;
    let text = serde_json::to_string(&running).context("a pid file is plain JSON")?;
    write_whole(pid_file, text.as_bytes())?;
    // A child that ends while this verb waits for it must not stay as a zombie, which would look alive to others.
    std::thread::Builder::new()
        .name("reap".to_owned())
        .spawn(move || {
            let mut child = child;
            let _ = child.wait();
        })
        .context("cannot start a thread")?;
    Ok(running)
}

/// Polls `ready` until it answers, the process ends or `limit` passes.
pub async fn wait_ready<T>(
    what: &str,
    process: Running,
    log: &Path,
    limit: Duration,
    mut ready: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ready().await {
            return Ok(answer);
        }
        if !process.is_alive() {
            bail!("{what} did not start: {}", last_words(log));
        }
        if begin.elapsed() > limit {
            bail!("{what} is not ready after {} s: see {}", limit.as_secs(), log.display());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The last line of a log, which says why its process ended.
pub fn last_words(log: &Path) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| format!("it said nothing in {}", log.display()), |line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let me = Running::of(i32::try_from(std::process::id()).expect("a pid")).expect("alive");
        assert!(me.is_alive());
        assert!(!Running { started_ticks: me.started_ticks + 1, ..me }.is_alive());
    }
}
