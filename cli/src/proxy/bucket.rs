//! A token bucket that paces one direction of a proxy.

use super::Faults;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The most bytes granted at once, and the most that an idle link saves up.
pub(super) const BURST_BYTES: usize = 64 * 1024;

/// A grant is at most what the rate moves in this time, so that a slow link is smooth too.
const PIECE: Duration = Duration::from_millis(5);

/// How much of a timer's lateness is made up for. Timers fire a millisecond or two late; at 100 MB/s that
/// would otherwise cost half the rate.
const LATENESS: Duration = Duration::from_millis(4);

/// Grants bytes at a rate. Shared by all connections of a proxy, first come, first served.
#[derive(Debug, Default)]
pub(super) struct Bucket(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When everything granted so far will have been paid for.
    paid: Option<Instant>,
    /// Whether the last grant had to wait, that is: whether the link is busy.
    busy: bool,
}

impl Bucket {
    /// Forgets debts and savings.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// Waits for its turn and returns how many of `wanted` bytes may go: all of them without a throttle.
    pub(super) async fn take(&self, wanted: usize, faults: &mut watch::Receiver<Faults>) -> usize {
        loop {
            let throttle = faults.borrow_and_update().throttle;
            let Some(rate) = throttle else { return wanted };
            let granted = wanted.min(piece(rate));
            let now = Instant::now();
            let turn = self.reserve(rate, granted, now);
            if turn <= now {
                return granted;
            }
            tokio::select! {
                () = sleep_until(turn) => return granted,
                // A new rate throws all turns away (see `clear`); any other fault leaves this one alone.
                _ = faults.wait_for(|faults| faults.throttle != throttle) => {}
            }
        }
    }

    /// When so many bytes may go at a rate; `None` where that would be later than `most` from now on.
    pub(super) fn admit(&self, rate: u64, bytes: usize, most: Duration) -> Option<Instant> {
        let now = Instant::now();
        let paid = self.0.lock().unwrap_or_else(PoisonError::into_inner).paid;
        if paid.is_some_and(|paid| paid > now + most) {
            return None;
        }
        Some(self.reserve(rate, bytes, now))
    }

    fn reserve(&self, rate: u64, bytes: usize, now: Instant) -> Instant {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = time_of(piece(rate).saturating_sub(bytes), rate);
        let earliest = match state.busy {
            true => now.checked_sub(LATENESS.max(saved)),
            false => now.checked_sub(saved),
        };
        let earliest = earliest.unwrap_or(now);
        let turn = state.paid.map_or(earliest, |paid| paid.max(earliest));
        state.paid = Some(turn + time_of(bytes, rate));
        state.busy = turn > now || (state.busy && now - turn < LATENESS);
        turn
    }
}

fn piece(rate: u64) -> usize {
    let bytes = rate.saturating_mul(PIECE.as_millis() as u64) / 1000;
    usize::try_from(bytes)
        .unwrap_or(BURST_BYTES)
        .clamp(1, BURST_BYTES)
}

fn time_of(bytes: usize, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 100_000_000;

    /// What is granted in one second when the taker always wakes `late` after its turn.
    fn granted_in_a_second(late: Duration) -> u64 {
        let bucket = Bucket::default();
        let start = Instant::now() + Duration::from_secs(10);
        let (mut now, mut granted) = (start, 0);
        loop {
            let turn = bucket.reserve(RATE, piece(RATE), now);
            if turn > now {
                now = turn + late;
            }
            if now >= start + Duration::from_secs(1) {
                return granted;
            }
            granted += piece(RATE) as u64;
        }
    }

    #[test]
    fn the_rate_holds_though_timers_are_late() {
        for late_us in [0, 100, 1500, 2500] {
            let granted = granted_in_a_second(Duration::from_micros(late_us));
            let limit = RATE + 2 * BURST_BYTES as u64;
            assert!(
                (RATE * 98 / 100..=limit).contains(&granted),
                "{late_us} µs late: {granted}"
            );
        }
    }

    #[test]
    fn an_idle_link_saves_up_one_piece_at_most() {
        let bucket = Bucket::default();
        let now = Instant::now() + Duration::from_secs(10);
        let mut burst = 0;
        for later in [Duration::ZERO, Duration::from_secs(1)] {
            let now = now + later;
            burst = 0;
            while bucket.reserve(RATE, 1000, now) <= now {
                burst += 1000;
            }
        }
        assert!(burst <= BURST_BYTES + 1000, "{burst}");
    }

    #[test]
    fn slow_rates_go_in_small_pieces() {
        assert_eq!(
            [1, 10_000, 1_000_000, u64::MAX].map(piece),
            [1, 50, 5000, BURST_BYTES]
        );
    }
}
