//! How the application reads streams.

use std::time::Duration;

use bytes::Bytes;

use super::Session;
use super::error::StreamError;
use super::event::Event;
use super::keys::StreamKey;
use super::streams::Flags;
use crate::stream::{Read as HalfRead, RecvHalf};
use crate::time::Timestamp;
use crate::wire::Class;

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes.
    Data(Bytes),
    /// Nothing yet; [`Event::Readable`] tells when to ask again.
    Blocked,
    /// The end of the stream.
    Finished,
}

/// What a read into a buffer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadInto {
    /// This many bytes were copied, at least one.
    Copied(usize),
    /// Nothing yet; [`Event::Readable`] tells when to ask again.
    Blocked,
    /// The end of the stream.
    Finished,
}

impl Session {
    /// Takes the next bytes, at most `max`.
    pub fn read(&mut self, now: Timestamp, key: StreamKey, max: usize) -> Result<Read, StreamError> {
        let ended = self.state.is_terminal();
        let stream = self.streams.get_mut(key).ok_or(StreamError::Unknown)?;
        let recv = stream.recv.as_mut().ok_or(StreamError::Unknown)?;
        if stream.flags.has(Flags::STOPPING) {
            return Err(StreamError::Finished);
        }
        match recv.read(max) {
            HalfRead::Data(data) => {
                let taken = data.len() as u64;
                self.after_read(now, key, taken);
                Ok(Read::Data(data))
            }
            HalfRead::Blocked if ended => Err(StreamError::SessionEnded),
            HalfRead::Blocked => {
                stream.flags.set(Flags::READ_BLOCKED);
                Ok(Read::Blocked)
            }
            HalfRead::Finished => {
                stream.flags.set(Flags::RECV_DONE);
                Ok(Read::Finished)
            }
            HalfRead::Stopped => Err(StreamError::Finished),
            HalfRead::Reset(code) => {
                stream.flags.set(Flags::RECV_DONE);
                Err(StreamError::Reset(code))
            }
        }
    }

    /// Takes all that is left of the stream, if its end has come and all of it lies in one piece. Otherwise
    /// nothing is changed, and [`Session::read`] tells more.
    pub fn read_last(&mut self, now: Timestamp, key: StreamKey) -> Option<Bytes> {
        let stream = self.streams.get_mut(key)?;
        if stream.flags.has(Flags::STOPPING) {
            return None;
        }
        let data = stream.recv.as_mut()?.read_last()?;
        stream.flags.set(Flags::RECV_DONE);
        let class = stream.id.class();
        self.credit_read(now, class, data.len() as u64);
        Some(data)
    }

    /// Class credit for the peer, after the application took bytes.
    #[inline]
    fn credit_read(&mut self, now: Timestamp, class: Class, taken: u64) {
        let state = self.classes.at(class.index());
        state.consume(taken);
        if state.window.is_low() || state.partial > 0 {
            let rtt = self.best_rtt();
            self.update_class(now, class, rtt);
        }
    }

    /// Asks for [`Event::Readable`] without reading: at once, if there is something to read.
    pub fn watch(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.flags.set(Flags::READ_BLOCKED);
        let some = stream
            .recv
            .as_ref()
            .is_some_and(|recv| recv.readable() > 0 || recv.is_settled());
        if some && stream.flags.take(Flags::READ_BLOCKED) {
            self.events.push_back(Event::Readable(key));
        }
    }

    /// Copies the next bytes into `buffer`.
    pub fn read_into(
        &mut self,
        now: Timestamp,
        key: StreamKey,
        buffer: &mut [u8],
    ) -> Result<ReadInto, StreamError> {
        if buffer.is_empty() {
            return Ok(ReadInto::Copied(0));
        }
        let copied = match self.streams.get_mut(key).and_then(|stream| {
            if stream.flags.has(Flags::STOPPING) {
                None
            } else {
                stream.recv.as_mut()
            }
        }) {
            Some(recv) => match recv.read_into(buffer) {
                HalfRead::Data(copied) => copied,
                _ => 0,
            },
            None => 0,
        };
        if copied > 0 {
            self.after_read(now, key, copied as u64);
            return Ok(ReadInto::Copied(copied));
        }
        match self.read(now, key, buffer.len())? {
            Read::Data(data) => {
                // `read_into` found nothing, so this cannot be; the bytes are kept all the same.
                buffer[..data.len()].copy_from_slice(&data);
                Ok(ReadInto::Copied(data.len()))
            }
            Read::Blocked => Ok(ReadInto::Blocked),
            Read::Finished => Ok(ReadInto::Finished),
        }
    }

    /// Credit for the peer, after the application took bytes.
    pub(super) fn after_read(&mut self, now: Timestamp, key: StreamKey, taken: u64) {
        let low = self
            .streams
            .get(key)
            .and_then(|stream| stream.recv.as_ref())
            .is_some_and(RecvHalf::needs_window_update);
        let rtt = if low { self.best_rtt() } else { Duration::ZERO };
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let class = stream.id.class();
        if low
            && let Some(recv) = stream.recv.as_mut()
            && recv.poll_window_update(now, rtt).is_some()
            && recv.final_size().is_none()
        {
            stream.flags.set(Flags::CREDIT_DUE);
            let size = recv.window().size();
            self.classes.at(class.index()).note_stream_window(size);
            self.queue_control(key.slot);
        }
        self.credit_read(now, class, taken);
    }
}
