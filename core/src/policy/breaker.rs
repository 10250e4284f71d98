//! Circuit breakers: a target that fails most of its calls is left alone for a while, then tried with a few.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::rng::Rng;
use crate::time::Timestamp;

/// How many calls a breaker looks back on.
pub const WINDOW: u32 = 100;

/// The settings of a [`Breakers`].
#[derive(Clone, Debug)]
pub struct Config {
    /// It opens when so many in 100 of the last [`WINDOW`] calls failed …
    pub failure_percent: u32,
    /// … of so many calls at least.
    pub min_calls: u32,
    /// Calls longer ago than this say nothing: the window is emptied when none came for so long.
    pub max_age: Duration,
    /// How long it stays open at first; twice as long each time that probes fail.
    pub open_min: Duration,
    /// The longest that it stays open.
    pub open_max: Duration,
    /// How many probes may be under way when it is half open, and how many must succeed in a row to close it.
    pub probes: u32,
    /// A probe that reports nothing for so long has failed.
    pub probe_timeout: Duration,
    /// The most breakers. The one that was used longest ago makes room, one that is closed if there is one.
    pub max_breakers: usize,
}

impl Default for Config {
    /// 50 % of at least 20 calls, none older than a minute without others; open 5 s to 60 s; 3 probes
    /// of 10 s; 4,096 breakers.
    fn default() -> Config {
        Config {
            failure_percent: 50,
            min_calls: 20,
            max_age: Duration::from_secs(60),
            open_min: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
            probes: 3,
            probe_timeout: Duration::from_secs(10),
            max_breakers: 4096,
        }
    }
}

/// A target, numbered by the caller: a server, or a group that fails together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u64);

/// A method, numbered by the caller. One number for all of them makes breakers of targets alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodId(pub u64);

/// What a call has to do with a breaker.
type Key = (TargetId, MethodId);

/// A call that may be made. Give it back to [`Breakers::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a probe whose end is not recorded holds its place until it times out"]
pub struct Permit {
    key: Key,
    /// Of the state under which it was given: what an earlier state sees says nothing of this one.
    era: u64,
}

/// How a call ended, as far as a breaker cares
/// ([`Classification::counts_against_target`](crate::request::Classification::counts_against_target)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target is well.
    Good,
    /// It is not.
    Bad,
    /// It was cancelled, or says nothing about the target.
    Neither,
}

/// A call that is not to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the circuit breaker is open")]
pub struct BreakerOpen {
    /// When it may be worth asking again.
    pub retry_at: Timestamp,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls are made.
    Closed,
    /// None is made until then.
    Open {
        /// Then.
        until: Timestamp,
    },
    /// A few are made, to see.
    HalfOpen {
        /// Under way.
        under_way: u32,
        /// Succeeded so far.
        succeeded: u32,
    },
}

/// A breaker that moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Of this target.
    pub target: TargetId,
    /// And method.
    pub method: MethodId,
    /// Where it stands.
    pub state: State,
}

/// The last calls, one bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// The newest in bit 0; 1 failed.
    bits: u128,
    len: u32,
}

impl Window {
    fn push(&mut self, failed: bool) {
        let mask = (1_u128 << WINDOW) - 1;
        self.bits = (self.bits << 1 | u128::from(failed)) & mask;
        self.len = (self.len + 1).min(WINDOW);
    }

    fn failures(&self) -> u32 {
        self.bits.count_ones()
    }
}

#[derive(Debug)]
struct Breaker {
    state: State,
    era: u64,
    window: Window,
    last: Timestamp,
    /// How long it was open the last time; zero when it has been well since.
    open_for: Duration,
    /// When the probes under way count as failed.
    probe_until: Timestamp,
    used: u64,
}

/// The breakers of a client, by target and method.
///
/// [`admit`](Self::admit) before a call, [`record`](Self::record) when it has ended, [`poll_event`](Self::poll_event)
/// for what moved, [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) has come.
/// A breaker that is open moves by time alone: half open when its time is over. Delays are spread by up to a
/// quarter, so that many clients do not probe at once.
pub struct Breakers {
    config: Config,
    rng: Rng,
    now: Timestamp,
    breakers: BTreeMap<Key, Breaker>,
    /// By use, oldest first; closed ones before others (`false` before `true`).
    by_use: BTreeSet<(bool, u64, Key)>,
    timers: BTreeSet<(Timestamp, Key)>,
    next: u64,
    events: std::collections::VecDeque<Moved>,
}

impl Breakers {
    /// None yet; each is made closed.
    pub fn new(config: Config, seed: [u8; 32], now: Timestamp) -> Breakers {
        Breakers {
            config,
            rng: Rng::from_seed(seed),
            now,
            breakers: BTreeMap::new(),
            by_use: BTreeSet::new(),
            timers: BTreeSet::new(),
            next: 0,
            events: std::collections::VecDeque::new(),
        }
    }

    /// Whether a call may be made now.
    ///
    /// # Errors
    /// [`BreakerOpen`]: the call is not sent.
    pub fn admit(
        &mut self,
        now: Timestamp,
        target: TargetId,
        method: MethodId,
    ) -> Result<Permit, BreakerOpen> {
        self.handle_timeout(now);
        let key = (target, method);
        self.touch(key);
        let probes = self.config.probes.max(1);
        let probe_until = self.now + self.config.probe_timeout;
        let Some(breaker) = self.breakers.get_mut(&key) else {
            return Ok(Permit { key, era: 0 });
        };
        let era = breaker.era;
        match &mut breaker.state {
            State::Closed => Ok(Permit { key, era }),
            State::Open { until } => Err(BreakerOpen { retry_at: *until }),
            State::HalfOpen { under_way, succeeded } if *under_way + *succeeded >= probes => {
                let retry_at = breaker.probe_until;
                Err(BreakerOpen { retry_at })
            }
            State::HalfOpen { under_way, .. } => {
                *under_way += 1;
                let before = std::mem::replace(&mut breaker.probe_until, probe_until);
                self.timers.remove(&(before, key));
                self.timers.insert((probe_until, key));
                Ok(Permit { key, era })
            }
        }
    }

    /// A call has ended.
    pub fn record(&mut self, now: Timestamp, permit: Permit, verdict: Verdict) {
        self.handle_timeout(now);
        let Permit { key, era } = permit;
        let now = self.now;
        let Some(breaker) = self.breakers.get_mut(&key).filter(|breaker| breaker.era == era) else {
            return;
        };
        match &mut breaker.state {
            State::Closed => {
                if verdict == Verdict::Neither {
                    return;
                }
                if now.since(breaker.last) > self.config.max_age {
                    breaker.window = Window::default();
                }
                breaker.last = now;
                breaker.window.push(verdict == Verdict::Bad);
                let window = breaker.window;
                let share = window.failures() * 100 >= self.config.failure_percent * window.len;
                if share && verdict == Verdict::Bad && window.len >= self.config.min_calls {
                    self.open(key);
                }
            }
            State::HalfOpen { under_way, succeeded } => {
                *under_way = under_way.saturating_sub(1);
                match verdict {
                    Verdict::Neither => {}
                    Verdict::Bad => self.open(key),
                    Verdict::Good => {
                        *succeeded += 1;
                        if *succeeded >= self.config.probes.max(1) {
                            self.set(key, State::Closed);
                        }
                    }
                }
            }
            State::Open { .. } => {}
        }
    }

    /// Where a breaker stands; closed where there is none.
    pub fn state(&self, target: TargetId, method: MethodId) -> State {
        let breaker = self.breakers.get(&(target, method));
        breaker.map_or(State::Closed, |breaker| breaker.state)
    }

    /// What moved.
    pub fn poll_event(&mut self) -> Option<Moved> {
        self.events.pop_front()
    }

    /// When the next breaker moves by time; at once while an event waits.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match self.events.is_empty() {
            false => Some(self.now),
            true => self.timers.first().map(|(at, _)| *at),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some(&(at, key)) = self.timers.first() {
            if at > self.now {
                return;
            }
            self.timers.pop_first();
            match self.breakers.get(&key).map(|breaker| breaker.state) {
                Some(State::Open { .. }) => {
                    let state = State::HalfOpen {
                        under_way: 0,
                        succeeded: 0,
                    };
                    self.set(key, state);
                }
                // A probe that says nothing is a bad sign.
                Some(State::HalfOpen { under_way: 1.., .. }) => self.open(key),
                Some(State::HalfOpen { .. } | State::Closed) | None => {}
            }
        }
    }

    /// How many breakers there are.
    pub fn len(&self) -> usize {
        self.breakers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.breakers.is_empty()
    }

    fn open(&mut self, key: Key) {
        let Some(breaker) = self.breakers.get_mut(&key) else {
            return;
        };
        let length = match breaker.open_for {
            Duration::ZERO => self.config.open_min,
            before => before.saturating_mul(2),
        };
        let length = length.clamp(
            self.config.open_min,
            self.config.open_max.max(self.config.open_min),
        );
        breaker.open_for = length;
        let spread = self.rng.duration(Duration::ZERO, length / 4);
        let length = length.saturating_add(spread);
        let until = self.now + length.min(self.config.open_max.max(self.config.open_min));
        self.set(key, State::Open { until });
    }

    fn set(&mut self, key: Key, state: State) {
        let era = self.tick();
        let Some(breaker) = self.breakers.get_mut(&key) else {
            return;
        };
        let was_closed = breaker.state == State::Closed;
        if let State::Open { until } = breaker.state {
            self.timers.remove(&(until, key));
        }
        self.timers.remove(&(breaker.probe_until, key));
        breaker.state = state;
        breaker.era = era;
        match state {
            State::Closed => {
                breaker.window = Window::default();
                breaker.open_for = Duration::ZERO;
            }
            State::Open { until } => drop(self.timers.insert((until, key))),
            State::HalfOpen { .. } => breaker.probe_until = Timestamp::ZERO,
        }
        let used = breaker.used;
        self.by_use.remove(&(!was_closed, used, key));
        self.by_use.insert((state != State::Closed, used, key));
        self.events.push_back(Moved {
            target: key.0,
            method: key.1,
            state,
        });
    }

    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Notes a use, and makes the breaker if there is none.
    fn touch(&mut self, key: Key) {
        let used = self.tick();
        if let Some(breaker) = self.breakers.get_mut(&key) {
            let open = breaker.state != State::Closed;
            self.by_use.remove(&(open, breaker.used, key));
            breaker.used = used;
            self.by_use.insert((open, used, key));
            return;
        }
        if self.breakers.len() >= self.config.max_breakers
            && let Some((_, _, oldest)) = self.by_use.pop_first()
            && let Some(gone) = self.breakers.remove(&oldest)
        {
            if let State::Open { until } = gone.state {
                self.timers.remove(&(until, oldest));
            }
            self.timers.remove(&(gone.probe_until, oldest));
        }
        if self.config.max_breakers == 0 {
            return;
        }
        let breaker = Breaker {
            state: State::Closed,
            era: used,
            window: Window::default(),
            last: self.now,
            open_for: Duration::ZERO,
            probe_until: Timestamp::ZERO,
            used,
        };
        self.breakers.insert(key, breaker);
        self.by_use.insert((false, used, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (TargetId, MethodId) = (TargetId(1), MethodId(1));

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    fn breakers(edit: impl FnOnce(&mut Config)) -> Breakers {
        let mut config = Config::default();
        edit(&mut config);
        Breakers::new(config, [5; 32], at(0))
    }

    fn call(breakers: &mut Breakers, ms: u64, verdict: Verdict) -> bool {
        match breakers.admit(at(ms), KEY.0, KEY.1) {
            Ok(permit) => {
                breakers.record(at(ms), permit, verdict);
                true
            }
            Err(_) => false,
        }
    }

    /// NUMBERS: at least 20 calls, and half of them failed.
    #[test]
    fn opens_at_half_of_twenty() {
        let mut breakers = breakers(|_| ());
        for n in 0..19 {
            assert!(call(&mut breakers, n, Verdict::Bad));
        }
        assert_eq!(breakers.state(KEY.0, KEY.1), State::Closed);
        assert!(call(&mut breakers, 20, Verdict::Bad));
        let State::Open { until } = breakers.state(KEY.0, KEY.1) else {
            panic!("open")
        };
        assert!(until >= at(5_020) && until <= at(6_270), "{until:?}");
        assert!(!call(&mut breakers, 21, Verdict::Good));
        assert_eq!(
            breakers.poll_event().map(|moved| moved.state),
            Some(State::Open { until })
        );
        assert_eq!(breakers.poll_timeout(), Some(until));
        // Another method of the same target is another matter.
        assert!(breakers.admit(at(21), KEY.0, MethodId(2)).is_ok());
    }

    #[test]
    fn a_rolling_window() {
        let mut breakers = breakers(|_| ());
        (0..100).for_each(|n| assert!(call(&mut breakers, n, Verdict::Good)));
        (0..49).for_each(|n| assert!(call(&mut breakers, 200 + n, Verdict::Bad)));
        (0..99).for_each(|n| assert!(call(&mut breakers, 300 + n, Verdict::Neither)));
        assert_eq!(breakers.state(KEY.0, KEY.1), State::Closed);
        assert!(call(&mut breakers, 500, Verdict::Bad));
        assert!(matches!(breakers.state(KEY.0, KEY.1), State::Open { .. }));
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut breakers = breakers(|_| ());
        (0..19).for_each(|n| assert!(call(&mut breakers, n, Verdict::Bad)));
        assert!(call(&mut breakers, 60_100, Verdict::Bad));
        assert_eq!(breakers.state(KEY.0, KEY.1), State::Closed);
    }

    fn wait(breakers: &mut Breakers) -> Timestamp {
        while breakers.poll_event().is_some() {}
        let due = breakers.poll_timeout().expect("a timer");
        breakers.handle_timeout(due);
        due
    }

    #[test]
    fn probes_close_it_or_keep_it_open_for_longer() {
        let mut breakers = breakers(|_| ());
        (0..20).for_each(|n| assert!(call(&mut breakers, n, Verdict::Bad)));
        let mut opened = at(19);
        for seconds in [5, 10, 20, 40, 60, 60] {
            let due = wait(&mut breakers);
            let open = due.since(opened).as_millis();
            assert!(
                (seconds * 1000..=(seconds * 1250).min(60_000)).contains(&open),
                "{open} for {seconds}"
            );
            let probe = breakers.admit(due, KEY.0, KEY.1).unwrap();
            breakers.record(due, probe, Verdict::Bad);
            opened = due;
        }
        let due = wait(&mut breakers);
        let probes: Vec<_> = (0..3)
            .map(|_| breakers.admit(due, KEY.0, KEY.1).unwrap())
            .collect();
        assert!(
            breakers.admit(due, KEY.0, KEY.1).is_err(),
            "no more than a few probes"
        );
        for probe in probes {
            assert_ne!(breakers.state(KEY.0, KEY.1), State::Closed);
            breakers.record(due, probe, Verdict::Good);
        }
        assert_eq!(breakers.state(KEY.0, KEY.1), State::Closed);
        while breakers.poll_event().is_some() {}
        assert_eq!(breakers.poll_timeout(), None);
        // And it starts over at 5 s.
        let later = due + Duration::from_secs(1);
        for _ in 0..20 {
            let permit = breakers.admit(later, KEY.0, KEY.1).unwrap();
            breakers.record(later, permit, Verdict::Bad);
        }
        assert!(wait(&mut breakers).since(later) <= Duration::from_millis(6_250));
    }

    #[test]
    fn silent_probes_and_late_news() {
        let mut breakers = breakers(|_| ());
        let late = breakers.admit(at(0), KEY.0, KEY.1).unwrap();
        (0..20).for_each(|n| assert!(call(&mut breakers, n, Verdict::Bad)));
        let due = wait(&mut breakers);
        let half = breakers.state(KEY.0, KEY.1);
        for verdict in [Verdict::Good, Verdict::Bad] {
            breakers.record(due, late, verdict);
            assert_eq!(breakers.state(KEY.0, KEY.1), half, "old news say nothing");
        }
        let silent = breakers.admit(due, KEY.0, KEY.1).unwrap();
        let given_up = wait(&mut breakers);
        assert_eq!(given_up.since(due), Duration::from_secs(10));
        assert!(matches!(breakers.state(KEY.0, KEY.1), State::Open { .. }));
        breakers.record(given_up, silent, Verdict::Good);
        assert!(matches!(breakers.state(KEY.0, KEY.1), State::Open { .. }));
        // A cancelled probe gives its place back.
        let due = wait(&mut breakers);
        for _ in 0..10 {
            let probe = breakers.admit(due, KEY.0, KEY.1).unwrap();
            breakers.record(due, probe, Verdict::Neither);
        }
    }

    #[test]
    fn bounded_and_closed_ones_go_first() {
        let mut breakers = breakers(|config| config.max_breakers = 10);
        (0..20).for_each(|n| assert!(call(&mut breakers, n, Verdict::Bad)));
        for n in 0..1000 {
            let _ = breakers.admit(at(30), TargetId(n + 10), MethodId(0)).unwrap();
            assert!(breakers.len() <= 10);
        }
        assert!(matches!(breakers.state(KEY.0, KEY.1), State::Open { .. }));
        assert_eq!(breakers.by_use.len(), 10);
    }

    #[test]
    fn any_order_of_calls() {
        bolero::check!()
            .with_type::<Vec<(u8, u8, u16)>>()
            .for_each(|steps| {
                let mut breakers = breakers(|config| {
                    config.min_calls = 3;
                    config.max_breakers = 3;
                });
                let (mut now, mut permits) = (0, Vec::new());
                for &(what, which, wait) in steps {
                    now += u64::from(wait) % 3000;
                    match what % 4 {
                        0 | 1 => {
                            let target = TargetId(u64::from(which % 5));
                            permits.extend(breakers.admit(at(now), target, MethodId(0)).ok());
                        }
                        2 if !permits.is_empty() => {
                            let permit = permits.swap_remove(usize::from(which) % permits.len());
                            let verdict =
                                [Verdict::Bad, Verdict::Good, Verdict::Neither][usize::from(which % 3)];
                            breakers.record(at(now), permit, verdict);
                        }
                        _ => breakers.handle_timeout(at(now)),
                    }
                    while breakers.poll_event().is_some() {}
                    assert!(breakers.len() <= 3 && breakers.timers.len() <= 3);
                    assert_eq!(breakers.by_use.len(), breakers.len());
                    // Nothing that is open is open for good.
                    for (key, breaker) in &breakers.breakers {
                        if let State::Open { until } = breaker.state {
                            assert!(breakers.timers.contains(&(until, *key)));
                            assert!(until.since(at(now)) <= Duration::from_secs(60));
                        }
                        if matches!(breaker.state, State::HalfOpen { under_way: 1.., .. }) {
                            assert!(breakers.timers.contains(&(breaker.probe_until, *key)));
                        }
                    }
                }
            });
    }
}
