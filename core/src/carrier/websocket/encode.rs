//! What is sent: all records of one call as one binary message of one frame.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{Message, State, WebSocket, mask};
use crate::wire::OutBuffer;

/// Bytes of the longest header.
const MAX_HEADER: usize = 14;

/// A header with the mask, and its length.
fn header(opcode: OpCode, mask: Option<[u8; 4]>, len: usize) -> ([u8; MAX_HEADER], usize) {
    let header = FrameHeader {
        is_final: true,
        opcode,
        mask,
        ..FrameHeader::default()
    };
    let mut bytes = [0; MAX_HEADER];
    let mut cursor = Cursor::new(&mut bytes[..]);
    // There is room for the longest.
    let formatted = header.format(len as u64, &mut cursor);
    debug_assert!(formatted.is_ok());
    let used = usize::try_from(cursor.position()).unwrap_or(0);
    (bytes, used)
}

impl WebSocket {
    /// [`Carrier::prepare`](crate::carrier::Carrier::prepare).
    pub fn prepare(&mut self, out: &mut OutBuffer) {
        debug_assert!(out.is_empty());
        out.put(&[0; MAX_HEADER]);
    }

    /// [`Carrier::seal`](crate::carrier::Carrier::seal).
    pub fn seal(&mut self, out: &mut OutBuffer) {
        self.seal_as(out, Message::Binary);
    }

    /// [`WebSocket::seal`], as a message of that kind.
    pub fn seal_as(&mut self, out: &mut OutBuffer, kind: Message) {
        let empty = out.len() <= MAX_HEADER;
        self.seal_message(out, (!empty).then_some(kind));
    }

    /// Makes a [prepared](WebSocket::prepare) buffer an empty message. Sessions have no use for one.
    pub fn seal_empty(&mut self, out: &mut OutBuffer, kind: Message) {
        self.seal_message(out, Some(kind));
    }

    fn seal_message(&mut self, out: &mut OutBuffer, message: Option<Message>) {
        let records = out.len().saturating_sub(MAX_HEADER);
        let may_send = self.state == State::Open && !self.close_sent;
        match message.filter(|_| may_send) {
            None => out.clear(),
            Some(Message::Binary) => self.frame_front(out, OpCode::Data(Data::Binary), records),
            Some(Message::Text) => self.frame_front(out, OpCode::Data(Data::Text), records),
        }
        // What was asked is answered before anything else is said.
        if may_send && !self.decoder.pings.is_empty() {
            let mut pongs = Vec::new();
            for ping in std::mem::take(&mut self.decoder.pings) {
                self.append_control(&mut pongs, Control::Pong, ping);
            }
            out.put_front(&pongs);
        }
        if !self.pending.is_empty() {
            out.put_front(&std::mem::take(&mut self.pending));
        }
        if self.state == State::Open && self.is_ended() && !self.close_sent {
            self.put_close(out);
        }
    }

    /// Puts the header in the room before the records, and masks them.
    fn frame_front(&mut self, out: &mut OutBuffer, opcode: OpCode, len: usize) {
        let key = self.mask.as_mut().map(|rng| rng.bytes());
        let (bytes, used) = header(opcode, key, len);
        if let Some(key) = key {
            mask::apply_to(out, MAX_HEADER, key);
        }
        out.fill_front(MAX_HEADER, bytes.get(..used).unwrap_or_default());
    }

    fn append_control(&mut self, to: &mut Vec<u8>, kind: Control, mut payload: Vec<u8>) {
        let key = self.mask.as_mut().map(|rng| rng.bytes());
        let (bytes, used) = header(OpCode::Control(kind), key, payload.len());
        if let Some(key) = key {
            mask::apply(&mut payload, key, 0);
        }
        to.extend_from_slice(bytes.get(..used).unwrap_or_default());
        to.extend_from_slice(&payload);
    }

    /// The closing frame: what was wrong, or the peer's code back, or that all is well.
    pub(super) fn put_close(&mut self, out: &mut OutBuffer) {
        self.close_sent = true;
        let (code, reason) = match (&self.failed, self.decoder.close) {
            (Some(violation), _) => (Some(violation.code), violation.what),
            (None, Some(code)) => (code, ""),
            (None, None) => (Some(1000), ""),
        };
        let mut payload = Vec::with_capacity(2 + reason.len());
        if let Some(code) = code {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(reason.as_bytes());
        }
        let mut frame = Vec::new();
        self.append_control(&mut frame, Control::Close, payload);
        out.put(&frame);
    }
}
