//! Why bytes from a peer were refused.

use super::code::ErrorCode;

/// Bytes that break the protocol, with the values that show it. `PROTOCOL 9`.
///
/// Always the peer's (or the transport's) doing, except where a constructor such as
/// [`Counts::new`](super::Counts::new) uses it to refuse values that could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A field reaches beyond the bytes that hold it.
    #[error("{what} is cut off: {needed} bytes needed, {have} left")]
    Truncated {
        /// The field.
        what: &'static str,
        /// Bytes that the field takes.
        needed: u64,
        /// Bytes that were left.
        have: usize,
    },
    /// A varint is longer than its value needs. `PROTOCOL 2.1`.
    #[error("{what} is not minimal: {value} in {len} bytes")]
    NotMinimal {
        /// The field.
        what: &'static str,
        /// The value it decodes to.
        value: u64,
        /// The bytes it took.
        len: usize,
    },
    /// A record's body is longer than this end accepts. `PROTOCOL 3.1`.
    #[error("record body of {len} bytes is over the limit of {max}")]
    RecordTooLong {
        /// Bytes of body in the record's header.
        len: usize,
        /// The limit in force.
        max: usize,
    },
    /// A record without a body. `PROTOCOL 3.1`.
    #[error("record without a body (length field {len})")]
    RecordEmpty {
        /// The header's length field.
        len: usize,
    },
    /// A record sets flags that have no meaning. `PROTOCOL 3.1`.
    #[error("record sets reserved flags {flags:#04x}")]
    ReservedFlags {
        /// The reserved bits that were set.
        flags: u8,
    },
    /// A record is marked as sealed, which is reserved. `PROTOCOL 3.1`.
    #[error("sealed record (flags {flags:#04x}), which nobody negotiated")]
    Sealed {
        /// All flags of the record.
        flags: u8,
    },
    /// A record has no checksum on a path that uses them. `PROTOCOL 3.2`.
    #[error("record without CRC (flags {flags:#04x}) where CRC is required")]
    CrcMissing {
        /// All flags of the record.
        flags: u8,
    },
    /// A record's checksum does not match its bytes. `PROTOCOL 3.2`.
    #[error("record CRC is {computed:#010x}, its trailer says {received:#010x}")]
    CrcMismatch {
        /// The checksum of the bytes that arrived.
        computed: u32,
        /// The checksum in the trailer.
        received: u32,
    },
    /// A compressed record where compression was not negotiated. `PROTOCOL 3.3`.
    #[error("compressed record, which was not negotiated")]
    Lz4NotNegotiated,
    /// A compressed record claims to hold more than this end accepts. `PROTOCOL 3.3`.
    #[error("compressed record claims {claimed} bytes, the limit is {max}")]
    Lz4Claim {
        /// The claimed length after decompression, in bytes.
        claimed: u64,
        /// The limit in force.
        max: usize,
    },
    /// A compressed record's block is malformed or holds more than it claims. `PROTOCOL 3.3`.
    #[error("compressed block of {len} bytes is malformed or exceeds the {claimed} bytes it claims")]
    Lz4Block {
        /// Length of the block, in bytes.
        len: usize,
        /// The claimed length after decompression, in bytes.
        claimed: usize,
    },
    /// A compressed record holds less than it claims. `PROTOCOL 3.3`.
    #[error("compressed record holds {actual} bytes and claims {claimed}")]
    Lz4Length {
        /// The claimed length after decompression, in bytes.
        claimed: usize,
        /// The length found.
        actual: usize,
    },
    /// A frame type below the extension range that does not exist. `PROTOCOL 4`.
    #[error("unknown frame type {frame_type:#04x}")]
    UnknownFrame {
        /// The type.
        frame_type: u64,
    },
    /// A number that is no stream's. `PROTOCOL 2.2`.
    #[error("{value} is no stream id: a class has one ordered message stream per side")]
    StreamId {
        /// The number.
        value: u64,
    },
    /// A field holds a value that has no meaning.
    #[error("{what} cannot be {value}")]
    Value {
        /// The field.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// A stream position over 2⁶². `PROTOCOL 4.4`.
    #[error("stream {id} would end at offset {offset} + {len}, over 2^62")]
    StreamOffset {
        /// The stream.
        id: u64,
        /// Where the data starts, or the final size.
        offset: u64,
        /// Length of the data, in bytes.
        len: usize,
    },
    /// More entries than the protocol allows. `PROTOCOL 10`.
    #[error("{count} {what}, the limit is {max}")]
    TooMany {
        /// What is listed.
        what: &'static str,
        /// How many there are.
        count: u64,
        /// How many there may be.
        max: usize,
    },
    /// A text or blob longer than the protocol allows. `PROTOCOL 10`.
    #[error("{what} of {len} bytes, the limit is {max}")]
    TooLong {
        /// The field.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The length it may have.
        max: usize,
    },
    /// A text that is not UTF-8.
    #[error("{what} is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// The field.
        what: &'static str,
        /// How many bytes of it are valid.
        at: usize,
    },
}

impl WireError {
    /// The code that tells the peer. `PROTOCOL 9`.
    pub const fn code(&self) -> ErrorCode {
        match self {
            WireError::RecordEmpty { .. }
            | WireError::ReservedFlags { .. }
            | WireError::Sealed { .. }
            | WireError::Lz4NotNegotiated
            | WireError::Lz4Block { .. }
            | WireError::Lz4Length { .. } => ErrorCode::MALFORMED_RECORD,
            WireError::CrcMissing { .. } | WireError::CrcMismatch { .. } => ErrorCode::BAD_CRC,
            WireError::RecordTooLong { .. }
            | WireError::Lz4Claim { .. }
            | WireError::TooMany { .. }
            | WireError::TooLong { .. } => ErrorCode::LIMIT,
            WireError::UnknownFrame { .. } => ErrorCode::UNKNOWN_FRAME,
            WireError::Truncated { .. }
            | WireError::NotMinimal { .. }
            | WireError::StreamId { .. }
            | WireError::Value { .. }
            | WireError::StreamOffset { .. }
            | WireError::NotUtf8 { .. } => ErrorCode::MALFORMED_FRAME,
        }
    }
}
