//! sheetbend without tokio: one session between two programs that survives the death of any connection under it.
//!
//! Sockets and timers are those of `async-io`, whose reactor runs on a thread of its own where no executor does its
//! work; tasks run wherever they are given to: on smol's executor by default ([`runtime`]), or on any other
//! ([`SmolRuntime::new`]).
//!
//! [`bind`] serves sessions at an address, [`connect`] makes one. A [`Session`] is the same as on any runtime.
//!
//! # Example
//!
//! ```
//! use sheetbend_smol::ErrorCode;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # smol::block_on(async {
//! let server = sheetbend_smol::bind("tcp://127.0.0.1:0").await?;
//! let session = sheetbend_smol::connect(&server.addresses()[0]).await?;
//!
//! let peer = server.accept().await.ok_or("the server was stopped")?;
//! smol::spawn(async move {
//!     while let Ok(request) = peer.accept_request().await {
//!         request.respond("hello");
//!     }
//! })
//! .detach();
//! assert_eq!(session.request("greet", "").await?, "hello");
//!
//! // Says goodbye; otherwise the server keeps the session for a while, to be resumed.
//! session.close(ErrorCode::NONE, "done").await;
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # Other executors
//!
//! ```
//! use std::sync::Arc;
//! use sheetbend_smol::SmolRuntime;
//!
//! let executor = Arc::new(smol::Executor::new());
//! let tasks = executor.clone();
//! let runtime = SmolRuntime::new(move |task| tasks.spawn(task).detach());
//! # drop(runtime);
//! ```
//!
//! On async-std's it is `SmolRuntime::new(|task| drop(async_std::task::spawn(task)))`. The tests of this project run
//! there, too; but async-std is unmaintained, and its authors recommend smol.
#![deny(unsafe_code)]
#![allow(clippy::disallowed_methods)] // this crate is where the clock is read

mod net;
mod ready;
mod runtime;
mod spare;
#[cfg(feature = "quic")]
mod udp;

pub use runtime::SmolRuntime;
pub use sheetbend_core as core;
pub use sheetbend_runtime::*;

/// Connects a session to one endpoint, with defaults, on smol's executor.
///
/// # Errors
/// When the address is malformed, or no session could be made there.
#[cfg(feature = "global")]
pub async fn connect(address: impl ToAddress) -> Result<Session, ConnectError> {
    Client::builder().endpoint(address)?.connect(runtime()).await
}

/// Serves sessions on one address, with defaults, on smol's executor.
///
/// # Errors
/// When the address is malformed, or cannot be listened on.
#[cfg(feature = "global")]
pub async fn bind(address: impl ToAddress) -> Result<Server, BindError> {
    Server::builder().listen(address)?.bind(runtime()).await
}

/// The runtime for builders, `Client::builder()…connect(runtime())`, on smol's executor: that of `smol::spawn`, whose
/// threads begin with the first task (`SMOL_THREADS` says how many; one by default).
#[cfg(feature = "global")]
pub fn runtime() -> std::sync::Arc<dyn Runtime> {
    std::sync::Arc::new(SmolRuntime::new(|task| smol::spawn(task).detach()))
}
