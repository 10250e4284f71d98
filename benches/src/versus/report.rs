//! The report: a table to read, or one JSON object.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::interval::Paired;
use super::ours;
use super::runner::{CaseOutcome, Entry, Outcome, Sample, median};

#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    test: &'static str,
    setting: String,
    unit: &'static str,
    better: &'static str,
    workers: usize,
    /// What `cpu_us_per_op` counts per.
    op: &'static str,
    ours: Option<f64>,
    peers: BTreeMap<&'static str, f64>,
    /// Ours as a multiple of each peer's, in the same rounds.
    ratios: BTreeMap<&'static str, Paired>,
    min_max: BTreeMap<&'static str, [f64; 2]>,
    cpu_us_per_op: BTreeMap<&'static str, CpuPerOp>,
    settings: BTreeMap<&'static str, String>,
    /// What every variant that was tried gave briefly, before the rounds.
    trials: BTreeMap<&'static str, BTreeMap<String, f64>>,
    rounds: u32,
    seconds: f64,
}

/// Medians, client and server together.
#[derive(Clone, Copy, Serialize)]
struct CpuPerOp {
    user: f64,
    system: f64,
}

/// Prints the report on standard output.
pub(crate) fn print(outcome: &Outcome, json: bool) -> io::Result<()> {
    let (rounds, seconds) = (outcome.rounds, outcome.seconds);
    let rows: Vec<Row> = outcome
        .cases
        .iter()
        .flat_map(|case| rows(case, rounds, seconds))
        .collect();
    let mut out = io::stdout().lock();
    match json {
        true => writeln!(out, "{}", serde_json::to_string(&Report { rows })?),
        false => table(&rows, rounds, seconds, &mut out),
    }
}

fn rows(outcome: &CaseOutcome, rounds: u32, seconds: f64) -> Vec<Row> {
    let case = &outcome.case;
    let row = |index: usize| {
        let metric = &case.metrics[index];
        let mut row = Row {
            test: case.test.name(),
            setting: metric.setting.clone(),
            unit: metric.unit,
            better: metric.better.name(),
            workers: case.workers,
            op: case.op,
            ours: None,
            peers: BTreeMap::new(),
            ratios: BTreeMap::new(),
            min_max: BTreeMap::new(),
            cpu_us_per_op: BTreeMap::new(),
            settings: BTreeMap::new(),
            trials: BTreeMap::new(),
            rounds,
            seconds,
        };
        for entry in outcome.entries.iter().filter(|entry| !entry.samples.is_empty()) {
            row.add(entry, index);
        }
        row.compare(&outcome.entries, index);
        row
    };
    (0..case.metrics.len()).map(row).collect()
}

impl Row {
    fn add(&mut self, entry: &Entry, index: usize) {
        let values = || entry.samples.iter().map(|sample| sample.values[index]);
        let middle = rounded(median(values()));
        match entry.key {
            ours::KEY => self.ours = Some(middle),
            key => drop(self.peers.insert(key, middle)),
        }
        let least = values().fold(f64::INFINITY, f64::min);
        let greatest = values().fold(f64::NEG_INFINITY, f64::max);
        self.min_max
            .insert(entry.key, [rounded(least), rounded(greatest)]);
        let cpu = |part: fn(&Sample) -> f64| rounded(median(entry.samples.iter().map(part)));
        let cpu = CpuPerOp {
            user: cpu(|s| s.user_us_per_op),
            system: cpu(|s| s.system_us_per_op),
        };
        self.cpu_us_per_op.insert(entry.key, cpu);
        if index == 0 {
            let trials = entry
                .trials
                .iter()
                .map(|(label, value)| (label.clone(), rounded(*value)));
            self.trials.insert(entry.key, trials.collect());
        }
        self.settings.insert(entry.key, entry.variant.clone());
    }

    /// Round by round, so that what disturbs a whole round disturbs both.
    fn compare(&mut self, entries: &[Entry], index: usize) {
        let values = |entry: &'_ Entry| -> Vec<f64> {
            let values = entry.samples.iter().map(|sample| sample.values[index]);
            values.collect()
        };
        let Some(ours) = entries.iter().find(|entry| entry.key == ours::KEY).map(values) else {
            return;
        };
        for entry in entries.iter().filter(|entry| entry.key != ours::KEY) {
            let theirs = values(entry);
            // A round that one of them failed has no partner.
            if theirs.len() == ours.len()
                && let Some(paired) = Paired::of(ours.iter().copied(), theirs.into_iter())
            {
                self.ratios.insert(entry.key, paired);
            }
        }
    }

    /// Ours first, then the peers.
    fn keys(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(ours::KEY).chain(self.peers.keys().copied())
    }

    fn value(&self, key: &str) -> Option<f64> {
        if key == ours::KEY {
            self.ours
        } else {
            self.peers.get(key).copied()
        }
    }
}

fn table(rows: &[Row], rounds: u32, seconds: f64, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "\nmedians of {rounds} rounds of {seconds} s; CPU is of client and server together, per op"
    )?;
    for row in rows {
        writeln!(
            out,
            "\n{} {} ({}, {} is better)",
            row.test, row.setting, row.unit, row.better
        )?;
        writeln!(
            out,
            "  {:<12} {:>12} {:>12} {:>12} {:>11} {:>11} {:>27}  settings",
            "", "median", "min", "max", "user us/op", "sys us/op", "ours is, in the same rounds"
        )?;
        for key in row.keys() {
            line(row, key, out)?;
        }
    }
    Ok(())
}

fn line(row: &Row, key: &'static str, out: &mut impl Write) -> io::Result<()> {
    let (Some(value), Some([min, max]), Some(cpu)) =
        (row.value(key), row.min_max.get(key), row.cpu_us_per_op.get(key))
    else {
        return writeln!(out, "  {key:<12} {:>12}", "not there");
    };
    writeln!(
        out,
        "  {key:<12} {:>12} {:>12} {:>12} {:>11.2} {:>11.2} {:>27}  {}",
        figure(value, row.unit),
        figure(*min, row.unit),
        figure(*max, row.unit),
        cpu.user,
        cpu.system,
        row.ratios.get(key).map_or_else(String::new, |paired| {
            let sure = paired.confidence * 100.0;
            format!(
                "{:.2} x [{:.2}, {:.2}] {sure:.0} %",
                paired.median, paired.low, paired.high
            )
        }),
        row.settings.get(key).map_or("", String::as_str),
    )
}

/// A value as people read it.
pub(crate) fn figure(value: f64, unit: &str) -> String {
    match unit {
        "B/s" => format!("{:.0} MB/s", value / 1e6),
        "1/s" => format!("{value:.0} /s"),
        "us" => format!("{value:.2} us"),
        _ => format!("{value:.2} {unit}"),
    }
}

/// Three decimals say all there is.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::rtt;

    #[test]
    fn absent_contenders_are_null_or_left_out_and_medians_are_of_the_rounds() {
        let sample = |p50: f64| Sample {
            values: vec![p50, 8.0, 9.0],
            user_us_per_op: 1.5,
            system_us_per_op: 4.0,
        };
        let entry = Entry {
            key: "raw-naive",
            variant: "a".into(),
            trials: vec![("a".into(), 5.0)],
            samples: [4.0, 7.0, 5.0].map(sample).into(),
        };
        let case = rtt::cases().remove(0);
        let rows = rows(
            &CaseOutcome {
                case,
                entries: vec![entry],
            },
            3,
            1.0,
        );
        let json = serde_json::to_value(&rows[0]).expect("a row is JSON");
        assert_eq!(rows.len(), 3);
        assert_eq!(json["test"], "rtt");
        assert_eq!(json["setting"], "p50, 1 worker");
        assert_eq!(json["better"], "lower");
        assert!(json["ours"].is_null());
        assert_eq!(json["peers"], serde_json::json!({"raw-naive": 5.0}));
        assert_eq!(json["min_max"], serde_json::json!({"raw-naive": [4.0, 7.0]}));
        assert_eq!(json["cpu_us_per_op"]["raw-naive"]["system"], 4.0);
    }
}
