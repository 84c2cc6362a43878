//! The state file: what the supervisor says of itself, replaced whole so that a reader never sees half of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use strata_common::{Lsn, Term};
use tokio::sync::watch;

use crate::spec::{Phase, Spec, State};

pub struct StateFile {
    path: PathBuf,
    state: State,
    /// Whoever serves `/status` sees each state that is written.
    said: watch::Sender<State>,
    step_began: Instant,
}

impl StateFile {
    pub fn new(spec: &Spec) -> StateFile {
        let pid = std::process::id();
        let pgid = u32::try_from(nix::unistd::getpgrp().as_raw()).unwrap_or(pid);
        let state = State {
            phase: Phase::Starting,
            pid,
            pgid,
            connstr: format!("postgresql://postgres@{}:{}/postgres", spec.host, spec.port),
            data_dir: spec.data_dir.clone(),
            term: None,
            start_lsn: None,
            end_lsn: None,
            timings_ms: BTreeMap::new(),
            problem: String::new(),
            metrics: None,
        };
        let said = watch::channel(state.clone()).0;
        StateFile { path: spec.state_file.clone(), state, said, step_began: Instant::now() }
    }

    pub fn watch(&self) -> watch::Receiver<State> {
        self.said.subscribe()
    }

    pub fn set_metrics(&mut self, address: SocketAddr) {
        self.state.metrics = Some(address.to_string());
    }

    /// A new start begins: its steps are timed anew.
    pub fn begin_start(&mut self) -> anyhow::Result<()> {
        self.state.timings_ms.clear();
        self.step_began = Instant::now();
        self.state.end_lsn = None;
        self.phase(Phase::Starting, "")
    }

    /// A step of the start is done.
    pub fn step(&mut self, name: &str) {
        let took = u64::try_from(self.step_began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.state.timings_ms.insert(name.to_owned(), took);
        self.step_began = Instant::now();
    }

    pub fn set_term(&mut self, term: Term, start_lsn: Lsn) {
        self.state.term = Some(term);
        self.state.start_lsn = Some(start_lsn);
    }

    pub fn set_end(&mut self, end_lsn: Option<Lsn>) {
        self.state.end_lsn = end_lsn;
    }

    /// Says the phase and what there is to say about it.
    pub fn phase(&mut self, phase: Phase, problem: impl Into<String>) -> anyhow::Result<()> {
        self.state.phase = phase;
        self.state.problem = problem.into();
        self.said.send_replace(self.state.clone());
        let text = serde_json::to_string_pretty(&self.state).context("a state is plain JSON")?;
        let describe = || format!("cannot write {}", self.path.display());
        let folder = self.path.parent().with_context(describe)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(describe)?;
        std::io::Write::write_all(&mut file, text.as_bytes()).with_context(describe)?;
        file.persist(&self.path).with_context(describe)?;
        Ok(())
    }
}
