//! The list of hot pages in the object store: what prewarms a compute whose folder is lost.
//!
//! The keeper carries it. Every while it puts the list if the cache has changed, and does what sessions ask of it (`desk`); each call runs on
//! a thread of its own, which calls nothing of Postgres (trap P2), so that neither the keeper's rounds nor a stop wait for it. The list is a
//! hint: what fails costs one line in the log and is tried again.
//!
//! A server that has just begun knows few pages. So that it does not put its list over the long one of the server before it, which may not
//! have been used yet, a list of fewer pages is held back for a time.

use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use pgrx::prelude::*;
use strata_lfc::kept;
use strata_smgr::client::{ClientConfig, Writer};
use strata_smgr::objects::{self, Got, ObjectError, ObjectName};

use super::kept::HotList;
use super::{memory, prewarm, settings};
use crate::{guc, workers};

/// So long a list is held back that is shorter than the former server's; so long, if it is much shorter.
const HOLD_BACK: Duration = Duration::from_secs(3600);
const HOLD_BACK_MAX: Duration = Duration::from_secs(24 * 3600);

/// Whose list was found, as an errand tells it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Found {
    Nothing = 0,
    Own = 1,
    Ancestors = 2,
}

/// What is done on the thread.
enum Job {
    Put {
        errand: Option<u64>,
        pages: usize,
        writes: u64,
    },
    Get {
        errand: u64,
    },
    /// How long is the list that is there?
    Look,
}

type Fetched = Result<Option<Got>, ObjectError>;

/// The keeper's part.
pub struct Carrier {
    under_way: Option<(Job, Receiver<Fetched>)>,
    /// When the list was last due.
    due: Instant,
    /// What the cache's `writes` was when the list in the object store was made.
    listed: u64,
    /// Pages of the list that a former server has put, once that is known; 0 when it is replaced.
    former: Option<usize>,
    held_back_since: Option<Instant>,
    /// That a list is held back has been said.
    told: bool,
    failing: bool,
}

impl Carrier {
    pub fn new() -> Carrier {
        Carrier {
            under_way: None,
            due: Instant::now(),
            listed: 0,
            former: None,
            held_back_since: None,
            told: false,
            failing: false,
        }
    }

    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Goes on with what there is to do; never waits for the network.
    pub fn look(&mut self) {
        if !memory::is_attached() {
            return;
        }
        if let Some((job, result)) = self.under_way.take() {
            match result.try_recv() {
                Err(TryRecvError::Empty) => return self.under_way = Some((job, result)),
                Err(TryRecvError::Disconnected) => self.finish(job, not_asked("its thread has ended")),
                Ok(outcome) => self.finish(job, outcome),
            }
            return;
        }
        let desk = &memory::counters().desk;
        if let Some(errand) = desk.get.wanted() {
            self.begin(Job::Get { errand }, None);
        } else if let Some(errand) = desk.put.wanted() {
            match self.list() {
                Some(list) => self.put(Some(errand), list),
                None => desk.put.finish(
                    errand,
                    Err("the local file cache is off, or this server writes nothing".to_owned()),
                ),
            }
        } else if self.is_due() {
            self.due = Instant::now();
            match self.former {
                None => self.begin(Job::Look, None),
                Some(former) => self.put_unless_shorter(former),
            }
        }
    }

    fn is_due(&self) -> bool {
        let interval = settings::state_interval();
        !interval.is_zero()
            && super::is_on()
            && !workers::stop_is_wanted()
            && self.due.elapsed() >= interval
            && memory::counters().writes.load(std::sync::atomic::Ordering::Relaxed) != self.listed
    }

    fn list(&self) -> Option<HotList> {
        if super::is_on() { super::kept::hot_list(strata_proto::OBJECT_BYTES_MAX) } else { None }
    }

    fn put_after(&mut self, former: usize) {
        self.former = Some(former);
        self.put_unless_shorter(former);
    }

    fn put_unless_shorter(&mut self, former: usize) {
        let Some(list) = self.list().filter(|list| list.pages > 0) else { return };
        let since = *self.held_back_since.get_or_insert_with(Instant::now);
        let hold_back = if list.pages < former / 4 { HOLD_BACK_MAX } else { HOLD_BACK };
        if list.pages < former && since.elapsed() < hold_back {
            if !std::mem::replace(&mut self.told, true) {
                pgrx::log!(
                    "the list of hot pages in the object store has {former} pages of a former server, and this one has {}: it stays for now",
                    list.pages
                );
            }
            return;
        }
        self.put(None, list);
    }

    fn put(&mut self, errand: Option<u64>, list: HotList) {
        let HotList { bytes, pages, writes } = list;
        self.begin(Job::Put { errand, pages, writes }, Some(bytes));
    }

    /// Puts the content, or gets what is there.
    fn begin(&mut self, job: Job, content: Option<Vec<u8>>) {
        let config = match config() {
            Ok(config) => config,
            Err(problem) => return self.finish(job, not_asked(problem)),
        };
        let (sender, result) = channel();
        let named = std::thread::Builder::new().name("strata hot list".to_owned());
        // Nobody may want to know any more.
        let started =
            workers::with_signals_blocked(|| named.spawn(move || drop(sender.send(carry(&config, content)))));
        match started {
            Ok(_) => self.under_way = Some((job, result)),
            Err(error) => self.finish(job, not_asked(format!("no thread: {error}"))),
        }
    }

    fn finish(&mut self, job: Job, outcome: Fetched) {
        let desk = &memory::counters().desk;
        match job {
            Job::Get { errand } => {
                let found = outcome.map_err(|why| why.to_string()).and_then(|got| lay_down(got.as_ref()));
                desk.get.finish(errand, found.map(|found| found as u64));
            }
            Job::Put { errand, pages, writes } => {
                match &outcome {
                    Ok(_) => (self.listed, self.former, self.failing) = (writes, Some(0), false),
                    Err(why) if errand.is_none() => self.complain(why),
                    Err(_) => {}
                }
                if let Some(errand) = errand {
                    desk.put.finish(errand, outcome.map(|_| pages as u64).map_err(|why| why.to_string()));
                }
            }
            Job::Look => match outcome {
                Ok(got) => self.put_after(former_pages(got.as_ref())),
                Err(ObjectError::Damaged(_)) => self.put_after(0),
                Err(why) => self.complain(&why),
            },
        }
    }

    /// Once for as long as it lasts.
    fn complain(&mut self, why: &ObjectError) {
        if !std::mem::replace(&mut self.failing, true) {
            pgrx::log!("the list of hot pages is not put into the object store, which is tried again: {why}");
        }
    }
}

fn not_asked(why: impl Into<String>) -> Fetched {
    Err(ObjectError::NotAsked(why.into()))
}

fn config() -> Result<ClientConfig, String> {
    let writer = guc::writer()?.map(|(term, start_lsn)| Writer { term, start_lsn });
    Ok(ClientConfig { address: guc::value(&guc::PAGESERVER), timeline: guc::timeline()?, writer })
}

/// The thread's whole work.
fn carry(config: &ClientConfig, content: Option<Vec<u8>>) -> Fetched {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ObjectError::NotAsked(format!("no runtime: {error}")))?;
    let name = ObjectName::LfcState;
    runtime.block_on(async {
        match content {
            Some(content) => objects::put(config, name, content.into()).await.map(|()| None),
            None => objects::get(config, name).await,
        }
    })
}

/// How many pages this branch's list has; what cannot be read has none.
fn former_pages(got: Option<&Got>) -> usize {
    let own = guc::timeline().map(|own| own.timeline).ok();
    let mine = got.filter(|got| Some(got.timeline) == own);
    mine.and_then(|got| kept::decode(&got.content).ok()).map_or(0, |(_, pages)| pages.len())
}

/// Where the session finds it that asked.
fn lay_down(got: Option<&Got>) -> Result<Found, String> {
    let Some(got) = got else { return Ok(Found::Nothing) };
    super::kept::write_fetched(&got.content)
        .map_err(|error| format!("the list that came could not be written beside the cache: {error}"))?;
    Ok(if got.timeline == guc::timeline()?.timeline { Found::Own } else { Found::Ancestors })
}

/// Puts the list of the pages that the cache holds into the object store; how many it names.
#[pg_extern]
fn strata_lfc_state_put() -> i64 {
    prewarm::require_cache();
    match memory::counters().desk.put.run() {
        Ok(pages) => pages.cast_signed(),
        Err(why) => pgrx::error!("the list of hot pages was not put into the object store: {why}"),
    }
}

/// Reads the pages of the list that was put last; how many it put into the cache.
#[pg_extern]
fn strata_lfc_prewarm_remote() -> i64 {
    prewarm::require_cache();
    let found = match memory::counters().desk.get.run() {
        Ok(found) => found,
        Err(why) => pgrx::error!("the list of hot pages did not come from the object store: {why}"),
    };
    if found == Found::Nothing as u64 {
        pgrx::notice!("the object store has no list of hot pages of this branch, nor of one it comes from");
        return 0;
    }
    if found == Found::Ancestors as u64 {
        pgrx::notice!("this branch has no list of hot pages yet: that of the one it comes from is used");
    }
    match super::kept::fetched() {
        Ok(bytes) => prewarm::prewarm(&bytes),
        Err(error) => pgrx::error!("the list that came could not be read: {error}"),
    }
}
