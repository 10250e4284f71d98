//! How long to wait before the next try.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::rng::Rng;
use crate::time::Timestamp;

/// How delays grow. `n` counts the tries since the last reset, from 0.
#[derive(Clone)]
#[non_exhaustive]
pub enum Strategy {
    /// Always the same.
    Constant {
        /// The delay.
        delay: Duration,
    },
    /// `min(cap, initial + n · step)`.
    Linear {
        /// The first delay.
        initial: Duration,
        /// What each further one adds.
        step: Duration,
        /// The longest.
        cap: Duration,
    },
    /// `min(cap, base · 2ⁿ)`.
    Exponential {
        /// The first delay.
        base: Duration,
        /// The longest.
        cap: Duration,
    },
    /// `min(cap, rand(base, 3 · previous))`; always random, whatever the [`Jitter`].
    DecorrelatedJitter {
        /// The shortest delay, and the "previous" one of the first try.
        base: Duration,
        /// The longest.
        cap: Duration,
    },
    /// Decorrelated jitter up to the cap; there the first delay is `rand(base, cap)` and every further one
    /// `rand(0.9 · cap, cap)`. So clients that failed together are spread evenly over the cap, and stay so:
    /// whenever the target comes back, they come back at an even rate. Always random, whatever the [`Jitter`].
    Spread {
        /// The shortest delay, and the "previous" one of the first try.
        base: Duration,
        /// The longest.
        cap: Duration,
    },
    /// The user's own.
    Custom(Arc<dyn Grow>),
}

/// A strategy of the user's own.
pub trait Grow: Send + Sync {
    /// The delay before the next try. `n` counts the tries since the last reset, from 0; `previous` is the
    /// delay before this one, if there was one.
    fn delay(&self, n: u32, previous: Option<Duration>, rng: &mut Rng) -> Duration;
}

/// A [`Grow`] that is a function of the number of tries.
struct ByCount<F>(F);

impl<F: Fn(u32) -> Duration + Send + Sync> Grow for ByCount<F> {
    fn delay(&self, n: u32, _: Option<Duration>, _: &mut Rng) -> Duration {
        (self.0)(n)
    }
}

impl fmt::Debug for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strategy::Constant { delay } => write!(f, "Constant({delay:?})"),
            Strategy::Linear { initial, step, cap } => {
                write!(f, "Linear({initial:?} + n·{step:?} <= {cap:?})")
            }
            Strategy::Exponential { base, cap } => write!(f, "Exponential({base:?}·2^n <= {cap:?})"),
            Strategy::DecorrelatedJitter { base, cap } => {
                write!(f, "DecorrelatedJitter({base:?}..={cap:?})")
            }
            Strategy::Spread { base, cap } => write!(f, "Spread({base:?}..={cap:?})"),
            Strategy::Custom(_) => f.write_str("Custom(..)"),
        }
    }
}

/// What chance does to a delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// Nothing: clients that failed together try again together.
    None,
    /// `rand(0, delay)`.
    #[default]
    Full,
}

/// How to back off: a strategy, its jitter, its limits.
#[derive(Clone, Debug)]
pub struct BackoffPolicy {
    strategy: Strategy,
    jitter: Jitter,
    max_attempts: Option<u32>,
    max_elapsed: Option<Duration>,
}

impl BackoffPolicy {
    /// `strategy` without limits; with full jitter, unless it is constant or the user's own.
    pub fn new(strategy: Strategy) -> BackoffPolicy {
        let jitter = match strategy {
            Strategy::Constant { .. } | Strategy::Custom(_) => Jitter::None,
            _ => Jitter::Full,
        };
        BackoffPolicy {
            strategy,
            jitter,
            max_attempts: None,
            max_elapsed: None,
        }
    }

    /// Always `delay`, without jitter.
    pub fn constant(delay: Duration) -> BackoffPolicy {
        BackoffPolicy::new(Strategy::Constant { delay })
    }

    /// Linear growth with full jitter.
    pub fn linear(initial: Duration, step: Duration, cap: Duration) -> BackoffPolicy {
        BackoffPolicy::new(Strategy::Linear { initial, step, cap })
    }

    /// Exponential growth with full jitter: `rand(0, min(cap, base · 2ⁿ))`.
    pub fn exponential(base: Duration, cap: Duration) -> BackoffPolicy {
        BackoffPolicy::new(Strategy::Exponential { base, cap })
    }

    /// Decorrelated jitter: `min(cap, rand(base, 3 · previous))`.
    pub fn decorrelated(base: Duration, cap: Duration) -> BackoffPolicy {
        BackoffPolicy::new(Strategy::DecorrelatedJitter { base, cap })
    }

    /// Decorrelated jitter up to the cap, then an even spread: for many clients of one target.
    pub fn spread(base: Duration, cap: Duration) -> BackoffPolicy {
        BackoffPolicy::new(Strategy::Spread { base, cap })
    }

    /// The user's own function of the number of tries so far, without jitter.
    pub fn custom(delay: impl Fn(u32) -> Duration + Send + Sync + 'static) -> BackoffPolicy {
        BackoffPolicy::new(Strategy::Custom(Arc::new(ByCount(delay))))
    }

    /// The user's own strategy, without jitter but its own.
    pub fn grow(strategy: impl Grow + 'static) -> BackoffPolicy {
        BackoffPolicy::new(Strategy::Custom(Arc::new(strategy)))
    }

    /// Replaces the jitter.
    pub fn with_jitter(mut self, jitter: Jitter) -> BackoffPolicy {
        self.jitter = jitter;
        self
    }

    /// Gives up after this many delays.
    pub fn with_max_attempts(mut self, attempts: u32) -> BackoffPolicy {
        self.max_attempts = Some(attempts);
        self
    }

    /// Gives up rather than wait beyond this long after the first failure.
    pub fn with_max_elapsed(mut self, elapsed: Duration) -> BackoffPolicy {
        self.max_elapsed = Some(elapsed);
        self
    }
}

/// The delays of one thing that is tried again and again.
///
/// [`next`](Backoff::next) after each failure, [`reset`](Backoff::reset) once it has proven itself
/// (not when it merely opened).
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    attempts: u32,
    previous: Option<Duration>,
    first: Option<Timestamp>,
    /// The cap over which delays are spread.
    spread_over: Option<Duration>,
}

impl Backoff {
    /// Nothing tried so far.
    pub fn new(policy: BackoffPolicy) -> Backoff {
        Backoff {
            policy,
            attempts: 0,
            previous: None,
            first: None,
            spread_over: None,
        }
    }

    /// How many delays were given since the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The delay before the next try; `None` when a limit is reached.
    pub fn next(&mut self, now: Timestamp, rng: &mut Rng) -> Option<Duration> {
        self.next_within(now, rng, Duration::MAX)
    }

    /// The same with a cap of the moment, which the strategy's own cap limits further. What a delay
    /// grows from is capped too.
    pub fn next_within(&mut self, now: Timestamp, rng: &mut Rng, cap: Duration) -> Option<Duration> {
        if self.policy.max_attempts.is_some_and(|max| self.attempts >= max) {
            return None;
        }
        let first = *self.first.get_or_insert(now);
        let delay = self.delay(rng, cap);
        if self
            .policy
            .max_elapsed
            .is_some_and(|max| now.since(first).saturating_add(delay) > max)
        {
            return None;
        }
        self.attempts = self.attempts.saturating_add(1);
        self.previous = Some(delay);
        Some(delay)
    }

    /// Starts over.
    pub fn reset(&mut self) {
        self.attempts = 0;
        self.previous = None;
        self.first = None;
        self.spread_over = None;
    }

    fn delay(&mut self, rng: &mut Rng, moment_cap: Duration) -> Duration {
        let n = self.attempts;
        let delay = match &self.policy.strategy {
            Strategy::Constant { delay } => *delay,
            Strategy::Linear { initial, step, cap } => {
                initial.saturating_add(step.saturating_mul(n)).min(*cap)
            }
            Strategy::Exponential { base, cap } => base
                .saturating_mul(1_u32.checked_shl(n).unwrap_or(u32::MAX))
                .min(*cap),
            Strategy::DecorrelatedJitter { base, cap } => {
                let cap = moment_cap.min(*cap);
                let previous = self.previous.unwrap_or(*base).clamp((*base).min(cap), cap);
                return rng.duration(*base, previous.saturating_mul(3)).min(cap);
            }
            Strategy::Spread { base, cap } => {
                let cap = moment_cap.min(*cap);
                let base = (*base).min(cap);
                if self.spread_over == Some(cap) {
                    return rng.duration(base.max(cap.saturating_sub(cap / 10)), cap);
                }
                let previous = self.previous.unwrap_or(base).clamp(base, cap);
                let grown = rng.duration(base, previous.saturating_mul(3));
                // Once at a cap, growing to a higher one would only keep those together who are.
                if self.spread_over.is_none() && grown < cap {
                    return grown;
                }
                self.spread_over = Some(cap);
                return rng.duration(base, cap);
            }
            Strategy::Custom(own) => own.delay(n, self.previous, rng),
        };
        let delay = delay.min(moment_cap);
        match self.policy.jitter {
            Jitter::None => delay,
            Jitter::Full => rng.duration(Duration::ZERO, delay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn rng(seed: u8) -> Rng {
        Rng::from_seed([seed; 32])
    }

    fn delays(policy: BackoffPolicy, n: usize) -> Vec<u128> {
        let (mut backoff, mut rng) = (Backoff::new(policy), rng(1));
        (0..n)
            .map_while(|_| backoff.next(Timestamp::ZERO, &mut rng))
            .map(|delay| delay.as_millis())
            .collect()
    }

    #[test]
    fn the_formulas() {
        assert_eq!(delays(BackoffPolicy::constant(7 * MS), 3), [7, 7, 7]);
        let linear = BackoffPolicy::linear(10 * MS, 5 * MS, 22 * MS).with_jitter(Jitter::None);
        assert_eq!(delays(linear, 4), [10, 15, 20, 22]);
        let exponential = BackoffPolicy::exponential(10 * MS, 100 * MS).with_jitter(Jitter::None);
        assert_eq!(delays(exponential, 6), [10, 20, 40, 80, 100, 100]);
        assert_eq!(delays(BackoffPolicy::custom(|n| n * MS), 3), [0, 1, 2]);

        struct Doubling;
        impl Grow for Doubling {
            fn delay(&self, _: u32, previous: Option<Duration>, _: &mut Rng) -> Duration {
                previous.map_or(MS, |previous| previous * 2)
            }
        }
        assert_eq!(delays(BackoffPolicy::grow(Doubling), 4), [1, 2, 4, 8]);
    }

    #[test]
    fn limits() {
        assert_eq!(
            delays(BackoffPolicy::constant(MS).with_max_attempts(3), 9).len(),
            3
        );
        let mut backoff = Backoff::new(BackoffPolicy::constant(10 * MS).with_max_elapsed(25 * MS));
        let mut rng = rng(1);
        let at = |ms: u32| Timestamp::ZERO + ms * MS;
        assert!(backoff.next(at(100), &mut rng).is_some());
        assert!(backoff.next(at(115), &mut rng).is_some());
        assert_eq!(backoff.next(at(116), &mut rng), None);
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
        assert!(backoff.next(at(116), &mut rng).is_some());
    }

    #[test]
    fn huge_numbers_saturate() {
        for policy in [
            BackoffPolicy::linear(Duration::MAX, Duration::MAX, Duration::MAX),
            BackoffPolicy::exponential(Duration::MAX, Duration::MAX),
            BackoffPolicy::decorrelated(Duration::MAX, Duration::MAX),
            BackoffPolicy::spread(Duration::MAX, Duration::MAX),
            BackoffPolicy::custom(|_| Duration::MAX),
        ] {
            let (mut backoff, mut rng) = (Backoff::new(policy), rng(3));
            for _ in 0..70 {
                let _ = backoff.next(Timestamp::MAX, &mut rng).unwrap();
            }
        }
    }

    #[test]
    fn never_above_the_cap_nor_below_the_base() {
        bolero::check!()
            .with_type::<(u8, u16, u16, u16, u8)>()
            .for_each(|&(seed, base, cap, moment, n)| {
                let base = (u32::from(base) + 1) * MS;
                let cap = base + u32::from(cap) * MS;
                let moment = base + u32::from(moment) * MS;
                let mut rng = rng(seed);
                for policy in [
                    BackoffPolicy::linear(base, base, cap),
                    BackoffPolicy::exponential(base, cap),
                    BackoffPolicy::decorrelated(base, cap),
                    BackoffPolicy::spread(base, cap),
                ] {
                    let low = match policy.strategy {
                        Strategy::DecorrelatedJitter { .. } | Strategy::Spread { .. } => base,
                        _ => Duration::ZERO,
                    };
                    let mut backoff = Backoff::new(policy);
                    for _ in 0..n {
                        let delay = backoff.next_within(Timestamp::ZERO, &mut rng, moment).unwrap();
                        assert!((low..=cap.min(moment)).contains(&delay), "{delay:?}");
                    }
                }
            });
    }

    /// Full jitter fills its range evenly; decorrelated jitter spreads and grows to its cap.
    #[test]
    fn jitter_spreads() {
        let mut rng = rng(9);
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let mut backoff = Backoff::new(BackoffPolicy::exponential(1000 * MS, 1000 * MS));
            let delay = backoff.next(Timestamp::ZERO, &mut rng).unwrap();
            tenths[(delay.as_micros() / 100_001) as usize] += 1;
        }
        assert!(tenths.iter().all(|n| (850..1150).contains(n)), "{tenths:?}");

        let mut at_cap = 0;
        let mut distinct = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let mut backoff = Backoff::new(BackoffPolicy::decorrelated(10 * MS, 1000 * MS));
            let first = backoff.next(Timestamp::ZERO, &mut rng).unwrap();
            assert!((10 * MS..=30 * MS).contains(&first));
            distinct.insert(first);
            let last = (0..30)
                .filter_map(|_| backoff.next(Timestamp::ZERO, &mut rng))
                .last()
                .unwrap();
            at_cap += u32::from(last == 1000 * MS);
        }
        assert!(distinct.len() > 900);
        // The stationary share at the cap is 2 in 3 right after another at the cap.
        assert!((300..800).contains(&at_cap), "{at_cap}");
    }

    /// Whenever an outage ends, clients come back at an even rate: that of the worst tenth of a second is at
    /// most twice the mean.
    #[test]
    fn a_crowd_is_spread_evenly() {
        let mut rng = rng(5);
        for outage_s in [60, 75, 100, 130] {
            let outage = Timestamp::ZERO + outage_s * 1000 * MS;
            let mut per_100_ms = [0_u32; 101];
            for _ in 0..10_000 {
                let mut backoff = Backoff::new(BackoffPolicy::spread(100 * MS, 10_000 * MS));
                let mut at = Timestamp::ZERO;
                while at < outage {
                    at += backoff.next(at, &mut rng).unwrap();
                }
                per_100_ms[(at.since(outage).as_millis() / 100) as usize] += 1;
            }
            let worst = per_100_ms.iter().max().unwrap();
            assert!(*worst <= 200, "{outage_s} s: {per_100_ms:?}");
        }
    }

    /// Clients that failed together do not come back together. NUMBERS: 10,000 clients after an outage.
    #[test]
    fn a_crowd_spreads_out() {
        let mut rng = rng(4);
        let mut per_100_ms = [0_u32; 60];
        for _ in 0..10_000 {
            let mut backoff = Backoff::new(BackoffPolicy::decorrelated(100 * MS, 2000 * MS));
            let mut at = Timestamp::ZERO;
            while at.as_nanos() < 6_000_000_000 {
                at += backoff.next(at, &mut rng).unwrap();
                if let Some(slot) = per_100_ms.get_mut((at.as_nanos() / 100_000_000) as usize) {
                    *slot += 1;
                }
            }
        }
        let late = &per_100_ms[20..];
        let mean = late.iter().sum::<u32>() / late.len() as u32;
        assert!(late.iter().all(|n| *n <= 2 * mean), "mean {mean}: {late:?}");
    }
}
