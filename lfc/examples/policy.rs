//! Prints the share of requests that the cache's policy answers on each trace of its tests, beside LRU, as a table in Markdown.
#![expect(clippy::disallowed_macros, reason = "a program prints its result")]

#[path = "../tests/traces/mod.rs"]
mod traces;

fn main() {
    println!("| trace | places | S3-FIFO | LRU |\n|---|---|---|---|");
    for trace in traces::TRACES {
        for places in [1_000, 2_000, 5_000, 10_000, 25_000] {
            let (ours, lru) = (traces::ours(&trace, places), traces::lru(&trace, places));
            println!("| {} | {places} | {:.1} % | {:.1} % |", trace.name, ours * 100.0, lru * 100.0);
        }
    }
}
