//! What can be wrong with a handshake.

use thiserror::Error;

use super::params::ParamError;
use super::{RejectCode, Security};

/// A handshake message or proof that the peer got wrong. PROTOCOL 5.7.
///
/// Every variant closes the path it came on and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The body ended within a field.
    #[error("the message ends within {field}")]
    Truncated {
        /// The field that is cut off.
        field: &'static str,
    },
    /// A varint is cut off or longer than it need be.
    #[error("{field} is not a minimal varint")]
    BadVarint {
        /// The field.
        field: &'static str,
    },
    /// A length-prefixed field or the whole body is longer than allowed.
    #[error("{field} has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// The field, or the name of the message.
        field: &'static str,
        /// The length that was claimed or seen.
        length: u64,
        /// The longest allowed.
        max: u64,
    },
    /// A list has more entries than allowed.
    #[error("{field} has {count} entries, at most {max} are allowed")]
    TooMany {
        /// The list.
        field: &'static str,
        /// The number that was claimed.
        count: u64,
        /// The most allowed.
        max: u64,
    },
    /// A number lies outside its range.
    #[error("{field} is {value}, outside {min}..={max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The value seen.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The greatest allowed.
        max: u64,
    },
    /// Bytes follow the end of the message.
    #[error("{bytes} bytes follow the end of {message}")]
    TrailingBytes {
        /// The message.
        message: &'static str,
        /// How many follow.
        bytes: usize,
    },
    /// A text is not UTF-8.
    #[error("{field} is not UTF-8 from byte {valid_up_to} on")]
    NotUtf8 {
        /// The field.
        field: &'static str,
        /// The length of its valid prefix.
        valid_up_to: usize,
    },
    /// A known parameter stands twice. PROTOCOL 5.5.
    #[error("parameter {id} stands twice")]
    DuplicateParam {
        /// Its id.
        id: u64,
    },
    /// A parameter lies outside its range. PROTOCOL 5.5.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// WELCOME chose a version that HELLO did not offer. PROTOCOL 5.2.
    #[error("version {version} was not offered")]
    VersionNotOffered {
        /// The version chosen.
        version: u64,
    },
    /// The peer's share makes the shared secret zero, whatever ours is. PROTOCOL 5.3.
    #[error("the peer's key share is of small order")]
    WeakShare,
    /// A MAC or proof does not match. PROTOCOL 5.3, 5.4, 6.2 to 6.4.
    #[error("the proof does not match")]
    BadProof,
    /// The ends agreed on a floor that this carrier, as this end sees it, does not reach. PROTOCOL 6.5.
    #[error("the session accepts no carrier below {floor:?}, and this one is {carrier:?} as seen from here")]
    BelowFloor {
        /// The stronger of both ends' floors.
        floor: Security,
        /// What the carrier is.
        carrier: Security,
    },
    /// The carrier has a TLS exporter, but JOIN is not bound to it. PROTOCOL 6.2.
    #[error("JOIN is not bound to the carrier's TLS exporter")]
    Unbound,
    /// JOIN is bound to a TLS exporter, but this end has none to check it with. PROTOCOL 6.2.
    #[error("JOIN is bound to a TLS exporter that this end does not share")]
    NoExporter,
}

impl HandshakeError {
    /// The error code for CLOSE and PATH_ABANDON: BAD_HANDSHAKE (11).
    pub const fn code(&self) -> u64 {
        11
    }

    /// The code with which a server rejects the path. PROTOCOL 5.7.
    pub const fn reject_code(&self) -> RejectCode {
        match self {
            HandshakeError::BadProof => RejectCode::BAD_PROOF,
            HandshakeError::Unbound | HandshakeError::NoExporter => RejectCode::UNBOUND,
            HandshakeError::BelowFloor { .. } => RejectCode::SECURITY_FLOOR,
            HandshakeError::VersionNotOffered { .. } => RejectCode::VERSION,
            _ => RejectCode::MALFORMED,
        }
    }
}
