//! Deadlines: a moment at each end, time left on the wire. PROTOCOL 11.2.
//!
//! Clocks of two machines do not agree, so a deadline travels as the time left when the head was written.
//! What the way takes is lost to the callee's knowledge: its deadline is late by at most that.

use std::time::Duration;

use super::error::DeadlineError;
use crate::time::Timestamp;

/// The longest time left: 40 days. PROTOCOL 10.
pub const MAX_TIME_LEFT: Duration = Duration::from_secs(40 * 24 * 3600);

/// Time left for a call, in whole microseconds: at least one, at most [`MAX_TIME_LEFT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeLeft(u64);

impl TimeLeft {
    /// From a duration, rounded up to a microsecond.
    ///
    /// # Errors
    /// [`DeadlineError`] for zero and for more than [`MAX_TIME_LEFT`].
    pub fn new(left: Duration) -> Result<TimeLeft, DeadlineError> {
        let micros = left.as_nanos().div_ceil(1000);
        TimeLeft::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// From microseconds, as they travel.
    ///
    /// # Errors
    /// As [`TimeLeft::new`].
    pub fn from_micros(micros: u64) -> Result<TimeLeft, DeadlineError> {
        if micros == 0 {
            return Err(DeadlineError::Zero);
        }
        if micros > MAX_TIME_LEFT.as_micros() as u64 {
            return Err(DeadlineError::TooFar { micros });
        }
        Ok(TimeLeft(micros))
    }

    /// In microseconds, as it travels.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// As a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

/// A moment by which a call is to be done, on this end's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Timestamp);

impl Deadline {
    /// The moment itself.
    pub const fn at(at: Timestamp) -> Deadline {
        Deadline(at)
    }

    /// What a head that arrived at `now` says.
    pub fn received(now: Timestamp, left: TimeLeft) -> Deadline {
        Deadline(now + left.duration())
    }

    /// The moment.
    pub const fn timestamp(self) -> Timestamp {
        self.0
    }

    /// Whether it has passed.
    pub fn has_passed(self, now: Timestamp) -> bool {
        self.0 <= now
    }

    /// The time left, for a call that is sent now. More than [`MAX_TIME_LEFT`] is sent as that.
    ///
    /// # Errors
    /// [`DeadlineError::Zero`] when it has passed: do not send.
    pub fn time_left(self, now: Timestamp) -> Result<TimeLeft, DeadlineError> {
        TimeLeft::new(self.0.since(now).min(MAX_TIME_LEFT))
    }

    /// The earlier of two, where there are two: a call made for another must not outlive it.
    pub fn earlier(a: Option<Deadline>, b: Option<Deadline>) -> Option<Deadline> {
        match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_values() {
        assert_eq!(TimeLeft::from_micros(0), Err(DeadlineError::Zero));
        assert_eq!(
            TimeLeft::from_micros(u64::MAX),
            Err(DeadlineError::TooFar { micros: u64::MAX })
        );
        assert!(TimeLeft::new(MAX_TIME_LEFT).is_ok());
        assert!(TimeLeft::new(Duration::MAX).is_err());
        assert_eq!(TimeLeft::new(Duration::from_nanos(1)).unwrap().micros(), 1);
    }

    #[test]
    fn from_end_to_end() {
        let at = Timestamp::from_nanos(5_000_000_000);
        let deadline = Deadline::at(at + Duration::from_secs(2));
        let left = deadline.time_left(at).unwrap();
        assert_eq!(left.micros(), 2_000_000);
        let other_clock = Timestamp::from_nanos(77);
        let there = Deadline::received(other_clock, left);
        assert!(!there.has_passed(other_clock));
        assert!(there.has_passed(other_clock + Duration::from_secs(2)));
        assert_eq!(
            deadline.time_left(at + Duration::from_secs(3)),
            Err(DeadlineError::Zero)
        );
        assert_eq!(
            Deadline::at(Timestamp::MAX).time_left(at).unwrap().duration(),
            MAX_TIME_LEFT
        );
        assert_eq!(Deadline::earlier(None, Some(there)), Some(there));
        assert_eq!(Deadline::earlier(Some(deadline), Some(there)), Some(there));
    }
}
