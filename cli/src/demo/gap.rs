//! How long the receiver heard nothing around each fault.

use std::collections::VecDeque;
use std::time::Duration;

/// The most faults whose windows may be open at once; the oldest is settled early beyond that.
pub const MAX_OPEN_FAULTS: usize = 64;

/// Names a fault of a [`GapMeter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultId(u64);

/// The longest silence at the receiver in a window that begins with each fault.
///
/// All times are since one origin of the caller's choice. A silence is the time between two arrivals that
/// follow one another; it counts for a fault, whole, if any of it lies in the fault's window, so the one that
/// the fault cuts into counts from the arrival before the fault. If two windows overlap, a silence may count
/// for both.
///
/// Call [`fault`](Self::fault) before the fault is caused, [`arrival`](Self::arrival) at every arrival, and
/// [`settled`](Self::settled) for the results. Memory is bounded: no arrival is kept but the last.
#[derive(Debug)]
pub struct GapMeter {
    window: Duration,
    last: Option<Duration>,
    next: u64,
    open: VecDeque<Fault>,
    settled: VecDeque<(FaultId, Duration)>,
}

#[derive(Debug)]
struct Fault {
    id: FaultId,
    at: Duration,
    longest: Duration,
}

impl GapMeter {
    /// A meter that watches for `window` from each fault on.
    pub fn new(window: Duration) -> Self {
        GapMeter {
            window,
            last: None,
            next: 0,
            open: VecDeque::new(),
            settled: VecDeque::new(),
        }
    }

    /// A fault is about to be caused at `at`.
    pub fn fault(&mut self, at: Duration) -> FaultId {
        if self.open.len() == MAX_OPEN_FAULTS {
            self.settle_first();
        }
        let id = FaultId(self.next);
        self.next += 1;
        self.open.push_back(Fault {
            id,
            at,
            longest: Duration::ZERO,
        });
        id
    }

    /// Something arrived at `at`. A time before the last arrival counts as that of the last arrival.
    pub fn arrival(&mut self, at: Duration) {
        let last = self.last.unwrap_or(at);
        let at = at.max(last);
        self.last = Some(at);
        if self.open.is_empty() {
            return;
        }
        for fault in &mut self.open {
            if at > fault.at && last < fault.at + self.window {
                fault.longest = fault.longest.max(at - last);
            }
        }
        while self
            .open
            .front()
            .is_some_and(|fault| at >= fault.at + self.window)
        {
            self.settle_first();
        }
    }

    /// The longest silence so far around an open fault, the one that lasts at `now` included; `None` once the
    /// fault is settled.
    pub fn so_far(&self, id: FaultId, now: Duration) -> Option<Duration> {
        let fault = self.open.iter().find(|fault| fault.id == id)?;
        Some(self.longest_at(fault, now))
    }

    /// Settles the faults whose windows have passed at `now` although nothing has arrived since, and takes
    /// the next settled fault with its longest silence. A silence that outlasts the window is settled by the
    /// arrival that ends it, so call this with `now` only when no arrival is to come any more.
    pub fn finish(&mut self, now: Duration) -> Option<(FaultId, Duration)> {
        for index in 0..self.open.len() {
            self.open[index].longest = self.longest_at(&self.open[index], now);
        }
        while !self.open.is_empty() {
            self.settle_first();
        }
        self.settled()
    }

    /// Takes the next fault whose window has passed, with its longest silence.
    pub fn settled(&mut self) -> Option<(FaultId, Duration)> {
        self.settled.pop_front()
    }

    fn longest_at(&self, fault: &Fault, now: Duration) -> Duration {
        let silent_since = self.last.unwrap_or(fault.at);
        if now > fault.at && silent_since < fault.at + self.window {
            fault.longest.max(now.saturating_sub(silent_since))
        } else {
            fault.longest
        }
    }

    fn settle_first(&mut self) {
        if let Some(fault) = self.open.pop_front() {
            self.settled.push_back((fault.id, fault.longest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn meter(arrivals: &[u64], faults: &[u64]) -> GapMeter {
        let mut meter = GapMeter::new(ms(100));
        let mut faults = faults.iter().peekable();
        for at in arrivals {
            while let Some(fault) = faults.next_if(|fault| *fault <= at) {
                meter.fault(ms(*fault));
            }
            meter.arrival(ms(*at));
        }
        meter
    }

    #[test]
    fn the_silence_that_a_fault_cuts_into_counts_whole() {
        let mut meter = meter(&[0, 1, 2, 50, 51, 70, 200, 201], &[5]);
        // 70..200 began in the window and is longer than 2..50.
        assert_eq!(meter.settled().map(|(_, gap)| gap), Some(ms(130)));
        assert_eq!(meter.settled(), None);
    }

    #[test]
    fn silence_before_the_fault_or_after_the_window_does_not_count() {
        let mut meter = meter(&[0, 40, 41, 42, 60, 90, 120, 141, 400], &[41]);
        assert_eq!(meter.settled().map(|(_, gap)| gap), Some(ms(30)));
    }

    #[test]
    fn windows_that_overlap_are_measured_each() {
        let mut meter = meter(&[0, 10, 30, 60, 130, 160], &[11, 59]);
        let gaps: Vec<_> = std::iter::from_fn(|| meter.settled())
            .map(|(_, gap)| gap)
            .collect();
        assert_eq!(gaps, [ms(70), ms(70)]);
    }

    #[test]
    fn a_silence_that_lasts_is_seen_while_it_lasts_and_at_the_end() {
        let mut meter = meter(&[0, 10], &[]);
        let id = meter.fault(ms(11));
        assert_eq!(meter.so_far(id, ms(50)), Some(ms(40)));
        assert_eq!(meter.settled(), None);
        assert_eq!(meter.finish(ms(5000)), Some((id, ms(4990))));
        assert_eq!(meter.so_far(id, ms(5000)), None);
    }

    #[test]
    fn time_that_runs_backwards_and_floods_of_faults_are_harmless() {
        let mut meter = meter(&[10, 5, 12], &[]);
        for at in 0..1000 {
            meter.fault(ms(at));
        }
        assert!(meter.open.len() <= MAX_OPEN_FAULTS);
        assert_eq!(
            std::iter::from_fn(|| meter.settled()).count(),
            1000 - MAX_OPEN_FAULTS
        );
    }
}
