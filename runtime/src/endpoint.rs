//! One endpoint of a client: what a session is told of connections to it, and what their failures mean.

use std::io;
use std::sync::Arc;

use sheetbend_core::handshake::Security;
use sheetbend_core::policy::ConnectFailure;
#[cfg(feature = "quic")]
use sheetbend_core::session::EarlyStart;
use sheetbend_core::session::{PathEnd, PathError, PathInfo};

use crate::address::Address;
use crate::layers::Connection;
use crate::reach::Settings;

/// What exchanges of HTTP cost, beside carriers of one connection (`Capabilities::cost`).
#[cfg(feature = "http")]
const HTTP_COST: u32 = 30;

/// One place where the server can be reached.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) name: Arc<str>,
    pub(crate) rank: u32,
    /// The server named it: it is another process than the others, and their sessions do not live there.
    pub(crate) learned: bool,
    /// The session does not live there.
    pub(crate) retired: bool,
}

impl Endpoint {
    pub(crate) fn new(address: Address, rank: u32, learned: bool) -> Endpoint {
        Endpoint {
            learned,
            retired: false,
            name: address.to_string().into(),
            address,
            rank,
        }
    }

    /// What a session is told of a connection to it.
    pub(crate) fn info(&self, connection: &Connection, settings: &Settings) -> PathInfo {
        let mut info = PathInfo::new(
            self.name.clone(),
            self.address.transport(),
            security(&self.address),
        );
        if let Some(layers) = &connection.layers {
            let capabilities = layers.carrier.capabilities();
            info.security = capabilities.security;
            info.offer = capabilities.offer();
            info.exporter = capabilities.exporter.filter(|_| settings.binds);
        }
        #[cfg(feature = "http")]
        if let Some(facts) = &connection.http {
            info.exporter = facts.exporter.filter(|_| settings.binds);
            info.offer.cost = HTTP_COST;
        }
        #[cfg(feature = "quic")]
        if let Some(facts) = &connection.quic {
            info.exporter = facts.exporter.filter(|_| settings.binds);
            info.lanes = facts.lanes.count();
            info.offer.lanes = info.lanes > 0;
            info.offer.datagrams = true;
            if facts.early {
                info.early = EarlyStart::Sent;
            }
        }
        info.rank = self.rank;
        info
    }
}

/// What protects the bytes on a transport, as this end sees it.
pub(crate) fn security(address: &Address) -> Security {
    match address {
        Address::Over { scheme, .. } if scheme.is_encrypted() => Security::Encrypted,
        Address::Tcp { .. } | Address::Over { .. } => Security::Plain,
        Address::Unix(_) | Address::Mem(_) => Security::Local,
        Address::Own(place) => place.security(),
    }
}

/// What the end of a path, or of the attempt at one, means for its endpoint.
pub(crate) fn failure(end: PathEnd, error: Option<&PathError>, up: bool) -> ConnectFailure {
    match error {
        Some(PathError::Rejected { code, .. }) => ConnectFailure::Rejected(*code),
        Some(PathError::Abandoned(_)) => ConnectFailure::Abandoned,
        Some(PathError::Silent) => ConnectFailure::Silent,
        Some(PathError::HandshakeTimeout) => ConnectFailure::TimedOut,
        Some(_) => ConnectFailure::Corrupt,
        None if up && end == PathEnd::Local => ConnectFailure::Abandoned,
        // That a connection which worked is cut says nothing about its transport.
        None if up => ConnectFailure::Silent,
        None => match end {
            PathEnd::Eof | PathEnd::Reset | PathEnd::Local => ConnectFailure::Cut,
            PathEnd::Io(kind) => ConnectFailure::of_io(kind),
        },
    }
}

/// Whether a connection failed because its peer's certificate is not trusted.
#[cfg(feature = "tls")]
pub(crate) fn is_distrust(error: &io::Error) -> bool {
    use sheetbend_core::carrier::CarrierError;
    #[cfg(feature = "quic")]
    use sheetbend_core::carrier::quic::QuicError;

    let Some(inner) = error.get_ref() else {
        return false;
    };
    #[cfg(feature = "quic")]
    if let Some(QuicError::Tls(error)) = inner.downcast_ref() {
        return error.is_distrust();
    }
    inner
        .downcast_ref()
        .is_some_and(|error: &CarrierError| error.is_distrust())
}

#[cfg(not(feature = "tls"))]
pub(crate) fn is_distrust(_: &io::Error) -> bool {
    false
}
