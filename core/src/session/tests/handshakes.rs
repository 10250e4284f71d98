//! How sessions begin, in one round trip and with early data, and what copies of a HELLO are good for
//! (issue "Bad input"; PROTOCOL 5).

use std::time::Duration;

use super::super::*;
use super::basics::read_all;
use super::{Options, World, body, record, records};
use crate::handshake::{Hello, Params, Security};
use crate::server::{Acceptor, Routed, registry};
use crate::wire::{Class, Frame, HandshakeKind, Kind, RejectCode, StreamId};

pub(super) fn plain() -> PathInfo {
    PathInfo::new("mem://test", "mem", Security::Plain)
}

pub(super) fn encrypted() -> PathInfo {
    PathInfo::new("mem://tls", "mem", Security::Encrypted)
}

/// The handshake messages in what was tapped.
pub(super) fn messages(bytes: &[u8]) -> Vec<(HandshakeKind, Vec<u8>)> {
    let mut found = Vec::new();
    for record in records(bytes) {
        let mut rest = body(&record);
        if let Ok(Some(Frame::Handshake { kind, body })) = Frame::decode(&mut rest) {
            found.push((kind, body.to_vec()));
        }
    }
    found
}

pub(super) fn handshake(kind: HandshakeKind, body: &[u8]) -> Vec<u8> {
    record(&[Frame::Handshake { kind, body }], true)
}

pub(super) fn reject_of(world: &World, link: usize) -> Option<RejectCode> {
    world.links[link].rejected
}

/// Moves a few bytes each way, so that the session is known to work.
pub(super) fn exchange(world: &mut World) {
    let key = world.client.open(Kind::Bi, Class::EVENTS).expect("credit");
    world.client.write(key, b"ping").expect("open");
    world.client.finish(key).expect("open");
    world.settle();
    let now = world.now;
    let server = world.server();
    let there = server.accept(Kind::Bi, Class::EVENTS).expect("it arrived");
    assert_eq!(read_all(server, now, there), (b"ping".to_vec(), true));
    server.write(there, b"pong").expect("open");
    server.finish(there).expect("open");
    server.release(there);
    world.settle();
    let now = world.now;
    assert_eq!(read_all(&mut world.client, now, key), (b"pong".to_vec(), true));
    world.client.release(key);
    world.settle();
}

pub(super) fn early() -> Options {
    let client = Config {
        early_data: true,
        ..Config::default()
    };
    Options {
        client,
        ..Options::default()
    }
}

// ---- establishing ----

/// PROTOCOL 5.6: early data is there half a round trip after it was written.
#[test]
fn early_data_arrives_with_the_first_flight() {
    let mut world = World::new(early());
    let key = world
        .client
        .open(Kind::Bi, Class::REQUESTS)
        .expect("early credit");
    assert_eq!(
        world.client.write(key, &[1; 20_000]),
        Ok(16_384),
        "a fixed credit"
    );
    world.connect();
    world.run_until(world.now + world.links[0].delay);
    let now = world.now;
    let server = world.server();
    assert_eq!(server.state(), State::Connecting);
    let there = server.accept(Kind::Bi, Class::REQUESTS).expect("opened early");
    assert_eq!(read_all(server, now, there).0, [1; 16_384]);
    world.settle();
    assert_eq!(world.client.write(key, &[2; 10]), Ok(10), "the agreed credit");
    world.settle();
    let now = world.now;
    assert_eq!(read_all(world.server(), now, there).0, [2; 10]);
}

/// PROTOCOL 5.6: the first path dies before WELCOME came, the HELLO is repeated on another: the early
/// data is there once, whether it had arrived or not.
#[test]
fn early_data_is_delivered_once_when_its_path_dies() {
    for arrived in [false, true] {
        let mut world = World::new(early());
        let key = world
            .client
            .open(Kind::Bi, Class::REQUESTS)
            .expect("early credit");
        world.client.write(key, b"pay once").expect("early");
        world.client.finish(key).expect("open");
        let first = world.connect();
        world.run_until(world.now + world.links[first].delay / 2);
        if arrived {
            world.run_until(world.now + world.links[first].delay / 2);
            assert!(world.server.is_some());
        }
        world.cut(first);
        assert_eq!(world.client.state(), State::Disconnected);
        world.connect();
        world.settle();
        let now = world.now;
        assert_eq!(world.client.state(), State::Connected);
        let server = world.server();
        let there = server.accept(Kind::Bi, Class::REQUESTS).expect("opened");
        assert_eq!(read_all(server, now, there), (b"pay once".to_vec(), true));
        assert_eq!(
            server.accept(Kind::Bi, Class::REQUESTS),
            None,
            "not a second time"
        );
        exchange(&mut world);
    }
}

/// PROTOCOL 5.6: datagrams and messages of other classes wait for WELCOME.
#[test]
fn only_streams_of_requests_go_early() {
    let mut world = World::tapped(early());
    world
        .client
        .send_datagram(world.now, "now".into())
        .expect("queued");
    let sent = world
        .client
        .send_message(world.now, Class::EVENTS, Delivery::Ordered, "later".into(), false);
    sent.expect("queued");
    let link = world.connect();
    world.run_until(world.now + world.links[link].delay);
    assert_eq!(records(&world.links[link].tapped_up).len(), 1, "HELLO alone");
    world.settle();
    assert_eq!(world.server().recv_datagram().as_deref(), Some(&b"now"[..]));
    let now = world.now;
    let message = world.server().recv_message(now, Class::EVENTS).expect("sound");
    assert_eq!(message.expect("there").payload, "later");
}

/// PROTOCOL 5.5: a server with hardly any credit takes early data all the same.
#[test]
fn a_server_grants_the_credit_of_early_data() {
    let mut options = early();
    options.server.params.max_data = [10; 8];
    options.server.params.max_stream_data = [10; 8];
    let mut world = World::new(options);
    let key = world
        .client
        .open(Kind::Bi, Class::REQUESTS)
        .expect("early credit");
    assert_eq!(world.client.write(key, &[1; 20_000]), Ok(16_384));
    world.connect();
    world.settle();
    assert_eq!(world.client.state(), State::Connected);
}

/// PROTOCOL 5.6: more early data than its credit ends the unconfirmed session.
#[test]
fn early_data_is_bounded() {
    let id = |index| StreamId::new(Side::Client, Kind::Bi, Class::REQUESTS, index).expect("small");
    let stream = |id, data| Frame::Stream {
        id,
        offset: None,
        fin: false,
        data,
    };
    let data = [0; 8200];
    let bulk = StreamId::new(Side::Client, Kind::Bi, Class::BULK, 0).expect("small");
    let attacks = [
        vec![stream(id(0), &data), stream(id(1), &data)],
        vec![stream(id(8), &data[..1])],
        vec![stream(bulk, &data[..1])],
    ];
    for frames in attacks {
        let mut world = World::new(Options::default());
        let link = world.connect();
        world.stall(link, false, true);
        world.run_for(Duration::from_millis(1));
        world.take_client_end(link);
        for frame in frames {
            let bytes = record(&[frame], true);
            world.inject_up(link, &bytes);
        }
        world.run_for(Duration::from_millis(1));
        assert_eq!(world.server().state(), State::Failed);
        assert_eq!(world.server().stats().paths, 0);
    }
}

/// PROTOCOL 5.1: one HELLO raced on two paths makes one session, and both paths serve.
#[test]
fn a_hello_raced_on_two_paths_is_one_session() {
    for (slow, welcome) in [(0, false), (1, false), (0, true)] {
        let mut world = World::new(if welcome { Options::default() } else { early() });
        if let Ok(key) = world.client.open(Kind::Bi, Class::REQUESTS) {
            world.client.write(key, b"once").expect("early");
        }
        world.connect();
        world.connect();
        if welcome {
            // Both HELLOs are there; the WELCOME of the path that made the session takes longer.
            world.run_for(world.links[slow].delay);
            world.links[slow].delay = Duration::from_millis(20);
            for (at, _) in &mut world.links[slow].down.chunks {
                *at += Duration::from_millis(20);
            }
        } else {
            world.links[slow].delay = Duration::from_micros(900);
        }
        world.settle();
        if !welcome {
            let now = world.now;
            let server = world.server();
            let there = server.accept(Kind::Bi, Class::REQUESTS).expect("opened");
            assert_eq!(read_all(server, now, there).0, b"once");
            assert_eq!(server.accept(Kind::Bi, Class::REQUESTS), None);
        }
        // A first path that comes second after all had early data behind its HELLO, and is given up.
        let paths = if slow == 0 && !welcome { 1 } else { 2 };
        assert_eq!(
            (world.server().stats().paths, world.client.stats().paths),
            (paths, paths)
        );
        exchange(&mut world);
        let fast = 1 - slow;
        if paths == 2 {
            world.cut(fast);
            exchange(&mut world);
        }
    }
}

/// PROTOCOL 5.1, DESIGN "HELLO is idempotent": a listener who repeats a HELLO first sits on the path that
/// made the session. It can neither speak nor listen there once the client has proven itself.
#[test]
fn a_copied_hello_gives_its_copier_nothing() {
    let mut world = World::tapped(Options::default());
    let victim = world.connect();
    world.links[victim].delay = Duration::from_millis(10);
    world.run_for(Duration::from_millis(1));
    let hello = records(&world.links[victim].tapped_up)[0].clone();
    // The copy names another path, and overtakes.
    let (_, mut copy) = messages(&hello).remove(0);
    copy[0] = 9;
    let thief = world.stranger(plain());
    let bytes = handshake(HandshakeKind::Hello, &copy);
    world.inject_up(thief, &bytes);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.server().stats().paths, 1, "the copy made the session");
    let stream = world.server().open(Kind::Uni, Class::EVENTS).expect("credit");
    world.server().write(stream, b"for the client").expect("open");
    world.run_for(Duration::from_millis(1));
    // The thief claims to have received it.
    let bytes = record(
        &[Frame::AckHere {
            count: 2,
            delay_us: 0,
        }],
        true,
    );
    world.inject_up(thief, &bytes);
    world.settle();
    assert_eq!(world.client.state(), State::Connected);
    assert_eq!(
        world.server().active_path(),
        world.links[victim].server,
        "not the thief's"
    );
    let now = world.now;
    let there = world
        .client
        .accept(Kind::Uni, Class::EVENTS)
        .expect("it came here too");
    assert_eq!(read_all(&mut world.client, now, there).0, b"for the client");
    let bytes = record(
        &[Frame::Close {
            code: 0,
            reason: "goodbye",
        }],
        true,
    );
    world.inject_up(thief, &bytes);
    world.settle();
    assert_eq!(world.server().state(), State::Connected);
    assert_eq!(world.server().stats().paths, 1, "only the thief's path ended");
    exchange(&mut world);
}

/// PROTOCOL 6.1: copies of a HELLO use up no path ids that the client will need.
#[test]
fn copied_hellos_burn_no_path_ids() {
    let mut world = World::tapped(Options::default());
    let victim = world.connect();
    world.links[victim].delay = Duration::from_millis(10);
    world.run_for(Duration::from_millis(1));
    let (_, hello) = messages(&world.links[victim].tapped_up).remove(0);
    let hello = Hello::decode(&hello).expect("sound");
    world.run_for(Duration::from_millis(10));
    for id in [1, 2, 5000, 1 << 32] {
        let mut copy = Vec::new();
        hello.on_path(id).encode(&mut copy);
        let thief = world.stranger(plain());
        let bytes = handshake(HandshakeKind::Hello, &copy);
        world.inject_up(thief, &bytes);
        world.run_for(Duration::from_micros(1));
        world.cut(thief);
    }
    world.settle();
    world.cut(victim);
    let next = world.connect();
    world.settle();
    assert_eq!(reject_of(&world, next), None);
    exchange(&mut world);
}

/// PROTOCOL 5.1: a HELLO that a listener recorded is of no use once the session is confirmed.
#[test]
fn a_replayed_hello_is_told_to_join() {
    let mut world = World::tapped(Options::default());
    let link = world.connect();
    world.settle();
    let hello = records(&world.links[link].tapped_up)[0].clone();
    let thief = world.stranger(plain());
    world.inject_up(thief, &hello);
    world.settle();
    assert_eq!(reject_of(&world, thief), Some(RejectCode::USE_JOIN));
    exchange(&mut world);
    let now = world.now;
    world.client.close(now, ErrorCode::NONE, "");
    world.settle();
    let thief = world.stranger(plain());
    world.inject_up(thief, &hello);
    world.settle();
    assert_eq!(reject_of(&world, thief), Some(RejectCode::CLOSED));
}

/// PROTOCOL 3.2, 5: what follows the last handshake record in the same read is taken in, with the limits
/// that hold from there on.
#[test]
fn records_behind_the_handshake_need_no_second_read() {
    let mut client = Config::default();
    client.params.crc = Some(false);
    let mut server = client.clone();
    server.params.max_record = 60_000;
    let mut world = World::new(Options {
        client,
        server,
        seed: 1,
    });
    let link = world.connect();
    world.run_for(Duration::from_micros(700));
    // CONFIRM and a long record without checksum leave together.
    let key = world.client.open(Kind::Uni, Class::BULK);
    assert_eq!(key, Err(OpenError::Exhausted), "no WELCOME yet");
    let sent = world.client.send_message(
        world.now,
        Class::BULK,
        Delivery::Ordered,
        vec![7; 50_000].into(),
        false,
    );
    sent.expect("queued");
    world.links[link].rate = 0;
    world.run_for(Duration::from_millis(2));
    let now = world.now;
    let message = world.server().recv_message(now, Class::BULK).expect("sound");
    assert_eq!(
        message.expect("there without any further input").payload.len(),
        50_000
    );
}

/// PROTOCOL 3.1: until a path is live its records may be as long as a handshake's, whatever the session
/// agrees on.
#[test]
fn small_records_do_not_cut_the_handshake() {
    let mut options = early();
    for config in [&mut options.client, &mut options.server] {
        config.params.max_record = 1200;
        config.params.token = vec![1; 4000];
    }
    let mut world = World::new(options);
    let key = world
        .client
        .open(Kind::Bi, Class::REQUESTS)
        .expect("early credit");
    world.client.write(key, &[1; 16_000]).expect("early");
    world.connect();
    world.settle();
    assert_eq!(world.client.state(), State::Connected);
    exchange(&mut world);
}

// ---- many ----

fn hello(n: u32) -> Vec<u8> {
    let mut nonce = [0; 16];
    nonce[..4].copy_from_slice(&n.to_le_bytes());
    let hello = Hello::new(0, nonce, [9; 32], Params::default()).expect("in range");
    let mut body = Vec::new();
    hello.encode(&mut body);
    handshake(HandshakeKind::Hello, &body)
}

/// Issue "Bad input": 10,000 HELLOs that are never confirmed; a bounded number is held, and none after
/// 10 s. Honest clients come in again then.
#[test]
fn ten_thousand_unconfirmed_hellos() {
    let start = Timestamp::from_nanos(1_000_000_000);
    let config = registry::Config::default();
    let bound = config.max_unconfirmed;
    let mut acceptor = Acceptor::new(config, Config::default(), [3; 32], start);
    let mut sessions = Vec::new();
    let mut refused = 0;
    for n in 0..10_000 {
        let now = start + Duration::from_micros(u64::from(n) * 100);
        let mut incoming = Incoming::new(now, plain());
        let mut bytes = bytes::BytesMut::from(&hello(n)[..]);
        assert_eq!(incoming.handle_input(&mut bytes), Ok(true));
        match acceptor.route(now, &incoming) {
            Routed::New { token, mut session } => {
                session.accept_path(now, incoming).expect("the first path");
                sessions.push((token, session));
            }
            Routed::Reject(rejected) => {
                assert_eq!(rejected.code, RejectCode::BUSY);
                refused += 1;
            }
            Routed::Existing { .. } => panic!("all nonces differ"),
        }
    }
    assert_eq!((sessions.len(), refused), (bound, 10_000 - bound));
    assert_eq!(acceptor.counts(), (bound, bound));
    let late = start + Duration::from_secs(11);
    acceptor.handle_timeout(late);
    let mut expired = 0;
    while let Some(token) = acceptor.poll_expired() {
        let place = sessions
            .iter()
            .position(|(known, _)| *known == token)
            .expect("known");
        let (_, mut session) = sessions.swap_remove(place);
        // The session says so too, without the registry's word.
        session.handle_timeout(late);
        assert_eq!(session.state(), State::Failed);
        assert_eq!(session.poll_timeout(), None);
        expired += 1;
    }
    assert_eq!((expired, acceptor.counts()), (bound, (0, 0)));
    let mut incoming = Incoming::new(late, plain());
    let mut bytes = bytes::BytesMut::from(&hello(20_000)[..]);
    assert_eq!(incoming.handle_input(&mut bytes), Ok(true));
    assert!(matches!(acceptor.route(late, &incoming), Routed::New { .. }));
}
