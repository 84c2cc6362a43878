//! Runs the scenarios on the true files, which must hold, and on the mutants, which must not, and says what was seen.

use std::process::{Command, ExitCode};
use std::sync::Once;
use std::time::Instant;

use crate::mutants::{Checker, MUTANTS, Mutant};

/// What the line on standard error begins with that says why a scenario does not hold.
const CAUSE: &str = "cause: ";

/// Something that happens at once, in a number of variants.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub variants: usize,
    pub run: fn(usize),
    /// For the exhaustive checker: preemptions of its small size. `None`: for the random one.
    pub preemptions: Option<usize>,
}

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Small,
    Full,
}

/// What a checker says of one variant of a scenario.
pub type Check = fn(Size, Scenario, usize) -> u64;

/// Looks at a scenario on a thread of its own, as deep as checkers need it. The executions that were looked at; what went wrong first is
/// told on standard error.
fn check(check: Check, size: Size, scenario: Scenario) -> Option<u64> {
    let told = Once::new();
    std::panic::set_hook(Box::new(move |panic| {
        // The first one is the cause; threads that find themselves abandoned come after it.
        if let Some(text) = panic.payload_as_str() {
            told.call_once(|| eprintln!("{CAUSE}{}", text.lines().next().unwrap_or_default()));
        }
    }));
    let checked = std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(move || (0..scenario.variants).map(|variant| check(size, scenario, variant)).sum());
    checked.ok()?.join().ok()
}

/// A process of its own looks at a mutant: a checker that stops in the middle may take its process with it.
fn cause_of(mutant: &str) -> Option<String> {
    let output = Command::new(std::env::current_exe().ok()?).args(["--mutant", mutant]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let cause = text.lines().find_map(|line| line.strip_prefix(CAUSE))?;
    (!output.status.success()).then(|| cause.to_owned())
}

fn size() -> Size {
    if std::env::args().any(|argument| argument == "--full") { Size::Full } else { Size::Small }
}

/// Whether all is as it should be.
pub fn run(
    checker: Checker,
    how: Check,
    originals: &[Scenario],
    mutants: &[(&str, &[Scenario])],
) -> ExitCode {
    let of_mutant = |mutant: &Mutant| {
        let (_, scenarios) = mutants.iter().find(|(name, _)| *name == mutant.name)?;
        scenarios.iter().find(|scenario| scenario.name == mutant.scenario).copied()
    };
    let mut arguments = std::env::args().skip_while(|argument| argument != "--mutant");
    if let (Some(_), Some(name)) = (arguments.next(), arguments.next()) {
        let scenario = MUTANTS.iter().find(|mutant| mutant.name == name).and_then(of_mutant);
        let held = scenario.is_none_or(|scenario| check(how, Size::Small, scenario).is_some());
        return if held { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut well = true;
    let mut say = |held: bool, what: &str, more: String| {
        well &= held;
        println!("{} {what:<46} {more}", if held { "ok    " } else { "FAILED" });
    };
    for scenario in originals.iter().filter(|s| s.preemptions.is_some() == (checker == Checker::Exhaustive)) {
        let begin = Instant::now();
        let seen = check(how, size(), *scenario);
        let seconds = begin.elapsed().as_secs_f64();
        let more =
            seen.map_or_else(|| "see above".to_owned(), |n| format!("{n:>9} executions {seconds:>6.1} s"));
        say(seen.is_some(), scenario.name, more);
    }
    for mutant in MUTANTS.iter().filter(|mutant| mutant.checker == checker) {
        let cause = cause_of(mutant.name);
        let more = cause.as_ref().map_or_else(
            || format!("not found by '{}'", mutant.scenario),
            |cause| format!("found: {cause:.80}"),
        );
        say(cause.is_some(), &format!("mutant {}", mutant.name), more);
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
