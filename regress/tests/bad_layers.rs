//! A byte that is not what was written. In the local copy of a layer file: another copy is downloaded and nobody notices. In
//! the object store with no local copy left: whoever needs it gets one ERROR that names the pages and says that a layer
//! file is damaged, nothing is guessed, and a good copy is all it takes (PS-5).

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use strata_common::Lsn;
use strata_regress::whole::{Compute, Whole, sets, wait_until};

/// Layers are written at once, and every read goes to their files.
const SETTINGS: [(&str, &str); 3] = [
    ("STRATA_PAGESERVER_LAYER_AGE_S_MAX", "1"),
    ("STRATA_PAGESERVER_BLOCK_CACHE_MIB", "0"),
    ("STRATA_PAGESERVER_PAGE_CACHE_MIB", "0"),
];

const ROWS: &str = "20000";

fn start(whole: &Whole, arguments: &[&str]) -> Result<()> {
    let output = whole.command(arguments).envs(SETTINGS).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn wait_stored(whole: &Whole) -> Result<()> {
    wait_until("everything is in the object store", || {
        let branch = &whole.json(&["branch", "list"])?[0];
        let lsn = |key: &str| -> Result<Lsn> { Ok(branch[key].as_str().context("an LSN")?.parse()?) };
        Ok(lsn("remote_consistent_lsn")?.0 + 1 >= lsn("lsn")?.0)
    })
}

/// Files of layers below a folder, with their sizes.
fn layers(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.starts_with("delta.") {
                let bytes = path.metadata()?.len();
                found.push((path, bytes));
            }
        }
    }
    Ok(found)
}

/// Turns a byte in the middle of a file over; once more puts it right.
fn flip(path: &Path) -> Result<()> {
    let file = std::fs::File::options().read(true).write(true).open(path)?;
    let at = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    Ok(file.write_all_at(&[!byte[0]], at)?)
}

/// One clear ERROR for what needs the damaged file, with its whole name; the server goes on.
fn check_refused(whole: &Whole, compute: &Compute, name: &str) -> Result<()> {
    let error = whole.sql(&compute.connstr, "SELECT count(t) FROM hit").err().context("damage was read")?;
    let text = error.to_string();
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("ERROR:  ")).take(1).collect();
    ensure!(
        errors
            .iter()
            .any(|line| line.contains("could not read blocks")
                && line.contains(&format!("layer file {name}, "))),
        "the error does not name pages and file {name}: {text}"
    );
    eprintln!("  {}", errors.join(" "));
    ensure!(whole.sql(&compute.connstr, "SELECT 1")? == "1", "the server goes on");
    Ok(())
}

fn check_whole(whole: &Whole, compute: &Compute) -> Result<()> {
    for table in ["hit", "other"] {
        let rows = whole.sql(&compute.connstr, &format!("SELECT count(t) FROM {table}"))?;
        ensure!(rows == ROWS, "{table} has {rows} rows");
    }
    Ok(())
}

#[test]
fn a_byte_of_a_layer_is_wrong() -> Result<()> {
    let whole = Whole::initialised(&[])?;
    start(&whole, &["start"])?;
    // Without a file cache, which would answer in the pageserver's place.
    let settings = ["shared_buffers=1MB", "autovacuum=off", "strata.lfc_max_size=0"];
    let compute = whole.start_compute("a", &sets(settings))?;
    let sql = |sql: &str| whole.sql(&compute.connstr, sql);
    let rows = format!("SELECT n, md5(n::text) || repeat('x', 200) FROM generate_series(1, {ROWS}) n");
    sql("CREATE TABLE hit(n int, t text); CREATE TABLE other(n int, t text); CREATE TABLE more(n int)")?;
    sql(&format!("INSERT INTO other {rows}"))?;
    wait_stored(&whole)?;
    let objects = whole.dir().join("objects");
    let before = layers(&objects)?;
    sql(&format!("INSERT INTO hit {rows}"))?;
    // Hint bits are set, so that reading writes nothing any more.
    check_whole(&whole, &compute)?;
    wait_stored(&whole)?;
    let new = layers(&objects)?.into_iter().filter(|layer| !before.contains(layer));
    let (object, _) = new.max_by_key(|(_, bytes)| *bytes).context("the rows are in a layer")?;
    let name = object.file_name().context("a name")?.to_string_lossy().into_owned();
    let local = || -> Result<PathBuf> {
        let mut found = layers(&whole.dir().join("pageserver-1"))?.into_iter().map(|(path, _)| path);
        found.find(|path| path.ends_with(&name)).context("the layer has a local copy")
    };

    // The local copy, while the pageserver runs: the good one is taken from the object store, now and at a restart.
    let damaged = local()?;
    let good = std::fs::read(&damaged)?;
    flip(&damaged)?;
    check_whole(&whole, &compute)?;
    ensure!(std::fs::read(local()?)? == good, "the copy in the folder is good again");
    flip(&local()?)?;
    sql("INSERT INTO more VALUES (1)")?;
    whole.kill_node("pageservers", 1)?;
    start(&whole, &["pageserver", "start", "1"])?;
    check_whole(&whole, &compute)?;

    // The object itself, with no local copy left. No part of it is trusted then, so whatever must look into it is refused.
    whole.kill_node("pageservers", 1)?;
    flip(&object)?;
    std::fs::remove_dir_all(whole.dir().join("pageserver-1"))?;
    start(&whole, &["pageserver", "start", "1"])?;
    check_refused(&whole, &compute, &name)?;
    wait_until(&format!("status names {name}"), || {
        let status = whole.json(&["status"])?;
        Ok(status["branches"][0]["problem"].as_str().unwrap_or_default().contains(&name))
    })?;
    flip(&object)?;
    whole.kill_node("pageservers", 1)?;
    start(&whole, &["pageserver", "start", "1"])?;
    check_whole(&whole, &compute)
}
