//! `idle`: resident memory of a session that is silent, client and server together.
//!
//! Measured as `memory` says. Every session has carried one 64-byte echo.

use super::case::{Better, Case, Metric, Shape, Test, workers_label};
use super::memory::WORKERS;

pub(crate) fn cases(sessions: usize) -> Vec<Case> {
    vec![Case {
        test: Test::Idle,
        shape: Shape::Idle { sessions },
        workers: WORKERS,
        op: "session set up",
        metrics: vec![Metric {
            setting: format!("{sessions} sessions, {}", workers_label(WORKERS)),
            unit: "KiB",
            better: Better::Lower,
        }],
    }]
}
