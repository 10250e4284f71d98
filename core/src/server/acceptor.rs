//! From a connection's first message to the session that it belongs to.

use std::sync::Arc;

use crate::handshake::{Reject, RejectCode};
use crate::marks::Marks;
use crate::rng::Rng;
use crate::session::{self, First, Incoming, Rejected, Session};
use crate::time::Timestamp;

use super::origin::Origin;
use super::registry::{self, Ended, Registry, Route, SessionToken};

/// Where a connection goes.
#[derive(Debug)]
pub enum Routed {
    /// Its HELLO made this session: attach the connection with [`Session::accept_path`].
    New {
        /// Names the session from now on.
        token: SessionToken,
        /// The session.
        session: Box<Session>,
    },
    /// It belongs to a session that is there: [`Session::accept_path`].
    Existing {
        /// The session.
        token: SessionToken,
    },
    /// Write the refusal, then close the connection.
    Reject(Rejected),
}

/// Makes sessions of HELLOs and finds those that JOINs name; owns none of them.
///
/// - Inputs: [`route`](Self::route) for every [`Incoming`] whose first message is there;
///   [`confirmed`](Self::confirmed), [`detached`](Self::detached), [`attached`](Self::attached) and
///   [`ended`](Self::ended) with what sessions report.
/// - Commands: [`drain`](Self::drain).
/// - Outputs: [`poll_expired`](Self::poll_expired), then [`poll_timeout`](Self::poll_timeout) and
///   [`handle_timeout`](Self::handle_timeout).
pub struct Acceptor {
    registry: Registry,
    session: Arc<session::Config>,
    rng: Rng,
}

impl Acceptor {
    /// An acceptor whose sessions are all configured alike.
    pub fn new(
        registry: registry::Config,
        session: impl Into<Arc<session::Config>>,
        seed: [u8; 32],
        now: Timestamp,
    ) -> Acceptor {
        let mut rng = Rng::from_seed(seed);
        let registry = Registry::new(registry, rng.fork("registry"), now);
        Acceptor {
            registry,
            session: session.into(),
            rng,
        }
    }

    /// Decides about a connection by its first message.
    pub fn route(&mut self, now: Timestamp, incoming: &Incoming) -> Routed {
        match incoming.first() {
            None => {
                let reject = Reject::new(RejectCode::MALFORMED, "no first message");
                Routed::Reject(Rejected::new(&reject))
            }
            Some(First::Join(join)) => match self.registry.route_join(now, &join.session_id, &join.routing) {
                Route::Existing { token } => Routed::Existing { token },
                Route::New { .. } => Routed::Reject(Rejected::new(&Reject::new(
                    RejectCode::UNKNOWN_SESSION,
                    "no such session",
                ))),
                Route::Reject(reject) => Routed::Reject(Rejected::new(&reject)),
            },
            Some(First::Hello(hello)) => {
                match self.registry.route_hello(now, hello, incoming.info().security) {
                    Route::Existing { token } => Routed::Existing { token },
                    Route::Reject(reject) => Routed::Reject(Rejected::new(&reject)),
                    Route::New {
                        token, session_id, ..
                    } => {
                        let routing = self.registry.routing().clone();
                        let config = self.session.clone();
                        let seed = self.rng.bytes();
                        self.registry.identify(token, incoming.origin());
                        match Session::server(config, seed, now, hello, session_id, routing) {
                            Ok(session) => Routed::New {
                                token,
                                session: Box::new(session),
                            },
                            Err(error) => {
                                self.registry.ended(now, token, Ended::Closed);
                                let reject = Reject::new(error.reject_code(), error.to_string());
                                Routed::Reject(Rejected::new(&reject))
                            }
                        }
                    }
                }
            }
        }
    }

    /// The session's client has proven who it is: its memory is counted for that identity from here on.
    pub fn identify(&mut self, token: SessionToken, origin: Origin) {
        self.registry.identify(token, origin);
    }

    /// The session reported that its client has proven itself. `false`: it was given up before.
    #[must_use]
    pub fn confirmed(&mut self, now: Timestamp, token: SessionToken) -> bool {
        self.registry.confirmed(now, token)
    }

    /// The session has ended; a later JOIN is told how.
    pub fn ended(&mut self, now: Timestamp, token: SessionToken, why: Ended) {
        self.registry.ended(now, token, why);
    }

    /// Refuses new sessions from now on and names where to go instead; joins go on.
    pub fn drain(&mut self, address: Option<String>) {
        self.registry.drain(address);
    }

    /// The session has no path, and holds so many bytes ([`Session::held_bytes`]); to be told again when that
    /// changes. Too much of it, and [`poll_expired`](Self::poll_expired) names who has to go.
    pub fn detached(&mut self, now: Timestamp, token: SessionToken, bytes: u64) {
        self.registry.detached(now, token, bytes);
    }

    /// The session has a path again.
    pub fn attached(&mut self, token: SessionToken) {
        self.registry.attached(token);
    }

    /// The next session that nobody confirmed in time, or whose memory is needed: drop it and its connections.
    pub fn poll_expired(&mut self) -> Option<SessionToken> {
        self.registry.poll_event().map(|event| match event {
            registry::Event::Unconfirmed { token } | registry::Event::Evicted { token } => token,
        })
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.registry.poll_timeout()
    }

    /// The deadline has come.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.registry.handle_timeout(now);
    }

    /// The rare branches that this acceptor has been through, for tests.
    pub fn marks(&self) -> Marks {
        self.registry.marks()
    }

    /// The sessions in numbers: live ones, and of these the unconfirmed.
    pub fn counts(&self) -> (usize, usize) {
        (self.registry.live(), self.registry.unconfirmed())
    }
}
