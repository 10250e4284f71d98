//! What a path's acknowledgements say about its delivery rate, and from it and the round-trip time the
//! bound on bytes in flight (DESIGN "Scheduling").

use std::time::Duration;

use super::sent::SentRecord;
use crate::policy::rtt::{INITIAL_RTT, Rtt};
use crate::time::Timestamp;

/// How much longer a path may be silent for what is in flight on it, at most.
const MAX_EXCUSE: Duration = Duration::from_secs(10);
/// The same where its rate is not known.
const MAX_GUESSED_EXCUSE: Duration = Duration::from_secs(1);
/// The first flight of a TCP connection (RFC 6928 §2).
const INITIAL_WINDOW: u64 = 14_600;
const MIN_LIMIT: u64 = 16 * 1024;
const MAX_SLACK: u64 = 128 * 1024;
const MAX_LIMIT: u64 = 64 * 1024 * 1024;
const MIN_RECORD: usize = 1400;
/// Full records on a fast path: large enough to amortise headers and system calls, small enough to
/// stay in a core's cache and to delay an urgent frame little.
pub(super) const FULL_RECORD: usize = 63 * 1024;
const UNKNOWN_RECORD: usize = 16 * 1024;

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
        let interval = now.since(record.delivered_at).max(rtt.minimum().min(INITIAL_RTT));
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
        rtt.begin_fresh();
    }

    fn product(&self, rtt: &Rtt) -> u64 {
        let micros = u64::try_from(rtt.minimum().as_micros())
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

    /// Time that `bytes` may take beside a round trip. Where the path was never full the rate is known from below only,
    /// and a few small messages would excuse a long silence: what TCP itself would send at once (RFC 6928) excuses
    /// another round trip at most.
    pub(super) fn excuse_for(&self, bytes: u64, round_trip: Duration) -> Duration {
        let most = match self.was_full {
            true => MAX_EXCUSE,
            false if bytes <= INITIAL_WINDOW => round_trip,
            false => MAX_GUESSED_EXCUSE,
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
