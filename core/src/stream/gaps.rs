//! What arrived before the bytes in front of it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;

use super::assembler::{Source, Stored};

/// Small pieces are gathered in pages of this many offsets.
const PAGE: u64 = 4096;
const WORDS: usize = (PAGE / 64) as usize;

/// A page of small pieces: a byte is there if its bit is set.
struct Page {
    filled: [u64; WORDS],
    /// Number of set bits.
    count: u32,
    data: [u8; PAGE as usize],
}

/// Bytes above the contiguous prefix.
///
/// Large pieces are kept as they came, in a map; small ones are copied into pages. So the memory
/// depends on the range of offsets that the window admits, never on the number of fragments: a page
/// costs 4.7 KB for 4 KiB of window, a large piece is never under 1 KiB. Each byte is in one place
/// only; the first to arrive stays.
#[derive(Default)]
pub(super) struct Gaps {
    large: BTreeMap<u64, Stored>,
    pages: BTreeMap<u64, Box<Page>>,
    /// The lowest byte held.
    first: u64,
}

/// What [`Gaps::pop`] takes off the front.
pub(super) enum Popped<'a> {
    Large(Stored),
    Small(&'a [u8]),
}

impl Gaps {
    pub(super) fn is_empty(&self) -> bool {
        self.large.is_empty() && self.pages.is_empty()
    }

    /// The lowest offset held; meaningless when empty.
    #[inline]
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Adds what of `data` is not there yet; returns the number of new bytes and of bytes newly pinned.
    pub(super) fn insert(&mut self, offset: u64, data: &[u8], source: Source<'_>) -> (u64, u64) {
        let end = offset + data.len() as u64;
        let empty = self.is_empty();
        let mut at = offset;
        if let Some((&start, stored)) = self.large.range(..=offset).next_back() {
            at = at.max(start + stored.bytes.len() as u64);
        }
        let (mut added, mut pinned) = (0, 0);
        while at < end {
            let next = self.large.range(at..end).next();
            let (stop, resume) = next.map_or((end, end), |(&start, stored)| {
                (start, start + stored.bytes.len() as u64)
            });
            if at < stop {
                let (a, p) = self.insert_between(at, part(data, at - offset, stop - offset), source);
                added += a;
                pinned += p;
            }
            at = resume;
        }
        if added > 0 && (empty || offset < self.first) {
            self.first = self.lowest();
        }
        (added, pinned)
    }

    /// Adds data that no large piece overlaps.
    fn insert_between(&mut self, offset: u64, data: &[u8], source: Source<'_>) -> (u64, u64) {
        if data.len() < source.share_from() {
            return (self.fill(offset, data), 0);
        }
        let end = offset + data.len() as u64;
        let (mut added, mut pinned) = (0, 0);
        let mut at = offset;
        while at < end {
            let page = self
                .pages
                .range(at / PAGE..=(end - 1) / PAGE)
                .next()
                .map(|(&page, _)| page);
            let page_start = page.map_or(end, |page| (page * PAGE).max(at));
            let page_end = page.map_or(end, |page| (page + 1) * PAGE).min(end);
            let free = part(data, at - offset, page_start - offset);
            if free.len() >= source.share_from() {
                let stored = Stored::new(free, source);
                pinned += u64::from(stored.charge);
                added += free.len() as u64;
                self.large.insert(at, stored);
            } else if !free.is_empty() {
                added += self.fill(at, free);
            }
            if page_start < page_end {
                added += self.fill(page_start, part(data, page_start - offset, page_end - offset));
            }
            at = page_end;
        }
        (added, pinned)
    }

    /// Copies what is missing into pages.
    fn fill(&mut self, offset: u64, data: &[u8]) -> u64 {
        let mut added = 0;
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let from = (at % PAGE) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE as usize - from));
            added += u64::from(
                self.pages
                    .entry(at / PAGE)
                    .or_insert_with(Page::boxed)
                    .fill(from, now),
            );
            at += now.len() as u64;
            rest = later;
        }
        added
    }

    /// Hands what lies at offset `at` to `sink`; `None` if nothing does. Returns where it ends.
    pub(super) fn pop(&mut self, at: u64, mut sink: impl FnMut(Popped<'_>)) -> Option<u64> {
        if let Some(entry) = self.large.first_entry()
            && *entry.key() == at
        {
            let stored = entry.remove();
            let end = at + stored.bytes.len() as u64;
            sink(Popped::Large(stored));
            return Some(end);
        }
        let Entry::Occupied(mut entry) = self.pages.entry(at / PAGE) else {
            return None;
        };
        let page = entry.get_mut();
        let from = (at % PAGE) as usize;
        let to = page.run_end(from);
        if from >= to {
            return None;
        }
        sink(Popped::Small(page.data.get(from..to).unwrap_or(&[])));
        page.clear(from, to);
        if page.count == 0 {
            entry.remove();
        }
        Some(at + (to - from) as u64)
    }

    /// Finds the front again after [`Gaps::pop`].
    pub(super) fn settle(&mut self) {
        self.first = self.lowest();
    }

    fn lowest(&self) -> u64 {
        let large = self.large.first_key_value().map_or(u64::MAX, |(&start, _)| start);
        let small = self
            .pages
            .first_key_value()
            .map_or(u64::MAX, |(&page, p)| page * PAGE + p.first());
        large.min(small)
    }

    /// Bytes of memory held, blocks that slices pin included.
    pub(super) fn memory_bytes(&self) -> usize {
        // A map's nodes are at least half full: twice the entries, and some for the pointers.
        const ENTRY: usize = 2 * (size_of::<u64>() + size_of::<Stored>()) + 16;
        const PAGE_ENTRY: usize = 2 * (size_of::<u64>() + size_of::<usize>()) + 16;
        let large: usize = self
            .large
            .values()
            .map(|stored| stored.block as usize + ENTRY)
            .sum();
        large + self.pages.len() * (size_of::<Page>() + PAGE_ENTRY) + size_of::<Gaps>()
    }
}

impl std::fmt::Debug for Gaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gaps")
            .field("first", &self.first)
            .field("large", &self.large.len())
            .field("pages", &self.pages.len())
            .finish()
    }
}

impl Page {
    fn boxed() -> Box<Page> {
        Box::new(Page {
            filled: [0; WORDS],
            count: 0,
            data: [0; PAGE as usize],
        })
    }

    /// Copies the bytes that are not there yet; returns how many.
    fn fill(&mut self, from: usize, data: &[u8]) -> u32 {
        let to = from + data.len();
        let before = self.count;
        for (index, word) in self
            .filled
            .iter_mut()
            .enumerate()
            .take(to.div_ceil(64))
            .skip(from / 64)
        {
            let mask = mask(index, from, to);
            let mut free = mask & !*word;
            if free == 0 {
                continue;
            }
            self.count += free.count_ones();
            *word |= mask;
            if free == mask {
                let (start, end) = ((index * 64).max(from), (index * 64 + 64).min(to));
                copy(&mut self.data, start, &data[start - from..end - from]);
                continue;
            }
            while free != 0 {
                let at = index * 64 + free.trailing_zeros() as usize;
                copy(&mut self.data, at, &data[at - from..=at - from]);
                free &= free - 1;
            }
        }
        self.count - before
    }

    /// The end of the run of bytes that begins at `from`; `from` itself if that byte is not there.
    fn run_end(&self, from: usize) -> usize {
        for (index, word) in self.filled.iter().enumerate().skip(from / 64) {
            let missing = !word & mask(index, from, PAGE as usize);
            if missing != 0 {
                return index * 64 + missing.trailing_zeros() as usize;
            }
        }
        PAGE as usize
    }

    /// The first byte that is there.
    fn first(&self) -> u64 {
        let at = self.filled.iter().position(|word| *word != 0);
        at.map_or(PAGE, |index| {
            index as u64 * 64 + u64::from(self.filled[index].trailing_zeros())
        })
    }

    fn clear(&mut self, from: usize, to: usize) {
        for (index, word) in self
            .filled
            .iter_mut()
            .enumerate()
            .take(to.div_ceil(64))
            .skip(from / 64)
        {
            let mask = mask(index, from, to);
            self.count -= (*word & mask).count_ones();
            *word &= !mask;
        }
    }
}

/// The bits of word `index` that lie in `from..to`.
fn mask(index: usize, from: usize, to: usize) -> u64 {
    let low = from.saturating_sub(index * 64).min(64);
    let high = to.saturating_sub(index * 64).min(64);
    let below = |n: usize| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    below(high) & !below(low)
}

fn copy(page: &mut [u8; PAGE as usize], at: usize, data: &[u8]) {
    if let Some(place) = page.get_mut(at..at + data.len()) {
        place.copy_from_slice(data);
    }
}

/// The part of `data` between two distances from its start.
fn part(data: &[u8], from: u64, to: u64) -> &[u8] {
    data.get(from as usize..to as usize).unwrap_or(&[])
}

impl Stored {
    /// Keeps `data`: a slice of its block if it has one, else a copy.
    pub(super) fn new(data: &[u8], source: Source<'_>) -> Stored {
        if let Source::Block { block, capacity } = source
            && data.len() >= source.share_from()
            && let Some(bytes) = slice_of(block, data)
        {
            let block = clamp(capacity.max(data.len()));
            return Stored {
                charge: block - clamp(data.len()),
                block,
                bytes,
            };
        }
        Stored {
            bytes: Bytes::copy_from_slice(data),
            block: clamp(data.len()),
            charge: 0,
        }
    }
}

pub(super) fn clamp(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// `data` as a slice of `block`, if it lies in it.
fn slice_of(block: &Bytes, data: &[u8]) -> Option<Bytes> {
    let start = (data.as_ptr() as usize).checked_sub(block.as_ptr() as usize)?;
    let end = start.checked_add(data.len())?;
    (end <= block.len()).then(|| block.slice(start..end))
}
