//! A server on blocking-free `std::net` in one thread: how to embed the core without any runtime.
//!
//! ```text
//! cargo run -p sheetbend-core --example plain_server -- 127.0.0.1:4433
//! python3 docs/examples/python/sheetbend_client.py 127.0.0.1:4433
//! ```
//!
//! It answers unary calls (PROTOCOL 11): `echo` gives the payload back, any other method is UNIMPLEMENTED.
//! A real driver waits for its sockets and for `poll_timeout`, as `event_loop.rs` does; this one looks again every
//! millisecond.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use sheetbend_core::handshake::Security;
use sheetbend_core::request::{
    CallHead, CallKind, Code, Failure, Metadata, PeerMethods, Reason, put_failure, put_success,
};
use sheetbend_core::server::registry::{self, Ended};
use sheetbend_core::server::{Acceptor, Routed, SessionToken};
use sheetbend_core::session::{
    Cause, Config, Event, Incoming, PathEnd, PathInfo, PathKey, Read, Session, State, StreamKey, Transmit,
};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, Kind, OutBuffer};

/// A connection, and what was read from it and not taken.
struct Socket {
    tcp: TcpStream,
    input: BytesMut,
    output: OutBuffer,
    end: Option<PathEnd>,
}

impl Socket {
    fn new(tcp: TcpStream) -> io::Result<Socket> {
        tcp.set_nonblocking(true)?;
        tcp.set_nodelay(true)?;
        Ok(Socket {
            tcp,
            input: BytesMut::new(),
            output: OutBuffer::new(),
            end: None,
        })
    }

    /// Reads what is there. Tells whether there was something.
    fn fill(&mut self) -> bool {
        let mut block = [0; 65_536];
        let end = match self.tcp.read(&mut block) {
            Ok(0) => PathEnd::Eof,
            Ok(count) => {
                self.input.extend_from_slice(&block[..count]);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => PathEnd::Io(error.kind()),
        };
        self.end.get_or_insert(end);
        false
    }

    fn flush(&mut self) {
        while !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = self.output.io_slices(&mut slices);
            match self.tcp.write_vectored(&slices[..used]) {
                Ok(count) => self.output.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.end.get_or_insert(PathEnd::Io(error.kind()));
                    return;
                }
            }
        }
    }
}

/// A session, its connections, and the requests that it is taking in.
struct Peer {
    session: Session,
    links: Vec<(PathKey, Socket)>,
    requests: BTreeMap<StreamKey, Vec<u8>>,
    /// What its numbers of methods stand for.
    methods: PeerMethods,
    /// What the streams did not take yet of answers.
    answers: BTreeMap<StreamKey, Vec<u8>>,
}

impl Peer {
    /// One turn, in the order that `Session` asks for: input, time, events, commands, output.
    fn turn(&mut self, now: Timestamp) -> bool {
        let mut busy = false;
        for (key, socket) in &mut self.links {
            if socket.end.is_none() && socket.fill() {
                busy = true;
                // An error is the path's end: `poll_transmit` says so, and has its last words.
                let _ = self.session.handle_input(now, *key, &mut socket.input, 0);
            }
            if let Some(end) = socket.end {
                self.session.handle_path_closed(now, *key, end);
            }
        }
        self.links.retain(|(_, socket)| socket.end.is_none());
        if self.session.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.session.handle_timeout(now);
        }
        self.serve(now);
        for (key, socket) in &mut self.links {
            let close = match socket.output.is_empty() {
                true => self.session.poll_transmit(now, *key, &mut socket.output),
                false => Transmit::Nothing,
            };
            socket.flush();
            if close == Transmit::CloseAfterFlush && socket.output.is_empty() {
                let _ = socket.tcp.shutdown(Shutdown::Write);
                socket.end = Some(PathEnd::Local);
            }
        }
        busy
    }

    fn serve(&mut self, now: Timestamp) {
        while let Some(key) = self.session.accept(Kind::Bi, Class::REQUESTS) {
            self.requests.insert(key, Vec::new());
        }
        let keys: Vec<StreamKey> = self.requests.keys().copied().collect();
        for key in keys {
            match self.session.read(now, key, usize::MAX) {
                Ok(Read::Data(data)) => self.requests.entry(key).or_default().extend_from_slice(&data),
                Ok(Read::Blocked) => {}
                Ok(Read::Finished) => {
                    let request = self.requests.remove(&key).unwrap_or_default();
                    self.answers
                        .insert(key, answer(request.into(), &mut self.methods));
                }
                Err(_) => {
                    self.requests.remove(&key);
                    self.session.release(key);
                }
            }
        }
        let session = &mut self.session;
        self.answers.retain(|&key, rest| match session.write(key, rest) {
            Ok(count) if count < rest.len() => {
                rest.drain(..count);
                true
            }
            _ => {
                let _ = session.finish(key);
                session.release(key);
                false
            }
        });
    }
}

/// PROTOCOL 11.
fn answer(request: Bytes, methods: &mut PeerMethods) -> Vec<u8> {
    let (nothing, mut out) = (Metadata::new(), Vec::new());
    let mut payload = request;
    let failure = match CallHead::take(&mut payload, true, methods) {
        Err(error) => error.failure(),
        Ok(Some(head)) if head.kind != CallKind::Unary || head.key.is_some() => {
            Failure::refused(Code::Unimplemented, Reason::NoSuchMethod)
        }
        Ok(Some(head)) if head.name(methods) == "echo" => {
            put_success(&mut out, &nothing);
            out.extend_from_slice(&payload);
            return out;
        }
        Ok(_) => Failure::refused(Code::Unimplemented, Reason::NoSuchMethod),
    };
    put_failure(&mut out, &failure, &nothing);
    out
}

struct Server {
    acceptor: Acceptor,
    /// Connections whose first message is not there yet.
    waiting: Vec<(Incoming, Socket)>,
    peers: BTreeMap<SessionToken, Peer>,
}

impl Server {
    fn turn(&mut self, now: Timestamp) -> bool {
        self.route(now);
        let mut busy = false;
        for (&token, peer) in &mut self.peers {
            busy |= peer.turn(now);
            while let Some(event) = peer.session.poll_event() {
                println!("session {}: {event:?}", token.value());
                let Event::State { to, cause, .. } = event else {
                    continue;
                };
                match (to, cause) {
                    (State::Connected, _) => drop(self.acceptor.confirmed(now, token)),
                    (State::Failed, Cause::ResumeTimeout) => {
                        self.acceptor.ended(now, token, Ended::Expired);
                    }
                    (State::Closed | State::Failed, _) => self.acceptor.ended(now, token, Ended::Closed),
                    _ => {}
                }
            }
        }
        self.peers
            .retain(|_, peer| !peer.session.state().is_terminal() || !peer.links.is_empty());
        self.acceptor.handle_timeout(now);
        while let Some(token) = self.acceptor.poll_expired() {
            self.peers.remove(&token);
        }
        busy
    }

    /// Hands connections whose first message has come to their sessions.
    fn route(&mut self, now: Timestamp) {
        for (mut incoming, mut socket) in std::mem::take(&mut self.waiting) {
            socket.fill();
            match incoming.handle_input(&mut socket.input) {
                Ok(true) => {}
                Ok(false) if socket.end.is_none() && now < incoming.deadline() => {
                    self.waiting.push((incoming, socket));
                    continue;
                }
                _ => continue,
            }
            let token = match self.acceptor.route(now, &incoming) {
                Routed::New { token, session } => {
                    let peer = Peer {
                        session: *session,
                        links: Vec::new(),
                        requests: BTreeMap::new(),
                        methods: PeerMethods::new(),
                        answers: BTreeMap::new(),
                    };
                    self.peers.insert(token, peer);
                    token
                }
                Routed::Existing { token } => token,
                Routed::Reject(rejected) => {
                    let _ = socket.tcp.write_all(&rejected.record);
                    continue;
                }
            };
            let Some(peer) = self.peers.get_mut(&token) else {
                continue;
            };
            match peer.session.accept_path(now, incoming) {
                Ok(key) => {
                    // What came behind the first message is the session's.
                    let _ = peer.session.handle_input(now, key, &mut socket.input, 0);
                    peer.links.push((key, socket));
                }
                Err(rejected) => drop(socket.tcp.write_all(&rejected.record)),
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let origin = Instant::now();
    let clock = || Timestamp::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let mut server = Server {
        acceptor: Acceptor::new(registry::Config::default(), Config::default(), seed, clock()),
        waiting: Vec::new(),
        peers: BTreeMap::new(),
    };
    loop {
        let now = clock();
        while let Ok((tcp, from)) = listener.accept() {
            let info = PathInfo::new(format!("tcp://{from}"), "tcp", Security::Plain);
            server.waiting.push((Incoming::new(now, info), Socket::new(tcp)?));
        }
        if !server.turn(now) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
