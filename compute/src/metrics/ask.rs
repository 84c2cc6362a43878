//! Asks the server for its numbers: a session of its own that may read settings and statistics and nothing else, `strata metrics` by its
//! application_name.
//!
//! One session at a time, whoever asks: a server that stands still takes connections and never answers, so those who ask meanwhile wait
//! for the session that is there, up to their own patience. A session that does not come to an end is neither waited for any longer nor
//! forgotten: its place is free when it has ended, and there are few, so that what hangs in the server does not become more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// After this a session is waited for no longer: the next question begins another, if there is a place.
const SESSION_MAX: Duration = Duration::from_secs(60);
/// Sessions that may be there at once. The server ends what waits for pages or locks after 30 s (`OPTIONS`).
const SESSIONS_MAX: usize = 2;

/// As the superuser, for whom places are reserved, but with the rights of pg_monitor. Nothing that users may have set for sessions counts.
const OPTIONS: &str = "-c role=pg_monitor -c default_transaction_read_only=on -c search_path=pg_catalog -c event_triggers=off \
                       -c statement_timeout=30s -c idle_session_timeout=0 -c session_preload_libraries= -c local_preload_libraries= -c log_statement=none -c log_min_duration_statement=-1";

const QUESTION: &str = "SHOW strata.counters;
    SELECT coalesce(state, 'unknown'), count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1;
    SHOW max_connections";

/// What the server says of itself.
#[derive(Debug)]
pub struct Numbers {
    pub counters: Counters,
    /// Sessions of clients by what they do (`pg_stat_activity.state`).
    pub connections: BTreeMap<String, u64>,
    pub connections_max: u64,
}

/// `SHOW strata.counters`, as the extension writes it (`pg_ext/src/sql/counters.rs`).
#[derive(Deserialize, Debug)]
pub struct Counters {
    /// By seconds, and `ever`.
    pub working_set_pages: BTreeMap<String, Option<u64>>,
    pub file_cache: Option<FileCache>,
    /// By name.
    pub prefetch: Option<BTreeMap<String, u64>>,
    pub page_requests: Vec<PageRequests>,
    pub lost_wakeups: u64,
    pub spins_answered: u64,
    pub spins_in_vain: u64,
    /// By name.
    pub lsns: Option<BTreeMap<String, Option<u64>>>,
}

#[derive(Deserialize, Debug)]
pub struct FileCache {
    pub state: String,
    pub max_pages: u64,
    pub limit_pages: u64,
    pub used_pages: u64,
    pub hits: u64,
    pub misses: u64,
    pub writes: u64,
    pub damaged: u64,
    pub skipped: u64,
}

#[derive(Deserialize, Debug)]
pub struct PageRequests {
    pub kind: String,
    pub blocks: u64,
    pub errors: u64,
    pub total_us: u64,
    /// Cell n counts those of less than 2^n microseconds that are in no cell before it; the last one all others.
    pub latency: Vec<u64>,
}

type Answer = Option<Arc<Numbers>>;
/// `None` inside until the session has come to an end.
type End = watch::Receiver<Option<Answer>>;

pub struct Asker {
    config: Config,
    session_max: Duration,
    places: Arc<Semaphore>,
    /// The last session and when it began.
    last: Mutex<Option<(Instant, End)>>,
    /// That the server gives no numbers has been said.
    told: Arc<AtomicBool>,
}

impl Asker {
    pub fn new(host: &str, port: u16) -> Asker {
        Asker::with_patience(host, port, SESSION_MAX)
    }

    fn with_patience(host: &str, port: u16, session_max: Duration) -> Asker {
        let mut config = Config::new();
        config.host(host).port(port).user("postgres").dbname("postgres");
        config.application_name("strata metrics").options(OPTIONS);
        Asker {
            config,
            session_max,
            places: Arc::new(Semaphore::new(SESSIONS_MAX)),
            last: Mutex::new(None),
            told: Arc::default(),
        }
    }

    /// The server's numbers; `None` if it does not give them within `patience`.
    pub async fn answer(&self, patience: Duration) -> Option<Arc<Numbers>> {
        let mut session = self.session()?;
        let end = tokio::time::timeout(patience, session.wait_for(Option::is_some)).await;
        end.ok()?.ok()?.clone().flatten()
    }

    /// The session that is under way, or a new one.
    fn session(&self) -> Option<End> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((begun, end)) = last.as_ref() {
            // Whose sender is gone has come to an end.
            let under_way = end.has_changed().is_ok();
            if under_way && begun.elapsed() < self.session_max {
                return Some(end.clone());
            }
            if under_way {
                tell(&self.told, &format!("nothing came within {} s", self.session_max.as_secs()));
            }
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return last.as_ref().map(|(_, end)| end.clone());
        };
        let (sender, end) = watch::channel(None);
        let (config, told) = (self.config.clone(), self.told.clone());
        tokio::spawn(async move {
            let answer = ask(&config).await;
            match &answer {
                Ok(_) if told.swap(false, Ordering::Relaxed) => {
                    tracing::info!("the server gives metrics again");
                }
                Ok(_) => {}
                Err(error) => tell(&told, &format!("{error:#}")),
            }
            drop(place);
            // Nobody may wait any more.
            let _ = sender.send(Some(answer.ok().map(Arc::new)));
        });
        *last = Some((Instant::now(), end.clone()));
        Some(end)
    }
}

/// Once, until the server answers again: somebody asks every few seconds.
fn tell(told: &AtomicBool, why: &str) {
    if !told.swap(true, Ordering::Relaxed) {
        tracing::warn!("the server gives no metrics: {why}");
    }
}

/// Takes as long as the server does; who gives it up closes its connection.
async fn ask(config: &Config) -> anyhow::Result<Numbers> {
    let (client, connection) = config.connect(NoTls).await.context("cannot connect")?;
    let question = async move {
        // The client is gone when it has its answer: the connection says good-bye then and ends.
        client.simple_query(QUESTION).await
    };
    let (answers, _) = tokio::join!(question, connection);
    read(&answers.context("the question failed")?)
}

/// Rows of the three statements, told apart by their columns.
fn read(answers: &[SimpleQueryMessage]) -> anyhow::Result<Numbers> {
    let mut counters = None;
    let mut connections = BTreeMap::new();
    let mut connections_max = None;
    for answer in answers {
        let SimpleQueryMessage::Row(row) = answer else { continue };
        let value = |column: usize| row.get(column).unwrap_or_default();
        match row.columns().first().map(|column| column.name()) {
            Some("strata.counters") => {
                counters = Some(serde_json::from_str(value(0)).context("strata.counters")?);
            }
            Some("max_connections") => {
                connections_max = Some(value(0).parse().context("max_connections")?);
            }
            _ => {
                connections.insert(value(0).to_owned(), value(1).parse().context("a count")?);
            }
        }
    }
    Ok(Numbers {
        counters: counters.context("no strata.counters")?,
        connections,
        connections_max: connections_max.context("no max_connections")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn sessions_that_never_end_do_not_become_more() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = server.local_addr().expect("an address").port();
        // Nobody waits for a session longer than for an answer.
        let asker = Asker::with_patience("127.0.0.1", port, Duration::ZERO);
        for _ in 0..SESSIONS_MAX + 3 {
            assert!(asker.answer(NO_TIME).await.is_none());
        }
        let mut taken = Vec::new();
        for _ in 0..SESSIONS_MAX {
            taken.push(server.accept().await.expect("a session"));
        }
        assert!(asker.answer(NO_TIME).await.is_none());
        assert!(tokio::time::timeout(NO_TIME, server.accept()).await.is_err(), "one session too many");
        // One of them ends: there is a place for another.
        taken.pop();
        while asker.places.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        let (answer, session) = tokio::join!(asker.answer(NO_TIME), server.accept());
        assert!(answer.is_none() && session.is_ok());
    }

    #[tokio::test]
    async fn who_asks_meanwhile_waits_for_the_same_session() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let asker = Asker::new("127.0.0.1", server.local_addr().expect("an address").port());
        for _ in 0..5 {
            assert!(asker.answer(NO_TIME).await.is_none());
        }
        assert_eq!(asker.places.available_permits(), SESSIONS_MAX - 1);
        drop(server);
    }

    #[test]
    fn an_answer_without_its_parts_is_none() {
        assert!(read(&[]).is_err());
    }
}
