//! What comes on the streams that the machine reads.

use bytes::{Bytes, BytesMut};

use super::capsule::{Capsules, Close};
use super::error::{Http3Error, code, from_http3};
use super::fields::{self, DecoderStream, MAX_SECTION};
use super::settings::{MAX_SETTINGS, PeerSettings};
use super::units::{Plan, Unit, Units, put_unit, take_varint};
use super::{
    Dir, End, Event, HttpError, MAX_HELD, MAX_INTERIM, Output, Side, State, StreamId, Timestamp,
    WebTransport, frame, request, uni,
};
use crate::carrier::http;

/// What a stream is for.
#[derive(Debug)]
pub(super) enum Role {
    /// Its first bytes do not tell yet.
    Unclear(BytesMut),
    Control(Units),
    QpackEncoder,
    QpackDecoder(DecoderStream),
    Request(Box<Request>),
    /// A stream of a session that does not stand yet.
    Held {
        session: StreamId,
        early: Bytes,
    },
}

/// The stream of a request: the peer's at a server, ours at a client.
#[derive(Debug, Default)]
pub(super) struct Request {
    frames: Units,
    /// Whether the final field section has come.
    is_headed: bool,
    interim: u32,
    capsules: Capsules,
}

impl Default for Role {
    fn default() -> Role {
        Role::Unclear(BytesMut::new())
    }
}

impl Role {
    pub(super) fn request() -> Role {
        Role::Request(Box::default())
    }
}

fn unexpected(what: &'static str) -> Http3Error {
    Http3Error::new(code::FRAME_UNEXPECTED, what)
}

/// Types that HTTP/2 has and HTTP/3 has not (RFC 9114 §7.2.8), and what may be at a stream's beginning only.
fn check_kind(kind: u64) -> Result<(), Http3Error> {
    match kind {
        0x02 | 0x06 | 0x08 | 0x09 => Err(unexpected("a frame of HTTP/2")),
        frame::WEBTRANSPORT_STREAM => Err(Http3Error::new(
            code::FRAME_ERROR,
            "a WebTransport stream that begins within another",
        )),
        _ => Ok(()),
    }
}

fn number(payload: &[u8]) -> Result<u64, Http3Error> {
    let mut rest = payload;
    match take_varint(&mut rest) {
        Some(number) if rest.is_empty() => Ok(number),
        _ => Err(Http3Error::new(
            code::FRAME_ERROR,
            "a frame that is not one number",
        )),
    }
}

impl WebTransport {
    pub(super) fn read(&mut self, now: Timestamp, id: StreamId, bytes: Bytes) -> Result<(), Http3Error> {
        // The role is taken out for as long as the bytes are looked at; unless its stream is done with, it
        // goes back.
        match self.streams.remove(&id) {
            None => Ok(()),
            Some(Role::Unclear(mut head)) => {
                head.extend_from_slice(&bytes);
                match id.dir() {
                    Dir::Uni => self.begin_uni(now, id, head),
                    Dir::Bi => self.begin_bi(now, id, head),
                }
            }
            Some(Role::Control(mut frames)) => {
                self.control_frames(now, &mut frames, bytes)?;
                self.streams.insert(id, Role::Control(frames));
                Ok(())
            }
            Some(Role::QpackEncoder) => {
                fields::check_encoder(&bytes)?;
                self.streams.insert(id, Role::QpackEncoder);
                Ok(())
            }
            Some(Role::QpackDecoder(mut decoder)) => {
                decoder.check(&bytes)?;
                self.streams.insert(id, Role::QpackDecoder(decoder));
                Ok(())
            }
            Some(Role::Request(mut request)) => {
                if self.request_frames(now, id, &mut request, bytes)? {
                    self.streams.insert(id, Role::Request(request));
                }
                Ok(())
            }
            // It is not read meanwhile.
            Some(held @ Role::Held { .. }) => {
                self.streams.insert(id, held);
                Ok(())
            }
        }
    }

    /// Sees what a unidirectional stream of the peer is for. RFC 9114 §6.2.
    fn begin_uni(&mut self, now: Timestamp, id: StreamId, head: BytesMut) -> Result<(), Http3Error> {
        let mut rest = &head[..];
        let Some(kind) = take_varint(&mut rest) else {
            self.streams.insert(id, Role::Unclear(head));
            return Ok(());
        };
        let behind = head.len() - rest.len();
        let role = match kind {
            uni::WEBTRANSPORT_STREAM => return self.begin_of_session(now, id, head, behind),
            uni::CONTROL => {
                self.once(0)?;
                Role::Control(Units::default())
            }
            uni::QPACK_ENCODER => {
                self.once(1)?;
                Role::QpackEncoder
            }
            uni::QPACK_DECODER => {
                self.once(2)?;
                Role::QpackDecoder(DecoderStream::default())
            }
            uni::PUSH if self.side() == Side::Server => {
                return Err(Http3Error::new(code::STREAM_CREATION_ERROR, "a client pushes"));
            }
            uni::PUSH => return Err(Http3Error::new(code::ID_ERROR, "a push that was not allowed")),
            _ => return self.refuse(now, id, code::STREAM_CREATION_ERROR),
        };
        self.streams.insert(id, role);
        self.read(now, id, head.freeze().slice(behind..))
    }

    /// A stream that there may be once.
    fn once(&mut self, which: usize) -> Result<(), Http3Error> {
        match self.opened.get_mut(which) {
            Some(opened) if !*opened => {
                *opened = true;
                Ok(())
            }
            _ => Err(Http3Error::new(
                code::STREAM_CREATION_ERROR,
                "a second stream of which there is one",
            )),
        }
    }

    /// Sees what a bidirectional stream of the peer is for.
    fn begin_bi(&mut self, now: Timestamp, id: StreamId, head: BytesMut) -> Result<(), Http3Error> {
        let mut rest = &head[..];
        let kind = take_varint(&mut rest);
        let behind = head.len() - rest.len();
        match kind {
            None => {
                self.streams.insert(id, Role::Unclear(head));
                Ok(())
            }
            Some(frame::WEBTRANSPORT_STREAM) => self.begin_of_session(now, id, head, behind),
            Some(_) if self.side() == Side::Client => Err(Http3Error::new(
                code::STREAM_CREATION_ERROR,
                "a server opens a stream that is not WebTransport's",
            )),
            Some(_) => {
                self.streams.insert(id, Role::request());
                self.read(now, id, head.freeze())
            }
        }
    }

    /// A stream of a session: its type, the session's id from `behind` on, and then what is not ours.
    fn begin_of_session(
        &mut self,
        now: Timestamp,
        id: StreamId,
        head: BytesMut,
        behind: usize,
    ) -> Result<(), Http3Error> {
        let mut rest = head.get(behind..).unwrap_or_default();
        let Some(session) = take_varint(&mut rest) else {
            self.streams.insert(id, Role::Unclear(head));
            return Ok(());
        };
        // RFC 9000 §2.1: a stream that a client opened, in both directions.
        if session % 4 != 0 {
            return Err(Http3Error::new(code::ID_ERROR, "a session that is no request"));
        }
        let session = StreamId::new(Side::Client, Dir::Bi, session / 4);
        let at = head.len() - rest.len();
        let early = head.freeze().slice(at..);
        match self.state {
            State::Open(open) if open == session => {
                self.events.push_back(Event::Stream { id, early });
                Ok(())
            }
            State::Waiting | State::Asked(_) if self.held() < MAX_HELD => {
                self.streams.insert(id, Role::Held { session, early });
                Ok(())
            }
            State::Closed => self.refuse(now, id, code::WEBTRANSPORT_SESSION_GONE),
            _ => self.refuse(now, id, code::WEBTRANSPORT_BUFFERED_STREAM_REJECTED),
        }
    }

    fn held(&self) -> usize {
        let held = |role: &&Role| matches!(role, Role::Held { .. });
        self.streams.values().filter(held).count()
    }

    fn control_frames(
        &mut self,
        now: Timestamp,
        frames: &mut Units,
        mut bytes: Bytes,
    ) -> Result<(), Http3Error> {
        loop {
            let unit = frames.next(&mut bytes, |kind, len| self.plan_control(now, kind, len))?;
            let Some(Unit::Whole { kind, value }) = unit else {
                return Ok(());
            };
            match kind {
                frame::SETTINGS => self.take_settings(now, &value)?,
                frame::GOAWAY => self.take_goaway(number(&value)?)?,
                _ => self.take_max_push_id(number(&value)?)?,
            }
        }
    }

    /// Which frames there may be on a control stream. RFC 9114 §7.2, table 1.
    fn plan_control(&mut self, now: Timestamp, kind: u64, len: u64) -> Result<Plan, Http3Error> {
        check_kind(kind)?;
        let small = |most, what| match len <= most {
            true => Ok(Plan::Whole),
            false => Err(Http3Error::new(code::EXCESSIVE_LOAD, what)),
        };
        match kind {
            frame::SETTINGS if self.settings.is_some() => Err(unexpected("SETTINGS come twice")),
            frame::SETTINGS => small(MAX_SETTINGS, "SETTINGS that are too large"),
            _ if self.settings.is_none() => Err(Http3Error::new(
                code::MISSING_SETTINGS,
                "a control stream begins with something else than SETTINGS",
            )),
            frame::DATA | frame::HEADERS | frame::PUSH_PROMISE => {
                Err(unexpected("a frame of requests on a control stream"))
            }
            frame::CANCEL_PUSH => Err(Http3Error::new(
                code::ID_ERROR,
                "there is no push to be cancelled",
            )),
            frame::MAX_PUSH_ID if self.side() == Side::Client => Err(unexpected("a server allows pushes")),
            frame::GOAWAY | frame::MAX_PUSH_ID => {
                self.spend(now)?;
                small(8, "a number that is too long")
            }
            _ => self.spend(now).map(|()| Plan::Skip),
        }
    }

    fn take_settings(&mut self, now: Timestamp, payload: &[u8]) -> Result<(), Http3Error> {
        let settings = PeerSettings::parse(payload)?;
        self.settings = Some(settings);
        match &self.end {
            End::Client(_) if !settings.webtransport || !settings.connect_protocol => Err(Http3Error::new(
                code::SETTINGS_ERROR,
                "the server does not offer WebTransport",
            )),
            End::Client(_) => {
                if self.state == State::Waiting && self.goaway.is_none() {
                    self.outputs.push_back(Output::Open(Dir::Bi));
                }
                Ok(())
            }
            End::Server(_) => match self.early_request.take() {
                Some((id, list)) => self.answer(now, id, list).map(|_| ()),
                None => Ok(()),
            },
        }
    }

    /// RFC 9114 §5.2: the peer serves no stream from this one on.
    fn take_goaway(&mut self, limit: u64) -> Result<(), Http3Error> {
        let wrong = |what| Err(Http3Error::new(code::ID_ERROR, what));
        if self.side() == Side::Client && !limit.is_multiple_of(4) {
            return wrong("GOAWAY names no request");
        }
        if self.goaway.is_some_and(|before| limit > before) {
            return wrong("GOAWAY grows");
        }
        self.goaway = Some(limit);
        match self.state {
            State::Asked(session) if u64::from(session) >= limit => self.refused_by_server(),
            State::Waiting if self.side() == Side::Client => self.refused_by_server(),
            _ => {}
        }
        Ok(())
    }

    fn take_max_push_id(&mut self, limit: u64) -> Result<(), Http3Error> {
        if self.max_push_id.is_some_and(|before| limit < before) {
            return Err(Http3Error::new(code::ID_ERROR, "MAX_PUSH_ID shrinks"));
        }
        self.max_push_id = Some(limit);
        Ok(())
    }

    /// Tells whether the stream is read on.
    fn request_frames(
        &mut self,
        now: Timestamp,
        id: StreamId,
        request: &mut Request,
        mut bytes: Bytes,
    ) -> Result<bool, Http3Error> {
        loop {
            let headed = request.is_headed;
            let unit = request
                .frames
                .next(&mut bytes, |kind, len| self.plan_request(now, headed, kind, len))?;
            match unit {
                None => return Ok(true),
                Some(Unit::Whole { value, .. }) => {
                    if !self.take_headers(now, id, request, &value)? {
                        return Ok(false);
                    }
                }
                Some(Unit::Piece(piece)) => {
                    let close = request.capsules.read(piece, || self.spend(now))?;
                    if let Some(close) = close {
                        self.session_gone(close);
                        self.outputs.push_back(Output::Stop {
                            id,
                            code: code::NO_ERROR,
                        });
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Which frames there may be on the stream of a request. RFC 9114 §4.4, §7.2.
    fn plan_request(
        &mut self,
        now: Timestamp,
        headed: bool,
        kind: u64,
        len: u64,
    ) -> Result<Plan, Http3Error> {
        check_kind(kind)?;
        match kind {
            frame::HEADERS if headed => Err(unexpected("trailers where there are none")),
            frame::HEADERS if len > MAX_SECTION => Err(Http3Error::new(
                code::EXCESSIVE_LOAD,
                "a field section that is too large",
            )),
            frame::HEADERS => Ok(Plan::Whole),
            frame::DATA if !headed => Err(unexpected("DATA in front of HEADERS")),
            frame::DATA if len == 0 => self.spend(now).map(|()| Plan::Skip),
            frame::DATA => Ok(Plan::Pieces),
            frame::PUSH_PROMISE if self.side() == Side::Client => {
                Err(Http3Error::new(code::ID_ERROR, "a push that was not allowed"))
            }
            frame::PUSH_PROMISE
            | frame::CANCEL_PUSH
            | frame::SETTINGS
            | frame::GOAWAY
            | frame::MAX_PUSH_ID => Err(unexpected("a control frame on a request's stream")),
            _ => self.spend(now).map(|()| Plan::Skip),
        }
    }

    /// A field section has come. Tells whether the stream is read on.
    fn take_headers(
        &mut self,
        now: Timestamp,
        id: StreamId,
        request: &mut Request,
        section: &[u8],
    ) -> Result<bool, Http3Error> {
        let list = fields::decode(section)?;
        if self.side() == Side::Client {
            return self.take_response(now, id, request, list);
        }
        request.is_headed = true;
        if self.settings.is_some() {
            return self.answer(now, id, list);
        }
        // draft-ietf-webtrans-http3 §3.1: nothing is answered before the client's SETTINGS.
        if self.early_request.is_some() {
            return self.refuse(now, id, code::REQUEST_REJECTED).map(|()| false);
        }
        self.early_request = Some((id, list));
        Ok(true)
    }

    /// A server's answer to a request. Tells whether its stream is read on.
    fn answer(
        &mut self,
        now: Timestamp,
        id: StreamId,
        list: Vec<(String, String)>,
    ) -> Result<bool, Http3Error> {
        let End::Server(handshake) = &self.end else {
            return Ok(false);
        };
        match handshake.answer(list) {
            // RFC 9114 §4.1.2: malformed, which is an error of the stream alone.
            Err(malformed) => {
                self.events
                    .push_back(Event::Refused(HttpError::Malformed(malformed.what)));
                self.refuse(now, id, malformed.code)?;
                Ok(false)
            }
            // One session is all that a connection has.
            Ok(Ok(_)) if self.state != State::Waiting => {
                self.refuse(now, id, code::REQUEST_REJECTED)?;
                Ok(false)
            }
            Ok(Ok(section)) => {
                let mut bytes = Vec::new();
                put_unit(&mut bytes, frame::HEADERS, &section);
                self.send(id, bytes, false);
                let datagrams = self.settings.is_some_and(|settings| settings.datagrams);
                self.establish(now, id, datagrams)?;
                Ok(true)
            }
            Ok(Err(refusal)) => {
                self.spend(now)?;
                let (section, body) = request::refusal(&refusal);
                let mut bytes = Vec::new();
                put_unit(&mut bytes, frame::HEADERS, &section);
                put_unit(&mut bytes, frame::DATA, body.as_bytes());
                self.send(id, bytes, true);
                self.outputs.push_back(Output::Stop {
                    id,
                    code: code::NO_ERROR,
                });
                self.streams.remove(&id);
                self.events.push_back(Event::Refused(refusal));
                Ok(false)
            }
        }
    }

    /// The server's answer to our request.
    fn take_response(
        &mut self,
        now: Timestamp,
        id: StreamId,
        request: &mut Request,
        list: Vec<(String, String)>,
    ) -> Result<bool, Http3Error> {
        match request::status(list)? {
            100..=199 => {
                request.interim += 1;
                match request.interim <= MAX_INTERIM {
                    true => Ok(true),
                    false => Err(Http3Error::new(code::EXCESSIVE_LOAD, "too many interim answers")),
                }
            }
            200..=299 => {
                request.is_headed = true;
                let datagrams = self.settings.is_some_and(|settings| settings.datagrams);
                self.establish(now, id, datagrams)?;
                Ok(true)
            }
            status => {
                self.state = State::Closed;
                self.events.push_back(Event::Refused(HttpError::Status {
                    status,
                    reason: http::reason(status).to_owned(),
                }));
                self.refuse(now, id, code::NO_ERROR)?;
                Ok(false)
            }
        }
    }

    /// A stream of the peer has ended, by a reset if there is a code.
    pub(super) fn ended(
        &mut self,
        now: Timestamp,
        id: StreamId,
        reset: Option<u64>,
    ) -> Result<(), Http3Error> {
        match self.streams.remove(&id) {
            Some(Role::Control(_) | Role::QpackEncoder | Role::QpackDecoder(_)) => Err(Http3Error::new(
                code::CLOSED_CRITICAL_STREAM,
                "a stream without which there is no connection has ended",
            )),
            // RFC 9114 §6.2: before its type came, a stream may end without a word.
            None | Some(Role::Held { .. }) => Ok(()),
            Some(Role::Unclear(_)) if id.dir() == Dir::Uni => Ok(()),
            Some(Role::Unclear(_)) => self.refuse(now, id, code::REQUEST_INCOMPLETE),
            Some(Role::Request(request)) => self.request_ended(now, id, &request, reset),
        }
    }

    fn request_ended(
        &mut self,
        now: Timestamp,
        id: StreamId,
        request: &Request,
        reset: Option<u64>,
    ) -> Result<(), Http3Error> {
        if reset.is_none() && (request.frames.is_within() || request.capsules.is_within()) {
            return Err(Http3Error::new(
                code::FRAME_ERROR,
                "a request's stream ends within a frame",
            ));
        }
        if self.early_request.as_ref().is_some_and(|(early, _)| *early == id) {
            self.early_request = None;
        }
        match self.state {
            // draft-ietf-webtrans-http3 §6: an end without a capsule is one with code 0.
            State::Open(session) if session == id => {
                self.session_gone(Close {
                    code: reset.and_then(from_http3).unwrap_or(0),
                    reason: String::new(),
                });
                Ok(())
            }
            State::Asked(session) if session == id => {
                self.refused_by_server();
                Ok(())
            }
            _ => self.refuse(now, id, code::REQUEST_INCOMPLETE),
        }
    }
}
