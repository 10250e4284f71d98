//! `large`: echoes of 16 KiB and of 1 MiB over one connection, a few in flight.
//!
//! A task per request in flight, as in `rps`. An echo moves its bytes twice.

use std::io;

use bytes::Bytes;

use super::bulk::payload;
use super::case::{Better, Case, Metric, Shape, Test, workers_label};
use super::load::Load;
use super::rpc::Client;

/// Bytes of the payload, how the report calls them, and how many are in flight.
const LOADS: [(usize, &str, usize); 2] = [(16 << 10, "16 KiB", 16), (1 << 20, "1 MiB", 4)];

pub(crate) fn cases(workers: usize) -> Vec<Case> {
    let case = |(bytes, size, in_flight)| Case {
        test: Test::Large,
        shape: Shape::Large { bytes, in_flight },
        workers,
        op: "echo",
        metrics: vec![Metric {
            setting: format!("{size} echoes, {in_flight} in flight, {}", workers_label(workers)),
            unit: "1/s",
            better: Better::Higher,
        }],
    };
    LOADS.map(case).into()
}

/// Spawns the load: one task for each caller.
pub(crate) fn spawn_large_callers<C: Client>(
    callers: impl IntoIterator<Item = C>,
    bytes: usize,
    load: &Load,
) {
    let request = Bytes::from(payload(bytes));
    for mut caller in callers {
        let (counter, shared, request) = (load.counter(), load.clone(), request.clone());
        load.spawn(async move {
            while !shared.stopped() {
                let answer = caller.call(request.clone()).await?;
                if answer != request {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the echo is not what was sent",
                    ));
                }
                counter.add(1);
            }
            Ok(())
        });
    }
}
