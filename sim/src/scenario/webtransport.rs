//! What QUIC goes through, over WebTransport.

use super::quic::{blocked_over, lossy_over, migration_over, rebinding_over};
use super::{Outcome, Scenario, Setup, scenario};

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "wt",
        "WebTransport on a link that loses one packet in fifty",
        lossy,
    ),
    scenario(
        "wt-blocked",
        "a firewall lets no UDP pass any more: all moves to TCP",
        blocked,
    ),
    scenario(
        "wt-rebinding",
        "an address translation gives WebTransport a new port, twice",
        rebinding,
    ),
    scenario(
        "wt-migration",
        "a client under load goes on from another socket",
        migration,
    ),
];

fn lossy(setup: &Setup) -> Outcome {
    lossy_over(setup, "wt")
}

fn blocked(setup: &Setup) -> Outcome {
    blocked_over(setup, "wt")
}

fn rebinding(setup: &Setup) -> Outcome {
    rebinding_over(setup, "wt")
}

fn migration(setup: &Setup) -> Outcome {
    migration_over(setup, "wt")
}
