//! The `sheetbend` command, as a library so that its parts can be tested and put together.
//!
//! Nothing here is a public interface: the command is the product, and its flags are what stays stable.
#![forbid(unsafe_code)]
// A command reads the clock and talks to people; the core below it does neither.
#![allow(clippy::disallowed_methods)]

pub mod address;
pub mod args;
pub mod bench;
pub mod call;
pub mod demo;
pub mod failure;
pub mod files;
pub mod output;
pub mod probe;
pub mod progress;
pub mod proxy;
pub mod send;
pub mod serve;
pub mod sim;
pub mod transfer;
pub mod units;
pub mod url;

use clap::Parser;
use std::process::ExitCode;

/// Parses the command line, runs the command, and reports its failure as one line on stderr.
pub fn main() -> ExitCode {
    match args::Cli::try_parse() {
        Ok(cli) => finish(run(cli)),
        // `--help` and `--version` are answers, not failures.
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        Err(error) => finish(Err(failure::Failure::from(error))),
    }
}

fn run(cli: args::Cli) -> Result<(), failure::Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failure::Failure::failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async move {
        match cli.command {
            args::Command::Demo(args) => demo::command::run(args).await,
            args::Command::Serve(args) => serve::run(args).await,
            args::Command::Send(args) => send::run(args).await,
            args::Command::Call(args) => call::run(args).await,
            args::Command::Bench(args) => bench::run(args).await,
            args::Command::Probe(args) => probe::run(args).await,
            args::Command::Proxy(args) => proxy::command::run(args).await,
            args::Command::Sim(args) => sim::run(&args),
        }
    })
}

fn finish(outcome: Result<(), failure::Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::aside(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}
