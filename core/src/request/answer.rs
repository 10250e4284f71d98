//! Answers. PROTOCOL 11.4.
//!
//! ```text
//! answer:  varint code << 1 | metadata? || [metadata] ||
//!          code 0: payload to FIN, or items and an end      other codes: a failure to FIN
//! end:     FIN, or end mark || varint code << 1 | metadata? || [metadata] || [failure] || FIN
//! ```
//!
//! Success without metadata is one byte before the payload.

use bytes::{Buf, BufMut, Bytes};

use super::error::AnswerError;
use super::item::put_end_mark;
use super::metadata::{self, Block, Metadata};
use super::status::{Code, Failure};
use crate::wire::{WireError, varint};

fn put_code(out: &mut impl BufMut, code: Code, metadata: &Metadata) {
    varint::put(
        out,
        u64::from(code.value()) << 1 | u64::from(!metadata.is_empty()),
    );
    if !metadata.is_empty() {
        metadata.encode(out);
    }
}

/// Appends the head of a success; payload or items follow.
#[inline]
pub fn put_success(out: &mut impl BufMut, metadata: &Metadata) {
    put_code(out, Code::Ok, metadata);
}

/// Appends a whole answer that is a failure; FIN follows. A failure with [`Code::Ok`] is sent as
/// [`Code::Unknown`].
pub fn put_failure(out: &mut impl BufMut, failure: &Failure, metadata: &Metadata) {
    let code = match failure.code {
        Code::Ok => Code::Unknown,
        code => code,
    };
    put_code(out, code, metadata);
    failure.encode(out);
}

/// Appends what goes behind the last item of an answer, which is nothing for a success without trailers;
/// FIN follows.
pub fn put_end(out: &mut impl BufMut, result: Result<(), &Failure>, trailers: &Metadata) {
    match result {
        Ok(()) if trailers.is_empty() => {}
        Ok(()) => {
            put_end_mark(out);
            put_code(out, Code::Ok, trailers);
        }
        Err(failure) => {
            put_end_mark(out);
            put_failure(out, failure, trailers);
        }
    }
}

/// A whole answer to a call whose answer is one payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The callee's keys and values.
    pub metadata: Metadata,
    /// The payload, or the failure.
    pub result: Result<Bytes, Failure>,
}

impl Answer {
    /// Reads a whole answer: all that the stream gave, FIN seen. The payload is a slice of it.
    ///
    /// # Errors
    /// [`AnswerError`]
    #[inline]
    pub fn from_whole(mut body: Bytes) -> Result<Answer, AnswerError> {
        // The cheap case: success without metadata.
        if body.first() == Some(&0) {
            body.advance(1);
            return Ok(Answer {
                metadata: Metadata::new(),
                result: Ok(body),
            });
        }
        let Some((code, metadata)) = take_head(&mut body)? else {
            return Err(AnswerError::Cut);
        };
        let result = match code {
            Code::Ok => Ok(body),
            code => Err(Failure::decode(code, body)?),
        };
        Ok(Answer { metadata, result })
    }
}

/// Takes code and metadata off the front of `body`; `None` when they are not all there.
pub(super) fn take_head(body: &mut Bytes) -> Result<Option<(Code, Metadata)>, AnswerError> {
    let mut input = &body[..];
    let tag = match varint::field(&mut input, "status code") {
        Ok(tag) => tag,
        Err(WireError::Truncated { .. }) => return Ok(None),
        Err(error) => return Err(AnswerError::Wire(error)),
    };
    let value = tag >> 1;
    let code = u32::try_from(value).map_err(|_| AnswerError::Code { value })?;
    let mut block = Block::default();
    if tag & 1 != 0 {
        match metadata::take_block(&mut input, &mut block) {
            metadata::Cut::Whole => {}
            metadata::Cut::Bad(error) => return Err(AnswerError::Metadata(error)),
            metadata::Cut::Wire(WireError::Truncated { .. }) => return Ok(None),
            metadata::Cut::Wire(error) => return Err(AnswerError::Wire(error)),
        }
    }
    let metadata = match block.is_empty() {
        true => Metadata::new(),
        false => block.to_owned(),
    };
    let used = body.len() - input.len();
    body.advance(used);
    Ok(Some((Code::from_value(code), metadata)))
}

#[cfg(test)]
mod tests {
    use super::super::status::Reason;
    use super::*;

    /// PROTOCOL 11.4: what a cheap answer costs.
    #[test]
    fn success_is_one_byte() {
        let mut out = Vec::new();
        put_success(&mut out, &Metadata::new());
        assert_eq!(out, [0]);
        let answer = Answer::from_whole(Bytes::from_static(b"\0hello")).unwrap();
        assert_eq!(answer.result, Ok(Bytes::from_static(b"hello")));
    }

    #[test]
    fn with_metadata_and_failures() {
        let metadata = Metadata::from_entries([("took-us", &b"15"[..])]).unwrap();
        let mut out = Vec::new();
        put_success(&mut out, &metadata);
        out.extend_from_slice(b"yes");
        let answer = Answer::from_whole(out.into()).unwrap();
        assert_eq!(
            (answer.metadata, answer.result),
            (metadata.clone(), Ok(Bytes::from_static(b"yes")))
        );

        let failure = Failure::refused(Code::Unavailable, Reason::Draining);
        let mut out = Vec::new();
        put_failure(&mut out, &failure, &metadata);
        let whole = Bytes::from(out);
        let answer = Answer::from_whole(whole.clone()).unwrap();
        assert_eq!((answer.metadata, answer.result), (metadata, Err(failure)));
        for end in 0..whole.len() - 30 {
            assert!(Answer::from_whole(whole.slice(..end)).is_err(), "{end}");
        }

        let mut out = Vec::new();
        put_failure(&mut out, &Failure::new(Code::Ok, "no"), &Metadata::new());
        assert_eq!(
            Answer::from_whole(out.into()).unwrap().result.unwrap_err().code,
            Code::Unknown
        );
    }

    #[test]
    fn malformed_answers() {
        let read = |bytes: &[u8]| Answer::from_whole(Bytes::copy_from_slice(bytes)).unwrap_err();
        assert_eq!(read(b""), AnswerError::Cut);
        assert_eq!(read(&[0x80]), AnswerError::Cut);
        assert_eq!(read(&[0xff; 9]), AnswerError::Code { value: u64::MAX >> 1 });
        assert!(matches!(
            read(&[0x80, 0x01]),
            AnswerError::Wire(WireError::NotMinimal { .. })
        ));
        assert!(matches!(read(&[1, 0xc0, 0x40, 0x01]), AnswerError::Metadata(_)));
    }
}
