//! How a session begins, and how further paths join it (PROTOCOL 5 and 6): the client's paths, and the
//! handshake messages of both ends. How a server takes a connection in: `accept.rs`.

use bytes::{Bytes, BytesMut};

use super::choose::Left;
use super::classes::{OPENING_KINDS, class_at};
use super::config::{EarlyStart, MAX_PATHS, PathInfo};
use super::error::{Misbehaviour, OpenPathError, PathError};
use super::event::{PathEnd, SwitchCause};
use super::keys::PathKey;
use super::lifecycle::{Cause, State};
use super::path::{Path, Stage};
use super::timers::TimerKind;
use super::{PeerSettings, Session};
use crate::handshake::{
    Confirm, Counts, EphemeralSecret, HandshakeError, Hello, Join, Joined, MAX_COUNTS, Params, Reject,
    Routing, SessionId, SessionKeys, Welcome,
};
use crate::marks::sometimes;
use crate::policy::Health;
use crate::time::Timestamp;
use crate::wire::{Class, Frame, HandshakeKind, Kind, RejectCode, Side};

/// Early data: this many bytes in all (PROTOCOL 5.6).
pub const EARLY_BYTES: u64 = 16 * 1024;
/// Early data: this many bidirectional streams of the class *requests* (PROTOCOL 5.6).
pub const EARLY_STREAMS: u64 = 8;

/// Paths that may begin with the HELLO of one session, over its life.
pub(super) const MAX_HELLO_PATHS: usize = 64;

/// Who this session is, once both ends share its secret.
pub(super) struct Identity {
    pub(super) id: SessionId,
    pub(super) routing: Routing,
    pub(super) keys: SessionKeys,
    /// SHA-256 of what WELCOME fixed, by which a repeated one is known.
    pub(super) welcome: [u8; 32],
}

/// What is needed until the session is confirmed.
pub(super) enum Handshake {
    Client {
        secret: EphemeralSecret,
        hello: Hello,
    },
    /// The client has the secret, the server may not know that yet.
    Server {
        welcome: Welcome,
    },
    Done,
}

pub(super) fn handshake_frame(kind: HandshakeKind, encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut body = Vec::with_capacity(256);
    encode(&mut body);
    let frame = Frame::Handshake { kind, body: &body };
    let mut bytes = BytesMut::with_capacity(frame.encoded_len());
    frame.encode(&mut bytes);
    bytes.freeze()
}

impl Session {
    // ---- client ----

    /// Begins a path over a connection that was just opened: with HELLO while there is no session,
    /// then with JOIN. [`Session::poll_transmit`] has its first bytes.
    pub fn open_path(&mut self, now: Timestamp, info: PathInfo) -> Result<PathKey, OpenPathError> {
        if self.side != Side::Client {
            return Err(OpenPathError::NotClient);
        }
        if self.state.is_terminal() {
            return Err(OpenPathError::Ended);
        }
        if !self.has_room_for_path() {
            return Err(OpenPathError::TooMany);
        }
        if self.floor.is_some_and(|floor| info.security < floor) {
            return Err(OpenPathError::BelowFloor);
        }
        let joins = self.identity.is_some();
        if joins && info.early != EarlyStart::No {
            return Err(OpenPathError::TooEarly);
        }
        let id = self.next_path_id;
        self.next_path_id += 1;
        let stage = if joins { Stage::JoinSent } else { Stage::HelloSent };
        let slot = self.insert_path(now, id, info, stage);
        let frame = if joins {
            self.make_join(slot)
        } else {
            self.make_hello(slot)
        };
        self.paths[slot].handshake.push(frame);
        self.transition(Cause::Opening);
        Ok(self.path_key(slot))
    }

    /// Whether another path may be attached. Those that only close count to a limit of their own, as many more.
    pub(super) fn has_room_for_path(&self) -> bool {
        let attached = self.paths.iter().filter(|(_, path)| path.stage != Stage::Closing);
        attached.count() < MAX_PATHS && self.paths.len() < 2 * MAX_PATHS
    }

    pub(super) fn insert_path(&mut self, now: Timestamp, id: u64, info: PathInfo, stage: Stage) -> usize {
        self.next_generation = self.next_generation.wrapping_add(1).max(1);
        let mut path = Path::new(
            now,
            self.next_generation,
            id,
            info,
            stage,
            self.config.params.in_flight,
        );
        path.health = Health::with_damping(self.damped.recall(&path.info.name));
        path.timers
            .set(TimerKind::Handshake, now + self.config.handshake_timeout);
        self.paths.insert(Box::new(path))
    }

    fn make_hello(&mut self, slot: usize) -> Bytes {
        let (id, security) = (self.paths[slot].id, self.paths[slot].info.security);
        if let Handshake::Client { hello, .. } = &self.handshake {
            let hello = hello.on_path(id);
            return handshake_frame(HandshakeKind::Hello, |out| hello.encode(out));
        }
        let floor = self.floor.unwrap_or(security);
        self.floor = Some(floor);
        let params = Params {
            floor,
            ..self.config.params.clone()
        };
        let secret = EphemeralSecret::from_seed(self.rng.bytes());
        let nonce = self.rng.bytes();
        // `Session::client` checked the parameters.
        let hello = Hello::new(id, nonce, secret.share(), params)
            .or_else(|_| Hello::new(id, nonce, secret.share(), Params::default()));
        let Ok(hello) = hello else { return Bytes::new() };
        let frame = handshake_frame(HandshakeKind::Hello, |out| hello.encode(out));
        self.handshake = Handshake::Client { secret, hello };
        if self.config.early_data {
            self.early = Some(slot);
        }
        frame
    }

    fn make_join(&mut self, slot: usize) -> Bytes {
        let nonce = self.rng.bytes();
        let live = self
            .paths
            .iter()
            // PROTOCOL 6.2: those in their handshake too, as they may be live before this one is.
            .filter(|(other, path)| *other != slot && path.stage != Stage::Closing)
            .map(|(_, path)| path.id)
            .collect();
        let path = &mut self.paths[slot];
        let Some(identity) = &self.identity else {
            return Bytes::new();
        };
        let mut join = Join {
            session_id: identity.id,
            routing: identity.routing.clone(),
            path_id: path.id,
            nonce,
            bound: path.info.exporter.is_some(),
            floor: self.floor.unwrap_or_default(),
            in_flight: self.config.params.in_flight,
            live,
            proof: [0; 32],
        };
        if let Ok(proof) = identity.keys.join_proof(&join, path.info.exporter.as_ref()) {
            join.proof = proof;
        }
        path.exchange.join_hash = Some(join.digest());
        handshake_frame(HandshakeKind::Join, |out| join.encode(out))
    }

    // ---- messages ----

    pub(super) fn take_handshake(
        &mut self,
        now: Timestamp,
        slot: usize,
        kind: HandshakeKind,
        body: &[u8],
    ) -> Result<(), PathError> {
        match (kind, self.paths[slot].stage) {
            (HandshakeKind::Welcome, Stage::HelloSent) => {
                self.take_welcome(now, slot, &Welcome::decode(body)?)
            }
            (HandshakeKind::Joined, Stage::JoinSent) => self.take_joined(now, slot, &Joined::decode(body)?),
            (HandshakeKind::Reject, Stage::HelloSent | Stage::JoinSent) => {
                self.take_reject(now, slot, Reject::decode(body)?)
            }
            (HandshakeKind::Confirm, Stage::Welcomed | Stage::Repeated | Stage::Joined) => {
                self.take_confirm(now, slot, &Confirm::decode(body)?)
            }
            (HandshakeKind::Hello, _) => Err(PathError::UnexpectedHandshake("HELLO")),
            (HandshakeKind::Welcome, _) => Err(PathError::UnexpectedHandshake("WELCOME")),
            (HandshakeKind::Join, _) => Err(PathError::UnexpectedHandshake("JOIN")),
            (HandshakeKind::Joined, _) => Err(PathError::UnexpectedHandshake("JOINED")),
            (HandshakeKind::Confirm, _) => Err(PathError::UnexpectedHandshake("CONFIRM")),
            (HandshakeKind::Reject, _) => Err(PathError::UnexpectedHandshake("REJECT")),
        }
    }

    /// PROTOCOL 5.2.
    fn take_welcome(&mut self, now: Timestamp, slot: usize, welcome: &Welcome) -> Result<(), PathError> {
        if welcome.path_id != self.paths[slot].id {
            return Err(HandshakeError::BadProof.into());
        }
        match (&self.handshake, &self.identity) {
            (Handshake::Client { secret, hello }, None) => {
                let keys = SessionKeys::client(secret, hello, welcome)?;
                let floor = hello.params().agree(welcome.params()).floor;
                let carrier = self.paths[slot].info.security;
                if carrier < floor {
                    return Err(HandshakeError::BelowFloor { floor, carrier }.into());
                }
                self.floor = Some(floor);
                self.handshake = Handshake::Done;
                self.identity = Some(Identity {
                    id: welcome.session_id(),
                    routing: welcome.routing().clone(),
                    keys,
                    welcome: welcome.digest(),
                });
                self.adopt_peer(welcome.params());
            }
            (_, Some(identity)) => {
                // The same HELLO over a second path leads to the same session (PROTOCOL 5.1).
                sometimes!(self.marks, WelcomeRepeated);
                identity.keys.verify_repeated(&identity.welcome, welcome)?;
            }
            (_, None) => return Err(PathError::UnexpectedHandshake("WELCOME")),
        }
        if let Some(first) = self.early.take().filter(|first| *first != slot) {
            // Nothing is known of the path that it went on, and may not be for as long as a handshake may take.
            self.forget_sent(now, first);
        }
        let mut confirm = Confirm {
            path_id: welcome.path_id,
            counts: self.counts_to_tell(),
            proof: [0; 32],
        };
        if let Some(identity) = &self.identity {
            confirm.proof = identity.keys.confirm_hello_proof(&confirm);
        }
        let frame = handshake_frame(HandshakeKind::Confirm, |out| confirm.encode(out));
        self.paths[slot].handshake.push(frame);
        self.paths[slot].peer_in_flight = self.peer.in_flight;
        self.open_for_data(now, slot);
        Ok(())
    }

    /// PROTOCOL 6.3.
    fn take_joined(&mut self, now: Timestamp, slot: usize, joined: &Joined) -> Result<(), PathError> {
        let (Some(identity), Some(join_hash)) = (&self.identity, self.paths[slot].exchange.join_hash) else {
            return Err(PathError::UnexpectedHandshake("JOINED"));
        };
        if joined.path_id != self.paths[slot].id {
            return Err(HandshakeError::BadProof.into());
        }
        identity.keys.verify_joined(&join_hash, joined)?;
        let racing = |path: &Path| matches!(path.stage, Stage::JoinSent | Stage::HelloSent);
        let races = self
            .paths
            .iter()
            .any(|(other, path)| other != slot && racing(path));
        sometimes!(self.marks, JoinRaced, races);
        let joined_hash = joined.digest();
        let mut confirm = Confirm {
            path_id: joined.path_id,
            counts: self.counts_to_tell(),
            proof: [0; 32],
        };
        confirm.proof = identity
            .keys
            .confirm_join_proof(&join_hash, &joined_hash, &confirm);
        let frame = handshake_frame(HandshakeKind::Confirm, |out| confirm.encode(out));
        self.paths[slot].handshake.push(frame);
        self.paths[slot].peer_in_flight = joined.in_flight.max(4096);
        self.take_counts(now, &joined.counts)?;
        self.open_for_data(now, slot);
        Ok(())
    }

    /// PROTOCOL 5.4, 6.4: the client has proven the secret on this path.
    fn take_confirm(&mut self, now: Timestamp, slot: usize, confirm: &Confirm) -> Result<(), PathError> {
        let Some(identity) = &self.identity else {
            return Err(PathError::UnexpectedHandshake("CONFIRM"));
        };
        let path = &self.paths[slot];
        if confirm.path_id != path.id {
            return Err(HandshakeError::BadProof.into());
        }
        match (path.stage, path.exchange.join_hash, path.exchange.joined_hash) {
            (Stage::Joined, Some(join), Some(joined)) => {
                identity.keys.verify_confirm_join(&join, &joined, confirm)?;
            }
            _ => identity.keys.verify_confirm_hello(confirm)?,
        }
        let (joined, id) = (path.stage == Stage::Joined, path.id);
        if !joined && self.path_ids.insert(id).is_err() {
            return Err(PathError::UnexpectedHandshake(
                "CONFIRM for a path id that was used",
            ));
        }
        sometimes!(self.marks, ConfirmLate, path.suspicion.is_some());
        self.confirmed = true;
        self.handshake = Handshake::Done;
        self.timers.clear(TimerKind::Handshake);
        self.take_counts(now, &confirm.counts)?;
        self.distrust_unproven(now, slot);
        self.open_for_data(now, slot);
        if joined {
            self.fence(now, slot);
        }
        Ok(())
    }

    /// PROTOCOL 5.1: another path than the first confirmed the session. Whoever sits on the first may
    /// have copied the HELLO: it carries nothing before its own CONFIRM, and what went out on it goes
    /// elsewhere.
    fn distrust_unproven(&mut self, now: Timestamp, slot: usize) {
        let Some(first) = self
            .paths
            .iter()
            .find(|(other, path)| *other != slot && path.stage == Stage::Welcomed)
            .map(|(other, _)| other)
        else {
            return;
        };
        sometimes!(self.marks, FirstPathDistrusted);
        let path = &mut self.paths[first];
        path.stage = Stage::Repeated;
        path.suspicion = None;
        path.timers.clear(TimerKind::Suspect);
        path.timers.clear(TimerKind::Probe);
        if self.active == Some(first) {
            self.active = None;
            let path = &self.paths[first];
            self.left = Some(Left {
                key: self.path_key(first),
                cause: SwitchCause::Preferred,
                evidence: path.health.evidence(now, &path.rtt),
            });
        }
        self.forget_sent(now, first);
    }

    /// What was sent on a path that goes on counts as lost.
    fn forget_sent(&mut self, now: Timestamp, slot: usize) {
        let lanes = self.paths[slot].lanes.iter_mut();
        let items: Vec<_> = lanes.flat_map(|lane| lane.sent.forget_items()).collect();
        for item in items {
            self.item_lost(now, item);
        }
    }

    fn take_reject(&mut self, now: Timestamp, slot: usize, reject: Reject) -> Result<(), PathError> {
        let Reject {
            code,
            detail,
            address,
        } = reject;
        let joining = self.paths[slot].stage == Stage::JoinSent;
        let gone = [
            RejectCode::UNKNOWN_SESSION,
            RejectCode::EXPIRED,
            RejectCode::CLOSED,
            RejectCode::REDIRECT,
        ];
        let hopeless = [
            RejectCode::VERSION,
            RejectCode::SECURITY_FLOOR,
            RejectCode::REFUSED,
            RejectCode::MALFORMED,
        ];
        // PROTOCOL 8.3: whoever connects says whether the address is followed.
        let followed = self.follows_redirects && code == RejectCode::REDIRECT && !address.is_empty();
        let fatal = if joining {
            gone.contains(&code) && !followed
        } else {
            hopeless.contains(&code)
        };
        // Nothing proves a REJECT: it does not end a session while another path is alive, or may be.
        let alone = !self
            .paths
            .iter()
            .any(|(other, path)| other != slot && path.may_live());
        let error = PathError::Rejected {
            code,
            detail: detail.clone(),
            address: address.clone(),
        };
        self.retire_path(now, slot, PathEnd::Local, Some(error));
        if fatal && alone {
            sometimes!(self.marks, SessionGone);
            let detail = if address.is_empty() {
                detail
            } else {
                format!("{detail} (go to {address})")
            };
            self.end_session(now, Cause::Rejected { code, detail });
        }
        Ok(())
    }

    /// Client: whoever connects follows the address of a REJECT(REDIRECT) to a JOIN, or says that it does not by
    /// [`refuse_redirect`](Session::refuse_redirect). Otherwise, as without this, such a REJECT ends the session.
    pub fn follow_redirects(&mut self, yes: bool) {
        self.follows_redirects = yes;
    }

    /// The address of a REDIRECT is not followed: the session is gone, unless a path is alive, or may be.
    pub fn refuse_redirect(&mut self, now: Timestamp, detail: &str) {
        let alone = !self.paths.iter().any(|(_, path)| path.may_live());
        if alone && self.is_client() {
            sometimes!(self.marks, SessionGone);
            let (code, detail) = (RejectCode::REDIRECT, detail.to_owned());
            self.end_session(now, Cause::Rejected { code, detail });
        }
    }

    /// Acknowledgements that came with JOINED or CONFIRM (PROTOCOL 6.3).
    fn take_counts(&mut self, now: Timestamp, counts: &Counts) -> Result<(), PathError> {
        for count in counts {
            self.take_ack(now, count.path, count.lane, count.count, None)?;
        }
        Ok(())
    }

    /// What this end received on paths that the peer may not have settled: the dead ones, newest
    /// last, and those alive. Only proven paths count: the others may not be the peer's.
    pub(super) fn counts_to_tell(&self) -> Counts {
        let live = self
            .paths
            .iter()
            .filter(|(_, path)| path.is_live())
            .flat_map(|(_, path)| path.counts());
        let mut counts: Counts = live
            .chain(self.dead_counts.iter().rev().copied())
            .take(MAX_COUNTS)
            .collect();
        counts.sort_by_key(|count| (count.path, count.lane));
        counts
    }

    /// Paths that the client no longer counts among its own end here (PROTOCOL 6.2).
    fn fence(&mut self, now: Timestamp, slot: usize) {
        let path = &self.paths[slot];
        let (listed, id) = (path.exchange.listed.clone(), path.id);
        let fenced: Vec<usize> = self
            .paths
            .iter()
            .filter(|(other, path)| {
                *other != slot && path.may_send() && path.id < id && !listed.contains(&path.id)
            })
            .map(|(other, _)| other)
            .collect();
        for other in fenced {
            sometimes!(self.marks, PathFenced);
            let code = crate::wire::ErrorCode::FENCED.value();
            self.retire_path(now, other, PathEnd::Local, Some(PathError::Abandoned(code)));
        }
    }

    /// Both ends have proven themselves on the path.
    fn open_for_data(&mut self, now: Timestamp, slot: usize) {
        let path = &mut self.paths[slot];
        let security = path.info.security;
        path.crc = self.config.params.wants_crc(security) || self.peer.wants_crc(security);
        path.max_record = self.peer.max_record as usize;
        path.peer_in_flight = path.peer_in_flight.max(4096);
        // The handshake is the first round trip: HELLO or JOIN and its answer, or that and CONFIRM.
        let first = path.lanes[0].sent.records.front();
        if let Some(sent_at) = first.map(|record| record.sent_at) {
            path.rtt.guess(now.since(sent_at));
        }
        self.path_live(now, slot);
    }

    // ---- parameters ----

    /// The peer's announcements come into force (PROTOCOL 5.5).
    pub(super) fn adopt_peer(&mut self, params: &Params) {
        self.peer = PeerSettings::of(params);
        self.classes.adopt(params);
        for index in self.classes.all_used() {
            self.classes.at(index).stream_credit_out = params.max_stream_data[index];
            let limits = params.max_streams[index];
            for (kind, allowed) in OPENING_KINDS
                .into_iter()
                .zip([limits.bi, limits.uni, limits.unordered])
            {
                self.take_streams_credit(class_at(index), kind, allowed);
            }
            self.take_class_credit(class_at(index), params.max_data[index]);
        }
        for key in self.streams.keys() {
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            let credit = params.max_stream_data[stream.id.class().index()];
            if let Some(send) = stream.send.as_mut() {
                send.set_max_data(credit);
            }
            self.make_ready(key.slot);
            self.tell_writable(key);
        }
        self.release_early_messages();
    }

    /// Early data is bounded before the server has decided who this is (PROTOCOL 5.6).
    pub(super) fn check_early(&mut self, bytes: u64) -> Result<(), Misbehaviour> {
        if self.confirmed || self.side == Side::Client {
            return Ok(());
        }
        self.early_received = self.early_received.saturating_add(bytes);
        sometimes!(self.marks, EarlyDataAccepted);
        if self.early_received > EARLY_BYTES {
            sometimes!(self.marks, EarlyDataRefused);
            Err(Misbehaviour::EarlyData)
        } else {
            Ok(())
        }
    }

    /// Server: whether early data has come that is no copy of what was sent before, though the client has not proven
    /// itself yet: by a carrier whose encryption this end ends itself, which nobody can have played back, and behind a
    /// HELLO that was allowed no other (PROTOCOL 5.6).
    pub fn has_fresh_early_data(&self) -> bool {
        let fresh = |info: &PathInfo| info.exporter.is_some() || info.early == EarlyStart::Taken;
        !self.confirmed
            && self.hello_unread
            && self.early_received > 0
            && self.side == Side::Server
            && self
                .paths
                .iter()
                .any(|(_, path)| path.stage == Stage::Welcomed && fresh(&path.info))
    }

    /// Whether a stream may be opened by the peer before the session is confirmed.
    pub(super) fn check_early_stream(
        &self,
        kind: Kind,
        class: Class,
        index: u64,
    ) -> Result<(), Misbehaviour> {
        let early = kind == Kind::Bi && class == Class::REQUESTS && index < EARLY_STREAMS;
        if self.confirmed || self.side == Side::Client || early {
            Ok(())
        } else {
            Err(Misbehaviour::EarlyData)
        }
    }

    /// The session's id, once there is one.
    pub fn id(&self) -> Option<SessionId> {
        self.identity.as_ref().map(|identity| identity.id)
    }

    /// What proves HTTP exchanges to be this session's, once it has keys. PROTOCOL 14.7.
    #[cfg(feature = "http")]
    pub fn exchange_key(&self) -> Option<crate::carrier::http::ExchangeKey> {
        let identity = self.identity.as_ref()?;
        Some(crate::carrier::http::ExchangeKey::new(identity.keys.exchange()))
    }

    /// Whether the client has proven itself to this server, or this client has a session.
    pub fn is_established(&self) -> bool {
        self.confirmed || (self.side == Side::Client && self.identity.is_some())
    }

    /// The state before any path (test helper and statistics).
    pub(super) fn is_client(&self) -> bool {
        self.side == Side::Client
    }

    /// Whether the session wants another connection: a client's that has not ended.
    pub fn wants_path(&self) -> bool {
        self.is_client() && !self.state.is_terminal() && self.state != State::Closed
    }
}
