//! Whether a process that waits for a page may give up (traps P1, P3, P10).
//!
//! Giving up means an error, so it is only right where one may be raised; elsewhere the wait goes on as it is, without asking
//! anew: a request that is taken back whenever somebody looks would never be answered.

/// What the process is asked to do and where it stands (`globals.c`, `miscadmin.h`).
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub terminate_pending: bool,
    pub cancel_pending: bool,
    /// Inside a critical section, or exiting.
    pub must_finish: bool,
    /// Interrupts are held off, as LWLocks do.
    pub held_off: bool,
    /// Cancels are held off: a message of the client is being read.
    pub cancel_held_off: bool,
    /// A transaction is in progress, neither committing nor aborting.
    pub in_transaction: bool,
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// Nothing, or nothing that may be done here: wait on.
    Wait,
    /// Let the server process it as ever.
    Process,
    /// P10: the server would look away because LWLocks are held, but an error is possible.
    Terminate,
    Cancel,
}

impl State {
    pub fn decide(self) -> Interrupt {
        if self.must_finish || !(self.terminate_pending || self.cancel_pending) {
            return Interrupt::Wait;
        }
        if !self.held_off && !self.cancel_held_off {
            return Interrupt::Process;
        }
        // While a transaction ends an error would be worse than the wait.
        if !self.in_transaction {
            return Interrupt::Wait;
        }
        match self {
            State { terminate_pending: true, .. } => Interrupt::Terminate,
            State { cancel_held_off: false, .. } => Interrupt::Cancel,
            _ => Interrupt::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: State = State {
        terminate_pending: false,
        cancel_pending: false,
        must_finish: false,
        held_off: false,
        cancel_held_off: false,
        in_transaction: true,
    };

    #[test]
    fn who_may_give_up() {
        let cancel = State { cancel_pending: true, ..QUIET };
        let both = State { terminate_pending: true, ..cancel };
        let cases = [
            (QUIET, Interrupt::Wait),
            (cancel, Interrupt::Process),
            (State { must_finish: true, ..both }, Interrupt::Wait),
            (State { held_off: true, ..cancel }, Interrupt::Cancel),
            (State { held_off: true, ..both }, Interrupt::Terminate),
            // An aborting transaction that reads a page with a cancel pending waits for its answer.
            (State { held_off: true, in_transaction: false, ..cancel }, Interrupt::Wait),
            (State { held_off: true, in_transaction: false, ..both }, Interrupt::Wait),
            (State { cancel_held_off: true, ..cancel }, Interrupt::Wait),
            (State { cancel_held_off: true, ..both }, Interrupt::Terminate),
            (State { in_transaction: false, ..cancel }, Interrupt::Process),
        ];
        for (state, decision) in cases {
            assert_eq!(state.decide(), decision, "{state:?}");
        }
    }
}
