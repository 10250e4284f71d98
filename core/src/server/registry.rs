//! Which session the first handshake message of a path belongs to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::detached::{Budget, Detached};
use super::origin::Origin;
use crate::handshake::{Hello, Reject, RejectCode, Routing, Security, SessionId, VERSION};
use crate::marks::{Marks, sometimes};
use crate::rng::Rng;
use crate::time::Timestamp;

#[cfg(test)]
mod tests;

/// Names a session inside the server; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionToken(u64);

impl SessionToken {
    /// The number; counts up from 0.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// Where a path goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Route {
    /// Make a session of this HELLO. PROTOCOL 5.1.
    New {
        /// Names it from now on.
        token: SessionToken,
        /// For its WELCOME; [`Registry::routing`] goes with it.
        session_id: SessionId,
        /// The version chosen.
        version: u64,
    },
    /// The path belongs to this session: a repeated HELLO (answer with the same WELCOME, run no
    /// early data), or a JOIN, which the session verifies.
    Existing {
        /// The session.
        token: SessionToken,
    },
    /// Refuse the path. PROTOCOL 5.7.
    Reject(Reject),
}

/// Why a session is over, as a later JOIN will be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Either end closed it.
    Closed,
    /// It was without paths for too long.
    Expired,
}

/// What the driver must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Nobody confirmed this session in time: drop it, and close its paths.
    Unconfirmed {
        /// The session.
        token: SessionToken,
    },
    /// Sessions without paths hold more than they may, and this one has to go: drop it.
    Evicted {
        /// The session.
        token: SessionToken,
    },
}

/// Says who owns a session that this server does not know: an address, or `None`.
pub type OwnerLookup = Arc<dyn Fn(&SessionId, &Routing) -> Option<String> + Send + Sync>;

/// The settings and limits of a [`Registry`].
#[derive(Clone)]
pub struct Config {
    /// Put into every WELCOME for load balancers.
    pub routing: Routing,
    /// The weakest carrier on which a HELLO is taken. PROTOCOL 6.5.
    pub floor: Security,
    /// Versions spoken, the most wanted first.
    pub versions: Vec<u64>,
    /// The most sessions, unconfirmed ones included.
    pub max_sessions: usize,
    /// The most sessions that their clients have not confirmed.
    pub max_unconfirmed: usize,
    /// The most ended sessions that are remembered; beyond it the oldest are forgotten early.
    pub max_remembered: usize,
    /// The most bytes that all sessions without paths may hold together: what they have written and was not
    /// acknowledged, and what was not read. Beyond it the origin that holds the most loses the session that has
    /// been without a path for longest.
    pub max_detached_bytes: u64,
    /// The most that those of one [`Origin`] may hold. Beyond it, it loses the one that has been without for
    /// longest. A server behind a proxy sees one origin in all: let this be the same as for all of them there.
    pub max_detached_bytes_per_origin: u64,
    /// The most sessions without paths; beyond it the origin that has the most loses its oldest.
    pub max_detached: usize,
    /// The most of one origin.
    pub max_detached_per_origin: usize,
    /// A session that is not confirmed by then is dropped.
    pub confirm_timeout: Duration,
    /// For how long the nonce and the id of an ended session are remembered.
    pub grace: Duration,
    /// Asked for the owner of an unknown session.
    pub owner: Option<OwnerLookup>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            routing: Routing::default(),
            floor: Security::Plain,
            versions: vec![VERSION],
            max_sessions: 100_000,
            max_unconfirmed: 4096,
            max_remembered: 65_536,
            max_detached_bytes: 256 * 1024 * 1024,
            max_detached_bytes_per_origin: 64 * 1024 * 1024,
            max_detached: 50_000,
            max_detached_per_origin: 16_384,
            confirm_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(600),
            owner: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("routing", &self.routing)
            .field("floor", &self.floor)
            .field("max_sessions", &self.max_sessions)
            .field("max_unconfirmed", &self.max_unconfirmed)
            .field("max_remembered", &self.max_remembered)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until the deadline.
    Unconfirmed(Timestamp),
    Confirmed,
    /// Remembered until then.
    Ended {
        why: Ended,
        until: Timestamp,
        was_confirmed: bool,
    },
}

impl State {
    fn deadline(self) -> Option<Timestamp> {
        match self {
            State::Unconfirmed(at) | State::Ended { until: at, .. } => Some(at),
            State::Confirmed => None,
        }
    }
}

struct Entry {
    nonce: [u8; 16],
    /// SHA-256 of `hello_t`.
    digest: [u8; 32],
    id: SessionId,
    origin: Origin,
    state: State,
}

/// The sessions of a server, by HELLO nonce and by session id.
///
/// - Inputs: [`route_hello`](Self::route_hello), [`route_join`](Self::route_join),
///   [`identify`](Self::identify), [`confirmed`](Self::confirmed), [`detached`](Self::detached),
///   [`attached`](Self::attached), [`ended`](Self::ended), [`handle_timeout`](Self::handle_timeout).
/// - Commands: [`drain`](Self::drain).
/// - Outputs: [`poll_event`](Self::poll_event), [`poll_timeout`](Self::poll_timeout).
///
/// An id is no credential: whoever is routed to a session by JOIN has yet to prove that it holds
/// the keys. Everything is kept in ordered trees, whose cost peers cannot raise by their choice
/// of nonces.
///
/// ```text
/// (none) ─HELLO─▶ Unconfirmed ─confirmed─▶ Confirmed ─ended─▶ Ended ─grace over─▶ (none)
///                      ├─deadline─▶ (none)                      ▲
///                      └─ended──────────────────────────────────┘
/// ```
pub struct Registry {
    config: Config,
    rng: Rng,
    now: Timestamp,
    draining: Option<String>,
    sessions: BTreeMap<SessionToken, Entry>,
    nonces: BTreeMap<[u8; 16], SessionToken>,
    ids: BTreeMap<SessionId, SessionToken>,
    deadlines: BTreeSet<(Timestamp, SessionToken)>,
    /// Of ended sessions that had been confirmed, in the order of their ends.
    remembered: BTreeSet<(Timestamp, SessionToken)>,
    unconfirmed: usize,
    /// Ended before they were confirmed: they count with the unconfirmed.
    stillborn: usize,
    detached: Detached,
    next_token: u64,
    events: VecDeque<Event>,
    marks: Marks,
}

impl Registry {
    /// A registry without sessions.
    pub fn new(config: Config, rng: Rng, now: Timestamp) -> Registry {
        Registry {
            config,
            rng,
            now,
            draining: None,
            sessions: BTreeMap::new(),
            nonces: BTreeMap::new(),
            ids: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            remembered: BTreeSet::new(),
            unconfirmed: 0,
            stillborn: 0,
            detached: Detached::default(),
            next_token: 0,
            events: VecDeque::new(),
            marks: Marks::new(),
        }
    }

    /// A path begins with HELLO, over a carrier of this security. PROTOCOL 5.1.
    pub fn route_hello(&mut self, now: Timestamp, hello: &Hello, security: Security) -> Route {
        self.handle_timeout(now);
        // PROTOCOL 6.5: both ends' floors hold from the first path on.
        let floor = self.config.floor.max(hello.params().floor);
        if security < floor {
            return reject(
                RejectCode::SECURITY_FLOOR,
                "this carrier is too weak for the session",
            );
        }
        if let Some(route) = self.known_nonce(hello) {
            let again = matches!(route, Route::Existing { .. });
            let other = matches!(&route, Route::Reject(reject) if reject.code == RejectCode::MALFORMED);
            sometimes!(self.marks, HelloAgain, again);
            sometimes!(self.marks, NonceReused, other);
            return route;
        }
        if let Some(address) = &self.draining {
            sometimes!(self.marks, DrainRefusedHello);
            let reject = Reject::new(RejectCode::DRAINING, "the server is draining");
            return Route::Reject(reject.with_address(address.clone()));
        }
        let version = self
            .config
            .versions
            .iter()
            .find(|version| hello.versions().contains(version));
        let Some(&version) = version else {
            return reject(RejectCode::VERSION, "no version in common");
        };
        if self.unconfirmed + self.stillborn >= self.config.max_unconfirmed {
            sometimes!(self.marks, TooManySessions);
            return reject(RejectCode::BUSY, "too many handshakes under way");
        }
        if self.live() >= self.config.max_sessions {
            sometimes!(self.marks, TooManySessions);
            return reject(RejectCode::BUSY, "too many sessions");
        }
        let (token, session_id) = self.create(now, hello);
        Route::New {
            token,
            session_id,
            version,
        }
    }

    /// A path begins with JOIN. PROTOCOL 6.2.
    ///
    /// Neither draining nor the state of an unconfirmed session refuses it: its client may hold the
    /// keys while its CONFIRM was lost.
    pub fn route_join(&mut self, now: Timestamp, session_id: &SessionId, routing: &Routing) -> Route {
        self.handle_timeout(now);
        if self.draining.is_some() && crate::canary!(DrainRefusesJoin) {
            return reject(RejectCode::DRAINING, "the server is draining");
        }
        let entry = self
            .ids
            .get(session_id)
            .and_then(|token| Some((*token, self.sessions.get(token)?)));
        if let Some((token, entry)) = entry {
            let alive = !matches!(entry.state, State::Ended { .. });
            sometimes!(self.marks, DrainTookJoin, alive && self.draining.is_some());
            sometimes!(self.marks, JoinEnded, !alive);
            return match entry.state {
                State::Unconfirmed(_) | State::Confirmed => Route::Existing { token },
                State::Ended {
                    why: Ended::Closed, ..
                } => reject(RejectCode::CLOSED, "the session was closed"),
                State::Ended {
                    why: Ended::Expired, ..
                } => reject(RejectCode::EXPIRED, "the session was without paths for too long"),
            };
        }
        let owner = self
            .config
            .owner
            .as_ref()
            .and_then(|owner| owner(session_id, routing));
        match owner {
            Some(address) => {
                let reject = Reject::new(RejectCode::REDIRECT, "the session lives elsewhere");
                Route::Reject(reject.with_address(address))
            }
            None => {
                sometimes!(self.marks, JoinUnknown);
                reject(RejectCode::UNKNOWN_SESSION, "no such session")
            }
        }
    }

    /// The client has proven that it holds the session's keys, on any path. PROTOCOL 5.4.
    ///
    /// Returns whether the session is alive; `false` means that it was dropped before.
    #[must_use]
    pub fn confirmed(&mut self, now: Timestamp, token: SessionToken) -> bool {
        self.now = self.now.max(now);
        let Some(entry) = self.sessions.get_mut(&token) else {
            return false;
        };
        match entry.state {
            State::Unconfirmed(deadline) => {
                self.deadlines.remove(&(deadline, token));
                entry.state = State::Confirmed;
                self.unconfirmed -= 1;
                true
            }
            State::Confirmed => true,
            State::Ended { .. } => false,
        }
    }

    /// Whose session it is, by the connection that made it or by what its client has proven since.
    pub fn identify(&mut self, token: SessionToken, origin: Origin) {
        if let Some(entry) = self.sessions.get_mut(&token) {
            entry.origin = origin;
        }
    }

    /// The session has no path, and holds so many bytes; to be told again when that changes.
    pub fn detached(&mut self, now: Timestamp, token: SessionToken, bytes: u64) {
        self.now = self.now.max(now);
        let confirmed = self.sessions.get(&token);
        let Some(entry) = confirmed.filter(|entry| matches!(entry.state, State::Confirmed)) else {
            return;
        };
        let origin = entry.origin;
        let budget = |bytes, sessions| Budget {
            bytes,
            sessions: u64::try_from(sessions).unwrap_or(u64::MAX),
        };
        let config = &self.config;
        let each = budget(
            config.max_detached_bytes_per_origin,
            config.max_detached_per_origin,
        );
        let all = budget(config.max_detached_bytes, config.max_detached);
        self.detached.hold(token, origin, bytes);
        while let Some(token) = self.detached.evict(origin, each, all) {
            self.events.push_back(Event::Evicted { token });
        }
    }

    /// The session has a path again.
    pub fn attached(&mut self, token: SessionToken) {
        self.detached.release(token);
    }

    /// Bytes that sessions without paths hold.
    pub fn detached_bytes(&self) -> u64 {
        self.detached.total()
    }

    /// How many sessions are without paths.
    pub fn detached_sessions(&self) -> u64 {
        self.detached.len()
    }

    /// The session is over; it is remembered for [`Config::grace`]. One that was never confirmed is
    /// remembered only as long as its handshake could have taken, so that strangers push nothing
    /// out of memory.
    pub fn ended(&mut self, now: Timestamp, token: SessionToken, why: Ended) {
        self.now = self.now.max(now);
        self.detached.release(token);
        let Some(entry) = self.sessions.get_mut(&token) else {
            return;
        };
        let was_confirmed = match entry.state {
            State::Unconfirmed(deadline) => {
                self.deadlines.remove(&(deadline, token));
                self.unconfirmed -= 1;
                self.stillborn += 1;
                false
            }
            State::Confirmed => true,
            State::Ended { .. } => return,
        };
        let keep = if was_confirmed {
            self.config.grace
        } else {
            self.config.confirm_timeout
        };
        let until = now + keep;
        entry.state = State::Ended {
            why,
            until,
            was_confirmed,
        };
        self.deadlines.insert((until, token));
        if was_confirmed {
            self.remembered.insert((until, token));
            while self.remembered.len() > self.config.max_remembered {
                let Some(&(_, oldest)) = self.remembered.first() else {
                    break;
                };
                self.forget(oldest);
            }
        }
    }

    /// From now on new sessions are refused and sent to `address` (which may be empty); `None` ends
    /// that. Existing ones go on, and may be joined. PROTOCOL 5.7.
    pub fn drain(&mut self, address: Option<String>) {
        self.draining = address;
    }

    /// The deadline of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some(&(at, token)) = self.deadlines.first() {
            if at > now {
                break;
            }
            let state = self.forget(token);
            if matches!(state, Some(State::Unconfirmed(_))) {
                sometimes!(self.marks, Unconfirmed);
                self.events.push_back(Event::Unconfirmed { token });
            }
        }
    }

    /// The rare branches that this registry has been through, for tests.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// What the driver must know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); at once while an event waits.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if !self.events.is_empty() {
            return Some(self.now);
        }
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Goes into every WELCOME.
    pub fn routing(&self) -> &Routing {
        &self.config.routing
    }

    /// How many sessions are alive, unconfirmed ones included.
    pub fn live(&self) -> usize {
        self.sessions
            .len()
            .saturating_sub(self.remembered.len())
            .saturating_sub(self.stillborn)
    }

    /// How many sessions are not confirmed.
    pub fn unconfirmed(&self) -> usize {
        self.unconfirmed
    }

    /// How many ended sessions are remembered.
    pub fn remembered(&self) -> usize {
        self.remembered.len() + self.stillborn
    }

    /// PROTOCOL 5.1: the same HELLO again, or another one with its nonce.
    fn known_nonce(&self, hello: &Hello) -> Option<Route> {
        let token = *self.nonces.get(hello.nonce())?;
        let entry = self.sessions.get(&token)?;
        if entry.digest != hello.digest() {
            return Some(reject(RejectCode::MALFORMED, "another HELLO had this nonce"));
        }
        Some(match entry.state {
            State::Unconfirmed(_) => Route::Existing { token },
            State::Ended {
                was_confirmed: false, ..
            } => reject(RejectCode::CLOSED, "the session was closed"),
            State::Confirmed | State::Ended { .. } => {
                reject(RejectCode::USE_JOIN, "the session of this HELLO is confirmed")
            }
        })
    }

    fn create(&mut self, now: Timestamp, hello: &Hello) -> (SessionToken, SessionId) {
        let token = SessionToken(self.next_token);
        self.next_token += 1;
        let id = loop {
            let id = SessionId(self.rng.bytes());
            if !self.ids.contains_key(&id) {
                break id;
            }
        };
        let deadline = now + self.config.confirm_timeout;
        let state = State::Unconfirmed(deadline);
        let entry = Entry {
            nonce: *hello.nonce(),
            digest: hello.digest(),
            id,
            origin: Origin::Unknown,
            state,
        };
        self.nonces.insert(entry.nonce, token);
        self.ids.insert(id, token);
        self.deadlines.insert((deadline, token));
        self.sessions.insert(token, entry);
        self.unconfirmed += 1;
        (token, id)
    }

    fn forget(&mut self, token: SessionToken) -> Option<State> {
        let entry = self.sessions.remove(&token)?;
        self.nonces.remove(&entry.nonce);
        self.ids.remove(&entry.id);
        if let Some(deadline) = entry.state.deadline() {
            self.deadlines.remove(&(deadline, token));
            self.remembered.remove(&(deadline, token));
        }
        match entry.state {
            State::Unconfirmed(_) => self.unconfirmed -= 1,
            State::Ended {
                was_confirmed: false, ..
            } => self.stillborn -= 1,
            _ => {}
        }
        Some(entry.state)
    }
}

fn reject(code: RejectCode, detail: &str) -> Route {
    Route::Reject(Reject::new(code, detail))
}
