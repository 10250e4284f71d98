//! The round-trip time of a path, or the time that handshakes with an endpoint take.

use std::time::Duration;

use crate::time::Timestamp;

/// Assumed before the first sample (RFC 9002 §6.2.2).
pub const INITIAL_RTT: Duration = Duration::from_millis(333);
/// What a round trip may grow by before it counts as late, besides a multiple of the usual one.
const LATE: Duration = Duration::from_millis(20);
/// The shortest round trip is renewed when it is older than this.
const MINIMUM_AGE: Duration = Duration::from_secs(10);
/// The peak comes half way down to the smoothed value in this time.
const PEAK_HALVES_IN: Duration = Duration::from_secs(2);

/// What is left of a value that is halved each time that `half` passes; straight between two halvings, as no more is
/// needed and no float is to decide anything.
pub(super) fn halved(value: u32, elapsed: Duration, half: Duration) -> u32 {
    let halvings = u32::try_from(elapsed.as_nanos() / half.as_nanos()).unwrap_or(u32::MAX);
    let Some(left) = value.checked_shr(halvings) else {
        return 0;
    };
    let part = elapsed.saturating_sub(half.saturating_mul(halvings));
    let thousandths = u64::try_from(part.as_millis() * 1000 / half.as_millis()).unwrap_or(1000);
    let lost = u64::from(left) * thousandths / 2000;
    left - u32::try_from(lost).unwrap_or(left)
}

/// Smoothed round-trip time (RFC 9002 §5), its peak, and what it is without the stalls.
///
/// One difference to the RFC: what a stall of the path did to the records that were under way is told by
/// [`is_late`](Rtt::is_late), but is no part of the average. A path whose retransmission took seconds would otherwise be
/// given seconds before anybody suspected it again. The average follows once something that was sent *after* the
/// delay had shown is as late: then the path has really become longer.
#[derive(Clone, Debug)]
pub struct Rtt {
    smoothed: Option<Duration>,
    variance: Duration,
    minimum: Duration,
    minimum_at: Timestamp,
    /// The shortest since [`Rtt::begin_fresh`].
    fresh: Duration,
    latest: Duration,
    peak: Duration,
    peak_at: Timestamp,
    /// When the first of a row of late answers came.
    late_since: Option<Timestamp>,
}

impl Default for Rtt {
    fn default() -> Rtt {
        Rtt::new()
    }
}

impl Rtt {
    /// Nothing measured.
    pub fn new() -> Rtt {
        Rtt {
            smoothed: None,
            variance: INITIAL_RTT / 2,
            minimum: Duration::MAX,
            minimum_at: Timestamp::ZERO,
            fresh: Duration::MAX,
            latest: Duration::ZERO,
            peak: Duration::ZERO,
            peak_at: Timestamp::ZERO,
            late_since: None,
        }
    }

    /// The smoothed value, or [`INITIAL_RTT`].
    pub fn get(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL_RTT)
    }

    /// The smoothed value, once there is one.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// How much it varies.
    pub fn variance(&self) -> Duration {
        self.variance
    }

    /// The shortest of late; `Duration::MAX` before the first sample.
    pub fn minimum(&self) -> Duration {
        self.minimum
    }

    /// The largest of late: a sample above it counts at once, and it comes down to the smoothed value by halves, one
    /// in two seconds (Finagle's peak EWMA). What a stall took is forgotten once the path is itself again.
    pub fn peak(&self, now: Timestamp) -> Duration {
        let base = self.get();
        let Some(above) = self.peak.checked_sub(base) else {
            return base;
        };
        let above = u32::try_from(above.as_micros()).unwrap_or(u32::MAX);
        let left = halved(above, now.since(self.peak_at), PEAK_HALVES_IN);
        base + Duration::from_micros(left.into())
    }

    /// What the handshake took, until there is a sample. It says little about the shortest round trip.
    pub fn guess(&mut self, measured: Duration) {
        if self.smoothed.is_none() {
            self.smoothed = Some(measured);
            self.variance = measured / 2;
        }
    }

    /// The shortest seen of late, or what is assumed.
    pub fn base(&self) -> Duration {
        self.minimum.min(self.get())
    }

    /// An answer came `measured` after what it answers was sent; the peer says that it held it for `ack_delay`. Tells
    /// whether it is news: it is not if it was under way in a stall that has shown already.
    pub fn sample(&mut self, now: Timestamp, measured: Duration, ack_delay: Duration) -> bool {
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
        let was_late = self.is_late();
        self.latest = adjusted;
        let peak = self.peak(now);
        if adjusted >= peak || first {
            self.peak = adjusted;
            self.peak_at = now;
        }
        let Some(smoothed) = self.smoothed.filter(|_| !first) else {
            self.smoothed = Some(adjusted);
            self.variance = adjusted / 2;
            return true;
        };
        if !self.is_late() {
            self.late_since = None;
            if was_late {
                // The path is itself again: what a stall took is no part of its round trip. That such things
                // happen on it, the variance tells for a while.
                self.smoothed = Some(adjusted);
                self.variance = (self.variance / 2).max(adjusted / 2);
                self.peak = adjusted;
                return true;
            }
        }
        let counted = match self.late_since {
            // The first of a stall, as far as it may have been an unlucky round trip.
            None if self.is_late() => {
                self.late_since = Some(now);
                adjusted.min(self.late_from())
            }
            // It was under way when the stall showed: what it waited for is known already.
            Some(since) if now.since(since) < measured => return false,
            _ => adjusted,
        };
        let difference = smoothed.abs_diff(counted);
        self.variance = (self.variance * 3 + difference) / 4;
        self.smoothed = Some((smoothed * 7 + counted) / 8);
        true
    }

    fn late_from(&self) -> Duration {
        self.base().saturating_mul(4).saturating_add(LATE)
    }

    /// Whether the newest round trip took much longer than the shortest of late.
    pub fn is_late(&self) -> bool {
        self.latest > self.late_from()
    }

    /// Whether the newest took longer than the way and a queue of the path's own explain.
    pub fn exceeds(&self, queue: Duration) -> bool {
        let usual = self.base().saturating_mul(2).saturating_add(LATE);
        self.latest > usual.saturating_add(queue)
    }

    /// Whether the path may have become longer since its shortest round trip was seen.
    pub fn minimum_is_old(&self, now: Timestamp) -> bool {
        now.since(self.minimum_at) > MINIMUM_AGE
    }

    /// Nothing waited for the path: what round trips take is its own, if the shortest is long ago.
    pub fn renew_minimum(&mut self, now: Timestamp) {
        if self.minimum_is_old(now) {
            self.minimum = self.get();
            self.minimum_at = now;
        }
    }

    /// From here on the shortest is looked for anew, to be [adopted](Rtt::adopt_fresh).
    pub fn begin_fresh(&mut self) {
        self.fresh = Duration::MAX;
    }

    /// The shortest since [`begin_fresh`](Rtt::begin_fresh) is the path's round trip from here on.
    pub fn adopt_fresh(&mut self, now: Timestamp) {
        if self.fresh != Duration::MAX {
            self.minimum = self.fresh;
        }
        self.minimum_at = now;
    }

    /// Probe timeout (RFC 9002 §6.2.1).
    pub fn pto(&self, max_ack_delay: Duration) -> Duration {
        match self.smoothed {
            None => INITIAL_RTT,
            Some(rtt) => rtt + (self.variance * 4).max(Duration::from_millis(1)) + max_ack_delay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + ms(millis)
    }

    /// A path with round trips of 20 ms, up to 1 s.
    fn steady() -> Rtt {
        let mut rtt = Rtt::new();
        for n in 1..50 {
            rtt.sample(at(n * 20), ms(20), Duration::ZERO);
        }
        rtt
    }

    #[test]
    fn a_stall_is_not_learnt() {
        let mut rtt = steady();
        // Ten records were under way for up to seven seconds, and are acknowledged together.
        for n in 0..10 {
            rtt.sample(at(8000), ms(7000 - n * 20), Duration::ZERO);
        }
        assert!(rtt.is_late());
        assert!(
            rtt.get() < ms(40) && rtt.variance() < ms(40),
            "{:?} {:?}",
            rtt.get(),
            rtt.variance()
        );
        rtt.sample(at(8020), ms(20), Duration::ZERO);
        assert!(!rtt.is_late());
        assert_eq!(rtt.get(), ms(20));
    }

    #[test]
    fn a_path_that_became_longer_is_learnt() {
        let mut rtt = steady();
        for n in 0..60 {
            rtt.sample(at(1800 + n * 100), ms(800), Duration::ZERO);
        }
        assert!(rtt.get() > ms(700) && rtt.get() <= ms(800), "{:?}", rtt.get());
        assert!(rtt.is_late(), "against the shortest of the last ten seconds");
        rtt.renew_minimum(at(12_000));
        assert!(!rtt.is_late());
    }

    #[test]
    fn the_peak_counts_at_once_and_fades() {
        let mut rtt = steady();
        rtt.sample(at(2000), ms(90), Duration::ZERO);
        rtt.sample(at(2020), ms(20), Duration::ZERO);
        assert!(!rtt.is_late());
        let base = rtt.get();
        let above: Vec<u128> = [2000, 3000, 4000, 6000, 90_000]
            .iter()
            .map(|&millis| (rtt.peak(at(millis)) - base).as_micros())
            .collect();
        let whole = (ms(90) - base).as_micros();
        assert_eq!(above[0], whole);
        for (above, share) in above.iter().zip([100, 75, 50, 25, 0]).skip(1) {
            assert!(
                above.abs_diff(whole * share / 100) <= 2,
                "{above} of {whole}: {share} %"
            );
        }
    }

    #[test]
    fn the_peak_of_a_stall_ends_with_it() {
        let mut rtt = steady();
        rtt.sample(at(3000), ms(2000), Duration::ZERO);
        assert_eq!(rtt.peak(at(3000)), ms(2000));
        rtt.sample(at(3020), ms(20), Duration::ZERO);
        assert_eq!(rtt.peak(at(3020)), ms(20));
    }
}
