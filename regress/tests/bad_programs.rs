//! Programs that are wrong or missing, a user that Postgres must not run as, a damaged registry, and verbs that run at once:
//! each is refused in one sentence, and what was there before works.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use strata_regress::refusal::{check_row, keep_a_row, refused, refuses, says, strata_in};
use strata_regress::whole::{Compute, Whole, programs, wait_until};

/// A tree whose `postgres` says that it is of `version`.
fn tree_of(whole: &Whole, version: &str) -> Result<PathBuf> {
    let tree = whole.scratch().join(format!("tree-{version}"));
    std::fs::create_dir_all(tree.join("bin"))?;
    let program = tree.join("bin/postgres");
    std::fs::write(&program, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(tree)
}

#[test]
fn a_postgres_of_another_version() -> Result<()> {
    let whole = Whole::started()?;
    keep_a_row(&whole)?;
    whole.stop_compute("a")?;
    let elsewhere = whole.scratch().join("elsewhere");
    for version in ["16.9", "18.0", "18beta1"] {
        let tree = tree_of(&whole, version)?;
        let expected = [version, "made for Postgres 17", "STRATA_PG_TREE"];
        for arguments in [&["compute", "start", "a"][..], &["tenant", "create", "t"]] {
            let mut command = whole.command(arguments);
            command.env("STRATA_PG_TREE", &tree);
            says(refused(command)?, &expected)?;
        }
        let mut command = strata_in(&elsewhere, &["init"]);
        command.env("STRATA_PG_TREE", &tree);
        says(refused(command)?, &expected)?;
    }
    let mut command = whole.command(&["compute", "start", "a"]);
    command.env("STRATA_PG_TREE", "/nonexistent");
    says(refused(command)?, &["there is no Postgres in /nonexistent", "make build"])?;
    ensure!(!elsewhere.exists(), "a refused init left a folder");
    ensure!(whole.json(&["tenant", "list"])?.as_array().map(Vec::len) == Some(1), "a refusal left a tenant");
    check_row(&whole, &whole.start_compute("a", &[])?)
}

#[test]
fn a_program_that_is_missing() -> Result<()> {
    let whole = Whole::initialised(&[])?;
    let folder = whole.scratch().join("programs");
    std::fs::create_dir(&folder)?;
    for program in ["strata", "postgres-tree", "strata-safekeeper", "strata-pageserver"] {
        std::fs::copy(programs().join(program), folder.join(program))?;
    }
    let strata = |arguments: &[&str]| {
        let mut command = Command::new(folder.join("strata"));
        command.args(arguments).env("STRATA_DIR", whole.dir()).stdin(Stdio::null());
        command
    };
    ensure!(strata(&["start"]).output()?.status.success(), "the daemons' programs are there");
    says(refused(strata(&["compute", "start", "a"]))?, &["strata-compute is missing", "make build"])?;
    ensure!(
        whole.json(&["compute", "list"])?.as_array().map(Vec::len) == Some(0),
        "a refusal left a compute"
    );
    whole.strata(&["safekeeper", "stop", "1"])?;
    std::fs::remove_file(folder.join("strata-safekeeper"))?;
    says(refused(strata(&["safekeeper", "start", "1"]))?, &["strata-safekeeper is missing", "make build"])?;
    whole.strata(&["safekeeper", "start", "1"])?;
    let compute = keep_a_row(&whole)?;
    check_row(&whole, &compute)
}

#[test]
fn a_user_that_postgres_must_not_run_as() -> Result<()> {
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        eprintln!("skipped: STRATA_RUN_AS counts only for root");
        return Ok(());
    }
    let whole = Whole::started()?;
    let elsewhere = whole.scratch().join("elsewhere");
    for (user, words) in
        [("root", "never runs as root"), ("nobody-has-this", "there is no user 'nobody-has-this'")]
    {
        for mut command in [strata_in(&elsewhere, &["init"]), whole.command(&["compute", "start", "a"])] {
            command.env("STRATA_RUN_AS", user);
            says(refused(command)?, &[words, "STRATA_RUN_AS"])?;
        }
    }
    ensure!(!elsewhere.exists(), "a refused init left a folder");
    // A folder that the unprivileged user cannot enter.
    let closed = whole.scratch().join("closed");
    std::fs::create_dir(&closed)?;
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700))?;
    says(
        refused(strata_in(&closed.join("strata"), &["init"]))?,
        &["cannot enter", &closed.display().to_string(), "STRATA_DIR"],
    )?;
    let compute = keep_a_row(&whole)?;
    check_row(&whole, &compute)
}

#[test]
fn a_damaged_registry() -> Result<()> {
    let whole = Whole::started()?;
    let compute = keep_a_row(&whole)?;
    let path = whole.dir().join("registry.json");
    let good = std::fs::read(&path)?;
    let unknown = String::from_utf8(good.clone())?.replace("\"computes\"", "\"compooters\"").into_bytes();
    for bad in [&b"{"[..], b"", b"not json at all", &good[..good.len() / 2], &unknown] {
        std::fs::write(&path, bad)?;
        for verb in [
            &["status"][..],
            &["start"],
            &["compute", "start", "b"],
            &["compute", "stop", "a"],
            &["branch", "create", "b"],
            &["tenant", "create", "t"],
        ] {
            refuses(&whole, verb, &["registry.json is damaged", "put a good copy in its place"])?;
        }
        refuses(&whole, &["init"], &["already holds an installation"])?;
        ensure!(std::fs::read(&path)? == bad, "a refusal wrote to the registry");
    }
    // What runs goes on, and a good copy is all that is needed.
    check_row(&whole, &compute)?;
    std::fs::write(&path, &good)?;
    whole.stop_compute("a")?;
    check_row(&whole, &whole.start_compute("a", &[])?)
}

/// Starts both at once; how many succeeded, and the sentences of the others.
fn at_once(commands: Vec<Command>) -> Result<(usize, Vec<String>)> {
    let children = commands.into_iter().map(|mut command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run strata")
    });
    let children = children.collect::<Result<Vec<_>>>()?;
    let (mut good, mut sentences) = (0, Vec::new());
    for child in children {
        let output = child.wait_with_output()?;
        if output.status.success() {
            good += 1;
        } else {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            sentences.push(text.lines().last().unwrap_or_default().to_owned());
        }
    }
    Ok((good, sentences))
}

#[test]
fn verbs_that_run_at_once() -> Result<()> {
    let whole = Whole::initialised(&[])?;
    let elsewhere = whole.scratch().join("elsewhere");
    let (good, said) = at_once((0..3).map(|_| strata_in(&elsewhere, &["init"])).collect())?;
    ensure!(good == 1, "{good} of three inits made the installation: {said:?}");
    for sentence in &said {
        ensure!(
            sentence.contains("another 'strata init' is at work") || sentence.contains("already holds"),
            "{sentence}"
        );
    }
    ensure!(strata_in(&elsewhere, &["status"]).output()?.status.success(), "the installation is whole");

    let (good, said) = at_once((0..3).map(|_| whole.command(&["start"])).collect())?;
    ensure!(good == 3, "a start that finds everything running succeeds: {said:?}");
    let (good, said) = at_once((0..3).map(|_| whole.command(&["compute", "start", "a"])).collect())?;
    ensure!(good == 1 && said.iter().all(|s| s.contains("runs already")), "{good} started: {said:?}");
    let names = ["x", "y", "z"];
    whole.stop_compute("a")?;
    let (good, said) =
        at_once(names.iter().map(|name| whole.command(&["compute", "start", name])).collect())?;
    ensure!(good == 1 && said.iter().all(|s| s.contains("is alive on branch 'main'")), "{good}: {said:?}");
    whole.strata(&["stop"])?;
    whole.strata(&["start"])?;
    let (good, said) = at_once((0..3).map(|_| whole.command(&["branch", "create", "b"])).collect())?;
    ensure!(good == 1 && said.iter().all(|s| s.contains("already")), "{good} made: {said:?}");
    let compute = keep_a_row(&whole)?;
    check_row(&whole, &compute)
}

#[test]
fn a_start_that_waits_for_safekeepers_does_not_keep_them_from_starting() -> Result<()> {
    let whole = Whole::started()?;
    keep_a_row(&whole)?;
    whole.stop_compute("a")?;
    for id in ["1", "2", "3"] {
        whole.strata(&["safekeeper", "stop", id])?;
    }
    let waiting =
        whole.command(&["compute", "start", "a"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    wait_until("the start waits", || Ok(whole.json(&["compute", "show", "a"])?["state"] == "starting"))?;
    whole.strata(&["start"])?;
    let output = waiting.wait_with_output()?;
    ensure!(output.status.success(), "it did not start: {}", String::from_utf8_lossy(&output.stderr));
    let compute = Compute::from_json(&whole.json(&["compute", "show", "a"])?)?;
    check_row(&whole, &compute)
}
