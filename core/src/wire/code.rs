//! Error and reject codes. PROTOCOL 9.

use std::fmt;

macro_rules! codes {
    ($type:ident { $($(#[$doc:meta])* $name:ident = $value:literal,)* }) => {
        impl $type {
            $($(#[$doc])* pub const $name: $type = $type($value);)*

            /// The code's name in `PROTOCOL 9`, or `None` for one that it does not list.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// The code as it travels.
            pub const fn value(self) -> u64 {
                self.0
            }
        }

        impl From<u64> for $type {
            fn from(value: u64) -> $type {
                $type(value)
            }
        }

        impl From<$type> for u64 {
            fn from(code: $type) -> u64 {
                code.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#x}", self.0),
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// Why a session was closed, a path abandoned or a stream reset. `PROTOCOL 9`.
///
/// Codes from [`ErrorCode::FIRST_APPLICATION`] on are the application's; unknown ones below it are
/// kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(u64);

codes!(ErrorCode {
    /// No error: the work is done.
    NONE = 0,
    /// A fault of the end that reports it.
    INTERNAL = 1,
    /// A record that breaks `PROTOCOL 3`.
    MALFORMED_RECORD = 2,
    /// A record whose checksum is wrong or missing.
    BAD_CRC = 3,
    /// A frame that breaks `PROTOCOL 4`.
    MALFORMED_FRAME = 4,
    /// A frame type that is not known and may not be skipped.
    UNKNOWN_FRAME = 5,
    /// More data than the receiver gave credit for.
    FLOW_CONTROL = 6,
    /// More streams than the receiver gave credit for.
    STREAM_LIMIT = 7,
    /// A frame that does not fit the state or the kind of its stream.
    STREAM_STATE = 8,
    /// Two different final sizes, or data beyond one.
    FINAL_SIZE = 9,
    /// An acknowledgement of what was never sent.
    BAD_ACK = 10,
    /// A handshake message that is malformed, out of place or not proven.
    BAD_HANDSHAKE = 11,
    /// A named limit was hit.
    LIMIT = 12,
    /// The peer no longer lists the path.
    FENCED = 13,
    /// No progress for too long.
    TIMEOUT = 14,
    /// The transport failed.
    IO = 15,
    /// The process is draining and has finished.
    DRAINED = 16,
    /// Another path or session took the place.
    SUPERSEDED = 17,
    /// Any other breach of the protocol.
    PROTOCOL = 18,
});

impl ErrorCode {
    /// The first code that belongs to the application.
    pub const FIRST_APPLICATION: ErrorCode = ErrorCode(0x100);

    /// Application code `code`, or `None` when the number does not fit above
    /// [`ErrorCode::FIRST_APPLICATION`].
    pub const fn application(code: u64) -> Option<ErrorCode> {
        match code.checked_add(Self::FIRST_APPLICATION.0) {
            Some(value) => Some(ErrorCode(value)),
            None => None,
        }
    }

    /// The application's number in this code, or `None` when the code is the protocol's.
    pub const fn as_application(self) -> Option<u64> {
        self.0.checked_sub(Self::FIRST_APPLICATION.0)
    }
}

/// Why a server refused HELLO or JOIN. `PROTOCOL 9`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RejectCode(u64);

codes!(RejectCode {
    /// No such session here.
    UNKNOWN_SESSION = 1,
    /// The session was without paths for too long.
    EXPIRED = 2,
    /// The session of this HELLO is confirmed: JOIN it.
    USE_JOIN = 3,
    /// No common protocol version.
    VERSION = 4,
    /// The carrier is less secure than the session accepts.
    SECURITY_FLOOR = 5,
    /// A proof that does not hold.
    BAD_PROOF = 6,
    /// The path id was used before.
    PATH_ID_USED = 7,
    /// The session has as many paths as it may.
    TOO_MANY_PATHS = 8,
    /// The server has no room for another session.
    BUSY = 9,
    /// The server is draining and takes no new sessions.
    DRAINING = 10,
    /// The session lives at the address that comes with this code.
    REDIRECT = 11,
    /// The handshake message is malformed.
    MALFORMED = 12,
    /// JOIN must be bound to the carrier's TLS exporter.
    UNBOUND = 13,
    /// The session was closed.
    CLOSED = 14,
    /// The application refused.
    REFUSED = 15,
});
