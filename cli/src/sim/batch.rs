//! A scenario with many seeds, on all cores.

use super::{files, json};
use crate::args::SimArgs;
use crate::failure::Failure;
use crate::output;
use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use sheetbend_sim::scenario::{Scenario, Setup};
use sheetbend_sim::swarm::OUT_OF_REACH;
use sheetbend_sim::{Marks, Token, quietly};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Failures that are shown in words; the rest are counted.
const SHOWN: usize = 10;

/// What came of one seed.
#[derive(Clone, Debug)]
struct Run {
    events: u64,
    simulated: f64,
    hash: u64,
    failure: Option<sheetbend_sim::Failure>,
    marks: Marks,
}

/// A seed that failed.
#[derive(Debug, Serialize)]
struct Failed {
    seed: u64,
    token: String,
    failure: String,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    scenario: &'static str,
    seeds: u64,
    failed: Vec<Failed>,
    events: u64,
    events_per_second: f64,
    simulated_seconds: f64,
    wall_seconds: f64,
    trace_hash: String,
    unreached: Vec<&'static str>,
}

fn bar(seeds: u64, quiet: bool) -> ProgressBar {
    let target = if quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(10)
    };
    let bar = ProgressBar::with_draw_target(Some(seeds), target);
    let template =
        "{prefix:.bold} {wide_bar:.green/dim} {pos} of {len} seeds {per_sec:>12} {eta:>4} left{msg}";
    // The template is a constant; without it the bar is plain.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar
}

fn one(scenario: &Scenario, seed: u64) -> Run {
    let setup = Setup {
        seed,
        ..Setup::default()
    };
    let outcome = quietly(|| (scenario.run)(&setup));
    let totals = outcome.world.totals();
    Run {
        events: totals.events,
        simulated: outcome.world.now().as_nanos() as f64 / 1e9,
        hash: totals.trace_hash,
        marks: outcome.world.marks(),
        failure: outcome.failure,
    }
}

/// Every seed's run, in the order of the seeds.
fn all(scenario: &Scenario, seeds: &Range<u64>, threads: usize, bar: &ProgressBar) -> Vec<Run> {
    let next = AtomicU64::new(seeds.start);
    let failures = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let run = one(scenario, seed);
                    if run.failure.is_some() {
                        let count = 1 + failures.fetch_add(1, Ordering::Relaxed);
                        bar.set_message(format!(", {count} failed"));
                    }
                    bar.inc(1);
                    // A thread that panicked has ended the whole run.
                    if let Ok(mut done) = done.lock() {
                        done.push((seed, run));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(seed, _)| *seed);
    done.into_iter().map(|(_, run)| run).collect()
}

fn combine(hash: u64, run: u64) -> u64 {
    (hash.rotate_left(23) ^ run).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn report(scenario: &Scenario, seeds: &Range<u64>, runs: &[Run], wall: f64) -> Report {
    let events = runs.iter().map(|run| run.events).sum();
    let failed = seeds.clone().zip(runs).filter_map(|(seed, run)| {
        let setup = Setup {
            seed,
            ..Setup::default()
        };
        Some(Failed {
            seed,
            token: Token::new(scenario.name, &setup).to_string(),
            failure: run.failure.as_ref()?.to_string(),
        })
    });
    Report {
        scenario: scenario.name,
        seeds: runs.len() as u64,
        failed: failed.collect(),
        events,
        events_per_second: (events as f64 / wall).round(),
        simulated_seconds: runs.iter().map(|run| run.simulated).sum::<f64>().round(),
        wall_seconds: (wall * 1e3).round() / 1e3,
        trace_hash: format!(
            "{:016x}",
            runs.iter().fold(0, |hash, run| combine(hash, run.hash))
        ),
        unreached: unreached(scenario, runs),
    }
}

/// The rare branches that no run of a swarm came to, though it might have.
fn unreached(scenario: &Scenario, runs: &[Run]) -> Vec<&'static str> {
    if scenario.name != "swarm" {
        return Vec::new();
    }
    let marks = runs.iter().fold(Marks::new(), |all, run| all.union(run.marks));
    let missing = marks.missing().filter(|mark| !OUT_OF_REACH.contains(mark));
    missing.map(|mark| mark.name()).collect()
}

/// Writes what is wanted of the first world that failed, or else of the first.
fn write_one(scenario: &Scenario, report: &Report, args: &SimArgs) -> Result<(), Failure> {
    if !files::wanted(args) {
        return Ok(());
    }
    let seed = report
        .failed
        .first()
        .map_or(args.seeds.start, |failed| failed.seed);
    let setup = Setup {
        seed,
        ..Setup::default()
    };
    let setup = files::setup(setup, args);
    files::write(&quietly(|| (scenario.run)(&setup)).world, args)
}

/// Runs a scenario with every seed.
///
/// # Errors
/// When one of them fails.
pub(super) fn run(scenario: &'static Scenario, args: &SimArgs) -> Result<(), Failure> {
    let seeds = &args.seeds;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores, |count| count as usize);
    let bar = bar(seeds.end - seeds.start, args.json);
    bar.set_prefix(scenario.name);
    let start = Instant::now();
    let runs = all(scenario, seeds, threads, &bar);
    let wall = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let report = report(scenario, seeds, &runs, wall);
    write_one(scenario, &report, args)?;
    if args.json {
        json(&report)?;
    } else {
        show(&report)?;
    }
    match report.failed.len() {
        0 => Ok(()),
        count => Err(Failure::failed(format!(
            "{count} of {} seeds failed; shrink one with 'sheetbend sim --shrink {}'",
            report.seeds, report.failed[0].token
        ))),
    }
}

fn show(report: &Report) -> Result<(), Failure> {
    for failed in report.failed.iter().take(SHOWN) {
        output::line(&format!("{:<16} {}", failed.token, failed.failure))?;
    }
    if report.failed.len() > SHOWN {
        output::line(&format!("… and {} more", report.failed.len() - SHOWN))?;
    }
    output::line(&format!(
        "{}: {} of {} seeds failed; {} events, {} a second; {} simulated seconds in {:.1}; hash {}",
        report.scenario,
        report.failed.len(),
        units::count(report.seeds),
        units::count(report.events),
        units::count(report.events_per_second as u64),
        units::count(report.simulated_seconds as u64),
        report.wall_seconds,
        report.trace_hash
    ))?;
    if !report.unreached.is_empty() {
        output::line(&format!("unreached: {}", report.unreached.join(", ")))?;
    }
    Ok(())
}
