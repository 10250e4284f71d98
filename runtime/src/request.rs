//! The minimal request call: one payload there, one back.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use sheetbend_core::request::{
    Answer, Code, Executed, Failure, MAX_METHOD_NAME, Method, Reason, RequestHead,
};
use sheetbend_core::session::StreamKey;
use smallvec::SmallVec;

use crate::calls::CallId;
use crate::intake::{Arrived, FIRST_APPLICATION_STATUS, MethodName, answer_head};
use crate::shared::{Owner, Shared};
use crate::waits::Ticket;

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

enum Stage {
    /// Not asked for yet.
    New,
    /// The driver has it.
    Waiting(CallId),
    Done,
}

/// A request under way; resolves to the answer's payload.
///
/// Dropping it before resets the stream: the peer learns that nobody waits.
#[must_use = "a request is sent when it is polled"]
pub struct Request<'a> {
    shared: &'a Shared,
    stage: Stage,
    head: SmallVec<[u8; 32]>,
    payload: Bytes,
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
            stage: Stage::New,
            head,
            payload,
        }
    }
}

/// Takes an answer apart.
pub(crate) fn parse_answer(answer: Bytes) -> Result<Bytes, RequestError> {
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
        let id = match this.stage {
            Stage::Waiting(id) => id,
            Stage::New if this.head.is_empty() => {
                this.stage = Stage::Done;
                let why = "the method's name is empty or too long".to_owned();
                return Poll::Ready(Err(RequestError::NotSent(why)));
            }
            Stage::New => {
                let payload = std::mem::take(&mut this.payload);
                let (id, closed) = this
                    .shared
                    .command(|calls| (calls.request(cx, &this.head, payload), calls.closed));
                this.stage = Stage::Waiting(id);
                if !closed {
                    return Poll::Pending;
                }
                id
            }
            Stage::Done => {
                return Poll::Ready(Err(RequestError::Maybe("polled after it was done".to_owned())));
            }
        };
        let answer = ready!(this.shared.calls.lock().poll_answer(cx, id));
        this.stage = Stage::Done;
        Poll::Ready(answer)
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if let Stage::Waiting(id) = self.stage {
            let mut state = self.shared.lock();
            state.abandon_call(id);
            // Only now may another request have its place: answers are handed over under the session's lock.
            self.shared.calls.lock().forget(id);
        }
    }
}

/// Waits for the peer's next request; resolves to `None` when the session has ended.
pub(crate) struct NextRequest<'a> {
    shared: &'a Shared,
    ticket: Option<Ticket>,
}

/// The peer's next request, once it is whole.
pub(crate) fn next_request(shared: &Shared) -> NextRequest<'_> {
    NextRequest { shared, ticket: None }
}

impl Future for NextRequest<'_> {
    type Output = Option<Arrived>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let NextRequest { shared, ticket } = &mut *self;
        shared.command(|calls| calls.poll_ready(cx, ticket))
    }
}

impl Drop for NextRequest<'_> {
    fn drop(&mut self) {
        if let Some(own) = self.ticket.take() {
            self.shared.calls.lock().leave(own);
        }
    }
}

/// A request of the peer, whole, that waits for its answer.
///
/// Dropping it without an answer fails it with status [`STATUS_DROPPED`](crate::STATUS_DROPPED).
pub struct IncomingRequest {
    owner: Arc<Owner>,
    key: StreamKey,
    method: MethodName,
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
        let (head, payload) = match answer {
            Ok(payload) => (answer_head(Ok(())), payload),
            Err(failure) => (answer_head(Err(&failure)), Bytes::new()),
        };
        self.owner
            .0
            .command(|calls| calls.respond(self.key, &head, payload));
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
