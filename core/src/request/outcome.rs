//! What is known of a call that has no answer: not sent, maybe executed, or failed by the callee.
//!
//! PROTOCOL 11.7. A handler whose request is one payload runs only when FIN has come. So such a request is
//! *not executed* for certain as long as its end was never put on any path, and not only when nothing of it was.

use std::fmt;

use super::error::AnswerError;
use super::head::CallKind;
use super::intern::NameError;
use super::status::{Code, Executed, Failure, Reason};
use crate::session::{OpenError, Progress, StreamError};

macro_rules! reset_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// Codes of RESET_STREAM and STOP_SENDING on the stream of a call. PROTOCOL 11.7.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ResetCode {
            $($(#[$doc])* $name,)*
            /// A number that this version does not know. It counts as [`ResetCode::Failed`].
            Other(u64),
        }

        impl ResetCode {
            /// The number as it travels.
            pub const fn value(self) -> u64 {
                match self {
                    $(ResetCode::$name => $value,)*
                    ResetCode::Other(value) => value,
                }
            }

            /// The code of a number that came.
            pub const fn from_value(value: u64) -> ResetCode {
                match value {
                    $($value => ResetCode::$name,)*
                    _ => ResetCode::Other(value),
                }
            }
        }
    };
}

reset_codes! {
    /// The caller no longer wants the answer, or the callee no longer works on it.
    Cancelled = 0,
    /// The callee refused before a handler ran: not executed, safe to send again.
    Refused = 1,
    /// The callee failed after a handler may have begun, and cannot say more.
    Failed = 2,
    /// The deadline passed.
    Expired = 3,
    /// The other end's bytes break the rules of calls.
    Malformed = 4,
    /// The callee has what it needs of the request; its answer goes on.
    Enough = 5,
}

impl ResetCode {
    /// The callee's words, by code alone.
    pub fn failure(self) -> Failure {
        let (code, executed) = match self {
            ResetCode::Cancelled => (Code::Cancelled, Executed::Maybe),
            ResetCode::Refused => (Code::Unavailable, Executed::No),
            ResetCode::Failed | ResetCode::Other(_) => (Code::Internal, Executed::Maybe),
            ResetCode::Expired => (Code::DeadlineExceeded, Executed::Maybe),
            ResetCode::Malformed => (Code::Internal, Executed::Maybe),
            ResetCode::Enough => (Code::Internal, Executed::Maybe),
        };
        let mut failure = Failure::new(code, "the stream was reset").with_executed(executed);
        if self == ResetCode::Expired {
            failure.reason = Some(Reason::Expired);
        }
        failure
    }
}

/// How much of a request was ever put on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sent {
    /// Not a byte.
    Nothing,
    /// A part of it; its end is still here.
    Part,
    /// All of it, or it is not known how much.
    All,
}

impl Sent {
    /// From what the session tells of the stream's sending half: `None` when it tells nothing more.
    /// `finished` says that the end of the request was written.
    pub fn of(progress: Option<Progress>, finished: bool) -> Sent {
        match progress {
            Some(progress) if progress.sent == 0 && progress.written > 0 => Sent::Nothing,
            Some(progress) if !finished || progress.sent < progress.written => match progress.sent {
                0 => Sent::Nothing,
                _ => Sent::Part,
            },
            _ => Sent::All,
        }
    }
}

/// What went wrong with a call, other than by the callee's word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The method's name is no name.
    #[error("{0}")]
    Name(#[from] NameError),
    /// No stream could be opened for it.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The stream failed.
    #[error("{0}")]
    Stream(StreamError),
    /// The answer breaks the protocol.
    #[error("{0}")]
    Answer(#[from] AnswerError),
    /// The deadline passed.
    #[error("the deadline has passed")]
    Deadline,
    /// The caller gave it up.
    #[error("cancelled")]
    Cancelled,
    /// A breaker is open.
    #[error("the circuit breaker is open")]
    BreakerOpen,
    /// No session or path could be had for it.
    #[error("no connection: {0}")]
    NoConnection(&'static str),
}

/// A call that did not succeed, by what is known of its execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// It was not executed: its end was never put on a path.
    NotSent(Cause),
    /// It was sent and no answer came: it may have been executed, or not.
    MaybeExecuted(Cause),
    /// The callee answered with a failure, which says whether a handler ran.
    Failed(Failure),
}

impl CallError {
    /// The error of a call that ended without an answer.
    pub fn unanswered(kind: CallKind, sent: Sent, cause: Cause) -> CallError {
        if let Cause::Stream(StreamError::Reset(code) | StreamError::Stopped(code)) = cause {
            return CallError::Failed(ResetCode::from_value(code).failure());
        }
        match sent {
            Sent::Nothing => CallError::NotSent(cause),
            // PROTOCOL 11.7: a handler that takes one payload runs only when FIN has come.
            Sent::Part if !kind.request_items() => CallError::NotSent(cause),
            Sent::Part | Sent::All => CallError::MaybeExecuted(cause),
        }
    }

    /// Whether a handler ran.
    pub fn executed(&self) -> Executed {
        match self {
            CallError::NotSent(_) => Executed::No,
            CallError::MaybeExecuted(_) => Executed::Maybe,
            CallError::Failed(failure) => failure.executed,
        }
    }

    /// The status that says it best.
    pub fn code(&self) -> Code {
        match self {
            CallError::Failed(failure) => failure.code,
            CallError::NotSent(cause) | CallError::MaybeExecuted(cause) => match cause {
                Cause::Name(_) => Code::InvalidArgument,
                Cause::Deadline => Code::DeadlineExceeded,
                Cause::Cancelled => Code::Cancelled,
                Cause::Answer(_) => Code::Internal,
                Cause::Open(_) | Cause::Stream(_) | Cause::BreakerOpen | Cause::NoConnection(_) => {
                    Code::Unavailable
                }
            },
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NotSent(cause) => write!(f, "not executed: {cause}"),
            CallError::MaybeExecuted(cause) => write!(f, "may have been executed: {cause}"),
            CallError::Failed(failure) => match failure.executed {
                Executed::Yes => write!(f, "failed: {failure}"),
                Executed::No => write!(f, "refused, not executed: {failure}"),
                Executed::Maybe => write!(f, "failed, may have been executed: {failure}"),
            },
        }
    }
}

impl std::error::Error for CallError {}

/// A handler that could not go on because its own stream failed: mostly nobody reads it.
impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Failure {
        Failure::new(Code::Cancelled, error.to_string())
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> CallError {
        CallError::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(written: u64, sent: u64) -> Option<Progress> {
        Some(Progress {
            written,
            sent,
            acknowledged: 0,
            complete: false,
        })
    }

    #[test]
    fn how_much_was_sent() {
        assert_eq!(Sent::of(progress(10, 0), true), Sent::Nothing);
        assert_eq!(Sent::of(progress(0, 0), false), Sent::Nothing);
        assert_eq!(Sent::of(progress(10, 9), true), Sent::Part);
        assert_eq!(Sent::of(progress(10, 10), false), Sent::Part);
        assert_eq!(Sent::of(progress(10, 10), true), Sent::All);
        assert_eq!(Sent::of(None, false), Sent::All);
    }

    /// PROTOCOL 11.7: every way for a call to end without an answer.
    #[test]
    fn the_words() {
        use CallKind::{Bidirectional, ClientStreaming, ServerStreaming, Unary};
        let ended = || Cause::Stream(StreamError::SessionEnded);
        for kind in [Unary, ServerStreaming, ClientStreaming, Bidirectional] {
            let word = |sent| CallError::unanswered(kind, sent, ended()).executed();
            let part = match kind {
                Unary | ServerStreaming => Executed::No,
                ClientStreaming | Bidirectional => Executed::Maybe,
            };
            assert_eq!((word(Sent::Nothing), word(Sent::Part)), (Executed::No, part));
            assert_eq!(word(Sent::All), Executed::Maybe);
            for sent in [Sent::Part, Sent::All] {
                let reset = |code| Cause::Stream(StreamError::Reset(code));
                let refused = CallError::unanswered(kind, sent, reset(1));
                assert_eq!(
                    (refused.executed(), refused.code()),
                    (Executed::No, Code::Unavailable)
                );
                for other in [0, 2, 3, 4, 99] {
                    let error = CallError::unanswered(kind, sent, reset(other));
                    assert_eq!(error.executed(), Executed::Maybe);
                }
            }
        }
        for value in 0..10 {
            assert_eq!(ResetCode::from_value(value).value(), value);
        }
    }
}
