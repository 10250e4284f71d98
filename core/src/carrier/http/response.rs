//! A response as the client reads it, as it comes.

use bytes::{Buf, BytesMut};

use super::body::BodyDecoder;
use super::exchange::Token;
use super::mode::{Item, Mode, number};
use super::reader::ItemReader;
use super::{HeadLimits, HttpError, ResponseHead};

/// Bytes of a refusal that are read to keep its connection.
const MAX_SKIPPED: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Response {
    head: Option<ResponseHead>,
    mode: Mode,
    body: Option<ItemReader>,
    /// The position of the next of them.
    position: u64,
    skipped: usize,
}

impl Response {
    pub(super) fn new(mode: Mode) -> Response {
        Response {
            head: None,
            mode,
            body: None,
            position: 0,
            skipped: 0,
        }
    }

    /// The position of the first byte of the path in it.
    pub(super) fn begin_at(&mut self, position: u64) {
        self.position = position;
    }

    /// Takes the head off, and the interim ones before it. `false` when it has not come.
    pub(super) fn take_head(&mut self, input: &mut BytesMut) -> Result<bool, HttpError> {
        while self.head.is_none() {
            let Some((head, len)) = ResponseHead::parse(input, HeadLimits::default())? else {
                return Ok(false);
            };
            input.advance(len);
            if (100..200).contains(&head.status) && head.status != 101 {
                continue;
            }
            self.body = Some(ItemReader::new(BodyDecoder::new(head.body_length()?), self.mode));
            self.head = Some(head);
        }
        Ok(true)
    }

    pub(super) fn status(&self) -> u16 {
        self.head.as_ref().map_or(0, |head| head.status)
    }

    pub(super) fn refused(&self) -> HttpError {
        let reason = self.head.as_ref().map_or("", |head| &head.reason);
        HttpError::Status {
            status: self.status(),
            reason: reason.chars().filter(|c| !c.is_control()).take(64).collect(),
        }
    }

    /// Reads a body that says nothing.
    pub(super) fn skip(&mut self, input: &mut BytesMut) -> Result<(), HttpError> {
        if let Some(body) = &mut self.body {
            body.body.decode(input, &mut body.raw)?;
            self.skipped += body.raw.len();
            body.raw.clear();
        }
        if self.skipped > MAX_SKIPPED {
            Err(HttpError::TooLarge)
        } else {
            Ok(())
        }
    }

    /// The next item of the body.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Item>, HttpError> {
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        let item = body.next(input)?;
        if let (Some(Item::Data(count)), Some(end)) = (item, body.items.take_position()) {
            let begin = end.checked_sub(count as u64);
            self.position = begin.ok_or(HttpError::Malformed("an id that cannot be"))?;
        }
        Ok(item)
    }

    /// The bytes of the item that came last, and their position.
    pub(super) fn data<'a>(&'a self, input: &'a BytesMut, count: usize) -> (u64, &'a [u8]) {
        let data = self.body.as_ref().map(|body| body.data(input, count));
        (self.position, data.unwrap_or_default())
    }

    /// They were taken.
    pub(super) fn taken(&mut self, input: &mut BytesMut, count: usize) {
        self.position += count as u64;
        if let Some(body) = &mut self.body {
            body.taken(input, count);
        }
    }

    /// Whether all of it has come.
    pub(super) fn is_done(&self) -> bool {
        self.body.as_ref().is_some_and(ItemReader::is_done)
    }

    /// Whether the end of the connection is a good end of it.
    pub(super) fn is_complete_at_end(&self) -> bool {
        let body = self.body.as_ref();
        body.is_some_and(|body| body.body.ends_with_connection() && body.is_between())
    }

    /// Whether the server closes the connection behind it.
    pub(super) fn closes(&self) -> bool {
        let head = self.head.as_ref();
        head.is_some_and(|head| head.headers.has_token("connection", "close"))
    }

    /// The path that was made.
    pub(super) fn token(&self) -> Option<Token> {
        let head = self.head.as_ref()?;
        Token::parse(head.headers.single("sheetbend-path").ok()??)
    }

    /// A field that is a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, HttpError> {
        let Some(head) = &self.head else { return Ok(None) };
        let value = head.headers.single(name)?;
        value.map(|value| number(value.as_bytes())).transpose()
    }
}
