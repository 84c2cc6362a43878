//! Pages that are asked for ahead of index scans: the same rows with it and without, whatever ends a scan or comes between; how much of
//! the waiting it saves; and how many of the pages nobody reads. The pageserver's answers come late, and every page is compared with a
//! local copy (`strata.compare_local`).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use strata_regress::evict::EVICT;
use strata_regress::session::Session;
use strata_regress::slow_pages::SlowPages;
use strata_regress::whole::{Compute, Whole, sets, wait_until};

/// `k` is all over the table (2,500 pages of eight rows), `n` in its order, and eight rows have the same `g`.
const OBJECTS: &str = "
    CREATE EXTENSION strata;
    CREATE TABLE t WITH (autovacuum_enabled = off) AS
        SELECT n, n * 7919 % 20011 AS k, n * 7919 % 20011 / 8 AS g, repeat('x', 900) AS filler FROM generate_series(1, 20000) n;
    CREATE INDEX t_n ON t(n); CREATE INDEX t_k ON t(k); CREATE INDEX t_g ON t(g);
    CREATE TABLE keys AS SELECT m * 17 AS a FROM generate_series(1, 100) m;
    CREATE TABLE p(k int, filler text) PARTITION BY HASH (k);
    CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 3, REMAINDER 0); CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 3, REMAINDER 1);
    CREATE TABLE p2 PARTITION OF p FOR VALUES WITH (MODULUS 3, REMAINDER 2);
    INSERT INTO p SELECT k, filler FROM t WHERE k < 2000; CREATE INDEX p_k ON p(k);
    CREATE TABLE few AS SELECT m AS k FROM generate_series(1, 150) m; CREATE INDEX few_k ON few(k);
    CREATE FUNCTION fails_at(x int, bad int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM count(filler) FROM t WHERE k BETWEEN x + 100 AND x + 115; RETURN 100 / (x - bad); END $$;
    CREATE FUNCTION caught(x int) RETURNS text LANGUAGE plpgsql AS
    $$ DECLARE sum int; BEGIN
       SELECT sum(fails_at(k, x + 12)) INTO sum FROM (SELECT k, filler FROM t WHERE k BETWEEN x AND x + 40 ORDER BY k OFFSET 0) s WHERE filler <> '';
       RETURN sum; EXCEPTION WHEN division_by_zero THEN
       RETURN (SELECT count(filler) FROM t WHERE k BETWEEN x + 200 AND x + 220); END $$;
    VACUUM ANALYZE";

const MERGED: &str = "SELECT k, length(filler) FROM p WHERE k BETWEEN 1 AND 1300 ORDER BY k LIMIT 900";
const SUBPLAN: &str =
    "SELECT sum((SELECT length(p.filler) FROM p WHERE p.k = t.k)) FROM t WHERE k BETWEEN 100 AND 300";

/// Index scans only; each statement says which joins.
const PLANS: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; SET enable_sort = off";

struct Server {
    whole: Whole,
    compute: Compute,
    slow: SlowPages,
}

#[derive(Clone, Copy, Debug)]
struct Counts {
    requested: i64,
    used: i64,
    waited: i64,
    wasted: i64,
    /// Blocks that were asked for when they were read.
    missed: i64,
}

impl Server {
    fn start() -> Result<Server> {
        let whole = Whole::started()?;
        let slow = SlowPages::before(&whole)?;
        let settings = [
            "shared_buffers=8MB",
            "autovacuum=off",
            "max_parallel_workers_per_gather=0",
            "strata.lfc_max_size=0",
            "strata.compare_local=on",
        ];
        let compute = whole.start_compute("a", &sets(settings))?;
        let server = Server { whole, compute, slow };
        let mut session = server.session()?;
        // VACUUM wants to be alone.
        let (objects, vacuum) = OBJECTS.rsplit_once(';').context("statements")?;
        session.sql(EVICT)?;
        session.sql(objects)?;
        session.sql(vacuum)?;
        server.slow.delay(Duration::from_millis(2));
        Ok(server)
    }

    fn session(&self) -> Result<Session> {
        Session::open(&self.compute)
    }

    fn counts(&self) -> Result<Counts> {
        let mut session = self.session()?;
        let row = session.sql(
            "SELECT requested, used, waited, wasted, (SELECT blocks FROM strata_page_requests WHERE kind = 'pages') FROM strata_stat_prefetch",
        )?;
        let numbers = row.split('|').map(str::parse).collect::<Result<Vec<i64>, _>>()?;
        let [requested, used, waited, wasted, missed] =
            numbers[..].try_into().with_context(|| row.clone())?;
        Ok(Counts { requested, used, waited, wasted, missed })
    }

    fn nothing_is_held(&self) -> Result<()> {
        let mut session = self.session()?;
        wait_until("nothing is held", || {
            Ok(session.sql("SELECT open_requests, held_pages FROM strata_stat_prefetch")? == "0|0")
        })
    }

    /// Runs statements in a session of their own, with and without asking ahead; whatever each of them said, and what was counted.
    fn run(&self, ahead: bool, statements: &[&str]) -> Result<(Vec<String>, Counts)> {
        let mut session = self.session()?;
        session.sql(PLANS)?;
        session.sql(&format!("SET strata.prefetch_index_scans = {ahead}"))?;
        session.sql("SELECT evict('t')")?;
        let before = self.counts()?;
        let said = statements.iter().map(|sql| match session.sql(sql) {
            Ok(rows) => rows,
            Err(error) => format!("{:#}", error.root_cause()),
        });
        let said = said.collect();
        drop(session);
        self.nothing_is_held()?;
        let after = self.counts()?;
        let counts = Counts {
            requested: after.requested - before.requested,
            used: after.used - before.used,
            waited: after.waited - before.waited,
            wasted: after.wasted - before.wasted,
            missed: after.missed - before.missed,
        };
        Ok((said, counts))
    }

    /// The same rows either way.
    fn compare(&self, name: &str, statements: &[&str]) -> Result<(Counts, Counts)> {
        let (expected, without) = self.run(false, statements)?;
        let (said, with) = self.run(true, statements)?;
        ensure!(said == expected, "{name}: {said:?} with asking ahead, {expected:?} without");
        Ok((with, without))
    }
}

/// What a kind of scan must come to: blocks that are read when they are needed, of those without asking ahead (%), and blocks that
/// nobody reads, of those asked for beyond what sequences ask for (%), or this many.
struct Bound {
    missed_percent: i64,
    wasted_percent: i64,
    wasted_blocks: i64,
}

const fn bound(missed_percent: i64, wasted_percent: i64, wasted_blocks: i64) -> Bound {
    Bound { missed_percent, wasted_percent, wasted_blocks }
}

#[test]
fn index_scans_wait_less_and_waste_little() -> Result<()> {
    let server = Server::start()?;
    let joins = "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off; SET enable_memoize = off";
    let merge = "SET enable_hashjoin = off; SET enable_nestloop = off";
    let fetch = "FETCH 10 FROM c";
    let mut cursor = vec!["BEGIN; DECLARE c CURSOR FOR SELECT k, filler FROM t WHERE k > 3000 ORDER BY k"];
    cursor.extend([fetch; 30]);
    cursor.push("COMMIT");
    let cases: &[(&str, &[&str], Bound)] = &[
        (
            "in the table's order",
            &["SELECT count(filler) FROM t WHERE n BETWEEN 100 AND 8000"],
            bound(100, 50, 250),
        ),
        (
            "all over the table",
            &["SELECT count(filler) FROM t WHERE k BETWEEN 100 AND 1600"],
            bound(10, 2, 8),
        ),
        (
            "backwards",
            &[
                "SELECT count(filler) FROM (SELECT filler FROM t WHERE k BETWEEN 100 AND 1600 ORDER BY k DESC OFFSET 0) s",
            ],
            bound(10, 2, 8),
        ),
        ("LIMIT 10", &["SELECT k, filler FROM t WHERE k > 9000 ORDER BY k LIMIT 10"], bound(50, 0, 0)),
        (
            "LIMIT 10, most rows thrown away",
            &["SELECT k, filler FROM t WHERE k > 9000 AND n % 40 = 0 ORDER BY k LIMIT 10"],
            bound(40, 30, 0),
        ),
        (
            "LIMIT 1, many times",
            &[
                "SELECT sum(length(s.filler)) FROM generate_series(1, 200) m, LATERAL (SELECT filler FROM t WHERE k > m * 90 ORDER BY k LIMIT 1) s",
            ],
            bound(100, 0, 0),
        ),
        (
            "inner side of a nested loop",
            &[joins, "SELECT count(filler) FROM keys JOIN t ON t.g = keys.a"],
            bound(40, 5, 8),
        ),
        (
            "EXISTS",
            &[
                joins,
                "SELECT count(*) FROM keys WHERE EXISTS (SELECT 1 FROM t WHERE t.g = keys.a AND filler <> '')",
            ],
            bound(110, 0, 2),
        ),
        (
            "merge join that ends early",
            &[merge, "SELECT count(filler) FROM few JOIN t USING (k)"],
            bound(25, 53, 0),
        ),
        ("cursor, ten rows at a time", &cursor, bound(20, 53, 0)),
        (
            "loop of PL/pgSQL",
            &[
                "DO $$ DECLARE r record; sum bigint := 0; BEGIN FOR r IN SELECT n, filler FROM t WHERE k BETWEEN 7000 AND 7600 ORDER BY k LOOP sum := sum + r.n; END LOOP; RAISE NOTICE '%', sum; END $$",
            ],
            bound(15, 5, 8),
        ),
    ];
    let mut table = Vec::new();
    for (name, statements, bound) in cases {
        let (with, without) = server.compare(name, statements)?;
        check(&mut table, name, with, without, bound)?;
    }

    // Pages whose rows all can see are not read by an index-only scan.
    let only = "SET enable_indexonlyscan = on; SET enable_indexscan = off";
    server.whole.sql(&server.compute.connstr, "DELETE FROM t WHERE n % 100 = 0")?;
    let statements = [only, "SELECT count(k) FROM t WHERE k BETWEEN 1 AND 6000"];
    let (with, without) = server.compare("index-only", &statements)?;
    ensure!(with.requested < 400 && without.missed < 400, "{with:?}, {without:?}");
    check(&mut table, "index-only, a twelfth of the pages not all-visible", with, without, &bound(30, 5, 8))?;

    // Look-ups of single rows.
    let connstr = &server.compute.connstr;
    server.slow.delay(Duration::ZERO);
    server.whole.run("pgbench", &["-i", "-q", "-s", "1", connstr])?;
    server.whole.sql(connstr, "SELECT sum(evict(oid)) FROM pg_class WHERE relname LIKE 'pgbench_%'")?;
    let before = server.counts()?;
    server.whole.run("pgbench", &["-S", "-n", "-t", "2000", connstr])?;
    let after = server.counts()?;
    let requested = after.requested - before.requested;
    table.push(format!(
        "| pgbench -S, 2000 | {} | | {requested} | {} | |",
        after.missed - before.missed,
        after.used - before.used
    ));
    eprintln!("{}", table.join("\n"));
    // Three pages that happen to be next to each other look like a sequence, which is not an index scan's doing.
    let ahead = server.whole.sql(connstr, "SELECT index_scans FROM strata_stat_prefetch")?;
    server.whole.run("pgbench", &["-S", "-n", "-t", "500", connstr])?;
    let still = server.whole.sql(connstr, "SELECT index_scans FROM strata_stat_prefetch")?;
    ensure!(ahead == still, "look-ups of single rows asked for {ahead} to {still}");
    Ok(())
}

fn check(table: &mut Vec<String>, name: &str, with: Counts, without: Counts, bound: &Bound) -> Result<()> {
    table.push(format!(
        "| {name} | {} | {} | {} | {} | {} | {} |",
        without.missed + without.waited,
        with.missed + with.waited,
        with.requested,
        with.used,
        with.wasted,
        without.wasted
    ));
    let (missed, wasted) = (with.missed, with.wasted - without.wasted);
    let line = table.last().map_or("", String::as_str).to_owned();
    ensure!(
        missed * 100 <= without.missed * bound.missed_percent + 500,
        "waits: {line} {with:?} {without:?}"
    );
    let allowed = (with.requested * bound.wasted_percent / 100).max(bound.wasted_blocks);
    ensure!(wasted <= allowed, "wasted: {line}");
    Ok(())
}

/// Whatever ends a scan, and whatever runs between its rows.
#[test]
fn scans_that_are_cut_short_or_nested_read_the_same() -> Result<()> {
    let server = Server::start()?;
    let (declare, more) = (
        "DECLARE c SCROLL CURSOR FOR SELECT k, length(filler) FROM t WHERE k > 500 ORDER BY k",
        "DECLARE d CURSOR FOR SELECT k, length(filler) FROM t WHERE k > 5000 ORDER BY k DESC",
    );
    let scripts: &[(&str, &[&str])] = &[
        ("a function that fails", &[
            "SELECT sum(fails_at(k, 340)) FROM (SELECT k, filler FROM t WHERE k BETWEEN 300 AND 700 ORDER BY k OFFSET 0) s WHERE filler <> ''",
            "SELECT count(filler) FROM t WHERE k BETWEEN 300 AND 700",
        ]),
        ("a function that fails and goes on", &[
            "SELECT string_agg(caught(k), ',') FROM (SELECT k, filler FROM t WHERE k BETWEEN 1000 AND 1060 ORDER BY k OFFSET 0) s WHERE filler <> ''",
        ]),
        ("errors caught in a loop over a scan", &[
            "CREATE TEMP TABLE said(t text)",
            "DO $$ DECLARE r record; BEGIN FOR r IN SELECT k, filler FROM t WHERE k BETWEEN 2000 AND 2080 ORDER BY k LOOP
               BEGIN PERFORM fails_at(r.k, r.k - r.k % 3); INSERT INTO said VALUES (r.k || length(r.filler));
               EXCEPTION WHEN division_by_zero THEN INSERT INTO said VALUES ('caught ' || r.k); END; END LOOP; END $$",
            "SELECT string_agg(t, ',') FROM said",
        ]),
        ("cursors over savepoints", &[
            "BEGIN", declare, "FETCH 60 FROM c", "SAVEPOINT s", more, "FETCH 60 FROM d", "FETCH 30 FROM c",
            "SELECT 1 / 0 FROM (SELECT filler FROM t WHERE k > 700 ORDER BY k LIMIT 40) s WHERE filler <> ''",
            "ROLLBACK TO s", "FETCH 10 FROM d", "ROLLBACK TO s", "FETCH 60 FROM c", "FETCH BACKWARD 80 FROM c", "FETCH FORWARD 200 FROM c",
            "SAVEPOINT s2", more, "FETCH 60 FROM d", "RELEASE s2", "FETCH 60 FROM d", "MOVE 300 IN c", "FETCH 5 FROM c", "COMMIT",
        ]),
        ("a cursor whose subtransaction goes while it is fetched from", &[
            "BEGIN", "SAVEPOINT s",
            "DECLARE e CURSOR FOR SELECT fails_at(k, 545) FROM t WHERE k > 500 AND filler <> '' ORDER BY k",
            "FETCH 20 FROM e", "FETCH 40 FROM e", "ROLLBACK TO s", declare, "FETCH 100 FROM c", "COMMIT",
        ]),
        ("a cursor that is held", &[
            "BEGIN", "DECLARE h CURSOR WITH HOLD FOR SELECT k, length(filler) FROM t WHERE k BETWEEN 4000 AND 4300 ORDER BY k",
            "FETCH 50 FROM h", "COMMIT", "FETCH 50 FROM h", "CLOSE h",
        ]),
        ("commits in a procedure's loop", &[
            "CREATE TEMP TABLE kept(k int)",
            "DO $$ DECLARE r record; BEGIN FOR r IN SELECT k, filler FROM t WHERE k BETWEEN 6000 AND 6200 ORDER BY k LOOP
               INSERT INTO kept SELECT k FROM t WHERE k = r.k + 7 AND filler <> ''; COMMIT; END LOOP; END $$",
            "SELECT count(*), sum(k) FROM kept",
        ]),
        ("rows changed while they are read", &[
            "BEGIN", "UPDATE t SET g = g + 1 WHERE k BETWEEN 8000 AND 8300", "SELECT count(*), sum(g) FROM t WHERE k BETWEEN 8000 AND 8300",
            "SELECT k FROM t WHERE k BETWEEN 8100 AND 8150 AND filler <> '' FOR UPDATE", "ROLLBACK",
            "SELECT count(*), sum(g) FROM t WHERE k BETWEEN 8000 AND 8300",
        ]),
        ("lists of keys, both ways", &[
            "SELECT count(filler), sum(n) FROM t WHERE k = ANY (ARRAY(SELECT m * 13 FROM generate_series(1, 300) m))",
            "SELECT k, length(filler) FROM t WHERE k IN (15, 9, 4000, 12000, 12001, 12002) ORDER BY k DESC",
        ]),
        ("partitions", &[
            MERGED, SUBPLAN,
            "SET enable_hashjoin = off; SET enable_mergejoin = off; SELECT count(p.filler), sum(p.k) FROM few JOIN p ON p.k = few.k + 7",
            "SELECT count(*) FROM ((SELECT k, filler FROM t WHERE k BETWEEN 1 AND 300 ORDER BY k) UNION ALL (SELECT k, filler FROM t WHERE k BETWEEN 900 AND 1300 ORDER BY k) LIMIT 500) s WHERE filler <> ''",
        ]),
        ("several processes", &[
            "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_index_scan_size = 0; SET min_parallel_table_scan_size = 0",
            "SELECT count(filler), sum(n) FROM t WHERE k BETWEEN 100 AND 2600",
        ]),
    ];
    for (query, node) in [(MERGED, "Merge Append"), (SUBPLAN, "SubPlan 1")] {
        let mut session = server.session()?;
        let plan = session.sql(&format!("{PLANS}; EXPLAIN (COSTS OFF) {query}"))?;
        ensure!(plan.contains(node), "{query}: {plan}");
    }
    for (name, statements) in scripts {
        server.compare(name, statements)?;
    }
    // Side by side, with what was asked ahead shared out among them.
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..3)
            .map(|thread| {
                let server = &server;
                scope.spawn(move || -> Result<()> {
                    for (name, statements) in scripts.iter().skip(thread).step_by(3) {
                        let mut session = server.session()?;
                        session.sql(PLANS)?;
                        for _ in 0..2 {
                            let said = |session: &mut Session, ahead: bool| -> Result<Vec<String>> {
                                session.sql(&format!(
                                    "DISCARD TEMP; SET strata.prefetch_index_scans = {ahead}"
                                ))?;
                                session.sql("SELECT evict('t')")?;
                                let said = statements.iter().map(|sql| match session.sql(sql) {
                                    Ok(rows) => rows,
                                    Err(error) => format!("{:#}", error.root_cause()),
                                });
                                Ok(said.collect())
                            };
                            let with = said(&mut session, true)?;
                            let without = said(&mut session, false)?;
                            // Rows that another thread's UPDATE has locked make no difference: it is another script's only.
                            ensure!(
                                with == without,
                                "{name}: {with:?} with asking ahead, {without:?} without"
                            );
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    server.nothing_is_held()
}

/// P1, P7: a timeout in the middle of a scan, and what its session does afterwards.
#[test]
fn a_scan_that_times_out_holds_nothing() -> Result<()> {
    let server = Server::start()?;
    let mut session = server.session()?;
    session.sql(PLANS)?;
    let sql = "SELECT count(filler), sum(n) FROM t WHERE k BETWEEN 100 AND 2600";
    let expected = session.sql(sql)?;
    for inside in [false, true] {
        session.sql(if inside { "BEGIN; SAVEPOINT s" } else { "SELECT 1" })?;
        let before = server.counts()?;
        // Where the machine stands still for a moment, a scan ends before it has asked for anything ahead.
        wait_until("a scan was cancelled with pages under way", || {
            session.sql("SELECT evict('t')")?;
            session.sql("SET statement_timeout = '900ms'")?;
            server.slow.delay(Duration::from_millis(150));
            let ended = session.sql(sql);
            server.slow.delay(Duration::from_millis(2));
            let Err(error) = ended else { anyhow::bail!("the scan was not cancelled") };
            let text = format!("{:#}", error.root_cause());
            ensure!(text.contains("cancel"), "{text}");
            session.sql(if inside { "ROLLBACK TO s" } else { "SELECT 1" })?;
            session.sql("SET statement_timeout = 0")?;
            Ok(server.counts()?.requested > before.requested)
        })?;
        let rows = session.sql(sql)?;
        ensure!(rows == expected, "{rows} after a timeout, {expected} before");
        session.sql(if inside { "COMMIT" } else { "SELECT 1" })?;
        server.nothing_is_held()?;
    }
    Ok(())
}
