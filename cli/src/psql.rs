//! `strata psql`: the tree's own psql, connected to a compute; becomes psql.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};

use crate::home::Home;
use crate::output::Output;
use crate::{compute, postgres};

/// Returns only if psql cannot be run.
pub fn run(home: &Home, name: Option<&str>, arguments: &[String]) -> anyhow::Result<Output> {
    let registry = home.registry()?;
    let running: Vec<&String> =
        registry.computes.keys().filter(|name| compute::alive(home, name).is_some()).collect();
    let name = match (name, running.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only.as_str(),
        (None, []) => bail!("no compute runs: 'strata compute start NAME' starts one"),
        (None, _) => bail!("several computes run: name one"),
    };
    let compute = compute::describe(home, &registry, name)?;
    let connstr = compute["connstr"].as_str().with_context(|| format!("compute '{name}' does not run"))?;
    let error = Command::new(postgres::tree()?.join("bin/psql")).arg(connstr).args(arguments).exec();
    Err(error).context("cannot run psql")
}
