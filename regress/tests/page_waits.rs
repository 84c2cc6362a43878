//! Backends that wait for a page while the pageserver is away, killed or standing still: a timeout, a cancel and a termination each
//! end their wait, and the pageserver's return ends that of all others, with the right rows (P7, LV-1), at its address or at another.
//! Who spins before it sleeps gets the same rows, and can be cancelled as well.

use std::net::TcpListener;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use strata_regress::psql_session::PsqlSession;
use strata_regress::refusal::refuses;
use strata_regress::session::Session;
use strata_regress::traps::Ground;
use strata_regress::whole::{Compute, wait_until};

/// Sessions, each with a table of its own.
const SESSIONS: usize = 8;
const ROWS: usize = 20_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    Killed,
    /// Killed, and it comes back at another port.
    Moved,
    /// Its connections stay and say nothing.
    Stopped,
}

fn pageserver(ground: &Ground) -> Result<Pid> {
    let pid = ground.whole.node("pageservers", 1)?["pid"].as_i64().unwrap_or_default();
    ensure!(pid > 1, "the pageserver has no pid");
    Ok(Pid::from_raw(pid as i32))
}

fn go_away(ground: &Ground, away: Away, pageserver: Pid) -> Result<()> {
    match away {
        Away::Killed | Away::Moved => ground.whole.kill_node("pageservers", 1),
        Away::Stopped => Ok(kill(pageserver, Signal::SIGSTOP)?),
    }
}

fn come_back(ground: &Ground, away: Away, pageserver: Pid) -> Result<()> {
    match away {
        Away::Killed => ground.whole.strata(&["pageserver", "start", "1"]).map(drop),
        Away::Moved => {
            let port = ground.whole.spare_port().to_string();
            ground.whole.strata(&["pageserver", "start", "1", "--port", &port]).map(drop)
        }
        Away::Stopped => Ok(kill(pageserver, Signal::SIGCONT)?),
    }
}

/// `strata status` ends, and says who stands still.
fn status_says_so(ground: &Ground) -> Result<()> {
    let problem = ground.whole.node("pageservers", 1)?["problem"].to_string();
    ensure!(problem.contains("it does not answer"), "{problem}");
    Ok(())
}

/// Every session's table is in no buffer, and nothing else has to be read for counting it.
fn prepare<'a>(ground: &'a Ground, compute: &'a Compute) -> Result<Vec<PsqlSession<'a>>> {
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        ground.sql(compute, &format!("CREATE TABLE t{n} AS SELECT generate_series(1, {ROWS}) AS id"))?;
        ground.sql(compute, &format!("VACUUM (FREEZE, ANALYZE) t{n}"))?;
        let mut session = ground.session(compute)?;
        session.run("SET max_parallel_workers_per_gather = 0")?;
        ensure!(session.run(&count(n))? == ROWS.to_string());
        sessions.push(session);
    }
    ground.caught_up(compute)?;
    Ok(sessions)
}

fn count(n: usize) -> String {
    format!("SELECT count(*) FROM t{n}")
}

fn waits_end(away: Away) -> Result<()> {
    let ground = Ground::whole()?;
    let compute = ground.compute(&["shared_buffers=32MB", "strata.lfc_max_size=0"])?;
    let mut sessions = prepare(&ground, &compute)?;
    let mut watcher = Session::open(&compute)?;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'StrataPageRequest'";
    ensure!(watcher.sql(waiting)? == "0");
    // What the watcher does later it does once now: it must not wait for a page of a catalog itself.
    watcher.sql("SELECT pg_cancel_backend(0), pg_terminate_backend(0)")?;
    watcher.sql("SELECT count(*) FROM pg_stat_activity WHERE pid = 0")?;
    let pids: Vec<String> =
        sessions.iter_mut().map(|session| session.run("SELECT pg_backend_pid()")).collect::<Result<_>>()?;
    for n in 0..SESSIONS {
        ensure!(ground.sql(&compute, &format!("SELECT evict('t{n}')"))? == "0");
    }

    let pageserver = pageserver(&ground)?;
    go_away(&ground, away, pageserver)?;
    sessions[0].run("SET statement_timeout = '300ms'")?;
    let begin = Instant::now();
    for (n, session) in sessions.iter_mut().enumerate() {
        session.start(&count(n))?;
    }
    let said = sessions[0].finish()?;
    ensure!(said.contains("canceling statement due to statement timeout"), "{said}");
    let timed_out = begin.elapsed();
    wait_until("all others wait for a page", || Ok(watcher.sql(waiting)?.parse::<usize>()? == SESSIONS - 1))?;

    let begin = Instant::now();
    watcher.sql(&format!("SELECT pg_cancel_backend({})", pids[1]))?;
    let said = sessions[1].finish()?;
    ensure!(said.contains("canceling statement due to user request"), "{said}");
    let cancelled = begin.elapsed();

    let begin = Instant::now();
    watcher.sql(&format!("SELECT pg_terminate_backend({})", pids[2]))?;
    wait_until("the terminated backend is gone", || {
        let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", pids[2]);
        Ok(watcher.sql(&left)? == "0")
    })?;
    let terminated = begin.elapsed();
    ensure!(watcher.sql(waiting)?.parse::<usize>()? == SESSIONS - 3, "others gave up, too");

    if away == Away::Stopped {
        status_says_so(&ground)?;
    }
    let begin = Instant::now();
    come_back(&ground, away, pageserver)?;
    for session in &mut sessions[3..] {
        let said = session.finish()?;
        ensure!(said == ROWS.to_string(), "{said}");
    }
    eprintln!(
        "after a timeout of 300 ms: {timed_out:?}; after a cancel: {cancelled:?}; after a termination: {terminated:?}; \
         all resumed {:?} after the pageserver's return began",
        begin.elapsed()
    );
    // Those whose wait was cut short find the same rows, and nobody else's answer.
    sessions[0].run("RESET statement_timeout")?;
    for n in [0, 1] {
        ensure!(sessions[n].run(&count(n))? == ROWS.to_string());
    }
    let total: Vec<String> = (0..SESSIONS).map(|n| format!("(SELECT sum(id) FROM t{n})")).collect();
    let sum = ROWS * (ROWS + 1) / 2 * SESSIONS;
    ensure!(ground.sql(&compute, &format!("SELECT {}", total.join(" + ")))? == sum.to_string());
    if away == Away::Moved { stays_there(&ground, &compute) } else { Ok(()) }
}

/// After the pageserver has moved: a server that the supervisor starts anew finds it, and what cannot be is refused and changes nothing.
fn stays_there(ground: &Ground, compute: &Compute) -> Result<()> {
    let port = ground.whole.spare_port();
    let address = format!("127.0.0.1:{port}");
    ensure!(ground.sql(compute, "SHOW strata.pageserver")? == address);
    // A parallel worker starts from the built-in value of each setting and then takes its leader's.
    let mut session = ground.session(compute)?;
    session.run("SET debug_parallel_query = on")?;
    let found = session.run(&count(0))?;
    ensure!(found == ROWS.to_string(), "{found}");
    ensure!(ground.whole.node("pageservers", 1)?["port"] == port);
    // Nobody but the supervisor says where it is, and what is no address is refused whoever says it.
    refuses(
        &ground.whole,
        &["compute", "set", &compute.name, "strata.pageserver=127.0.0.1:1"],
        &["is set by strata"],
    )?;
    let file = compute.pgdata.join("pageserver.conf");
    let good = std::fs::read_to_string(&file)?;
    for bad in ["", "nowhere", "host:0", "host:65536"] {
        std::fs::write(&file, format!("strata.pageserver = '{bad}'\n"))?;
        let seen =
            "SELECT bool_or(error <> '') FROM pg_file_settings WHERE sourcefile LIKE '%pageserver.conf'";
        ensure!(ground.sql(compute, seen)? == "t", "'{bad}' is taken");
    }
    std::fs::write(&file, good)?;
    let refuse = |port: u16, why: &str| {
        let port = port.to_string();
        refuses(&ground.whole, &["pageserver", "start", "1", "--port", &port], &[why])
    };
    refuse(port, "runs already")?;
    ground.whole.strata(&["pageserver", "stop", "1"])?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    refuse(taken.local_addr()?.port(), "is taken by another process")?;
    refuse(
        ground.whole.node("safekeepers", 1)?["port"].as_u64().context("a port")? as u16,
        "another process's",
    )?;
    ensure!(ground.whole.node("pageservers", 1)?["port"] == port, "what failed is not kept");
    ground.whole.strata(&["pageserver", "start", "1"])?;
    Ok(())
}

#[test]
fn waits_end_while_the_pageserver_is_gone() -> Result<()> {
    waits_end(Away::Killed)
}

#[test]
fn waits_end_when_the_pageserver_moves() -> Result<()> {
    waits_end(Away::Moved)
}

/// A Postgres ends while the pageserver is away: the supervisor has won its next term and waits, and goes on at the new address as the
/// same compute, not as one that another has beaten.
#[test]
fn a_start_that_waits_goes_on_where_the_pageserver_is() -> Result<()> {
    let ground = Ground::whole()?;
    let compute = ground.compute(&[])?;
    ground.sql(&compute, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")?;
    ground.whole.kill_node("pageservers", 1)?;
    kill(compute.postmaster()?, Signal::SIGKILL)?;
    let shown = || ground.whole.json(&["compute", "show", &compute.name]);
    wait_until("the supervisor waits for the pageserver", || {
        let shown = shown()?;
        Ok(shown["state"] == "starting"
            && shown["problem"].to_string().contains("waiting for the pageserver"))
    })?;
    let port = ground.whole.spare_port().to_string();
    ground.whole.strata(&["pageserver", "start", "1", "--port", &port])?;
    wait_until("the compute runs again", || Ok(shown()?["state"] == "running"))?;
    ensure!(ground.sql(&compute, "SELECT count(*) FROM t")? == "1000");
    ensure!(ground.sql(&compute, "SHOW strata.pageserver")? == format!("127.0.0.1:{port}"));
    Ok(())
}

#[test]
fn waits_end_while_the_pageserver_stands_still() -> Result<()> {
    waits_end(Away::Stopped)
}

fn spins_answered(session: &mut Session) -> Result<u64> {
    let counters: Value = serde_json::from_str(&session.sql("SHOW strata.counters")?)?;
    counters["spins_answered"].as_u64().with_context(|| counters.to_string())
}

/// Nobody else spins here, and pages come one by one, as quickly as they can.
#[test]
fn who_spins_gets_its_rows_and_can_be_cancelled() -> Result<()> {
    const SPINS: &str =
        "SET strata.spin_limit = 1000; SET io_combine_limit = 1; SET max_parallel_workers_per_gather = 0";
    let ground = Ground::whole()?;
    let compute =
        ground.compute(&["strata.lfc_max_size=0", "strata.prefetch_max=0", "strata.spin_limit=0"])?;
    ground.sql(&compute, &format!("CREATE TABLE t AS SELECT generate_series(1, {ROWS}) AS id"))?;
    ground.sql(&compute, "VACUUM (FREEZE, ANALYZE) t")?;
    ground.caught_up(&compute)?;
    let mut watcher = Session::open(&compute)?;
    let mut session = ground.session(&compute)?;
    let pid = session.run("SELECT pg_backend_pid()")?;
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'StrataPageRequest'"
    );
    // What the watcher does later it does once now: it must not wait for a page of a catalog itself.
    watcher.sql(&format!("SELECT pg_cancel_backend(0); {waiting}"))?;
    session.run(SPINS)?;
    let mut read = || -> Result<()> {
        ensure!(ground.sql(&compute, "SELECT evict('t')")? == "0");
        let said = session.run("SELECT count(*) FROM t")?;
        ensure!(said == ROWS.to_string(), "{said}");
        Ok(())
    };
    read()?;
    let has_cores = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    if has_cores {
        // A busy machine may be slow for a while: then there is no spinning.
        wait_until("answers come while their owner spins", || {
            read()?;
            Ok(spins_answered(&mut watcher)? > 0)
        })?;
    } else {
        ensure!(spins_answered(&mut watcher)? == 0, "there is nobody else to bring an answer");
    }

    ensure!(ground.sql(&compute, "SELECT evict('t')")? == "0");
    let pageserver = pageserver(&ground)?;
    go_away(&ground, Away::Stopped, pageserver)?;
    session.start("SELECT count(*) FROM t")?;
    wait_until("it waits for a page", || Ok(watcher.sql(&waiting)? == "1"))?;
    watcher.sql(&format!("SELECT pg_cancel_backend({pid})"))?;
    let said = session.finish()?;
    ensure!(said.contains("canceling statement due to user request"), "{said}");
    come_back(&ground, Away::Stopped, pageserver)?;
    let said = session.run("SELECT count(*) FROM t")?;
    ensure!(said == ROWS.to_string(), "{said}");
    // Where spinning is switched off it ends at once.
    session.run("SET strata.spin_limit = 0")?;
    let before = spins_answered(&mut watcher)?;
    ensure!(ground.sql(&compute, "SELECT evict('t')")? == "0");
    ensure!(session.run("SELECT count(*) FROM t")? == ROWS.to_string());
    ensure!(spins_answered(&mut watcher)? == before, "a session spun that must not");
    Ok(())
}
