//! `strata`: the command line. Thin: it reads the arguments, runs one verb under the lock of the installation and prints
//! what the verb returns, for people or as one JSON document. Errors are one sentence on stderr; exit code 0 means success.
#![forbid(unsafe_code)]

mod args;
mod branch;
mod compute;
mod copies;
mod home;
mod init;
mod log_end;
mod node;
mod output;
mod postgres;
mod probe;
mod process;
mod psql;
mod registry;
mod rpc;
mod settings;
mod status;
mod tenant;
mod users;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, BranchVerb, ComputeVerb, NodeVerb, PageserverVerb, TenantVerb, Verb};
use home::Home;
use node::Kind;
use output::Output;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misread(&error),
    };
    let json = arguments.json;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::anyhow!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(run(arguments)) {
        Ok(output) => output.print(json),
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    output::to_stderr(&format!("strata: {}", causes.join(": ")));
    ExitCode::FAILURE
}

/// Arguments that cannot be read are one sentence as well; help and version go where they always go.
fn misread(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    let text = error.to_string();
    // Paragraphs: what is wrong (with lists of what is missing), usage, where to find help.
    let sentence = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = sentence.trim_start_matches("error: ").split_whitespace().collect();
    output::to_stderr(&format!("strata: {} ('strata --help' shows what there is)", words.join(" ")));
    ExitCode::from(2)
}

async fn run(arguments: Arguments) -> anyhow::Result<Output> {
    let home = Home::at(arguments.dir)?;
    let tenant = arguments.tenant;
    match arguments.verb {
        Verb::Init(options) => init::init(&home, &options).await,
        Verb::Start => node::start_all(&home).await,
        Verb::Stop => node::stop_all(&home).await,
        Verb::Status => status::status(&home).await,
        Verb::Tenant(TenantVerb::Create { name }) => tenant::create(&home, &name).await,
        Verb::Tenant(TenantVerb::List) => tenant::list(&home),
        Verb::Branch(BranchVerb::Create(options)) => branch::create(&home, &tenant, &options).await,
        Verb::Branch(BranchVerb::List) => branch::list(&home, &tenant).await,
        Verb::Compute(verb) => run_compute(&home, &tenant, verb).await,
        Verb::Safekeeper(verb) => run_safekeeper(&home, verb).await,
        Verb::Pageserver(verb) => run_pageserver(&home, verb).await,
        Verb::Psql { compute, arguments } => psql::run(&home, compute.as_deref(), &arguments),
        Verb::Lsn { branch } => branch::lsn(&home, &tenant, &branch).await,
        Verb::PgBindir => postgres::bindir(),
        Verb::PgSrcdir => postgres::srcdir(),
    }
}

async fn run_compute(home: &Home, tenant: &str, verb: ComputeVerb) -> anyhow::Result<Output> {
    match verb {
        ComputeVerb::Start(options) => compute::start(home, tenant, &options).await,
        ComputeVerb::Attach(options) => compute::attach(home, tenant, &options).await,
        ComputeVerb::Set(options) => settings::set(home, &options).await,
        ComputeVerb::Stop { name } => compute::stop(home, &name).await,
        ComputeVerb::Detach { name } => compute::stop(home, &name).await,
        ComputeVerb::List => compute::list(home),
        ComputeVerb::Show { name } => compute::show(home, &name),
        ComputeVerb::Logs { name, lines } => compute::logs(home, &name, lines),
    }
}

async fn run_safekeeper(home: &Home, verb: NodeVerb) -> anyhow::Result<Output> {
    match verb {
        NodeVerb::Start { id } => node::start_one(home, Kind::Safekeeper, id).await,
        NodeVerb::Stop { id } => node::stop_one(home, Kind::Safekeeper, id).await,
    }
}

async fn run_pageserver(home: &Home, verb: PageserverVerb) -> anyhow::Result<Output> {
    match verb {
        PageserverVerb::Start { id, port: None } => node::start_one(home, Kind::Pageserver, id).await,
        PageserverVerb::Start { id, port: Some(port) } => node::start_pageserver_at(home, id, port).await,
        PageserverVerb::Stop { id } => node::stop_one(home, Kind::Pageserver, id).await,
    }
}
