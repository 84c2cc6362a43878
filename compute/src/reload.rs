//! Settings of a running compute. The server itself is the judge: the new file is laid down, the server is asked what it would make of it
//! (`pg_file_settings`), and only if it refuses nothing is it told to read the file; else the former file comes back.
//!
//! What needs a restart is not refused: the running server shows it as pending (`pg_settings.pending_restart`), and the next start has it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

use crate::spec::{self, Spec};
use crate::{data_dir, settings};

/// A server that does not answer within this stands still; nothing is changed then.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long the server may take until it has read its settings again.
const RELOAD_MAX: Duration = Duration::from_secs(10);
const APPLICATION: &str = "strata compute set";
/// Whatever was set for sessions, this one begins, reads and ends: it may be the one that takes a bad setting back.
const OPTIONS: &str = "-c session_preload_libraries= -c local_preload_libraries= -c search_path=pg_catalog -c event_triggers=off \
                       -c default_transaction_read_only=off -c statement_timeout=0 -c transaction_timeout=0 -c idle_session_timeout=0";

/// What a change is to come to.
pub struct Change<'a> {
    /// All settings of the user, as the next start is to have them.
    pub desired: &'a BTreeMap<String, String>,
    /// Those of them that are new, other or gone.
    pub changed: &'a BTreeSet<String>,
}

/// Changes the settings of the server that `spec` started; all or none. `keep` is called when the server would take them, with the names
/// of those that wait for the next start, before it is told to.
pub async fn change(
    spec: &Spec,
    change: &Change<'_>,
    keep: impl FnOnce(&BTreeSet<String>) -> anyhow::Result<()>,
) -> anyhow::Result<BTreeSet<String>> {
    let path = spec.data_dir.join(settings::USER_CONF);
    let former = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut server = answered(Server::connect(spec)).await?;
    answered(refuse_fixed(&server, change.changed)).await?;
    data_dir::replace_user_conf(spec, &settings::user_conf(change.desired))?;
    let kept = match answered(waiting(&mut server, spec, change)).await {
        Ok(waiting) => keep(&waiting).map(|()| waiting),
        Err(error) => Err(error),
    };
    match kept {
        Ok(waiting) => {
            reload(&server)
                .await
                .context("the settings are kept, but the server may not have read them yet")?;
            Ok(waiting)
        }
        Err(error) => {
            data_dir::replace_user_conf(spec, &former)?;
            // Somebody else may have let the server read the file while it lay there.
            let _ = tokio::time::timeout(ANSWER_MAX, server.rows("SELECT pg_reload_conf()")).await;
            Err(error)
        }
    }
}

async fn answered<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let done = tokio::time::timeout(ANSWER_MAX, work).await;
    done.unwrap_or_else(|_| bail!("the server does not answer within {} s", ANSWER_MAX.as_secs()))
}

/// Settings that no file can change: the server's own, and those that the supervisor gives on the command line.
async fn refuse_fixed(server: &Server, changed: &BTreeSet<String>) -> anyhow::Result<()> {
    let fixed = server
        .rows("SELECT lower(name), context FROM pg_settings WHERE context = 'internal' OR source = 'command line'")
        .await?;
    for row in fixed {
        let [name, context] = row.as_slice() else { continue };
        if !changed.contains(name) || name == spec::PRELOADED {
            continue;
        }
        if context == "internal" {
            bail!("'{name}' only tells something: it cannot be set");
        }
        bail!("'{name}' is set by strata: it cannot be given");
    }
    Ok(())
}

/// Asks the server what it would make of its files now. Refused values are an error; the names are those that wait for a restart.
async fn waiting(server: &mut Server, spec: &Spec, change: &Change<'_>) -> anyhow::Result<BTreeSet<String>> {
    // The view says only that a setting cannot be applied; why stands in messages to whoever wants to see them (guc.c,
    // show_all_file_settings), in words that `lc_messages` chooses.
    server.rows("SET lc_messages = 'C'; SET client_min_messages = debug3").await?;
    server.notices();
    let errors =
        server.rows("SELECT lower(name), error FROM pg_file_settings WHERE error IS NOT NULL").await?;
    let reasons = server.notices();
    server.rows("SET client_min_messages = notice").await?;
    let mut waiting = BTreeSet::new();
    for row in errors {
        let [name, error] = row.as_slice() else { continue };
        let named = |text: &str, name: &str| text.to_ascii_lowercase().contains(&format!("\"{name}\""));
        if name.is_empty() {
            // One that is in the file no more (or a syntax error of a file that somebody has edited).
            match change.changed.iter().find(|name| named(error, name)) {
                Some(name) => {
                    waiting.insert(name.clone());
                }
                None if error.contains("without restarting") => {}
                None => bail!("the server's configuration file is damaged: {error}"),
            }
            continue;
        }
        let reason = reasons.iter().find(|reason| named(reason.message(), name));
        if reason.is_some_and(|reason| *reason.code() == SqlState::CANT_CHANGE_RUNTIME_PARAM) {
            waiting.extend(change.changed.get(name).cloned());
            continue;
        }
        bail!("{}", reason.map_or_else(|| format!("'{name}': {error}"), sentence));
    }
    if change.changed.contains(spec::PRELOADED)
        && spec::preloaded(change.desired) != spec::preloaded(&spec.settings)
    {
        waiting.insert(spec::PRELOADED.to_owned());
    }
    Ok(waiting)
}

/// Postgres's words without the place in a file that the user has never seen; with the hint, if there is one.
fn sentence(error: &DbError) -> String {
    let message = error.message().split(" in file \"").next().unwrap_or_default();
    let further = error.detail().into_iter().chain(error.hint()).map(|text| format!(" ({text})"));
    message.to_owned() + &further.collect::<String>()
}

/// Lets the server read its files, and waits until it has: this session reads them after the postmaster (postmaster.c,
/// process_pm_reload_request).
async fn reload(server: &Server) -> anyhow::Result<()> {
    let done = async {
        let begin = server.rows("SELECT pg_conf_load_time()::text, pg_reload_conf()").await?;
        let before = begin.first().and_then(|row| row.first()).context("no load time")?.clone();
        loop {
            let now = server.rows("SELECT pg_conf_load_time()::text").await?;
            if now.first().and_then(|row| row.first()).is_some_and(|now| *now != before) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(RELOAD_MAX, done).await;
    done.unwrap_or_else(|_| bail!("it does not answer within {} s", RELOAD_MAX.as_secs()))
}

/// One session of the superuser.
struct Server {
    client: Client,
    notices: UnboundedReceiver<DbError>,
}

impl Server {
    async fn connect(spec: &Spec) -> anyhow::Result<Server> {
        let mut config = tokio_postgres::Config::new();
        config.host(&spec.host).port(spec.port).user("postgres").dbname("postgres");
        config.application_name(APPLICATION).options(OPTIONS);
        let (client, mut connection) = config
            .connect(NoTls)
            .await
            .map_err(|error| anyhow::anyhow!("cannot connect: {}", why(&error)))?;
        let (send, notices) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message {
                    // Nobody listens any more: then nobody misses it.
                    let _ = send.send(notice);
                }
            }
        });
        Ok(Server { client, notices })
    }

    /// Rows of text; null is empty.
    async fn rows(&self, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
        let answers = self.client.simple_query(sql).await.map_err(|error| anyhow::anyhow!(why(&error)))?;
        let rows = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// What the server has said besides since the last call.
    fn notices(&mut self) -> Vec<DbError> {
        std::iter::from_fn(|| self.notices.try_recv().ok()).collect()
    }
}

fn why(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}
