//! What connections are made with.

use core::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{NoneTokenStore, TimeSource, TransportConfig, VarInt};
use ring::hkdf;
use rustls::client::Resumption;

use super::error::QuicError;
use crate::carrier::tls::{ClientTls, GivenTickets, KeptTicketsAt, ServerTls};

/// Streams that carry lanes, which a peer may have open at a time. PROTOCOL 14.8.
pub(super) const MAX_LANES: u32 = 256;
/// Bytes that a peer may have under way on one connection before they are taken. The session takes everything as it
/// comes, and bounds by its own credit what it holds: this bounds what waits for a lost packet alone.
pub(super) const RECEIVE_WINDOW: u32 = 24 << 20;
/// The same for one stream.
pub(super) const STREAM_WINDOW: u32 = 16 << 20;
/// Bytes of datagrams that wait to be taken, or to be sent.
const DATAGRAM_BUFFER: usize = 256 << 10;
/// How long a token of a retry is good for: it comes back at once.
const RETRY_LIFETIME: Duration = Duration::from_secs(10);

/// What keeps a connection from overloading the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Congestion {
    /// RFC 9438: loss is congestion, and the window grows by the time since the last one.
    #[default]
    Cubic,
    /// RFC 9002 §7: the window grows by a packet each round trip.
    NewReno,
    /// By measured bandwidth and round-trip time; does not take loss for congestion. Experimental in quinn-proto.
    Bbr,
}

/// What may be chosen about QUIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicSettings {
    /// What keeps a connection from overloading the network.
    pub congestion: Congestion,
    /// The largest UDP payload that is looked for by path MTU discovery, in bytes.
    pub max_mtu: u16,
    /// How many connections may be in their handshake before clients have to prove their address by a retry
    /// (RFC 9000 §8.1.2).
    pub retry_above: usize,
    /// How many connections may be in their handshake; beyond it new ones are refused.
    pub max_handshakes: usize,
    /// Whether a new session begins in the first flight (0-RTT) where the server is known from before: HELLO, and the
    /// early data that the session's configuration lets go with it. PROTOCOL 14.8. At a client: whether it keeps
    /// tickets, 64 at most, and sends by them. At a server: whether it gives tickets, and takes what is sent by them,
    /// once each.
    pub zero_rtt: bool,
    /// Server: how many tickets it remembers, one for each connection; the oldest are forgotten, also where all
    /// together take more than 4 MiB. Who comes by one that is forgotten takes a round trip longer.
    pub max_tickets: usize,
}

impl Default for QuicSettings {
    fn default() -> QuicSettings {
        QuicSettings {
            congestion: Congestion::default(),
            max_mtu: 1452,
            retry_above: 256,
            max_handshakes: 4096,
            zero_rtt: true,
            max_tickets: 4096,
        }
    }
}

impl QuicSettings {
    pub(super) fn transport(&self) -> TransportConfig {
        let mut config = TransportConfig::default();
        let mut discovery = quinn_proto::MtuDiscoveryConfig::default();
        discovery.upper_bound(self.max_mtu.max(1200));
        let factory: Arc<dyn ControllerFactory + Send + Sync> = match self.congestion {
            Congestion::Cubic => Arc::new(CubicConfig::default()),
            Congestion::NewReno => Arc::new(NewRenoConfig::default()),
            Congestion::Bbr => Arc::new(BbrConfig::default()),
        };
        config
            // Silence is judged by the session, which knows what it waits for and what else there is.
            .max_idle_timeout(None)
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(MAX_LANES))
            .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
            .datagram_send_buffer_size(DATAGRAM_BUFFER)
            .mtu_discovery_config(Some(discovery))
            .congestion_controller_factory(factory);
        config
    }
}

/// What a client's connections are made with: whom it believes, and the settings.
#[derive(Clone, Debug)]
pub struct ClientQuic {
    pub(super) config: quinn_proto::ClientConfig,
}

impl ClientQuic {
    /// A client that speaks records, and believes those servers that `tls` does.
    ///
    /// # Errors
    /// rustls has no cipher suite for it.
    pub fn new(tls: &ClientTls, settings: &QuicSettings) -> Result<ClientQuic, QuicError> {
        ClientQuic::with(&tls.quic, settings)
    }

    /// The same for a server at that address, from which tickets are kept, so that the next connection there may send in
    /// its first flight ([`Connection::is_early`](super::Connection::is_early)); unless the settings say otherwise.
    /// PROTOCOL 14.8.
    ///
    /// # Errors
    /// As [`ClientQuic::new`].
    pub fn early(
        tls: &ClientTls,
        settings: &QuicSettings,
        place: SocketAddr,
    ) -> Result<ClientQuic, QuicError> {
        if !settings.zero_rtt {
            return ClientQuic::new(tls, settings);
        }
        let mut config = rustls::ClientConfig::clone(&tls.quic);
        let kept = tls.tickets.clone();
        config.resumption = Resumption::store(Arc::new(KeptTicketsAt { kept, place }));
        config.enable_early_data = true;
        ClientQuic::with(&Arc::new(config), settings)
    }

    /// The same for HTTP/3.
    ///
    /// # Errors
    /// As [`ClientQuic::new`].
    #[cfg(feature = "webtransport")]
    pub fn http3(tls: &ClientTls, settings: &QuicSettings) -> Result<ClientQuic, QuicError> {
        ClientQuic::with(&tls.http3, settings)
    }

    fn with(tls: &Arc<rustls::ClientConfig>, settings: &QuicSettings) -> Result<ClientQuic, QuicError> {
        let crypto = QuicClientConfig::try_from(tls.clone()).map_err(no_suite)?;
        let mut config = quinn_proto::ClientConfig::new(Arc::new(crypto));
        config.token_store(Arc::new(NoneTokenStore));
        config.transport_config(Arc::new(settings.transport()));
        Ok(ClientQuic { config })
    }
}

/// What a server's connections are made with.
#[derive(Clone, Debug)]
pub struct ServerQuic {
    tls: ServerTls,
    pub(super) settings: QuicSettings,
}

impl ServerQuic {
    /// A server with the certificate of `tls`, which may change while it runs.
    pub fn new(tls: &ServerTls, settings: &QuicSettings) -> ServerQuic {
        ServerQuic {
            tls: tls.clone(),
            settings: settings.clone(),
        }
    }

    /// TLS for one endpoint, whose tickets are known there alone, and until it ends.
    fn tls(&self) -> Arc<rustls::ServerConfig> {
        if !self.settings.zero_rtt || self.settings.max_tickets == 0 {
            return self.tls.quic.clone();
        }
        let mut config = rustls::ServerConfig::clone(&self.tls.quic);
        // Remembered here, and not in the ticket: so that each is taken once, and a copy of a first flight never again.
        config.session_storage = Arc::new(GivenTickets::new(self.settings.max_tickets));
        config.send_tls13_tickets = 1;
        // RFC 9001 §4.6.1: this, or none.
        config.max_early_data_size = u32::MAX;
        Arc::new(config)
    }

    /// What quinn-proto wants of it. `token_key` proves the tokens of retries.
    pub(super) fn config(
        &self,
        token_key: &[u8; 32],
        time: Arc<Given>,
    ) -> Result<quinn_proto::ServerConfig, QuicError> {
        let crypto = QuicServerConfig::try_from(self.tls()).map_err(no_suite)?;
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(token_key);
        let mut config = quinn_proto::ServerConfig::new(Arc::new(crypto), Arc::new(key));
        config
            .transport_config(Arc::new(self.settings.transport()))
            .time_source(time)
            .retry_token_lifetime(RETRY_LIFETIME)
            .max_incoming(1)
            .migration(true);
        // A token for the time after would cost memory, and save a round trip under attack alone.
        config.validation_token.sent(0);
        Ok(config)
    }
}

fn no_suite(error: impl ToString) -> QuicError {
    QuicError::Config(error.to_string())
}

/// The time since 1970 that an endpoint was last given, in milliseconds.
#[derive(Default)]
pub(super) struct Given(AtomicU64);

impl Given {
    pub(super) fn set(&self, unix: Duration) {
        let millis = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl TimeSource for Given {
    fn now(&self) -> std::time::SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}
