//! What ends a carrier.

/// Why a connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    /// What came is not WebSocket as PROTOCOL 14.2 has it.
    #[cfg(feature = "websocket")]
    #[error(transparent)]
    WebSocket(#[from] super::websocket::Violation),
    /// TLS failed.
    #[cfg(feature = "tls")]
    #[error("TLS: {0}")]
    Tls(#[from] super::tls::TlsError),
    /// What came is not HTTP/3 as PROTOCOL 14.9 has it.
    #[cfg(feature = "webtransport")]
    #[error(transparent)]
    Http3(#[from] super::webtransport::Http3Error),
    /// An HTTP exchange is not one that we take part in.
    #[cfg(feature = "http")]
    #[error(transparent)]
    Http(#[from] super::http::HttpError),
}

impl CarrierError {
    /// Whether the peer is not to be trusted.
    pub fn is_distrust(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            CarrierError::Tls(error) => error.is_distrust(),
            #[allow(unreachable_patterns, reason = "what there is depends on the features")]
            _ => false,
        }
    }
}
