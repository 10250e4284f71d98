//! What ends a QUIC connection.

use quinn_proto::{ConnectError, ConnectionError};

use crate::carrier::tls::TlsError;

/// Why a QUIC connection is over, or could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuicError {
    /// The server is not who it should be, or no protocol is agreed on.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The peer closed it, by a code of the application (RFC 9000 §19.19).
    #[error("the peer closed the connection: {reason} (code {code})")]
    Closed {
        /// The code; 0 is no error.
        code: u64,
        /// What it says.
        reason: String,
    },
    /// The peer refuses the connection, or finds a fault with it (RFC 9000 §20.1).
    #[error("the peer ended the connection: {0}")]
    Refused(String),
    /// The peer does not keep to RFC 9000.
    #[error("the peer broke the rules of QUIC: {0}")]
    Violation(String),
    /// The peer no longer knows the connection (RFC 9000 §10.3).
    #[error("the peer does not know the connection any more")]
    Reset,
    /// Nothing came for too long.
    #[error("nothing came in time")]
    TimedOut,
    /// The peer speaks no version of QUIC that we do.
    #[error("the peer speaks no version of QUIC that we do")]
    Version,
    /// What came is not HTTP/3.
    #[cfg(feature = "webtransport")]
    #[error(transparent)]
    Http3(#[from] crate::carrier::webtransport::Http3Error),
    /// The server has no session of WebTransport for us.
    #[cfg(feature = "webtransport")]
    #[error(transparent)]
    NoSession(#[from] crate::carrier::http::HttpError),
    /// This end closed it.
    #[error("closed")]
    Local,
    /// This end cannot make the connection.
    #[error("{0}")]
    Config(String),
}

impl From<ConnectionError> for QuicError {
    fn from(error: ConnectionError) -> QuicError {
        match error {
            ConnectionError::VersionMismatch => QuicError::Version,
            ConnectionError::TransportError(error) => QuicError::Violation(error.to_string()),
            ConnectionError::ConnectionClosed(close) => QuicError::Refused(close.to_string()),
            ConnectionError::ApplicationClosed(close) => QuicError::Closed {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::Reset => QuicError::Reset,
            ConnectionError::TimedOut => QuicError::TimedOut,
            ConnectionError::LocallyClosed => QuicError::Local,
            ConnectionError::CidsExhausted => QuicError::Config("no connection id is left".to_owned()),
        }
    }
}

impl From<ConnectError> for QuicError {
    fn from(error: ConnectError) -> QuicError {
        QuicError::Config(error.to_string())
    }
}
