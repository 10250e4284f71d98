//! Positions: what makes exchanges that come, break and are repeated one sequence of bytes. PROTOCOL 14.7.
//!
//! Each direction of a path is a sequence of bytes, counted from 0. Every exchange says at which position it
//! begins, so that what came twice is dropped, what was lost is sent again, and a gap ends the path.

use std::io::IoSlice;

use bytes::{Buf, BytesMut};

/// What cannot be in a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// Bytes before those that came are missing.
    #[error("bytes are missing before those that came")]
    Gap,
    /// A position that was never sent, or is behind one that was said to have come.
    #[error("a position that cannot be")]
    Position,
}

/// One direction, at its sender: what the peer is not known to have.
#[derive(Debug)]
pub struct Outgoing {
    /// The position of the first byte in `kept`.
    acked: u64,
    kept: BytesMut,
    limit: usize,
}

impl Outgoing {
    /// Keeps at most `limit` bytes.
    pub fn new(limit: usize) -> Outgoing {
        Outgoing {
            acked: 0,
            kept: BytesMut::new(),
            limit,
        }
    }

    /// How many bytes may be written.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.kept.len())
    }

    /// Takes bytes in, as many as there is room for, and tells how many.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> usize {
        let mut room = self.room();
        let before = room;
        for slice in slices {
            let count = slice.len().min(room);
            self.kept.extend_from_slice(&slice[..count]);
            room -= count;
        }
        before - room
    }

    /// The position up to which the peer has all.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// The position behind the last byte.
    pub fn end(&self) -> u64 {
        self.acked + self.kept.len() as u64
    }

    /// The bytes from a position on that are not known to have come.
    pub fn from(&self, position: u64) -> &[u8] {
        let skip = usize::try_from(position.saturating_sub(self.acked)).unwrap_or(usize::MAX);
        self.kept.get(skip..).unwrap_or_default()
    }

    /// The peer has all up to `position`, and tells whether that is news.
    ///
    /// # Errors
    /// So much was never sent.
    pub fn acknowledge(&mut self, position: u64) -> Result<bool, SequenceError> {
        if position > self.end() {
            return Err(SequenceError::Position);
        }
        let Some(count) = position.checked_sub(self.acked).filter(|count| *count > 0) else {
            return Ok(false);
        };
        // Not above the length of `kept`.
        self.kept.advance(count as usize);
        self.acked = position;
        if self.kept.is_empty() {
            self.kept.clear();
        }
        Ok(true)
    }

    /// Gives back memory that nothing lies in.
    pub fn shrink(&mut self) {
        if self.kept.is_empty() {
            self.kept = BytesMut::new();
        }
    }
}

/// One direction, at its receiver: what came and was not taken.
#[derive(Debug, Default)]
pub struct Incoming {
    received: u64,
    waiting: BytesMut,
}

impl Incoming {
    /// The position up to which all has come.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes in what came at a position, and drops what had come before.
    ///
    /// # Errors
    /// [`SequenceError::Gap`].
    pub fn accept(&mut self, position: u64, bytes: &[u8]) -> Result<(), SequenceError> {
        let known = self.received.checked_sub(position).ok_or(SequenceError::Gap)?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let Some(fresh) = bytes.get(known..) else {
            return Ok(());
        };
        self.waiting.extend_from_slice(fresh);
        self.received += fresh.len() as u64;
        Ok(())
    }

    /// What came and was not taken.
    pub fn waiting(&mut self) -> &mut BytesMut {
        &mut self.waiting
    }

    /// Bytes that came and were not taken.
    pub fn held(&self) -> usize {
        self.waiting.len()
    }

    /// Gives back memory that nothing lies in.
    pub fn shrink(&mut self) {
        if self.waiting.is_empty() {
            self.waiting = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_twice_is_dropped_and_a_gap_is_seen() {
        let mut incoming = Incoming::default();
        incoming.accept(0, b"abc").unwrap();
        incoming.accept(0, b"abc").unwrap();
        incoming.accept(1, b"bcde").unwrap();
        incoming.accept(2, b"").unwrap();
        assert_eq!(incoming.accept(6, b"x"), Err(SequenceError::Gap));
        assert_eq!(incoming.received(), 5);
        assert_eq!(&incoming.waiting()[..], b"abcde");
    }

    #[test]
    fn what_is_not_acknowledged_is_kept() {
        let mut outgoing = Outgoing::new(6);
        assert_eq!(outgoing.write(&[IoSlice::new(b"abc"), IoSlice::new(b"defg")]), 6);
        assert_eq!(outgoing.write(&[IoSlice::new(b"x")]), 0);
        assert_eq!(outgoing.acknowledge(7), Err(SequenceError::Position));
        assert_eq!(outgoing.acknowledge(2), Ok(true));
        assert_eq!(outgoing.acknowledge(1), Ok(false));
        assert_eq!(
            (outgoing.from(0), outgoing.from(4), outgoing.from(9)),
            (&b"cdef"[..], &b"ef"[..], &b""[..])
        );
        assert_eq!((outgoing.acked(), outgoing.end(), outgoing.room()), (2, 6, 2));
    }
}
