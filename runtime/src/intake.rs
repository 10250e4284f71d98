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

use crate::calls::CallId;
use crate::dispatch::{LongCall, Parts};
use crate::shared::State;

/// The longest method name, in bytes.
pub const MAX_METHOD_LEN: usize = 255;
/// Bytes of unfinished requests that one session holds. Beyond it only the oldest is read on.
pub const MAX_UNFINISHED: usize = 64 * 1024 * 1024;

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
    pub(crate) method: Method,
    pub(crate) payload: Bytes,
}

/// A method's name; most are short.
pub(crate) type Method = SmallVec<[u8; 16]>;

/// Requests that were accepted from the core and are not whole yet, and those that are.
#[derive(Default)]
pub(crate) struct Intake {
    ready: VecDeque<Arrived>,
    /// On their way to the handles.
    pub(crate) collected: Vec<Arrived>,
    unfinished: usize,
    stalled: VecDeque<StreamKey>,
    /// Reads on although too much is unfinished, so that something gets finished.
    privileged: Option<StreamKey>,
}

/// What came of reading on.
pub(crate) enum Step {
    Whole(Bytes),
    Unfinished(BytesMut),
    Gone(StreamError),
    TooLarge,
}

fn parse(key: StreamKey, mut body: Bytes) -> Option<Arrived> {
    let mut input = &body[..];
    let len = usize::try_from(varint::get(&mut input).ok()?).ok()?;
    if len > MAX_METHOD_LEN || len > input.len() {
        return None;
    }
    body.advance(body.len() - input.len());
    let method = Method::from_slice(&body[..len]);
    std::str::from_utf8(&method).ok()?;
    body.advance(len);
    Some(Arrived {
        key,
        method,
        payload: body,
    })
}

impl State {
    /// The next whole request, in the order in which they became whole.
    pub(crate) fn next_request(&mut self, now: Timestamp) -> Option<Arrived> {
        if let Some(arrived) = self.intake.ready.pop_front() {
            return Some(arrived);
        }
        while let Some(key) = self.core.accept(Kind::Bi, Class::REQUESTS) {
            self.fresh_slot(key);
            match self.read_on(now, key, BytesMut::new(), self.longest_request()) {
                Step::Whole(body) => match parse(key, body) {
                    Some(arrived) => return Some(arrived),
                    None => self.respond_malformed(key),
                },
                Step::Unfinished(body) => {
                    self.intake.unfinished += body.len();
                    self.slot(key).work = Work::Request(Box::new(body));
                }
                step => self.give_up(key, &step),
            }
        }
        None
    }

    /// Bytes of the longest request, with its method.
    fn longest_request(&self) -> usize {
        self.max_request.saturating_add(MAX_METHOD_LEN + varint::MAX_LEN)
    }

    fn respond_malformed(&mut self, key: StreamKey) {
        let head = answer_head(STATUS_MALFORMED);
        self.respond(key, &head, Some(Bytes::from_static(b"malformed request")));
    }

    fn give_up(&mut self, key: StreamKey, step: &Step) {
        if matches!(step, Step::TooLarge) {
            let head = answer_head(STATUS_TOO_LARGE);
            self.respond(key, &head, Some(Bytes::from_static(b"the request is too large")));
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

    /// Reads on in unfinished requests, from `key` on, as far as memory allows.
    pub(crate) fn pump_request(&mut self, now: Timestamp, key: StreamKey) {
        let mut next = Some(key);
        while let Some(key) = next {
            let body = match std::mem::take(&mut self.slot(key).work) {
                Work::Request(body) => body,
                other => {
                    self.slot(key).work = other;
                    return;
                }
            };
            if self.intake.unfinished > MAX_UNFINISHED && self.intake.privileged != Some(key) {
                if self.intake.privileged.is_some() {
                    self.slot(key).work = Work::Request(body);
                    self.intake.stalled.push_back(key);
                    return;
                }
                self.intake.privileged = Some(key);
            }
            let held = body.len();
            match self.read_on(now, key, *body, self.longest_request()) {
                Step::Unfinished(body) => {
                    self.intake.unfinished += body.len() - held;
                    self.slot(key).work = Work::Request(Box::new(body));
                    return;
                }
                Step::Whole(body) => match parse(key, body) {
                    Some(arrived) => self.intake.ready.push_back(arrived),
                    None => self.respond_malformed(key),
                },
                step => self.give_up(key, &step),
            }
            self.intake.unfinished = self.intake.unfinished.saturating_sub(held);
            if self.intake.privileged == Some(key) {
                self.intake.privileged = None;
            }
            next = self.intake.stalled.pop_front();
        }
    }
}

/// What an answer begins with.
pub(crate) fn answer_head(status: u64) -> SmallVec<[u8; 16]> {
    let mut head = SmallVec::new();
    put_varint(&mut head, status);
    head
}

/// A varint at the end of a small vector.
pub(crate) fn put_varint<const N: usize>(out: &mut SmallVec<[u8; N]>, value: u64)
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    if value < 0x80 {
        // One byte is the value itself (PROTOCOL 2).
        return out.push(value as u8);
    }
    let mut bytes = [0; varint::MAX_LEN];
    let mut rest = &mut bytes[..];
    varint::put(&mut rest, value);
    let left = rest.len();
    out.extend_from_slice(&bytes[..varint::MAX_LEN - left]);
}
