//! Requests on their way in, and answers on their way out, as far as the driver carries them.
//!
//! PROTOCOL 11. A request of one payload is handed over when it is whole, one of items when its head has come.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use sheetbend_core::request::{
    CallHead, CallKind, Code, Deadline, Failure, HeadError, MAX_HEAD, Metadata, PeerMethods, Reason,
    RequestHead, TraceContext, put_failure, put_success,
};
use sheetbend_core::session::{Read, State as Lifecycle, StreamError, StreamKey};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, Kind};
use smallvec::SmallVec;

use crate::body::{Body, Usual};
use crate::calls::{CallId, Calls, READY_BYTES};
use crate::dispatch::{LongCall, Writing};
use crate::shared::State;
use crate::waits::WakeList;

/// Bytes of unfinished requests that one session holds. Beyond it only the oldest is read on.
pub const MAX_UNFINISHED: usize = 64 * 1024 * 1024;
/// Bytes of whole requests that wait to be accepted, by default. See
/// [`ServerBuilder::max_unaccepted`](crate::ServerBuilder::max_unaccepted).
pub const DEFAULT_MAX_UNACCEPTED: usize = 32 * 1024 * 1024;

/// Bytes of answers that a session holds because the peer does not read them. Beyond it no request is handed
/// over; the last answer may exceed it.
pub const MAX_UNSENT: usize = 64 * 1024 * 1024;

/// What the requests of a session may cost, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLimits {
    /// The longest request or answer.
    pub(crate) max_request: usize,
    /// Whole requests that the application has not accepted.
    pub(crate) max_unaccepted: usize,
}

impl RequestLimits {
    pub(crate) fn new(max_request: Option<usize>, max_unaccepted: Option<usize>) -> RequestLimits {
        RequestLimits {
            max_request: max_request.unwrap_or(crate::client::DEFAULT_MAX_REQUEST),
            max_unaccepted: max_unaccepted.unwrap_or(DEFAULT_MAX_UNACCEPTED).max(1),
        }
    }
}

/// What the driver does for a stream.
#[derive(Default)]
pub(crate) enum Work {
    /// Nothing.
    #[default]
    None,
    /// Collects a request.
    Request(Box<Collecting>),
    /// Writes the rest of an answer or of an item.
    Writing(Box<Writing>),
    /// Waits for the answer to a request.
    Call(CallId),
    /// Writes the rest of a request, or collects its answer.
    LongCall(Box<LongCall>),
}

/// A request that is not whole.
pub(crate) struct Collecting {
    body: Body,
    /// When its head was there.
    head_came: Option<Timestamp>,
}

/// A request: whole, or of items that are still to come.
pub(crate) struct Arrived {
    pub(crate) key: StreamKey,
    pub(crate) method: MethodName,
    /// The payload, or the first bytes of the items.
    pub(crate) payload: Bytes,
    /// `None` for a unary call that says no more.
    pub(crate) more: Option<Box<More>>,
}

/// What a head says besides the method.
#[derive(Debug)]
pub(crate) struct More {
    pub(crate) kind: CallKind,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) key: Option<Bytes>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) metadata: Metadata,
    pub(crate) repeatable: bool,
    pub(crate) attempt: u64,
    /// The end of the request has come.
    pub(crate) finished: bool,
}

/// A method's name; most are short.
pub(crate) type MethodName = SmallVec<[u8; 16]>;

/// Requests that were accepted from the core and are not whole yet, and those that are.
#[derive(Default)]
pub(crate) struct Intake {
    ready: VecDeque<Arrived>,
    /// Bytes of those in `ready`.
    unaccepted: usize,
    /// On their way to the handles.
    collected: Vec<Arrived>,
    /// Bytes of those in `collected`, and of those that lay ready for the handles when they were last looked at.
    laid: usize,
    /// Whether there is more to collect; `None` while nothing is wanted.
    more: Option<bool>,
    unfinished: usize,
    /// How long long requests are.
    usual: Usual,
    /// Accepted from the core and not read on, for now.
    stalled: VecDeque<StreamKey>,
    /// Reads on although too much is unfinished, so that something gets finished.
    privileged: Option<StreamKey>,
    /// What the peer's numbers of methods stand for (PROTOCOL 11.6).
    methods: PeerMethods,
}

/// What came of reading on.
pub(crate) enum Step {
    Whole(Bytes),
    Unfinished(Body),
    Gone(StreamError),
    TooLarge {
        body: Bytes,
        /// The end has come.
        finished: bool,
    },
}

/// Takes a request apart, of which the head has come, and the rest as well if `finished`.
///
/// # Errors
/// The answer to a request that cannot be served.
fn parse(
    key: StreamKey,
    mut body: Bytes,
    finished: bool,
    came: Timestamp,
    max: usize,
    methods: &mut PeerMethods,
) -> Result<Arrived, Failure> {
    let head = match CallHead::take(&mut body, true, methods) {
        Ok(Some(head)) => head,
        Ok(None) => return Err(HeadError::Cut.failure()),
        Err(error) => return Err(error.failure()),
    };
    // Items have limits of their own.
    if body.len() > max && !head.kind.request_items() {
        return Err(Failure::refused(Code::ResourceExhausted, Reason::TooLarge));
    }
    let method = MethodName::from_slice(head.name(methods).as_bytes());
    let plain = head.kind == CallKind::Unary
        && head.time_left.is_none()
        && head.key.is_none()
        && head.trace.is_none()
        && head.metadata.is_empty()
        && !head.repeatable
        && head.attempt == 0;
    let more = (!plain).then(|| {
        Box::new(More {
            kind: head.kind,
            deadline: head.time_left.map(|left| Deadline::received(came, left)),
            // On its own feet: it may outlive the payload.
            key: head.key.as_deref().map(Bytes::copy_from_slice),
            trace: head.trace,
            metadata: head.metadata,
            repeatable: head.repeatable,
            attempt: head.attempt,
            finished,
        })
    });
    Ok(Arrived {
        key,
        method,
        payload: body,
        more,
    })
}

impl Arrived {
    pub(crate) fn len(&self) -> usize {
        self.method.len() + self.payload.len()
    }
}

impl Intake {
    /// Bytes of requests that the application has not accepted.
    pub(crate) fn held_bytes(&self) -> u64 {
        (self.unfinished + self.unaccepted + self.laid) as u64
    }

    /// How many whole requests nobody has collected.
    pub(crate) fn whole(&self) -> usize {
        self.ready.len()
    }

    /// The session is quiet. Tells whether there were long requests before.
    pub(crate) fn rest(&mut self) -> bool {
        self.usual.rest()
    }

    /// Gives back what an idle session does not need.
    pub(crate) fn shrink(&mut self) {
        self.collected.shrink_to_fit();
    }

    /// Whether as much of whole requests is held as may be.
    fn is_full(&self, limits: RequestLimits) -> bool {
        self.unaccepted + self.laid >= limits.max_unaccepted
    }

    /// Whether too much is unfinished already for another to be begun.
    fn is_crowded(&self) -> bool {
        self.unfinished > MAX_UNFINISHED && self.privileged.is_some()
    }

    /// Whether a request may be read on. What is not read holds its credit back, so that the peer waits.
    fn may_read(&mut self, key: StreamKey, limits: RequestLimits) -> bool {
        if self.is_full(limits) {
            return false;
        }
        if self.unfinished <= MAX_UNFINISHED || self.privileged == Some(key) {
            return true;
        }
        let first = self.privileged.is_none();
        if first {
            self.privileged = Some(key);
        }
        first
    }

    fn settled(&mut self, key: StreamKey) {
        if self.privileged == Some(key) {
            self.privileged = None;
        }
    }
}

impl State {
    /// The next whole request, in the order in which they became whole.
    pub(crate) fn next_request(&mut self, now: Timestamp) -> Option<Arrived> {
        if let Some(arrived) = self.intake.ready.pop_front() {
            self.intake.unaccepted = self.intake.unaccepted.saturating_sub(arrived.len());
            return Some(arrived);
        }
        while !self.intake.is_crowded() {
            let key = self.core.accept(Kind::Bi, Class::REQUESTS)?;
            self.fresh_slot(key);
            if self.intake.unfinished > MAX_UNFINISHED {
                self.intake.privileged = Some(key);
            }
            let body = Body::expecting(self.intake.usual);
            let step = self.read_on(now, key, body, self.longest_request());
            if let Some(arrived) = self.take_step(key, step, None) {
                return Some(arrived);
            }
        }
        None
    }

    /// What came of reading on in a request: the request, if it is to be handed over.
    fn take_step(&mut self, key: StreamKey, step: Step, head_came: Option<Timestamp>) -> Option<Arrived> {
        let max = self.limits.max_request;
        let came = head_came.unwrap_or(self.now);
        let (body, finished) = match step {
            Step::Whole(body) => {
                self.intake.usual.note(body.len());
                (body, true)
            }
            Step::Unfinished(body) if head_came.is_some() || body.is_empty() => {
                self.keep_collecting(key, body, head_came);
                return None;
            }
            Step::Unfinished(body) => match self.look(&body) {
                Ok(None) => {
                    self.keep_collecting(key, body, None);
                    return None;
                }
                Ok(Some(kind)) if !kind.request_items() => {
                    self.keep_collecting(key, body, Some(came));
                    return None;
                }
                Ok(Some(_)) => (body.into_bytes(), false),
                Err(error) => {
                    self.intake.settled(key);
                    self.refuse(key, &error.failure());
                    return None;
                }
            },
            Step::TooLarge { body, finished } => match self.look(&body) {
                Ok(Some(kind)) if kind.request_items() => (body, finished),
                _ => {
                    self.intake.settled(key);
                    let failure = Failure::refused(Code::ResourceExhausted, Reason::TooLarge);
                    self.refuse(key, &failure);
                    return None;
                }
            },
            Step::Gone(_) => {
                self.intake.settled(key);
                self.core.release(key);
                return None;
            }
        };
        self.intake.settled(key);
        match parse(key, body, finished, came, max, &mut self.intake.methods) {
            Ok(arrived) => Some(arrived),
            Err(failure) => {
                self.refuse(key, &failure);
                None
            }
        }
    }

    /// What kind of call it is, once its head is there. The name in it is noted: from then on the caller may
    /// hear that it came (PROTOCOL 11.6).
    fn look(&mut self, body: &[u8]) -> Result<Option<CallKind>, HeadError> {
        let Some(head) = RequestHead::decode(&mut &*body)? else {
            return Ok(None);
        };
        self.intake.methods.resolve(head.method)?;
        Ok(Some(head.kind))
    }

    fn keep_collecting(&mut self, key: StreamKey, body: Body, head_came: Option<Timestamp>) {
        self.intake.unfinished += body.len();
        self.slot(key).work = Work::Request(Box::new(Collecting { body, head_came }));
    }

    /// Bytes of the longest request, with its head.
    fn longest_request(&self) -> usize {
        self.limits.max_request.saturating_add(MAX_HEAD)
    }

    /// The next whole request once the session has ended and none lies ready for the handles any more.
    pub(crate) fn last_request(&mut self, now: Timestamp) -> Option<Arrived> {
        self.intake.laid = 0;
        self.resume_requests(now);
        self.next_request(now)
    }

    fn refuse(&mut self, key: StreamKey, failure: &Failure) {
        self.respond(key, &answer_head(Err(failure), &Metadata::new()), None);
    }

    /// Reads a stream on until it ends, is empty, or exceeds `max` bytes.
    pub(crate) fn read_on(&mut self, now: Timestamp, key: StreamKey, mut body: Body, max: usize) -> Step {
        if body.is_empty()
            && let Some(whole) = self.core.read_last(now, key)
        {
            return if whole.len() > max {
                Step::TooLarge {
                    body: whole,
                    finished: true,
                }
            } else {
                Step::Whole(whole)
            };
        }
        let mut first = Bytes::new();
        loop {
            match self.core.read(now, key, usize::MAX) {
                Ok(Read::Data(data)) if first.is_empty() && body.is_empty() => first = data,
                Ok(Read::Data(data)) => {
                    body.push(&std::mem::take(&mut first));
                    body.push(&data);
                }
                Ok(Read::Finished) if body.is_empty() => return Step::Whole(first),
                Ok(Read::Finished) => return Step::Whole(body.into_bytes()),
                Ok(Read::Blocked) => {
                    body.push(&first);
                    return Step::Unfinished(body);
                }
                Err(error) => return Step::Gone(error),
            }
            if body.len().max(first.len()) > max {
                body.push(&first);
                return Step::TooLarge {
                    body: body.into_bytes(),
                    finished: false,
                };
            }
        }
    }

    /// Reads on in an unfinished request, if memory allows, and then in those that had to wait for it.
    pub(crate) fn pump_request(&mut self, now: Timestamp, key: StreamKey) {
        if self.intake.may_read(key, self.limits) {
            self.read_request(now, key);
            self.resume_requests(now);
        } else {
            self.intake.stalled.push_back(key);
        }
    }

    /// Reads on in requests that had to wait, as far as memory allows.
    pub(crate) fn resume_requests(&mut self, now: Timestamp) {
        while let Some(&key) = self.intake.stalled.front() {
            if !self.intake.may_read(key, self.limits) {
                return;
            }
            self.intake.stalled.pop_front();
            self.read_request(now, key);
        }
    }

    fn read_request(&mut self, now: Timestamp, key: StreamKey) {
        let Collecting { body, head_came } = match self.take_work(key) {
            None => return self.intake.settled(key),
            Some(Work::Request(collecting)) => *collecting,
            Some(other) => {
                self.slot(key).work = other;
                return self.intake.settled(key);
            }
        };
        self.intake.unfinished = self.intake.unfinished.saturating_sub(body.len());
        let step = self.read_on(now, key, body, self.longest_request());
        if let Some(arrived) = self.take_step(key, step, head_came) {
            self.intake.unaccepted += arrived.len();
            self.intake.ready.push_back(arrived);
        }
    }

    // ---- between the driver and the handles ----

    /// Takes in what the peer asks, as far as there is room for it, and collects what the handles want.
    pub(crate) fn take_in(&mut self, calls: &Mutex<Calls>) {
        let (wanted, laid) = calls.lock().wanted();
        self.intake.laid = laid;
        self.intake.more = None;
        loop {
            self.resume_requests(self.now);
            // What is whole when the session ends stays here: from then on those who accept look for it here.
            if wanted > 0 && self.end.is_none() {
                self.intake.more = Some(self.collect(wanted));
            }
            // One that was collected may have been what others waited for.
            let next = self.intake.stalled.front().copied();
            if next.is_none_or(|key| !self.intake.may_read(key, self.limits)) {
                return;
            }
        }
    }

    /// Collects whole requests. Tells whether there may be others.
    fn collect(&mut self, wanted: usize) -> bool {
        while self.intake.collected.len() < wanted && self.intake.laid < READY_BYTES {
            // A peer that reads no answers is not given more of them.
            if self.unsent > MAX_UNSENT {
                return true;
            }
            if self.intake.ready.is_empty() && self.intake.is_full(self.limits) {
                return true;
            }
            let Some(arrived) = self.next_request(self.now) else {
                return false;
            };
            // Nobody wants its answer any more: it is not worth running.
            if self.core.stopped(arrived.key).is_some() {
                self.core.release(arrived.key);
                continue;
            }
            self.intake.laid += arrived.len();
            if self.intake.collected.capacity() == 0 {
                self.intake.collected.reserve_exact(1);
            }
            self.intake.collected.push(arrived);
        }
        true
    }

    /// Lays what was collected ready for the handles.
    pub(crate) fn lay_ready(&mut self, calls: &mut Calls, wakes: &mut WakeList) {
        let Intake {
            collected,
            laid,
            more,
            ..
        } = &mut self.intake;
        calls.lay_ready(collected, more.take(), wakes);
        let known = std::mem::replace(laid, calls.ready_bytes());
        // Reading on waits for room, or what a session without paths holds is counted elsewhere.
        let matters = known >= self.limits.max_unaccepted.saturating_sub(self.intake.unaccepted)
            || self.core.state() == Lifecycle::Reconnecting;
        calls.tell_of_taking(matters, known > self.intake.laid);
    }
}

/// What an answer begins with: all of it but the payload.
pub(crate) fn answer_head(result: Result<(), &Failure>, metadata: &Metadata) -> SmallVec<[u8; 16]> {
    if result.is_ok() && metadata.is_empty() {
        return SmallVec::from_slice(&[0]);
    }
    let mut head = Vec::new();
    match result {
        Ok(()) => put_success(&mut head, metadata),
        Err(failure) => put_failure(&mut head, failure, metadata),
    }
    SmallVec::from_vec(head)
}

#[cfg(test)]
mod tests;
