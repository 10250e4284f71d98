//! Whether the swarm finds what it is for: each planted mistake is looked for in 2,000 worlds, and the run that
//! finds it is made as small as it goes. `.ci/canaries` runs it; nothing of it exists without that cfg.
#![cfg(sheetbend_canary)]
#![allow(clippy::disallowed_methods, clippy::print_stdout)] // the table is the result, and says how long it took

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use sheetbend_core::canary::{Canary, activate};
use sheetbend_sim::scenario::{Scenario, Setup, find};
use sheetbend_sim::shrink::{Shrunk, shrink};
use sheetbend_sim::{Token, quietly};

const SEEDS: u64 = 2000;
/// Runs that one shrinking may take.
const SHRINK_RUNS: u32 = 600;
/// Failing seeds whose runs are made small, until one is small enough.
const TRIES: usize = 4;

/// Mistakes that only a hostile peer profits from: the swarm's hosts are honest, `sheetbend-fuzz` finds these.
const FOR_FUZZERS: &[Canary] = &[Canary::JoinUnproven, Canary::CreditUnchecked];

fn fails(swarm: &Scenario, seed: u64) -> bool {
    let setup = Setup {
        seed,
        ..Setup::default()
    };
    quietly(|| (swarm.run)(&setup)).failure.is_some()
}

/// The next seed from `from` on whose world fails.
fn next_failing(swarm: &Scenario, from: u64) -> Option<u64> {
    let (next, best, done) = (
        AtomicU64::new(from),
        AtomicU64::new(SEEDS),
        AtomicBool::new(false),
    );
    let look = || {
        while !done.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return;
            }
            if fails(swarm, seed) {
                best.fetch_min(seed, Ordering::Relaxed);
                done.store(true, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(look);
        }
    });
    Some(best.into_inner()).filter(|seed| *seed < SEEDS)
}

/// Looks for a mistake: a word of complaint if it is not found, or only in a run that stays large.
fn hunt(swarm: &Scenario, canary: Canary) -> Result<String, String> {
    let begin = Instant::now();
    let (mut from, mut first) = (0, None);
    let mut best: Option<(f64, Shrunk)> = None;
    for _ in 0..TRIES {
        let Some(seed) = next_failing(swarm, from) else {
            break;
        };
        first.get_or_insert(seed + 1);
        from = seed + 1;
        let setup = Setup {
            seed,
            ..Setup::default()
        };
        let Some(shrunk) = shrink(swarm, &setup, SHRINK_RUNS, &mut |_| ()) else {
            continue;
        };
        let share = shrunk.progress.left as f64 / shrunk.progress.from as f64;
        if best.as_ref().is_none_or(|(least, ..)| share < *least) {
            best = Some((share, shrunk));
        }
        if share <= 0.1 {
            break;
        }
    }
    let Some((share, shrunk)) = best else {
        return Err(format!("{canary:?}: not found in {SEEDS} worlds"));
    };
    let (left, from) = (shrunk.progress.left, shrunk.progress.from);
    let row = format!(
        "{:<22} {:>5}  {left:>3} of {from:>3}  {:>5.1} s  {:?}: {}",
        canary.name(),
        first.unwrap_or(0),
        begin.elapsed().as_secs_f64(),
        shrunk.failure.kind,
        Token::new(swarm.name, &shrunk.setup)
    );
    if share > 0.1 {
        return Err(format!("{row}\n  more than a tenth is left"));
    }
    Ok(row)
}

#[test]
fn every_mistake_is_found_in_a_small_world() {
    let swarm = find("swarm").expect("there is a swarm");
    println!(
        "{:<22} {:>5}  {:>10}  {:>7}  failure",
        "canary", "seeds", "items", "took"
    );
    let mut complaints = Vec::new();
    for &canary in Canary::ALL.iter().filter(|canary| !FOR_FUZZERS.contains(canary)) {
        activate(Some(canary));
        match hunt(swarm, canary) {
            Ok(row) => println!("{row}"),
            Err(complaint) => {
                println!("{complaint}");
                complaints.push(complaint);
            }
        }
        activate(None);
    }
    // Without a mistake nothing is found.
    assert_eq!(next_failing(swarm, SEEDS - 50), None);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
