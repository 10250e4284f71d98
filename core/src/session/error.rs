//! Errors by whose fault they are: the path's or peer's, or the caller's.

use crate::handshake::HandshakeError;
use crate::stream::StreamError as HalfError;
use crate::wire::{ErrorCode, RejectCode, StreamId, WireError};

/// Why bytes on a path ended it. Only that path ends, unless [`PathError::ends_session`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Malformed bytes.
    #[error("malformed record or frame: {0}")]
    Wire(#[from] WireError),
    /// A handshake message that does not hold.
    #[error("handshake failed: {0}")]
    Handshake(#[from] HandshakeError),
    /// Something that is not allowed before the path has proven itself.
    #[error("{0} before the path's handshake was done")]
    Premature(&'static str),
    /// A handshake message that does not belong here.
    #[error("unexpected handshake message: {0}")]
    UnexpectedHandshake(&'static str),
    /// An acknowledgement of records that were never sent.
    #[error("acknowledgement of {count} records on path {path} lane {lane}, but only {sent} were sent")]
    AckOfUnsent {
        /// The path acknowledged.
        path: u64,
        /// The lane acknowledged.
        lane: u64,
        /// What the peer claims.
        count: u64,
        /// What was sent.
        sent: u64,
    },
    /// The server answered REJECT.
    #[error("rejected by the server: {code}: {detail}")]
    Rejected {
        /// Why.
        code: RejectCode,
        /// In the server's words.
        detail: String,
        /// Where to go instead, by DRAINING and REDIRECT (PROTOCOL 8.3); empty if nowhere. Hostile input.
        address: String,
    },
    /// The path's handshake was not done in time.
    #[error("the handshake was not done in time")]
    HandshakeTimeout,
    /// No progress and no answer to probes.
    #[error("no progress and no answer to probes")]
    Silent,
    /// The peer no longer counts this path among its own.
    #[error("abandoned by the peer (code {0})")]
    Abandoned(u64),
    /// More control frames than a peer that means well ever sends.
    #[error("too many control frames: {0}")]
    Flood(&'static str),
    /// Something came on a lane where it does not belong, or on one that there cannot be.
    #[error("{what} on lane {lane}")]
    Misplaced {
        /// What.
        what: &'static str,
        /// The lane.
        lane: u64,
    },
    /// The peer broke a rule of the session itself; the session ends.
    #[error("the session ends: {0}")]
    Session(#[from] Misbehaviour),
    /// No such path.
    #[error("this path has ended")]
    Unknown,
}

impl PathError {
    /// The code that the peer is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            PathError::Wire(error) => error.code(),
            PathError::Handshake(_)
            | PathError::Premature(_)
            | PathError::UnexpectedHandshake(_)
            | PathError::Rejected { .. } => ErrorCode::BAD_HANDSHAKE,
            PathError::AckOfUnsent { .. } => ErrorCode::BAD_ACK,
            PathError::Misplaced { .. } => ErrorCode::PROTOCOL,
            PathError::HandshakeTimeout | PathError::Silent => ErrorCode::TIMEOUT,
            PathError::Abandoned(code) => ErrorCode::from(*code),
            PathError::Flood(_) => ErrorCode::LIMIT,
            PathError::Session(misbehaviour) => misbehaviour.code(),
            PathError::Unknown => ErrorCode::INTERNAL,
        }
    }

    /// Whether the whole session ends with the path.
    pub fn ends_session(&self) -> bool {
        matches!(self, PathError::Session(_))
    }
}

/// A rule of the session that the peer, known by its proof, broke (PROTOCOL 9).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// Flow control, final size, or state of a stream.
    #[error("{id:?}: {error}")]
    Stream {
        /// The stream.
        id: StreamId,
        /// What was wrong.
        error: HalfError,
    },
    /// More bytes in a class than its credit.
    #[error("class {class}: {received} bytes exceed the credit of {limit}")]
    ClassCredit {
        /// The class.
        class: u8,
        /// What came.
        received: u64,
        /// What was granted.
        limit: u64,
    },
    /// A stream index beyond the credit.
    #[error("{id:?} exceeds the credit of {limit} streams")]
    StreamLimit {
        /// The stream.
        id: StreamId,
        /// What was granted.
        limit: u64,
    },
    /// A stream of this end that this end never opened.
    #[error("{id:?} was never opened")]
    NeverOpened {
        /// The stream.
        id: StreamId,
    },
    /// A frame for the half that the stream does not have.
    #[error("{frame} on {id:?}, which does not go that way")]
    WrongDirection {
        /// The stream.
        id: StreamId,
        /// The frame's name.
        frame: &'static str,
    },
    /// A message longer than announced as acceptable.
    #[error("a message of {len} bytes; the limit is {max}")]
    MessageTooLong {
        /// What the peer announced.
        len: u64,
        /// What is accepted.
        max: u64,
    },
    /// The bytes of an ordered message stream do not parse.
    #[error("a message's length does not parse")]
    MessageFraming,
    /// More early data than PROTOCOL 5.6 allows.
    #[error("early data beyond its fixed credit")]
    EarlyData,
}

impl Misbehaviour {
    /// The code that the peer is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Misbehaviour::Stream { error, .. } => ErrorCode::from(error.code()),
            Misbehaviour::ClassCredit { .. } => ErrorCode::FLOW_CONTROL,
            Misbehaviour::StreamLimit { .. } => ErrorCode::STREAM_LIMIT,
            Misbehaviour::NeverOpened { .. } | Misbehaviour::WrongDirection { .. } => ErrorCode::STREAM_STATE,
            Misbehaviour::MessageTooLong { .. } => ErrorCode::LIMIT,
            Misbehaviour::MessageFraming => ErrorCode::PROTOCOL,
            Misbehaviour::EarlyData => ErrorCode::LIMIT,
        }
    }
}

/// Why a stream cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer's credit is used up; [`super::Event::Credit`] tells when there is more.
    #[error("no credit for another stream of this class yet")]
    Exhausted,
    /// The session is being drained.
    #[error("the session is being drained and takes nothing new")]
    Draining,
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// Streams of this kind are not opened by hand.
    #[error("message streams open by sending a message")]
    NotAByteStream,
}

/// Why a path cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenPathError {
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// [`super::config::MAX_PATHS`] are attached.
    #[error("as many paths as a session may have are attached")]
    TooMany,
    /// The carrier is weaker than the session's floor.
    #[error("the carrier's security is below the session's floor")]
    BelowFloor,
    /// Only clients open paths.
    #[error("only the client opens paths")]
    NotClient,
    /// The carrier's handshake is not done, and the path would begin with JOIN, whose proof it is needed for
    /// (PROTOCOL 14.8). Ask again when it is.
    #[error("a path that joins its session waits for the carrier's handshake")]
    TooEarly,
}

/// Why an operation on a stream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The key names no live stream, or a half that the stream does not have.
    #[error("no such stream")]
    Unknown,
    /// The half was finished before.
    #[error("the stream was finished")]
    Finished,
    /// This end reset it.
    #[error("the stream was reset by this end")]
    ResetLocally,
    /// The peer reset it.
    #[error("the stream was reset by the peer with code {0}")]
    Reset(u64),
    /// The peer asks for no more.
    #[error("the peer stopped reading with code {0}")]
    Stopped(u64),
    /// The session ended first.
    #[error("the session ended")]
    SessionEnded,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue is full; [`super::Event::MessageSpace`] tells when there is room.
    #[error("the message queue is full")]
    Full,
    /// The peer does not take messages this long.
    #[error("{len} bytes; the peer takes {max}")]
    TooLarge {
        /// The message's length.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The session is being drained.
    #[error("the session is being drained and takes nothing new")]
    Draining,
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}
