//! One transport connection as a machine: bytes of its socket on one side, records on the other.
//!
//! A native connection (TCP, a Unix socket) carries records as they are and needs no [`Carrier`]: its driver
//! hands what it reads to [`Session::handle_input`](crate::session::Session::handle_input) and writes what
//! [`poll_transmit`](crate::session::Session::poll_transmit) gives. Every other transport has one in between,
//! made of a framing (WebSocket; none under plain TLS) and perhaps TLS below it. PROTOCOL 14.
//!
//! A carrier is used in this order:
//!
//! 1. [`seal`](Carrier::seal) an empty buffer and write it, [`handle_input`](Carrier::handle_input) what comes,
//!    until it [`is_ready`](Carrier::is_ready): the handshake of the transport. [`Carrier::capabilities`] then
//!    says what the path is worth.
//! 2. What the socket received goes to [`Carrier::handle_input`], and the records that it leaves at the front
//!    of the buffer to the session.
//! 3. Output: [`prepare`](Carrier::prepare) an empty buffer, let the session append its records, [`seal`]
//!    it, write it. A carrier has output of its own as well: [`Carrier::has_output`].
//! 4. [`Carrier::close`] before the connection is shut down.
//!
//! [`seal`]: Carrier::seal

#[cfg(any(feature = "websocket", feature = "webtransport"))]
mod budget;
mod error;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "quic")]
pub mod quic;
mod sniff;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "websocket")]
pub mod websocket;
#[cfg(feature = "webtransport")]
pub mod webtransport;

use std::fmt;

use bytes::BytesMut;

pub use error::CarrierError;
pub use sniff::{HTTP2_REFUSAL, Sniffed, sniff};

use crate::handshake::{Exporter, Security};
use crate::policy::selection::Offer;
use crate::time::Timestamp;
use crate::wire::OutBuffer;

/// What a carrier is worth to a path.
#[derive(Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The kind of transport: `tls`, `ws`, `wss`.
    pub transport: &'static str,
    /// What protects the bytes, as this end sees it. It also decides about the checksum of records
    /// (PROTOCOL 3.2).
    pub security: Security,
    /// What binds a JOIN to this connection, where this end itself ends TLS. PROTOCOL 6.2.
    pub exporter: Option<Exporter>,
    /// Whether either end can send at any time.
    pub realtime: bool,
    /// Lanes that it has beside lane 0.
    pub lanes: u32,
    /// Whether it carries datagrams of its own, that need not wait for what was sent before.
    pub datagrams: bool,
    /// The longest record that it carries, in bytes.
    pub largest_record: usize,
    /// What it costs, to choose among carriers about which nothing else is known: lower is better, 0 is TCP.
    pub cost: u32,
}

impl Capabilities {
    /// What selection is told of it.
    pub fn offer(&self) -> Offer {
        Offer {
            datagrams: self.datagrams,
            lanes: self.lanes > 0,
            realtime: self.realtime,
            record: self.largest_record,
            cost: self.cost,
        }
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The exporter is a secret of the TLS connection.
        f.debug_struct("Capabilities")
            .field("transport", &self.transport)
            .field("security", &self.security)
            .field("bound", &self.exporter.is_some())
            .field("realtime", &self.realtime)
            .field("lanes", &self.lanes)
            .field("datagrams", &self.datagrams)
            .field("largest_record", &self.largest_record)
            .field("cost", &self.cost)
            .finish()
    }
}

/// How records lie in the bytes of a connection, below TLS if there is any.
#[derive(Debug)]
enum Framing {
    /// One behind the other.
    Records,
    #[cfg(feature = "websocket")]
    WebSocket(Box<websocket::WebSocket>),
}

impl Framing {
    #[cfg_attr(not(feature = "websocket"), allow(unused_variables))]
    fn close(&mut self, out: &mut OutBuffer) {
        match self {
            Framing::Records => {}
            #[cfg(feature = "websocket")]
            Framing::WebSocket(websocket) => websocket.close(out),
        }
    }
}

/// One connection whose bytes are not simply records. See the [module](self) for the order of calls.
#[derive(Debug)]
pub struct Carrier {
    framing: Framing,
    security: Security,
    #[cfg(feature = "tls")]
    tls: Option<Box<tls::Tls>>,
}

#[cfg_attr(
    not(all(feature = "websocket", feature = "tls")),
    allow(unused_variables, reason = "records alone need none of it")
)]
impl Carrier {
    /// Records one behind the other: what is native. Of use over another layer only.
    pub fn records(security: Security) -> Carrier {
        Carrier::framed(Framing::Records, security)
    }

    fn framed(framing: Framing, security: Security) -> Carrier {
        Carrier {
            framing,
            security,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The same over TLS, which [`Capabilities`] tells: encrypted, and bound to it.
    #[cfg(feature = "tls")]
    pub fn over_tls(mut self, tls: tls::Tls) -> Carrier {
        self.tls = Some(Box::new(tls));
        self
    }

    /// The TLS below, if there is any.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&tls::Tls> {
        self.tls.as_deref()
    }

    /// A WebSocket from here on, where records were expected. What was clean in the input belongs to it.
    #[cfg(feature = "websocket")]
    pub fn begin_websocket(&mut self, websocket: websocket::WebSocket) {
        self.framing = Framing::WebSocket(Box::new(websocket));
    }

    /// A WebSocket over a connection of that security.
    #[cfg(feature = "websocket")]
    pub fn websocket(websocket: websocket::WebSocket, security: Security) -> Carrier {
        Carrier::framed(Framing::WebSocket(Box::new(websocket)), security)
    }

    #[cfg(feature = "tls")]
    fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(not(feature = "tls"))]
    fn is_encrypted(&self) -> bool {
        false
    }

    #[cfg(feature = "tls")]
    fn exporter(&self) -> Option<Exporter> {
        self.tls.as_ref().and_then(|tls| tls.exporter())
    }

    #[cfg(not(feature = "tls"))]
    fn exporter(&self) -> Option<Exporter> {
        None
    }

    /// What the path over this is worth, once [`Carrier::is_ready`].
    pub fn capabilities(&self) -> Capabilities {
        let encrypted = self.is_encrypted();
        let (transport, cost) = match (&self.framing, encrypted) {
            (Framing::Records, false) => ("tcp", 0),
            (Framing::Records, true) => ("tls", 5),
            #[cfg(feature = "websocket")]
            (Framing::WebSocket(_), false) => ("ws", 10),
            #[cfg(feature = "websocket")]
            (Framing::WebSocket(_), true) => ("wss", 15),
        };
        Capabilities {
            transport,
            security: if encrypted {
                Security::Encrypted
            } else {
                self.security
            },
            exporter: self.exporter(),
            realtime: true,
            lanes: 0,
            datagrams: false,
            largest_record: crate::wire::LARGEST_MAX_BODY,
            cost,
        }
    }

    /// Whether the transport's handshake is done, so that records can be sent.
    pub fn is_ready(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.tls.as_ref().is_some_and(|tls| !tls.is_ready()) {
            return false;
        }
        match &self.framing {
            Framing::Records => true,
            #[cfg(feature = "websocket")]
            Framing::WebSocket(websocket) => websocket.is_open(),
        }
    }

    /// Whether what the socket receives goes into `wire` of [`Carrier::handle_input`], and not behind the
    /// records.
    pub fn reads_apart(&self) -> bool {
        self.is_encrypted()
    }

    /// Takes in what the socket received: `wire` where it [reads apart](Carrier::reads_apart), otherwise
    /// what was appended to `input`.
    ///
    /// The first `clean` bytes of `input` are bytes of records that the session has not taken. More are
    /// added behind them, and `clean` is set to their number; what lies behind is the carrier's. Nothing
    /// else may be changed in `input` but to take bytes from the front and lower `clean` by as many.
    ///
    /// # Errors
    /// The connection is over: write what [`Carrier::close`] gives, and close it. What was clean until then
    /// may be used.
    pub fn handle_input(
        &mut self,
        now: Timestamp,
        wire: &mut BytesMut,
        input: &mut BytesMut,
        clean: &mut usize,
    ) -> Result<(), CarrierError> {
        #[cfg(feature = "tls")]
        let opened = match &mut self.tls {
            Some(tls) => tls.open(now, wire, input),
            None => Ok(()),
        };
        match &mut self.framing {
            Framing::Records => *clean = input.len(),
            #[cfg(feature = "websocket")]
            Framing::WebSocket(websocket) => websocket.handle_input(now, input, clean)?,
        }
        #[cfg(feature = "tls")]
        opened?;
        Ok(())
    }

    /// Whether nothing but TLS lies between the socket and what is sent.
    pub fn is_bare(&self) -> bool {
        matches!(self.framing, Framing::Records)
    }

    /// Makes room in an empty buffer for what comes in front of the records.
    pub fn prepare(&mut self, out: &mut OutBuffer) {
        match &mut self.framing {
            Framing::Records => {}
            #[cfg(feature = "websocket")]
            Framing::WebSocket(websocket) => websocket.prepare(out),
        }
    }

    /// Turns a [prepared](Carrier::prepare) buffer with records in it into what the socket is to send, and
    /// adds what the carrier has to say itself. A buffer without records may come out empty.
    pub fn seal(&mut self, now: Timestamp, out: &mut OutBuffer) {
        match &mut self.framing {
            Framing::Records => {}
            #[cfg(feature = "websocket")]
            Framing::WebSocket(websocket) => websocket.seal(out),
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            tls.seal(now, out);
        }
    }

    /// Whether the carrier itself has something to send: seal an empty buffer.
    pub fn has_output(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls
            && (tls.has_output() || !tls.is_ready())
        {
            return tls.has_output();
        }
        match &self.framing {
            Framing::Records => false,
            #[cfg(feature = "websocket")]
            Framing::WebSocket(websocket) => websocket.has_output(),
        }
    }

    /// Whether the peer has ended the connection in the transport's own way: nothing more comes.
    pub fn is_ended(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.tls.as_ref().is_some_and(|tls| tls.is_ended()) {
            return true;
        }
        match &self.framing {
            Framing::Records => false,
            #[cfg(feature = "websocket")]
            Framing::WebSocket(websocket) => websocket.is_ended(),
        }
    }

    /// Appends the transport's goodbye, or what is wrong with what came, behind what was sealed into `out`.
    /// Nothing can be sent afterwards. Asked again it adds nothing.
    pub fn close(&mut self, out: &mut OutBuffer) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            let mut last = OutBuffer::new();
            self.framing.close(&mut last);
            return tls.close(last, out);
        }
        self.framing.close(out);
    }

    /// Gives back memory that an idle connection does not need.
    pub fn shrink(&mut self) {
        match &mut self.framing {
            Framing::Records => {}
            #[cfg(feature = "websocket")]
            Framing::WebSocket(websocket) => websocket.shrink(),
        }
    }
}
