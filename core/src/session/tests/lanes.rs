//! Paths with lanes: what goes on which, what is lost on one, and what does not belong there. PROTOCOL 14.8.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;

use super::super::lanes::MAX_LANES;
use super::super::*;
use super::record;
use crate::handshake::Security;
use crate::server::{Acceptor, Routed, registry};
use crate::time::Timestamp;
use crate::wire::{Counts, Frame, LaneCount, OutBuffer, StreamId};

/// Two ends and what is on their lanes.
struct Pair {
    now: Timestamp,
    client: Session,
    server: Session,
    near: PathKey,
    far: PathKey,
    /// What the client has sent by lane, and the server has not been given.
    up: BTreeMap<u16, BytesMut>,
    down: BTreeMap<u16, BytesMut>,
    /// Lanes from the client that deliver nothing.
    held: BTreeSet<u16>,
    /// Lanes that were used, with how often.
    used: BTreeMap<u16, usize>,
}

fn info(lanes: u16) -> PathInfo {
    let mut info = PathInfo::new("quic://by-hand", "quic", Security::Encrypted);
    info.exporter = Some([7; 32]);
    info.lanes = lanes;
    info
}

fn output(session: &mut Session, now: Timestamp, path: PathKey) -> Vec<(u16, Vec<u8>)> {
    let mut out = OutBuffer::new();
    let mut runs = Vec::new();
    session.poll_transmit_lanes(now, path, &mut out, &mut runs);
    let pieces = runs.into_iter().map(|run| {
        let mut bytes = Vec::new();
        while bytes.len() < run.len {
            let piece = out.take(run.len - bytes.len());
            assert!(!piece.is_empty(), "runs cover the output");
            bytes.extend_from_slice(&piece);
        }
        (run.lane, bytes)
    });
    let pieces = pieces.collect();
    assert!(out.is_empty(), "and nothing more");
    pieces
}

impl Pair {
    fn new(lanes: u16) -> Pair {
        let now = Timestamp::from_nanos(1_000_000_000);
        let mut client = Session::client(Config::default(), [1; 32], now);
        let near = client.open_path(now, info(lanes)).unwrap();
        let mut acceptor = Acceptor::new(registry::Config::default(), Config::default(), [2; 32], now);
        let hello = output(&mut client, now, near);
        assert_eq!(hello.len(), 1, "the handshake is on lane 0");
        let mut incoming = Incoming::new(now, info(lanes));
        assert!(
            incoming
                .handle_input(&mut BytesMut::from(&hello[0].1[..]))
                .unwrap()
        );
        let Routed::New { mut session, .. } = acceptor.route(now, &incoming) else {
            panic!("it makes a new one");
        };
        let far = session.accept_path(now, incoming).unwrap();
        let mut pair = Pair {
            now,
            client,
            server: *session,
            near,
            far,
            up: BTreeMap::new(),
            down: BTreeMap::new(),
            held: BTreeSet::new(),
            used: BTreeMap::new(),
        };
        pair.turns(4);
        assert_eq!(pair.client.state(), State::Connected);
        assert_eq!(pair.server.state(), State::Connected);
        pair
    }

    /// Each end sends what it has, and gets what came, the lanes with the highest numbers first.
    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            for (lane, bytes) in output(&mut self.client, self.now, self.near) {
                *self.used.entry(lane).or_default() += 1;
                self.up.entry(lane).or_default().extend_from_slice(&bytes);
            }
            for (lane, bytes) in output(&mut self.server, self.now, self.far) {
                self.down.entry(lane).or_default().extend_from_slice(&bytes);
            }
            self.now += std::time::Duration::from_millis(1);
            let now = self.now;
            for (lane, bytes) in self.up.iter_mut().rev() {
                if !self.held.contains(lane) {
                    give(&mut self.server, now, self.far, *lane, bytes).unwrap();
                }
            }
            for (lane, bytes) in self.down.iter_mut().rev() {
                give(&mut self.client, now, self.near, *lane, bytes).unwrap();
            }
            self.client.audit().unwrap();
            self.server.audit().unwrap();
            self.client.audit_in_flight().unwrap();
            for session in [&mut self.client, &mut self.server] {
                if session.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    session.handle_timeout(now);
                }
            }
        }
    }

    /// Has the acknowledgements that wait go out.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.now += std::time::Duration::from_millis(10);
            self.turns(1);
        }
    }

    fn stream(&mut self, bytes: &[u8]) -> StreamKey {
        let key = self.client.open(Kind::Uni, Class::BULK).unwrap();
        assert_eq!(self.client.write(key, bytes), Ok(bytes.len()));
        key
    }

    /// What the server has of each stream, in the order in which they were opened.
    fn received(&mut self, streams: &mut Vec<(StreamKey, Vec<u8>)>) {
        while let Some(key) = self.server.accept(Kind::Uni, Class::BULK) {
            streams.push((key, Vec::new()));
        }
        for (key, all) in streams {
            while let Ok(Read::Data(data)) = self.server.read(self.now, *key, usize::MAX) {
                all.extend_from_slice(&data);
            }
        }
    }

    fn lanes_opened(&self) -> usize {
        self.used.keys().filter(|lane| **lane > 0).count()
    }
}

fn give(
    session: &mut Session,
    now: Timestamp,
    path: PathKey,
    lane: u16,
    bytes: &mut BytesMut,
) -> Result<(), PathError> {
    match lane {
        0 => session.handle_input(now, path, bytes, 0),
        _ if !session.takes_lanes(path) => Ok(()),
        lane => session.handle_lane_input(now, path, lane.into(), bytes, 0),
    }
}

#[test]
fn small_things_share_a_lane_and_a_large_one_has_its_own() {
    let mut pair = Pair::new(20);
    for number in 0..8 {
        pair.stream(&[number; 50]);
    }
    pair.stream(&[9; 20_000]);
    pair.turns(1);
    assert_eq!(pair.lanes_opened(), 2, "{:?}", pair.used);
    pair.turns(3);
    let mut streams = Vec::new();
    pair.received(&mut streams);
    assert_eq!(streams.len(), 9);
    for (number, (_, all)) in streams.iter().take(8).enumerate() {
        assert_eq!(all[..], [number as u8; 50]);
    }
    assert!(streams[8].1[..] == [9; 20_000]);
}

#[test]
fn what_is_held_up_on_a_lane_holds_up_nothing_else() {
    let mut pair = Pair::new(20);
    pair.stream(&[1; 3000]);
    pair.turns(1);
    let first = *pair.used.keys().max().unwrap();
    pair.held.insert(first);
    // It was given before it was held: so that something waits on it, more is sent.
    for number in 2..30 {
        pair.stream(&[number; 3000]);
        pair.turns(1);
    }
    let mut streams = Vec::new();
    pair.received(&mut streams);
    let whole = streams.iter().filter(|(_, all)| all.len() == 3000).count();
    assert!(whole >= 27, "{whole} streams are whole");
    pair.held.clear();
    pair.settle();
    pair.received(&mut streams);
    assert!(streams.iter().all(|(_, all)| all.len() == 3000));
}

#[test]
fn lanes_are_used_again_once_all_is_acknowledged() {
    let mut pair = Pair::new(200);
    for number in 0..100 {
        pair.stream(&[number; 100]);
        pair.settle();
    }
    assert_eq!(pair.lanes_opened(), 1, "{:?}", pair.used);
    assert_eq!(pair.client.stats().buffered, 0);
}

#[test]
fn with_no_lane_to_be_had_the_first_carries_it() {
    let mut pair = Pair::new(2);
    pair.held.extend([1, 2]);
    for number in 0..10 {
        pair.stream(&[number; 5000]);
        pair.turns(1);
    }
    assert!(pair.lanes_opened() <= 2);
    let mut streams = Vec::new();
    pair.received(&mut streams);
    assert!(streams.iter().filter(|(_, all)| all.len() == 5000).count() >= 6);
    pair.held.clear();
    pair.settle();
    pair.received(&mut streams);
    assert!(streams.iter().all(|(_, all)| all.len() == 5000));
}

#[test]
fn a_lane_that_is_lost_is_sent_again_elsewhere() {
    let mut pair = Pair::new(20);
    pair.held.extend(1..=20);
    pair.stream(&[5; 9000]);
    pair.stream(&[6; 90]);
    pair.turns(2);
    let used: Vec<u16> = pair.used.keys().copied().filter(|lane| *lane > 0).collect();
    for lane in &used {
        pair.up.remove(lane);
        pair.client.handle_lane_lost(pair.now, pair.near, *lane);
        // Once is enough.
        pair.client.handle_lane_lost(pair.now, pair.near, *lane);
    }
    pair.held.clear();
    pair.used.clear();
    pair.settle();
    assert!(
        used.iter().all(|lane| !pair.used.contains_key(lane)),
        "a lost lane was used"
    );
    let mut streams = Vec::new();
    pair.received(&mut streams);
    assert!(streams[0].1[..] == [5; 9000] && streams[1].1[..] == [6; 90]);
    assert_eq!(pair.client.stats().buffered, 0);
}

#[test]
fn a_path_that_dies_gives_back_what_its_lanes_held() {
    let mut pair = Pair::new(20);
    pair.held.extend(1..=20);
    pair.stream(&[5; 9000]);
    pair.turns(2);
    pair.client
        .handle_path_closed(pair.now, pair.near, PathEnd::Reset);
    assert_eq!(pair.client.state(), State::Reconnecting);
    pair.client.audit().unwrap();
    pair.client.audit_in_flight().unwrap();
}

#[test]
fn records_before_the_handshake_wait() {
    let now = Timestamp::from_nanos(1);
    let mut client = Session::client(Config::default(), [1; 32], now);
    let near = client.open_path(now, info(4)).unwrap();
    assert!(!client.takes_lanes(near));
    let mut plain = Session::client(Config::default(), [1; 32], now);
    let near = plain.open_path(now, info(0)).unwrap();
    assert!(!plain.takes_lanes(near));
}

#[test]
fn datagrams_go_beside_the_lanes_and_messages_are_acknowledged() {
    let mut pair = Pair::new(20);
    pair.client.set_lanes(
        pair.near,
        LaneRoom {
            lanes: 20,
            max_datagram: 1200,
            window: 0,
        },
    );
    let now = pair.now;
    pair.client.send_datagram(now, "raw".into()).unwrap();
    let delivery = Delivery::Unreliable {
        ttl: std::time::Duration::from_secs(5),
    };
    let sent = pair
        .client
        .send_message(now, Class::EVENTS, delivery, "message".into(), true);
    let id = sent.unwrap();
    pair.client.send_datagram(now, vec![7; 1190].into()).unwrap();
    let mut beside = Vec::new();
    while let Some(datagram) = pair.client.poll_datagram(now, pair.near, 1200) {
        beside.push(datagram);
    }
    assert_eq!(beside.len(), 2, "the third is too long");
    for datagram in beside.iter().chain(&beside) {
        // Once more is no more.
        pair.server
            .handle_datagram_input(now, pair.far, datagram)
            .unwrap();
    }
    pair.settle();
    assert_eq!(pair.server.recv_datagram().unwrap(), "raw");
    assert_eq!(pair.server.recv_datagram().unwrap().len(), 1190);
    assert_eq!(pair.server.recv_datagram(), None);
    let told = std::iter::from_fn(|| pair.client.poll_event()).find_map(|event| match event {
        Event::Outcome { id: of, outcome } if of == id => Some(outcome),
        _ => None,
    });
    assert_eq!(told, Some(Outcome::Acknowledged));
    pair.client.audit().unwrap();
}

#[test]
fn a_message_beside_the_lanes_of_a_path_that_dies_goes_again() {
    let mut pair = Pair::new(20);
    pair.client.set_lanes(
        pair.near,
        LaneRoom {
            lanes: 20,
            max_datagram: 1200,
            window: 0,
        },
    );
    let now = pair.now;
    let delivery = Delivery::Unreliable {
        ttl: std::time::Duration::from_secs(5),
    };
    pair.client
        .send_message(now, Class::EVENTS, delivery, "message".into(), false)
        .unwrap();
    assert!(pair.client.poll_datagram(now, pair.near, 1200).is_some());
    assert!(pair.client.poll_datagram(now, pair.near, 1200).is_none());
    pair.client.handle_path_closed(now, pair.near, PathEnd::Reset);
    pair.client.audit().unwrap();
    assert!(pair.client.datagrams.has_outgoing());
}

// ---- bad input ----

#[test]
fn what_is_no_datagram_beside_the_lanes_ends_the_path() {
    for bytes in [&b"\x0a\x01"[..], &b"\x28"[..], &b""[..]] {
        let mut pair = Pair::new(20);
        let result = pair.server.handle_datagram_input(pair.now, pair.far, bytes);
        assert!(result.is_err(), "{bytes:?}");
    }
}

fn refused(lane: u64, frames: &[Frame<'_>]) -> PathError {
    let mut pair = Pair::new(20);
    let mut bytes = BytesMut::from(&record(frames, false)[..]);
    pair.server
        .handle_lane_input(pair.now, pair.far, lane, &mut bytes, 0)
        .unwrap_err()
}

#[test]
fn a_lane_that_there_cannot_be_ends_the_path() {
    for lane in [0, u64::from(MAX_LANES) + 1, u64::MAX] {
        let error = refused(lane, &[Frame::Ping { seq: 1 }]);
        assert!(matches!(error, PathError::Misplaced { .. }), "{error:?}");
        assert_eq!(error.code(), ErrorCode::PROTOCOL);
    }
}

#[test]
fn a_frame_that_belongs_on_lane_0_ends_the_path() {
    for frame in [
        Frame::Ping { seq: 1 },
        Frame::AckHere {
            count: 1,
            delay_us: 0,
        },
        Frame::MaxData {
            class: Class::BULK,
            value: 1 << 40,
        },
        Frame::Close { code: 0, reason: "" },
    ] {
        let error = refused(3, &[frame]);
        assert!(matches!(error, PathError::Misplaced { lane: 3, .. }), "{error:?}");
    }
}

/// NUMBERS "optimistic acknowledgement".
#[test]
fn an_acknowledgement_of_what_no_lane_has_sent_ends_the_path() {
    for (lane, count) in [(1, 1), (500, 1), (u64::MAX, u64::MAX)] {
        let mut pair = Pair::new(20);
        let counts = [LaneCount { lane, count }];
        let frame = Frame::AckLanes {
            delay_us: 0,
            counts: Counts::new(&counts).unwrap(),
        };
        let mut bytes = BytesMut::from(&record(&[frame], false)[..]);
        let error = pair
            .server
            .handle_input(pair.now, pair.far, &mut bytes, 0)
            .unwrap_err();
        assert!(matches!(error, PathError::AckOfUnsent { .. }), "{error:?}");
    }
}

#[test]
fn many_lanes_opened_by_the_peer_cost_little() {
    let mut pair = Pair::new(20);
    let frame = Frame::Stream {
        id: StreamId::new(Side::Client, Kind::Uni, Class::BULK, 0).unwrap(),
        offset: None,
        fin: false,
        data: b"x",
    };
    let mut bytes = BytesMut::from(&record(&[frame], false)[..]);
    pair.server
        .handle_lane_input(pair.now, pair.far, MAX_LANES.into(), &mut bytes, 0)
        .unwrap();
    pair.server.audit().unwrap();
}
