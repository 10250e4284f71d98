//! Networks, the interfaces on them and the links between; a packet's way from one host to another.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::BytesMut;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::link::Arrival;
use super::middlebox::{self, Middlebox, Verdict};
use super::tcp::Segment;
use super::{Body, Connection, ConnectionKey, Drop, Link, LinkConfig, Listening, Packet, UdpState};
use crate::host::HostId;
use crate::queue::Due;
use crate::state::State;

/// An interface of a host on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttachmentId(pub(crate) u32);

/// One direction between two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u32);

pub(crate) struct Attachment {
    pub(crate) host: HostId,
    pub(crate) network: u16,
    pub(crate) ip: Ipv4Addr,
    pub(crate) up: bool,
    middlebox: Option<middlebox::Box>,
}

pub(crate) struct NetworkState {
    pub(crate) name: String,
    pub(crate) config: LinkConfig,
    members: Vec<AttachmentId>,
}

/// A packet on its way.
pub(crate) struct Flying {
    packet: Packet,
    to: AttachmentId,
    link: LinkId,
    arrival: Arrival,
}

/// Everything about the network.
#[derive(Default)]
pub(crate) struct Fabric {
    pub(crate) networks: Vec<NetworkState>,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) links: Vec<Link>,
    pub(crate) ends: Vec<(AttachmentId, AttachmentId)>,
    between: BTreeMap<(AttachmentId, AttachmentId), LinkId>,
    flying: Slab<Flying>,
    pub(crate) connections: Slab<Connection>,
    pub(crate) next_generation: u32,
    pub(crate) flows: FxHashMap<(SocketAddrV4, SocketAddrV4), ConnectionKey>,
    pub(crate) listeners: Slab<Listening>,
    pub(crate) ports: BTreeMap<(HostId, u16), usize>,
    pub(crate) udp: Slab<UdpState>,
    pub(crate) udp_ports: BTreeMap<(HostId, u16), usize>,
}

impl Fabric {
    pub(crate) fn network(&mut self, name: &str, config: LinkConfig) -> u16 {
        if let Some(index) = self.find_network(name) {
            return index;
        }
        self.networks.push(NetworkState {
            name: name.to_owned(),
            config,
            members: Vec::new(),
        });
        (self.networks.len() - 1) as u16
    }

    pub(crate) fn find_network(&self, name: &str) -> Option<u16> {
        let found = self.networks.iter().position(|network| network.name == name);
        found.and_then(|index| u16::try_from(index).ok())
    }

    pub(crate) fn attach(&mut self, host: HostId, network: u16) -> AttachmentId {
        let id = AttachmentId(self.attachments.len() as u32);
        let members = &mut self.networks[usize::from(network)].members;
        members.push(id);
        let [_, _, high, low] = (members.len() as u32).to_be_bytes();
        let ip = Ipv4Addr::new(10, network as u8, high, low);
        self.attachments.push(Attachment {
            host,
            network,
            ip,
            up: true,
            middlebox: None,
        });
        id
    }

    pub(crate) fn attachment(&self, id: AttachmentId) -> &Attachment {
        &self.attachments[id.0 as usize]
    }

    pub(crate) fn attachment_mut(&mut self, id: AttachmentId) -> &mut Attachment {
        &mut self.attachments[id.0 as usize]
    }

    /// The interface with an address.
    pub(crate) fn find(&self, ip: Ipv4Addr) -> Option<AttachmentId> {
        let [ten, network, high, low] = ip.octets();
        let members = &self.networks.get(usize::from(network))?.members;
        let index = usize::from(u16::from_be_bytes([high, low])).checked_sub(1)?;
        members.get(index).copied().filter(|_| ten == 10)
    }

    /// A host's interface on a network.
    pub(crate) fn on(&self, host: HostId, network: u16) -> Option<AttachmentId> {
        let members = &self.networks[usize::from(network)].members;
        members
            .iter()
            .copied()
            .find(|&id| self.attachment(id).host == host)
    }

    /// Interfaces of a host, in the order in which they were made.
    pub(crate) fn of(&self, host: HostId) -> impl Iterator<Item = AttachmentId> + '_ {
        let all = (0..).zip(&self.attachments);
        all.filter(move |(_, attachment)| attachment.host == host)
            .map(|(index, _)| AttachmentId(index))
    }

    pub(crate) fn set_middlebox(&mut self, id: AttachmentId, config: Option<Middlebox>) {
        self.attachment_mut(id).middlebox = config.map(middlebox::Box::new);
    }

    pub(crate) fn forget_flows(&mut self, id: AttachmentId) {
        if let Some(middlebox) = &mut self.attachment_mut(id).middlebox {
            middlebox.forget();
        }
    }

    pub(crate) fn link_mut(&mut self, id: LinkId) -> &mut Link {
        &mut self.links[id.0 as usize]
    }
}

impl State {
    /// The link from one interface to another of the same network; made when first asked for.
    pub(crate) fn link_between(&mut self, from: AttachmentId, to: AttachmentId) -> LinkId {
        if let Some(&link) = self.net.between.get(&(from, to)) {
            return link;
        }
        let id = LinkId(self.net.links.len() as u32);
        let network = usize::from(self.net.attachment(from).network);
        let config = if from == to {
            LinkConfig {
                delay: std::time::Duration::from_micros(20),
                mtu: usize::MAX,
                ..LinkConfig::default()
            }
        } else {
            self.net.networks[network].config.clone()
        };
        let rng = self.rng.fork("link");
        self.net.links.push(Link::new(config, rng));
        self.net.ends.push((from, to));
        self.net.between.insert((from, to), id);
        id
    }

    /// Sends a packet from an interface. What becomes of it is noted, and told to nobody.
    pub(crate) fn transmit(&mut self, mut packet: Packet, from: AttachmentId) {
        let source = &mut self.net.attachments[from.0 as usize];
        if !source.up {
            return self.drop_packet(&packet, Drop::Down);
        }
        if let Some(middlebox) = &mut source.middlebox {
            let verdict = middlebox.outbound(self.now, &mut packet);
            if let Some(reason) = verdict.drop_reason() {
                self.drop_packet(&packet, reason);
                if let (Verdict::Reset, Body::Tcp(segment)) = (&verdict, &packet.body) {
                    let reset = Segment::reset_for(segment);
                    let (source, destination) = (packet.destination, packet.source);
                    self.segment_arrived(source, destination, reset);
                }
                return;
            }
        }
        let Some(to) = self.net.find(*packet.destination.ip()) else {
            return self.drop_packet(&packet, Drop::Down);
        };
        let id = self.link_between(from, to);
        let (now, size, payload) = (self.now, packet.size(), packet.payload_len());
        let is_tcp = packet.is_tcp();
        let fate = self.net.link_mut(id).carry(now, size, payload, is_tcp);
        self.trace.sent(now, id, &packet, &fate);
        let Ok(mut arrivals) = fate else { return };
        let last = arrivals.pop();
        for arrival in arrivals {
            self.fly(packet.clone(), to, id, arrival);
        }
        if let Some(arrival) = last {
            self.fly(packet, to, id, arrival);
        }
    }

    fn fly(&mut self, packet: Packet, to: AttachmentId, link: LinkId, arrival: Arrival) {
        let index = self.net.flying.insert(Flying {
            packet,
            to,
            link,
            arrival,
        });
        self.queue.push(arrival.at, Due::Packet(index as u32));
    }

    /// Changes a link; what still waits in its queue leaves at the new rate.
    pub(crate) fn set_link(&mut self, id: LinkId, config: LinkConfig) {
        let Some(change) = self.net.link_mut(id).set_config(self.now, config) else {
            return;
        };
        let now = self.now;
        let own = self.net.flying.iter_mut();
        let own = own.filter(|(_, flying)| flying.link == id);
        let mut all: Vec<(usize, &mut Arrival)> =
            own.map(|(index, flying)| (index, &mut flying.arrival)).collect();
        all.sort_by_key(|(index, arrival)| (arrival.departs, *index));
        // Order is kept, whatever jitter each of them has.
        let mut last = now;
        for (index, arrival) in all {
            if arrival.departs <= now {
                if !arrival.late {
                    last = last.max(arrival.at);
                }
                continue;
            }
            let departs = change.departs(arrival.departs);
            let at = departs.saturating_add(arrival.at - arrival.departs);
            arrival.departs = departs;
            arrival.at = if arrival.late { at } else { at.max(last) };
            if !arrival.late {
                last = arrival.at;
            }
            self.queue.push(arrival.at, Due::Packet(index as u32));
        }
        self.net.link_mut(id).set_last_arrival(last);
    }

    fn drop_packet(&mut self, packet: &Packet, reason: Drop) {
        let link = match (
            self.net.find(*packet.source.ip()),
            self.net.find(*packet.destination.ip()),
        ) {
            (Some(from), Some(to)) if self.trace.is_kept() => self.net.between.get(&(from, to)).copied(),
            _ => None,
        };
        self.trace.dropped(self.now, link, packet, reason);
    }

    /// A packet has come to the end of its link.
    pub(crate) fn arrive(&mut self, index: u32) {
        let found = self.net.flying.get(index as usize);
        if found.is_none_or(|flying| flying.arrival.at != self.now) {
            return; // its link has changed, and it arrives at another time
        }
        let Flying {
            mut packet,
            to,
            arrival: Arrival { flip, keep, .. },
            ..
        } = self.net.flying.remove(index as usize);
        let target = &mut self.net.attachments[to.0 as usize];
        let host = target.host;
        if !target.up || !self.hosts[host.index()].hears() {
            return self.drop_packet(&packet, Drop::Down);
        }
        if let Some(middlebox) = &mut target.middlebox {
            let verdict = middlebox.inbound(self.now, &mut packet);
            if let Some(reason) = verdict.drop_reason() {
                self.drop_packet(&packet, reason);
                if let (Verdict::Reset, Body::Tcp(segment)) = (&verdict, &packet.body) {
                    let reset = Segment::reset_for(segment);
                    self.reply(to, &packet, reset);
                }
                return;
            }
        }
        if flip.is_some() || keep.is_some() {
            damage(&mut packet.body, flip, keep);
        }
        match packet.body {
            Body::Tcp(segment) => self.segment_arrived(packet.source, packet.destination, segment),
            Body::Udp(data) => self.datagram_arrived(host, packet.source, packet.destination, data),
        }
    }

    /// Sends a segment back to where a packet came from.
    pub(crate) fn reply(&mut self, from: AttachmentId, packet: &Packet, segment: Segment) {
        let answer = Packet {
            source: packet.destination,
            destination: packet.source,
            body: Body::Tcp(segment),
        };
        self.transmit(answer, from);
    }
}

fn damage(body: &mut Body, flip: Option<u32>, keep: Option<u32>) {
    let payload = match body {
        Body::Tcp(segment) => &mut segment.payload,
        Body::Udp(data) => data,
    };
    if let Some(bit) = flip {
        let mut bytes = BytesMut::from(&payload[..]);
        if let Some(byte) = bytes.get_mut(bit as usize / 8) {
            *byte ^= 1 << (bit % 8);
        }
        *payload = bytes.freeze();
    }
    if let Some(len) = keep {
        payload.truncate(len as usize);
    }
}
