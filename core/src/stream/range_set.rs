//! A set of offsets, held as sorted disjoint ranges.

use std::ops::Range;

use smallvec::SmallVec;

/// Dead entries at the front are removed once there are this many and they are the majority.
const COMPACT_AT: usize = 16;

/// A set of `u64`, held as sorted ranges that neither overlap nor touch.
///
/// Up to two ranges need no allocation. Adding at the back and taking from the front cost
/// amortised constant time, anything else a binary search and a move of what lies behind.
#[derive(Clone, Default)]
pub struct RangeSet {
    /// `start, end`, live from `head` on.
    ranges: SmallVec<[(u64, u64); 2]>,
    head: usize,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> RangeSet {
        RangeSet::default()
    }

    #[inline]
    fn live(&self) -> &[(u64, u64)] {
        self.ranges.get(self.head..).unwrap_or(&[])
    }

    /// Whether nothing is in the set.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.live().is_empty()
    }

    /// The number of disjoint ranges.
    pub fn range_count(&self) -> usize {
        self.live().len()
    }

    /// The lowest range.
    #[inline]
    pub fn first(&self) -> Option<Range<u64>> {
        self.live().first().map(|&(start, end)| start..end)
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.live().iter().map(|&(start, end)| start..end)
    }

    /// Whether `value` is in the set.
    pub fn contains(&self, value: u64) -> bool {
        let live = self.live();
        let at = live.partition_point(|r| r.1 <= value);
        live.get(at).is_some_and(|r| r.0 <= value)
    }

    /// Adds a range; returns how many of its values are new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        let Range { start, end } = range;
        if start >= end {
            return 0;
        }
        let live = self.live();
        // Ranges that touch are merged, so these bounds are inclusive.
        let (low, high) = match live.last() {
            None => (0, 0),
            Some(last) if last.1 < start => (live.len(), live.len()),
            Some(_) => (
                live.partition_point(|r| r.1 < start),
                live.partition_point(|r| r.0 <= end),
            ),
        };
        let mut merged = (start, end);
        let mut known = 0;
        for &(s, e) in live.get(low..high).unwrap_or(&[]) {
            known += e.min(end).saturating_sub(s.max(start));
            merged = (merged.0.min(s), merged.1.max(e));
        }
        self.replace(low, high, &[merged]);
        end - start - known
    }

    /// Takes a range out; returns how many values were in the set.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        let Range { start, end } = range;
        if start >= end {
            return 0;
        }
        let live = self.live();
        let low = live.partition_point(|r| r.1 <= start);
        let high = live.partition_point(|r| r.0 < end);
        let hit = live.get(low..high).unwrap_or(&[]);
        let (Some(&first), Some(&last)) = (hit.first(), hit.last()) else {
            return 0;
        };
        let removed = hit.iter().map(|&(s, e)| e.min(end) - s.max(start)).sum();
        let left = (first.0, start);
        let right = (end, last.1);
        match (left.0 < left.1, right.0 < right.1) {
            (true, true) => self.replace(low, high, &[left, right]),
            (true, false) => self.replace(low, high, &[left]),
            (false, true) => self.replace(low, high, &[right]),
            (false, false) => self.replace(low, high, &[]),
        }
        removed
    }

    /// Takes up to `max` values off the lowest range.
    pub fn pop_front(&mut self, max: u64) -> Option<Range<u64>> {
        let head = self.head;
        let first = self.ranges.get_mut(head)?;
        let start = first.0;
        let end = first.1.min(start.saturating_add(max));
        if start == end {
            return None;
        }
        first.0 = end;
        if first.0 == first.1 {
            self.head += 1;
            self.compact();
        }
        Some(start..end)
    }

    /// The parts of `range` that are not in the set, in ascending order.
    pub fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let live = self.live();
        let mut index = live.partition_point(|r| r.1 <= range.start);
        let mut at = range.start;
        std::iter::from_fn(move || {
            while at < range.end {
                let (start, end) = live.get(index).copied().unwrap_or((range.end, range.end));
                let gap = at..start.min(range.end);
                at = end;
                index += 1;
                if gap.start < gap.end {
                    return Some(gap);
                }
            }
            None
        })
    }

    /// Removes everything and frees what was allocated.
    pub fn clear(&mut self) {
        *self = RangeSet::default();
    }

    /// Bytes allocated beyond the set itself.
    pub fn memory_bytes(&self) -> usize {
        if self.ranges.spilled() {
            self.ranges.capacity() * size_of::<(u64, u64)>()
        } else {
            0
        }
    }

    /// Puts `with` in the place of live entries `low..high`; at the front without moving the rest.
    fn replace(&mut self, low: usize, high: usize, with: &[(u64, u64)]) {
        let (from, to) = (self.head + low, self.head + high);
        let old = to - from;
        if low == 0 && to >= with.len() {
            // What lies before `to` is dead or about to be.
            self.head = to - with.len();
        } else if old >= with.len() {
            self.ranges.drain(from + with.len()..to);
        } else if let Some(&entry) = with.first() {
            // One entry more than before; all of them are written below.
            self.ranges.insert(from, entry);
        }
        let at = if low == 0 { self.head } else { from };
        if let Some(place) = self.ranges.get_mut(at..at + with.len()) {
            place.copy_from_slice(with);
        }
        self.compact();
    }

    fn compact(&mut self) {
        if self.head == self.ranges.len() {
            self.ranges.clear();
            self.head = 0;
        } else if self.head >= COMPACT_AT && self.head * 2 > self.ranges.len() {
            self.ranges.drain(..self.head);
            self.head = 0;
        }
    }
}

impl std::fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
