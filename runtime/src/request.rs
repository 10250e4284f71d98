//! The minimal request call: one payload there, one back.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use sheetbend_core::request::{
    Answer, Code, Executed, Failure, MAX_METHOD_NAME, Method, Reason, RequestHead,
};
use sheetbend_core::session::{Read, StreamError, StreamKey};
use sheetbend_core::wire::{Class, Kind};
use smallvec::SmallVec;

use crate::intake::{Arrived, FIRST_APPLICATION_STATUS, STATUS_TOO_LARGE};
use crate::shared::{Owner, Shared, State, store};

/// Why a request has no answer, by what is known of its execution.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No byte of it was put on any path: it was not executed.
    #[error("the request was not sent: {0}")]
    NotSent(String),
    /// It was sent, and its answer never came: it may have been executed.
    #[error("the request may have been executed: {0}")]
    Maybe(String),
    /// The peer answered with a failure.
    #[error("the request failed with status {code}: {message}")]
    Failed {
        /// The peer's status; below [`FIRST_APPLICATION_STATUS`] the library's own.
        code: u64,
        /// The peer's words.
        message: String,
    },
}

/// What a request is, on the wire.
const OPEN: (Kind, Class) = (Kind::Bi, Class::REQUESTS);

enum Stage {
    Opening,
    Writing(StreamKey),
    Reading(StreamKey),
    Done,
}

/// A request under way; resolves to the answer's payload.
///
/// Dropping it before resets the stream: the peer learns that nobody waits.
#[must_use = "a request is sent when it is polled"]
pub struct Request<'a> {
    shared: &'a Shared,
    stage: Stage,
    ticket: Option<u64>,
    head: SmallVec<[u8; 32]>,
    head_written: usize,
    payload: Bytes,
    answer: Bytes,
    more: BytesMut,
}

impl<'a> Request<'a> {
    pub(crate) fn new(shared: &'a Shared, method: &str, payload: Bytes) -> Request<'a> {
        let mut head = SmallVec::new();
        if (1..=MAX_METHOD_NAME).contains(&method.len()) {
            // Tag, flags, length and name (PROTOCOL 11.2).
            let mut bytes = [0; 4 + MAX_METHOD_NAME];
            let mut rest = &mut bytes[..];
            RequestHead::unary(Method::Named(method)).encode(&mut rest);
            let left = rest.len();
            head.extend_from_slice(&bytes[..bytes.len() - left]);
        }
        Request {
            shared,
            stage: Stage::Opening,
            ticket: None,
            head,
            head_written: 0,
            payload,
            answer: Bytes::new(),
            more: BytesMut::new(),
        }
    }

    /// Whether everything was written.
    fn write(&mut self, key: StreamKey, state: &mut State) -> Result<bool, StreamError> {
        while self.head_written < self.head.len() {
            let count = state.core.write(key, &self.head[self.head_written..])?;
            if count == 0 {
                return Ok(false);
            }
            self.head_written += count;
        }
        while !self.payload.is_empty() {
            if state.core.write_bytes(key, &mut self.payload)? == 0 {
                return Ok(false);
            }
        }
        state.core.finish(key)?;
        Ok(true)
    }

    /// Reads until the end of the answer; `None` while there is more to come.
    fn read(&mut self, key: StreamKey, state: &mut State) -> Result<Option<Bytes>, RequestError> {
        loop {
            match state.core.read(state.now, key, usize::MAX) {
                Ok(Read::Data(data)) if self.answer.is_empty() && self.more.is_empty() => self.answer = data,
                Ok(Read::Data(data)) => {
                    self.more.put(std::mem::take(&mut self.answer));
                    self.more.put(data);
                }
                Ok(Read::Finished) if self.more.is_empty() => {
                    return Ok(Some(std::mem::take(&mut self.answer)));
                }
                Ok(Read::Finished) => return Ok(Some(std::mem::take(&mut self.more).freeze())),
                Ok(Read::Blocked) => return Ok(None),
                Err(error) => return Err(unanswered(state, key, &error)),
            }
            if self.more.len().max(self.answer.len()) > self.shared.limits.max_request {
                let message = format!("the answer exceeds {} bytes", self.shared.limits.max_request);
                return Err(RequestError::Failed {
                    code: STATUS_TOO_LARGE,
                    message,
                });
            }
        }
    }
}

/// What is known of a request whose stream failed.
fn unanswered(state: &State, key: StreamKey, error: &StreamError) -> RequestError {
    let sent = state
        .core
        .send_progress(key)
        .is_none_or(|progress| progress.sent > 0);
    let why = state
        .end
        .as_ref()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause:?}"));
    if sent {
        RequestError::Maybe(why)
    } else {
        RequestError::NotSent(why)
    }
}

fn parse_answer(answer: Bytes) -> Result<Bytes, RequestError> {
    match Answer::from_whole(answer).map(|answer| answer.result) {
        Ok(Ok(payload)) => Ok(payload),
        Ok(Err(failure)) => Err(match failure.executed {
            Executed::Maybe => RequestError::Maybe(failure.to_string()),
            Executed::Yes | Executed::No => RequestError::Failed {
                code: u64::from(failure.code.value()),
                message: failure.message,
            },
        }),
        Err(error) => Err(RequestError::Maybe(error.to_string())),
    }
}

impl Future for Request<'_> {
    type Output = Result<Bytes, RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let shared = this.shared;
        let mut state = shared.lock();
        if let Stage::Opening = this.stage {
            if this.head.is_empty() {
                this.stage = Stage::Done;
                return Poll::Ready(Err(RequestError::NotSent(
                    "the method's name is empty or too long".to_owned(),
                )));
            }
            match std::task::ready!(state.quiet().poll_open(cx, OPEN, &mut this.ticket)) {
                Ok(key) => this.stage = Stage::Writing(key),
                Err(error) => {
                    this.stage = Stage::Done;
                    return Poll::Ready(Err(RequestError::NotSent(error.to_string())));
                }
            }
        }
        if let Stage::Writing(key) = this.stage {
            match this.write(key, &mut state) {
                Ok(false) => {
                    store(&mut state.slot(key).write, cx);
                    return Poll::Pending;
                }
                // Stopped: the answer may say why.
                Ok(true) | Err(StreamError::Stopped(_)) => this.stage = Stage::Reading(key),
                Err(error) => {
                    let error = unanswered(&state, key, &error);
                    state.core.release(key);
                    this.stage = Stage::Done;
                    return Poll::Ready(Err(error));
                }
            }
        }
        let Stage::Reading(key) = this.stage else {
            return Poll::Ready(Err(RequestError::Maybe("polled after it was done".to_owned())));
        };
        let answer = match this.read(key, &mut state) {
            Ok(None) => {
                store(&mut state.slot(key).read, cx);
                return Poll::Pending;
            }
            Ok(Some(answer)) => parse_answer(answer),
            Err(error) => Err(error),
        };
        state.core.release(key);
        this.stage = Stage::Done;
        Poll::Ready(answer)
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        match self.stage {
            Stage::Writing(key) | Stage::Reading(key) => self.shared.lock().core.release(key),
            Stage::Opening => {
                if let Some(own) = self.ticket.take() {
                    self.shared.lock().leave_line(OPEN, own);
                }
            }
            Stage::Done => {}
        }
    }
}

/// A request of the peer, whole, that waits for its answer.
///
/// Dropping it without an answer fails it with status [`STATUS_DROPPED`](crate::STATUS_DROPPED).
pub struct IncomingRequest {
    owner: Arc<Owner>,
    key: StreamKey,
    method: Bytes,
    payload: Bytes,
    answered: bool,
}

impl IncomingRequest {
    pub(crate) fn new(owner: Arc<Owner>, arrived: Arrived) -> IncomingRequest {
        let Arrived { key, method, payload } = arrived;
        IncomingRequest {
            owner,
            key,
            method,
            payload,
            answered: false,
        }
    }

    /// The name of the method that is called.
    pub fn method(&self) -> &str {
        std::str::from_utf8(&self.method).unwrap_or_default()
    }

    /// What it is called with.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Takes the payload out.
    pub fn take_payload(&mut self) -> Bytes {
        std::mem::take(&mut self.payload)
    }

    /// Answers. The session delivers it whatever happens to paths; an answer larger than the stream's
    /// window leaves as the peer reads.
    pub fn respond(mut self, payload: impl Into<Bytes>) {
        self.answer(Ok(payload.into()));
    }

    /// Answers with a failure. `code` is raised to [`FIRST_APPLICATION_STATUS`] where it is lower.
    pub fn fail(mut self, code: u64, message: &str) {
        let code = u32::try_from(code.max(FIRST_APPLICATION_STATUS)).unwrap_or(u32::MAX);
        self.answer(Err(Failure::new(Code::from_value(code), message)));
    }

    fn answer(&mut self, answer: Result<Bytes, Failure>) {
        self.answered = true;
        self.owner.0.lock().respond(self.key, answer);
    }
}

impl Drop for IncomingRequest {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(Err(Failure::cut_short(Code::Internal, Reason::Dropped)));
        }
    }
}

impl fmt::Debug for IncomingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.payload.len();
        f.debug_struct("IncomingRequest")
            .field("method", &self.method())
            .field("payload_len", &len)
            .finish()
    }
}
