//! A body that is read as it comes, item by item.

use bytes::{Buf, BytesMut};

use super::HttpError;
use super::body::BodyDecoder;
use super::mode::{Item, ItemDecoder, Mode};

/// Takes the items of a body off its connection. Blocks that lie in one piece stay where they came.
#[derive(Debug)]
pub struct ItemReader {
    pub(super) body: BodyDecoder,
    pub(super) items: ItemDecoder,
    /// What of the body was taken from the connection and not decoded.
    pub(super) raw: BytesMut,
    /// The path's bytes that were decoded, and not taken.
    plain: BytesMut,
    /// The item that came last is at the front of the connection's input.
    in_place: bool,
}

impl ItemReader {
    /// For a body that is of that mode.
    pub fn new(body: BodyDecoder, mode: Mode) -> ItemReader {
        ItemReader {
            body,
            items: ItemDecoder::new(mode),
            raw: BytesMut::new(),
            plain: BytesMut::new(),
            in_place: false,
        }
    }

    /// The next item; `None` when more is needed. What [`Item::Data`] announces is to be looked at and taken before
    /// anything else.
    ///
    /// # Errors
    /// What came is no such body.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Item>, HttpError> {
        self.in_place = self.raw.is_empty() && self.items.reads_blocks();
        while self.in_place {
            let front = self.body.front(input)?;
            let (used, item) = self.items.block_at(&input[..front])?;
            self.body.take(input, used);
            if item.is_some() {
                return Ok(item);
            }
            if front == 0 && !self.body.is_done() {
                return Ok(None);
            }
            // The head of a block in two chunks is put together elsewhere.
            self.in_place = used > 0;
        }
        self.body.decode(input, &mut self.raw)?;
        let item = self.items.next(&mut self.raw, &mut self.plain)?;
        if item.is_none() && self.body.is_done() && !self.is_between() {
            return Err(HttpError::Malformed("a body ends within an item"));
        }
        Ok(item)
    }

    /// The bytes of the path that were announced.
    pub fn data<'a>(&'a self, input: &'a BytesMut, count: usize) -> &'a [u8] {
        let place = if self.in_place { input } else { &self.plain };
        place.get(..count).unwrap_or_default()
    }

    /// They were taken.
    pub fn taken(&mut self, input: &mut BytesMut, count: usize) {
        if self.in_place {
            return self.body.take(input, count.min(input.len()));
        }
        self.plain.advance(count.min(self.plain.len()));
    }

    /// Whether all of the body was taken.
    pub fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// Whether nothing is under way.
    pub(super) fn is_between(&self) -> bool {
        self.raw.is_empty() && self.items.is_between()
    }
}
