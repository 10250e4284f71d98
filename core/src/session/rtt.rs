//! What a path's acknowledgements say about it: round-trip time, delivery rate, and from both the
//! bound on bytes in flight (DESIGN "Scheduling").

use std::time::Duration;

use super::sent::SentRecord;
use crate::time::Timestamp;

/// Assumed before the first sample (RFC 9002 §6.2.2).
pub(super) const INITIAL_RTT: Duration = Duration::from_millis(333);
/// What a round trip may grow by before its path counts as degraded, besides a multiple of itself.
const DEGRADED: Duration = Duration::from_millis(20);
/// How much longer a path may be silent for what is in flight on it, at most.
const MAX_EXCUSE: Duration = Duration::from_secs(10);
/// The same where its rate is not known.
const MAX_GUESSED_EXCUSE: Duration = Duration::from_secs(1);
const MIN_LIMIT: u64 = 16 * 1024;
const MAX_SLACK: u64 = 128 * 1024;
const MAX_LIMIT: u64 = 64 * 1024 * 1024;
const MIN_RECORD: usize = 1400;
/// Full records on a fast path: large enough to amortise headers and system calls, small enough to
/// stay in a core's cache and to delay an urgent frame little.
pub(super) const FULL_RECORD: usize = 63 * 1024;
const UNKNOWN_RECORD: usize = 16 * 1024;

/// Smoothed round-trip time (RFC 9002 §5).
#[derive(Clone, Debug)]
pub(super) struct Rtt {
    pub(super) smoothed: Option<Duration>,
    pub(super) variance: Duration,
    pub(super) minimum: Duration,
    minimum_at: Timestamp,
    /// The shortest since the last draining began.
    fresh: Duration,
    /// The newest.
    latest: Duration,
}

impl Rtt {
    pub(super) fn new() -> Rtt {
        Rtt {
            smoothed: None,
            variance: INITIAL_RTT / 2,
            minimum: Duration::MAX,
            minimum_at: Timestamp::ZERO,
            fresh: Duration::MAX,
            latest: Duration::ZERO,
        }
    }

    pub(super) fn get(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL_RTT)
    }

    /// What the handshake took, until there is a sample. It says little about the shortest round trip.
    pub(super) fn guess(&mut self, measured: Duration) {
        if self.smoothed.is_none() {
            self.smoothed = Some(measured);
            self.variance = measured / 2;
        }
    }

    /// The shortest seen of late, or what is assumed.
    pub(super) fn base(&self) -> Duration {
        self.minimum.min(self.get())
    }

    pub(super) fn sample(&mut self, now: Timestamp, measured: Duration, ack_delay: Duration) {
        // What the handshake took was a guess: packets that it lost are no part of the round trip.
        let first = self.minimum == Duration::MAX;
        self.fresh = self.fresh.min(measured);
        if measured <= self.minimum {
            self.minimum = measured;
            self.minimum_at = now;
        }
        // RFC 9002 §5.3: the delay is only taken off while the result stays plausible.
        let adjusted = match measured.checked_sub(ack_delay) {
            Some(rest) if rest >= self.minimum => rest,
            _ => measured,
        };
        let was_degraded = self.is_degraded();
        self.latest = adjusted;
        match self.smoothed.filter(|_| !first) {
            None => {
                self.smoothed = Some(adjusted);
                self.variance = adjusted / 2;
            }
            // The path is itself again: what a stall took is no part of its round trip. That such things
            // happen on it, the variance tells for a while.
            Some(_) if was_degraded && !self.is_degraded() => {
                self.smoothed = Some(adjusted);
                self.variance = (self.variance / 2).max(adjusted / 2);
            }
            Some(smoothed) => {
                let difference = smoothed.abs_diff(adjusted);
                self.variance = (self.variance * 3 + difference) / 4;
                self.smoothed = Some((smoothed * 7 + adjusted) / 8);
            }
        }
    }

    /// Whether the newest round trip took much longer than the path's own shortest of late.
    pub(super) fn is_degraded(&self) -> bool {
        self.latest > self.base().saturating_mul(4).saturating_add(DEGRADED)
    }

    /// Whether it took longer than the way and a queue of the path's own explain.
    fn exceeds(&self, queue: Duration) -> bool {
        let usual = self.base().saturating_mul(2).saturating_add(DEGRADED);
        self.latest > usual.saturating_add(queue)
    }

    /// Whether the path may have become longer since its shortest round trip was seen.
    fn minimum_is_old(&self, now: Timestamp) -> bool {
        now.since(self.minimum_at) > Duration::from_secs(10)
    }

    /// Nothing waited for the path: what round trips take is its own, if the shortest is long ago.
    pub(super) fn renew_minimum(&mut self, now: Timestamp) {
        if self.minimum_is_old(now) {
            self.minimum = self.get();
            self.minimum_at = now;
        }
    }

    /// What was seen while the queue was drained is the path's round trip from here on.
    fn adopt_fresh(&mut self, now: Timestamp) {
        if self.fresh != Duration::MAX {
            self.minimum = self.fresh;
        }
        self.minimum_at = now;
    }

    /// Probe timeout (RFC 9002 §6.2.1).
    pub(super) fn pto(&self, max_ack_delay: Duration) -> Duration {
        match self.smoothed {
            None => INITIAL_RTT,
            Some(rtt) => rtt + (self.variance * 4).max(Duration::from_millis(1)) + max_ack_delay,
        }
    }
}

/// How the bound on bytes in flight is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The rate still grows from round to round; the bound leaves room for twice of it.
    Startup,
    /// The rate is known; the bound leaves room for a quarter more.
    Steady,
    /// The bound is lowered until then, so that the queue drains and the path's own round trip shows.
    Drain(Timestamp),
}

/// Delivery rate, and the bound on bytes in flight that follows from it: a small BBR. The rate is the
/// largest recent sample, application-limited ones only where they raise it.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    pub(super) delivered: u64,
    pub(super) delivered_at: Timestamp,
    best: u64,
    previous_best: u64,
    epoch: Timestamp,
    limit: u64,
    /// Bytes that keep the path busy for a round trip.
    product: u64,
    phase: Phase,
    round_ends: Timestamp,
    round_best: u64,
    flat_rounds: u32,
    /// The path was full at least once: the rate is its own, not the application's.
    was_full: bool,
}

/// Rounds without a quarter's growth after which the rate counts as known.
const FLAT_ROUNDS: u32 = 3;

impl Rate {
    pub(super) fn new(now: Timestamp, limit: u64) -> Rate {
        Rate {
            delivered: 0,
            delivered_at: now,
            best: 0,
            previous_best: 0,
            epoch: now,
            limit,
            product: limit,
            phase: Phase::Startup,
            round_ends: now,
            round_best: 0,
            flat_rounds: 0,
            was_full: false,
        }
    }

    /// Bytes per second, 0 while unknown.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.best.max(self.previous_best)
    }

    /// Takes in an acknowledgement of `bytes`, the newest of whose records is `record`.
    pub(super) fn on_delivered(&mut self, now: Timestamp, bytes: u64, record: &SentRecord, rtt: &mut Rtt) {
        self.delivered = self.delivered.saturating_add(bytes);
        self.delivered_at = now;
        let interval = now.since(record.delivered_at).max(rtt.minimum.min(INITIAL_RTT));
        let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return;
        }
        let sample = (self.delivered - record.delivered).saturating_mul(1_000_000) / micros;
        if self.best > 0 && rtt.exceeds(self.time_for(self.limit)) {
            self.outlast(now, sample, rtt);
            return;
        }
        if record.app_limited && sample <= self.bytes_per_second() {
            rtt.renew_minimum(now);
            return;
        }
        if now.since(self.epoch) > (rtt.get() * 10).max(Duration::from_millis(200)) {
            self.previous_best = self.best;
            self.best = 0;
            self.epoch = now;
        }
        self.best = self.best.max(sample);
        self.was_full |= !record.app_limited;
        self.advance(now, record.app_limited, rtt);
        let limit = self.limit_from(rtt);
        if !record.app_limited || limit > self.limit {
            self.limit = limit;
            self.product = self.product(rtt);
        }
    }

    /// A stall, or a path that has become longer or narrower. Its samples would push the rate down, and with
    /// it the bound, and thereby the rate: the bound stays, until the path's own round trip is known again.
    fn outlast(&mut self, now: Timestamp, sample: u64, rtt: &mut Rtt) {
        match self.phase {
            Phase::Startup | Phase::Steady if rtt.minimum_is_old(now) => self.drain(now, rtt),
            Phase::Startup | Phase::Steady => return,
            Phase::Drain(until) if now < until => {}
            Phase::Drain(_) => {
                // This is another path than the one that was known: it is searched anew.
                rtt.adopt_fresh(now);
                self.best = sample;
                self.previous_best = 0;
                self.epoch = now;
                self.phase = Phase::Startup;
                self.round_best = 0;
                self.flat_rounds = 0;
            }
        }
        self.limit = self.limit.min(self.limit_from(rtt));
    }

    fn advance(&mut self, now: Timestamp, app_limited: bool, rtt: &mut Rtt) {
        match self.phase {
            Phase::Startup if now >= self.round_ends && !app_limited => {
                let grown = self.bytes_per_second() >= self.round_best.saturating_mul(5) / 4;
                self.flat_rounds = if grown { 0 } else { self.flat_rounds + 1 };
                self.round_best = self.round_best.max(self.bytes_per_second());
                self.round_ends = now + rtt.get();
                if self.flat_rounds >= FLAT_ROUNDS {
                    // The queue that the search has built up hides the path's own round trip.
                    self.drain(now, rtt);
                }
            }
            Phase::Steady if rtt.minimum_is_old(now) => self.drain(now, rtt),
            Phase::Drain(until) if now >= until => {
                rtt.adopt_fresh(now);
                self.phase = Phase::Steady;
            }
            _ => {}
        }
    }

    fn drain(&mut self, now: Timestamp, rtt: &mut Rtt) {
        self.phase = Phase::Drain(now + rtt.get() * 2 + Duration::from_millis(10));
        rtt.fresh = Duration::MAX;
    }

    fn product(&self, rtt: &Rtt) -> u64 {
        let micros = u64::try_from(rtt.minimum.as_micros())
            .unwrap_or(u64::MAX)
            .min(10_000_000);
        self.bytes_per_second().saturating_mul(micros) / 1_000_000
    }

    fn limit_from(&self, rtt: &Rtt) -> u64 {
        let product = self.product(rtt);
        let window = match self.phase {
            Phase::Startup => product.saturating_mul(2),
            Phase::Steady => product.saturating_mul(5) / 4,
            Phase::Drain(_) => product / 2,
        };
        // Two milliseconds of sending cover late scheduling without a queue that anyone notices. On the
        // fastest paths they would not fit a core's cache, and cost more than they bring.
        let slack = (self.bytes_per_second() / 500).min(MAX_SLACK) + self.record_target() as u64;
        window.saturating_add(slack).clamp(MIN_LIMIT, MAX_LIMIT)
    }

    /// The bound on bytes in flight.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// After so many bytes an acknowledgement is asked for (PROTOCOL 4.2): a quarter of the bound, or up to half of
    /// it where what the path needs to be busy leaves that room, as each costs both ends a system call and a
    /// wake-up.
    pub(super) fn ask_after(&self) -> u64 {
        let room = self.limit.saturating_sub(self.product);
        room.clamp(self.limit / 4, self.limit / 2)
    }

    /// How large a record of bulk data may be: a few milliseconds of the path's time.
    pub(super) fn record_target(&self) -> usize {
        match self.bytes_per_second() {
            0 => UNKNOWN_RECORD,
            rate => usize::try_from(rate / 250)
                .unwrap_or(FULL_RECORD)
                .clamp(MIN_RECORD, FULL_RECORD),
        }
    }

    /// Time that `bytes` may take. Where the path was never full the rate is known from below only, and a few
    /// small messages would excuse a long silence.
    pub(super) fn excuse_for(&self, bytes: u64) -> Duration {
        let most = if self.was_full {
            MAX_EXCUSE
        } else {
            MAX_GUESSED_EXCUSE
        };
        self.time_for(bytes).min(most)
    }

    /// Time that `bytes` take at the known rate.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        match self.bytes_per_second() {
            0 => Duration::ZERO,
            rate => {
                Duration::from_micros(bytes.saturating_mul(1_000_000) / rate).min(Duration::from_secs(10))
            }
        }
    }
}
