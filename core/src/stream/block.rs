//! What both halves keep bytes in: a queue with its first entry inline, and a tail block that grows.

use std::collections::VecDeque;

use bytes::Bytes;

/// Capacity of the first tail block.
pub(super) const MIN_BLOCK: usize = 256;
/// Tail blocks double from [`MIN_BLOCK`] this many times: to 16 KiB.
pub(super) const MAX_SHIFT: u8 = 6;
/// Data of this length and more gets a block of its own instead of a place in the tail.
pub(super) const LARGE: usize = 4096;
/// An emptied tail of up to this capacity is kept for the next bytes.
const KEEP: usize = 4096;
/// A queue emptied of its entries keeps room for this many.
const KEEP_ENTRIES: usize = 64;

/// A queue whose first entry is inline, so that a stream with one block allocates no queue.
#[derive(Debug)]
pub(super) struct Queue<T> {
    front: Option<T>,
    #[expect(
        clippy::box_collection,
        reason = "most streams never have a second block; 8 bytes instead of 32"
    )]
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> Queue<T> {
    #[inline]
    pub(super) const fn new() -> Queue<T> {
        Queue {
            front: None,
            rest: None,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        match &self.rest {
            None => usize::from(self.front.is_some()),
            Some(rest) => usize::from(self.front.is_some()) + rest.len(),
        }
    }

    #[inline]
    pub(super) fn front(&self) -> Option<&T> {
        self.front.as_ref()
    }

    #[inline]
    pub(super) fn front_mut(&mut self) -> Option<&mut T> {
        self.front.as_mut()
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut T> {
        match self.rest.as_mut().and_then(|rest| rest.back_mut()) {
            Some(back) => Some(back),
            None => self.front.as_mut(),
        }
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        match index.checked_sub(1) {
            None => self.front.as_ref(),
            Some(index) => self.rest.as_ref()?.get(index),
        }
    }

    #[inline]
    pub(super) fn push_back(&mut self, item: T) {
        if self.front.is_none() {
            self.front = Some(item);
        } else {
            self.rest.get_or_insert_default().push_back(item);
        }
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<T> {
        let next = match &mut self.rest {
            None => None,
            Some(rest) => {
                let next = rest.pop_front();
                if rest.is_empty() && rest.capacity() > KEEP_ENTRIES {
                    self.rest = None;
                }
                next
            }
        };
        std::mem::replace(&mut self.front, next)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.front
            .iter()
            .chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// The number of leading entries for which `pred` holds; it must hold for a prefix.
    pub(super) fn partition_point(&self, mut pred: impl FnMut(&T) -> bool) -> usize {
        match (&self.front, &self.rest) {
            (Some(front), _) if !pred(front) => 0,
            (Some(_), Some(rest)) => 1 + rest.partition_point(pred),
            (Some(_), None) => 1,
            (None, _) => 0,
        }
    }

    /// Frees the room that no entry uses.
    pub(super) fn shrink(&mut self) {
        if self.rest.as_ref().is_some_and(|rest| rest.is_empty()) {
            self.rest = None;
        }
    }

    /// Bytes allocated for the entries themselves.
    pub(super) fn memory_bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| {
            size_of::<VecDeque<T>>() + rest.capacity() * size_of::<T>()
        })
    }
}

/// The block that small pieces of data are gathered in, one behind the other.
///
/// It never moves its bytes: when it is full it is sealed into a [`Bytes`] and a larger one opened.
#[derive(Debug)]
pub(super) struct Tail {
    block: Vec<u8>,
    /// Bytes at the front of `block` that were taken out.
    taken: u32,
    /// The next block has `MIN_BLOCK << shift` bytes.
    shift: u8,
}

impl Tail {
    #[inline]
    pub(super) const fn new() -> Tail {
        Tail {
            block: Vec::new(),
            taken: 0,
            shift: 0,
        }
    }

    /// A tail that opens with this block.
    #[inline]
    pub(super) fn in_block(mut block: Vec<u8>) -> Tail {
        block.clear();
        Tail { block, ..Tail::new() }
    }

    /// Takes the block out with what it held, if it is of the smallest size.
    #[inline]
    pub(super) fn take_small(&mut self) -> Vec<u8> {
        if self.block.capacity() <= MIN_BLOCK {
            self.taken = 0;
            std::mem::take(&mut self.block)
        } else {
            Vec::new()
        }
    }

    /// The bytes held.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.block.get(self.taken as usize..).unwrap_or(&[])
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.block.len() - self.taken as usize
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.block.capacity()
    }

    #[inline]
    fn room(&self) -> usize {
        self.block.capacity() - self.block.len()
    }

    /// Takes all of `data` if the open block has room for it.
    #[inline]
    pub(super) fn try_append(&mut self, data: &[u8]) -> bool {
        let fits = data.len() <= self.room();
        if fits {
            self.block.extend_from_slice(data);
        }
        fits
    }

    /// Takes `data`, handing full blocks to `seal`.
    ///
    /// With `last`, nothing is expected to follow: a new block is made to measure.
    pub(super) fn append(&mut self, data: &[u8], last: bool, mut seal: impl FnMut(Sealed)) {
        let (head, rest) = data.split_at(data.len().min(self.room()));
        self.block.extend_from_slice(head);
        if rest.is_empty() {
            return;
        }
        if self.block.capacity() > 0 {
            self.shift = (self.shift + 1).min(MAX_SHIFT);
        }
        if let Some(sealed) = self.seal() {
            seal(sealed);
        }
        if rest.len() > self.room() {
            let capacity = if last {
                rest.len()
            } else {
                (MIN_BLOCK << self.shift).max(rest.len())
            };
            self.block = Vec::with_capacity(capacity);
            self.taken = 0;
        }
        self.block.extend_from_slice(rest);
    }

    /// Ends the block, so that something else can come behind it.
    ///
    /// A block that is mostly empty is kept and its bytes are copied, so that what is sealed never
    /// takes more than twice its length.
    pub(super) fn seal(&mut self) -> Option<Sealed> {
        let len = self.len();
        if len == 0 {
            self.reset();
            return None;
        }
        if len * 2 < self.block.capacity() {
            let bytes = Bytes::copy_from_slice(self.bytes());
            self.reset();
            return Some(Sealed { bytes, capacity: len });
        }
        Some(self.take())
    }

    /// Hands the block over as it is.
    pub(super) fn take(&mut self) -> Sealed {
        let block = std::mem::take(&mut self.block);
        let taken = std::mem::take(&mut self.taken) as usize;
        let capacity = block.capacity();
        let mut bytes = Bytes::from(block);
        if taken > 0 {
            bytes = bytes.slice(taken..);
        }
        Sealed { bytes, capacity }
    }

    /// Takes up to `n` bytes off the front.
    #[inline]
    pub(super) fn consume(&mut self, n: usize) {
        let n = n.min(self.len());
        // The block has at most 16 KiB.
        self.taken += n as u32;
        if self.is_empty() {
            self.clear();
        }
    }

    #[inline]
    fn reset(&mut self) {
        self.block.clear();
        self.taken = 0;
    }

    /// Drops the bytes; keeps a block of moderate size for the next ones.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.reset();
        if self.block.capacity() > KEEP {
            self.block = Vec::new();
            self.shift = self.shift.saturating_sub(1);
        }
    }

    /// Frees the block if it holds nothing.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Tail::new();
        }
    }
}

/// A block that grows no more.
pub(super) struct Sealed {
    pub(super) bytes: Bytes,
    /// What it takes in memory.
    pub(super) capacity: usize,
}
