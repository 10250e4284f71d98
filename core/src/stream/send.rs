//! The sending half of a stream.

use bytes::Bytes;

use super::block::{LARGE, Queue, Sealed, Tail};
use super::{MAX_OFFSET, RangeSet, StreamError};

mod pieces;

pub use pieces::{Piece, Pieces};

/// What waits to be acknowledged, from the acknowledged prefix to what was last written.
#[derive(Debug)]
struct Block {
    start: u64,
    bytes: Bytes,
}

impl Block {
    #[inline]
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// What only streams with losses or acknowledgements out of order need.
#[derive(Debug, Default)]
struct Loss {
    /// Acknowledged above the prefix.
    acked: RangeSet,
    /// To be sent again; disjoint from `acked`, below `next`.
    lost: RangeSet,
}

/// The end of the stream is a range of its own: it is sent, lost and acknowledged like data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    None,
    Unsent,
    Sent,
    Lost,
    Acked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reset {
    None,
    Sent,
    Acked,
}

/// Where a send half is in its life (PROTOCOL 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendState {
    /// Takes data.
    Open,
    /// The end was set; data or the end still await their acknowledgement.
    Finished,
    /// Given up by [`SendHalf::reset`].
    ResetSent,
    /// The peer has everything, the end included.
    DataAcked,
    /// The peer knows of the reset.
    ResetAcked,
}

impl SendState {
    /// Whether the half has nothing left to do.
    pub const fn is_terminal(self) -> bool {
        matches!(self, SendState::DataAcked | SendState::ResetAcked)
    }
}

/// A range to send, as handed out by [`SendHalf::next_chunk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes; 0 for a bare end.
    pub len: usize,
    /// Whether the stream ends behind it.
    pub fin: bool,
}

/// What an acknowledgement changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acked {
    /// Bytes that no longer need to be kept.
    pub freed: u64,
    /// Everything, the end included, is acknowledged.
    pub complete: bool,
    /// All bytes below this offset are acknowledged.
    pub acked_to: u64,
}

/// What a reset gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetSent {
    /// One past the highest byte ever handed out: what flow control has seen.
    pub final_size: u64,
    /// Bytes dropped from the buffer.
    pub freed: u64,
}

/// The sending half of a stream: keeps what was written until the peer has it (PROTOCOL 7).
///
/// The application calls [`write`](SendHalf::write), [`write_bytes`](SendHalf::write_bytes),
/// [`finish`](SendHalf::finish) and [`reset`](SendHalf::reset). The session asks
/// [`next_chunk`](SendHalf::next_chunk) what to send, reads the bytes with
/// [`slice`](SendHalf::slice) or [`pieces`](SendHalf::pieces), and says what became of each chunk:
/// [`on_acked`](SendHalf::on_acked) or [`on_lost`](SendHalf::on_lost), in any order and as often as
/// it likes. Several paths may carry the same range; an acknowledgement settles it for good.
#[derive(Debug)]
pub struct SendHalf {
    /// Credit from the peer.
    max_data: u64,
    written: u64,
    /// The lowest offset never handed out.
    next: u64,
    /// Everything below is acknowledged and released.
    acked: u64,
    /// Blocks from `acked` on, followed by `tail`, which ends at `written`.
    blocks: Queue<Block>,
    tail: Tail,
    /// Index of the block with `next`, or of one before it; `blocks.len()` is the tail.
    cursor: usize,
    loss: Option<Box<Loss>>,
    /// Where the last frame on `lane` ended.
    lane_end: u64,
    lane: Option<u32>,
    fin: Fin,
    reset: Reset,
}

impl SendHalf {
    /// A half with `max_data` bytes of credit. Allocates nothing.
    #[inline]
    pub const fn new(max_data: u64) -> SendHalf {
        SendHalf {
            max_data: if max_data < MAX_OFFSET {
                max_data
            } else {
                MAX_OFFSET
            },
            written: 0,
            next: 0,
            acked: 0,
            blocks: Queue::new(),
            tail: Tail::new(),
            cursor: 0,
            loss: None,
            lane_end: 0,
            lane: None,
            fin: Fin::None,
            reset: Reset::None,
        }
    }

    /// Gives a half that has written nothing a block to write into, instead of one that it would allocate.
    #[inline]
    pub fn reuse_block(&mut self, block: Vec<u8>) {
        if self.written == 0 {
            self.tail = Tail::in_block(block);
        }
    }

    /// Takes the block of a half that is done, for [`SendHalf::reuse_block`]; an empty one if it has none
    /// or one that is larger than most streams need.
    #[inline]
    pub fn take_block(&mut self) -> Vec<u8> {
        if self.state().is_terminal() {
            self.tail.take_small()
        } else {
            Vec::new()
        }
    }

    // ---- the application's side ----

    /// Takes a copy of up to `max` bytes of `data`, within the peer's credit; returns how many.
    ///
    /// Returns 0 when there is no credit, or when the half is not [`SendState::Open`].
    #[inline]
    pub fn write(&mut self, data: &[u8], max: usize) -> usize {
        let Some(data) = data.get(..self.acceptable(data.len(), max)) else {
            return 0;
        };
        if data.len() >= LARGE {
            self.push(Bytes::copy_from_slice(data));
        } else if !self.tail.try_append(data) {
            self.append_small(data);
        }
        self.written += data.len() as u64;
        data.len()
    }

    /// Takes up to `max` bytes off the front of `data`, within the peer's credit; returns how many.
    ///
    /// Large pieces are kept by reference, as is a small one when nothing else is buffered; other
    /// small ones are copied together. Returns 0 in the same cases as [`write`](SendHalf::write).
    #[inline]
    pub fn write_bytes(&mut self, data: &mut Bytes, max: usize) -> usize {
        let len = self.acceptable(data.len(), max);
        if len == 0 {
            return 0;
        }
        let piece = data.split_to(len);
        if len >= LARGE || (self.tail.capacity() == 0 && self.blocks.front().is_none()) {
            self.push(piece);
        } else if !self.tail.try_append(&piece) {
            self.append_small(&piece);
        }
        self.written += len as u64;
        len
    }

    /// Keeps all of `data`, beyond the peer's credit too: for messages, whose queue has a bound of
    /// its own. It is sent as far as credit reaches. Does nothing unless the half is
    /// [`SendState::Open`].
    pub fn append(&mut self, data: &[u8]) {
        if self.fin != Fin::None || self.reset != Reset::None {
            return;
        }
        if data.len() >= LARGE {
            self.push(Bytes::copy_from_slice(data));
        } else if !self.tail.try_append(data) {
            self.append_small(data);
        }
        self.written += data.len() as u64;
    }

    /// [`append`](SendHalf::append) that keeps large pieces by reference.
    pub fn append_bytes(&mut self, data: Bytes) {
        if data.len() < LARGE && (self.tail.capacity() > 0 || self.blocks.front().is_some()) {
            self.append(&data);
        } else if self.fin == Fin::None && self.reset == Reset::None && !data.is_empty() {
            self.written += data.len() as u64;
            let start = self.written - data.len() as u64;
            if let Some(sealed) = self.tail.seal() {
                push_sealed(&mut self.blocks, start, sealed);
            }
            self.blocks.push_back(Block { start, bytes: data });
        }
    }

    /// Sets the end of the stream behind what was written. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`StreamError::Closed`] after a reset.
    #[inline]
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if self.reset != Reset::None {
            return Err(StreamError::Closed { state: self.state() });
        }
        if self.fin == Fin::None {
            self.fin = Fin::Unsent;
        }
        Ok(())
    }

    /// Gives the stream up and drops what is buffered.
    ///
    /// `None` if there is nothing to give up: it was reset before, or the peer has everything.
    /// The session sends RESET_STREAM with its error code and reports
    /// [`on_reset_acked`](SendHalf::on_reset_acked). Afterwards
    /// [`written`](SendHalf::written) is the final size.
    pub fn reset(&mut self) -> Option<ResetSent> {
        if self.state().is_terminal() || self.reset != Reset::None {
            return None;
        }
        let freed = self.buffered();
        self.written = self.next;
        self.acked = self.next;
        self.blocks = Queue::new();
        self.tail = Tail::new();
        self.cursor = 0;
        self.loss = None;
        self.fin = Fin::None;
        self.reset = Reset::Sent;
        Some(ResetSent {
            final_size: self.next,
            freed,
        })
    }

    /// The peer knows of the reset.
    pub fn on_reset_acked(&mut self) {
        if self.reset == Reset::Sent {
            self.reset = Reset::Acked;
        }
    }

    /// Raises the credit; returns whether it grew. A lower or equal value changes nothing.
    #[inline]
    pub fn set_max_data(&mut self, max_data: u64) -> bool {
        let max_data = max_data.min(MAX_OFFSET);
        let grew = max_data > self.max_data;
        if grew {
            self.max_data = max_data;
        }
        grew
    }

    #[inline]
    fn acceptable(&self, len: usize, max: usize) -> usize {
        if self.fin != Fin::None || self.reset != Reset::None {
            return 0;
        }
        len.min(max)
            .min(usize::try_from(self.capacity()).unwrap_or(usize::MAX))
    }

    fn append_small(&mut self, data: &[u8]) {
        let SendHalf {
            tail,
            blocks,
            written,
            ..
        } = self;
        let mut end = *written;
        let room = tail.capacity().saturating_sub(tail.len()) as u64;
        // The block is filled before it is sealed.
        end += room.min(data.len() as u64);
        tail.append(data, false, |sealed| push_sealed(blocks, end, sealed));
    }

    fn push(&mut self, bytes: Bytes) {
        if let Some(sealed) = self.tail.seal() {
            push_sealed(&mut self.blocks, self.written, sealed);
        }
        self.blocks.push_back(Block {
            start: self.written,
            bytes,
        });
    }

    // ---- sending ----

    /// The next range to send, of at most `max` bytes: what was lost first, then new data, then the end.
    ///
    /// A bare end needs no room. The range may span several buffers.
    #[inline]
    pub fn next_chunk(&mut self, max: usize) -> Option<Chunk> {
        if let Some(loss) = &mut self.loss
            && !loss.lost.is_empty()
        {
            let range = loss.lost.pop_front(max as u64)?;
            let fin = self.take_fin(range.end);
            return Some(Chunk {
                offset: range.start,
                len: (range.end - range.start) as usize,
                fin,
            });
        }
        let offset = self.next;
        let len = self.sendable().min(max as u64);
        let fin = self.take_fin(offset + len);
        if len == 0 && !fin {
            return None;
        }
        // The cursor stays on the block where this chunk begins, for whoever reads it next.
        while self
            .blocks
            .get(self.cursor)
            .is_some_and(|block| block.end() <= offset)
        {
            self.cursor += 1;
        }
        self.next = offset + len;
        Some(Chunk {
            offset,
            len: len as usize,
            fin,
        })
    }

    /// Whether the end has to go with a chunk that ends at `end`; it counts as sent then.
    #[inline]
    fn take_fin(&mut self, end: u64) -> bool {
        let due = end == self.written && matches!(self.fin, Fin::Unsent | Fin::Lost);
        if due {
            self.fin = Fin::Sent;
        }
        due
    }

    /// The bytes of a range that lies in one buffer; `None` if it spans several or was released.
    #[inline]
    pub fn slice(&self, offset: u64, len: usize) -> Option<&[u8]> {
        if len == 0 {
            return Some(&[]);
        }
        let piece = self.pieces(offset, len).next()?;
        (piece.data.len() == len).then_some(piece.data)
    }

    /// The bytes of a range, buffer by buffer.
    ///
    /// Bytes that were released because the peer has them, or never written, are left out at
    /// either end. For a chunk just handed out this takes constant time, for others a binary search.
    #[inline]
    pub fn pieces(&self, offset: u64, len: usize) -> Pieces<'_> {
        let end = offset.saturating_add(len as u64).min(self.written);
        let at = offset.max(self.acked);
        Pieces {
            half: self,
            index: self.locate(at),
            at,
            end,
        }
    }

    #[inline]
    fn locate(&self, offset: u64) -> usize {
        if offset >= self.tail_start() {
            return self.blocks.len();
        }
        match self.blocks.get(self.cursor) {
            Some(block) if block.start <= offset && offset < block.end() => self.cursor,
            _ => self.blocks.partition_point(|block| block.end() <= offset),
        }
    }

    #[inline]
    fn tail_start(&self) -> u64 {
        self.written - self.tail.len() as u64
    }

    // ---- what became of it ----

    /// The peer has this range, and the end of the stream if `fin`.
    #[inline]
    pub fn on_acked(&mut self, offset: u64, len: usize, fin: bool) -> Acked {
        let end = offset.saturating_add(len as u64).min(self.next);
        if fin && matches!(self.fin, Fin::Sent | Fin::Lost) {
            self.fin = Fin::Acked;
        }
        let before = self.acked;
        if self.loss.is_some() {
            self.ack_range(offset, end);
        } else if offset <= self.acked {
            self.acked = self.acked.max(end);
        } else if end > offset {
            self.ack_range(offset, end);
        }
        if self.acked > before {
            self.release();
        }
        Acked {
            freed: self.acked - before,
            complete: self.fin == Fin::Acked && self.acked == self.written,
            acked_to: self.acked,
        }
    }

    fn ack_range(&mut self, offset: u64, end: u64) {
        let loss = self.loss.get_or_insert_default();
        let start = offset.max(self.acked);
        if start >= end {
            return;
        }
        loss.lost.remove(start..end);
        if start > self.acked {
            loss.acked.insert(start..end);
            return;
        }
        self.acked = end;
        loss.acked.remove(0..end);
        if let Some(first) = loss.acked.first()
            && first.start == end
        {
            self.acked = first.end;
            loss.acked.remove(first);
        }
        if loss.acked.is_empty() && loss.lost.is_empty() {
            self.loss = None;
        }
    }

    /// Lets go of blocks below the acknowledged prefix.
    #[inline]
    fn release(&mut self) {
        while self.blocks.front().is_some_and(|block| block.end() <= self.acked) {
            self.blocks.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
        if self.acked == self.written {
            self.tail.clear();
        }
    }

    /// This range, and the end of the stream if `fin`, went down with its path.
    ///
    /// What is acknowledged, or was never handed out, is not queued. Returns whether anything was.
    pub fn on_lost(&mut self, offset: u64, len: usize, fin: bool) -> bool {
        let mut queued = 0;
        let range = offset.max(self.acked)..offset.saturating_add(len as u64).min(self.next);
        if range.start < range.end {
            let Loss { acked, lost } = &mut **self.loss.get_or_insert_default();
            for gap in acked.gaps(range) {
                queued += lost.insert(gap);
            }
        }
        let fin = fin && self.fin == Fin::Sent;
        if fin {
            self.fin = Fin::Lost;
        }
        fin || queued > 0
    }

    // ---- questions ----

    /// Whether [`next_chunk`](SendHalf::next_chunk) has something to hand out, given room.
    #[inline]
    pub fn has_pending(&self) -> bool {
        self.sendable() > 0
            || (self.next == self.written && matches!(self.fin, Fin::Unsent | Fin::Lost))
            || self.has_lost()
    }

    /// Bytes never handed out that the peer's credit covers.
    #[inline]
    pub fn sendable(&self) -> u64 {
        self.written.min(self.max_data).saturating_sub(self.next)
    }

    /// Whether a lost range waits to be sent again.
    #[inline]
    pub fn has_lost(&self) -> bool {
        self.fin == Fin::Lost || self.loss.as_ref().is_some_and(|loss| !loss.lost.is_empty())
    }

    /// Where the half is in its life.
    #[inline]
    pub fn state(&self) -> SendState {
        match (self.reset, self.fin) {
            (Reset::Sent, _) => SendState::ResetSent,
            (Reset::Acked, _) => SendState::ResetAcked,
            (Reset::None, Fin::None) => SendState::Open,
            (Reset::None, Fin::Acked) if self.acked == self.written => SendState::DataAcked,
            (Reset::None, _) => SendState::Finished,
        }
    }

    /// Bytes that the peer's credit still admits.
    #[inline]
    pub fn capacity(&self) -> u64 {
        self.max_data.saturating_sub(self.written)
    }

    /// The peer's credit: no byte at or beyond this offset is taken.
    #[inline]
    pub fn max_data(&self) -> u64 {
        self.max_data
    }

    /// Bytes written but never handed out.
    #[inline]
    pub fn unsent(&self) -> u64 {
        self.written - self.next
    }

    /// Bytes held: written and not yet below the acknowledged prefix.
    #[inline]
    pub fn buffered(&self) -> u64 {
        self.written - self.acked
    }

    /// Bytes written since the start; after a reset the final size.
    #[inline]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The lowest offset never handed out.
    #[inline]
    pub fn sent_to(&self) -> u64 {
        self.next
    }

    /// All bytes below this offset are acknowledged.
    #[inline]
    pub fn acked_prefix(&self) -> u64 {
        self.acked
    }

    /// The offsets that were handed out and are neither acknowledged nor queued to be sent again: what somebody
    /// else must know of, or it never arrives.
    pub fn under_way(&self) -> RangeSet {
        let mut ranges = RangeSet::new();
        ranges.insert(self.acked..self.next);
        if let Some(loss) = &self.loss {
            for known in loss.acked.iter().chain(loss.lost.iter()) {
                ranges.remove(known);
            }
        }
        ranges
    }

    /// Whether the end of the stream was handed out, and is neither acknowledged nor to be sent again.
    pub fn is_end_under_way(&self) -> bool {
        self.fin == Fin::Sent
    }

    /// Bytes of memory held beyond the half itself.
    pub fn memory_bytes(&self) -> usize {
        let loss = self.loss.as_ref().map_or(0, |loss| {
            size_of::<Loss>() + loss.acked.memory_bytes() + loss.lost.memory_bytes()
        });
        let blocks: usize = self.blocks.iter().map(|block| block.bytes.len()).sum();
        self.tail.capacity() + self.blocks.memory_bytes() + blocks + loss
    }

    /// Frees what is kept for the next bytes, if nothing is buffered; for streams that fall idle.
    pub fn shrink(&mut self) {
        self.tail.shrink();
        self.blocks.shrink();
    }

    // ---- lanes ----

    /// Whether a frame at `offset` on `lane` continues the last frame there, so that its offset need not travel.
    ///
    /// `lane` is the session's key for one lane of one path, never used again for another. Only the
    /// last lane is remembered; on any other the offset is sent.
    #[inline]
    pub fn continues(&self, lane: u32, offset: u64) -> bool {
        match self.lane {
            None => offset == 0,
            Some(last) => (last == lane || crate::canary!(OffsetOmitted)) && offset == self.lane_end,
        }
    }

    /// A frame that ends at `end` was put on `lane`.
    #[inline]
    pub fn sent_on(&mut self, lane: u32, end: u64) {
        self.lane = Some(lane);
        self.lane_end = end;
    }
}

/// `end` is where the sealed bytes end.
fn push_sealed(blocks: &mut Queue<Block>, end: u64, sealed: Sealed) {
    let start = end - sealed.bytes.len() as u64;
    blocks.push_back(Block {
        start,
        bytes: sealed.bytes,
    });
}
