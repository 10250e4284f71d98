//! What is measured: tests, their cases, and the metrics that each case yields.

use std::cmp::Ordering;

use clap::ValueEnum;

use super::args::Args;
use super::items::Source;
use super::{bulk, idle, items, large, pending, rps, rtt, sim, streams};

/// A family of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Test {
    Rtt,
    Rps,
    Large,
    Items,
    Bulk,
    Streams,
    Idle,
    Pending,
    Sim,
}

impl Test {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Test::Rtt => "rtt",
            Test::Rps => "rps",
            Test::Large => "large",
            Test::Items => "items",
            Test::Bulk => "bulk",
            Test::Streams => "streams",
            Test::Idle => "idle",
            Test::Pending => "pending",
            Test::Sim => "sim",
        }
    }
}

/// The load of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Rtt,
    Rps { in_flight: usize },
    Large { bytes: usize, in_flight: usize },
    Items { source: Source },
    Bulk { write_bytes: usize },
    Streams { count: usize, bytes: usize },
    Idle { sessions: usize },
    Pending { calls: usize },
    Sim(sim::Net),
}

/// Which way a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Better {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Better::Higher => "higher",
            Better::Lower => "lower",
        }
    }

    pub(crate) fn best_first(self, a: f64, b: f64) -> Ordering {
        match self {
            Better::Higher => b.total_cmp(&a),
            Better::Lower => a.total_cmp(&b),
        }
    }
}

/// One value of a case; each becomes a row of the report.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) setting: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
}

/// One load under one setting.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) test: Test,
    pub(crate) shape: Shape,
    pub(crate) workers: usize,
    /// What CPU time is counted per.
    pub(crate) op: &'static str,
    pub(crate) metrics: Vec<Metric>,
}

impl Case {
    /// Every case that the arguments ask for.
    pub(crate) fn all(args: &Args) -> Vec<Case> {
        let workers = usize::from(args.workers);
        let families = [
            rtt::cases(),
            rps::cases(workers),
            large::cases(workers),
            items::cases(workers),
            bulk::cases(workers),
            streams::cases(workers),
            idle::cases(args.sessions as usize),
            pending::cases(),
            sim::cases(),
        ];
        families
            .into_iter()
            .flatten()
            .filter(|case| args.wants(case.test))
            .collect()
    }
}

/// "1 worker", "2 workers".
pub(crate) fn workers_label(workers: usize) -> String {
    format!("{workers} worker{}", if workers == 1 { "" } else { "s" })
}
