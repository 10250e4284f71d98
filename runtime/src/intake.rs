//! Requests on their way in, and answers on their way out, as far as the driver carries them.
//!
//! PROTOCOL 11. Of the four kinds of calls this serves unary ones.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use sheetbend_core::request::status::FIRST_APPLICATION_CODE;
use sheetbend_core::request::{
    CallHead, CallKind, Code, Failure, MAX_HEAD, Metadata, PeerMethods, Reason, put_failure, put_success,
};
use sheetbend_core::session::{Read, State as Lifecycle, StreamError, StreamKey};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, Kind};
use smallvec::SmallVec;

use crate::calls::{CallId, Calls, READY_BYTES};
use crate::dispatch::{LongCall, Parts};
use crate::shared::State;
use crate::waits::WakeList;

/// Bytes of unfinished requests that one session holds. Beyond it only the oldest is read on.
pub const MAX_UNFINISHED: usize = 64 * 1024 * 1024;
/// Bytes of whole requests that wait to be accepted, by default. See
/// [`ServerBuilder::max_unaccepted`](crate::ServerBuilder::max_unaccepted).
pub const DEFAULT_MAX_UNACCEPTED: usize = 32 * 1024 * 1024;

/// Codes of answers below this have a meaning in PROTOCOL 11.4, from here on they are the application's.
pub const FIRST_APPLICATION_STATUS: u64 = FIRST_APPLICATION_CODE as u64;
/// The request does not parse: INVALID_ARGUMENT.
pub const STATUS_MALFORMED: u64 = Code::InvalidArgument.value() as u64;
/// The request is longer than the server takes: RESOURCE_EXHAUSTED.
pub const STATUS_TOO_LARGE: u64 = Code::ResourceExhausted.value() as u64;
/// The handler dropped the request without an answer: INTERNAL.
pub const STATUS_DROPPED: u64 = Code::Internal.value() as u64;

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
    Request(Box<BytesMut>),
    /// Writes the rest of an answer.
    Response(Box<Parts>),
    /// Waits for the answer to a request.
    Call(CallId),
    /// Writes the rest of a request, or collects its answer.
    LongCall(Box<LongCall>),
}

/// A whole request.
pub(crate) struct Arrived {
    pub(crate) key: StreamKey,
    pub(crate) method: MethodName,
    pub(crate) payload: Bytes,
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
    Unfinished(BytesMut),
    Gone(StreamError),
    TooLarge,
}

/// Takes a whole request apart.
///
/// # Errors
/// The answer to a request that cannot be served.
fn parse(key: StreamKey, mut body: Bytes, max: usize, methods: &mut PeerMethods) -> Result<Arrived, Failure> {
    let head = match CallHead::take(&mut body, true, methods) {
        Ok(Some(head)) => head,
        Ok(None) => return Err(Failure::refused(Code::InvalidArgument, Reason::MalformedHead)),
        Err(error) => return Err(error.failure()),
    };
    if body.len() > max {
        return Err(Failure::refused(Code::ResourceExhausted, Reason::TooLarge));
    }
    // PROTOCOL 11.8: nobody is to rely in vain on a key.
    if head.kind != CallKind::Unary || head.key.is_some() {
        let mut failure = Failure::refused(Code::Unimplemented, Reason::NoSuchMethod);
        "only unary calls without a key are served".clone_into(&mut failure.message);
        return Err(failure);
    }
    let method = MethodName::from_slice(head.name(methods).as_bytes());
    Ok(Arrived {
        key,
        method,
        payload: body,
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
            match self.read_on(now, key, BytesMut::new(), self.longest_request()) {
                Step::Whole(body) => {
                    self.intake.settled(key);
                    match parse(key, body, self.limits.max_request, &mut self.intake.methods) {
                        Ok(arrived) => return Some(arrived),
                        Err(failure) => self.refuse(key, &failure),
                    }
                }
                Step::Unfinished(body) => {
                    self.intake.unfinished += body.len();
                    self.slot(key).work = Work::Request(Box::new(body));
                }
                step => {
                    self.intake.settled(key);
                    self.give_up(key, &step);
                }
            }
        }
        None
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
        self.respond(key, &answer_head(Err(failure)), None);
    }

    fn give_up(&mut self, key: StreamKey, step: &Step) {
        if matches!(step, Step::TooLarge) {
            let failure = Failure::refused(Code::ResourceExhausted, Reason::TooLarge);
            self.refuse(key, &failure);
        } else {
            self.core.release(key);
        }
    }

    /// Reads a stream on until it ends, is empty, or exceeds `max` bytes.
    pub(crate) fn read_on(&mut self, now: Timestamp, key: StreamKey, mut body: BytesMut, max: usize) -> Step {
        if body.is_empty()
            && let Some(whole) = self.core.read_last(now, key)
        {
            return if whole.len() > max {
                Step::TooLarge
            } else {
                Step::Whole(whole)
            };
        }
        let mut first = Bytes::new();
        loop {
            match self.core.read(now, key, usize::MAX) {
                Ok(Read::Data(data)) if first.is_empty() && body.is_empty() => first = data,
                Ok(Read::Data(data)) => {
                    body.put(std::mem::take(&mut first));
                    body.put(data);
                }
                Ok(Read::Finished) if body.is_empty() => return Step::Whole(first),
                Ok(Read::Finished) => return Step::Whole(body.freeze()),
                Ok(Read::Blocked) => {
                    body.put(first);
                    return Step::Unfinished(body);
                }
                Err(error) => return Step::Gone(error),
            }
            if body.len().max(first.len()) > max {
                return Step::TooLarge;
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
        let body = match std::mem::take(&mut self.slot(key).work) {
            Work::Request(body) => body,
            other => {
                self.slot(key).work = other;
                return self.intake.settled(key);
            }
        };
        let held = body.len();
        match self.read_on(now, key, *body, self.longest_request()) {
            Step::Unfinished(body) => {
                self.intake.unfinished += body.len() - held;
                self.slot(key).work = Work::Request(Box::new(body));
                return;
            }
            Step::Whole(body) => match parse(key, body, self.limits.max_request, &mut self.intake.methods) {
                Ok(arrived) => {
                    self.intake.unaccepted += arrived.len();
                    self.intake.ready.push_back(arrived);
                }
                Err(failure) => self.refuse(key, &failure),
            },
            step => self.give_up(key, &step),
        }
        self.intake.unfinished = self.intake.unfinished.saturating_sub(held);
        self.intake.settled(key);
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
            if self.intake.ready.is_empty() && self.intake.is_full(self.limits) {
                return true;
            }
            let Some(arrived) = self.next_request(self.now) else {
                return false;
            };
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
pub(crate) fn answer_head(result: Result<(), &Failure>) -> SmallVec<[u8; 16]> {
    match result {
        Ok(()) => {
            let mut bytes = [0; 16];
            let mut rest = &mut bytes[..];
            put_success(&mut rest, &Metadata::new());
            let left = rest.len();
            SmallVec::from_slice(&bytes[..bytes.len() - left])
        }
        Err(failure) => {
            let mut head = Vec::new();
            put_failure(&mut head, failure, &Metadata::new());
            SmallVec::from_vec(head)
        }
    }
}

#[cfg(test)]
mod tests;
