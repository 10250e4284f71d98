//! The side-by-side run: the same loads on sheetbend and on its peers, in one process, in interleaved rounds.
//!
//! | row | load | peers |
//! |---|---|---|
//! | `rtt` | one caller, 64-byte echoes one after the other | raw-naive, yamux, rpc |
//! | `rps` | 64-byte echoes, 1 to 1024 in flight on one connection | raw-naive, raw-callers, yamux, rpc |
//! | `large` | echoes of 16 KiB and of 1 MiB, a few in flight on one connection | rpc |
//! | `items` | one call that is answered with 64-byte items without end | tonic, h2, velo |
//! | `bulk` | one stream, 16 or 64 KiB a write, bytes received | raw-naive, yamux |
//! | `streams` | 100 streams of 1 MiB each, bytes received | raw-naive (100 connections), yamux |
//! | `idle` | resident memory of an idle session, client and server together | raw-naive, yamux |
//! | `pending` | resident memory of a call that is under way, client and server together | rpc |
//! | `sim` | 64-byte messages between simulated hosts, per second of the wall clock | turmoil |
//!
//! sheetbend over WebSocket and over TLS (`ours-ws`, `ours-tls`) runs beside tokio-tungstenite (`tungstenite`) in `rtt`,
//! `rps`, `bulk` and `idle`, and beside tokio-rustls (`rustls`) in `rtt`, `bulk` and `idle`. Over HTTP it streams both
//! ways (`ours-http`), or has an event stream down and requests up (`ours-sse`). Over QUIC (`ours-quic`) and over
//! WebTransport (`ours-wt`) it runs beside `quinn` in `rtt`, `rps`, `bulk`, `streams` and `idle`.
//!
//! "rpc" are tonic (gRPC), tarpc, h2, jsonrpsee (over WebSocket) and velo.
//!
//! Both ends of every real load run in one process over loopback TCP, on one tokio runtime that is made for that
//! measurement alone. Ratios are medians of those of single rounds, with the interval in which the median lies at 95 %
//! (from six rounds on; of fewer the report says how sure it is). Before the rounds, every peer's variants (buffer sizes, windows, stream per request or
//! per caller, …) run briefly and the best one is kept; the settings are part of the report. Each file of a
//! test family says what it measures; `peer` is the seam that a peer implements.

mod args;
mod bulk;
mod case;
mod h2;
mod idle;
mod interval;
mod items;
mod jsonrpsee;
mod large;
mod load;
mod memory;
mod net;
mod ours;
mod peer;
mod pending;
mod quinn;
mod raw_callers;
mod raw_naive;
mod report;
mod rpc;
mod rps;
mod rtt;
mod runner;
mod rustls;
mod sim;
mod streams;
mod tarpc;
mod tonic;
mod tungstenite;
mod usage;
mod velo;
mod yamux;
mod yamux_socket;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

/// Runs the command.
pub fn main() -> ExitCode {
    let args = Args::parse();
    usage::raise_file_limit();
    if let Some(key) = &args.memory_child {
        return exit(memory::child(&args, key));
    }
    exit(runner::run(&args).and_then(|outcome| {
        report::print(&outcome, args.json)?;
        match outcome.errors.is_empty() {
            true => Ok(()),
            false => Err(std::io::Error::other(outcome.errors.join("; "))),
        }
    }))
}

fn exit(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}
