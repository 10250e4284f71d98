//! Packets as a pcapng file: one interface for each network, times in nanoseconds since the world began.

use std::io::{self, Write};

use super::headers::Synthesis;
use super::record::Drops;
use super::story::Story;
use super::words::names_of_drops;
use crate::world::World;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Packets begin with their IP header.
const LINKTYPE_RAW: u16 = 101;
const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_APPLICATION: u16 = 4;
const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
/// 10⁻⁹ seconds.
const NANOSECONDS: u8 = 9;

/// A block being written: its length stands at both its ends.
struct Block<'a> {
    buffer: &'a mut Vec<u8>,
}

impl Block<'_> {
    fn new(buffer: &mut Vec<u8>, kind: u32) -> Block<'_> {
        buffer.clear();
        buffer.extend(kind.to_le_bytes());
        buffer.extend([0; 4]);
        Block { buffer }
    }

    fn u16(&mut self, value: u16) {
        self.buffer.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.buffer.extend(value.to_le_bytes());
    }

    fn pad(&mut self) {
        let padded = self.buffer.len().next_multiple_of(4);
        self.buffer.resize(padded, 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.u16(code);
        self.u16(value.len() as u16);
        self.buffer.extend_from_slice(value);
        self.pad();
    }

    fn write(mut self, out: &mut impl Write) -> io::Result<()> {
        self.pad();
        let len = self.buffer.len() as u32 + 4;
        self.buffer[4..8].copy_from_slice(&len.to_le_bytes());
        self.u32(len);
        out.write_all(self.buffer)
    }
}

/// Writes the packets that a world has kept as pcapng, for Wireshark and its like.
///
/// A packet is there once, at the moment at which it was put onto its link, also if it was lost on it: a comment says
/// so. What never came onto a link is not there.
///
/// # Errors
/// `InvalidInput` unless [`World::keep_packets`] was called; else what the writer says.
pub fn write_pcapng(world: &World, mut out: impl Write) -> io::Result<()> {
    let story = Story::of(world);
    let Some(packets) = &story.packets else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the world has kept no packets",
        ));
    };
    let mut buffer = Vec::new();
    section(&mut buffer, &mut out, story.seed)?;
    for network in &story.networks {
        interface(&mut buffer, &mut out, network)?;
    }
    let mut synthesis = Synthesis::new(story.seed);
    let mut bytes = Vec::new();
    for captured in packets.iter().filter(|captured| !captured.at_end) {
        bytes.clear();
        synthesis.write(&captured.packet, &mut bytes);
        let network = &story.links[captured.link.0 as usize].network;
        let interface = story
            .networks
            .iter()
            .position(|name| name == network)
            .unwrap_or(0);
        let mut block = Block::new(&mut buffer, ENHANCED_PACKET);
        block.u32(interface as u32);
        block.u32((captured.at >> 32) as u32);
        block.u32(captured.at as u32);
        block.u32(bytes.len() as u32);
        block.u32(bytes.len() as u32);
        block.buffer.extend_from_slice(&bytes);
        block.pad();
        if let Some(reason) = captured.dropped {
            let mut drops = Drops::default();
            drops.add(reason);
            let text = format!("dropped: {}", names_of_drops(&drops));
            block.option(OPTION_COMMENT, text.as_bytes());
            block.option(OPTION_END, &[]);
        }
        block.write(&mut out)?;
    }
    out.flush()
}

fn section(buffer: &mut Vec<u8>, out: &mut impl Write, seed: u64) -> io::Result<()> {
    let mut block = Block::new(buffer, SECTION_HEADER);
    block.u32(BYTE_ORDER_MAGIC);
    block.u16(1);
    block.u16(0);
    block.u32(u32::MAX); // the section's length is not told
    block.u32(u32::MAX);
    block.option(
        OPTION_COMMENT,
        format!("a simulated world, seed {seed}").as_bytes(),
    );
    block.option(OPTION_APPLICATION, b"sheetbend-sim");
    block.option(OPTION_END, &[]);
    block.write(out)
}

fn interface(buffer: &mut Vec<u8>, out: &mut impl Write, name: &str) -> io::Result<()> {
    let mut block = Block::new(buffer, INTERFACE_DESCRIPTION);
    block.u16(LINKTYPE_RAW);
    block.u16(0);
    block.u32(0); // packets are whole
    block.option(OPTION_NAME, name.as_bytes());
    block.option(OPTION_RESOLUTION, &[NANOSECONDS]);
    block.option(OPTION_END, &[]);
    block.write(out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::LinkConfig;

    /// A world in which one datagram of three bytes is sent after a second.
    fn world() -> World {
        let mut world = World::new(3);
        world.keep_packets();
        world.network("lan", LinkConfig::default());
        let receiver = world.host("a", &["lan"]);
        let sender = world.host("b", &["lan"]);
        let socket = receiver.bind_udp(4433).expect("the port is free");
        let own = sender.clone();
        let sent = world.block_on(&sender, async move {
            own.sleep(Duration::from_secs(1)).await;
            let out = own.bind_udp(53).expect("the port is free");
            out.send_to(b"abc", "10.0.0.1:4433".parse().expect("an address"))
        });
        sent.expect("all is well").expect("a network leads there");
        drop(socket);
        world
    }

    #[test]
    fn a_file_to_the_byte() {
        let mut out = Vec::new();
        write_pcapng(&world(), &mut out).expect("memory takes it");
        let mut expected: Vec<u8> = Vec::new();
        expected.extend([
            0x0a, 0x0d, 0x0d, 0x0a, 84, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0,
        ]);
        expected.extend([0xff; 8]);
        expected.extend(b"\x01\x00\x19\x00a simulated world, seed 3\0\0\0");
        expected.extend(b"\x04\x00\x0d\x00sheetbend-sim\0\0\0\0\0\0\0\x54\0\0\0");
        expected.extend(b"\x01\0\0\0\x28\0\0\0\x65\0\0\0\0\0\0\0");
        expected.extend(b"\x02\0\x03\0lan\0\x09\0\x01\0\x09\0\0\0\0\0\0\0\x28\0\0\0");
        expected.extend(b"\x06\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\x00\xca\x9a\x3b\x1f\0\0\0\x1f\0\0\0");
        expected.extend([0x45, 0, 0, 31, 0, 1, 0x40, 0, 64, 17, 0x26, 0xcb]);
        expected.extend([10, 0, 0, 2, 10, 0, 0, 1, 0, 53, 0x11, 0x51, 0, 11, 0x15, 0xed]);
        expected.extend(b"abc\0\x40\0\0\0");
        assert_eq!(out, expected, "{out:02x?}");
    }

    #[test]
    fn packets_have_to_be_kept() {
        let refused = write_pcapng(&World::new(1), Vec::new()).expect_err("there are none");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
