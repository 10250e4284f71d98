//! sheetbend on tokio: [`TokioRuntime`], and the handles of `sheetbend-runtime` with it filled in.
//!
//! Call [`connect`] and [`bind`] from within a tokio runtime that has its IO and time drivers on.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)] // this crate is where the clock is read

mod net;
mod runtime;

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
