//! What ends a connection that speaks HTTP/3, and the codes it is told by.

/// Error codes of HTTP/3 (RFC 9114 §8.1), QPACK (RFC 9204 §6), datagrams (RFC 9297 §5.2) and WebTransport
/// (draft-ietf-webtrans-http3 §9.5).
pub mod code {
    #![allow(missing_docs, reason = "the names are those of the registries")]

    pub const DATAGRAM_ERROR: u64 = 0x33;
    pub const NO_ERROR: u64 = 0x100;
    pub const STREAM_CREATION_ERROR: u64 = 0x103;
    pub const CLOSED_CRITICAL_STREAM: u64 = 0x104;
    pub const FRAME_UNEXPECTED: u64 = 0x105;
    pub const FRAME_ERROR: u64 = 0x106;
    pub const EXCESSIVE_LOAD: u64 = 0x107;
    pub const ID_ERROR: u64 = 0x108;
    pub const SETTINGS_ERROR: u64 = 0x109;
    pub const MISSING_SETTINGS: u64 = 0x10a;
    pub const REQUEST_REJECTED: u64 = 0x10b;
    pub const REQUEST_INCOMPLETE: u64 = 0x10d;
    pub const MESSAGE_ERROR: u64 = 0x10e;
    pub const QPACK_DECOMPRESSION_FAILED: u64 = 0x200;
    pub const QPACK_ENCODER_STREAM_ERROR: u64 = 0x201;
    pub const QPACK_DECODER_STREAM_ERROR: u64 = 0x202;
    pub const WEBTRANSPORT_BUFFERED_STREAM_REJECTED: u64 = 0x3994_bd84;
    pub const WEBTRANSPORT_SESSION_GONE: u64 = 0x170d_7b68;
}

/// What came is not HTTP/3, or is more than we take: the whole connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HTTP/3: {what} (code {code:#x})")]
pub struct Http3Error {
    /// The [code] that the peer is told as it is closed.
    pub code: u64,
    /// What is wrong.
    pub what: &'static str,
}

impl Http3Error {
    pub(super) const fn new(code: u64, what: &'static str) -> Http3Error {
        Http3Error { code, what }
    }
}

/// The first code of HTTP/3 that stands for one of a WebTransport application.
const FIRST: u64 = 0x52e4_a40f_a8db;
/// The last one, which stands for 2^32 - 1.
const LAST: u64 = 0x52e5_ac98_3162;

/// The code of HTTP/3 by which RESET_STREAM or STOP_SENDING says `code` of an application. Every 31st code
/// is one of those that are reserved, and left out. draft-ietf-webtrans-http3 §4.3.
pub fn to_http3(code: u32) -> u64 {
    FIRST + u64::from(code) + u64::from(code) / 0x1e
}

/// The code of an application that a code of HTTP/3 stands for, if it does.
pub fn from_http3(code: u64) -> Option<u32> {
    let is_reserved = code >= 0x21 && (code - 0x21).is_multiple_of(0x1f);
    if !(FIRST..=LAST).contains(&code) || is_reserved {
        return None;
    }
    let shifted = code - FIRST;
    u32::try_from(shifted - shifted / 0x1f).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_applications_go_there_and_back() {
        for code in (0..200).chain([0x1d, 0x1e, u32::MAX - 1, u32::MAX]) {
            assert_eq!(from_http3(to_http3(code)), Some(code));
        }
        assert_eq!(to_http3(u32::MAX), LAST);
        assert_eq!(from_http3(FIRST - 1), None);
        assert_eq!(from_http3(LAST + 1), None);
        assert_eq!(from_http3(code::NO_ERROR), None);
        let taken: Vec<u64> = (0..100).map(to_http3).collect();
        for code in FIRST..FIRST + 100 {
            assert_eq!(from_http3(code).is_some(), taken.contains(&code), "{code:#x}");
        }
    }
}
