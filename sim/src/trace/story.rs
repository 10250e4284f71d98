//! A world's trace taken out of it, with names in place of numbers.

use crate::net::{Body, Packet};
use crate::state::State;
use crate::world::World;

use super::Captured;
use super::record::{Record, What};
use super::traffic::Traffic;

/// One direction of a link, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkName {
    pub(crate) network: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// Everything that was kept of a run.
pub(crate) struct Story {
    pub(crate) seed: u64,
    /// When it was told, in nanoseconds since the world began.
    pub(crate) end: u64,
    pub(crate) hosts: Vec<String>,
    pub(crate) networks: Vec<String>,
    pub(crate) links: Vec<LinkName>,
    pub(crate) log: Vec<Record>,
    pub(crate) traffic: Traffic,
    pub(crate) packets: Option<Vec<Captured>>,
}

impl Story {
    pub(crate) fn of(world: &World) -> Story {
        let mut story = world.shared.with(|state| Story::take(world.seed, state));
        if let Some(failure) = &world.failure {
            story.log.push(Record {
                at: failure.at,
                what: What::Failure {
                    text: failure.to_string(),
                },
            });
        }
        story
    }

    fn take(seed: u64, state: &State) -> Story {
        let net = &state.net;
        let host = |id| state.hosts[net.attachment(id).host.index()].name.clone();
        let links = net.ends.iter().map(|&(from, to)| LinkName {
            network: net.networks[usize::from(net.attachment(from).network)]
                .name
                .clone(),
            from: host(from),
            to: host(to),
        });
        Story {
            seed,
            end: state.now,
            hosts: state.hosts.iter().map(|host| host.name.clone()).collect(),
            networks: net.networks.iter().map(|network| network.name.clone()).collect(),
            links: links.collect(),
            log: state.trace.log.clone().unwrap_or_default(),
            traffic: state.trace.traffic.clone(),
            packets: state.trace.capture.clone(),
        }
    }

    fn packet(&self, captured: &Captured) -> Record {
        let link = self.links[captured.link.0 as usize].clone();
        let packet = &captured.packet;
        let (kind, seq, ack) = kind(packet);
        Record {
            at: captured.at,
            what: What::Packet {
                network: link.network,
                from: link.from,
                to: link.to,
                source: packet.source,
                destination: packet.destination,
                kind,
                seq,
                ack,
                len: packet.payload_len(),
                size: packet.size(),
                arrives: captured.arrives,
                dropped: captured.dropped,
                at_end: captured.at_end,
            },
        }
    }

    /// Every record in order: with each packet, if they were kept, or with what the links carried.
    pub(crate) fn records(&self) -> Vec<Record> {
        match &self.packets {
            Some(packets) => {
                let mut all = Vec::with_capacity(packets.len() + self.log.len());
                let mut log = self.log.iter().enumerate().peekable();
                for captured in packets {
                    while let Some((_, record)) = log.next_if(|(place, _)| *place < captured.after) {
                        all.push(record.clone());
                    }
                    all.push(self.packet(captured));
                }
                all.extend(log.map(|(_, record)| record.clone()));
                all
            }
            None => {
                let mut all = self.log.clone();
                all.extend(self.carried());
                all.sort_by_key(|record| record.at);
                all
            }
        }
    }

    /// What the links carried, interval by interval.
    fn carried(&self) -> Vec<Record> {
        let mut all = Vec::new();
        for (link, bins) in self.links.iter().zip(&self.traffic.links) {
            for bin in bins {
                let at = bin.index * self.traffic.width;
                all.push(Record {
                    at,
                    what: What::Traffic {
                        network: link.network.clone(),
                        from: link.from.clone(),
                        to: link.to.clone(),
                        until: at + self.traffic.width,
                        packets: bin.packets,
                        bytes: bin.bytes,
                        carried: bin.carried,
                        drops: bin.drops,
                    },
                });
            }
        }
        all
    }
}

fn kind(packet: &Packet) -> (String, u64, u64) {
    match &packet.body {
        Body::Udp(_) => ("udp".to_owned(), 0, 0),
        Body::Tcp(segment) => {
            let flags = segment.flags;
            let named = [
                (flags.syn, " syn"),
                (flags.fin, " fin"),
                (flags.rst, " rst"),
                (flags.ack, " ack"),
            ];
            let names = named.iter().filter(|(set, _)| *set).map(|(_, name)| *name);
            (
                std::iter::once("tcp").chain(names).collect(),
                segment.seq,
                segment.ack,
            )
        }
    }
}
