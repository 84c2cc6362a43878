//! The one hook on utility commands. What a command means for each part of the extension is decided there; this passes it on.
//!
//! An error of the command passes these frames as the server throws it: caught and thrown again it would lose its position in the
//! query and its context. So nothing here needs cleaning up, and what is ours runs in guarded functions of its own.

use std::ffi::c_char;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgrx::pg_sys;

use crate::{fixed_settings, smgr, wal};

static PREVIOUS: AtomicUsize = AtomicUsize::new(0);

/// A utility hook, or what stands at the end of their chain.
type Hook = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannedStmt,
    *const c_char,
    bool,
    pg_sys::ProcessUtilityContext::Type,
    pg_sys::ParamListInfo,
    *mut pg_sys::QueryEnvironment,
    *mut pg_sys::DestReceiver,
    *mut pg_sys::QueryCompletion,
);

unsafe extern "C-unwind" {
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Installs the hook; call once, from `_PG_init` in the postmaster.
pub fn install() {
    // SAFETY: a hook of the right type; the one before it is called by ours.
    unsafe {
        let previous = pg_sys::ProcessUtility_hook;
        PREVIOUS.store(previous.map_or(0, |hook| hook as usize), Ordering::Relaxed);
        pg_sys::ProcessUtility_hook = Some(on_utility);
    }
}

/// A command that has not run yet, with all that the server gave with it.
#[derive(Clone, Copy)]
pub struct Command {
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
}

impl Command {
    /// The command's tree; never null while the hook runs.
    pub fn node(&self) -> *mut pg_sys::Node {
        // SAFETY: the server passed a valid tree.
        unsafe { (*self.statement).utilityStmt }
    }

    /// Lets the hook before ours, or the server, run it.
    ///
    /// # Safety
    /// Inside the hook's call, once.
    pub unsafe fn run(&self) {
        // SAFETY: the address is a hook of this very type, or 0; the arguments are passed on as they came.
        unsafe {
            let previous: Option<Hook> = std::mem::transmute(PREVIOUS.load(Ordering::Relaxed));
            let next = previous.unwrap_or(standard_ProcessUtility);
            next(
                self.statement,
                self.query,
                self.read_only_tree,
                self.context,
                self.params,
                self.environment,
                self.receiver,
                self.completion,
            );
        }
    }
}

unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let command =
        Command { statement, query, read_only_tree, context, params, environment, receiver, completion };
    // SAFETY: the tree is the server's and valid; the command runs once.
    unsafe {
        fixed_settings::before_command(command.node());
        let after = smgr::hooks::before_command(command.node());
        if wal::finishes_prepared(command.node()) {
            wal::finish_prepared(&command);
        } else {
            command.run();
        }
        smgr::hooks::after_command(after);
    }
}
