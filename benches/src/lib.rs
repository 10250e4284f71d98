//! Benches of sheetbend. [`versus`] runs it side by side with peers.

// Benches measure wall time, sleep through a measuring window and talk on the terminal.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod versus;
