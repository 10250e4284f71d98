//! Listening, and the way of a connection to its session.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

#[cfg(feature = "http")]
use sheetbend_core::carrier::http::Guard;
#[cfg(feature = "quic")]
use sheetbend_core::carrier::quic::QuicSettings;
#[cfg(feature = "tls")]
use sheetbend_core::carrier::tls::ServerTls;
use sheetbend_core::handshake::Security;
use sheetbend_core::server::Acceptor;
use sheetbend_core::server::registry::Config as RegistryConfig;
use sheetbend_core::session::{ClassError, ClassSettings, Config};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::Class;

use crate::address::{Address, AddressError, ToAddress};
use crate::arrive::Door;
use crate::endpoint::security;
use crate::hub::Hub;
use crate::intake::RequestLimits;
use crate::opening::Opening;
use crate::rt::{Listener, Runtime, Timer};
use crate::session::Session;

/// Connections at a time whose first message has not come, or that are told why they are refused, by
/// default; more are closed at once.
pub const DEFAULT_MAX_HANDSHAKES: usize = 4096;
/// How long listening rests after an error such as too many open files.
const LISTEN_REST: Duration = Duration::from_millis(50);
/// Connections accepted on one listener before the others, and other tasks, get their turn.
const ACCEPT_BATCH: usize = 64;

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The builder was given no address.
    #[error("no address to listen on")]
    NoAddress,
    /// The operating system refuses.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: Address,
        /// Why.
        error: io::Error,
    },
    /// TLS needs `ServerBuilder::tls`.
    #[error("{address} needs a certificate")]
    NoCertificate {
        /// Where.
        address: Address,
    },
    /// An address is malformed.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// Collects what a server needs to know.
#[derive(Default)]
pub struct ServerBuilder {
    addresses: Vec<Address>,
    config: Config,
    registry: RegistryConfig,
    max_request: Option<usize>,
    max_unaccepted: Option<usize>,
    max_handshakes: Option<usize>,
    #[cfg(feature = "http")]
    guard: Guard,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
    behind_tls_proxy: bool,
    #[cfg(feature = "quic")]
    quic: QuicSettings,
    #[cfg(feature = "quic")]
    without_udp: bool,
}

impl ServerBuilder {
    /// Adds an address to listen on; `tcp://host:0` takes any free port.
    ///
    /// # Errors
    /// When the address is malformed.
    pub fn listen(mut self, address: impl ToAddress) -> Result<ServerBuilder, AddressError> {
        self.addresses.push(address.to_address()?);
        Ok(self)
    }

    /// The configuration of every session, classes included. Without a security floor in it, the weakest of the
    /// listening addresses' is the floor.
    pub fn config(mut self, config: Config) -> ServerBuilder {
        self.config = config;
        self
    }

    /// Sets a class up: its name, urgency, way of delivery and limits.
    ///
    /// # Errors
    /// When another class has the name, or a setting is out of its range.
    pub fn class(mut self, class: Class, settings: ClassSettings) -> Result<ServerBuilder, ClassError> {
        self.config.class(class, settings)?;
        Ok(self)
    }

    /// Limits on sessions, and all else about taking them in.
    pub fn registry(mut self, config: RegistryConfig) -> ServerBuilder {
        self.registry = config;
        self
    }

    /// The longest request or answer taken, in bytes.
    pub fn max_request(mut self, bytes: usize) -> ServerBuilder {
        self.max_request = Some(bytes);
        self
    }

    /// How many bytes of whole requests may wait for [`Session::accept_request`] in one session; the last
    /// of them may exceed it. Beyond it no request is read on, so that flow control holds the peer back.
    pub fn max_unaccepted(mut self, bytes: usize) -> ServerBuilder {
        self.max_unaccepted = Some(bytes);
        self
    }

    /// How many connections may be in their handshake, or be told why they are refused, at a time.
    pub fn max_handshakes(mut self, count: usize) -> ServerBuilder {
        self.max_handshakes = Some(count);
        self
    }

    /// Which web pages and host names are served. By default no page of another origin is, and a page reaches
    /// the server by an IP address or `localhost` alone; what is no browser is not asked.
    #[cfg(feature = "http")]
    pub fn guard(mut self, guard: Guard) -> ServerBuilder {
        self.guard = guard;
        self
    }

    /// The certificate for TLS. With one, TLS is taken on every address; `tls://` and `wss://` take nothing
    /// else, and need one. Keep a clone to change the certificate: [`ServerTls::reload`].
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: ServerTls) -> ServerBuilder {
        self.tls = Some(tls);
        self
    }

    /// What may be chosen about QUIC.
    #[cfg(feature = "quic")]
    pub fn quic(mut self, settings: QuicSettings) -> ServerBuilder {
        self.quic = settings;
        self
    }

    /// Whether the TCP addresses are served over UDP as well, by QUIC on the port of the same number: so by default,
    /// where there is a certificate and the port is free.
    #[cfg(feature = "quic")]
    pub fn udp(mut self, yes: bool) -> ServerBuilder {
        self.without_udp = !yes;
        self
    }

    /// What comes in plain comes from a proxy that has ended its TLS, and is as good as encrypted. Nobody else
    /// may be able to reach these addresses. Clients must know:
    /// `ClientBuilder::through_tls_proxy`.
    pub fn behind_tls_proxy(mut self, yes: bool) -> ServerBuilder {
        self.behind_tls_proxy = yes;
        self
    }

    /// Listens.
    ///
    /// # Errors
    /// When there is no address, one needs a certificate and there is none, or one cannot be listened on.
    pub async fn bind(mut self, runtime: Arc<dyn Runtime>) -> Result<Server, BindError> {
        let plain = self.behind_tls_proxy.then_some(Security::Encrypted);
        let weakest = self
            .addresses
            .iter()
            .map(|address| plain.unwrap_or_else(|| security(address)))
            .min()
            .ok_or(BindError::NoAddress)?;
        let floor = self.config.security_floor.unwrap_or(weakest);
        self.config.security_floor = Some(floor);
        self.registry.floor = self.registry.floor.max(floor);
        #[cfg(feature = "http")]
        let guard = Arc::new(self.guard);
        let opening = Opening {
            runtime: &runtime,
            #[cfg(feature = "quic")]
            tls: self.tls.as_ref(),
            #[cfg(feature = "quic")]
            quic: &self.quic,
            #[cfg(feature = "quic")]
            udp: !self.without_udp,
        };
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        #[cfg(feature = "quic")]
        let mut ports = Vec::new();
        for address in self.addresses {
            #[cfg(feature = "tls")]
            if self.tls.is_none() && matches!(&address, Address::Over { scheme, .. } if scheme.is_encrypted())
            {
                return Err(BindError::NoCertificate { address });
            }
            let door = |bound: Address| {
                Arc::new(Door {
                    plain: plain.unwrap_or_else(|| security(&address.socket())),
                    #[cfg(feature = "tls")]
                    tls: self.tls.clone(),
                    address: bound,
                    #[cfg(feature = "http")]
                    guard: guard.clone(),
                })
            };
            let opened = match opening.open(&address).await {
                Ok(opened) => opened,
                Err(error) => return Err(BindError::Listen { address, error }),
            };
            let door = door(opened.address);
            addresses.push(door.address.clone());
            listeners.extend(opened.listener.map(|listener| (listener, door.clone())));
            #[cfg(feature = "quic")]
            ports.extend(opened.port.map(|port| (port, door)));
        }
        let acceptor = Acceptor::new(self.registry, self.config, runtime.seed(), runtime.now());
        let max_handshakes = self.max_handshakes.unwrap_or(DEFAULT_MAX_HANDSHAKES);
        let limits = RequestLimits::new(self.max_request, self.max_unaccepted);
        let hub = Arc::new(Hub::new(acceptor, runtime.clone(), max_handshakes, limits));
        #[cfg(feature = "quic")]
        for (port, door) in ports {
            hub.lock().udp.push(port.clone());
            runtime.spawn(Box::pin(crate::quic::serve(hub.clone(), port, door)));
        }
        let task = Listening {
            hub: hub.clone(),
            listeners,
            timer: None,
            armed: Timestamp::MAX,
            rest_until: None,
        };
        runtime.spawn(Box::pin(task));
        Ok(Server { hub, addresses })
    }
}

/// Accepts sessions on one or more addresses.
///
/// Dropping it stops listening; sessions that were accepted live on over the connections they have.
pub struct Server {
    hub: Arc<Hub>,
    addresses: Vec<Address>,
}

impl Server {
    /// A builder with defaults.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Where it listens, in the order given, with the ports really bound.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The next session, once its client has proven itself, or once it has work that need not wait for that: early data
    /// that came by TLS or QUIC, and was never sent by anything weaker, so that nobody can have copied it (PROTOCOL 5.6).
    /// Such a session is [`State::Connecting`](crate::State::Connecting) at first, and ends if its client never proves
    /// itself; until then its client's address over QUIC is what its datagrams say, which somebody can forge who had that
    /// address before. `None` when the server was stopped.
    pub async fn accept(&self) -> Option<Session> {
        poll_fn(|cx| self.hub.poll_accept(cx)).await
    }

    /// Refuses new sessions and lets every session finish what is open; existing ones may still
    /// resume meanwhile. `address` tells clients where to go instead; it may be empty.
    pub fn drain(&self, address: &str) {
        let now = self.hub.runtime.now();
        self.hub.lock().acceptor.drain(Some(address.to_owned()));
        for shared in self.hub.sessions() {
            shared.lock().core.drain(now, address);
        }
    }

    /// Waits until no session is left, and their ends have been told.
    pub async fn drained(&self) {
        poll_fn(|cx| self.hub.poll_drained(cx)).await;
    }

    /// Stops listening.
    pub fn stop(&self) {
        self.hub.stop();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.hub.stop();
    }
}

/// The task that listens, and watches the acceptor's deadlines.
struct Listening {
    hub: Arc<Hub>,
    listeners: Vec<(Box<dyn Listener>, Arc<Door>)>,
    timer: Option<Box<dyn Timer>>,
    armed: Timestamp,
    rest_until: Option<Timestamp>,
}

impl Listening {
    /// Accepts what waits, a batch on each listener. Tells whether more may wait.
    fn accept(&mut self, cx: &mut Context<'_>, now: Timestamp) -> bool {
        let mut again = false;
        for (listener, door) in &self.listeners {
            for round in 0.. {
                if round >= ACCEPT_BATCH {
                    again = true;
                    break;
                }
                match listener.poll_accept(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(socket)) => self.hub.clone().welcome(socket, door.clone()),
                    Poll::Ready(Err(_)) => {
                        self.rest_until = Some(now + LISTEN_REST);
                        break;
                    }
                }
            }
        }
        again
    }

    fn sleep(&mut self, cx: &mut Context<'_>, deadline: Option<Timestamp>) -> bool {
        let Some(at) = deadline else { return false };
        if at != self.armed {
            self.armed = at;
            match &mut self.timer {
                Some(timer) => timer.reset(at),
                None => self.timer = Some(self.hub.runtime.timer(at)),
            }
        }
        self.timer
            .as_mut()
            .is_some_and(|timer| timer.poll_expired(cx).is_ready())
    }
}

impl Future for Listening {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        {
            let mut hub = this.hub.lock();
            hub.task = Some(cx.waker().clone());
            if hub.stopped {
                // Sockets are given back at once; the rest goes when the last session has ended.
                this.listeners.clear();
                if hub.is_empty() {
                    return Poll::Ready(());
                }
            }
        }
        let now = this.hub.runtime.now();
        if this.rest_until.is_some_and(|at| at <= now) {
            this.rest_until = None;
        }
        let again = this.rest_until.is_none() && this.accept(cx, now);
        let deadline = [this.hub.expire(now), this.rest_until]
            .into_iter()
            .flatten()
            .min();
        if this.sleep(cx, deadline) || again {
            this.armed = Timestamp::MAX;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
