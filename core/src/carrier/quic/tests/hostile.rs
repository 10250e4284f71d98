//! A client with the keys of a connection that does not keep to RFC 9000: it shakes hands as it should, and then says
//! what it likes.

use std::any::Any;
use std::sync::{Arc, Mutex};

use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::crypto::{
    self, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, TransportError};

use super::*;
use crate::carrier::quic::config::{MAX_LANES, RECEIVE_WINDOW, STREAM_WINDOW};

/// What the next packets hold instead of what they would.
type Pen = Arc<Mutex<VecDeque<Vec<u8>>>>;

struct HostileConfig {
    inner: Arc<dyn crypto::ClientConfig>,
    pen: Pen,
}

impl crypto::ClientConfig for HostileConfig {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        Ok(Box::new(HostileSession {
            inner: self.inner.clone().start_session(version, server_name, params)?,
            pen: self.pen.clone(),
            keys: 0,
        }))
    }
}

struct HostileSession {
    inner: Box<dyn crypto::Session>,
    pen: Pen,
    keys: usize,
}

impl HostileSession {
    fn hostile(&self, inner: Box<dyn PacketKey>) -> Box<dyn PacketKey> {
        let pen = self.pen.clone();
        Box::new(HostileKey { inner, pen })
    }
}

impl crypto::Session for HostileSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }
    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }
    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(buf)
    }
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let mut keys = self.inner.write_handshake(buf)?;
        self.keys += 1;
        // The first are those of the handshake's own packets.
        if self.keys == 2 {
            keys.packet.local = self.hostile(keys.packet.local);
        }
        Some(keys)
    }
    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let mut keys = self.inner.next_1rtt_keys()?;
        keys.local = self.hostile(keys.local);
        Some(keys)
    }
    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

/// Puts what the pen has into packets that are long enough, PADDING behind it.
struct HostileKey {
    inner: Box<dyn PacketKey>,
    pen: Pen,
}

impl PacketKey for HostileKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let end = buf.len() - self.inner.tag_len();
        let payload = &mut buf[header_len..end];
        let mut pen = self.pen.lock().unwrap();
        if pen.front().is_some_and(|frames| frames.len() <= payload.len())
            && let Some(frames) = pen.pop_front()
        {
            payload.fill(0);
            payload[..frames.len()].copy_from_slice(&frames);
        }
        drop(pen);
        self.inner.encrypt(packet, buf, header_len);
    }
    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.inner.decrypt(packet, header, payload)
    }
    fn tag_len(&self) -> usize {
        self.inner.tag_len()
    }
    fn confidentiality_limit(&self) -> u64 {
        self.inner.confidentiality_limit()
    }
    fn integrity_limit(&self) -> u64 {
        self.inner.integrity_limit()
    }
}

fn hostile() -> (ClientQuic, Pen) {
    let tls = ClientTls::new(&Trust::Pins(server_tls().pin().into_iter().collect())).unwrap();
    let pen = Pen::default();
    let config = HostileConfig {
        inner: Arc::new(QuicClientConfig::try_from(tls.quic.clone()).unwrap()),
        pen: pen.clone(),
    };
    let mut client = ClientQuic::new(&tls, &QuicSettings::default()).unwrap();
    let transport = QuicSettings::default().transport();
    client.config = quinn_proto::ClientConfig::new(Arc::new(config));
    client.config.transport_config(Arc::new(transport));
    (client, pen)
}

/// Frames by hand (RFC 9000 §19).
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    /// An integer of eight bytes, which any may have (RFC 9000 §16).
    fn int(mut self, value: u64) -> Frames {
        self.0.extend((value | 3 << 62).to_be_bytes());
        self
    }
    fn frame(mut self, kind: u8) -> Frames {
        self.0.push(kind);
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Frames {
        self.0.extend(bytes);
        self
    }
    /// STREAM with an offset and a length.
    fn stream(self, id: u64, offset: u64, data: &[u8]) -> Frames {
        self.frame(0x0e)
            .int(id)
            .int(offset)
            .int(data.len() as u64)
            .bytes(data)
    }
}

/// Has the client say that, packet by packet, and gives what the server thinks of it.
fn judged(packets: impl IntoIterator<Item = Frames>) -> Option<QuicError> {
    let (client, pen) = hostile();
    let mut world = World::new(&client, QuicSettings::default());
    world.connect();
    let id = world.open();
    for frames in packets {
        pen.lock().unwrap().push_back(frames.0);
        // A packet of its own, long enough, once congestion control lets it go.
        while !pen.lock().unwrap().is_empty() && world.lost.is_empty() {
            assert_eq!(world.near.write_slice(id, &[0; 1100]), Ok(1100));
            world.send();
            world.step();
        }
    }
    for _ in 0..40 {
        world.step();
    }
    let verdict = world
        .lost
        .iter()
        .find(|error| matches!(error, QuicError::Violation(_)));
    let verdict = verdict.cloned();
    // Whatever became of it: the next client is served.
    let mut ours = endpoint(7, None);
    let near = ours.connect(world.now, &trusting(), SERVER, "server").unwrap();
    (world.client, world.near, world.far) = (ours, near, None);
    (world.client_at, world.connected) = (ELSEWHERE, 0);
    world.flying.clear();
    world.connect();
    verdict
}

/// Bidirectional and unidirectional streams of the client, and those of the server.
const BI: u64 = 0;
const UNI: u64 = 2;
const THEIRS: u64 = 3;

fn is_refused(what: &str, words: &str, packets: impl IntoIterator<Item = Frames>) {
    match judged(packets) {
        Some(QuicError::Violation(said)) => assert!(said.contains(words), "{what}: {said}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn optimistic_acknowledgements_end_the_connection() {
    let ack = |largest: u64, first: u64| Frames::default().frame(2).int(largest).int(0).int(0).int(first);
    is_refused("what was never sent", "unsent packet", [ack(1_000_000, 0)]);
    is_refused("a little more than was sent", "unsent packet", [ack(200, 0)]);
    is_refused("more than there are below", "ACK", [ack(3, 4)]);
}

#[test]
fn limits_of_streams_and_credit_hold() {
    let frames = Frames::default;
    is_refused(
        "one bidirectional stream is allowed",
        "stream limit",
        [frames().stream(BI + 4, 0, b"x")],
    );
    let beyond = UNI + 4 * u64::from(MAX_LANES);
    is_refused(
        "a lane too many",
        "stream limit",
        [frames().stream(beyond, 0, b"x")],
    );
    is_refused(
        "reset of a lane too many",
        "stream limit",
        [frames().frame(4).int(beyond).int(0).int(0)],
    );
    let window = u64::from(STREAM_WINDOW);
    is_refused(
        "a stream's credit",
        "more data than permitted",
        [frames().stream(UNI, window, b"x")],
    );
    is_refused(
        "a stream's credit, by its reset",
        "more data than permitted",
        [frames().frame(4).int(UNI).int(0).int(window + 1)],
    );
    // Each within its own, all together beyond the connection's.
    let lanes = u64::from(RECEIVE_WINDOW / STREAM_WINDOW) + 1;
    let full = (0..lanes).map(|lane| frames().stream(UNI + 4 * lane, window - 1, b"x"));
    is_refused("the connection's credit", "more data than permitted", full);
}

#[test]
fn frames_that_are_none_end_the_connection() {
    let frames = Frames::default;
    let cases = [
        ("an unknown frame", frames().bytes(&[0x7f, 0x42])),
        (
            "longer than its packet",
            frames().frame(0x0a).int(UNI).int(60_000),
        ),
        (
            "a limit beyond all streams",
            frames().frame(0x12).int(1 << 60 | 1),
        ),
        ("the server's to send", frames().frame(0x1e)),
        ("the server's token", frames().frame(7).int(1).bytes(b"t")),
        (
            "ids that it retires itself",
            frames().frame(0x18).int(1).int(9).bytes(&[8]).bytes(&[1; 24]),
        ),
        ("an id that was never given", frames().frame(0x19).int(4000)),
        (
            "data on a stream that it only reads",
            frames().stream(THEIRS, 0, b"x"),
        ),
        (
            "an end to a stream that it only reads",
            frames().frame(4).int(THEIRS).int(0).int(0),
        ),
        (
            "credit for a stream that it only writes",
            frames().frame(0x11).int(UNI).int(1 << 20),
        ),
        (
            "more of the handshake than is kept",
            frames().frame(6).int(1 << 30).int(1).bytes(b"x"),
        ),
    ];
    for (what, packet) in cases {
        let verdict = judged([packet]);
        assert!(
            matches!(verdict, Some(QuicError::Violation(_))),
            "{what}: {verdict:?}"
        );
    }
}

#[test]
fn the_end_of_a_stream_does_not_move() {
    let fin = |offset: u64| {
        Frames::default()
            .frame(0x0f)
            .int(UNI)
            .int(offset)
            .int(1)
            .bytes(b"x")
    };
    is_refused("another end", "final", [fin(10), fin(20)]);
    is_refused(
        "data behind the end",
        "final",
        [fin(10), Frames::default().stream(UNI, 20, b"x")],
    );
    is_refused(
        "a reset elsewhere",
        "final",
        [fin(10), Frames::default().frame(4).int(UNI).int(0).int(30)],
    );
}

#[test]
fn what_means_nothing_does_no_harm() {
    let frames = Frames::default;
    // An answer to no challenge, news of being blocked, PING, DATA_BLOCKED, and padding.
    let harmless = [
        frames().frame(0x1b).bytes(&[9; 8]),
        frames().frame(0x14).int(1).frame(1),
        frames().frame(0x16).int(1),
    ];
    assert_eq!(judged(harmless), None);
}

/// Pieces with gaps between them are kept only up to a number.
#[test]
fn a_stream_in_crumbs_is_bounded() {
    let crumbs = (0..60_u64).map(|packet| {
        let offsets = (0..40).map(move |crumb| 10 + 2 * (40 * packet + crumb));
        offsets.fold(Frames::default(), |frames, offset| {
            frames.stream(UNI, offset, b"x")
        })
    });
    is_refused("crumbs", "gaps", crumbs);
}
