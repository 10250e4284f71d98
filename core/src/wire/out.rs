//! Output: what waits for the socket, and how records get there. PROTOCOL 3.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::crc;
use super::encode::StreamHeader;
use super::frame::Frame;
use super::id::StreamId;
use super::lz4::Compressor;
use super::record::{CRC_LEN, HEADER_LEN, LARGEST_MAX_BODY, flag};
use super::varint;

/// Payloads from this length on, in bytes, go into an [`OutBuffer`] by reference.
pub const SHARE_THRESHOLD: usize = 4096;

/// Consumed bytes are moved away only from this many on, and only when they are half of the buffer.
const COMPACT_THRESHOLD: usize = 4096;

/// What waits to be written to a stream socket: small bytes contiguous, large payloads by reference.
///
/// Filled by [`RecordBuilder`] and by carriers with framing of their own, emptied by
/// [`OutBuffer::io_slices`] and [`OutBuffer::advance`]. Keeps its memory until [`OutBuffer::shrink`].
#[derive(Debug, Default)]
pub struct OutBuffer {
    /// Small bytes; those before `start` are consumed.
    small: Vec<u8>,
    start: usize,
    /// Position of `small[0]` in the sequence of all small bytes ever.
    base: u64,
    shared: VecDeque<Shared>,
    shared_len: usize,
}

#[derive(Debug)]
struct Shared {
    /// Position in the sequence of all small bytes that this comes before.
    at: u64,
    bytes: Bytes,
}

impl OutBuffer {
    /// An empty buffer that holds no memory.
    pub const fn new() -> OutBuffer {
        OutBuffer {
            small: Vec::new(),
            start: 0,
            base: 0,
            shared: VecDeque::new(),
            shared_len: 0,
        }
    }

    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.small.len() - self.start + self.shared_len
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.compact();
        self.small.extend_from_slice(bytes);
    }

    /// Appends `len` bytes, which `fill` writes.
    #[cfg(feature = "http")]
    pub(crate) fn put_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        self.compact();
        let before = self.small.len();
        self.small.resize(before + len, 0);
        fill(self.small.get_mut(before..).unwrap_or_default());
    }

    /// Appends `bytes`: by reference from [`SHARE_THRESHOLD`] on, otherwise as a copy.
    pub fn put_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARE_THRESHOLD {
            return self.put(&bytes);
        }
        self.shared_len += bytes.len();
        self.shared.push_back(Shared {
            at: self.base + self.small.len() as u64,
            bytes,
        });
    }

    /// Puts a copy of `bytes` in front of what waits.
    #[cfg(feature = "websocket")]
    pub(crate) fn put_front(&mut self, bytes: &[u8]) {
        let start = self.start;
        self.small.splice(start..start, bytes.iter().copied());
        for shared in &mut self.shared {
            shared.at += bytes.len() as u64;
        }
    }

    /// Puts `bytes` at the end of the `room` small bytes at the front, and drops what is left before them.
    #[cfg(feature = "websocket")]
    pub(crate) fn fill_front(&mut self, room: usize, bytes: &[u8]) {
        let unused = room.saturating_sub(bytes.len());
        let start = self.start + unused;
        if let Some(place) = self.small.get_mut(start..start + bytes.len()) {
            place.copy_from_slice(bytes);
            self.start = start;
        }
    }

    /// Lets `change` see every byte from the `from`th on, in order, and change it. What is held by reference
    /// is copied for that.
    #[cfg(feature = "websocket")]
    pub(crate) fn own_from(&mut self, from: usize, mut change: impl FnMut(&mut [u8])) {
        if !self.shared.is_empty() {
            let mut own = Vec::with_capacity(self.len());
            for slice in self.slices_from(self.start, 0) {
                own.extend_from_slice(slice);
            }
            self.clear();
            self.small = own;
        }
        let start = self.start + from;
        change(self.small.get_mut(start..).unwrap_or_default());
    }

    /// Fills `dst` with the bytes that wait, in order, and returns how many of its slices are used.
    ///
    /// All of them may hold less than [`OutBuffer::len`] when `dst` is short.
    pub fn io_slices<'b>(&'b self, dst: &mut [IoSlice<'b>]) -> usize {
        let mut used = 0;
        for (slot, slice) in dst.iter_mut().zip(self.slices_from(self.start, 0)) {
            *slot = IoSlice::new(slice);
            used += 1;
        }
        used
    }

    /// The first contiguous bytes that wait; empty only when nothing does.
    pub fn chunk(&self) -> &[u8] {
        self.slices_from(self.start, 0).next().unwrap_or_default()
    }

    /// Drops `n` bytes from the front, or all when fewer wait.
    pub fn advance(&mut self, mut n: usize) {
        if n >= self.len() {
            return self.clear();
        }
        if self.shared.is_empty() {
            self.start += n;
            return;
        }
        while n > 0 {
            let until_shared = self
                .shared
                .front()
                .map_or(self.small.len(), |front| self.index_of(front));
            let step = n.min(until_shared - self.start);
            self.start += step;
            n -= step;
            let Some(front) = self.shared.front_mut().filter(|_| n > 0) else {
                break;
            };
            let step = n.min(front.bytes.len());
            front.bytes.advance(step);
            self.shared_len -= step;
            n -= step;
            if front.bytes.is_empty() {
                self.shared.pop_front();
            }
        }
    }

    /// Takes bytes off the front, `most` at most, in one piece: without a copy where they are held by reference. Empty
    /// only when nothing waits.
    pub fn take(&mut self, most: usize) -> Bytes {
        let until_shared = self
            .shared
            .front()
            .map_or(self.small.len(), |front| self.index_of(front));
        if until_shared > self.start {
            let end = until_shared.min(self.start.saturating_add(most));
            let bytes = Bytes::copy_from_slice(self.small.get(self.start..end).unwrap_or_default());
            self.advance(bytes.len());
            return bytes;
        }
        let Some(front) = self.shared.front() else {
            return Bytes::new();
        };
        let bytes = front.bytes.slice(..most.min(front.bytes.len()));
        self.advance(bytes.len());
        bytes
    }

    /// Drops everything, keeping the memory.
    pub fn clear(&mut self) {
        self.small.clear();
        self.start = 0;
        self.base = 0;
        if !self.shared.is_empty() {
            self.shared.clear();
            self.shared_len = 0;
        }
    }

    /// Gives the memory back, if nothing waits.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            *self = OutBuffer::new();
        }
    }

    /// Bytes of memory that the buffer itself holds, without what it refers to.
    pub fn capacity(&self) -> usize {
        self.small.capacity() + self.shared.capacity() * size_of::<Shared>()
    }

    fn index_of(&self, shared: &Shared) -> usize {
        // A position within `small`, whose length is a usize.
        (shared.at - self.base) as usize
    }

    /// All slices from small index `start` and shared number `first` on; none is empty.
    fn slices_from(&self, start: usize, first: usize) -> impl Iterator<Item = &[u8]> {
        let mut from = start;
        let shared = self.shared.range(first..).flat_map(move |shared| {
            let to = self.index_of(shared);
            let before = self.small.get(from..to).unwrap_or_default();
            from = to;
            [before, &shared.bytes[..]]
        });
        let tail_start = self
            .shared
            .range(first..)
            .next_back()
            .map_or(start, |last| self.index_of(last));
        let tail = self.small.get(tail_start..).unwrap_or_default();
        shared.chain([tail]).filter(|slice| !slice.is_empty())
    }

    /// [`OutBuffer::put_shared`] that moves nothing, so that indexes into `small` stay true.
    fn append(&mut self, bytes: Bytes) {
        if bytes.len() < SHARE_THRESHOLD {
            self.small.extend_from_slice(&bytes);
        } else {
            self.shared_len += bytes.len();
            self.shared.push_back(Shared {
                at: self.base + self.small.len() as u64,
                bytes,
            });
        }
    }

    /// Moves what waits to the front of the buffer when that pays.
    #[inline]
    fn compact(&mut self) {
        if self.start >= COMPACT_THRESHOLD && self.start >= self.small.len() / 2 {
            self.small.drain(..self.start);
            self.base += self.start as u64;
            self.start = 0;
        }
    }
}

/// Builds one record at the end of an [`OutBuffer`]. `PROTOCOL 3.1`.
///
/// Nothing of it stays in the buffer unless [`RecordBuilder::finish`] is called.
#[derive(Debug)]
pub struct RecordBuilder<'a> {
    out: &'a mut OutBuffer,
    /// Index in `out.small` of the record's header.
    mark: usize,
    /// How many of `out.shared` are of earlier records.
    shared_mark: usize,
    /// Bytes of `out.shared_len` that are of earlier records.
    shared_len_mark: usize,
    max_body: usize,
    /// Bytes of data that the last STREAM header promised and that are still missing.
    owed: usize,
    flags: u8,
    /// Whether the last frame runs to the end of the body, so that none may follow.
    closed: bool,
}

impl<'a> RecordBuilder<'a> {
    /// Starts a record of at most `max_body` bytes of frames, with a checksum if `crc`.
    ///
    /// `max_body` is what the receiver announced; [`LARGEST_MAX_BODY`] holds in any case.
    #[inline]
    pub fn begin(out: &'a mut OutBuffer, max_body: usize, crc: bool) -> RecordBuilder<'a> {
        out.compact();
        let mark = out.small.len();
        out.small.extend_from_slice(&[0; HEADER_LEN]);
        RecordBuilder {
            mark,
            shared_mark: out.shared.len(),
            shared_len_mark: out.shared_len,
            max_body: max_body.min(LARGEST_MAX_BODY),
            owed: 0,
            flags: if crc { flag::CRC } else { 0 },
            closed: false,
            out,
        }
    }

    /// Bytes of frames so far, without data still missing.
    #[inline]
    pub fn body_len(&self) -> usize {
        self.out.small.len() - self.mark - HEADER_LEN + (self.out.shared_len - self.shared_len_mark)
    }

    /// Bytes of body that are left for more frames.
    #[inline]
    pub fn remaining(&self) -> usize {
        if self.closed {
            0
        } else {
            self.max_body.saturating_sub(self.body_len() + self.owed)
        }
    }

    /// Whether there is no frame yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.body_len() == 0
    }

    /// Appends a frame. Returns `false`, and changes nothing, when there is no room.
    #[inline]
    pub fn frame(&mut self, frame: &Frame<'_>) -> bool {
        let fits = self.admits(frame.encoded_len());
        if fits {
            frame.encode(&mut self.out.small);
        }
        fits
    }

    /// Appends a frame that was encoded before. Returns `false`, and changes nothing, when there is no room.
    pub fn encoded(&mut self, frame: &[u8]) -> bool {
        let fits = self.admits(frame.len());
        if fits {
            self.out.small.extend_from_slice(frame);
        }
        fits
    }

    /// Appends the record's last frame, without a length where that is optional. Returns `false`, and
    /// changes nothing, when there is no room.
    pub fn last_frame(&mut self, frame: &Frame<'_>) -> bool {
        let fits = self.admits(frame.encoded_last_len());
        if fits {
            frame.encode_last(&mut self.out.small);
            self.closed = true;
        }
        fits
    }

    #[inline]
    fn admits(&self, len: usize) -> bool {
        debug_assert_eq!(self.owed, 0, "a STREAM frame still misses data");
        !self.closed && self.owed == 0 && len <= self.remaining()
    }

    /// How many bytes of data a STREAM frame with this header may have here; `None` when not even its
    /// header fits. `last` as in [`RecordBuilder::stream_header`].
    #[inline]
    pub fn stream_room(&self, id: StreamId, offset: Option<u64>, last: bool) -> Option<usize> {
        let header = 1 + varint::len(id.value()) + offset.map_or(0, varint::len);
        let room = self.remaining().checked_sub(header)?;
        if last {
            return Some(room);
        }
        // The length field takes the bytes that the largest possible length needs: at most one byte of
        // room is lost where two lengths of field meet.
        room.checked_sub(varint::len(room as u64))
    }

    /// Appends the header of a STREAM frame whose `len` bytes of data follow by [`RecordBuilder::data`]
    /// and [`RecordBuilder::data_shared`]. Returns `false`, and changes nothing, when there is no room
    /// for both. `PROTOCOL 4.4`.
    ///
    /// `offset` is left out where the frame continues the stream's last on the same lane. With `last`
    /// the data runs to the end of the body, the length is left out, and no frame may follow.
    #[inline]
    pub fn stream_header(
        &mut self,
        id: StreamId,
        offset: Option<u64>,
        fin: bool,
        len: usize,
        last: bool,
    ) -> bool {
        let header = StreamHeader::new(id, offset, fin, (!last).then_some(len));
        let word = header.word();
        let header_len = word.map_or_else(|| header.encoded_len(), |(_, used)| used);
        if !self.admits(header_len.saturating_add(len)) {
            return false;
        }
        match word {
            // A copy of fixed length is a move; one of `used` bytes would be a call.
            Some((word, used)) => {
                let end = self.out.small.len() + used;
                self.out.small.extend_from_slice(&word.to_be_bytes());
                self.out.small.truncate(end);
            }
            None => header.encode(&mut self.out.small),
        }
        self.owed = len;
        self.closed = last;
        true
    }

    /// Appends data that the last STREAM header promised. What goes beyond its length is left out.
    #[inline]
    pub fn data(&mut self, data: &[u8]) {
        debug_assert!(
            data.len() <= self.owed,
            "more data than the STREAM header promised"
        );
        let data = data.get(..self.owed).unwrap_or(data);
        self.out.small.extend_from_slice(data);
        self.owed -= data.len();
    }

    /// [`RecordBuilder::data`] that goes by reference from [`SHARE_THRESHOLD`] on.
    pub fn data_shared(&mut self, mut data: Bytes) {
        debug_assert!(
            data.len() <= self.owed,
            "more data than the STREAM header promised"
        );
        data.truncate(self.owed);
        self.owed -= data.len();
        self.out.append(data);
    }

    /// Asks the receiver for an acknowledgement at once. `PROTOCOL 3.1`.
    #[inline]
    pub fn set_ack_now(&mut self) {
        self.flags |= flag::ACK_NOW;
    }

    /// Ends the record and returns its length on the wire, in bytes.
    ///
    /// A record without frames, or with a STREAM frame that still misses data, is taken back: 0.
    #[inline]
    pub fn finish(mut self) -> usize {
        let body_len = self.body_len();
        debug_assert_eq!(self.owed, 0, "a STREAM frame still misses data");
        if body_len == 0 || self.owed != 0 {
            return 0;
        }
        self.seal(body_len)
    }

    /// [`RecordBuilder::finish`] with the body compressed, if that makes it shorter. `PROTOCOL 3.3`.
    pub fn finish_compressed(mut self, compressor: &mut Compressor) -> usize {
        let body_len = self.body_len();
        debug_assert_eq!(self.owed, 0, "a STREAM frame still misses data");
        if body_len == 0 || self.owed != 0 {
            return 0;
        }
        let body = self.mark + HEADER_LEN;
        let mut parts = self.out.slices_from(body, self.shared_mark);
        let first = parts.next().unwrap_or_default();
        let Some(block) = compressor.compress(body_len, first, parts) else {
            return self.seal(body_len);
        };
        self.out.shared.truncate(self.shared_mark);
        self.out.shared_len = self.shared_len_mark;
        self.out.small.truncate(body);
        self.out.small.extend_from_slice(block);
        self.flags |= flag::LZ4;
        self.seal(block.len())
    }

    /// Takes the record back. Dropping the builder does the same.
    pub fn cancel(self) {}

    /// Bytes that the record takes as it is: with its header and checksum, not compressed.
    pub(crate) fn wire_len(&self) -> usize {
        let crc = self.flags & flag::CRC != 0;
        HEADER_LEN + self.body_len() + if crc { CRC_LEN } else { 0 }
    }

    /// Writes header and checksum around a body of `body_len` bytes and keeps the record.
    #[inline]
    fn seal(&mut self, body_len: usize) -> usize {
        let crc = self.flags & flag::CRC != 0;
        let len = body_len + if crc { CRC_LEN } else { 0 };
        // At most 24 bits: `begin` bounds the body.
        let [_, high, middle, low] = (len as u32).to_be_bytes();
        if let Some(header) = self
            .out
            .small
            .get_mut(self.mark..)
            .and_then(|record| record.first_chunk_mut())
        {
            *header = [high, middle, low, self.flags];
        }
        if crc {
            let checksum = self.checksum();
            self.out.small.extend_from_slice(&checksum.to_le_bytes());
        }
        // From here on the record is part of what waits: the drop takes nothing back.
        self.mark = self.out.small.len();
        self.shared_mark = self.out.shared.len();
        self.shared_len_mark = self.out.shared_len;
        HEADER_LEN + len
    }

    #[inline]
    fn checksum(&self) -> u32 {
        if self.out.shared.len() == self.shared_mark {
            return crc::checksum(self.out.small.get(self.mark..).unwrap_or_default());
        }
        let mut checksum = crc::Checksum::new();
        self.out
            .slices_from(self.mark, self.shared_mark)
            .for_each(|slice| checksum.update(slice));
        checksum.finish()
    }
}

impl Drop for RecordBuilder<'_> {
    #[inline]
    fn drop(&mut self) {
        self.out.small.truncate(self.mark);
        if self.out.shared.len() != self.shared_mark {
            self.out.shared.truncate(self.shared_mark);
            self.out.shared_len = self.shared_len_mark;
        }
    }
}
