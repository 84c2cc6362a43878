//! What counting one page costs: nanoseconds per touch of the working-set sketch, for one page again and again (a hot register) and
//! for different pages; microseconds per estimate; and nanoseconds of what the file cache does for a hit without touch and with it: the
//! look-up, 8 KiB read from a file that lies in memory, their checksum. `touch_cost FOLDER`; one JSON object on standard output.
#![expect(clippy::disallowed_methods, reason = "a benchmark asks for the time")]
#![expect(clippy::disallowed_macros, reason = "a program prints its result")]

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Instant;

use strata_common::hash::mix;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, Lsn, RelTag};
use strata_lfc::partition::Head;
use strata_lfc::working_set::{Second, WORDS, Window, WorkingSet};
use strata_lfc::{Entry, PageName, Partition};

const TOUCHES: u64 = 20_000_000;
const ESTIMATES: u32 = 200;
/// Pages of the file, 256 MiB.
const PLACES: u32 = 1 << 15;
/// Hits without touch and with it take turns, and the fastest round of each counts: neighbours disturb the others.
const ROUNDS: usize = 60;
const HITS: u64 = 50_000;

fn nanoseconds(sketch: &WorkingSet<'_>, hash: impl Fn(u64) -> u64) -> f64 {
    let begun = Instant::now();
    (0..TOUCHES).for_each(|n| sketch.touch(black_box(hash(n)), Second(1)));
    begun.elapsed().as_nanos() as f64 / TOUCHES as f64
}

fn name(block: u32) -> PageName {
    let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 };
    PageName { rel: rel.fork(ForkNumber::Main), block: BlockNumber(block) }
}

/// Nanoseconds of a hit.
fn hits(cache: &Partition<'_>, file: &File, touched: Option<&WorkingSet<'_>>) -> std::io::Result<f64> {
    let mut page = [0; BLOCK_BYTES];
    let begun = Instant::now();
    for n in 0..HITS {
        let name = name((mix(n) % u64::from(PLACES)) as u32);
        if let Some(sketch) = touched {
            sketch.touch(name.hash(), Second(1));
        }
        let hit = cache.find(name, Lsn(1)).expect("all pages are there");
        file.read_exact_at(&mut page, u64::from(hit.place.0) * BLOCK_BYTES as u64)?;
        black_box(crc32c::crc32c_append(name.hash() as u32, &page));
        cache.unpin(hit.place);
    }
    Ok(begun.elapsed().as_nanos() as f64 / HITS as f64)
}

/// Nanoseconds of a hit without touch, and with it.
fn hits_of_a_full_cache(path: &Path, sketch: &WorkingSet<'_>) -> std::io::Result<[f64; 2]> {
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
    let (head, entries) = (Head::default(), (0..PLACES).map(|_| Entry::default()).collect::<Vec<_>>());
    let buckets: Vec<AtomicU32> = (0..PLACES).map(|_| AtomicU32::new(0)).collect();
    let ghosts: Vec<AtomicU64> = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
    let cache = Partition::new(&head, &buckets, &entries, &ghosts);
    cache.set_limit(PLACES);
    for block in 0..PLACES {
        let place = cache.reserve().expect("nothing is pinned");
        file.write_all_at(&[1; BLOCK_BYTES], u64::from(place.0) * BLOCK_BYTES as u64)?;
        cache.publish(place, name(block), Lsn(1), 0);
    }
    let mut fastest = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        fastest[0] = fastest[0].min(hits(&cache, &file, None)?);
        fastest[1] = fastest[1].min(hits(&cache, &file, Some(sketch))?);
    }
    Ok(fastest)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("touch_cost FOLDER")?;
    let words: Vec<AtomicU32> = (0..WORDS).map(|_| AtomicU32::new(0)).collect();
    let sketch = WorkingSet::new(&words);
    let same = nanoseconds(&sketch, |_| 7);
    let different = nanoseconds(&sketch, mix);
    let begun = Instant::now();
    (0..ESTIMATES).for_each(|_| _ = black_box(sketch.pages(Window::Last(60), Second(1))));
    let estimate = begun.elapsed().as_micros() as f64 / f64::from(ESTIMATES);
    let path = Path::new(&folder).join("touch_cost.pages");
    let hits = hits_of_a_full_cache(&path, &sketch);
    std::fs::remove_file(&path)?;
    let [hit, hit_and_touch] = hits?;
    println!(
        "{{\"touch_same_ns\": {same:.1}, \"touch_different_ns\": {different:.1}, \"estimate_us\": {estimate:.0}, \"hit_ns\": {hit:.0}, \"hit_and_touch_ns\": {hit_and_touch:.0}}}"
    );
    Ok(())
}
