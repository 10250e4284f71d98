//! Which path carries the data, and what goes on two of them (REQUIREMENTS S4, P1, P5).

use std::time::Duration;

use super::super::*;
use super::faults::{Flow, longest_gap, over};
use super::handshakes::plain;
use super::{Options, World};
use crate::policy::selection::Reason;

const MS: Duration = Duration::from_millis(1);

fn redundant() -> World {
    let mut options = Options::default();
    for config in [&mut options.client, &mut options.server] {
        config.mode = PathMode::Redundant;
    }
    let mut world = World::new(options);
    for _ in 0..2 {
        let link = world.connect();
        world.links[link].delay = 5 * MS;
        world.settle();
    }
    world.run_for(Duration::from_secs(1));
    world
}

/// REQUIREMENTS S4: no gap when either dies, in whatever way.
#[test]
fn redundant_data_knows_no_gap() {
    for dies in 0..2 {
        for silent in [true, false] {
            let mut world = redundant();
            let mut flow = Flow::new(&mut world, 4 << 20);
            for _ in 0..300 {
                flow.step(&mut world, 1024);
            }
            match silent {
                true => world.stall(dies, true, true),
                false => world.end(dies, PathEnd::Reset),
            }
            let gap = longest_gap(&mut world, &mut flow, Duration::from_secs(2));
            assert!(gap <= 3 * MS, "{gap:?} when {dies} dies, silently: {silent}");
            flow.data.truncate(flow.written);
            flow.finish(&mut world, Duration::from_secs(1));
        }
    }
}

/// Of a class that does not ask for it nothing goes twice.
#[test]
fn single_classes_are_redundant_where_they_ask_for_it() {
    for asks in [true, false] {
        let mut options = Options::default();
        options.client.classes[Class::BULK.index()].redundant = asks;
        let mut world = World::new(options);
        for _ in 0..2 {
            world.connect();
            world.settle();
        }
        let mut flow = Flow::new(&mut world, 1 << 20);
        for _ in 0..200 {
            flow.step(&mut world, 1024);
        }
        world.run_for(Duration::from_secs(1));
        let standby = world.links[1].client.expect("live");
        let sent = world.client.path_stats(standby).expect("live").bytes_sent;
        assert_eq!(sent > 200 * 1024, asks, "{sent} bytes on the second path");
        assert!(asks || sent < 2000, "{sent} bytes on the second path");
    }
}

#[test]
fn a_path_that_comes_and_goes_moves_the_data_once() {
    let mut world = World::new(Options::default());
    for rank in 0..2 {
        let mut info = plain();
        info.rank = rank;
        let link = world.connect_with(info).expect("room");
        world.links[link].delay = 5 * MS;
        world.settle();
    }
    world.run_for(Duration::from_secs(1));
    let mut flow = Flow::new(&mut world, 64 << 20);
    let before = world.client.stats().switches;
    for _ in 0..10 {
        for silent in [true, false] {
            world.stall(0, silent, silent);
            for _ in 0..500 {
                flow.step(&mut world, 64);
            }
        }
    }
    assert_eq!(world.client.stats().switches - before, 1);
    // It comes back when it has been well for as long as it has earned.
    for _ in 0..70_000 {
        flow.step(&mut world, 8);
    }
    assert_eq!(world.client.stats().switches - before, 2);
    assert_eq!(world.client.active_path(), world.links[0].client);
    let stats = world.client.stats();
    assert!(
        stats.standstills >= 1 && stats.longest_standstill < 200 * MS,
        "{stats:?}"
    );
}

#[test]
fn a_path_that_became_long_is_left_without_being_called_dead() {
    let mut world = over(2, 5 * MS);
    let mut flow = Flow::new(&mut world, 64 << 20);
    for _ in 0..200 {
        flow.step(&mut world, 256);
    }
    world.links[0].delay = 200 * MS;
    for _ in 0..3000 {
        flow.step(&mut world, 256);
    }
    assert_eq!(world.client.active_path(), world.links[1].client);
    assert!(!world.client_saw(|event| matches!(event, Event::PathDown { .. })));
    let told = world.client.explain(world.now).expect("a path is in use");
    assert_eq!(told.rows.len(), 2);
    assert!(told.rows[1].price.total() > told.rows[0].price.total(), "{told}");
    assert!(told.to_string().contains("carries the data"), "{told}");
}

#[test]
fn each_change_comes_with_its_evidence() {
    let mut world = over(2, 5 * MS);
    let mut flow = Flow::new(&mut world, 1 << 20);
    for _ in 0..100 {
        flow.step(&mut world, 256);
    }
    world.stall(0, true, true);
    for _ in 0..300 {
        flow.step(&mut world, 256);
    }
    let told = world.client_events.iter().find_map(|event| match event {
        Event::Switched {
            cause: SwitchCause::Suspect,
            evidence,
            ..
        } => Some(evidence.clone()),
        _ => None,
    });
    let told = told.expect("it moved");
    assert_eq!(told.reason, Reason::OtherUnsound);
    let from = told.from.expect("there was one before");
    assert!(
        from.silent_for.is_some_and(|silence| silence >= 50 * MS),
        "{from}"
    );
    assert!(told.to.round_trip.is_some());
}
