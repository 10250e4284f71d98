//! How many calls run at once, and who is next: by turns among sessions, and among the methods of each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use slab::Slab;

use super::status::{Code, Failure, Pushback, Reason};
use crate::time::Timestamp;

/// The settings of a [`Limiter`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The most calls that run.
    pub max_running: usize,
    /// The most of one session.
    pub max_running_per_session: usize,
    /// The most of one method, where [`Limiter::set_method_limit`] says nothing else.
    pub max_running_per_method: usize,
    /// The most calls that wait.
    pub max_waiting: usize,
    /// The most of one session.
    pub max_waiting_per_session: usize,
}

impl Default for Config {
    /// 65,536 run, 16,384 of one session, any number of one method; 16,384 wait, 4,096 of one session.
    fn default() -> Config {
        Config {
            max_running: 65_536,
            max_running_per_session: 16_384,
            max_running_per_method: usize::MAX,
            max_waiting: 16_384,
            max_waiting_per_session: 4_096,
        }
    }
}

/// A peer session, numbered by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A method, numbered by the server: one for each handler, not for each name that a peer makes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodId(pub u64);

/// Names a call from [`Limiter::arrive`] until [`Limiter::finish`]; afterwards it names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    index: usize,
    seq: u64,
}

/// What a call that arrived is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Run.
    Run(CallId),
    /// Wait for [`Event::Run`].
    Wait(CallId),
}

/// Why a call may not even wait. No handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overload {
    /// As many calls as may wait do.
    #[error("too many calls wait")]
    Total,
    /// As many calls of this session as may wait do.
    #[error("too many calls of this session wait")]
    Session,
}

impl Overload {
    /// The answer to it.
    pub fn failure(self) -> Failure {
        let mut failure = Failure::refused(Code::ResourceExhausted, Reason::Overloaded)
            .with_pushback(Pushback::After(Duration::from_millis(100)));
        failure.message = self.to_string();
        failure
    }
}

/// What became of a call that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It may run.
    Run(CallId),
    /// Its deadline passed first: answer DEADLINE_EXCEEDED, not executed. Its id names nothing any more.
    Expired(CallId),
}

#[derive(Debug)]
struct Call {
    seq: u64,
    session: SessionId,
    method: MethodId,
    deadline: Option<Timestamp>,
    waits: bool,
}

/// Where a flow stands in line, by ticket.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Among its session's flows.
    Ready(u64),
    /// Among those that wait for its method.
    Parked(u64),
}

/// The calls of one session and method that wait. There is none without calls.
#[derive(Debug)]
struct Flow {
    /// Slab index by sequence number: first come, first served.
    queue: BTreeMap<u64, usize>,
    place: Place,
}

#[derive(Debug, Default)]
struct Session {
    running: usize,
    waiting: usize,
    flows: BTreeMap<MethodId, Flow>,
    ready: BTreeMap<u64, MethodId>,
    /// Methods of which a slot became free and its flow, among the ready ones, was first in line for it: when
    /// it cannot be had, the next in line is to have it.
    offered: BTreeSet<MethodId>,
    /// Its ticket among the sessions that have something to run and may.
    turn: Option<u64>,
}

#[derive(Debug, Default)]
struct MethodState {
    running: usize,
    limit: Option<usize>,
    parked: BTreeMap<u64, SessionId>,
}

/// Limits on calls that run at once, with fair queueing: a slot that becomes free goes to the sessions by
/// turns, within a session to its methods by turns, within those to the call that came first. A call that
/// waits for its method's limit holds up no call of another method.
///
/// - Commands: [`arrive`](Self::arrive), [`finish`](Self::finish) (also for a call that waits and is no longer
///   wanted), [`set_method_limit`](Self::set_method_limit).
/// - Time: [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) has come.
/// - Output: [`poll_event`](Self::poll_event), after each of them.
///
/// Each operation costs the logarithm of what waits.
#[derive(Debug)]
pub struct Limiter {
    config: Config,
    now: Timestamp,
    calls: Slab<Call>,
    running: usize,
    waiting: usize,
    sessions: BTreeMap<SessionId, Session>,
    methods: BTreeMap<MethodId, MethodState>,
    turns: BTreeMap<u64, SessionId>,
    deadlines: BTreeSet<(Timestamp, u64, usize)>,
    next: u64,
    events: VecDeque<Event>,
}

impl Limiter {
    /// A limiter with nothing to do.
    pub fn new(config: Config, now: Timestamp) -> Limiter {
        Limiter {
            config,
            now,
            calls: Slab::new(),
            running: 0,
            waiting: 0,
            sessions: BTreeMap::new(),
            methods: BTreeMap::new(),
            turns: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            next: 0,
            events: VecDeque::new(),
        }
    }

    /// A call is there, and may have to wait until `deadline`.
    ///
    /// # Errors
    /// [`Overload`]: answer with [`Overload::failure`].
    pub fn arrive(
        &mut self,
        now: Timestamp,
        session: SessionId,
        method: MethodId,
        deadline: Option<Timestamp>,
    ) -> Result<Admission, Overload> {
        self.now = self.now.max(now);
        let seq = self.ticket();
        let of_session = self.sessions.entry(session).or_default();
        let of_method = self.methods.entry(method).or_default();
        let limit = of_method.limit.unwrap_or(self.config.max_running_per_method);
        // Calls that wait and could run do not exist, so nobody is overtaken by one who can.
        let may_run = self.running < self.config.max_running
            && of_session.running < self.config.max_running_per_session
            && of_method.running < limit
            && !of_session.flows.contains_key(&method);
        let overload = if may_run {
            of_session.running += 1;
            of_method.running += 1;
            self.running += 1;
            None
        } else if self.waiting >= self.config.max_waiting {
            Some(Overload::Total)
        } else if of_session.waiting >= self.config.max_waiting_per_session {
            Some(Overload::Session)
        } else {
            None
        };
        if let Some(overload) = overload {
            self.tidy(session, method);
            return Err(overload);
        }
        let index = self.calls.insert(Call {
            seq,
            session,
            method,
            deadline,
            waits: !may_run,
        });
        let id = CallId { index, seq };
        if may_run {
            return Ok(Admission::Run(id));
        }
        self.enqueue(id, session, method, deadline);
        Ok(Admission::Wait(id))
    }

    fn enqueue(&mut self, id: CallId, session: SessionId, method: MethodId, deadline: Option<Timestamp>) {
        self.waiting += 1;
        if let Some(at) = deadline {
            self.deadlines.insert((at, id.seq, id.index));
        }
        let ticket = self.ticket();
        let of_session = self.sessions.entry(session).or_default();
        of_session.waiting += 1;
        if let Some(flow) = of_session.flows.get_mut(&method) {
            flow.queue.insert(id.seq, id.index);
            return;
        }
        let flow = Flow {
            queue: BTreeMap::from([(id.seq, id.index)]),
            place: Place::Ready(ticket),
        };
        of_session.flows.insert(method, flow);
        of_session.ready.insert(ticket, method);
        self.give_turn(session);
    }

    /// A call that ran is over, or one that waits is no longer wanted. An id that names nothing changes
    /// nothing.
    pub fn finish(&mut self, now: Timestamp, id: CallId) {
        self.now = self.now.max(now);
        if self.calls.get(id.index).is_none_or(|call| call.seq != id.seq) {
            return;
        }
        let call = self.calls.remove(id.index);
        if call.waits {
            self.forget_waiting(id, &call);
        } else {
            self.running -= 1;
            if let Some(session) = self.sessions.get_mut(&call.session) {
                session.running -= 1;
            }
            if let Some(method) = self.methods.get_mut(&call.method) {
                method.running -= 1;
            }
            self.give_turn(call.session);
            self.unpark(call.method);
        }
        self.tidy(call.session, call.method);
        self.dispatch();
    }

    /// Changes how many calls of a method may run; `None` for the default.
    pub fn set_method_limit(&mut self, now: Timestamp, method: MethodId, limit: Option<usize>) {
        self.now = self.now.max(now);
        let state = self.methods.entry(method).or_default();
        state.limit = limit;
        let parked = state.parked.len();
        for _ in 0..parked {
            self.unpark(method);
        }
        self.dispatch();
    }

    /// What became of calls that waited.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When the next deadline of a call that waits passes; at once while an event waits.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match self.events.is_empty() {
            false => Some(self.now),
            true => self.deadlines.first().map(|(at, ..)| *at),
        }
    }

    /// Lets calls go whose deadline has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some(&(at, seq, index)) = self.deadlines.first() {
            if at > self.now {
                break;
            }
            let id = CallId { index, seq };
            let call = self.calls.remove(index);
            self.forget_waiting(id, &call);
            self.tidy(call.session, call.method);
            self.events.push_back(Event::Expired(id));
        }
        self.dispatch();
    }

    /// How many calls run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Runs what may run.
    fn dispatch(&mut self) {
        while self.running < self.config.max_running {
            let Some((_, session)) = self.turns.pop_first() else {
                return;
            };
            let Some(state) = self.sessions.get_mut(&session) else {
                continue;
            };
            state.turn = None;
            if state.running < self.config.max_running_per_session
                && let Some(method) = self.next_flow(session)
            {
                self.run_first(session, method);
            }
            self.give_turn(session);
            self.pass_on(session);
        }
    }

    /// What a session was offered and cannot run, since as many of its calls run as may, goes to others.
    fn pass_on(&mut self, session: SessionId) {
        let max = self.config.max_running_per_session;
        let full = |state: &&mut Session| state.running >= max;
        while let Some(state) = self.sessions.get_mut(&session).filter(full)
            && let Some(method) = state.offered.pop_first()
        {
            self.unpark(method);
        }
    }

    /// The next flow of the session whose method has a slot; those without one are parked.
    fn next_flow(&mut self, session: SessionId) -> Option<MethodId> {
        let state = self.sessions.get_mut(&session)?;
        while let Some((ticket, method)) = state.ready.pop_first() {
            let of_method = self.methods.entry(method).or_default();
            let limit = of_method.limit.unwrap_or(self.config.max_running_per_method);
            if of_method.running < limit {
                return Some(method);
            }
            of_method.parked.insert(ticket, session);
            state.offered.remove(&method);
            if let Some(flow) = state.flows.get_mut(&method) {
                flow.place = Place::Parked(ticket);
            }
        }
        None
    }

    fn run_first(&mut self, session: SessionId, method: MethodId) {
        let ticket = self.ticket();
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(flow) = state.flows.get_mut(&method) else {
            return;
        };
        let Some((seq, index)) = flow.queue.pop_first() else {
            return;
        };
        if flow.queue.is_empty() {
            state.flows.remove(&method);
        } else {
            flow.place = Place::Ready(ticket);
            state.ready.insert(ticket, method);
        }
        state.offered.remove(&method);
        state.waiting -= 1;
        state.running += 1;
        self.waiting -= 1;
        self.running += 1;
        self.methods.entry(method).or_default().running += 1;
        if let Some(call) = self.calls.get_mut(index) {
            call.waits = false;
            if let Some(at) = call.deadline {
                self.deadlines.remove(&(at, seq, index));
            }
        }
        self.events.push_back(Event::Run(CallId { index, seq }));
    }

    /// Puts a session in line that has something to run and may.
    fn give_turn(&mut self, session: SessionId) {
        let ticket = self.ticket();
        if let Some(state) = self.sessions.get_mut(&session)
            && state.turn.is_none()
            && !state.ready.is_empty()
            && state.running < self.config.max_running_per_session
        {
            state.turn = Some(ticket);
            self.turns.insert(ticket, session);
        }
    }

    /// A slot of the method may be free: the first that waits for it, and whose session may run something,
    /// is ready again.
    fn unpark(&mut self, method: MethodId) {
        while let Some(of_method) = self.methods.get_mut(&method) {
            let limit = of_method.limit.unwrap_or(self.config.max_running_per_method);
            if of_method.running >= limit {
                return;
            }
            let Some((ticket, session)) = of_method.parked.pop_first() else {
                return;
            };
            let Some(state) = self.sessions.get_mut(&session) else {
                continue;
            };
            if let Some(flow) = state.flows.get_mut(&method) {
                flow.place = Place::Ready(ticket);
                state.ready.insert(ticket, method);
            }
            if state.running < self.config.max_running_per_session {
                state.offered.insert(method);
                self.give_turn(session);
                return;
            }
        }
    }

    /// Takes a call that waits out of all lines.
    fn forget_waiting(&mut self, id: CallId, call: &Call) {
        self.waiting -= 1;
        if let Some(at) = call.deadline {
            self.deadlines.remove(&(at, id.seq, id.index));
        }
        let Some(state) = self.sessions.get_mut(&call.session) else {
            return;
        };
        state.waiting -= 1;
        let Some(flow) = state.flows.get_mut(&call.method) else {
            return;
        };
        flow.queue.remove(&id.seq);
        if !flow.queue.is_empty() {
            return;
        }
        let place = flow.place;
        state.flows.remove(&call.method);
        match place {
            Place::Parked(ticket) => {
                if let Some(of_method) = self.methods.get_mut(&call.method) {
                    of_method.parked.remove(&ticket);
                }
            }
            Place::Ready(ticket) => {
                state.ready.remove(&ticket);
                state.offered.remove(&call.method);
                if state.ready.is_empty()
                    && let Some(turn) = state.turn.take()
                {
                    self.turns.remove(&turn);
                }
                // It may have been its turn for a slot of the method.
                self.unpark(call.method);
            }
        }
    }

    /// Forgets a session and a method of which nothing is here.
    fn tidy(&mut self, session: SessionId, method: MethodId) {
        let idle = |state: &Session| state.running == 0 && state.waiting == 0;
        if self.sessions.get(&session).is_some_and(idle) {
            self.sessions.remove(&session);
        }
        let idle =
            |state: &MethodState| state.running == 0 && state.limit.is_none() && state.parked.is_empty();
        if self.methods.get(&method).is_some_and(idle) {
            self.methods.remove(&method);
        }
    }
}

#[cfg(test)]
mod tests;
