//! What goes wrong in TLS, told apart.

use rustls::{AlertDescription, CertificateError, Error};

/// Why TLS cannot be spoken with the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The server's certificate is no longer valid.
    #[error("the server's certificate has expired: {0}")]
    Expired(String),
    /// The server's certificate is not valid yet; or this end's clock is wrong.
    #[error("the server's certificate is not valid yet: {0}")]
    NotYetValid(String),
    /// The server's certificate is for other names.
    #[error("the server's certificate is for another name: {0}")]
    WrongName(String),
    /// Nobody whom this end trusts has issued the server's certificate.
    #[error("the server's certificate comes from an unknown issuer; name its CA or its pin to trust it")]
    UnknownIssuer,
    /// The server's key is none of the pinned ones.
    #[error("the server's key is not a pinned one: it has the pin {0}")]
    WrongPin(Pin),
    /// The server's certificate is refused for another reason.
    #[error("the server's certificate is refused: {0}")]
    BadCertificate(String),
    /// The peer refuses, and says why by an alert.
    #[error("the peer refuses: {0}")]
    Alert(String),
    /// The ends have no application protocol in common.
    #[error("the server speaks none of the protocols asked for (ALPN)")]
    Alpn,
    /// Everything else.
    #[error("{0}")]
    Other(String),
}

use super::Pin;

impl TlsError {
    /// Whether the server is not to be trusted, by its certificate.
    pub fn is_distrust(&self) -> bool {
        match self {
            TlsError::Expired(_)
            | TlsError::NotYetValid(_)
            | TlsError::WrongName(_)
            | TlsError::UnknownIssuer
            | TlsError::WrongPin(_)
            | TlsError::BadCertificate(_) => true,
            TlsError::Alert(_) | TlsError::Alpn | TlsError::Other(_) => false,
        }
    }
}

impl From<Error> for TlsError {
    fn from(error: Error) -> TlsError {
        use CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
            NotValidYetContext, UnknownIssuer,
        };
        match &error {
            Error::InvalidCertificate(why) => match why {
                Expired | ExpiredContext { .. } => TlsError::Expired(why.to_string()),
                NotValidYet | NotValidYetContext { .. } => TlsError::NotYetValid(why.to_string()),
                NotValidForName | NotValidForNameContext { .. } => TlsError::WrongName(why.to_string()),
                UnknownIssuer => TlsError::UnknownIssuer,
                other => TlsError::BadCertificate(other.to_string()),
            },
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) | Error::NoApplicationProtocol => {
                TlsError::Alpn
            }
            Error::AlertReceived(alert) => TlsError::Alert(format!("{alert:?}")),
            other => TlsError::Other(other.to_string()),
        }
    }
}
