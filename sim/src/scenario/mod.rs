//! Scenarios by name: worlds in which one thing goes wrong, and one in which everything may.

mod boxes;
mod carriers;
mod changing;
mod disks;
mod early;
mod failing;
mod hosts;
mod links;
mod load;
mod partitions;
mod pools;
mod proxies;
mod quic;
mod raw;
mod restart;
mod service;
mod silence;
mod stage;
mod storm;
mod streams;
mod tcp;
mod truth;
mod tunnels;
mod udp;
mod webtransport;
mod work;

use std::sync::LazyLock;

pub use streams::{Echo, echoes, undisturbed};

use crate::failure::Failure;
use crate::world::World;

/// How to run a scenario.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Everything random comes from it.
    pub seed: u64,
    /// Of the items that the seed plans, faults and work, only these, by their numbers; all if `None`.
    pub keep: Option<Vec<u32>>,
    /// Remember everything that happens.
    pub records: bool,
    /// Keep every packet for a capture file.
    pub capture: bool,
}

/// What came of a run.
pub struct Outcome {
    /// The world as it was left.
    pub world: World,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// How many items the seed planned.
    pub items: u32,
}

impl Outcome {
    /// The outcome of a world without a plan of items.
    pub fn of(world: World, result: Result<(), Failure>) -> Outcome {
        Outcome {
            world,
            failure: result.err(),
            items: 0,
        }
    }
}

/// A world, what runs in it, and what goes wrong.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// Runs it: safety is checked all along, liveness once the faults are over.
    pub run: fn(&Setup) -> Outcome,
}

const fn scenario(name: &'static str, about: &'static str, run: fn(&Setup) -> Outcome) -> Scenario {
    Scenario { name, about, run }
}

const SWARM: Scenario = scenario(
    "swarm",
    "random networks, work and faults of every kind",
    crate::swarm::run,
);

/// Every scenario there is.
pub fn all() -> &'static [Scenario] {
    static ALL: LazyLock<Vec<Scenario>> = LazyLock::new(|| {
        let parts = [
            &[SWARM] as &[Scenario],
            load::ALL,
            links::ALL,
            tcp::ALL,
            udp::ALL,
            quic::ALL,
            early::ALL,
            webtransport::ALL,
            streams::ALL,
            boxes::ALL,
            proxies::ALL,
            carriers::ALL,
            tunnels::ALL,
            partitions::ALL,
            failing::ALL,
            changing::ALL,
            hosts::ALL,
            restart::ALL,
            silence::ALL,
            disks::ALL,
            pools::ALL,
            storm::ALL,
        ];
        parts.concat()
    });
    &ALL
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Scenario").field(&self.name).finish()
    }
}

/// The scenario of that name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().iter().find(|scenario| scenario.name == name)
}
