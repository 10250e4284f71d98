//! One call and its retries.

use std::time::Duration;

use super::backoff::{Backoff, BackoffPolicy};
use super::budget::Budget;
use crate::request::classify::may_repeat;
use crate::request::{Advice, Classification, Executed};
use crate::rng::Rng;
use crate::time::Timestamp;

/// How calls are retried.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// The most attempts, the first included.
    pub max_attempts: u32,
    /// No attempt starts later than this after the call began.
    pub max_elapsed: Option<Duration>,
    /// How long one attempt may take; then it is cancelled and counts as failed.
    pub attempt_timeout: Option<Duration>,
    /// The delays between attempts.
    pub backoff: BackoffPolicy,
}

impl Default for RetryPolicy {
    /// 4 attempts, no limit in time but the deadline, full jitter from 50 ms to 5 s.
    fn default() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 4,
            max_elapsed: None,
            attempt_timeout: None,
            backoff: BackoffPolicy::exponential(Duration::from_millis(50), Duration::from_secs(5)),
        }
    }
}

/// What is known of a call beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// It may be sent again though it may have been executed: it is repeatable, or has an idempotency key.
    pub safe_to_repeat: bool,
    /// When it must be done.
    pub deadline: Option<Timestamp>,
}

/// An attempt to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counts from 0.
    pub number: u32,
    /// Not where the one before failed, if there is anywhere else.
    pub elsewhere: bool,
    /// Over another transport, if there is one.
    pub switch_transport: bool,
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Make this attempt; report it with [`Retry::handle_success`] or [`Retry::handle_failure`].
    Start(Attempt),
    /// Cancel the attempt under way: it takes too long. Report what became of it.
    Cancel,
    /// The call has failed with the error of its last attempt.
    GiveUp(WhyNot),
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WhyNot {
    /// The error says that it is of no use.
    NotRetryable,
    /// It may have been executed, and must not be twice.
    NotSafe,
    /// As many attempts as may be were made.
    Attempts,
    /// The policy's time is over, or would be before the next.
    Elapsed,
    /// The deadline has passed, or would have before the next.
    Deadline,
    /// The budget is used up.
    Budget,
}

/// Why [`Retry::handle_timeout`] is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// An event waits to be polled.
    Event,
    /// The delay before the next attempt is over.
    Backoff,
    /// The attempt under way takes too long.
    AttemptTimeout,
    /// The call's deadline passes.
    Deadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The attempt is to be announced.
    Due(Attempt),
    /// Until it is to be announced.
    Waiting(Timestamp, Attempt),
    Running {
        since: Timestamp,
        /// It is to be announced that it is cancelled.
        cancelling: bool,
        cancelled: bool,
    },
    Failing(WhyNot),
    Done,
}

/// One call and its retries.
///
/// [`poll_event`](Self::poll_event) says what to do, [`handle_success`](Self::handle_success) and
/// [`handle_failure`](Self::handle_failure) what came of it, [`handle_timeout`](Self::handle_timeout) that
/// [`poll_timeout`](Self::poll_timeout) has come. The [`Budget`] is shared with the target's other calls.
#[derive(Clone, Debug)]
pub struct Retry {
    policy: RetryPolicy,
    marks: Marks,
    backoff: Backoff,
    now: Timestamp,
    start: Timestamp,
    attempts: u32,
    phase: Phase,
}

impl Retry {
    /// A call, to be made now; the budget takes note of it.
    pub fn new(policy: RetryPolicy, marks: Marks, budget: &mut Budget, now: Timestamp) -> Retry {
        budget.handle_call(now);
        let first = Attempt {
            number: 0,
            elsewhere: false,
            switch_transport: false,
        };
        Retry {
            backoff: Backoff::new(policy.backoff.clone()),
            policy,
            marks,
            now,
            start: now,
            attempts: 0,
            phase: Phase::Due(first),
        }
    }

    /// The attempt under way succeeded.
    pub fn handle_success(&mut self, budget: &mut Budget) {
        if matches!(self.phase, Phase::Running { .. }) {
            budget.handle_success();
            self.phase = Phase::Done;
        }
    }

    /// The attempt under way failed; `executed` and `error` are those of its
    /// [`CallError`](crate::request::CallError).
    pub fn handle_failure(
        &mut self,
        now: Timestamp,
        executed: Executed,
        error: Classification,
        budget: &mut Budget,
        rng: &mut Rng,
    ) {
        self.now = self.now.max(now);
        let Phase::Running { cancelled, .. } = self.phase else {
            return;
        };
        self.phase = match self.next(executed, error, cancelled, budget, rng) {
            Ok((at, attempt)) if at <= self.now => Phase::Due(attempt),
            Ok((at, attempt)) => Phase::Waiting(at, attempt),
            Err(why) => Phase::Failing(why),
        };
    }

    fn next(
        &mut self,
        executed: Executed,
        error: Classification,
        cancelled: bool,
        budget: &mut Budget,
        rng: &mut Rng,
    ) -> Result<(Timestamp, Attempt), WhyNot> {
        // That it took too long is this machine's own word, whatever the attempt says.
        let advice = if cancelled {
            Advice::RetryElsewhere
        } else {
            error.advice
        };
        let least = match advice {
            Advice::DoNotRetry => return Err(WhyNot::NotRetryable),
            Advice::RetryAfter(wait) => wait,
            Advice::RetryHere | Advice::RetryElsewhere => Duration::ZERO,
        };
        budget.handle_failure();
        if self.deadline_passed() {
            return Err(WhyNot::Deadline);
        }
        if !may_repeat(executed, self.marks.safe_to_repeat) {
            return Err(WhyNot::NotSafe);
        }
        if self.attempts >= self.policy.max_attempts {
            return Err(WhyNot::Attempts);
        }
        let delay = self.backoff.next(self.now, rng).ok_or(WhyNot::Attempts)?;
        let at = self.now + least.saturating_add(delay);
        if self
            .policy
            .max_elapsed
            .is_some_and(|max| at.since(self.start) > max)
        {
            return Err(WhyNot::Elapsed);
        }
        if self.marks.deadline.is_some_and(|deadline| at >= deadline) {
            return Err(WhyNot::Deadline);
        }
        // Last, so that nothing is taken for an attempt that is not made.
        if !budget.withdraw(self.now) {
            return Err(WhyNot::Budget);
        }
        let attempt = Attempt {
            number: self.attempts,
            elsewhere: advice == Advice::RetryElsewhere,
            switch_transport: error.switch_transport,
        };
        Ok((at, attempt))
    }

    fn deadline_passed(&self) -> bool {
        self.marks.deadline.is_some_and(|deadline| deadline <= self.now)
    }

    /// What to do next.
    pub fn poll_event(&mut self) -> Option<Event> {
        match self.phase {
            Phase::Due(attempt) => {
                self.attempts = self.attempts.saturating_add(1);
                self.phase = Phase::Running {
                    since: self.now,
                    cancelling: false,
                    cancelled: false,
                };
                Some(Event::Start(attempt))
            }
            Phase::Running {
                since,
                cancelling: true,
                ..
            } => {
                self.phase = Phase::Running {
                    since,
                    cancelling: false,
                    cancelled: true,
                };
                Some(Event::Cancel)
            }
            Phase::Failing(why) => {
                self.phase = Phase::Done;
                Some(Event::GiveUp(why))
            }
            Phase::Waiting(..) | Phase::Running { .. } | Phase::Done => None,
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, Timer)> {
        match self.phase {
            Phase::Due(_) | Phase::Failing(_) | Phase::Running { cancelling: true, .. } => {
                Some((self.now, Timer::Event))
            }
            Phase::Waiting(at, _) => Some((at, Timer::Backoff)),
            Phase::Running {
                since,
                cancelled: false,
                ..
            } => {
                let slow = self
                    .policy
                    .attempt_timeout
                    .map(|max| (since + max, Timer::AttemptTimeout));
                let late = self.marks.deadline.map(|at| (at, Timer::Deadline));
                slow.into_iter().chain(late).min_by_key(|(at, _)| *at)
            }
            Phase::Running { .. } | Phase::Done => None,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        match (self.phase, self.poll_timeout()) {
            (Phase::Waiting(at, attempt), _) if at <= self.now => self.phase = Phase::Due(attempt),
            (Phase::Running { since, .. }, Some((at, Timer::AttemptTimeout | Timer::Deadline)))
                if at <= self.now =>
            {
                self.phase = Phase::Running {
                    since,
                    cancelling: true,
                    cancelled: false,
                };
            }
            _ => {}
        }
    }

    /// How many attempts were made.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::budget::BudgetPolicy;
    use crate::request::{Category, Classify, Code, Failure, Pushback};

    const SAFE: Marks = Marks {
        safe_to_repeat: true,
        deadline: None,
    };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    struct World {
        retry: Retry,
        budget: Budget,
        rng: Rng,
        now: Timestamp,
    }

    impl World {
        fn new(marks: Marks, policy: BudgetPolicy, edit: impl FnOnce(&mut RetryPolicy)) -> World {
            let mut config = RetryPolicy::default();
            edit(&mut config);
            let mut budget = Budget::new(policy, at(0));
            World {
                retry: Retry::new(config, marks, &mut budget, at(0)),
                budget,
                rng: Rng::from_seed([1; 32]),
                now: at(0),
            }
        }

        /// Sleeps to each deadline until there is something to do.
        fn next(&mut self) -> Option<Event> {
            for _ in 0..10 {
                if let Some(event) = self.retry.poll_event() {
                    return Some(event);
                }
                let (due, _) = self.retry.poll_timeout()?;
                self.now = self.now.max(due);
                self.retry.handle_timeout(self.now);
            }
            panic!("no progress")
        }

        fn fail(&mut self, executed: Executed, error: Classification) {
            self.retry
                .handle_failure(self.now, executed, error, &mut self.budget, &mut self.rng);
        }

        /// Runs until it gives up; every attempt fails so.
        fn run(&mut self, executed: Executed, error: Classification) -> (u32, WhyNot) {
            loop {
                match self.next() {
                    Some(Event::Start(_)) => self.fail(executed, error),
                    Some(Event::GiveUp(why)) => return (self.retry.attempts(), why),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn unavailable() -> Classification {
        Code::Unavailable.classify()
    }

    #[test]
    fn limits() {
        let mut world = World::new(SAFE, BudgetPolicy::ratio(), |_| ());
        assert_eq!(world.run(Executed::Maybe, unavailable()), (4, WhyNot::Attempts));
        assert_eq!(
            (world.retry.poll_timeout(), world.retry.poll_event()),
            (None, None)
        );
        let mut world = World::new(SAFE, BudgetPolicy::strict(), |_| ());
        assert_eq!(world.run(Executed::No, unavailable()), (1, WhyNot::Budget));
        let mut world = World::new(SAFE, BudgetPolicy::ratio(), |_| ());
        assert_eq!(
            world.run(Executed::No, Code::NotFound.classify()),
            (1, WhyNot::NotRetryable)
        );
        let mut world = World::new(SAFE, BudgetPolicy::Unlimited, |policy| {
            policy.max_attempts = u32::MAX;
            policy.max_elapsed = Some(Duration::from_secs(20));
        });
        let (attempts, why) = world.run(Executed::No, unavailable());
        assert!(
            (5..60).contains(&attempts) && why == WhyNot::Elapsed,
            "{attempts} {why:?}"
        );
        assert!(world.now <= at(20_000));
        let deadline = Some(at(3_000));
        let mut world = World::new(Marks { deadline, ..SAFE }, BudgetPolicy::Unlimited, |policy| {
            policy.max_attempts = u32::MAX;
        });
        assert_eq!(world.run(Executed::No, unavailable()).1, WhyNot::Deadline);
        assert!(world.now < at(3_000));
    }

    /// R3, R4: what may have been executed is sent again only if it is safe.
    #[test]
    fn never_twice_unless_it_is_safe() {
        for (executed, expected) in [
            (Executed::No, (4, WhyNot::Attempts)),
            (Executed::Maybe, (1, WhyNot::NotSafe)),
            (Executed::Yes, (1, WhyNot::NotSafe)),
        ] {
            let mut world = World::new(Marks::default(), BudgetPolicy::ratio(), |_| ());
            assert_eq!(world.run(executed, unavailable()), expected, "{executed:?}");
        }
    }

    #[test]
    fn pushback_and_direction() {
        let mut world = World::new(SAFE, BudgetPolicy::ratio(), |_| ());
        assert!(matches!(
            world.next(),
            Some(Event::Start(Attempt {
                number: 0,
                elsewhere: false,
                ..
            }))
        ));
        let wait = Duration::from_secs(7);
        let busy = Failure::new(Code::Internal, "").with_pushback(Pushback::After(wait));
        world.fail(Executed::Yes, busy.classify());
        assert!(matches!(world.retry.poll_timeout(), Some((due, Timer::Backoff)) if due >= at(7_000)));
        assert!(matches!(
            world.next(),
            Some(Event::Start(Attempt {
                number: 1,
                elsewhere: false,
                ..
            }))
        ));
        assert!(world.now >= at(7_000));
        let elsewhere = Classification {
            category: Category::Network,
            advice: Advice::RetryElsewhere,
            switch_transport: true,
        };
        world.fail(Executed::Maybe, elsewhere);
        let expected = Attempt {
            number: 2,
            elsewhere: true,
            switch_transport: true,
        };
        assert_eq!(world.next(), Some(Event::Start(expected)));
        world.retry.handle_success(&mut world.budget);
        assert_eq!((world.next(), world.retry.poll_timeout()), (None, None));
        world.fail(Executed::Maybe, elsewhere);
        assert_eq!(world.next(), None);
    }

    #[test]
    fn slow_attempts_and_the_deadline_cancel() {
        let deadline = Some(at(2_500));
        let mut world = World::new(Marks { deadline, ..SAFE }, BudgetPolicy::ratio(), |policy| {
            policy.attempt_timeout = Some(Duration::from_secs(2));
            policy.backoff = BackoffPolicy::constant(Duration::from_millis(100));
        });
        assert!(matches!(world.next(), Some(Event::Start(_))));
        assert_eq!(
            world.retry.poll_timeout(),
            Some((at(2_000), Timer::AttemptTimeout))
        );
        assert_eq!((world.next(), world.now), (Some(Event::Cancel), at(2_000)));
        assert_eq!(world.retry.poll_timeout(), None);
        world.fail(Executed::Maybe, Code::DeadlineExceeded.classify());
        assert!(matches!(
            world.next(),
            Some(Event::Start(Attempt {
                number: 1,
                elsewhere: true,
                ..
            }))
        ));
        assert_eq!(world.retry.poll_timeout(), Some((at(2_500), Timer::Deadline)));
        assert_eq!((world.next(), world.now), (Some(Event::Cancel), at(2_500)));
        world.fail(Executed::Maybe, Code::DeadlineExceeded.classify());
        assert_eq!(world.next(), Some(Event::GiveUp(WhyNot::Deadline)));
    }
}
