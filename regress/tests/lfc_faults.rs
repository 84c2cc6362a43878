//! C1: what a disk does to the local file cache's file: errors end the cache with one line in the log, short reads and writes are gone on
//! with, and no query notices. A library that is loaded before the C library (`faulty_file.c`) plays the disk.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use strata_regress::cached::CachedServer;
use strata_regress::whole::Whole;

#[test]
fn a_faulty_disk_fails_no_query() -> Result<()> {
    let mut whole = Whole::started()?;
    let library = whole.scratch().join("faulty_file.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faulty_file.c");
    let compiler =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", source, "-ldl", "-o"]).arg(&library).output();
    let compiler = compiler.context("cannot run cc")?;
    ensure!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
    let fault = whole.scratch().join("fault");
    std::fs::write(&fault, "none")?;
    whole.set_environment("LD_PRELOAD", &library.display().to_string());
    whole.set_environment("STRATA_TEST_FAULT", &fault.display().to_string());
    let mut server = CachedServer::on(whole, &[])?;
    let off_lines = |server: &CachedServer| {
        Ok::<_, anyhow::Error>(server.log()?.matches("the local file cache is off").count())
    };
    let mut expected = 0;
    for (name, ends) in [
        ("short-read", false),
        ("short-write", false),
        ("read-error", true),
        ("write-error", true),
        ("no-space", true),
    ] {
        std::fs::write(&fault, name)?;
        server.scan()?;
        server.sql("UPDATE t SET filler = repeat('f', 900)")?;
        server.scan()?;
        server.sql("VACUUM FULL t")?;
        server.scan()?;
        let state = server.sql("SELECT state FROM strata_lfc_stats")?;
        ensure!(state == if ends { "failed" } else { "on" }, "with {name} the cache is {state}");
        expected += usize::from(ends);
        ensure!(off_lines(&server)? == expected, "with {name}, not one line more:\n{}", server.log()?);
        ensure!(server.stat("damaged")? == 0, "with {name} pages are damaged");
        std::fs::write(&fault, "none")?;
        server.restart(&[])?;
        server.scan()?;
        ensure!(
            server.sql("SELECT state FROM strata_lfc_stats")? == "on",
            "after {name} and a start the cache is not on"
        );
    }
    server.whole.amcheck(&server.compute)
}
