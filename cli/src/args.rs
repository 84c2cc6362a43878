//! The verbs and their options, as clap reads them. `docs/cli.md` shows each with its JSON.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use strata_common::Lsn;

/// Serverless Postgres that you can run yourself.
#[derive(Parser)]
#[command(name = "strata", version)]
pub struct Arguments {
    /// Folder of the installation.
    #[arg(long, global = true, env = "STRATA_DIR", default_value = "./.strata")]
    pub dir: PathBuf,
    /// Tenant that branches and computes belong to.
    #[arg(long, global = true, default_value = "default")]
    pub tenant: String,
    /// Print one JSON document on stdout; progress goes to stderr.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Make a new installation with tenant `default` and branch `main`.
    Init(InitOptions),
    /// Start safekeepers and pageserver (no compute); returns when they are ready.
    Start,
    /// Stop everything, computes first; returns when all processes are gone.
    Stop,
    /// What runs, where, and how far each branch is.
    Status,
    /// Tenants: separate Postgres clusters.
    #[command(subcommand)]
    Tenant(TenantVerb),
    /// Branches of a tenant.
    #[command(subcommand)]
    Branch(BranchVerb),
    /// Computes: the Postgres servers.
    #[command(subcommand)]
    Compute(ComputeVerb),
    /// One safekeeper.
    #[command(subcommand)]
    Safekeeper(NodeVerb),
    /// One pageserver.
    #[command(subcommand)]
    Pageserver(PageserverVerb),
    /// psql on a compute (the only one that runs, if no name is given).
    Psql {
        compute: Option<String>,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// The last LSN of a branch that is committed.
    Lsn { branch: String },
    /// Folder of the Postgres programs.
    PgBindir,
    /// Folder of the built Postgres source tree.
    PgSrcdir,
}

#[derive(Args)]
pub struct InitOptions {
    /// First of the ports to use, also of computes, instead of free ones.
    #[arg(long)]
    pub port_base: Option<u16>,
    /// How many safekeepers.
    #[arg(long, default_value_t = 3, value_parser = odd_count)]
    pub safekeepers: u64,
}

/// An even number of safekeepers tolerates no more losses than one less.
fn odd_count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        _ => Err("1, 3 or 5 safekeepers".to_owned()),
    }
}

#[derive(Subcommand)]
pub enum TenantVerb {
    /// Make a tenant with a branch `main`.
    Create { name: String },
    /// List tenants.
    List,
}

#[derive(Subcommand)]
pub enum BranchVerb {
    /// Make a branch of another one, at its end or at an LSN in its past.
    Create(BranchCreate),
    /// List branches.
    List,
}

#[derive(Args)]
pub struct BranchCreate {
    pub name: String,
    /// The branch to start from.
    #[arg(long, default_value = "main")]
    pub from: String,
    /// Begin at the last record boundary at or below this LSN.
    #[arg(long)]
    pub at_lsn: Option<Lsn>,
}

#[derive(Subcommand)]
pub enum ComputeVerb {
    /// Start a Postgres on a branch.
    Start(ComputeStart),
    /// Change settings of a compute: at once, or at its next start if they need one or it does not run.
    Set(ComputeSet),
    /// Stop a compute; prints the LSN at which its log ends.
    Stop { name: String },
    /// List computes.
    List,
    /// Show one compute.
    Show { name: String },
    /// Start a compute on a branch and take it over from a compute that lives there.
    Attach(ComputeAttach),
    /// Stop a compute; its registration is kept.
    Detach { name: String },
    /// The last lines of a compute's logs.
    Logs {
        name: String,
        #[arg(long, default_value_t = 100)]
        lines: usize,
    },
}

#[derive(Args)]
pub struct ComputeStart {
    pub name: String,
    #[arg(long, default_value = "main")]
    pub branch: String,
    /// Fence a compute that is alive on the branch.
    #[arg(long)]
    pub takeover: bool,
    /// A setting of postgresql.conf, such as shared_buffers=1GB; may be repeated.
    #[arg(long = "set", value_name = "GUC=VALUE")]
    pub settings: Vec<String>,
}

#[derive(Args)]
pub struct ComputeSet {
    pub name: String,
    /// Settings of postgresql.conf; an empty value takes one away. Without any: what is kept.
    #[arg(value_name = "GUC=VALUE")]
    pub settings: Vec<String>,
    /// Take a setting away; may be repeated.
    #[arg(long, value_name = "GUC")]
    pub reset: Vec<String>,
}

#[derive(Args)]
pub struct ComputeAttach {
    pub name: String,
    #[arg(long)]
    pub branch: String,
    #[arg(long = "set", value_name = "GUC=VALUE")]
    pub settings: Vec<String>,
}

#[derive(Subcommand)]
pub enum NodeVerb {
    Start { id: u64 },
    Stop { id: u64 },
}

#[derive(Subcommand)]
pub enum PageserverVerb {
    Start {
        id: u64,
        /// Answer computes at this port from now on; those that run are told.
        #[arg(long)]
        port: Option<u16>,
    },
    Stop {
        id: u64,
    },
}
