//! sheetbend on tokio: one session between two programs that survives the death of any connection under it.
//!
//! [`bind`] serves sessions at an address, [`connect`] makes one. A [`Session`] carries, in both directions:
//!
//! | | to send | to receive |
//! |---|---|---|
//! | calls | [`Session::request`], [`Session::call`], [`Caller`] | [`Server::serve`], [`Router`], [`Session::accept_request`] |
//! | byte streams | [`Session::open_bi`], [`Session::open_uni`] | [`Session::accept_bi`], [`Session::accept_uni`] |
//! | messages | [`Session::send_message`] | [`Session::recv_message`] |
//! | datagrams | [`Session::send_datagram`] | [`Session::recv_datagram`] |
//!
//! Streams and messages have a [`Class`]: a group that shares flow control and urgency.
//! Streams implement the read and write traits of tokio and of `futures`.
//!
//! When a connection dies, the client connects again and resumes the session; what was not acknowledged is
//! sent once more. [`Session::events`] tells of it. [`Client::builder`] takes several addresses of one server,
//! of which a second is kept warm; [`Config`] has the limits and times.
//!
//! Addresses are `tcp://host:port`, `tls://host:port`, `ws://host/path`, `wss://host/path`, `http://host/path`,
//! `https://host/path`, `sheetbend://host:port` (whatever works there), `unix:///path` and `mem://name` (within one
//! process). A listening port tells what is over TCP apart by itself. **Only `tls`, `wss` and `https`
//! encrypt**: see section 13 of `docs/PROTOCOL.md`. A server needs a certificate for them ([`ServerBuilder::tls`]); a
//! client believes those that the system's authorities vouch for, or what [`ClientBuilder::trust`] says. Proxies are asked
//! only where [`ClientBuilder::proxies`] or [`ClientBuilder::proxies_from_environment`] names them.
//!
//! # Example
//!
//! ```
//! use sheetbend_tokio::ErrorCode;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = sheetbend_tokio::bind("tcp://127.0.0.1:0").await?;
//! let session = sheetbend_tokio::connect(&server.addresses()[0]).await?;
//!
//! let peer = server.accept().await.ok_or("the server was stopped")?;
//! tokio::spawn(async move {
//!     while let Ok(request) = peer.accept_request().await {
//!         request.respond("hello");
//!     }
//! });
//! assert_eq!(session.request("greet", "").await?, "hello");
//!
//! // Says goodbye; otherwise the server keeps the session for a while, to be resumed.
//! session.close(ErrorCode::NONE, "done").await;
//! # Ok(())
//! # }
//! ```
//!
//! More programs are in `examples/`. Call everything from within a tokio runtime that has its IO and time
//! drivers on.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)] // this crate is where the clock is read

mod net;
mod runtime;
#[cfg(feature = "quic")]
mod udp;

use std::sync::Arc;

pub use runtime::TokioRuntime;
pub use sheetbend_core as core;
pub use sheetbend_runtime::*;

/// Connects a session to one endpoint, with defaults.
///
/// # Errors
/// When the address is malformed, or no session could be made there.
pub async fn connect(address: impl ToAddress) -> Result<Session, ConnectError> {
    Client::builder().endpoint(address)?.connect(runtime()).await
}

/// Serves sessions on one address, with defaults.
///
/// # Errors
/// When the address is malformed, or cannot be listened on.
pub async fn bind(address: impl ToAddress) -> Result<Server, BindError> {
    Server::builder().listen(address)?.bind(runtime()).await
}

/// The runtime for builders: `Client::builder()…connect(runtime())`.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn runtime() -> Arc<dyn Runtime> {
    Arc::new(TokioRuntime::current())
}
