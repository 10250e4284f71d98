//! The sans-IO core of sheetbend: every state machine, and no clock, socket, thread or file.
#![forbid(unsafe_code)]

pub mod client;
pub mod handshake;
pub mod policy;
pub mod rng;
pub mod server;
pub mod session;
pub mod stream;
pub mod time;
pub mod wire;
