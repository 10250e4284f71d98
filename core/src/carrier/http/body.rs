//! Where the body of a message ends, and what it holds. RFC 9112 §6 and §7.1, strictly.

use bytes::{Buf, BytesMut};

use super::{HttpError, RequestHead, ResponseHead};
use crate::wire::OutBuffer;

/// The longest line with the size of a chunk, in bytes; extensions are skipped.
const MAX_CHUNK_LINE: usize = 256;
/// Hexadecimal digits in the size of a chunk.
const MAX_CHUNK_DIGITS: usize = 8;

/// What tells where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// This many bytes.
    Fixed(u64),
    /// Chunks, the last of which is empty.
    Chunked,
    /// The end of the connection; of responses only.
    UntilClose,
}

impl RequestHead {
    /// How its body ends.
    ///
    /// # Errors
    /// A transfer coding other than `chunked`, or one in HTTP/1.0.
    pub fn body_length(&self) -> Result<BodyLength, HttpError> {
        match transfer_coding(&self.headers)? {
            true if !self.is_http11 => Err(HttpError::Malformed("Transfer-Encoding in HTTP/1.0")),
            true => Ok(BodyLength::Chunked),
            false => Ok(BodyLength::Fixed(content_length(&self.headers)?.unwrap_or(0))),
        }
    }
}

impl ResponseHead {
    /// How its body ends, if it does not answer HEAD.
    ///
    /// # Errors
    /// A transfer coding other than `chunked`.
    pub fn body_length(&self) -> Result<BodyLength, HttpError> {
        if matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(BodyLength::Fixed(0));
        }
        if transfer_coding(&self.headers)? {
            return Ok(BodyLength::Chunked);
        }
        let length = content_length(&self.headers)?;
        Ok(length.map_or(BodyLength::UntilClose, BodyLength::Fixed))
    }
}

/// Whether the body is chunked. Any other coding is refused.
fn transfer_coding(headers: &super::Headers) -> Result<bool, HttpError> {
    let mut codings = headers.values("transfer-encoding");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(true),
        _ => Err(HttpError::Malformed("a Transfer-Encoding that is not `chunked`")),
    }
}

fn content_length(headers: &super::Headers) -> Result<Option<u64>, HttpError> {
    let Some(text) = headers.single("content-length")? else {
        return Ok(None);
    };
    let length = text.parse();
    length
        .map(Some)
        .map_err(|_| HttpError::Malformed("Content-Length is not a number"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fixed(u64),
    UntilClose,
    /// The line with the size of a chunk.
    Size,
    /// Bytes that the chunk still has.
    Chunk(u64),
    /// CR LF behind a chunk.
    ChunkEnd,
    /// CR LF behind the last chunk: there are no trailers.
    Last,
    Done,
}

/// Takes the body of one message off its connection.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
}

impl BodyDecoder {
    /// For a body of that length.
    pub fn new(length: BodyLength) -> BodyDecoder {
        let state = match length {
            BodyLength::Fixed(0) => State::Done,
            BodyLength::Fixed(length) => State::Fixed(length),
            BodyLength::Chunked => State::Size,
            BodyLength::UntilClose => State::UntilClose,
        };
        BodyDecoder { state }
    }

    /// Whether all of it was taken.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// Moves what belongs to the body from `input` to `body`, and leaves what comes behind it.
    ///
    /// # Errors
    /// [`HttpError::Malformed`]: a chunk that another parser might see elsewhere. Nothing is read on.
    pub fn decode(&mut self, input: &mut BytesMut, body: &mut BytesMut) -> Result<(), HttpError> {
        loop {
            let count = self.front(input)?;
            if count == 0 {
                return Ok(());
            }
            body.extend_from_slice(&input[..count]);
            self.take(input, count);
        }
    }

    /// Takes off what stands between the parts of a body, and tells how many bytes of it are at the front of `input`
    /// then.
    ///
    /// # Errors
    /// As [`BodyDecoder::decode`].
    pub(super) fn front(&mut self, input: &mut BytesMut) -> Result<usize, HttpError> {
        loop {
            match self.state {
                State::Done => return Ok(0),
                State::UntilClose => return Ok(input.len()),
                State::Fixed(left) | State::Chunk(left) => {
                    return Ok(usize::try_from(left).unwrap_or(usize::MAX).min(input.len()));
                }
                State::Size => match chunk_size(input)? {
                    None => return Ok(0),
                    Some(0) => self.state = State::Last,
                    Some(size) => self.state = State::Chunk(size),
                },
                State::ChunkEnd | State::Last => {
                    if !take_line_end(input)? {
                        return Ok(0);
                    }
                    self.state = match self.state {
                        State::ChunkEnd => State::Size,
                        _ => State::Done,
                    };
                }
            }
        }
    }

    /// Takes bytes off the front that [`BodyDecoder::front`] told of.
    pub(super) fn take(&mut self, input: &mut BytesMut, count: usize) {
        input.advance(count);
        match &mut self.state {
            State::Fixed(left) => {
                *left = left.saturating_sub(count as u64);
                if *left == 0 {
                    self.state = State::Done;
                }
            }
            State::Chunk(left) => {
                *left = left.saturating_sub(count as u64);
                if *left == 0 {
                    self.state = State::ChunkEnd;
                }
            }
            _ => {}
        }
    }
}

/// Takes CR LF off; `false` when it has not come.
fn take_line_end(input: &mut BytesMut) -> Result<bool, HttpError> {
    match input.first_chunk::<2>() {
        Some(b"\r\n") => {
            input.advance(2);
            Ok(true)
        }
        None if input.first().is_none_or(|byte| *byte == b'\r') => Ok(false),
        _ => Err(HttpError::Malformed("a chunk does not end where it said")),
    }
}

/// Takes the line with the size of a chunk off. RFC 9112 §7.1: hexadecimal digits and nothing else; extensions
/// mean nothing to us.
fn chunk_size(input: &mut BytesMut) -> Result<Option<u64>, HttpError> {
    let bad = Err(HttpError::Malformed("the size of a chunk"));
    let (mut digits, mut size) = (0, 0_u64);
    while let Some(digit) = input.get(digits).and_then(|byte| char::from(*byte).to_digit(16)) {
        if digits == MAX_CHUNK_DIGITS {
            return bad;
        }
        size = size << 4 | u64::from(digit);
        digits += 1;
    }
    if digits == 0 && !input.is_empty() {
        return bad;
    }
    let window = &input[digits..input.len().min(MAX_CHUNK_LINE)];
    if window.starts_with(b"\r\n") {
        input.advance(digits + 2);
        return Ok(Some(size));
    }
    let Some(&first) = window.first() else {
        return Ok(None);
    };
    if first != b';' && first != b'\r' {
        return bad;
    }
    let visible = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e);
    let extension = window.iter().take_while(|byte| visible(byte)).count();
    match window.get(extension..) {
        Some([b'\r', b'\n', ..]) => {}
        Some([] | [b'\r']) if input.len() < MAX_CHUNK_LINE => return Ok(None),
        _ => return bad,
    }
    input.advance(digits + extension + 2);
    Ok(Some(size))
}

/// Appends what comes before a chunk of `len` bytes, which is not 0.
pub fn begin_chunk(out: &mut OutBuffer, len: usize) {
    debug_assert!(len > 0, "an empty chunk ends the body");
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [0_u8; 18];
    line[16..].copy_from_slice(b"\r\n");
    let mut at = 16;
    let mut rest = len;
    while rest > 0 {
        at -= 1;
        line[at] = DIGITS[rest & 15];
        rest >>= 4;
    }
    out.put(&line[at..]);
}

/// Appends what comes behind a chunk.
pub fn end_chunk(out: &mut OutBuffer) {
    out.put(b"\r\n");
}

/// What ends a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), HttpError> {
        let mut decoder = BodyDecoder::new(BodyLength::Chunked);
        let (mut input, mut body) = (BytesMut::new(), BytesMut::new());
        let mut all = Vec::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            decoder.decode(&mut input, &mut body)?;
            all.extend_from_slice(&body.split());
        }
        Ok((all, input.to_vec(), decoder.is_done()))
    }

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        let whole = b"4\r\nwiki\r\n6;name=\"v\"\r\npedia \r\n0e\r\nin \r\n\r\nchunks.\r\n0\r\n\r\nGET /";
        let expected = b"wikipedia in \r\n\r\nchunks.".to_vec();
        for at in 0..whole.len() {
            let (body, rest, done) = decode(&[&whole[..at], &whole[at..]]).unwrap();
            assert_eq!((body, done), (expected.clone(), true), "cut at {at}");
            assert_eq!(rest, b"GET /");
        }
        let single: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(decode(&single).unwrap().0, expected);
    }

    #[test]
    fn bad_chunks_are_refused() {
        for bad in [
            &b"+4\r\nwiki\r\n"[..],
            b"-1\r\n",
            b"0x4\r\nwiki\r\n",
            b" 4\r\nwiki\r\n",
            b"4 \r\nwiki\r\n",
            b"4 ;a\r\nwiki\r\n",
            b"4\nwiki\r\n",
            b"4\rwiki",
            b"4;a\nb\r\nwiki\r\n",
            b"4;\0\r\nwiki\r\n",
            b"4\r\nwikix\r\n",
            b"4\r\nwiki\n",
            b"\r\n",
            b"g\r\n",
            b"123456789\r\n",
            b"ffffffffffffffff0\r\n",
            b"0\r\nTrailer: x\r\n\r\n",
            b"0\r\nx",
        ] {
            assert!(matches!(decode(&[bad]), Err(HttpError::Malformed(_))), "{bad:?}");
        }
        let long = [b"4;".as_slice(), &[b'x'; 300]].concat();
        assert!(matches!(decode(&[&long]), Err(HttpError::Malformed(_))));
    }

    #[test]
    fn a_length_is_a_length() {
        let mut decoder = BodyDecoder::new(BodyLength::Fixed(5));
        let (mut input, mut body) = (BytesMut::from(&b"hello world"[..]), BytesMut::new());
        decoder.decode(&mut input, &mut body).unwrap();
        assert_eq!(
            (&body[..], &input[..], decoder.is_done()),
            (&b"hello"[..], &b" world"[..], true)
        );
    }

    #[test]
    fn chunks_read_back() {
        for len in [1, 15, 16, 4096, 70_000] {
            let data = vec![b'x'; len];
            let mut out = OutBuffer::new();
            begin_chunk(&mut out, len);
            out.put(&data);
            end_chunk(&mut out);
            out.put(LAST_CHUNK);
            assert_eq!(decode(&[out.chunk()]).unwrap(), (data, Vec::new(), true));
        }
    }
}
