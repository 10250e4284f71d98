//! One path at the client: which exchanges it asks for, on which connection, and what to do when one does not get
//! through. PROTOCOL 14.7.

mod config;
mod deadlines;
mod receive;
mod transmit;
mod trial;

use std::io::IoSlice;
use std::time::Duration;

use bytes::BytesMut;

use super::HttpError;
use super::exchange::{ExchangeKey, Token};
use super::mode::Mode;
use super::response::Response;
use super::sequence::{Incoming, Outgoing};
use crate::time::Timestamp;

pub use config::ClientConfig;
use trial::Trial;

/// The connections of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// For uploads, each of them whole.
    Up,
    /// For the downlink.
    Down,
    /// For an upload without end.
    Stream,
    /// To see whether a better way down gets through.
    Trial,
}

impl Slot {
    /// All of them.
    pub const ALL: [Slot; 4] = [Slot::Up, Slot::Down, Slot::Stream, Slot::Trial];
}

/// What the caller is to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open one, and tell: [`ClientPath::handle_connected`] or [`ClientPath::handle_closed`].
    Connect(Slot),
    /// Close it, and tell nobody.
    Close(Slot),
}

/// Exchanges in a row that may fail before the path is over.
const MAX_FAILURES: u32 = 4;
/// Nothing is late before this.
const SOON: Duration = Duration::from_millis(50);

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

/// How far a streaming upload is with becoming the downlink, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    /// It is an upload.
    #[default]
    Never,
    /// The server is to show that it answers while it reads.
    Asked,
    /// It did: it is to be told to go on there.
    Due,
    /// It was told.
    Said,
    /// It went on there.
    Done,
}

/// The streaming upload.
#[derive(Debug, Default)]
struct Streaming {
    number: u64,
    turn: Turn,
    /// Something on the way does not pass on responses to requests that are under way.
    one_way: bool,
    /// The server reads it.
    active: bool,
    /// Bytes before this were written to it.
    position: u64,
    failures: u32,
    /// Something of it was acknowledged.
    worked: bool,
    /// Since when nothing of what was written was acknowledged.
    waiting_since: Option<Timestamp>,
}

impl Streaming {
    /// It came to nothing, or nothing more comes of it; `cut` where its connection ended. One that was cut after it
    /// had worked is no reason to do without, one that went mute is.
    fn failed(&mut self, cut: bool) {
        match self.turn {
            Turn::Asked | Turn::Due | Turn::Said => self.one_way = true,
            Turn::Never | Turn::Done if cut && self.worked => {}
            Turn::Never => self.failures += 1,
            Turn::Done => {
                self.one_way = true;
                self.failures += 1;
            }
        }
    }
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
    lanes: [Lane; Slot::ALL.len()],
    streaming: Streaming,
    trial: Trial,
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
    /// Something changed that may call for an exchange, a connection or another deadline.
    news: bool,
    ending: bool,
    end_sent: bool,
    over: bool,
    failed: Option<HttpError>,
}

impl ClientPath {
    /// A path to be made, over a connection that stands: it is the first of [`Slot::Up`].
    pub fn new(config: ClientConfig, now: Timestamp) -> ClientPath {
        let mut lanes = <[Lane; Slot::ALL.len()]>::default();
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
            trial: Trial::default(),
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
            news: true,
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
        self.news = true;
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

    /// Whether something changed, since this was asked last, after which there may be something to transmit, an action
    /// or another timeout. What is written by [`ClientPath::write`] does not count, nor does time.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
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

    /// Whether the response to the streaming upload is the downlink.
    fn is_turned(&self) -> bool {
        self.streaming.turn == Turn::Done
    }

    /// The server went on in the response to the streaming upload.
    fn turned(&mut self, now: Timestamp) {
        self.streaming.turn = Turn::Done;
        self.streaming.active = true;
        self.streaming.position = u64::MAX;
        self.proven = true;
        self.failures[1] = 0;
        self.progress = now;
        self.close(Slot::Down);
    }

    fn want_down(&mut self, now: Timestamp) {
        if self.token.is_some() && self.key.is_some() && !self.is_over() {
            self.connect(now, Slot::Down);
        }
    }

    /// The connection stands.
    pub fn handle_connected(&mut self, now: Timestamp, slot: Slot) {
        self.news = true;
        let lane = self.lane(slot);
        if lane.stage == Stage::Connecting {
            lane.stage = Stage::Open;
            lane.since = now;
        }
    }

    /// The connection ended, or could not be made.
    pub fn handle_closed(&mut self, now: Timestamp, slot: Slot) {
        self.news = true;
        let lane = self.lane(slot);
        let before = std::mem::take(&mut lane.stage);
        let response = lane.response.take();
        let clean = response.as_ref().is_none_or(Response::is_complete_at_end);
        match (before, slot) {
            (Stage::Closed, _) | (_, Slot::Trial) => {}
            (_, Slot::Stream) => {
                // That one worked says nothing of the next, which could not even be made.
                self.streaming.worked &= before == Stage::Open;
                self.streaming.failed(true);
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
        for slot in Slot::ALL {
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
            self.streaming.failed(false);
        }
        if std::mem::take(&mut self.streaming.turn) == Turn::Done {
            // The downlink is gone with it, and is asked for by itself.
            self.proven = false;
        }
        self.streaming.active = false;
        self.streaming.position = 0;
        self.streaming.waiting_since = None;
        self.close(Slot::Stream);
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

    /// Gives back memory that nothing lies in.
    pub fn shrink(&mut self) {
        self.incoming.shrink();
        self.outgoing.shrink();
    }
}
