//! What the driver does for requests: it carries out the commands that handles left, writes on where a
//! stream was full, reads answers until they are whole, and hands them over.

use bytes::Bytes;
use sheetbend_core::request::{AnswerError, CallError, CallKind, Cause, ResetCode, Sent};
use sheetbend_core::session::{OpenError, StreamError, StreamKey};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, Kind};

use crate::body::Body;
use crate::calls::{Batch, CallId, Calls, Due, Place, Task};
use crate::intake::{Step, Work};
use crate::open::Waiting;
use crate::shared::State;
use crate::waits::WakeList;

/// What a request is, on the wire.
pub(crate) const OPEN: (Kind, Class) = (Kind::Bi, Class::REQUESTS);

/// What is still to be written on a stream, in three pieces: of what did not fit, what goes by reference, and
/// what was added behind it.
#[derive(Default)]
pub(crate) struct Parts(pub(crate) [Bytes; 3]);

/// What the driver does once all is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Leaves the stream to its handle.
    Wait,
    /// Ends it, and leaves it to its handle.
    Finish,
    /// Ends it; the handle of its sending half is gone.
    ReleaseSend,
    /// Ends it and is done with it.
    Release,
}

/// Something of a call that did not fit into its stream at once.
pub(crate) struct Writing {
    pub(crate) parts: Parts,
    pub(crate) then: Then,
}

/// A request that does not fit into its stream's first credit, or an answer that comes in pieces.
pub(crate) struct LongCall {
    id: CallId,
    /// `None` once all of it is written.
    parts: Option<Parts>,
    answer: Body,
}

/// A request that stands in line for its stream.
pub(crate) struct WaitingCall {
    id: CallId,
    parts: Parts,
}

impl Parts {
    pub(crate) fn new(head: &[u8], rest: Option<Bytes>) -> Parts {
        Parts([
            Bytes::copy_from_slice(head),
            rest.unwrap_or_default(),
            Bytes::new(),
        ])
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
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
                Task::Request(id) => self.begin_call(id, head, command.rest, command.repeatable),
                Task::RequestBy(id, at) => {
                    self.carried.set_due(id, at);
                    self.begin_call(id, head, command.rest, command.repeatable);
                }
                Task::Respond(key) => self.respond(key, head, command.rest),
            }
        }
    }

    /// Hands over what is done, and lays requests of the peer ready. Tells how many there are of both.
    pub(crate) fn hand_over(&mut self, calls: &mut Calls, wakes: &mut WakeList) -> usize {
        let done = self.carried.answered.len();
        calls.complete(&mut self.carried.answered, wakes);
        self.lay_ready(calls, wakes);
        if self.end.is_some() {
            calls.end(wakes);
        }
        done + calls.ready()
    }

    // ---- calls ----

    fn begin_call(&mut self, id: CallId, head: &[u8], rest: Option<Bytes>, repeatable: bool) {
        match self.open_in_turn(OPEN, repeatable) {
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
        let Parts([head, rest, _]) = parts;
        self.start_call(key, id, &head, Some(rest).filter(|rest| !rest.is_empty()));
    }

    /// A request in line gets no stream.
    pub(crate) fn refuse_waiting_call(&mut self, call: &WaitingCall, error: &OpenError) {
        self.refuse_call(call.id, error);
    }

    fn refuse_call(&mut self, id: CallId, error: &OpenError) {
        let error = CallError::NotSent(Cause::Open(*error));
        self.carried.answer(id, Err(Box::new(error)));
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
                let answer = Body::expecting(self.carried.usual);
                self.slot(key).work = Work::LongCall(Box::new(LongCall { id, parts, answer }));
                self.pump_call(key);
            }
            Err(error) => self.fail_call(key, id, false, Cause::Stream(error)),
        }
    }

    /// Writes on in a request, or reads on in its answer.
    pub(crate) fn pump_call(&mut self, key: StreamKey) {
        let Some(work) = self.take_work(key) else {
            return;
        };
        let (id, answer) = match work {
            Work::Call(id) => (id, Body::expecting(self.carried.usual)),
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
                        Err(error) => {
                            return self.fail_call(key, long.id, false, Cause::Stream(error));
                        }
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
                self.carried.usual.note(answer.len());
                self.core.release(key);
                self.carried.answer(id, Ok(answer));
            }
            Step::Unfinished(answer) if answer.is_empty() => self.slot(key).work = Work::Call(id),
            Step::Unfinished(answer) => {
                let parts = None;
                self.slot(key).work = Work::LongCall(Box::new(LongCall { id, parts, answer }));
            }
            Step::Gone(error) => self.fail_call(key, id, true, Cause::Stream(error)),
            Step::TooLarge { .. } => {
                let max = self.limits.max_request;
                self.core.release(key);
                let cause = Cause::Answer(AnswerError::TooLarge { max });
                let error = CallError::MaybeExecuted(cause);
                self.carried.answer(id, Err(Box::new(error)));
            }
        }
    }

    /// There is no answer to a call. `finished` tells that its end was written.
    fn fail_call(&mut self, key: StreamKey, id: CallId, finished: bool, cause: Cause) {
        let sent = Sent::of(self.core.send_progress(key), finished);
        self.core.release(key);
        let error = CallError::unanswered(CallKind::Unary, sent, cause);
        self.carried.answer(id, Err(Box::new(error)));
    }

    /// Ends the calls whose time is over.
    pub(crate) fn expire_calls(&mut self, now: Timestamp, wakes: &mut WakeList) {
        while let Some(due) = self.carried.take_due(now) {
            match due {
                Due::Call(id) => self.expire_call(id),
                Due::Stream(key) if self.core.stream_id(key).is_none() => {}
                Due::Stream(key) => {
                    self.drop_writing(key);
                    self.give_up_stream(key, ResetCode::Expired);
                    let slot = self.slot(key);
                    wakes.extend([slot.read.take(), slot.write.take()].into_iter().flatten());
                }
            }
        }
    }

    fn expire_call(&mut self, id: CallId) {
        match self.carried.places.get(id.0 as usize) {
            Some(Place::Stream(key)) => {
                let key = *key;
                let finished = match self.take_work(key) {
                    Some(Work::LongCall(long)) => long.parts.is_none(),
                    _ => true,
                };
                let sent = Sent::of(self.core.send_progress(key), finished);
                // What was not sent so far is not sent any more: the word for it stays true.
                self.give_up_stream(key, ResetCode::Expired);
                self.core.release(key);
                let error = CallError::unanswered(CallKind::Unary, sent, Cause::Deadline);
                self.carried.answer(id, Err(Box::new(error)));
            }
            Some(Place::Line(ticket)) => {
                let ticket = *ticket;
                self.leave_line(OPEN, ticket);
                let error = CallError::NotSent(Cause::Deadline);
                self.carried.answer(id, Err(Box::new(error)));
            }
            Some(Place::None) | None => {}
        }
    }

    /// Takes back what was not sent yet, and asks the peer to stop (PROTOCOL 11.7).
    pub(crate) fn give_up_stream(&mut self, key: StreamKey, code: ResetCode) {
        let left = self
            .core
            .send_progress(key)
            .is_some_and(|progress| progress.sent < progress.written);
        let open = self.core.write(key, &[]).is_ok();
        if left || open {
            let _: Result<(), StreamError> = self.core.reset(key, code.value());
        }
        let _: Result<(), StreamError> = self.core.stop_sending(key, code.value());
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
                self.give_up_stream(key, ResetCode::Cancelled);
                self.core.release(key);
            }
            Some(Place::Line(ticket)) => self.leave_line(OPEN, ticket),
            // It is done; its answer may not have been handed over.
            Some(Place::None) | None => self.carried.answered.retain(|(of, _)| *of != id),
        }
        self.carried.forget_due(id);
    }

    // ---- answers, and items ----

    /// Answers a request; what the stream does not take at once is written later.
    pub(crate) fn respond(&mut self, key: StreamKey, head: &[u8], rest: Option<Bytes>) {
        if rest.is_none() && self.core.write_last(key, head) {
            return self.core.release(key);
        }
        match self.core.write(key, head) {
            Ok(count) => self.write_on(key, Parts::new(&head[count..], rest), Then::Release),
            Err(_) => self.core.release(key),
        }
    }

    /// Writes, at once or as the peer gives credit.
    pub(crate) fn write_on(&mut self, key: StreamKey, parts: Parts, then: Then) {
        self.unsent += parts.len();
        self.slot(key).work = Work::Writing(Box::new(Writing { parts, then }));
        self.pump_writing(key);
    }

    /// What of this stream waits for credit.
    pub(crate) fn writing(&mut self, key: StreamKey) -> Option<&mut Writing> {
        self.core.stream_id(key)?;
        match &mut self.slot(key).work {
            Work::Writing(writing) => Some(writing),
            _ => None,
        }
    }

    /// What of this stream waits for credit is not wanted any more.
    pub(crate) fn drop_writing(&mut self, key: StreamKey) {
        if let Some(writing) = self.writing(key) {
            let left = writing.parts.len();
            self.slot(key).work = Work::None;
            self.unsent = self.unsent.saturating_sub(left);
        }
    }

    /// Whether something of this stream's calls waits for credit.
    pub(crate) fn is_writing(&mut self, key: StreamKey) -> bool {
        self.writing(key).is_some()
    }

    /// Writes on in an answer, or in an item. Tells whether the stream's handle may go on.
    pub(crate) fn pump_writing(&mut self, key: StreamKey) -> bool {
        let Some(work) = self.take_work(key) else {
            return true;
        };
        let mut writing = match work {
            Work::Writing(writing) => writing,
            other => {
                self.slot(key).work = other;
                return true;
            }
        };
        let before = writing.parts.len();
        let written = self.write_parts(key, &mut writing.parts);
        let left = match written {
            Ok(_) => writing.parts.len(),
            Err(_) => 0,
        };
        self.unsent = self.unsent.saturating_sub(before - left);
        match (written, writing.then) {
            (Ok(false), _) => {
                self.slot(key).work = Work::Writing(writing);
                return false;
            }
            (Ok(true), Then::Finish) => {
                let _: Result<(), StreamError> = self.core.finish(key);
            }
            (Ok(true), Then::ReleaseSend) => {
                let _: Result<(), StreamError> = self.core.finish(key);
                self.core.release_send(key);
            }
            (Err(_), Then::ReleaseSend) => self.core.release_send(key),
            (Ok(true), Then::Release) => {
                let _: Result<(), StreamError> = self.core.finish(key);
                self.core.release(key);
            }
            (Err(_), Then::Release) => self.core.release(key),
            (Ok(true), Then::Wait) | (Err(_), Then::Wait | Then::Finish) => {}
        }
        true
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
