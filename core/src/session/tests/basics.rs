//! A session over sound links.

use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::world::{body, records};
use super::{Options, World};
use crate::wire::{Class, Frame, Frames, Kind};

/// Reads everything that is there.
pub(super) fn read_all(session: &mut Session, now: Timestamp, key: StreamKey) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match session.read(now, key, usize::MAX) {
            Ok(Read::Data(data)) => bytes.extend_from_slice(&data),
            Ok(Read::Blocked) => return (bytes, false),
            Ok(Read::Finished) => return (bytes, true),
            Err(error) => panic!("read: {error}"),
        }
    }
}

pub(super) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// PROTOCOL 5: one round trip, and both ends are connected.
#[test]
fn a_session_stands_after_one_round_trip() {
    let mut world = World::new(Options::default());
    let started = world.now;
    world.connect();
    let delay = world.links[0].delay;
    world.run_until(started + delay * 2);
    assert_eq!(world.client.state(), State::Connected);
    world.run_until(started + delay * 3);
    assert_eq!(world.server().state(), State::Connected);
}

/// REQUIREMENTS S5: the client's path through the table.
#[test]
fn the_lifecycle_is_reported_with_causes() {
    let mut world = World::connected(Options::default());
    world.cut(0);
    world.settle();
    world.connect();
    world.settle();
    world.client.close(world.now, ErrorCode::NONE, "done");
    world.settle();
    let states: Vec<(State, State)> = world
        .client_events
        .iter()
        .filter_map(|event| match event {
            Event::State { from, to, .. } => Some((*from, *to)),
            _ => None,
        })
        .collect();
    assert_eq!(
        states,
        [
            (State::Disconnected, State::Connecting),
            (State::Connecting, State::Connected),
            (State::Connected, State::Reconnecting),
            (State::Reconnecting, State::Connected),
            (State::Connected, State::Closed),
        ]
    );
    assert_eq!(world.server().state(), State::Closed);
}

#[test]
fn a_request_and_its_answer() {
    let mut world = World::connected(Options::default());
    let key = world.client.open(Kind::Bi, Class::REQUESTS).expect("credit");
    assert_eq!(world.client.write(key, b"question"), Ok(8));
    world.client.finish(key).expect("open");
    world.settle();
    let now = world.now;
    let server = world.server();
    let there = server.accept(Kind::Bi, Class::REQUESTS).expect("opened");
    assert_eq!(read_all(server, now, there), (b"question".to_vec(), true));
    assert_eq!(server.write(there, b"answer"), Ok(6));
    server.finish(there).expect("open");
    server.release(there);
    world.settle();
    let now = world.now;
    assert_eq!(read_all(&mut world.client, now, key), (b"answer".to_vec(), true));
    world.client.release(key);
    world.settle();
    assert_eq!(
        world.client.stream_count(),
        0,
        "both ends forget a finished stream"
    );
    assert_eq!(world.server().stream_count(), 0);
}

/// REQUIREMENTS W5: much more than any window goes through as the reader reads.
#[test]
fn bulk_both_ways_is_intact() {
    let mut world = World::connected(Options::default());
    let data = pattern(8 << 20, 3);
    let key = world.client.open(Kind::Bi, Class::BULK).expect("credit");
    let (mut up, mut down) = (0, 0);
    let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
    let mut there = None;
    for _ in 0..20_000 {
        if up < data.len() {
            up += world.client.write(key, &data[up..]).expect("open");
            if up == data.len() {
                world.client.finish(key).expect("open");
            }
        }
        world.run_for(Duration::from_millis(2));
        let now = world.now;
        got_down.extend(read_all(&mut world.client, now, key).0);
        let server = world.server();
        there = there.or_else(|| server.accept(Kind::Bi, Class::BULK));
        if let Some(there) = there {
            got_up.extend(read_all(server, now, there).0);
            if down < data.len() {
                down += server.write(there, &data[down..]).expect("open");
                if down == data.len() {
                    server.finish(there).expect("open");
                }
            }
        }
        if got_up.len() == data.len() && got_down.len() == data.len() {
            break;
        }
    }
    assert!(
        got_up == data && got_down == data,
        "{} up, {} down",
        got_up.len(),
        got_down.len()
    );
}

/// DESIGN "Heartbeats": two idle sessions exchange nothing but heartbeats.
#[test]
fn idle_sessions_exchange_only_heartbeats() {
    let mut world = World::connected(Options::default());
    world.run_for(Duration::from_secs(1));
    let before = world.links[0].carried();
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.links[0].carried(), before, "silence between heartbeats");
    world.run_for(Duration::from_secs(57));
    let heartbeats = 12 * 2;
    let spent = world.links[0].carried() - before;
    // A heartbeat is a PING and its PONG: a record header, a checksum, a few bytes, an acknowledgement each.
    assert!(spent <= heartbeats * 2 * 24, "{spent} bytes in a minute");
    assert!(spent > 0);
    assert_eq!(world.client.state(), State::Connected);
}

/// A path whose peer is silent is found without any application traffic (REQUIREMENTS S6).
#[test]
fn silence_is_found_by_heartbeats_alone() {
    let mut world = World::connected(Options::default());
    let second = world.connect();
    world.settle();
    world.stall(0, true, true);
    world.run_for(Duration::from_secs(10));
    assert!(
        world
            .client_events
            .iter()
            .any(|event| matches!(event, Event::PathSuspect(_)))
    );
    assert!(world.client_events.iter().any(|event| matches!(
        event,
        Event::PathDown {
            error: Some(PathError::Silent),
            ..
        }
    )));
    assert_eq!(world.client.active_path(), world.links[second].client);
}

/// REQUIREMENTS S7: what is open finishes, new work is refused, then the session closes.
#[test]
fn drain_finishes_what_is_open() {
    let mut world = World::connected(Options::default());
    let key = world.client.open(Kind::Bi, Class::REQUESTS).expect("credit");
    world.client.write(key, b"slow").expect("open");
    world.settle();
    let now = world.now;
    world.server().drain(now, "tcp://elsewhere:1");
    world.settle();
    assert!(world.client_events.iter().any(|event| matches!(
        event,
        Event::GoAway { address, .. } if address == "tcp://elsewhere:1"
    )));
    assert_eq!(
        world.client.open(Kind::Bi, Class::REQUESTS),
        Err(OpenError::Draining)
    );
    let now = world.now;
    let sent = world
        .client
        .send_message(now, Class::EVENTS, Delivery::Ordered, Bytes::new(), false);
    assert_eq!(sent, Err(SendError::Draining));
    assert_eq!(world.client.state(), State::Connected, "a request is still open");
    world.client.finish(key).expect("open");
    world.settle();
    let now = world.now;
    let server = world.server();
    let there = server.accept(Kind::Bi, Class::REQUESTS).expect("opened");
    assert_eq!(read_all(server, now, there), (b"slow".to_vec(), true));
    server.write(there, b"done").expect("open");
    server.finish(there).expect("open");
    server.release(there);
    world.settle();
    let now = world.now;
    assert_eq!(read_all(&mut world.client, now, key), (b"done".to_vec(), true));
    world.client.release(key);
    world.settle();
    assert_eq!(world.client.state(), State::Closed);
    assert_eq!(world.server().state(), State::Closed);
}

/// REQUIREMENTS W6: an urgent stream does not wait behind a bulk one.
#[test]
fn urgent_data_overtakes_bulk() {
    let mut world = World::connected(Options::default());
    world.links[0].rate = 1_250_000;
    world.links[0].delay = Duration::from_millis(20);
    let bulk = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    let data = pattern(4 << 20, 9);
    let mut written = 0;
    let mut there = None;
    for _ in 0..100 {
        written += world.client.write(bulk, &data[written..]).expect("open");
        world.run_for(Duration::from_millis(20));
        let now = world.now;
        let server = world.server();
        there = there.or_else(|| server.accept(Kind::Uni, Class::BULK));
        if let Some(there) = there {
            read_all(server, now, there);
        }
    }
    let sent = world.now;
    let urgent = world.client.open(Kind::Uni, Class::CONTROL).expect("credit");
    world.client.write(urgent, &[1; 1024]).expect("open");
    let mut waited = None;
    for _ in 0..400 {
        written += world.client.write(bulk, &data[written..]).expect("open");
        world.run_for(Duration::from_millis(1));
        let now = world.now;
        let server = world.server();
        if let Some(there) = there {
            read_all(server, now, there);
        }
        if server.accept(Kind::Uni, Class::CONTROL).is_some() {
            waited = Some(now - sent);
            break;
        }
    }
    // NUMBERS: an urgent KiB behind bulk at 10 Mbit/s arrives within a round trip and 50 ms.
    let waited = waited.expect("the urgent message arrives");
    assert!(waited <= Duration::from_millis(40 + 50), "{waited:?}");
}

/// What a record of its own could hold goes in one frame, so that its receiver need not put it together.
#[test]
fn what_fits_a_record_is_not_cut() {
    let mut world = World::tapped(Options::default());
    world.connect();
    world.settle();
    world.links[0].tapped_up.clear();
    let data = pattern(5000, 3);
    for _ in 0..20 {
        let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
        assert_eq!(world.client.write(key, &data), Ok(data.len()));
        world.client.finish(key).expect("open");
    }
    world.settle();
    let mut lengths = Vec::new();
    for record in records(&world.links[0].tapped_up) {
        let frames = Frames::new(body(&record));
        lengths.extend(frames.filter_map(|frame| match frame {
            Ok(Frame::Stream { data, .. }) => Some(data.len()),
            _ => None,
        }));
    }
    assert_eq!(lengths, [5000; 20]);
    // What is longer than any record is cut, and fills it.
    let long = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    world.client.write(long, &pattern(200_000, 4)).expect("open");
    world.settle();
    let now = world.now;
    let server = world.server();
    for _ in 0..20 {
        let there = server.accept(Kind::Uni, Class::BULK).expect("opened");
        assert_eq!(read_all(server, now, there), (data.clone(), true));
    }
    let there = server.accept(Kind::Uni, Class::BULK).expect("opened");
    assert_eq!(read_all(server, now, there).0.len(), 200_000);
}

/// A stopped reader holds its own stream at the window; others go on (REQUIREMENTS W5).
#[test]
fn a_stopped_reader_holds_up_only_its_stream() {
    let mut world = World::connected(Options::default());
    let stuck = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    let data = pattern(1 << 20, 5);
    let mut written = 0;
    for _ in 0..50 {
        written += world.client.write(stuck, &data[written..]).expect("open");
        world.run_for(Duration::from_millis(10));
    }
    assert_eq!(written, 256 << 10, "held at the stream's window");
    let other = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    world.client.write(other, b"through").expect("open");
    world.settle();
    let now = world.now;
    let server = world.server();
    let first = server.accept(Kind::Uni, Class::BULK).expect("opened");
    let second = server.accept(Kind::Uni, Class::BULK).expect("opened");
    assert_eq!(read_all(server, now, second).0, b"through");
    assert_eq!(read_all(server, now, first).0, data[..256 << 10]);
    world.settle();
    assert!(world.client_events.contains(&Event::Writable(stuck)));
    assert!(world.client.write(stuck, &data[written..]).expect("open") > 0);
}

/// Windows grow to fill a long fat path without any setting (REQUIREMENTS W5).
#[test]
fn windows_fill_a_long_fat_path() {
    let mut world = World::connected(Options::default());
    world.links[0].rate = 125_000_000;
    world.links[0].delay = Duration::from_millis(50);
    let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    let chunk = Bytes::from(pattern(1 << 20, 7));
    let (mut there, mut received, mut late) = (None, 0_u64, 0_u64);
    let start = world.now;
    while world.now - start < Duration::from_secs(8) {
        while world.client.write_bytes(key, &mut chunk.clone()).expect("open") > 0 {}
        world.run_for(Duration::from_millis(5));
        let now = world.now;
        let server = world.server();
        there = there.or_else(|| server.accept(Kind::Uni, Class::BULK));
        if let Some(there) = there {
            let got = read_all(server, now, there).0.len() as u64;
            received += got;
            if now - start > Duration::from_secs(6) {
                late += got;
            }
        }
    }
    // Two seconds at 125 MB/s; the bandwidth-delay product is 12.5 MB.
    assert!(
        late >= 200_000_000,
        "{late} bytes in the last two seconds, {received} in all"
    );
}

/// PROTOCOL 8.1, REQUIREMENTS S7: a request that crosses GOAWAY on its way is served.
#[test]
fn a_drain_loses_no_request_that_is_under_way() {
    let mut world = World::connected(Options::default());
    let key = world.client.open(Kind::Bi, Class::REQUESTS).expect("credit");
    assert_eq!(world.client.write(key, b"question"), Ok(8));
    world.client.finish(key).expect("open");
    let now = world.now;
    world.server().drain(now, "elsewhere");
    world.settle();
    assert_eq!(world.client.state(), State::Connected);
    let now = world.now;
    let server = world.server();
    let there = server.accept(Kind::Bi, Class::REQUESTS).expect("it came");
    assert_eq!(read_all(server, now, there), (b"question".to_vec(), true));
    assert_eq!(server.write(there, b"answer"), Ok(6));
    server.finish(there).expect("open");
    server.release(there);
    world.settle();
    let now = world.now;
    assert_eq!(read_all(&mut world.client, now, key), (b"answer".to_vec(), true));
    world.client.release(key);
    world.settle();
    assert_eq!(world.server().state(), State::Closed);
    assert_eq!(world.client.state(), State::Closed);
}

/// REQUIREMENTS S2: what was sent before says nothing of a message that never left.
#[test]
fn a_message_that_never_left_is_not_sent() {
    let mut world = World::connected(Options::default());
    let now = world.now;
    let send = |world: &mut World, payload: &'static [u8]| {
        let payload = Bytes::from_static(payload);
        world
            .client
            .send_message(now, Class::EVENTS, Delivery::Ordered, payload, true)
            .expect("room")
    };
    let first = send(&mut world, b"first");
    world.settle();
    world.cut(0);
    let second = send(&mut world, b"second");
    let now = world.now;
    world.client.close(now, ErrorCode::NONE, "");
    world.settle();
    let outcomes: Vec<_> = world
        .client_events
        .iter()
        .filter_map(|event| match event {
            Event::Outcome { id, outcome } => Some((*id, *outcome)),
            _ => None,
        })
        .collect();
    assert_eq!(
        outcomes,
        [(first, Outcome::Acknowledged), (second, Outcome::NotSent)]
    );
}

/// PROTOCOL 8.1: what the client opened and could not send before it read GOAWAY is served: it alone knows of it.
#[test]
fn what_waits_for_credit_is_served_by_a_drained_session() {
    let mut options = Options::default();
    options.server.params.max_data = [1000; 8];
    options.server.max_class_window = 1000;
    let mut world = World::connected(options);
    let keys: Vec<_> = (0..3)
        .map(|_| {
            let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
            assert_eq!(world.client.write(key, &[7; 1000]), Ok(1000));
            world.client.finish(key).expect("open");
            world.client.release(key);
            key
        })
        .collect();
    world.settle();
    let now = world.now;
    world.server().drain(now, "");
    for _ in keys {
        world.settle();
        let now = world.now;
        let server = world.server();
        assert_eq!(server.state(), State::Connected);
        let there = server.accept(Kind::Uni, Class::BULK).expect("it came");
        assert_eq!(read_all(server, now, there), (vec![7; 1000], true));
        server.release(there);
    }
    world.settle();
    assert_eq!(world.client.state(), State::Closed);
    assert_eq!(world.server().state(), State::Closed);
}

/// PROTOCOL 8.1: both ends drain.
#[test]
fn both_ends_may_drain() {
    let mut world = World::connected(Options::default());
    let key = world.client.open(Kind::Bi, Class::BULK).expect("credit");
    world.client.write(key, b"open").expect("open");
    world.settle();
    let now = world.now;
    world.server().drain(now, "tcp://there:1");
    world.client.drain(now, "");
    world.settle();
    assert_eq!(world.client.state(), State::Connected);
    let now = world.now;
    let server = world.server();
    let there = server.accept(Kind::Bi, Class::BULK).expect("it came");
    assert_eq!(read_all(server, now, there), (b"open".to_vec(), false));
    server.finish(there).expect("open");
    server.release(there);
    world.client.finish(key).expect("open");
    world.settle();
    let now = world.now;
    assert_eq!(read_all(&mut world.client, now, key), (Vec::new(), true));
    world.client.release(key);
    world.settle();
    assert_eq!(world.client.state(), State::Closed);
    assert_eq!(world.server().state(), State::Closed);
}
