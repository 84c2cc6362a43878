//! What a page costs whoever writes it into the cache's file itself, and what it would cost to hand it to a thread that writes behind:
//! microseconds of the one who has the page. `write_cost FOLDER [MIB] [--json]`.
//!
//! Pages go to random places of a file of that size (1024 MiB), whose blocks exist, for some seconds each: at once one after the other,
//! and with a pause between them, as a process has that evicts pages because it reads others. What is handed over is copied into a
//! bounded ring, and its thread is woken if it sleeps; when the ring is full, the page is written as if there were none. There is one
//! producer and nobody searches the ring, which favours it. `Dirty` is the machine's when each row ends. The kernel slows writers
//! down when there is too much of that: with a file above its limit (vm.dirty_ratio), or on a disk with a limit of its own
//! (`strict_limit`, `max_bytes` in /sys/class/bdi).
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks for the time")]
#![expect(clippy::disallowed_macros, reason = "a program prints its result")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use strata_common::BLOCK_BYTES;
use strata_common::hash::mix;

/// A mebibyte.
const RING_PAGES: usize = 128;
const LASTS: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_micros(50);
const WRITES_MAX: usize = 4_000_000;

type Page = [u8; BLOCK_BYTES];

/// One producer, one writer.
struct Ring {
    pages: Vec<Mutex<(u64, Page)>>,
    given: AtomicU64,
    written: AtomicU64,
    writer_sleeps: AtomicBool,
    over: AtomicBool,
}

impl Ring {
    fn new() -> Ring {
        let pages = (0..RING_PAGES).map(|_| Mutex::new((0, [0; BLOCK_BYTES]))).collect();
        let [given, written] = [0, 0].map(AtomicU64::new);
        let [writer_sleeps, over] = [false, false].map(AtomicBool::new);
        Ring { pages, given, written, writer_sleeps, over }
    }

    fn slot(&self, number: u64) -> &Mutex<(u64, Page)> {
        &self.pages[number as usize % RING_PAGES]
    }

    /// Whether there was room.
    fn give(&self, offset: u64, page: &Page, writer: &Thread) -> bool {
        let number = self.given.load(Ordering::Relaxed);
        if number - self.written.load(Ordering::Acquire) == RING_PAGES as u64 {
            return false;
        }
        *self.slot(number).lock().expect("no panic") = (offset, *page);
        self.given.store(number + 1, Ordering::SeqCst);
        if self.writer_sleeps.load(Ordering::SeqCst) {
            writer.unpark();
        }
        true
    }

    fn write_behind(&self, file: &File) -> io::Result<()> {
        loop {
            let number = self.written.load(Ordering::Relaxed);
            if number < self.given.load(Ordering::SeqCst) {
                let slot = self.slot(number).lock().expect("no panic");
                file.write_all_at(&slot.1, slot.0)?;
                self.written.store(number + 1, Ordering::Release);
            } else if self.over.load(Ordering::SeqCst) {
                return Ok(());
            } else {
                self.writer_sleeps.store(true, Ordering::SeqCst);
                if number == self.given.load(Ordering::SeqCst) && !self.over.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.writer_sleeps.store(false, Ordering::SeqCst);
            }
        }
    }
}

/// Nanoseconds of each write.
fn measure(
    pause: Duration,
    places: u64,
    mut write: impl FnMut(u64, &Page) -> io::Result<()>,
) -> io::Result<Vec<u64>> {
    let mut page = [7; BLOCK_BYTES];
    let mut nanos = Vec::with_capacity(WRITES_MAX);
    let begun = Instant::now();
    while begun.elapsed() < LASTS && nanos.len() < WRITES_MAX {
        let number = nanos.len() as u64;
        page[..8].copy_from_slice(&number.to_le_bytes());
        let now = Instant::now();
        write(mix(number) % places * BLOCK_BYTES as u64, &page)?;
        nanos.push(now.elapsed().as_nanos() as u64);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
    Ok(nanos)
}

/// The times, and how often the ring was full.
fn hand_over(pause: Duration, places: u64, file: &File) -> io::Result<(Vec<u64>, u64)> {
    let ring = Ring::new();
    thread::scope(|scope| {
        let behind = scope.spawn(|| ring.write_behind(file));
        let mut full = 0;
        let nanos = measure(pause, places, |offset, page| {
            if ring.give(offset, page, behind.thread()) {
                return Ok(());
            }
            full += 1;
            file.write_all_at(page, offset)
        });
        ring.over.store(true, Ordering::SeqCst);
        behind.thread().unpark();
        behind.join().expect("no panic")?;
        Ok((nanos?, full))
    })
}

fn dirty_mib() -> io::Result<u64> {
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let dirty = memory.lines().find_map(|line| line.strip_prefix("Dirty:")?.trim().strip_suffix(" kB"));
    Ok(dirty.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024)
}

struct Row {
    way: &'static str,
    pause: Duration,
    nanos: Vec<u64>,
    full: u64,
}

impl Row {
    /// p50, p99, p99.9 and the slowest, microseconds.
    fn micros(&mut self) -> [f64; 4] {
        self.nanos.sort_unstable();
        let last = self.nanos.len() - 1;
        [0.5, 0.99, 0.999, 1.0].map(|share| self.nanos[(last as f64 * share) as usize] as f64 / 1000.0)
    }

    fn print(&mut self, json: bool) -> io::Result<()> {
        let (dirty, [p50, p99, p999, slowest]) = (dirty_mib()?, self.micros());
        let (way, pause, writes) = (self.way, self.pause.as_micros(), self.nanos.len());
        let full = self.full as f64 * 100.0 / writes as f64;
        if json {
            println!(
                "{{\"way\": \"{way}\", \"pause_us\": {pause}, \"writes\": {writes}, \"p50_us\": {p50:.1}, \"p99_us\": {p99:.1}, \"p999_us\": {p999:.1}, \"max_us\": {slowest:.0}, \"full_percent\": {full:.1}, \"dirty_mib\": {dirty}}}"
            );
        } else {
            println!(
                "| {way} | {pause} | {writes} | {p50:.1} | {p99:.1} | {p999:.1} | {slowest:.0} | {full:.1} % | {dirty} |"
            );
        }
        Ok(())
    }
}

fn rows(path: &Path, places: u64, json: bool) -> io::Result<()> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    for place in 0..places {
        file.write_all_at(&[1; BLOCK_BYTES], place * BLOCK_BYTES as u64)?;
    }
    if !json {
        println!("| way | pause, µs | writes | p50, µs | p99 | p99.9 | slowest | ring full | Dirty, MiB |");
        println!("|---|---|---|---|---|---|---|---|---|");
    }
    for pause in [PAUSE, Duration::ZERO] {
        file.sync_all()?;
        let nanos = measure(pause, places, |offset, page| file.write_all_at(page, offset))?;
        Row { way: "itself", pause, nanos, full: 0 }.print(json)?;
        file.sync_all()?;
        let (nanos, full) = hand_over(pause, places, &file)?;
        Row { way: "handed over", pause, nanos, full }.print(json)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (options, arguments): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let folder = arguments.first().ok_or("write_cost FOLDER [MIB] [--json]")?;
    let mib = arguments.get(1).map_or(Ok(1024), |mib| mib.parse::<u64>())?;
    let path = Path::new(folder).join("write_cost.pages");
    let done = rows(&path, mib * (1 << 20) / BLOCK_BYTES as u64, options.contains(&"--json".to_owned()));
    std::fs::remove_file(&path)?;
    Ok(done?)
}
