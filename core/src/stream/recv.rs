//! The receiving half of a stream.

use std::time::Duration;

use bytes::Bytes;

use super::assembler::{Assembler, Source};
use super::{MAX_OFFSET, StreamError, Window};
use crate::time::Timestamp;

/// A receiver remembers where the last frame of a stream ended on at most this many lanes.
pub const MAX_LANES: usize = 64;

/// No final size is known yet.
const UNKNOWN: u64 = u64::MAX;

/// What a frame brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inserted {
    /// By how much the highest offset grew: what the class's flow control has to count.
    pub growth: u64,
    /// Bytes that nobody will read and whose class credit goes back at once: those that arrive
    /// after [`RecvHalf::stop`] or a reset.
    pub released: u64,
    /// The application has something new to read: bytes, or the end.
    pub readable: bool,
    /// The frame brought nothing new.
    pub duplicate: bool,
}

/// What a peer's reset changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResetReceived {
    /// By how much the highest offset grew: what the class's flow control has to count.
    pub growth: u64,
    /// Bytes that nobody will read and whose class credit goes back, `growth` included.
    pub released: u64,
}

/// What a read gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read<T> {
    /// Bytes (or how many were copied).
    Data(T),
    /// The end: everything was read before.
    Finished,
    /// Nothing yet.
    Blocked,
    /// The peer gave the stream up, with this error code.
    Reset(u64),
    /// This side gave the stream up with [`RecvHalf::stop`].
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Reading,
    Stopped,
    Reset,
}

/// What few streams need.
#[derive(Debug, Default)]
struct Rare {
    reset_code: u64,
    /// Where the last frame ended, on lanes other than the latest.
    lanes: Vec<(u32, u64)>,
}

/// The receiving half of a stream: orders what arrives, within its window (PROTOCOL 7).
///
/// The session calls [`insert`](RecvHalf::insert) and [`reset`](RecvHalf::reset) with what frames
/// say, and [`poll_window_update`](RecvHalf::poll_window_update) after reads. The application reads
/// with [`read`](RecvHalf::read), [`read_into`](RecvHalf::read_into), [`peek`](RecvHalf::peek) and
/// [`skip`](RecvHalf::skip), or gives up with [`stop`](RecvHalf::stop).
///
/// # Memory
/// Small pieces are copied, large ones kept as slices of the block they arrived in; a slice is at
/// least a quarter of its block. However the peer cuts and orders its data, the half holds at most
/// 6 × the window + 64 KiB, and at most 3 × the window + 64 KiB without the parts of blocks that
/// slices pin, which [`pinned`](RecvHalf::pinned) tells and the window is charged with.
#[derive(Debug)]
pub struct RecvHalf {
    window: Window,
    assembler: Assembler,
    /// One past the highest byte that the peer has used.
    highest: u64,
    final_size: u64,
    /// Where the last frame on `lane` ended; 0 if there was none.
    lane_end: u64,
    lane: u32,
    mode: Mode,
    rare: Option<Box<Rare>>,
}

impl RecvHalf {
    /// A half that grants `window` bytes and may grow its window to `max_window`. Allocates nothing.
    #[inline]
    pub fn new(window: u64, max_window: u64) -> RecvHalf {
        RecvHalf {
            window: Window::new(window, max_window),
            assembler: Assembler::new(),
            highest: 0,
            final_size: UNKNOWN,
            lane_end: 0,
            lane: 0,
            mode: Mode::Reading,
            rare: None,
        }
    }

    /// Makes the window this large from its next update on ([`Window::expect`]).
    pub fn expect(&mut self, size: u64) {
        self.window.expect(size);
    }

    // ---- what frames say ----

    /// Takes the data of a STREAM frame; `fin` if the stream ends behind it.
    ///
    /// Of bytes that arrive twice the first are kept.
    ///
    /// # Errors
    /// [`StreamError::FlowControl`], [`StreamError::OffsetTooLarge`], and the three about final
    /// sizes. Nothing is changed then.
    #[inline]
    pub fn insert(
        &mut self,
        offset: u64,
        data: &[u8],
        fin: bool,
        source: Source<'_>,
    ) -> Result<Inserted, StreamError> {
        let len = data.len() as u64;
        // In order, nothing special: `highest` is at most 2^62, so this cannot overflow.
        if offset == self.highest
            && offset == self.assembler.end()
            && len <= self.window.limit().saturating_sub(offset)
            && len > 0
            && self.final_size == UNKNOWN
            && self.mode == Mode::Reading
        {
            self.highest = offset + len;
            if fin {
                self.final_size = self.highest;
            }
            self.assembler.push(data, source, fin);
            return Ok(Inserted {
                growth: len,
                released: 0,
                readable: true,
                duplicate: false,
            });
        }
        self.insert_slow(offset, data, fin, source)
    }

    fn insert_slow(
        &mut self,
        offset: u64,
        data: &[u8],
        fin: bool,
        source: Source<'_>,
    ) -> Result<Inserted, StreamError> {
        let end = self.check(offset, data.len() as u64)?;
        if fin {
            self.check_final_size(end)?;
        }
        let new_fin = fin && self.final_size == UNKNOWN;
        if new_fin {
            self.final_size = end;
        }
        let growth = end.saturating_sub(self.highest);
        self.highest += growth;
        if self.mode != Mode::Reading {
            self.window.on_consumed(growth);
            return Ok(Inserted {
                growth,
                released: growth,
                readable: false,
                duplicate: growth == 0 && !new_fin,
            });
        }
        let before = self.assembler.end();
        let mut added = 0;
        if end > before {
            let known = before.saturating_sub(offset);
            let rest = data.get(known as usize..).unwrap_or(&[]);
            added = self
                .assembler
                .insert(offset + known, rest, source, end == self.final_size);
        }
        let ended = new_fin && self.is_complete();
        Ok(Inserted {
            growth,
            released: 0,
            readable: self.assembler.end() > before || ended,
            duplicate: added == 0 && !new_fin,
        })
    }

    /// Checks a range against the limits; returns its end.
    fn check(&self, offset: u64, len: u64) -> Result<u64, StreamError> {
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= MAX_OFFSET)
            .ok_or(StreamError::OffsetTooLarge { offset, len })?;
        if self.final_size != UNKNOWN && end > self.final_size {
            return Err(StreamError::BeyondFinalSize {
                final_size: self.final_size,
                end,
            });
        }
        let limit = self.window.limit();
        if end > limit && !crate::canary!(CreditUnchecked) {
            return Err(StreamError::FlowControl { end, limit });
        }
        Ok(end)
    }

    fn check_final_size(&self, claimed: u64) -> Result<(), StreamError> {
        if self.final_size != UNKNOWN && self.final_size != claimed {
            return Err(StreamError::FinalSize {
                known: self.final_size,
                claimed,
            });
        }
        if claimed < self.highest {
            return Err(StreamError::FinalSizeTooSmall {
                final_size: claimed,
                highest: self.highest,
            });
        }
        Ok(())
    }

    /// Takes a RESET_STREAM frame: drops what is buffered.
    ///
    /// A stream whose end was already read is not disturbed by it.
    ///
    /// # Errors
    /// [`StreamError::FlowControl`], [`StreamError::OffsetTooLarge`], and the three about final
    /// sizes. Nothing is changed then.
    pub fn reset(&mut self, code: u64, final_size: u64) -> Result<ResetReceived, StreamError> {
        // A different size than the one known is that error first, whichever is larger.
        if self.final_size != UNKNOWN {
            self.check_final_size(final_size)?;
        }
        self.check(final_size, 0)?;
        self.check_final_size(final_size)?;
        // Judged by the end known before: a reset is no end, even where all that came was read.
        let done = self.mode == Mode::Reading && self.is_read();
        let growth = final_size - self.highest;
        self.highest = final_size;
        self.final_size = final_size;
        if done || self.mode == Mode::Reset {
            return Ok(ResetReceived {
                growth,
                released: growth,
            });
        }
        self.mode = Mode::Reset;
        self.rare.get_or_insert_default().reset_code = code;
        Ok(ResetReceived {
            growth,
            released: self.discard(),
        })
    }

    /// Gives the stream up: drops what is buffered and whatever still comes.
    ///
    /// Returns how many bytes nobody will read, whose class credit goes back. The session sends
    /// STOP_SENDING unless the stream [`is_settled`](RecvHalf::is_settled).
    pub fn stop(&mut self) -> u64 {
        if self.mode != Mode::Reading {
            return 0;
        }
        self.mode = Mode::Stopped;
        self.discard()
    }

    fn discard(&mut self) -> u64 {
        self.assembler.clear();
        let released = self.highest.saturating_sub(self.window.consumed());
        self.window.on_consumed(released);
        released
    }

    // ---- the application's side ----

    /// Takes up to `max` contiguous bytes, without copying where they came in a large piece.
    ///
    /// A small part of a large block is copied, so that holding on to it does not pin the block.
    #[inline]
    pub fn read(&mut self, max: usize) -> Read<Bytes> {
        if self.mode == Mode::Reading
            && max > 0
            && let Some(bytes) = self.assembler.read(max)
        {
            self.window.on_consumed(bytes.len() as u64);
            return Read::Data(bytes);
        }
        self.nothing(Bytes::new())
    }

    /// Takes all that is left, if the end has come and it lies in one piece; otherwise changes nothing.
    #[inline]
    pub fn read_last(&mut self) -> Option<Bytes> {
        if self.mode != Mode::Reading || !self.is_complete() {
            return None;
        }
        let bytes = self.assembler.read_only()?;
        self.window.on_consumed(bytes.len() as u64);
        debug_assert!(self.is_read(), "it was the only piece");
        Some(bytes)
    }

    /// Copies up to `out.len()` contiguous bytes; tells how many.
    #[inline]
    pub fn read_into(&mut self, out: &mut [u8]) -> Read<usize> {
        if self.mode == Mode::Reading {
            let n = self.assembler.read_into(out);
            if n > 0 {
                self.window.on_consumed(n as u64);
                return Read::Data(n);
            }
        }
        self.nothing(0)
    }

    /// What to say when nothing was taken; `empty` if that was because nothing was asked for.
    fn nothing<T>(&self, empty: T) -> Read<T> {
        match self.mode {
            Mode::Reset => Read::Reset(self.rare.as_ref().map_or(0, |rare| rare.reset_code)),
            Mode::Stopped => Read::Stopped,
            Mode::Reading if self.is_read() => Read::Finished,
            Mode::Reading if self.readable() > 0 => Read::Data(empty),
            Mode::Reading => Read::Blocked,
        }
    }

    /// The next bytes that lie in one buffer; empty if there are none.
    #[inline]
    pub fn peek(&self) -> &[u8] {
        self.assembler.peek()
    }

    /// Copies the next bytes without taking them; returns how many.
    pub fn peek_copy(&self, out: &mut [u8]) -> usize {
        self.assembler.peek_copy(out)
    }

    /// Drops up to `n` contiguous bytes as if they had been read; returns how many.
    #[inline]
    pub fn skip(&mut self, n: usize) -> usize {
        let n = self.assembler.skip(n);
        self.window.on_consumed(n as u64);
        n
    }

    // ---- credit ----

    /// The new limit for a MAX_STREAM_DATA frame, if it is time for one; see [`Window::update`].
    #[inline]
    pub fn poll_window_update(&mut self, now: Timestamp, rtt: Duration) -> Option<u64> {
        if !self.needs_window_update() {
            return None;
        }
        self.window.update(now, rtt, self.assembler.pinned())
    }

    /// Whether [`poll_window_update`](RecvHalf::poll_window_update) may have something to say.
    #[inline]
    pub fn needs_window_update(&self) -> bool {
        self.window.is_low() && self.final_size == UNKNOWN && self.mode == Mode::Reading
    }

    /// The window, for its figures.
    #[inline]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Memory that received slices keep beyond their own length.
    #[inline]
    pub fn pinned(&self) -> u64 {
        self.assembler.pinned()
    }

    // ---- questions ----

    /// Contiguous bytes that can be read.
    #[inline]
    pub fn readable(&self) -> u64 {
        self.assembler.end().saturating_sub(self.window.consumed())
    }

    /// All bytes below this offset have arrived.
    #[inline]
    pub fn contiguous_end(&self) -> u64 {
        self.assembler.end()
    }

    /// One past the highest byte that the peer has used.
    #[inline]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Bytes read, skipped or discarded.
    #[inline]
    pub fn consumed(&self) -> u64 {
        self.window.consumed()
    }

    /// Lets the peer send up to offset `limit`, however little was read; tells whether it could not
    /// before. Memory is then bounded by `limit` in place of the window.
    pub fn extend_window(&mut self, limit: u64) -> bool {
        self.window.extend_to(limit)
    }

    /// Where the stream ends, once that is known.
    #[inline]
    pub fn final_size(&self) -> Option<u64> {
        (self.final_size != UNKNOWN).then_some(self.final_size)
    }

    /// Whether everything up to the end has arrived.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.assembler.end() == self.final_size
    }

    /// Whether everything up to the end was read.
    #[inline]
    pub fn is_read(&self) -> bool {
        self.is_complete() && self.window.consumed() == self.final_size
    }

    /// Whether no further frame of the peer can change anything: the stream was reset, everything
    /// has arrived, or it was stopped and its end is known.
    ///
    /// The session may forget the half once this holds and the application let go of it.
    #[inline]
    pub fn is_settled(&self) -> bool {
        match self.mode {
            Mode::Reading => self.is_complete(),
            Mode::Reset => true,
            Mode::Stopped => self.final_size != UNKNOWN && self.highest == self.final_size,
        }
    }

    /// Whether this side gave the stream up.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.mode == Mode::Stopped
    }

    /// The peer's error code, if it gave the stream up.
    pub fn reset_code(&self) -> Option<u64> {
        let rare = self.rare.as_ref().filter(|_| self.mode == Mode::Reset)?;
        Some(rare.reset_code)
    }

    /// Whether bytes wait for others in front of them.
    #[inline]
    pub fn has_gaps(&self) -> bool {
        self.assembler.has_gaps()
    }

    /// Bytes of memory held beyond the half itself, blocks that slices pin included.
    pub fn memory_bytes(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| {
            size_of::<Rare>() + rare.lanes.capacity() * size_of::<(u32, u64)>()
        });
        self.assembler.memory_bytes() + rare
    }

    /// Frees what is kept for the next bytes, if nothing is buffered; for streams that fall idle.
    pub fn shrink(&mut self) {
        self.assembler.shrink();
    }

    // ---- lanes ----

    /// The offset that a STREAM frame without one has on this lane: where the last one there ended, or 0.
    #[inline]
    pub fn next_offset(&self, lane: u32) -> u64 {
        if lane == self.lane {
            return self.lane_end;
        }
        let lanes = self.rare.as_ref().map_or(&[][..], |rare| &rare.lanes);
        lanes
            .iter()
            .find(|entry| entry.0 == lane)
            .map_or(0, |entry| entry.1)
    }

    /// A frame that ends at `end` came over `lane`.
    ///
    /// # Errors
    /// [`StreamError::TooManyLanes`] beyond [`MAX_LANES`].
    #[inline]
    pub fn received_on(&mut self, lane: u32, end: u64) -> Result<(), StreamError> {
        if lane == self.lane || (self.lane_end == 0 && self.rare.is_none()) {
            self.lane = lane;
            self.lane_end = end;
            return Ok(());
        }
        self.change_lane(lane, end)
    }

    fn change_lane(&mut self, lane: u32, end: u64) -> Result<(), StreamError> {
        let lanes = &mut self.rare.get_or_insert_default().lanes;
        let last = (self.lane, self.lane_end);
        match lanes.iter().position(|entry| entry.0 == lane) {
            Some(at) => {
                lanes.swap_remove(at);
            }
            None if lanes.len() + 1 >= MAX_LANES => {
                return Err(StreamError::TooManyLanes { limit: MAX_LANES });
            }
            None => {}
        }
        if last.1 > 0 {
            lanes.push(last);
        }
        self.lane = lane;
        self.lane_end = end;
        Ok(())
    }

    /// Forgets the lanes for which `keep` says no: those of paths that are gone.
    pub fn forget_lanes(&mut self, keep: impl Fn(u32) -> bool) {
        if let Some(rare) = &mut self.rare {
            rare.lanes.retain(|entry| keep(entry.0));
        }
        if !keep(self.lane) {
            self.lane_end = 0;
        }
    }
}
