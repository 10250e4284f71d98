//! Capsules on the stream of a session's CONNECT, RFC 9297 §3.

use bytes::Bytes;

use super::error::{Http3Error, code};
use super::units::{Plan, Unit, Units, put_unit};

/// `CLOSE_WEBTRANSPORT_SESSION`, draft-ietf-webtrans-http3 §6.
const CLOSE: u64 = 0x2843;
/// Bytes of a reason.
const MAX_REASON: usize = 1024;

/// What the peer said as it closed the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// A code of the application.
    pub code: u32,
    /// Words for people; at most 1,024 bytes.
    pub reason: String,
}

/// What is read of capsules: the one that closes. Others are skipped.
#[derive(Debug, Default)]
pub(super) struct Capsules {
    units: Units,
}

impl Capsules {
    /// Reads on. `skip` is asked for every capsule that means nothing to us.
    pub(super) fn read(
        &mut self,
        mut input: Bytes,
        mut skip: impl FnMut() -> Result<(), Http3Error>,
    ) -> Result<Option<Close>, Http3Error> {
        let mut plan = |kind, len| match kind {
            CLOSE if !(4..=4 + MAX_REASON as u64).contains(&len) => Err(Http3Error::new(
                code::DATAGRAM_ERROR,
                "a closing capsule of a wrong length",
            )),
            CLOSE => Ok(Plan::Whole),
            _ => skip().map(|()| Plan::Skip),
        };
        match self.units.next(&mut input, &mut plan)? {
            Some(Unit::Whole { value, .. }) => parse(&value).map(Some),
            Some(Unit::Piece(_)) | None => Ok(None),
        }
    }

    /// Whether the stream may end here.
    pub(super) fn is_within(&self) -> bool {
        self.units.is_within()
    }
}

fn parse(value: &[u8]) -> Result<Close, Http3Error> {
    let wrong = || Http3Error::new(code::DATAGRAM_ERROR, "a closing capsule that is not text");
    let (code, reason) = value.split_first_chunk().ok_or_else(wrong)?;
    let reason = std::str::from_utf8(reason).map_err(|_| wrong())?;
    Ok(Close {
        code: u32::from_be_bytes(*code),
        reason: reason.to_owned(),
    })
}

/// The capsule that closes; of a reason that is too long its beginning.
pub(super) fn close(code: u32, reason: &str) -> Vec<u8> {
    let mut value = code.to_be_bytes().to_vec();
    let end = (0..=MAX_REASON.min(reason.len()))
        .rev()
        .find(|end| reason.is_char_boundary(*end));
    value.extend_from_slice(reason.get(..end.unwrap_or(0)).unwrap_or_default().as_bytes());
    let mut out = Vec::new();
    put_unit(&mut out, CLOSE, &value);
    out
}
