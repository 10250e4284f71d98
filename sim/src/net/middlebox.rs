//! What stands between a host and its network and knows flows: address translation, firewalls, limits.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Body, Drop, Packet};

/// The first port that an address translation gives out.
const FIRST_PORT: u16 = 20_000;

/// What happens to a packet of a flow that the box does not know (any more).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// It vanishes.
    #[default]
    Drop,
    /// TCP is answered with a reset.
    Reset,
}

/// A box in front of one interface. The default lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Middlebox {
    /// Translates ports, so that flows can only be begun from inside.
    pub nat: bool,
    /// Forgets a flow after this time without a packet; zero is never.
    pub idle: Duration,
    /// What it does with packets of flows that it has forgotten.
    pub unknown: Unknown,
    /// Lets no UDP pass.
    pub block_udp: bool,
    /// TCP connections at a time; further ones are not let through. 0 is without bound.
    pub max_connections: usize,
}

impl Middlebox {
    fn tracks(&self) -> bool {
        self.nat || !self.idle.is_zero() || self.max_connections > 0
    }
}

/// A flow as seen from inside: TCP or not, the inner port, the outer peer.
type FlowKey = (bool, u16, SocketAddrV4);

struct Flow {
    outside: u16,
    last: u64,
}

/// What the box says to a packet.
pub(crate) enum Verdict {
    Pass,
    Drop,
    /// Answered with a reset, to its sender.
    Reset,
}

impl Verdict {
    pub(crate) fn drop_reason(&self) -> Option<Drop> {
        match self {
            Verdict::Pass => None,
            Verdict::Drop | Verdict::Reset => Some(Drop::Filter),
        }
    }
}

/// The state of a [`Middlebox`].
pub(crate) struct Box {
    config: Middlebox,
    flows: BTreeMap<FlowKey, Flow>,
    next_port: u16,
}

impl Box {
    pub(crate) fn new(config: Middlebox) -> Box {
        Box {
            config,
            flows: BTreeMap::new(),
            next_port: FIRST_PORT,
        }
    }

    /// Forgets every flow: an address translation gives out new ports from here on.
    pub(crate) fn forget(&mut self) {
        self.flows.clear();
    }

    fn prune(&mut self, now: u64) {
        let idle = self.config.idle.as_nanos() as u64;
        if idle > 0 {
            self.flows.retain(|_, flow| now - flow.last < idle);
        }
    }

    fn unknown(&self, is_tcp: bool) -> Verdict {
        match self.config.unknown {
            Unknown::Reset if is_tcp => Verdict::Reset,
            _ => Verdict::Drop,
        }
    }

    fn begins(packet: &Packet) -> bool {
        match &packet.body {
            Body::Tcp(segment) => segment.flags.syn && !segment.flags.ack,
            Body::Udp(_) => true,
        }
    }

    /// Has the flow known, begins it, or says why not.
    fn enter(&mut self, now: u64, key: FlowKey, begins: bool) -> Result<u16, Verdict> {
        self.prune(now);
        let (is_tcp, port, _) = key;
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.last = now;
            return Ok(flow.outside);
        }
        if !begins {
            return Err(self.unknown(is_tcp));
        }
        let open = self.flows.keys().filter(|key| key.0).count();
        if is_tcp && self.config.max_connections > 0 && open >= self.config.max_connections {
            return Err(self.unknown(true));
        }
        let outside = if self.config.nat { self.next_port } else { port };
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        self.flows.insert(key, Flow { outside, last: now });
        Ok(outside)
    }

    /// A packet that leaves the host.
    pub(crate) fn outbound(&mut self, now: u64, packet: &mut Packet) -> Verdict {
        if self.config.block_udp && !packet.is_tcp() {
            return Verdict::Drop;
        }
        if !self.config.tracks() {
            return Verdict::Pass;
        }
        let key = (packet.is_tcp(), packet.source.port(), packet.destination);
        match self.enter(now, key, Box::begins(packet)) {
            Ok(port) => packet.source.set_port(port),
            Err(verdict) => return verdict,
        }
        self.note_end(packet, key);
        Verdict::Pass
    }

    /// A packet that comes to the host.
    pub(crate) fn inbound(&mut self, now: u64, packet: &mut Packet) -> Verdict {
        if self.config.block_udp && !packet.is_tcp() {
            return Verdict::Drop;
        }
        if !self.config.tracks() {
            return Verdict::Pass;
        }
        let (is_tcp, peer, port) = (packet.is_tcp(), packet.source, packet.destination.port());
        if !self.config.nat {
            return match self.enter(now, (is_tcp, port, peer), Box::begins(packet)) {
                Ok(_) => Verdict::Pass,
                Err(verdict) => verdict,
            };
        }
        self.prune(now);
        let known = self
            .flows
            .iter_mut()
            .find(|((tcp, _, remote), flow)| *tcp == is_tcp && *remote == peer && flow.outside == port);
        match known {
            Some((key, flow)) => {
                flow.last = now;
                packet.destination.set_port(key.1);
                Verdict::Pass
            }
            None => self.unknown(is_tcp),
        }
    }

    fn note_end(&mut self, packet: &Packet, key: FlowKey) {
        if let Body::Tcp(segment) = &packet.body
            && segment.flags.rst
        {
            self.flows.remove(&key);
        }
    }
}
