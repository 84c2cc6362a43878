//! A whole Strata over the ends of all counters: transaction ids, multixact ids, their members' offsets, OIDs (traps S6, S10, S11,
//! R14). The counters are brought close to their ends by log records (`strata_regress::counters`); then everything wraps in one
//! life of a compute, with prepared transactions and subtransactions on both sides, and the computes after it agree.

use anyhow::{Context, Result, ensure};
use strata_pgwal::FullTransactionId;
use strata_regress::counters::{NewPage, move_counters};
use strata_regress::session::Session;
use strata_regress::whole::{Compute, Whole};

const SETTINGS: [&str; 4] = ["--set", "autovacuum=off", "--set", "shared_buffers=16MB"];

const MAKE: &str = "
    CREATE EXTENSION strata;
    CREATE TABLE s(i int);
    CREATE TABLE m(id int PRIMARY KEY, v int);
    INSERT INTO m SELECT i, 0 FROM generate_series(1, 1500) i;
    CREATE PROCEDURE subtransactions(first int, count int) LANGUAGE plpgsql AS $$
    BEGIN
      FOR i IN first..first + count - 1 LOOP
        BEGIN
          INSERT INTO s VALUES (i);
          IF i % 3 = 0 THEN RAISE EXCEPTION 'undone'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
      END LOOP;
    END $$;
    ALTER DATABASE template0 ALLOW_CONNECTIONS true";

/// Numbers left of each kind: transactions, multixacts, offsets (odd, so that a multixact lies across the wrap), OIDs.
const XID: u32 = u32::MAX - 2295;
const MULTI: u32 = u32::MAX - 1295;
const OFFSET: u32 = u32::MAX - 794;
const OID: u32 = u32::MAX - 295;
const EPOCH: u32 = 3;

/// Entries of one page (`clog.c`, `multixact.c`).
const CLOG_PAGE: i64 = 32768;
const OFFSETS_PAGE: i64 = 2048;
const MEMBERS_PAGE: i64 = 1636;

/// A compute whose counters are about to wrap; all rows of before are frozen, or they would be in the future.
fn near_the_wraps(whole: &Whole) -> Result<Compute> {
    let compute = whole.start_compute("a", &SETTINGS)?;
    whole.sql(&compute.connstr, MAKE)?;
    freeze(&compute)?;
    let end = whole.stop_compute("a")?.context("a clean stop")?;
    let pages = [
        NewPage::Clog(i64::from(XID) / CLOG_PAGE),
        NewPage::MultiOffsets(i64::from(MULTI) / OFFSETS_PAGE),
        NewPage::MultiMembers(i64::from(OFFSET) / MEMBERS_PAGE),
    ];
    move_counters(whole, &compute.pgdata, &end, &pages, |checkpoint| {
        checkpoint.next_xid = FullTransactionId::new(EPOCH, XID);
        (checkpoint.oldest_xid, checkpoint.oldest_xid_db) = (XID, 0);
        (checkpoint.next_multi, checkpoint.next_multi_offset) = (MULTI, OFFSET);
        (checkpoint.oldest_multi, checkpoint.oldest_multi_db) = (MULTI, 0);
        checkpoint.next_oid = OID;
    })?;
    let compute = whole.start_compute("b", &SETTINGS)?;
    // What the catalogs say of the oldest rows and multixacts is of another time, too.
    freeze(&compute)?;
    Ok(compute)
}

/// Forgets old transactions and multixacts in all databases.
fn freeze(compute: &Compute) -> Result<()> {
    for database in ["template0", "template1", "postgres"] {
        let mut session = Session::open_at(&compute.in_database(database)?)?;
        session.sql(
            "SET vacuum_multixact_freeze_min_age = 0; SET vacuum_multixact_freeze_table_age = 0;
             SET vacuum_freeze_min_age = 0; SET vacuum_freeze_table_age = 0",
        )?;
        session.sql("VACUUM (FREEZE)")?;
    }
    Ok(())
}

/// Counts and sums that every later compute must show as well.
const SEEN: &str =
    "SELECT count(*), sum(i), (SELECT sum(v) FROM m), (SELECT count(*) FROM pg_prepared_xacts),
    (SELECT count(*) FROM pg_largeobject_metadata) FROM s";

fn epoch(whole: &Whole, compute: &Compute) -> Result<String> {
    whole.sql(&compute.connstr, "SELECT pg_current_xact_id()::text::numeric::bigint >> 32")
}

#[test]
fn everything_wraps_and_the_next_computes_agree() -> Result<()> {
    let whole = Whole::started()?;
    let compute = near_the_wraps(&whole)?;
    ensure!(epoch(&whole, &compute)? == EPOCH.to_string(), "the transaction ids are elsewhere");
    let mut session = Session::open(&compute)?;
    // Open before the wrap, on both sides of it, and after it. More subtransactions than a backend's entry has room for.
    session.sql("BEGIN; CALL subtransactions(100000, 90); PREPARE TRANSACTION 'before'")?;
    session.sql("BEGIN; CALL subtransactions(1, 2000)")?;
    session.sql("COMMIT")?;
    let mut across = Session::open(&compute)?;
    across.sql("BEGIN; CALL subtransactions(200000, 90)")?;
    // Each row gets a multixact of a lock and of an update in a subtransaction.
    session.sql(
        "DO $$ BEGIN FOR i IN 1..1500 LOOP PERFORM 1 FROM m WHERE id = i FOR KEY SHARE;
         BEGIN UPDATE m SET v = v + 1 WHERE id = i; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$",
    )?;
    across.sql("CALL subtransactions(300000, 90); PREPARE TRANSACTION 'across'")?;
    session.sql("BEGIN; CALL subtransactions(400000, 90); PREPARE TRANSACTION 'after'")?;
    session.sql("SELECT count(lo_create(0)) FROM generate_series(1, 400)")?;
    session.sql(
        "CREATE TABLE made_after_the_wrap(n int PRIMARY KEY); INSERT INTO made_after_the_wrap VALUES (1)",
    )?;
    ensure!(epoch(&whole, &compute)? == (EPOCH + 1).to_string(), "the transaction ids have not wrapped");
    let oid: u32 = session.sql("SELECT 'made_after_the_wrap'::regclass::oid")?.parse()?;
    ensure!((16384..OID).contains(&oid), "the OIDs have not wrapped: {oid}");
    let seen = session.sql(SEEN)?;
    let (kept, sum) = kept(1, 2000);
    ensure!(seen == format!("{kept}|{sum}|1500|3|400"), "in the life of the wraps: {seen}");
    drop((session, across));

    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("c", &SETTINGS)?;
    ensure!(
        whole.sql(&compute.connstr, SEEN)? == seen,
        "after the loss: {}",
        whole.sql(&compute.connstr, SEEN)?
    );
    let counters =
        "SELECT next_multixact_id::text::bigint < 100000, next_multi_offset::text::bigint < 100000,
                    split_part(next_xid, ':', 1) FROM pg_control_checkpoint()";
    let counters = whole.sql(&compute.connstr, counters)?;
    ensure!(counters == format!("t|t|{}", EPOCH + 1), "the next compute's counters: {counters}");
    whole.amcheck(&compute)?;
    for gid in ["before", "across", "after"] {
        whole.sql(&compute.connstr, &format!("COMMIT PREPARED '{gid}'"))?;
    }
    // Rows of multixacts of before the wrap can be locked and changed.
    whole.sql(&compute.connstr, "UPDATE m SET v = v + 1")?;
    // Forgets what lies before: transaction status and multixacts are cut, over the wraps.
    freeze(&compute)?;
    let all = whole.sql(&compute.connstr, SEEN)?;
    let (count, total) = [(1, 2000), (100_000, 90), (200_000, 90), (300_000, 90), (400_000, 90)]
        .map(|(first, count)| self::kept(first, count))
        .into_iter()
        .fold((0, 0), |(counts, sums), (count, sum)| (counts + count, sums + sum));
    ensure!(all == format!("{count}|{total}|3000|0|400"), "after all commits: {all}");

    whole.lose_compute(&compute)?;
    let compute = whole.start_compute("d", &SETTINGS)?;
    ensure!(whole.sql(&compute.connstr, SEEN)? == all, "at last: {}", whole.sql(&compute.connstr, SEEN)?);
    whole.sql(&compute.connstr, "BEGIN; CALL subtransactions(500000, 90); COMMIT; UPDATE m SET v = v + 1")?;
    whole.amcheck(&compute)
}

/// Count and sum of what `subtransactions(first, count)` leaves.
fn kept(first: i64, count: i64) -> (i64, i64) {
    let kept = (first..first + count).filter(|i| i % 3 != 0);
    kept.fold((0, 0), |(count, sum), i| (count + 1, sum + i))
}
