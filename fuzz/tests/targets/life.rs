//! The life of a session pair out of bytes: any calls, any faults, and everything promised is kept.

use bolero::check;
use sheetbend_fuzz::life::{live, of_seed};

/// Any calls on both ends, between any faults, against what the applications know they are owed.
#[test]
fn calls() {
    check!().with_iterations(200).with_max_len(4096).for_each(live);
}

/// The same from seeds, which make longer lives than random inputs do. `SHEETBEND_LIFE_SEEDS=5..6` picks some.
#[test]
fn seeds() {
    let chosen = std::env::var("SHEETBEND_LIFE_SEEDS").unwrap_or("0..200".to_owned());
    let (from, to) = chosen.split_once("..").expect("FROM..TO");
    let seeds = from.parse::<u64>().expect("a number")..to.parse::<u64>().expect("a number");
    let failed: Vec<u64> = seeds
        .filter(|&seed| std::panic::catch_unwind(|| live(&of_seed(seed))).is_err())
        .collect();
    assert!(failed.is_empty(), "seeds {failed:?}");
}
