//! Two sessions and the links between them.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;

use super::super::accept::First;
use super::super::*;
use crate::handshake::{Routing, Security, SessionId};
use crate::time::Timestamp;
use crate::wire::{Frame, OutBuffer, RecordBuilder, RecordLimits, RejectCode, split_record};

/// One direction of a link: bytes in order, each chunk with its time of arrival.
#[derive(Default)]
pub(in super::super) struct Pipe {
    pub(in super::super) chunks: VecDeque<(Timestamp, Vec<u8>)>,
    pub(in super::super) free_at: Timestamp,
    /// Takes bytes and delivers none, without closing.
    pub(in super::super) stalled: bool,
    /// Everything that was ever put in.
    pub(in super::super) carried: u64,
}

pub(in super::super) struct Link {
    pub(in super::super) client: Option<PathKey>,
    pub(in super::super) server: Option<PathKey>,
    incoming: Option<Incoming>,
    pub(in super::super) up: Pipe,
    pub(in super::super) down: Pipe,
    pub(in super::super) delay: Duration,
    /// Bytes per second; 0 for no bound.
    pub(in super::super) rate: u64,
    pub(in super::super) dead: bool,
    client_out: OutBuffer,
    server_out: OutBuffer,
    client_in: BytesMut,
    server_in: BytesMut,
    client_closing: bool,
    server_closing: bool,
    /// Flips a bit in the next chunk that goes down, or up.
    pub(in super::super) corrupt_up: bool,
    pub(in super::super) corrupt_down: bool,
    /// The server refused the connection with this code.
    pub(in super::super) rejected: Option<RejectCode>,
    /// Keeps a copy of all that was put in, in each direction.
    pub(in super::super) tap: bool,
    pub(in super::super) tapped_up: Vec<u8>,
    pub(in super::super) tapped_down: Vec<u8>,
}

impl Link {
    pub(in super::super) fn carried(&self) -> u64 {
        self.up.carried + self.down.carried
    }
}

pub(in super::super) struct Options {
    pub(in super::super) client: Config,
    pub(in super::super) server: Config,
    pub(in super::super) seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            client: Config::default(),
            server: Config::default(),
            seed: 1,
        }
    }
}

pub(in super::super) struct World {
    pub(in super::super) now: Timestamp,
    pub(in super::super) client: Session,
    pub(in super::super) server: Option<Session>,
    server_config: Config,
    pub(in super::super) links: Vec<Link>,
    pub(in super::super) client_events: Vec<Event>,
    pub(in super::super) server_events: Vec<Event>,
    pub(in super::super) seed: u64,
    /// Names the session that the server makes.
    pub(in super::super) session_id: SessionId,
    /// Links made from here on are tapped.
    pub(in super::super) tap: bool,
    /// The client's process is stopped: nothing is read, written or timed.
    pub(in super::super) client_paused: bool,
    idle_turns: u32,
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

const ROUND: Duration = Duration::from_micros(500);

impl World {
    pub(in super::super) fn new(options: Options) -> World {
        let now = Timestamp::from_nanos(1_000_000_000);
        World {
            now,
            client: Session::client(options.client, seed_bytes(options.seed), now),
            server: None,
            server_config: options.server,
            links: Vec::new(),
            client_events: Vec::new(),
            server_events: Vec::new(),
            seed: options.seed,
            session_id: SessionId([7; 16]),
            tap: false,
            client_paused: false,
            idle_turns: 0,
        }
    }

    /// A world whose session stands over one link.
    pub(in super::super) fn connected(options: Options) -> World {
        let mut world = World::new(options);
        world.connect();
        world.settle();
        assert_eq!(world.client.state(), State::Connected);
        assert_eq!(world.server().state(), State::Connected);
        world
    }

    pub(in super::super) fn server(&mut self) -> &mut Session {
        self.server.as_mut().expect("the server's session stands")
    }

    pub(in super::super) fn connect(&mut self) -> usize {
        self.connect_with(PathInfo::new("mem://test", "mem", Security::Plain))
            .expect("a path opens")
    }

    pub(in super::super) fn connect_with(&mut self, info: PathInfo) -> Result<usize, OpenPathError> {
        let key = self.client.open_path(self.now, info.clone())?;
        let link = self.stranger(info);
        self.links[link].client = Some(key);
        self.links[link].tap = self.tap;
        Ok(link)
    }

    /// A connection to the server whose other end is the test: what it says is injected, what it is
    /// told is tapped.
    pub(in super::super) fn stranger(&mut self, mut info: PathInfo) -> usize {
        // A server does not know which endpoint its client prefers.
        info.rank = 0;
        let link = self.links.len();
        self.links.push(Link {
            client: None,
            server: None,
            incoming: Some(Incoming::new(self.now, info)),
            up: Pipe::default(),
            down: Pipe::default(),
            delay: ROUND,
            rate: 0,
            dead: false,
            client_out: OutBuffer::new(),
            server_out: OutBuffer::new(),
            client_in: BytesMut::new(),
            server_in: BytesMut::new(),
            client_closing: false,
            server_closing: false,
            corrupt_up: false,
            corrupt_down: false,
            rejected: None,
            tap: true,
            tapped_up: Vec::new(),
            tapped_down: Vec::new(),
        });
        link
    }

    /// From here on the test speaks in place of the client on this link. The client has forgotten it, and
    /// says nothing of that.
    pub(in super::super) fn take_client_end(&mut self, link: usize) {
        if let Some(key) = self.links[link].client.take() {
            self.client.handle_path_closed(self.now, key, PathEnd::Local);
            self.client.abandons.clear();
        }
        self.links[link].tap = true;
    }

    /// From here on the test speaks in place of the server on this link.
    pub(in super::super) fn take_server_end(&mut self, link: usize) {
        self.links[link].server = None;
        self.links[link].incoming = None;
        self.links[link].tap = true;
    }

    // ---- faults ----

    /// Both ends see the connection closed; what is under way is gone.
    pub(in super::super) fn cut(&mut self, link: usize) {
        self.end(link, PathEnd::Reset);
    }

    pub(in super::super) fn end(&mut self, link: usize, end: PathEnd) {
        let now = self.now;
        let link = &mut self.links[link];
        if std::mem::replace(&mut link.dead, true) {
            return;
        }
        if let Some(key) = link.client.take() {
            self.client.handle_path_closed(now, key, end);
        }
        if let (Some(key), Some(server)) = (link.server.take(), self.server.as_mut()) {
            server.handle_path_closed(now, key, end);
        }
        link.up = Pipe::default();
        link.down = Pipe::default();
    }

    pub(in super::super) fn stall(&mut self, link: usize, up: bool, down: bool) {
        self.links[link].up.stalled = up;
        self.links[link].down.stalled = down;
    }

    /// Puts bytes onto a link as if the client had sent them.
    pub(in super::super) fn inject_up(&mut self, link: usize, bytes: &[u8]) {
        let at = self.now;
        self.links[link].up.chunks.push_back((at, bytes.to_vec()));
    }

    /// Puts bytes onto a link as if the server had sent them.
    pub(in super::super) fn inject_down(&mut self, link: usize, bytes: &[u8]) {
        let at = self.now;
        self.links[link].down.chunks.push_back((at, bytes.to_vec()));
    }

    // ---- running ----

    /// Runs until nothing is under way and no deadline is due before `until`.
    pub(in super::super) fn run_until(&mut self, until: Timestamp) {
        loop {
            while self.turn() {
                self.idle_turns += 1;
                assert!(
                    self.idle_turns < 100_000,
                    "no end of work at one moment: seed {}",
                    self.seed
                );
            }
            self.idle_turns = 0;
            let Some(next) = self.next_time().filter(|&at| at <= until) else {
                self.now = until;
                return;
            };
            self.now = next.max(self.now);
        }
    }

    pub(in super::super) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs for as long as data and acknowledgements take, well below any heartbeat.
    pub(in super::super) fn settle(&mut self) {
        self.run_for(Duration::from_millis(200));
    }

    fn next_time(&self) -> Option<Timestamp> {
        let paused = self.client_paused;
        let arrivals = self.links.iter().flat_map(|link| {
            [(&link.up, false), (&link.down, paused)]
                .into_iter()
                .filter(|(pipe, paused)| !pipe.stalled && !paused)
                .filter_map(|(pipe, _)| pipe.chunks.front().map(|(at, _)| *at))
        });
        let waiting = self.links.iter().filter(|link| !link.dead);
        let handshakes = waiting.filter_map(|link| link.incoming.as_ref().map(Incoming::deadline));
        let arrivals = arrivals.chain(handshakes);
        let client = self.client.poll_timeout().map(|(at, _)| at).filter(|_| !paused);
        let server = self
            .server
            .as_ref()
            .and_then(Session::poll_timeout)
            .map(|(at, _)| at);
        arrivals.chain(client).chain(server).min()
    }

    /// One turn of both drivers. Tells whether anything happened.
    fn turn(&mut self) -> bool {
        let mut busy = false;
        let now = self.now;
        for index in 0..self.links.len() {
            busy |= self.deliver_up(index);
            if !self.client_paused {
                busy |= self.deliver_down(index);
            }
            let late = |incoming: &Incoming| incoming.deadline() <= now;
            if !self.links[index].dead && self.links[index].incoming.as_ref().is_some_and(late) {
                self.end(index, PathEnd::Eof);
                busy = true;
            }
        }
        if !self.client_paused && self.client.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.client.handle_timeout(now);
            busy = true;
        }
        if let Some(server) = &mut self.server
            && server.poll_timeout().is_some_and(|(at, _)| at <= now)
        {
            server.handle_timeout(now);
            busy = true;
        }
        self.drain_events();
        for index in 0..self.links.len() {
            busy |= self.transmit(index);
        }
        self.drain_events();
        busy
    }

    fn drain_events(&mut self) {
        while let Some(event) = self.client.poll_event() {
            self.client_events.push(event);
        }
        if let Some(server) = &mut self.server {
            while let Some(event) = server.poll_event() {
                self.server_events.push(event);
            }
        }
    }

    fn deliver_up(&mut self, index: usize) -> bool {
        let now = self.now;
        let link = &mut self.links[index];
        let Some(mut chunk) = arrived(&mut link.up, now) else {
            return false;
        };
        if std::mem::take(&mut link.corrupt_up) {
            flip(&mut chunk);
        }
        link.server_in.extend_from_slice(&chunk);
        if link.server.is_none() {
            self.route(index);
        }
        let link = &mut self.links[index];
        if let (Some(key), Some(server)) = (link.server, self.server.as_mut()) {
            let capacity = link.server_in.capacity();
            let _ = server.handle_input(now, key, &mut link.server_in, capacity);
        }
        true
    }

    /// What an acceptor does with a connection's first message.
    fn route(&mut self, index: usize) {
        let now = self.now;
        let link = &mut self.links[index];
        let Some(mut incoming) = link.incoming.take() else {
            return;
        };
        match incoming.handle_input(&mut link.server_in) {
            Ok(false) => {
                link.incoming = Some(incoming);
                return;
            }
            Ok(true) => {}
            Err(_) => {
                self.end(index, PathEnd::Eof);
                return;
            }
        }
        if self.server.is_none()
            && let Some(First::Hello(hello)) = incoming.first()
        {
            let id = self.session_id;
            let routing = Routing::new(&[]).expect("empty fits");
            let config = self.server_config.clone();
            let session = Session::server(
                config.into(),
                seed_bytes(self.seed ^ 0xffff),
                now,
                hello,
                id,
                routing,
            );
            self.server = Some(session.expect("the HELLO is good"));
        }
        let Some(server) = self.server.as_mut() else {
            return;
        };
        match server.accept_path(now, incoming) {
            Ok(key) => self.links[index].server = Some(key),
            Err(rejected) => {
                let link = &mut self.links[index];
                link.rejected = Some(rejected.code);
                link.down
                    .chunks
                    .push_back((now + link.delay, rejected.record.to_vec()));
                link.server_closing = true;
            }
        }
    }

    fn deliver_down(&mut self, index: usize) -> bool {
        let now = self.now;
        let link = &mut self.links[index];
        let Some(mut chunk) = arrived(&mut link.down, now) else {
            return false;
        };
        if std::mem::take(&mut link.corrupt_down) {
            flip(&mut chunk);
        }
        link.client_in.extend_from_slice(&chunk);
        if let Some(key) = link.client {
            let capacity = link.client_in.capacity();
            let _ = self.client.handle_input(now, key, &mut link.client_in, capacity);
        }
        true
    }

    fn transmit(&mut self, index: usize) -> bool {
        let now = self.now;
        let link = &mut self.links[index];
        let mut busy = false;
        if let Some(key) = link.client.filter(|_| !self.client_paused) {
            let sent = self.client.poll_transmit(now, key, &mut link.client_out);
            let tap = link.tap.then_some(&mut link.tapped_up);
            busy |= flush(
                &mut link.client_out,
                &mut link.up,
                now,
                link.delay,
                link.rate,
                tap,
            );
            link.client_closing |= sent == Transmit::CloseAfterFlush;
        }
        if let (Some(key), Some(server)) = (link.server, self.server.as_mut()) {
            let sent = server.poll_transmit(now, key, &mut link.server_out);
            let tap = link.tap.then_some(&mut link.tapped_down);
            busy |= flush(
                &mut link.server_out,
                &mut link.down,
                now,
                link.delay,
                link.rate,
                tap,
            );
            link.server_closing |= sent == Transmit::CloseAfterFlush;
        }
        self.close_flushed(index) || busy
    }

    /// A connection that one end closes is closed for the other once everything has arrived.
    fn close_flushed(&mut self, index: usize) -> bool {
        let now = self.now;
        let link = &mut self.links[index];
        if link.dead {
            return false;
        }
        if link.client_closing {
            if let Some(key) = link.client.take() {
                self.client.handle_path_closed(now, key, PathEnd::Local);
            }
            if link.up.chunks.is_empty() {
                self.end(index, PathEnd::Eof);
                return true;
            }
        } else if link.server_closing {
            if let (Some(key), Some(server)) = (link.server.take(), self.server.as_mut()) {
                server.handle_path_closed(now, key, PathEnd::Local);
            }
            if link.down.chunks.is_empty() {
                self.end(index, PathEnd::Eof);
                return true;
            }
        }
        false
    }

    /// Makes new connections' bytes visible from the start.
    pub(in super::super) fn tapped(options: Options) -> World {
        let mut world = World::new(options);
        world.tap = true;
        world
    }

    /// Whether an event like this was reported to the client.
    pub(in super::super) fn client_saw(&self, like: impl Fn(&Event) -> bool) -> bool {
        self.client_events.iter().any(like)
    }

    /// Whether an event like this was reported to the server.
    pub(in super::super) fn server_saw(&self, like: impl Fn(&Event) -> bool) -> bool {
        self.server_events.iter().any(like)
    }
}

/// A record of these frames.
pub(in super::super) fn record(frames: &[Frame<'_>], crc: bool) -> Vec<u8> {
    let mut out = OutBuffer::new();
    let mut builder = RecordBuilder::begin(&mut out, 1 << 20, crc);
    for frame in frames {
        assert!(builder.frame(frame), "{frame:?} fits");
    }
    builder.finish();
    let mut bytes = Vec::new();
    while !out.is_empty() {
        let taken = out.chunk().len();
        bytes.extend_from_slice(out.chunk());
        out.advance(taken);
    }
    bytes
}

/// The records in what was tapped.
pub(in super::super) fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let limits = RecordLimits {
        max_body: 1 << 23,
        require_crc: false,
        allow_lz4: true,
    };
    let (mut found, mut scratch) = (Vec::new(), Vec::new());
    loop {
        let before = bytes;
        match split_record(&mut bytes, &limits, &mut scratch) {
            Ok(Some(record)) => found.push(before[..record.wire_len].to_vec()),
            _ => return found,
        }
    }
}

/// The body of a record.
pub(in super::super) fn body(record: &[u8]) -> &[u8] {
    let crc = if record[3] & 8 != 0 { 4 } else { 0 };
    &record[4..record.len() - crc]
}

fn arrived(pipe: &mut Pipe, now: Timestamp) -> Option<Vec<u8>> {
    if pipe.stalled || pipe.chunks.front().is_none_or(|(at, _)| *at > now) {
        return None;
    }
    pipe.chunks.pop_front().map(|(_, bytes)| bytes)
}

fn flip(chunk: &mut [u8]) {
    let middle = chunk.len() / 2;
    if let Some(byte) = chunk.get_mut(middle) {
        *byte ^= 0x10;
    }
}

fn flush(
    out: &mut OutBuffer,
    pipe: &mut Pipe,
    now: Timestamp,
    delay: Duration,
    rate: u64,
    tap: Option<&mut Vec<u8>>,
) -> bool {
    if out.is_empty() {
        return false;
    }
    let mut bytes = Vec::with_capacity(out.len());
    while !out.is_empty() {
        let taken = out.chunk().len();
        bytes.extend_from_slice(out.chunk());
        out.advance(taken);
    }
    pipe.carried += bytes.len() as u64;
    if let Some(tap) = tap {
        tap.extend_from_slice(&bytes);
    }
    // A link with a rate delivers as it goes, like packets, not when the last byte of a write is through.
    let piece = if rate == 0 { bytes.len() } else { 1400 };
    for part in bytes.chunks(piece) {
        let time = match rate {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(part.len() as u64 * 1_000_000_000 / rate),
        };
        pipe.free_at = now.max(pipe.free_at) + time;
        pipe.chunks.push_back((pipe.free_at + delay, part.to_vec()));
    }
    true
}
