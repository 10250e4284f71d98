//! Packets as bytes: IPv4 (RFC 791), TCP (RFC 9293) and UDP (RFC 768) headers around what the simulator sent.

use std::net::SocketAddrV4;

use rustc_hash::FxHashMap;

use super::Hash;
use crate::net::tcp::Segment;
use crate::net::{Body, Packet};

const IP_HEADER: usize = 20;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
/// Windows are told in units of 2⁸ bytes (RFC 7323).
const WINDOW_SHIFT: u8 = 8;
/// What a SYN offers: the segment size, selective acknowledgements, and the window's unit.
const SYN_OPTIONS: [u8; 12] = [2, 4, 0x05, 0xb4, 1, 3, 3, WINDOW_SHIFT, 1, 1, 4, 2];
/// Blocks of a selective acknowledgement that fit.
const MAX_SACKS: usize = 4;

/// One direction of a TCP connection.
#[derive(Clone, Copy)]
struct Flow {
    /// The number of its SYN.
    first: u32,
    generation: u32,
    /// Something other than a SYN was sent: another SYN begins another connection.
    used: bool,
}

/// Writes packets as bytes. The simulator counts every connection from zero; here each direction begins with a
/// number that depends on the seed, and counts in 32 bits.
pub(super) struct Synthesis {
    seed: u64,
    flows: FxHashMap<(SocketAddrV4, SocketAddrV4), Flow>,
    identification: u16,
}

fn word(address: SocketAddrV4) -> u64 {
    u64::from(u32::from(*address.ip())) << 16 | u64::from(address.port())
}

/// The sum of RFC 1071, unfolded.
fn sum(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let whole: u64 = pairs
        .iter()
        .map(|pair| u64::from(u16::from_be_bytes(*pair)))
        .sum();
    whole + rest.first().map_or(0, |&last| u64::from(last) << 8)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn pseudo_header(packet: &Packet, protocol: u8, len: usize) -> u64 {
    let ips = [packet.source.ip().octets(), packet.destination.ip().octets()];
    sum(ips.as_flattened()) + u64::from(protocol) + len as u64
}

impl Synthesis {
    pub(super) fn new(seed: u64) -> Synthesis {
        Synthesis {
            seed,
            flows: FxHashMap::default(),
            identification: 0,
        }
    }

    fn first_number(&self, from: SocketAddrV4, to: SocketAddrV4, generation: u32) -> u32 {
        let mut hash = Hash::default();
        for word in [self.seed, word(from), word(to), u64::from(generation)] {
            hash.add(word);
        }
        hash.finish() as u32
    }

    /// The number of a direction's SYN; a new one if this begins a connection where there was one.
    fn flow(&mut self, from: SocketAddrV4, to: SocketAddrV4, begins: bool) -> Flow {
        let known = self.flows.get(&(from, to)).copied();
        let generation = match known {
            Some(flow) if !(begins && flow.used) => return flow,
            Some(flow) => flow.generation + 1,
            None => 0,
        };
        let flow = Flow {
            first: self.first_number(from, to, generation),
            generation,
            used: false,
        };
        self.flows.insert((from, to), flow);
        flow
    }

    /// Appends a packet, from its IP header on.
    pub(super) fn write(&mut self, packet: &Packet, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + IP_HEADER, 0);
        let protocol = match &packet.body {
            Body::Tcp(segment) => {
                self.tcp(packet, segment, out);
                TCP
            }
            Body::Udp(data) => {
                udp(packet, data, out);
                UDP
            }
        };
        let len = (out.len() - start) as u16;
        self.identification = self.identification.wrapping_add(1);
        let header = &mut out[start..start + IP_HEADER];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&len.to_be_bytes());
        header[4..6].copy_from_slice(&self.identification.to_be_bytes());
        header[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
        header[8] = TTL;
        header[9] = protocol;
        header[12..16].copy_from_slice(&packet.source.ip().octets());
        header[16..20].copy_from_slice(&packet.destination.ip().octets());
        let checksum = fold(sum(header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }

    fn tcp(&mut self, packet: &Packet, segment: &Segment, out: &mut Vec<u8>) {
        let (source, destination) = (packet.source, packet.destination);
        let flags = segment.flags;
        let own = self.flow(source, destination, flags.syn);
        if !flags.syn
            && let Some(flow) = self.flows.get_mut(&(source, destination))
        {
            flow.used = true;
        }
        let peer = self.flow(destination, source, false).first;
        let acked = |number: u64| peer.wrapping_add(number as u32);
        let start = out.len();
        out.extend(source.port().to_be_bytes());
        out.extend(destination.port().to_be_bytes());
        out.extend(own.first.wrapping_add(segment.seq as u32).to_be_bytes());
        out.extend(if flags.ack { acked(segment.ack) } else { 0 }.to_be_bytes());
        let push = !segment.payload.is_empty();
        let bits = u8::from(flags.fin)
            | u8::from(flags.syn) << 1
            | u8::from(flags.rst) << 2
            | u8::from(push) << 3
            | u8::from(flags.ack) << 4;
        let unit = if flags.syn { 1 } else { 1 << WINDOW_SHIFT };
        let window = u16::try_from(segment.window.div_ceil(unit)).unwrap_or(u16::MAX);
        out.extend([0, bits]);
        out.extend(window.to_be_bytes());
        out.extend([0; 4]); // the checksum, and nothing urgent
        if flags.syn {
            out.extend(SYN_OPTIONS);
        } else if !segment.sacks.is_empty() {
            let count = segment.sacks.len().min(MAX_SACKS);
            out.extend([1, 1, 5, 2 + 8 * count as u8]);
            for &(from, to) in segment.sacks.iter().take(count) {
                out.extend(acked(from).to_be_bytes());
                out.extend(acked(to).to_be_bytes());
            }
        }
        out[start + 12] = (((out.len() - start) / 4) << 4) as u8;
        out.extend_from_slice(&segment.payload);
        let checksum = fold(pseudo_header(packet, TCP, out.len() - start) + sum(&out[start..]));
        out[start + 16..start + 18].copy_from_slice(&checksum.to_be_bytes());
    }
}

fn udp(packet: &Packet, data: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let len = 8 + data.len();
    out.extend(packet.source.port().to_be_bytes());
    out.extend(packet.destination.port().to_be_bytes());
    out.extend((len as u16).to_be_bytes());
    out.extend([0; 2]);
    out.extend_from_slice(data);
    // All zeros would say that there is no checksum.
    let checksum = match fold(pseudo_header(packet, UDP, len) + sum(&out[start..])) {
        0 => 0xffff,
        other => other,
    };
    out[start + 6..start + 8].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::net::tcp::Flags;

    fn address(last: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new([10, 0, 0, last].into(), port)
    }

    #[test]
    fn a_datagram_to_the_byte() {
        let packet = Packet {
            source: address(1, 53),
            destination: address(2, 4433),
            body: Body::Udp(Bytes::from_static(b"abc")),
        };
        let mut out = Vec::new();
        Synthesis::new(1).write(&packet, &mut out);
        let expected = [
            0x45, 0, 0, 31, 0, 1, 0x40, 0, 64, 17, 0x26, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
            0, 53, 0x11, 0x51, 0, 11, 0x15, 0xed, // UDP
            b'a', b'b', b'c',
        ];
        assert_eq!(out, expected, "{out:02x?}");
    }

    #[test]
    fn checksums_are_right_whatever_the_length() {
        for len in 0..9 {
            let segment = Segment {
                flags: Flags {
                    ack: true,
                    ..Flags::default()
                },
                seq: 1 << 33,
                ack: 7,
                window: 70_000,
                payload: vec![0xa5; len].into(),
                ..Segment::default()
            };
            let packet = Packet {
                source: address(1, 50_000),
                destination: address(2, 80),
                body: Body::Tcp(segment),
            };
            let mut out = Vec::new();
            Synthesis::new(9).write(&packet, &mut out);
            assert_eq!(fold(sum(&out[..20])), 0);
            assert_eq!(
                fold(pseudo_header(&packet, TCP, out.len() - 20) + sum(&out[20..])),
                0
            );
        }
    }

    #[test]
    fn a_connection_in_the_place_of_another_begins_elsewhere() {
        let mut synthesis = Synthesis::new(3);
        let (from, to) = (address(1, 50_000), address(2, 80));
        let first = synthesis.flow(from, to, true).first;
        assert_eq!(synthesis.flow(from, to, true).first, first, "the SYN again");
        synthesis.flows.get_mut(&(from, to)).expect("it is known").used = true;
        assert_eq!(synthesis.flow(from, to, false).first, first);
        assert_ne!(synthesis.flow(from, to, true).first, first);
    }
}
