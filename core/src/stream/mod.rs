//! One stream's two halves, and the receive credit of streams and classes (PROTOCOL 7).
//!
//! These types know offsets and bytes; they know no session, no path and no frame. The session
//! feeds them what frames say and what became of the ranges it sent:
//!
//! - [`SendHalf`] holds what the application wrote until the peer has it, and says what to send next.
//! - [`RecvHalf`] puts what arrives in order, within a [`Window`] of credit, and hands it out.
//! - [`RangeSet`] is the set of offsets both sides of the bookkeeping need.
//!
//! A half that has carried nothing holds no memory beyond itself, so opening and dropping a stream
//! costs next to nothing; what only lost, reordered or reset streams need is allocated when needed.

mod assembler;
mod block;
mod error;
mod gaps;
mod range_set;
mod recv;
mod send;
#[cfg(test)]
mod tests;
mod window;

pub use assembler::Source;
pub use error::StreamError;
pub use range_set::RangeSet;
pub use recv::{Inserted, MAX_LANES, Read, RecvHalf, ResetReceived};
pub use send::{Acked, Chunk, Piece, Pieces, ResetSent, SendHalf, SendState};
pub use window::Window;

/// No byte of a stream lies at or beyond this offset (PROTOCOL 7).
pub const MAX_OFFSET: u64 = 1 << 62;
