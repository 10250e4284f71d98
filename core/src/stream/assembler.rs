//! Puts bytes in order and keeps them until they are read.

use bytes::{Buf, Bytes};

use super::block::{LARGE, Queue, Sealed, Tail};
use super::gaps::{Gaps, Popped, clamp};

/// Below this length a piece is always copied out of the block that it arrived in.
const SHARE_MIN: usize = 1024;
/// A read of up to this length, and under a quarter of the block, is a copy that pins nothing.
const COPY_READ: usize = 4096;

/// Where received bytes lie.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// In memory that the half must not keep.
    Borrowed,
    /// In a block that may be kept by reference.
    Block {
        /// The block that the data is a part of. Frames of one read should name the same `Bytes`,
        /// so that what they pin is charged once.
        block: &'a Bytes,
        /// Bytes of memory that keeping any part of the block keeps.
        capacity: usize,
    },
}

impl Source<'_> {
    /// Pieces of this length and more are kept as they are.
    #[inline]
    pub(super) fn share_from(&self) -> usize {
        match self {
            Source::Borrowed => SHARE_MIN,
            Source::Block { capacity, .. } => (capacity / 4).max(SHARE_MIN),
        }
    }
}

/// A piece that is kept as one.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    /// Memory that it keeps.
    pub(super) block: u32,
    /// How much of that is charged to the window beyond its own length.
    pub(super) charge: u32,
}

impl Stored {
    /// Whether a read of up to `max` bytes is so small a part of the block that it is a copy.
    #[inline]
    fn is_sliver(&self, max: usize) -> bool {
        self.bytes.len().min(max) < (self.block as usize / 4).min(COPY_READ)
    }
}

/// The bytes of one stream, from the first unread one on.
#[derive(Debug)]
pub(super) struct Assembler {
    /// Where the contiguous bytes end.
    end: u64,
    /// Contiguous bytes, followed by those in `tail`.
    queue: Queue<Stored>,
    tail: Tail,
    /// Address of the block that the back of `queue` is a slice of; 0 if it is none. Only compared,
    /// and only while that slice keeps the block in place.
    back_block: usize,
    pinned: u64,
    gaps: Option<Box<Gaps>>,
}

impl Assembler {
    #[inline]
    pub(super) const fn new() -> Assembler {
        Assembler {
            end: 0,
            queue: Queue::new(),
            tail: Tail::new(),
            back_block: 0,
            pinned: 0,
            gaps: None,
        }
    }

    /// Where the contiguous bytes end.
    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    #[inline]
    pub(super) fn has_gaps(&self) -> bool {
        self.gaps.is_some()
    }

    #[inline]
    pub(super) fn pinned(&self) -> u64 {
        self.pinned
    }

    /// Adds bytes at `end()` when there are no gaps. With `last`, none will follow.
    #[inline]
    pub(super) fn push(&mut self, data: &[u8], source: Source<'_>, last: bool) {
        self.end += data.len() as u64;
        let small = match source {
            Source::Borrowed => LARGE,
            Source::Block { .. } => source.share_from().min(LARGE),
        };
        if data.len() < small {
            if last && self.tail.is_empty() {
                self.push_stored(Stored {
                    bytes: Bytes::copy_from_slice(data),
                    block: clamp(data.len()),
                    charge: 0,
                });
            } else if !self.tail.try_append(data) {
                self.append(data, last);
            }
            return;
        }
        self.push_large(data, source);
    }

    /// Adds bytes anywhere at or above `end()`; returns the number of new ones.
    pub(super) fn insert(&mut self, offset: u64, data: &[u8], source: Source<'_>, last: bool) -> u64 {
        let end = offset + data.len() as u64;
        let Some(gaps) = &mut self.gaps else {
            if offset == self.end {
                self.push(data, source, last);
                return data.len() as u64;
            }
            return self.insert_above(offset, data, source);
        };
        if offset > self.end || end > gaps.first() {
            return self.insert_above(offset, data, source);
        }
        self.push(data, source, last);
        self.close_gaps();
        data.len() as u64
    }

    fn insert_above(&mut self, offset: u64, data: &[u8], source: Source<'_>) -> u64 {
        let (added, pinned) = self.gaps.get_or_insert_default().insert(offset, data, source);
        self.pinned += pinned;
        self.close_gaps();
        added
    }

    /// Moves what has become contiguous to where it can be read.
    fn close_gaps(&mut self) {
        let Some(mut gaps) = self.gaps.take() else { return };
        if gaps.first() <= self.end {
            while let Some(end) = gaps.pop(self.end, |popped| match popped {
                Popped::Large(stored) => self.push_stored(stored),
                Popped::Small(data) => self.append(data, false),
            }) {
                self.end = end;
            }
            gaps.settle();
        }
        if !gaps.is_empty() {
            self.gaps = Some(gaps);
        }
    }

    fn push_large(&mut self, data: &[u8], source: Source<'_>) {
        let mut stored = Stored::new(data, source);
        self.pinned += u64::from(stored.charge);
        let mut address = 0;
        if stored.charge > 0
            && let Source::Block { block, .. } = source
        {
            address = block.as_ptr() as usize;
            if address == self.back_block
                && self.tail.is_empty()
                && let Some(back) = self.queue.back_mut()
            {
                // The block was charged in full with the piece before; the last to be read carries it.
                self.pinned -= u64::from(stored.charge) + u64::from(back.charge);
                stored.charge = back.charge.saturating_sub(clamp(data.len()));
                back.charge = 0;
                self.pinned += u64::from(stored.charge);
            }
        }
        self.push_stored(stored);
        self.back_block = address;
    }

    #[inline]
    fn push_stored(&mut self, stored: Stored) {
        self.seal_tail();
        self.queue.push_back(stored);
        self.back_block = 0;
    }

    #[inline]
    fn seal_tail(&mut self) {
        if !self.tail.is_empty()
            && let Some(sealed) = self.tail.seal()
        {
            self.queue.push_back(owned(sealed));
            self.back_block = 0;
        }
    }

    fn append(&mut self, data: &[u8], last: bool) {
        let Assembler {
            tail,
            queue,
            back_block,
            ..
        } = self;
        tail.append(data, last, |sealed| {
            queue.push_back(owned(sealed));
            *back_block = 0;
        });
    }

    /// The first contiguous bytes that lie in one buffer.
    #[inline]
    pub(super) fn peek(&self) -> &[u8] {
        match self.queue.front() {
            Some(stored) => &stored.bytes,
            None => self.tail.bytes(),
        }
    }

    /// Copies the first contiguous bytes without taking them; returns how many.
    pub(super) fn peek_copy(&self, out: &mut [u8]) -> usize {
        let mut done = 0;
        let parts = self
            .queue
            .iter()
            .map(|stored| &stored.bytes[..])
            .chain([self.tail.bytes()]);
        for part in parts {
            let Some(place) = out.get_mut(done..).filter(|place| !place.is_empty()) else {
                break;
            };
            let n = part.len().min(place.len());
            place[..n].copy_from_slice(&part[..n]);
            done += n;
        }
        done
    }

    /// Takes up to `max` bytes; `None` if there are none.
    #[inline]
    pub(super) fn read(&mut self, max: usize) -> Option<Bytes> {
        let Some(front) = self.queue.front() else {
            return self.read_tail(max);
        };
        let copy = front.is_sliver(max);
        if front.bytes.len() > max || copy {
            return self.read_part(max, copy);
        }
        let stored = self.queue.pop_front()?;
        self.pinned -= u64::from(stored.charge);
        Some(stored.bytes)
    }

    /// Takes the only piece there is, where it need not be copied.
    #[inline]
    pub(super) fn read_only(&mut self) -> Option<Bytes> {
        let front = self.queue.front()?;
        if self.queue.len() != 1 || !self.tail.is_empty() || front.is_sliver(usize::MAX) {
            return None;
        }
        let stored = self.queue.pop_front()?;
        self.pinned -= u64::from(stored.charge);
        Some(stored.bytes)
    }

    /// Takes up to `max` bytes off the front of the first piece.
    fn read_part(&mut self, max: usize, copy: bool) -> Option<Bytes> {
        let front = self.queue.front_mut()?;
        let n = front.bytes.len().min(max);
        if !copy {
            return Some(front.bytes.split_to(n));
        }
        let bytes = Bytes::copy_from_slice(front.bytes.get(..n)?);
        self.skip(n);
        Some(bytes)
    }

    fn read_tail(&mut self, max: usize) -> Option<Bytes> {
        let len = self.tail.len();
        if len == 0 {
            return None;
        }
        let n = len.min(max);
        if n <= self.tail.capacity() / 4 {
            let bytes = Bytes::copy_from_slice(self.tail.bytes().get(..n)?);
            self.tail.consume(n);
            return Some(bytes);
        }
        if n == len {
            return Some(self.tail.take().bytes);
        }
        self.seal_tail();
        self.read(max)
    }

    /// Copies up to `out.len()` bytes; returns how many.
    #[inline]
    pub(super) fn read_into(&mut self, out: &mut [u8]) -> usize {
        let n = self.peek_copy(out);
        self.skip(n);
        n
    }

    /// Drops up to `n` bytes; returns how many.
    #[inline]
    pub(super) fn skip(&mut self, n: usize) -> usize {
        let mut left = n;
        while left > 0 {
            let Some(front) = self.queue.front_mut() else {
                break;
            };
            if front.bytes.len() > left {
                front.bytes.advance(left);
                return n;
            }
            left -= front.bytes.len();
            if let Some(stored) = self.queue.pop_front() {
                self.pinned -= u64::from(stored.charge);
            }
        }
        let tail = left.min(self.tail.len());
        self.tail.consume(tail);
        n - left + tail
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        let end = self.end;
        *self = Assembler::new();
        self.end = end;
    }

    /// Frees what is kept for the next bytes.
    pub(super) fn shrink(&mut self) {
        self.tail.shrink();
        self.queue.shrink();
    }

    /// Bytes of memory held beyond the assembler itself, blocks that slices pin included.
    pub(super) fn memory_bytes(&self) -> usize {
        let queue: usize = self.queue.iter().map(|stored| stored.block as usize).sum();
        let gaps = self.gaps.as_ref().map_or(0, |gaps| gaps.memory_bytes());
        queue + self.queue.memory_bytes() + self.tail.capacity() + gaps
    }
}

fn owned(sealed: Sealed) -> Stored {
    Stored {
        bytes: sealed.bytes,
        block: clamp(sealed.capacity),
        charge: 0,
    }
}
