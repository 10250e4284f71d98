//! Requests on their way in, and answers on their way out, as far as the driver carries them.
//!
//! PROTOCOL 11. Of the four kinds of calls this serves unary ones. One that is whole when it is asked for never passes here.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use sheetbend_core::request::status::FIRST_APPLICATION_CODE;
use sheetbend_core::request::{
    CallHead, CallKind, Code, Failure, MAX_HEAD, Metadata, PeerMethods, Reason, put_failure, put_success,
};
use sheetbend_core::session::{Read, StreamError, StreamKey};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, Kind};

use crate::shared::State;
use crate::waits::{Interest, WakeList};

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
pub(crate) enum Work {
    /// Collects a request.
    Request(BytesMut),
    /// Writes the rest of an answer.
    Response(Bytes),
}

/// A whole request.
pub(crate) struct Arrived {
    pub(crate) key: StreamKey,
    pub(crate) method: Bytes,
    pub(crate) payload: Bytes,
}

/// Requests that were accepted from the core and are not whole yet, and those that are.
#[derive(Default)]
pub(crate) struct Intake {
    ready: VecDeque<Arrived>,
    /// Bytes of those in `ready`.
    unaccepted: usize,
    unfinished: usize,
    /// Accepted from the core and not read on, for now.
    stalled: VecDeque<StreamKey>,
    /// Reads on although too much is unfinished, so that something gets finished.
    privileged: Option<StreamKey>,
    /// What the peer's numbers of methods stand for (PROTOCOL 11.6).
    methods: PeerMethods,
}

/// What came of reading on.
enum Step {
    Whole(Bytes),
    Unfinished(BytesMut),
    Gone,
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
    let method = Bytes::copy_from_slice(head.name(methods).as_bytes());
    Ok(Arrived {
        key,
        method,
        payload: body,
    })
}

impl Arrived {
    fn len(&self) -> usize {
        self.method.len() + self.payload.len()
    }
}

impl Intake {
    /// Bytes of requests that the application has not accepted.
    pub(crate) fn held_bytes(&self) -> u64 {
        (self.unfinished + self.unaccepted) as u64
    }

    /// Whether too much is unfinished already for another to be begun.
    fn is_crowded(&self) -> bool {
        self.unfinished > MAX_UNFINISHED && self.privileged.is_some()
    }

    /// Whether a request may be read on. What is not read holds its credit back, so that the peer waits.
    fn may_read(&mut self, key: StreamKey, limits: RequestLimits) -> bool {
        if self.unaccepted >= limits.max_unaccepted {
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
            match self.read_on(now, key, BytesMut::new()) {
                Step::Whole(body) => {
                    self.intake.settled(key);
                    match parse(key, body, self.limits.max_request, &mut self.intake.methods) {
                        Ok(arrived) => return Some(arrived),
                        Err(failure) => self.respond(key, Err(failure)),
                    }
                }
                Step::Unfinished(body) => {
                    self.intake.unfinished += body.len();
                    self.slot(key).work = Some(Box::new(Work::Request(body)));
                }
                step => {
                    self.intake.settled(key);
                    self.give_up(key, &step);
                }
            }
        }
        None
    }

    fn give_up(&mut self, key: StreamKey, step: &Step) {
        if matches!(step, Step::TooLarge) {
            let failure = Failure::refused(Code::ResourceExhausted, Reason::TooLarge);
            self.respond(key, Err(failure));
        } else {
            self.core.release(key);
        }
    }

    fn read_on(&mut self, now: Timestamp, key: StreamKey, mut body: BytesMut) -> Step {
        let max = self.limits.max_request;
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
                Err(_) => return Step::Gone,
            }
            if body.len().max(first.len()) > max.saturating_add(MAX_HEAD) {
                return Step::TooLarge;
            }
        }
    }

    /// Reads on in an unfinished request, if memory allows, and then in those that had to wait for it.
    pub(crate) fn pump_request(&mut self, now: Timestamp, key: StreamKey, wakes: &mut WakeList) {
        let limits = self.limits;
        if self.intake.may_read(key, limits) {
            self.read_request(now, key, wakes);
            self.resume_requests(now, wakes);
        } else {
            self.intake.stalled.push_back(key);
        }
    }

    /// Reads on in requests that had to wait, as far as memory allows.
    pub(crate) fn resume_requests(&mut self, now: Timestamp, wakes: &mut WakeList) {
        let limits = self.limits;
        while let Some(&key) = self.intake.stalled.front() {
            if !self.intake.may_read(key, limits) {
                return;
            }
            self.intake.stalled.pop_front();
            self.read_request(now, key, wakes);
        }
    }

    fn read_request(&mut self, now: Timestamp, key: StreamKey, wakes: &mut WakeList) {
        let Some(work) = self.slot(key).work.take() else {
            return self.intake.settled(key);
        };
        let Work::Request(body) = *work else {
            self.slot(key).work = Some(work);
            return self.intake.settled(key);
        };
        let held = body.len();
        match self.read_on(now, key, body) {
            Step::Unfinished(body) => {
                self.intake.unfinished += body.len() - held;
                self.slot(key).work = Some(Box::new(Work::Request(body)));
                return;
            }
            Step::Whole(body) => match parse(key, body, self.limits.max_request, &mut self.intake.methods) {
                Ok(arrived) => {
                    self.intake.unaccepted += arrived.len();
                    self.intake.ready.push_back(arrived);
                }
                Err(failure) => self.respond(key, Err(failure)),
            },
            step => self.give_up(key, &step),
        }
        self.intake.unfinished = self.intake.unfinished.saturating_sub(held);
        self.intake.settled(key);
        // Either one is ready, or there is room to begin another.
        self.waits.wake(Interest::Request, wakes);
    }

    /// Answers a request; what the stream does not take at once the driver writes later.
    pub(crate) fn respond(&mut self, key: StreamKey, answer: Result<Bytes, Failure>) {
        let mut head = Vec::new();
        let payload = match answer {
            Ok(payload) => {
                put_success(&mut head, &Metadata::new());
                payload
            }
            Err(failure) => {
                put_failure(&mut head, &failure, &Metadata::new());
                Bytes::new()
            }
        };
        let written = self.core.write(key, &head);
        let rest = match written {
            Ok(count) if count == head.len() => payload,
            Ok(count) => {
                let mut rest = BytesMut::with_capacity(head.len() - count + payload.len());
                rest.put_slice(&head[count..]);
                rest.put(payload);
                rest.freeze()
            }
            Err(_) => return self.core.release(key),
        };
        self.continue_response(key, rest);
    }

    fn continue_response(&mut self, key: StreamKey, mut rest: Bytes) {
        while !rest.is_empty() {
            match self.core.write_bytes(key, &mut rest) {
                Ok(0) => {
                    self.slot(key).work = Some(Box::new(Work::Response(rest)));
                    return;
                }
                Ok(_) => {}
                Err(_) => return self.core.release(key),
            }
        }
        let _: Result<(), StreamError> = self.core.finish(key);
        self.core.release(key);
    }

    /// Writes on in an answer.
    pub(crate) fn pump_response(&mut self, key: StreamKey) {
        let Some(work) = self.slot(key).work.take() else {
            return;
        };
        match *work {
            Work::Response(rest) => self.continue_response(key, rest),
            Work::Request(_) => self.slot(key).work = Some(work),
        }
    }
}

#[cfg(test)]
mod tests;
