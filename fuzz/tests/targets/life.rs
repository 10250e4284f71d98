//! The life of a session pair out of bytes: any calls, any faults, and everything promised is kept.

use bolero::check;
use sheetbend_core::marks::{Mark, Marks};
use sheetbend_fuzz::life::{live, of_seed};

/// Any calls on both ends, between any faults, against what the applications know they are owed.
#[test]
fn calls() {
    check!()
        .with_iterations(200)
        .with_max_len(4096)
        .for_each(|bytes: &[u8]| {
            live(bytes);
        });
}

/// The same from seeds, which make longer lives than random inputs do. `SHEETBEND_LIFE_SEEDS=5..6` picks some.
#[test]
fn seeds() {
    let chosen = std::env::var("SHEETBEND_LIFE_SEEDS").unwrap_or("0..120".to_owned());
    let (from, to) = chosen.split_once("..").expect("FROM..TO");
    let seeds = from.parse::<u64>().expect("a number")..to.parse::<u64>().expect("a number");
    let mut reached = Marks::new();
    let mut failed = Vec::new();
    for seed in seeds.clone() {
        match std::panic::catch_unwind(|| live(&of_seed(seed))) {
            Ok(marks) => reached = reached.union(marks),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
    if seeds.end - seeds.start >= 120 {
        let missed: Vec<Mark> = reached
            .missing()
            .filter(|mark| !ELSEWHERE.contains(mark))
            .collect();
        assert_eq!(missed, [], "no life went there");
    }
}

/// What no life of an honest pair goes through, or hardly ever: other targets and tests do.
const ELSEWHERE: &[Mark] = &[
    // Of a peer that is not honest: `hostile` and `join`.
    Mark::AckOfUnsent,
    Mark::FloodStopped,
    Mark::JoinUnproven,
    Mark::PathIdReused,
    Mark::EarlyDataRefused,
    Mark::PeerMisbehaved,
    Mark::NonceReused,
    // Of other configurations, or luck.
    Mark::TooManyPaths,
    Mark::ReadBeforeJudging,
    Mark::OutcomeNotSent,
    Mark::CarrierTooWeak,
    Mark::ConfirmLate,
    Mark::UseJoin,
    Mark::JoinUnknown,
    // Of carriers with acknowledgements of their own: the simulator.
    Mark::CarrierHeard,
    // Of the connector and the acceptor: `machines`.
    Mark::Hedged,
    Mark::AttemptGivenUp,
    Mark::AttemptRejected,
    Mark::SurplusPath,
    Mark::Exhausted,
    Mark::StaleAttempt,
    Mark::PathHadWorked,
    Mark::TooManySessions,
    Mark::DrainRefusedHello,
    Mark::DrainTookJoin,
];
