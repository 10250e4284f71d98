//! Hedged calls: when an answer is late, the same request goes out once more, and the first answer wins.
//! For calls only that are safe to repeat.

use std::collections::VecDeque;
use std::time::Duration;

use smallvec::SmallVec;

use super::budget::Budget;
use crate::request::Classification;
use crate::time::Timestamp;

/// The most attempts of one call, whatever a policy says.
pub const MAX_HEDGES: u32 = 8;

/// After how long a call is hedged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeDelay {
    /// Always the same.
    Fixed(Duration),
    /// What so many in 1,000 of the calls of late took at most.
    Percentile {
        /// 950 for the 95th percentile.
        per_mille: u32,
        /// Never sooner.
        min: Duration,
        /// As long as too few calls were seen.
        at_first: Duration,
    },
}

/// How calls are hedged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgePolicy {
    /// The most attempts, the first included; at most [`MAX_HEDGES`].
    pub max_attempts: u32,
    /// The time between attempts.
    pub delay: HedgeDelay,
}

impl Default for HedgePolicy {
    /// One hedge, at the 95th percentile, 1 ms at least, 100 ms at first.
    fn default() -> HedgePolicy {
        HedgePolicy {
            max_attempts: 2,
            delay: HedgeDelay::Percentile {
                per_mille: 950,
                min: Duration::from_millis(1),
                at_first: Duration::from_millis(100),
            },
        }
    }
}

/// Steps of the histogram for each doubling.
const STEPS: u64 = 8;
const BUCKETS: usize = 64 * STEPS as usize;
/// Observations in one half of what is remembered.
const HALF: u32 = 512;
/// Fewer say nothing.
const FEWEST: u32 = 20;

/// How long calls of one target and method took of late: the last 512 to 1,024, to 12 %.
#[derive(Clone, Debug)]
pub struct Latencies {
    halves: [Box<[u16; BUCKETS]>; 2],
    counts: [u32; 2],
    /// The percentile asked for last, and after how many observations it is asked again.
    cached: Option<(u32, Duration, u32)>,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies::new()
    }
}

impl Latencies {
    /// Nothing seen.
    pub fn new() -> Latencies {
        Latencies {
            halves: [Box::new([0; BUCKETS]), Box::new([0; BUCKETS])],
            counts: [0; 2],
            cached: None,
        }
    }

    /// A call took this long.
    pub fn observe(&mut self, took: Duration) {
        if self.counts[0] >= HALF {
            self.halves.swap(0, 1);
            self.counts.swap(0, 1);
            self.halves[0].fill(0);
            self.counts[0] = 0;
        }
        self.halves[0][bucket(took)] += 1;
        self.counts[0] += 1;
        if let Some((_, _, left)) = &mut self.cached {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => self.cached = None,
            }
        }
    }

    /// What `per_mille` in 1,000 took at most; `None` as long as too few were seen.
    pub fn percentile(&mut self, per_mille: u32) -> Option<Duration> {
        if let Some((asked, found, _)) = self.cached
            && asked == per_mille
        {
            return Some(found);
        }
        let total = self.counts[0] + self.counts[1];
        if total < FEWEST {
            return None;
        }
        let rank = (u64::from(total) * u64::from(per_mille.min(1000)))
            .div_ceil(1000)
            .max(1);
        let mut seen = 0;
        let at = (0..BUCKETS).find(|at| {
            seen += u64::from(self.halves[0][*at]) + u64::from(self.halves[1][*at]);
            seen >= rank
        })?;
        let found = top(at);
        self.cached = Some((per_mille, found, 32));
        Some(found)
    }
}

fn bucket(took: Duration) -> usize {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(STEPS);
    let exponent = u64::from(nanos.ilog2());
    let step = (nanos >> (exponent - 3)) & (STEPS - 1);
    (exponent * STEPS + step) as usize
}

/// The longest time of a bucket.
fn top(bucket: usize) -> Duration {
    let (exponent, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    let nanos = (u128::from(STEPS + step + 1) << exponent) / u128::from(STEPS);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Make this attempt, the first counted 0; elsewhere than the others, if there is anywhere.
    Start(u32),
    /// Cancel this attempt: another has won, or the call is over. Nothing is to be reported back.
    Cancel(u32),
    /// All attempts failed; the error of the last is the call's.
    GiveUp,
}

/// Why [`Hedge::handle_timeout`] is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// An event waits to be polled.
    Event,
    /// The next attempt is due.
    Hedge,
    /// The call's deadline passes.
    Deadline,
}

/// One call and its hedges.
///
/// [`poll_event`](Self::poll_event) says what to do, [`handle_success`](Self::handle_success) and
/// [`handle_failure`](Self::handle_failure) what came of it, [`handle_timeout`](Self::handle_timeout) that
/// [`poll_timeout`](Self::poll_timeout) has come, [`cancel`](Self::cancel) that nobody wants it any more. Hedges
/// come out of the same budget as retries. A call that is not safe to repeat gets its first attempt only.
#[derive(Clone, Debug)]
pub struct Hedge {
    max_attempts: u32,
    delay: Duration,
    deadline: Option<Timestamp>,
    now: Timestamp,
    started: u32,
    next_at: Option<Timestamp>,
    in_flight: SmallVec<[u32; 2]>,
    over: bool,
    events: VecDeque<Event>,
}

impl Hedge {
    /// A call, to be made now; the budget takes note of it.
    pub fn new(
        policy: HedgePolicy,
        latencies: &mut Latencies,
        marks: super::retry::Marks,
        budget: &mut Budget,
        now: Timestamp,
    ) -> Hedge {
        budget.handle_call(now);
        let delay = match policy.delay {
            HedgeDelay::Fixed(delay) => delay,
            HedgeDelay::Percentile {
                per_mille,
                min,
                at_first,
            } => latencies.percentile(per_mille).unwrap_or(at_first).max(min),
        };
        let mut hedge = Hedge {
            max_attempts: match marks.safe_to_repeat {
                true => policy.max_attempts.clamp(1, MAX_HEDGES),
                false => 1,
            },
            delay,
            deadline: marks.deadline,
            now,
            started: 0,
            next_at: None,
            in_flight: SmallVec::new(),
            over: false,
            events: VecDeque::new(),
        };
        hedge.start();
        hedge
    }

    fn start(&mut self) {
        self.events.push_back(Event::Start(self.started));
        self.in_flight.push(self.started);
        self.started += 1;
        self.next_at = (self.started < self.max_attempts).then(|| self.now + self.delay);
    }

    fn start_hedge(&mut self, budget: &mut Budget) {
        if budget.withdraw(self.now) {
            self.start();
        } else {
            // No more: the budget of a moment ago is not asked again for the same call.
            self.next_at = None;
        }
    }

    /// An attempt succeeded: it wins, the others are cancelled. Whether it was wanted still.
    pub fn handle_success(&mut self, attempt: u32, budget: &mut Budget) -> bool {
        if self.over || !self.in_flight.contains(&attempt) {
            return false;
        }
        budget.handle_success();
        self.in_flight.retain(|other| *other != attempt);
        self.cancel();
        true
    }

    /// An attempt failed. One that may be retried is replaced at once; any other error ends the call.
    pub fn handle_failure(
        &mut self,
        now: Timestamp,
        attempt: u32,
        error: Classification,
        budget: &mut Budget,
    ) {
        self.now = self.now.max(now);
        if self.over || !self.in_flight.contains(&attempt) {
            return;
        }
        self.in_flight.retain(|other| *other != attempt);
        if error.is_retryable() {
            budget.handle_failure();
            if self.next_at.is_some() {
                self.start_hedge(budget);
            }
            if !self.in_flight.is_empty() {
                return;
            }
        }
        self.cancel();
        self.events.push_back(Event::GiveUp);
    }

    /// The call is not wanted any more: what is under way is cancelled.
    pub fn cancel(&mut self) {
        self.over = true;
        self.next_at = None;
        for attempt in self.in_flight.drain(..) {
            // One that nobody has heard of yet need not be cancelled.
            match self
                .events
                .iter()
                .position(|event| *event == Event::Start(attempt))
            {
                Some(unheard) => drop(self.events.remove(unheard)),
                None => self.events.push_back(Event::Cancel(attempt)),
            }
        }
    }

    /// What to do next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, Timer)> {
        if !self.events.is_empty() {
            return Some((self.now, Timer::Event));
        }
        if self.over {
            return None;
        }
        let hedge = self.next_at.map(|at| (at, Timer::Hedge));
        let late = self.deadline.map(|at| (at, Timer::Deadline));
        hedge.into_iter().chain(late).min_by_key(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Timestamp, budget: &mut Budget) {
        self.now = self.now.max(now);
        if self.over {
            return;
        }
        if self.deadline.is_some_and(|at| at <= self.now) {
            self.cancel();
            self.events.push_back(Event::GiveUp);
        } else if self.next_at.is_some_and(|at| at <= self.now) {
            self.start_hedge(budget);
        }
    }

    /// How many attempts were started.
    pub fn started(&self) -> u32 {
        self.started
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::BudgetPolicy;
    use super::super::retry::Marks;
    use super::*;
    use crate::request::{Classify, Code};

    const MS: Duration = Duration::from_millis(1);
    const SAFE: Marks = Marks {
        safe_to_repeat: true,
        deadline: None,
    };

    fn at(ms: u32) -> Timestamp {
        Timestamp::ZERO + ms * MS
    }

    fn hedge(marks: Marks, max_attempts: u32) -> (Hedge, Budget) {
        let mut budget = Budget::new(BudgetPolicy::ratio(), at(0));
        let policy = HedgePolicy {
            max_attempts,
            delay: HedgeDelay::Fixed(10 * MS),
        };
        let hedge = Hedge::new(policy, &mut Latencies::new(), marks, &mut budget, at(0));
        (hedge, budget)
    }

    fn events(hedge: &mut Hedge) -> Vec<Event> {
        std::iter::from_fn(|| hedge.poll_event()).collect()
    }

    #[test]
    fn the_first_answer_wins_and_the_others_are_cancelled() {
        let (mut hedge, mut budget) = hedge(SAFE, 3);
        assert_eq!(events(&mut hedge), [Event::Start(0)]);
        for n in 1..3 {
            assert_eq!(hedge.poll_timeout(), Some((at(10 * n), Timer::Hedge)));
            hedge.handle_timeout(at(10 * n), &mut budget);
            assert_eq!(events(&mut hedge), [Event::Start(n)]);
        }
        assert_eq!(hedge.poll_timeout(), None);
        assert!(hedge.handle_success(1, &mut budget));
        assert!(!hedge.handle_success(0, &mut budget));
        assert_eq!(events(&mut hedge), [Event::Cancel(0), Event::Cancel(2)]);
        assert_eq!(hedge.poll_timeout(), None);
    }

    #[test]
    fn what_is_not_safe_is_not_hedged() {
        let (mut hedge, mut budget) = hedge(Marks::default(), 3);
        events(&mut hedge);
        assert_eq!(hedge.poll_timeout(), None);
        hedge.handle_failure(at(1), 0, Code::Unavailable.classify(), &mut budget);
        assert_eq!(events(&mut hedge), [Event::GiveUp]);
    }

    #[test]
    fn failures_deadlines_and_an_empty_budget() {
        let (mut call, mut budget) = hedge(SAFE, 2);
        events(&mut call);
        call.handle_failure(at(1), 0, Code::Unavailable.classify(), &mut budget);
        assert_eq!(events(&mut call), [Event::Start(1)]);
        call.handle_failure(at(2), 1, Code::Unavailable.classify(), &mut budget);
        assert_eq!(events(&mut call), [Event::GiveUp]);

        let (mut call, mut budget) = hedge(SAFE, 2);
        call.handle_timeout(at(10), &mut budget);
        events(&mut call);
        call.handle_failure(at(11), 1, Code::NotFound.classify(), &mut budget);
        assert_eq!(events(&mut call), [Event::Cancel(0), Event::GiveUp]);

        let deadline = Some(at(5));
        let (mut call, mut budget) = hedge(Marks { deadline, ..SAFE }, 2);
        events(&mut call);
        assert_eq!(call.poll_timeout(), Some((at(5), Timer::Deadline)));
        call.handle_timeout(at(5), &mut budget);
        assert_eq!(events(&mut call), [Event::Cancel(0), Event::GiveUp]);

        let (mut call, _) = hedge(SAFE, 2);
        events(&mut call);
        let mut empty = Budget::new(BudgetPolicy::strict(), at(0));
        call.handle_timeout(at(10), &mut empty);
        assert_eq!((events(&mut call), call.poll_timeout()), (vec![], None));
        assert!(call.handle_success(0, &mut empty));
    }

    #[test]
    fn percentiles() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentile(950), None);
        for n in 1..=1000_u32 {
            latencies.observe(n * MS);
        }
        for (per_mille, ms) in [(500, 500.0), (950, 950.0), (990, 990.0)] {
            let found = latencies.percentile(per_mille).unwrap().as_secs_f64() * 1000.0;
            assert!((ms..ms * 1.13).contains(&found), "p{per_mille}: {found}");
        }
        // What was long ago is forgotten.
        for _ in 0..1100 {
            latencies.observe(MS);
        }
        assert!(latencies.percentile(999).unwrap() < 2 * MS);
        latencies.observe(Duration::ZERO);
        latencies.observe(Duration::MAX);
        for at in 24..BUCKETS {
            assert_eq!(bucket(top(at).saturating_sub(Duration::from_nanos(1))), at);
        }
    }

    #[test]
    fn the_delay_follows_the_percentile() {
        let mut latencies = Latencies::new();
        (0..100).for_each(|_| latencies.observe(20 * MS));
        let mut budget = Budget::new(BudgetPolicy::ratio(), at(0));
        let hedge = Hedge::new(HedgePolicy::default(), &mut latencies, SAFE, &mut budget, at(0));
        assert!((20 * MS..23 * MS).contains(&hedge.delay));
    }
}
