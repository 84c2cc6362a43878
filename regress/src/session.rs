//! One connection that stays: a transaction that a test steps through while other things happen.

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::whole::Compute;

pub struct Session {
    // Dropped first, so that the connection ends before its runtime.
    client: Client,
    runtime: Runtime,
}

impl Session {
    /// A session in the compute's own database.
    pub fn open(compute: &Compute) -> Result<Session> {
        Session::open_at(&compute.connstr)
    }

    pub fn open_at(connstr: &str) -> Result<Session> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(connstr, NoTls).await.context("cannot connect")?;
            tokio::spawn(connection);
            anyhow::Ok(client)
        })?;
        Ok(Session { client, runtime })
    }

    /// Rows as psql prints them, unaligned; of several statements all rows.
    pub fn sql(&mut self, sql: &str) -> Result<String> {
        let answers = self.runtime.block_on(self.client.simple_query(sql)).with_context(|| sql.to_owned())?;
        let rows = answers.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let fields = (0..row.len()).map(|index| row.get(index).unwrap_or_default());
                Some(fields.collect::<Vec<_>>().join("|"))
            }
            _ => None,
        });
        Ok(rows.collect::<Vec<_>>().join("\n"))
    }
}
