//! The sans-IO core of sheetbend.
#![forbid(unsafe_code)]

pub mod client;
pub mod handshake;
pub mod policy;
pub mod rng;
pub mod server;
pub mod time;
