//! `sheetbend proxy`: the fault proxy by itself, for breaking other programs' connections.

use super::{Counters, Proxy, ProxyHandle};
use crate::args::ProxyArgs;
use crate::failure::Failure;
use crate::output;
use crate::units;
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// What `--json` prints at the end.
#[derive(Debug, Serialize)]
struct Summary {
    ok: bool,
    listen: String,
    to: String,
    connections: u64,
    unreachable: u64,
    cuts: u64,
    resets: u64,
    stalls: u64,
    to_target_bytes: u64,
    to_client_bytes: u64,
    seconds: f64,
}

/// How often each fault was caused.
#[derive(Debug, Default)]
struct Caused {
    cuts: u64,
    resets: u64,
    stalls: u64,
}

/// Relays until ^C, or for the seconds asked for.
///
/// # Errors
/// The listener cannot be bound.
pub async fn run(args: ProxyArgs) -> Result<(), Failure> {
    let proxy = Proxy::start(&args.listen.0, &args.to).await.map_err(|error| {
        Failure::failed(format!(
            "cannot listen on {}: {error}; choose another --listen address",
            args.listen
        ))
    })?;
    let handle = proxy.handle();
    handle.delay(args.delay.unwrap_or_default());
    handle.throttle(args.throttle);
    let line = format!(
        "listening on {}, forwarding to {}",
        handle.address(),
        handle.target()
    );
    // With --json, stdout holds the one object only.
    if args.json {
        output::aside(&line);
    } else {
        output::line(&line)?;
    }
    let start = Instant::now();
    let caused = break_things(&args, &handle).await;
    report(&args, &handle, &caused, start.elapsed())
}

async fn break_things(args: &ProxyArgs, handle: &ProxyHandle) -> Caused {
    let mut caused = Caused::default();
    let end = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(end, interrupted);
    let mut cut = Ticker::new(args.cut_every);
    let mut reset = Ticker::new(args.reset_every);
    let mut stall = Ticker::new(args.stall_every);
    let mut stalled_until = None;
    loop {
        tokio::select! {
            () = &mut end => return caused,
            _ = &mut interrupted => return caused,
            () = cut.tick() => {
                handle.cut();
                caused.cuts += 1;
            }
            () = reset.tick() => {
                handle.reset();
                caused.resets += 1;
            }
            () = stall.tick() => {
                handle.stall(true);
                caused.stalls += 1;
                stalled_until = Some(Instant::now() + args.stall_for);
            }
            () = until(stalled_until) => {
                handle.stall(false);
                stalled_until = None;
            }
        }
    }
}

/// An interval that may be absent.
struct Ticker(Option<tokio::time::Interval>);

impl Ticker {
    fn new(every: Option<Duration>) -> Self {
        Ticker(every.map(|every| {
            let mut ticks = interval_at(Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    async fn tick(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn report(args: &ProxyArgs, handle: &ProxyHandle, caused: &Caused, ran: Duration) -> Result<(), Failure> {
    let Counters {
        to_target_bytes,
        to_client_bytes,
        total,
        unreachable,
        ..
    } = handle.counters();
    let summary = Summary {
        ok: true,
        listen: handle.address().to_string(),
        to: handle.target().to_string(),
        connections: total,
        unreachable,
        cuts: caused.cuts,
        resets: caused.resets,
        stalls: caused.stalls,
        to_target_bytes,
        to_client_bytes,
        seconds: (ran.as_secs_f64() * 1000.0).round() / 1000.0,
    };
    if args.json {
        let text = serde_json::to_string(&summary).map_err(|error| Failure::failed(error.to_string()))?;
        return output::line(&text);
    }
    output::line(&format!(
        "{} ({} did not reach the target), {} there, {} back; {}, {}, {}",
        units::counted(total, "connection", "connections"),
        units::count(unreachable),
        units::bytes(to_target_bytes),
        units::bytes(to_client_bytes),
        units::counted(caused.cuts, "cut", "cuts"),
        units::counted(caused.resets, "reset", "resets"),
        units::counted(caused.stalls, "stall", "stalls"),
    ))
}
