//! Bounded reading and writing of handshake bodies, with the field's name in every error.

use bytes::BufMut;

use super::HandshakeError;
use crate::wire::varint;

/// What is left of a body.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts on `body`, which must not be longer than `max`.
    pub(super) fn new(message: &'static str, body: &'a [u8], max: usize) -> Result<Self, HandshakeError> {
        if body.len() > max {
            return Err(HandshakeError::TooLong {
                field: message,
                length: body.len() as u64,
                max: max as u64,
            });
        }
        Ok(Reader { rest: body })
    }

    /// The bytes not read so far.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn varint(&mut self, field: &'static str) -> Result<u64, HandshakeError> {
        if self.rest.is_empty() {
            return Err(HandshakeError::Truncated { field });
        }
        varint::get(&mut self.rest).map_err(|_| HandshakeError::BadVarint { field })
    }

    pub(super) fn varint_in(
        &mut self,
        field: &'static str,
        min: u64,
        max: u64,
    ) -> Result<u64, HandshakeError> {
        let value = self.varint(field)?;
        if value < min || value > max {
            return Err(HandshakeError::OutOfRange {
                field,
                value,
                min,
                max,
            });
        }
        Ok(value)
    }

    /// A list's length, checked before anything is reserved for it.
    pub(super) fn count(&mut self, field: &'static str, max: u64) -> Result<u64, HandshakeError> {
        let count = self.varint(field)?;
        if count > max {
            return Err(HandshakeError::TooMany { field, count, max });
        }
        Ok(count)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], HandshakeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(HandshakeError::Truncated { field })?;
        self.rest = rest;
        Ok(*head)
    }

    /// `length varint, bytes`.
    pub(super) fn bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], HandshakeError> {
        let length = self.varint(field)?;
        let fits = usize::try_from(length).ok().filter(|length| *length <= max);
        let Some(fits) = fits else {
            return Err(HandshakeError::TooLong {
                field,
                length,
                max: max as u64,
            });
        };
        let (head, rest) = self
            .rest
            .split_at_checked(fits)
            .ok_or(HandshakeError::Truncated { field })?;
        self.rest = rest;
        Ok(head)
    }

    /// `length varint, UTF-8`.
    pub(super) fn text(&mut self, field: &'static str, max: usize) -> Result<&'a str, HandshakeError> {
        let bytes = self.bytes(field, max)?;
        std::str::from_utf8(bytes).map_err(|error| HandshakeError::NotUtf8 {
            field,
            valid_up_to: error.valid_up_to(),
        })
    }

    /// Refuses what follows the end.
    pub(super) fn finish(self, message: &'static str) -> Result<(), HandshakeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(HandshakeError::TrailingBytes {
            message,
            bytes: self.rest.len(),
        })
    }
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, value: u64) {
    varint::put(out, value);
}

/// Appends `length varint, bytes`.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.put_slice(bytes);
}
