//! Benchmarks of the whole system, side by side with a Postgres built from the same source, on one machine in one run.
//!
//! Each measurement is repeated in alternation with its peer, so that what else the machine does harms both alike; ratios are what
//! counts. A benchmark reports: it never fails because something was slow. Results go to a JSON list and a table (see README.md).
#![forbid(unsafe_code)]

mod bulk;
mod commits;
mod copy;
mod ingest;
mod interrupt;
mod latency;
mod markdown;
mod page_requests;
mod peer;
mod percentiles;
mod plot;
mod reads;
mod redo;
mod report;
mod restarts;
mod scans;
mod server;
mod spins;
mod starts;
mod sweep;
mod waits;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;

use report::{Row, Table};

/// Side-by-side benchmarks of Strata and vanilla Postgres.
#[derive(Parser, Debug)]
struct Arguments {
    /// Folder of an installed vanilla Postgres ('setup/build-postgres.sh vanilla' builds one)
    #[arg(long, required_unless_present = "markdown")]
    vanilla: Option<PathBuf>,
    /// Measures nothing: prints the tables of files of results, the later file's row where two have one, with '--only' some
    #[arg(long, num_args = 1.., value_name = "FILE")]
    markdown: Vec<PathBuf>,
    /// With '--markdown': fills the tables of this page in instead, and writes all rows beside it, as JSON
    #[arg(long, requires = "markdown")]
    page: Option<PathBuf>,
    /// The long sizes: 2 GB databases, more and longer runs
    #[arg(long)]
    long: bool,
    /// Only these, by their ids or what stands before a dash in them, such as B2, B9 or I4
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds and repeats of every measurement, instead of the size's own numbers
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Where the JSON goes
    #[arg(long, default_value = "bench/results/latest.json")]
    out: PathBuf,
}

/// How much is done; the table's heading and the rows' names say which it was.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Alternating rounds a comparison.
    pub rounds: u32,
    /// Length of a pgbench round.
    pub round_seconds: u32,
    /// pgbench's scale where data is in shared buffers.
    pub scale: u32,
    /// pgbench's scale where data is four times shared buffers.
    pub large_scale: u32,
    /// Rows that are copied in, as a file.
    pub copy_megabytes: u64,
    /// pgbench's scales of the small and the big database of the start and branch benchmarks; a scale is about 15 MB.
    pub database_scales: [u32; 2],
    /// Log that is taken in, at least.
    pub log_megabytes: u64,
    /// The table that is scanned; at least ten times shared buffers of 16 MB.
    pub scan_megabytes: u32,
    /// Repeated starts, losses and branches.
    pub repeats: u32,
    /// Rounds of the sweep over the cache's size.
    pub sweeps: u32,
    /// Length of a round that measures latencies.
    pub latency_seconds: u32,
    /// pgbench's scale, the longest run after a start, and how often, of the restarts beside a full cache.
    pub restart_scale: u32,
    pub restart_seconds: u32,
    pub restarts: u32,
}

const QUICK: Size = Size {
    rounds: 3,
    round_seconds: 8,
    scale: 10,
    large_scale: 34,
    copy_megabytes: 200,
    database_scales: [7, 34],
    log_megabytes: 300,
    scan_megabytes: 170,
    repeats: 5,
    sweeps: 1,
    latency_seconds: 4,
    restart_scale: 14,
    restart_seconds: 90,
    restarts: 1,
};
const LONG: Size = Size {
    rounds: 7,
    round_seconds: 30,
    scale: 20,
    large_scale: 68,
    copy_megabytes: 1000,
    database_scales: [7, 137],
    log_megabytes: 1000,
    scan_megabytes: 500,
    repeats: 15,
    sweeps: 1,
    latency_seconds: 15,
    restart_scale: 68,
    restart_seconds: 150,
    restarts: 3,
};

/// Whether somebody who says `only` means the benchmark `id`.
fn names(only: &str, id: &str) -> bool {
    id.strip_prefix(only).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

impl Arguments {
    fn wants(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| names(only, id))
    }

    fn vanilla(&self) -> &Path {
        self.vanilla.as_deref().expect("demanded of whoever measures")
    }

    fn size(&self) -> Size {
        let size = if self.long { LONG } else { QUICK };
        self.rounds.map_or(size, |n| Size { rounds: n, repeats: n, sweeps: n, restarts: n, ..size })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if !arguments.markdown.is_empty() {
        let mut rows = markdown::read(&arguments.markdown)?;
        if let Some(page) = &arguments.page {
            return markdown::write_page(page, rows);
        }
        rows.retain(|row| arguments.wants(row.benchmark()));
        print!("{}", markdown::tables(&rows));
        return Ok(());
    }
    let size = arguments.size();
    interrupt::watch();
    let mut table = Table::new(arguments.out.clone());
    type Benchmark = fn(&Arguments, Size) -> Result<Vec<Row>>;
    let benchmarks: [(&[&str], Benchmark); 15] = [
        (&["B1", "B3"], |arguments, size| reads::run(arguments.vanilla(), size)),
        (&["B2"], |arguments, size| commits::run(arguments.vanilla(), size)),
        (&["B4"], |_, size| page_requests::run(size)),
        (&["B5"], |arguments, size| scans::near(arguments.vanilla(), size)),
        (&["B6"], |arguments, size| redo::run(arguments.vanilla(), size)),
        (&["B7"], |arguments, size| ingest::run(arguments.vanilla(), size)),
        (&["B8", "B9", "B10"], |_, size| starts::run(size)),
        (&["B12"], |arguments, size| copy::run(arguments.vanilla(), size)),
        (&["C1"], |arguments, size| sweep::run(&arguments.out, size)),
        (&["C2"], |arguments, size| restarts::run(&arguments.out, size)),
        (&["C3"], |arguments, size| percentiles::near(arguments.vanilla(), &arguments.out, size)),
        (&["C4"], |arguments, size| percentiles::far(arguments.vanilla(), size)),
        (&["C5"], |arguments, size| bulk::run(arguments.vanilla(), size)),
        (&["I4-seq-2ms", "I4-bitmap-2ms", "I5-index-2ms"], |_, size| scans::far(size)),
        (&["I6"], |_, size| spins::run(size)),
    ];
    let known: Vec<&str> = benchmarks.iter().flat_map(|(ids, _)| ids.iter().copied()).collect();
    if let Some(only) = arguments.only.iter().find(|only| !known.iter().any(|id| names(only, id))) {
        bail!("there is no benchmark '{only}': there are {}", known.join(", "));
    }
    for (ids, benchmark) in benchmarks {
        if !ids.iter().any(|id| arguments.wants(id)) {
            continue;
        }
        let rows = benchmark(&arguments, size).with_context(|| ids.join(", "))?;
        for row in rows.into_iter().filter(|row| arguments.wants(row.benchmark())) {
            table.add(row);
        }
    }
    table.finish()
}
