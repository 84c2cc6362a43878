//! What a user can get wrong with names, places, ports, programs and verbs: each is refused in one sentence that says what to
//! do, and what was there before is untouched and works. Disks are in `bad_disks.rs`.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use strata_regress::refusal::{check_row, keep_a_row, refused, refuses, says, strata_in};
use strata_regress::whole::Whole;

fn taken_port() -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

#[test]
fn names_that_nothing_has_and_names_that_nothing_may_have() -> Result<()> {
    let whole = Whole::started()?;
    let compute = keep_a_row(&whole)?;
    let no_branch = "there is no branch 'nope' (there is main)";
    let no_compute = "there is no compute 'nope' (there is a)";
    let no_tenant = "there is no tenant 'nope' (there is default)";
    let no_name = "use up to 40 of a-z, 0-9, - and _";
    let cases: &[(&[&str], &[&str])] = &[
        (&["compute", "start", "b", "--branch", "nope"], &[no_branch]),
        (&["compute", "attach", "b", "--branch", "nope"], &[no_branch]),
        (&["branch", "create", "b", "--from", "nope"], &[no_branch]),
        (&["lsn", "nope"], &[no_branch]),
        (&["compute", "stop", "nope"], &[no_compute]),
        (&["compute", "detach", "nope"], &[no_compute]),
        (&["compute", "show", "nope"], &[no_compute]),
        (&["compute", "logs", "nope"], &[no_compute]),
        (&["psql", "nope"], &[no_compute]),
        (&["--tenant", "nope", "compute", "start", "b"], &[no_tenant]),
        (&["--tenant", "nope", "branch", "list"], &[no_tenant]),
        (&["safekeeper", "start", "4"], &["there is no safekeeper 4", "1 to 3"]),
        (&["pageserver", "stop", "0"], &["there is no pageserver 0", "1 to 1"]),
        (&["safekeeper", "start", "one"], &["'one'", "--help"]),
        (&["branch", "create", "No Spaces"], &["'No Spaces' is no name for a branch", no_name]),
        (&["tenant", "create", "../up"], &["'../up' is no name for a tenant", no_name]),
        (&["compute", "start", "a/b"], &["'a/b' is no name for a compute", no_name]),
        (&["tenant", "create", "default"], &["there is a tenant 'default' already"]),
        (&["branch", "create", "main"], &["there is a branch 'main' already"]),
        (&["compute", "start", "a"], &["compute 'a' runs already", "compute show a"]),
        (&["compute", "start", "b"], &["compute 'a' is alive on branch 'main'", "--takeover"]),
        (&["safekeeper", "start", "1"], &["safekeeper 1 runs already"]),
        (&["compute", "start"], &["<NAME>", "--help"]),
        (&["frobnicate"], &["'frobnicate'", "--help"]),
    ];
    for (arguments, expected) in cases {
        refuses(&whole, arguments, expected)?;
    }
    check_row(&whole, &compute)?;
    let status = whole.json(&["status"])?;
    ensure!(status["computes"].as_array().map(Vec::len) == Some(1), "a refusal left something: {status}");
    ensure!(status["branches"].as_array().map(Vec::len) == Some(1), "a refusal left something: {status}");
    Ok(())
}

#[test]
fn settings_that_guard_durability_and_settings_that_are_none() -> Result<()> {
    let whole = Whole::started()?;
    for guarded in ["fsync=off", "FSYNC=off", "synchronous_standby_names=", "strata.term=9", "port=1"] {
        let name = guarded.split('=').next().unwrap_or_default().to_ascii_lowercase();
        refuses(&whole, &["compute", "start", "a", "--set", guarded], &[&name, "cannot be given"])?;
    }
    refuses(&whole, &["compute", "start", "a", "--set", "work_mem"], &["'work_mem' is not GUC=VALUE"])?;
    // What only Postgres can judge is told in its words.
    let bad = ["compute", "start", "a", "--set", "shared_buffers=banana"];
    refuses(&whole, &bad, &["compute 'a' did not start", "shared_buffers", "banana"])?;
    let unknown = ["compute", "start", "a", "--set", "shared_bufers=1MB"];
    refuses(&whole, &unknown, &["compute 'a' did not start", "shared_bufers"])?;
    // A setting that did not do is not kept.
    let compute = keep_a_row(&whole)?;
    check_row(&whole, &compute)
}

#[test]
fn an_lsn_that_the_branch_does_not_have() -> Result<()> {
    let whole = Whole::started()?;
    let compute = keep_a_row(&whole)?;
    for garbage in ["yesterday", "1/2/3", "0/GG", ""] {
        let command = ["branch", "create", "b", "--at-lsn", garbage];
        refuses(&whole, &command, &[if garbage.is_empty() { "--at-lsn" } else { garbage }, "--help"])?;
    }
    let start = whole.json(&["status"])?["branches"][0]["start_lsn"].as_str().context("start")?.to_owned();
    let before = refuses(&whole, &["branch", "create", "b", "--at-lsn", "0/10"], &["0/10"])?;
    ensure!(before.contains(&start), "'{before}' does not say that the branch begins at {start}");
    let end = whole.strata(&["lsn", "main"])?;
    let beyond = refuses(&whole, &["branch", "create", "b", "--at-lsn", "FF/0"], &["FF/0", "ends at"])?;
    ensure!(beyond.contains(end.trim()), "'{beyond}' does not say that the branch ends at {end}");
    let branches = whole.json(&["branch", "list"])?;
    ensure!(branches.as_array().map(Vec::len) == Some(1), "a refusal left a branch: {branches}");
    check_row(&whole, &compute)?;
    whole.strata(&["branch", "create", "b", "--at-lsn", end.trim()])?;
    let other = whole.start_compute("b", &["--branch", "b"])?;
    check_row(&whole, &other)
}

#[test]
fn ports_that_somebody_else_has() -> Result<()> {
    let whole = Whole::started()?;
    let (held, port) = taken_port()?;
    let elsewhere = whole.scratch().join("elsewhere");
    let base = port.to_string();
    says(
        refused(strata_in(&elsewhere, &["init", "--port-base", &base]))?,
        &[&format!("port {port}"), "--port-base"],
    )?;
    ensure!(!elsewhere.exists(), "a refused init left a folder");
    drop(held);

    let compute = keep_a_row(&whole)?;
    whole.stop_compute("a")?;
    let held = TcpListener::bind(("127.0.0.1", compute.port))?;
    let port = compute.port.to_string();
    refuses(&whole, &["compute", "start", "a"], &["port", &port, "compute 'a'", "stop what listens there"])?;
    drop(held);
    check_row(&whole, &whole.start_compute("a", &[])?)?;

    // A daemon's: the others start all the same, and a majority is enough.
    for (kind, port_key) in [("safekeepers", "port"), ("safekeepers", "http_port"), ("pageservers", "port")] {
        whole.strata(&["stop"])?;
        let port = u16::try_from(whole.node(kind, 1)?[port_key].as_u64().context("a port")?)?;
        let held = TcpListener::bind(("127.0.0.1", port))?;
        let kind = kind.trim_end_matches('s');
        let what = format!("{kind} 1 did not start");
        refuses(&whole, &["start"], &[&what, &port.to_string(), "taken by another process"])?;
        refuses(&whole, &[kind, "start", "1"], &[&what, &port.to_string(), "taken by another process"])?;
        if kind == "safekeeper" {
            check_row(&whole, &whole.start_compute("a", &[])?)?;
        }
        drop(held);
        whole.strata(&[kind, "start", "1"])?;
        if kind == "pageserver" {
            check_row(&whole, &whole.start_compute("a", &[])?)?;
        }
    }
    Ok(())
}

#[test]
fn a_daemon_of_another_cluster_is_not_taken_for_ours() -> Result<()> {
    // Both ports are answered, by a program that speaks like a status page: only its pid tells.
    let whole = Whole::initialised(&[])?;
    let http = u16::try_from(whole.node("safekeepers", 1)?["http_port"].as_u64().context("a port")?)?;
    let listener = TcpListener::bind(("127.0.0.1", http))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = b"HTTP/1.0 200 OK\r\n\r\n{\"pid\": 1, \"state\": \"ready\"}";
            let _ = std::io::Write::write_all(&mut &stream, answer);
        }
    });
    refuses(
        &whole,
        &["safekeeper", "start", "1"],
        &["safekeeper 1 did not start", "taken by another process"],
    )?;
    Ok(())
}

#[test]
fn folders_that_hold_something_else() -> Result<()> {
    let whole = Whole::started()?;
    let compute = keep_a_row(&whole)?;
    refuses(&whole, &["init"], &["already holds an installation", "strata start"])?;
    check_row(&whole, &compute)?;
    let photos = whole.scratch().join("photos");
    std::fs::create_dir(&photos)?;
    std::fs::write(photos.join("holiday.jpg"), "sea")?;
    says(refused(strata_in(&photos, &["init"]))?, &["not empty", "holiday.jpg", "choose another folder"])?;
    ensure!(std::fs::read_to_string(photos.join("holiday.jpg"))? == "sea", "a foreign file was changed");
    ensure!(std::fs::read_dir(&photos)?.count() == 1, "a refused init left something");
    let file = photos.join("holiday.jpg");
    says(refused(strata_in(&file, &["init"]))?, &["is not a folder"])?;
    let nowhere = whole.scratch().join("nowhere");
    for verb in [&["status"][..], &["start"], &["stop"], &["compute", "start", "a"], &["tenant", "list"]] {
        says(refused(strata_in(&nowhere, verb))?, &["there is no installation in", "strata init"])?;
    }
    ensure!(!nowhere.exists(), "a refused verb made a folder");
    Ok(())
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> Result<Vec<(std::path::PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path)?;
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn a_data_folder_of_another_cluster() -> Result<()> {
    let (ours, theirs) = (Whole::started()?, Whole::initialised(&[])?);
    keep_a_row(&ours)?;
    ours.strata(&["stop"])?;
    for (kind, name) in [("safekeeper", "safekeeper-1"), ("pageserver", "pageserver-1")] {
        let (place, aside, foreign) =
            (ours.dir().join(name), ours.scratch().join("aside"), theirs.dir().join(name));
        std::fs::rename(&place, &aside)?;
        std::fs::rename(&foreign, &place)?;
        let before = contents(&place)?;
        ensure!(!before.is_empty(), "the foreign folder holds something");
        let what = format!("{kind} 1 did not start");
        refuses(&ours, &["start"], &[&what, &place.display().to_string(), "belongs to", "right folder"])?;
        ensure!(contents(&place)? == before, "the folder of another cluster was changed");
        ours.strata(&["stop"])?;
        std::fs::rename(&place, &foreign)?;
        std::fs::rename(&aside, &place)?;
    }
    // A folder of the right cluster but of another node is refused as well.
    let (one, two) = (ours.dir().join("safekeeper-1"), ours.dir().join("safekeeper-2"));
    let aside = ours.scratch().join("aside");
    for [from, to] in [[&one, &aside], [&two, &one], [&aside, &two]] {
        std::fs::rename(from, to)?;
    }
    refuses(&ours, &["start"], &["safekeeper 1 did not start", "safekeeper 2 did not start", "belongs to"])?;
    ours.strata(&["stop"])?;
    for [from, to] in [[&one, &aside], [&two, &one], [&aside, &two]] {
        std::fs::rename(from, to)?;
    }
    ours.strata(&["start"])?;
    check_row(&ours, &ours.start_compute("a", &[])?)?;
    theirs.strata(&["start"])?;
    theirs.start_compute("a", &[])?;
    Ok(())
}
