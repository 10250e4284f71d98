//! What happens when: the one queue of a world's future.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What is due. Everything but its kind lies in the slabs of [`crate::state::State`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A packet arrives at the end of its link.
    Packet(u32),
    /// A TCP connection looks at its timers.
    Connection(u32, u32),
    /// A task's timer, unless it was set anew since.
    Timer(u32, u32),
    /// Something that the world's owner scheduled.
    Action(u32),
}

#[derive(Clone, Copy)]
struct Entry {
    at: u64,
    order: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The greatest is the earliest; of two at one moment, the one that was scheduled first.
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Events in the order of their time, and of their scheduling within one moment.
#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Entry>,
    next: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, due: Due) {
        let order = self.next;
        self.next += 1;
        self.heap.push(Entry { at, order, due });
    }

    /// The time of the next event.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next event that is due at `limit` or before.
    pub(crate) fn pop(&mut self, limit: u64) -> Option<(u64, Due)> {
        if self.next_at()? > limit {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_and_then_by_order() {
        let mut queue = Queue::default();
        for (at, number) in [(5, 0), (3, 1), (5, 2), (3, 3)] {
            queue.push(at, Due::Action(number));
        }
        assert_eq!(queue.pop(2), None);
        let taken: Vec<(u64, Due)> = std::iter::from_fn(|| queue.pop(5)).collect();
        let expected = [(3, 1), (3, 3), (5, 0), (5, 2)].map(|(at, number)| (at, Due::Action(number)));
        assert_eq!(taken, expected);
    }
}
