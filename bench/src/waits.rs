//! Where the time of a statement goes, seen from outside: while it runs, another session asks `pg_stat_activity` again and again what its
//! process waits for. No wait event means that it is on a core, waits for one, or is in a system call that the server has no name for.
//! Looking takes time of its own, so it is done in a round that is not measured.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use strata_regress::session::Session;

/// Long beside what one look takes, short beside the shortest statement that is looked at (a fifth of a second).
const PAUSE: Duration = Duration::from_millis(2);
/// What is said of a process without a wait event.
pub const CORE: &str = "core";

fn look() -> String {
    format!(
        "SELECT coalesce(wait_event, '{CORE}') FROM pg_stat_activity \
         WHERE state = 'active' AND pid <> pg_backend_pid() AND backend_type IN ('client backend', 'parallel worker')"
    )
}

/// Ends the looking, whatever becomes of the work.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does something while others of the server's sessions are looked at: how many processes were seen, and the share of each wait event.
pub fn during(connstr: &str, work: impl FnOnce() -> Result<()>) -> Result<Value> {
    let mut session = Session::open_at(connstr)?;
    // The catalogs that a look needs.
    session.sql(&look())?;
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| -> Result<BTreeMap<String, u64>> {
        let watcher = scope.spawn(|| -> Result<BTreeMap<String, u64>> {
            let mut seen = BTreeMap::new();
            while !done.load(Ordering::Acquire) {
                for event in session.sql(&look())?.lines() {
                    *seen.entry(event.to_owned()).or_default() += 1;
                }
                std::thread::sleep(PAUSE);
            }
            Ok(seen)
        });
        let outcome = {
            let _done = Done(&done);
            work()
        };
        let seen = watcher.join().map_err(|_| anyhow!("the watcher panicked"))??;
        outcome.map(|()| seen)
    })?;
    Ok(shares(&seen))
}

fn shares(seen: &BTreeMap<String, u64>) -> Value {
    let samples: u64 = seen.values().sum();
    let share = |count: &u64| (*count as f64 / samples as f64 * 1000.0).round() / 1000.0;
    let shares: BTreeMap<&str, f64> =
        seen.iter().map(|(event, count)| (event.as_str(), share(count))).collect();
    json!({ "samples": samples, "shares": shares })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_samples() {
        let seen = [(CORE, 600), ("StrataPageRequest", 399), ("WALWrite", 1)];
        let seen = seen.into_iter().map(|(event, count)| (event.to_owned(), count)).collect();
        let expected = json!({ "samples": 1000, "shares": { "core": 0.6, "StrataPageRequest": 0.399, "WALWrite": 0.001 } });
        assert_eq!(shares(&seen), expected);
        assert_eq!(shares(&BTreeMap::new()), json!({ "samples": 0, "shares": {} }));
    }
}
