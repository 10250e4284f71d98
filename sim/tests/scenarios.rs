//! Every scenario that has one thing go wrong, with five seeds: the fault is seen, and the session survives it.

use sheetbend_sim::scenario::{self, Setup};

/// Those that have a test, or a measurement, of their own.
const APART: [&str; 8] = [
    "idle",
    "steady",
    "crowd",
    "swarm",
    "pool",
    "retry-storm",
    "lossy-hour",
    "quic-lossy-hour",
];

#[test]
fn every_fault_shows_and_is_survived() {
    let mut failures = Vec::new();
    let only = std::env::var("SCENARIO").ok();
    let seeds = std::env::var("SEEDS").ok().and_then(|count| count.parse().ok());
    for scenario in scenario::all() {
        if APART.contains(&scenario.name) || only.as_ref().is_some_and(|only| only != scenario.name) {
            continue;
        }
        for seed in 0..seeds.unwrap_or(5) {
            let outcome = (scenario.run)(&Setup {
                seed,
                ..Setup::default()
            });
            if let Some(failure) = outcome.failure {
                failures.push(format!("{} with seed {seed}: {failure}", scenario.name));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn a_pool_serves_for_a_day_and_leaves_nothing_behind() {
    let pool = scenario::find("pool").expect("it is on the list");
    let outcome = (pool.run)(&Setup::default());
    assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
}

#[test]
fn an_hour_of_loss_and_jitter_has_few_false_deaths() {
    for name in ["lossy-hour", "quic-lossy-hour"] {
        let hour = scenario::find(name).expect("it is on the list");
        let outcome = (hour.run)(&Setup::default());
        assert!(outcome.failure.is_none(), "{name}: {:?}", outcome.failure);
    }
}

/// The picture of `docs/guides/choosing-a-transport.md`; `PICTURE=FILE` writes it there.
#[test]
fn a_scenario_draws_its_picture() {
    let flapping = scenario::find("flapping").expect("it is on the list");
    let outcome = (flapping.run)(&Setup {
        records: true,
        ..Setup::default()
    });
    let mut picture = Vec::new();
    sheetbend_sim::trace::write_svg(&outcome.world, &mut picture).expect("memory takes it");
    let text = String::from_utf8_lossy(&picture);
    assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
    if let Some(file) = std::env::var_os("PICTURE") {
        std::fs::write(file, &picture).expect("the file can be written");
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = scenario::all().iter().map(|scenario| scenario.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn a_scenario_is_the_same_every_time() {
    for name in [
        "partition",
        "torn-write",
        "mute-proxy",
        "quic",
        "quic-migration",
        "quic-early-lossy",
    ] {
        let scenario = scenario::find(name).expect("it is on the list");
        let hash = || (scenario.run)(&Setup::default()).world.totals().trace_hash;
        assert_eq!(hash(), hash(), "{name}");
    }
}
