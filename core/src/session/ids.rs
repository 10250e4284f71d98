//! Where the streams of a session lie, by their ids.

use super::keys::IdMap;

/// No stream has this id: they end at 2^62.
const NONE: u64 = u64::MAX;
const MIN_PLACES: usize = 4;

/// A table from stream ids to slots. Ids count up, so that nearly each has a place of its own in a plain array; the
/// few that share one with another lie in a map. Its size is bounded by the credit that this end gave, and no order
/// is ever taken from it.
#[derive(Default)]
pub(super) struct Ids {
    /// None, or a power of two.
    near: Vec<(u64, u32)>,
    far: IdMap<u32>,
    len: usize,
}

impl Ids {
    /// Where an id lies among so many places, a power of two.
    #[inline]
    fn place(id: u64, places: usize) -> usize {
        // Fibonacci hashing spreads what counts up evenly; the index begins at the seventh bit.
        let mixed = id.rotate_right(6).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - places.trailing_zeros())) as usize
    }

    #[inline]
    pub(super) fn get(&self, id: u64) -> Option<u32> {
        if self.near.is_empty() {
            return None;
        }
        let (near, slot) = self.near[Ids::place(id, self.near.len())];
        if near == id {
            return Some(slot);
        }
        if self.far.is_empty() {
            return None;
        }
        self.far.get(&id).copied()
    }

    /// Adds an id that is not there.
    #[inline]
    pub(super) fn insert(&mut self, id: u64, slot: u32) {
        if self.len >= self.near.len() {
            self.grow();
        }
        self.len += 1;
        self.put(id, slot);
    }

    #[inline]
    fn put(&mut self, id: u64, slot: u32) {
        let place = Ids::place(id, self.near.len());
        let entry = &mut self.near[place];
        if entry.0 == NONE {
            *entry = (id, slot);
        } else {
            self.far.insert(id, slot);
        }
    }

    #[cold]
    fn grow(&mut self) {
        let places = (self.near.len() * 2).max(MIN_PLACES);
        let near = std::mem::replace(&mut self.near, vec![(NONE, 0); places]);
        let far = std::mem::take(&mut self.far);
        let known = near.into_iter().filter(|(id, _)| *id != NONE).chain(far);
        // The order in which they are put decides where they lie, and nothing else.
        for (id, slot) in known {
            self.put(id, slot);
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, id: u64) {
        if self.near.is_empty() {
            return;
        }
        let place = Ids::place(id, self.near.len());
        let entry = &mut self.near[place];
        if entry.0 == id {
            *entry = (NONE, 0);
            self.len -= 1;
        } else if self.far.remove(&id).is_some() {
            self.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_is_a_map() {
        let mut ids = Ids::default();
        let mut model = BTreeMap::new();
        let mut state = 1_u64;
        for step in 0..20_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Ids as they count up, of two kinds, old ones long kept.
            let id = (state >> 33) % (step / 4 + 1) * 64 + (state >> 63);
            if model.remove(&id).is_some() {
                ids.remove(id);
            } else {
                model.insert(id, step as u32);
                ids.insert(id, step as u32);
            }
            assert_eq!(ids.len, model.len());
            for probe in [id, id + 64, id ^ 1, 0] {
                assert_eq!(ids.get(probe), model.get(&probe).copied(), "{probe}");
            }
        }
        assert!(ids.near.len() < model.len() * 4, "as large as it had to be");
        for (id, slot) in model {
            assert_eq!(ids.get(id), Some(slot));
            ids.remove(id);
        }
        assert_eq!((ids.len, ids.far.len(), ids.get(64)), (0, 0, None));
    }

    /// What counts up, as streams do, hardly ever needs the map.
    #[test]
    fn those_in_turn_have_a_place_each() {
        let mut ids = Ids::default();
        for first in [0, 12_345_678] {
            for index in 0..1024 {
                ids.insert((first + index) << 6 | 5, 1);
            }
            assert!(ids.far.len() < 256, "{}", ids.far.len());
            for index in 0..1024 {
                ids.remove((first + index) << 6 | 5);
            }
        }
    }
}
