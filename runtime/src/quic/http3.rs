//! HTTP/3 on a connection, and in it the one session of WebTransport whose streams are the lanes. PROTOCOL 14.9.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use sheetbend_core::carrier::quic::{ClientQuic, Dir, Protocol, QuicError, QuicStreamId, Side, StreamEvent};
use sheetbend_core::carrier::webtransport::{
    ClientHandshake, Event, Http3, Http3Error, ServerHandshake, WebTransport, code,
};

use super::wire::Wire;
use crate::address::{Address, Scheme};
use crate::arrive::Door;
use crate::reach::Settings;

/// What a connection speaks beside records.
#[derive(Default)]
pub(super) enum Web {
    /// Nothing.
    #[default]
    Native,
    /// This, if the ends agree to it.
    Offered(Box<WebTransport>),
    Spoken(Box<Http3>),
}

/// What a client is to speak at an address, and by which configuration.
pub(super) fn client(
    address: &Address,
    settings: &Settings,
    place: SocketAddr,
) -> io::Result<(ClientQuic, Web)> {
    let Some(tls) = &settings.tls else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    match address {
        Address::Over {
            scheme: Scheme::Wt,
            target,
            ..
        } => {
            let handshake = ClientHandshake {
                authority: address.authority(),
                target: target.clone(),
                origin: settings.origin.clone(),
            };
            let client = ClientQuic::http3(tls, &settings.quic).map_err(io::Error::other)?;
            Ok((client, Web::Offered(Box::new(WebTransport::client(handshake)))))
        }
        _ => {
            let client = ClientQuic::early(tls, &settings.quic, place).map_err(io::Error::other)?;
            Ok((client, Web::Native))
        }
    }
}

/// What a server speaks to those who ask for it.
pub(super) fn server(door: &Door) -> Web {
    Web::Offered(Box::new(WebTransport::server(ServerHandshake {
        guard: door.guard.clone(),
        path: Arc::from(door.http_path()),
    })))
}

impl Wire {
    /// The transport's name.
    pub(super) fn transport(&self) -> &'static str {
        match &self.web {
            Web::Native => "quic",
            Web::Offered(_) | Web::Spoken(_) => "wt",
        }
    }

    /// Whether records are spoken, without HTTP/3.
    pub(super) fn is_native(&self) -> bool {
        matches!(self.web, Web::Native)
    }

    /// By which a connection is closed in order.
    pub(super) fn close_code(&self) -> u64 {
        match &self.web {
            Web::Native => 0,
            Web::Offered(_) | Web::Spoken(_) => code::NO_ERROR,
        }
    }

    /// Begins HTTP/3 once the ends have agreed to it.
    pub(super) fn agree(&mut self) {
        let (Web::Offered(_), Some(protocol)) = (&self.web, self.connection.protocol()) else {
            return;
        };
        if let (Web::Offered(machine), Protocol::Http3) = (std::mem::take(&mut self.web), protocol) {
            let (port, connection, mut begun) = (&self.port, &mut self.connection, None);
            let (now, mut machine) = (port.now(), Some(machine));
            // As in `hears`.
            port.runtime.unobserved(&mut || {
                begun = machine
                    .take()
                    .map(|machine| Http3::begin(*machine, now, connection));
            });
            let Some(begun) = begun else { return };
            match begun {
                Ok(http3) => self.web = Web::Spoken(Box::new(http3)),
                Err(error) => self.fail(error),
            }
            // The first stream in one direction is HTTP/3's own.
            self.lanes.before = 1;
            self.take_web_events();
        }
    }

    /// Has HTTP/3 take an event first. Tells whether it is about a lane.
    pub(super) fn hears(&mut self, event: &StreamEvent) -> bool {
        // Nearly all events are about lanes, of which HTTP/3 knows nothing any more.
        if !matches!(self.web, Web::Spoken(_)) || self.is_lanes_own(event) {
            return true;
        }
        let Web::Spoken(http3) = &mut self.web else {
            return true;
        };
        let (port, connection, mut heard) = (&self.port, &mut self.connection, Ok(false));
        let now = port.now();
        // Fields of a request lie in a table with random keys; their order is never looked at.
        port.runtime
            .unobserved(&mut || heard = http3.handle_event(now, connection, event));
        let is_lane = heard.unwrap_or_else(|error| {
            self.fail(error);
            false
        });
        self.take_web_events();
        is_lane
    }

    /// Whether an event is about a lane that was handed over.
    fn is_lanes_own(&self, event: &StreamEvent) -> bool {
        match *event {
            StreamEvent::Readable { id } => self.lanes.takes(id),
            StreamEvent::Writable { id } => self.lanes.sends(id),
            _ => false,
        }
    }

    fn fail(&mut self, error: Http3Error) {
        let now = self.port.now();
        self.connection.close(now, error.code, error.what.as_bytes());
        self.lost.get_or_insert(QuicError::Http3(error));
    }

    fn take_web_events(&mut self) {
        while let Web::Spoken(http3) = &mut self.web
            && let Some(event) = http3.poll_event()
        {
            match event {
                Event::Established { .. } => {}
                Event::Stream { id, early } if id.dir() == Dir::Uni => self.lanes.accept(id, &early),
                Event::Stream { id, early } => self.take_first(id, early.into()),
                // The client may ask for something else.
                Event::Refused(_) if self.connection.side() == Side::Server => {}
                Event::Refused(error) => {
                    self.lost.get_or_insert(QuicError::NoSession(error));
                }
                Event::Ended(close) => {
                    self.lost.get_or_insert(QuicError::Closed {
                        code: close.code.into(),
                        reason: close.reason,
                    });
                }
            }
        }
    }

    /// The first stream in both directions that the client opens is lane 0, and there is no other.
    fn take_first(&mut self, id: QuicStreamId, early: Vec<u8>) {
        if self.first.id.is_none() && self.connection.side() == Side::Server {
            self.first.id = Some(id);
            self.first.early = early;
            self.first.readable = true;
            return;
        }
        let now = self.port.now();
        if let Web::Spoken(http3) = &mut self.web {
            let turned = http3.machine().turn_away(now, id);
            let done = turned.and_then(|()| http3.drive(&mut self.connection));
            if let Err(error) = done {
                self.fail(error);
            }
        }
    }

    /// Opens the first stream of a client, once there may be any.
    pub(super) fn open_first(&mut self) -> io::Result<()> {
        let mut header = Vec::new();
        match &mut self.web {
            Web::Native => {}
            Web::Offered(_) => return Ok(()),
            Web::Spoken(http3) => {
                if !http3.machine().put_stream_header(Dir::Bi, &mut header) {
                    return Ok(());
                }
            }
        }
        self.first.id = self.connection.open(Dir::Bi);
        if let Some(id) = self.first.id
            && !header.is_empty()
            && self.connection.write_slice(id, &header).ok() != Some(header.len())
        {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "the server takes nothing",
            ));
        }
        Ok(())
    }

    /// What a datagram begins with; `None` where the peer takes none.
    fn datagram_header(&mut self) -> Option<Vec<u8>> {
        let mut header = Vec::new();
        match &mut self.web {
            Web::Native => Some(header),
            Web::Offered(_) => None,
            Web::Spoken(http3) => http3.machine().put_datagram_header(&mut header).then_some(header),
        }
    }

    /// The longest datagram of the session; 0 where the peer takes none.
    pub(super) fn max_datagram(&mut self) -> usize {
        let Some(header) = self.datagram_header() else {
            return 0;
        };
        let most = self.connection.max_datagram().unwrap_or(0);
        most.saturating_sub(header.len())
    }

    pub(super) fn send_datagram(&mut self, datagram: Bytes) {
        let Some(mut header) = self.datagram_header() else {
            return;
        };
        let whole = if header.is_empty() {
            datagram
        } else {
            header.extend_from_slice(&datagram);
            header.into()
        };
        // One that has become too long meanwhile is lost, as it may be.
        let _ = self.connection.send_datagram(whole);
    }

    /// The next datagram of the session.
    pub(super) fn recv_datagram(&mut self) -> Option<Bytes> {
        loop {
            let datagram = self.connection.recv_datagram()?;
            let Web::Spoken(http3) = &mut self.web else {
                return Some(datagram);
            };
            match http3.machine().handle_datagram(datagram) {
                Ok(Some(payload)) => return Some(payload),
                // Of a session that is none of ours.
                Ok(None) => {}
                Err(error) => {
                    self.fail(error);
                    return None;
                }
            }
        }
    }

    /// Whether lanes can be opened, and what each begins with.
    pub(super) fn lane_header(&mut self) -> Option<Vec<u8>> {
        let mut header = Vec::new();
        match &mut self.web {
            Web::Native => Some(header),
            Web::Offered(_) => None,
            Web::Spoken(http3) => {
                let stands = http3.is_begun() && http3.machine().put_stream_header(Dir::Uni, &mut header);
                stands.then_some(header)
            }
        }
    }
}
