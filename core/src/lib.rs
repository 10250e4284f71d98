//! The sans-IO core of sheetbend.
#![forbid(unsafe_code)]

pub mod handshake;
pub mod rng;
pub mod time;
