//! The fault items of a plan.

use std::time::Duration;

use sheetbend_core::rng::Rng;

use super::plan::{Item, Plan, What, millis, pick};
use crate::fault::Fault;
use crate::net::{Burst, LinkConfig, Middlebox, Unknown};

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A link is slow, or its delay jumps about.
    Delay,
    /// A link is narrow, with a long or a short queue.
    Rate,
    /// Packets are lost, one by one or in bursts.
    Loss,
    /// Packets overtake each other.
    Reorder,
    /// Packets arrive twice.
    Duplicate,
    /// Packets are damaged; some of them unseen by TCP.
    Corrupt,
    /// Packets are cut short.
    Truncate,
    /// Long packets vanish.
    Mtu,
    /// Nothing passes in both directions.
    Partition,
    /// Nothing passes in one direction.
    OneWay,
    /// A link is cut and joined again and again.
    Flapping,
    /// An interface is off.
    Interface,
    /// An address translation that forgets.
    Nat,
    /// A firewall that forgets idle flows.
    Firewall,
    /// No more than a few connections.
    Limit,
    /// Connections are reset.
    Reset,
    /// A host's programs stand still.
    Pause,
    /// A host is suspended.
    Suspend,
    /// A client crashes and comes back.
    ClientCrash,
    /// The server crashes and comes back.
    ServerCrash,
    /// A clock runs fast or slow.
    Skew,
    /// A clock jumps.
    Step,
}

impl FaultKind {
    /// All of them.
    pub const ALL: &[FaultKind] = &[
        FaultKind::Delay,
        FaultKind::Rate,
        FaultKind::Loss,
        FaultKind::Reorder,
        FaultKind::Duplicate,
        FaultKind::Corrupt,
        FaultKind::Truncate,
        FaultKind::Mtu,
        FaultKind::Partition,
        FaultKind::OneWay,
        FaultKind::Flapping,
        FaultKind::Interface,
        FaultKind::Nat,
        FaultKind::Firewall,
        FaultKind::Limit,
        FaultKind::Reset,
        FaultKind::Pause,
        FaultKind::Suspend,
        FaultKind::ClientCrash,
        FaultKind::ServerCrash,
        FaultKind::Skew,
        FaultKind::Step,
    ];
}

/// Where a fault takes place.
struct Place<'a> {
    client: &'a str,
    network: &'a str,
    link: &'a LinkConfig,
}

impl Place<'_> {
    fn partition(&self, up: bool, cut: bool) -> Fault {
        let (from, to) = self.ends(up);
        Fault::Partition {
            from,
            to,
            network: self.network.to_owned(),
            cut,
        }
    }

    /// Who sends and who receives on the way up, or down.
    fn ends(&self, up: bool) -> (String, String) {
        let (client, server) = (self.client.to_owned(), "server".to_owned());
        if up { (client, server) } else { (server, client) }
    }

    fn link(&self, up: bool, config: LinkConfig) -> Fault {
        let (from, to) = self.ends(up);
        Fault::Link {
            from,
            to,
            network: self.network.to_owned(),
            config,
        }
    }
}

fn worsen(rng: &mut Rng, kind: FaultKind, base: &LinkConfig) -> LinkConfig {
    let mut link = base.clone();
    match kind {
        FaultKind::Delay => {
            link.delay = millis(rng, 1, 1500);
            link.jitter = pick(rng, &[Duration::ZERO, link.delay, link.delay * 3]);
        }
        FaultKind::Rate => {
            link.rate = pick(rng, &[20_000, 100_000, 1_000_000]);
            link.queue = pick(rng, &[3000, 30_000, 1_000_000]);
        }
        FaultKind::Loss => {
            link.loss = if rng.below(2) == 0 {
                Burst::independent(pick(rng, &[0.01, 0.05, 0.2, 0.5]))
            } else {
                Burst {
                    enter: 0.02,
                    leave: pick(rng, &[0.05, 0.2]),
                    loss_good: 0.0,
                    loss_bad: pick(rng, &[0.5, 1.0]),
                }
            };
        }
        FaultKind::Reorder => {
            link.reorder = pick(rng, &[0.01, 0.1, 0.5]);
            link.reorder_by = millis(rng, 1, 300);
        }
        FaultKind::Duplicate => link.duplicate = pick(rng, &[0.01, 0.1, 0.9]),
        FaultKind::Corrupt => {
            link.corrupt = pick(rng, &[0.001, 0.02, 0.2]);
            link.corrupt_unseen = pick(rng, &[0.0, 0.1, 1.0]);
        }
        FaultKind::Truncate => link.truncate = pick(rng, &[0.01, 0.2]),
        _ => link.mtu = pick(rng, &[100, 576, 1400]),
    }
    link
}

/// Its steps, the last of which mends it.
fn steps(
    rng: &mut Rng,
    kind: FaultKind,
    place: &Place<'_>,
    host: &str,
    lasts: Duration,
) -> Vec<(Duration, Fault)> {
    use FaultKind as K;
    let (host, network) = (host.to_owned(), place.network.to_owned());
    let both = rng.below(3) > 0;
    let up = rng.below(2) == 0;
    let ways: &[bool] = if both { &[true, false] } else { &[up] };
    let pair = |begin: Fault, end: Fault| vec![(Duration::ZERO, begin), (lasts, end)];
    match kind {
        K::Delay | K::Rate | K::Loss | K::Reorder | K::Duplicate | K::Corrupt | K::Truncate | K::Mtu => {
            let worse = worsen(rng, kind, place.link);
            let begin = ways
                .iter()
                .map(|&way| (Duration::ZERO, place.link(way, worse.clone())));
            let end = ways
                .iter()
                .map(|&way| (lasts, place.link(way, place.link.clone())));
            begin.chain(end).collect()
        }
        K::Partition => [(Duration::ZERO, true), (lasts, false)]
            .into_iter()
            .flat_map(|(at, cut)| [true, false].map(|way| (at, place.partition(way, cut))))
            .collect(),
        K::OneWay => pair(place.partition(up, true), place.partition(up, false)),
        K::Flapping => {
            let rounds = 2 + rng.below(8) as u32;
            let each = lasts / (2 * rounds);
            let at = (0..2 * rounds).map(|round| (each * round, round % 2 == 0));
            at.flat_map(|(at, cut)| ways.iter().map(move |&way| (at, place.partition(way, cut))))
                .collect()
        }
        K::Interface => {
            let set = |up| Fault::Interface {
                host: host.clone(),
                network: network.clone(),
                up,
            };
            pair(set(false), set(true))
        }
        K::Nat | K::Firewall | K::Limit => boxed(rng, kind, place, lasts),
        K::Reset => vec![(Duration::ZERO, Fault::Reset { host, network })],
        K::Pause | K::Suspend => {
            let clock_ran = rng.below(2) == 0;
            let begin = if kind == K::Pause {
                Fault::Pause { host: host.clone() }
            } else {
                Fault::Suspend { host: host.clone() }
            };
            pair(begin, Fault::Resume { host, clock_ran })
        }
        K::ClientCrash | K::ServerCrash => {
            let host = if kind == K::ClientCrash {
                place.client.to_owned()
            } else {
                "server".to_owned()
            };
            pair(Fault::Crash { host: host.clone() }, Fault::Restart { host })
        }
        K::Skew => {
            let ppm = pick(rng, &[-500_000, -50_000, -200, 200, 50_000, 1_000_000]);
            let begin = Fault::Skew {
                host: host.clone(),
                ppm,
            };
            pair(begin, Fault::Skew { host, ppm: 0 })
        }
        K::Step => {
            let most = pick(rng, &[100, 3000, 20_000]);
            let by = millis(rng, 1, most);
            vec![(Duration::ZERO, Fault::Step { host, by })]
        }
    }
}

fn boxed(rng: &mut Rng, kind: FaultKind, place: &Place<'_>, lasts: Duration) -> Vec<(Duration, Fault)> {
    let (host, network) = (place.client.to_owned(), place.network.to_owned());
    let unknown = pick(rng, &[Unknown::Drop, Unknown::Reset]);
    let config = match kind {
        FaultKind::Nat => Middlebox {
            nat: true,
            unknown,
            ..Middlebox::default()
        },
        FaultKind::Firewall => Middlebox {
            idle: millis(rng, 100, 2000),
            unknown,
            ..Middlebox::default()
        },
        _ => Middlebox {
            max_connections: 1 + rng.below(3) as usize,
            unknown,
            ..Middlebox::default()
        },
    };
    let set = |config| Fault::Middlebox {
        host: host.clone(),
        network: network.clone(),
        config,
    };
    let mut steps = vec![(Duration::ZERO, set(Some(config)))];
    if kind == FaultKind::Nat {
        let (host, network) = (host.clone(), network.clone());
        steps.push((lasts / 2, Fault::Forget { host, network }));
    }
    steps.push((lasts, set(None)));
    steps
}

pub(super) fn item(rng: &mut Rng, number: u32, plan: &Plan, kinds: &[FaultKind]) -> Item {
    let kind = pick(rng, kinds);
    let client = &plan.clients[rng.below(plan.clients.len() as u64) as usize];
    let network = &plan.networks[pick(rng, &client.networks)];
    let place = Place {
        client: &client.name,
        network: network.name,
        link: &network.link,
    };
    let host = if rng.below(3) == 0 { "server" } else { place.client };
    let longest = pick(rng, &[200, 1500, 8000]);
    let lasts = millis(rng, 20, longest).min(plan.horizon / 2);
    let at = rng.duration(Duration::ZERO, plan.horizon.saturating_sub(lasts));
    Item {
        number,
        at,
        what: What::Fault {
            kind,
            steps: steps(rng, kind, &place, host, lasts),
        },
    }
}
