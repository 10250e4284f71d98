//! Receive credit that grows to what the connection can use.

use std::time::Duration;

use super::MAX_OFFSET;
use crate::time::Timestamp;

/// The receive credit of a stream or of a class (PROTOCOL 7).
///
/// The peer may send up to [`limit`](Window::limit). As the application consumes, [`update`](Window::update)
/// names a new limit, one window ahead of what was consumed. A window that is used up in less than
/// two round trips is too small for the path and doubles, up to its maximum.
///
/// The window's size is at most 4 GiB − 1.
#[derive(Debug, Clone)]
pub struct Window {
    consumed: u64,
    limit: u64,
    /// When the limit was last raised; `Timestamp::MAX` is never.
    updated: Timestamp,
    size: u32,
    max: u32,
}

impl Window {
    /// A window of `initial` bytes, all of them granted, that may grow to `max` bytes.
    ///
    /// A maximum below `initial` means that it never grows.
    #[inline]
    pub fn new(initial: u64, max: u64) -> Window {
        let size = u32::try_from(initial).unwrap_or(u32::MAX);
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        Window {
            consumed: 0,
            limit: u64::from(size),
            updated: Timestamp::MAX,
            size,
            max: if max < size { size } else { max },
        }
    }

    /// Makes the window this large from its next update on, as far as its maximum allows: others of its kind have
    /// needed as much. It never becomes smaller.
    pub fn expect(&mut self, size: u64) {
        let size = u32::try_from(size).unwrap_or(u32::MAX).min(self.max);
        self.size = self.size.max(size);
    }

    /// The application took `bytes`, or they were discarded.
    #[inline]
    pub fn on_consumed(&mut self, bytes: u64) {
        self.consumed = self.consumed.saturating_add(bytes);
    }

    /// Bytes consumed since the start.
    #[inline]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The offset (or sum of offsets) up to which the peer may send.
    #[inline]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Raises the limit to at least `limit`; tells whether it grew. The window's size stays.
    pub fn extend_to(&mut self, limit: u64) -> bool {
        let grows = limit > self.limit;
        if grows {
            self.limit = limit.min(MAX_OFFSET);
        }
        grows
    }

    /// The window's present size in bytes.
    #[inline]
    pub fn size(&self) -> u64 {
        u64::from(self.size)
    }

    /// Whether less than half of the window is left, so that [`update`](Window::update) may raise the limit.
    #[inline]
    pub fn is_low(&self) -> bool {
        self.limit.saturating_sub(self.consumed) < u64::from(self.size).div_ceil(2)
    }

    /// The new limit to advertise, if it is time for one.
    ///
    /// It is time when less than half of the window is left. `pinned` bytes, memory held beyond the
    /// data itself, are taken off the new limit; while that leaves less than a quarter of a window
    /// to grant, nothing is granted. Consuming what is readable frees what it pins, so credit
    /// always comes back. The first update never grows the window: nothing is known by then.
    #[inline]
    pub fn update(&mut self, now: Timestamp, rtt: Duration, pinned: u64) -> Option<u64> {
        if !self.is_low() {
            return None;
        }
        self.raise(now, rtt, pinned)
    }

    fn raise(&mut self, now: Timestamp, rtt: Duration, pinned: u64) -> Option<u64> {
        let fast = self.updated != Timestamp::MAX && now.since(self.updated) < rtt.saturating_mul(2);
        let size = if fast {
            self.size.saturating_mul(2).min(self.max)
        } else {
            self.size
        };
        let twice = u64::from(crate::canary!(CreditOverGranted)) + 1;
        let granted = (u64::from(size) * twice).saturating_sub(pinned);
        let limit = self.consumed.saturating_add(granted).min(MAX_OFFSET);
        let growth = limit.saturating_sub(self.limit);
        if growth == 0 || growth < u64::from(size / 4) {
            return None;
        }
        self.size = size;
        self.updated = now;
        self.limit = limit;
        Some(limit)
    }
}
