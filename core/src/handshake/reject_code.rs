//! Why a handshake was refused.

use std::fmt;

/// The code of a REJECT. PROTOCOL 5.7.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RejectCode(pub u64);

macro_rules! reject_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl RejectCode {
            $($(#[$doc])* pub const $name: RejectCode = RejectCode($value);)*

            /// The name PROTOCOL gives the code, or `"UNKNOWN"`.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)*
                    _ => "UNKNOWN",
                }
            }
        }
    };
}

reject_codes! {
    /// No session has this id, and nobody is known who has.
    UNKNOWN_SESSION = 1;
    /// The session was without paths for too long.
    EXPIRED = 2;
    /// This HELLO's session is confirmed: resume it with JOIN.
    USE_JOIN = 3;
    /// No version in common.
    VERSION = 4;
    /// The carrier is weaker than the session's security floor.
    SECURITY_FLOOR = 5;
    /// A proof does not match.
    BAD_PROOF = 6;
    /// The path id was used before.
    PATH_ID_USED = 7;
    /// The session has as many paths as it may have.
    TOO_MANY_PATHS = 8;
    /// The server takes no further sessions for the moment.
    BUSY = 9;
    /// The server is draining; the address names another.
    DRAINING = 10;
    /// The session lives at the address given.
    REDIRECT = 11;
    /// The message breaks the protocol.
    MALFORMED = 12;
    /// JOIN must be bound to the carrier's TLS exporter.
    UNBOUND = 13;
    /// The session was closed.
    CLOSED = 14;
    /// The application refused.
    REFUSED = 15;
}

impl RejectCode {
    /// The number on the wire.
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
