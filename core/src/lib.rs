//! The sans-IO core of sheetbend: every state machine, and no clock, socket, thread or file.
//!
//! Most programs want `sheetbend-tokio` instead. This crate is for those who bring an event loop of their
//! own, write an adapter for another runtime, or test a protocol on a clock of their making.
//!
//! - [`carrier`]: transports that do not carry records as they are: WebSocket, TLS.
//! - [`session`]: one end of a session. [`session::Session`] takes bytes and timestamps, and gives bytes,
//!   events and deadlines; its module says in which order to call it.
//! - [`client`]: [`client::connector::Connector`] decides which endpoint to connect when.
//! - [`server`]: [`server::Acceptor`] finds the session that a new connection belongs to, or makes it.
//! - [`handshake`], [`wire`], [`stream`]: what those are made of. `docs/PROTOCOL.md` specifies it.
//! - [`request`]: calls over streams, their wire and their machines.
//! - [`marks`]: which rare branches a machine has been through, for tests.
//! - [`policy`], [`rng`], [`time`]: decisions, randomness from a seed, and the core's notion of time.
//!
//! # Example
//!
//! A session is made. What a socket would carry is carried by hand:
//!
//! ```
//! use bytes::BytesMut;
//! use sheetbend_core::handshake::Security;
//! use sheetbend_core::server::{Acceptor, Routed, registry};
//! use sheetbend_core::session::{Config, Incoming, PathInfo, Session, State};
//! use sheetbend_core::time::Timestamp;
//! use sheetbend_core::wire::OutBuffer;
//!
//! let now = Timestamp::ZERO; // a driver reads its clock before each call
//! let info = PathInfo::new("by hand", "mem", Security::Local);
//! let mut wire = OutBuffer::new();
//!
//! // The client says HELLO on a new path. Seeds are random in earnest.
//! let mut client = Session::client(Config::default(), [1; 32], now);
//! let near = client.open_path(now, info.clone())?;
//! client.poll_transmit(now, near, &mut wire);
//!
//! // The server reads the first message of a connection, and learns which session it is for.
//! let mut acceptor = Acceptor::new(registry::Config::default(), Config::default(), [2; 32], now);
//! let mut incoming = Incoming::new(now, info);
//! let mut received = BytesMut::from(wire.chunk());
//! wire.clear();
//! assert!(incoming.handle_input(&mut received)?);
//! let Routed::New { mut session, .. } = acceptor.route(now, &incoming) else {
//!     panic!("it makes a new one");
//! };
//! let far = session.accept_path(now, incoming).expect("it is taken");
//!
//! // WELCOME goes back.
//! session.poll_transmit(now, far, &mut wire);
//! client.handle_input(now, near, &mut BytesMut::from(wire.chunk()), 0)?;
//! assert_eq!(client.state(), State::Connected);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/event_loop/` is a client and a server on an event loop of `mio`; `docs/guides/embedding.md` walks through it.
#![forbid(unsafe_code)]

/// Whether a planted mistake is to be made: `false`, and gone, in every build but those of `.ci/canaries`.
#[cfg(not(sheetbend_canary))]
#[doc(hidden)]
#[macro_export]
macro_rules! canary {
    ($name:ident) => {
        false
    };
}

/// Whether a planted mistake is to be made.
#[cfg(sheetbend_canary)]
#[macro_export]
macro_rules! canary {
    ($name:ident) => {
        $crate::canary::is_active($crate::canary::Canary::$name)
    };
}

#[cfg(sheetbend_canary)]
pub mod canary;
pub mod carrier;
pub mod client;
pub mod handshake;
pub mod marks;
pub mod policy;
pub mod request;
pub mod rng;
pub mod server;
pub mod session;
pub mod stream;
pub mod time;
pub mod wire;
