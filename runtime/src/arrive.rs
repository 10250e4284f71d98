//! How a connection that was accepted comes to a session: what it speaks, the handshake of that transport, and
//! the session's first message (PROTOCOL 5 and 14.4).

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
#[cfg(any(feature = "tls", feature = "websocket"))]
use sheetbend_core::carrier::Carrier;
use sheetbend_core::carrier::{HTTP2_REFUSAL, Sniffed, sniff};
use sheetbend_core::handshake::Security;
#[cfg(feature = "quic")]
use sheetbend_core::session::EarlyStart;
use sheetbend_core::session::{Incoming, PathInfo};
use sheetbend_core::time::Timestamp;

use crate::address::Address;
use crate::hub::Hub;
#[cfg(any(feature = "tls", feature = "websocket"))]
use crate::layers::Layers;
use crate::layers::{Connection, Sending, poll_handshake, poll_read};
use crate::rt::{Runtime, Socket};

/// How long a refused connection may take to read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// What the connections of one listener may speak.
pub(crate) struct Door {
    /// As the application wrote it, with the port that was bound.
    pub(crate) address: Address,
    /// How well what comes in without TLS is protected.
    pub(crate) plain: Security,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<sheetbend_core::carrier::tls::ServerTls>,
    #[cfg(feature = "http")]
    pub(crate) guard: Arc<sheetbend_core::carrier::http::Guard>,
}

impl Door {
    /// The only path that is served over HTTP; every path where it is `/`.
    #[cfg(feature = "http")]
    pub(crate) fn http_path(&self) -> &str {
        match &self.address {
            Address::Over { target, .. } if !target.is_empty() => target.split('?').next().unwrap_or("/"),
            _ => "/",
        }
    }

    /// How well what comes in is protected.
    #[cfg(feature = "http")]
    pub(crate) fn security(&self, encrypted: bool) -> Security {
        if encrypted {
            Security::Encrypted
        } else {
            self.plain
        }
    }
}

/// Connections that serve exchanges over HTTP, at a time; more are closed at once.
#[cfg(feature = "http")]
const MAX_SERVING: usize = 65_536;

/// Where a connection stands.
enum Stage {
    Sniffing,
    #[cfg_attr(
        not(any(feature = "tls", feature = "websocket")),
        allow(dead_code, reason = "no carrier that shakes hands is built in")
    )]
    Handshake,
    First(Box<Incoming>),
}

/// How it ends.
enum Arrived {
    First(Box<Incoming>),
    /// It carries exchanges, of this path or that.
    #[cfg(feature = "http")]
    Exchanges,
    /// It is told why not, or that it was understood, and closed.
    Refused,
}

/// A connection on its way to a session.
struct Arrival<'a> {
    runtime: &'a dyn Runtime,
    door: &'a Door,
    connection: Connection,
    sending: Sending,
    stage: Stage,
    accepted: Timestamp,
}

impl Hub {
    /// Takes a new connection in, unless too many are in their handshake.
    pub(crate) fn welcome(self: Arc<Self>, socket: Box<dyn Socket>, door: Arc<Door>) {
        {
            let mut hub = self.lock();
            if hub.handshakes >= self.max_handshakes || hub.stopped {
                return;
            }
            hub.handshakes += 1;
        }
        let runtime = self.runtime.clone();
        runtime.spawn(Box::pin(async move {
            self.receive(Connection::native(socket), &door).await;
            self.lock().handshakes -= 1;
        }));
    }

    /// Takes a new path in that is more than a socket, unless too many are in their handshake.
    #[cfg(any(feature = "http", feature = "quic"))]
    pub(crate) fn welcome_path(self: Arc<Self>, connection: Connection, door: Arc<Door>) -> bool {
        {
            let mut hub = self.lock();
            if hub.handshakes >= self.max_handshakes || hub.stopped {
                return false;
            }
            hub.handshakes += 1;
        }
        let runtime = self.runtime.clone();
        runtime.spawn(Box::pin(async move {
            self.receive(connection, &door).await;
            self.lock().handshakes -= 1;
        }));
        true
    }

    /// Serves the exchanges on a connection, unless too many do.
    #[cfg(feature = "http")]
    fn serve_exchanges(self: &Arc<Self>, connection: Connection, door: &Arc<Door>) {
        {
            let mut hub = self.lock();
            if hub.serving >= MAX_SERVING || hub.stopped {
                return;
            }
            hub.serving += 1;
        }
        let (hub, door) = (self.clone(), door.clone());
        self.runtime.spawn(Box::pin(async move {
            crate::http::serve(hub.clone(), door, connection).await;
            hub.lock().serving -= 1;
        }));
    }

    async fn receive(self: &Arc<Self>, connection: Connection, door: &Arc<Door>) {
        let accepted = self.runtime.now();
        let mut arrival = Arrival {
            runtime: &*self.runtime,
            door,
            connection,
            sending: Sending::default(),
            stage: Stage::Sniffing,
            accepted,
        };
        if arrival.connection.is_path() {
            arrival.stage = Stage::First(arrival.first());
        }
        let deadline = Incoming::new(accepted, arrival.info()).deadline();
        let mut timer = self.runtime.timer(deadline);
        let arrived = poll_fn(|cx| {
            if timer.poll_expired(cx).is_ready() {
                return Poll::Ready(None);
            }
            arrival.poll(cx).map(Result::ok)
        })
        .await;
        let Arrival {
            connection,
            mut sending,
            ..
        } = arrival;
        match arrived {
            // Late, broken, or nothing that we know.
            None => {}
            #[cfg(feature = "http")]
            Some(Arrived::Exchanges) => self.serve_exchanges(connection, door),
            Some(Arrived::Refused) => part(&*self.runtime, &connection, &mut sending).await,
            Some(Arrived::First(incoming)) => {
                if let Err((mut connection, record)) = self.attach(*incoming, connection) {
                    put_refusal(&mut connection, &mut sending, self.runtime.now(), &record);
                    part(&*self.runtime, &connection, &mut sending).await;
                }
            }
        }
    }
}

impl Arrival<'_> {
    /// A step. An error closes the connection without a word.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arrived>> {
        loop {
            let refused = match &mut self.stage {
                Stage::Sniffing => match self.sniffed() {
                    Sniffed::Unclear => ready!(self.poll_more(cx))?,
                    sniffed => match self.choose(sniffed)? {
                        // What is spoken is known, but not yet what is asked for.
                        None if matches!(self.stage, Stage::Sniffing) => ready!(self.poll_more(cx))?,
                        chosen => chosen,
                    },
                },
                Stage::Handshake => {
                    let now = self.runtime.now();
                    match ready!(poll_handshake(cx, now, &mut self.connection, &mut self.sending)) {
                        Ok(()) => self.shaken(),
                        Err(error) if error.kind() == io::ErrorKind::InvalidData => Some(Arrived::Refused),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                Stage::First(incoming) => {
                    let Connection { layers, input, .. } = &mut self.connection;
                    let complete = match layers {
                        None => incoming.handle_input(input),
                        Some(layers) => layers.with_records(input, |records| incoming.handle_input(records)),
                    };
                    if complete.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))? {
                        break;
                    }
                    ready!(self.poll_more(cx))?
                }
            };
            if let Some(refused) = refused {
                return Poll::Ready(Ok(refused));
            }
        }
        match std::mem::replace(&mut self.stage, Stage::Sniffing) {
            Stage::First(incoming) => Poll::Ready(Ok(Arrived::First(incoming))),
            _ => Poll::Pending,
        }
    }

    /// What is spoken, by the bytes that are there: inside TLS where it is up.
    fn sniffed(&self) -> Sniffed {
        let Connection { layers, input, .. } = &self.connection;
        let clean = layers.as_ref().map_or(input.len(), |layers| layers.clean);
        sniff(&input[..clean])
    }

    /// Goes on with what is spoken.
    fn choose(&mut self, sniffed: Sniffed) -> io::Result<Option<Arrived>> {
        let encrypted = self.connection.layers.is_some();
        let insists = matches!(&self.door.address, Address::Over { scheme, .. } if scheme.is_encrypted());
        if insists && !encrypted && matches!(sniffed, Sniffed::Native | Sniffed::Http1) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        match sniffed {
            Sniffed::Native => {
                self.stage = Stage::First(self.first());
                Ok(None)
            }
            Sniffed::Http1 => self.begin_http(encrypted),
            Sniffed::Http2 => {
                self.put_last(HTTP2_REFUSAL);
                Ok(Some(Arrived::Refused))
            }
            Sniffed::Tls if !encrypted => self.begin_tls(),
            Sniffed::Tls | Sniffed::Unknown | Sniffed::Unclear => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// A handshake of the transport is done: what lies inside TLS is to be seen.
    fn shaken(&mut self) -> Option<Arrived> {
        let carrier = self.connection.layers.as_ref().map(|layers| &layers.carrier);
        self.stage = match carrier {
            Some(carrier) if carrier.is_bare() => Stage::Sniffing,
            _ => Stage::First(self.first()),
        };
        None
    }

    /// Reads once more, and answers what comes beside records.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Arrived>>> {
        let Connection {
            socket,
            layers,
            input,
            ..
        } = &mut self.connection;
        let ended = || Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        let Some(layers) = layers else {
            return match ready!(poll_read(cx, &**socket, input))? {
                true => Poll::Ready(Ok(None)),
                false => ended(),
            };
        };
        let now = self.runtime.now();
        if self.sending.buffer().is_empty() && layers.carrier.has_output() {
            layers.carrier.prepare(self.sending.buffer());
            layers.carrier.seal(now, self.sending.buffer());
        }
        if let Poll::Ready(Err(error)) = self.sending.poll_write(cx, &**socket) {
            return Poll::Ready(Err(error));
        }
        let apart = layers.carrier.reads_apart();
        let buffer = if apart { &mut layers.wire } else { &mut *input };
        if layers.carrier.is_ended() || !ready!(poll_read(cx, &**socket, buffer))? {
            return ended();
        }
        if layers.decode(now, input).is_err() {
            layers.carrier.close(self.sending.buffer());
            return Poll::Ready(Ok(Some(Arrived::Refused)));
        }
        Poll::Ready(Ok(None))
    }

    /// A WebSocket, or exchanges: the head tells, once it is whole.
    #[cfg(feature = "http")]
    fn begin_http(&mut self, encrypted: bool) -> io::Result<Option<Arrived>> {
        use sheetbend_core::carrier::http::{HeadLimits, RequestHead, refusal};

        let Connection { layers, input, .. } = &self.connection;
        let clean = layers.as_ref().map_or(input.len(), |layers| layers.clean);
        match RequestHead::parse(&input[..clean], HeadLimits::default()) {
            Ok(None) => Ok(None),
            Ok(Some((head, _))) if head.headers.values("upgrade").next().is_some() => {
                self.begin_websocket(encrypted)
            }
            Ok(Some(_)) => Ok(Some(Arrived::Exchanges)),
            Err(error) => {
                self.put_last(&refusal(&error));
                Ok(Some(Arrived::Refused))
            }
        }
    }

    #[cfg(feature = "websocket")]
    fn begin_websocket(&mut self, encrypted: bool) -> io::Result<Option<Arrived>> {
        use sheetbend_core::carrier::websocket::{Limits, SUBPROTOCOL, ServerHandshake, WebSocket};

        let handshake = ServerHandshake {
            guard: self.door.guard.clone(),
            path: self.door.http_path().into(),
            encrypted,
            protocol: Some(SUBPROTOCOL),
        };
        let websocket = WebSocket::server(handshake, Limits::default());
        if let Some(layers) = &mut self.connection.layers {
            layers.carrier.begin_websocket(websocket);
            layers.clean = 0;
            return Ok(self.decode_first());
        }
        self.begin(Carrier::websocket(websocket, self.door.plain))
    }

    #[cfg(all(feature = "http", not(feature = "websocket")))]
    fn begin_websocket(&mut self, _: bool) -> io::Result<Option<Arrived>> {
        // RFC 9110 §7.8: who cannot upgrade answers the request as it is.
        Ok(Some(Arrived::Exchanges))
    }

    #[cfg(not(feature = "http"))]
    fn begin_http(&mut self, _: bool) -> io::Result<Option<Arrived>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(feature = "tls")]
    fn begin_tls(&mut self) -> io::Result<Option<Arrived>> {
        use sheetbend_core::carrier::tls::Tls;
        use sheetbend_core::rng::Rng;

        let Some(config) = &self.door.tls else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let rng = Rng::from_seed(self.runtime.seed());
        let tls = Tls::server(config, rng, crate::layers::epoch(self.runtime)).map_err(io::Error::other)?;
        self.begin(Carrier::records(self.door.plain).over_tls(tls))
    }

    #[cfg(not(feature = "tls"))]
    fn begin_tls(&mut self) -> io::Result<Option<Arrived>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Goes on with what was read as the first bytes of a carrier.
    #[cfg(any(feature = "tls", feature = "websocket"))]
    fn begin(&mut self, carrier: Carrier) -> io::Result<Option<Arrived>> {
        let mut layers = Box::new(Layers::new(carrier));
        if layers.carrier.reads_apart() {
            std::mem::swap(&mut layers.wire, &mut self.connection.input);
        }
        self.connection.layers = Some(layers);
        Ok(self.decode_first())
    }

    /// The first bytes of a handshake.
    #[cfg(any(feature = "tls", feature = "websocket"))]
    fn decode_first(&mut self) -> Option<Arrived> {
        let layers = self.connection.layers.as_mut()?;
        let begun = layers.decode(self.runtime.now(), &mut self.connection.input);
        self.stage = Stage::Handshake;
        if begun.is_err() {
            layers.carrier.close(self.sending.buffer());
        }
        begun.is_err().then_some(Arrived::Refused)
    }

    /// Queues last words, inside TLS where it is up.
    fn put_last(&mut self, words: &[u8]) {
        put_refusal(&mut self.connection, &mut self.sending, self.runtime.now(), words);
    }

    /// What awaits the first message.
    fn first(&self) -> Box<Incoming> {
        let origin = self.connection.socket.origin();
        Box::new(Incoming::new(self.accepted, self.info()).from_origin(origin))
    }

    /// What the path would be, as far as is known.
    fn info(&self) -> PathInfo {
        let peer = self.connection.socket.peer();
        #[cfg(feature = "http")]
        if let Some(facts) = &self.connection.http {
            let name = format!("{}://{peer}", facts.transport);
            let mut info = PathInfo::new(name, facts.transport, facts.security);
            info.exporter = facts.exporter;
            return info;
        }
        #[cfg(feature = "quic")]
        if let Some(facts) = &self.connection.quic {
            let name = format!("{}://{peer}", facts.transport);
            let mut info = PathInfo::new(name, facts.transport, Security::Encrypted);
            info.exporter = facts.exporter;
            info.lanes = facts.lanes.count();
            if facts.early {
                info.early = EarlyStart::Taken;
            }
            return info;
        }
        match &self.connection.layers {
            None => {
                let transport = self.door.address.socket().transport();
                PathInfo::new(format!("{transport}://{peer}"), transport, self.door.plain)
            }
            Some(layers) => {
                let capabilities = layers.carrier.capabilities();
                let transport = capabilities.transport;
                let name = format!("{transport}://{peer}");
                let mut info = PathInfo::new(name, transport, capabilities.security);
                info.exporter = capabilities.exporter;
                info
            }
        }
    }
}

/// Queues the record that says why a path is refused.
fn put_refusal(connection: &mut Connection, sending: &mut Sending, now: Timestamp, record: &[u8]) {
    let mut last = Sending::default();
    let out = last.buffer();
    match &mut connection.layers {
        None => out.put(record),
        Some(layers) => {
            layers.carrier.prepare(out);
            out.put(record);
            layers.carrier.seal(now, out);
            layers.carrier.close(out);
        }
    }
    sending.append(last);
}

/// Lets the peer read what it is told, and closes.
async fn part(runtime: &dyn Runtime, connection: &Connection, sending: &mut Sending) {
    let socket = &*connection.socket;
    let mut timer = runtime.timer(runtime.now() + REFUSAL_LINGER);
    let mut shut = false;
    let mut scrap = BytesMut::new();
    poll_fn(|cx| {
        match sending.poll_write(cx, socket) {
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) if !std::mem::replace(&mut shut, true) && socket.shutdown().is_err() => {
                return Poll::Ready(());
            }
            _ => {}
        }
        loop {
            scrap.clear();
            match poll_read(cx, socket, &mut scrap) {
                Poll::Pending => break,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
        timer.poll_expired(cx)
    })
    .await;
}
