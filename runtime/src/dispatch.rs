//! What the driver does for requests: it carries out the commands that handles left, writes on where a
//! stream was full, reads answers until they are whole, and hands them over.

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use sheetbend_core::session::{OpenError, StreamError, StreamKey};
use sheetbend_core::wire::{Class, Kind};

use crate::calls::{Batch, CallId, Calls, Place, Task};
use crate::intake::{STATUS_TOO_LARGE, Step, Work};
use crate::open::Waiting;
use crate::request::{RequestError, parse_answer};
use crate::shared::State;
use crate::waits::WakeList;

/// What a request is, on the wire.
const OPEN: (Kind, Class) = (Kind::Bi, Class::REQUESTS);

/// What is still to be written on a stream, in two pieces.
pub(crate) struct Parts(pub(crate) [Bytes; 2]);

/// A request that does not fit into its stream's first credit, or an answer that comes in pieces.
pub(crate) struct LongCall {
    id: CallId,
    /// `None` once all of it is written.
    parts: Option<Parts>,
    answer: BytesMut,
}

/// A request that stands in line for its stream.
pub(crate) struct WaitingCall {
    id: CallId,
    parts: Parts,
}

impl Parts {
    fn new(head: &[u8], rest: Option<Bytes>) -> Parts {
        Parts([Bytes::copy_from_slice(head), rest.unwrap_or_default()])
    }
}

impl State {
    /// Carries out what the handles left.
    pub(crate) fn carry_out(&mut self, batch: &mut Batch) {
        let mut bytes = &batch.bytes[..];
        for command in batch.commands.drain(..) {
            let (head, behind) = bytes.split_at(command.len);
            bytes = behind;
            match command.task {
                Task::Request(id) => self.begin_call(id, head, command.rest),
                Task::Respond(key) => self.respond(key, head, command.rest),
            }
        }
    }

    /// Hands over what is done, and lays requests of the peer ready.
    pub(crate) fn hand_over(&mut self, calls: &Mutex<Calls>, wakes: &mut WakeList) {
        let mut calls = calls.lock();
        calls.complete(&mut self.carried.answered, wakes);
        self.lay_ready(&mut calls, wakes);
        if self.end.is_some() {
            calls.end(wakes);
        }
    }

    // ---- calls ----

    fn begin_call(&mut self, id: CallId, head: &[u8], rest: Option<Bytes>) {
        match self.open_in_turn(OPEN) {
            Ok(key) => self.start_call(key, id, head, rest),
            Err(OpenError::Exhausted) => {
                let parts = Parts::new(head, rest);
                let call = Box::new(WaitingCall { id, parts });
                let ticket = self.openers.join(OPEN, Waiting::Call(call));
                self.carried.place(id, Place::Line(ticket));
            }
            Err(error) => self.refuse_call(id, &error),
        }
    }

    /// A request in line has got its stream.
    pub(crate) fn start_waiting_call(&mut self, key: StreamKey, call: WaitingCall) {
        let WaitingCall { id, parts } = call;
        let Parts([head, rest]) = parts;
        self.start_call(key, id, &head, Some(rest).filter(|rest| !rest.is_empty()));
    }

    /// A request in line gets no stream.
    pub(crate) fn refuse_waiting_call(&mut self, call: &WaitingCall, error: &OpenError) {
        self.refuse_call(call.id, error);
    }

    fn refuse_call(&mut self, id: CallId, error: &OpenError) {
        self.carried
            .answer(id, Err(RequestError::NotSent(error.to_string())));
    }

    fn start_call(&mut self, key: StreamKey, id: CallId, head: &[u8], rest: Option<Bytes>) {
        self.carried.place(id, Place::Stream(key));
        if rest.is_none() && self.core.write_last(key, head) {
            self.core.watch(key);
            self.slot(key).work = Work::Call(id);
            return;
        }
        match self.core.write(key, head) {
            Ok(count) => {
                let parts = Some(Parts::new(&head[count..], rest));
                let answer = BytesMut::new();
                self.slot(key).work = Work::LongCall(Box::new(LongCall { id, parts, answer }));
                self.pump_call(key);
            }
            Err(error) => self.fail_call(key, id, &error),
        }
    }

    /// Writes on in a request, or reads on in its answer.
    pub(crate) fn pump_call(&mut self, key: StreamKey) {
        let (id, answer) = match std::mem::take(&mut self.slot(key).work) {
            Work::Call(id) => (id, BytesMut::new()),
            Work::LongCall(mut long) => {
                if let Some(parts) = &mut long.parts {
                    match self.write_parts(key, parts) {
                        Ok(false) => {
                            self.slot(key).work = Work::LongCall(long);
                            return;
                        }
                        Ok(true) => {
                            let _: Result<(), StreamError> = self.core.finish(key);
                        }
                        // The answer may say why.
                        Err(StreamError::Stopped(_)) => {}
                        Err(error) => return self.fail_call(key, long.id, &error),
                    }
                }
                (long.id, long.answer)
            }
            other => {
                self.slot(key).work = other;
                return;
            }
        };
        match self.read_on(self.now, key, answer, self.limits.max_request) {
            Step::Whole(answer) => {
                self.core.release(key);
                self.carried.answer(id, parse_answer(answer));
            }
            Step::Unfinished(answer) if answer.is_empty() => self.slot(key).work = Work::Call(id),
            Step::Unfinished(answer) => {
                let parts = None;
                self.slot(key).work = Work::LongCall(Box::new(LongCall { id, parts, answer }));
            }
            Step::Gone(error) => self.fail_call(key, id, &error),
            Step::TooLarge => {
                self.core.release(key);
                let message = format!("the answer exceeds {} bytes", self.limits.max_request);
                let code = STATUS_TOO_LARGE;
                self.carried
                    .answer(id, Err(RequestError::Failed { code, message }));
            }
        }
    }

    /// The stream of a request failed.
    fn fail_call(&mut self, key: StreamKey, id: CallId, error: &StreamError) {
        let sent = self
            .core
            .send_progress(key)
            .is_none_or(|progress| progress.sent > 0);
        let why = self
            .end
            .as_ref()
            .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause:?}"));
        self.core.release(key);
        let error = if sent {
            RequestError::Maybe(why)
        } else {
            RequestError::NotSent(why)
        };
        self.carried.answer(id, Err(error));
    }

    /// The session has ended: every request under way learns what is known of it.
    pub(crate) fn end_calls(&mut self) {
        for index in 0..self.carried.places.len() {
            if let Place::Stream(key) = self.carried.places[index] {
                self.pump_call(key);
            }
        }
    }

    /// Nobody waits for a request any more.
    pub(crate) fn abandon_call(&mut self, id: CallId) {
        let place = self.carried.places.get_mut(id.0 as usize);
        match place.map(std::mem::take) {
            Some(Place::Stream(key)) => {
                self.slot(key).work = Work::None;
                self.core.release(key);
            }
            Some(Place::Line(ticket)) => self.leave_line(OPEN, ticket),
            // It is done; its answer may not have been handed over.
            Some(Place::None) | None => self.carried.answered.retain(|(of, _)| *of != id),
        }
    }

    // ---- answers ----

    /// Answers a request; what the stream does not take at once is written later.
    pub(crate) fn respond(&mut self, key: StreamKey, head: &[u8], rest: Option<Bytes>) {
        if rest.is_none() && self.core.write_last(key, head) {
            return self.core.release(key);
        }
        match self.core.write(key, head) {
            Ok(count) => {
                self.slot(key).work = Work::Response(Box::new(Parts::new(&head[count..], rest)));
                self.pump_response(key);
            }
            Err(_) => self.core.release(key),
        }
    }

    fn end_response(&mut self, key: StreamKey) {
        let _: Result<(), StreamError> = self.core.finish(key);
        self.core.release(key);
    }

    /// Writes on in an answer.
    pub(crate) fn pump_response(&mut self, key: StreamKey) {
        match std::mem::take(&mut self.slot(key).work) {
            Work::Response(mut parts) => match self.write_parts(key, &mut parts) {
                Ok(true) => self.end_response(key),
                Ok(false) => self.slot(key).work = Work::Response(parts),
                Err(_) => self.core.release(key),
            },
            other => self.slot(key).work = other,
        }
    }

    /// Whether all was written.
    fn write_parts(&mut self, key: StreamKey, parts: &mut Parts) -> Result<bool, StreamError> {
        for part in &mut parts.0 {
            while !part.is_empty() {
                if self.core.write_bytes(key, part)? == 0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
