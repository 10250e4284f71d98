//! The four ways down, and how what goes down is written in each. PROTOCOL 14.7.

use std::fmt;
use std::str::FromStr;

use bytes::{Buf, BytesMut};
use data_encoding::BASE64;

use super::body::{begin_chunk, end_chunk};
use super::{HttpError, RequestHead};
use crate::wire::{OutBuffer, varint};

/// How the server's bytes come to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// One response without end, of blocks as they are.
    Binary,
    /// One response without end, of server-sent events in base64.
    Sse,
    /// One response without end, of lines of JSON in base64.
    Ndjson,
    /// One whole response after another, of blocks as they are.
    Poll,
}

/// A word that is none of the modes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a mode: known are binary, sse, ndjson and poll")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Mode, UnknownMode> {
        let all = [Mode::Binary, Mode::Sse, Mode::Ndjson, Mode::Poll];
        let known = all.into_iter().find(|mode| mode.name() == text);
        known.ok_or_else(|| UnknownMode(text.chars().filter(|c| !c.is_control()).take(32).collect()))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Mode {
    /// As it is written in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Binary => "binary",
            Mode::Sse => "sse",
            Mode::Ndjson => "ndjson",
            Mode::Poll => "poll",
        }
    }

    /// The media type of its responses.
    pub fn media_type(self) -> &'static str {
        match self {
            Mode::Binary | Mode::Poll => "application/octet-stream",
            Mode::Sse => "text/event-stream",
            Mode::Ndjson => "application/x-ndjson",
        }
    }

    /// What to try where this does not get through.
    pub fn next(self) -> Option<Mode> {
        match self {
            Mode::Binary => Some(Mode::Sse),
            Mode::Sse | Mode::Ndjson => Some(Mode::Poll),
            Mode::Poll => None,
        }
    }

    /// The first of the streaming modes that the client names in `Accept`; binary where it names none.
    pub fn accepted(head: &RequestHead) -> Mode {
        let types = head.headers.tokens("accept");
        let mut names = types.map(|name| name.split(';').next().unwrap_or_default().trim_end());
        names
            .find_map(|name| {
                let modes = [Mode::Sse, Mode::Ndjson, Mode::Binary];
                modes
                    .into_iter()
                    .find(|mode| name.eq_ignore_ascii_case(mode.media_type()))
            })
            .unwrap_or(Mode::Binary)
    }
}

/// What goes beside the bytes of a path, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The sender has all of the other direction up to this position. Also a sign of life.
    Received(u64),
    /// The sender will send nothing more: the path is over.
    End,
    /// From a client: the downlink goes on in the response to this upload.
    Turn,
    /// From a server: the streaming upload of this number is being read. From a client, and from a server behind a
    /// turn: what follows begins at this position.
    Mark(u64),
}

/// What a decoder found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The next bytes of the path are at the front of the buffer, this many.
    Data(usize),
    /// Something beside them.
    Note(Note),
}

/// The most bytes of the path in one event or line.
const MAX_PIECE: usize = 48 * 1024;
/// The most bytes of the path in one block.
const MAX_BLOCK: usize = 1 << 20;
/// The longest line of an event stream or of NDJSON, in bytes.
const MAX_LINE: usize = 128 * 1024;
/// Memory for the text of an event that is kept for the next, in bytes.
const MAX_KEPT: usize = 4096;
/// Fields of one event beside the data.
const MAX_FIELDS: usize = 16;
/// The largest value in a note.
const MAX_VALUE: u64 = 1 << 61;

const DATA: u64 = 0;
const RECEIVED: u64 = 1;
const END: u64 = 2;
const MARK: u64 = 3;

/// What an `END` says by its value: that, or that the downlink turns.
const OVER: u64 = 0;
const TURN: u64 = 1;

/// Appends bytes of the path, which begin at `position`, as one chunk or more; of poll responses without chunks.
pub fn put_data(mode: Mode, position: u64, data: &[u8], out: &mut OutBuffer) {
    let most = match mode {
        Mode::Binary | Mode::Poll => MAX_BLOCK,
        Mode::Sse | Mode::Ndjson => MAX_PIECE,
    };
    let mut end = position;
    for piece in data.chunks(most) {
        end += piece.len() as u64;
        match mode {
            Mode::Binary => {
                let head = (piece.len() as u64) << 2 | DATA;
                begin_chunk(out, varint::len(head) + piece.len());
                put_varint(head, out);
                out.put(piece);
                end_chunk(out);
            }
            Mode::Poll => {
                put_varint((piece.len() as u64) << 2 | DATA, out);
                out.put(piece);
            }
            Mode::Sse => put_base64(["id: ", "\ndata: ", "\n\n"], end, piece, out),
            Mode::Ndjson => put_base64(["{\"id\":", ",\"data\":\"", "\"}\n"], end, piece, out),
        }
    }
}

/// Appends a note, as one chunk; of poll responses without.
pub fn put_note(mode: Mode, note: Note, out: &mut OutBuffer) {
    let (kind, value, name) = match note {
        Note::Received(position) => (RECEIVED, position, "received"),
        Note::End => (END, OVER, "end"),
        Note::Turn => (END, TURN, "turn"),
        Note::Mark(value) => (MARK, value, "mark"),
    };
    let head = value << 2 | kind;
    match mode {
        Mode::Binary => {
            begin_chunk(out, varint::len(head));
            put_varint(head, out);
            end_chunk(out);
        }
        Mode::Poll => put_varint(head, out),
        Mode::Sse => put_text(&[format!("event: {name}\ndata: {value}\n\n").as_bytes()], out),
        Mode::Ndjson => put_text(&[format!("{{\"{name}\":{value}}}\n").as_bytes()], out),
    }
}

/// Appends what says that the stream is alive, as one chunk, and nothing else: a comment, an empty line.
pub fn put_alive(mode: Mode, received: u64, out: &mut OutBuffer) {
    match mode {
        Mode::Binary | Mode::Poll => put_note(mode, Note::Received(received), out),
        Mode::Sse => put_text(&[b":\n\n"], out),
        Mode::Ndjson => put_text(&[b"\n"], out),
    }
}

/// Appends what an event stream begins with: how long a browser waits before it asks again.
pub fn put_preamble(mode: Mode, out: &mut OutBuffer) {
    if mode == Mode::Sse {
        put_text(&[b"retry: 500\n\n"], out);
    }
}

/// Appends what [`put_note`] and [`put_data`] would: that there is all up to `received`, and bytes of the path. In one
/// chunk where that is blocks.
pub(super) fn put_both(mode: Mode, received: u64, position: u64, data: &[u8], out: &mut OutBuffer) {
    if mode != Mode::Binary || data.is_empty() || data.len() > MAX_BLOCK {
        put_note(mode, Note::Received(received), out);
        return put_data(mode, position, data, out);
    }
    let (note, note_len) = varint::array(received << 2 | RECEIVED);
    let (head, head_len) = varint::array((data.len() as u64) << 2 | DATA);
    begin_chunk(out, note_len + head_len + data.len());
    out.put(note.get(..note_len).unwrap_or_default());
    out.put(head.get(..head_len).unwrap_or_default());
    out.put(data);
    end_chunk(out);
}

/// Appends a chunk of words around a position and a piece in base64.
fn put_base64(words: [&str; 3], position: u64, piece: &[u8], out: &mut OutBuffer) {
    let mut digits = [0; 20];
    let digits = decimal(position, &mut digits);
    let text = BASE64.encode_len(piece.len());
    let around: usize = words.iter().map(|words| words.len()).sum();
    begin_chunk(out, around + digits.len() + text);
    out.put(words[0].as_bytes());
    out.put(digits);
    out.put(words[1].as_bytes());
    out.put_with(text, |text| BASE64.encode_mut(piece, text));
    out.put(words[2].as_bytes());
    end_chunk(out);
}

/// The digits of a number, in room for the longest.
fn decimal(value: u64, room: &mut [u8; 20]) -> &[u8] {
    let (mut at, mut rest) = (room.len(), value);
    loop {
        at -= 1;
        // Below ten.
        room[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &room[at..];
        }
    }
}

/// Appends the digits of a number.
pub(super) fn push_decimal(value: u64, out: &mut String) {
    let mut room = [0; 20];
    out.extend(decimal(value, &mut room).iter().map(|digit| char::from(*digit)));
}

fn put_varint(value: u64, out: &mut OutBuffer) {
    let (bytes, len) = varint::array(value);
    out.put(bytes.get(..len).unwrap_or_default());
}

fn put_text(parts: &[&[u8]], out: &mut OutBuffer) {
    begin_chunk(out, parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.put(part));
    end_chunk(out);
}

/// Reads what [`put_data`] and [`put_note`] wrote, without the chunks.
#[derive(Debug)]
pub struct ItemDecoder {
    mode: Mode,
    /// Bytes of the block at the front of the input; they are handed out as they come.
    block: u64,
    /// The last piece that was handed out: its position behind it, where the text said it.
    said: Option<u64>,
    event: Event,
    /// What came in front of the text; RFC-less, HTML §9.2.6: one byte order mark is skipped.
    begun: bool,
}

/// The fields of an event that has not ended.
#[derive(Debug, Default)]
struct Event {
    name: Vec<u8>,
    id: Option<Result<u64, HttpError>>,
    data: Vec<u8>,
    has_data: bool,
    fields: usize,
}

impl Event {
    /// Keeps the memory for the next, unless that is much.
    fn clear(&mut self) {
        self.name.clear();
        self.id = None;
        self.data.clear();
        if self.data.capacity() > MAX_KEPT {
            self.data = Vec::new();
        }
        self.has_data = false;
        self.fields = 0;
    }
}

impl ItemDecoder {
    /// A decoder for bodies of that mode.
    pub fn new(mode: Mode) -> ItemDecoder {
        ItemDecoder {
            mode,
            block: 0,
            said: None,
            event: Event::default(),
            begun: false,
        }
    }

    /// The next item; `None` when more is needed. With [`Item::Data`] so many bytes at the front of `plain` are the
    /// path's, to be taken off there: decoded ones in `plain` where the mode is text, otherwise those of `body`.
    ///
    /// # Errors
    /// What came is not of this mode.
    pub fn next(&mut self, body: &mut BytesMut, plain: &mut BytesMut) -> Result<Option<Item>, HttpError> {
        match self.mode {
            Mode::Binary | Mode::Poll => self.next_block(body, plain),
            Mode::Sse => self.next_event(body, plain),
            Mode::Ndjson => self.next_line(body, plain),
        }
    }

    /// The position behind the data that was handed out last, as the text says it; once.
    pub fn take_position(&mut self) -> Option<u64> {
        self.said.take()
    }

    /// Whether nothing is under way: a whole response may end here.
    pub fn is_between(&self) -> bool {
        self.block == 0 && self.event.fields == 0
    }

    fn next_block(&mut self, body: &mut BytesMut, plain: &mut BytesMut) -> Result<Option<Item>, HttpError> {
        let (used, item) = self.block_at(body)?;
        body.advance(used);
        if let Some(Item::Data(count)) = item {
            plain.extend_from_slice(&body[..count]);
            body.advance(count);
        }
        Ok(item)
    }

    /// What is at the front of `bytes`, and how many come before it. Where it is data, those are to be taken off there.
    /// Blocks alone are read so, and only where all that came before was.
    pub(super) fn block_at(&mut self, bytes: &[u8]) -> Result<(usize, Option<Item>), HttpError> {
        if self.block == 0 {
            let Some((head, used)) = front_varint(bytes)? else {
                return Ok((0, None));
            };
            let value = head >> 2;
            let note = match head & 3 {
                RECEIVED if value <= MAX_VALUE => Note::Received(value),
                MARK if value <= MAX_VALUE => Note::Mark(value),
                END if value == OVER => Note::End,
                END if value == TURN => Note::Turn,
                DATA if (1..=MAX_BLOCK as u64).contains(&value) => {
                    self.block = value;
                    return self.rest_of_block(used, bytes.len() - used);
                }
                _ => return Err(HttpError::Malformed("a block of no meaning")),
            };
            return Ok((used, Some(Item::Note(note))));
        }
        self.rest_of_block(0, bytes.len())
    }

    /// As much of a block as there is, behind what was used.
    fn rest_of_block(&mut self, used: usize, here: usize) -> Result<(usize, Option<Item>), HttpError> {
        let count = usize::try_from(self.block).unwrap_or(usize::MAX).min(here);
        self.block -= count as u64;
        Ok((used, (count > 0).then_some(Item::Data(count))))
    }

    /// Whether blocks are read, and no text.
    pub(super) fn reads_blocks(&self) -> bool {
        matches!(self.mode, Mode::Binary | Mode::Poll)
    }

    fn next_line(&mut self, body: &mut BytesMut, plain: &mut BytesMut) -> Result<Option<Item>, HttpError> {
        while let Some(line) = take_line(body)? {
            if line.is_empty() {
                continue;
            }
            return self.json(&line, plain).map(Some);
        }
        Ok(None)
    }

    /// One of the few objects that there are, as a server writes them: any JSON parser reads them, and we need none.
    fn json(&mut self, line: &[u8], plain: &mut BytesMut) -> Result<Item, HttpError> {
        let bad = HttpError::Malformed("a line that no server writes");
        let inner = line.strip_prefix(b"{\"").and_then(|rest| rest.strip_suffix(b"}"));
        let inner = inner.ok_or(bad.clone())?;
        let end = inner.iter().position(|byte| *byte == b'"').ok_or(bad.clone())?;
        let (name, rest) = inner.split_at(end);
        let rest = rest.strip_prefix(b"\":").ok_or(bad.clone())?;
        if name == b"id" {
            let comma = rest.iter().position(|byte| *byte == b',').ok_or(bad.clone())?;
            let (id, rest) = rest.split_at(comma);
            let text = rest
                .strip_prefix(b",\"data\":\"")
                .and_then(|rest| rest.strip_suffix(b"\""));
            let count = unbase64(text.ok_or(bad.clone())?, plain)?;
            self.said = Some(number(id)?);
            return Ok(Item::Data(count));
        }
        let value = number(rest)?;
        note(name, value).ok_or(bad).map(Item::Note)
    }

    /// HTML §9.2.6, with our fields alone.
    fn next_event(&mut self, body: &mut BytesMut, plain: &mut BytesMut) -> Result<Option<Item>, HttpError> {
        if !self.begun && !body.is_empty() {
            if b"\xef\xbb\xbf".starts_with(&body[..body.len().min(2)]) && body.len() < 3 {
                return Ok(None);
            }
            self.begun = true;
            if body.starts_with(b"\xef\xbb\xbf") {
                body.advance(3);
            }
        }
        while let Some((line, end)) = event_line(body)? {
            if line == 0 {
                body.advance(end);
                if let Some(item) = self.dispatch(plain)? {
                    return Ok(Some(item));
                }
                continue;
            }
            self.field(&body[..line])?;
            body.advance(end);
        }
        Ok(None)
    }

    fn field(&mut self, line: &[u8]) -> Result<(), HttpError> {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(0) => return Ok(()),
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let event = &mut self.event;
        event.fields += 1;
        if event.fields > MAX_FIELDS {
            return Err(HttpError::TooLarge);
        }
        match name {
            b"event" => {
                event.name.clear();
                event.name.extend_from_slice(value);
            }
            b"id" if !value.contains(&0) => event.id = Some(number(value)),
            b"data" if event.has_data => {
                return Err(HttpError::Malformed("an event of several lines"));
            }
            b"data" => {
                event.data.extend_from_slice(value);
                event.has_data = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, plain: &mut BytesMut) -> Result<Option<Item>, HttpError> {
        let item = self.whole_event(plain);
        self.event.clear();
        item
    }

    fn whole_event(&mut self, plain: &mut BytesMut) -> Result<Option<Item>, HttpError> {
        let event = &mut self.event;
        if !event.has_data {
            return Ok(None);
        }
        if matches!(event.name.as_slice(), b"" | b"message") {
            let id = event
                .id
                .take()
                .ok_or(HttpError::Malformed("an event without its id"))?;
            let count = unbase64(&event.data, plain)?;
            self.said = Some(id?);
            return Ok(Some(Item::Data(count)));
        }
        // What a later version may add is skipped.
        Ok(note(&event.name, number(&event.data).unwrap_or(u64::MAX)).map(Item::Note))
    }
}

fn note(name: &[u8], value: u64) -> Option<Note> {
    match name {
        b"received" if value <= MAX_VALUE => Some(Note::Received(value)),
        b"mark" if value <= MAX_VALUE => Some(Note::Mark(value)),
        b"end" => Some(Note::End),
        _ => None,
    }
}

/// A decimal number as we write them.
pub(super) fn number(text: &[u8]) -> Result<u64, HttpError> {
    let bad = HttpError::Malformed("not a number");
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    let value = text
        .iter()
        .fold(0_u64, |value, byte| value * 10 + u64::from(byte - b'0'));
    if value > MAX_VALUE { Err(bad) } else { Ok(value) }
}

/// Decodes padded base64 behind `plain`, and tells how many bytes it was.
fn unbase64(text: &[u8], plain: &mut BytesMut) -> Result<usize, HttpError> {
    let bad = || HttpError::Malformed("not base64");
    let most = BASE64.decode_len(text.len()).map_err(|_| bad())?;
    let before = plain.len();
    plain.resize(before + most, 0);
    match BASE64.decode_mut(text, &mut plain[before..]) {
        Ok(count) if count > 0 => {
            plain.truncate(before + count);
            Ok(count)
        }
        _ => {
            plain.truncate(before);
            Err(bad())
        }
    }
}

/// The varint at the front, and its length.
fn front_varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, HttpError> {
    let mut rest = bytes;
    let Some(first) = rest.first() else {
        return Ok(None);
    };
    if rest.len() <= first.leading_ones() as usize {
        return Ok(None);
    }
    let value = varint::get(&mut rest).map_err(|_| HttpError::Malformed("a block of no meaning"))?;
    Ok(Some((value, bytes.len() - rest.len())))
}

/// Takes a line that ends with LF off, without its end.
fn take_line(body: &mut BytesMut) -> Result<Option<BytesMut>, HttpError> {
    let window = &body[..body.len().min(MAX_LINE)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(at) => {
            let mut line = body.split_to(at + 1);
            line.truncate(at);
            Ok(Some(line))
        }
        None if body.len() >= MAX_LINE => Err(HttpError::TooLarge),
        None => Ok(None),
    }
}

/// The length of the line at the front, without its end and with it: a line of an event stream ends with CR LF, LF or
/// CR.
fn event_line(body: &[u8]) -> Result<Option<(usize, usize)>, HttpError> {
    let window = &body[..body.len().min(MAX_LINE)];
    let end = window.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
    let Some(at) = end else {
        return if body.len() >= MAX_LINE {
            Err(HttpError::TooLarge)
        } else {
            Ok(None)
        };
    };
    let ends = match body.get(at..at + 2) {
        Some(b"\r\n") => 2,
        // LF may follow.
        None if body.get(at) == Some(&b'\r') => return Ok(None),
        _ => 1,
    };
    Ok(Some((at, at + ends)))
}
