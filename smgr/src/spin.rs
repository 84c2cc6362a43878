//! Whether to spin for an answer before sleeping, and for how long: the wait of a moment is cheaper awake, any other asleep.
//!
//! The competitive rule: who spins for as long as a sleep and a wake-up cost, and only then sleeps, never pays more than twice what the
//! better of the two would have cost. So a wait spins for at most `limit`. On top of that each process learns: it spins only while
//! its answers come within about the limit on average, and after a spin in vain it sleeps through some waits before it tries again, twice
//! as many each time. Both are unlearned by quick answers, so it adapts both ways.
//!
//! Told, not known here: the clock, the setting, how many cores there are, and where the answer would be seen.

use std::time::Duration;

/// About what a sleep and a wake-up cost: an answer that was slept for is seen so much later than one that was spun for.
const WAKE_UP: Duration = Duration::from_micros(50);
/// The newest answer counts for one in so many in the average.
const WEIGHT: u32 = 8;
/// Waits that are slept through at most until spinning is tried again.
const REST_MAX: u32 = 64;
/// Looks at the answer for each look at the clock, which costs about as much as one of the processor's pauses.
const LOOKS: u32 = 8;

/// How long a wait may spin, given the setting: not at all where nobody else could bring the answer meanwhile.
pub fn limit(setting: Duration, cores: usize) -> Duration {
    if cores > 1 { setting } else { Duration::ZERO }
}

/// How an answer was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came {
    WhileSpinning,
    AfterSleep,
}

/// What one process has learned of one kind of wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spin {
    /// How long answers took on average; `None` before the first one.
    average: Option<Duration>,
    /// Waits to sleep through before the next try.
    rest: u32,
    /// How long the last rest was; halved by each answer that came while spinning.
    last_rest: u32,
}

impl Spin {
    pub const NEW: Spin = Spin { average: None, rest: 0, last_rest: 0 };

    /// A wait begins: whether to spin before sleeping.
    pub fn wanted(&mut self, limit: Duration) -> bool {
        let Some(average) = self.average else { return false };
        if limit.is_zero() || average > limit + WAKE_UP {
            return false;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        true
    }

    /// The limit was reached without an answer.
    pub fn in_vain(&mut self) {
        self.last_rest = (self.last_rest * 2).clamp(1, REST_MAX);
        self.rest = self.last_rest;
    }

    /// The answer is there, so long after the wait began.
    pub fn answered(&mut self, limit: Duration, took: Duration, came: Came) {
        if limit.is_zero() {
            return;
        }
        if came == Came::WhileSpinning {
            self.last_rest /= 2;
        }
        // One answer that took ever so long does not outweigh all quick ones.
        let took = took.min((limit + WAKE_UP) * 2);
        self.average = Some(match self.average {
            Some(average) => (average * (WEIGHT - 1) + took) / WEIGHT,
            None => took,
        });
    }
}

/// Looks again and again whether the answer `is_there`, until `elapsed` says that `limit` is reached. Whether it is there.
pub fn until(limit: Duration, elapsed: impl Fn() -> Duration, is_there: impl Fn() -> bool) -> bool {
    loop {
        for _ in 0..LOOKS {
            if is_there() {
                return true;
            }
            std::hint::spin_loop();
        }
        if elapsed() >= limit {
            return is_there();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    #[derive(PartialEq, Eq, Debug)]
    enum Wait {
        Spun,
        SpunInVain,
        Slept,
    }

    /// One wait for an answer that is there after so many microseconds.
    fn wait(spin: &mut Spin, limit: Duration, answer: u64) -> Wait {
        let wanted = spin.wanted(limit);
        if wanted && micros(answer) <= limit {
            spin.answered(limit, micros(answer), Came::WhileSpinning);
            return Wait::Spun;
        }
        if wanted {
            spin.in_vain();
        }
        spin.answered(limit, micros(answer) + WAKE_UP, Came::AfterSleep);
        if wanted { Wait::SpunInVain } else { Wait::Slept }
    }

    fn count(spin: &mut Spin, limit: Duration, answers: impl Iterator<Item = u64>, what: &Wait) -> usize {
        answers.filter(|answer| wait(spin, limit, *answer) == *what).count()
    }

    #[test]
    fn spins_only_while_answers_are_quick() {
        let limit = micros(50);
        let mut spin = Spin::NEW;
        assert_eq!(wait(&mut spin, limit, 30), Wait::Slept, "nothing is known yet");
        assert_eq!(count(&mut spin, limit, [30; 100].into_iter(), &Wait::Spun), 100);
        // What comes over the loopback interface takes longer than a sleep costs.
        let mut spin = Spin::NEW;
        assert_eq!(count(&mut spin, limit, [150; 100].into_iter(), &Wait::Slept), 100);
        assert_eq!(count(&mut spin, micros(500), [150; 100].into_iter(), &Wait::Spun), 100, "a higher limit");
    }

    #[test]
    fn adapts_both_ways() {
        let limit = micros(50);
        let mut spin = Spin::NEW;
        count(&mut spin, limit, [30; 100].into_iter(), &Wait::Spun);
        assert_eq!(wait(&mut spin, limit, 10_000_000), Wait::SpunInVain);
        assert_eq!(wait(&mut spin, limit, 30), Wait::Slept);
        assert_eq!(wait(&mut spin, limit, 30), Wait::Spun, "one slow answer is soon forgotten");
        let in_vain = count(&mut spin, limit, [5_000; 1000].into_iter(), &Wait::SpunInVain);
        assert!((1..=5).contains(&in_vain), "{in_vain} spins in vain before it stopped");
        let slept = count(&mut spin, limit, [30; 1000].into_iter(), &Wait::Slept);
        assert!((1..=60).contains(&slept), "{slept} quick answers were slept for before it spun again");
    }

    /// Quick on average, but those that are spun for are not.
    #[test]
    fn spins_in_vain_become_rare_and_are_tried_again() {
        let limit = micros(50);
        let mut spin = Spin::NEW;
        spin.answered(limit, micros(30), Came::AfterSleep);
        assert!(spin.wanted(limit));
        let mut rests = Vec::new();
        for _ in 0..9 {
            spin.in_vain();
            rests.push((0..1000).take_while(|_| !spin.wanted(limit)).count());
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        for _ in 0..6 {
            spin.answered(limit, micros(30), Came::WhileSpinning);
        }
        spin.in_vain();
        assert_eq!(spin.rest, 2, "answers that came while spinning shorten the next rest");
    }

    #[test]
    fn the_setting_of_0_and_a_single_core_mean_never() {
        assert_eq!((limit(micros(50), 1), limit(micros(50), 2)), (Duration::ZERO, micros(50)));
        let mut spin = Spin::NEW;
        assert_eq!(count(&mut spin, Duration::ZERO, [0; 100].into_iter(), &Wait::Slept), 100);
        assert_eq!(spin, Spin::NEW, "and nothing is learned");
    }

    #[test]
    fn a_spin_ends_with_the_answer_or_at_the_limit() {
        let (looks, now) = (Cell::new(0), Cell::new(0));
        let elapsed = || {
            now.set(now.get() + 1);
            micros(now.get())
        };
        let is_there = |at: u32| {
            looks.set(looks.get() + 1);
            looks.get() == at
        };
        assert!(until(micros(10), elapsed, || is_there(LOOKS + 1)));
        assert_eq!((looks.replace(0), now.replace(0)), (LOOKS + 1, 1));
        assert!(!until(micros(10), elapsed, || is_there(u32::MAX)));
        assert_eq!((looks.replace(0), now.replace(0)), (10 * LOOKS + 1, 10), "ten microseconds and no more");
        // Whoever was kept off the processor meanwhile looks once more.
        assert!(until(micros(1), elapsed, || is_there(LOOKS + 1)));
    }
}
