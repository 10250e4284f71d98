//! What is asked for next, on which connection.

use super::{ClientConfig, ClientPath, Slot, Stage, Turn};
use crate::carrier::http::body::LAST_CHUNK;
use crate::carrier::http::exchange::{Asked, Exchange, Operation};
use crate::carrier::http::mode::{self, Mode, Note};
use crate::carrier::http::response::Response;
use crate::time::Timestamp;
use crate::wire::OutBuffer;

/// Bytes of one upload at most.
const MAX_UPLOAD: usize = 256 * 1024;
/// The server is told by a request of its own when so much came down.
pub(super) const ACK_EVERY: u64 = 128 * 1024;
/// Streaming uploads that may fail before no more are tried.
const MAX_STREAM_FAILURES: u32 = 2;
/// Bytes of the first request at most: a server takes no more of someone unknown.
const MAX_CREATE: usize = 64 * 1024;

impl ClientPath {
    /// Appends what is to be written to a connection now.
    pub fn poll_transmit(&mut self, now: Timestamp, slot: Slot, out: &mut OutBuffer) {
        if self.lanes[slot as usize].stage != Stage::Open || self.failed.is_some() {
            return;
        }
        match slot {
            Slot::Up => self.transmit_up(now, out),
            Slot::Down => self.transmit_down(now, out),
            Slot::Stream => self.transmit_stream(now, out),
            Slot::Trial => self.transmit_trial(now, out),
        }
    }

    /// Brings about connections that are needed and not there. After anything that may have changed.
    pub(super) fn want(&mut self, now: Timestamp) {
        if self.is_over() || self.key.is_none() {
            return;
        }
        let upload = self.wants_upload();
        if upload {
            self.connect(now, Slot::Up);
        }
        self.want_trial(now);
        if !self.is_turned() && !self.ending {
            self.want_down(now);
        }
        let stream = self.mode == Mode::Binary
            && self.proven
            && self.streaming.failures < MAX_STREAM_FAILURES
            && !self.ending;
        if stream {
            self.connect(now, Slot::Stream);
        }
    }

    /// Whether an upload of its own is to be begun.
    pub(super) fn wants_upload(&self) -> bool {
        if self.token.is_none() || self.key.is_none() {
            return false;
        }
        if self.streaming.active {
            return false;
        }
        if self.ending {
            return !self.end_sent;
        }
        let behind = self.incoming.received() >= self.told + ACK_EVERY && self.mode != Mode::Poll;
        self.outgoing.end() > self.outgoing.acked() || behind
    }

    fn transmit_up(&mut self, now: Timestamp, out: &mut OutBuffer) {
        if !self.lanes[Slot::Up as usize].is_free() {
            return;
        }
        if !self.created {
            if self.outgoing.end() == 0 {
                return;
            }
            self.created = true;
            self.put_upload(now, Asked::Create, out);
        } else if self.wants_upload() {
            let operation = if self.ending {
                Operation::End
            } else {
                Operation::Up
            };
            self.uploads += 1;
            let from = self.outgoing.acked();
            if let Some(exchange) = self.exchange(operation, self.uploads, from) {
                self.put_upload(now, Asked::Exchange(exchange), out);
            }
        }
    }

    fn exchange(&mut self, operation: Operation, number: u64, from: u64) -> Option<Exchange> {
        let received = self.incoming.received();
        self.told = received;
        let (key, token) = (self.key.as_ref()?, self.token?);
        Some(key.sign(operation, token, number, from, received))
    }

    fn put_upload(&mut self, now: Timestamp, asked: Asked, out: &mut OutBuffer) {
        let data = self.outgoing.from(self.outgoing.acked());
        let most = if self.created && self.token.is_none() {
            data.len().min(MAX_CREATE)
        } else {
            MAX_UPLOAD
        };
        let data = &data[..data.len().min(most)];
        let end = self.outgoing.acked() + data.len() as u64;
        // The last one says so only when nothing is left behind it.
        let asked = match asked {
            Asked::Exchange(exchange)
                if exchange.operation == Operation::End && end < self.outgoing.end() =>
            {
                let key = self.key.as_ref();
                let again = key.map(|key| {
                    key.sign(
                        Operation::Up,
                        exchange.token,
                        exchange.number,
                        exchange.from,
                        exchange.received,
                    )
                });
                Asked::Exchange(again.unwrap_or(exchange))
            }
            Asked::Exchange(exchange) if exchange.operation == Operation::End => {
                self.end_sent = true;
                asked
            }
            _ => asked,
        };
        let head = head(&self.config, "POST", &asked, "*/*", Some(data.len()));
        out.put(head.as_bytes());
        out.put(data);
        self.upload_end = end;
        let lane = self.lane(Slot::Up);
        lane.since = now;
        lane.response = Some(Response::new(Mode::Poll));
    }

    fn transmit_down(&mut self, now: Timestamp, out: &mut OutBuffer) {
        if !self.lanes[Slot::Down as usize].is_free() {
            return;
        }
        let operation = match self.mode {
            Mode::Poll => Operation::Poll,
            _ => Operation::Down,
        };
        self.downlinks += 1;
        let from = self.incoming.received();
        let Some(exchange) = self.exchange(operation, self.downlinks, from) else {
            return;
        };
        let asked = Asked::Exchange(exchange);
        out.put(head(&self.config, "GET", &asked, self.mode.media_type(), None).as_bytes());
        let mode = self.mode;
        let lane = self.lane(Slot::Down);
        lane.since = now;
        let mut response = Response::new(mode);
        response.begin_at(from);
        lane.response = Some(response);
        self.progress = now;
        if mode != Mode::Poll {
            self.proven = false;
        }
    }

    fn transmit_trial(&mut self, now: Timestamp, out: &mut OutBuffer) {
        if !self.lanes[Slot::Trial as usize].is_free() {
            return;
        }
        self.trial.number += 1;
        let from = self.incoming.received();
        let Some(exchange) = self.exchange(Operation::Try, self.trial.number, from) else {
            return;
        };
        let mode = self.trial.mode;
        let asked = Asked::Exchange(exchange);
        out.put(head(&self.config, "GET", &asked, mode.media_type(), None).as_bytes());
        let lane = self.lane(Slot::Trial);
        lane.since = now;
        lane.response = Some(Response::new(mode));
    }

    fn transmit_stream(&mut self, now: Timestamp, out: &mut OutBuffer) {
        let received = self.incoming.received();
        if self.lanes[Slot::Stream as usize].is_free() {
            self.streams += 1;
            let number = self.streams;
            let (operation, turn) = match self.streaming.one_way {
                false => (Operation::Both, Turn::Asked),
                true => (Operation::Stream, Turn::Never),
            };
            // It brings nothing before the server has said that it reads it.
            let Some(exchange) = self.exchange(operation, number, self.outgoing.acked()) else {
                return;
            };
            self.streaming.number = number;
            self.streaming.turn = turn;
            self.streaming.worked = false;
            let asked = Asked::Exchange(exchange);
            out.put(head(&self.config, "POST", &asked, "*/*", None).as_bytes());
            mode::put_note(Mode::Binary, Note::Received(received), out);
            let lane = self.lane(Slot::Stream);
            lane.since = now;
            lane.response = Some(Response::new(Mode::Binary));
            return;
        }
        if self.streaming.turn == Turn::Due {
            self.streaming.turn = Turn::Said;
            self.told = received;
            mode::put_note(Mode::Binary, Note::Received(received), out);
            mode::put_note(Mode::Binary, Note::Turn, out);
        }
        if !self.streaming.active || self.lanes[Slot::Up as usize].response.is_some() {
            return;
        }
        if self.streaming.position == u64::MAX {
            self.streaming.position = self.outgoing.acked();
            mode::put_note(Mode::Binary, Note::Mark(self.streaming.position), out);
        }
        let data = self.outgoing.from(self.streaming.position);
        let data = &data[..data.len().min(MAX_UPLOAD)];
        let news = received - self.told;
        if news >= ACK_EVERY || (news > 0 && !data.is_empty()) {
            self.told = received;
            mode::put_both(Mode::Binary, received, self.streaming.position, data, out);
        } else {
            mode::put_data(Mode::Binary, self.streaming.position, data, out);
        }
        if !data.is_empty() {
            self.streaming.position += data.len() as u64;
            self.streaming.waiting_since.get_or_insert(now);
        }
        if self.ending && self.streaming.position == self.outgoing.end() && !self.end_sent {
            self.end_sent = true;
            mode::put_note(Mode::Binary, Note::End, out);
            out.put(LAST_CHUNK);
        }
    }
}

/// The head of a request; without a length its body is chunked, if it has one.
fn head(config: &ClientConfig, method: &str, asked: &Asked, accept: &str, length: Option<usize>) -> String {
    let mut head = String::with_capacity(512);
    head.push_str(method);
    head.push(' ');
    asked.put_target(&config.target, &mut head);
    for part in [
        " HTTP/1.1\r\nHost: ",
        &config.host,
        "\r\nAccept: ",
        accept,
        "\r\n",
    ] {
        head.push_str(part);
    }
    if let Some(origin) = &config.origin {
        for part in ["Origin: ", origin, "\r\n"] {
            head.push_str(part);
        }
    }
    head.push_str(match method {
        "GET" => "Cache-Control: no-store\r\n\r\n",
        _ => "Content-Type: application/octet-stream\r\n",
    });
    match length {
        _ if method == "GET" => {}
        Some(length) => {
            head.push_str("Content-Length: ");
            mode::push_decimal(length as u64, &mut head);
            head.push_str("\r\n\r\n");
        }
        None => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
    }
    head
}
