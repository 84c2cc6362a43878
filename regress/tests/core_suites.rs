//! Postgres's own suites on a compute whose storage is remote: core regression, isolation, contrib and procedural languages, each
//! with few and with normal buffers, every page from the pageserver compared with a local copy (`strata.compare_local`).
//!
//! After each suite the compute is lost: a new one must have the same dump, and `pg_amcheck` must find nothing. In full size the dump
//! must also equal that of vanilla storage, but for what differs between two runs of vanilla itself. Tests of the full size are ignored
//! unless asked for.
//! What may differ in a suite's results stands in `expected/differences.txt`, each with its reason.
//!
//! `STRATA_PG_TREE` names a server without the patch to run them on; `docs/suites.md` is made from what they came to.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use strata_regress::cached::while_resized;
use strata_regress::dump::{Dump, Rows};
use strata_regress::postgres::{Cluster, Installation};
use strata_regress::suites::{self, Outcome, Place, Sessions};
use strata_regress::whole::{Compute, Whole, sets};

/// With fewer buffers index builds find them all pinned, on vanilla storage too: with 256 kB there as soon as a checkpoint or the
/// background writer holds one more. One session at a time and without autovacuum, whose workers would be further sessions.
const FEWEST: Setting = Setting { buffers: "320kB", sessions: Sessions::One, cache: Cache::AsByDefault };
/// From half of this on, all tests of a group can run at once on vanilla storage.
const FEW: Setting = Setting { buffers: "1MB", sessions: Sessions::AsScheduled, cache: Cache::AsByDefault };
const NORMAL: Setting =
    Setting { buffers: "128MB", sessions: Sessions::AsScheduled, cache: Cache::AsByDefault };

#[derive(Clone, Copy, Debug)]
struct Setting {
    buffers: &'static str,
    sessions: Sessions,
    cache: Cache,
}

/// The local file cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cache {
    AsByDefault,
    Tiny,
    Large,
    /// Another limit every second.
    Resized,
}

impl Cache {
    fn mib(self) -> u64 {
        if self == Cache::Tiny { 1 } else { 64 }
    }
}

impl Setting {
    /// Column of the table of `docs/suites.md`.
    fn column(self) -> &'static str {
        match self.cache {
            Cache::AsByDefault => self.buffers,
            Cache::Tiny => "tiny cache",
            Cache::Large => "large cache",
            Cache::Resized => "resized cache",
        }
    }
}

/// One suite at a time: each brings its own load for every core.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(whole: &Whole, setting: Setting, extra: &[&str]) -> Result<Compute> {
    let buffers = format!("shared_buffers={}", setting.buffers);
    let mut arguments = vec!["--set", &buffers, "--set", "strata.compare_local=on"];
    if setting.sessions == Sessions::One {
        arguments.extend(["--set", "autovacuum=off"]);
    }
    arguments.extend(sets(extra.iter().copied()));
    let mut command = whole.command(&[&["compute", "start", "a", "--json"], &arguments[..]].concat());
    // dblink and postgres_fdw connect from the server to itself and name neither host nor user.
    let output = command.env("PGHOST", "127.0.0.1").env("PGUSER", "postgres").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Compute::from_json(&serde_json::from_slice(&output.stdout)?)
}

fn place(compute: &Compute, setting: Setting) -> Place {
    Place { host: "127.0.0.1".into(), port: compute.port.to_string(), sessions: setting.sessions }
}

fn dump(whole: &Whole, compute: &Compute) -> Result<String> {
    whole.run("pg_dumpall", &["-d", &compute.connstr])
}

/// Pages that `strata.compare_local` left, kept for whoever looks into it; the test's folder goes away.
fn keep_pages(compute: &Compute) -> String {
    let folder = compute.pgdata.join("strata_shadow");
    let kept = std::env::temp_dir().join(format!("strata-pages-{}", compute.port));
    let pages = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let differing = pages.filter(|path| path.extension().is_some());
    let mut text = String::new();
    for path in differing {
        let _ = std::fs::create_dir_all(&kept);
        if let Some(name) = path.file_name()
            && std::fs::copy(&path, kept.join(name)).is_ok()
        {
            text.push_str(&format!("\nkept {}", kept.join(name).display()));
        }
    }
    text
}

fn report(suite: &str, setting: Setting, outcome: &Outcome) {
    let Setting { buffers, cache, .. } = setting;
    eprintln!("suite {suite} with {buffers} of shared buffers, cache {cache:?}: {}", outcome.summary());
}

/// Runs a suite on a running compute; every difference that is not explained is an error.
fn run(whole: &Whole, compute: &Compute, suite: &str, setting: Setting) -> Result<()> {
    let output = whole.scratch().join(format!("{}-{}", suite.replace(['/', ':'], "-"), setting.buffers));
    let outcome = suites::run(suite, &place(compute, setting), &output);
    let outcome = outcome.with_context(|| format!("{}{}", log_end(whole), keep_pages(compute)))?;
    report(suite, setting, &outcome);
    suites::write_row(suite, setting.column(), &outcome)?;
    let differences: String = outcome.failed.values().map(|text| shortened(text)).collect();
    ensure!(outcome.failed.is_empty(), "{suite} with {setting:?}: {}\n{differences}", outcome.summary());
    Ok(())
}

fn shortened(difference: &str) -> String {
    difference.lines().take(60).map(|line| format!("{line}\n")).collect()
}

fn log_end(whole: &Whole) -> String {
    let log = std::fs::read(whole.dir().join("run/compute-a.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log).into_owned();
    let panics = log.lines().filter(|line| line.contains("PANIC") || line.contains("strata."));
    panics.map(|line| format!("{line}\n")).collect()
}

/// The compute is lost; the next one has the same content, and sound indexes. Its dump.
fn lose_and_look_again(
    whole: &Whole,
    compute: &Compute,
    setting: Setting,
    settings: &[&str],
) -> Result<String> {
    let before = dump(whole, compute)?;
    whole.lose_compute(compute)?;
    let compute = start(whole, setting, settings)?;
    let after = dump(whole, &compute)?;
    let differences = Dump::parse(&before).differences(&Dump::parse(&after), Rows::Ordered);
    ensure!(differences.is_empty(), "after the loss of the compute:\n{}", differences.join("\n"));
    whole.amcheck(&compute)?;
    Ok(after)
}

/// The dump after suite and loss.
fn suite_and_loss(suite: &str, setting: Setting) -> Result<String> {
    let whole = Whole::started()?;
    let compute = start(&whole, setting, &[])?;
    run(&whole, &compute, suite, setting)?;
    lose_and_look_again(&whole, &compute, setting, &[])
}

#[test]
fn core_with_few_buffers() -> Result<()> {
    let _alone = alone();
    suite_and_loss("core", FEW)?;
    Ok(())
}

#[test]
fn isolation_with_few_buffers() -> Result<()> {
    let _alone = alone();
    suite_and_loss("isolation", FEW)?;
    Ok(())
}

/// Suites with the three caches, one compute each: what a clean stop keeps, and what a loss takes, is looked at too.
fn with_caches(suites: &[String]) -> Result<()> {
    for cache in [Cache::Large, Cache::Tiny, Cache::Resized] {
        with_cache(suites, cache).with_context(|| format!("{cache:?}"))?;
    }
    Ok(())
}

fn with_cache(suites: &[String], cache: Cache) -> Result<()> {
    let whole = Whole::started()?;
    let setting = Setting { cache, ..FEW };
    let mib = cache.mib();
    let size = format!("strata.lfc_max_size={mib}MB");
    let settings = [&[size.as_str()][..], own_settings(suites)].concat();
    let compute = start(&whole, setting, &settings)?;
    whole.sql(&compute.connstr, "CREATE EXTENSION strata")?;
    let work = || run_all(&whole, &compute, suites, setting);
    if cache == Cache::Resized {
        let (_, times) = while_resized(&whole, &compute, mib, work)?;
        ensure!(times > 3, "the cache was resized {times} times");
    } else {
        work()?;
    }
    let seen = whole.sql(
        &compute.connstr,
        "SELECT state IN ('on', 'off') AND hits > 1000 AND damaged = 0, hits, misses FROM strata_lfc_stats",
    )?;
    eprintln!("{} suites, cache {cache:?}: {seen}", suites.len());
    ensure!(seen.starts_with("t|"), "the cache failed or answered little: {seen}");
    // A clean stop: what is kept must be what the pageserver has.
    let before = dump(&whole, &compute).with_context(|| keep_pages(&compute))?;
    whole.stop_compute("a")?.context("a clean stop")?;
    let compute = start(&whole, setting, &settings)?;
    let after = dump(&whole, &compute).with_context(|| keep_pages(&compute))?;
    let differences = Dump::parse(&before).differences(&Dump::parse(&after), Rows::Ordered);
    ensure!(differences.is_empty(), "after a stop and a start:\n{}", differences.join("\n"));
    whole.amcheck(&compute)?;
    let log = std::fs::read_to_string(whole.dir().join("run/compute-a.log"))?;
    let kept = log.split("the local file cache begins with ").nth(1).context("nothing was kept")?;
    let kept: u64 = kept.split(' ').next().context("a number of pages")?.parse()?;
    // The last limit of one that is resized may be nothing.
    ensure!(kept > 50 || cache == Cache::Resized, "{kept} pages were kept");
    lose_and_look_again(&whole, &compute, setting, &settings)?;
    Ok(())
}

#[test]
fn isolation_with_a_resized_cache() -> Result<()> {
    let _alone = alone();
    with_cache(&["isolation".to_owned()], Cache::Resized)
}

#[test]
#[ignore = "full size: --include-ignored"]
fn core_with_file_caches() -> Result<()> {
    let _alone = alone();
    with_caches(&["core".to_owned()])
}

#[test]
#[ignore = "full size: --include-ignored"]
fn isolation_with_file_caches() -> Result<()> {
    let _alone = alone();
    with_cache(&["isolation".to_owned()], Cache::Large)?;
    with_cache(&["isolation".to_owned()], Cache::Tiny)
}

#[test]
#[ignore = "full size: --include-ignored"]
fn contrib_and_languages_with_file_caches() -> Result<()> {
    let _alone = alone();
    with_caches(&contrib_and_language_suites()?)
}

/// The dump after suites on vanilla storage, of the very server that computes run.
fn vanilla_dump(suites: &[String]) -> Result<Dump> {
    let mut cluster = Cluster::init(&Installation::at(suites::postgres_tree()?.join("bin"))?, &[])?;
    let mut settings =
        vec![("shared_buffers", NORMAL.buffers), ("max_prepared_transactions", "64"), ("port", "5432")];
    settings.extend(own_settings(suites).iter().filter_map(|setting| setting.split_once('=')));
    cluster.start(&settings)?;
    let host = cluster.home().display().to_string();
    let place = Place { host, port: "5432".into(), sessions: NORMAL.sessions };
    for suite in suites {
        let outcome = suites::run(suite, &place, &cluster.home().join(suite.replace(['/', ':'], "-")))?;
        report(&format!("{suite}, vanilla storage,"), NORMAL, &outcome);
        ensure!(outcome.failed.is_empty(), "{suite} on vanilla storage: {}", outcome.summary());
    }
    let text = strata_regress::postgres::run(&mut cluster.client("pg_dumpall", "postgres"))?;
    Ok(Dump::parse_without_numbers(&text))
}

/// Suites on one compute with each of these settings: what they leave, after a loss, is what they leave on vanilla storage, but for what
/// differs between two runs there.
fn leave_what_vanilla_leaves(suites: &[String], settings: &[Setting]) -> Result<()> {
    let (first, second) = (vanilla_dump(suites)?, vanilla_dump(suites)?);
    let by_chance = first.differing(&second, Rows::Any);
    for &setting in settings {
        let whole = Whole::started()?;
        let compute = start(&whole, setting, own_settings(suites))?;
        run_all(&whole, &compute, suites, setting)?;
        let ours = lose_and_look_again(&whole, &compute, setting, own_settings(suites))?;
        let mut differences = first.differences(&Dump::parse_without_numbers(&ours), Rows::Any);
        differences.retain(|line| !by_chance.iter().any(|heading| line.starts_with(&format!("{heading}: "))));
        ensure!(differences.is_empty(), "{setting:?} against vanilla storage:\n{}", differences.join("\n"));
    }
    Ok(())
}

#[test]
#[ignore = "full size: --include-ignored"]
fn core_leaves_what_vanilla_storage_leaves() -> Result<()> {
    let _alone = alone();
    leave_what_vanilla_leaves(&["core".to_owned()], &[FEWEST, FEW, NORMAL])
}

#[test]
#[ignore = "full size: --include-ignored"]
fn isolation_leaves_what_vanilla_storage_leaves() -> Result<()> {
    let _alone = alone();
    leave_what_vanilla_leaves(&["isolation".to_owned()], &[FEWEST, FEW, NORMAL])
}

#[test]
#[ignore = "full size: --include-ignored"]
fn contrib_and_languages_leave_what_vanilla_storage_leaves() -> Result<()> {
    let _alone = alone();
    leave_what_vanilla_leaves(&contrib_and_language_suites()?, &[FEWEST, FEW, NORMAL])
}

/// What suites need. That of pg_freespacemap counts pages that only its own VACUUM may have seen.
fn own_settings(suites: &[String]) -> &'static [&'static str] {
    let is_alone = |suite: &String| suite.starts_with("contrib/");
    if suites.iter().any(is_alone) { &["autovacuum=off"] } else { &[] }
}

/// All suites of contrib and of procedural languages.
fn contrib_and_language_suites() -> Result<Vec<String>> {
    let tree = suites::postgres_tree()?;
    let mut all = suites::contrib_suites(&tree)?;
    ensure!(all.len() > 30, "contrib has more suites than {}", all.len());
    all.extend(suites::language_suites(&tree));
    Ok(all)
}

/// Suites on one compute; one that fails does not keep the others from running.
fn run_all(whole: &Whole, compute: &Compute, suites: &[String], setting: Setting) -> Result<()> {
    let problems: Vec<String> = suites
        .iter()
        .filter_map(|suite| run(whole, compute, suite, setting).err())
        .map(|problem| format!("{problem:#}"))
        .collect();
    ensure!(problems.is_empty(), "{} suites failed:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}

/// Other libraries are preloaded beside the storage manager: the user's choice, which survives the compute's loss.
#[test]
fn statement_statistics_are_preloaded() -> Result<()> {
    let _alone = alone();
    let whole = Whole::started()?;
    let compute = start(&whole, NORMAL, &["shared_preload_libraries=pg_stat_statements", "autovacuum=off"])?;
    let shown = whole.sql(&compute.connstr, "SHOW shared_preload_libraries")?;
    ensure!(shown == "strata,pg_stat_statements", "preloaded: {shown}");
    run(&whole, &compute, &format!("contrib/{}", suites::NEEDS_PRELOAD), NORMAL)?;
    lose_and_look_again(&whole, &compute, NORMAL, &[])?;
    Ok(())
}

#[test]
fn explained_suites_exist() -> Result<()> {
    let tree = suites::postgres_tree()?;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/suites.md"))?;
    for not in suites::NOT_RUN {
        ensure!(page.contains(not.name), "docs/suites.md does not say why {} is not run", not.name);
        let exists = ["src/contrib", "src/src/pl"].iter().any(|at| tree.join(at).join(not.name).is_dir());
        ensure!(exists && !not.reason.is_empty(), "{} is neither module nor language", not.name);
    }
    ensure!(
        suites::why_not_run(&tree, "test_decoding").is_some()
            && suites::why_not_run(&tree, "citext").is_none()
    );
    Ok(())
}
