//! Requests and answers on their way between the handles and the driver, behind a lock of their own.
//!
//! For anything else a handle takes the session's lock. Requests are too many for that: tasks on other
//! cores would wait for each other, and every one of them would pull the session's state into its own
//! cache. So callers and answerers leave [`Command`]s here, the driver takes all of them in one go, and
//! leaves here what became of them. The lock is held for a few instructions at a time; whoever holds
//! the session's lock may take this one, never the other way round.

use std::collections::{BTreeSet, VecDeque};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use sheetbend_core::request::{
    Answer, CallError, CallKind, IdempotencyKey, Metadata, Method, MethodTable, NameError, Reason,
    RequestHead, TimeLeft, TraceContext,
};
use sheetbend_core::session::StreamKey;
use sheetbend_core::time::Timestamp;

use crate::body::Usual;
use crate::intake::Arrived;
use crate::pool::take_batch;
use crate::shared::store;
use crate::waits::{Interest, Ticket, Waits, WakeList};

/// Payloads below this are copied into the batch, so that a command owns no memory.
const COPIED: usize = 2048;
/// Whole requests of the peer that are laid ready here at most, and their bytes, which the last may exceed. The
/// rest waits in its streams, where the peer's credit bounds it.
pub(crate) const READY_REQUESTS: usize = 32;
pub(crate) const READY_BYTES: usize = 256 * 1024;
/// A batch keeps this much memory for the next.
const KEPT: usize = 256 * 1024;

/// Place of a request in the table of those under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) u32);

/// What a command is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// Call the peer.
    Request(CallId),
    /// Call the peer, and wait no longer than until then.
    RequestBy(CallId, Timestamp),
    /// Answer the peer's request on this stream.
    Respond(StreamKey),
}

/// Something that a handle wants the driver to do: open or take a stream, write, finish.
pub(crate) struct Command {
    pub(crate) task: Task,
    /// It is a call that may be done twice, so that it may go as early data (PROTOCOL 5.6).
    pub(crate) repeatable: bool,
    /// So many of the batch's bytes are written first.
    pub(crate) len: usize,
    /// What is written behind them.
    pub(crate) rest: Option<Bytes>,
}

/// Commands in their order, and the bytes of all of them.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) commands: Vec<Command>,
    pub(crate) bytes: Vec<u8>,
}

impl Batch {
    fn push(&mut self, task: Task, put_head: impl FnOnce(&mut Vec<u8>), payload: Bytes) {
        if self.commands.capacity() == 0 {
            *self = take_batch();
        }
        let before = self.bytes.len();
        put_head(&mut self.bytes);
        let rest = if payload.len() < COPIED {
            self.bytes.extend_from_slice(&payload);
            None
        } else {
            Some(payload)
        };
        let len = self.bytes.len() - before;
        let repeatable = false;
        self.commands.push(Command {
            task,
            repeatable,
            len,
            rest,
        });
    }

    /// An empty batch that holds memory.
    pub(crate) fn with_room() -> Batch {
        Batch {
            commands: Vec::with_capacity(64),
            bytes: Vec::with_capacity(4096),
        }
    }

    /// Empties it; gives it if its memory is worth keeping for another batch.
    pub(crate) fn recycled(mut self) -> Option<Batch> {
        self.commands.clear();
        self.bytes.clear();
        let small = self.bytes.capacity() <= KEPT && self.commands.capacity() <= KEPT / size_of::<Command>();
        (small && self.commands.capacity() > 0).then_some(self)
    }
}

/// Makes room for the first of what most sessions have one of at a time.
fn room_for_one<T>(list: &mut Vec<T>) {
    if list.capacity() == 0 {
        list.reserve_exact(1);
    }
}

/// What a call says of itself besides its method, its deadline and its payload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) metadata: Metadata,
    /// At most 64 bytes; empty for none.
    pub(crate) key: Bytes,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) repeatable: bool,
    pub(crate) attempt: u64,
}

/// The head of a call (PROTOCOL 11.2).
pub(crate) fn head<'a>(
    method: Method<'a>,
    kind: CallKind,
    options: Option<&'a Options>,
    time_left: Option<TimeLeft>,
) -> RequestHead<'a> {
    let mut head = RequestHead::unary(method);
    head.kind = kind;
    head.time_left = time_left;
    if let Some(options) = options {
        head.metadata = options.metadata.as_block();
        head.key = IdempotencyKey::new(&options.key).ok();
        head.trace = options.trace;
        head.repeatable = options.repeatable;
        head.attempt = options.attempt;
    }
    head
}

/// Where a request stands, for its caller.
enum Call {
    /// Nobody's.
    Vacant,
    /// Under way.
    Waiting {
        waker: Waker,
        /// The number that its head gave to the method, or 0.
        defines: u32,
    },
    /// Answered, or known to have failed.
    Done(Ending),
}

/// How a request ended: with the whole of the peer's answer, or without one.
pub(crate) type Ending = Result<Bytes, Box<CallError>>;

/// What a request came to.
pub(crate) type Answered = (CallId, Ending);

/// Whether an answer tells that the peer has the name that came with the call (PROTOCOL 11.6).
fn confirms(answer: &Bytes) -> bool {
    // Success without metadata.
    if answer.first() == Some(&0) {
        return true;
    }
    match Answer::from_whole(answer.clone()).map(|answer| answer.result) {
        Ok(Ok(_)) => true,
        Ok(Err(failure)) => failure.reason != Some(Reason::MalformedHead),
        Err(_) => false,
    }
}

/// Everything behind this lock.
#[derive(Default)]
pub(crate) struct Calls {
    batch: Batch,
    /// Numbers of the methods that this end calls (PROTOCOL 11.6).
    pub(crate) methods: MethodTable,
    calls: Vec<Call>,
    vacant: Vec<u32>,
    ready: VecDeque<Arrived>,
    /// Bytes of those in `ready`.
    ready_bytes: usize,
    /// Who waits for a request of the peer.
    acceptors: Waits,
    /// Requests are taken by [`Calls::poll_ready`], so that the driver is to lay some ready.
    accepting: bool,
    /// The driver is to lay requests ready although no command calls it.
    asked: bool,
    /// There are more whole requests than were laid ready.
    more: bool,
    /// The driver is to know when one of those that lie ready is taken.
    tell: bool,
    /// The session has ended; no request is laid ready any more.
    ended: bool,
    /// The driver, while it has not been told that there are commands.
    driver: Option<Waker>,
    /// The driver has ended: who leaves a command carries it out.
    pub(crate) closed: bool,
}

impl Calls {
    // ---- the handles' side ----

    /// Leaves a unary call for the driver, which says that it has `left` and ends here at `until`.
    pub(crate) fn request(
        &mut self,
        cx: &Context<'_>,
        method: &str,
        options: Option<&Options>,
        (left, until): (Option<TimeLeft>, Option<Timestamp>),
        payload: Bytes,
    ) -> Result<CallId, NameError> {
        let method = self.methods.method(method)?;
        let waiting = Call::Waiting {
            waker: cx.waker().clone(),
            defines: method.defines().unwrap_or(0),
        };
        let id = match self.vacant.pop() {
            Some(id) => {
                self.calls[id as usize] = waiting;
                CallId(id)
            }
            None => {
                room_for_one(&mut self.calls);
                self.calls.push(waiting);
                // So many cannot be: each has a task's memory.
                CallId((self.calls.len() - 1) as u32)
            }
        };
        let task = match until {
            None => Task::Request(id),
            Some(at) => Task::RequestBy(id, at),
        };
        let head = head(method, CallKind::Unary, options, left);
        self.batch.push(task, |out| head.encode(out), payload);
        if let Some(command) = self.batch.commands.last_mut() {
            command.repeatable = head.repeatable;
        }
        Ok(id)
    }

    /// Leaves an answer for the driver.
    pub(crate) fn respond(&mut self, key: StreamKey, head: &[u8], payload: Bytes) {
        self.batch
            .push(Task::Respond(key), |out| out.extend_from_slice(head), payload);
    }

    /// The driver, if it is to be woken for what was left.
    pub(crate) fn take_driver(&mut self) -> Option<Waker> {
        if self.asked || !self.batch.commands.is_empty() {
            self.driver.take()
        } else {
            None
        }
    }

    /// Whether there are commands.
    pub(crate) fn has_commands(&self) -> bool {
        !self.batch.commands.is_empty()
    }

    /// What became of a request, whose place is free again then.
    pub(crate) fn poll_answer(&mut self, cx: &Context<'_>, id: CallId) -> Poll<Ending> {
        let call = &mut self.calls[id.0 as usize];
        if let Call::Waiting { waker, .. } = call {
            if !waker.will_wake(cx.waker()) {
                waker.clone_from(cx.waker());
            }
            return Poll::Pending;
        }
        match std::mem::replace(call, Call::Vacant) {
            Call::Done(answer) => {
                self.free(id);
                Poll::Ready(answer)
            }
            Call::Vacant | Call::Waiting { .. } => {
                unreachable!("a request keeps its place until it is answered")
            }
        }
    }

    fn free(&mut self, id: CallId) {
        room_for_one(&mut self.vacant);
        self.vacant.push(id.0);
    }

    /// Gives the place up of a request that nobody waits for.
    pub(crate) fn forget(&mut self, id: CallId) {
        self.calls[id.0 as usize] = Call::Vacant;
        self.free(id);
    }

    /// The next of the peer's requests that lie ready; `None` once the session has ended.
    pub(crate) fn poll_ready(
        &mut self,
        cx: &Context<'_>,
        ticket: &mut Option<Ticket>,
    ) -> Poll<Option<Arrived>> {
        let next = self.ready.pop_front();
        if next.is_none() && !self.ended {
            self.acceptors.register(Interest::Request, ticket, cx);
            self.asked |= !self.accepting || self.more;
            self.accepting = true;
            return Poll::Pending;
        }
        if let Some(own) = ticket.take() {
            self.acceptors.forget(Interest::Request, own);
        }
        if let Some(arrived) = &next {
            self.ready_bytes -= arrived.len();
            self.asked |= std::mem::take(&mut self.tell);
        }
        Poll::Ready(next)
    }

    /// Nobody waits for a request with this ticket any more.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.acceptors.forget(Interest::Request, ticket);
    }

    // ---- the side of whoever holds the session's lock ----

    /// Takes the commands.
    pub(crate) fn take_batch(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    /// Notes whom to wake for the next command. Tells whether there are some already.
    pub(crate) fn arm(&mut self, cx: &Context<'_>) -> bool {
        if self.asked || !self.batch.commands.is_empty() {
            return true;
        }
        store(&mut self.driver, cx);
        false
    }

    /// Hands answers over to their callers.
    pub(crate) fn complete(&mut self, answered: &mut Vec<Answered>, wakes: &mut WakeList) {
        for (id, answer) in answered.drain(..) {
            let call = &mut self.calls[id.0 as usize];
            if let Call::Waiting { defines, .. } = call
                && *defines != 0
                && answer.as_ref().is_ok_and(confirms)
            {
                self.methods.handle_answer(*defines);
            }
            if let Call::Waiting { waker, .. } = std::mem::replace(call, Call::Done(answer)) {
                wakes.push(waker);
            }
        }
    }

    /// How many requests of the peer are to be laid ready, and the bytes of those that lie here.
    pub(crate) fn wanted(&mut self) -> (usize, usize) {
        self.asked = false;
        let wanted = if self.accepting {
            READY_REQUESTS.saturating_sub(self.ready.len())
        } else {
            0
        };
        (wanted, self.ready_bytes)
    }

    /// How many requests of the peer lie ready.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Bytes of the requests that lie ready.
    pub(crate) fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// Whether it matters to the driver that one of those that lie ready is taken; if some have been since it
    /// looked, it is to look again.
    pub(crate) fn tell_of_taking(&mut self, matters: bool, taken: bool) {
        self.asked |= matters && taken;
        self.tell = matters;
    }

    /// Lays requests of the peer ready; `more` tells whether there are others, where that is known.
    pub(crate) fn lay_ready(
        &mut self,
        collected: &mut Vec<Arrived>,
        more: Option<bool>,
        wakes: &mut WakeList,
    ) {
        self.more = more.unwrap_or(self.more);
        if !collected.is_empty() {
            if self.ready.capacity() == 0 {
                self.ready.reserve_exact(collected.len());
            }
            self.ready_bytes += collected.iter().map(Arrived::len).sum::<usize>();
            self.ready.extend(collected.drain(..));
            self.acceptors.wake(Interest::Request, wakes);
        }
    }

    /// The session has ended.
    pub(crate) fn end(&mut self, wakes: &mut WakeList) {
        if !std::mem::replace(&mut self.ended, true) {
            self.acceptors.wake_all(wakes);
        }
    }

    /// Gives back what an idle session does not need.
    pub(crate) fn shrink(&mut self) {
        if self.vacant.len() == self.calls.len() {
            self.calls = Vec::new();
            self.vacant = Vec::new();
        }
        self.ready.shrink_to_fit();
        self.acceptors.shrink();
    }
}

/// What the driver knows of the requests that it sends.
#[derive(Default)]
pub(crate) struct Carried {
    /// How long long answers are.
    pub(crate) usual: Usual,
    /// On their way back to the handles.
    pub(crate) answered: Vec<Answered>,
    /// The streams of requests under way, or their places in line, by [`CallId`].
    pub(crate) places: Vec<Place>,
    /// When calls end by themselves.
    due: BTreeSet<(Timestamp, Due)>,
    /// Those of unary calls, by [`CallId`]; `MAX` for none. Shorter than `places` where they have none.
    due_at: Vec<Timestamp>,
}

/// What a deadline ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A unary call.
    Call(CallId),
    /// A call that its handles carry on.
    Stream(StreamKey),
}

/// What the driver knows a request by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Place {
    /// It is done, or has not come.
    #[default]
    None,
    /// It has its stream.
    Stream(StreamKey),
    /// It stands in line for one, with this ticket.
    Line(u64),
}

impl Carried {
    pub(crate) fn place(&mut self, id: CallId, place: Place) {
        let index = id.0 as usize;
        if index >= self.places.len() {
            room_for_one(&mut self.places);
            self.places.resize(index + 1, Place::None);
        }
        self.places[index] = place;
    }

    /// A request is over.
    pub(crate) fn answer(&mut self, id: CallId, answer: Ending) {
        self.place(id, Place::None);
        self.forget_due(id);
        room_for_one(&mut self.answered);
        self.answered.push((id, answer));
    }

    /// The call is to end then.
    pub(crate) fn set_due(&mut self, id: CallId, at: Timestamp) {
        let index = id.0 as usize;
        if index >= self.due_at.len() {
            self.due_at.resize(index + 1, Timestamp::MAX);
        }
        self.due_at[index] = at;
        self.due.insert((at, Due::Call(id)));
    }

    /// The call is over: its deadline says nothing any more.
    pub(crate) fn forget_due(&mut self, id: CallId) {
        if let Some(at) = self.due_at.get_mut(id.0 as usize)
            && *at != Timestamp::MAX
        {
            self.due.remove(&(*at, Due::Call(id)));
            *at = Timestamp::MAX;
        }
    }

    /// The call on this stream is to end then.
    pub(crate) fn set_stream_due(&mut self, key: StreamKey, at: Timestamp) {
        self.due.insert((at, Due::Stream(key)));
    }

    /// The call on this stream is over.
    pub(crate) fn forget_stream_due(&mut self, key: StreamKey, at: Timestamp) {
        self.due.remove(&(at, Due::Stream(key)));
    }

    /// When the next call ends by itself.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next call that is over at `now`.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Option<Due> {
        let (at, due) = *self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, due));
        if let Due::Call(CallId(index)) = due {
            self.due_at[index as usize] = Timestamp::MAX;
        }
        Some(due)
    }

    /// Gives back what an idle session does not need.
    pub(crate) fn shrink(&mut self) {
        if self.places.iter().all(|place| matches!(place, Place::None)) {
            self.places = Vec::new();
            self.due_at = Vec::new();
        }
        self.answered.shrink_to_fit();
    }
}
