//! What [`Session::audit`] found, each as a story.

use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::{Options, World};
use crate::wire::{Class, ErrorCode, Kind};

const MS: Duration = Duration::from_millis(1);

/// PROTOCOL 4.5: a place that falls free while credit is left counts when that is used up, though no other
/// stream ends.
#[test]
fn places_that_fell_free_early_are_granted() {
    let mut options = Options::default();
    options.server.params.max_streams[Class::BULK.index()].uni = 5;
    let mut world = World::connected(options);
    let first = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    world.client.finish(first).expect("open");
    world.settle();
    let now = world.now;
    let theirs = world.server().accept(Kind::Uni, Class::BULK).expect("it came");
    assert_eq!(world.server().read(now, theirs, 1), Ok(Read::Finished));
    world.server().release(theirs);
    world.client.release(first);
    // Four that stay, then the fifth of five at a time.
    for n in 0..5 {
        let key = world.client.open(Kind::Uni, Class::BULK);
        let key = key.unwrap_or_else(|error| panic!("stream {n}: {error}"));
        assert_eq!(world.client.write(key, b"x"), Ok(1));
        world.settle();
    }
    assert_eq!(
        world.client.open(Kind::Uni, Class::BULK),
        Err(OpenError::Exhausted)
    );
}

/// A server's path that was given up for silent, as CONFIRM was late, is sound once CONFIRM has come.
#[test]
fn a_late_confirm_is_a_sign_of_life() {
    let mut world = World::new(Options::default());
    let link = world.connect();
    world.run_for(Duration::from_micros(600));
    world.stall(link, true, false);
    let key = world.server().open(Kind::Uni, Class::BULK).expect("credit");
    assert_eq!(world.server().write(key, b"well?"), Ok(5));
    world.run_for(8000 * MS);
    assert!(world.server_saw(|event| matches!(event, Event::PathSuspect(_))));
    world.stall(link, false, false);
    world.run_for(50 * MS);
    assert!(!world.server_saw(|event| matches!(event, Event::PathDown { .. })));
    assert!(world.server_saw(|event| matches!(event, Event::PathRecovered(_))));
    assert_eq!(world.server().state(), State::Connected);
}

/// A sender that waits for room among the datagrams is told when the session ends.
#[test]
fn the_end_wakes_senders_of_datagrams() {
    let mut options = Options::default();
    options.client.max_datagram_queue = 3000;
    let mut world = World::connected(options);
    let now = world.now;
    let mut queued = 0;
    while world
        .client
        .send_datagram(now, Bytes::from(vec![0; 1000]))
        .is_ok()
    {
        queued += 1;
    }
    assert_eq!(queued, 2);
    world.client.close(now, ErrorCode::NONE, "");
    world.settle();
    assert!(world.client_saw(|event| *event == Event::MessageSpace));
}
