//! The buffers of a range, by reference.

use bytes::Bytes;

use super::SendHalf;

/// A contiguous part of a range, see [`SendHalf::pieces`].
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    pub(super) data: &'a [u8],
    pub(super) block: Option<&'a Bytes>,
}

impl<'a> Piece<'a> {
    /// The bytes.
    #[inline]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The bytes by reference, unless they lie in the block that small writes still grow.
    #[inline]
    pub fn shared(&self) -> Option<Bytes> {
        self.block.map(|block| block.slice_ref(self.data))
    }

    /// The bytes by reference where possible, else copied.
    #[inline]
    pub fn to_bytes(&self) -> Bytes {
        self.shared().unwrap_or_else(|| Bytes::copy_from_slice(self.data))
    }
}

/// Iterator over the buffers of a range, see [`SendHalf::pieces`].
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    pub(super) half: &'a SendHalf,
    pub(super) index: usize,
    pub(super) at: u64,
    pub(super) end: u64,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    #[inline]
    fn next(&mut self) -> Option<Piece<'a>> {
        if self.at >= self.end {
            return None;
        }
        let (start, bytes, block) = match self.half.blocks.get(self.index) {
            Some(block) => (block.start, &block.bytes[..], Some(&block.bytes)),
            None => (self.half.tail_start(), self.half.tail.bytes(), None),
        };
        let from = usize::try_from(self.at.checked_sub(start)?).ok()?;
        let len = usize::try_from(self.end - self.at)
            .ok()?
            .min(bytes.len().checked_sub(from)?);
        let data = bytes.get(from..from + len)?;
        if len == 0 {
            return None;
        }
        self.at += len as u64;
        self.index += 1;
        Some(Piece { data, block })
    }
}
