//! TLS 1.3, driven by bytes. PROTOCOL 14.3.
//!
//! rustls does the protocol. What it would draw from its surroundings, randomness and the time, it is given
//! with each call (`ambient.rs`), so that a connection does the same for the same seed.

mod ambient;
mod base;
mod error;
mod identity;
mod pin;
mod provider;
#[cfg(test)]
mod tests;
#[cfg(feature = "quic")]
mod tickets;
mod trust;

use std::fmt;
use std::io::{self, BufRead, IoSlice, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConnection};

pub use base::prepare;
pub use error::TlsError;
pub use identity::{ServerTls, certificates};
pub use pin::{Pin, PinError};
pub use rustls::pki_types::CertificateDer;
pub use trust::Trust;

#[cfg(feature = "quic")]
pub(super) use ambient::{judged as ambient_judged, with as ambient_with, with_peer as ambient_with_peer};
#[cfg(feature = "quic")]
pub(super) use tickets::{Given as GivenTickets, Kept as KeptTickets, KeptAt as KeptTicketsAt};

use crate::handshake::{EXPORTER_LABEL, Exporter};
use crate::rng::Rng;
use crate::time::Timestamp;
use crate::wire::OutBuffer;

/// The application protocol of records as they are.
pub const ALPN_NATIVE: &[u8] = b"sheetbend/1";
/// The application protocol below WebSocket.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A client's end of TLS.
#[derive(Clone)]
pub struct ClientTls {
    native: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    /// Records over QUIC.
    #[cfg(feature = "quic")]
    pub(super) quic: Arc<ClientConfig>,
    /// What servers gave that speak these. All connections of this client share them.
    #[cfg(feature = "quic")]
    pub(super) tickets: Arc<KeptTickets>,
    /// HTTP/3 over QUIC.
    #[cfg(feature = "webtransport")]
    pub(super) http3: Arc<ClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls { .. }")
    }
}

/// What is spoken inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    /// Records.
    Native,
    /// HTTP/1.1, and what begins with it.
    Http1,
}

impl ClientTls {
    /// A client that believes those servers.
    ///
    /// # Errors
    /// When nothing that it could trust can be read.
    pub fn new(trust: &Trust) -> Result<ClientTls, TlsError> {
        let base = base::base()?;
        let verifier = trust.verifier(&base.provider)?;
        let config = |protocol: &[u8]| {
            let mut config = base.client.clone();
            config.dangerous().set_certificate_verifier(verifier.clone());
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        #[cfg(feature = "quic")]
        let over_quic = |protocol: &[u8]| {
            let mut quic = ClientConfig::clone(&config(protocol));
            quic.dangerous()
                .set_certificate_verifier(Arc::new(trust::Noting(verifier.clone())));
            Arc::new(quic)
        };
        Ok(ClientTls {
            native: config(ALPN_NATIVE),
            http1: config(ALPN_HTTP1),
            #[cfg(feature = "quic")]
            quic: over_quic(ALPN_NATIVE),
            #[cfg(feature = "quic")]
            tickets: Arc::default(),
            #[cfg(feature = "webtransport")]
            http3: over_quic(super::quic::ALPN_HTTP3),
        })
    }
}

/// One TLS connection.
///
/// Calls: as [`Carrier`](super::Carrier), which is the way to use it.
pub struct Tls {
    connection: Connection,
    rng: Rng,
    /// Time since 1970 at the caller's time zero.
    epoch: Duration,
    failed: bool,
    closed: bool,
    peer_closed: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("handshaking", &self.connection.is_handshaking())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// A client's end, to a server of that name or address. `epoch` is the time since 1970 at
    /// [`Timestamp::ZERO`].
    ///
    /// # Errors
    /// The name is none.
    pub fn client(
        config: &ClientTls,
        name: &str,
        inner: Inner,
        mut rng: Rng,
        epoch: Duration,
    ) -> Result<Tls, TlsError> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::Other(format!("`{name}` is neither a host name nor an address")))?;
        let config = match inner {
            Inner::Native => config.native.clone(),
            Inner::Http1 => config.http1.clone(),
        };
        let connection = ambient::with(&mut rng, epoch, || ClientConnection::new(config, name))?;
        Ok(Tls::new(connection.into(), rng, epoch))
    }

    /// A server's end.
    ///
    /// # Errors
    /// rustls refuses the configuration.
    pub fn server(config: &ServerTls, mut rng: Rng, epoch: Duration) -> Result<Tls, TlsError> {
        let config = config.config.clone();
        let connection = ambient::with(&mut rng, epoch, || ServerConnection::new(config))?;
        Ok(Tls::new(connection.into(), rng, epoch))
    }

    fn new(mut connection: Connection, rng: Rng, epoch: Duration) -> Tls {
        // What is to be sent was bounded before it got here.
        connection.set_buffer_limit(None);
        Tls {
            connection,
            rng,
            epoch,
            failed: false,
            closed: false,
            peer_closed: false,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.connection.is_handshaking() && !self.failed
    }

    /// What the ends agreed to speak inside; `None` where one of them said nothing.
    pub fn inner(&self) -> Option<Inner> {
        match self.connection.alpn_protocol()? {
            ALPN_NATIVE => Some(Inner::Native),
            ALPN_HTTP1 => Some(Inner::Http1),
            _ => None,
        }
    }

    /// What binds a JOIN to this connection. PROTOCOL 6.2.
    pub(super) fn exporter(&self) -> Option<Exporter> {
        self.connection
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .ok()
    }

    pub(super) fn is_ended(&self) -> bool {
        self.peer_closed
    }

    pub(super) fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Decrypts all of `wire` to the end of `plain`.
    pub(super) fn open(
        &mut self,
        now: Timestamp,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
    ) -> Result<(), TlsError> {
        if self.failed || self.peer_closed {
            wire.clear();
            return Ok(());
        }
        let unix = self.epoch + now.since(Timestamp::ZERO);
        let connection = &mut self.connection;
        let result = ambient::with(&mut self.rng, unix, || decrypt(connection, wire, plain));
        match result {
            Ok(closed) => {
                self.peer_closed = closed;
                Ok(())
            }
            Err(error) => {
                self.failed = true;
                wire.clear();
                Err(trust::told(error))
            }
        }
    }

    /// Encrypts what `out` holds, in place of it, and adds what TLS has to say itself.
    pub(super) fn seal(&mut self, now: Timestamp, out: &mut OutBuffer) {
        if self.closed || self.failed {
            out.clear();
        }
        let connection = &mut self.connection;
        let unix = self.epoch + now.since(Timestamp::ZERO);
        ambient::with(&mut self.rng, unix, || {
            encrypt(connection, out);
            put_tls(connection, out);
        });
    }

    /// Appends `last`, encrypted, and the goodbye of TLS, or the alert that says what is wrong.
    pub(super) fn close(&mut self, mut last: OutBuffer, out: &mut OutBuffer) {
        let connection = &mut self.connection;
        let (rng, epoch) = (&mut self.rng, self.epoch);
        let say = !self.closed && !self.failed;
        ambient::with(rng, epoch, || {
            if say {
                encrypt(connection, &mut last);
                connection.send_close_notify();
            }
            put_tls(connection, out);
        });
        self.closed = true;
    }
}

/// Tells whether the peer has said that nothing follows.
fn decrypt(
    connection: &mut Connection,
    wire: &mut BytesMut,
    plain: &mut BytesMut,
) -> Result<bool, rustls::Error> {
    // What it decrypts to is no longer, so that one allocation is enough.
    plain.reserve(wire.len());
    while !wire.is_empty() {
        let mut rest: &[u8] = wire;
        let taken = connection
            .read_tls(&mut rest)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        wire.advance(taken);
        let state = connection.process_new_packets()?;
        let mut reader = connection.reader();
        while let Ok(chunk) = reader.fill_buf() {
            if chunk.is_empty() {
                break;
            }
            let len = chunk.len();
            plain.extend_from_slice(chunk);
            reader.consume(len);
        }
        if state.peer_has_closed() {
            wire.clear();
            return Ok(true);
        }
        if taken == 0 {
            return Err(rustls::Error::General("a record that is too long".to_owned()));
        }
    }
    Ok(false)
}

/// Slices that are encrypted at once.
const MAX_SLICES: usize = 64;

fn encrypt(connection: &mut Connection, out: &mut OutBuffer) {
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = out.io_slices(&mut slices);
        match connection
            .writer()
            .write_vectored(slices.get(..count).unwrap_or_default())
        {
            Ok(taken) if taken > 0 => out.advance(taken),
            // There is no limit, so that this is the end of the connection.
            _ => return out.clear(),
        }
    }
}

struct Sink<'a>(&'a mut OutBuffer);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().for_each(|slice| self.0.put(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn put_tls(connection: &mut Connection, out: &mut OutBuffer) {
    while connection.wants_write() && connection.write_tls(&mut Sink(out)).is_ok_and(|count| count > 0) {}
}
