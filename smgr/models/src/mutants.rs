//! Mistakes that the models must find, each as a change of the source text, with the checker and the scenario that find it. They prove
//! that the models can fail. Also read by `build.rs`.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checker {
    Exhaustive,
    Random,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(dead_code, reason = "read by build.rs alone")]
pub enum File {
    Slots,
    Pool,
}

#[allow(dead_code, reason = "files and changes are read by build.rs alone")]
pub struct Mutant {
    pub name: &'static str,
    pub checker: Checker,
    pub scenario: &'static str,
    pub file: File,
    pub changes: &'static [(&'static str, &'static str)],
}

const fn in_slots(
    name: &'static str,
    scenario: &'static str,
    changes: &'static [(&'static str, &'static str)],
) -> Mutant {
    Mutant { name, checker: Checker::Exhaustive, scenario, file: File::Slots, changes }
}

const fn in_pool(
    name: &'static str,
    scenario: &'static str,
    changes: &'static [(&'static str, &'static str)],
) -> Mutant {
    Mutant { name, checker: Checker::Exhaustive, scenario, file: File::Pool, changes }
}

const fn at_random(mutant: Mutant) -> Mutant {
    Mutant { checker: Checker::Random, scenario: "everything", ..mutant }
}

/// Two requests of a slot look alike.
const NO_GENERATION: Mutant = in_slots(
    "no_generation",
    "given up and asked again",
    &[
        ("word((state >> 8) + 1, Phase::Submitted)", "word(state >> 8, Phase::Submitted)"),
        ("word((state >> 8) + 1, Phase::Idle)", "word(state >> 8, Phase::Idle)"),
    ],
);
/// The owner takes its memory back while a page is written to it.
const ABANDONED_WHILE_WRITTEN: Mutant = in_slots(
    "abandoned_while_written",
    "given up and asked again",
    &[
        ("Phase::Writing => return false,", ""),
        (
            "Phase::Submitted | Phase::Taken | Phase::Done => {\n                    let idle",
            "_ => {\n                    let idle",
        ),
        ("assert!(done, \"nobody else ends a delivery\");", "let _ = done;"),
    ],
);
const MARK_BEFORE_SUBMIT: Mutant = in_slots(
    "mark_before_submit",
    "two owners",
    &[(
        "self.slots[number].submit(request, targets);\n        self.mark(number);",
        "self.mark(number);\n        self.slots[number].submit(request, targets);",
    )],
);
/// A mark that comes between look and clearing is lost.
const MARKS_CLEARED_BLINDLY: Mutant = in_slots(
    "marks_cleared_blindly",
    "two owners",
    &[(
        "let mut bits = cell.swap(0, Ordering::AcqRel);",
        "let mut bits = cell.load(Ordering::Acquire); cell.store(0, Ordering::Release);",
    )],
);
const LOOK_BEFORE_VALUE: Mutant = in_slots(
    "state_before_counter",
    "one request",
    &[(
        "let seen = self.answers.load(Ordering::Acquire);\n        self.collect().ok_or((&self.answers, seen))",
        "let outcome = self.collect();\n        let seen = self.answers.load(Ordering::Acquire);\n        outcome.ok_or((&self.answers, seen))",
    )],
);
/// What a communicator took before it ended has no mark any more.
const RECOVERED_WITHOUT_MARK: Mutant = in_slots(
    "recovered_without_mark",
    "a communicator ends, its owner waits",
    &[(
        "            let answered = slot.recover();\n            self.mark(number);",
        "            let answered = slot.recover();",
    )],
);
/// The predecessor ended between answer and wake-up.
const RECOVERED_WITHOUT_WAKING: Mutant = in_slots(
    "recovered_without_waking",
    "a communicator ends, its owner waits",
    &[("if let Some(word) = answered {", "if let Some(word) = answered.filter(|_| false) {")],
);
/// A page goes back to the pool while it may still be written to.
const GIVEN_BACK_BEFORE_IDLE: Mutant = in_pool(
    "given_back_before_idle",
    "asked ahead, given up, asked by another",
    &[(
        "            if is_idle() {\n                return self.give_back(slot, pages);\n            }\n",
        "            self.give_back(slot, pages);\n            is_idle();\n            if true { return; }\n",
    )],
);
const LEFT_TO_ALL: Mutant = in_pool(
    "left_behind_to_all",
    "left behind, found by two",
    &[("if !self.left.clear(slot) {", "self.left.clear(slot);\n                if false {")],
);

pub const MUTANTS: &[Mutant] = &[
    NO_GENERATION,
    ABANDONED_WHILE_WRITTEN,
    MARK_BEFORE_SUBMIT,
    MARKS_CLEARED_BLINDLY,
    LOOK_BEFORE_VALUE,
    RECOVERED_WITHOUT_MARK,
    RECOVERED_WITHOUT_WAKING,
    GIVEN_BACK_BEFORE_IDLE,
    LEFT_TO_ALL,
    // What only a checker of weak memory sees.
    in_slots(
        "submitted_relaxed",
        "one request",
        &[(
            "word((state >> 8) + 1, Phase::Submitted), Ordering::Release",
            "word((state >> 8) + 1, Phase::Submitted), Ordering::Relaxed",
        )],
    ),
    in_slots(
        "answer_counted_relaxed",
        "one request",
        &[(
            "assert!(done, \"nobody else ends a delivery\");\n        self.answers.fetch_add(1, Ordering::Release);",
            "assert!(done, \"nobody else ends a delivery\");\n        self.answers.fetch_add(1, Ordering::Relaxed);",
        )],
    ),
    in_slots(
        "state_changed_relaxed",
        "one request",
        &[(
            "self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)",
            "self.state.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)",
        )],
    ),
    in_slots("mixture_taken", "given up and asked again", &[("        fence(Ordering::Acquire);\n", "")]),
    in_slots("mixture_given", "given up and asked again", &[("        fence(Ordering::Release);\n", "")]),
    in_slots(
        "put_back_without_mark",
        "asked to come again",
        &[(
            "slot.put_back(ticket.generation);\n            self.mark(ticket.slot);",
            "slot.put_back(ticket.generation);",
        )],
    ),
    in_pool(
        "taken_twice",
        "two take and give back",
        &[(
            "match cell.compare_exchange(seen, seen | (1 << free), Ordering::AcqRel, Ordering::Relaxed) {",
            "cell.store(seen | (1 << free), Ordering::Release);\n                match Ok::<u64, u64>(seen) {",
        )],
    ),
    in_pool(
        "given_back_relaxed",
        "two take and give back",
        &[("fetch_and(!bit, Ordering::AcqRel)", "fetch_and(!bit, Ordering::Relaxed)")],
    ),
    // The order of steps is also found by chance, in a scenario with everything in it.
    at_random(Mutant { name: "random_no_generation", ..NO_GENERATION }),
    at_random(Mutant { name: "random_abandoned_while_written", ..ABANDONED_WHILE_WRITTEN }),
    at_random(Mutant { name: "random_mark_before_submit", ..MARK_BEFORE_SUBMIT }),
    at_random(Mutant { name: "random_marks_cleared_blindly", ..MARKS_CLEARED_BLINDLY }),
    at_random(Mutant { name: "random_recovered_without_mark", ..RECOVERED_WITHOUT_MARK }),
    at_random(Mutant { name: "random_recovered_without_waking", ..RECOVERED_WITHOUT_WAKING }),
    at_random(Mutant { name: "random_given_back_before_idle", ..GIVEN_BACK_BEFORE_IDLE }),
    at_random(Mutant { name: "random_left_behind_to_all", ..LEFT_TO_ALL }),
];
