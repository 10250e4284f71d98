//! What a world sees of the sessions in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sheetbend_core::client::connector::Connector;
use sheetbend_core::marks::Marks;
use sheetbend_core::server::Acceptor;
use sheetbend_core::session::{Event, PathEnd, PathKey, PathState, Session, Violation};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::Side;
use sheetbend_runtime::Observer;

use crate::failure::{Failure, FailureKind};
use crate::host::{Host, HostId};
use crate::state::{Shared, State};
use crate::trace::{PathPhase, What};
use crate::world::World;

/// Turns of a session after which it is looked at more closely.
const CLOSE_LOOK: u64 = 32;

/// What a world wants to see of its sessions, and what it has seen.
#[derive(Default)]
pub(crate) struct Watch {
    /// What must hold is checked after every turn.
    pub(crate) audit: bool,
    /// What the machines have been through.
    marks: Marks,
    /// The first breach.
    pub(crate) breach: Option<Failure>,
}

impl World {
    /// Checks after every turn of every session that is made from here on that what must hold does: a breach ends
    /// the run with [`FailureKind::Invariant`]. The run is the same with it.
    pub fn audit_sessions(&mut self) {
        self.shared.with(|state| state.watch.audit = true);
    }

    /// The rare branches that the machines of sessions and servers have been through, of those that were made since
    /// [`World::audit_sessions`] or [`World::keep_records`].
    pub fn marks(&self) -> Marks {
        self.shared.with(|state| state.watch.marks)
    }
}

/// The observer of a new session on a host, if the world wants one.
pub(crate) fn observer(host: &Host) -> Option<Box<dyn Observer>> {
    let wanted = host
        .shared
        .with(|state| state.watch.audit || state.trace.is_kept());
    wanted.then(|| Box::new(Onlooker::new(host)) as Box<dyn Observer>)
}

/// A path as it was after the last turn.
struct Seen {
    key: PathKey,
    number: u32,
    name: Arc<str>,
    phase: PathPhase,
    sent: u64,
    received: u64,
}

/// A switch after which nothing has come yet.
struct Switched {
    to: PathKey,
    received: u64,
    since: u64,
    record: usize,
}

struct Onlooker {
    shared: Arc<Shared>,
    host: HostId,
    /// Of the session; 0 while nothing is known of it.
    number: u32,
    paths: Vec<Seen>,
    /// Paths that there have been.
    known: u32,
    switched: Option<Switched>,
    /// When the last bytes came over the path that was active then.
    heard_at: Option<u64>,
    turns: u64,
}

fn phase(state: PathState) -> PathPhase {
    match state {
        PathState::Handshake => PathPhase::Handshake,
        PathState::Active => PathPhase::Active,
        PathState::Standby => PathPhase::Standby,
        PathState::Suspect => PathPhase::Suspect,
        PathState::Closing => PathPhase::Closing,
    }
}

fn end_in_words(end: &PathEnd) -> String {
    match end {
        PathEnd::Eof => "the peer closed it".to_owned(),
        PathEnd::Reset => "reset".to_owned(),
        PathEnd::Io(kind) => kind.to_string(),
        PathEnd::Local => "this end closed it".to_owned(),
    }
}

impl Onlooker {
    fn new(host: &Host) -> Onlooker {
        Onlooker {
            shared: host.shared.clone(),
            host: host.id,
            number: 0,
            paths: Vec::new(),
            known: 0,
            switched: None,
            heard_at: None,
            turns: 0,
        }
    }

    fn unite(&self, marks: Marks) {
        self.shared
            .with(|state| state.watch.marks = state.watch.marks.union(marks));
    }

    /// Gives the session its number when it is first heard of.
    fn meet(&mut self, state: &mut State) {
        if self.number == 0 {
            state.trace.sessions += 1;
            self.number = state.trace.sessions;
        }
    }

    fn host<'a>(&self, state: &'a State) -> &'a str {
        &state.hosts[self.host.index()].name
    }

    /// Checks what must hold; now and then also what takes long to check.
    fn audit(&mut self, session: &Session) -> Result<(), Violation> {
        self.turns += 1;
        if self.turns.is_multiple_of(CLOSE_LOOK) {
            session.audit_in_flight()?;
        }
        session.audit()
    }

    /// Ends the run: what must hold does not.
    fn accuse(&self, state: &mut State, text: &str) {
        let text = format!("session {}: {text}", self.number);
        let now = Timestamp::from_nanos(state.now);
        let failure = Failure::new(FailureKind::Invariant, now, self.host(state), text);
        state.watch.breach.get_or_insert(failure);
        self.shared.breached.store(true, Ordering::Relaxed);
    }

    fn path_record(&self, state: &State, path: &Seen, why: Option<String>) -> What {
        What::Path {
            host: self.host(state).to_owned(),
            session: self.number,
            path: path.number,
            name: path.name.to_string(),
            phase: path.phase,
            why,
            sent: path.sent,
            received: path.received,
        }
    }

    /// Takes down what changed about the paths that are there.
    fn scan(&mut self, state: &mut State, session: &Session) {
        let now = state.now;
        let active = session.active_path();
        for key in session.paths() {
            let Some(stats) = session.path_stats(key) else {
                continue;
            };
            let place = self.paths.iter().position(|path| path.key == key);
            let place = place.unwrap_or_else(|| {
                self.known += 1;
                self.paths.push(Seen {
                    key,
                    number: self.known - 1,
                    name: stats.name.clone(),
                    phase: PathPhase::Down,
                    sent: 0,
                    received: 0,
                });
                self.paths.len() - 1
            });
            let path = &mut self.paths[place];
            if active == Some(key) && stats.bytes_received > path.received {
                self.heard_at = Some(now);
            }
            path.sent = stats.bytes_sent;
            path.received = stats.bytes_received;
            let moved = std::mem::replace(&mut path.phase, phase(stats.state)) != phase(stats.state);
            if moved {
                let what = self.path_record(state, &self.paths[place], None);
                state.trace.record(now, || what);
            }
        }
        self.measure(state);
    }

    /// Tells the gap of the last switch once something has come over its path.
    fn measure(&mut self, state: &mut State) {
        let Some(switched) = &self.switched else { return };
        let Some(path) = self.paths.iter().find(|path| path.key == switched.to) else {
            self.switched = None;
            return;
        };
        if path.received <= switched.received {
            return;
        }
        let passed = state.now - switched.since;
        if let Some(record) = state
            .trace
            .log
            .as_mut()
            .and_then(|log| log.get_mut(switched.record))
            && let What::Switch { gap, .. } = &mut record.what
        {
            *gap = Some(passed);
        }
        self.switched = None;
    }

    fn number(&self, key: PathKey) -> Option<u32> {
        self.paths
            .iter()
            .find(|path| path.key == key)
            .map(|path| path.number)
    }

    fn take(&mut self, state: &mut State, session: &Session, event: &Event) {
        let now = state.now;
        match event {
            Event::State { to, cause, .. } => {
                let what = What::Session {
                    host: self.host(state).to_owned(),
                    session: self.number,
                    id: session.id().map(|id| id.to_string()),
                    side: if session.side() == Side::Client {
                        "client"
                    } else {
                        "server"
                    },
                    state: format!("{to:?}").to_lowercase(),
                    cause: format!("{cause:?}"),
                };
                state.trace.record(now, || what);
            }
            Event::PathDown { path, end, error, .. } => {
                let Some(place) = self.paths.iter().position(|seen| seen.key == *path) else {
                    return;
                };
                let mut gone = self.paths.remove(place);
                gone.phase = PathPhase::Down;
                let why = error
                    .as_ref()
                    .map_or_else(|| end_in_words(end), ToString::to_string);
                let what = self.path_record(state, &gone, Some(why));
                state.trace.record(now, || what);
            }
            Event::Switched { from, to, cause, .. } => {
                let heard_at = self.heard_at;
                self.scan(state, session);
                let Some(number) = self.number(*to) else { return };
                let what = What::Switch {
                    host: self.host(state).to_owned(),
                    session: self.number,
                    from: from.and_then(|from| self.number(from)),
                    to: number,
                    cause: format!("{cause:?}").to_lowercase(),
                    gap: None,
                };
                let received = self
                    .paths
                    .iter()
                    .find(|path| path.key == *to)
                    .map(|path| path.received);
                if let (Some(record), Some(since)) = (state.trace.record(now, || what), heard_at) {
                    self.switched = Some(Switched {
                        to: *to,
                        received: received.unwrap_or(0),
                        since,
                        record,
                    });
                }
            }
            _ => {}
        }
    }
}

impl Observer for Onlooker {
    fn event(&mut self, _: Timestamp, session: &Session, event: &Event) {
        let wanted = matches!(
            event,
            Event::State { .. } | Event::PathDown { .. } | Event::Switched { .. }
        );
        if !wanted {
            return;
        }
        let shared = self.shared.clone();
        shared.with(|state| {
            self.meet(state);
            if state.trace.is_kept() {
                self.take(state, session, event);
            }
        });
    }

    fn turn(&mut self, _: Timestamp, session: &Session) {
        let shared = self.shared.clone();
        shared.with(|state| {
            self.meet(state);
            state.watch.marks = state.watch.marks.union(session.marks());
            if state.watch.audit
                && let Err(violation) = self.audit(session)
            {
                self.accuse(state, &violation.to_string());
            }
            if state.trace.is_kept() {
                self.scan(state, session);
            }
        });
    }

    fn connector(&mut self, _: Timestamp, connector: &Connector) {
        self.unite(connector.marks());
    }

    fn acceptor(&mut self, _: Timestamp, acceptor: &Acceptor) {
        self.unite(acceptor.marks());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breach_ends_the_run() {
        let mut world = World::new(1);
        world.audit_sessions();
        let host = world.host("a", &["lan"]);
        assert!(observer(&host).is_some());
        let mut onlooker = Onlooker::new(&host);
        onlooker.number = 1;
        let failure = world.block_on(&host, async move {
            let shared = onlooker.shared.clone();
            shared.with(|state| onlooker.accuse(state, "it is broken"));
        });
        let failure = failure.expect_err("the session is broken");
        assert_eq!(failure.kind, FailureKind::Invariant);
        assert_eq!(
            (failure.host.as_str(), failure.message.as_str()),
            ("a", "session 1: it is broken")
        );
    }

    #[test]
    fn nobody_looks_unless_asked() {
        let mut world = World::new(1);
        let host = world.host("a", &["lan"]);
        assert!(observer(&host).is_none());
    }
}
