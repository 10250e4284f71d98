//! What can be wrong with the bytes of a call. Always the peer's doing, and the end of that call alone.

use super::status::{Code, Failure, Reason};
use super::{MAX_KEY, MAX_METADATA, MAX_METADATA_ENTRIES, MAX_METHODS, MAX_TIME_LEFT};
use crate::wire::WireError;

/// A request's head that breaks PROTOCOL 11.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A field does not parse.
    #[error("the request's head is malformed: {0}")]
    Wire(WireError),
    /// The stream ended within the head.
    #[error("the stream ended within the request's head")]
    Cut,
    /// Options that this version does not know.
    #[error("the request uses unknown options {flags:#x}")]
    UnknownOptions {
        /// All flags of the head.
        flags: u64,
    },
    /// An index beyond the limit of the table.
    #[error("method index {index} is over the limit of {MAX_METHODS}")]
    IndexTooLarge {
        /// The index.
        index: u64,
    },
    /// An index that no name came with before.
    #[error("method index {index} stands for nothing")]
    UnknownIndex {
        /// The index.
        index: u32,
    },
    /// An index that stands for another name.
    #[error("method index {index} stands for another name")]
    IndexTaken {
        /// The index.
        index: u32,
    },
    /// Neither an index nor a name.
    #[error("the request names no method")]
    NoMethod,
    /// The names sent exceed the table.
    #[error("the names of methods exceed the table")]
    TableFull,
    /// The metadata breaks its rules.
    #[error("metadata: {0}")]
    Metadata(#[from] MetadataError),
    /// The deadline breaks its rules.
    #[error("deadline: {0}")]
    Deadline(#[from] DeadlineError),
    /// An idempotency key that is empty or too long.
    #[error("an idempotency key of {len} bytes; 1 to {MAX_KEY} are allowed")]
    Key {
        /// Its length in bytes.
        len: u64,
    },
    /// A trace context with zeros where W3C Trace Context allows none.
    #[error("the trace or parent id is zero")]
    Trace,
}

/// Bytes run out within a field are no error of themselves: more may come. [`HeadError::Cut`].
impl From<WireError> for HeadError {
    fn from(error: WireError) -> HeadError {
        HeadError::Wire(error)
    }
}

impl HeadError {
    /// The answer to such a request. No handler has run.
    pub fn failure(&self) -> Failure {
        let (code, reason) = match self {
            HeadError::Wire(_)
            | HeadError::Cut
            | HeadError::NoMethod
            | HeadError::IndexTaken { .. }
            | HeadError::Key { .. }
            | HeadError::Trace => (Code::InvalidArgument, Reason::MalformedHead),
            HeadError::UnknownOptions { .. } => (Code::Unimplemented, Reason::MalformedHead),
            HeadError::IndexTooLarge { .. } | HeadError::UnknownIndex { .. } => {
                (Code::InvalidArgument, Reason::UnknownIndex)
            }
            HeadError::TableFull => (Code::ResourceExhausted, Reason::MalformedHead),
            HeadError::Metadata(error) => (error.code(), Reason::BadMetadata),
            HeadError::Deadline(_) => (Code::InvalidArgument, Reason::BadDeadline),
        };
        let mut failure = Failure::refused(code, reason);
        failure.message = self.to_string();
        failure
    }
}

/// Metadata that breaks PROTOCOL 11.3: from the peer, or from the caller who builds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Too many bytes.
    #[error("{len} bytes; the limit is {MAX_METADATA}")]
    TooLarge {
        /// Bytes of the whole block.
        len: u64,
    },
    /// Too many entries.
    #[error("{count} entries; the limit is {MAX_METADATA_ENTRIES}")]
    TooMany {
        /// The number claimed.
        count: u64,
    },
    /// A key that is empty, too long, or has other characters than `a-z 0-9 - _ .`.
    #[error("a key is empty, too long or has characters that are not allowed")]
    Key,
    /// Lengths that do not add up to the block's.
    #[error("the entries do not fill the block exactly")]
    Framing,
}

impl MetadataError {
    fn code(self) -> Code {
        match self {
            MetadataError::TooLarge { .. } | MetadataError::TooMany { .. } => Code::ResourceExhausted,
            MetadataError::Key | MetadataError::Framing => Code::InvalidArgument,
        }
    }
}

/// A time left that makes no sense. PROTOCOL 11.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadlineError {
    /// No time is left: such a call is not to be sent.
    #[error("no time is left")]
    Zero,
    /// Later than any deadline may be.
    #[error("{micros} µs are over the limit of {MAX_TIME_LEFT:?}")]
    TooFar {
        /// What was asked for.
        micros: u64,
    },
}

/// Items that break PROTOCOL 11.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// A length that does not parse.
    #[error("the length of an item is malformed: {0}")]
    Wire(WireError),
    /// Longer than this end takes.
    #[error("an item of {len} bytes; the limit is {max}")]
    TooLong {
        /// What the peer announced.
        len: u64,
        /// What is accepted.
        max: usize,
    },
    /// The stream ended within an item.
    #[error("the stream ended within an item")]
    Cut,
    /// The mark that ends the items of an answer, in a request.
    #[error("a request's items end with the stream, not by a mark")]
    EndMark,
}

impl ItemError {
    /// The answer to a request with such items; its handler may have begun.
    pub fn failure(&self) -> Failure {
        let (code, reason) = match self {
            ItemError::TooLong { .. } => (Code::ResourceExhausted, Reason::TooLarge),
            ItemError::Wire(_) | ItemError::Cut | ItemError::EndMark => {
                (Code::InvalidArgument, Reason::MalformedBody)
            }
        };
        let mut failure = Failure::cut_short(code, reason);
        failure.message = self.to_string();
        failure
    }
}

/// An answer that breaks PROTOCOL 11.4 or 11.5. The request may have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A field does not parse.
    #[error("the answer is malformed: {0}")]
    Wire(#[from] WireError),
    /// The stream ended before the answer did.
    #[error("the answer is cut off")]
    Cut,
    /// A code beyond 32 bits.
    #[error("{value} is no status code")]
    Code {
        /// The number.
        value: u64,
    },
    /// The metadata breaks its rules.
    #[error("metadata: {0}")]
    Metadata(#[from] MetadataError),
    /// The items break their rules.
    #[error("{0}")]
    Item(#[from] ItemError),
    /// A failure's message is too long.
    #[error("a message of {len} bytes")]
    MessageTooLong {
        /// Its length in bytes.
        len: u64,
    },
    /// A failure's details are too long.
    #[error("the details of the failure are too long")]
    DetailsTooLong,
    /// The payload is longer than this end takes.
    #[error("the answer exceeds {max} bytes")]
    TooLarge {
        /// What is accepted.
        max: usize,
    },
    /// The answer went on after its end: a second answer, or data behind the end mark.
    #[error("the answer goes on after its end")]
    AfterEnd,
}
