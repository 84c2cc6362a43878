//! Pages that are asked for ahead: who asks, what is used, and that nothing is held or wrong when its session is cancelled, ended or cut
//! off from the pageserver. Every page is compared with a local copy (`strata.compare_local`). That a page which changed meanwhile is not
//! served is shown with the other traps (L3, `tests/traps`).

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strata_regress::cached::empty_cache;
use strata_regress::evict::EVICT;
use strata_regress::session::Session;
use strata_regress::size;
use strata_regress::whole::{Compute, Whole, sets, wait_until};

const ROWS: i64 = 20_000;

/// What every test has: few buffers, a table of about 2500 pages, and `evict`.
const OBJECTS: &str = "
    CREATE EXTENSION strata; CREATE EXTENSION pg_prewarm;
    CREATE TABLE t WITH (autovacuum_enabled = off) AS SELECT n, repeat('x', 900) AS filler FROM generate_series(1, 20000) n;
    CREATE INDEX t_n ON t(n)";

struct Server {
    whole: Whole,
    compute: Compute,
}

impl Server {
    fn with(settings: &[&str]) -> Result<Server> {
        let whole = Whole::started()?;
        let fixed = [
            "shared_buffers=8MB",
            "autovacuum=off",
            "max_parallel_workers_per_gather=0",
            "strata.lfc_max_size=0",
            "strata.compare_local=on",
        ];
        let compute = whole.start_compute("a", &sets(fixed.iter().chain(settings).copied()))?;
        let server = Server { whole, compute };
        server.sql(EVICT)?;
        server.sql(OBJECTS)?;
        server.sql("VACUUM t")?;
        Ok(server)
    }

    fn sql(&self, sql: &str) -> Result<String> {
        self.whole.sql(&self.compute.connstr, sql)
    }

    fn number(&self, sql: &str) -> Result<i64> {
        self.whole.number(&self.compute, sql)
    }

    fn stat(&self, column: &str) -> Result<i64> {
        self.number(&format!("SELECT {column} FROM strata_stat_prefetch"))
    }

    /// How much counters grow while a statement runs: requested, used, and what was asked for by those who waited for it.
    fn grown(&self, sql: &str) -> Result<(i64, i64, i64)> {
        let now = || -> Result<(i64, i64, i64)> {
            let asked = self.number("SELECT blocks FROM strata_page_requests WHERE kind = 'pages'")?;
            Ok((self.stat("requested")?, self.stat("used")?, asked))
        };
        self.sql("SELECT evict('t')")?;
        let before = now()?;
        self.sql(sql)?;
        let after = now()?;
        Ok((after.0 - before.0, after.1 - before.1, after.2 - before.2))
    }

    /// All that was asked for is given back when nobody has a transaction.
    fn nothing_is_held(&self) -> Result<()> {
        wait_until("nothing is held", || {
            Ok(self.sql("SELECT open_requests, held_pages FROM strata_stat_prefetch")? == "0|0")
        })
    }

    fn scan(&self) -> Result<()> {
        let sums =
            self.sql("SET enable_indexscan = off; SELECT count(*), sum(n), sum(length(filler)) FROM t")?;
        let expected = format!("{ROWS}|{}|{}", ROWS * (ROWS + 1) / 2, ROWS * 900);
        ensure!(sums == expected, "the table reads as {sums}");
        Ok(())
    }

    /// Pages of `t` that the file cache has.
    fn cached(&self) -> Result<i64> {
        self.number("SELECT count(*) FROM strata_lfc_pages WHERE relfilenode = pg_relation_filenode('t') AND relforknumber = 0")
    }

    /// Neither shared buffers nor the file cache have a page of `t`.
    fn forget_pages(&self) -> Result<()> {
        // What was changed goes to the file cache from there.
        self.sql("SELECT evict('t')")?;
        empty_cache(&self.whole, &self.compute)
    }

    /// The pageserver answers nobody until the answer is dropped. Only sessions that have all they need go on.
    fn standstill(&self) -> Result<Standstill> {
        let pid = self.whole.node("pageservers", 1)?["pid"].as_i64().context("the pageserver runs")?;
        let pid = Pid::from_raw(i32::try_from(pid)?);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Standstill(pid))
    }
}

struct Standstill(Pid);

impl Drop for Standstill {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// A session that looks at others and needs no page for it.
struct Watcher(Session);

impl Watcher {
    fn open(server: &Server) -> Result<Watcher> {
        let mut watcher = Watcher(Session::open(&server.compute)?);
        // Catalogs and sizes are known from here on.
        watcher.unanswered()?;
        watcher.waiting()?;
        watcher.held()?;
        watcher.0.sql(
            "SELECT pg_cancel_backend(pid), pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = 0",
        )?;
        Ok(watcher)
    }

    fn unanswered(&mut self) -> Result<i64> {
        Ok(self.0.sql("SELECT unanswered FROM strata_stat_prefetch")?.parse()?)
    }

    /// Who waits for a page that was asked for ahead.
    fn waiting(&mut self) -> Result<String> {
        self.0.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'StrataPrefetchedPage'")
    }

    fn held(&mut self) -> Result<String> {
        self.0.sql("SELECT open_requests, held_pages FROM strata_stat_prefetch")
    }
}

#[test]
fn scans_advice_and_samples_are_asked_for_ahead() -> Result<()> {
    let server = Server::with(&[])?;
    let pages = server.number("SELECT pg_relation_size('t') / 8192")?;
    let (requested, used, asked) = server.grown("SELECT count(filler) FROM t")?;
    ensure!(used * 10 > pages * 9, "a scan of {pages} pages used {used} of {requested}");
    ensure!(
        asked * 10 < pages && requested - used < 300,
        "{asked} asked for, {requested} ahead, {used} used"
    );

    // Every twelfth page or so: no sequence, only the server's advice.
    let off = "SET enable_seqscan = off; SET enable_indexscan = off; ";
    let bitmap =
        "SELECT count(filler) FROM t WHERE n = ANY (ARRAY(SELECT m * 100 FROM generate_series(1, 200) m))";
    let plan = server.sql(&format!("{off}EXPLAIN {bitmap}"))?;
    ensure!(plan.contains("Bitmap Heap Scan"), "another plan: {plan}");
    let (requested, used, _) = server.grown(&format!("{off}{bitmap}"))?;
    ensure!((150..=250).contains(&used), "a bitmap scan of 200 pages used {used} of {requested}");

    let (requested, used, _) = server.grown("SET default_statistics_target = 1; ANALYZE t")?;
    // A sample that happens to lie close together looks like a sequence here and there.
    ensure!(used > 100 && requested < 2 * used, "ANALYZE of a sample of 300 rows used {used} of {requested}");

    let (requested, used, _) = server.grown("SELECT pg_prewarm('t')")?;
    ensure!(used * 10 > pages * 9, "pg_prewarm of {pages} pages used {used} of {requested}");

    // Nothing reads what mode `prefetch` asks for: without a file cache no more of it than one session may have asked for ahead.
    let (requested, used, asked) = server.grown("SELECT pg_prewarm('t', 'prefetch')")?;
    ensure!(
        (200..=300).contains(&requested) && used < 50 && asked < 50,
        "pg_prewarm's mode 'prefetch' asked for {requested} pages ahead and {asked} at once, {used} used"
    );

    // VACUUM reads a table's end backwards, with advice, to find out whether it can be cut.
    server.sql("DELETE FROM t WHERE n > 15000")?;
    let (requested, used, _) = server.grown("VACUUM t")?;
    ensure!(used > 300, "VACUUM used {used} of {requested}");

    let (requested, ..) = server.grown("SET strata.prefetch_max = 0; SELECT count(filler) FROM t")?;
    ensure!(requested == 0, "{requested} pages asked for ahead in a session that wants none");
    server.nothing_is_held()?;
    ensure!(server.stat("refused")? == 0, "the pageserver refused pages");
    let role = server.sql(
        "CREATE ROLE watcher IN ROLE pg_monitor; SET ROLE watcher; SELECT count(*) FROM strata_stat_prefetch",
    )?;
    ensure!(role == "1", "pg_monitor cannot read the view: {role}");
    Ok(())
}

/// CREATE DATABASE copies in the middle of a command that watches the process's exit, too.
#[test]
fn a_database_is_copied_ahead() -> Result<()> {
    let server = Server::with(&[])?;
    let before = server.stat("used")?;
    server.sql("CREATE DATABASE copied TEMPLATE template0 STRATEGY wal_log")?;
    ensure!(server.stat("used")? > before, "nothing was asked for ahead: the test shows nothing");
    server.nothing_is_held()
}

/// Each worker of a parallel scan asks ahead for itself, and what it has left over goes with it.
#[test]
fn parallel_scans_are_asked_for_ahead() -> Result<()> {
    let server = Server::with(&[])?;
    let pages = server.number("SELECT pg_relation_size('t') / 8192")?;
    let parallel = "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
        SET min_parallel_table_scan_size = 0; SET min_parallel_index_scan_size = 0; SET enable_bitmapscan = off; SET cpu_tuple_cost = 1;";
    let expected = format!("{ROWS}|{}|{}", ROWS * (ROWS + 1) / 2, ROWS * 900);
    let query = "SELECT count(*), sum(n), sum(length(filler)) FROM t";
    let scans = [
        ("Parallel Seq Scan", "SET enable_indexscan = off;", query.to_owned()),
        ("Parallel Index Scan", "SET enable_seqscan = off;", format!("{query} WHERE n > 0")),
    ];
    for (scan, off, query) in &scans {
        let explained = server.sql(&format!("{parallel} {off} EXPLAIN (ANALYZE, COSTS OFF) {query}"))?;
        ensure!(explained.contains(scan) && explained.contains("Workers Launched: 2"), "{explained}");
        let (requested, used, _) = server.grown(&format!("{parallel} {off} {query}"))?;
        // Of a small table each worker gets a page or two at a time, which is no sequence.
        ensure!(used * 10 > pages, "{scan} of {pages} pages used {used} of {requested}");
        server.sql("SELECT evict('t')")?;
        let sums = server.sql(&format!("{parallel} {off} {query}"))?;
        ensure!(sums == expected, "{scan} reads the table as {sums}");
    }
    server.nothing_is_held()
}

/// A transaction that is prepared is over for its session.
#[test]
fn a_prepared_transaction_holds_nothing() -> Result<()> {
    let server = Server::with(&["max_prepared_transactions=10"])?;
    server.sql("SELECT evict('t')")?;
    let mut session = Session::open(&server.compute)?;
    session.sql("BEGIN; CREATE TABLE made(n int); SELECT pg_prewarm('t', 'prefetch', 'main', 0, 99)")?;
    ensure!(server.stat("held_pages")? == 100, "nothing is held: the test shows nothing");
    session.sql("PREPARE TRANSACTION 'p'")?;
    server.nothing_is_held()?;
    session.sql("ROLLBACK PREPARED 'p'")?;
    server.scan()
}

/// Memory for no page at all, and for fewer than one scan wants.
#[test]
fn without_memory_and_with_little() -> Result<()> {
    let server = Server::with(&["strata.prefetch_buffers=0"])?;
    server.scan()?;
    ensure!(server.sql("SELECT count(*) FROM strata_stat_prefetch")? == "0", "there is nothing to count");
    drop(server);
    let server = Server::with(&["strata.prefetch_buffers=40"])?;
    std::thread::scope(|scope| {
        let scans: Vec<_> = (0..4).map(|_| scope.spawn(|| server.scan())).collect();
        scans.into_iter().try_for_each(|scan| scan.join().map_err(|_| anyhow::anyhow!("a scan panicked"))?)
    })?;
    ensure!(server.stat("used")? > 0, "nothing was used");
    server.nothing_is_held()
}

/// What the file cache has is not asked for ahead either.
#[test]
fn what_the_cache_has_is_not_asked_for() -> Result<()> {
    let server = Server::with(&["strata.lfc_max_size=64MB"])?;
    server.scan()?;
    let (requested, ..) = server.grown("SELECT count(filler) FROM t")?;
    ensure!(requested < 100, "{requested} pages asked for that the cache has");
    server.scan()
}

/// pg_prewarm's modes `prefetch` and `read` put no page into shared buffers. All leave them in the file cache, and ask for none twice.
#[test]
fn pg_prewarm_fills_the_file_cache() -> Result<()> {
    let server = Server::with(&["strata.lfc_max_size=64MB", "strata.keeper_interval=300ms"])?;
    let pages = server.number("SELECT pg_relation_size('t') / 8192")?;
    for mode in ["prefetch", "read", "buffer"] {
        server.forget_pages()?;
        let (requested, _, asked) = server.grown(&format!("SELECT pg_prewarm('t', '{mode}')"))?;
        ensure!(requested + asked < pages + 300, "{mode}: {requested} + {asked} asked for of {pages}");
        // What is still under way when mode `prefetch` has asked for the last page is given up.
        let cached = server.cached()?;
        ensure!(cached + 256 >= pages, "{mode}: {cached} pages of {pages} are in the file cache");
        ensure!(mode == "prefetch" || cached == pages, "{mode}: {cached} pages of {pages}");
        // A new session may have asked for pages of catalogs ahead just before it looks.
        wait_until("all pages are counted", || {
            Ok(server.stat("requested - used - expired - wasted - cached - refused")? == 0)
        })?;
        let (requested, _, asked) = server.grown("SELECT count(filler) FROM t")?;
        ensure!(requested + asked < pages - cached + 300, "{mode}: a scan asked for {requested} + {asked}");
        server.scan()?;
    }
    ensure!(server.stat("cached")? > 2000, "nothing went from the pool to the cache");
    server.nothing_is_held()?;

    // What others changed after it was asked for is neither kept nor shown.
    server.forget_pages()?;
    let mut session = Session::open(&server.compute)?;
    session.sql("BEGIN; SELECT pg_prewarm('t', 'prefetch', 'main', 0, 99)")?;
    wait_until("the pages are there", || Ok(server.stat("unanswered")? == 0))?;
    server.sql("UPDATE t SET filler = repeat('y', 900) WHERE n <= 100")?;
    // Else the newer page would be there already.
    server.forget_pages()?;
    let wasted = server.stat("wasted")?;
    session.sql("COMMIT")?;
    ensure!(server.stat("wasted")? >= wasted + 10, "pages that changed were kept");
    let row = server.sql("SELECT count(*), min(filler) = repeat('y', 900) FROM t WHERE n <= 100")?;
    ensure!(row == "100|t", "changed rows read as {row}");
    server.scan()
}

/// With a file cache, advice beyond the pool waits for answers: that can be cancelled, and the pageserver's return resumes it.
#[test]
fn advice_that_waits_can_be_cancelled() -> Result<()> {
    let server = Server::with(&["strata.lfc_max_size=64MB", "strata.keeper_interval=300ms"])?;
    let pages = server.number("SELECT pg_relation_size('t') / 8192")?;
    let mut watcher = Watcher::open(&server)?;
    let mut session = Session::open(&server.compute)?;
    session.sql("SELECT pg_prewarm('t', 'prefetch')")?;
    server.forget_pages()?;
    for cancel in [true, false] {
        let standstill = server.standstill()?;
        std::thread::scope(|scope| -> Result<()> {
            // Whatever goes wrong here, the session comes to its end.
            let standstill = standstill;
            let reader = scope.spawn(|| session.sql("SELECT pg_prewarm('t', 'prefetch')"));
            let mut pid = String::new();
            wait_until("the session waits for a page", || {
                pid = watcher.waiting()?;
                Ok(!pid.is_empty())
            })?;
            if cancel {
                watcher.0.sql(&format!("SELECT pg_cancel_backend({pid})"))?;
                wait_until("the statement has ended", || Ok(reader.is_finished()))?;
            }
            drop(standstill);
            let ended = reader.join().map_err(|_| anyhow::anyhow!("the session panicked"))?;
            ensure!(ended.is_err() == cancel, "cancelled: {cancel}, and it ended with {ended:?}");
            Ok(())
        })?;
        server.nothing_is_held()?;
    }
    ensure!(server.cached()? + 256 >= pages, "{} pages of {pages} are in the file cache", server.cached()?);
    server.scan()
}

/// P1, P7: sessions that are cancelled and terminated while requests are under way hold nothing, and late answers do no harm.
#[test]
fn sessions_end_with_requests_under_way() -> Result<()> {
    let server = Server::with(&[])?;
    server.scan()?;
    let mut watcher = Watcher::open(&server)?;
    for how in ["pg_cancel_backend", "pg_terminate_backend"] {
        // All that the statements below need but the table's pages is known when the pageserver stands still.
        let mut session = Session::open(&server.compute)?;
        session.sql("SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t; SELECT evict('t')")?;
        let mut next = Session::open(&server.compute)?;
        for session in [&mut session, &mut next] {
            session.sql("BEGIN; SELECT pg_prewarm('t', 'prefetch', 'main', 0, 0)")?;
        }
        let standstill = server.standstill()?;
        session.sql("SELECT pg_prewarm('t', 'prefetch', 'main', 1, 220)")?;
        ensure!(watcher.unanswered()? > 0, "nothing is under way: the test shows nothing");
        std::thread::scope(|scope| -> Result<()> {
            // Whatever goes wrong here, the reader comes to its end.
            let standstill = standstill;
            let reader = scope.spawn(|| session.sql("SELECT count(filler) FROM t"));
            let mut pid = String::new();
            wait_until("the reader waits for a page", || {
                pid = watcher.waiting()?;
                Ok(!pid.is_empty())
            })?;
            watcher.0.sql(&format!("SELECT {how}({pid})"))?;
            wait_until("the reader has ended", || Ok(reader.is_finished()))?;
            let ended = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
            ensure!(ended.is_err(), "the reader was not interrupted");
            // Its transaction is over, or its process; only the other one's page is held, though no answer has come.
            wait_until("nothing is held", || Ok(watcher.held()? == "1|1"))?;
            // Others take the same slots before the late answers come.
            next.sql("SELECT pg_prewarm('t', 'prefetch', 'main', 500, 700)")?;
            drop(standstill);
            Ok(())
        })?;
        let rows = next
            .sql("SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*), sum(n) FROM t")?;
        ensure!(rows == format!("{ROWS}|{}", ROWS * (ROWS + 1) / 2), "the table reads as {rows}");
        next.sql("COMMIT")?;
        server.scan()?;
        server.nothing_is_held()?;
    }
    Ok(())
}

/// The pageserver is killed with requests under way: they are asked again when it is back.
#[test]
fn the_pageserver_goes_and_comes() -> Result<()> {
    let server = Server::with(&[])?;
    server.scan()?;
    let mut watcher = Watcher::open(&server)?;
    let mut session = Session::open(&server.compute)?;
    session.sql("SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*), sum(n) FROM t; SELECT evict('t')")?;
    session.sql("BEGIN; SELECT pg_prewarm('t', 'prefetch', 'main', 0, 0)")?;
    let standstill = server.standstill()?;
    session.sql("SELECT pg_prewarm('t', 'prefetch', 'main', 1, 220)")?;
    ensure!(watcher.unanswered()? > 0, "nothing is under way: the test shows nothing");
    kill(standstill.0, Signal::SIGKILL)?;
    wait_until("the pageserver is gone", || Ok(kill(standstill.0, None).is_err()))?;
    drop(standstill);
    server.whole.strata(&["pageserver", "start", "1"])?;
    let rows = session.sql("SELECT count(*), sum(n) FROM t")?;
    ensure!(rows == format!("{ROWS}|{}", ROWS * (ROWS + 1) / 2), "the table reads as {rows}");
    session.sql("COMMIT")?;
    ensure!(server.stat("used")? > 200, "what was under way was not used");
    server.nothing_is_held()
}

/// One session's part of the mixed load, on a table of its own; what it must come to is known. Number 0 is of a table that shrinks
/// and grows, 1 of one that is emptied, 2 of one that is dropped and made again.
fn work(server: &Server, number: usize, rounds: i64) -> Result<()> {
    let mut session = Session::open(&server.compute)?;
    let table = format!("m{number}");
    let make = format!(
        "CREATE TABLE {table} AS SELECT n, 0 AS v, repeat('m', 700) AS filler FROM generate_series(1, 3000) n"
    );
    session.sql(&make)?;
    for round in 1..=rounds {
        session.sql(&format!("UPDATE {table} SET v = {round} WHERE n % 3 = {}", round % 3))?;
        let sum = session
            .sql(&format!("SELECT count(*), sum(n), count(*) FILTER (WHERE v = {round}) FROM {table}"))?;
        ensure!(sum == format!("3000|{}|1000", 3000 * 3001 / 2), "{table} reads as {sum} in round {round}");
        match number {
            0 => {
                session.sql(&format!("DELETE FROM {table} WHERE n > 1500"))?;
                session.sql(&format!("VACUUM {table}"))?;
                let sum = session.sql(&format!("SELECT count(*), sum(n) FROM {table}"))?;
                ensure!(sum == format!("1500|{}", 1500 * 1501 / 2), "{table} was cut and reads as {sum}");
                session.sql(&format!(
                    "INSERT INTO {table} SELECT n, 0, repeat('m', 700) FROM generate_series(1501, 3000) n"
                ))?;
            }
            1 => {
                session.sql(&format!(
                    "BEGIN; CREATE TEMP TABLE kept AS SELECT * FROM {table}; TRUNCATE {table}"
                ))?;
                session.sql(&format!("INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept; COMMIT"))?;
            }
            _ => {
                session.sql(&format!("DROP TABLE {table}"))?;
                session.sql(&make)?;
            }
        }
    }
    Ok(())
}

/// Updates, cuts, TRUNCATE and DROP, with hardly any buffers, while others scan all of it: nobody reads a wrong row, and
/// `strata.compare_local` finds no wrong page.
#[test]
fn a_mixed_load_reads_right() -> Result<()> {
    let server = Server::with(&["shared_buffers=2MB", "strata.keeper_interval=300ms"])?;
    let rounds = if size::is_full() { 60 } else { 8 };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut session = Session::open(&server.compute)?;
                    while !done.load(Ordering::Acquire) {
                        server.scan()?;
                        for table in ["m0", "m1", "m2"] {
                            // It may be gone just now, or empty; what is read of it is whole.
                            let sql =
                                format!("SELECT count(*), coalesce(min(length(filler)), 700) FROM {table}");
                            match session.sql(&sql) {
                                Ok(row) => ensure!(row.ends_with("|700"), "{table} reads as {row}"),
                                Err(error) => {
                                    let text = format!("{error:#}");
                                    let known = ["does not exist", "could not open relation", "deadlock"];
                                    ensure!(
                                        known.iter().any(|known| text.contains(known)),
                                        "{table}: {text}"
                                    );
                                }
                            }
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        let server = &server;
        let writers: Vec<_> =
            (0..3).map(|number| scope.spawn(move || work(server, number, rounds))).collect();
        let outcomes: Vec<Result<()>> = writers
            .into_iter()
            .map(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?)
            .collect();
        done.store(true, Ordering::Release);
        for reader in readers {
            reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        outcomes.into_iter().collect()
    })?;
    let counts = server.sql("SELECT used, expired FROM strata_stat_prefetch")?;
    ensure!(server.stat("used")? > 1000, "hardly anything was asked for ahead: {counts}");
    server.nothing_is_held()?;
    server.whole.lose_compute(&server.compute)?;
    let compute = server.whole.start_compute("a", &[])?;
    let rows = server.whole.sql(&compute.connstr, "SELECT count(*), sum(n) FROM m0")?;
    ensure!(rows == format!("3000|{}", 3000 * 3001 / 2), "after a loss: {rows}");
    server.whole.amcheck(&compute)
}
