//! What belongs to a UDP socket: whom a datagram is for, and new connections.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{
    ConnectionEvent, ConnectionHandle, DatagramEvent, EcnCodepoint, EndpointConfig, EndpointEvent, Incoming,
    Transmit,
};
use ring::hmac;

use super::cids::Cids;
use super::clock::Clock;
use super::config::{ClientQuic, Given, ServerQuic};
use super::connection::Connection;
use super::error::QuicError;
use crate::carrier::tls;
use crate::rng::Rng;
use crate::time::Timestamp;

/// What an endpoint is made with.
#[derive(Debug)]
pub struct EndpointSettings {
    /// Seed of everything that it and its connections draw.
    pub seed: [u8; 32],
    /// The moment of [`Timestamp::ZERO`] in the time that quinn-proto counts in.
    pub origin: Instant,
    /// Time since 1970 at [`Timestamp::ZERO`].
    pub epoch: Duration,
    /// Whether the socket never has its datagrams cut in pieces, so that larger ones may be tried.
    pub keeps_whole: bool,
    /// What connections are accepted with; `None` to accept none.
    pub server: Option<ServerQuic>,
}

/// Where a datagram came from.
#[derive(Clone, Copy, Debug)]
pub struct From {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The own address that it was sent to, where the socket tells.
    pub local_ip: Option<IpAddr>,
    /// Its mark of explicit congestion notification (RFC 3168).
    pub ecn: Option<EcnCodepoint>,
}

/// What came of a datagram.
#[derive(Debug)]
pub enum Arrival {
    /// It is for a connection: [`Connection::handle_events`].
    Event(ConnectionHandle, ConnectionEvent),
    /// It began a connection. It is in its handshake until [`Endpoint::settled`].
    New(Box<Connection>),
    /// It is answered, by what was put into the buffer.
    Response(Transmit),
}

/// A UDP socket's end of QUIC. See the [module](super).
pub struct Endpoint {
    inner: quinn_proto::Endpoint,
    clock: Clock,
    epoch: Duration,
    /// What tokens are judged by.
    time: Arc<Given>,
    rng: Rng,
    server: Option<ServerQuic>,
    /// Accepted connections that are in their handshake.
    handshaking: BTreeSet<usize>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("connections", &self.inner.open_connections())
            .field("handshaking", &self.handshaking.len())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The endpoint of a socket.
    ///
    /// # Errors
    /// rustls has no cipher suite for the server's side.
    pub fn new(settings: EndpointSettings) -> Result<Endpoint, QuicError> {
        let mut rng = Rng::from_seed(settings.seed);
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &rng.bytes::<32>());
        let token_key = rng.bytes::<32>();
        let mut config = EndpointConfig::new(Arc::new(reset_key));
        let cid_seed = rng.bytes::<32>();
        config
            .cid_generator(move || Box::new(Cids::new(Rng::from_seed(cid_seed))))
            .rng_seed(Some(rng.bytes()));
        let time = Arc::new(Given::default());
        let server = settings.server.as_ref();
        let server = server.map(|server| server.config(&token_key, time.clone()));
        let server = server.transpose()?.map(Arc::new);
        let inner = quinn_proto::Endpoint::new(Arc::new(config), server, settings.keeps_whole, None);
        Ok(Endpoint {
            inner,
            clock: Clock::new(settings.origin),
            epoch: settings.epoch,
            time,
            rng,
            server: settings.server,
            handshaking: BTreeSet::new(),
        })
    }

    fn unix(&self, now: Timestamp) -> Duration {
        self.epoch + now.since(Timestamp::ZERO)
    }

    /// Begins a connection to a server of that name or address.
    ///
    /// # Errors
    /// The name or the address is none.
    pub fn connect(
        &mut self,
        now: Timestamp,
        client: &ClientQuic,
        remote: SocketAddr,
        name: &str,
    ) -> Result<Connection, QuicError> {
        let mut config = client.config.clone();
        // RFC 9000 §7.2: at least eight bytes that nobody can guess.
        let first_id = self.rng.bytes::<16>();
        config.initial_dst_cid_provider(Arc::new(move || quinn_proto::ConnectionId::new(&first_id)));
        let instant = self.clock.instant(now);
        let unix = self.unix(now);
        let inner = &mut self.inner;
        let begun = tls::ambient_with(&mut self.rng, unix, || {
            inner.connect(instant, config, remote, name)
        });
        let (handle, connection) = begun?;
        Ok(Connection::new(
            handle,
            connection,
            self.clock,
            self.epoch,
            self.rng.bytes(),
        ))
    }

    /// Takes a datagram in. What is answered is put into `response`, which is empty.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        from: From,
        data: BytesMut,
        response: &mut Vec<u8>,
    ) -> Option<Arrival> {
        self.time.set(self.unix(now));
        let instant = self.clock.instant(now);
        match self
            .inner
            .handle(instant, from.remote, from.local_ip, from.ecn, data, response)?
        {
            DatagramEvent::ConnectionEvent(handle, event) => Some(Arrival::Event(handle, event)),
            DatagramEvent::Response(transmit) => Some(Arrival::Response(transmit)),
            DatagramEvent::NewConnection(incoming) => self.take_in(now, incoming, response),
        }
    }

    /// RFC 9000 §8: under load a client proves its address before anything is kept for it.
    fn take_in(&mut self, now: Timestamp, incoming: Incoming, response: &mut Vec<u8>) -> Option<Arrival> {
        let unix = self.unix(now);
        let server = self.server.as_ref()?;
        let under_way = self.handshaking.len();
        if under_way >= server.settings.max_handshakes {
            return Some(Arrival::Response(self.inner.refuse(incoming, response)));
        }
        let instant = self.clock.instant(now);
        let retries = under_way >= server.settings.retry_above && incoming.may_retry();
        let Endpoint { inner, rng, .. } = self;
        if retries {
            let retried = tls::ambient_with(rng, unix, || inner.retry(incoming, response));
            return retried.ok().map(Arrival::Response);
        }
        let peer = incoming.remote_address().ip();
        let accepted = tls::ambient_with_peer(rng, unix, peer, || {
            let accepted = inner.accept(incoming, instant, response, None);
            accepted.map_err(|error| error.response)
        });
        match accepted {
            Ok((handle, connection)) => {
                self.handshaking.insert(handle.0);
                let seed = self.rng.bytes();
                let connection = Connection::new(handle, connection, self.clock, self.epoch, seed);
                Some(Arrival::New(Box::new(connection)))
            }
            Err(response) => response.map(Arrival::Response),
        }
    }

    /// The handshake of an accepted connection is done, or it is given up.
    pub fn settled(&mut self, handle: ConnectionHandle) {
        self.handshaking.remove(&handle.0);
    }

    /// Takes what a connection has for it. What comes back is for that connection.
    pub fn handle_event(
        &mut self,
        handle: ConnectionHandle,
        event: EndpointEvent,
    ) -> Option<ConnectionEvent> {
        if event.is_drained() {
            self.handshaking.remove(&handle.0);
        }
        self.inner.handle_event(handle, event)
    }

    /// Forgets a connection that is not driven any more.
    pub fn forget(&mut self, handle: ConnectionHandle) {
        let _ = self.handle_event(handle, EndpointEvent::drained());
    }

    /// Accepts no connection from here on.
    pub fn refuse_all(&mut self) {
        self.inner.set_server_config(None);
        self.server = None;
    }

    /// Connections that it knows.
    pub fn connections(&self) -> usize {
        self.inner.open_connections()
    }

    /// Accepted connections that are in their handshake.
    pub fn handshaking(&self) -> usize {
        self.handshaking.len()
    }
}
