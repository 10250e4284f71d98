//! Byte streams as handles.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use sheetbend_core::session::{Progress, Read, ReadInto, StreamError, StreamKey};
use sheetbend_core::wire::StreamId;

use crate::shared::{Owner, store};

/// The sending half of a stream.
///
/// Dropping it unfinished resets the stream; finished, everything written is still delivered.
pub struct SendStream {
    owner: Arc<Owner>,
    key: StreamKey,
}

/// The receiving half of a stream. Dropping it before the end asks the peer to stop.
pub struct RecvStream {
    owner: Arc<Owner>,
    key: StreamKey,
}

/// A stream with both directions.
pub struct BiStream {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

/// Why [`RecvStream::read_to_end`] gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadToEndError {
    /// The stream is longer than the limit given.
    #[error("the stream is longer than {0} bytes")]
    TooLong(usize),
    /// The stream failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// What the IO traits say for a stream's error.
pub(crate) fn io_error(error: StreamError) -> io::Error {
    let kind = match error {
        StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
        StreamError::Stopped(_) | StreamError::Finished | StreamError::ResetLocally => {
            io::ErrorKind::BrokenPipe
        }
        StreamError::SessionEnded => io::ErrorKind::ConnectionAborted,
        StreamError::Unknown => io::ErrorKind::NotConnected,
    };
    io::Error::new(kind, error)
}

impl SendStream {
    pub(crate) fn new(owner: Arc<Owner>, key: StreamKey) -> SendStream {
        SendStream { owner, key }
    }

    /// The stream's id on the wire; `None` once the session forgot it.
    pub fn id(&self) -> Option<StreamId> {
        self.owner.0.lock().core.stream_id(self.key)
    }

    /// Copies bytes into the stream, as many as there is room for, at least one of a non-empty slice.
    ///
    /// # Errors
    /// When the stream was finished, stopped by the peer, or the session ended.
    pub fn poll_write_some(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, StreamError>> {
        let mut state = self.owner.0.lock();
        match state.core.write(self.key, data) {
            Ok(0) if !data.is_empty() => {
                store(&mut state.slot(self.key).write, cx);
                state.unchanged();
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }

    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        let mut state = self.owner.0.lock();
        while !data.is_empty() {
            if state.core.write_bytes(self.key, data)? == 0 {
                store(&mut state.slot(self.key).write, cx);
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything, waiting for room.
    ///
    /// # Errors
    /// As [`SendStream::poll_write_some`].
    pub async fn write_all(&mut self, mut data: &[u8]) -> Result<(), StreamError> {
        while !data.is_empty() {
            let count = poll_fn(|cx| self.poll_write_some(cx, data)).await?;
            data = &data[count..];
        }
        Ok(())
    }

    /// Writes a chunk without copying it, waiting for room.
    ///
    /// # Errors
    /// As [`SendStream::poll_write_some`].
    pub async fn write_chunk(&mut self, chunk: impl Into<Bytes>) -> Result<(), StreamError> {
        let mut chunk = chunk.into();
        poll_fn(|cx| self.poll_write_bytes(cx, &mut chunk)).await
    }

    /// Ends the stream after what was written. Does not wait: see [`SendStream::acknowledged`].
    ///
    /// # Errors
    /// When it was finished or reset before.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.owner.0.lock().core.finish(self.key)
    }

    /// Gives the stream up: what was not delivered is dropped, and the peer reads `code`.
    ///
    /// # Errors
    /// When it was reset before.
    pub fn reset(&mut self, code: u64) -> Result<(), StreamError> {
        self.owner.0.lock().core.reset(self.key, code)
    }

    /// Moves the stream to another urgency, 0 first and 7 last.
    ///
    /// # Errors
    /// When the session forgot the stream.
    pub fn set_urgency(&mut self, urgency: u8) -> Result<(), StreamError> {
        self.owner.0.lock().core.set_urgency(self.key, urgency)
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.owner
            .0
            .lock()
            .core
            .send_progress(self.key)
            .unwrap_or_default()
    }

    /// Waits until the peer's session has everything that was written, and the end.
    ///
    /// # Errors
    /// When the stream was stopped or reset, or the session ended; [`SendStream::progress`] tells how
    /// much was acknowledged.
    pub async fn acknowledged(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| {
            let mut state = self.owner.0.lock();
            let state = state.quiet();
            let Some(progress) = state.core.send_progress(self.key) else {
                return Poll::Ready(Err(StreamError::Unknown));
            };
            if progress.complete {
                return Poll::Ready(Ok(()));
            }
            // Writing nothing tells what stands in the way; a stream that was only finished is on its way.
            match state.core.write(self.key, &[]) {
                Ok(_) | Err(StreamError::Finished) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if state.core.state().is_terminal() {
                return Poll::Ready(Err(StreamError::SessionEnded));
            }
            store(&mut state.slot(self.key).progress, cx);
            Poll::Pending
        })
        .await
    }

    /// Waits until the peer wants no more: its code, or `None` when all was delivered.
    ///
    /// # Errors
    /// When the session ended first.
    pub async fn stopped(&mut self) -> Result<Option<u64>, StreamError> {
        match self.acknowledged().await {
            Ok(()) => Ok(None),
            Err(StreamError::Stopped(code)) => Ok(Some(code)),
            Err(error) => Err(error),
        }
    }

    /// Finishes if need be: what closing a writer means in the IO traits.
    pub(crate) fn poll_finish(&mut self) -> Poll<io::Result<()>> {
        match self.finish() {
            Ok(()) | Err(StreamError::Finished) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.owner.0.lock().core.release_send(self.key);
    }
}

impl RecvStream {
    pub(crate) fn new(owner: Arc<Owner>, key: StreamKey) -> RecvStream {
        RecvStream { owner, key }
    }

    /// The stream's id on the wire; `None` once the session forgot it.
    pub fn id(&self) -> Option<StreamId> {
        self.owner.0.lock().core.stream_id(self.key)
    }

    /// Copies the next bytes into `buffer`; 0 is the end.
    ///
    /// # Errors
    /// When the peer reset the stream or the session ended.
    pub fn poll_read_some(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, StreamError>> {
        let now = self.owner.0.runtime.now();
        let mut state = self.owner.0.lock();
        match state.core.read_into(now, self.key, buffer)? {
            ReadInto::Copied(count) => Poll::Ready(Ok(count)),
            ReadInto::Finished => Poll::Ready(Ok(0)),
            ReadInto::Blocked => {
                store(&mut state.slot(self.key).read, cx);
                state.unchanged();
                Poll::Pending
            }
        }
    }

    fn poll_read_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let now = self.owner.0.runtime.now();
        let mut state = self.owner.0.lock();
        match state.core.read(now, self.key, max)? {
            Read::Data(data) => Poll::Ready(Ok(Some(data))),
            Read::Finished => Poll::Ready(Ok(None)),
            Read::Blocked => {
                store(&mut state.slot(self.key).read, cx);
                state.unchanged();
                Poll::Pending
            }
        }
    }

    /// Reads some bytes into `buffer`; 0 is the end.
    ///
    /// # Errors
    /// As [`RecvStream::poll_read_some`].
    pub async fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        poll_fn(|cx| self.poll_read_some(cx, buffer)).await
    }

    /// The next bytes, at most `max`, without copying; `None` at the end.
    ///
    /// # Errors
    /// As [`RecvStream::poll_read_some`].
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_read_chunk(cx, max)).await
    }

    /// Everything up to the end of the stream.
    ///
    /// # Errors
    /// When there is more than `limit`, the peer reset the stream, or the session ended.
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Bytes, ReadToEndError> {
        let mut all = BytesMut::new();
        let Some(first) = self.read_chunk(usize::MAX).await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.read_chunk(usize::MAX).await? else {
            return if first.len() > limit {
                Err(ReadToEndError::TooLong(limit))
            } else {
                Ok(first)
            };
        };
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        while all.len() <= limit {
            match self.read_chunk(usize::MAX).await? {
                Some(chunk) => all.extend_from_slice(&chunk),
                None => return Ok(all.freeze()),
            }
        }
        Err(ReadToEndError::TooLong(limit))
    }

    /// Asks the peer to send no more; what came and was not read is dropped.
    ///
    /// # Errors
    /// When the session forgot the stream.
    pub fn stop(&mut self, code: u64) -> Result<(), StreamError> {
        self.owner.0.lock().core.stop_sending(self.key, code)
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.owner.0.lock().core.release_recv(self.key);
    }
}

impl BiStream {
    pub(crate) fn new(owner: Arc<Owner>, key: StreamKey) -> BiStream {
        BiStream {
            send: SendStream::new(owner.clone(), key),
            recv: RecvStream::new(owner, key),
        }
    }

    /// Both halves, to be used apart.
    pub fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }

    /// The sending half.
    pub fn send(&mut self) -> &mut SendStream {
        &mut self.send
    }

    /// The receiving half.
    pub fn recv(&mut self) -> &mut RecvStream {
        &mut self.recv
    }

    /// See [`SendStream::write_all`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_all(&mut self, data: &[u8]) -> Result<(), StreamError> {
        self.send.write_all(data).await
    }

    /// See [`SendStream::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.send.finish()
    }

    /// See [`RecvStream::read_chunk`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        self.recv.read_chunk(max).await
    }

    /// See [`RecvStream::read_to_end`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Bytes, ReadToEndError> {
        self.recv.read_to_end(limit).await
    }
}

pub(crate) fn poll_read_io(
    stream: &mut RecvStream,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    Poll::Ready(ready!(stream.poll_read_some(cx, buffer)).map_err(io_error))
}

pub(crate) fn poll_write_io(
    stream: &mut SendStream,
    cx: &mut Context<'_>,
    data: &[u8],
) -> Poll<io::Result<usize>> {
    Poll::Ready(ready!(stream.poll_write_some(cx, data)).map_err(io_error))
}
