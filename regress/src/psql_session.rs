//! A client that stays: statements one after the other, and one that may wait while others go on. `psql` behind pipes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::whole::{Compute, Whole, wait_until};

/// Comes after each statement's output.
const END: &str = "--- end of output ---";

/// One connection; it ends when this goes out of scope.
pub struct PsqlSession<'a> {
    whole: &'a Whole,
    compute: &'a Compute,
    backend: String,
    psql: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl<'a> PsqlSession<'a> {
    pub fn open(whole: &'a Whole, compute: &'a Compute) -> Result<PsqlSession<'a>> {
        let program = whole.program("psql");
        let mut shell = Command::new("sh");
        // Errors in the place where they happen.
        shell
            .args(["-c", "exec \"$0\" -X -q -A -t -d \"$1\" 2>&1"])
            .arg(program.get_program())
            .arg(&compute.connstr);
        for (name, _) in program.get_envs() {
            shell.env_remove(name);
        }
        let mut psql =
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run psql")?;
        let input = psql.stdin.take().context("psql has an input")?;
        let output = BufReader::new(psql.stdout.take().context("psql has an output")?);
        let mut session = PsqlSession { whole, compute, backend: String::new(), psql, input, output };
        session.backend = session.run("SELECT pg_backend_pid()")?;
        Ok(session)
    }

    /// Sends a statement; its output is `finish`'s.
    pub fn start(&mut self, sql: &str) -> Result<()> {
        // To the standard error, which psql does not keep back.
        write!(self.input, "{sql};\n\\warn {END}\n").context("psql has gone")?;
        self.input.flush().context("psql has gone")
    }

    /// The output of the statement that was started, an ERROR among it.
    pub fn finish(&mut self) -> Result<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).context("psql has gone")? == 0 {
                bail!("the connection was lost: {}", lines.join("\n"));
            }
            if line.trim_end() == END {
                return Ok(lines.join("\n"));
            }
            lines.push(line.trim_end().to_owned());
        }
    }

    /// A statement that has to work; its rows.
    pub fn run(&mut self, sql: &str) -> Result<String> {
        self.start(sql)?;
        let said = self.finish()?;
        if said.contains("ERROR:") || said.contains("FATAL:") {
            bail!("{sql}: {said}");
        }
        Ok(said)
    }

    /// Whether the session's row of `pg_stat_activity` is so.
    pub fn is(&self, condition: &str) -> Result<bool> {
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND ({condition})", self.backend);
        Ok(self.whole.sql(&self.compute.connstr, &sql)? == "1")
    }

    /// Waits until it is so.
    pub fn wait_until(&self, condition: &str) -> Result<()> {
        wait_until(condition, || self.is(condition))
    }
}

impl Drop for PsqlSession<'_> {
    fn drop(&mut self) {
        // One that waits does not see its input end.
        let _ = (self.psql.kill(), self.psql.wait());
    }
}
