//! A commit that waits for the quorum can be neither seen nor acknowledged early (trap S9; `docs/facts/commit-wait.md`).
//!
//! Vanilla's wait ends early, with the transaction visible and acknowledged, when its backend is cancelled or terminated. Here,
//! from just before the commit record to the end of the transaction, a wrapped signal handler only remembers SIGINT and
//! SIGTERM; afterwards they are handed on. Nothing sets the pending flags that the wait looks at, so it ends with the quorum's
//! answer, or with the process.
//!
//! `synchronous_commit` of `local` or `remote_write` counts as `on` while committing; `off` stays the user's choice.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use pgrx::pg_sys;

use crate::parent_death;
use crate::utility::Command;

/// This process is between "about to commit" and "committed or aborted".
static COMMITTING: AtomicBool = AtomicBool::new(false);
/// Signals that came meanwhile.
static HELD_INTERRUPT: AtomicBool = AtomicBool::new(false);
static HELD_TERMINATE: AtomicBool = AtomicBool::new(false);
/// The handlers that were there before, as addresses.
static OLD_INTERRUPT: AtomicUsize = AtomicUsize::new(0);
static OLD_TERMINATE: AtomicUsize = AtomicUsize::new(0);
/// `synchronous_commit` as the user has it, while it is raised; -1 otherwise.
static USERS_LEVEL: AtomicI32 = AtomicI32::new(-1);

/// This process runs COMMIT PREPARED or ROLLBACK PREPARED, whose files are dropped while a transaction seems to be in progress.
static FINISHING_PREPARED: AtomicBool = AtomicBool::new(false);

/// Commits wait for a quorum in this server.
static INSTALLED: AtomicBool = AtomicBool::new(false);

const REMOTE_FLUSH: i32 = pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_REMOTE_FLUSH as i32;
const OFF: i32 = pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32;

unsafe extern "C-unwind" {
    /// `src/backend/replication/syncrep.c`; also sets the wait mode, which is static there.
    fn assign_synchronous_commit(newval: libc::c_int, extra: *mut libc::c_void);
}

/// Installs the callbacks; call once, in the postmaster.
pub fn install() {
    // SAFETY: a callback of the right type, registered before any child is forked.
    unsafe { pg_sys::RegisterXactCallback(Some(on_transaction_event), std::ptr::null_mut()) };
    INSTALLED.store(true, Ordering::Relaxed);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_transaction_event(event: pg_sys::XactEvent::Type, _arg: *mut libc::c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT => begin(Off::IsTheUsersChoice),
        XACT_EVENT_PRE_PREPARE => begin(Off::CountsAsOn),
        XACT_EVENT_COMMIT | XACT_EVENT_PREPARE | XACT_EVENT_ABORT => end(),
        _ => {}
    }
}

/// What `synchronous_commit = off` means. Vanilla flushes two-phase state whatever it says (twophase.c), so here the quorum has
/// it before the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Off {
    IsTheUsersChoice,
    CountsAsOn,
}

/// From here on signals are held.
fn begin(off: Off) {
    parent_death::arm();
    wrap_handlers();
    raise_level(off);
    COMMITTING.store(true, Ordering::SeqCst);
    // A cancel that came before the mark may still end the transaction: an abort is legal here, and the ABORT event clears the mark.
    pgrx::check_for_interrupts!();
}

/// Whether what is dropped now is dropped after the record that says so (trap R6).
pub fn is_finishing_prepared() -> bool {
    FINISHING_PREPARED.load(Ordering::Relaxed)
}

/// The transaction is over: held signals are handed on.
fn end() {
    FINISHING_PREPARED.store(false, Ordering::Relaxed);
    if !COMMITTING.swap(false, Ordering::SeqCst) {
        return;
    }
    restore_level();
    for (held, signal) in [(&HELD_INTERRUPT, libc::SIGINT), (&HELD_TERMINATE, libc::SIGTERM)] {
        if held.swap(false, Ordering::SeqCst) {
            // SAFETY: a signal to this very process; its handler only sets flags.
            unsafe { libc::raise(signal) };
        }
    }
}

fn raise_level(off: Off) {
    // SAFETY: plain variables of this backend; the assign hook takes any level.
    unsafe {
        let level = pg_sys::synchronous_commit;
        let stays = level == OFF && off == Off::IsTheUsersChoice;
        if !stays && level < REMOTE_FLUSH {
            USERS_LEVEL.store(level, Ordering::Relaxed);
            set_level(REMOTE_FLUSH);
        }
    }
}

fn restore_level() {
    let level = USERS_LEVEL.swap(-1, Ordering::Relaxed);
    if level >= 0 {
        // SAFETY: as in raise_level.
        unsafe { set_level(level) };
    }
}

unsafe fn set_level(level: i32) {
    // SAFETY: the caller is a backend with its settings initialised.
    unsafe {
        pg_sys::synchronous_commit = level;
        assign_synchronous_commit(level, std::ptr::null_mut());
    }
}

/// Puts our handlers before those of this process. Looked at before every commit: a library, or a worker's own code, may have
/// set others since the last one.
fn wrap_handlers() {
    wrap(libc::SIGINT, on_interrupt, &OLD_INTERRUPT);
    wrap(libc::SIGTERM, on_terminate, &OLD_TERMINATE);
}

fn wrap(signal: libc::c_int, handler: extern "C" fn(libc::c_int), old: &AtomicUsize) {
    // SAFETY: sigaction(2) with a struct that it filled itself, its handler replaced by one of the same form.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &mut action) != 0
            || action.sa_sigaction == handler as usize
        {
            return;
        }
        // An ignored or default signal stays as it is: there is no handler that could be called later.
        if action.sa_sigaction == libc::SIG_IGN || action.sa_sigaction == libc::SIG_DFL {
            return;
        }
        old.store(action.sa_sigaction, Ordering::SeqCst);
        action.sa_sigaction = handler as usize;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

extern "C" fn on_interrupt(signal: libc::c_int) {
    hold_or_pass(signal, &HELD_INTERRUPT, &OLD_INTERRUPT);
}

extern "C" fn on_terminate(signal: libc::c_int) {
    hold_or_pass(signal, &HELD_TERMINATE, &OLD_TERMINATE);
}

/// Runs in a signal handler: touches atomics only.
fn hold_or_pass(signal: libc::c_int, held: &AtomicBool, old: &AtomicUsize) {
    if COMMITTING.load(Ordering::SeqCst) {
        held.store(true, Ordering::SeqCst);
        return;
    }
    let address = old.load(Ordering::SeqCst);
    if address != 0 {
        // SAFETY: the address came from sigaction for a handler of this form.
        let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(address) };
        handler(signal);
    }
}

/// Whether the command is COMMIT PREPARED or ROLLBACK PREPARED, which wait for the quorum outside any transaction event.
///
/// # Safety
/// `node` is a utility statement.
pub unsafe fn finishes_prepared(node: *mut pg_sys::Node) -> bool {
    use pg_sys::TransactionStmtKind::{TRANS_STMT_COMMIT_PREPARED, TRANS_STMT_ROLLBACK_PREPARED};
    // SAFETY: the caller's promise; the node's tag says its type.
    unsafe {
        if !INSTALLED.load(Ordering::Relaxed) || (*node).type_ != pg_sys::NodeTag::T_TransactionStmt {
            return false;
        }
        let kind = (*node.cast::<pg_sys::TransactionStmt>()).kind;
        kind == TRANS_STMT_COMMIT_PREPARED || kind == TRANS_STMT_ROLLBACK_PREPARED
    }
}

/// Runs it with signals held.
///
/// # Safety
/// As `Command::run`.
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn finish_prepared(command: &Command) {
    pgrx::PgTryBuilder::new(|| {
        begin(Off::CountsAsOn);
        FINISHING_PREPARED.store(true, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| command.run()) }
    })
    .finally(end)
    .execute();
}
