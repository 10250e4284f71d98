//! `streams`: 100 streams at once of 1 MiB each, batch after batch; bytes a second where they are received.
//!
//! Opening and ending the streams is part of it.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::case::{Better, Case, Metric, Shape, Test, workers_label};

const COUNT: usize = 100;
const BYTES: usize = 1 << 20;
/// Bytes of one write.
pub(crate) const WRITE_BYTES: usize = 64 * 1024;

pub(crate) fn cases(workers: usize) -> Vec<Case> {
    vec![Case {
        test: Test::Streams,
        shape: Shape::Streams {
            count: COUNT,
            bytes: BYTES,
        },
        workers,
        op: "MiB",
        metrics: vec![Metric {
            setting: format!("{COUNT} x 1 MiB, {}", workers_label(workers)),
            unit: "B/s",
            better: Better::Higher,
        }],
    }]
}

/// Tells the sender, past the connection, how many streams have arrived whole. Clones are the same.
#[derive(Clone)]
pub(crate) struct Arrivals(Arc<Semaphore>);

impl Arrivals {
    pub(crate) fn new() -> Arrivals {
        Arrivals(Arc::new(Semaphore::new(0)))
    }

    /// The receiver has all of one stream.
    pub(crate) fn one_arrived(&self) {
        self.0.add_permits(1);
    }

    /// Waits until `count` more have arrived.
    pub(crate) async fn wait_for(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if let Ok(permits) = self.0.acquire_many(count).await {
            permits.forget();
        }
    }
}
