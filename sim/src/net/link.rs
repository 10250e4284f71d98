//! One direction of a link: when, and whether, a packet arrives.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheetbend_core::rng::Rng;
use smallvec::SmallVec;

/// Bursty loss: the model of Gilbert and Elliott. The link is in one of two states, and may change
/// between them with every packet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Burst {
    /// Chance, per packet, of going from the good state to the bad one.
    pub enter: f64,
    /// Chance, per packet, of going back: the mean length of a burst is `1 / leave` packets.
    pub leave: f64,
    /// Chance of losing a packet in the good state.
    pub loss_good: f64,
    /// Chance of losing a packet in the bad state.
    pub loss_bad: f64,
}

impl Burst {
    /// Losses that have nothing to do with each other.
    pub const fn independent(loss: f64) -> Burst {
        Burst {
            enter: 0.0,
            leave: 1.0,
            loss_good: loss,
            loss_bad: loss,
        }
    }

    /// The share of packets that is lost in the long run.
    pub fn mean(&self) -> f64 {
        let bad = match self.enter + self.leave {
            0.0 => 0.0,
            sum => self.enter / sum,
        };
        self.loss_good * (1.0 - bad) + self.loss_bad * bad
    }
}

/// How one direction of a link treats packets. The default is a good local network: 0.25 ms, without
/// bound on the rate and without faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkConfig {
    /// Propagation, one way.
    pub delay: Duration,
    /// Added to the delay of each packet: evenly spread between zero and this. Order is kept.
    pub jitter: Duration,
    /// Bits per second; 0 is without bound.
    pub rate: u64,
    /// Bytes that wait for the rate before packets are dropped at the tail; 0 is without bound.
    pub queue: u64,
    /// Packets that vanish.
    pub loss: Burst,
    /// Chance that a packet is held back and overtaken.
    pub reorder: f64,
    /// By how much such a packet is held back.
    pub reorder_by: Duration,
    /// Chance that a packet arrives twice.
    pub duplicate: f64,
    /// Chance that a bit of a packet is flipped. TCP and UDP throw such a packet away by its checksum.
    pub corrupt: f64,
    /// Of the corrupted packets, the share whose checksum happens to be right.
    pub corrupt_unseen: f64,
    /// Chance that the tail of a packet is cut off: a datagram arrives short, a TCP segment is thrown away.
    pub truncate: f64,
    /// The longest packet that passes, in bytes with its IP header. Longer ones vanish without a word.
    pub mtu: usize,
}

impl Default for LinkConfig {
    fn default() -> LinkConfig {
        LinkConfig {
            delay: Duration::from_micros(250),
            jitter: Duration::ZERO,
            rate: 0,
            queue: 0,
            loss: Burst::independent(0.0),
            reorder: 0.0,
            reorder_by: Duration::ZERO,
            duplicate: 0.0,
            corrupt: 0.0,
            corrupt_unseen: 0.0,
            truncate: 0.0,
            mtu: 1500,
        }
    }
}

impl LinkConfig {
    /// A sound link with this one-way delay.
    pub fn with_delay(delay: Duration) -> LinkConfig {
        LinkConfig {
            delay,
            ..LinkConfig::default()
        }
    }

    /// Sets the jitter.
    pub fn jitter(mut self, jitter: Duration) -> LinkConfig {
        self.jitter = jitter;
        self
    }

    /// Sets rate in bits per second, and the queue in bytes.
    pub fn rate(mut self, bits_per_second: u64, queue_bytes: u64) -> LinkConfig {
        self.rate = bits_per_second;
        self.queue = queue_bytes;
        self
    }

    /// Sets independent loss.
    pub fn loss(mut self, loss: f64) -> LinkConfig {
        self.loss = Burst::independent(loss);
        self
    }
}

/// Why a packet did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drop {
    /// The queue was full.
    Queue,
    /// Lost on the way.
    Loss,
    /// Longer than the link's MTU.
    Mtu,
    /// Damaged, and thrown away by the checksum.
    Checksum,
    /// The link is cut in this direction.
    Partition,
    /// Nobody is there: the host is down, suspended or its interface is off.
    Down,
    /// A middlebox let it not pass.
    Filter,
}

/// How one copy of a packet arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at: u64,
    /// When its last bit leaves the queue.
    pub(crate) departs: u64,
    /// It was held back, and is overtaken.
    pub(crate) late: bool,
    /// A bit that is flipped although the checksum is right.
    pub(crate) flip: Option<u32>,
    /// How many bytes of the payload are left.
    pub(crate) keep: Option<u32>,
}

/// What became of a packet: mostly one arrival.
pub(crate) type Fate = Result<SmallVec<[Arrival; 1]>, Drop>;

/// What a link has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinkStats {
    /// Packets put onto it.
    pub sent: u64,
    /// Bytes put onto it, with headers.
    pub bytes: u64,
    /// Copies that arrived or will.
    pub arrived: u64,
    /// Packets lost at random or in a burst.
    pub lost: u64,
    /// Packets dropped by a full queue.
    pub overflowed: u64,
    /// Packets too long.
    pub oversized: u64,
    /// Packets thrown away by their checksum.
    pub damaged: u64,
}

/// One direction of a link. Pure: time and randomness are given.
pub(crate) struct Link {
    pub(crate) config: LinkConfig,
    /// In force: nothing passes.
    pub(crate) cut: bool,
    pub(crate) stats: LinkStats,
    rng: Rng,
    bursting: bool,
    /// When the last bit that is queued has left.
    free_at: u64,
    last_arrival: u64,
}

/// Another rate takes over while packets wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateChange {
    now: u64,
    from: u64,
    to: u64,
}

impl RateChange {
    /// When a packet leaves that would have left at `departs`.
    pub(crate) fn departs(&self, departs: u64) -> u64 {
        let Some(wait) = departs.checked_sub(self.now) else {
            return departs;
        };
        if self.to == 0 {
            return self.now;
        }
        let wait = u128::from(wait) * u128::from(self.from) / u128::from(self.to);
        self.now.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Link {
    pub(crate) fn new(config: LinkConfig, rng: Rng) -> Link {
        Link {
            config,
            cut: false,
            stats: LinkStats::default(),
            rng,
            bursting: false,
            free_at: 0,
            last_arrival: 0,
        }
    }

    fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.rng.unit() < of
    }

    fn lost(&mut self) -> bool {
        let loss = self.config.loss;
        let change = if self.bursting { loss.leave } else { loss.enter };
        if self.chance(change) {
            self.bursting = !self.bursting;
        }
        let of = if self.bursting {
            loss.loss_bad
        } else {
            loss.loss_good
        };
        self.chance(of)
    }

    /// When the last bit has left, or nothing if the queue is full.
    fn depart(&mut self, now: u64, size: u64) -> Option<u64> {
        let rate = self.config.rate;
        if rate == 0 {
            return Some(now);
        }
        let wait = self.free_at.saturating_sub(now);
        let queued = u128::from(wait) * u128::from(rate) / 8_000_000_000;
        if self.config.queue > 0 && queued + u128::from(size) > u128::from(self.config.queue) {
            return None;
        }
        let time = u128::from(size) * 8_000_000_000 / u128::from(rate);
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        self.free_at = self.free_at.max(now).saturating_add(time);
        Some(self.free_at)
    }

    /// When a packet that left at `departed` arrives, and whether it was held back.
    fn arrival(&mut self, departed: u64) -> (u64, bool) {
        let mut at = departed.saturating_add(nanos(self.config.delay));
        if !self.config.jitter.is_zero() {
            at = at.saturating_add(nanos(self.rng.duration(Duration::ZERO, self.config.jitter)));
        }
        if self.chance(self.config.reorder) {
            return (at.saturating_add(nanos(self.config.reorder_by)), true);
        }
        self.last_arrival = self.last_arrival.max(at);
        (self.last_arrival, false)
    }

    /// Changes how the link is from here on. What still waits for the rate goes at the new one: the change
    /// tells when, if anything may wait.
    pub(crate) fn set_config(&mut self, now: u64, config: LinkConfig) -> Option<RateChange> {
        let change = RateChange {
            now,
            from: self.config.rate,
            to: config.rate,
        };
        self.config = config;
        if change.from == change.to || self.free_at <= now {
            return None;
        }
        self.free_at = change.departs(self.free_at);
        Some(change)
    }

    /// The last of the packets that keep their order arrives then, after all.
    pub(crate) fn set_last_arrival(&mut self, at: u64) {
        self.last_arrival = at;
    }

    /// One copy of a packet whose payload has `payload` bytes, and the damage to it. TCP does not deliver
    /// what is cut short.
    fn copy(&mut self, departs: u64, payload: usize, is_tcp: bool) -> Result<Arrival, Drop> {
        let (at, late) = self.arrival(departs);
        let (mut flip, mut keep) = (None, None);
        if self.chance(self.config.corrupt) {
            if !self.chance(self.config.corrupt_unseen) || payload == 0 {
                return Err(Drop::Checksum);
            }
            flip = u32::try_from(self.rng.below(payload as u64 * 8)).ok();
        }
        if self.chance(self.config.truncate) {
            if is_tcp {
                return Err(Drop::Checksum);
            }
            keep = u32::try_from(self.rng.below(payload as u64)).ok();
        }
        Ok(Arrival {
            at,
            departs,
            late,
            flip,
            keep,
        })
    }

    /// Puts a packet onto the link: `size` bytes in all, `payload` of them above TCP or UDP.
    pub(crate) fn carry(&mut self, now: u64, size: usize, payload: usize, is_tcp: bool) -> Fate {
        self.stats.sent += 1;
        self.stats.bytes += size as u64;
        if self.cut {
            return Err(Drop::Partition);
        }
        if size > self.config.mtu {
            self.stats.oversized += 1;
            return Err(Drop::Mtu);
        }
        let Some(departed) = self.depart(now, size as u64) else {
            self.stats.overflowed += 1;
            return Err(Drop::Queue);
        };
        if self.lost() {
            self.stats.lost += 1;
            return Err(Drop::Loss);
        }
        let copies = 1 + usize::from(self.chance(self.config.duplicate));
        let mut fate = SmallVec::new();
        for _ in 0..copies {
            match self.copy(departed, payload, is_tcp) {
                Ok(arrival) => fate.push(arrival),
                Err(_) => self.stats.damaged += 1,
            }
        }
        self.stats.arrived += fate.len() as u64;
        if fate.is_empty() {
            Err(Drop::Checksum)
        } else {
            Ok(fate)
        }
    }
}

#[cfg(test)]
mod tests;
