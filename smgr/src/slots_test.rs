//! The slot protocol: as a story, against a model, and with two threads at once.

use super::*;
use proptest::prelude::*;
use std::sync::atomic::AtomicBool;

fn pages(first: u32, count: u32) -> Request {
    let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 }.fork(ForkNumber::VisibilityMap);
    Request { ask: Ask::Pages { rel, first: BlockNumber(first), count }, not_modified_since: Lsn(77) }
}

#[test]
fn a_request_and_its_answer() {
    let slot = Slot::default();
    assert_eq!(slot.collect(), None);
    for (round, ask) in [
        pages(3, 2).ask,
        Ask::RelSize(match pages(0, 1).ask {
            Ask::Pages { rel, .. } => rel,
            _ => unreachable!(),
        }),
        Ask::DatabaseSize { tablespace: 0, database: 5 },
        Ask::TablespaceUsed { tablespace: 7 },
    ]
    .into_iter()
    .enumerate()
    {
        let request = Request { ask, not_modified_since: Lsn(9) };
        let targets: &[u64] = if round == 0 { &[4096, 12288] } else { &[] };
        slot.submit(&request, targets);
        let (generation, seen) = slot.take().expect("submitted");
        assert_eq!(seen, request);
        assert!(slot.take().is_none(), "taken once");
        assert!(slot.begin_delivery(generation));
        if round == 0 {
            assert_eq!((slot.target(0), slot.target(1)), (4096, 12288));
        }
        slot.finish_delivery(generation, &Outcome::Value(round as u64));
        assert_eq!(slot.collect(), Some(Outcome::Value(round as u64)));
    }
    let long = "é".repeat(300);
    slot.submit(&pages(0, 1), &[0]);
    let (generation, _) = slot.take().expect("submitted");
    assert!(slot.begin_delivery(generation));
    slot.finish_delivery(generation, &Outcome::Refused(long.clone()));
    assert_eq!(slot.collect(), Some(Outcome::Refused(long[..512].to_owned())));
}

#[test]
fn p7_a_late_answer_finds_nobody() {
    let slot = Slot::default();
    slot.submit(&pages(0, 1), &[1]);
    let (old, _) = slot.take().expect("submitted");
    assert!(slot.abandon());
    assert!(!slot.begin_delivery(old), "abandoned");
    slot.submit(&pages(1, 1), &[2]);
    assert!(!slot.begin_delivery(old), "another request of the same slot");
    slot.put_back(old);
    let (new, _) = slot.take().expect("submitted");
    assert!(!slot.begin_delivery(old));
    assert!(slot.begin_delivery(new));
    assert!(!slot.abandon(), "not while pages are written");
    slot.finish_delivery(new, &Outcome::Value(0));
    assert!(slot.abandon(), "an answer may be thrown away");
    assert_eq!(slot.collect(), None);
}

/// Who gives up while an answer is being written sleeps until it is, and no longer spins then.
#[test]
fn p7_who_gives_up_sleeps_until_the_answer_is_written() {
    let slot = Slot::default();
    let begin = || {
        slot.submit(&pages(0, 1), &[1]);
        let (generation, _) = slot.take().expect("submitted");
        assert!(slot.begin_delivery(generation));
        generation
    };
    let (generation, mut sleeps) = (begin(), 0);
    slot.abandon_at_last(|word, seen| {
        assert_eq!(word.load(Ordering::Relaxed), seen, "nothing has come yet");
        sleeps += 1;
        if sleeps == 3 {
            slot.finish_delivery(generation, &Outcome::Value(0));
            assert_ne!(word.load(Ordering::Relaxed), seen, "who is about to sleep does not");
        }
    });
    assert_eq!((sleeps, slot.collect()), (3, None));

    // The communicator has ended in the middle of it.
    let (generation, mut sleeps) = (begin(), 0);
    slot.abandon_at_last(|_, _| {
        sleeps += 1;
        assert!(slot.recover().is_none());
    });
    assert_eq!((sleeps, slot.is_open()), (1, false));
    assert!(!slot.begin_delivery(generation), "and nothing comes late");
    slot.abandon_at_last(|_, _| unreachable!("nothing is being written"));
}

#[test]
fn a_new_communicator_asks_again() {
    let slots: Vec<Slot> = (0..3).map(|_| Slot::default()).collect();
    for slot in &slots {
        slot.submit(&pages(0, 1), &[1]);
    }
    let (_, _) = slots[0].take().expect("submitted");
    let (generation, _) = slots[1].take().expect("submitted");
    assert!(slots[1].begin_delivery(generation));
    // What the predecessor had taken has no mark any more.
    let marks = [AtomicU64::new(0)];
    let table = SlotTable::new(&slots, &marks);
    table.recover_all(|_| unreachable!("there is no answer"));
    let mut taken = 0;
    table.take_submitted(|_, _| taken += 1);
    assert_eq!(taken, 3);
}

/// The predecessor may have ended between the answer and the wake-up.
#[test]
fn a_new_communicator_wakes_who_has_an_answer() {
    let slots = [Slot::default(), Slot::default()];
    let marks = [AtomicU64::new(0)];
    let table = SlotTable::new(&slots, &marks);
    table.submit(1, &pages(0, 1), &[1]);
    let Err((_, seen)) = slots[1].look() else { panic!("there is no answer yet") };
    let (generation, _) = slots[1].take().expect("submitted");
    assert!(slots[1].begin_delivery(generation));
    slots[1].finish_delivery(generation, &Outcome::Value(5));
    let woken = std::cell::RefCell::new(Vec::new());
    table.recover_all(|word| woken.borrow_mut().push(word.load(Ordering::Relaxed)));
    assert_eq!(woken.borrow().len(), 1, "its owner");
    assert_ne!(woken.borrow()[0], seen, "who is about to sleep does not");
    assert_eq!(slots[1].look().ok(), Some(Outcome::Value(5)));
}

/// The communicator looks at marked slots only, so a request without a mark would wait for ever.
#[test]
fn what_is_submitted_or_put_back_is_found() {
    let slots: Vec<Slot> = (0..200).map(|_| Slot::default()).collect();
    let marks: Vec<AtomicU64> = (0..SlotTable::mark_words(200)).map(|_| AtomicU64::new(0)).collect();
    let table = SlotTable::new(&slots, &marks);
    let found = || {
        let mut found = Vec::new();
        table.take_submitted(|ticket, _| found.push(ticket));
        found
    };
    assert!(found().is_empty());
    for number in [0, 63, 64, 199] {
        table.submit(number, &pages(number as u32, 1), &[1]);
    }
    let taken = found();
    assert_eq!(taken.iter().map(|ticket| ticket.slot).collect::<Vec<_>>(), [0, 63, 64, 199]);
    assert!(found().is_empty(), "taken once");
    table.put_back(taken[3]);
    assert_eq!(found(), [taken[3]]);
    // An abandoned one is marked, and is not there.
    table.put_back(taken[1]);
    assert!(slots[63].abandon());
    assert!(found().is_empty());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit,
    Collect,
    Abandon,
    Take,
    Begin,
    Finish,
    PutBack,
    Restart,
}

proptest! {
    /// P7 as a model: the owner's memory is only written for the request that the owner waits for, and every collected answer is
    /// that of the last request.
    #[test]
    fn deliveries_match_requests(steps in proptest::collection::vec((0u8..8, 0usize..4), 1..200)) {
        let slot = Slot::default();
        let (mut waiting, mut requests) = (None, 0u64);
        let mut held: Vec<(u64, u64)> = Vec::new();
        let mut writing: Option<(u64, u64)> = None;
        for (step, which) in steps {
            let step = [Step::Submit, Step::Collect, Step::Abandon, Step::Take, Step::Begin, Step::Finish, Step::PutBack, Step::Restart][usize::from(step)];
            match step {
                Step::Submit if waiting.is_none() => {
                    requests += 1;
                    slot.submit(&pages(u32::try_from(requests).expect("few"), 1), &[requests]);
                    waiting = Some(requests);
                }
                Step::Collect => if let Some(outcome) = slot.collect() {
                    prop_assert_eq!(Some(outcome), waiting.map(Outcome::Value));
                    waiting = None;
                },
                Step::Abandon => if slot.abandon() { waiting = None } else { prop_assert!(writing.is_some()) },
                Step::Take => if let Some((generation, request)) = slot.take() {
                    let Ask::Pages { first, .. } = request.ask else { panic!("pages were asked for") };
                    prop_assert_eq!(waiting, Some(u64::from(first.0)));
                    held.push((generation, u64::from(first.0)));
                },
                Step::Begin if writing.is_none() && !held.is_empty() => {
                    let (generation, id) = held[which % held.len()];
                    if slot.begin_delivery(generation) {
                        prop_assert_eq!(waiting, Some(id), "only for whom is waited");
                        prop_assert_eq!(slot.target(0), id);
                        writing = Some((generation, id));
                    }
                }
                Step::Finish => if let Some((generation, id)) = writing.take() {
                    slot.finish_delivery(generation, &Outcome::Value(id));
                },
                Step::PutBack if !held.is_empty() => slot.put_back(held[which % held.len()].0),
                Step::Restart => {
                    let _ = slot.recover();
                    writing = None;
                    held.clear();
                }
                _ => {}
            }
        }
    }
}

/// The same with real threads: an owner that gives up at random, a communicator that answers what it took, and a "page" that must
/// never change while its owner does not wait for it.
#[test]
fn two_threads() {
    let (slot, page, stop) = (Slot::default(), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let Some((generation, request)) = slot.take() else { continue };
                let Ask::Pages { first, .. } = request.ask else { panic!("pages were asked for") };
                if slot.begin_delivery(generation) {
                    page.store(u64::from(first.0), Ordering::Relaxed);
                    slot.finish_delivery(generation, &Outcome::Value(u64::from(first.0)));
                }
            }
        });
        let mut delivered = 0;
        for request in 1..200_000u32 {
            slot.submit(&pages(request, 1), &[0]);
            let patience = (request.wrapping_mul(2_654_435_761) >> 20) % 64;
            let mut outcome = None;
            for _ in 0..patience {
                outcome = slot.collect();
                if outcome.is_some() {
                    break;
                }
                std::hint::spin_loop();
            }
            match outcome {
                Some(outcome) => {
                    delivered += 1;
                    assert_eq!(outcome, Outcome::Value(u64::from(request)));
                    assert_eq!(page.load(Ordering::Relaxed), u64::from(request));
                }
                None => {
                    while !slot.abandon() {
                        std::hint::spin_loop();
                    }
                    page.store(0, Ordering::Relaxed);
                    assert_eq!(page.load(Ordering::Relaxed), 0);
                }
            }
        }
        stop.store(true, Ordering::Release);
        assert!(delivered > 0);
    });
}

/// P7: a wake-up counts as lost if it came within the sleep that nobody ended, and was for the very answer.
#[test]
fn a_lost_wakeup_is_told_from_a_late_answer() {
    let slot = Slot::default();
    let answered = |woken_at: Option<u64>| {
        slot.submit(&pages(0, 1), &[1]);
        let (generation, _) = slot.take().expect("submitted");
        assert!(slot.begin_delivery(generation));
        slot.finish_delivery(generation, &Outcome::Value(0));
        if let Some(nanos) = woken_at {
            slot.note_woken(generation, nanos);
        }
        assert!(slot.look().is_ok());
        slot.was_woken_before(1000)
    };
    assert!(answered(Some(999)), "woken, and slept on until 1000");
    assert!(!answered(Some(1000)), "the sleep was over");
    assert!(!answered(None), "not woken yet: what was noted is of the answer before");
}
