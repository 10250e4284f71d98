//! What a session reports. Events carry keys, never data.

use std::sync::Arc;

use super::config::PathInfo;
use super::error::PathError;
use super::keys::{PathKey, StreamKey};
use super::lifecycle::{Cause, State};
use crate::policy::health::Evidence;
use crate::policy::selection::Reason;
use crate::wire::{Class, ErrorCode, Kind};

/// Names a message that its sender wants to hear of again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// What became of something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The peer's session has it.
    Acknowledged,
    /// It was put on a path, and the session ended before an acknowledgement.
    Maybe,
    /// No byte of it was ever put on a path.
    NotSent,
    /// It was queued before the peer said how long a message may be, and is longer than that. No byte of it
    /// was put on a path.
    TooLarge {
        /// The longest that the peer takes, in bytes.
        max: u64,
    },
}

/// How a message is to travel (REQUIREMENTS W8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Exactly once, in the order of the class's other ordered messages.
    Ordered,
    /// Exactly once, as soon as it is whole.
    Unordered,
    /// At most once; not after its time to live.
    Unreliable {
        /// How long it may wait, or be sent again when its path dies.
        ttl: std::time::Duration,
    },
}

/// How a received message travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryKind {
    /// [`Delivery::Ordered`]
    Ordered,
    /// [`Delivery::Unordered`]
    Unordered,
    /// [`Delivery::Unreliable`]
    Unreliable,
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its class.
    pub class: Class,
    /// How it travelled.
    pub delivery: DeliveryKind,
    /// What it says.
    pub payload: bytes::Bytes,
}

/// How a path's connection ended, as its driver or the session saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathEnd {
    /// The peer shut the connection down.
    Eof,
    /// The connection was reset.
    Reset,
    /// Any other error of the operating system.
    Io(std::io::ErrorKind),
    /// This end ended it: an error in what came, silence, or the session's end.
    Local,
}

/// Why data moved to another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchCause {
    /// It is the first.
    First,
    /// The path in use was closed in order.
    Closed,
    /// The path in use was reset or failed.
    Reset,
    /// The path in use made no progress.
    Suspect,
    /// What came over the path in use was corrupt or broke the protocol.
    Error,
    /// The peer asked.
    Abandoned,
    /// A better one is there.
    Preferred,
}

/// What was known when data moved to another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchEvidence {
    /// Why the path was chosen.
    pub reason: Reason,
    /// Of the path in use before, if there was one.
    pub from: Option<Evidence>,
    /// Of the path in use.
    pub to: Evidence,
}

/// What became of a path whose address has changed (PROTOCOL 14.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// An end is at another address from here on: it moved, or what translates addresses on the way did.
    Changed,
    /// The peer is reached there.
    Proven,
    /// It is not, and the old address is used again.
    GivenUp,
}

/// Something the application or the driver should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The lifecycle moved.
    State {
        /// From where.
        from: State,
        /// To where.
        to: State,
        /// Why.
        cause: Cause,
    },
    /// A path proved itself and may carry data.
    PathUp(PathKey),
    /// A path makes no progress; it is probed and its data sent elsewhere.
    PathSuspect(PathKey),
    /// A suspect path left a probe unanswered, and no other is sound: it is time to look for one.
    PathMute(PathKey),
    /// A suspect path has had its time to answer, and there is none to take its place: it is kept until there is.
    PathSilent(PathKey),
    /// A suspect path made progress again.
    PathRecovered(PathKey),
    /// A path ended. Its key names nothing from here on.
    PathDown {
        /// Which.
        path: PathKey,
        /// How.
        end: PathEnd,
        /// What was wrong, where something was.
        error: Option<PathError>,
        /// What it was.
        info: Box<PathInfo>,
        /// Bytes that were sent on it and acknowledged: evidence that it worked.
        delivered: u64,
    },
    /// Data moved to another path.
    Switched {
        /// The path in use before, if there was one.
        from: Option<PathKey>,
        /// The path in use.
        to: PathKey,
        /// Why.
        cause: SwitchCause,
        /// By what evidence.
        evidence: Box<SwitchEvidence>,
    },
    /// Something moves again: for so long nothing that was sent was acknowledged, though there was something to send.
    /// It is told of from 50 ms and twice the round trip on.
    Standstill(std::time::Duration),
    /// The address of a path's end has changed; the path goes on.
    PathMoved {
        /// Which.
        path: PathKey,
        /// Its name before.
        before: Arc<str>,
        /// What became of it.
        how: Moved,
    },
    /// The peer opened a stream: [`super::Session::accept`].
    Opened {
        /// Its kind.
        kind: Kind,
        /// Its class.
        class: Class,
    },
    /// More streams may be opened.
    Credit {
        /// Of this kind.
        kind: Kind,
        /// Of this class.
        class: Class,
    },
    /// A read that was blocked may go on.
    Readable(StreamKey),
    /// A write that was blocked may go on.
    Writable(StreamKey),
    /// Everything written and the end of the stream are acknowledged.
    Finished(StreamKey),
    /// The peer wants no more of the stream.
    Stopped(StreamKey, u64),
    /// A message of the class may be read.
    MessageReady(Class),
    /// A datagram may be read.
    DatagramReady,
    /// The message queue has room again.
    MessageSpace,
    /// What became of a tracked message.
    Outcome {
        /// Which.
        id: MessageId,
        /// What.
        outcome: Outcome,
    },
    /// A message that was queued before the peer said how long one may be is longer than that, and was dropped.
    MessageTooLarge {
        /// Its class.
        class: Class,
        /// Its length, in bytes.
        len: u64,
        /// The longest that the peer takes.
        max: u64,
    },
    /// Nothing has been sent for a moment, and the session gave back the memory that it does not
    /// need: a driver may do likewise.
    Quiet,
    /// The peer takes nothing new.
    GoAway {
        /// Why.
        code: ErrorCode,
        /// In words.
        reason: String,
        /// Where to go instead; empty if it did not say.
        address: String,
    },
}
