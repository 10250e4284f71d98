//! One connection of a server on which HTTP is spoken: it brings exchanges to their paths.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use sheetbend_core::carrier::http::{
    Asked, BodyDecoder, Exchange, HeadLimits, HttpError, Mode, Note, Operation, RequestHead, Token, Uploaded,
    begin_down, put_note, refusal,
};
use sheetbend_core::rng::Rng;
use sheetbend_core::time::Timestamp;

use super::Facts;
use super::port::Port;
use crate::alarm::Alarm;
use crate::arrive::Door;
use crate::hub::Hub;
use crate::layers::Connection;
use crate::wire::Wire;

/// How long a connection may wait for its next request.
const IDLE: Duration = Duration::from_secs(75);
/// How long a head may take to come, the body that makes a path, and each part of another; and an answer to be
/// taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a refused connection may take to read why.
const LINGER: Duration = Duration::from_secs(1);
/// How long a client may take to see whether a way down gets through.
const TRIAL: Duration = Duration::from_secs(20);
/// The longest body that makes a path, in bytes.
const MAX_CREATE: usize = 64 * 1024;
/// What an upload brings is handed on in pieces of about this size.
const MAX_PIECE: usize = 64 * 1024;

/// What becomes of the connection behind an exchange.
enum Next {
    /// It serves another.
    Request,
    /// It is closed.
    Close,
    /// It is the path's.
    Gone,
}

/// Why a connection ends.
enum Failure {
    /// The client is told.
    Refused(HttpError),
    /// There is nobody to tell.
    Broken,
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Failure {
        Failure::Refused(error)
    }
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Failure {
        Failure::Broken
    }
}

struct Serving {
    hub: Arc<Hub>,
    door: Arc<Door>,
    encrypted: bool,
    alarm: Alarm,
    peer: String,
}

/// Serves what is asked for on a connection, until it ends or belongs to a path.
pub(crate) async fn serve(hub: Arc<Hub>, door: Arc<Door>, connection: Connection) {
    let mut serving = Serving {
        door,
        encrypted: connection.layers.is_some(),
        alarm: Alarm::default(),
        peer: connection.socket.peer(),
        hub,
    };
    let mut wire = Some(Wire::new(connection));
    while let Some(current) = wire.take() {
        wire = serving.exchange(current).await;
    }
}

/// The fields with which a page of another origin may read a response.
fn cors(head: &RequestHead) -> Result<String, HttpError> {
    let origin = head.headers.single("origin")?;
    Ok(origin.map_or(String::new(), |origin| {
        format!(
            "Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n\
             Access-Control-Expose-Headers: Sheetbend-Path, Sheetbend-Received, Sheetbend-Sent\r\n"
        )
    }))
}

impl Serving {
    fn now(&self) -> Timestamp {
        self.hub.runtime.now()
    }

    /// Waits, but not for longer than that.
    async fn within<T>(
        &mut self,
        time: Duration,
        poll: impl FnMut(&mut Context<'_>, Timestamp) -> Poll<T>,
    ) -> Result<T, Failure> {
        let deadline = self.now() + time;
        self.until(deadline, poll).await
    }

    /// Waits, but not beyond that moment.
    async fn until<T>(
        &mut self,
        deadline: Timestamp,
        mut poll: impl FnMut(&mut Context<'_>, Timestamp) -> Poll<T>,
    ) -> Result<T, Failure> {
        let (alarm, runtime) = (&mut self.alarm, &self.hub.runtime);
        poll_fn(|cx| {
            loop {
                let now = runtime.now();
                if let Poll::Ready(value) = poll(cx, now) {
                    return Poll::Ready(Ok(value));
                }
                if now >= deadline {
                    return Poll::Ready(Err(Failure::Broken));
                }
                // It may have been set for what was waited for before, by this same task.
                if !alarm.is_late_for(Some(deadline)) && !alarm.is_due(now) {
                    return Poll::Pending;
                }
                ready!(alarm.poll_soonest(&**runtime, Some(deadline), cx));
            }
        })
        .await
    }

    /// Reads more; the end breaks the connection.
    async fn fill(&mut self, wire: &mut Wire, deadline: Timestamp) -> Result<(), Failure> {
        let more = self.until(deadline, |cx, now| wire.poll_fill(cx, now)).await??;
        if more { Ok(()) } else { Err(Failure::Broken) }
    }

    async fn write(&mut self, wire: &mut Wire, words: &[u8]) -> Result<(), Failure> {
        let now = self.now();
        if !wire.is_flushed() {
            return Err(Failure::Broken);
        }
        wire.lay_out(now, |out| out.put(words));
        self.until(now + PATIENCE, |cx, _| wire.poll_write(cx)).await??;
        Ok(())
    }

    /// One request and its response. Gives the connection back where it can serve another.
    async fn exchange(&mut self, mut wire: Wire) -> Option<Wire> {
        let mut held = None;
        let outcome = self.request(&mut wire, &mut held).await;
        match outcome {
            Ok(Next::Request) => Some(wire),
            Ok(Next::Close) => {
                wire.close();
                None
            }
            Ok(Next::Gone) => {
                if let Some(hand_over) = held {
                    hand_over.to(wire);
                }
                None
            }
            Err(Failure::Broken) => None,
            Err(Failure::Refused(error)) => {
                self.part(wire, &error).await;
                None
            }
        }
    }

    /// Says why, and lets the client read it.
    async fn part(&mut self, mut wire: Wire, error: &HttpError) {
        if self.write(&mut wire, &refusal(error)).await.is_err() {
            return;
        }
        wire.close();
        let _ = self
            .within(LINGER, |cx, now| {
                loop {
                    wire.input.clear();
                    match wire.poll_fill(cx, now) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(true)) => {}
                        Poll::Ready(_) => return Poll::Ready(()),
                    }
                }
            })
            .await;
    }

    async fn head(&mut self, wire: &mut Wire) -> Result<RequestHead, Failure> {
        // Who sends a head byte by byte is not waited for with each.
        let (idle, mut deadline) = (self.now() + IDLE, None);
        loop {
            if let Some((head, len)) = RequestHead::parse(&wire.input, HeadLimits::default())? {
                wire.input.advance(len);
                return Ok(head);
            }
            let until = match wire.input.is_empty() {
                true => idle,
                false => *deadline.get_or_insert_with(|| self.now() + PATIENCE),
            };
            wire.put_aside();
            self.fill(wire, until).await?;
        }
    }

    async fn request(&mut self, wire: &mut Wire, held: &mut Option<HandOver>) -> Result<Next, Failure> {
        let head = self.head(wire).await?;
        self.door.guard.check(&head, self.encrypted, false)?;
        let served = self.door.http_path();
        if served != "/" && served != head.path() {
            return Err(Failure::Refused(HttpError::Refused {
                status: 404,
                why: "nothing is served at this path",
            }));
        }
        let cors = cors(&head)?;
        let closes = head.headers.has_token("connection", "close") || !head.is_http11;
        let next = match head.method.as_str() {
            "OPTIONS" => self.preflight(wire, &head, &cors).await?,
            _ => self.asked(wire, held, &head, cors).await?,
        };
        match next {
            Next::Request if closes => Ok(Next::Close),
            next => Ok(next),
        }
    }

    /// What is no question of a browser's own.
    async fn asked(
        &mut self,
        wire: &mut Wire,
        held: &mut Option<HandOver>,
        head: &RequestHead,
        cors: String,
    ) -> Result<Next, Failure> {
        let length = head.body_length()?;
        if head.headers.has_token("expect", "100-continue") {
            self.write(wire, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let mut body = BodyDecoder::new(length);
        match Asked::of(head)? {
            None => Err(Failure::Refused(HttpError::Refused {
                status: 426,
                why: "this server speaks WebSocket and sheetbend's exchanges here",
            })),
            Some(Asked::Create) => self.create(wire, &mut body, &cors).await,
            Some(Asked::Exchange(exchange)) => {
                let port = self.hub.ports.find(exchange.token);
                let port = port.ok_or(HttpError::Refused {
                    status: 404,
                    why: "no such path",
                })?;
                match exchange.operation {
                    Operation::Up | Operation::End => {
                        self.upload(wire, &port, &exchange, &mut body, &cors).await
                    }
                    Operation::Poll => self.poll(wire, &port, &exchange, &cors).await,
                    // RFC 9112 §7.1: what asks in HTTP/1.0 takes no chunks.
                    Operation::Down | Operation::Events | Operation::Try | Operation::Both
                        if !head.is_http11 =>
                    {
                        Err(Failure::Refused(HttpError::Refused {
                            status: 505,
                            why: "a response without end needs HTTP/1.1",
                        }))
                    }
                    Operation::Try => {
                        port.begin(&exchange, Mode::Binary, None)?;
                        self.trial(wire, &port, Mode::accepted(head), &cors).await
                    }
                    Operation::Down | Operation::Events => {
                        let mode = match exchange.operation {
                            Operation::Events => Mode::Sse,
                            _ => Mode::accepted(head),
                        };
                        let last = last_event(head)?;
                        port.begin(&exchange, mode, last)?;
                        *held = Some(HandOver {
                            port,
                            number: exchange.number,
                            kind: Kind::Down(mode, cors),
                        });
                        Ok(Next::Gone)
                    }
                    Operation::Stream | Operation::Both => {
                        port.begin(&exchange, Mode::Binary, None)?;
                        let answers = exchange.operation == Operation::Both;
                        *held = Some(HandOver {
                            port,
                            number: exchange.number,
                            kind: Kind::Stream(body, answers.then_some(cors)),
                        });
                        Ok(Next::Gone)
                    }
                }
            }
        }
    }

    /// What a browser asks before it lets a page of another origin speak to us; the guard has let it pass.
    async fn preflight(&mut self, wire: &mut Wire, head: &RequestHead, cors: &str) -> Result<Next, Failure> {
        if head.has_body() {
            return Err(Failure::Refused(HttpError::Malformed(
                "a body that means nothing",
            )));
        }
        let allow = match cors {
            "" => "Allow: GET, POST, OPTIONS\r\n".to_owned(),
            cors => format!(
                "{cors}Access-Control-Allow-Methods: GET, POST\r\n\
                 Access-Control-Allow-Headers: content-type, last-event-id\r\nAccess-Control-Max-Age: 600\r\n"
            ),
        };
        let answer = format!("HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\n{allow}\r\n");
        self.write(wire, answer.as_bytes()).await?;
        Ok(Next::Request)
    }

    /// Makes a path of a body, and answers with what its session says first.
    async fn create(&mut self, wire: &mut Wire, body: &mut BodyDecoder, cors: &str) -> Result<Next, Failure> {
        let mut first = BytesMut::new();
        let deadline = self.now() + PATIENCE;
        loop {
            body.decode(&mut wire.input, &mut first)?;
            if first.len() > MAX_CREATE {
                return Err(Failure::Refused(HttpError::Refused {
                    status: 413,
                    why: "a path does not begin with so much",
                }));
            }
            if body.is_done() {
                break;
            }
            self.fill(wire, deadline).await?;
        }
        let runtime = self.hub.runtime.clone();
        let token = Token(Rng::from_seed(runtime.seed()).bytes());
        let origin = wire.socket.origin();
        let (port, socket) = self.hub.ports.open(runtime, token, self.peer.clone(), origin);
        port.create(&first)?;
        let mut connection = Connection::native(Box::new(socket));
        connection.http = Some(Box::new(Facts {
            keyed: port.clone(),
            transport: if self.encrypted { "https" } else { "http" },
            security: self.door.security(self.encrypted),
            exporter: wire.exporter(),
        }));
        if !self.hub.clone().welcome_path(connection, self.door.clone()) {
            return Err(Failure::Refused(HttpError::Refused {
                status: 503,
                why: "too many are in their handshake",
            }));
        }
        self.answer(wire, &port, 0, cors).await
    }

    /// Waits for what a poll is answered with, and writes it.
    async fn answer(
        &mut self,
        wire: &mut Wire,
        port: &Port,
        number: u64,
        cors: &str,
    ) -> Result<Next, Failure> {
        let mut answer = sheetbend_core::wire::OutBuffer::new();
        let hold = sheetbend_core::carrier::http::ServerConfig::default().hold;
        // Nothing is said about a path that was made in vain.
        let time = if number == 0 { PATIENCE } else { hold };
        let answered = self
            .within(time, |cx, _| port.poll_answer(cx, number, cors, &mut answer))
            .await;
        if answered.is_err() {
            // The time to hold it has passed, if it is a poll: there is an answer now.
            let now = poll_fn(|cx| Poll::Ready(port.poll_answer(cx, number, cors, &mut answer))).await;
            if now.is_pending() {
                return Err(Failure::Broken);
            }
        }
        let mut words = Vec::with_capacity(answer.len());
        while !answer.is_empty() {
            words.extend_from_slice(answer.chunk());
            let count = answer.chunk().len();
            answer.advance(count);
        }
        self.write(wire, &words).await?;
        Ok(Next::Request)
    }

    async fn poll(
        &mut self,
        wire: &mut Wire,
        port: &Port,
        exchange: &Exchange,
        cors: &str,
    ) -> Result<Next, Failure> {
        port.begin(exchange, Mode::Poll, None)?;
        let answered = self.answer(wire, port, exchange.number, cors).await;
        if answered.is_err() {
            port.lose_poll(exchange.number);
        }
        answered
    }

    /// Says what a downlink begins with, and waits until the client has seen enough: what ends, gets through in any
    /// case.
    async fn trial(&mut self, wire: &mut Wire, port: &Port, mode: Mode, cors: &str) -> Result<Next, Failure> {
        let now = self.now();
        wire.lay_out(now, |out| {
            begin_down(mode, cors, out);
            put_note(mode, Note::Received(port.received()), out);
        });
        self.within(PATIENCE, |cx, _| wire.poll_write(cx)).await??;
        let _ = self.within(TRIAL, |cx, now| wire.poll_fill(cx, now)).await?;
        Ok(Next::Close)
    }

    async fn upload(
        &mut self,
        wire: &mut Wire,
        port: &Port,
        exchange: &Exchange,
        body: &mut BodyDecoder,
        cors: &str,
    ) -> Result<Next, Failure> {
        port.begin(exchange, Mode::Binary, None)?;
        let mut bytes = BytesMut::new();
        loop {
            body.decode(&mut wire.input, &mut bytes)?;
            if !bytes.is_empty() && (body.is_done() || bytes.len() >= MAX_PIECE || wire.input.is_empty()) {
                poll_fn(|cx| port.poll_room(cx)).await;
                if port.take(exchange.number, &bytes)? == Uploaded::Replaced {
                    return Err(Failure::Refused(HttpError::Refused {
                        status: 409,
                        why: "a newer upload has begun",
                    }));
                }
                bytes.clear();
            }
            if body.is_done() {
                break;
            }
            self.fill(wire, self.now() + PATIENCE).await?;
        }
        let ends = exchange.operation == Operation::End;
        let answer = port.finish_upload(exchange.number, ends, cors);
        self.write(wire, answer.as_bytes()).await?;
        Ok(Next::Request)
    }
}

/// What an event stream's reader had last.
fn last_event(head: &RequestHead) -> Result<Option<u64>, HttpError> {
    let Some(id) = head.headers.single("last-event-id")? else {
        return Ok(None);
    };
    let digits = !id.is_empty() && id.len() <= 18 && id.bytes().all(|byte| byte.is_ascii_digit());
    match id.parse() {
        Ok(id) if digits => Ok(Some(id)),
        _ => Err(HttpError::Malformed("Last-Event-ID is not a position")),
    }
}

enum Kind {
    Down(Mode, String),
    Stream(BodyDecoder, Option<String>),
}

/// A connection that becomes a path's.
struct HandOver {
    port: Arc<Port>,
    number: u64,
    kind: Kind,
}

impl HandOver {
    fn to(self, wire: Wire) {
        match self.kind {
            Kind::Down(mode, cors) => self.port.adopt_down(self.number, mode, &cors, wire),
            Kind::Stream(body, answer) => {
                self.port.adopt_stream(self.number, wire, body, answer.as_deref());
            }
        }
    }
}
