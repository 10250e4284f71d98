//! Requests on their way in, and answers on their way out, as far as the driver carries them.
//!
//! A request is a bidirectional stream of class REQUESTS: length of the method name, name, payload,
//! end; its answer: status, payload, end. One that is whole when it is asked for never passes here.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sheetbend_core::session::{Read, StreamError, StreamKey};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, Kind, varint};
use smallvec::SmallVec;

use crate::shared::State;
use crate::waits::{Interest, WakeList};

/// The longest method name, in bytes.
pub const MAX_METHOD_LEN: usize = 255;
/// Bytes of unfinished requests that one session holds. Beyond it only the oldest is read on.
pub const MAX_UNFINISHED: usize = 64 * 1024 * 1024;
/// Bytes of whole requests that wait to be accepted, by default. See
/// [`ServerBuilder::max_unaccepted`](crate::ServerBuilder::max_unaccepted).
pub const DEFAULT_MAX_UNACCEPTED: usize = 32 * 1024 * 1024;

/// Status of an answer that is a success.
pub(crate) const STATUS_OK: u64 = 0;
/// Statuses below this are this library's, from here on the application's.
pub const FIRST_APPLICATION_STATUS: u64 = 16;
/// The request does not parse.
pub const STATUS_MALFORMED: u64 = 1;
/// The request is longer than the server takes.
pub const STATUS_TOO_LARGE: u64 = 2;
/// The handler dropped the request without an answer.
pub const STATUS_DROPPED: u64 = 3;

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
}

/// What came of reading on.
enum Step {
    Whole(Bytes),
    Unfinished(BytesMut),
    Gone,
    TooLarge,
}

fn parse(key: StreamKey, mut body: Bytes) -> Option<Arrived> {
    let mut input = &body[..];
    let len = usize::try_from(varint::get(&mut input).ok()?).ok()?;
    if len > MAX_METHOD_LEN || len > input.len() {
        return None;
    }
    body.advance(body.len() - input.len());
    let method = body.split_to(len);
    std::str::from_utf8(&method).ok()?;
    Some(Arrived {
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
                    match parse(key, body) {
                        Some(arrived) => return Some(arrived),
                        None => self.respond(key, STATUS_MALFORMED, Bytes::from_static(b"malformed request")),
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
            self.respond(
                key,
                STATUS_TOO_LARGE,
                Bytes::from_static(b"the request is too large"),
            );
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
            if body.len().max(first.len()) > max.saturating_add(MAX_METHOD_LEN + varint::MAX_LEN) {
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
            Step::Whole(body) => match parse(key, body) {
                Some(arrived) => {
                    self.intake.unaccepted += arrived.len();
                    self.intake.ready.push_back(arrived);
                }
                None => self.respond(key, STATUS_MALFORMED, Bytes::from_static(b"malformed request")),
            },
            step => self.give_up(key, &step),
        }
        self.intake.unfinished = self.intake.unfinished.saturating_sub(held);
        self.intake.settled(key);
        // Either one is ready, or there is room to begin another.
        self.waits.wake(Interest::Request, wakes);
    }

    /// Answers a request; what the stream does not take at once the driver writes later.
    pub(crate) fn respond(&mut self, key: StreamKey, status: u64, payload: Bytes) {
        let mut head: SmallVec<[u8; 16]> = SmallVec::new();
        put_varint(&mut head, status);
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

/// A varint at the end of a small vector.
pub(crate) fn put_varint<const N: usize>(out: &mut SmallVec<[u8; N]>, value: u64)
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    let mut bytes = [0; varint::MAX_LEN];
    let mut rest = &mut bytes[..];
    varint::put(&mut rest, value);
    let left = rest.len();
    out.extend_from_slice(&bytes[..varint::MAX_LEN - left]);
}

#[cfg(test)]
mod tests;
