//! The swarm: random worlds, each from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use sheetbend_sim::scenario::{Scenario, Setup, find};
use sheetbend_sim::{Failure, Token, quietly};

/// Seeds of every run of the tests.
const SEEDS: u64 = 200;
/// A token to replay instead.
const REPLAY: &str = "SHEETBEND_SIM_REPLAY";

/// Runs that failed once.
const KNOWN: &[&str] = &[
    // What a session wanted to send while a write was held up stayed there until something else happened.
    "swarm.20",
    "swarm.70",
    "swarm.8c",
    // An acknowledgement that went over another path was lost with it, and never given again.
    "swarm.2c8",
    "swarm.3fc",
    // The end of a path in the driver's turn left its data unsent until the next event.
    "swarm.71",
    "swarm.b3",
    // Finishing a stream that the peer had stopped said that this end had reset it.
    "swarm.9",
    "swarm.d",
    // A suspended kernel forgot its timers, and had its time run backwards.
    "swarm.25",
    "swarm.5b7",
    "swarm.527",
    // An event of a stream that was gone reached the call that had its slot by then.
    "swarm.1f5",
    // Runs that the swarm itself judged wrongly: sessions that their servers never confirmed, and a kernel that
    // takes a little before it says that it would.
    "swarm.432",
    "swarm.609",
    "swarm.869",
    // Over HTTP, what a stream had brought seemed due to be told to whoever polled: the driver went round and round.
    "swarm.443",
    "swarm.66c",
    // A connection that could not be made again was asked for again and again.
    "swarm.b6~mBs",
];

fn swarm() -> &'static Scenario {
    find("swarm").expect("there is a swarm")
}

fn run(setup: &Setup) -> Result<u64, Failure> {
    let outcome = quietly(|| (swarm().run)(setup));
    match outcome.failure {
        Some(failure) => Err(failure),
        None => Ok(outcome.world.totals().trace_hash),
    }
}

/// The two lines that run a failure again, and the failure.
fn words(token: &Token, failure: &Failure) -> String {
    format!("{token}: {failure}\n{}", token.commands().join("\n"))
}

#[test]
fn random_worlds() {
    let next = AtomicU64::new(0);
    let work = || {
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return failures;
            }
            let setup = Setup {
                seed,
                ..Setup::default()
            };
            if let Err(failure) = run(&setup) {
                failures.push(words(&Token::new("swarm", &setup), &failure));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter()
            .flat_map(|thread| thread.join().expect("checks do not panic"))
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn runs_that_failed_once() {
    for text in KNOWN {
        let token: Token = text.parse().expect("a sound token");
        if let Err(failure) = run(&token.setup()) {
            panic!("{}", words(&token, &failure));
        }
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 8] {
        let setup = Setup {
            seed,
            ..Setup::default()
        };
        let watched = Setup {
            records: true,
            ..setup.clone()
        };
        let first = run(&setup).expect("nothing goes wrong");
        assert_eq!(run(&setup).expect("nothing goes wrong"), first);
        assert_eq!(
            run(&watched).expect("nothing goes wrong"),
            first,
            "being watched changes nothing"
        );
        let other = Setup {
            seed: seed + 1,
            ..setup
        };
        assert_ne!(run(&other).expect("nothing goes wrong"), first);
    }
}

/// `SHEETBEND_SIM_REPLAY=TOKEN cargo test -p sheetbend-sim --test swarm replay -- --nocapture`
#[test]
fn replay() {
    let Ok(text) = std::env::var(REPLAY) else { return };
    let token: Token = text.parse().unwrap_or_else(|error| panic!("{REPLAY}: {error}"));
    let scenario = token.find().expect("a known scenario");
    let outcome = quietly(|| (scenario.run)(&token.setup()));
    if let Some(failure) = &outcome.failure {
        panic!("{}", words(&token, failure));
    }
}
