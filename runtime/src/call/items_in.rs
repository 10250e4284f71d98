//! Items of a request, as its handler reads them.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use sheetbend_core::request::{Code, Failure, ItemError, ItemReader, Piece, ResetCode};
use sheetbend_core::session::{Read, StreamError, StreamKey};

use crate::shared::{Owner, store};

/// The next of what came on a stream.
pub(super) fn poll_read(
    owner: &Owner,
    key: StreamKey,
    cx: &mut Task<'_>,
) -> Poll<Result<Option<Bytes>, StreamError>> {
    let now = owner.0.runtime.now();
    let mut state = owner.0.lock();
    match state.core.read(now, key, usize::MAX)? {
        Read::Data(data) => Poll::Ready(Ok(Some(data))),
        Read::Finished => Poll::Ready(Ok(None)),
        Read::Blocked => {
            store(&mut state.slot(key).read, cx);
            state.unchanged();
            Poll::Pending
        }
    }
}

/// The items of a request, as its handler reads them. Dropping it tells the caller that it needs to send no
/// more; the answer goes on.
pub struct Items {
    owner: Arc<Owner>,
    key: StreamKey,
    reader: ItemReader,
    /// What [`Items::next_slice`] shows where it did not come in one piece.
    shown: Bytes,
    finished: bool,
    failed: Option<Failure>,
}

impl Items {
    /// Of a request whose first bytes were read.
    pub(crate) fn new(owner: Arc<Owner>, key: StreamKey, first: Bytes, finished: bool) -> Items {
        let max = owner.0.lock().quiet().limits.max_request;
        let mut reader = ItemReader::new(max);
        reader.push(first);
        Items {
            owner,
            key,
            reader,
            shown: Bytes::new(),
            finished,
            failed: None,
        }
    }

    /// The next item; `None` after the last.
    ///
    /// # Errors
    /// What to answer when the items cannot be read on: the caller broke the rules, or gave the call up.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(failure) = &self.failed {
                return Err(failure.clone());
            }
            let failure = match self.reader.next() {
                Ok(Some(Piece::Item(item))) => return Ok(Some(item)),
                Ok(Some(Piece::EndMark)) => ItemError::EndMark.failure(),
                Ok(None) if self.finished => match self.reader.finish() {
                    Ok(()) => return Ok(None),
                    Err(error) => error.failure(),
                },
                Ok(None) => match poll_fn(|cx| poll_read(&self.owner, self.key, cx)).await {
                    Ok(Some(data)) => {
                        self.reader.push(data);
                        continue;
                    }
                    Ok(None) => {
                        self.finished = true;
                        continue;
                    }
                    Err(StreamError::Reset(code)) => ResetCode::from_value(code).failure(),
                    Err(error) => Failure::new(Code::Cancelled, error.to_string()),
                },
                Err(error) => error.failure(),
            };
            self.failed = Some(failure);
        }
    }

    /// [`next`](Self::next) that shows an item where it lies, until the next is asked for. Of many small ones each
    /// costs a good deal less so.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub async fn next_slice(&mut self) -> Result<Option<&[u8]>, Failure> {
        if self.failed.is_none() && self.reader.step() {
            return Ok(Some(self.reader.item()));
        }
        // Whoever waits keeps no block of what was read.
        self.shown = Bytes::new();
        match self.next().await? {
            Some(item) => {
                self.shown = item;
                Ok(Some(&self.shown[..]))
            }
            None => Ok(None),
        }
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        let mut state = self.owner.0.lock();
        if !self.finished {
            let code = ResetCode::Enough.value();
            let _: Result<(), StreamError> = state.core.stop_sending(self.key, code);
        }
        state.core.release_recv(self.key);
    }
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("stream", &self.key).finish()
    }
}
