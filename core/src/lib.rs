//! The sans-IO core of sheetbend.
#![forbid(unsafe_code)]

pub mod time;
pub mod wire;
