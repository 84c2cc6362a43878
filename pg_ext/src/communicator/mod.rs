//! The communicator: the background worker that talks to the pageserver for all processes (D8).
//!
//! The main thread is Postgres's: signals, the log, the end. A second thread runs the page client on a current-thread runtime
//! and calls nothing of Postgres (trap P2): it reads slots, writes pages into shared memory and wakes sleepers by system
//! calls. When that thread ends, the worker exits with 1 and is started again; waiting processes are served by the next one.

mod delivery;

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;

use pgrx::pg_sys;
use strata_smgr::client::{self, ClientConfig, Event};

use crate::smgr::state;
use crate::workers::{self, Worker};
use crate::{guc, parent_death};
use delivery::{Doorbell, SharedMemory};

/// How often the main thread looks for messages, for the other thread's end, and whether it may leave.
const LOOK_MS: i64 = 200;

/// Declares the worker to the postmaster; call from `_PG_init`.
pub fn register() {
    // SAFETY: a zeroed struct of plain arrays and numbers, filled before it is passed on.
    unsafe {
        let mut worker: pg_sys::BackgroundWorker = std::mem::zeroed();
        put(&mut worker.bgw_name, c"strata communicator");
        put(&mut worker.bgw_type, c"strata communicator");
        put(&mut worker.bgw_library_name, c"strata");
        put(&mut worker.bgw_function_name, c"strata_communicator_main");
        worker.bgw_flags = pg_sys::BGWORKER_SHMEM_ACCESS as i32;
        worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_PostmasterStart;
        worker.bgw_restart_time = 1;
        pg_sys::RegisterBackgroundWorker(&mut worker);
    }
}

fn put<const N: usize>(field: &mut [std::ffi::c_char; N], text: &CStr) {
    for (place, byte) in field.iter_mut().zip(text.to_bytes_with_nul()) {
        *place = *byte as std::ffi::c_char;
    }
}

static TERMINATE: AtomicBool = AtomicBool::new(false);

/// Remembers the stop; when it may be served is `workers::may_leave`'s to say: an ending transaction may need a page.
unsafe extern "C-unwind" fn on_terminate(_signal: libc::c_int) {
    TERMINATE.store(true, Ordering::SeqCst);
    // SAFETY: SetLatch may be called from signal handlers.
    unsafe { pg_sys::SetLatch(pg_sys::MyLatch) };
}

#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn strata_communicator_main(_argument: pg_sys::Datum) {
    parent_death::arm();
    // SAFETY: a worker's first calls, as bgworker.c prescribes.
    unsafe {
        pg_sys::pqsignal(libc::SIGTERM, Some(on_terminate));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    workers::register(Worker::Communicator);
    let timeline = match guc::timeline() {
        Ok(timeline) => timeline,
        Err(problem) => pgrx::PANIC!("the communicator cannot start: {problem}"),
    };
    let (sender, events) = std::sync::mpsc::channel();
    match start_client(ClientConfig { address: guc::value(&guc::PAGESERVER), timeline }, sender) {
        Ok(thread) => watch(&thread, &events),
        Err(problem) => pgrx::error!("the communicator cannot start its thread: {problem}"),
    }
}

/// Starts the client's thread with all signals blocked, so that the server's handlers only ever run on the main thread.
fn start_client(config: ClientConfig, events: Sender<Event>) -> std::io::Result<JoinHandle<()>> {
    // SAFETY: signal sets are plain memory; the mask is put back at once.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let started = std::thread::Builder::new()
            .name("strata pages".to_owned())
            .spawn(move || run_client(config, &events));
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        started
    }
}

fn run_client(config: ClientConfig, events: &Sender<Event>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = events.send(Event::Disconnected(format!("no runtime: {error}")));
            return;
        }
    };
    runtime.block_on(async {
        let doorbell = match Doorbell::new(state::doorbell()) {
            Ok(doorbell) => doorbell,
            Err(error) => {
                let _ = events.send(Event::Disconnected(format!("no doorbell: {error}")));
                return;
            }
        };
        // The main thread may be gone already; then nobody wants to know.
        let report = |event| drop(events.send(event));
        client::run(config, state::slots(), doorbell, SharedMemory, report).await;
    });
}

/// The main thread's loop.
fn watch(thread: &JoinHandle<()>, events: &Receiver<Event>) {
    loop {
        for event in events.try_iter() {
            match event {
                Event::Connected => pgrx::log!("connected to the pageserver"),
                Event::Disconnected(why) => pgrx::log!("no pageserver, reads wait: {why}"),
            }
        }
        if thread.is_finished() {
            // Exit code 1: the postmaster starts another one.
            pgrx::error!("the communicator's thread has ended");
        }
        // SAFETY: an orderly exit of this process; 0 means that it is not started again. The latch is its own.
        unsafe {
            if TERMINATE.load(Ordering::SeqCst) && workers::may_leave() {
                pg_sys::proc_exit(0);
            }
            let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
            pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, LOOK_MS, pg_sys::PG_WAIT_EXTENSION);
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
    }
}
