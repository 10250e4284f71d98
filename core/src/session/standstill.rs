//! How long nothing moved while there was something to send.

use std::time::Duration;

use crate::time::Timestamp;

/// Shorter ones are no standstill, whatever the round trip.
const LEAST: Duration = Duration::from_millis(50);

/// Standstills as the session itself measures them: the time without progress of what it has sent, or would have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standstill {
    /// When something was last acknowledged, or began to wait; `None` while nothing waits.
    since: Option<Timestamp>,
    pub(super) count: u64,
    pub(super) longest: Duration,
    pub(super) total: Duration,
}

impl Standstill {
    /// There is something to send, or under way.
    #[inline]
    pub(super) fn waits(&mut self, now: Timestamp) {
        self.since.get_or_insert(now);
    }

    /// Something was acknowledged, on a path whose answers usually take so long; `more` waits. Tells of a standstill.
    pub(super) fn moved(&mut self, now: Timestamp, usual: Duration, more: bool) -> Option<Duration> {
        let since = std::mem::replace(&mut self.since, more.then_some(now))?;
        let took = now.since(since);
        if took < LEAST.max(usual.saturating_mul(2)) {
            return None;
        }
        self.count += 1;
        self.longest = self.longest.max(took);
        self.total = self.total.saturating_add(took);
        Some(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn only_time_in_which_something_waits_counts() {
        let mut still = Standstill::default();
        let usual = Duration::from_millis(10);
        still.waits(at(0));
        still.waits(at(5));
        assert_eq!(still.moved(at(10), usual, true), None);
        assert_eq!(still.moved(at(20), usual, false), None);
        // Nothing waits for five seconds.
        still.waits(at(5000));
        assert_eq!(
            still.moved(at(5300), usual, true),
            Some(Duration::from_millis(300))
        );
        assert_eq!(
            still.moved(at(5390), usual, false),
            Some(Duration::from_millis(90))
        );
        assert_eq!(
            (still.count, still.longest.as_millis(), still.total.as_millis()),
            (2, 300, 390)
        );
        // On a slow path it takes more to be one.
        still.waits(at(6000));
        assert_eq!(still.moved(at(6900), Duration::from_millis(500), false), None);
    }
}
