//! `pending`: resident memory of a call that is under way on one session, client and server together.
//!
//! Measured as `memory` says. Each call is made by a task of its own, whose memory is part of it; the server has
//! them all and answers none.

use super::case::{Better, Case, Metric, Shape, Test, workers_label};
use super::memory::WORKERS;

const CALLS: usize = 10_000;

pub(crate) fn cases() -> Vec<Case> {
    vec![Case {
        test: Test::Pending,
        shape: Shape::Pending { calls: CALLS },
        workers: WORKERS,
        op: "call begun",
        metrics: vec![Metric {
            setting: format!("{CALLS} calls in flight, {}", workers_label(WORKERS)),
            unit: "KiB",
            better: Better::Lower,
        }],
    }]
}
