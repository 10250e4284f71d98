//! Items of streaming calls, as they are sent, and as they come in an answer.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use sheetbend_core::request::reader::Limits;
use sheetbend_core::request::{
    AnswerPart, AnswerReader, CallError, CallKind, Cause, Failure, Metadata, Reason, ResetCode, Sent,
    put_end, put_failure, put_item_head, put_success,
};
use sheetbend_core::session::{StreamError, StreamKey};
use sheetbend_core::time::Timestamp;

use crate::dispatch::{Parts, Then};
use crate::shared::{Owner, State, store};

use super::items_in::poll_read;
use super::reply::Reply;

/// Items below this are copied, so that many go in one piece.
const COPIED: usize = 2048;
/// So much is gathered by [`ItemSender::feed`] before it goes on.
const GATHERED: usize = 16 * 1024;
/// What was gathered goes by reference from here on.
const SHARED: usize = GATHERED / 4;
/// So much goes to the stream before other tasks have a turn: what is sent meanwhile is still in the cache.
const BURST: usize = 64 * 1024;
/// The length before an item takes this much at most.
const LONGEST_HEAD: usize = 9;

/// A stream that was opened for a call, and is given up if it goes no further.
pub(crate) struct Opened {
    owner: Arc<Owner>,
    key: StreamKey,
    kind: CallKind,
    deadline: Option<Timestamp>,
    begun: bool,
}

impl Opened {
    pub(crate) fn new(
        owner: Arc<Owner>,
        key: StreamKey,
        kind: CallKind,
        deadline: Option<Timestamp>,
    ) -> Opened {
        Opened {
            owner,
            key,
            kind,
            deadline,
            begun: false,
        }
    }

    /// Writes the head, which may define a method's number, and for a request of one payload all of it.
    pub(crate) fn begin(
        mut self,
        head: &[u8],
        defines: Option<u32>,
        payload: Option<Bytes>,
    ) -> (ItemSender, Answers) {
        self.begun = true;
        let (key, whole) = (self.key, payload.is_some());
        let max = {
            let mut state = self.owner.0.lock();
            let then = if whole { Then::Finish } else { Then::Wait };
            let count = state.core.write(key, head).unwrap_or(0);
            state.write_on(key, Parts::new(&head[count..], payload), then);
            if let Some(at) = self.deadline {
                state.carried.set_stream_due(key, at);
            }
            state.limits.max_request
        };
        let limits = Limits {
            max_payload: max,
            max_item: max,
        };
        let mut sender = ItemSender::new(self.owner.clone(), key, End::Caller);
        sender.finished = whole;
        let answers = Answers {
            owner: self.owner.clone(),
            key,
            kind: self.kind,
            deadline: self.deadline,
            defines,
            reader: AnswerReader::new(self.kind, limits),
            metadata: Metadata::new(),
            trailers: Metadata::new(),
            shown: Bytes::new(),
            ended: None,
        };
        (sender, answers)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.begun {
            self.owner.0.lock().core.release(self.key);
        }
    }
}

/// Whose items they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// A request's: they end with the handle, and dropping it unfinished gives the call up.
    Caller,
    /// An answer's: whoever runs the handler ends them.
    Callee {
        /// The head of the answer was written.
        begun: bool,
    },
}

/// Sends the items of a request, or of an answer.
///
/// At the caller, [`finish`](Self::finish) ends them; dropping it before gives the call up. At the callee they
/// end when the handler returns.
pub struct ItemSender {
    owner: Arc<Owner>,
    key: StreamKey,
    end: End,
    finished: bool,
    /// Items, as they travel, that were not handed to the stream.
    gathered: Vec<u8>,
    /// Bytes that were handed to the stream since other tasks had a turn.
    burst: usize,
}

impl ItemSender {
    fn new(owner: Arc<Owner>, key: StreamKey, end: End) -> ItemSender {
        ItemSender {
            owner,
            key,
            end,
            finished: false,
            gathered: Vec::new(),
            burst: 0,
        }
    }

    /// For the items of an answer.
    pub(crate) fn of_answer(owner: Arc<Owner>, key: StreamKey) -> ItemSender {
        ItemSender::new(owner, key, End::Callee { begun: false })
    }

    /// Keys and values that go before the first item of an answer. Too late after that, and of no use at the
    /// caller.
    pub fn set_metadata(&mut self, metadata: &Metadata) {
        if let End::Callee { begun: begun @ false } = &mut self.end {
            *begun = true;
            put_success(&mut self.gathered, metadata);
        }
    }

    /// Sends an item, waiting while the peer gives no credit. If this is dropped before it is done, the item
    /// is sent later, whole, or not at all.
    ///
    /// # Errors
    /// When the peer wants no more, the call's time is over, or the session has ended. At the caller,
    /// [`Answers::next`] tells why.
    pub async fn send(&mut self, item: impl Into<Bytes>) -> Result<(), StreamError> {
        self.feed(item).await?;
        self.flush().await
    }

    /// Sends an item, perhaps together with those that follow: see [`flush`](Self::flush).
    ///
    /// # Errors
    /// As [`ItemSender::send`].
    pub async fn feed(&mut self, item: impl Into<Bytes>) -> Result<(), StreamError> {
        if self.finished {
            return Err(StreamError::Finished);
        }
        let mut item = item.into();
        if item.len() < COPIED {
            return self.feed_slice(&item).await;
        }
        poll_fn(|cx| self.poll_write(cx, &mut item)).await
    }

    /// [`feed`](Self::feed) of bytes that the caller keeps: they are copied, and a small item costs no allocation.
    ///
    /// # Errors
    /// As [`ItemSender::send`].
    #[inline]
    pub async fn feed_slice(&mut self, item: &[u8]) -> Result<(), StreamError> {
        if self.gather(item) {
            return Ok(());
        }
        self.feed_next(item).await
    }

    /// Feeds all items of an iterator, one after the other, and [flushes](Self::flush) them.
    ///
    /// # Errors
    /// As [`ItemSender::send`].
    pub async fn feed_all<T: AsRef<[u8]>>(
        &mut self,
        items: impl IntoIterator<Item = T>,
    ) -> Result<(), StreamError> {
        let mut items = items.into_iter();
        while let Some(item) = items.find(|item| !self.gather(item.as_ref())) {
            self.feed_next(item.as_ref()).await?;
        }
        self.flush().await
    }

    /// Gathers a small item, if there is room for it.
    #[inline]
    fn gather(&mut self, item: &[u8]) -> bool {
        let longest = self.gathered.len() + LONGEST_HEAD + item.len();
        if longest > GATHERED || item.len() >= COPIED || self.finished {
            return false;
        }
        put_head(&mut self.end, &mut self.gathered, item.len());
        self.gathered.extend_from_slice(item);
        true
    }

    /// Feeds an item for which there is no room among those gathered, or that is not small.
    async fn feed_next(&mut self, item: &[u8]) -> Result<(), StreamError> {
        if self.finished {
            return Err(StreamError::Finished);
        }
        self.burst += self.gathered.len();
        self.flush().await?;
        if self.burst >= BURST {
            self.burst = 0;
            take_turns().await;
        }
        if self.gather(item) {
            return Ok(());
        }
        let mut item = Bytes::copy_from_slice(item);
        poll_fn(|cx| self.poll_write(cx, &mut item)).await
    }

    /// Sends what was fed.
    ///
    /// # Errors
    /// As [`ItemSender::send`].
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        poll_fn(|cx| self.poll_write(cx, &mut Bytes::new())).await
    }

    /// Hands what was gathered, and an item behind it unless it is empty, to the stream, or to the driver for when
    /// there is credit; waits as long as that has something left from before. Whoever stops waiting leaves no part of
    /// the item behind.
    fn poll_write(&mut self, cx: &mut Task<'_>, item: &mut Bytes) -> Poll<Result<(), StreamError>> {
        let mut state = self.owner.0.lock();
        if state.is_writing(self.key) {
            store(&mut state.slot(self.key).write, cx);
            state.unchanged();
            return Poll::Pending;
        }
        if !item.is_empty() {
            put_head(&mut self.end, &mut self.gathered, item.len());
        }
        if self.gathered.len() >= SHARED {
            // There are many: what was gathered goes as it is, and the next have a place of the same size.
            let next = Vec::with_capacity(GATHERED);
            let mut gathered = Bytes::from(std::mem::replace(&mut self.gathered, next));
            state.core.write_bytes(self.key, &mut gathered)?;
            if !gathered.is_empty() || !item.is_empty() {
                let parts = Parts([gathered, std::mem::take(item), Bytes::new()]);
                state.write_on(self.key, parts, Then::Wait);
            }
            return Poll::Ready(Ok(()));
        }
        let count = state.core.write(self.key, &self.gathered)?;
        if count < self.gathered.len() || !item.is_empty() {
            let parts = Parts::new(&self.gathered[count..], Some(std::mem::take(item)));
            state.write_on(self.key, parts, Then::Wait);
        }
        self.gathered.clear();
        Poll::Ready(Ok(()))
    }

    /// There are no more items. Does not wait: what is on its way goes as the peer gives credit.
    pub fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            let gathered = std::mem::take(&mut self.gathered);
            self.owner.0.lock().write_end(self.key, &gathered, Then::Finish);
        }
    }
}

/// Lets the tasks run that wait for it, the driver for one.
async fn take_turns() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The head of an item, and before the first one of an answer that of the answer.
#[inline]
fn put_head(end: &mut End, gathered: &mut Vec<u8>, len: usize) {
    if let End::Callee { begun: begun @ false } = end {
        *begun = true;
        put_success(gathered, &Metadata::new());
    }
    put_item_head(gathered, len);
}

impl Drop for ItemSender {
    fn drop(&mut self) {
        match self.end {
            End::Caller => self.owner.0.lock().release_writing(self.key),
            End::Callee { .. } if self.gathered.is_empty() => {}
            End::Callee { .. } => {
                let gathered = std::mem::take(&mut self.gathered);
                self.owner.0.lock().write_end(self.key, &gathered, Then::Wait);
            }
        }
    }
}

impl fmt::Debug for ItemSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemSender").field("stream", &self.key).finish()
    }
}

impl State {
    /// Writes the last of what a handle has, behind what still waits for credit.
    fn write_end(&mut self, key: StreamKey, bytes: &[u8], then: Then) {
        if let Some(writing) = self.writing(key) {
            let before = std::mem::take(&mut writing.parts.0[2]);
            writing.parts.0[2] = [&before, bytes].concat().into();
            writing.then = then;
            self.unsent += bytes.len();
        } else {
            let count = self.core.write(key, bytes).unwrap_or(0);
            self.write_on(key, Parts::new(&bytes[count..], None), then);
        }
    }

    /// The handle of a request's items goes. What was finished is still delivered.
    fn release_writing(&mut self, key: StreamKey) {
        match self.writing(key) {
            Some(writing) if writing.then == Then::Finish => writing.then = Then::ReleaseSend,
            Some(_) => {
                self.drop_writing(key);
                self.core.release_send(key);
            }
            None => self.core.release_send(key),
        }
    }

    /// Ends the items of an answer, or answers with a failure where none was sent, and is done with the call.
    pub(crate) fn end_items(&mut self, key: StreamKey, result: Result<(), &Failure>, trailers: &Metadata) {
        let begun = self.is_writing(key)
            || self
                .core
                .send_progress(key)
                .is_some_and(|progress| progress.written > 0);
        let mut bytes = Vec::new();
        match result {
            Err(failure) if !begun => put_failure(&mut bytes, failure, trailers),
            result => {
                if !begun {
                    put_success(&mut bytes, &Metadata::new());
                }
                put_end(&mut bytes, result, trailers);
            }
        }
        self.write_end(key, &bytes, Then::Release);
    }
}

/// The answer to a call, as it comes: its items, or its one payload.
///
/// Dropping it before the end gives the call up.
pub struct Answers {
    owner: Arc<Owner>,
    key: StreamKey,
    kind: CallKind,
    deadline: Option<Timestamp>,
    /// The number that the call's head gave to its method.
    defines: Option<u32>,
    reader: AnswerReader,
    metadata: Metadata,
    trailers: Metadata,
    /// What [`Answers::next_slice`] shows where it did not come in one piece.
    shown: Bytes,
    ended: Option<Result<(), CallError>>,
}

impl Answers {
    /// The next item; `None` after the last of an answer that is a success.
    ///
    /// # Errors
    /// The call's failure, the same ever after.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(ended) = &self.ended {
                return ended.clone().map(|()| None);
            }
            match self.reader.next() {
                Ok(Some(part)) => {
                    if let Some(item) = self.take_part(part) {
                        return Ok(Some(item));
                    }
                }
                Ok(None) => {
                    let read = poll_fn(|cx| self.poll_read(cx)).await;
                    match read {
                        Ok(Some(data)) => self.reader.push(data),
                        Ok(None) => self.reader.finish(),
                        Err(error) => self.ended = Some(Err(self.failed(error))),
                    }
                }
                Err(error) => {
                    let code = ResetCode::Malformed.value();
                    let _: Result<(), StreamError> = self.owner.0.lock().core.stop_sending(self.key, code);
                    self.ended = Some(Err(CallError::MaybeExecuted(Cause::Answer(error))));
                }
            }
        }
    }

    /// [`next`](Self::next) that shows an item where it lies, until the next is asked for. Of many small ones each
    /// costs a good deal less so.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub async fn next_slice(&mut self) -> Result<Option<&[u8]>, CallError> {
        if self.ended.is_none() && self.reader.step() {
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

    /// The keys and values before the first item. They are there once [`next`](Self::next) gave something.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The keys and values behind the last item. They are there once [`next`](Self::next) gave `None`, or the
    /// callee's failure.
    pub fn trailers(&self) -> &Metadata {
        &self.trailers
    }

    fn take_part(&mut self, part: AnswerPart) -> Option<Bytes> {
        let understood = match &part {
            AnswerPart::End {
                result: Err(failure), ..
            } => failure.reason != Some(Reason::MalformedHead),
            _ => true,
        };
        // PROTOCOL 11.6: the callee has the name.
        if understood && let Some(index) = self.defines.take() {
            self.owner.0.calls.lock().methods.handle_answer(index);
        }
        match part {
            AnswerPart::Head(metadata) => self.metadata = metadata,
            AnswerPart::Payload(payload) => return Some(payload),
            AnswerPart::Item(item) => return Some(item),
            AnswerPart::End { trailers, result } => {
                self.trailers = trailers;
                self.ended = Some(result.map_err(CallError::Failed));
            }
        }
        None
    }

    fn poll_read(&mut self, cx: &mut Task<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        poll_read(&self.owner, self.key, cx)
    }

    /// What a failure of the stream means for the call.
    fn failed(&self, error: StreamError) -> CallError {
        let mut state = self.owner.0.lock();
        let state = state.quiet();
        let finished = !state.is_writing(self.key);
        let sent = Sent::of(state.core.send_progress(self.key), finished);
        let late = self.deadline.is_some_and(|at| at <= state.now);
        let cause = match error {
            // This end gave the stream up.
            StreamError::Finished if late => Cause::Deadline,
            StreamError::Finished => Cause::Cancelled,
            error => Cause::Stream(error),
        };
        CallError::unanswered(self.kind, sent, cause)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let mut state = self.owner.0.lock();
        if let Some(at) = self.deadline {
            state.carried.forget_stream_due(self.key, at);
        }
        if self.ended.is_none() && self.kind == CallKind::ServerStreaming {
            state.drop_writing(self.key);
            state.give_up_stream(self.key, ResetCode::Cancelled);
        }
        state.core.release_recv(self.key);
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers")
            .field("stream", &self.key)
            .field("kind", &self.kind)
            .finish()
    }
}

/// A call whose request is items and whose answer is one payload.
#[derive(Debug)]
pub struct StreamingRequest {
    sender: ItemSender,
    answers: Answers,
}

impl StreamingRequest {
    pub(crate) fn new(sender: ItemSender, answers: Answers) -> StreamingRequest {
        StreamingRequest { sender, answers }
    }

    /// See [`ItemSender::send`].
    ///
    /// # Errors
    /// As there; [`finish`](Self::finish) tells why.
    pub async fn send(&mut self, item: impl Into<Bytes>) -> Result<(), StreamError> {
        self.sender.send(item).await
    }

    /// See [`ItemSender::feed`].
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn feed(&mut self, item: impl Into<Bytes>) -> Result<(), StreamError> {
        self.sender.feed(item).await
    }

    /// See [`ItemSender::feed_slice`].
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn feed_slice(&mut self, item: &[u8]) -> Result<(), StreamError> {
        self.sender.feed_slice(item).await
    }

    /// Ends the items, and waits for the answer.
    ///
    /// # Errors
    /// As [`CallBuilder::unary`](super::CallBuilder::unary).
    pub async fn finish(mut self) -> Result<Reply, CallError> {
        self.sender.finish();
        let payload = self.answers.next().await?.unwrap_or_default();
        // The end tells whether it was all.
        self.answers.next().await?;
        Ok(Reply {
            payload,
            metadata: std::mem::take(&mut self.answers.metadata),
        })
    }
}
