//! What can go wrong on one half of a stream.

use super::SendState;

/// A broken rule of PROTOCOL 7 (streams and flow control).
///
/// All variants but [`StreamError::Closed`] are the peer's fault and end the session with
/// [`StreamError::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Data or a final size lies beyond the limit that was advertised.
    #[error("data up to offset {end} is beyond the advertised limit of {limit} bytes")]
    FlowControl {
        /// One past the last byte that the peer used.
        end: u64,
        /// What it was allowed to use.
        limit: u64,
    },
    /// Offset plus length is above [`MAX_OFFSET`](super::MAX_OFFSET).
    #[error("{len} bytes at offset {offset} reach beyond 2^62")]
    OffsetTooLarge {
        /// Offset of the first byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// The peer named two different final sizes.
    #[error("final size {claimed} contradicts the final size {known} named before")]
    FinalSize {
        /// What it said first.
        known: u64,
        /// What it says in this frame.
        claimed: u64,
    },
    /// Data lies behind the end of the stream.
    #[error("data up to offset {end} is beyond the final size {final_size}")]
    BeyondFinalSize {
        /// The stream's final size.
        final_size: u64,
        /// One past the last byte of the data.
        end: u64,
    },
    /// The final size is less than what has already arrived.
    #[error("final size {final_size} is less than the {highest} bytes already received")]
    FinalSizeTooSmall {
        /// What the peer claims.
        final_size: u64,
        /// One past the highest byte received.
        highest: u64,
    },
    /// More lanes carried frames of this stream than a receiver remembers.
    #[error("frames of one stream came over more than {limit} lanes")]
    TooManyLanes {
        /// The limit.
        limit: usize,
    },
    /// The call does not fit the state of the send half: a mistake of this side, not of the peer.
    #[error("the send half is {state:?}")]
    Closed {
        /// The state it is in.
        state: SendState,
    },
}

impl StreamError {
    /// The wire's error code for this error.
    ///
    /// FLOW_CONTROL 6, STREAM_STATE 8, FINAL_SIZE 9, LIMIT 12.
    pub const fn code(&self) -> u64 {
        match self {
            StreamError::FlowControl { .. } | StreamError::OffsetTooLarge { .. } => 6,
            StreamError::Closed { .. } => 8,
            StreamError::FinalSize { .. }
            | StreamError::BeyondFinalSize { .. }
            | StreamError::FinalSizeTooSmall { .. } => 9,
            StreamError::TooManyLanes { .. } => 12,
        }
    }
}
