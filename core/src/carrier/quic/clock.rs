//! Between the core's time and the one that quinn-proto counts in.

use std::time::{Duration, Instant};

use crate::time::Timestamp;

/// Later than any deadline: quinn-proto adds to what it is given, which must not overflow.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Turns one into the other, by the moment that the driver calls zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn new(origin: Instant) -> Clock {
        Clock { origin }
    }

    pub(super) fn instant(self, at: Timestamp) -> Instant {
        let since = at.since(Timestamp::ZERO).min(FAR);
        self.origin.checked_add(since).unwrap_or(self.origin)
    }

    pub(super) fn timestamp(self, at: Instant) -> Timestamp {
        Timestamp::ZERO + at.saturating_duration_since(self.origin)
    }
}
