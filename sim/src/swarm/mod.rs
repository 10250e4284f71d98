//! The swarm: from a seed a random topology, configurations, work of every kind and faults of every kind, with
//! random kinds left out of each run.
//!
//! What is promised is kept track of outside the world. All along nothing may arrive twice, in another order or
//! changed; once the faults have healed, everything that was promised must happen; after the sessions were
//! closed, nothing may be left.

mod app;
mod book;
mod calls;
mod faults;
mod jobs;
mod pattern;
mod plan;
mod receive;
mod run;
mod work;

pub use faults::FaultKind;
pub use plan::{ClientPlan, Item, MAX_ITEMS, Network, Plan, What};
pub use run::run;
pub use work::{Answer, Ending, Job, JobKind};

use sheetbend_core::marks::Mark;

/// Rare branches that a swarm does not come to: its peers are sound, and its networks plain TCP. The fuzz targets and
/// the core's own tests come to them.
pub const OUT_OF_REACH: &[Mark] = &[
    // No peer lies, breaks the protocol or forges.
    Mark::AckOfUnsent,
    Mark::FloodStopped,
    Mark::JoinUnproven,
    Mark::PathIdReused,
    Mark::NonceReused,
    Mark::EarlyDataRefused,
    Mark::PeerMisbehaved,
    // Every carrier is plain TCP: none is too weak, and nothing is sent on one before CONFIRM that it could be
    // suspected for.
    Mark::CarrierTooWeak,
    Mark::ConfirmLate,
    // The acceptor says so before the session is asked.
    Mark::UseJoin,
    // Connectors go on for ever.
    Mark::Exhausted,
    // Sessions are drained, servers are not.
    Mark::DrainRefusedHello,
    Mark::DrainTookJoin,
];
