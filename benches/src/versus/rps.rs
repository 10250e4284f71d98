//! `rps`: 64-byte echoes a second over one connection, with a fixed number of requests in flight.
//!
//! A task per request in flight, each of which calls, checks the echo and calls again.

use super::case::{Better, Case, Metric, Shape, Test, workers_label};
use super::load::{Caller, ECHO_BYTES, Load, check_echo};

const IN_FLIGHT: [usize; 4] = [1, 16, 128, 1024];

pub(crate) fn cases(workers: usize) -> Vec<Case> {
    let case = |in_flight| Case {
        test: Test::Rps,
        shape: Shape::Rps { in_flight },
        workers,
        op: "echo",
        metrics: vec![Metric {
            setting: format!("{in_flight} in flight, {}", workers_label(workers)),
            unit: "1/s",
            better: Better::Higher,
        }],
    };
    IN_FLIGHT.map(case).into()
}

/// Spawns the load: one task for each caller.
pub(crate) fn spawn_callers<C: Caller>(callers: impl IntoIterator<Item = C>, load: &Load) {
    for (index, mut caller) in callers.into_iter().enumerate() {
        let counter = load.counter();
        let shared = load.clone();
        load.spawn(async move {
            let mut request = [0x5a; ECHO_BYTES];
            request[8..16].copy_from_slice(&(index as u64).to_le_bytes());
            let mut serial = 0_u64;
            while !shared.stopped() {
                serial += 1;
                request[..8].copy_from_slice(&serial.to_le_bytes());
                check_echo(&request, &caller.call(&request).await?)?;
                counter.add(1);
            }
            Ok(())
        });
    }
}
