//! Whether the tests find what they are for: each planted mistake of the core is looked for in 2,000 lives, and
//! in as many attacks. `.ci/canaries` runs it; the mistakes of the driver are for whole worlds to find.

use std::panic::{catch_unwind, set_hook, take_hook};
use std::time::{Duration, Instant};

use sheetbend_core::canary::{Canary, activate};
use sheetbend_fuzz::input::seeded;
use sheetbend_fuzz::life::{live, of_seed};

use super::{hostile, join};

const SEEDS: u64 = 2000;
/// Besides: so that a mistake that is not found takes an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// One way to look: its name, and a run by its seed.
type Look = (&'static str, fn(u64));

const LOOKS: &[Look] = &[
    ("life", |seed| {
        live(&of_seed(seed));
    }),
    ("join", |seed| join::forge(&seeded(seed, 100))),
    ("hostile", |seed| hostile::attack_ends(&seeded(seed, 400))),
];

/// Where and when the mistake is found: the way, and how many of its seeds it took.
fn find(canary: Canary) -> Option<(&'static str, u64)> {
    activate(Some(canary));
    let mut found = None;
    #[allow(clippy::disallowed_methods, reason = "how long to look, not what is found")]
    let begin = Instant::now();
    // The ways in turn, so that none waits for another's 2,000 seeds.
    'search: for seed in 0..SEEDS {
        for &(name, run) in LOOKS {
            if catch_unwind(|| run(seed)).is_err() {
                found = Some((name, seed + 1));
                break 'search;
            }
        }
        if begin.elapsed() > PATIENCE {
            break;
        }
    }
    activate(None);
    found
}

#[test]
#[allow(clippy::print_stdout, reason = "the table is the result")]
fn every_mistake_of_the_core_is_found() {
    let hook = take_hook();
    set_hook(Box::new(|_| ()));
    let mut missed = Vec::new();
    println!("{:<22} {:>6}  found by", "canary", "seeds");
    for &canary in Canary::ALL.iter().filter(|canary| !canary.is_in_driver()) {
        #[allow(clippy::disallowed_methods, reason = "for the table")]
        let begin = Instant::now();
        let found = find(canary);
        let (by, seeds) = found.map_or(("nobody", "-".to_owned()), |(by, seeds)| (by, seeds.to_string()));
        let seconds = begin.elapsed().as_secs_f64();
        println!("{:<22} {seeds:>6}  {by} in {seconds:.1} s", canary.name());
        if found.is_none() {
            missed.push(canary);
        }
    }
    // Without a mistake nothing is found.
    for seed in 0..50 {
        for (name, run) in LOOKS {
            assert!(catch_unwind(|| run(seed)).is_ok(), "{name} {seed}");
        }
    }
    set_hook(hook);
    assert_eq!(missed, [], "nobody found these");
}
