//! What is resumed after a failure, and what each kind of ending means, on the map model.

use std::sync::atomic::Ordering;

use crate::ingest::control::ControlState;
use bytes::Bytes;
use strata_common::{SystemId, TenantId, TenantTimelineId, Term, TimelineId};
use strata_pgwal::write::{LogIdentity, RecordSpec, WalWriter};
use strata_pgwal::{SegmentBytes, WalStreamDecoder, rmgr};

use super::*;
use crate::getpage::cache::{PageCache, TimelineSlot};
use crate::ingest::testkit::control_state;
use crate::store::model::MapStore;
use crate::timeline::Superseded;

const START: Lsn = Lsn(0x1000);

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

fn receiver(safekeepers: &[&str]) -> Receiver<MapStore> {
    let id = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
    let cache = Arc::new(PageCache::new(0));
    let timeline = Timeline::new(id, Arc::default(), control_state(START), cache, TimelineSlot(0));
    let addresses: Vec<String> = safekeepers.iter().map(|address| (*address).to_owned()).collect();
    Receiver::new(timeline, Safekeepers::new(&addresses).expect("addresses"))
}

/// One stream that brings `wal` from where the timeline is; the store may go away once it is open.
async fn one_stream(receiver: &Receiver<MapStore>, wal: &Bytes, is_away: bool) -> Result<(), Ended> {
    one_stream_of(receiver, wal, is_away, Term::ZERO).await
}

async fn one_stream_of(
    receiver: &Receiver<MapStore>,
    wal: &Bytes,
    is_away: bool,
    term: Term,
) -> Result<(), Ended> {
    let control = receiver.timeline.control();
    let begin = control.lsn;
    let skipped = usize::try_from(begin - START).expect("a small test");
    let mut decoder = WalStreamDecoder::new(begin, control.control_file.segment_bytes());
    let (store, sizes) = (receiver.timeline.store.clone(), receiver.timeline.sizes.clone());
    store.is_away.store(false, Ordering::Relaxed);
    let mut ingest = Ingest::resume(store.clone(), sizes, control).await?;
    store.is_away.store(is_away, Ordering::Relaxed);
    decoder.feed(wal.slice(skipped..));
    receiver.see(News { committed: Lsn::INVALID, term }, &mut ingest);
    receiver.take(&mut ingest, "here", Piece::next(&mut decoder)).await
}

#[test]
fn a_record_on_whole_databases_that_fails_for_now_is_tried_again() {
    run(async {
        let receiver = receiver(&["127.0.0.1:1"]);
        let log = LogIdentity {
            timeline: 1,
            system_id: SystemId(7),
            segment_bytes: SegmentBytes::new(16 << 20).expect("a power of two"),
        };
        let mut writer = WalWriter::new(START, Lsn(0xf00), log);
        let drop: Vec<u8> = [5u32, 1, 1663].iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut wal = Vec::new();
        wal.extend_from_slice(
            &writer.append(&RecordSpec::plain(rmgr::XLOG, rmgr::xlog_info::NOOP, Bytes::new())).bytes,
        );
        let between = writer.position();
        wal.extend_from_slice(&writer.append(&RecordSpec::plain(rmgr::DBASE, 0x20, drop.into())).bytes);
        let wal = Bytes::from(wal);

        for _ in 0..2 {
            let ended = one_stream(&receiver, &wal, true).await.expect_err("the store is away");
            assert!(
                matches!(
                    ended,
                    Ended::Ingest(IngestError::View(ViewError::Store(StoreError::Unavailable(_))))
                ),
                "{ended}"
            );
            assert_eq!(receiver.timeline.last_record(), between, "what came before is published");
        }
        one_stream(&receiver, &wal, false).await.expect("the store is back");
        assert_eq!(receiver.timeline.last_record(), writer.position());
    });
}

fn undecodable(address: &str) -> Ended {
    let error = StreamError::NoRecord { lsn: START };
    Ended::Undecodable { address: address.to_owned(), after: START, error }
}

fn away() -> Ended {
    Ended::Source(SourceError::Silent { address: "c".to_owned() })
}

#[test]
fn log_that_no_safekeeper_can_give_whole_is_shown_at_once_and_parks_when_all_agree() {
    run(async {
        let mut receiver = receiver(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
        for ended in [undecodable("a"), undecodable("b"), away(), undecodable("a"), away(), undecodable("b")]
        {
            assert!(matches!(receiver.judge(&ended, false), Next::AnotherSource), "c may have a good copy");
            let problem = receiver.timeline.problem().expect("it is shown");
            assert!(problem.starts_with("log from safekeeper"), "{problem}");
        }
        let Next::Stop(Running::Parked(why)) = receiver.judge(&undecodable("c"), false) else {
            panic!("all three have the same bad log");
        };
        assert!(why.contains("log from safekeeper c after 0/1000"), "{why}");
    });
}

#[test]
fn progress_makes_it_another_place() {
    run(async {
        let mut receiver = receiver(&["127.0.0.1:1", "127.0.0.1:2"]);
        assert!(matches!(receiver.judge(&undecodable("a"), false), Next::AnotherSource));
        assert!(matches!(receiver.judge(&undecodable("b"), true), Next::AnotherSource));
        assert!(matches!(receiver.judge(&undecodable("a"), false), Next::Stop(Running::Parked(_))));
    });
}

#[test]
fn a_taken_over_timeline_is_not_called_damaged() {
    run(async {
        let mut receiver = receiver(&["127.0.0.1:1"]);
        let fenced = Ended::Ingest(StoreError::Fenced("generation 2".to_owned()).into());
        let Next::Stop(why) = receiver.judge(&fenced, false) else { panic!("it stops") };
        assert!(matches!(why, Running::Fenced(_)));
        receiver.timeline.stop(why);
        let error = receiver.timeline.wait_for(START + 8, Duration::from_secs(5)).await;
        let refusal = crate::getpage::Refusal::from(error.expect_err("no log comes any more"));
        assert_eq!(refusal.kind, strata_proto::page::page_error::Kind::Retryable);
    });
}

/// SK-2, CP-1: the state that storage gets with a later term's log carries the term, so a restart refuses what was refused before.
#[test]
fn log_of_a_later_term_ends_the_terms_before_it_for_good() {
    run(async {
        let receiver = receiver(&["127.0.0.1:1"]);
        let timeline = &receiver.timeline;
        let log = LogIdentity {
            timeline: 1,
            system_id: SystemId(7),
            segment_bytes: SegmentBytes::new(16 << 20).expect("a power of two"),
        };
        let mut writer = WalWriter::new(START, Lsn(0xf00), log);
        let mut wal = Vec::new();
        for _ in 0..2 {
            wal.extend_from_slice(
                &writer.append(&RecordSpec::plain(rmgr::XLOG, rmgr::xlog_info::NOOP, Bytes::new())).bytes,
            );
            one_stream_of(&receiver, &Bytes::from(wal.clone()), false, Term(1)).await.expect("good log");
            assert_eq!(timeline.check_term(Term(1)), Ok(()), "the term that writes");
        }
        let beaten = timeline.superseded(Term(1));
        one_stream_of(&receiver, &Bytes::from(wal.clone()), false, Term(3))
            .await
            .expect("no log, news of a term");
        let over = Superseded { id: timeline.id, asked: Term(1), newest: Term(3) };
        assert_eq!(timeline.check_term(Term(1)).expect_err("another compute was elected"), over);
        assert_eq!(timeline.check_term(Term(2)).map_err(|e| e.newest), Err(Term(3)));
        assert_eq!(timeline.check_term(Term(3)), Ok(()));
        assert_eq!(beaten.await, over, "whoever waits is told");

        wal.extend_from_slice(
            &writer.append(&RecordSpec::plain(rmgr::XLOG, rmgr::xlog_info::NOOP, Bytes::new())).bytes,
        );
        one_stream_of(&receiver, &Bytes::from(wal), false, Term(3)).await.expect("good log");
        // A safekeeper that lags behind does not bring an older term back.
        timeline.see_term(Term(2));
        let stored = ControlState::decode(&timeline.control().encode()).expect("just encoded");
        assert_eq!(stored.lsn, writer.position());
        let cache = Arc::new(PageCache::new(0));
        let again = Timeline::new(timeline.id, timeline.store.clone(), stored, cache, TimelineSlot(0));
        assert_eq!(again.check_term(Term(2)).map_err(|e| e.newest), Err(Term(3)));
        assert_eq!(again.check_term(Term(3)), Ok(()));
    });
}

#[test]
fn another_source_goes_on_with_what_the_last_one_left() {
    run(async {
        let mut receiver = receiver(&["127.0.0.1:1"]);
        let store = receiver.timeline.store.clone();
        let scans = || store.scans.load(Ordering::Relaxed);
        let ingest = receiver.resume().await.expect("an empty store");
        let once = scans();
        assert!(once > 0, "the first one asks storage");
        receiver.keep(ingest, &away());
        let ingest = receiver.resume().await.expect("kept");
        assert_eq!(scans(), once, "nothing is asked again");
        receiver.keep(ingest, &Ended::Ingest(StoreError::Unavailable("gone".to_owned()).into()));
        let ingest = receiver.resume().await.expect("an empty store");
        assert_eq!(scans(), 2 * once, "after an error of its own it is not trusted");
        // The timeline went on without it.
        receiver.keep(ingest, &away());
        let control = ControlState { lsn: START + 8, ..receiver.timeline.control() };
        receiver.timeline.publish(&control, Default::default());
        receiver.resume().await.expect("an empty store");
        assert_eq!(scans(), 3 * once);
    });
}
