//! Payloads that say what they are, byte by byte.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes at the beginning of every payload: the end it comes from, the item, the place in it, and the length of what
/// follows.
pub(super) const HEADER: usize = 16;

/// What a payload says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The end of a session that sent it.
    pub(super) end: u32,
    /// The item it belongs to.
    pub(super) item: u32,
    /// Its place among those of the item.
    pub(super) index: u32,
    /// Bytes after the header.
    pub(super) len: u32,
}

impl Header {
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Header> {
        (bytes.len() >= HEADER).then(|| Header {
            end: bytes.get_u32(),
            item: bytes.get_u32(),
            index: bytes.get_u32(),
            len: bytes.get_u32(),
        })
    }

    pub(super) fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut rest = &mut bytes[..];
        rest.put_u32(self.end);
        rest.put_u32(self.item);
        rest.put_u32(self.index);
        rest.put_u32(self.len);
        bytes
    }

    fn key(&self, way: Way) -> u64 {
        let own = u64::from(self.item) << 40 | u64::from(self.index) << 8 | way as u64;
        own ^ u64::from(self.end).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The whole payload.
    pub(super) fn payload(&self) -> Bytes {
        let mut payload = BytesMut::with_capacity(HEADER + self.len as usize);
        payload.put_slice(&self.bytes());
        payload.put_slice(&fill(self.key(Way::There), 0, self.len as usize));
        payload.freeze()
    }

    /// A piece of what follows the header, or of what comes back.
    pub(super) fn piece(&self, way: Way, offset: u64, len: usize) -> Vec<u8> {
        fill(self.key(way), offset, len)
    }

    /// Whether a piece is as it was sent.
    pub(super) fn matches(&self, way: Way, offset: u64, piece: &[u8]) -> bool {
        fill(self.key(way), offset, piece.len()) == piece
    }

    /// Whether a whole payload is as it was sent.
    pub(super) fn matches_payload(&self, payload: &[u8]) -> bool {
        payload.len() == HEADER + self.len as usize && self.matches(Way::There, 0, &payload[HEADER..])
    }
}

/// Which of an item's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    There = 1,
    Back = 2,
}

fn fill(key: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 16);
    let skip = (offset & 7) as usize;
    for word in offset >> 3.. {
        if bytes.len() >= len + skip {
            break;
        }
        // In every other item half of the words repeat, so that there is something to compress.
        let varied = if word & 8 == 0 || key >> 40 & 1 == 0 {
            word
        } else {
            0
        };
        let mixed = (key ^ varied.wrapping_mul(0xd6e8_feb8_6659_fd93)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes.extend_from_slice(&(mixed ^ mixed >> 29).to_le_bytes());
    }
    bytes.truncate(len + skip);
    bytes.drain(..skip);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fit_together() {
        let header = Header {
            end: 1,
            item: 7,
            index: 3,
            len: 1000,
        };
        let payload = header.payload();
        assert_eq!(Header::parse(&payload), Some(header));
        assert!(header.matches_payload(&payload));
        for (offset, len) in [(0, 1000), (1, 10), (7, 1), (8, 17), (990, 10), (13, 0)] {
            let piece = header.piece(Way::There, offset, len);
            let start = HEADER + offset as usize;
            assert_eq!(piece, payload[start..start + len]);
        }
        let other = Header { index: 4, ..header };
        assert!(!other.matches(Way::There, 0, &payload[HEADER..]));
        assert!(!header.matches(Way::Back, 0, &payload[HEADER..]));
    }
}
