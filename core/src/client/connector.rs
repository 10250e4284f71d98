//! Decides when to connect to which endpoint.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::marks::{Marks, sometimes};
use crate::policy::health::{Evidence, Health};
use crate::policy::memory::Brokenness;
use crate::policy::{Backoff, BackoffPolicy, ConnectFailure, Reaction, Rtt};
use crate::rng::{Rng, SparseRng};
use crate::time::Timestamp;

mod config;
mod learned;
mod schedule;
#[cfg(test)]
mod tests;

pub use config::{Config, Kind, Mode};
pub use learned::MAX_LEARNED;

/// The most paths that a session may have, and so the most that a connector keeps up. PROTOCOL 6.2.
pub const MAX_PATHS: usize = 8;

/// After so many failures in a row an endpoint's share may go to others.
const FAILED_OUT: u32 = 3;

/// Names a connection attempt, and the path that comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(u64);

impl AttemptId {
    /// The number; counts up from 0.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// Connect now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The endpoint's index.
    pub endpoint: usize,
    /// To be given back with the outcome.
    pub attempt_id: AttemptId,
}

/// Why a path or attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// It failed: refused, closed, silent. It is tried again.
    Failed,
    /// Its transport does not get through. Another is to be tried first.
    Blocked,
    /// Its host cannot be reached, by whatever transport.
    Away,
    /// Only somebody's hand mends it: a certificate that nobody vouches for, no common version.
    Hopeless,
    /// The server sent REJECT. PROTOCOL 5.7.
    Rejected,
    /// This end gave it up, by its own choice or at the server's wish.
    Abandoned,
}

impl Down {
    /// What a failure means for its endpoint.
    pub fn of(failure: ConnectFailure) -> Down {
        match (failure, failure.reaction()) {
            (ConnectFailure::Abandoned, _) => Down::Abandoned,
            (_, Reaction::GiveUp) => Down::Hopeless,
            (ConnectFailure::Rejected(_), _) => Down::Rejected,
            (_, Reaction::RetryHere) => Down::Failed,
            (_, Reaction::SwitchTransport) => Down::Blocked,
            (_, Reaction::SwitchEndpoint) => Down::Away,
        }
    }
}

/// What becomes of a path whose handshake is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Use it.
    Keep,
    /// Close it: the attempt was given up, or the connector has stopped.
    Drop,
}

/// What the driver is to do or know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Stop this attempt: it took too long or is not needed. Nothing is to be reported back.
    GiveUp(Attempt),
    /// Whether this endpoint is broken has changed: [`Connector::brokenness`].
    Brokenness {
        /// The endpoint's index.
        endpoint: usize,
    },
    /// More paths are up than wanted: abandon this one, then report it down as usual.
    Surplus(Attempt),
    /// Nothing is up or under way, and every endpoint's backoff has reached its limit. Only
    /// [`Connector::handle_network_change`] starts anew.
    Exhausted,
}

struct Endpoint {
    backoff: Backoff,
    /// `Timestamp::MAX` once the backoff has reached its limit.
    not_before: Timestamp,
    health: Health,
    /// It failed while another worked.
    brokenness: Brokenness<Timestamp>,
    /// It was the last to work on this network.
    won: bool,
    /// Its last answer was REJECT, or it is hopeless: not to be hurried.
    rejected: bool,
    /// How long its handshakes take.
    took: Rtt,
    /// Learnt from the server; greater the later. 0 for those that were configured.
    learned: u32,
    /// The session does not live there: it is not tried any more.
    retired: bool,
}

impl Endpoint {
    fn new(backoff: BackoffPolicy, now: Timestamp, learned: u32) -> Endpoint {
        Endpoint {
            backoff: Backoff::new(backoff),
            not_before: now,
            health: Health::new(),
            brokenness: Brokenness::default(),
            won: false,
            rejected: false,
            took: Rtt::new(),
            learned,
            retired: false,
        }
    }
}

impl Endpoint {
    /// Failures in a row, without a proven path between them.
    fn failures(&self) -> u32 {
        self.health.consecutive_failures()
    }

    /// How long its handshakes take, at the longest of late; `None` while that is not known.
    fn took(&self, now: Timestamp) -> Option<Duration> {
        self.took.smoothed().map(|_| self.took.peak(now))
    }
}

#[derive(Clone, Copy)]
struct InFlight {
    attempt: Attempt,
    started: Timestamp,
}

#[derive(Clone, Copy)]
struct Path {
    attempt: Attempt,
    since: Timestamp,
    /// Told to go; does not count any more.
    surplus: bool,
    /// Where nothing comes back over it another is to take its place, and it does not count meanwhile.
    voice: Voice,
    /// It carried data, and the peer acknowledged it.
    worked: bool,
}

impl Path {
    fn counts(&self) -> bool {
        !self.surplus && self.voice == Voice::Heard
    }
}

/// Whether a path answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Voice {
    Heard,
    /// It left a question unanswered: another endpoint may do better, but its own is given more time.
    Mute,
    /// It had its time.
    Silent,
}

/// Keeps paths up: the machine that decides when to connect to which endpoint.
///
/// - Inputs: [`handle_connect_failed`](Self::handle_connect_failed),
///   [`handle_path_up`](Self::handle_path_up), [`handle_path_worked`](Self::handle_path_worked),
///   [`handle_path_mute`](Self::handle_path_mute), [`handle_path_silent`](Self::handle_path_silent),
///   [`handle_path_recovered`](Self::handle_path_recovered), [`handle_path_down`](Self::handle_path_down),
///   [`handle_network_change`](Self::handle_network_change), [`handle_timeout`](Self::handle_timeout).
/// - Commands: [`learn_endpoint`](Self::learn_endpoint), [`retire_endpoint`](Self::retire_endpoint),
///   [`set_target`](Self::set_target), [`stop`](Self::stop).
/// - Outputs, to be drained in this order after any of them: [`poll_connect`](Self::poll_connect),
///   [`poll_event`](Self::poll_event), [`poll_timeout`](Self::poll_timeout).
///
/// While no path is up, every endpoint that is not backing off is tried, in order of preference and
/// staggered, and the first that proves its handshake wins. Each endpoint backs off on its own; only
/// a path that lived for a while, or did some work, starts its backoff over. The delays are short early in an outage
/// and longer later; an outage ends when a path has proven itself, not when one opened.
pub struct Connector {
    config: Arc<Config>,
    mode: Mode,
    rng: SparseRng,
    now: Timestamp,
    endpoints: Vec<Endpoint>,
    in_flight: SmallVec<[InFlight; 1]>,
    paths: SmallVec<[Path; 1]>,
    /// No racing start before this.
    gate: Timestamp,
    /// Since when no path has proven itself.
    outage: Option<Timestamp>,
    next_id: u64,
    stopped: bool,
    exhausted: bool,
    events: VecDeque<Event>,
    marks: Marks,
}

impl Connector {
    /// A connector that starts at once.
    pub fn new(config: impl Into<Arc<Config>>, rng: Rng, now: Timestamp) -> Connector {
        let config = config.into();
        let endpoint = |_| Endpoint::new(config.backoff.clone(), now, 0);
        Connector {
            endpoints: (0..config.endpoints).map(endpoint).collect(),
            mode: config.mode,
            config,
            rng: rng.into(),
            now,
            in_flight: SmallVec::new(),
            paths: SmallVec::new(),
            gate: now,
            outage: Some(now),
            next_id: 0,
            stopped: false,
            exhausted: false,
            events: VecDeque::new(),
            marks: Marks::new(),
        }
    }

    /// The transport could not be opened, or the handshake failed.
    pub fn handle_connect_failed(&mut self, now: Timestamp, attempt_id: AttemptId) {
        self.handle_path_down(now, attempt_id, Down::Failed);
    }

    /// The handshake of an attempt is proven: for a client, WELCOME or JOINED was verified.
    pub fn handle_path_up(&mut self, now: Timestamp, attempt_id: AttemptId) -> Verdict {
        self.advance(now);
        let Some(InFlight { attempt, started }) = self.take_in_flight(attempt_id) else {
            sometimes!(self.marks, StaleAttempt);
            return Verdict::Drop;
        };
        let endpoint = &mut self.endpoints[attempt.endpoint];
        endpoint.rejected = false;
        endpoint.took.sample(now, now.since(started), Duration::ZERO);
        endpoint.health.on_up(now);
        self.mend(attempt.endpoint);
        self.paths.push(Path {
            attempt,
            since: now,
            surplus: false,
            voice: Voice::Heard,
            worked: false,
        });
        self.trim();
        Verdict::Keep
    }

    /// The path has carried data that the peer acknowledged. To be told before it goes down: a network
    /// that cuts every connection soon is still one to reconnect over at once.
    pub fn handle_path_worked(&mut self, attempt_id: AttemptId) {
        if let Some(path) = self
            .paths
            .iter_mut()
            .find(|path| path.attempt.attempt_id == attempt_id)
        {
            path.worked = true;
        }
    }

    /// A path has left a question unanswered, and there is no other: one to another endpoint is to be made.
    pub fn handle_path_mute(&mut self, now: Timestamp, attempt_id: AttemptId) {
        self.fell_silent(now, attempt_id, Voice::Mute);
    }

    /// A path no longer answers, but is not given up while there is no other: one is to be made.
    pub fn handle_path_silent(&mut self, now: Timestamp, attempt_id: AttemptId) {
        self.fell_silent(now, attempt_id, Voice::Silent);
    }

    fn fell_silent(&mut self, now: Timestamp, attempt_id: AttemptId, voice: Voice) {
        self.advance(now);
        self.set_voice(attempt_id, voice);
        if self.paths_up() == 0 && self.outage.is_none() {
            self.gate = now;
            self.begin_outage(now);
        }
    }

    /// A silent path answers again.
    pub fn handle_path_recovered(&mut self, now: Timestamp, attempt_id: AttemptId) {
        self.advance(now);
        self.set_voice(attempt_id, Voice::Heard);
        self.trim();
    }

    fn set_voice(&mut self, id: AttemptId, voice: Voice) {
        let mut paths = self.paths.iter_mut();
        if let Some(path) = paths.find(|path| path.attempt.attempt_id == id) {
            // One that is silent is mute as well.
            path.voice = match voice {
                Voice::Heard => Voice::Heard,
                worse => path.voice.max(worse),
            };
        }
    }

    /// A path is down, or an attempt under way ended for another cause than failure. An unknown id
    /// (of an attempt that was given up) changes nothing.
    pub fn handle_path_down(&mut self, now: Timestamp, attempt_id: AttemptId, cause: Down) {
        self.advance(now);
        let (attempt, proven, worked) = if let Some(in_flight) = self.take_in_flight(attempt_id) {
            (in_flight.attempt, false, false)
        } else if let Some(at) = self
            .paths
            .iter()
            .position(|path| path.attempt.attempt_id == attempt_id)
        {
            let path = self.paths.remove(at);
            let lived = now.since(path.since);
            let worked = path.worked && lived >= self.config.worked_after;
            (path.attempt, lived > self.config.proven_after, worked)
        } else {
            return;
        };
        // The next in a race need not wait for one that has failed (RFC 8305 §5).
        self.gate = now;
        if worked {
            sometimes!(self.marks, PathHadWorked);
            self.outage = None;
        }
        if proven || worked {
            let endpoint = &mut self.endpoints[attempt.endpoint];
            endpoint.backoff.reset();
            endpoint.health.on_up(now);
            endpoint.not_before = now;
        }
        if self.paths_up() == 0 && self.outage.is_none() {
            self.begin_outage(now);
        }
        if !proven || cause == Down::Rejected {
            self.back_off(now, attempt.endpoint, cause);
            if !worked && cause != Down::Abandoned && cause != Down::Rejected {
                self.break_down(now, attempt.endpoint);
            }
        } else if cause != Down::Abandoned {
            self.endpoints[attempt.endpoint].health.on_failure(now);
        }
        self.check_exhausted();
    }

    /// The machine is on another network: what failed on the old one says nothing about this one.
    pub fn handle_network_change(&mut self, now: Timestamp) {
        self.advance(now);
        for endpoint in &mut self.endpoints {
            endpoint.backoff.reset();
            endpoint.not_before = now;
            endpoint.health.forgive(now);
            endpoint.rejected = false;
            endpoint.took = Rtt::new();
            endpoint.won = false;
        }
        for index in 0..self.endpoints.len() {
            self.mend(index);
        }
        self.exhausted = false;
        self.gate = now;
        if self.paths.is_empty() {
            self.outage = Some(now);
        }
    }

    /// The deadline of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.advance(now);
        let timeout = self.config.connect_timeout;
        while let Some(at) = self.in_flight.iter().position(|a| a.started + timeout <= now) {
            let late = self.in_flight.remove(at).attempt;
            sometimes!(self.marks, AttemptGivenUp);
            self.events.push_back(Event::GiveUp(late));
            self.gate = now;
            self.back_off(now, late.endpoint, Down::Blocked);
            self.break_down(now, late.endpoint);
        }
        if self.settling_until().is_some_and(|at| at <= now) {
            self.trim();
        }
        self.check_exhausted();
    }

    /// What is remembered of an endpoint, before anything is started: whether it is broken on this network, and
    /// whether it was the last to work there, so that it goes first.
    pub fn recall(&mut self, index: usize, brokenness: Brokenness<Timestamp>, won: bool) {
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            endpoint.brokenness = brokenness;
            endpoint.won = won;
        }
    }

    /// Whether an endpoint is broken.
    pub fn brokenness(&self, index: usize) -> Brokenness<Timestamp> {
        let endpoint = self.endpoints.get(index);
        endpoint.map_or_else(Brokenness::default, |endpoint| endpoint.brokenness)
    }

    /// What is known of an endpoint from the attempts to connect to it; its round trip is the time of a handshake.
    pub fn evidence(&self, now: Timestamp, index: usize) -> Option<Evidence> {
        let endpoint = self.endpoints.get(index)?;
        Some(endpoint.health.evidence(now, &endpoint.took))
    }

    /// Changes how many paths to keep up.
    pub fn set_target(&mut self, mode: Mode) {
        self.mode = mode;
        self.trim();
    }

    /// Gives up what is under way and starts nothing more. Paths that are up stay up.
    pub fn stop(&mut self) {
        self.stopped = true;
        let given_up = self.in_flight.drain(..).map(|a| Event::GiveUp(a.attempt));
        self.events.extend(given_up);
    }

    /// The rare branches that this connector has been through, for tests.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// The next thing to do or know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next attempt to start now.
    pub fn poll_connect(&mut self, now: Timestamp) -> Option<Attempt> {
        self.advance(now);
        let (at, endpoint) = self.next_start()?;
        if at > now {
            return None;
        }
        if !self.has_room(endpoint) {
            self.give_up_oldest(endpoint);
        }
        let hedges = self.in_flight.iter().any(|a| a.attempt.endpoint == endpoint);
        sometimes!(self.marks, Hedged, hedges);
        let attempt = Attempt {
            endpoint,
            attempt_id: AttemptId(self.next_id),
        };
        self.next_id += 1;
        self.in_flight.push(InFlight {
            attempt,
            started: now,
        });
        let took = self.endpoints[endpoint].took(now).unwrap_or_default();
        let most = self.config.max_stagger.max(self.config.stagger);
        self.gate = now + (took / 4 * 3).clamp(self.config.stagger, most);
        Some(attempt)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and poll again; at once while an event
    /// waits or an attempt is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if !self.events.is_empty() {
            return Some(self.now);
        }
        let start = self.next_start().map(|(at, _)| at.max(self.now));
        let give_up = self
            .in_flight
            .iter()
            .map(|a| a.started + self.config.connect_timeout);
        give_up.chain(start).chain(self.settling_until()).min()
    }

    /// How many paths are up, those not counted that are to go or silent.
    pub fn paths_up(&self) -> usize {
        self.paths.iter().filter(|path| path.counts()).count()
    }

    /// How many attempts are under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes note of the time, and of a path that has proven itself by it.
    fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        let proven =
            |path: &Path| path.voice == Voice::Heard && now.since(path.since) > self.config.proven_after;
        if self.outage.is_some() && self.paths.iter().any(proven) {
            self.outage = None;
        }
    }

    fn take_in_flight(&mut self, id: AttemptId) -> Option<InFlight> {
        let at = self.in_flight.iter().position(|a| a.attempt.attempt_id == id)?;
        Some(self.in_flight.remove(at))
    }

    fn give_up_oldest(&mut self, endpoint: usize) {
        // Attempts stand in the order of their starts.
        if let Some(at) = self.in_flight.iter().position(|a| a.attempt.endpoint == endpoint) {
            self.events
                .push_back(Event::GiveUp(self.in_flight.remove(at).attempt));
        }
    }

    /// Gives up attempts and paths beyond the target.
    fn trim(&mut self) {
        let target = self.mode.paths();
        let up = self.paths_up();
        if up == 0 {
            return;
        }
        let best = self.best_up();
        let better = |connector: &Connector| {
            let mut better = connector.in_flight.iter();
            better.any(|a| best.is_some_and(|best| connector.preference(a.attempt.endpoint) < best))
        };
        // One that would be better may go on: it takes over when it has come up.
        let wanted = |connector: &Connector| {
            let missing = target.saturating_sub(up);
            missing + usize::from(up == target && connector.config.upgrade && better(connector))
        };
        while self.in_flight.len() > wanted(self) {
            // First those to an endpoint that is served already, then the least preferred, then the newest.
            let loads = self.loads();
            let worst = (0..self.in_flight.len()).max_by_key(|at| {
                let attempt = self.in_flight[*at].attempt;
                (
                    loads[attempt.endpoint].total(),
                    self.preference(attempt.endpoint),
                    attempt.attempt_id,
                )
            });
            let Some(worst) = worst else { break };
            self.events
                .push_back(Event::GiveUp(self.in_flight.remove(worst).attempt));
        }
        if self.settling_until().is_some_and(|at| at > self.now) {
            return;
        }
        for _ in target..up {
            sometimes!(self.marks, SurplusPath);
            let loads = self.loads();
            let counting = |at: &usize| self.paths[*at].counts();
            let worst = (0..self.paths.len()).filter(counting).max_by_key(|at| {
                let path = &self.paths[*at];
                let endpoint = path.attempt.endpoint;
                // Of two alike the newer goes, not the older attempt: the other is in use.
                (
                    loads[endpoint].paths,
                    self.preference(endpoint),
                    path.since,
                    path.attempt.attempt_id,
                )
            });
            let Some(worst) = worst else { break };
            self.paths[worst].surplus = true;
            self.events.push_back(Event::Surplus(self.paths[worst].attempt));
        }
    }

    /// The last path is gone: endpoints that rest for long from better days are looked at again soon.
    fn begin_outage(&mut self, now: Timestamp) {
        self.outage = Some(now);
        for endpoint in &mut self.endpoints {
            if endpoint.rejected || endpoint.not_before == Timestamp::MAX {
                continue;
            }
            let soon = self.config.early_cap;
            let soon = now + self.rng.draw(|rng| rng.duration(Duration::ZERO, soon));
            endpoint.not_before = endpoint.not_before.min(soon);
        }
    }

    fn back_off(&mut self, now: Timestamp, index: usize, cause: Down) {
        let cap = match self.outage.map(|since| now.since(since)) {
            Some(age) if age < self.config.early_for => self.config.early_cap,
            Some(age) if age < self.config.outage_for => self.config.outage_cap,
            _ => Duration::MAX,
        };
        let endpoint = &mut self.endpoints[index];
        endpoint.rejected = matches!(cause, Down::Rejected | Down::Hopeless);
        sometimes!(self.marks, AttemptRejected, endpoint.rejected);
        if cause != Down::Abandoned {
            endpoint.health.on_failure(now);
        }
        let delay = self.rng.draw(|rng| endpoint.backoff.next_within(now, rng, cap));
        let Some(mut delay) = delay else {
            endpoint.not_before = Timestamp::MAX;
            return;
        };
        if endpoint.rejected {
            let least = match cause {
                Down::Hopeless => self.config.hopeless_delay,
                _ => self.config.rejected_delay,
            };
            delay = delay.max(self.rng.draw(|rng| rng.duration(least / 2, least)));
        }
        let not_before = now + delay;
        endpoint.not_before = not_before;
        if cause == Down::Away {
            self.leave_host(index, not_before);
        }
    }

    /// Nothing came of an attempt. If a path is up to another endpoint, this one is broken.
    fn break_down(&mut self, now: Timestamp, index: usize) {
        let mut others = self.paths.iter();
        if others.any(|path| path.counts() && path.attempt.endpoint != index) {
            self.endpoints[index].brokenness.broke(now);
            self.events.push_back(Event::Brokenness { endpoint: index });
        }
    }

    /// Its host cannot be reached: its other transports wait like this one, if there are other hosts.
    fn leave_host(&mut self, index: usize, not_before: Timestamp) {
        let host = self.config.kind(index).host;
        let of_host = |index: usize| self.config.kind(index).host == host;
        if (0..self.endpoints.len()).all(of_host) {
            return;
        }
        for index in (0..self.endpoints.len()).filter(|&index| of_host(index)) {
            let endpoint = &mut self.endpoints[index];
            endpoint.not_before = endpoint.not_before.max(not_before);
        }
    }

    fn mend(&mut self, index: usize) {
        let brokenness = &mut self.endpoints[index].brokenness;
        if brokenness.times() > 0 {
            brokenness.mended();
            self.events.push_back(Event::Brokenness { endpoint: index });
        }
    }

    /// The preference of the most preferred endpoint that has a path.
    fn best_up(&self) -> Option<(std::cmp::Reverse<u32>, usize)> {
        let counting = self.paths.iter().filter(|path| path.counts());
        counting.map(|path| self.preference(path.attempt.endpoint)).min()
    }

    /// Until when the newest path has to prove itself before it displaces one that is less preferred.
    fn settling_until(&self) -> Option<Timestamp> {
        if self.paths_up() <= self.mode.paths() {
            return None;
        }
        let counting = || self.paths.iter().filter(|path| path.counts());
        let newest = counting().max_by_key(|path| (path.since, path.attempt.attempt_id))?;
        let own = self.preference(newest.attempt.endpoint);
        let displaces = counting().any(|path| self.preference(path.attempt.endpoint) > own);
        displaces.then_some(newest.since + self.config.proven_after)
    }

    fn check_exhausted(&mut self) {
        let over = self.paths.is_empty()
            && self.in_flight.is_empty()
            && self
                .endpoints
                .iter()
                .all(|endpoint| endpoint.retired || endpoint.not_before == Timestamp::MAX);
        if over && !self.exhausted && !self.stopped {
            sometimes!(self.marks, Exhausted);
            self.events.push_back(Event::Exhausted);
        }
        self.exhausted = over;
    }
}
