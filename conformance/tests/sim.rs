//! The suite in the simulator: one host, whose network leads back to it.

use std::future::Future;

use sheetbend_conformance::{Env, limited};
use sheetbend_sim::World;

fn run<F: Future<Output = ()> + Send + 'static>(case: impl FnOnce(Env) -> F) {
    let mut world = World::new(8);
    let host = world.host("host", &["lan"]);
    let env = Env::new(host.runtime(), "/run");
    let case = limited(env.clone(), case(env));
    if let Err(failure) = world.block_on(&host, case) {
        panic!("{failure}");
    }
}

sheetbend_conformance::suite!(run);
