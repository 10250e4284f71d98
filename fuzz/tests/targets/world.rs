//! Whole simulated worlds: the seed of a plan, and which of its items take place.

use sheetbend_sim::quietly;
use sheetbend_sim::scenario::{Setup, find};
use sheetbend_sim::{Token, swarm};

/// A world takes a while: a few random ones besides the corpus.
const RANDOM: usize = 5;

/// Bit `n` of `mask` says whether the items whose number is `n` modulo its length take place.
fn run(seed: u64, mask: &[u8]) {
    let scenario = find("swarm").expect("there is a swarm");
    let bits = mask.len() * 8;
    let takes_place = |item: &u32| {
        let bit = *item as usize % bits.max(1);
        bits == 0 || mask[bit / 8] >> (bit % 8) & 1 == 1
    };
    let items = swarm::Plan::from_seed(seed).items.len() as u32;
    let setup = Setup {
        seed,
        keep: Some((0..items).filter(takes_place).collect()),
        ..Setup::default()
    };
    if let Some(failure) = quietly(|| (scenario.run)(&setup)).failure {
        let token = Token::new(scenario.name, &setup);
        panic!("{token}: {failure}\n{}", token.commands().join("\n"));
    }
}

#[test]
fn worlds() {
    bolero::check!()
        .with_iterations(RANDOM)
        .with_type::<(u16, Vec<u8>)>()
        .for_each(|(seed, mask)| run(u64::from(*seed), &mask[..mask.len().min(16)]));
}
