//! `rtt`: one caller, one 64-byte echo after the other; percentiles of the time each took.
//!
//! With one worker both ends take turns on one core. With two, the figure says mostly whether the scheduler
//! put them on one core or let each wake the other.

use std::time::Instant;

use super::case::{Better, Case, Metric, Shape, Test, workers_label};
use super::load::{Caller, ECHO_BYTES, Load, check_echo};

const PERCENTILES: [(&str, f64); 3] = [("p50", 0.50), ("p90", 0.90), ("p99", 0.99)];

pub(crate) fn cases() -> Vec<Case> {
    [1, 2].map(case).into()
}

fn case(workers: usize) -> Case {
    let metric = |(name, _): (&str, f64)| Metric {
        setting: format!("{name}, {}", workers_label(workers)),
        unit: "us",
        better: Better::Lower,
    };
    Case {
        test: Test::Rtt,
        shape: Shape::Rtt,
        workers,
        op: "echo",
        metrics: PERCENTILES.map(metric).into(),
    }
}

/// Spawns the load.
pub(crate) fn echo_in_turn(mut caller: impl Caller, load: &Load) {
    let counter = load.counter();
    let shared = load.clone();
    load.spawn(async move {
        let mut request = [0x5a; ECHO_BYTES];
        let mut latencies_ns = Vec::with_capacity(1 << 20);
        let mut serial = 0_u64;
        let mut started = Instant::now();
        while !shared.stopped() {
            serial += 1;
            request[..8].copy_from_slice(&serial.to_le_bytes());
            check_echo(&request, &caller.call(&request).await?)?;
            let done = Instant::now();
            if shared.recording() {
                latencies_ns.push(u32::try_from((done - started).as_nanos()).unwrap_or(u32::MAX));
            } else if !latencies_ns.is_empty() {
                shared.record(&mut latencies_ns);
            }
            started = done;
            counter.add(1);
        }
        Ok(())
    });
}

/// The metrics' values in microseconds.
pub(crate) fn values(mut latencies_ns: Vec<u32>) -> Option<Vec<f64>> {
    latencies_ns.sort_unstable();
    let last = latencies_ns.len().checked_sub(1)?;
    let at = |share: f64| f64::from(latencies_ns[(last as f64 * share).round() as usize]) / 1000.0;
    Some(PERCENTILES.iter().map(|(_, share)| at(*share)).collect())
}
