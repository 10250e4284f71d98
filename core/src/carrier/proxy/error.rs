//! What goes wrong with a proxy.

use crate::carrier::http::HttpError;

/// Why a proxy leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// A name that is empty, longer than 255 bytes, or has characters that no name has.
    #[error("a proxy cannot be asked for the host `{0}`")]
    Target(
        /// Its first characters.
        String,
    ),
    /// Its answer is not HTTP/1, or two parsers might read it differently.
    #[error("the proxy's answer is of no use: {0}")]
    Http(#[from] HttpError),
    /// It sends interim answers without end.
    #[error("the proxy does not come to its answer")]
    Endless,
    /// Its answer is not SOCKS5.
    #[error("the proxy does not speak SOCKS5: {0}")]
    NotSocks5(
        /// What is wrong.
        &'static str,
    ),
    /// It wants to know who asks, and was not told.
    #[error(
        "the proxy wants a user and a password: write them in its URL, as in {0}://user:password@host:port"
    )]
    AuthenticationRequired(
        /// The scheme of its URL.
        &'static str,
    ),
    /// It wants to know who asks in a way that is not spoken here.
    #[error("the proxy wants an authentication other than by user and password")]
    UnknownAuthentication,
    /// It does not take the user and the password.
    #[error("the proxy refuses the user or the password")]
    CredentialsRefused,
    /// It will not lead there, and says why by a status of HTTP.
    #[error("the proxy refuses: {status} {reason}")]
    Refused {
        /// The status.
        status: u16,
        /// Its own words, at most 64 characters.
        reason: String,
    },
    /// It will not or cannot lead there, and says why by a reply of SOCKS5.
    #[error("the proxy refuses: {0}")]
    Socks(SocksRefusal),
    /// It took too long.
    #[error("the proxy does not answer in time")]
    TimedOut,
    /// It closed the connection instead of an answer.
    #[error("the proxy closed the connection before it answered")]
    Closed,
}

/// A reply of SOCKS5 that is not success. RFC 1928 §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocksRefusal {
    /// 1.
    #[error("general failure")]
    General,
    /// 2.
    #[error("not allowed by its rules")]
    NotAllowed,
    /// 3.
    #[error("the network is unreachable from there")]
    NetworkUnreachable,
    /// 4.
    #[error("the host is unreachable from there")]
    HostUnreachable,
    /// 5.
    #[error("the host refuses the connection")]
    ConnectionRefused,
    /// 6.
    #[error("the time to live expired on the way")]
    TtlExpired,
    /// 7.
    #[error("it does not know CONNECT")]
    CommandNotSupported,
    /// 8.
    #[error("it does not know this kind of address")]
    AddressNotSupported,
    /// Any other.
    #[error("reply {0}")]
    Other(u8),
}

impl SocksRefusal {
    /// By the reply's number; `None` for success.
    pub fn from_reply(reply: u8) -> Option<SocksRefusal> {
        Some(match reply {
            0 => return None,
            1 => SocksRefusal::General,
            2 => SocksRefusal::NotAllowed,
            3 => SocksRefusal::NetworkUnreachable,
            4 => SocksRefusal::HostUnreachable,
            5 => SocksRefusal::ConnectionRefused,
            6 => SocksRefusal::TtlExpired,
            7 => SocksRefusal::CommandNotSupported,
            8 => SocksRefusal::AddressNotSupported,
            other => SocksRefusal::Other(other),
        })
    }
}
