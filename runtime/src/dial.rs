//! The client's part of the driver: connects endpoints when the connector says so.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use sheetbend_core::client::connector::{self, AttemptId, Connector, Down, Verdict};
use sheetbend_core::policy::ConnectFailure;
use sheetbend_core::session::{Event, PathEnd, PathError, PathKey};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::RejectCode;

use crate::address::Address;
use crate::endpoint::{Endpoint, failure, is_distrust, security};
use crate::known::Known;
use crate::layers::Connection;
use crate::link::Link;
use crate::reach::{Settings, connect};
use crate::redirect::{Guide, RedirectCause};
use crate::rt::{BoxFuture, Runtime};
use crate::shared::State;

/// Where an attempt stands.
enum Progress {
    Connecting(BoxFuture<'static, io::Result<Connection>>),
    Connected(Connection),
    Failed(String, Down),
    /// Its path is in the handshake, or up.
    Path {
        key: PathKey,
        up: bool,
    },
}

struct Attempt {
    id: AttemptId,
    endpoint: usize,
    progress: Progress,
    /// What knows why a path over HTTP was refused.
    #[cfg(feature = "http")]
    http: Option<Arc<dyn crate::http::Keyed>>,
    /// What knows why a connection failed whose path began before its handshake was done.
    #[cfg(feature = "quic")]
    early: Option<Arc<dyn crate::quic::Lanes>>,
}

/// Drives the core's connector.
pub(crate) struct Dialer {
    connector: Connector,
    endpoints: Vec<Endpoint>,
    guide: Arc<Guide>,
    /// Why the place that the session is said to live at is not gone to.
    refused: Option<String>,
    runtime: Arc<dyn Runtime>,
    settings: Arc<Settings>,
    attempts: Vec<Attempt>,
    /// Something to poll came since the last poll.
    fresh: bool,
    /// Paths that the connector has no use for.
    unwanted: Vec<PathKey>,
    /// What went wrong last at each endpoint since a path was up; empty where nothing did.
    errors: Vec<Option<String>>,
    /// Some path was up.
    succeeded: bool,
    /// No endpoint is used that is weaker than that of the first path.
    keeps_security: bool,
    known: Arc<Known>,
    /// Changes of the network that the connector has heard of; `None` before it was told what is remembered.
    changes: Option<u64>,
}

impl Dialer {
    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(crate) fn new(
        connector: Connector,
        endpoints: Vec<Endpoint>,
        guide: Arc<Guide>,
        runtime: Arc<dyn Runtime>,
        settings: Arc<Settings>,
        known: Arc<Known>,
    ) -> Dialer {
        Dialer {
            connector,
            endpoints,
            guide,
            refused: None,
            runtime,
            settings,
            attempts: Vec::with_capacity(1),
            fresh: false,
            unwanted: Vec::new(),
            errors: Vec::new(),
            succeeded: false,
            keeps_security: false,
            known,
            changes: None,
        }
    }

    /// The first path decides what security the session has: weaker endpoints are not tried any more then.
    pub(crate) fn keep_security(&mut self) {
        self.keeps_security = true;
    }

    /// Gives back what an idle session does not need.
    pub(crate) fn shrink(&mut self) {
        self.attempts.shrink_to_fit();
        self.unwanted.shrink_to_fit();
    }

    /// Polls the connections under way.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        self.fresh = false;
        let mut impostor = None;
        for attempt in &mut self.attempts {
            if let Progress::Connecting(future) = &mut attempt.progress {
                match future.as_mut().poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(connection)) => attempt.progress = Progress::Connected(connection),
                    Poll::Ready(Err(error)) => {
                        if is_distrust(&error) {
                            impostor = Some(attempt.endpoint);
                        }
                        let down = Down::of(ConnectFailure::of_io(error.kind()));
                        attempt.progress = Progress::Failed(error.to_string(), down)
                    }
                }
            }
        }
        if let Some(endpoint) = impostor.filter(|_| self.keeps_security) {
            self.retire_resorts(endpoint);
        }
    }

    /// Who answers at that host and port speaks TLS and is not trusted: nothing plain goes there instead, though
    /// whatever works was asked for.
    fn retire_resorts(&mut self, endpoint: usize) {
        let place = self.endpoints[endpoint].address.socket();
        for (index, other) in self.endpoints.iter_mut().enumerate() {
            let resort = self.connector.is_last_resort(index) && other.address.socket() == place;
            if resort && !std::mem::replace(&mut other.retired, true) {
                self.connector.retire_endpoint(index);
            }
        }
    }

    /// Makes paths of what has connected.
    pub(crate) fn open_paths(&mut self, now: Timestamp, state: &mut State, links: &mut Vec<Link>) {
        for attempt in &mut self.attempts {
            let Progress::Connected(connection) = &attempt.progress else {
                continue;
            };
            #[cfg(feature = "quic")]
            if connection.quic.as_ref().is_some_and(|facts| facts.early) && state.core.id().is_some() {
                // A session has come to be meanwhile, which the path is to join: that waits for the handshake.
                if let Progress::Connected(connection) = std::mem::replace(
                    &mut attempt.progress,
                    Progress::Failed(String::new(), Down::Failed),
                ) {
                    attempt.progress = Progress::Connecting(Box::pin(crate::quic::settle(connection)));
                    self.fresh = true;
                }
                continue;
            }
            let info = self.endpoints[attempt.endpoint].info(connection, &self.settings);
            let next = match state.core.open_path(now, info) {
                Ok(key) => Progress::Path { key, up: false },
                Err(error) => Progress::Failed(error.to_string(), Down::Failed),
            };
            let before = std::mem::replace(&mut attempt.progress, next);
            if let (Progress::Connected(connection), Progress::Path { key, .. }) = (before, &attempt.progress)
            {
                #[cfg(feature = "http")]
                if let Some(facts) = &connection.http {
                    attempt.http = Some(facts.keyed.clone());
                }
                #[cfg(feature = "quic")]
                if let Some(facts) = connection.quic.as_ref().filter(|facts| facts.early) {
                    attempt.early = Some(facts.lanes.clone());
                }
                links.push(Link::new(*key, connection));
            }
        }
    }

    /// Takes note of an event about a path.
    pub(crate) fn note(&mut self, now: Timestamp, event: &Event) {
        match event {
            Event::PathMute(path) => {
                if let Some(attempt) = self.attempts.iter().find(|attempt| attempt.is(*path)) {
                    self.connector.handle_path_mute(now, attempt.id);
                }
            }
            Event::PathSilent(path) => {
                if let Some(attempt) = self.attempts.iter().find(|attempt| attempt.is(*path)) {
                    self.connector.handle_path_silent(now, attempt.id);
                }
            }
            Event::PathRecovered(path) => {
                if let Some(attempt) = self.attempts.iter().find(|attempt| attempt.is(*path)) {
                    self.connector.handle_path_recovered(now, attempt.id);
                }
            }
            Event::PathUp(path) => {
                let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.is(*path)) else {
                    return;
                };
                attempt.progress = Progress::Path { key: *path, up: true };
                #[cfg(feature = "quic")]
                {
                    attempt.early = None;
                }
                if self.connector.handle_path_up(now, attempt.id) == Verdict::Drop {
                    self.unwanted.push(*path);
                }
                let endpoint = attempt.endpoint;
                self.known.won(&self.runtime, &self.endpoints[endpoint].name);
                self.forget_unreachable(endpoint);
                self.settle_at(endpoint);
                if std::mem::take(&mut self.keeps_security) {
                    self.retire_weaker(endpoint);
                }
                self.errors = Vec::new();
                self.succeeded = true;
            }
            Event::GoAway { address, .. } if !address.is_empty() => {
                let from = self.attempts.iter().find(|attempt| attempt.is_up());
                let from = from.map_or(0, |attempt| attempt.endpoint);
                if let Ok(to) = self.judge(now, from, address, RedirectCause::GoAway) {
                    self.guide.learn(&self.endpoints[from].address, &to);
                }
            }
            Event::PathDown {
                path,
                error,
                end,
                delivered,
                ..
            } => {
                let Some(index) = self.attempts.iter().position(|attempt| attempt.is(*path)) else {
                    return;
                };
                let up = matches!(self.attempts[index].progress, Progress::Path { up: true, .. });
                if self.attempts[index].is_impostor() && self.keeps_security {
                    self.retire_resorts(self.attempts[index].endpoint);
                }
                let down = Down::of(failure(*end, error.as_ref(), up));
                if let Some(PathError::Rejected { code, address, .. }) = error {
                    self.redirected(now, self.attempts[index].endpoint, *code, address);
                }
                if up {
                    let attempt = self.attempts.swap_remove(index);
                    if *delivered > 0 {
                        self.connector.handle_path_worked(attempt.id);
                    }
                    self.connector.handle_path_down(now, attempt.id, down);
                } else {
                    let why = match error {
                        Some(error) => error.to_string(),
                        None => self.attempts[index]
                            .failure()
                            .unwrap_or_else(|| format!("the connection ended in the handshake ({end:?})")),
                    };
                    self.attempts[index].progress = Progress::Failed(why, down);
                }
            }
            _ => {}
        }
    }

    fn judge(
        &self,
        now: Timestamp,
        from: usize,
        text: &str,
        cause: RedirectCause,
    ) -> Result<Address, String> {
        let from = &self.endpoints[from].address;
        self.guide.judge(now, from, text, cause)
    }

    /// PROTOCOL 8.3: the server refused a path, and named another place.
    fn redirected(&mut self, now: Timestamp, from: usize, code: RejectCode, text: &str) {
        let cause = match code {
            RejectCode::DRAINING => RedirectCause::Draining,
            RejectCode::REDIRECT => RedirectCause::Moved,
            _ => return,
        };
        if text.is_empty() {
            return;
        }
        match self.judge(now, from, text, cause) {
            Ok(to) => {
                if cause == RedirectCause::Draining {
                    self.guide.learn(&self.endpoints[from].address, &to);
                }
                if self
                    .endpoints
                    .iter()
                    .all(|known| known.retired || known.address != to)
                {
                    let index = self.connector.learn_endpoint(now);
                    let endpoint = Endpoint::new(to, 0, true);
                    match self.endpoints.get_mut(index) {
                        Some(known) => *known = endpoint,
                        None => self.endpoints.push(endpoint),
                    }
                    if let Some(error) = self.errors.get_mut(index) {
                        *error = None;
                    }
                }
            }
            Err(why) if cause == RedirectCause::Moved => self.refused = Some(why),
            Err(_) => {}
        }
    }

    /// PROTOCOL 8.3: the session lives where it was made, or where it was found. No other place is asked for it
    /// any more: those that were configured are one server, and each that was learnt is another.
    fn settle_at(&mut self, endpoint: usize) {
        let learned = self.endpoints[endpoint].learned;
        for (index, other) in self.endpoints.iter_mut().enumerate() {
            let elsewhere = index != endpoint && (learned || other.learned);
            if elsewhere && !std::mem::replace(&mut other.retired, true) {
                self.connector.retire_endpoint(index);
            }
        }
    }

    fn retire_weaker(&mut self, endpoint: usize) {
        let least = security(&self.endpoints[endpoint].address);
        for (index, other) in self.endpoints.iter_mut().enumerate() {
            if security(&other.address) < least && !std::mem::replace(&mut other.retired, true) {
                self.connector.retire_endpoint(index);
            }
        }
    }

    /// A path is up at a place that was configured: what was learnt and could not be reached is forgotten.
    fn forget_unreachable(&self, endpoint: usize) {
        if self.succeeded || self.endpoints[endpoint].learned {
            return;
        }
        for (known, error) in self.endpoints.iter().zip(&self.errors) {
            if error.is_some() {
                self.guide.forget(&known.address);
            }
        }
    }

    /// Does what the connector wants. Tells whether, before there was any path, an endpoint failed.
    pub(crate) fn dial(&mut self, now: Timestamp, state: &mut State, links: &mut [Link]) -> bool {
        self.follow_network(now, state);
        let mut news = self.report_failures(now);
        if let Some(why) = self.refused.take() {
            state.core.refuse_redirect(now, &why);
        }
        if !state.core.wants_path() {
            self.attempts
                .retain(|attempt| matches!(attempt.progress, Progress::Path { .. }));
            return news;
        }
        // Mostly it wants nothing: it is asked once then, not for each of these.
        let wants = self.connector.poll_timeout();
        if wants.is_some_and(|at| at <= now) {
            self.connector.handle_timeout(now);
        }
        while let Some(event) = self.connector.poll_event() {
            match event {
                connector::Event::GiveUp(attempt) | connector::Event::Surplus(attempt) => {
                    news |= self.give_up(attempt.attempt_id);
                }
                connector::Event::Brokenness { endpoint } => {
                    if let Some(known) = self.endpoints.get(endpoint).filter(|known| !known.learned) {
                        self.known
                            .note(&self.runtime, now, &self.connector, endpoint, &known.name);
                    }
                }
                connector::Event::Exhausted => {
                    let list = self.failures();
                    state.core.give_up(now, &crate::client::list(&list));
                    state.unreachable = list;
                }
                _ => {}
            }
        }
        for path in self.unwanted.drain(..) {
            if let Some(link) = links.iter_mut().find(|link| link.key == path) {
                state.core.handle_path_closed(now, path, PathEnd::Local);
                link.drop_path(now);
            }
        }
        while wants.is_some()
            && let Some(next) = self.connector.poll_connect(now)
        {
            let address = self.endpoints[next.endpoint].address.clone();
            let early = state.core.id().is_none();
            let future = connect(self.runtime.clone(), address, self.settings.clone(), early);
            let progress = Progress::Connecting(future);
            self.attempts.push(Attempt {
                id: next.attempt_id,
                endpoint: next.endpoint,
                progress,
                #[cfg(feature = "http")]
                http: None,
                #[cfg(feature = "quic")]
                early: None,
            });
            self.fresh = true;
        }
        self.known.save(&self.runtime);
        if news {
            state.unreachable = self.failures();
            let open = self.endpoints.iter().filter(|endpoint| !endpoint.retired).count();
            state.exhausted = state.unreachable.len() >= open;
        }
        news
    }

    /// Tells connector and session what is remembered of the network that the machine is on, when it has changed.
    fn follow_network(&mut self, now: Timestamp, state: &mut State) {
        let changes = self.known.changes();
        if self.changes == Some(changes) {
            return;
        }
        if self.changes.is_some() {
            self.connector.handle_network_change(now);
            state.core.handle_network_change(now);
        }
        self.changes = Some(changes);
        let names = self.endpoints.iter().map(|endpoint| &*endpoint.name);
        self.known.recall(&*self.runtime, now, &mut self.connector, names);
    }

    fn report_failures(&mut self, now: Timestamp) -> bool {
        let mut news = false;
        let mut index = 0;
        while index < self.attempts.len() {
            if !matches!(self.attempts[index].progress, Progress::Failed(..)) {
                index += 1;
                continue;
            }
            let attempt = self.attempts.swap_remove(index);
            let Progress::Failed(why, down) = attempt.progress else {
                continue;
            };
            self.connector.handle_path_down(now, attempt.id, down);
            news |= self.failed(attempt.endpoint, why);
        }
        news
    }

    /// Takes note of what went wrong at an endpoint. Tells whether there was no path before.
    fn failed(&mut self, endpoint: usize, why: String) -> bool {
        self.errors.resize(self.endpoints.len(), None);
        self.errors[endpoint] = Some(why);
        !self.succeeded
    }

    /// What went wrong last, by the endpoints' names.
    fn failures(&self) -> Vec<(String, String)> {
        let known = self.endpoints.iter().zip(&self.errors);
        known
            .filter_map(|(endpoint, why)| Some((endpoint.name.to_string(), why.clone()?)))
            .collect()
    }

    /// Drops an attempt, wherever it stands. A path of it reports its end as usual. Tells whether, before
    /// there was any path, an endpoint failed by it.
    fn give_up(&mut self, id: AttemptId) -> bool {
        let Some(index) = self.attempts.iter().position(|attempt| attempt.id == id) else {
            return false;
        };
        if let Progress::Path { key, .. } = self.attempts[index].progress {
            self.unwanted.push(key);
            return false;
        }
        let attempt = self.attempts.swap_remove(index);
        self.failed(attempt.endpoint, "no answer in time".to_owned())
    }

    /// Whether a connection was started that nobody has polled.
    pub(crate) fn has_new(&self) -> bool {
        self.fresh
    }

    /// When the connector wants to go on.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.connector.poll_timeout()
    }
}

impl Attempt {
    /// Why its path never came up, where something below the session knows.
    fn failure(&self) -> Option<String> {
        #[cfg(feature = "quic")]
        if let Some(error) = self.early.as_ref().and_then(|lanes| lanes.failure()) {
            return Some(error.to_string());
        }
        #[cfg(feature = "http")]
        if let Some(keyed) = &self.http {
            return keyed.failure();
        }
        None
    }

    /// Whether it was found out that its server is not to be trusted after its path had begun.
    fn is_impostor(&self) -> bool {
        #[cfg(feature = "quic")]
        if let Some(error) = self.early.as_ref().and_then(|lanes| lanes.failure()) {
            return is_distrust(&error);
        }
        false
    }

    fn is_up(&self) -> bool {
        matches!(self.progress, Progress::Path { up: true, .. })
    }

    fn is(&self, path: PathKey) -> bool {
        matches!(self.progress, Progress::Path { key, .. } if key == path)
    }
}
