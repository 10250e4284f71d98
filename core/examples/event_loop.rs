//! The core without any runtime: a client and a server on an event loop of `mio`. `docs/guides/embedding.md` walks
//! through it.
//!
//! ```text
//! cargo run -p sheetbend-core --example event_loop
//! ```
#![allow(clippy::disallowed_methods, clippy::print_stdout)] // here is the clock, and here is somebody to talk to

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use sheetbend_core::handshake::Security;
use sheetbend_core::server::registry::{self, Ended};
use sheetbend_core::server::{Acceptor, Routed, SessionToken};
use sheetbend_core::session::{
    Cause, Config, Delivery, Event, Incoming, MessageId, PathEnd, PathInfo, PathKey, SendError, Session,
    State, Transmit,
};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, ErrorCode, OutBuffer};

/// The only clock: time since it was first asked.
fn clock() -> Timestamp {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    Timestamp::ZERO + ORIGIN.elapsed()
}

/// The only randomness: keys are made of it.
fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

/// Waits for events until the deadline, or for as long as it takes.
fn wait(poll: &mut Poll, events: &mut Events, deadline: Option<Timestamp>) -> io::Result<()> {
    poll.poll(events, deadline.map(|at| at.since(clock())))
}

/// There is nothing, or no room; or the connection is not up yet.
fn not_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// A socket, what was read from it and not taken, and what is to be written to it.
struct Link {
    tcp: TcpStream,
    token: Token,
    /// mio tells of new bytes once: from then on there may be some, until a read finds none.
    readable: bool,
    input: BytesMut,
    output: OutBuffer,
    /// Nothing comes behind what is in `output`.
    closing: bool,
    end: Option<PathEnd>,
}

impl Link {
    fn new(mut tcp: TcpStream, token: Token, registry: &Registry) -> io::Result<Link> {
        tcp.set_nodelay(true)?;
        registry.register(&mut tcp, token, Interest::READABLE | Interest::WRITABLE)?;
        let (input, output) = (BytesMut::new(), OutBuffer::new());
        let (readable, closing, end) = (false, false, None);
        Ok(Link {
            tcp,
            token,
            readable,
            input,
            output,
            closing,
            end,
        })
    }

    /// Reads a block, and no more: a peer that never stops does not keep the others waiting.
    fn fill(&mut self) {
        let mut block = [0; 65_536];
        if !self.readable || self.end.is_some() {
            return;
        }
        match self.tcp.read(&mut block) {
            Ok(0) => self.end = Some(PathEnd::Eof),
            Ok(count) => self.input.extend_from_slice(&block[..count]),
            Err(error) if not_now(&error) => self.readable = false,
            Err(error) => self.end = Some(PathEnd::Io(error.kind())),
        }
    }

    /// Writes what there is room for; the rest goes when mio says that there is room again.
    fn flush(&mut self) {
        while !self.output.is_empty() && self.end.is_none() {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = self.output.io_slices(&mut slices);
            match self.tcp.write_vectored(&slices[..used]) {
                Ok(count) => self.output.advance(count),
                Err(error) if not_now(&error) => return,
                Err(error) => self.end = Some(PathEnd::Io(error.kind())),
            }
        }
        if self.closing && self.end.is_none() {
            let _ = self.tcp.shutdown(Shutdown::Write);
            self.end = Some(PathEnd::Local);
        }
    }

    /// Last words; the connection is closed behind them.
    fn refuse(mut self, record: &[u8]) {
        self.output.put(record);
        self.flush();
    }
}

/// One end of a session with its connections, the same for client and server.
struct End {
    session: Session,
    links: Vec<(PathKey, Link)>,
}

impl End {
    /// mio says that something has come up at a connection: perhaps one of these.
    fn ready(&mut self, token: Token) {
        let links = self.links.iter_mut().filter(|(_, link)| link.token == token);
        links.for_each(|(_, link)| link.readable = true);
    }

    /// The first half of a turn, in the order that `Session` asks for: input before time. Whoever wakes up late looks at
    /// what has come first, so that it does not take its own lateness for the peer's silence.
    fn take_in(&mut self, now: Timestamp) {
        for (key, link) in &mut self.links {
            link.fill();
            if !link.input.is_empty() {
                // An error is the path's end: `poll_transmit` says so, and has its last words.
                let _ = self.session.handle_input(now, *key, &mut link.input, 0);
            }
            if let Some(end) = link.end {
                self.session.handle_path_closed(now, *key, end);
            }
        }
        self.links.retain(|(_, link)| link.end.is_none());
        if self.session.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.session.handle_timeout(now);
        }
    }

    /// The second half, behind events and commands. Output is pulled once a connection has written its last.
    fn send_out(&mut self, now: Timestamp) {
        for (key, link) in &mut self.links {
            link.flush();
            while link.output.is_empty() && link.end.is_none() {
                link.closing =
                    self.session.poll_transmit(now, *key, &mut link.output) == Transmit::CloseAfterFlush;
                if link.output.is_empty() && !link.closing {
                    break;
                }
                link.flush();
            }
        }
    }

    fn send(&mut self, now: Timestamp, text: Bytes) -> Result<MessageId, SendError> {
        (self.session).send_message(now, Class::EVENTS, Delivery::Ordered, text, false)
    }

    /// What a server does with messages: it sends them back.
    fn echo(&mut self, now: Timestamp) {
        while let Ok(Some(message)) = self.session.recv_message(now, Class::EVENTS) {
            // A queue that is full is the peer's own doing: it does not read what it asked for.
            let _ = self.send(now, message.payload);
        }
    }

    /// When there is something to do though nothing happens.
    fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let busy = (self.links.iter()).any(|(_, link)| link.readable || link.end.is_some());
        let timeout = self.session.poll_timeout().map(|(at, _)| at);
        if busy { Some(now) } else { timeout }
    }
}

/// How long a client waits before it tries again. A program that many run has the core's `Connector` say when, which
/// backs off at random, knows of several addresses, and races them.
const RETRY: Duration = Duration::from_millis(100);

/// A client: one call at a time, over whichever connection there is.
struct Client {
    poll: Poll,
    address: SocketAddr,
    end: End,
    /// How many of these it has made, and when it may make the next.
    connections: usize,
    next: Timestamp,
}

impl Client {
    fn new(address: SocketAddr) -> io::Result<Client> {
        let (session, links) = (Session::client(Config::default(), seed()?, clock()), Vec::new());
        Ok(Client {
            poll: Poll::new()?,
            address,
            end: End { session, links },
            connections: 0,
            next: clock(),
        })
    }

    /// Sends a message, and waits for the next one.
    fn ask(&mut self, text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
        // There need not be a connection: what is sent waits for one.
        self.end.send(clock(), Bytes::copy_from_slice(text.as_bytes()))?;
        loop {
            self.turn()?;
            if let Some(answer) = self.end.session.recv_message(clock(), Class::EVENTS)? {
                return Ok(answer.payload.into());
            }
        }
    }

    /// Says goodbye, so that the server need not keep the session for somebody who comes back.
    fn close(&mut self) -> Result<(), Box<dyn Error>> {
        self.end.session.close(clock(), ErrorCode::NONE, "done");
        while !self.end.links.is_empty() {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Box<dyn Error>> {
        let mut now = clock();
        let lonely = self.end.links.is_empty() && self.end.session.wants_path();
        if lonely && self.next <= now {
            self.connect(now)?;
        }
        self.end.send_out(now);
        let retry = lonely.then_some(self.next);
        let deadline = self.end.deadline(now).into_iter().chain(retry).min();
        let mut events = Events::with_capacity(16);
        wait(&mut self.poll, &mut events, deadline)?;
        events.iter().for_each(|event| self.end.ready(event.token()));
        now = clock();
        self.end.take_in(now);
        while let Some(event) = self.end.session.poll_event() {
            if let Event::State { to, cause, .. } = event
                && to == State::Failed
            {
                return Err(format!("the session has failed: {cause:?}").into());
            }
        }
        Ok(())
    }

    fn connect(&mut self, now: Timestamp) -> Result<(), Box<dyn Error>> {
        self.connections += 1;
        self.next = now + RETRY;
        let tcp = TcpStream::connect(self.address)?;
        let link = Link::new(tcp, Token(self.connections), self.poll.registry())?;
        let path = self.end.session.open_path(now, tcp_path(self.address))?;
        self.end.links.push((path, link));
        Ok(())
    }
}

fn tcp_path(peer: SocketAddr) -> PathInfo {
    PathInfo::new(format!("tcp://{peer}"), "tcp", Security::Plain)
}

/// A server: connections come in, the acceptor says whose they are.
struct Server {
    listener: TcpListener,
    next_token: usize,
    acceptor: Acceptor,
    /// Connections whose first message is not there yet.
    waiting: Vec<(Incoming, Link)>,
    ends: BTreeMap<SessionToken, End>,
}

impl Server {
    fn bind(address: SocketAddr) -> io::Result<Server> {
        let (registry, config) = (registry::Config::default(), Config::default());
        Ok(Server {
            listener: TcpListener::bind(address)?,
            next_token: 1,
            acceptor: Acceptor::new(registry, config, seed()?, clock()),
            waiting: Vec::new(),
            ends: BTreeMap::new(),
        })
    }

    /// Serves for ever. A turn looks at every session; one of very many would keep a map from tokens to them, and a
    /// queue of deadlines.
    fn run(&mut self) -> io::Result<()> {
        let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
        let registry = poll.registry().try_clone()?;
        registry.register(&mut self.listener, Token(0), Interest::READABLE)?;
        loop {
            let now = clock();
            let ends = self.ends.values().filter_map(|end| end.deadline(now));
            let waiting = self.waiting.iter().map(|(incoming, _)| incoming.deadline());
            let deadline = ends.chain(waiting).chain(self.acceptor.poll_timeout()).min();
            wait(&mut poll, &mut events, deadline)?;
            for token in events.iter().map(mio::event::Event::token) {
                let waiting = self.waiting.iter_mut().filter(|(_, link)| link.token == token);
                waiting.for_each(|(_, link)| link.readable = true);
                self.ends.values_mut().for_each(|end| end.ready(token));
            }
            let now = clock();
            self.accept(now, &registry)?;
            self.route(now);
            self.turn(now);
        }
    }

    fn accept(&mut self, now: Timestamp, registry: &Registry) -> io::Result<()> {
        while let Ok((tcp, from)) = self.listener.accept() {
            let link = Link::new(tcp, Token(self.next_token), registry)?;
            self.next_token += 1;
            self.waiting.push((Incoming::new(now, tcp_path(from)), link));
        }
        Ok(())
    }

    /// Hands connections whose first message has come to their sessions.
    fn route(&mut self, now: Timestamp) {
        for (mut incoming, mut link) in std::mem::take(&mut self.waiting) {
            link.fill();
            match incoming.handle_input(&mut link.input) {
                Ok(true) => {}
                Ok(false) if link.end.is_none() && now < incoming.deadline() => {
                    self.waiting.push((incoming, link));
                    continue;
                }
                _ => continue,
            }
            let (token, new) = match self.acceptor.route(now, &incoming) {
                Routed::New { token, session } => (token, Some((*session, Vec::new()))),
                Routed::Existing { token } => (token, None),
                Routed::Reject(rejected) => {
                    link.refuse(&rejected.record);
                    continue;
                }
            };
            if let Some((session, links)) = new {
                self.ends.insert(token, End { session, links });
            }
            let Some(end) = self.ends.get_mut(&token) else {
                continue;
            };
            match end.session.accept_path(now, incoming) {
                Ok(key) => end.links.push((key, link)),
                Err(rejected) => link.refuse(&rejected.record),
            }
        }
    }

    fn turn(&mut self, now: Timestamp) {
        for (&token, end) in &mut self.ends {
            end.take_in(now);
            while let Some(event) = end.session.poll_event() {
                let Event::State { to, cause, .. } = event else {
                    continue;
                };
                match (to, cause) {
                    (State::Connected, _) => drop(self.acceptor.confirmed(now, token)),
                    (State::Failed, Cause::ResumeTimeout) => self.acceptor.ended(now, token, Ended::Expired),
                    (State::Closed | State::Failed, _) => self.acceptor.ended(now, token, Ended::Closed),
                    _ => {}
                }
            }
            end.echo(now);
            end.send_out(now);
        }
        let ended = |end: &End| end.session.state().is_terminal() && end.links.is_empty();
        self.ends.retain(|_, end| !ended(end));
        self.acceptor.handle_timeout(now);
        while let Some(token) = self.acceptor.poll_expired() {
            self.ends.remove(&token);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let mut client = Client::new(server.listener.local_addr()?)?;
    std::thread::spawn(move || server.run().expect("the server's loop goes on"));
    for number in 1..=5 {
        let text = format!("message {number}");
        assert_eq!(client.ask(&text)?, text.as_bytes());
        println!("{text} was answered over connection {}", client.connections);
        // As if somebody had pulled the cable out.
        let links = client.end.links.iter();
        links.for_each(|(_, link)| drop(link.tcp.shutdown(Shutdown::Both)));
    }
    client.close()
}
