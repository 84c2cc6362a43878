//! `/metrics` and `/status` of a compute: the numbers of the SQL views, in any case an answer, and no trace in the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use strata_regress::cached::CachedServer;
use strata_regress::postgres::{Cluster, Installation, Stop};
use strata_regress::session::Session;
use strata_regress::whole::{Whole, wait_until};

/// Far more than the few seconds that an answer may take, and less than a session that nobody waits for gets.
const ANSWER_MAX: Duration = Duration::from_secs(45);

/// Lines of `/metrics` as SQL has them.
const EXPECTED: &str = "
    SELECT format('file_cache_%s_total %s', key, value) FROM strata_lfc_stats c, jsonb_each_text(to_jsonb(c))
        WHERE key IN ('hits', 'misses', 'writes', 'damaged', 'skipped')
    UNION ALL SELECT format('file_cache_%s_bytes %s', replace(key, '_pages', ''), value::bigint * 8192)
        FROM strata_lfc_stats c, jsonb_each_text(to_jsonb(c)) WHERE key LIKE '%\\_pages'
    UNION ALL SELECT format('file_cache_state{state=\"%s\"} 1', state) FROM strata_lfc_stats
    UNION ALL SELECT format('prefetch_%s_total %s', key, value) FROM strata_stat_prefetch p, jsonb_each_text(to_jsonb(p))
        WHERE key NOT IN ('open_requests', 'unanswered', 'held_pages')
    UNION ALL SELECT format('prefetch_held_bytes %s', held_pages * 8192) FROM strata_stat_prefetch
    UNION ALL SELECT format('prefetch_open_requests %s', open_requests) FROM strata_stat_prefetch
    UNION ALL SELECT format('prefetch_unanswered_requests %s', unanswered) FROM strata_stat_prefetch
    UNION ALL SELECT format('working_set_bytes{window=\"%s\"} %s', label, strata_working_set_size(length) * 8192)
        FROM (VALUES ('1m', interval '1 minute'), ('5m', '5 minutes'), ('15m', '15 minutes'), ('1h', '1 hour'), ('total', NULL)) w(label, length)
    UNION ALL SELECT format('page_request_seconds_count{kind=\"%s\"} %s', kind, requests) FROM strata_page_requests
    UNION ALL SELECT format('page_request_seconds_bucket{kind=\"%s\",le=\"0.001024\"} %s', kind,
        (SELECT sum(cell) FROM unnest(latency_histogram) WITH ORDINALITY c(cell, n) WHERE n <= 11)) FROM strata_page_requests
    UNION ALL SELECT format('page_request_blocks_total{kind=\"%s\"} %s', kind, blocks) FROM strata_page_requests
    UNION ALL SELECT format('page_request_errors_total{kind=\"%s\"} %s', kind, errors) FROM strata_page_requests
    UNION ALL SELECT format('%s_bytes %s', key, value::pg_lsn - '0/0') FROM strata_lsns() l, jsonb_each_text(to_jsonb(l)) WHERE value IS NOT NULL
    UNION ALL SELECT format('connections_max %s', current_setting('max_connections'))
    ORDER BY 1";

fn get(address: &str, page: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(format!("GET {page} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("no answer from {page}"))?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer of HTTP")?;
    ensure!(head.contains(" 200 "), "{head}");
    Ok(body.to_owned())
}

fn address(whole: &Whole) -> Result<String> {
    let shown = whole.json(&["compute", "show", "a"])?;
    Ok(shown["metrics"].as_str().with_context(|| format!("no address of metrics in {shown}"))?.to_owned())
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|found| found.strip_prefix("strata_compute_") == Some(line))
}

/// Names, types and help as Prometheus wants them.
fn check_form(text: &str) -> Result<()> {
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').context("a help text")?;
            ensure!(name.starts_with("strata_compute_") && help.ends_with('.'), "{line}");
            family = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of_kind) = rest.split_once(' ').context("a type")?;
            ensure!(name == family, "{line} after the help of {family}");
            ensure!((of_kind == "counter") == name.ends_with("_total"), "{line}");
            kind = of_kind.to_owned();
        } else {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let suffix = name.strip_prefix(&family).with_context(|| format!("{line} is not of {family}"))?;
            ensure!(
                suffix.is_empty() || (kind == "histogram" && ["_bucket", "_sum", "_count"].contains(&suffix)),
                "{line}"
            );
            line.rsplit(' ').next().unwrap_or_default().parse::<f64>().with_context(|| line.to_owned())?;
        }
    }
    Ok(())
}

/// Metrics of a server that answers. Busy, it may not do so in the supervisor's time for it.
fn wait_up(address: &str) -> Result<String> {
    let mut text = String::new();
    wait_until("the server answers its supervisor", || {
        text = get(address, "/metrics")?;
        Ok(has(&text, "up 1"))
    })?;
    Ok(text)
}

#[test]
fn a_compute_tells_what_its_views_tell() -> Result<()> {
    let server = CachedServer::with(&["shared_buffers=8MB", "max_connections=37"])?;
    let (whole, compute) = (&server.whole, &server.compute);
    let address = address(whole)?;
    ensure!(address.parse::<SocketAddr>()?.ip().is_loopback(), "{address}");
    let mut idle = Session::open(compute)?;
    idle.sql("SELECT 1")?;
    let mut open = Session::open(compute)?;
    open.sql("BEGIN; SELECT 1")?;
    let mut text = String::new();
    // Between two equal answers of SQL nothing has moved.
    wait_until("SQL and the metrics agree", || {
        let before = idle.sql(EXPECTED)?;
        text = get(&address, "/metrics")?;
        let after = idle.sql(EXPECTED)?;
        let missing: Vec<&str> = before.lines().filter(|line| !has(&text, line)).collect();
        // Busy, the server may not answer the supervisor in time; and psql's backends take a moment to leave.
        if before != after || !has(&text, "up 1") || !has(&text, "connections{state=\"idle\"} 1") {
            return Ok(false);
        }
        ensure!(
            missing.is_empty() && before.lines().count() > 40,
            "not in the metrics: {missing:?} of\n{before}\n{text}"
        );
        Ok(true)
    })?;
    check_form(&text)?;
    for line in ["connections{state=\"idle in transaction\"} 1", "connections{state=\"active\"} 0"] {
        ensure!(has(&text, line), "no {line} in\n{text}");
    }
    let of_name = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("strata_compute_{name} ")));
        anyhow::Ok(line.with_context(|| format!("no {name}"))?.parse::<f64>()?)
    };
    ensure!(of_name("file_cache_hits_total")? > 0.0 && of_name("file_cache_used_bytes")? > 10e6, "{text}");
    ensure!(of_name("working_set_bytes{window=\"total\"}")? > 10e6, "{text}");
    let buckets: Vec<f64> = text
        .lines()
        .filter(|line| line.contains("seconds_bucket{kind=\"pages\""))
        .map(|line| Ok(line.rsplit(' ').next().context("a value")?.parse()?))
        .collect::<Result<_>>()?;
    ensure!(buckets.len() == 24 && buckets.is_sorted() && buckets[23] > 100.0, "{buckets:?}");
    let info = text.lines().find(|line| line.starts_with("strata_compute_info{")).context("no info")?;
    ensure!(info.contains("name=\"a\",branch=\"main\"") && info.ends_with("} 1"), "{info}");

    let status: Value = serde_json::from_str(&get(&address, "/status")?)?;
    ensure!(
        status["state"] == "running" && status["compute"] == "a" && status["http"] == address.as_str(),
        "{status}"
    );
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'strata %'";
    wait_until("no session is left", || Ok(idle.sql(sql)? == "0"))?;
    Ok(())
}

#[test]
fn a_server_that_stands_still_or_is_away_is_told_of() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "log_connections=on"])?;
    let address = address(&whole)?;
    // No database has the extension's objects, and nobody but monitoring may look.
    let text = wait_up(&address)?;
    ensure!(text.contains("working_set_bytes"), "{text}");
    check_form(&text)?;
    let document: Value = serde_json::from_str(&whole.sql(&compute.connstr, "SHOW strata.counters")?)?;
    ensure!(document["lsns"]["insert"].as_u64() > Some(0), "{document}");
    whole.sql(&compute.connstr, "CREATE ROLE nobody; CREATE ROLE watcher IN ROLE pg_monitor")?;
    whole.sql(&compute.connstr, "SET ROLE watcher; SHOW strata.counters")?;
    let denied = whole.sql(&compute.connstr, "SET ROLE nobody; SHOW strata.counters");
    ensure!(
        denied.is_err_and(|error| format!("{error:#}").contains("permission denied")),
        "anybody may look"
    );
    ensure!(
        whole.sql(&compute.connstr, "SELECT count(*) FROM pg_settings WHERE name = 'strata.counters'")?
            == "0",
        "it is hidden"
    );
    ensure!(whole.sql(&compute.connstr, "SET strata.counters = 'x'").is_err(), "it cannot be set");

    let sessions = || -> Result<usize> {
        let log = std::fs::read_to_string(whole.dir().join("run/compute-a.log"))?;
        Ok(log.matches("application_name=strata metrics").count())
    };
    let before = sessions()?;
    ensure!(before >= 1, "the sessions are not recognisable");
    let pid = compute.postmaster()?;
    kill(pid, Signal::SIGSTOP)?;
    let answers: Result<Vec<String>> = (0..3).map(|_| get(&address, "/metrics")).collect();
    let status = get(&address, "/status");
    kill(pid, Signal::SIGCONT)?;
    for text in answers? {
        ensure!(has(&text, "up 0") && text.contains("strata_compute_info{name=\"a\""), "{text}");
        ensure!(!text.contains("working_set"), "old numbers: {text}");
        check_form(&text)?;
    }
    ensure!(serde_json::from_str::<Value>(&status?)?["state"] == "running", "the supervisor goes on");
    let mut asked = 0;
    wait_until("the server answers again", || {
        asked += 1;
        Ok(has(&get(&address, "/metrics")?, "up 1"))
    })?;
    let after = sessions()?;
    ensure!(after - before <= 1 + asked, "{after} sessions after {before} and {asked} questions");

    // After a crash the same address tells of the new server; a stopped compute has none.
    kill(pid, Signal::SIGKILL)?;
    wait_until("the crash is over", || {
        Ok(has(&get(&address, "/metrics")?, "up 1") && compute.postmaster().is_ok_and(|now| now != pid))
    })?;
    whole.stop_compute("a")?.context("a clean stop")?;
    let shown = whole.json(&["compute", "show", "a"])?;
    ensure!(shown["metrics"].is_null(), "{shown}");
    ensure!(TcpStream::connect(&address).is_err(), "somebody listens still");
    Ok(())
}

/// Open files of a process.
fn open_files(pid: &Value) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[test]
fn who_only_connects_takes_nothing_away() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &[])?;
    let address = address(&whole)?;
    let supervisor = whole.json(&["compute", "show", "a"])?["pid"].clone();
    let before = open_files(&supervisor)?;
    let silent: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(&address)).collect::<Result<_, _>>()?;
    // Answered when those before it have had their time.
    wait_up(&address)?;
    let now = open_files(&supervisor)?;
    ensure!(now <= before + 40, "{before} open files became {now} by {} connections", silent.len());
    ensure!(whole.sql(&compute.connstr, "SELECT 1")? == "1", "the server goes on");
    drop(silent);
    whole.stop_compute("a")?.context("a clean stop")?;
    Ok(())
}

/// Asks in a parallel worker, as a member of pg_monitor.
const IN_WORKER: &str = "SET ROLE pg_monitor; SET debug_parallel_query = on;
    SELECT current_setting('strata.counters')";
const PLAN: &str =
    "SET debug_parallel_query = on; EXPLAIN (ANALYZE, COSTS OFF) SELECT current_setting('strata.counters')";

#[test]
fn the_numbers_are_asked_for_wherever_the_library_is() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "strata.lfc_max_size=4MB"])?;
    let document: Value = serde_json::from_str(&whole.sql(&compute.connstr, IN_WORKER)?)?;
    ensure!(document["file_cache"]["state"] == "on" && document["prefetch"].is_object(), "{document}");
    let plan = whole.sql(&compute.connstr, PLAN)?;
    ensure!(plan.contains("Workers Launched: 1"), "no worker: {plan}");

    // Local files, no quorum: nothing but what every server has.
    let mut cluster = Cluster::init(&Installation::from_env()?, &[])?;
    cluster.start(&[("shared_preload_libraries", "strata")])?;
    for sql in ["SHOW strata.counters", IN_WORKER] {
        let document: Value = serde_json::from_str(&cluster.sql(sql)?)?;
        ensure!(document["file_cache"].is_null() && document["prefetch"].is_null(), "{document}");
        ensure!(document["page_requests"] == Value::Array(Vec::new()), "{document}");
        ensure!(document["working_set_pages"]["ever"].is_u64(), "{document}");
        let lsns = &document["lsns"];
        ensure!(lsns["insert"].as_u64() > Some(0) && lsns["quorum_commit"].is_null(), "{document}");
    }
    ensure!(cluster.sql(PLAN)?.contains("Workers Launched: 1"), "no worker");
    for refused in ["SET strata.counters = 'x'", "ALTER ROLE postgres SET strata.counters = 'x'"] {
        let said = cluster.sql(refused).expect_err("it cannot be set").to_string();
        ensure!(said.contains("cannot be changed"), "{said}");
    }
    cluster.stop(Stop::Fast)?;

    // Loaded by a session only: it is not there, and whoever asks is told.
    cluster.start(&[])?;
    let said = cluster.sql("LOAD 'strata'; SHOW strata.counters").expect_err("it is not there").to_string();
    ensure!(said.contains("unrecognized configuration parameter"), "{said}");
    ensure!(cluster.sql("SELECT 1")? == "1", "the server goes on");
    cluster.stop(Stop::Fast)
}
