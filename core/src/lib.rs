//! The sans-IO core of sheetbend.
#![forbid(unsafe_code)]

pub mod stream;
pub mod time;
pub mod wire;
