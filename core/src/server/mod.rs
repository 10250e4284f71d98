//! The server's side: which session an incoming path belongs to.

pub mod registry;

pub use registry::Registry;
