//! The eviction policy against LRU on traces: better wherever scans pass, nowhere much worse.

mod traces;

use traces::TRACES;

#[test]
fn scans_cost_less_than_with_lru_and_nothing_costs_much_more() {
    for trace in TRACES {
        for places in [2_000, 10_000, 25_000] {
            let (ours, lru) = (traces::ours(&trace, places), traces::lru(&trace, places));
            assert!(ours >= lru - 0.02, "{}, {places} places: {ours:.3}, LRU {lru:.3}", trace.name);
            if trace.name == "transactions and scans" {
                assert!(ours >= lru + 0.02, "{}, {places} places: {ours:.3}, LRU {lru:.3}", trace.name);
            }
        }
    }
}
