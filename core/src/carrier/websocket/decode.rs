//! What comes: frames, unmasked and joined in place. RFC 6455 §5.

use std::io::Cursor;

use bytes::{Buf, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::{Limits, Violation, mask};
use crate::carrier::budget::IdleBudget;
use crate::time::Timestamp;

/// How many PINGs wait for their answers.
const MAX_PINGS: usize = 16;

/// What a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Bytes.
    Binary,
    /// UTF-8.
    Text,
}

/// A frame whose header has come.
#[derive(Debug)]
struct Frame {
    kind: FrameKind,
    /// Bytes of payload that have not been taken in.
    remaining: u64,
    /// Bytes of payload that have.
    taken: usize,
    mask: Option<[u8; 4]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameKind {
    Data { fin: bool },
    Control(Control),
}

/// A message whose last frame has not come.
#[derive(Debug)]
struct Open {
    kind: Message,
    bytes: u64,
    frames: u32,
    /// The last bytes of a text that may be the beginning of a character.
    tail: Tail,
}

/// Reads frames. The buffer it works on holds, in this order: payload that is clean, a gap where headers and
/// payload that was moved away lay, and bytes as they came.
#[derive(Debug)]
pub(super) struct Decoder {
    limits: Limits,
    is_server: bool,
    gap: usize,
    frame: Option<Frame>,
    message: Option<Open>,
    control: Vec<u8>,
    /// Frames without data that are allowed.
    idle: IdleBudget,
    /// What the last PINGs held, until they are answered.
    pub(super) pings: Vec<Vec<u8>>,
    /// The peer has closed; with which code.
    pub(super) close: Option<Option<u16>>,
    pub(super) stops: bool,
    pub(super) ended: Option<Message>,
}

fn protocol(what: &'static str) -> Violation {
    Violation::new(CloseCode::Protocol, what)
}

impl Decoder {
    pub(super) fn new(limits: Limits, is_server: bool) -> Decoder {
        Decoder {
            limits,
            is_server,
            gap: 0,
            frame: None,
            message: None,
            control: Vec::new(),
            idle: IdleBudget::new(limits.idle_frames),
            pings: Vec::new(),
            close: None,
            stops: false,
            ended: None,
        }
    }

    pub(super) fn shrink(&mut self) {
        self.control.shrink_to_fit();
    }

    /// Makes what came clean, as far as it goes. Nothing is read behind a closing frame.
    pub(super) fn decode(
        &mut self,
        now: Timestamp,
        input: &mut BytesMut,
        clean: &mut usize,
    ) -> Result<(), Violation> {
        self.take_frames(now, input, clean)?;
        if input.len() == *clean + self.gap {
            input.truncate(*clean);
            self.gap = 0;
        }
        Ok(())
    }

    fn take_frames(
        &mut self,
        now: Timestamp,
        input: &mut BytesMut,
        clean: &mut usize,
    ) -> Result<(), Violation> {
        while self.close.is_none() && self.ended.is_none() {
            if *clean == 0 && self.gap > 0 {
                input.advance(self.gap);
                self.gap = 0;
            }
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.header(now, input, *clean)? {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
            };
            let start = *clean + self.gap;
            let here = input.len() - start;
            let count = usize::try_from(frame.remaining).map_or(here, |all| all.min(here));
            if let Some(key) = frame.mask
                && let Some(piece) = input.get_mut(start..start + count)
            {
                mask::apply(piece, key, frame.taken);
            }
            frame.taken += count;
            frame.remaining -= count as u64;
            let done = frame.remaining == 0;
            match frame.kind {
                FrameKind::Data { fin } => {
                    self.check_text(input.get(start..start + count).unwrap_or_default(), fin && done)?;
                    self.join(input, clean, count);
                    if done {
                        self.end_data(fin);
                    }
                }
                FrameKind::Control(kind) => {
                    let piece = input.get(start..start + count).unwrap_or_default();
                    self.control.extend_from_slice(piece);
                    self.gap += count;
                    if done {
                        self.end_control(kind)?;
                    }
                }
            }
            if !done {
                self.frame = Some(frame);
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next header, checked, which then belongs to the gap.
    fn header(&mut self, now: Timestamp, input: &BytesMut, clean: usize) -> Result<Option<Frame>, Violation> {
        let raw = input.get(clean + self.gap..).unwrap_or_default();
        // Judged by the first byte, before more is waited for.
        if raw.first().is_some_and(|first| first & 0x70 != 0) {
            return Err(protocol("a reserved bit is set"));
        }
        let mut cursor = Cursor::new(raw);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| protocol("a reserved opcode"))?;
        let Some((header, len)) = parsed else {
            return Ok(None);
        };
        let used = usize::try_from(cursor.position()).unwrap_or(0);
        let shortest = header.len(len);
        if used != shortest {
            return Err(protocol("a length that is not as short as possible"));
        }
        if len > i64::MAX as u64 {
            return Err(protocol("a length with its highest bit set"));
        }
        if header.mask.is_some() != self.is_server {
            return Err(protocol(match self.is_server {
                true => "a frame of a client is not masked",
                false => "a frame of a server is masked",
            }));
        }
        let kind = self.admit(now, &header, len)?;
        self.gap += used;
        Ok(Some(Frame {
            kind,
            remaining: len,
            taken: 0,
            mask: header.mask,
        }))
    }

    /// Whether a frame of that header may come.
    fn admit(&mut self, now: Timestamp, header: &FrameHeader, len: u64) -> Result<FrameKind, Violation> {
        let data = match header.opcode {
            OpCode::Control(kind) => {
                if !header.is_final {
                    return Err(protocol("a fragmented control frame"));
                }
                if len > 125 {
                    return Err(protocol("a control frame of more than 125 bytes"));
                }
                self.spend(now)?;
                self.control.clear();
                return Ok(FrameKind::Control(kind));
            }
            OpCode::Data(data) => data,
        };
        if len == 0 {
            self.spend(now)?;
        }
        match (data, &self.message) {
            (Data::Continue, None) => return Err(protocol("a continuation of nothing")),
            (Data::Continue, Some(_)) => {}
            (_, Some(_)) => return Err(protocol("a new message inside another")),
            (Data::Text, None) if !self.limits.text => {
                return Err(Violation::new(CloseCode::Unsupported, "a text message"));
            }
            (kind, None) => {
                self.message = Some(Open {
                    kind: if kind == Data::Text {
                        Message::Text
                    } else {
                        Message::Binary
                    },
                    bytes: 0,
                    frames: 0,
                    tail: Tail::default(),
                });
            }
        }
        let limits = self.limits;
        if let Some(message) = &mut self.message {
            message.frames += 1;
            message.bytes = message.bytes.saturating_add(len);
            if message.bytes > limits.message {
                return Err(Violation::new(CloseCode::Size, "a message that is too large"));
            }
            if message.frames > limits.frames {
                return Err(Violation::new(CloseCode::Policy, "a message of too many frames"));
            }
        }
        Ok(FrameKind::Data { fin: header.is_final })
    }

    /// Takes the price of a frame without data.
    fn spend(&mut self, now: Timestamp) -> Result<(), Violation> {
        if !self.idle.spend(now) {
            return Err(Violation::new(CloseCode::Policy, "too many frames without data"));
        }
        Ok(())
    }

    fn check_text(&mut self, piece: &[u8], last: bool) -> Result<(), Violation> {
        match &mut self.message {
            Some(message) if message.kind == Message::Text => match message.tail.check(piece, last) {
                true => Ok(()),
                false => Err(Violation::new(CloseCode::Invalid, "a text that is not UTF-8")),
            },
            _ => Ok(()),
        }
    }

    /// Joins `count` bytes of payload behind the gap to what is clean, by moving what is shorter. So all
    /// that is moved in a connection's life is no more than what it received.
    fn join(&mut self, input: &mut BytesMut, clean: &mut usize, count: usize) {
        let start = *clean + self.gap;
        if self.gap == 0 || count == 0 {
        } else if *clean <= count {
            input.copy_within(0..*clean, self.gap);
            input.advance(self.gap);
            self.gap = 0;
        } else {
            input.copy_within(start..start + count, *clean);
        }
        *clean += count;
    }

    fn end_data(&mut self, fin: bool) {
        if !fin {
            return;
        }
        if let Some(message) = self.message.take()
            && self.stops
        {
            self.ended = Some(message.kind);
        }
    }

    fn end_control(&mut self, kind: Control) -> Result<(), Violation> {
        match kind {
            Control::Ping => {
                // RFC 6455 §5.5.3: only the latest needs an answer.
                if self.pings.len() >= MAX_PINGS {
                    self.pings.remove(0);
                }
                self.pings.push(std::mem::take(&mut self.control));
            }
            Control::Close => self.close = Some(self.close_code()?),
            _ => {}
        }
        Ok(())
    }

    fn close_code(&self) -> Result<Option<u16>, Violation> {
        let Some((code, reason)) = self.control.split_first_chunk::<2>() else {
            return match self.control.is_empty() {
                true => Ok(None),
                false => Err(protocol("a closing frame with half a code")),
            };
        };
        let code = u16::from_be_bytes(*code);
        if !CloseCode::from(code).is_allowed() {
            return Err(protocol("a close code that may not be sent"));
        }
        if std::str::from_utf8(reason).is_err() {
            return Err(Violation::new(CloseCode::Invalid, "a reason that is not UTF-8"));
        }
        Ok(Some(code))
    }
}

/// Up to three bytes of a character that is not complete.
#[derive(Debug, Default)]
struct Tail {
    bytes: [u8; 4],
    len: usize,
}

impl Tail {
    /// Whether what came so far can be UTF-8, and with `last` that it is.
    fn check(&mut self, mut piece: &[u8], last: bool) -> bool {
        while self.len > 0
            && let Some((first, rest)) = piece.split_first()
        {
            let Some(slot) = self.bytes.get_mut(self.len) else {
                return false;
            };
            *slot = *first;
            self.len += 1;
            piece = rest;
            match std::str::from_utf8(self.bytes.get(..self.len).unwrap_or_default()) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        if let Err(error) = std::str::from_utf8(piece) {
            if error.error_len().is_some() {
                return false;
            }
            let tail = piece.get(error.valid_up_to()..).unwrap_or_default();
            self.len = tail.len();
            if let Some(slot) = self.bytes.get_mut(..tail.len()) {
                slot.copy_from_slice(tail);
            }
        }
        !last || self.len == 0
    }
}
