//! How well a path or an endpoint does, from evidence alone.

use std::fmt;
use std::time::Duration;

use super::rtt::Rtt;
use crate::time::Timestamp;

/// Failures in a row from which on it is failing.
pub const FAILING_AFTER: u32 = 3;
/// Of a million answers so many failed or were late: it is degraded from here …
const DEGRADED_FROM: u32 = 20_000;
/// … until there are fewer than this.
const DEGRADED_UNTIL: u32 = 5_000;
/// The same for failing.
const FAILING_FROM: u32 = 500_000;
const FAILING_UNTIL: u32 = 250_000;
/// Each answer counts for so much of the error rate.
const SHARE: i64 = 64;
/// What went wrong counts for half as much after this time, whether or not anything was answered since.
const ERRORS_HALVE_IN: Duration = Duration::from_secs(10);
/// After its first relapse it is to be well for so long before it is preferred again; twice as long after each further.
const FIRST_REST: Duration = Duration::from_secs(2);
const MAX_REST: Duration = Duration::from_secs(64);
/// What fails again before this has passed has not been well in between.
const SAME_TROUBLE: Duration = Duration::from_secs(1);
/// A relapse is forgotten after so long without another.
const FORGET: Duration = Duration::from_secs(120);

/// How well it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It answers, and in time.
    Healthy,
    /// Some answers are late or fail, more than one in fifty.
    Degraded,
    /// Half of them fail, or several in a row did, or it is mute.
    Failing,
    /// There is no connection.
    #[default]
    Disconnected,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Standing::Healthy => "healthy",
            Standing::Degraded => "degraded",
            Standing::Failing => "failing",
            Standing::Disconnected => "disconnected",
        })
    }
}

/// What is known, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// How well it does.
    pub standing: Standing,
    /// Smoothed round-trip time; `None` before the first sample.
    pub round_trip: Option<Duration>,
    /// How much it varies.
    pub variance: Duration,
    /// The shortest of late; `None` before the first sample.
    pub minimum: Option<Duration>,
    /// The longest of late, fading.
    pub peak: Duration,
    /// Of a million answers, so many failed or were late.
    pub errors_ppm: u32,
    /// Failures since it last answered.
    pub consecutive_failures: u32,
    /// Time since it last answered; `None` if it never has.
    pub silent_for: Option<Duration>,
    /// How often it failed and came back of late.
    pub relapses: u32,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.standing)?;
        match self.round_trip {
            Some(rtt) => write!(f, ", round trip {} ± {}", Millis(rtt), Millis(self.variance))?,
            None => f.write_str(", not measured")?,
        }
        if self.errors_ppm >= 1000 {
            write!(f, ", {} in 1000 late or failed", self.errors_ppm / 1000)?;
        }
        if self.consecutive_failures > 0 {
            write!(f, ", {} failures in a row", self.consecutive_failures)?;
        }
        if self.relapses > 0 {
            write!(f, ", {} relapses", self.relapses)?;
        }
        match self.silent_for {
            Some(silence) => write!(f, ", last answer {} ago", Millis(silence)),
            None => f.write_str(", no answer so far"),
        }
    }
}

/// A duration in milliseconds, with two digits behind the point.
pub(super) struct Millis(pub(super) Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:02} ms", micros / 1000, micros % 1000 / 10)
    }
}

/// How often something failed after it had been well, and when it may be trusted again: what keeps a path that flaps
/// from being returned to each time that it is up. It outlives the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damping {
    relapses: u32,
    last: Timestamp,
}

impl Damping {
    /// It failed. What comes soon after the last time is the same trouble: its rest begins anew, and is no longer for that.
    pub fn relapsed(&mut self, now: Timestamp) {
        let same = self.relapses > 0 && now.since(self.last) < SAME_TROUBLE;
        self.relapses = self.count(now).saturating_add(u32::from(!same));
        self.last = now;
    }

    /// How often, as far as it is remembered.
    pub fn count(&self, now: Timestamp) -> u32 {
        if now.since(self.last) > FORGET {
            0
        } else {
            self.relapses
        }
    }

    /// From when on it may be preferred again, if it stays well.
    pub fn trusted_at(&self) -> Timestamp {
        match self.relapses.checked_sub(1) {
            None => Timestamp::ZERO,
            Some(doublings) => self.last + FIRST_REST.saturating_mul(1 << doublings.min(5)).min(MAX_REST),
        }
    }

    /// The longest time between two looks at it on the way there.
    pub fn look_every(&self) -> Duration {
        self.trusted_at().since(self.last) / 8
    }
}

/// What is observed of one path or endpoint, and how well it does by that.
///
/// Fed with what happened: [`on_up`](Health::on_up), [`on_answer`](Health::on_answer), [`on_stall`](Health::on_stall),
/// [`on_failure`](Health::on_failure), [`on_down`](Health::on_down). A connection that is open and answers nothing is
/// no evidence of anything, and one that is busy and answers is well. Each boundary is crossed at one value and
/// crossed back at another, so that nothing flaps there.
#[derive(Clone, Debug, Default)]
pub struct Health {
    standing: Standing,
    /// As it was at `counted_at`.
    errors_ppm: u32,
    counted_at: Timestamp,
    consecutive_failures: u32,
    proven_at: Option<Timestamp>,
    stalled: bool,
    damping: Damping,
}

impl Health {
    /// Nothing observed: disconnected.
    pub fn new() -> Health {
        Health::default()
    }

    /// What is remembered of an earlier connection to the same place.
    pub fn with_damping(damping: Damping) -> Health {
        Health {
            damping,
            ..Health::default()
        }
    }

    /// It is up: its handshake was answered.
    pub fn on_up(&mut self, now: Timestamp) {
        self.standing = Standing::Healthy;
        self.stalled = false;
        self.consecutive_failures = 0;
        self.proven_at = Some(now);
        self.judge(now);
    }

    /// Something that it was sent was answered; `late` if that took much longer than usual.
    pub fn on_answer(&mut self, now: Timestamp, late: bool) {
        self.proven_at = Some(now);
        self.stalled = false;
        self.consecutive_failures = 0;
        self.count(now, late);
        self.judge(now);
    }

    /// It answered what belongs to a stall that is known: it lives, and there is no other news.
    pub fn on_echo(&mut self, now: Timestamp) {
        self.proven_at = Some(now);
        self.stalled = false;
        self.consecutive_failures = 0;
        self.judge(now);
    }

    /// It answers nothing, and should have. It counts as one failure, however long it lasts.
    pub fn on_stall(&mut self, now: Timestamp) {
        if !std::mem::replace(&mut self.stalled, true) {
            self.on_failure(now);
        }
    }

    /// Something failed for good.
    pub fn on_failure(&mut self, now: Timestamp) {
        if self.consecutive_failures == 0 {
            self.damping.relapsed(now);
        }
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        self.count(now, true);
        self.judge(now);
    }

    /// The connection is gone.
    pub fn on_down(&mut self) {
        self.standing = Standing::Disconnected;
        self.stalled = false;
    }

    /// What was held against it is void: it is on another network.
    pub fn forgive(&mut self, now: Timestamp) {
        *self = Health {
            standing: self.standing,
            proven_at: self.proven_at,
            ..Health::default()
        };
        self.judge(now);
    }

    fn count(&mut self, now: Timestamp, bad: bool) {
        let sample = if bad { 1_000_000 } else { 0 };
        let before = i64::from(self.errors_ppm(now));
        self.counted_at = now;
        // Rounded towards the sample, so that it gets there.
        let step = (sample - before + (sample - before).signum() * (SHARE - 1)) / SHARE;
        self.errors_ppm = u32::try_from(before + step).unwrap_or(0);
    }

    fn judge(&mut self, now: Timestamp) {
        if self.standing == Standing::Disconnected {
            return;
        }
        let errors = self.errors_ppm(now);
        let within = |from, until, there: bool| errors >= if there { until } else { from };
        let failing = self.stalled
            || self.consecutive_failures >= FAILING_AFTER
            || within(FAILING_FROM, FAILING_UNTIL, self.standing == Standing::Failing);
        let degraded = within(DEGRADED_FROM, DEGRADED_UNTIL, self.standing >= Standing::Degraded);
        self.standing = match (failing, degraded) {
            (true, _) => Standing::Failing,
            (false, true) => Standing::Degraded,
            (false, false) => Standing::Healthy,
        };
    }

    /// How well it does.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Failures since it last answered.
    pub fn consecutive_failures(&self) -> u32 {
        self.consecutive_failures
    }

    /// Of a million answers of late, so many failed or were late.
    pub fn errors_ppm(&self, now: Timestamp) -> u32 {
        super::rtt::halved(self.errors_ppm, now.since(self.counted_at), ERRORS_HALVE_IN)
    }

    /// What keeps it from being preferred too early.
    pub fn damping(&self) -> Damping {
        self.damping
    }

    /// All that is known, with the times that answers took.
    pub fn evidence(&self, now: Timestamp, rtt: &Rtt) -> Evidence {
        let measured = rtt.minimum() != Duration::MAX;
        Evidence {
            standing: self.standing,
            round_trip: rtt.smoothed(),
            variance: rtt.variance(),
            minimum: measured.then(|| rtt.minimum()),
            peak: rtt.peak(now),
            errors_ppm: self.errors_ppm(now),
            consecutive_failures: self.consecutive_failures,
            silent_for: self.proven_at.map(|at| now.since(at)),
            relapses: self.damping.count(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    fn up() -> Health {
        let mut health = Health::new();
        assert_eq!(health.standing(), Standing::Disconnected);
        health.on_up(at(0));
        assert_eq!(health.standing(), Standing::Healthy);
        health
    }

    /// REQUIREMENTS P1.
    #[test]
    fn one_late_answer_in_a_hundred_is_at_worst_degraded() {
        let mut health = up();
        for n in 1..5000_u64 {
            health.on_answer(at(n), n % 100 == 0);
            assert!(health.standing() <= Standing::Degraded, "after {n} answers");
        }
        let rate = health.errors_ppm(at(5000));
        assert!((3_000..25_000).contains(&rate), "{rate}");
    }

    #[test]
    fn a_boundary_is_not_crossed_to_and_fro() {
        let mut health = up();
        let (mut moves, mut last) = (0, health.standing());
        // One in fifty is where degraded begins.
        for n in 1..10_000_u64 {
            health.on_answer(at(n), n % 50 == 0);
            moves += u32::from(health.standing() != last);
            last = health.standing();
        }
        assert!(moves <= 2, "moved {moves} times");
        for n in 10_000..11_000 {
            health.on_answer(at(n), false);
        }
        assert_eq!(health.standing(), Standing::Healthy);
        assert_eq!(health.errors_ppm(at(11_000)), 0);
    }

    #[test]
    fn errors_fade_on_a_path_that_rests() {
        let mut health = up();
        for n in 1..20 {
            health.on_answer(at(n), true);
        }
        let then = health.errors_ppm(at(20));
        assert!(then > 200_000);
        assert!(health.errors_ppm(at(10_020)) <= then / 2 + 1);
        assert!(health.errors_ppm(at(200_000)) < 5);
    }

    #[test]
    fn open_but_mute_is_failing_and_busy_is_not() {
        let mut mute = up();
        mute.on_stall(at(100));
        mute.on_stall(at(200));
        assert_eq!(mute.standing(), Standing::Failing);
        assert_eq!(mute.consecutive_failures(), 1);
        mute.on_answer(at(300), true);
        assert_eq!(mute.standing(), Standing::Degraded);

        let mut busy = up();
        for n in 1..1000 {
            busy.on_answer(at(n), false);
        }
        assert_eq!(busy.standing(), Standing::Healthy);
    }

    #[test]
    fn failures_in_a_row_fail() {
        let mut health = up();
        for n in 0..FAILING_AFTER {
            assert_ne!(health.standing(), Standing::Failing);
            health.on_failure(at(n.into()));
        }
        assert_eq!(health.standing(), Standing::Failing);
        health.on_down();
        assert_eq!(health.standing(), Standing::Disconnected);
        health.on_failure(at(100));
        assert_eq!(health.standing(), Standing::Disconnected);
    }

    #[test]
    fn each_relapse_doubles_the_time_until_it_is_trusted() {
        let mut health = up();
        assert_eq!(health.damping().trusted_at(), Timestamp::ZERO);
        let (mut rests, mut now) = (Vec::new(), at(1000));
        for _ in 0..8 {
            health.on_stall(now);
            rests.push(health.damping().trusted_at().since(now).as_secs());
            health.on_answer(now + Duration::from_millis(500), false);
            now = health.damping().trusted_at();
        }
        assert_eq!(rests, [2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(health.damping().count(now), 8);
        let forgotten = now + FORGET;
        assert_eq!(health.damping().count(forgotten), 0);
        health.on_stall(forgotten);
        assert_eq!(health.damping().trusted_at(), forgotten + FIRST_REST);
    }

    #[test]
    fn what_fails_again_at_once_rests_anew_and_no_longer() {
        let mut health = up();
        for round in 1..20 {
            health.on_stall(at(round * 900));
            health.on_answer(at(round * 900 + 100), false);
            assert_eq!(health.damping().trusted_at(), at(round * 900) + FIRST_REST);
        }
        assert_eq!(health.damping().count(at(20_000)), 1);
    }
}
