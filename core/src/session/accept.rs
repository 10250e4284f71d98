//! How a server takes a connection in: its first message, then the path it becomes (PROTOCOL 5 and 6).

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::Session;
use super::config::{Config, EarlyStart, PathInfo};
use super::error::PathError;
use super::establish::{EARLY_BYTES, EARLY_STREAMS, Handshake, Identity, MAX_HELLO_PATHS, handshake_frame};
use super::event::{PathEnd, SwitchCause};
use super::keys::PathKey;
use super::lifecycle::Cause;
use super::path::{Lane, Stage};
use super::timers::TimerKind;
use crate::handshake::{
    EphemeralSecret, HandshakeError, Hello, Join, Joined, Params, Reject, Routing, Security, SessionId,
    SessionKeys, VERSION, Welcome,
};
use crate::marks::sometimes;
use crate::server::Origin;
use crate::time::Timestamp;
use crate::wire::{
    Class, Frame, HandshakeKind, OutBuffer, RecordBuilder, RecordLimits, RejectCode, Side, split_record,
};

/// A server's connection before it is known what it wants: its first handshake message.
#[derive(Debug)]
pub struct Incoming {
    info: PathInfo,
    origin: Origin,
    deadline: Timestamp,
    first: Option<First>,
    bytes: u64,
}

/// The message with which a path begins.
#[derive(Clone, Debug)]
pub(crate) enum First {
    Hello(Hello),
    Join(Join),
}

impl Incoming {
    /// A connection that was just accepted. It has 10 seconds for its first message.
    pub fn new(now: Timestamp, info: PathInfo) -> Incoming {
        let deadline = now + Duration::from_secs(10);
        Incoming {
            info,
            origin: Origin::Unknown,
            deadline,
            first: None,
            bytes: 0,
        }
    }

    /// Tells where the connection comes from: the session it makes is counted for that origin.
    #[must_use]
    pub fn from_origin(mut self, origin: Origin) -> Incoming {
        self.origin = origin;
        self
    }

    /// Where the connection comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// When the connection is to be closed if its first message is not there.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// The connection's description.
    pub fn info(&self) -> &PathInfo {
        &self.info
    }

    /// Takes in bytes. `true` once the first message is there; what follows it stays in `buffer` and
    /// belongs to the session ([`Session::handle_input`]).
    ///
    /// # Errors
    /// Close the connection: what came is not this protocol.
    pub fn handle_input(&mut self, buffer: &mut BytesMut) -> Result<bool, PathError> {
        if self.first.is_some() {
            return Ok(true);
        }
        let mut input: &[u8] = buffer;
        let mut scratch = Vec::new();
        let Some(record) = split_record(&mut input, &RecordLimits::HANDSHAKE, &mut scratch)? else {
            return Ok(false);
        };
        let mut body = record.body;
        let first = match Frame::decode(&mut body)? {
            Some(Frame::Handshake {
                kind: HandshakeKind::Hello,
                body,
            }) => First::Hello(Hello::decode(body)?),
            Some(Frame::Handshake {
                kind: HandshakeKind::Join,
                body,
            }) if self.info.early == EarlyStart::No => First::Join(Join::decode(body)?),
            // PROTOCOL 14.8: there is nothing yet that its proof could be bound to.
            Some(Frame::Handshake {
                kind: HandshakeKind::Join,
                ..
            }) => {
                return Err(PathError::UnexpectedHandshake(
                    "JOIN before the carrier's handshake is done",
                ));
            }
            _ => return Err(PathError::UnexpectedHandshake("a path begins with HELLO or JOIN")),
        };
        if !body.is_empty() {
            return Err(PathError::UnexpectedHandshake(
                "a handshake message has its record to itself",
            ));
        }
        let len = record.wire_len;
        self.first = Some(first);
        self.bytes = len as u64;
        buffer.advance(len);
        Ok(true)
    }

    pub(crate) fn first(&self) -> Option<&First> {
        self.first.as_ref()
    }
}

/// A path that was refused: write the record, then close the connection.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Why.
    pub code: RejectCode,
    /// The record with REJECT.
    pub record: Bytes,
}

impl Rejected {
    /// The refusal `reject` as a record.
    pub fn new(reject: &Reject) -> Rejected {
        let mut body = Vec::new();
        reject.encode(&mut body);
        let mut out = OutBuffer::new();
        let mut builder = RecordBuilder::begin(&mut out, crate::wire::HANDSHAKE_MAX_BODY, true);
        builder.frame(&Frame::Handshake {
            kind: HandshakeKind::Reject,
            body: &body,
        });
        builder.finish();
        Rejected {
            code: reject.code,
            record: Bytes::copy_from_slice(out.chunk()),
        }
    }
}

/// PROTOCOL 5.5: a server announces at least the credit that early data uses unasked.
fn with_early_credit(mut config: Arc<Config>) -> Arc<Config> {
    let index = Class::REQUESTS.index();
    let params = &config.params;
    let enough = params.max_streams[index].bi >= EARLY_STREAMS
        && params.max_data[index] >= EARLY_BYTES
        && params.max_stream_data[index] >= EARLY_BYTES;
    if !enough {
        let params = &mut Arc::make_mut(&mut config).params;
        let streams = &mut params.max_streams[index].bi;
        *streams = (*streams).max(EARLY_STREAMS);
        for credit in [&mut params.max_data[index], &mut params.max_stream_data[index]] {
            *credit = (*credit).max(EARLY_BYTES);
        }
    }
    config
}

impl Session {
    /// A server's session for `hello`, answered with WELCOME on the path that
    /// [`Session::accept_path`] makes of it.
    pub(crate) fn server(
        config: Arc<Config>,
        seed: [u8; 32],
        now: Timestamp,
        hello: &Hello,
        session_id: SessionId,
        routing: Routing,
    ) -> Result<Session, HandshakeError> {
        let mut session = Session::new(Side::Server, with_early_credit(config), seed, now);
        let own = session.config.security_floor.unwrap_or_default();
        let params = Params {
            floor: own,
            ..session.config.params.clone()
        };
        session.floor = Some(own.max(hello.params().floor));
        session.hello_unread = hello.params().floor >= Security::Encrypted;
        let secret = EphemeralSecret::from_seed(session.rng.bytes());
        let welcome = Welcome::new(0, VERSION, session_id, routing.clone(), secret.share(), params)?;
        let keys = SessionKeys::server(&secret, hello, &welcome)?;
        session.identity = Some(Identity {
            id: session_id,
            routing,
            keys,
            welcome: welcome.digest(),
        });
        session.handshake = Handshake::Server { welcome };
        session.adopt_peer(hello.params());
        session.transition(Cause::Opening);
        session
            .timers
            .set(TimerKind::Handshake, now + session.config.handshake_timeout);
        Ok(session)
    }

    /// Attaches a connection whose first message was routed to this session.
    ///
    /// # Errors
    /// Write the refusal's record and close the connection. The session is unharmed.
    pub fn accept_path(&mut self, now: Timestamp, incoming: Incoming) -> Result<PathKey, Rejected> {
        let reject = |code, detail: &str| Rejected::new(&Reject::new(code, detail));
        if self.state.is_terminal() {
            return Err(reject(RejectCode::CLOSED, "the session has ended"));
        }
        let Some(first) = incoming.first.clone() else {
            return Err(reject(RejectCode::MALFORMED, "no first message"));
        };
        if self.floor.is_some_and(|floor| incoming.info.security < floor) {
            sometimes!(self.marks, CarrierTooWeak);
            return Err(reject(
                RejectCode::SECURITY_FLOOR,
                "this carrier is weaker than the session accepts",
            ));
        }
        match first {
            First::Hello(hello) => self.accept_hello(now, &hello, incoming),
            First::Join(join) => self.accept_join(now, &join, incoming),
        }
    }

    fn accept_hello(
        &mut self,
        now: Timestamp,
        hello: &Hello,
        incoming: Incoming,
    ) -> Result<PathKey, Rejected> {
        let reject = |code, detail: &str| Rejected::new(&Reject::new(code, detail));
        let Handshake::Server { welcome } = &self.handshake else {
            sometimes!(self.marks, UseJoin);
            return Err(reject(RejectCode::USE_JOIN, "the session is confirmed"));
        };
        let mut welcome = welcome.on_path(hello.path_id());
        if !self.has_room_for_path() {
            sometimes!(self.marks, TooManyPaths);
            return Err(reject(RejectCode::TOO_MANY_PATHS, "eight paths are attached"));
        }
        // Nothing proves a HELLO: its id counts as used for other HELLOs only, until CONFIRM has come.
        // So who copies one uses up none of the ids that the client will take.
        let id = hello.path_id();
        if self.hello_ids.len() >= MAX_HELLO_PATHS {
            return Err(reject(
                RejectCode::TOO_MANY_PATHS,
                "too many paths began with this HELLO",
            ));
        }
        if self.hello_ids.contains(&id)
            || self.slot_of_path_id(id).is_some()
            || self.path_ids.check(id).is_err()
        {
            sometimes!(self.marks, PathIdReused);
            return Err(reject(RejectCode::PATH_ID_USED, "the path id was used before"));
        }
        self.hello_ids.push(id);
        let first = !std::mem::replace(&mut self.welcomed, true);
        if let Some(identity) = &self.identity {
            identity.keys.sign_welcome(&mut welcome);
        }
        sometimes!(self.marks, HelloRepeated, !first);
        let stage = if first { Stage::Welcomed } else { Stage::Repeated };
        let slot = self.insert_path(now, hello.path_id(), incoming.info, stage);
        let frame = handshake_frame(HandshakeKind::Welcome, |out| welcome.encode(out));
        self.begin_accepted(now, slot, incoming.bytes, hello.params().in_flight, frame);
        if first {
            self.paths[slot].max_record = self.peer.max_record as usize;
            self.choose_active(now, SwitchCause::First);
        }
        Ok(self.path_key(slot))
    }

    fn accept_join(&mut self, now: Timestamp, join: &Join, incoming: Incoming) -> Result<PathKey, Rejected> {
        let reject = |code, detail: &str| Rejected::new(&Reject::new(code, detail));
        let Some(identity) = &self.identity else {
            return Err(reject(RejectCode::UNKNOWN_SESSION, "no session"));
        };
        // The proof first: without it nothing else is looked at.
        if join.session_id != identity.id {
            return Err(reject(RejectCode::UNKNOWN_SESSION, "another session"));
        }
        if let Err(error) = identity.keys.verify_join(join, incoming.info.exporter.as_ref())
            && !crate::canary!(JoinUnproven)
        {
            sometimes!(self.marks, JoinUnproven);
            return Err(reject(error.reject_code(), &error.to_string()));
        }
        if Some(join.floor) != self.floor {
            return Err(reject(
                RejectCode::SECURITY_FLOOR,
                "the floor is not the session's",
            ));
        }
        if !self.has_room_for_path() && !self.make_room_for(now, join) {
            sometimes!(self.marks, TooManyPaths);
            return Err(reject(RejectCode::TOO_MANY_PATHS, "eight paths are attached"));
        }
        if self.slot_of_path_id(join.path_id).is_some() || self.path_ids.insert(join.path_id).is_err() {
            sometimes!(self.marks, PathIdReused);
            return Err(reject(RejectCode::PATH_ID_USED, "the path id was used before"));
        }
        let Some(identity) = &self.identity else {
            return Err(reject(RejectCode::UNKNOWN_SESSION, "no session"));
        };
        let mut joined = Joined {
            path_id: join.path_id,
            nonce: self.rng.bytes(),
            in_flight: self.config.params.in_flight,
            counts: self.counts_to_tell(),
            proof: [0; 32],
        };
        let join_hash = join.digest();
        joined.proof = identity.keys.joined_proof(&join_hash, &joined);
        let joined_hash = joined.digest();
        let slot = self.insert_path(now, join.path_id, incoming.info, Stage::Joined);
        let frame = handshake_frame(HandshakeKind::Joined, |out| joined.encode(out));
        self.begin_accepted(now, slot, incoming.bytes, join.in_flight, frame);
        let exchange = &mut self.paths[slot].exchange;
        exchange.join_hash = Some(join_hash);
        exchange.joined_hash = Some(joined_hash);
        exchange.listed = join.live.iter().copied().collect();
        Ok(self.path_key(slot))
    }

    /// PROTOCOL 6.2: a path that was never proven and that the client no longer lists makes room, so that
    /// connections which died in their handshake do not keep others out until it is overdue.
    fn make_room_for(&mut self, now: Timestamp, join: &Join) -> bool {
        let forsaken = self.paths.iter().find(|(_, path)| {
            path.stage == Stage::Joined && path.id < join.path_id && !join.live.contains(&path.id)
        });
        if let Some((slot, _)) = forsaken {
            let code = crate::wire::ErrorCode::FENCED.value();
            self.retire_path(now, slot, PathEnd::Local, Some(PathError::Abandoned(code)));
        }
        self.has_room_for_path()
    }

    fn begin_accepted(&mut self, now: Timestamp, slot: usize, bytes: u64, in_flight: u64, frame: Bytes) {
        let path = &mut self.paths[slot];
        path.handshake.push(frame);
        path.peer_in_flight = in_flight.max(4096);
        path.bytes_received = bytes;
        path.records_received = 1;
        // The record with HELLO or JOIN is the first of its lane (PROTOCOL 3.4).
        path.lanes[0] = Lane {
            received: 1,
            received_at: now,
            ..Lane::default()
        };
    }
}
