//! The server's side: which session an incoming path belongs to.

pub mod acceptor;
mod detached;
mod origin;
pub mod registry;

pub use acceptor::{Acceptor, Routed};
pub use origin::Origin;
pub use registry::{Registry, SessionToken};
