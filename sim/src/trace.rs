//! What happened in a world: always its hash, and everything in words when asked for.

use std::net::SocketAddrV4;

use serde::Serialize;

use crate::net::tcp::Segment;
use crate::net::{Body, Drop, LinkId, Packet};

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

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// A packet was put onto a link.
    Packet {
        /// The link's number.
        link: u32,
        /// Where it comes from.
        source: SocketAddrV4,
        /// Where it goes.
        destination: SocketAddrV4,
        /// `tcp` with its flags, or `udp`.
        kind: String,
        /// The first number of its sequence.
        seq: u64,
        /// What it acknowledges.
        ack: u64,
        /// Bytes of payload.
        len: usize,
        /// Bytes with headers.
        size: usize,
        /// When the first copy arrives.
        arrives: Option<u64>,
        /// Why none does.
        dropped: Option<Drop>,
    },
    /// A fault began or ended.
    Fault {
        /// What it was.
        text: String,
    },
    /// A program had something to say.
    Note {
        /// The host it runs on.
        host: String,
        /// What it said.
        text: String,
    },
}

/// Something that happened, and when.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Nanoseconds since the world began.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// A packet as it was put onto its link, for a capture file.
pub(crate) struct Captured {
    pub(crate) at: u64,
    pub(crate) packet: Packet,
}

/// What a world remembers of its run.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) hash: Hash,
    pub(crate) packets: u64,
    pub(crate) log: Option<Vec<Record>>,
    pub(crate) capture: Option<Vec<Captured>>,
}

fn kind(body: &Body) -> (String, u64, u64) {
    match body {
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
            let text = std::iter::once("tcp").chain(names).collect();
            (text, segment.seq, segment.ack)
        }
    }
}

impl Trace {
    fn record(&mut self, at: u64, what: What) {
        if let Some(log) = &mut self.log {
            log.push(Record { at, what });
        }
    }

    pub(crate) fn sent(&mut self, now: u64, link: LinkId, packet: &Packet, fate: &crate::net::Fate) {
        self.packets += 1;
        self.hash.add(now);
        self.hash.add(u64::from(link.0) << 32 | packet.size() as u64);
        let arrives = fate
            .as_ref()
            .ok()
            .and_then(|all| all.iter().map(|arrival| arrival.at).min());
        self.hash.add(arrives.unwrap_or(0));
        if self.log.is_some() {
            let (kind, seq, ack) = kind(&packet.body);
            self.record(
                now,
                What::Packet {
                    link: link.0,
                    source: packet.source,
                    destination: packet.destination,
                    kind,
                    seq,
                    ack,
                    len: packet.payload_len(),
                    size: packet.size(),
                    arrives,
                    dropped: fate.as_ref().err().copied(),
                },
            );
        }
        if let Some(capture) = &mut self.capture {
            capture.push(Captured {
                at: now,
                packet: packet.clone(),
            });
        }
    }

    pub(crate) fn dropped(&mut self, now: u64, packet: &Packet, reason: Drop) {
        self.hash.add(now ^ packet.size() as u64);
        if self.log.is_some() {
            let text = format!("{} to {}: {reason:?}", packet.source, packet.destination);
            self.record(now, What::Fault { text });
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

    pub(crate) fn fault(&mut self, now: u64, text: impl FnOnce() -> String) {
        self.hash.add(now ^ PRIME);
        if self.log.is_some() {
            let text = text();
            self.record(now, What::Fault { text });
        }
    }

    pub(crate) fn note(&mut self, now: u64, host: &str, text: &str) {
        if self.log.is_some() {
            let (host, text) = (host.to_owned(), text.to_owned());
            self.record(now, What::Note { host, text });
        }
    }
}
