//! What a server's tasks share: the acceptor, the sessions it knows, and those that wait to be accepted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use sheetbend_core::server::registry::Ended;
use sheetbend_core::server::{Acceptor, Routed, SessionToken};
use sheetbend_core::session::{Cause, Incoming, State as Lifecycle};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::ErrorCode;

use crate::driver::{Driver, Role};
use crate::intake::RequestLimits;
use crate::layers::Connection;
use crate::observer::Observer;
use crate::rt::Runtime;
use crate::session::Session;
use crate::shared::{NewPath, Owner, Shared};

/// Sessions that wait for `accept`; beyond it new ones are closed.
pub const ACCEPT_QUEUE: usize = 1024;

/// A session the server knows; its handle until the application takes it.
struct Known {
    shared: Arc<Shared>,
    fresh: Option<Arc<Owner>>,
}

pub(crate) struct HubState {
    pub(crate) acceptor: Acceptor,
    known: BTreeMap<SessionToken, Known>,
    queue: VecDeque<Session>,
    acceptors: Vec<Waker>,
    /// The task that listens and watches the acceptor's deadlines.
    pub(crate) task: Option<Waker>,
    pub(crate) stopped: bool,
    /// Connections whose first message has not come, and those that are told why they are refused.
    pub(crate) handshakes: usize,
    /// Connections that serve exchanges over HTTP.
    #[cfg(feature = "http")]
    pub(crate) serving: usize,
    /// The UDP sockets.
    #[cfg(feature = "quic")]
    pub(crate) udp: Vec<Arc<crate::quic::Port>>,
    drained: Vec<Waker>,
    /// Sessions whose drivers have not ended: a closed one has yet to say so.
    drivers: usize,
    observer: Option<Box<dyn Observer>>,
}

impl HubState {
    fn observe(&mut self, now: Timestamp) {
        if let Some(observer) = &mut self.observer {
            observer.acceptor(now, &self.acceptor);
        }
    }

    /// Whether no session is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

pub(crate) struct Hub {
    state: Mutex<HubState>,
    /// The paths over HTTP.
    #[cfg(feature = "http")]
    pub(crate) ports: Arc<crate::http::Ports>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) max_handshakes: usize,
    limits: RequestLimits,
}

fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

fn note(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

impl Hub {
    pub(crate) fn new(
        acceptor: Acceptor,
        runtime: Arc<dyn Runtime>,
        max_handshakes: usize,
        limits: RequestLimits,
    ) -> Hub {
        let state = HubState {
            acceptor,
            known: BTreeMap::new(),
            queue: VecDeque::new(),
            acceptors: Vec::new(),
            task: None,
            stopped: false,
            handshakes: 0,
            #[cfg(feature = "http")]
            serving: 0,
            #[cfg(feature = "quic")]
            udp: Vec::new(),
            drained: Vec::new(),
            drivers: 0,
            observer: runtime.observer(),
        };
        Hub {
            state: Mutex::new(state),
            #[cfg(feature = "http")]
            ports: Arc::default(),
            runtime,
            max_handshakes,
            limits,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, HubState> {
        self.state.lock()
    }

    /// Brings a connection whose first message is complete to its session. `Err` is what the peer is
    /// told before the connection is closed, and the connection to tell it on.
    pub(crate) fn attach(
        self: &Arc<Self>,
        incoming: Incoming,
        connection: Connection,
    ) -> Result<(), (Connection, Bytes)> {
        let now = self.runtime.now();
        let mut hub = self.lock();
        let routed = hub.acceptor.route(now, &incoming);
        hub.observe(now);
        let (shared, task) = match routed {
            Routed::Reject(rejected) => return Err((connection, rejected.record)),
            Routed::Existing { token } => match hub.known.get(&token) {
                Some(known) => (known.shared.clone(), None),
                None => return Err((connection, Bytes::new())),
            },
            Routed::New { token, session } => {
                let shared = Arc::new(Shared::new(session, self.runtime.clone(), self.limits));
                let fresh = Some(Arc::new(Owner(shared.clone())));
                hub.known.insert(
                    token,
                    Known {
                        shared: shared.clone(),
                        fresh,
                    },
                );
                hub.drivers += 1;
                let attachment = Attachment {
                    hub: self.clone(),
                    token,
                    confirmed: false,
                    offered: false,
                    ended: false,
                    held: None,
                };
                (
                    shared.clone(),
                    Some(Driver::new(shared, Role::Server(attachment))),
                )
            }
        };
        let watcher = hub.task.take();
        drop(hub);
        wake_all(watcher.into_iter().collect());
        let refused = {
            let mut state = shared.lock();
            match state.core.accept_path(now, incoming) {
                Ok(key) => {
                    #[cfg(feature = "http")]
                    if let (Some(facts), Some(proof)) = (&connection.http, state.core.exchange_key()) {
                        facts.keyed.set_key(proof);
                    }
                    state.inbox.push(NewPath { key, connection });
                    None
                }
                Err(rejected) => Some((connection, rejected.record)),
            }
        };
        if let Some(driver) = task {
            self.runtime.spawn(Box::pin(driver));
        }
        refused.map_or(Ok(()), Err)
    }

    /// Work has come that need not wait for the client to prove itself.
    fn offer(&self, token: SessionToken) {
        let mut hub = self.lock();
        // Those who have not proven themselves leave room for those who have. With none, or none to come, it is for
        // `confirmed` to see to.
        if hub.queue.len() >= ACCEPT_QUEUE / 2 || hub.stopped {
            return;
        }
        let fresh = hub.known.get_mut(&token).and_then(|known| known.fresh.take());
        let Some(owner) = fresh else { return };
        hub.queue.push_back(Session::new(owner));
        let acceptors = std::mem::take(&mut hub.acceptors);
        drop(hub);
        wake_all(acceptors);
    }

    fn confirmed(&self, now: Timestamp, token: SessionToken) {
        let mut hub = self.lock();
        let wanted = hub.acceptor.confirmed(now, token) && !hub.stopped;
        let fresh = hub.known.get_mut(&token).and_then(|known| known.fresh.take());
        let mut surplus = None;
        if let Some(owner) = fresh {
            if hub.queue.len() < ACCEPT_QUEUE && wanted {
                hub.queue.push_back(Session::new(owner));
            } else {
                surplus = Some(owner);
            }
        }
        let acceptors = std::mem::take(&mut hub.acceptors);
        drop(hub);
        // Dropped without the lock: it closes the session.
        drop(surplus);
        wake_all(acceptors);
    }

    fn closed(&self, now: Timestamp, token: SessionToken, why: Ended) {
        let mut hub = self.lock();
        hub.acceptor.ended(now, token, why);
        let known = hub.known.remove(&token);
        let wakers = hub.task.take().into_iter().collect();
        drop(hub);
        drop(known);
        wake_all(wakers);
    }

    /// The next session that is established, or has work to do that need not wait for that.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Session>> {
        let mut hub = self.lock();
        if let Some(session) = hub.queue.pop_front() {
            return Poll::Ready(Some(session));
        }
        if hub.stopped {
            return Poll::Ready(None);
        }
        note(&mut hub.acceptors, cx);
        Poll::Pending
    }

    /// Ready when no session is left, and every client was told.
    pub(crate) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut hub = self.lock();
        if hub.drivers == 0 {
            return Poll::Ready(());
        }
        note(&mut hub.drained, cx);
        Poll::Pending
    }

    /// Every session known.
    pub(crate) fn sessions(&self) -> Vec<Arc<Shared>> {
        self.lock()
            .known
            .values()
            .map(|known| known.shared.clone())
            .collect()
    }

    /// Stops listening. Sessions that nobody took are closed.
    pub(crate) fn stop(&self) {
        let mut hub = self.lock();
        hub.stopped = true;
        let queue = std::mem::take(&mut hub.queue);
        let mut wakers = std::mem::take(&mut hub.acceptors);
        wakers.extend(hub.task.take());
        #[cfg(feature = "quic")]
        let udp = std::mem::take(&mut hub.udp);
        drop(hub);
        #[cfg(feature = "quic")]
        udp.iter().for_each(|port| port.stop());
        drop(queue);
        wake_all(wakers);
    }

    /// Handles what is due at the acceptor, and tells when something will be.
    pub(crate) fn expire(&self, now: Timestamp) -> Option<Timestamp> {
        let mut expired = Vec::new();
        let deadline = {
            let mut hub = self.lock();
            if hub.acceptor.poll_timeout().is_some_and(|at| at <= now) {
                hub.acceptor.handle_timeout(now);
            }
            while let Some(token) = hub.acceptor.poll_expired() {
                expired.extend(hub.known.get(&token).map(|known| known.shared.clone()));
            }
            hub.observe(now);
            hub.acceptor.poll_timeout()
        };
        for shared in expired {
            let mut state = shared.lock();
            if state.core.is_established() {
                state.core.expire(now);
            } else {
                state.core.close(now, ErrorCode::TIMEOUT, "not confirmed in time");
            }
        }
        deadline
    }

    fn held(&self, now: Timestamp, token: SessionToken, bytes: Option<u64>) {
        {
            let mut hub = self.lock();
            match bytes {
                Some(bytes) => hub.acceptor.detached(now, token, bytes),
                None => hub.acceptor.attached(token),
            }
        }
        self.expire(now);
    }
}

/// How a server's session reports to its server.
pub(crate) struct Attachment {
    hub: Arc<Hub>,
    token: SessionToken,
    confirmed: bool,
    /// It is there to be accepted, or was, before it is confirmed.
    offered: bool,
    ended: bool,
    /// What the session holds, as it was told last, while it has no path.
    held: Option<u64>,
}

impl Attachment {
    /// Whether the session may be given to whoever accepts sessions though its client has not proven itself.
    pub(crate) fn may_offer(&self) -> bool {
        !self.confirmed && !self.offered
    }

    /// Gives it.
    pub(crate) fn offer(&mut self) {
        self.offered = true;
        self.hub.offer(self.token);
    }

    /// The session moved to another state.
    pub(crate) fn report(&mut self, now: Timestamp, to: Lifecycle, cause: &Cause) {
        if to == Lifecycle::Connected && !std::mem::replace(&mut self.confirmed, true) {
            self.hub.confirmed(now, self.token);
        }
        if to.is_terminal() && !std::mem::replace(&mut self.ended, true) {
            // A client that comes back is told EXPIRED only where it was away for too long.
            let why = match cause {
                Cause::ResumeTimeout => Ended::Expired,
                _ => Ended::Closed,
            };
            self.hub.closed(now, self.token, why);
        }
    }
}

impl Attachment {
    /// The session holds this while it has no path; `None` while it has one.
    pub(crate) fn hold(&mut self, now: Timestamp, bytes: Option<u64>) {
        if !self.ended && std::mem::replace(&mut self.held, bytes) != bytes {
            self.hub.held(now, self.token, bytes);
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if !self.ended {
            let now = self.hub.runtime.now();
            self.hub.closed(now, self.token, Ended::Closed);
        }
        let mut hub = self.hub.lock();
        hub.drivers -= 1;
        let wakers = if hub.drivers == 0 {
            std::mem::take(&mut hub.drained)
        } else {
            Vec::new()
        };
        drop(hub);
        wake_all(wakers);
    }
}
