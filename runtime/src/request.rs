//! Unary calls: one payload there, one back.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use sheetbend_core::request::{Answer, CallError, Cause, Code, Deadline, Failure, Metadata, Reason};
use sheetbend_core::time::Timestamp;

use crate::call::{Context, Reply};
use crate::calls::{CallId, Ending, Options};
use crate::intake::{Arrived, answer_head};
use crate::shared::{Owner, Shared};
use crate::waits::Ticket;

enum Stage {
    /// Not asked for yet.
    New,
    /// The driver has it.
    Waiting(CallId),
    Done,
}

/// A call under way, as both kinds of futures below have it.
struct Unary<'a> {
    shared: &'a Shared,
    stage: Stage,
    method: &'a str,
    /// The other end is told of it.
    deadline: Option<Timestamp>,
    /// The call ends here then, if not before; the other end learns it at that moment.
    until: Option<Timestamp>,
    options: Option<Box<Options>>,
    payload: Bytes,
}

impl Unary<'_> {
    fn poll(&mut self, cx: &mut Task<'_>) -> Poll<Ending> {
        let id = match self.stage {
            Stage::Waiting(id) => id,
            Stage::New => match self.start(cx) {
                Ok((id, false)) => {
                    self.stage = Stage::Waiting(id);
                    return Poll::Pending;
                }
                Ok((id, true)) => {
                    self.stage = Stage::Waiting(id);
                    id
                }
                Err(cause) => {
                    self.stage = Stage::Done;
                    return Poll::Ready(Err(Box::new(CallError::NotSent(cause))));
                }
            },
            Stage::Done => {
                // Polled after it was done.
                return Poll::Ready(Err(Box::new(CallError::NotSent(Cause::Cancelled))));
            }
        };
        let answer = ready!(self.shared.calls.lock().poll_answer(cx, id));
        self.stage = Stage::Done;
        Poll::Ready(answer)
    }

    /// Leaves it for the driver; tells whether that has gone.
    fn start(&mut self, cx: &mut Task<'_>) -> Result<(CallId, bool), Cause> {
        let left = match self.deadline {
            None => None,
            Some(at) => {
                let left = Deadline::at(at).time_left(self.shared.runtime.now());
                Some(left.map_err(|_| Cause::Deadline)?)
            }
        };
        let until = self.deadline.into_iter().chain(self.until).min();
        let payload = std::mem::take(&mut self.payload);
        let (method, options) = (self.method, self.options.as_deref());
        let (id, closed) = self.shared.command(|calls| {
            let id = calls.request(cx, method, options, (left, until), payload);
            (id, calls.closed)
        });
        Ok((id?, closed))
    }
}

impl Drop for Unary<'_> {
    fn drop(&mut self) {
        if let Stage::Waiting(id) = self.stage {
            let mut state = self.shared.lock();
            state.abandon_call(id);
            // Only now may another request have its place: answers are handed over under the session's lock.
            self.shared.calls.lock().forget(id);
        }
    }
}

/// Takes an answer apart.
#[inline]
fn parse(ending: Ending) -> Result<(Bytes, Metadata), CallError> {
    let answer = ending.map_err(|error| *error)?;
    let Answer { metadata, result } =
        Answer::from_whole(answer).map_err(|error| CallError::MaybeExecuted(Cause::Answer(error)))?;
    Ok((result?, metadata))
}

/// A request under way; resolves to the answer's payload.
///
/// Dropping it before gives the call up: what was not sent never will be, and the peer learns that nobody waits.
#[must_use = "a request is sent when it is polled"]
pub struct Request<'a>(Unary<'a>);

impl<'a> Request<'a> {
    pub(crate) fn new(shared: &'a Shared, method: &'a str, payload: Bytes) -> Request<'a> {
        Request(Unary {
            shared,
            stage: Stage::New,
            method,
            deadline: None,
            until: None,
            options: None,
            payload,
        })
    }
}

impl Future for Request<'_> {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let ending = ready!(self.0.poll(cx));
        Poll::Ready(parse(ending).map(|(payload, _)| payload))
    }
}

/// A unary call under way; resolves to the answer, with its metadata. Dropping it gives the call up, as with
/// [`Request`].
#[must_use = "a call is made when it is polled"]
pub struct UnaryCall<'a>(Unary<'a>);

impl<'a> UnaryCall<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        method: &'a str,
        deadline: Option<Timestamp>,
        options: Option<Box<Options>>,
        payload: Bytes,
    ) -> UnaryCall<'a> {
        UnaryCall(Unary {
            shared,
            stage: Stage::New,
            method,
            deadline,
            until: None,
            options,
            payload,
        })
    }

    /// Ends the call here at that moment, if not before.
    pub(crate) fn until(mut self, at: Option<Timestamp>) -> UnaryCall<'a> {
        self.0.until = at;
        self
    }
}

impl Future for UnaryCall<'_> {
    type Output = Result<Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let ending = ready!(self.0.poll(cx));
        Poll::Ready(parse(ending).map(|(payload, metadata)| Reply { payload, metadata }))
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

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
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

/// A unary request of the peer, whole, that waits for its answer.
///
/// Dropping it without an answer fails it with [`Code::Internal`] and [`Reason::Dropped`].
pub struct IncomingRequest {
    context: Context,
    payload: Bytes,
    answered: bool,
}

impl IncomingRequest {
    pub(crate) fn new(owner: Arc<Owner>, arrived: Arrived) -> IncomingRequest {
        let (context, payload) = Context::new(owner, arrived);
        IncomingRequest {
            context,
            payload,
            answered: false,
        }
    }

    /// The name of the method that is called.
    pub fn method(&self) -> &str {
        self.context.method()
    }

    /// What else the call says, and whether somebody still waits for it.
    pub fn context(&self) -> &Context {
        &self.context
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
    pub fn respond(mut self, reply: impl Into<Reply>) {
        self.answered = true;
        self.context.respond(Ok(reply.into()));
    }

    /// Answers with a failure.
    pub fn fail(mut self, failure: impl Into<Failure>) {
        self.answered = true;
        self.context.respond(Err(failure.into()));
    }
}

impl Drop for IncomingRequest {
    fn drop(&mut self) {
        if !self.answered {
            let failure = Failure::cut_short(Code::Internal, Reason::Dropped);
            self.context.respond(Err(failure));
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

/// Refuses a call that whoever accepts here cannot serve.
pub(crate) fn refuse(owner: &Owner, arrived: &Arrived, failure: &Failure) {
    let head = answer_head(Err(failure), &Metadata::new());
    owner
        .0
        .command(|calls| calls.respond(arrived.key, &head, Bytes::new()));
}
