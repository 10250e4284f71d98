//! QUIC as a transport: RFC 9000 by quinn-proto, made pure. PROTOCOL 14.8.
//!
//! Two machines. An [`Endpoint`] has what belongs to a UDP socket: it tells which connection a datagram is for,
//! answers those that are for none, and makes connections. A [`Connection`] is one of these, and independent of all
//! others: who drives it hands it the events that the endpoint has for it, and sends what it gives straight to the
//! socket. So the endpoint is asked for each batch that is received, and for little else.
//!
//! Order of calls, for a connection: [`Connection::handle_events`] for all that came; [`Connection::handle_timeout`]
//! if its deadline has passed; [`Connection::poll_event`] until there is none; streams; then
//! [`Connection::poll_transmit`] and [`Connection::poll_endpoint_event`] until there is none; at last
//! [`Connection::poll_timeout`], as all of the above moves it.
//!
//! quinn-proto would draw randomness, and rustls the time besides, from their surroundings. They are given both: an
//! endpoint and its connections do the same for the same seed.

mod cids;
mod clock;
mod config;
mod connection;
mod endpoint;
mod error;
#[cfg(test)]
mod tests;

pub use config::{ClientQuic, Congestion, QuicSettings, ServerQuic};
pub use connection::{ALPN_HTTP3, Connection, Protocol, Read};
pub use endpoint::{Arrival, Endpoint, EndpointSettings, From};
pub use error::QuicError;
pub use quinn_proto::{
    ConnectionEvent, ConnectionHandle, Dir, EcnCodepoint, EndpointEvent, Event, ReadError, Side, StreamEvent,
    StreamId as QuicStreamId, Transmit, VarInt, WriteError,
};
