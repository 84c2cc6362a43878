//! sqlsmith, a generator of random queries, against a compute with few buffers whose pages are compared with local copies
//! (`strata.compare_local`). Queries may fail; the server may not: no PANIC, no crash, and no content that is another afterwards,
//! because sqlsmith rolls all that it does back. Then the compute is lost: same dump, sound indexes.
//!
//! In small size over tables with every kind of index, in full size over all that the core suite leaves, too.
//! `STRATA_RANDOM_SEED` repeats a run: sqlsmith makes the same queries from the same seed and the same catalogs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};
use strata_regress::dump::{Dump, Rows};
use strata_regress::random;
use strata_regress::random::agree::serious_log;
use strata_regress::random::script::setup;
use strata_regress::random::session::{Errors, Session};
use strata_regress::size;
use strata_regress::suites::{self, Place, Sessions};
use strata_regress::whole::{Compute, Whole, sets};

/// The program, fetched at the first call. `None` where the archive that has it may be out of reach.
fn sqlsmith() -> Result<Option<PathBuf>> {
    if std::env::var_os("STRATA_PG_SOURCE").is_some() {
        eprintln!("sqlsmith is left out: STRATA_PG_SOURCE is set");
        return Ok(None);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../setup/fetch-sqlsmith.sh");
    let said = Command::new(&script).output()?;
    ensure!(said.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&said.stderr));
    Ok(Some(PathBuf::from(String::from_utf8(said.stdout)?.trim())))
}

fn start(whole: &Whole) -> Result<Compute> {
    let settings = ["strata.compare_local=on", "shared_buffers=1MB", "max_connections=40"];
    whole.start_compute("a", &sets(settings))
}

/// A role that reads and writes every table of a database, and nothing of the server: some functions of a superuser end sessions,
/// write files or take values of sequences for good. (sqlsmith itself gives a query a second.)
const ROLE: &str = "
    DO $$ BEGIN IF to_regrole('smith') IS NULL THEN CREATE ROLE smith LOGIN; END IF; END $$;
    GRANT pg_read_all_data, pg_write_all_data TO smith;
    REVOKE USAGE, UPDATE ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC;
    REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(bool, text, text, bool), pg_logical_emit_message(bool, text, bytea, bool) FROM PUBLIC;";

/// What sqlsmith did: queries, and how many of them failed.
#[derive(Debug)]
struct Work {
    queries: f64,
    /// The part that failed.
    failed: f64,
}

fn smith(program: &Path, compute: &Compute, database: &str, queries: u64, seed: u64) -> Result<Work> {
    let target = format!("host=127.0.0.1 port={} user=smith dbname={database}", compute.port);
    let mut command = Command::new(program);
    command.arg(format!("--target={target}")).arg(format!("--seed={seed}"));
    command.args([format!("--max-queries={queries}"), "--exclude-catalog".into(), "--verbose".into()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // It ends by itself, also when the server is gone: then it connects again until all its queries are made.
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "sqlsmith ended with {}: {said}", output.status);
    // It reports every 799 queries, and at its end.
    let number = |begin: &str| {
        said.lines().rev().find_map(|line| line.strip_prefix(begin)?.trim().parse::<f64>().ok())
    };
    let (Some(queries), Some(failed)) = (number("queries: "), number("error rate: ")) else {
        bail!("sqlsmith counted nothing: {said}")
    };
    Ok(Work { queries, failed })
}

/// Nothing in the server's log means damage.
fn judge(whole: &Whole) -> Result<()> {
    let log = std::fs::read(whole.dir().join("run/compute-a.log"))?;
    let log = String::from_utf8_lossy(&log).into_owned();
    let found = serious_log(&log);
    ensure!(found.is_empty(), "this may not happen:\n{}", found.join("\n"));
    Ok(())
}

/// Lets sqlsmith loose on a database: what is in it stays as it was, now and after the loss of the compute.
fn loose(whole: &Whole, compute: &Compute, database: &str, queries: u64, seed: u64) -> Result<Compute> {
    let Some(program) = sqlsmith()? else { return Ok(compute.clone()) };
    whole.sql(&compute.in_database(database)?, ROLE)?;
    let dump = |compute: &Compute| whole.run("pg_dumpall", &["-d", &compute.connstr]);
    let before = dump(compute)?;
    let work = smith(&program, compute, database, queries, seed);
    judge(whole)?;
    let work = work?;
    eprintln!(
        "sqlsmith on {database}: {} queries, {:.0} % of them failed",
        work.queries,
        100.0 * work.failed
    );
    ensure!(work.queries >= queries as f64 && work.failed < 0.9, "that shows nothing: {work:?}");
    let unchanged = |before: &str, after: &str, when: &str| {
        let differences = Dump::parse(before).differences(&Dump::parse(after), Rows::Ordered);
        ensure!(differences.is_empty(), "{when}:\n{}", differences.join("\n"));
        Ok(())
    };
    // But for values of a sequence, which a rule of the core suite takes.
    let after = dump(compute)?;
    unchanged(&before, &after, "after queries that were rolled back")?;
    whole.lose_compute(compute)?;
    let compute = start(whole)?;
    unchanged(&after, &dump(&compute)?, "after the loss of the compute")?;
    whole.amcheck(&compute)?;
    judge(whole)?;
    Ok(compute)
}

#[test]
fn random_queries_do_no_harm() -> Result<()> {
    let full = size::is_full();
    let now = std::time::UNIX_EPOCH.elapsed()?.as_secs() % 1_000_000;
    let seed = random::seed("sqlsmith", if full { now } else { 1 });
    let whole = Whole::started()?;
    let mut compute = start(&whole)?;
    let mut psql = whole.program("psql");
    psql.args(["-d", &compute.connstr]);
    let made = Session::start(psql, Errors::Text, &setup("lone"), whole.scratch(), "setup")?.finish()?;
    ensure!(made.errors.is_empty(), "{}", made.errors);
    compute = loose(&whole, &compute, "postgres", if full { 4000 } else { 150 }, seed)?;
    if full {
        let port = compute.port.to_string();
        let place = Place { host: "127.0.0.1".into(), port, sessions: Sessions::AsScheduled };
        let outcome = suites::run("core", &place, &whole.scratch().join("core"))?;
        ensure!(outcome.failed.is_empty(), "{}", outcome.summary());
        loose(&whole, &compute, "regression", 4000, seed)?;
    }
    Ok(())
}
