//! What happened in a world: always its hash, and everything in words when asked for.
//!
//! [`World::keep_records`](crate::World::keep_records) keeps what is worth reading and what each link carried;
//! [`World::keep_packets`](crate::World::keep_packets) keeps every packet as well. Neither changes a run.

mod headers;
mod jsonl;
mod pcapng;
mod phase;
mod record;
mod story;
mod svg;
mod text;
mod traffic;
mod words;

use std::net::SocketAddrV4;

pub use jsonl::write_jsonl;
pub use pcapng::write_pcapng;
pub use record::{ConnectionEvent, Drops, HostPower, PathPhase, Phase, Record, What};

use crate::fault::Fault;
use crate::host::{HostState, Power};
use crate::net::tcp::Segment;
use crate::net::{Drop, Fate, LinkId, Packet};
pub(crate) use story::Story;
pub use svg::write_svg;
pub use text::{write_text, write_text_with_packets};
use traffic::Traffic;

const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;

/// A running hash of 64-bit words: quick, and the same everywhere. It tells traces apart; it resists nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(PRIME);
    }

    pub(crate) fn finish(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(PRIME);
        mixed ^ (mixed >> 29)
    }
}

/// A packet as it was put onto its link, or thrown away at one of its ends.
#[derive(Clone)]
pub(crate) struct Captured {
    pub(crate) at: u64,
    pub(crate) link: LinkId,
    pub(crate) packet: Packet,
    pub(crate) arrives: Option<u64>,
    pub(crate) dropped: Option<Drop>,
    /// It never was on the link, or had come to its end.
    pub(crate) at_end: bool,
    /// How many records there were.
    pub(crate) after: usize,
}

/// What a world remembers of its run.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) hash: Hash,
    pub(crate) packets: u64,
    pub(crate) log: Option<Vec<Record>>,
    pub(crate) traffic: Traffic,
    pub(crate) capture: Option<Vec<Captured>>,
    /// Sessions that were seen.
    pub(crate) sessions: u32,
}

impl Trace {
    /// Whether anybody reads what is recorded.
    pub(crate) fn is_kept(&self) -> bool {
        self.log.is_some()
    }

    /// Takes something down, and tells its place in the log.
    pub(crate) fn record(&mut self, at: u64, what: impl FnOnce() -> What) -> Option<usize> {
        let log = self.log.as_mut()?;
        log.push(Record { at, what: what() });
        Some(log.len() - 1)
    }

    pub(crate) fn sent(&mut self, now: u64, link: LinkId, packet: &Packet, fate: &Fate) {
        self.packets += 1;
        self.hash.add(now);
        self.hash.add(u64::from(link.0) << 32 | packet.size() as u64);
        let arrives = fate
            .as_ref()
            .ok()
            .and_then(|all| all.iter().map(|arrival| arrival.at).min());
        self.hash.add(arrives.unwrap_or(0));
        if self.log.is_some() {
            self.keep(now, link, packet, arrives, fate.as_ref().err().copied(), false);
        }
    }

    /// A packet was thrown away before it came onto a link, or after it had come to its end.
    pub(crate) fn dropped(&mut self, now: u64, link: Option<LinkId>, packet: &Packet, reason: Drop) {
        self.hash.add(now ^ packet.size() as u64);
        if let (Some(link), true) = (link, self.log.is_some()) {
            self.keep(now, link, packet, None, Some(reason), true);
        }
    }

    #[cold]
    fn keep(
        &mut self,
        at: u64,
        link: LinkId,
        packet: &Packet,
        arrives: Option<u64>,
        dropped: Option<Drop>,
        at_end: bool,
    ) {
        match dropped.filter(|_| at_end) {
            Some(reason) => self.traffic.dropped(link.0, at, reason),
            None => self.traffic.sent(link.0, at, packet.size(), dropped),
        }
        let after = self.log.as_ref().map_or(0, Vec::len);
        if let Some(capture) = &mut self.capture {
            capture.push(Captured {
                at,
                link,
                packet: packet.clone(),
                arrives,
                dropped,
                at_end,
                after,
            });
        }
    }

    pub(crate) fn arrived(
        &mut self,
        now: u64,
        _: SocketAddrV4,
        destination: SocketAddrV4,
        segment: &Segment,
    ) {
        self.hash.add(now);
        self.hash
            .add(u64::from(destination.port()) << 48 ^ segment.seq << 16 ^ segment.payload.len() as u64);
    }

    /// A fault takes place. `usual` tells whether a link's new configuration is its network's own.
    pub(crate) fn fault(&mut self, now: u64, fault: &Fault, usual: impl FnOnce() -> bool) {
        self.hash.add(now ^ PRIME);
        self.record(now, || {
            let (phase, key) = phase::of(fault, usual);
            What::Fault {
                phase,
                key,
                text: fault.to_string(),
                fault: fault.clone(),
            }
        });
    }

    pub(crate) fn power(&mut self, now: u64, host: &HostState) {
        self.record(now, || What::Power {
            host: host.name.clone(),
            power: match host.power {
                Power::Running => HostPower::Running,
                Power::Paused => HostPower::Paused,
                Power::Suspended => HostPower::Suspended,
                Power::Crashed => HostPower::Crashed,
            },
        });
    }

    pub(crate) fn connection(
        &mut self,
        now: u64,
        host: &HostState,
        (local, remote): (SocketAddrV4, SocketAddrV4),
        event: ConnectionEvent,
    ) {
        self.record(now, || What::Connection {
            host: host.name.clone(),
            local,
            remote,
            event,
        });
    }

    pub(crate) fn note(&mut self, now: u64, host: &str, text: &str) {
        self.record(now, || What::Note {
            host: host.to_owned(),
            text: text.to_owned(),
        });
    }
}
