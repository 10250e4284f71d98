//! How a call ended: codes, reasons and what the callee says about its execution. PROTOCOL 11.4.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes};

use super::error::AnswerError;
use crate::wire::varint;

/// The longest message of a failure, in bytes. PROTOCOL 10.
pub const MAX_MESSAGE: usize = 1024;
/// The longest details of a failure, in bytes. PROTOCOL 10.
pub const MAX_DETAILS: usize = 16 * 1024;
/// The longest time that a callee may ask a caller to wait before it tries again.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
/// The first code on the wire that belongs to the application.
pub const FIRST_APPLICATION_CODE: u32 = 64;

macro_rules! standard_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal,)*) => {
        /// The status of a call: the standard codes of gRPC, and the application's own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
            /// A code of 17 to 63, which this version does not know. It counts as [`Code::Unknown`].
            Reserved(u8),
            /// The application's own, counted from 0. On the wire [`FIRST_APPLICATION_CODE`] is added;
            /// what would go beyond 32 bits is held at the last number.
            Application(u32),
        }

        impl Code {
            /// The number as it travels.
            pub const fn value(self) -> u32 {
                match self {
                    $(Code::$variant => $number,)*
                    Code::Reserved(number) => number as u32,
                    Code::Application(number) => number.saturating_add(FIRST_APPLICATION_CODE),
                }
            }

            /// The code of a number that came.
            pub const fn from_value(value: u32) -> Code {
                match value {
                    $($number => Code::$variant,)*
                    17..FIRST_APPLICATION_CODE => Code::Reserved(value as u8),
                    _ => Code::Application(value.wrapping_sub(FIRST_APPLICATION_CODE)),
                }
            }
        }

        impl fmt::Display for Code {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Code::$variant => f.write_str($name),)*
                    Code::Reserved(number) => write!(f, "code {number}"),
                    Code::Application(number) => write!(f, "application code {number}"),
                }
            }
        }
    };
}

standard_codes! {
    /// Success.
    Ok = 0 "OK",
    /// The call was given up, usually by its caller.
    Cancelled = 1 "CANCELLED",
    /// An error that fits nowhere else.
    Unknown = 2 "UNKNOWN",
    /// The arguments are wrong, whatever the state of the system.
    InvalidArgument = 3 "INVALID_ARGUMENT",
    /// The deadline passed first.
    DeadlineExceeded = 4 "DEADLINE_EXCEEDED",
    /// Something asked for does not exist.
    NotFound = 5 "NOT_FOUND",
    /// What was to be made exists already.
    AlreadyExists = 6 "ALREADY_EXISTS",
    /// The caller is known and may not do this.
    PermissionDenied = 7 "PERMISSION_DENIED",
    /// A quota or limit is used up.
    ResourceExhausted = 8 "RESOURCE_EXHAUSTED",
    /// The system is not in a state in which this can be done.
    FailedPrecondition = 9 "FAILED_PRECONDITION",
    /// A conflict with something concurrent.
    Aborted = 10 "ABORTED",
    /// Beyond the valid range.
    OutOfRange = 11 "OUT_OF_RANGE",
    /// There is no such method.
    Unimplemented = 12 "UNIMPLEMENTED",
    /// A fault of the callee.
    Internal = 13 "INTERNAL",
    /// The service is not there at the moment.
    Unavailable = 14 "UNAVAILABLE",
    /// Data is lost for good.
    DataLoss = 15 "DATA_LOSS",
    /// The caller is not known.
    Unauthenticated = 16 "UNAUTHENTICATED",
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $text:literal,)*) => {
        /// Why the callee's library, rather than its handler, failed a call. PROTOCOL 11.4.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
            /// A number that this version does not know.
            Other(u64),
        }

        impl Reason {
            /// The number as it travels.
            pub const fn value(self) -> u64 {
                match self {
                    $(Reason::$variant => $number,)*
                    Reason::Other(number) => number,
                }
            }

            /// The reason of a number that came.
            pub const fn from_value(value: u64) -> Reason {
                match value {
                    $($number => Reason::$variant,)*
                    _ => Reason::Other(value),
                }
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Reason::$variant => f.write_str($text),)*
                    Reason::Other(number) => write!(f, "reason {number}"),
                }
            }
        }
    };
}

reasons! {
    /// The request's head does not parse.
    MalformedHead = 1 "the request's head is malformed",
    /// The index of a method stands for nothing.
    UnknownIndex = 2 "no method has this index",
    /// No handler has this name.
    NoSuchMethod = 3 "there is no such method",
    /// The payload or an item is longer than the callee takes.
    TooLarge = 4 "the request is too large",
    /// Metadata over its limits, or malformed.
    BadMetadata = 5 "the metadata is malformed or too large",
    /// A deadline that makes no sense.
    BadDeadline = 6 "the deadline is absurd",
    /// The deadline passed.
    Expired = 7 "the deadline has passed",
    /// The handler went away without an answer.
    Dropped = 8 "the handler dropped the request",
    /// The handler panicked.
    Panicked = 9 "the handler panicked",
    /// As many calls as may run are running, and the queue is full.
    Overloaded = 10 "too many calls",
    /// The callee takes nothing new.
    Draining = 11 "the server is draining",
    /// The idempotency key was used for another request.
    KeyReused = 12 "the idempotency key belongs to another request",
    /// The table of idempotency keys is full.
    KeysFull = 13 "no room for another idempotency key",
    /// The request was executed before, and its answer is no longer kept.
    AnswerForgotten = 14 "executed before, the answer is no longer kept",
    /// The items of the request do not parse.
    MalformedBody = 15 "the request's items are malformed",
}

/// What a failure's sender knows of the call's execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Executed {
    /// A handler ran.
    Yes,
    /// No handler ran: it is safe to send the request again.
    No,
    /// Not known, as when the callee passed the call on and lost the other end.
    Maybe,
}

/// What the callee says about trying again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pushback {
    /// Nothing.
    #[default]
    None,
    /// Not before this long from now.
    After(Duration),
    /// Not at all.
    Never,
}

/// A call that failed, in the words of the end that failed it. PROTOCOL 11.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure. Never [`Code::Ok`] in one that came from the wire.
    pub code: Code,
    /// Why, where the library failed it.
    pub reason: Option<Reason>,
    /// Whether a handler ran.
    pub executed: Executed,
    /// Whether and when to try again.
    pub pushback: Pushback,
    /// For humans. At most [`MAX_MESSAGE`] bytes travel.
    pub message: String,
    /// For machines: whatever caller and callee agreed on. At most [`MAX_DETAILS`] bytes.
    pub details: Bytes,
}

impl Failure {
    /// A handler's failure: it ran.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure {
            code,
            reason: None,
            executed: Executed::Yes,
            pushback: Pushback::None,
            message: message.into(),
            details: Bytes::new(),
        }
    }

    /// The library's own refusal, before a handler ran.
    pub fn refused(code: Code, reason: Reason) -> Failure {
        Failure {
            reason: Some(reason),
            executed: Executed::No,
            ..Failure::new(code, reason.to_string())
        }
    }

    /// The library's own failure of a call whose handler had begun.
    pub fn cut_short(code: Code, reason: Reason) -> Failure {
        Failure {
            reason: Some(reason),
            ..Failure::new(code, reason.to_string())
        }
    }

    /// Another message.
    pub fn with_message(mut self, message: impl Into<String>) -> Failure {
        self.message = message.into();
        self
    }

    /// Adds details.
    pub fn with_details(mut self, details: Bytes) -> Failure {
        self.details = details;
        self
    }

    /// Adds what the caller is told about trying again.
    pub fn with_pushback(mut self, pushback: Pushback) -> Failure {
        self.pushback = pushback;
        self
    }

    /// Says otherwise about execution.
    pub fn with_executed(mut self, executed: Executed) -> Failure {
        self.executed = executed;
        self
    }

    /// Writes what follows code and metadata; message and details are cut to their limits.
    pub(super) fn encode(&self, out: &mut impl BufMut) {
        let executed = match self.executed {
            Executed::Yes => 0,
            Executed::No => flag::NOT_EXECUTED,
            Executed::Maybe => flag::MAYBE_EXECUTED,
        };
        let (pushback, after) = match self.pushback {
            Pushback::None => (0, None),
            Pushback::Never => (flag::NEVER, None),
            Pushback::After(wait) => (flag::AFTER, Some(wait.min(MAX_RETRY_AFTER))),
        };
        let reason = self.reason.map_or(0, |_| flag::REASON);
        varint::put(out, executed | pushback | reason);
        if let Some(reason) = self.reason {
            varint::put(out, reason.value());
        }
        if let Some(after) = after {
            varint::put(out, after.as_millis() as u64);
        }
        let message = cut(&self.message, MAX_MESSAGE);
        varint::put(out, message.len() as u64);
        out.put_slice(message.as_bytes());
        out.put_slice(self.details.get(..MAX_DETAILS).unwrap_or(&self.details));
    }

    /// Reads what follows code and metadata, to the end of the stream. A flag that is not known is
    /// ignored: a failure is better understood in part than not at all.
    pub(super) fn decode(code: Code, mut body: Bytes) -> Result<Failure, AnswerError> {
        use bytes::Buf;
        let mut input = &body[..];
        let flags = varint::get(&mut input)?;
        let executed = match flags & (flag::NOT_EXECUTED | flag::MAYBE_EXECUTED) {
            0 => Executed::Yes,
            flag::NOT_EXECUTED => Executed::No,
            _ => Executed::Maybe,
        };
        let reason = match flags & flag::REASON {
            0 => None,
            _ => Some(Reason::from_value(varint::get(&mut input)?)),
        };
        let pushback = match flags & (flag::AFTER | flag::NEVER) {
            0 => Pushback::None,
            flag::AFTER => {
                Pushback::After(Duration::from_millis(varint::get(&mut input)?).min(MAX_RETRY_AFTER))
            }
            flag::NEVER => Pushback::Never,
            _ => {
                varint::get(&mut input)?;
                Pushback::Never
            }
        };
        let len = varint::get(&mut input)?;
        if len > MAX_MESSAGE as u64 {
            return Err(AnswerError::MessageTooLong { len });
        }
        let message = varint::take(&mut input, len, "message")?;
        let message = String::from_utf8_lossy(message).into_owned();
        if input.len() > MAX_DETAILS {
            return Err(AnswerError::DetailsTooLong);
        }
        let at = body.len() - input.len();
        body.advance(at);
        Ok(Failure {
            code,
            reason,
            executed,
            pushback,
            message,
            details: body,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

mod flag {
    pub(super) const NOT_EXECUTED: u64 = 1;
    pub(super) const MAYBE_EXECUTED: u64 = 2;
    pub(super) const REASON: u64 = 4;
    pub(super) const AFTER: u64 = 8;
    pub(super) const NEVER: u64 = 16;
}

/// At most `max` bytes of `text`, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_grpcs_and_round_trip() {
        for value in (0..200).chain([u32::MAX - 1, u32::MAX]) {
            assert_eq!(Code::from_value(value).value(), value);
        }
        assert_eq!(Code::Unauthenticated.value(), 16);
        assert_eq!(Code::from_value(17), Code::Reserved(17));
        assert_eq!(Code::from_value(64), Code::Application(0));
        assert_eq!(Code::Application(u32::MAX).value(), u32::MAX);
        for value in 0..40 {
            assert_eq!(Reason::from_value(value).value(), value);
        }
    }

    #[test]
    fn failures_round_trip() {
        for pushback in [
            Pushback::None,
            Pushback::Never,
            Pushback::After(Duration::from_millis(1500)),
        ] {
            for executed in [Executed::Yes, Executed::No, Executed::Maybe] {
                let failure = Failure::refused(Code::Unavailable, Reason::Draining)
                    .with_details(Bytes::from_static(b"\0\xffdetails"))
                    .with_executed(executed)
                    .with_pushback(pushback);
                let mut out = Vec::new();
                failure.encode(&mut out);
                assert_eq!(Failure::decode(Code::Unavailable, out.into()), Ok(failure));
            }
        }
    }

    #[test]
    fn long_words_are_cut_on_sending_and_refused_on_receipt() {
        let mut failure = Failure::new(Code::Internal, "é".repeat(600));
        failure.details = Bytes::from(vec![7; MAX_DETAILS + 1]);
        let mut out = Vec::new();
        failure.encode(&mut out);
        let decoded = Failure::decode(Code::Internal, out.clone().into()).unwrap();
        assert_eq!(
            (decoded.message.len(), decoded.details.len()),
            (1024, MAX_DETAILS)
        );
        out.push(0);
        assert_eq!(
            Failure::decode(Code::Internal, out.into()),
            Err(AnswerError::DetailsTooLong)
        );
        let long = [&[0][..], &[0x84, 1][..]].concat();
        assert_eq!(
            Failure::decode(Code::Internal, long.into()),
            Err(AnswerError::MessageTooLong { len: 1025 })
        );
        assert!(matches!(
            Failure::decode(Code::Internal, Bytes::new()),
            Err(AnswerError::Wire(_))
        ));
    }
}
