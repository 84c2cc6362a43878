//! A psql that runs a script, in the background, with what it says in files beside the script.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result};

/// How much of an error is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errors {
    /// The code only: the text may name what differs between servers.
    Code,
    /// Code and text.
    Text,
}

pub struct Session {
    child: Child,
    outputs: [PathBuf; 2],
}

/// What a script printed; errors are what came of it, too.
#[derive(Debug)]
pub struct Printed {
    pub rows: String,
    pub errors: String,
}

impl Printed {
    /// How often each code came up.
    pub fn error_codes(&self) -> String {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, code) in self.errors.lines().filter_map(|line| line.split_once("ERROR:  ")) {
            *counts.entry(code.get(..5).unwrap_or(code)).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(code, count)| format!("{code} {count}")).collect();
        counts.join(", ")
    }
}

impl Session {
    /// Starts `psql`, which knows its server, on the script, with its files in `folder` under `name`.
    pub fn start(
        mut psql: Command,
        errors: Errors,
        script: &str,
        folder: &Path,
        name: &str,
    ) -> Result<Session> {
        let script_file = folder.join(format!("{name}.sql"));
        std::fs::write(&script_file, script).with_context(|| script_file.display().to_string())?;
        let outputs = ["rows", "errors"].map(|kind| folder.join(format!("{name}.{kind}")));
        let verbosity = match errors {
            Errors::Code => "VERBOSITY=sqlstate",
            Errors::Text => "VERBOSITY=verbose",
        };
        psql.args(["-X", "-q", "-A", "-t", "-v", verbosity]);
        if errors == Errors::Text {
            // Each error's statement, too.
            psql.arg("--echo-errors");
        }
        // psql reads the script as its input, so that an account that cannot reach the folder can.
        psql.stdin(File::open(&script_file)?);
        psql.stdout(File::create(&outputs[0])?).stderr(File::create(&outputs[1])?);
        psql.env("PGOPTIONS", "-c client_min_messages=error -c lock_timeout=20s -c deadlock_timeout=100ms");
        Ok(Session { child: psql.spawn().context("cannot run psql")?, outputs })
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end. Statements that fail do not end it; a lost connection does.
    pub fn finish(mut self) -> Result<Printed> {
        self.child.wait()?;
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            Ok::<String, anyhow::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Printed { rows: read(&self.outputs[0])?, errors: read(&self.outputs[1])? })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
