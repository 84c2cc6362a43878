//! The communicator: the background worker that talks to the pageserver for all processes (D8).
//!
//! The main thread is Postgres's: signals, the log, the end. A second thread runs the page client on a current-thread runtime
//! and calls nothing of Postgres (trap P2): it reads slots, writes pages into shared memory and wakes sleepers by system
//! calls. When that thread ends, the worker exits with 1 and is started again; waiting processes are served by the next one.
//! The main thread follows `strata.pageserver` and tells the other one when the address changes.

mod delivery;

use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;

use pgrx::pg_sys;
use strata_smgr::client::{self, ClientConfig, Event, Fenced, Writer};
use tokio::sync::watch;

use crate::guc;
use crate::smgr::state;
use crate::workers::{self, Declaration, Worker};
use delivery::{Doorbell, SharedMemory};

/// How often the main thread looks for messages, for the other thread's end, and whether it may leave.
const LOOK_MS: i64 = 200;

/// Declares the worker to the postmaster; call from `_PG_init`.
pub fn register() {
    workers::declare(&Declaration {
        name: c"strata communicator",
        function: c"strata_communicator_main",
        start: pg_sys::BgWorkerStartTime::BgWorkerStart_PostmasterStart,
    });
}

#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn strata_communicator_main(_argument: pg_sys::Datum) {
    workers::set_up(Worker::Communicator);
    workers::reload_on_hangup();
    let timeline = match guc::timeline() {
        Ok(timeline) => timeline,
        Err(problem) => pgrx::PANIC!("the communicator cannot start: {problem}"),
    };
    let writer = match guc::writer() {
        Ok(writer) => writer.map(|(term, start_lsn)| Writer { term, start_lsn }),
        Err(problem) => pgrx::PANIC!("the communicator cannot start: {problem}"),
    };
    let (sender, events) = std::sync::mpsc::channel();
    let config = ClientConfig { address: guc::value(&guc::PAGESERVER), timeline, writer };
    let (address, changes) = watch::channel(config.address.clone());
    match start_client(config, changes, sender) {
        Ok(thread) => look_after(&thread, &address, &events),
        Err(problem) => pgrx::error!("the communicator cannot start its thread: {problem}"),
    }
}

fn start_client(
    config: ClientConfig,
    address: watch::Receiver<String>,
    events: Sender<Told>,
) -> std::io::Result<JoinHandle<()>> {
    let named = std::thread::Builder::new().name("strata pages".to_owned());
    workers::with_signals_blocked(|| named.spawn(move || run_client(config, address, &events)))
}

fn run_client(config: ClientConfig, address: watch::Receiver<String>, events: &Sender<Told>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = events.send(Told::Event(Event::Disconnected(format!("no runtime: {error}"))));
            return;
        }
    };
    runtime.block_on(async {
        let doorbell = match Doorbell::new(state::doorbell()) {
            Ok(doorbell) => doorbell,
            Err(error) => {
                let _ = events.send(Told::Event(Event::Disconnected(format!("no doorbell: {error}"))));
                return;
            }
        };
        // The main thread may be gone already; then nobody wants to know.
        let report = |event| drop(events.send(Told::Event(event)));
        let fenced = client::run(config, address, state::slots(), doorbell, SharedMemory, report).await;
        let _ = events.send(Told::Fenced(fenced));
        // SAFETY: a signal to this very process; its handler (procsignal.c) sets the latch that the main thread sleeps on.
        unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
        // The main thread must not find this one ended before it has read the message.
        std::future::pending().await
    });
}

/// What the client's thread tells the main thread.
enum Told {
    Event(Event),
    Fenced(Fenced),
}

/// The main thread's loop.
fn look_after(thread: &JoinHandle<()>, address: &watch::Sender<String>, events: &Receiver<Told>) {
    loop {
        workers::reload_if_wanted();
        address.send_if_modified(|known| {
            let set = guc::value(&guc::PAGESERVER);
            std::mem::replace(known, set.clone()) != set
        });
        for event in events.try_iter() {
            match event {
                Told::Event(Event::Connected) => pgrx::log!("connected to the pageserver"),
                Told::Event(Event::Moved(address)) => pgrx::log!("the pageserver is at {address} now"),
                Told::Event(Event::Disconnected(why)) => pgrx::log!("no pageserver, reads wait: {why}"),
                Told::Fenced(Fenced(why)) => workers::stop_server(&workers::beaten(&why)),
            }
        }
        if thread.is_finished() {
            // Exit code 1: the postmaster starts another one.
            pgrx::error!("the communicator's thread has ended");
        }
        if workers::may_leave(Worker::Communicator) {
            // SAFETY: an orderly exit of this process; 0 means that it is not started again.
            unsafe { pg_sys::proc_exit(0) };
        }
        workers::nap(LOOK_MS);
    }
}
