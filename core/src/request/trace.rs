//! Trace context: W3C `traceparent`, 25 bytes on the wire. PROTOCOL 11.2.

use std::fmt::Write as _;

use super::error::HeadError;

/// Length on the wire: trace id, parent id, flags.
pub const TRACE_LEN: usize = 25;

/// A `traceparent` of version 00 (W3C Trace Context §3.2). `tracestate` travels as metadata of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// A context. `flags` bit 0 means *sampled*.
    ///
    /// # Errors
    /// [`HeadError::Trace`] when one of the ids is zero.
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], flags: u8) -> Result<TraceContext, HeadError> {
        if trace_id == [0; 16] || parent_id == [0; 8] {
            return Err(HeadError::Trace);
        }
        Ok(TraceContext {
            trace_id,
            parent_id,
            flags,
        })
    }

    /// The trace that the call belongs to.
    pub const fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span that made the call.
    pub const fn parent_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// The flags; bit 0 means *sampled*.
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    pub(super) fn to_bytes(self) -> [u8; TRACE_LEN] {
        let mut bytes = [0; TRACE_LEN];
        bytes[..16].copy_from_slice(&self.trace_id);
        bytes[16..24].copy_from_slice(&self.parent_id);
        bytes[24] = self.flags;
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<TraceContext, HeadError> {
        let trace = bytes.first_chunk::<16>().ok_or(HeadError::Trace)?;
        let parent = bytes.get(16..).and_then(|rest| rest.first_chunk::<8>());
        let flags = bytes.get(24).ok_or(HeadError::Trace)?;
        TraceContext::new(*trace, *parent.ok_or(HeadError::Trace)?, *flags)
    }

    /// The header's text: `00-<32 hex>-<16 hex>-<2 hex>`.
    pub fn to_traceparent(self) -> String {
        let mut text = String::from("00-");
        let hex = |text: &mut String, bytes: &[u8]| {
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
        };
        hex(&mut text, &self.trace_id);
        text.push('-');
        hex(&mut text, &self.parent_id);
        let _ = write!(text, "-{:02x}", self.flags);
        text
    }

    /// Reads the header's text. A later version is read as version 00, as W3C Trace Context §3.2.4 asks.
    pub fn from_traceparent(text: &str) -> Option<TraceContext> {
        let mut parts = text.split('-');
        let [version] = hex::<1>(parts.next()?)?;
        let (trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?);
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let [flags] = hex::<1>(flags)?;
        TraceContext::new(hex(trace)?, hex(parent)?, flags).ok()
    }
}

/// Exactly `N` bytes in lower-case hexadecimal.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w3c_examples() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::from_traceparent(text).unwrap();
        assert_eq!((context.to_traceparent().as_str(), context.flags()), (text, 1));
        assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Ok(context));
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes";
        assert_eq!(TraceContext::from_traceparent(later), Some(context));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1é",
        ] {
            assert_eq!(TraceContext::from_traceparent(bad), None, "{bad}");
        }
    }
}
