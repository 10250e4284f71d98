//! The server's side: which session an incoming path belongs to.

pub mod acceptor;
mod detached;
pub mod registry;

pub use acceptor::{Acceptor, Routed};
pub use registry::{Registry, SessionToken};
