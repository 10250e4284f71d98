//! The wire: varints, stream ids, frames, records and error codes. `docs/PROTOCOL.md` §2, 3, 4 and 9.
//!
//! Pure functions on bytes, in three layers:
//!
//! * **Records** ([`split_record`], [`complete_prefix`]) cut a byte stream into checked bodies. Without
//!   LZ4 a body is a slice of the input; nothing is copied.
//! * **Frames** ([`Frame`], [`Frames`]) are what a body holds, borrowed from it.
//! * **Output** ([`RecordBuilder`] over an [`OutBuffer`]) lays records out for vectored writes: small
//!   bytes contiguous, large payloads by reference.
//!
//! Everything decoded here comes from a peer that may be hostile: each refusal is a [`WireError`] that
//! names the field and the values, and [`WireError::code`] says which [`ErrorCode`] answers it.

mod code;
mod crc;
mod encode;
mod error;
mod frame;
mod id;
mod lane;
mod list;
mod lz4;
mod out;
mod record;
pub mod varint;

#[cfg(test)]
mod tests;

pub use code::{ErrorCode, RejectCode};
pub use error::WireError;
pub use frame::{AdvertiseFrame, Frame, Frames, HandshakeKind, MAX_REASON, MAX_STREAM_OFFSET, PathStatus};
pub use id::{Class, Kind, Side, StreamId};
pub use lane::{put_lane_number, take_lane_number};
pub use list::{Addresses, Counts, LaneCount, MAX_ADDRESS, MAX_ADDRESSES, MAX_LANE_COUNTS};
pub use lz4::Compressor;
pub use out::{OutBuffer, RecordBuilder, SHARE_THRESHOLD};
pub use record::{
    CRC_LEN, DEFAULT_MAX_BODY, HANDSHAKE_MAX_BODY, HEADER_LEN, LARGEST_MAX_BODY, Prefix, Record,
    RecordLimits, SMALLEST_MAX_BODY, complete_prefix, split_record,
};
