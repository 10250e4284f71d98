//! One path at the client: which exchanges it asks for, on which connection, and what to do when one does not get
//! through. PROTOCOL 14.7.

use std::io::IoSlice;
use std::time::Duration;

use bytes::BytesMut;

use super::HttpError;
use super::body::LAST_CHUNK;
use super::exchange::{Asked, Exchange, ExchangeKey, Operation, Token};
use super::mode::{self, Item, Mode, Note};
use super::response::Response;
use super::sequence::{Incoming, Outgoing};
use crate::time::Timestamp;
use crate::wire::OutBuffer;

/// Where requests go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// The field `Host`: the name, and the port where it is not the scheme's own.
    pub host: String,
    /// The path and query of the server's URL, without `mode`.
    pub target: String,
    /// The field `Origin`, where the server wants one.
    pub origin: Option<String>,
    /// The only way down that is used; otherwise the best that gets through.
    pub mode: Option<Mode>,
    /// The way down to begin with where none is the only one: the best that got through last.
    pub first: Mode,
    /// Bytes that are kept until the server is known to have them.
    pub keep: usize,
    /// The least time in which a downlink's first bytes must come.
    pub probe: Duration,
    /// How long an answer to a short upload is waited for, at least.
    pub patience: Duration,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// A downlink on which nothing came for this long is replaced.
    pub silence: Duration,
}

impl ClientConfig {
    /// The usual one, for a server at that host: 1 MiB; 1, 2, 10 and 40 seconds.
    pub fn new(host: String, target: String) -> ClientConfig {
        ClientConfig {
            host,
            target,
            origin: None,
            mode: None,
            first: Mode::Binary,
            keep: 1 << 20,
            probe: Duration::from_secs(1),
            patience: Duration::from_secs(2),
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(40),
        }
    }
}

/// The connections of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// For uploads, each of them whole.
    Up,
    /// For the downlink.
    Down,
    /// For an upload without end.
    Stream,
}

/// What the caller is to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open one, and tell: [`ClientPath::handle_connected`] or [`ClientPath::handle_closed`].
    Connect(Slot),
    /// Close it, and tell nobody.
    Close(Slot),
}

/// Bytes of one upload at most.
const MAX_UPLOAD: usize = 256 * 1024;
/// The server is told by a request of its own when so much came down.
const ACK_EVERY: u64 = 128 * 1024;
/// Bytes per second of the slowest way up that is waited for.
const SLOWEST_UPLOAD: u64 = 8 * 1024;
/// Exchanges in a row that may fail before the path is over.
const MAX_FAILURES: u32 = 4;
/// Streaming uploads that may fail before no more are tried.
const MAX_STREAM_FAILURES: u32 = 2;
/// Nothing is late before this.
const SOON: Duration = Duration::from_millis(50);
/// The longest time in which a downlink's first bytes must come.
const LONGEST_PROBE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Closed,
    Connecting,
    Open,
}

/// One connection and the exchange on it.
#[derive(Debug, Default)]
struct Lane {
    stage: Stage,
    /// What is awaited.
    response: Option<Response>,
    since: Timestamp,
}

impl Lane {
    fn is_free(&self) -> bool {
        self.stage == Stage::Open && self.response.is_none()
    }
}

/// The streaming upload.
#[derive(Debug, Default)]
struct Streaming {
    number: u64,
    /// The server reads it.
    active: bool,
    /// Bytes before this were written to it.
    position: u64,
    failures: u32,
    /// Since when nothing of what was written was acknowledged.
    waiting_since: Option<Timestamp>,
}

/// A path of which the client has the exchanges.
///
/// Calls: [`ClientPath::poll_action`] until there is none, [`ClientPath::handle_connected`],
/// [`ClientPath::handle_input`] and [`ClientPath::handle_closed`] for each connection,
/// [`ClientPath::poll_transmit`] for what is to be written there, timers as everywhere. The session's side:
/// [`ClientPath::write`], [`ClientPath::incoming`], [`ClientPath::end`]; [`ClientPath::set_key`] once it has keys.
#[derive(Debug)]
pub struct ClientPath {
    config: ClientConfig,
    mode: Mode,
    token: Option<Token>,
    key: Option<ExchangeKey>,
    incoming: Incoming,
    outgoing: Outgoing,
    lanes: [Lane; 3],
    streaming: Streaming,
    actions: Vec<Action>,
    uploads: u64,
    streams: u64,
    downlinks: u64,
    /// Behind what the upload under way holds.
    upload_end: u64,
    /// Bytes of the first request.
    created: bool,
    /// The time from the first request to its answer.
    trip: Duration,
    /// The first bytes of the downlink under way have come.
    proven: bool,
    /// Exchanges of each direction that failed in a row.
    failures: [u32; 2],
    /// What the server says it sent down, and when it said so or something came since.
    expected: u64,
    progress: Timestamp,
    /// Up to where the server was told that its bytes came.
    told: u64,
    ending: bool,
    end_sent: bool,
    over: bool,
    failed: Option<HttpError>,
}

impl ClientPath {
    /// A path to be made, over a connection that stands: it is the first of [`Slot::Up`].
    pub fn new(config: ClientConfig, now: Timestamp) -> ClientPath {
        let mut lanes = <[Lane; 3]>::default();
        lanes[Slot::Up as usize].stage = Stage::Open;
        ClientPath {
            mode: config.mode.unwrap_or(config.first),
            outgoing: Outgoing::new(config.keep),
            config,
            token: None,
            key: None,
            incoming: Incoming::default(),
            lanes,
            streaming: Streaming::default(),
            actions: Vec::new(),
            uploads: 0,
            streams: 0,
            downlinks: 0,
            upload_end: 0,
            created: false,
            trip: Duration::ZERO,
            proven: false,
            failures: [0; 2],
            expected: 0,
            progress: now,
            told: 0,
            ending: false,
            end_sent: false,
            over: false,
            failed: None,
        }
    }

    fn lane(&mut self, slot: Slot) -> &mut Lane {
        &mut self.lanes[slot as usize]
    }

    /// Whether the session has keys that it gave.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// From here on exchanges can be proven: the downlink is asked for.
    pub fn set_key(&mut self, now: Timestamp, key: ExchangeKey) {
        self.key = Some(key);
        self.want_down(now);
    }

    /// The way down that is used.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The way down that another path had better begin with, if this one is given up: nothing came down this one in
    /// the time in which answers come to uploads.
    pub fn next_mode(&self, now: Timestamp) -> Mode {
        let down = &self.lanes[Slot::Down as usize];
        let waits = !self.proven && down.response.is_some();
        let late = now.since(down.since) >= (self.trip * 3).max(SOON);
        match self
            .mode
            .next()
            .filter(|_| waits && late && self.config.mode.is_none())
        {
            Some(next) => next,
            None => self.mode,
        }
    }

    /// Whether what is sent goes without waiting for answers.
    pub fn streams(&self) -> bool {
        self.streaming.active
    }

    /// What the caller is to do with connections next.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.actions.is_empty() {
            None
        } else {
            Some(self.actions.remove(0))
        }
    }

    fn connect(&mut self, now: Timestamp, slot: Slot) {
        let lane = self.lane(slot);
        if lane.stage == Stage::Closed {
            lane.stage = Stage::Connecting;
            lane.since = now;
            self.actions.push(Action::Connect(slot));
        }
    }

    fn close(&mut self, slot: Slot) {
        let lane = self.lane(slot);
        lane.response = None;
        if std::mem::take(&mut lane.stage) != Stage::Closed {
            // What was wanted and not begun is not begun.
            self.actions.retain(|action| *action != Action::Connect(slot));
            self.actions.push(Action::Close(slot));
        }
    }

    fn want_down(&mut self, now: Timestamp) {
        if self.token.is_some() && self.key.is_some() && !self.is_over() {
            self.connect(now, Slot::Down);
        }
    }

    /// The connection stands.
    pub fn handle_connected(&mut self, now: Timestamp, slot: Slot) {
        let lane = self.lane(slot);
        if lane.stage == Stage::Connecting {
            lane.stage = Stage::Open;
            lane.since = now;
        }
    }

    /// The connection ended, or could not be made.
    pub fn handle_closed(&mut self, now: Timestamp, slot: Slot) {
        let lane = self.lane(slot);
        let before = std::mem::take(&mut lane.stage);
        let response = lane.response.take();
        let clean = response.as_ref().is_none_or(Response::is_complete_at_end);
        match (before, slot) {
            (Stage::Closed, _) => {}
            (_, Slot::Stream) => {
                self.streaming.failures += 1;
                self.stop_streaming();
            }
            (Stage::Connecting, _) => self.fail(HttpError::Unreachable),
            (Stage::Open, Slot::Up) if response.is_some() => {
                if self.token.is_none() {
                    return self.fail(HttpError::Unreachable);
                }
                self.failed_once(0);
            }
            (Stage::Open, Slot::Up) => {}
            (Stage::Open, Slot::Down) if self.proven && (clean || self.mode != Mode::Poll) => {
                // It served its time, or was cut; another goes on from where it ended.
                self.proven = false;
                self.failed_once(1);
                self.want_down(now);
            }
            (Stage::Open, Slot::Down) => self.fall(now),
        }
    }

    fn failed_once(&mut self, direction: usize) {
        self.failures[direction] += 1;
        if self.failures[direction] >= MAX_FAILURES {
            self.fail(HttpError::Unreachable);
        }
    }

    fn fail(&mut self, error: HttpError) {
        self.failed.get_or_insert(error);
        self.over = true;
        for slot in [Slot::Up, Slot::Down, Slot::Stream] {
            self.close(slot);
        }
    }

    /// The way down does not get through: the next one is tried.
    fn fall(&mut self, now: Timestamp) {
        self.close(Slot::Down);
        self.proven = false;
        self.stop_streaming();
        match self.mode.next().filter(|_| self.config.mode.is_none()) {
            Some(next) => self.mode = next,
            None => self.failed_once(1),
        }
        self.progress = now;
        self.want_down(now);
    }

    fn stop_streaming(&mut self) {
        if self.lanes[Slot::Stream as usize].stage != Stage::Closed {
            self.streaming.failures += 1;
        }
        self.streaming.active = false;
        self.streaming.position = 0;
        self.streaming.waiting_since = None;
        self.close(Slot::Stream);
    }

    /// Takes in what came on a connection.
    ///
    /// An error has ended the path: [`ClientPath::failure`] says so too.
    pub fn handle_input(&mut self, now: Timestamp, slot: Slot, input: &mut BytesMut) {
        if let Err(error) = self.take_input(now, slot, input) {
            input.clear();
            // Some proxy does not pass such responses on.
            let falls = self.mode != Mode::Poll && matches!(error, HttpError::Status { status: 500.., .. });
            match slot {
                Slot::Stream => self.stop_streaming(),
                Slot::Down if falls => self.fall(now),
                _ => self.fail(error),
            }
        }
    }

    fn take_input(&mut self, now: Timestamp, slot: Slot, input: &mut BytesMut) -> Result<(), HttpError> {
        let Some(mut response) = self.lane(slot).response.take() else {
            if !input.is_empty() {
                input.clear();
                // A server that has nothing to answer says that it closes an idle connection, at most.
                self.close(slot);
            }
            return Ok(());
        };
        let result = self.read(now, slot, &mut response, input);
        // A note in it may have closed the lane.
        if self.lane(slot).stage == Stage::Open {
            let done = response.is_done();
            let closes = response.closes();
            if !done {
                self.lane(slot).response = Some(response);
            } else if result.is_ok() {
                self.answered(now, slot, &response)?;
                if closes && slot == Slot::Up {
                    self.close(slot);
                } else if closes && slot == Slot::Down && self.mode == Mode::Poll {
                    self.close(slot);
                    self.want_down(now);
                }
            }
        }
        result
    }

    fn read(
        &mut self,
        now: Timestamp,
        slot: Slot,
        response: &mut Response,
        input: &mut BytesMut,
    ) -> Result<(), HttpError> {
        if !response.take_head(input)? {
            return Ok(());
        }
        if slot == Slot::Up && response.status() == 409 && self.token.is_some() {
            // The server has seen a later one, or has it all: it says where it stands.
            return response.skip(input);
        }
        if response.status() != 200 && response.status() != 204 {
            return Err(response.refused());
        }
        if slot == Slot::Up && self.token.is_some() || slot == Slot::Stream {
            return response.skip(input);
        }
        while let Some(item) = response.next(input)? {
            self.lane(slot).since = now;
            match item {
                Item::Data(count) => self.take_data(now, response, count)?,
                Item::Note(note) => self.take_note(now, note)?,
            }
            self.proven = true;
            self.failures[1] = 0;
            if self.over {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take_data(&mut self, now: Timestamp, response: &mut Response, count: usize) -> Result<(), HttpError> {
        let (position, bytes) = response.data(count);
        self.incoming
            .accept(position, bytes)
            .map_err(HttpError::Sequence)?;
        response.taken(count);
        self.progress = now;
        Ok(())
    }

    fn take_note(&mut self, now: Timestamp, note: Note) -> Result<(), HttpError> {
        match note {
            Note::Received(position) => {
                if self.outgoing.acknowledge(position).map_err(HttpError::Sequence)? {
                    let streaming = &mut self.streaming;
                    let waits = streaming.position != u64::MAX && streaming.position > position;
                    streaming.waiting_since = Some(now).filter(|_| waits && streaming.active);
                }
            }
            Note::End => self.over = true,
            Note::Mark(number) => {
                if number == self.streaming.number && self.lanes[Slot::Stream as usize].stage == Stage::Open {
                    self.streaming.active = true;
                    // Whatever an upload under way holds is acknowledged, or goes again.
                    self.streaming.position = u64::MAX;
                }
            }
        }
        Ok(())
    }

    /// A whole response has come.
    fn answered(&mut self, now: Timestamp, slot: Slot, response: &Response) -> Result<(), HttpError> {
        match slot {
            Slot::Up if self.token.is_none() => {
                let token = response.token().ok_or(HttpError::Malformed("no path was made"))?;
                self.token = Some(token);
                self.trip = now.since(self.lane(slot).since);
                self.proven = false;
                let _ = self
                    .outgoing
                    .acknowledge(self.upload_end)
                    .map_err(HttpError::Sequence)?;
                self.want_down(now);
            }
            Slot::Up => {
                let received = response.number("sheetbend-received")?;
                let position = match (response.status(), received) {
                    (204, None) => Some(self.upload_end),
                    (_, received) => received,
                };
                if let Some(position) = position {
                    self.outgoing.acknowledge(position).map_err(HttpError::Sequence)?;
                }
                if response.status() == 409 {
                    self.failed_once(0);
                } else {
                    self.failures[0] = 0;
                }
                if let Some(sent) = response.number("sheetbend-sent")?
                    && sent > self.expected
                {
                    if self.expected <= self.incoming.received() {
                        self.progress = now;
                    }
                    self.expected = sent;
                }
                if self.end_sent {
                    self.over = true;
                }
            }
            Slot::Down if self.mode != Mode::Poll => {
                // The server has ended it on its own: another goes on, unless it was the path's end.
                self.close(Slot::Down);
                self.proven = false;
                if !self.over {
                    self.failed_once(1);
                    self.want_down(now);
                }
            }
            Slot::Down => {}
            Slot::Stream => {
                self.over |= self.end_sent;
                self.stop_streaming();
            }
        }
        Ok(())
    }

    /// Appends what is to be written to a connection now.
    pub fn poll_transmit(&mut self, now: Timestamp, slot: Slot, out: &mut OutBuffer) {
        if self.lanes[slot as usize].stage != Stage::Open || self.failed.is_some() {
            return;
        }
        match slot {
            Slot::Up => self.transmit_up(now, out),
            Slot::Down => self.transmit_down(now, out),
            Slot::Stream => self.transmit_stream(now, out),
        }
    }

    /// Brings about connections that are needed and not there. After anything that may have changed.
    fn want(&mut self, now: Timestamp) {
        if self.is_over() || self.key.is_none() {
            return;
        }
        let upload = self.wants_upload();
        if upload {
            self.connect(now, Slot::Up);
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
    fn wants_upload(&self) -> bool {
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

    fn transmit_stream(&mut self, now: Timestamp, out: &mut OutBuffer) {
        let received = self.incoming.received();
        if self.lanes[Slot::Stream as usize].is_free() {
            self.streams += 1;
            let number = self.streams;
            // It brings nothing before the server has said that it reads it.
            let Some(exchange) = self.exchange(Operation::Stream, number, self.outgoing.acked()) else {
                return;
            };
            self.streaming.number = number;
            let asked = Asked::Exchange(exchange);
            out.put(head(&self.config, "POST", &asked, "*/*", None).as_bytes());
            mode::put_note(Mode::Binary, Note::Received(received), out);
            let lane = self.lane(Slot::Stream);
            lane.since = now;
            lane.response = Some(Response::new(Mode::Binary));
            return;
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
            mode::put_note(Mode::Binary, Note::Received(received), out);
        }
        if !data.is_empty() {
            mode::put_data(Mode::Binary, self.streaming.position, data, out);
            self.streaming.position += data.len() as u64;
            self.streaming.waiting_since.get_or_insert(now);
        }
        if self.ending && self.streaming.position == self.outgoing.end() && !self.end_sent {
            self.end_sent = true;
            mode::put_note(Mode::Binary, Note::End, out);
            out.put(LAST_CHUNK);
        }
    }

    /// What came and the session has not taken.
    pub fn incoming(&mut self) -> &mut BytesMut {
        self.incoming.waiting()
    }

    /// Bytes that came and the session has not taken.
    pub fn held(&self) -> usize {
        self.incoming.held()
    }

    /// Whether the session may write.
    pub fn room(&self) -> usize {
        if self.ending || self.over {
            0
        } else {
            self.outgoing.room()
        }
    }

    /// Takes what the session sends, as much as there is room for.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> usize {
        if self.ending || self.over {
            0
        } else {
            self.outgoing.write(slices)
        }
    }

    /// The session's side is over: what was written still goes, and the server is told.
    pub fn end(&mut self) {
        self.ending = true;
        if self.token.is_none() {
            self.over = true;
        }
    }

    /// Whether nothing more comes, beyond what waits.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Why it is over, if it did not end well.
    pub fn failure(&self) -> Option<&HttpError> {
        self.failed.as_ref()
    }

    fn probe(&self) -> Duration {
        (self.trip * 4).clamp(self.config.probe, LONGEST_PROBE.max(self.config.probe))
    }

    /// How long the upload under way may take, which nobody sees before all of it is there.
    fn patience(&self) -> Duration {
        let bytes = self.upload_end.saturating_sub(self.outgoing.acked());
        let slow = Duration::from_secs(bytes / SLOWEST_UPLOAD);
        self.config.patience.max(self.probe() * 2) + slow
    }

    /// When something may be late, with the slot that it is about.
    fn next_due(&self) -> Option<(Timestamp, Slot)> {
        if self.is_over() {
            return None;
        }
        let [up, down, stream] = &self.lanes;
        let late = |lane: &Lane, after: Duration| (lane.stage != Stage::Closed).then(|| lane.since + after);
        let up_due = (up.response.is_some() || up.stage == Stage::Connecting)
            .then(|| match up.stage {
                Stage::Connecting => late(up, self.config.connect),
                _ => late(up, self.patience()),
            })
            .flatten();
        let mute = (self.expected > self.incoming.received()).then(|| self.progress + self.probe());
        let down_due = match (self.mode, self.proven, down.stage) {
            (_, _, Stage::Connecting) => late(down, self.config.connect),
            (Mode::Poll, ..) => down.response.is_some().then(|| {
                let silent = down.since + self.config.silence;
                mute.map_or(silent, |mute| mute.max(down.since + self.probe()).min(silent))
            }),
            (_, false, _) => down.response.is_some().then(|| down.since + self.probe()),
            (_, true, _) => {
                let silent = down.since + self.config.silence;
                Some(mute.map_or(silent, |mute| mute.min(silent)))
            }
        };
        let stream_due = match (self.streaming.active, self.streaming.waiting_since) {
            (true, Some(since)) => Some(since + self.probe()),
            (true, None) => None,
            (false, _) => late(stream, self.probe()),
        };
        let all = [
            (up_due, Slot::Up),
            (down_due, Slot::Down),
            (stream_due, Slot::Stream),
        ];
        all.into_iter().filter_map(|(at, slot)| Some((at?, slot))).min()
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.next_due().map(|(at, _)| at)
    }

    /// Does what is due, and sees which connections are wanted. To be called after anything else was, before
    /// [`ClientPath::poll_action`].
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for _ in 0..self.lanes.len() {
            let Some((_, slot)) = self.next_due().filter(|(at, _)| *at <= now) else {
                break;
            };
            match slot {
                Slot::Up if self.token.is_none() => self.fail(HttpError::Unreachable),
                Slot::Up => {
                    self.close(Slot::Up);
                    self.failed_once(0);
                }
                Slot::Down => self.fall(now),
                Slot::Stream => self.stop_streaming(),
            }
        }
        self.want(now);
    }

    /// Gives back memory that nothing lies in.
    pub fn shrink(&mut self) {
        self.incoming.shrink();
        self.outgoing.shrink();
    }
}

/// Bytes of the first request at most: a server takes no more of someone unknown.
const MAX_CREATE: usize = 64 * 1024;

/// The head of a request; without a length its body is chunked, if it has one.
fn head(config: &ClientConfig, method: &str, asked: &Asked, accept: &str, length: Option<usize>) -> String {
    let target = asked.target(&config.target);
    let origin = config
        .origin
        .as_ref()
        .map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
    let body = match (method, length) {
        ("GET", _) => "Cache-Control: no-store\r\n".to_owned(),
        (_, Some(length)) => {
            format!("Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n")
        }
        (_, None) => "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n".to_owned(),
    };
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n{body}{origin}\r\n",
        config.host
    )
}
