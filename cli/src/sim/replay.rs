//! One world: replayed, or shrunk.

use super::{files, json};
use crate::args::SimArgs;
use crate::failure::Failure;
use crate::output;
use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use sheetbend_sim::scenario::Setup;
use sheetbend_sim::shrink::{self, Progress};
use sheetbend_sim::swarm::Plan;
use sheetbend_sim::{Token, quietly};

/// The most runs that shrinking makes.
const MAX_RUNS: u32 = 5000;

/// What `--replay --json` prints.
#[derive(Debug, Serialize)]
struct Replayed {
    scenario: String,
    seed: u64,
    token: String,
    items: Vec<String>,
    failure: Option<String>,
    events: u64,
    simulated_seconds: f64,
    trace_hash: String,
}

/// What `--shrink --json` prints.
#[derive(Debug, Serialize)]
struct Shrunk {
    token: String,
    failure: String,
    items: Vec<String>,
    items_before: usize,
    runs: u32,
    commands: [String; 2],
}

fn find(token: &Token) -> Result<&'static sheetbend_sim::scenario::Scenario, Failure> {
    token.find().map_err(|error| Failure::usage(error.to_string()))
}

/// The items of the plan that are kept, in words.
fn items(token: &Token) -> Vec<String> {
    if token.scenario != "swarm" {
        return Vec::new();
    }
    let kept = |number| token.keep.as_ref().is_none_or(|keep| keep.contains(&number));
    let plan = Plan::from_seed(token.seed);
    let mut items: Vec<_> = plan.items.iter().filter(|item| kept(item.number)).collect();
    items.sort_by_key(|item| item.at);
    items.into_iter().map(ToString::to_string).collect()
}

/// Runs a token's world again.
///
/// # Errors
/// When it fails.
pub(super) fn replay(token: &Token, args: &SimArgs) -> Result<(), Failure> {
    let scenario = find(token)?;
    let setup = files::setup(token.setup(), args);
    let outcome = quietly(|| (scenario.run)(&setup));
    files::write(&outcome.world, args)?;
    let totals = outcome.world.totals();
    let replayed = Replayed {
        scenario: token.scenario.clone(),
        seed: token.seed,
        token: token.to_string(),
        items: items(token),
        failure: outcome.failure.as_ref().map(ToString::to_string),
        events: totals.events,
        simulated_seconds: outcome.world.now().as_nanos() as f64 / 1e9,
        trace_hash: format!("{:016x}", totals.trace_hash),
    };
    if args.json {
        json(&replayed)?;
    } else {
        replayed.items.iter().try_for_each(|item| output::line(item))?;
        output::line(&format!(
            "{} events, {:.3} simulated seconds, hash {}",
            units::count(replayed.events),
            replayed.simulated_seconds,
            replayed.trace_hash
        ))?;
    }
    match replayed.failure {
        Some(words) => Err(Failure::failed(words)),
        None => Ok(()),
    }
}

/// Leaves out of a token's world what its failure does not need.
///
/// # Errors
/// When it does not fail, so that there is nothing to shrink.
pub(super) fn shrink(token: &Token, args: &SimArgs) -> Result<(), Failure> {
    let scenario = find(token)?;
    let target = if args.json {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(10)
    };
    let bar = ProgressBar::with_draw_target(None, target);
    // The template is a constant; without it the bar is plain.
    if let Ok(style) = ProgressStyle::with_template("{prefix:.bold} {spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_prefix(token.to_string());
    let mut tell = |progress: Progress| {
        let Progress { runs, from, left } = progress;
        bar.set_message(format!("{left} of {from} items left after {runs} runs"));
        bar.tick();
    };
    let shrunk = shrink::shrink(scenario, &token.setup(), MAX_RUNS, &mut tell);
    bar.finish_and_clear();
    let Some(shrunk) = shrunk else {
        return Err(Failure::failed(format!(
            "{token} does not fail: nothing to shrink"
        )));
    };
    let small = Token::new(scenario.name, &Setup { ..shrunk.setup });
    if files::wanted(args) {
        let setup = files::setup(small.setup(), args);
        files::write(&quietly(|| (scenario.run)(&setup)).world, args)?;
    }
    let report = Shrunk {
        token: small.to_string(),
        failure: shrunk.failure.to_string(),
        items: items(&small),
        items_before: shrunk.progress.from,
        runs: shrunk.progress.runs,
        commands: small.commands(),
    };
    if args.json {
        return json(&report);
    }
    output::line(&report.failure)?;
    report.items.iter().try_for_each(|item| output::line(item))?;
    output::line(&format!(
        "{} of {} items left after {} runs: {}",
        report.items.len(),
        report.items_before,
        report.runs,
        report.token
    ))?;
    report.commands.iter().try_for_each(|line| output::line(line))
}
