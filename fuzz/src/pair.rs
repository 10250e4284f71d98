//! Two sessions, the server's acceptor, and the links between them, on a clock that only moves from deadline
//! to deadline.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use sheetbend_core::marks::Marks;
use sheetbend_core::server::{Acceptor, Routed, SessionToken, registry};
use sheetbend_core::session::{
    Config, Event, Incoming, OpenPathError, PathEnd, PathInfo, PathKey, Session, State, Transmit,
};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{OutBuffer, RejectCode};

use crate::input::wide;

/// Turns at one moment after which it is clear that they have no end.
const MAX_TURNS: u32 = 100_000;

/// One direction of a link: bytes in order, each chunk with its time of arrival.
#[derive(Default)]
pub struct Pipe {
    chunks: VecDeque<(Timestamp, Vec<u8>)>,
    free_at: Timestamp,
    /// Takes bytes and delivers none, without closing.
    pub stalled: bool,
    /// Flips a bit in the next chunk that arrives.
    pub corrupt: bool,
    /// What was ever put in, while [`Link::tap`] is set.
    pub tapped: Vec<u8>,
}

impl Pipe {
    fn arrived(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        if self.stalled || self.chunks.front().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, mut bytes) = self.chunks.pop_front()?;
        if std::mem::take(&mut self.corrupt) {
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0x10;
            }
        }
        Some(bytes)
    }
}

/// One end of a link.
#[derive(Default)]
struct End {
    key: Option<PathKey>,
    out: OutBuffer,
    input: BytesMut,
    closing: bool,
}

/// A connection between client and server.
pub struct Link {
    client: End,
    server: End,
    incoming: Option<Incoming>,
    /// From the client to the server.
    pub up: Pipe,
    /// From the server to the client.
    pub down: Pipe,
    /// How long a byte takes.
    pub delay: Duration,
    /// Bytes per second; 0 for no bound.
    pub rate: u64,
    /// Bytes that one read delivers at most; 0 for no bound.
    pub piece: usize,
    /// Both ends know that it is gone.
    pub dead: bool,
    /// Whether a copy of what is put in is kept.
    pub tap: bool,
    /// The server refused the connection with this code.
    pub rejected: Option<RejectCode>,
}

/// A client, a server, and what is between them.
pub struct Pair {
    /// The time.
    pub now: Timestamp,
    /// The client's session.
    pub client: Session,
    /// The server's session, once its HELLO has come.
    pub server: Option<Session>,
    /// Finds the server's session for a connection.
    pub acceptor: Acceptor,
    token: Option<SessionToken>,
    /// All links that were ever made.
    pub links: Vec<Link>,
    /// What the client's session reported.
    pub client_events: Vec<Event>,
    /// What the server's session reported.
    pub server_events: Vec<Event>,
    /// The server made a second session, or gave the first one up: what was promised is void.
    pub void: bool,
    /// Called after every turn for each session.
    pub check: fn(&Session),
    turns: u32,
}

impl Pair {
    /// Two ends without a link.
    pub fn new(client: Config, server: Config, seed: u64) -> Pair {
        let now = Timestamp::from_nanos(1_000_000_000);
        Pair {
            now,
            client: Session::client(client, wide(seed), now),
            server: None,
            acceptor: Acceptor::new(registry::Config::default(), server, wide(!seed), now),
            token: None,
            links: Vec::new(),
            client_events: Vec::new(),
            server_events: Vec::new(),
            void: false,
            check: |_| (),
            turns: 0,
        }
    }

    /// Two ends with one link, and nothing left to do between them.
    pub fn connected(client: Config, server: Config, seed: u64, info: PathInfo) -> Pair {
        let mut pair = Pair::new(client, server, seed);
        pair.connect(info).expect("the first path opens");
        pair.run_for(Duration::from_millis(100));
        assert_eq!(pair.client.state(), State::Connected);
        assert!(pair.server.as_ref().is_some_and(Session::is_established));
        pair
    }

    /// Opens a link from the client.
    ///
    /// # Errors
    /// Those of [`Session::open_path`].
    pub fn connect(&mut self, info: PathInfo) -> Result<usize, OpenPathError> {
        let key = self.client.open_path(self.now, info.clone())?;
        let link = self.stranger(info);
        self.links[link].client.key = Some(key);
        Ok(link)
    }

    /// Opens a link to the server whose other end is nobody: what it says is [injected](Self::inject_up).
    pub fn stranger(&mut self, info: PathInfo) -> usize {
        self.links.push(Link {
            client: End::default(),
            server: End::default(),
            incoming: Some(Incoming::new(self.now, info)),
            up: Pipe::default(),
            down: Pipe::default(),
            delay: Duration::from_micros(500),
            rate: 0,
            piece: 0,
            dead: false,
            tap: false,
            rejected: None,
        });
        self.links.len() - 1
    }

    /// The client's path over the link, while it is there.
    pub fn client_path(&self, link: usize) -> Option<PathKey> {
        self.links[link].client.key
    }

    /// The server's path over the link, while it is there.
    pub fn server_path(&self, link: usize) -> Option<PathKey> {
        self.links[link].server.key
    }

    /// The rare branches that both sessions and the acceptor have been through.
    pub fn marks(&self) -> Marks {
        let server = self.server.as_ref().map(Session::marks).unwrap_or_default();
        self.client.marks().union(server).union(self.acceptor.marks())
    }

    /// The links that are not dead.
    pub fn live_links(&self) -> Vec<usize> {
        (0..self.links.len())
            .filter(|&link| !self.links[link].dead)
            .collect()
    }

    // ---- faults ----

    /// Both ends see the connection end; what is under way is gone.
    pub fn end(&mut self, link: usize, end: PathEnd) {
        let now = self.now;
        let link = &mut self.links[link];
        if std::mem::replace(&mut link.dead, true) {
            return;
        }
        if let Some(key) = link.client.key.take() {
            self.client.handle_path_closed(now, key, end);
        }
        if let (Some(key), Some(server)) = (link.server.key.take(), self.server.as_mut()) {
            server.handle_path_closed(now, key, end);
        }
        link.up.chunks.clear();
        link.down.chunks.clear();
    }

    /// Puts bytes onto a link as if the client had sent them.
    pub fn inject_up(&mut self, link: usize, bytes: &[u8]) {
        self.links[link].up.chunks.push_back((self.now, bytes.to_vec()));
    }

    /// Puts bytes onto a link as if the server had sent them.
    pub fn inject_down(&mut self, link: usize, bytes: &[u8]) {
        self.links[link].down.chunks.push_back((self.now, bytes.to_vec()));
    }

    // ---- running ----

    /// Runs until nothing is under way and no deadline is due before `until`.
    pub fn run_until(&mut self, until: Timestamp) {
        loop {
            while self.turn() {
                self.turns += 1;
                assert!(self.turns < MAX_TURNS, "no end of work at one moment");
            }
            self.turns = 0;
            let Some(next) = self.next_time().filter(|&at| at <= until) else {
                self.now = self.now.max(until);
                return;
            };
            self.now = next.max(self.now);
        }
    }

    /// Runs for a time.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// When something happens next.
    pub fn next_time(&self) -> Option<Timestamp> {
        let arrivals = self.links.iter().flat_map(|link| {
            [&link.up, &link.down]
                .into_iter()
                .filter(|pipe| !pipe.stalled)
                .filter_map(|pipe| pipe.chunks.front().map(|(at, _)| *at))
        });
        let waiting = self.links.iter().filter(|link| !link.dead);
        let handshakes = waiting.filter_map(|link| link.incoming.as_ref().map(Incoming::deadline));
        let sessions = [Some(&self.client), self.server.as_ref()];
        let timers = sessions.into_iter().flatten().filter_map(Session::poll_timeout);
        arrivals
            .chain(handshakes)
            .chain(timers.map(|(at, _)| at))
            .chain(self.acceptor.poll_timeout())
            .min()
    }

    /// One turn of both drivers. Tells whether anything happened.
    fn turn(&mut self) -> bool {
        let mut busy = false;
        let now = self.now;
        for index in 0..self.links.len() {
            busy |= self.deliver_up(index);
            busy |= self.deliver_down(index);
            let link = &self.links[index];
            if !link.dead
                && link
                    .incoming
                    .as_ref()
                    .is_some_and(|first| first.deadline() <= now)
            {
                self.end(index, PathEnd::Eof);
                busy = true;
            }
        }
        for session in [Some(&mut self.client), self.server.as_mut()]
            .into_iter()
            .flatten()
        {
            if session.poll_timeout().is_some_and(|(at, _)| at <= now) {
                session.handle_timeout(now);
                busy = true;
            }
        }
        busy |= self.tend_acceptor();
        self.drain_events();
        for index in 0..self.links.len() {
            busy |= self.transmit(index);
        }
        self.drain_events();
        (self.check)(&self.client);
        self.server.iter().for_each(self.check);
        busy
    }

    fn tend_acceptor(&mut self) -> bool {
        let due = self.acceptor.poll_timeout().is_some_and(|at| at <= self.now);
        if due {
            self.acceptor.handle_timeout(self.now);
        }
        while let Some(token) = self.acceptor.poll_expired() {
            if self.token == Some(token) {
                // The session gives itself up at the same moment.
                self.void = true;
            }
        }
        due
    }

    fn drain_events(&mut self) {
        while let Some(event) = self.client.poll_event() {
            self.client_events.push(event);
        }
        let Some(server) = &mut self.server else { return };
        while let Some(event) = server.poll_event() {
            match &event {
                Event::PathUp(_) => {
                    if let Some(token) = self.token {
                        self.void |= !self.acceptor.confirmed(self.now, token);
                    }
                }
                Event::State { to, .. } if to.is_terminal() => {
                    if let Some(token) = self.token {
                        let why = match to {
                            State::Closed => registry::Ended::Closed,
                            _ => registry::Ended::Expired,
                        };
                        self.acceptor.ended(self.now, token, why);
                    }
                }
                _ => {}
            }
            self.server_events.push(event);
        }
    }

    fn deliver_up(&mut self, index: usize) -> bool {
        let now = self.now;
        let link = &mut self.links[index];
        let Some(chunk) = link.up.arrived(now) else {
            return false;
        };
        link.server.input.extend_from_slice(&chunk);
        if link.server.key.is_none() {
            self.route(index);
        }
        let link = &mut self.links[index];
        if let (Some(key), Some(server)) = (link.server.key, self.server.as_mut()) {
            let capacity = link.server.input.capacity();
            let _ = server.handle_input(now, key, &mut link.server.input, capacity);
        }
        true
    }

    /// What a server does with a connection's first message.
    fn route(&mut self, index: usize) {
        let now = self.now;
        let link = &mut self.links[index];
        let Some(mut incoming) = link.incoming.take() else {
            return;
        };
        match incoming.handle_input(&mut link.server.input) {
            Ok(false) => {
                link.incoming = Some(incoming);
                return;
            }
            Ok(true) => {}
            Err(_) => return self.end(index, PathEnd::Eof),
        }
        let routed = self.acceptor.route(now, &incoming);
        let result = match (routed, &mut self.server) {
            (Routed::New { token, session }, server) => {
                self.token = Some(token);
                self.void |= server.is_some();
                server.insert(*session).accept_path(now, incoming)
            }
            (Routed::Existing { token }, Some(server)) if self.token == Some(token) => {
                server.accept_path(now, incoming)
            }
            (Routed::Existing { .. }, _) => return self.end(index, PathEnd::Eof),
            (Routed::Reject(rejected), _) => Err(rejected),
        };
        let link = &mut self.links[index];
        match result {
            Ok(key) => link.server.key = Some(key),
            Err(rejected) => {
                link.rejected = Some(rejected.code);
                let at = now + link.delay;
                link.down.chunks.push_back((at, rejected.record.to_vec()));
                link.server.closing = true;
            }
        }
    }

    fn deliver_down(&mut self, index: usize) -> bool {
        let now = self.now;
        let link = &mut self.links[index];
        let Some(chunk) = link.down.arrived(now) else {
            return false;
        };
        link.client.input.extend_from_slice(&chunk);
        if let Some(key) = link.client.key {
            let capacity = link.client.input.capacity();
            let _ = self
                .client
                .handle_input(now, key, &mut link.client.input, capacity);
        }
        true
    }

    fn transmit(&mut self, index: usize) -> bool {
        let now = self.now;
        let link = &mut self.links[index];
        let mut busy = false;
        if let Some(key) = link.client.key {
            let sent = self.client.poll_transmit(now, key, &mut link.client.out);
            link.client.closing |= sent == Transmit::CloseAfterFlush;
            busy |= link.flush(now, true);
        }
        if let (Some(key), Some(server)) = (link.server.key, self.server.as_mut()) {
            let sent = server.poll_transmit(now, key, &mut link.server.out);
            link.server.closing |= sent == Transmit::CloseAfterFlush;
            busy |= link.flush(now, false);
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
        if link.client.closing {
            if let Some(key) = link.client.key.take() {
                self.client.handle_path_closed(now, key, PathEnd::Local);
            }
            if link.up.chunks.is_empty() {
                self.end(index, PathEnd::Eof);
                return true;
            }
        } else if link.server.closing {
            if let (Some(key), Some(server)) = (link.server.key.take(), self.server.as_mut()) {
                server.handle_path_closed(now, key, PathEnd::Local);
            }
            if link.down.chunks.is_empty() {
                self.end(index, PathEnd::Eof);
                return true;
            }
        }
        false
    }
}

impl Link {
    /// Whether the two ends have bytes on their way to one another.
    pub fn is_quiet(&self) -> bool {
        self.up.chunks.is_empty() && self.down.chunks.is_empty()
    }

    fn flush(&mut self, now: Timestamp, up: bool) -> bool {
        let (out, pipe) = if up {
            (&mut self.client.out, &mut self.up)
        } else {
            (&mut self.server.out, &mut self.down)
        };
        if out.is_empty() {
            return false;
        }
        let mut bytes = Vec::with_capacity(out.len());
        while !out.is_empty() {
            let taken = out.chunk().len();
            bytes.extend_from_slice(out.chunk());
            out.advance(taken);
        }
        if self.tap {
            pipe.tapped.extend_from_slice(&bytes);
        }
        let piece = match (self.piece, self.rate) {
            (0, 0) => bytes.len(),
            (0, _) => 1400,
            (piece, _) => piece,
        };
        for part in bytes.chunks(piece) {
            let time = match self.rate {
                0 => Duration::ZERO,
                rate => Duration::from_nanos(part.len() as u64 * 1_000_000_000 / rate),
            };
            pipe.free_at = now.max(pipe.free_at) + time;
            pipe.chunks.push_back((pipe.free_at + self.delay, part.to_vec()));
        }
        true
    }
}
