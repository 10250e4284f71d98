//! What every error of the library means to whoever decides what to do next: retry or not, when, and where.
//!
//! Each `match` names every variant, so that a new one does not compile until somebody has decided.

use std::io::ErrorKind;
use std::time::Duration;

use super::error::{AnswerError, DeadlineError, HeadError, ItemError, MetadataError};
use super::idempotency::Refusal;
use super::intern::NameError;
use super::limiter::Overload;
use super::outcome::{CallError, Cause, ResetCode};
use super::reader::RequestError;
use super::status::{Code, Executed, Failure, Pushback, Reason};
use crate::handshake::{HandshakeError, ParamError, PathIdError};
use crate::policy::breaker::BreakerOpen;
use crate::policy::pool::TakeError;
use crate::session::{
    Cause as EndCause, Misbehaviour, OpenError, OpenPathError, PathEnd, PathError, SendError, StreamError,
};
use crate::stream::StreamError as HalfError;
use crate::wire::{ErrorCode, RejectCode, WireError};

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// A connection failed or was never made.
    Network,
    /// Something took too long.
    Timeout,
    /// A proof or credential does not hold, or a connection is not as safe as asked for.
    Authentication,
    /// Known, and not allowed.
    Permission,
    /// The peer, or what lies between, breaks the protocol.
    Protocol,
    /// The other side is not there at the moment, or goes away.
    Unavailable,
    /// A limit on load was reached.
    Overload,
    /// Somebody gave it up.
    Cancelled,
    /// The request itself is wrong, and will be so again.
    Invalid,
    /// The other side's application failed, and says so.
    Application,
    /// This program used the library wrongly.
    Misuse,
}

/// What to do about it. Whether the request *may* be sent again is another question, which
/// [`CallError::executed`] and the marks of the call answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Advice {
    /// Try again where it failed, after a backoff: it may pass.
    RetryHere,
    /// Try again on another path, session or server; here it is likely to fail again.
    RetryElsewhere,
    /// Try again here, not before this long.
    RetryAfter(Duration),
    /// Nothing changes by trying again.
    DoNotRetry,
}

/// An error's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Classification {
    /// What kind of trouble it is.
    pub category: Category,
    /// What to do.
    pub advice: Advice,
    /// Whether another transport is more likely to work than the same one again.
    pub switch_transport: bool,
}

impl Classification {
    const fn new(category: Category, advice: Advice) -> Classification {
        Classification {
            category,
            advice,
            switch_transport: false,
        }
    }

    const fn switching(mut self) -> Classification {
        self.switch_transport = true;
        self
    }

    /// Whether trying again may help.
    pub const fn is_retryable(&self) -> bool {
        !matches!(self.advice, Advice::DoNotRetry)
    }

    /// Whether a breaker counts it against the target: whatever says that the target is not well, not what
    /// says that the request is wrong.
    pub const fn counts_against_target(&self) -> bool {
        matches!(
            self.category,
            Category::Network
                | Category::Timeout
                | Category::Protocol
                | Category::Unavailable
                | Category::Overload
        )
    }
}

const HERE: Advice = Advice::RetryHere;
const ELSEWHERE: Advice = Advice::RetryElsewhere;
const NEVER: Advice = Advice::DoNotRetry;

const fn class(category: Category, advice: Advice) -> Classification {
    Classification::new(category, advice)
}

/// Errors that can be classified. A runtime implements it for its own.
pub trait Classify {
    /// The error's meaning.
    fn classify(&self) -> Classification;
}

impl Classify for Code {
    fn classify(&self) -> Classification {
        match self {
            Code::Ok | Code::Unknown | Code::Internal | Code::Application(_) | Code::Reserved(_) => {
                class(Category::Application, NEVER)
            }
            Code::Cancelled => class(Category::Cancelled, NEVER),
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented => class(Category::Invalid, NEVER),
            Code::DeadlineExceeded => class(Category::Timeout, NEVER),
            Code::PermissionDenied => class(Category::Permission, NEVER),
            Code::ResourceExhausted => class(Category::Overload, HERE),
            // A conflict that may be gone: the standard's advice is to retry at a higher level, and only
            // there is it known what to read again.
            Code::Aborted => class(Category::Application, NEVER),
            Code::Unavailable => class(Category::Unavailable, HERE),
            Code::DataLoss => class(Category::Application, NEVER),
            Code::Unauthenticated => class(Category::Authentication, NEVER),
        }
    }
}

impl Classify for Reason {
    fn classify(&self) -> Classification {
        match self {
            // The tables of names disagree, which a new session cures.
            Reason::UnknownIndex => class(Category::Protocol, ELSEWHERE),
            Reason::MalformedHead | Reason::MalformedBody => class(Category::Protocol, NEVER),
            Reason::NoSuchMethod
            | Reason::TooLarge
            | Reason::BadMetadata
            | Reason::BadDeadline
            | Reason::KeyReused
            | Reason::AnswerForgotten => class(Category::Invalid, NEVER),
            Reason::Expired => class(Category::Timeout, NEVER),
            Reason::Dropped | Reason::Panicked | Reason::Other(_) => class(Category::Application, NEVER),
            Reason::Overloaded | Reason::KeysFull => class(Category::Overload, HERE),
            Reason::Draining => class(Category::Unavailable, ELSEWHERE),
        }
    }
}

impl Classify for Failure {
    fn classify(&self) -> Classification {
        let mut found = match self.reason {
            Some(reason) => reason.classify(),
            None => self.code.classify(),
        };
        match self.pushback {
            Pushback::Never => found.advice = NEVER,
            // Being asked to come back later is an invitation, whatever the code.
            Pushback::After(wait) => found.advice = Advice::RetryAfter(wait),
            Pushback::None => {}
        }
        found
    }
}

impl Classify for ResetCode {
    fn classify(&self) -> Classification {
        match self {
            ResetCode::Cancelled => class(Category::Cancelled, NEVER),
            ResetCode::Refused => class(Category::Overload, HERE),
            ResetCode::Failed | ResetCode::Other(_) => class(Category::Application, NEVER),
            ResetCode::Expired => class(Category::Timeout, NEVER),
            ResetCode::Malformed => class(Category::Protocol, NEVER),
            ResetCode::Enough => class(Category::Application, NEVER),
        }
    }
}

impl Classify for CallError {
    fn classify(&self) -> Classification {
        match self {
            CallError::NotSent(cause) | CallError::MaybeExecuted(cause) => cause.classify(),
            CallError::Failed(failure) => failure.classify(),
        }
    }
}

impl Classify for Cause {
    fn classify(&self) -> Classification {
        match self {
            Cause::Name(error) => error.classify(),
            Cause::Open(error) => error.classify(),
            Cause::Stream(error) => error.classify(),
            Cause::Answer(error) => error.classify(),
            Cause::Deadline => class(Category::Timeout, NEVER),
            Cause::Cancelled => class(Category::Cancelled, NEVER),
            Cause::BreakerOpen => BREAKER_OPEN,
            Cause::NoConnection(_) => class(Category::Network, ELSEWHERE),
        }
    }
}

const BREAKER_OPEN: Classification = class(Category::Unavailable, ELSEWHERE);

impl Classify for BreakerOpen {
    fn classify(&self) -> Classification {
        BREAKER_OPEN
    }
}

impl Classify for TakeError {
    fn classify(&self) -> Classification {
        match self {
            TakeError::TooManyWaiting => class(Category::Overload, ELSEWHERE),
            TakeError::TooManyTargets => class(Category::Overload, NEVER),
            TakeError::Closed => class(Category::Cancelled, NEVER),
        }
    }
}

impl Classify for NameError {
    fn classify(&self) -> Classification {
        class(Category::Misuse, NEVER)
    }
}

impl Classify for RequestError {
    fn classify(&self) -> Classification {
        match self {
            RequestError::Head(error) => error.classify(),
            RequestError::Item(error) => error.classify(),
            RequestError::TooLarge { .. } => class(Category::Invalid, NEVER),
        }
    }
}

impl Classify for HeadError {
    fn classify(&self) -> Classification {
        match self {
            HeadError::UnknownIndex { .. } => class(Category::Protocol, ELSEWHERE),
            HeadError::Wire(_)
            | HeadError::Cut
            | HeadError::UnknownOptions { .. }
            | HeadError::IndexTooLarge { .. }
            | HeadError::IndexTaken { .. }
            | HeadError::NoMethod
            | HeadError::TableFull
            | HeadError::Key { .. }
            | HeadError::Trace => class(Category::Protocol, NEVER),
            HeadError::Metadata(error) => error.classify(),
            HeadError::Deadline(error) => error.classify(),
        }
    }
}

impl Classify for MetadataError {
    fn classify(&self) -> Classification {
        match self {
            MetadataError::TooLarge { .. }
            | MetadataError::TooMany { .. }
            | MetadataError::Key
            | MetadataError::Framing => class(Category::Invalid, NEVER),
        }
    }
}

impl Classify for DeadlineError {
    fn classify(&self) -> Classification {
        match self {
            DeadlineError::Zero => class(Category::Timeout, NEVER),
            DeadlineError::TooFar { .. } => class(Category::Invalid, NEVER),
        }
    }
}

impl Classify for ItemError {
    fn classify(&self) -> Classification {
        match self {
            ItemError::TooLong { .. } => class(Category::Invalid, NEVER),
            ItemError::Wire(_) | ItemError::Cut | ItemError::EndMark => class(Category::Protocol, NEVER),
        }
    }
}

impl Classify for AnswerError {
    fn classify(&self) -> Classification {
        match self {
            AnswerError::Wire(_)
            | AnswerError::Cut
            | AnswerError::Code { .. }
            | AnswerError::MessageTooLong { .. }
            | AnswerError::DetailsTooLong
            | AnswerError::AfterEnd => class(Category::Protocol, NEVER),
            AnswerError::Metadata(error) => error.classify(),
            AnswerError::Item(error) => error.classify(),
            AnswerError::TooLarge { .. } => class(Category::Invalid, NEVER),
        }
    }
}

impl Classify for Refusal {
    fn classify(&self) -> Classification {
        self.failure().classify()
    }
}

impl Classify for Overload {
    fn classify(&self) -> Classification {
        self.failure().classify()
    }
}

impl Classify for OpenError {
    fn classify(&self) -> Classification {
        match self {
            OpenError::Exhausted => class(Category::Overload, HERE),
            OpenError::Draining => class(Category::Unavailable, ELSEWHERE),
            OpenError::Ended => class(Category::Unavailable, ELSEWHERE),
            OpenError::NotAByteStream => class(Category::Misuse, NEVER),
        }
    }
}

impl Classify for StreamError {
    fn classify(&self) -> Classification {
        match self {
            StreamError::Unknown | StreamError::Finished => class(Category::Misuse, NEVER),
            StreamError::ResetLocally => class(Category::Cancelled, NEVER),
            StreamError::Reset(code) | StreamError::Stopped(code) => ResetCode::from_value(*code).classify(),
            StreamError::SessionEnded => class(Category::Unavailable, ELSEWHERE),
        }
    }
}

impl Classify for SendError {
    fn classify(&self) -> Classification {
        match self {
            SendError::Full => class(Category::Overload, HERE),
            SendError::TooLarge { .. } => class(Category::Invalid, NEVER),
            SendError::Draining | SendError::Ended => class(Category::Unavailable, ELSEWHERE),
        }
    }
}

impl Classify for OpenPathError {
    fn classify(&self) -> Classification {
        match self {
            OpenPathError::Ended => class(Category::Unavailable, NEVER),
            OpenPathError::TooMany => class(Category::Overload, HERE),
            OpenPathError::BelowFloor => class(Category::Authentication, ELSEWHERE).switching(),
            OpenPathError::NotClient | OpenPathError::TooEarly => class(Category::Misuse, NEVER),
        }
    }
}

impl Classify for PathEnd {
    fn classify(&self) -> Classification {
        match self {
            PathEnd::Eof | PathEnd::Reset => class(Category::Network, HERE),
            PathEnd::Io(kind) => kind.classify(),
            PathEnd::Local => class(Category::Cancelled, HERE),
        }
    }
}

impl Classify for PathError {
    fn classify(&self) -> Classification {
        match self {
            // One connection's garbage says nothing of the peer, but much of what lies between.
            PathError::Wire(error) => error.classify(),
            PathError::Handshake(error) => error.classify(),
            PathError::Premature(_)
            | PathError::UnexpectedHandshake(_)
            | PathError::AckOfUnsent { .. }
            | PathError::Misplaced { .. } => class(Category::Protocol, ELSEWHERE).switching(),
            PathError::Rejected { code, .. } => code.classify(),
            PathError::HandshakeTimeout => class(Category::Timeout, ELSEWHERE).switching(),
            PathError::Silent => class(Category::Timeout, ELSEWHERE).switching(),
            PathError::Abandoned(code) => ErrorCode::from(*code).classify(),
            PathError::Flood(_) => class(Category::Overload, ELSEWHERE),
            PathError::Session(misbehaviour) => misbehaviour.classify(),
            PathError::Unknown => class(Category::Misuse, NEVER),
        }
    }
}

impl Classify for WireError {
    fn classify(&self) -> Classification {
        match self {
            WireError::Truncated { .. }
            | WireError::NotMinimal { .. }
            | WireError::RecordTooLong { .. }
            | WireError::RecordEmpty { .. }
            | WireError::ReservedFlags { .. }
            | WireError::Sealed { .. }
            | WireError::CrcMissing { .. }
            | WireError::CrcMismatch { .. }
            | WireError::Lz4NotNegotiated
            | WireError::Lz4Claim { .. }
            | WireError::Lz4Block { .. }
            | WireError::Lz4Length { .. }
            | WireError::UnknownFrame { .. }
            | WireError::StreamId { .. }
            | WireError::Value { .. }
            | WireError::StreamOffset { .. }
            | WireError::TooMany { .. }
            | WireError::TooLong { .. }
            | WireError::NotUtf8 { .. } => class(Category::Protocol, ELSEWHERE).switching(),
        }
    }
}

impl Classify for HandshakeError {
    fn classify(&self) -> Classification {
        match self {
            HandshakeError::Truncated { .. }
            | HandshakeError::BadVarint { .. }
            | HandshakeError::TooLong { .. }
            | HandshakeError::TooMany { .. }
            | HandshakeError::OutOfRange { .. }
            | HandshakeError::TrailingBytes { .. }
            | HandshakeError::NotUtf8 { .. }
            | HandshakeError::DuplicateParam { .. } => class(Category::Protocol, ELSEWHERE).switching(),
            HandshakeError::Param(error) => error.classify(),
            HandshakeError::VersionNotOffered { .. } => class(Category::Protocol, ELSEWHERE),
            HandshakeError::WeakShare | HandshakeError::BadProof => {
                class(Category::Authentication, ELSEWHERE)
            }
            HandshakeError::Unbound | HandshakeError::NoExporter | HandshakeError::BelowFloor { .. } => {
                class(Category::Authentication, ELSEWHERE).switching()
            }
        }
    }
}

impl Classify for ParamError {
    fn classify(&self) -> Classification {
        class(Category::Protocol, NEVER)
    }
}

impl Classify for PathIdError {
    fn classify(&self) -> Classification {
        match self {
            PathIdError::Used { .. } | PathIdError::TooFar { .. } => class(Category::Protocol, HERE),
        }
    }
}

impl Classify for Misbehaviour {
    fn classify(&self) -> Classification {
        match self {
            Misbehaviour::Stream { error, .. } => error.classify(),
            Misbehaviour::ClassCredit { .. }
            | Misbehaviour::StreamLimit { .. }
            | Misbehaviour::NeverOpened { .. }
            | Misbehaviour::WrongDirection { .. }
            | Misbehaviour::MessageTooLong { .. }
            | Misbehaviour::MessageFraming
            | Misbehaviour::EarlyData => class(Category::Protocol, NEVER),
        }
    }
}

impl Classify for HalfError {
    fn classify(&self) -> Classification {
        match self {
            HalfError::FlowControl { .. }
            | HalfError::OffsetTooLarge { .. }
            | HalfError::FinalSize { .. }
            | HalfError::BeyondFinalSize { .. }
            | HalfError::FinalSizeTooSmall { .. }
            | HalfError::TooManyLanes { .. } => class(Category::Protocol, NEVER),
            HalfError::Closed { .. } => class(Category::Misuse, NEVER),
        }
    }
}

impl Classify for EndCause {
    fn classify(&self) -> Classification {
        match self {
            EndCause::Opening | EndCause::Established => class(Category::Misuse, NEVER),
            EndCause::GivenUp { .. } => class(Category::Network, ELSEWHERE),
            EndCause::AttemptsFailed | EndCause::PathsLost => class(Category::Network, HERE),
            EndCause::LocalClose { .. } => class(Category::Cancelled, NEVER),
            EndCause::PeerClose { code, .. } => code.classify(),
            EndCause::ResumeTimeout | EndCause::HandshakeTimeout => class(Category::Timeout, ELSEWHERE),
            EndCause::Rejected { code, .. } => code.classify(),
            EndCause::PeerMisbehaved { .. } => class(Category::Protocol, NEVER),
        }
    }
}

/// Codes are open numbers: a peer may send one that this version does not know, which counts as INTERNAL.
/// The test below holds every code that has a name against this list.
impl Classify for ErrorCode {
    fn classify(&self) -> Classification {
        match *self {
            ErrorCode::NONE => class(Category::Cancelled, NEVER),
            ErrorCode::MALFORMED_RECORD
            | ErrorCode::BAD_CRC
            | ErrorCode::MALFORMED_FRAME
            | ErrorCode::UNKNOWN_FRAME
            | ErrorCode::BAD_ACK => class(Category::Protocol, ELSEWHERE).switching(),
            ErrorCode::FLOW_CONTROL
            | ErrorCode::STREAM_LIMIT
            | ErrorCode::STREAM_STATE
            | ErrorCode::FINAL_SIZE
            | ErrorCode::PROTOCOL => class(Category::Protocol, NEVER),
            ErrorCode::BAD_HANDSHAKE => class(Category::Authentication, ELSEWHERE),
            ErrorCode::LIMIT => class(Category::Overload, ELSEWHERE),
            ErrorCode::FENCED | ErrorCode::SUPERSEDED => class(Category::Cancelled, HERE),
            ErrorCode::TIMEOUT => class(Category::Timeout, ELSEWHERE),
            ErrorCode::IO => class(Category::Network, HERE),
            ErrorCode::DRAINED => class(Category::Unavailable, ELSEWHERE),
            code if code.as_application().is_some() => class(Category::Application, NEVER),
            // INTERNAL, and reserved ones.
            _ => class(Category::Unavailable, HERE),
        }
    }
}

/// As for [`ErrorCode`]; an unknown code counts as REFUSED.
impl Classify for RejectCode {
    fn classify(&self) -> Classification {
        match *self {
            RejectCode::UNKNOWN_SESSION | RejectCode::EXPIRED | RejectCode::CLOSED => {
                class(Category::Unavailable, ELSEWHERE)
            }
            RejectCode::USE_JOIN | RejectCode::PATH_ID_USED => class(Category::Protocol, HERE),
            RejectCode::VERSION | RejectCode::MALFORMED => class(Category::Protocol, ELSEWHERE),
            RejectCode::SECURITY_FLOOR | RejectCode::UNBOUND => {
                class(Category::Authentication, ELSEWHERE).switching()
            }
            RejectCode::BAD_PROOF => class(Category::Authentication, ELSEWHERE),
            RejectCode::TOO_MANY_PATHS | RejectCode::BUSY => class(Category::Overload, HERE),
            RejectCode::DRAINING | RejectCode::REDIRECT => class(Category::Unavailable, ELSEWHERE),
            // REFUSED, and what is not known.
            _ => class(Category::Permission, NEVER),
        }
    }
}

/// The operating system's errors; a kind that is not listed counts as trouble of the network.
impl Classify for ErrorKind {
    fn classify(&self) -> Classification {
        match self {
            ErrorKind::TimedOut => class(Category::Timeout, ELSEWHERE).switching(),
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable
            | ErrorKind::NotConnected => class(Category::Network, ELSEWHERE),
            ErrorKind::PermissionDenied => class(Category::Permission, ELSEWHERE).switching(),
            ErrorKind::InvalidData => class(Category::Protocol, ELSEWHERE).switching(),
            ErrorKind::InvalidInput | ErrorKind::Unsupported => class(Category::Misuse, NEVER),
            ErrorKind::OutOfMemory => class(Category::Overload, HERE),
            _ => class(Category::Network, HERE),
        }
    }
}

/// Whether a call that failed so may be sent again at all: never beyond what is safe.
pub fn may_repeat(executed: Executed, safe_to_repeat: bool) -> bool {
    match executed {
        Executed::No => true,
        Executed::Maybe | Executed::Yes => safe_to_repeat,
    }
}

#[cfg(test)]
mod tests;
