//! L: positions in the log, and what a read must reflect.

use anyhow::{Context, Result, ensure};
use strata_common::{Guard, Lsn};
use strata_regress::session::Session;
use strata_regress::sound;
use strata_regress::traps::{Ground, OrHarm, WAITING, show, show_double};
use strata_regress::whole::{Compute, wait_until};

/// The log ends at a segment's end, and the insert pointer is behind the next segment's header: nothing ends there.
#[test]
fn l1_the_end_of_the_last_record_can_be_asked_for() -> Result<()> {
    show(Guard::EndOfLastRecord, |ground| {
        let compute = ground.compute(&[])?;
        let mut session = Session::open(&compute)?;
        session.sql("SELECT pg_database_size('postgres')")?;
        // Something may log just then; it does not every time.
        for _ in 0..3 {
            session.sql("SELECT pg_switch_wal()")?;
            session.sql("SELECT pg_database_size('postgres')").or_harm()?;
            session.sql("SELECT pg_logical_emit_message(true, 'more', '')")?;
        }
        Ok(())
    })
}

/// The supervisor's first record of a term at a segment's start.
#[test]
fn l1_a_term_begins_behind_a_header() -> Result<()> {
    show(Guard::BehindTheHeader, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(&compute, "CREATE TABLE t AS SELECT 1 AS n")?;
        end_log_for_good(ground, &compute, Boundary::Segment)?;
        let compute = ground.next_compute(&compute, &[]).or_harm()?;
        let rows = ground.sql(&compute, "SELECT count(*) FROM t").or_harm()?;
        sound!(rows == "1", "{rows} rows of one");
        Ok(())
    })
}

#[derive(Clone, Copy, Debug)]
enum Boundary {
    Page,
    Segment,
}

/// A page's header, and a segment's first one (`src/include/access/xlog_internal.h`).
const HEADER_BYTES: u64 = 24;
const LONG_HEADER_BYTES: u64 = 40;

fn insert_lsn(session: &mut Session) -> Result<Lsn> {
    Ok(session.sql("SELECT pg_current_wal_insert_lsn()")?.parse()?)
}

fn at_boundary(session: &mut Session, boundary: Boundary) -> Result<bool> {
    let lsn = insert_lsn(session)?;
    Ok(match boundary {
        Boundary::Page => lsn.page_offset() == HEADER_BYTES,
        Boundary::Segment => lsn.segment_offset(16 << 20) == LONG_HEADER_BYTES,
    })
}

/// Makes the last record end exactly at a boundary.
fn end_log(session: &mut Session, boundary: Boundary) -> Result<()> {
    /// What a message takes beside its text: record header, main data header (long), fixed part, prefix of no letters.
    const AROUND: u64 = 24 + 5 + 24 + 1;
    for _ in 0..100 {
        match boundary {
            Boundary::Segment => drop(session.sql("SELECT pg_switch_wal()")?),
            Boundary::Page => {
                let left = 8192 - insert_lsn(session)?.page_offset();
                // The short header of a short message, and a message without text, are left to another page.
                let text = if left > 512 { left - AROUND } else { 1000 };
                session
                    .sql(&format!("SELECT pg_logical_emit_message(false, '', repeat('x', {text}), true)"))?;
            }
        }
        if at_boundary(session, boundary)? {
            return Ok(());
        }
    }
    anyhow::bail!("the log does not end at the end of a {boundary:?}")
}

/// The same, with all of it at the pageserver, and so on a majority.
fn end_log_for_good(ground: &Ground, compute: &Compute, boundary: Boundary) -> Result<()> {
    let mut session = Session::open(compute)?;
    for _ in 0..20 {
        end_log(&mut session, boundary)?;
        ground.caught_up(compute)?;
        if at_boundary(&mut session, boundary)? {
            return Ok(());
        }
    }
    anyhow::bail!("something is logged again and again: the test shows nothing")
}

/// Stops and losses with the log's end at the end of a page and of a segment, and work in each life.
#[test]
fn l1_restarts_at_boundaries() -> Result<()> {
    let ground = Ground::whole()?;
    let mut compute = ground.compute(&[])?;
    ground.sql(&compute, "CREATE TABLE t(n int)")?;
    let mut expected = 0;
    for boundary in [Boundary::Page, Boundary::Segment] {
        for lose in [true, false] {
            ground.sql(&compute, "INSERT INTO t SELECT generate_series(1, 100)")?;
            expected += 100;
            end_log_for_good(&ground, &compute, boundary)?;
            compute = match lose {
                true => ground.next_compute(&compute, &[])?,
                false => {
                    ground.whole.stop_compute(&compute.name)?.context("a clean stop")?;
                    ground.bare_compute(&compute.name, &[])?
                }
            };
            let rows = ground.sql(&compute, "SELECT count(*) FROM t")?;
            ensure!(rows == expected.to_string(), "{boundary:?}, lost: {lose}: {rows} rows of {expected}");
        }
    }
    Ok(())
}

/// The first record of a segment is a prepared transaction; its file in the next compute comes from that record.
#[test]
fn l1_a_prepared_transaction_first_on_a_segment() -> Result<()> {
    let ground = Ground::whole()?;
    let compute = ground.compute(&[])?;
    ground.sql(&compute, "CREATE EXTENSION pg_walinspect; CREATE TABLE t(n int)")?;
    let mut session = Session::open(&compute)?;
    let mut first = String::new();
    for attempt in 0..5 {
        session.sql(
            "BEGIN; INSERT INTO t SELECT generate_series(1, 100); SAVEPOINT a; INSERT INTO t VALUES (-1)",
        )?;
        end_log(&mut session, Boundary::Segment)?;
        let place = insert_lsn(&mut session)?;
        session.sql(&format!("PREPARE TRANSACTION 'first{attempt}'"))?;
        let record = format!("SELECT record_type FROM pg_get_wal_record_info('{place}')");
        first = session.sql(&record)?;
        if first == "PREPARE" {
            break;
        }
        session.sql(&format!("ROLLBACK PREPARED 'first{attempt}'"))?;
    }
    ensure!(first == "PREPARE", "the first record is {first}: the test shows nothing");
    let gid = ground.sql(&compute, "SELECT gid FROM pg_prepared_xacts")?;
    drop(session);
    let compute = ground.next_compute(&compute, &[])?;
    ensure!(ground.sql(&compute, "SELECT count(*) FROM t")? == "0", "a prepared transaction is visible");
    ensure!(
        ground.sql(&compute, "SELECT gid FROM pg_prepared_xacts")? == gid,
        "the prepared transaction is gone"
    );
    ground.sql(&compute, &format!("COMMIT PREPARED '{gid}'"))?;
    let compute = ground.next_compute(&compute, &[])?;
    let rows = ground.sql(&compute, "SELECT count(*), sum(n) FROM t")?;
    ensure!(rows == "101|5049", "{rows}");
    Ok(())
}

/// A new compute knows of no page when it was changed last. A pageserver that has restarted and has not read all log yet must not
/// answer with what it had stored.
#[test]
fn l7_nothing_from_before_the_start() -> Result<()> {
    show_double([Guard::FloorAtStart, Guard::StreamStart], |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(&compute, "CREATE TABLE t AS SELECT n, 'old' AS v FROM generate_series(1, 50) n")?;
        ground.caught_up(&compute)?;
        // What it has is stored now.
        ground.whole.strata(&["pageserver", "stop", "1"])?;
        ground.whole.strata(&["pageserver", "start", "1"])?;
        ground.sql(&compute, "UPDATE t SET v = 'new'")?;
        let compute = ground.next_compute(&compute, &[])?;
        let mut session = Session::open(&compute)?;
        let mut watcher = Session::open(&compute)?;
        watcher.sql(WAITING)?;
        // All but the table itself is in buffers.
        session.sql("EXPLAIN SELECT min(n), max(v) FROM pg_class, generate_series(1, 2) n, (SELECT 'x' AS v) x GROUP BY v")?;
        let held = ground.hold_log();
        ground.whole.kill_node("pageservers", 1)?;
        ground.whole.strata(&["pageserver", "start", "1"])?;
        let seen = ground
            .do_while_held(&mut watcher, held, || session.sql("SELECT count(*), min(v), max(v) FROM t"))
            .or_harm()?;
        sound!(seen == "50|new|new", "the new compute sees {seen}");
        Ok(())
    })
}

/// A page that was changed and has left shared buffers is asked for before the pageserver has the change.
#[test]
fn l8_an_answer_waits_for_its_log() -> Result<()> {
    show(Guard::WaitForLog, |ground| {
        let compute: Compute = ground.compute(&[])?;
        ground.sql(&compute, "CREATE TABLE t AS SELECT n, 'old' AS v FROM generate_series(1, 50) n")?;
        ground.caught_up(&compute)?;
        let held = ground.hold_log();
        ground.sql(&compute, "UPDATE t SET v = 'new'")?;
        ground.sql(&compute, "SELECT evict('t')")?;
        let seen =
            ground.sql_while_held(&compute, held, "SELECT count(*), min(v), max(v) FROM t").or_harm()?;
        sound!(seen == "50|new|new", "the table shows {seen}");
        Ok(())
    })
}

/// A session asks for a page ahead; before it reads the page, another changes it, and it leaves shared buffers.
#[test]
fn l3_a_page_that_changed_is_not_read_as_it_was_asked_for() -> Result<()> {
    show(Guard::PrefetchRecheck, |ground| {
        let compute = ground.compute(&[])?;
        ground.sql(
            &compute,
            "CREATE EXTENSION pg_prewarm; CREATE TABLE t AS SELECT 'old' AS v FROM generate_series(1, 10)",
        )?;
        let mut reader = Session::open(&compute)?;
        ensure!(reader.sql("SELECT DISTINCT v FROM t")? == "old", "other rows");
        ensure!(ground.sql(&compute, "SELECT evict('t')")? == "0", "a page stays in shared buffers");
        reader.sql("BEGIN; SELECT pg_prewarm('t', 'prefetch')")?;
        let held = "SELECT unanswered, held_pages FROM strata_stat_prefetch";
        wait_until("the page is there", || Ok(ground.sql(&compute, held)? == "0|1"))?;
        ground.sql(&compute, "UPDATE t SET v = 'new'")?;
        ensure!(ground.sql(&compute, "SELECT evict('t')")? == "0", "a page stays in shared buffers");
        let rows = reader.sql("SELECT string_agg(DISTINCT v, ',') FROM t").or_harm()?;
        sound!(rows == "new", "a committed update is gone: rows are '{rows}'");
        let expired = ground.sql(&compute, "SELECT expired FROM strata_stat_prefetch")?;
        ensure!(expired != "0", "the page was not asked for ahead: the test shows nothing");
        Ok(())
    })
}
