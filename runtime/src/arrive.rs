//! How a connection that was accepted comes to a session: what it speaks, the handshake of that transport, and
//! the session's first message (PROTOCOL 5 and 14.4).

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sheetbend_core::carrier::{Carrier, HTTP2_REFUSAL, Sniffed, sniff};
use sheetbend_core::handshake::Security;
use sheetbend_core::session::{Incoming, PathInfo};
use sheetbend_core::time::Timestamp;

use crate::address::Address;
use crate::dial::security;
use crate::hub::Hub;
use crate::layers::{Connection, Layers, Sending, poll_handshake, poll_read};
use crate::rt::{Runtime, Socket};

/// How long a refused connection may take to read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// What the connections of one listener may speak.
pub(crate) struct Door {
    /// As the application wrote it, with the port that was bound.
    pub(crate) address: Address,
    #[cfg(feature = "websocket")]
    pub(crate) guard: Arc<sheetbend_core::carrier::http::Guard>,
}

/// Where a connection stands.
enum Stage {
    Sniffing,
    Handshake,
    First(Box<Incoming>),
}

/// How it ends.
enum Arrived {
    First(Box<Incoming>),
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

    async fn receive(self: &Arc<Self>, connection: Connection, door: &Door) {
        let accepted = self.runtime.now();
        let mut arrival = Arrival {
            runtime: &*self.runtime,
            door,
            connection,
            sending: Sending::default(),
            stage: Stage::Sniffing,
            accepted,
        };
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
            Some(Arrived::Refused) => part(&*self.runtime, &connection, &mut sending).await,
            Some(Arrived::First(incoming)) => {
                if let Err((mut connection, record)) = self.attach(*incoming, connection) {
                    put_refusal(&mut connection, &mut sending, &record);
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
            match &mut self.stage {
                Stage::Sniffing => {
                    let Connection { socket, input, .. } = &mut self.connection;
                    if !ready!(poll_read(cx, &**socket, input))? {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    if let Some(refused) = self.take_first_bytes()? {
                        return Poll::Ready(Ok(refused));
                    }
                }
                Stage::Handshake => {
                    let now = self.runtime.now();
                    match ready!(poll_handshake(cx, now, &mut self.connection, &mut self.sending)) {
                        Ok(()) => self.stage = Stage::First(self.first()),
                        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                            return Poll::Ready(Ok(Arrived::Refused));
                        }
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                Stage::First(_) => return self.poll_first(cx),
            }
        }
    }

    /// Decides what is spoken; `None` while that is open, or when it is.
    fn take_first_bytes(&mut self) -> io::Result<Option<Arrived>> {
        match sniff(&self.connection.input) {
            Sniffed::Unclear => Ok(None),
            Sniffed::Native => {
                self.stage = Stage::First(self.first());
                Ok(None)
            }
            Sniffed::Http1 => match self.http_carrier() {
                Some(carrier) => self.begin(carrier),
                None => Err(io::ErrorKind::InvalidData.into()),
            },
            Sniffed::Http2 => {
                self.sending.buffer().put(HTTP2_REFUSAL);
                Ok(Some(Arrived::Refused))
            }
            Sniffed::Tls | Sniffed::Unknown => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    #[cfg(feature = "websocket")]
    fn http_carrier(&self) -> Option<Carrier> {
        use sheetbend_core::carrier::websocket::{Limits, ServerHandshake, WebSocket};

        let path = match &self.door.address {
            Address::Over { target, .. } if !target.is_empty() => target.as_str(),
            _ => "/",
        };
        let handshake = ServerHandshake {
            guard: self.door.guard.clone(),
            path: path.into(),
            encrypted: false,
        };
        let websocket = WebSocket::server(handshake, Limits::default());
        Some(Carrier::websocket(websocket, self.security()))
    }

    #[cfg(not(feature = "websocket"))]
    fn http_carrier(&self) -> Option<Carrier> {
        None
    }

    /// Goes on with what was read as the first bytes of a carrier.
    fn begin(&mut self, carrier: Carrier) -> io::Result<Option<Arrived>> {
        let mut layers = Box::new(Layers::new(carrier));
        let input = &mut self.connection.input;
        if layers.carrier.reads_apart() {
            std::mem::swap(&mut layers.wire, input);
        }
        let begun = layers.decode(self.runtime.now(), input);
        self.stage = Stage::Handshake;
        if begun.is_err() {
            layers.carrier.close(self.sending.buffer());
        }
        self.connection.layers = Some(layers);
        Ok(begun.is_err().then_some(Arrived::Refused))
    }

    /// Reads until the first message of a session is complete.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arrived>> {
        let Stage::First(incoming) = &mut self.stage else {
            return Poll::Pending;
        };
        let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
        loop {
            let Connection {
                socket,
                layers,
                input,
            } = &mut self.connection;
            let complete = match layers {
                None => incoming.handle_input(input).map_err(malformed)?,
                Some(layers) => layers
                    .with_records(input, |records| incoming.handle_input(records))
                    .map_err(malformed)?,
            };
            if complete {
                break;
            }
            let Some(layers) = layers else {
                if !ready!(poll_read(cx, &**socket, input))? {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            };
            // Answers to what comes beside records.
            if self.sending.buffer().is_empty() && layers.carrier.has_output() {
                layers.carrier.prepare(self.sending.buffer());
                layers.carrier.seal(self.sending.buffer());
            }
            if let Poll::Ready(Err(error)) = self.sending.poll_write(cx, &**socket) {
                return Poll::Ready(Err(error));
            }
            let apart = layers.carrier.reads_apart();
            let buffer = if apart { &mut layers.wire } else { &mut *input };
            if layers.carrier.is_ended() || !ready!(poll_read(cx, &**socket, buffer))? {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if layers.decode(self.runtime.now(), input).is_err() {
                layers.carrier.close(self.sending.buffer());
                return Poll::Ready(Ok(Arrived::Refused));
            }
        }
        match std::mem::replace(&mut self.stage, Stage::Sniffing) {
            Stage::First(incoming) => Poll::Ready(Ok(Arrived::First(incoming))),
            _ => Poll::Pending,
        }
    }

    /// What awaits the first message.
    fn first(&self) -> Box<Incoming> {
        let origin = self.connection.socket.origin();
        Box::new(Incoming::new(self.accepted, self.info()).from_origin(origin))
    }

    fn security(&self) -> Security {
        security(&self.door.address.socket())
    }

    /// What the path would be, as far as is known.
    fn info(&self) -> PathInfo {
        let peer = self.connection.socket.peer();
        match &self.connection.layers {
            None => {
                let transport = self.door.address.socket().transport();
                PathInfo::new(format!("{transport}://{peer}"), transport, self.security())
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
fn put_refusal(connection: &mut Connection, sending: &mut Sending, record: &Bytes) {
    let mut last = Sending::default();
    let out = last.buffer();
    match &mut connection.layers {
        None => out.put(record),
        Some(layers) => {
            layers.carrier.prepare(out);
            out.put(record);
            layers.carrier.seal(out);
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
