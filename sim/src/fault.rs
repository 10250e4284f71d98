//! What goes wrong in a world, as data.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::DiskConfig;
use crate::host::{HostId, Power};
use crate::net::{AttachmentId, Fabric, LinkConfig, Middlebox};
use crate::relay::RelayConfig;
use crate::state::State;

/// A fault, or the end of one. Hosts and networks are named; what names nothing does nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// Changes one direction of a link. What waits in its queue leaves at the new rate; what is past the
    /// queue arrives as it would have.
    Link {
        /// The host that sends.
        from: String,
        /// The host that receives.
        to: String,
        /// The network.
        network: String,
        /// How the link is from here on.
        config: LinkConfig,
    },
    /// Cuts one direction of a link, or joins it again.
    Partition {
        /// The host that sends.
        from: String,
        /// The host that receives.
        to: String,
        /// The network.
        network: String,
        /// Whether it is cut.
        cut: bool,
    },
    /// Turns a host's interface off or on.
    Interface {
        /// The host.
        host: String,
        /// The network.
        network: String,
        /// Whether it is on.
        up: bool,
    },
    /// Puts a box in front of a host's interface, or takes it away.
    Middlebox {
        /// The host.
        host: String,
        /// The network.
        network: String,
        /// The box.
        config: Option<Middlebox>,
    },
    /// The box in front of an interface forgets its flows: an address translation gives out new ports.
    Forget {
        /// The host.
        host: String,
        /// The network.
        network: String,
    },
    /// Resets a host's TCP connections on a network.
    Reset {
        /// The host.
        host: String,
        /// The network.
        network: String,
    },
    /// A host loses power: nobody is told. What was not synced to its disk is gone.
    Crash {
        /// The host.
        host: String,
    },
    /// A crashed host comes back and runs its program from the start.
    Restart {
        /// The host.
        host: String,
    },
    /// A host's programs stop; its kernel goes on.
    Pause {
        /// The host.
        host: String,
    },
    /// A host is suspended: what is sent to it is lost.
    Suspend {
        /// The host.
        host: String,
    },
    /// A paused or suspended host goes on. `clock_ran` tells whether its clock counted the time.
    Resume {
        /// The host.
        host: String,
        /// Whether its clock counted the time of a suspension.
        clock_ran: bool,
    },
    /// A host's clock runs fast by so many parts per million; slow if negative.
    Skew {
        /// The host.
        host: String,
        /// Parts per million.
        ppm: i64,
    },
    /// A host's clock jumps forward.
    Step {
        /// The host.
        host: String,
        /// By how much.
        by: Duration,
    },
    /// Changes what a relay does to the connections through it, those that stand included.
    Relay {
        /// The host that it runs on.
        host: String,
        /// What it does from here on.
        config: RelayConfig,
    },
    /// Changes how a host's disk behaves.
    Disk {
        /// The host.
        host: String,
        /// How it is from here on.
        config: DiskConfig,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Link {
                from,
                to,
                network,
                config,
                ..
            } => write!(
                f,
                "{network}: {from} to {to} now {:?} delay, {} bit/s, {:.3} loss",
                config.delay,
                config.rate,
                config.loss.mean()
            ),
            Fault::Partition {
                from,
                to,
                network,
                cut,
            } => {
                write!(
                    f,
                    "{network}: {from} to {to} {}",
                    if *cut { "cut" } else { "joined" }
                )
            }
            Fault::Interface { host, network, up } => {
                write!(
                    f,
                    "{network}: {host}'s interface {}",
                    if *up { "on" } else { "off" }
                )
            }
            Fault::Middlebox {
                host,
                network,
                config,
            } => match config {
                Some(config) => write!(f, "{network}: {host} behind {config:?}"),
                None => write!(f, "{network}: {host} in the open"),
            },
            Fault::Forget { host, network } => write!(f, "{network}: {host}'s flows forgotten"),
            Fault::Reset { host, network } => write!(f, "{network}: {host}'s connections reset"),
            Fault::Crash { host } => write!(f, "{host} crashes"),
            Fault::Restart { host } => write!(f, "{host} restarts"),
            Fault::Pause { host } => write!(f, "{host} pauses"),
            Fault::Suspend { host } => write!(f, "{host} is suspended"),
            Fault::Resume { host, .. } => write!(f, "{host} goes on"),
            Fault::Skew { host, ppm } => write!(f, "{host}'s clock runs {ppm} ppm fast"),
            Fault::Relay { host, config } => write!(f, "{host} relays with {config:?}"),
            Fault::Disk { host, config } => write!(f, "{host}'s disk is now {config:?}"),
            Fault::Step { host, by } => write!(f, "{host}'s clock jumps by {by:?}"),
        }
    }
}

/// What is left to the world, as tasks are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    None,
    /// The host's tasks are dropped.
    Crashed(HostId),
    /// Its program starts.
    Restarted(HostId),
    /// Tasks that were held back run.
    Resumed(HostId),
}

/// Whether a fault gives a link back the configuration that its network has.
fn is_usual(net: &Fabric, fault: &Fault) -> bool {
    match fault {
        Fault::Link { network, config, .. } => net
            .find_network(network)
            .is_some_and(|index| net.networks[usize::from(index)].config == *config),
        _ => false,
    }
}

impl State {
    fn interface(&self, host: &str, network: &str) -> Option<AttachmentId> {
        self.net
            .on(self.find_host(host)?, self.net.find_network(network)?)
    }

    /// Does what a fault says, as far as it concerns the network and the hosts.
    pub(crate) fn apply(&mut self, fault: &Fault) -> Consequence {
        let now = self.now;
        let State { trace, net, .. } = self;
        trace.fault(now, fault, || is_usual(net, fault));
        let before: Option<Vec<Power>> = trace
            .is_kept()
            .then(|| self.hosts.iter().map(|host| host.power).collect());
        let consequence = self.try_apply(fault).unwrap_or(Consequence::None);
        for (host, before) in self.hosts.iter().zip(before.iter().flatten()) {
            if host.power != *before {
                self.trace.power(now, host);
            }
        }
        consequence
    }

    fn try_apply(&mut self, fault: &Fault) -> Option<Consequence> {
        match fault {
            Fault::Link { .. } | Fault::Partition { .. } => self.apply_to_link(fault)?,
            Fault::Interface { host, network, up } => {
                let id = self.interface(host, network)?;
                self.net.attachment_mut(id).up = *up;
            }
            Fault::Middlebox {
                host,
                network,
                config,
            } => {
                let id = self.interface(host, network)?;
                self.net.set_middlebox(id, config.clone());
            }
            Fault::Forget { host, network } => {
                let id = self.interface(host, network)?;
                self.net.forget_flows(id);
            }
            Fault::Reset { host, network } => {
                let id = self.interface(host, network)?;
                let (host, ip) = (self.net.attachment(id).host, self.net.attachment(id).ip);
                self.reset_connections(|connection| connection.host == host && *connection.local.ip() == ip);
            }
            _ => return self.apply_to_host(fault),
        }
        Some(Consequence::None)
    }

    fn apply_to_link(&mut self, fault: &Fault) -> Option<()> {
        let (Fault::Link {
            from, to, network, ..
        }
        | Fault::Partition {
            from, to, network, ..
        }) = fault
        else {
            return None;
        };
        let (from, to) = (self.interface(from, network)?, self.interface(to, network)?);
        let id = self.link_between(from, to);
        match fault {
            Fault::Link { config, .. } => self.set_link(id, config.clone()),
            Fault::Partition { cut, .. } => self.net.link_mut(id).cut = *cut,
            _ => {}
        }
        Some(())
    }

    fn apply_to_host(&mut self, fault: &Fault) -> Option<Consequence> {
        let (Fault::Crash { host: name }
        | Fault::Restart { host: name }
        | Fault::Pause { host: name }
        | Fault::Suspend { host: name }
        | Fault::Resume { host: name, .. }
        | Fault::Skew { host: name, .. }
        | Fault::Step { host: name, .. }
        | Fault::Relay { host: name, .. }
        | Fault::Disk { host: name, .. }) = fault
        else {
            return None;
        };
        let id = self.find_host(name)?;
        let now = self.now;
        let host = &mut self.hosts[id.index()];
        match fault {
            Fault::Crash { .. } if host.power != Power::Crashed => {
                host.power = Power::Crashed;
                host.since = now;
                host.incarnation += 1;
                host.held_connections.clear();
                host.held_timers.clear();
                host.mem = Default::default();
                host.disk.crash();
                host.relay.forget();
                self.forget_host(id);
                return Some(Consequence::Crashed(id));
            }
            Fault::Restart { .. } if host.power == Power::Crashed => {
                host.power = Power::Running;
                return Some(Consequence::Restarted(id));
            }
            Fault::Pause { .. } if host.power == Power::Running => host.power = Power::Paused,
            Fault::Suspend { .. } if matches!(host.power, Power::Running | Power::Paused) => {
                host.power = Power::Suspended;
                host.since = now;
            }
            Fault::Resume { clock_ran, .. } if matches!(host.power, Power::Paused | Power::Suspended) => {
                if host.power == Power::Suspended && !clock_ran {
                    host.clock.resume(host.since, now);
                }
                host.power = Power::Running;
                host.held_timers.clear();
                self.rearm_timers(id);
                self.release_connections(id);
                return Some(Consequence::Resumed(id));
            }
            Fault::Skew { ppm, .. } => {
                host.clock.set_skew(now, *ppm);
                self.rearm_timers(id);
            }
            Fault::Relay { config, .. } => {
                let woken = host.relay.set(config.clone());
                self.wakes.extend(woken);
            }
            Fault::Disk { config, .. } => host.disk.config = config.clone(),
            Fault::Step { by, .. } => {
                host.clock.step(now, *by);
                self.rearm_timers(id);
            }
            _ => {}
        }
        Some(Consequence::None)
    }
}
