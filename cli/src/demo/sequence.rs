//! Whether numbered messages all arrived, once, and in order.

use super::report::Messages;
use std::collections::BTreeMap;

/// The most separate runs of missing numbers that are remembered.
pub const MAX_RUNS: usize = 1024;

/// Checks messages numbered 0, 1, 2, … as they arrive, in bounded memory.
///
/// A number that has not come when a later one comes is missing; if it comes after all, it is reordered; if a
/// number comes that is not missing, it is duplicated. When more than [`MAX_RUNS`] runs are missing, the
/// oldest stays lost for good, and its numbers count as duplicated if they come: the verdict is the same.
#[derive(Debug, Default)]
pub struct SequenceChecker {
    /// The lowest number above all that have come.
    next: u64,
    received: u64,
    duplicated: u64,
    reordered: u64,
    /// Missing runs below `next`: first number → the number after the last.
    missing: BTreeMap<u64, u64>,
    /// Missing numbers of runs that were dropped.
    forgotten: u64,
}

impl SequenceChecker {
    /// A checker that expects number 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Message `number` arrived.
    pub fn arrival(&mut self, number: u64) {
        self.received += 1;
        if number == self.next {
            self.next += 1;
        } else if number > self.next && number < u64::MAX {
            self.missing.insert(self.next, number);
            self.next = number + 1;
            if self.missing.len() > MAX_RUNS
                && let Some((first, end)) = self.missing.pop_first()
            {
                self.forgotten += end - first;
            }
        } else if self.take_missing(number) {
            self.reordered += 1;
        } else {
            self.duplicated += 1;
        }
    }

    /// Messages that arrived so far, each counted once.
    pub fn delivered(&self) -> u64 {
        self.received - self.duplicated
    }

    /// The counts when `sent` messages were sent, numbers 0 to `sent - 1`. Before everything has arrived,
    /// `lost` holds what is still under way.
    pub fn finish(&self, sent: u64) -> Messages {
        let runs = self
            .missing
            .iter()
            .map(|(&first, &end)| end.min(sent).saturating_sub(first));
        let tail = sent.saturating_sub(self.next);
        let lost = (runs.sum::<u64>() + self.forgotten + tail).min(sent);
        // Numbers beyond the last one sent were made up by somebody.
        let delivered = self.delivered().min(sent - lost);
        let duplicated = self.received - delivered;
        Messages {
            sent,
            delivered,
            lost,
            duplicated,
            reordered: self.reordered,
        }
    }

    fn take_missing(&mut self, number: u64) -> bool {
        let Some((&first, &end)) = self.missing.range(..=number).next_back() else {
            return false;
        };
        if number >= end {
            return false;
        }
        self.missing.remove(&first);
        if first < number {
            self.missing.insert(first, number);
        }
        if number + 1 < end {
            self.missing.insert(number + 1, end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(numbers: impl IntoIterator<Item = u64>, sent: u64) -> (u64, u64, u64, u64) {
        let mut checker = SequenceChecker::new();
        numbers.into_iter().for_each(|number| checker.arrival(number));
        let Messages {
            delivered,
            lost,
            duplicated,
            reordered,
            ..
        } = checker.finish(sent);
        (delivered, lost, duplicated, reordered)
    }

    #[test]
    fn each_mishap_is_told_from_the_others() {
        assert_eq!(check(0..1000, 1000), (1000, 0, 0, 0));
        assert_eq!(check(0..990, 1000), (990, 10, 0, 0));
        assert_eq!(check((0..10).chain(15..20), 20), (15, 5, 0, 0));
        assert_eq!(check([0, 1, 1, 2, 0], 3), (3, 0, 2, 0));
        assert_eq!(check([0, 3, 2, 1, 4], 5), (5, 0, 0, 2));
        assert_eq!(check([0, 5, 3, 3], 6), (3, 3, 1, 1));
        assert_eq!(check([], 0), (0, 0, 0, 0));
    }

    #[test]
    fn invented_numbers_are_neither_delivered_nor_able_to_overflow() {
        assert_eq!(check([0, 1, 7], 2), (2, 0, 1, 0));
        assert_eq!(check([0, u64::MAX, u64::MAX - 1, u64::MAX - 1], 1), (1, 0, 3, 0));
    }

    #[test]
    fn memory_is_bounded_and_nothing_lost_is_forgotten() {
        let mut checker = SequenceChecker::new();
        (0..100_000).step_by(2).for_each(|number| checker.arrival(number));
        assert!(checker.missing.len() <= MAX_RUNS);
        assert_eq!(checker.finish(100_000).lost, 50_000);
    }
}
