//! One path at the server: what its exchanges bring and take. PROTOCOL 14.7.

use std::io::IoSlice;
use std::time::Duration;

use bytes::BytesMut;

use super::body::LAST_CHUNK;
use super::exchange::{Exchange, ExchangeKey, Operation, Token};
use super::mode::{self, Mode, Note};
use super::sequence::{Incoming, Outgoing, SequenceError};
use super::{HttpError, RESPONSE_FIELDS};
use crate::time::Timestamp;
use crate::wire::OutBuffer;

/// Limits and times of a path at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Bytes that are kept until the client is known to have them.
    pub keep: usize,
    /// Something goes down at least this often.
    pub alive: Duration,
    /// A path without a downlink is over after this.
    pub orphan: Duration,
    /// How long a poll without an answer is held.
    pub hold: Duration,
    /// How long what came by a streaming upload may wait to be acknowledged.
    pub acknowledge: Duration,
}

impl Default for ServerConfig {
    /// 1 MiB; 15, 20 and 20 seconds; 200 milliseconds.
    fn default() -> ServerConfig {
        ServerConfig {
            keep: 1 << 20,
            alive: Duration::from_secs(15),
            orphan: Duration::from_secs(20),
            hold: Duration::from_secs(20),
            acknowledge: Duration::from_millis(200),
        }
    }
}

/// What came by a streaming upload is acknowledged at once when it is this much.
const ACK_EVERY: u64 = 128 * 1024;

/// Bytes of the path that are laid out for a downlink at once.
const MAX_STEP: usize = 256 * 1024;

/// The exchange that brings bytes.
#[derive(Clone, Copy, Debug)]
struct Upload {
    number: u64,
    position: u64,
    /// The response to it may become the downlink.
    turns: bool,
}

/// Whose response is the downlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// That of the request for it of this number.
    Get(u64),
    /// That of the streaming upload of this number.
    Stream(u64),
}

/// The exchange that takes bytes.
#[derive(Clone, Copy, Debug)]
struct Downlink {
    way: Way,
    /// Its first words are where its bytes begin.
    says_position: bool,
    mode: Mode,
    /// Bytes before this were written.
    position: u64,
    last: Timestamp,
}

/// What an upload of which something came is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// It is the path's.
    Taken,
    /// A newer one has begun: nothing of it is taken.
    Replaced,
}

/// A path of which the server has the exchanges.
///
/// Calls: [`ServerPath::begin`] for each exchange that was asked for, then [`ServerPath::take`] for what an upload
/// brings, [`ServerPath::poll_down`] for what the downlink is to write and [`ServerPath::poll_answer`] for polls.
/// The session's side: [`ServerPath::write`], [`ServerPath::incoming`], [`ServerPath::end`].
#[derive(Debug)]
pub struct ServerPath {
    config: ServerConfig,
    token: Token,
    key: Option<ExchangeKey>,
    incoming: Incoming,
    outgoing: Outgoing,
    uploads: u64,
    upload: Option<Upload>,
    streams: u64,
    stream: Option<Upload>,
    downlinks: u64,
    down: Option<Downlink>,
    trials: u64,
    /// The streaming upload that the client is to be told of.
    mark: Option<u64>,
    /// Up to where the client was told that its bytes came, and since when it was not.
    told: u64,
    untold: Option<Timestamp>,
    /// Something changed after which a downlink may have something to say.
    news: bool,
    /// The client will send nothing more.
    client_ended: bool,
    /// We will send nothing more.
    ended: bool,
    /// It was said.
    end_sent: bool,
    /// When it is over for want of a downlink.
    orphan_at: Timestamp,
    failed: Option<&'static str>,
}

impl ServerPath {
    /// A path of that token, whose first bytes are still to be [taken](ServerPath::create).
    pub fn new(config: ServerConfig, token: Token, now: Timestamp) -> ServerPath {
        ServerPath {
            config,
            token,
            key: None,
            incoming: Incoming::default(),
            outgoing: Outgoing::new(config.keep),
            uploads: 0,
            upload: None,
            streams: 0,
            stream: None,
            downlinks: 0,
            down: None,
            trials: 0,
            mark: None,
            told: 0,
            untold: None,
            news: true,
            client_ended: false,
            ended: false,
            end_sent: false,
            orphan_at: now + config.orphan,
            failed: None,
        }
    }

    /// Its token.
    pub fn token(&self) -> Token {
        self.token
    }

    /// From here on exchanges can be proven.
    pub fn set_key(&mut self, key: ExchangeKey) {
        self.key = Some(key);
    }

    /// Whether something changed, since this was asked last, after which there may be something to write. What is
    /// written by [`ServerPath::write`] does not count, nor does time.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The bytes with which the path was made.
    ///
    /// # Errors
    /// None but misuse.
    pub fn create(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        let position = self.incoming.received();
        self.accept(position, bytes)
    }

    /// Whether the exchange may begin, which then replaces the one before it in its direction.
    ///
    /// # Errors
    /// [`HttpError::Refused`], as which it is answered. A gap ends the path.
    pub fn begin(
        &mut self,
        now: Timestamp,
        exchange: &Exchange,
        mode: Mode,
        last_event: Option<u64>,
    ) -> Result<(), HttpError> {
        let refused = |status, why| Err(HttpError::Refused { status, why });
        self.news |= !matches!(exchange.operation, Operation::Up | Operation::End);
        if !self.key.as_ref().is_some_and(|key| key.verify(exchange)) {
            return refused(403, "the proof is not this path's");
        }
        if self.failed.is_some() || self.end_sent {
            return refused(410, "the path is over");
        }
        match exchange.operation {
            Operation::Up | Operation::Stream | Operation::Both | Operation::End => {
                let streams = matches!(exchange.operation, Operation::Stream | Operation::Both);
                let last = if streams {
                    &mut self.streams
                } else {
                    &mut self.uploads
                };
                if exchange.number <= *last {
                    return refused(409, "this upload was seen before");
                }
                *last = exchange.number;
                if exchange.from > self.incoming.received() {
                    self.fail(SequenceError::Gap);
                    return refused(409, "bytes before these are missing");
                }
                self.acknowledge(exchange.received)?;
                let upload = Some(Upload {
                    number: exchange.number,
                    position: exchange.from,
                    turns: exchange.operation == Operation::Both,
                });
                if streams {
                    if let Some(old) = self.stream {
                        self.lose(now, Way::Stream(old.number));
                    }
                    self.stream = upload;
                    // The other one is told in the response to it.
                    self.mark = Some(exchange.number).filter(|_| exchange.operation == Operation::Stream);
                } else {
                    self.upload = upload;
                }
            }
            Operation::Try => {
                if exchange.number <= self.trials {
                    return refused(409, "this trial was seen before");
                }
                self.trials = exchange.number;
                self.acknowledge(exchange.received)?;
            }
            Operation::Down | Operation::Events | Operation::Poll => {
                // HTML §9.2.4: a browser asks again with the same URL, and says what it had last. Whoever else has
                // the URL can do so, too: only where that was wanted.
                let last_event = last_event.filter(|_| exchange.operation == Operation::Events);
                let again = exchange.number == self.downlinks && last_event.is_some();
                if exchange.number < self.downlinks || (exchange.number == self.downlinks && !again) {
                    return refused(409, "this downlink was seen before");
                }
                let from = last_event.unwrap_or(exchange.from);
                self.acknowledge(from)?;
                if from < self.outgoing.acked() {
                    self.fail(SequenceError::Position);
                    return refused(409, "bytes from there on are gone");
                }
                self.downlinks = exchange.number;
                let mode = match exchange.operation {
                    Operation::Poll => Mode::Poll,
                    Operation::Events => Mode::Sse,
                    _ => mode,
                };
                self.down = Some(Downlink {
                    way: Way::Get(exchange.number),
                    says_position: false,
                    mode,
                    position: from,
                    last: now,
                });
                self.told = u64::MAX;
                self.orphan_at = Timestamp::MAX;
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, position: u64) -> Result<(), HttpError> {
        match self.outgoing.acknowledge(position) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.fail(error);
                Err(HttpError::Refused {
                    status: 409,
                    why: "a position that was never sent",
                })
            }
        }
    }

    fn accept(&mut self, position: u64, bytes: &[u8]) -> Result<(), HttpError> {
        if self.ended || self.client_ended {
            return Ok(());
        }
        let result = self.incoming.accept(position, bytes);
        result.map_err(|error| {
            self.fail(error);
            HttpError::Refused {
                status: 409,
                why: "bytes before these are missing",
            }
        })
    }

    fn fail(&mut self, error: SequenceError) {
        self.news = true;
        self.failed.get_or_insert(match error {
            SequenceError::Gap => "bytes are missing",
            SequenceError::Position => "a position that cannot be",
        });
    }

    /// Takes what an upload brought: the path's bytes.
    ///
    /// # Errors
    /// There is a gap, which ends the path.
    pub fn take(&mut self, number: u64, bytes: &[u8]) -> Result<Uploaded, HttpError> {
        let Some(upload) = self.upload.as_mut().filter(|upload| upload.number == number) else {
            return Ok(Uploaded::Replaced);
        };
        let position = upload.position;
        upload.position += bytes.len() as u64;
        self.accept(position, bytes)?;
        Ok(Uploaded::Taken)
    }

    /// Takes what the streaming upload brought: the path's bytes.
    ///
    /// # Errors
    /// There is a gap, which ends the path.
    pub fn take_streamed(
        &mut self,
        now: Timestamp,
        number: u64,
        bytes: &[u8],
    ) -> Result<Uploaded, HttpError> {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.number == number) else {
            return Ok(Uploaded::Replaced);
        };
        let position = stream.position;
        stream.position += bytes.len() as u64;
        self.accept(position, bytes)?;
        self.untold.get_or_insert(now);
        self.news |= self.incoming.received() >= self.told.saturating_add(ACK_EVERY);
        Ok(Uploaded::Taken)
    }

    /// Takes a note of the streaming upload.
    ///
    /// # Errors
    /// There is a gap, which ends the path.
    pub fn take_note(&mut self, now: Timestamp, number: u64, note: Note) -> Result<Uploaded, HttpError> {
        let received = self.incoming.received();
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.number == number) else {
            return Ok(Uploaded::Replaced);
        };
        self.news |= !matches!(note, Note::Received(_));
        match note {
            Note::Received(position) => self.acknowledge(position)?,
            Note::End => self.client_ended = true,
            // Once: each time would send again what is not acknowledged.
            Note::Turn if std::mem::take(&mut stream.turns) => self.turn(now, number),
            Note::Turn => return Err(HttpError::Malformed("a turn to no response")),
            Note::Mark(position) if position <= received => stream.position = position,
            Note::Mark(_) => {
                self.fail(SequenceError::Gap);
                return Err(HttpError::Sequence(SequenceError::Gap));
            }
        }
        Ok(Uploaded::Taken)
    }

    /// The downlink goes on in the response to a streaming upload, behind what the client is known to have.
    fn turn(&mut self, now: Timestamp, number: u64) {
        self.down = Some(Downlink {
            way: Way::Stream(number),
            says_position: true,
            mode: Mode::Binary,
            position: self.outgoing.acked(),
            last: now,
        });
        self.told = u64::MAX;
        self.orphan_at = Timestamp::MAX;
    }

    /// Whether the response to that streaming upload is the downlink.
    pub fn is_turned(&self, number: u64) -> bool {
        self.down.is_some_and(|down| down.way == Way::Stream(number))
    }

    /// The upload of that number has come to its end; `ends` where it was the path's last.
    pub fn finish_upload(&mut self, number: u64, ends: bool) {
        if self.upload.is_some_and(|upload| upload.number == number) {
            self.upload = None;
            self.client_ended |= ends;
        }
    }

    /// The connection of the streaming upload is gone, or has ended it: so is the downlink, where it was that.
    pub fn lose_stream(&mut self, now: Timestamp, number: u64) {
        if self.stream.is_some_and(|stream| stream.number == number) {
            self.stream = None;
            self.mark = None;
        }
        self.lose(now, Way::Stream(number));
    }

    /// The connection of a downlink is gone.
    pub fn lose_down(&mut self, now: Timestamp, number: u64) {
        self.lose(now, Way::Get(number));
    }

    fn lose(&mut self, now: Timestamp, way: Way) {
        self.news = true;
        if self.down.is_some_and(|down| down.way == way) {
            self.down = None;
            self.orphan_at = now + self.config.orphan;
        }
    }

    /// The response that answers an upload.
    pub fn upload_answer(&self, cors: &str) -> String {
        let sent = self.down.map_or(self.outgoing.acked(), |down| down.position);
        let mut answer = String::with_capacity(128);
        answer.push_str("HTTP/1.1 204 No Content\r\nSheetbend-Received: ");
        mode::push_decimal(self.incoming.received(), &mut answer);
        answer.push_str("\r\nSheetbend-Sent: ");
        mode::push_decimal(sent, &mut answer);
        answer.push_str("\r\nCache-Control: no-store\r\n");
        answer.push_str(cors);
        answer.push_str("\r\n");
        answer
    }

    /// Appends what the downlink of that number is to write, a step of it: nothing where nothing is left. `false`: it is over, and is closed once that is written.
    pub fn poll_down(&mut self, now: Timestamp, number: u64, out: &mut OutBuffer) -> bool {
        self.poll_way(now, Way::Get(number), out)
    }

    /// [`ServerPath::poll_down`] for the response to the streaming upload of that number, which is the downlink.
    pub fn poll_turned(&mut self, now: Timestamp, number: u64, out: &mut OutBuffer) -> bool {
        self.poll_way(now, Way::Stream(number), out)
    }

    fn poll_way(&mut self, now: Timestamp, way: Way, out: &mut OutBuffer) -> bool {
        let over = self.failed.is_some() || self.end_sent;
        let Some(down) = self.down.as_mut().filter(|down| down.way == way && !over) else {
            out.put(LAST_CHUNK);
            return false;
        };
        let before = out.len();
        let received = self.incoming.received();
        if std::mem::take(&mut down.says_position) {
            mode::put_note(down.mode, Note::Mark(down.position), out);
        }
        if let Some(number) = self.mark.take() {
            mode::put_note(down.mode, Note::Mark(number), out);
        }
        let due = self
            .untold
            .is_some_and(|since| since + self.config.acknowledge <= now);
        let data = self.outgoing.from(down.position);
        let data = data.get(..MAX_STEP).unwrap_or(data);
        let streams = self.stream.is_some();
        let behind = self.told == u64::MAX
            || (streams && (due || !data.is_empty()) && received > self.told)
            || (streams && received >= self.told.saturating_add(ACK_EVERY));
        if behind {
            self.told = received;
            mode::put_both(down.mode, received, down.position, data, out);
        } else {
            mode::put_data(down.mode, down.position, data, out);
        }
        if behind || due {
            self.untold = None;
        }
        down.position += data.len() as u64;
        if out.len() > before {
            down.last = now;
        } else if down.last + self.config.alive <= now {
            down.last = now;
            mode::put_alive(down.mode, received, out);
        }
        if self.ended && down.position == self.outgoing.end() {
            mode::put_note(down.mode, Note::End, out);
            out.put(LAST_CHUNK);
            self.end_sent = true;
            return false;
        }
        true
    }

    /// Appends the whole response of the poll of that number, once there is one; `created` for the response to the
    /// request that made the path. `None`: it is to be held.
    pub fn poll_answer(
        &mut self,
        now: Timestamp,
        number: u64,
        cors: &str,
        out: &mut OutBuffer,
    ) -> Option<()> {
        let created = number == 0;
        let down = self.down.filter(|down| down.way == Way::Get(number));
        if !created && down.is_none() {
            // Replaced by another.
            out.put(&super::refusal(&HttpError::Refused {
                status: 409,
                why: "another downlink has begun",
            }));
            return Some(());
        }
        let position = down.map_or(0, |down| down.position);
        let data = self.outgoing.from(position);
        let held = down.is_some_and(|down| now < down.last + self.config.hold);
        let over = self.failed.is_some() || self.ended;
        if data.is_empty() && !over && (created || held) {
            return None;
        }
        let mut body = OutBuffer::new();
        let received = self.incoming.received();
        mode::put_note(Mode::Poll, Note::Received(received), &mut body);
        mode::put_data(Mode::Poll, position, data, &mut body);
        if over {
            mode::put_note(Mode::Poll, Note::End, &mut body);
            self.end_sent = true;
        }
        let path = if created {
            format!("Sheetbend-Path: {}\r\n", self.token)
        } else {
            String::new()
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\n{path}{RESPONSE_FIELDS}{cors}\r\n",
            Mode::Poll.media_type(),
            body.len(),
        );
        out.put(head.as_bytes());
        while !body.is_empty() {
            let chunk = body.chunk();
            out.put(chunk);
            let count = chunk.len();
            body.advance(count);
        }
        self.down = None;
        self.orphan_at = now + self.config.orphan;
        Some(())
    }

    /// What the client sent and the session has not taken.
    pub fn incoming(&mut self) -> &mut BytesMut {
        self.incoming.waiting()
    }

    /// The position up to which the client's bytes have come.
    pub fn received(&self) -> u64 {
        self.incoming.received()
    }

    /// Bytes that the client sent and the session has not taken.
    pub fn held(&self) -> usize {
        self.incoming.held()
    }

    /// Whether the session may write.
    pub fn room(&self) -> usize {
        if self.ended { 0 } else { self.outgoing.room() }
    }

    /// Takes what the session sends, as much as there is room for.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> usize {
        if self.ended {
            0
        } else {
            self.outgoing.write(slices)
        }
    }

    /// The session's side is over: what was written still goes, and the client is told.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether nothing more comes, beyond what waits.
    pub fn is_over(&self) -> bool {
        self.client_ended || self.failed.is_some()
    }

    /// What broke the sequence, if something did.
    pub fn failure(&self) -> Option<&'static str> {
        self.failed
    }

    /// When something is due: a sign of life, an acknowledgement, the answer to a poll, the end.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.is_over() || self.end_sent {
            return None;
        }
        let down = self.down.map(|down| match down.mode {
            Mode::Poll => down.last + self.config.hold,
            _ => down.last + self.config.alive,
        });
        // Whoever polls is told in the answers to its uploads.
        let tells = self.down.is_some_and(|down| down.mode != Mode::Poll);
        let untold = self.untold.filter(|_| tells);
        let untold = untold.map(|since| since + self.config.acknowledge);
        let orphan = Some(self.orphan_at).filter(|at| *at < Timestamp::MAX);
        [down, untold, orphan].into_iter().flatten().min()
    }

    /// Ends the path that nobody has asked for.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.orphan_at <= now {
            self.failed.get_or_insert("no downlink came");
        }
    }

    /// Gives back memory that nothing lies in.
    pub fn shrink(&mut self) {
        self.incoming.shrink();
        self.outgoing.shrink();
    }
}

/// Appends the head of a downlink's response, with the first of its body.
pub fn begin_down(mode: Mode, cors: &str, out: &mut OutBuffer) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\
         {RESPONSE_FIELDS}{cors}\r\n",
        mode.media_type(),
    );
    out.put(head.as_bytes());
    mode::put_preamble(mode, out);
}
