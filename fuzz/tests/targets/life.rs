//! The life of a session pair out of bytes: any calls, any faults, and everything promised is kept.

use bolero::check;
use sheetbend_fuzz::input::seeded;
use sheetbend_fuzz::life::live;

/// Any calls on both ends, between any faults, against what the applications know they are owed.
#[test]
fn calls() {
    check!().with_iterations(200).with_max_len(4096).for_each(live);
}

/// The same from seeds, which make longer lives than random inputs do.
#[test]
fn seeds() {
    for seed in 0..200 {
        live(&seeded(seed, 300 + 15 * seed as usize));
    }
}
