//! Records and how they are read. PROTOCOL 3.

use super::crc;
use super::error::WireError;
use super::frame::Frames;
use super::lz4;

/// Length of a record's header, in bytes. `PROTOCOL 3.1`.
pub const HEADER_LEN: usize = 4;
/// Length of a record's checksum, in bytes. `PROTOCOL 3.2`.
pub const CRC_LEN: usize = 4;
/// The limit on a body that an end announces unless configured, in bytes. `PROTOCOL 10`.
pub const DEFAULT_MAX_BODY: usize = 65_536;
/// The smallest limit on a body that an end may announce, in bytes. `PROTOCOL 10`.
pub const SMALLEST_MAX_BODY: usize = 1_200;
/// The largest limit on a body that makes sense, in bytes: what the header's 24 bits can count beside
/// the checksum. `PROTOCOL 10`.
pub const LARGEST_MAX_BODY: usize = (1 << 24) - 1 - CRC_LEN;
/// The limit on a body until the path's handshake is done, in bytes. `PROTOCOL 10`.
pub const HANDSHAKE_MAX_BODY: usize = 16_384;

/// The flags of a record. PROTOCOL 3.1.
pub(super) mod flag {
    pub(crate) const ACK_NOW: u8 = 0x01;
    pub(crate) const LZ4: u8 = 0x02;
    pub(crate) const SEALED: u8 = 0x04;
    pub(crate) const CRC: u8 = 0x08;
    pub(crate) const RESERVED: u8 = !(ACK_NOW | LZ4 | SEALED | CRC);
}

/// What this end accepts in a record. `PROTOCOL 3.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLimits {
    /// The longest body in bytes, before and after decompression.
    pub max_body: usize,
    /// Whether a record without checksum is refused. One that has it is checked in any case.
    pub require_crc: bool,
    /// Whether compressed records are accepted.
    pub allow_lz4: bool,
}

impl RecordLimits {
    /// What holds until the path's handshake is done.
    pub const HANDSHAKE: RecordLimits = RecordLimits {
        max_body: HANDSHAKE_MAX_BODY,
        require_crc: true,
        allow_lz4: false,
    };
}

/// A record's header after every check that it allows.
struct Header {
    flags: u8,
    /// Bytes of the whole record.
    wire_len: usize,
}

impl Header {
    #[inline]
    fn parse(bytes: [u8; HEADER_LEN], limits: &RecordLimits) -> Result<Header, WireError> {
        let [high, middle, low, flags] = bytes;
        if flags & (flag::RESERVED | flag::SEALED) != 0 {
            return Err(match flags & flag::RESERVED {
                0 => WireError::Sealed { flags },
                reserved => WireError::ReservedFlags { flags: reserved },
            });
        }
        let crc = flags & flag::CRC != 0;
        if limits.require_crc && !crc {
            return Err(WireError::CrcMissing { flags });
        }
        if flags & flag::LZ4 != 0 && !limits.allow_lz4 {
            return Err(WireError::Lz4NotNegotiated);
        }
        let len = u32::from_be_bytes([0, high, middle, low]) as usize;
        match len.checked_sub(if crc { CRC_LEN } else { 0 }) {
            None | Some(0) => Err(WireError::RecordEmpty { len }),
            Some(body) if body > limits.max_body => Err(WireError::RecordTooLong {
                len: body,
                max: limits.max_body,
            }),
            Some(_) => Ok(Header {
                flags,
                wire_len: HEADER_LEN + len,
            }),
        }
    }
}

/// How far a buffer holds complete records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Bytes of the complete records at the front.
    pub complete: usize,
    /// Length in bytes of the record that follows them, so far as known: all of it when its header is
    /// there, otherwise [`HEADER_LEN`].
    pub next_needed: usize,
}

/// Finds how many bytes the complete records at the front of `buf` take. `PROTOCOL 3.1`.
///
/// A bad header behind complete records is reported only when they are gone: a record may change the
/// limits for those that follow it.
///
/// # Errors
/// Whatever is wrong with the header of the first record, as soon as that is there.
pub fn complete_prefix(buf: &[u8], limits: &RecordLimits) -> Result<Prefix, WireError> {
    let mut rest = buf;
    let mut complete = 0;
    while let Some(bytes) = rest.first_chunk() {
        let header = match Header::parse(*bytes, limits) {
            Ok(header) => header,
            Err(error) if complete == 0 => return Err(error),
            Err(_) => break,
        };
        let Some((record, after)) = rest.split_at_checked(header.wire_len) else {
            return Ok(Prefix {
                complete,
                next_needed: header.wire_len,
            });
        };
        complete += record.len();
        rest = after;
    }
    Ok(Prefix {
        complete,
        next_needed: HEADER_LEN,
    })
}

/// A record, taken off the wire and checked. `PROTOCOL 3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Whether the sender wants an acknowledgement at once.
    pub ack_now: bool,
    /// Whether the body was decompressed and so lies in the scratch buffer; otherwise it is a slice of
    /// the input.
    pub compressed: bool,
    /// The frames, never empty.
    pub body: &'a [u8],
    /// Bytes that the record took on the wire.
    pub wire_len: usize,
}

impl<'a> Record<'a> {
    /// The frames of the body.
    #[inline]
    pub const fn frames(&self) -> Frames<'a> {
        Frames::new(self.body)
    }
}

/// Takes a record off the front of `input`, or returns `None` when it is not complete. `PROTOCOL 3`.
///
/// Copies nothing, unless the record is compressed: then its body is in `scratch`, which grows to at
/// most `limits.max_body` and keeps its size for the next one.
///
/// # Errors
/// Any [`WireError`] of `PROTOCOL 3`; `input` is then left as it was.
#[inline]
pub fn split_record<'i: 's, 's>(
    input: &mut &'i [u8],
    limits: &RecordLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<Option<Record<'s>>, WireError> {
    let Some(bytes) = input.first_chunk() else {
        return Ok(None);
    };
    let header = Header::parse(*bytes, limits)?;
    let Some((record, rest)) = input.split_at_checked(header.wire_len) else {
        return Ok(None);
    };
    let covered = if header.flags & flag::CRC != 0 {
        check_crc(record)?
    } else {
        record
    };
    let sent = covered.get(HEADER_LEN..).unwrap_or_default();
    let compressed = header.flags & flag::LZ4 != 0;
    let body = if compressed {
        lz4::decompress(sent, limits.max_body, scratch)?
    } else {
        sent
    };
    *input = rest;
    let ack_now = header.flags & flag::ACK_NOW != 0;
    Ok(Some(Record {
        ack_now,
        compressed,
        body,
        wire_len: header.wire_len,
    }))
}

/// The record without its trailer, if that fits. PROTOCOL 3.2.
#[inline]
fn check_crc(record: &[u8]) -> Result<&[u8], WireError> {
    let Some((covered, trailer)) = record.split_last_chunk() else {
        return Err(WireError::RecordEmpty { len: record.len() });
    };
    let received = u32::from_le_bytes(*trailer);
    let computed = crc::checksum(covered);
    if computed != received && !crate::canary!(ChecksumIgnored) {
        return Err(WireError::CrcMismatch { computed, received });
    }
    Ok(covered)
}
