//! Paths that begin before their carrier's handshake is done, and what may go in early data (PROTOCOL 5.6, 14.8).

use std::time::Duration;

use bytes::BytesMut;

use super::super::*;
use super::World;
use super::basics::read_all;
use super::handshakes::{early, encrypted, exchange, handshake, messages};
use crate::handshake::Security;
use crate::wire::{Class, HandshakeKind, Kind, RejectCode};

fn at_once() -> PathInfo {
    PathInfo {
        early: EarlyStart::Sent,
        ..encrypted()
    }
}

/// PROTOCOL 14.8: a path begins early with HELLO, and with nothing else. No path id is used up by asking.
#[test]
fn only_a_new_session_begins_early() {
    let mut world = World::tapped(early());
    let key = world
        .client
        .open(Kind::Bi, Class::REQUESTS)
        .expect("early credit");
    world.client.write(key, b"early").expect("early");
    let link = world.connect_with(at_once()).expect("a session begins");
    world.settle();
    let path = world.links[link].client.expect("it lives");
    let stats = |world: &World| world.client.path_stats(path).expect("it lives");
    assert_eq!(stats(&world).early, EarlyStart::Sent);
    world.client.handle_early_start(path, true);
    assert_eq!(stats(&world).early, EarlyStart::Taken);
    exchange(&mut world);
    let next = world.client.next_path_id;
    assert!(matches!(
        world.client.open_path(world.now, at_once()),
        Err(OpenPathError::TooEarly)
    ));
    assert_eq!(world.client.next_path_id, next);
    let second = world.connect_with(encrypted()).expect("a path joins");
    world.settle();
    let (kind, join) = messages(&world.links[second].tapped_up).remove(0);
    assert_eq!(kind, HandshakeKind::Join);
    // A server takes no JOIN before the handshake is done, bound or not: nothing is asked of the session.
    let mut incoming = Incoming::new(world.now, at_once());
    let mut bytes = BytesMut::from(&handshake(HandshakeKind::Join, &join)[..]);
    assert!(matches!(
        incoming.handle_input(&mut bytes),
        Err(PathError::UnexpectedHandshake(_))
    ));
    let (kind, hello) = messages(&world.links[link].tapped_up).remove(0);
    let mut incoming = Incoming::new(world.now, at_once());
    let mut bytes = BytesMut::from(&handshake(kind, &hello)[..]);
    assert!(matches!(incoming.handle_input(&mut bytes), Ok(true)));
    // A copy of the first flight after the session is confirmed.
    let thief = world.stranger(at_once());
    let copy = world.links[link].tapped_up.clone();
    world.inject_up(thief, &copy);
    world.settle();
    assert_eq!(world.links[thief].rejected, Some(RejectCode::USE_JOIN));
    let server = world.server();
    server.accept(Kind::Bi, Class::REQUESTS).expect("once");
    assert_eq!(server.accept(Kind::Bi, Class::REQUESTS), None);
}

/// PROTOCOL 5.6: what must not be done twice waits for WELCOME, and goes then, however little credit that brings.
#[test]
fn what_must_not_be_done_twice_does_not_go_early() {
    let mut options = early();
    for limits in &mut options.server.params.max_streams {
        limits.bi = EARLY_STREAMS;
    }
    let mut world = World::new(options);
    let refused = world.client.open_once(Kind::Bi, Class::REQUESTS);
    assert_eq!(refused, Err(OpenError::Exhausted));
    let key = world
        .client
        .open(Kind::Bi, Class::REQUESTS)
        .expect("early credit");
    world.client.write(key, b"again and again").expect("early");
    world.client.finish(key).expect("open");
    world.connect();
    world.run_until(world.now + world.links[0].delay);
    let now = world.now;
    let server = world.server();
    let there = server.accept(Kind::Bi, Class::REQUESTS).expect("opened early");
    assert_eq!(read_all(server, now, there).0, b"again and again");
    let credit = |world: &World| {
        let events = world.client_events.iter();
        events
            .filter(|event| {
                let (kind, class) = (Kind::Bi, Class::REQUESTS);
                **event == Event::Credit { kind, class }
            })
            .count()
    };
    assert_eq!(credit(&world), 0);
    world.settle();
    assert_eq!(credit(&world), 1);
    let key = world
        .client
        .open_once(Kind::Bi, Class::REQUESTS)
        .expect("there is a session");
    world.client.write(key, b"once").expect("open");
    world.settle();
    let now = world.now;
    let server = world.server();
    let there = server.accept(Kind::Bi, Class::REQUESTS).expect("opened");
    assert_eq!(read_all(server, now, there).0, b"once");
}

/// PROTOCOL 5.6: nothing is known of the path that early data went on, and another path brings the session: it goes there
/// as well, at once.
#[test]
fn early_data_on_a_path_that_is_mute_goes_with_the_session() {
    let mut world = World::new(early());
    let key = world
        .client
        .open(Kind::Bi, Class::REQUESTS)
        .expect("early credit");
    world.client.write(key, b"once").expect("early");
    world.client.finish(key).expect("open");
    let first = world.connect_with(at_once()).expect("a session begins");
    world.stall(first, true, true);
    world.run_for(Duration::from_millis(300));
    world.connect_with(encrypted()).expect("the same HELLO");
    world.run_for(Duration::from_millis(50));
    let now = world.now;
    let server = world.server();
    let there = server.accept(Kind::Bi, Class::REQUESTS).expect("opened");
    assert_eq!(read_all(server, now, there), (b"once".to_vec(), true));
    // What was on its way comes late, or never.
    world.stall(first, false, false);
    world.settle();
    assert_eq!(world.server().accept(Kind::Bi, Class::REQUESTS), None);
    exchange(&mut world);
}

/// PROTOCOL 5.6: what came by TLS that this end ends itself is no copy; elsewhere it may be one.
#[test]
fn early_data_is_known_to_be_no_copy_where_tls_says_so() {
    let bound = PathInfo {
        exporter: Some([7; 32]),
        ..encrypted()
    };
    let begun = PathInfo {
        early: EarlyStart::Taken,
        ..encrypted()
    };
    let cases = [
        (bound.clone(), None, true),
        (begun.clone(), None, true),
        (encrypted(), None, false),
        // Who allows weaker carriers may have been heard on one.
        (bound, Some(Security::Plain), false),
        (begun, Some(Security::Plain), false),
    ];
    for (info, floor, fresh) in cases {
        for data in [false, true] {
            let mut options = early();
            options.client.security_floor = floor;
            let mut world = World::new(options);
            if data {
                let key = world
                    .client
                    .open(Kind::Bi, Class::REQUESTS)
                    .expect("early credit");
                world.client.write(key, b"early").expect("early");
            }
            world.connect_with(info.clone()).expect("a session begins");
            world.run_until(world.now + world.links[0].delay);
            assert_eq!(world.server().state(), State::Connecting);
            assert_eq!(world.server().has_fresh_early_data(), fresh && data);
            world.settle();
            assert!(!world.server().has_fresh_early_data(), "it is proven now");
        }
    }
}
