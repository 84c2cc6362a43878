//! The server's numbers as Prometheus text: base units (bytes, seconds), counters end in `_total`. `docs/metrics.md` lists the names.

use std::fmt::{Display, Write};
use std::time::Duration;

use strata_daemon::build;

use super::Compute;
use super::ask::{Counters, FileCache, Numbers, PageRequests};

const PAGE_BYTES: u64 = 8192;

/// States of a session that are always there, so that a query for one finds 0 and not nothing.
const CONNECTION_STATES: [&str; 4] =
    ["active", "idle", "idle in transaction", "idle in transaction (aborted)"];

/// `None`: the server did not answer.
pub fn text(compute: &Compute, numbers: Option<&Numbers>, took: Duration) -> String {
    let mut page = Page::default();
    page.gauge("up", "Whether the server answered.");
    page.value(&[], u8::from(numbers.is_some()));
    page.gauge("info", "Which compute this is.");
    let (tenant, timeline) = (compute.timeline.tenant.to_string(), compute.timeline.timeline.to_string());
    let labels = [
        ("name", compute.name.as_str()),
        ("branch", &compute.branch),
        ("tenant_id", &tenant),
        ("timeline_id", &timeline),
        ("version", build::VERSION),
        ("build", build::BUILD),
    ];
    page.value(&labels, 1);
    page.gauge("scrape_seconds", "How long the server was waited for.");
    page.value(&[], took.as_secs_f64());
    if let Some(numbers) = numbers {
        connections(&mut page, numbers);
        working_set(&mut page, &numbers.counters);
        if let Some(cache) = &numbers.counters.file_cache {
            file_cache(&mut page, cache);
        }
        prefetch(&mut page, &numbers.counters);
        page_requests(&mut page, &numbers.counters.page_requests);
        waits(&mut page, &numbers.counters);
        lsns(&mut page, &numbers.counters);
    }
    page.0
}

fn connections(page: &mut Page, numbers: &Numbers) {
    page.gauge("connections", "Sessions of clients by state, without the one that asks for this.");
    for state in CONNECTION_STATES {
        page.value(&[("state", state)], numbers.connections.get(state).unwrap_or(&0));
    }
    for (state, count) in &numbers.connections {
        if !CONNECTION_STATES.contains(&state.as_str()) {
            page.value(&[("state", state)], count);
        }
    }
    page.gauge("connections_max", "Sessions that there may be, max_connections.");
    page.value(&[], numbers.connections_max);
}

fn working_set(page: &mut Page, counters: &Counters) {
    page.gauge(
        "working_set_bytes",
        "Different pages asked for below shared buffers in the last while, or since the server's start or the last reset (about).",
    );
    for (key, window) in [("60", "1m"), ("300", "5m"), ("900", "15m"), ("3600", "1h"), ("ever", "total")] {
        if let Some(pages) = counters.working_set_pages.get(key).copied().flatten() {
            page.value(&[("window", window)], bytes(pages));
        }
    }
}

fn file_cache(page: &mut Page, cache: &FileCache) {
    page.gauge("file_cache_state", "1 for the state that the local file cache is in.");
    for state in ["on", "off", "failed"] {
        page.value(&[("state", state)], u8::from(cache.state == state));
    }
    for (name, pages, help) in [
        ("file_cache_used_bytes", cache.used_pages, "What the local file cache holds."),
        ("file_cache_limit_bytes", cache.limit_pages, "What the local file cache may hold now."),
        ("file_cache_max_bytes", cache.max_pages, "What the local file cache may ever hold."),
    ] {
        page.gauge(name, help);
        page.value(&[], bytes(pages));
    }
    for (name, count, help) in [
        ("file_cache_hits_total", cache.hits, "Pages that the local file cache gave."),
        ("file_cache_misses_total", cache.misses, "Pages that the local file cache did not have."),
        ("file_cache_writes_total", cache.writes, "Pages that the local file cache took."),
        ("file_cache_damaged_total", cache.damaged, "Pages that the local file cache found damaged."),
        ("file_cache_skipped_total", cache.skipped, "Pages not taken because all places were in use."),
    ] {
        page.counter(name, help);
        page.value(&[], count);
    }
}

fn prefetch(page: &mut Page, counters: &Counters) {
    let Some(prefetch) = &counters.prefetch else { return };
    let count = |name: &str| prefetch.get(name).copied().unwrap_or(0);
    for (name, help) in [
        ("requested", "Pages asked for ahead."),
        ("used", "Pages asked for ahead that were read."),
        ("waited", "Pages asked for ahead for which their reader still had to wait."),
        ("expired", "Pages asked for ahead that were changed before they were read."),
        ("wasted", "Pages asked for ahead that nobody read and nothing kept."),
        ("cached", "Pages asked for ahead that nobody read and the local file cache took."),
        ("refused", "Pages asked for ahead that the pageserver did not give."),
        ("index_scans", "Pages asked for ahead that index scans were to read."),
    ] {
        page.counter(&format!("prefetch_{name}_total"), help);
        page.value(&[], count(name));
    }
    page.gauge("prefetch_open_requests", "Requests ahead that are held now.");
    page.value(&[], count("open_requests"));
    page.gauge("prefetch_unanswered_requests", "Requests ahead without an answer yet.");
    page.value(&[], count("unanswered"));
    page.gauge("prefetch_held_bytes", "Pages asked for ahead that are held now.");
    page.value(&[], bytes(count("held_pages")));
}

fn page_requests(page: &mut Page, kinds: &[PageRequests]) {
    page.family("page_request_seconds", "histogram", "How long requests to the pageserver took, by kind.");
    for of_kind in kinds {
        let mut below = 0_u64;
        for (power, count) in (0..).zip(&of_kind.latency) {
            below = below.saturating_add(*count);
            let is_last = power as usize + 1 == of_kind.latency.len();
            let le = if is_last { "+Inf".to_owned() } else { seconds(1_u64 << power.min(63)).to_string() };
            page.sample("_bucket", &[("kind", &of_kind.kind), ("le", &le)], below);
        }
        page.sample("_sum", &[("kind", &of_kind.kind)], seconds(of_kind.total_us));
        page.sample("_count", &[("kind", &of_kind.kind)], below);
    }
    page.counter("page_request_blocks_total", "Pages that requests to the pageserver were for.");
    for of_kind in kinds {
        page.value(&[("kind", &of_kind.kind)], of_kind.blocks);
    }
    page.counter("page_request_errors_total", "Requests to the pageserver that failed.");
    for of_kind in kinds {
        page.value(&[("kind", &of_kind.kind)], of_kind.errors);
    }
}

fn waits(page: &mut Page, counters: &Counters) {
    for (name, count, help) in [
        (
            "lost_wakeups_total",
            counters.lost_wakeups,
            "Answers whose owner slept on though it had been woken: always 0.",
        ),
        (
            "spins_answered_total",
            counters.spins_answered,
            "Answers that came while their owner spun for them.",
        ),
        ("spins_in_vain_total", counters.spins_in_vain, "Answers that were spun for, and then slept for."),
    ] {
        page.counter(name, help);
        page.value(&[], count);
    }
}

fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE_BYTES)
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn lsns(page: &mut Page, counters: &Counters) {
    for (name, help) in [
        ("insert", "Where the log ends here."),
        ("flush", "How far the log is written here."),
        ("quorum_commit", "How far a majority of safekeepers has the log."),
        ("pageserver_received", "How far the pageserver has the log."),
        ("pageserver_disk_consistent", "How far the pageserver has the log on its disk."),
        ("pageserver_remote_consistent", "How far the pageserver has the log in the object store."),
    ] {
        let lsn = counters.lsns.as_ref().and_then(|lsns| lsns.get(name).copied().flatten());
        if let Some(lsn) = lsn {
            page.gauge(&format!("{name}_lsn_bytes"), help);
            page.value(&[], lsn);
        }
    }
}

/// Text that grows; samples belong to the family that was begun last.
#[derive(Default)]
struct Page(String, String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.family(name, "counter", help);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.1 = format!("strata_compute_{name}");
        write!(self.0, "# HELP {0} {help}\n# TYPE {0} {kind}\n", self.1).expect("writing to a string");
    }

    fn value(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.sample("", labels, value);
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.0, "{}{suffix}{labels} {value}", self.1).expect("writing to a string");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::test_spec;

    fn compute() -> Compute {
        Compute::of(&test_spec())
    }

    fn numbers() -> Numbers {
        let counters = serde_json::json!({
            "working_set_pages": { "60": 1, "300": 2, "900": 3, "3600": 4, "ever": 5 },
            "file_cache": { "state": "on", "max_pages": 10, "limit_pages": 8, "used_pages": 2, "hits": 5, "misses": 6,
                "writes": 7, "damaged": 0, "skipped": 1 },
            "prefetch": null,
            "page_requests": [{ "kind": "pages", "requests": 6, "blocks": 9, "errors": 1, "total_us": 2_500_000, "latency": [1, 0, 2, 3] }],
            "lost_wakeups": 0, "spins_answered": 7, "spins_in_vain": 3,
            "lsns": { "insert": 4096, "flush": 4096, "quorum_commit": null },
        });
        Numbers {
            counters: serde_json::from_value(counters).expect("counters"),
            connections: BTreeMap::from([("active".to_owned(), 2), ("a\"b".to_owned(), 1)]),
            connections_max: 100,
        }
    }

    #[test]
    fn buckets_are_cumulative_and_units_are_base_units() {
        let text = text(&compute(), Some(&numbers()), Duration::from_millis(1500));
        for line in [
            "# TYPE strata_compute_page_request_seconds histogram",
            "strata_compute_page_request_seconds_bucket{kind=\"pages\",le=\"0.000001\"} 1",
            "strata_compute_page_request_seconds_bucket{kind=\"pages\",le=\"0.000002\"} 1",
            "strata_compute_page_request_seconds_bucket{kind=\"pages\",le=\"0.000004\"} 3",
            "strata_compute_page_request_seconds_bucket{kind=\"pages\",le=\"+Inf\"} 6",
            "strata_compute_page_request_seconds_sum{kind=\"pages\"} 2.5",
            "strata_compute_page_request_seconds_count{kind=\"pages\"} 6",
            "strata_compute_working_set_bytes{window=\"15m\"} 24576",
            "strata_compute_file_cache_state{state=\"failed\"} 0",
            "strata_compute_file_cache_limit_bytes 65536",
            "strata_compute_connections{state=\"idle\"} 0",
            "strata_compute_connections{state=\"a\\\"b\"} 1",
            "strata_compute_insert_lsn_bytes 4096",
            "strata_compute_scrape_seconds 1.5",
            "strata_compute_lost_wakeups_total 0",
            "strata_compute_spins_answered_total 7",
            "strata_compute_spins_in_vain_total 3",
            "strata_compute_up 1",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        assert!(
            !text.contains("quorum_commit") && !text.contains("prefetch"),
            "what is not known is not there"
        );
    }

    #[test]
    fn a_server_that_does_not_answer_is_down_and_still_named() {
        let text = text(&compute(), None, Duration::ZERO);
        assert!(text.contains("\nstrata_compute_up 0\n"));
        assert!(text.contains("strata_compute_info{name=\"c\",branch=\"main\","));
        assert!(!text.contains("connections"));
    }
}
