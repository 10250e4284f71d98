//! How many frames that say nothing a peer may send.

use crate::time::Timestamp;

/// Frames without data, or without a meaning to us: so many at once, and 100 more in each second.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleBudget {
    left: u32,
    most: u32,
    refilled: Timestamp,
}

impl IdleBudget {
    pub(super) fn new(most: u32) -> IdleBudget {
        IdleBudget {
            left: most,
            most,
            refilled: Timestamp::ZERO,
        }
    }

    /// Takes the price of one, and tells whether there was enough.
    pub(super) fn spend(&mut self, now: Timestamp) -> bool {
        if self.left == 0 {
            let earned = now.since(self.refilled).as_millis() / 10;
            self.left = u32::try_from(earned).unwrap_or(u32::MAX).min(self.most);
            self.refilled = now;
        }
        let paid = self.left.checked_sub(1);
        self.left = paid.unwrap_or(0);
        paid.is_some()
    }
}
