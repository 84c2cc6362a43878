//! A store that misbehaves as a real one may, for tests: away, slow, refusing, and losing the answer of a put that happened.
//!
//! Faults come from rates and a seed (the same seed gives the same faults for the same calls) or are switched on by hand. It never does
//! what the seam forbids, such as tearing an object or letting two conditional puts win.

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;

use crate::{Object, ObjectInfo, ObjectKey, ObjectStore, PutCondition, StoreError, StoreFuture, Version};

/// Chances in a thousand calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultRates {
    /// The call fails and has not happened.
    pub refused: u32,
    /// The put or delete has happened, but the caller hears that it failed.
    pub answer_lost: u32,
    /// The call takes `delay` longer.
    pub delayed: u32,
    pub delay: Duration,
}

#[derive(Debug, Default)]
struct State {
    rates: FaultRates,
    random: u64,
    down: bool,
    puts_left: Option<u64>,
    calls: u64,
    puts: u64,
    gets: u64,
}

#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Refused,
    AnswerLost,
}

impl<S: ObjectStore> FaultyStore<S> {
    /// Without faults until they are asked for.
    pub fn new(inner: S, seed: u64) -> FaultyStore<S> {
        FaultyStore { inner, state: Mutex::new(State { random: seed, ..State::default() }) }
    }

    pub fn set_rates(&self, rates: FaultRates) {
        self.state().rates = rates;
    }

    /// Away: every call fails until it is back.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// After `puts` more puts and deletes every call fails, as seen by a process that is killed then. `None` lifts it.
    pub fn die_after(&self, puts: Option<u64>) {
        self.state().puts_left = puts;
    }

    /// Puts tried so far, whatever became of them.
    pub fn puts(&self) -> u64 {
        self.state().puts
    }

    /// Reads of objects tried so far (whole or in part), whatever became of them.
    pub fn gets(&self) -> u64 {
        self.state().gets
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no call panics while it holds this lock")
    }

    async fn fate(&self, mutates: bool) -> Fault {
        let (fault, delay) = {
            let mut state = self.state();
            state.calls += 1;
            let dead = state.puts_left == Some(0);
            if mutates && let Some(left) = &mut state.puts_left {
                *left = left.saturating_sub(1);
            }
            let rates = state.rates;
            let delay = (state.draw() < rates.delayed).then_some(rates.delay);
            let roll = state.draw();
            let fault = if dead || state.down || roll < rates.refused {
                Fault::Refused
            } else if mutates && roll < rates.refused + rates.answer_lost {
                Fault::AnswerLost
            } else {
                Fault::None
            };
            (fault, delay)
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        fault
    }

    async fn run<T>(
        &self,
        operation: &'static str,
        what: &str,
        mutates: bool,
        call: StoreFuture<'_, T>,
    ) -> Result<T, StoreError> {
        let failed = |reason: &str| {
            Err(StoreError::Unavailable { operation, what: what.to_owned(), reason: reason.to_owned() })
        };
        match self.fate(mutates).await {
            Fault::None => call.await,
            Fault::Refused => failed("injected fault"),
            Fault::AnswerLost => {
                call.await?;
                failed("injected loss of the answer")
            }
        }
    }
}

impl State {
    /// A number below 1000 (splitmix64).
    fn draw(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % 1000) as u32
    }
}

impl<S: ObjectStore> ObjectStore for FaultyStore<S> {
    fn put<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Bytes,
        condition: PutCondition,
    ) -> StoreFuture<'a, Version> {
        self.state().puts += 1;
        Box::pin(self.run("put", key.as_str(), true, self.inner.put(key, body, condition)))
    }
    fn get<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, Object> {
        self.state().gets += 1;
        Box::pin(self.run("get", key.as_str(), false, self.inner.get(key)))
    }
    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        self.state().gets += 1;
        Box::pin(self.run("get", key.as_str(), false, self.inner.get_range(key, range)))
    }
    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.run("head", key.as_str(), false, self.inner.head(key)))
    }
    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Vec<ObjectInfo>> {
        Box::pin(self.run("list", prefix, false, self.inner.list(prefix)))
    }
    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        Box::pin(self.run("delete", key.as_str(), true, self.inner.delete(key)))
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}
