//! What a failed attempt to connect says about where to try next.

use std::fmt;
use std::io;

use crate::wire::RejectCode;

/// What went wrong with an attempt, or with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// Nobody listens there.
    Refused,
    /// No route to the host, or the host is down.
    Unreachable,
    /// The name stands for no address, or the resolver failed.
    NotResolved,
    /// No answer in time.
    TimedOut,
    /// The connection was reset or ended in the middle.
    Cut,
    /// The path was open, and answered nothing.
    Silent,
    /// The other end does not speak this transport, or not as it should.
    NotSpoken,
    /// What came was corrupt.
    Corrupt,
    /// The server's certificate is not to be trusted.
    NotTrusted,
    /// This build or this platform does not have the transport.
    Unsupported,
    /// The system has no more sockets, ports or memory.
    Exhausted,
    /// The server sent REJECT. PROTOCOL 5.7.
    Rejected(RejectCode),
    /// This end or the peer gave the path up in order.
    Abandoned,
}

/// Where to try next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reaction {
    /// At the same endpoint, after its delay.
    RetryHere,
    /// Another transport: this one does not get through.
    SwitchTransport,
    /// Another endpoint: this one is not there, or does not take us.
    SwitchEndpoint,
    /// Nowhere soon: only somebody's hand mends it.
    GiveUp,
}

impl ConnectFailure {
    /// What an error of the operating system, or of a carrier that is told as one, means.
    pub fn of_io(kind: io::ErrorKind) -> ConnectFailure {
        use io::ErrorKind;
        match kind {
            ErrorKind::ConnectionRefused => ConnectFailure::Refused,
            ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable => ConnectFailure::Unreachable,
            ErrorKind::NotFound => ConnectFailure::NotResolved,
            ErrorKind::TimedOut => ConnectFailure::TimedOut,
            ErrorKind::InvalidData => ConnectFailure::NotSpoken,
            ErrorKind::PermissionDenied => ConnectFailure::NotTrusted,
            ErrorKind::Unsupported | ErrorKind::InvalidInput => ConnectFailure::Unsupported,
            ErrorKind::AddrInUse
            | ErrorKind::OutOfMemory
            | ErrorKind::QuotaExceeded
            | ErrorKind::StorageFull => ConnectFailure::Exhausted,
            _ => ConnectFailure::Cut,
        }
    }

    /// Where to try next. The compiler makes sure that no failure is without an answer.
    pub fn reaction(self) -> Reaction {
        match self {
            ConnectFailure::Refused
            | ConnectFailure::Corrupt
            | ConnectFailure::Silent
            | ConnectFailure::Exhausted
            | ConnectFailure::Abandoned => Reaction::RetryHere,
            ConnectFailure::TimedOut | ConnectFailure::Cut | ConnectFailure::NotSpoken => {
                Reaction::SwitchTransport
            }
            ConnectFailure::Unreachable | ConnectFailure::NotResolved => Reaction::SwitchEndpoint,
            ConnectFailure::NotTrusted | ConnectFailure::Unsupported => Reaction::GiveUp,
            ConnectFailure::Rejected(code) => rejected(code),
        }
    }
}

fn rejected(code: RejectCode) -> Reaction {
    match code {
        // What it is about is this very connection.
        RejectCode::SECURITY_FLOOR | RejectCode::UNBOUND | RejectCode::MALFORMED => Reaction::SwitchTransport,
        RejectCode::DRAINING | RejectCode::REDIRECT | RejectCode::UNKNOWN_SESSION | RejectCode::EXPIRED => {
            Reaction::SwitchEndpoint
        }
        RejectCode::VERSION | RejectCode::BAD_PROOF | RejectCode::REFUSED | RejectCode::CLOSED => {
            Reaction::GiveUp
        }
        _ => Reaction::RetryHere,
    }
}

impl fmt::Display for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reaction::RetryHere => "try again here",
            Reaction::SwitchTransport => "try another transport",
            Reaction::SwitchEndpoint => "try another endpoint",
            Reaction::GiveUp => "give up",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_means() {
        use io::ErrorKind;
        for (kind, reaction) in [
            (ErrorKind::ConnectionRefused, Reaction::RetryHere),
            (ErrorKind::ConnectionReset, Reaction::SwitchTransport),
            (ErrorKind::UnexpectedEof, Reaction::SwitchTransport),
            (ErrorKind::TimedOut, Reaction::SwitchTransport),
            (ErrorKind::InvalidData, Reaction::SwitchTransport),
            (ErrorKind::NetworkUnreachable, Reaction::SwitchEndpoint),
            (ErrorKind::NotFound, Reaction::SwitchEndpoint),
            (ErrorKind::PermissionDenied, Reaction::GiveUp),
            (ErrorKind::Unsupported, Reaction::GiveUp),
        ] {
            assert_eq!(ConnectFailure::of_io(kind).reaction(), reaction, "{kind:?}");
        }
        for (code, reaction) in [
            (RejectCode::BUSY, Reaction::RetryHere),
            (RejectCode::USE_JOIN, Reaction::RetryHere),
            (RejectCode::UNBOUND, Reaction::SwitchTransport),
            (RejectCode::DRAINING, Reaction::SwitchEndpoint),
            (RejectCode::VERSION, Reaction::GiveUp),
            (RejectCode::REFUSED, Reaction::GiveUp),
        ] {
            assert_eq!(ConnectFailure::Rejected(code).reaction(), reaction, "{code:?}");
        }
    }
}
