//! Rules of PROTOCOL that only show at its edges.

use bytes::Bytes;

use super::super::*;
use super::basics::{pattern, read_all};
use super::{Options, World};
use crate::handshake::Security;
use crate::wire::{
    Class, Frame, HandshakeKind, Kind, OutBuffer, RecordBuilder, RecordLimits, StreamId, split_record,
};

fn encrypted() -> PathInfo {
    PathInfo::new("mem://test", "mem", Security::Encrypted)
}

fn ordered(session: &mut Session, now: Timestamp, class: Class) {
    session
        .send_message(
            now,
            class,
            Delivery::Ordered,
            Bytes::from_static(b"message"),
            false,
        )
        .expect("the queue has room");
}

/// PROTOCOL 3.1: without CRC, data that comes in one read with CONFIRM waits for nothing.
#[test]
fn data_behind_confirm_is_taken_with_it() {
    let mut world = World::new(Options::default());
    let now = world.now;
    ordered(&mut world.client, now, Class::EVENTS);
    let link = world.connect_with(encrypted()).expect("a path opens");
    let delay = world.links[link].delay;
    world.run_until(now + delay * 3);
    let now = world.now;
    let message = world
        .server()
        .recv_message(now, Class::EVENTS)
        .expect("well framed");
    assert_eq!(message.map(|message| message.payload), Some("message".into()));
}

/// PROTOCOL 3.1: a handshake may be larger than the records that an end takes later.
#[test]
fn small_records_do_not_shrink_the_handshake() {
    let mut options = Options::default();
    options.client.params.max_record = 1200;
    options.client.params.token = vec![1; 4096];
    options.server.params.max_record = 1200;
    options.server.params.token = vec![2; 4096];
    options.client.early_data = true;
    let mut world = World::new(options);
    let key = world
        .client
        .open(Kind::Bi, Class::REQUESTS)
        .expect("early credit");
    let data = pattern(10_000, 1);
    assert_eq!(world.client.write(key, &data), Ok(data.len()));
    world.connect();
    world.settle();
    assert_eq!(world.server().state(), State::Connected);
    let now = world.now;
    let there = world
        .server()
        .accept(Kind::Bi, Class::REQUESTS)
        .expect("opened early");
    assert_eq!(read_all(world.server(), now, there).0, data);
    assert_eq!(world.client_events.iter().filter(|e| is_down(e)).count(), 0);
}

fn is_down(event: &Event) -> bool {
    matches!(event, Event::PathDown { .. })
}

/// PROTOCOL 5.6: nothing but requests goes before WELCOME.
#[test]
fn messages_and_datagrams_are_no_early_data() {
    let mut options = Options::default();
    options.client.early_data = true;
    let mut world = World::new(options);
    let now = world.now;
    ordered(&mut world.client, now, Class::REQUESTS);
    world
        .client
        .send_datagram(now, Bytes::from_static(b"datagram"))
        .expect("the queue has room");
    let path = world.client.open_path(now, encrypted()).expect("a path opens");
    let mut out = OutBuffer::new();
    world.client.poll_transmit(now, path, &mut out);
    let (mut input, mut scratch) = (out.chunk(), Vec::new());
    let record = split_record(&mut input, &RecordLimits::HANDSHAKE, &mut scratch);
    let record = record.expect("a good record").expect("a whole record");
    let hello = record.frames().next().expect("a frame").expect("a good one");
    assert!(matches!(
        hello,
        Frame::Handshake {
            kind: HandshakeKind::Hello,
            ..
        }
    ));
    assert!(input.is_empty(), "{} bytes behind HELLO", input.len());
}

/// The same through a whole session: they arrive once WELCOME has come.
#[test]
fn what_is_no_early_data_goes_after_welcome() {
    let mut options = Options::default();
    options.client.early_data = true;
    let mut world = World::new(options);
    let now = world.now;
    ordered(&mut world.client, now, Class::REQUESTS);
    world
        .client
        .send_datagram(now, Bytes::from_static(b"datagram"))
        .expect("the queue has room");
    world.connect();
    world.settle();
    let now = world.now;
    let server = world.server();
    let message = server.recv_message(now, Class::REQUESTS).expect("well framed");
    assert_eq!(message.map(|message| message.payload), Some("message".into()));
    assert_eq!(server.recv_datagram(), Some("datagram".into()));
}

/// PROTOCOL 5.6: the server holds the client to it.
#[test]
fn an_early_ordered_message_ends_the_session() {
    let mut world = World::new(Options::default());
    world.connect();
    let now = world.now;
    world.run_until(now);
    let mut out = OutBuffer::new();
    let mut builder = RecordBuilder::begin(&mut out, 1200, true);
    builder.frame(&Frame::Stream {
        id: StreamId::ordered(Side::Client, Class::REQUESTS),
        offset: None,
        fin: false,
        data: b"\x01x",
    });
    builder.finish();
    world.inject_up(0, out.chunk());
    world.settle();
    let code = world.server_events.iter().find_map(|event| match event {
        Event::State {
            to: State::Failed,
            cause: Cause::PeerMisbehaved { code, .. },
            ..
        } => Some(*code),
        _ => None,
    });
    assert_eq!(code, Some(ErrorCode::LIMIT));
}

/// PROTOCOL 6.2: two paths that join at once do not fence each other.
#[test]
fn paths_that_join_together_stay_together() {
    let mut world = World::connected(Options::default());
    world.connect();
    world.connect();
    world.settle();
    assert_eq!(world.client.paths().count(), 3);
    assert_eq!(world.server().paths().count(), 3);
    assert_eq!(
        world.server_events.iter().find(|event| is_down(event)),
        None,
        "no path was fenced"
    );
}

/// PROTOCOL 5.5: each end acknowledges by the other's bound on bytes in flight.
#[test]
fn welcome_brings_the_bound_on_bytes_in_flight() {
    let mut options = Options::default();
    options.server.params.in_flight = 16_384;
    options.client.params.in_flight = 131_072;
    let world = World::connected(options);
    let bounds = |session: &Session| -> Vec<u64> {
        session
            .paths
            .iter()
            .map(|(_, path)| path.peer_in_flight)
            .collect()
    };
    assert_eq!(bounds(&world.client), [16_384]);
    assert_eq!(bounds(world.server.as_ref().expect("it stands")), [131_072]);
}

/// PROTOCOL 7.4: a message as long as the receiver takes gets through, whatever the windows are.
#[test]
fn an_unordered_message_longer_than_the_window_arrives() {
    let mut world = World::connected(Options::default());
    let data = Bytes::from(pattern(700_000, 2));
    let now = world.now;
    world
        .client
        .send_message(now, Class::EVENTS, Delivery::Unordered, data.clone(), false)
        .expect("the queue has room");
    world.run_for(std::time::Duration::from_secs(5));
    let now = world.now;
    let message = world
        .server()
        .recv_message(now, Class::EVENTS)
        .expect("no misbehaviour");
    assert_eq!(message.map(|message| message.payload.len()), Some(data.len()));
}
