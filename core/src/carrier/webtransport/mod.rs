//! WebTransport over HTTP/3 as a carrier, client and server: as much of HTTP/3 (RFC 9114) as one session of
//! WebTransport (draft-ietf-webtrans-http3, 02 to 07) needs. PROTOCOL 14.9.
//!
//! The machine sees the QUIC streams that are not lanes: the control streams, those of QPACK, and the one with
//! the CONNECT request. Of a stream that belongs to the session it reads the first bytes, and hands it over.
//! Field sections and settings are coded by wtransport-proto; what it does not bound is checked here first.

mod capsule;
mod error;
mod fields;
mod host;
mod request;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod units;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

pub use capsule::Close;
pub use error::{Http3Error, code, from_http3, to_http3};
pub use host::Http3;
pub use request::{ClientHandshake, ServerHandshake};

use super::budget::IdleBudget;
use super::http::HttpError;
use super::quic::{Dir, QuicStreamId as StreamId, Side};
use crate::time::Timestamp;
use settings::PeerSettings;
use stream::Role;
use units::{put_unit, put_varint, take_varint};

/// Streams of the session that came before it stood, and wait for it.
const MAX_HELD: usize = 16;
/// Frames, capsules, streams and requests without a meaning to us at once; 100 more in each second.
const MAX_IDLE: u32 = 1000;
/// Interim answers (1xx) to a request.
const MAX_INTERIM: u32 = 8;

/// Types of frames, RFC 9114 §11.2.1.
mod frame {
    pub(super) const DATA: u64 = 0x00;
    pub(super) const HEADERS: u64 = 0x01;
    pub(super) const CANCEL_PUSH: u64 = 0x03;
    pub(super) const SETTINGS: u64 = 0x04;
    pub(super) const PUSH_PROMISE: u64 = 0x05;
    pub(super) const GOAWAY: u64 = 0x07;
    pub(super) const MAX_PUSH_ID: u64 = 0x0d;
    /// What a bidirectional stream of a session begins with; it has no length.
    pub(super) const WEBTRANSPORT_STREAM: u64 = 0x41;
}

/// Types of unidirectional streams, RFC 9114 §11.2.4.
mod uni {
    pub(super) const CONTROL: u64 = 0x00;
    pub(super) const PUSH: u64 = 0x01;
    pub(super) const QPACK_ENCODER: u64 = 0x02;
    pub(super) const QPACK_DECODER: u64 = 0x03;
    pub(super) const WEBTRANSPORT_STREAM: u64 = 0x54;
}

/// What the application is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session stands: streams and datagrams can be sent.
    Established {
        /// Whether the peer takes datagrams.
        datagrams: bool,
    },
    /// The peer has opened a stream of the session.
    Stream {
        /// Its id; the machine is not to hear of it again.
        id: StreamId,
        /// What came behind its header.
        early: Bytes,
    },
    /// There is no session: the server, which may be us, has refused it. A server serves the next request.
    Refused(HttpError),
    /// The peer has closed the session.
    Ended(Close),
}

/// What is to be done on the QUIC connection, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a stream, and tell its id by [`WebTransport::handle_opened`].
    Open(Dir),
    /// Send bytes on a stream, and end it if `fin`.
    Send {
        /// The stream.
        id: StreamId,
        /// What to send.
        bytes: Bytes,
        /// Whether nothing follows.
        fin: bool,
    },
    /// Reset what we send on a stream.
    Reset {
        /// The stream.
        id: StreamId,
        /// A [code] of HTTP/3.
        code: u64,
    },
    /// Ask the peer to stop sending on a stream, and drop what comes.
    Stop {
        /// The stream.
        id: StreamId,
        /// A [code] of HTTP/3.
        code: u64,
    },
}

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A client waits for the server's SETTINGS, a server for the request.
    Waiting,
    /// The request is sent on this stream.
    Asked(StreamId),
    /// The session is that of the request on this stream.
    Open(StreamId),
    Closed,
}

/// Which end this is.
#[derive(Debug)]
enum End {
    Client(ClientHandshake),
    Server(ServerHandshake),
}

/// One end of a connection that speaks HTTP/3, with one session of WebTransport.
///
/// - Streams: [`handle_opened`](Self::handle_opened) for each stream that either end has opened,
///   [`handle_stream`](Self::handle_stream) with what came on those that the machine
///   [reads](Self::reads), [`handle_fin`](Self::handle_fin), [`handle_reset`](Self::handle_reset) and
///   [`handle_stopped`](Self::handle_stopped).
/// - Datagrams: [`handle_datagram`](Self::handle_datagram).
/// - Commands: [`close`](Self::close).
/// - Results: [`poll_event`](Self::poll_event), then [`poll_output`](Self::poll_output), until there are none.
///
/// An error is the end of the connection, which is to be closed with its code; it comes again from then on.
/// There are no timers: how long a handshake may take is the driver's.
#[derive(Debug)]
pub struct WebTransport {
    end: End,
    state: State,
    /// Streams that the machine reads, or that are held.
    streams: BTreeMap<StreamId, Role>,
    /// Our control stream, once it is open.
    control: Option<StreamId>,
    /// Of the peer's critical streams those that were opened: control, encoder, decoder.
    opened: [bool; 3],
    settings: Option<PeerSettings>,
    /// A request that came before the SETTINGS, without which no answer may go out.
    early_request: Option<(StreamId, Vec<(String, String)>)>,
    goaway: Option<u64>,
    max_push_id: Option<u64>,
    idle: IdleBudget,
    events: VecDeque<Event>,
    outputs: VecDeque<Output>,
    failed: Option<Http3Error>,
}

impl WebTransport {
    /// A client's end, which asks for a session as soon as the server's SETTINGS are there.
    pub fn client(handshake: ClientHandshake) -> WebTransport {
        WebTransport::new(End::Client(handshake))
    }

    /// A server's end.
    pub fn server(handshake: ServerHandshake) -> WebTransport {
        WebTransport::new(End::Server(handshake))
    }

    fn new(end: End) -> WebTransport {
        WebTransport {
            end,
            state: State::Waiting,
            streams: BTreeMap::new(),
            control: None,
            opened: [false; 3],
            settings: None,
            early_request: None,
            goaway: None,
            max_push_id: None,
            idle: IdleBudget::new(MAX_IDLE),
            events: VecDeque::new(),
            outputs: VecDeque::from([Output::Open(Dir::Uni)]),
            failed: None,
        }
    }

    fn side(&self) -> Side {
        match self.end {
            End::Client(_) => Side::Client,
            End::Server(_) => Side::Server,
        }
    }

    /// Whether the session stands.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether bytes of that stream are for the machine. Others that it was told of are held until the
    /// session stands, or are not its own any more.
    pub fn reads(&self, id: StreamId) -> bool {
        self.streams
            .get(&id)
            .is_some_and(|role| !matches!(role, Role::Held { .. }))
    }

    /// Whether that stream is the machine's: it reads or holds it, or speaks HTTP/3 on it.
    pub fn owns(&self, id: StreamId) -> bool {
        let (State::Asked(own) | State::Open(own)) = self.state else {
            return self.control == Some(id) || self.streams.contains_key(&id);
        };
        own == id || self.control == Some(id) || self.streams.contains_key(&id)
    }

    /// Nobody has a use for a stream of the session that was handed over.
    ///
    /// # Errors
    /// There were too many of them: the connection is over.
    pub fn turn_away(&mut self, now: Timestamp, id: StreamId) -> Result<(), Http3Error> {
        self.check()?;
        let refused = self.refuse(now, id, to_http3(0));
        self.stick(refused)
    }

    /// A stream is open: the peer's, or one that [`Output::Open`] asked for. How many the peer may have open
    /// is the connection's to limit.
    ///
    /// # Errors
    /// The connection is over.
    pub fn handle_opened(&mut self, id: StreamId) -> Result<(), Http3Error> {
        self.check()?;
        if id.initiator() == self.side() {
            match id.dir() {
                Dir::Uni => self.greet(id),
                Dir::Bi => self.ask(id),
            }
        } else {
            self.streams.insert(id, Role::default());
        }
        Ok(())
    }

    /// Our control stream begins with its type and SETTINGS.
    fn greet(&mut self, id: StreamId) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, uni::CONTROL);
        put_unit(
            &mut bytes,
            frame::SETTINGS,
            &settings::ours(self.side() == Side::Server),
        );
        self.control = Some(id);
        self.send(id, bytes, false);
    }

    /// Our CONNECT request.
    fn ask(&mut self, id: StreamId) {
        let (End::Client(handshake), State::Waiting) = (&self.end, self.state) else {
            let code = code::NO_ERROR;
            return self.outputs.push_back(Output::Reset { id, code });
        };
        let mut bytes = Vec::new();
        put_unit(&mut bytes, frame::HEADERS, &handshake.encode());
        self.state = State::Asked(id);
        self.streams.insert(id, Role::request());
        self.send(id, bytes, false);
    }

    /// Bytes came on a stream, behind those that came before.
    ///
    /// # Errors
    /// The connection is over.
    pub fn handle_stream(&mut self, now: Timestamp, id: StreamId, bytes: Bytes) -> Result<(), Http3Error> {
        self.check()?;
        let read = self.read(now, id, bytes);
        self.stick(read)
    }

    /// The peer has ended a stream.
    ///
    /// # Errors
    /// The connection is over.
    pub fn handle_fin(&mut self, now: Timestamp, id: StreamId) -> Result<(), Http3Error> {
        self.check()?;
        let ended = self.ended(now, id, None);
        self.stick(ended)
    }

    /// The peer has reset a stream.
    ///
    /// # Errors
    /// The connection is over.
    pub fn handle_reset(&mut self, now: Timestamp, id: StreamId, code: u64) -> Result<(), Http3Error> {
        self.check()?;
        let ended = self.ended(now, id, Some(code));
        self.stick(ended)
    }

    /// The peer does not want what we send on a stream.
    ///
    /// # Errors
    /// The connection is over.
    pub fn handle_stopped(&mut self, id: StreamId, code: u64) -> Result<(), Http3Error> {
        self.check()?;
        if self.control == Some(id) {
            let closed = Http3Error::new(code::CLOSED_CRITICAL_STREAM, "our control stream is stopped");
            return self.stick(Err(closed));
        }
        match self.state {
            State::Open(session) if session == id => self.session_gone(Close {
                code: from_http3(code).unwrap_or(0),
                reason: String::new(),
            }),
            // RFC 9114 §4.1: the answer is complete, and comes or has come.
            State::Asked(session) if session == id && code != code::NO_ERROR => self.refused_by_server(),
            _ => {}
        }
        Ok(())
    }

    /// The payload of a datagram of the session; `None` where it is of none that stands.
    ///
    /// # Errors
    /// The connection is over.
    pub fn handle_datagram(&mut self, datagram: Bytes) -> Result<Option<Bytes>, Http3Error> {
        self.check()?;
        let mut rest = &datagram[..];
        // RFC 9297 §2.1: a quarter of the stream's id.
        let Some(quarter) = take_varint(&mut rest).filter(|quarter| *quarter < 1 << 60) else {
            let wrong = Http3Error::new(code::DATAGRAM_ERROR, "a datagram that names no stream");
            return self.stick(Err(wrong));
        };
        match self.state {
            State::Open(id) if u64::from(id) / 4 == quarter => Ok(Some(datagram.slice_ref(rest))),
            _ => Ok(None),
        }
    }

    /// Appends what a stream of the session begins with, and tells whether there is a session.
    pub fn put_stream_header(&self, dir: Dir, out: &mut Vec<u8>) -> bool {
        let State::Open(session) = self.state else {
            return false;
        };
        match dir {
            Dir::Bi => put_varint(out, frame::WEBTRANSPORT_STREAM),
            Dir::Uni => put_varint(out, uni::WEBTRANSPORT_STREAM),
        }
        put_varint(out, session.into());
        true
    }

    /// Appends what a datagram of the session begins with, and tells whether there is a session that takes
    /// any.
    pub fn put_datagram_header(&self, out: &mut Vec<u8>) -> bool {
        let State::Open(session) = self.state else {
            return false;
        };
        if !self.settings.is_some_and(|settings| settings.datagrams) {
            return false;
        }
        put_varint(out, u64::from(session) / 4);
        true
    }

    /// Closes the session, if it stands. The connection may be closed when this has been sent.
    pub fn close(&mut self, code: u32, reason: &str) {
        if let State::Open(session) = self.state {
            let mut bytes = Vec::new();
            put_unit(&mut bytes, frame::DATA, &capsule::close(code, reason));
            self.send(session, bytes, true);
            self.streams.remove(&session);
        }
        self.state = State::Closed;
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is to be done next on the connection.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn check(&self) -> Result<(), Http3Error> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Keeps an error, and gives it on.
    fn stick<T>(&mut self, result: Result<T, Http3Error>) -> Result<T, Http3Error> {
        if let Err(error) = &result {
            self.failed = Some(*error);
            self.state = State::Closed;
            self.streams.clear();
            self.outputs.clear();
        }
        result
    }

    fn spend(&mut self, now: Timestamp) -> Result<(), Http3Error> {
        match self.idle.spend(now) {
            true => Ok(()),
            false => Err(Http3Error::new(
                code::EXCESSIVE_LOAD,
                "too much that means nothing here",
            )),
        }
    }

    fn send(&mut self, id: StreamId, bytes: impl Into<Bytes>, fin: bool) {
        let bytes = bytes.into();
        self.outputs.push_back(Output::Send { id, bytes, fin });
    }

    /// Wants nothing more of one of the peer's streams.
    fn refuse(&mut self, now: Timestamp, id: StreamId, code: u64) -> Result<(), Http3Error> {
        self.spend(now)?;
        self.streams.remove(&id);
        self.outputs.push_back(Output::Stop { id, code });
        if id.dir() == Dir::Bi {
            self.outputs.push_back(Output::Reset { id, code });
        }
        Ok(())
    }

    /// The session stands: what was held for it is handed over.
    fn establish(&mut self, now: Timestamp, session: StreamId, datagrams: bool) -> Result<(), Http3Error> {
        self.state = State::Open(session);
        self.events.push_back(Event::Established { datagrams });
        let held: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, role)| matches!(role, Role::Held { .. }))
            .map(|(id, _)| *id)
            .collect();
        for id in held {
            match self.streams.remove(&id) {
                Some(Role::Held { session: of, early }) if of == session => {
                    self.events.push_back(Event::Stream { id, early });
                }
                _ => self.refuse(now, id, code::WEBTRANSPORT_BUFFERED_STREAM_REJECTED)?,
            }
        }
        Ok(())
    }

    /// The peer has ended the session.
    fn session_gone(&mut self, close: Close) {
        if let State::Open(session) = self.state {
            self.streams.remove(&session);
            self.send(session, Bytes::new(), true);
            self.events.push_back(Event::Ended(close));
        }
        self.state = State::Closed;
    }

    /// Our request came to nothing.
    fn refused_by_server(&mut self) {
        self.state = State::Closed;
        self.events.push_back(Event::Refused(HttpError::Unanswered));
    }
}
