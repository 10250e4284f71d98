//! Better endpoints in the background, broken ones, and what is remembered of them.

use super::*;
use crate::policy::memory::{Brokenness, FIRST_REST};

const SLOW: Server = Server::Up { after_ms: 400 };

fn starts_of(world: &World, endpoint: usize) -> Vec<u64> {
    let own = world.starts.iter().filter(|(_, index)| *index == endpoint);
    own.map(|(at, _)| *at).collect()
}

#[test]
fn a_better_endpoint_takes_over_once_it_has_proven_itself() {
    let mut world = World::new(1, &[SLOW, UP], |_| ());
    world.run_to(1399);
    assert_eq!(world.starts, [(0, 0), (100, 1)]);
    assert_eq!(world.ups, [(102, 1), (400, 0)]);
    assert_eq!(
        (world.up.len(), world.surplus),
        (2, 0),
        "both, for the time being"
    );
    world.run_to(60_000);
    assert_eq!(world.surplus, 1);
    assert_eq!(world.up.iter().map(|path| path.endpoint).collect::<Vec<_>>(), [0]);
    assert_eq!(world.starts.len(), 2);
}

#[test]
fn one_that_is_blocked_costs_the_stagger_and_rests_then() {
    let mut world = World::new(1, &[Server::Mute, UP], |_| ());
    world.run_to(4000);
    assert_eq!(world.ups, [(102, 1)]);
    world.run_to(300_000);
    assert_eq!(starts_of(&world, 0), [0]);
    assert!(world.connector.brokenness(0).is_broken(world.now));
    // After five minutes it gets one attempt, and rests for ten.
    world.run_to(360_000);
    assert_eq!(starts_of(&world, 0), [0, 305_000]);
    world.run_to(900_000);
    assert_eq!(starts_of(&world, 0).len(), 2);
    world.servers[0] = UP;
    world.run_to(1_000_000);
    assert_eq!(world.up.iter().map(|path| path.endpoint).collect::<Vec<_>>(), [0]);
    assert_eq!(world.connector.brokenness(0).times(), 0);
}

#[test]
fn another_network_clears_what_is_broken() {
    let mut world = World::new(1, &[Server::Mute, UP], |_| ());
    world.run_to(10_000);
    assert!(world.connector.brokenness(0).is_broken(world.now));
    world.servers[0] = UP;
    world.connector.handle_network_change(world.now);
    world.run_to(12_000);
    assert_eq!(world.up.iter().map(|path| path.endpoint).collect::<Vec<_>>(), [0]);
}

#[test]
fn what_is_remembered_decides_who_goes_first() {
    let mut world = World::new(1, &[Server::Mute, Server::Mute, UP], |_| ());
    let mut broken = Brokenness::default();
    broken.broke(Timestamp::ZERO);
    world.connector.recall(0, broken, false);
    world.connector.recall(2, Brokenness::default(), true);
    world.run_to(1000);
    assert_eq!(world.starts[0], (0, 2));
    assert_eq!(world.ups, [(2, 2)]);
    // The broken one is left in peace, the other was never tried and is better.
    assert_eq!(world.starts[1..], [(2, 1)]);
    let rest = u64::try_from(FIRST_REST.as_millis()).expect("minutes");
    world.run_to(rest - 1);
    assert!(starts_of(&world, 0).is_empty());
}

#[test]
fn a_broken_endpoint_is_tried_when_the_others_have_failed() {
    let mut world = World::new(1, &[UP, REFUSES], |_| ());
    let mut broken = Brokenness::default();
    broken.broke(Timestamp::ZERO);
    world.connector.recall(0, broken, false);
    world.run_to(500);
    assert_eq!(world.starts[0], (0, 1));
    assert_eq!(world.ups[0].1, 0);
    assert!(world.ups[0].0 < 10, "{:?}", world.ups);
}

#[test]
fn the_standby_is_of_another_kind() {
    let kind = |transport, host| Kind { transport, host };
    let mut world = World::new(1, &[UP, UP, UP, UP], |config| {
        config.mode = Mode::Standby { paths: 2 };
        config.kinds = vec![kind(0, 0), kind(0, 0), kind(1, 0), kind(1, 1)];
    });
    world.run_to(1000);
    let up: Vec<usize> = world.up.iter().map(|path| path.endpoint).collect();
    assert_eq!(up, [0, 3]);
}

#[test]
fn a_host_that_cannot_be_reached_is_not_tried_by_every_transport() {
    let kind = |transport, host| Kind { transport, host };
    let mut config = Config::new(3);
    config.kinds = vec![kind(0, 0), kind(1, 0), kind(0, 1)];
    let mut connector = Connector::new(config, Rng::from_seed([1; 32]), ms(0));
    let first = connector.poll_connect(ms(0)).expect("it starts at once");
    connector.handle_path_down(ms(1), first.attempt_id, Down::Away);
    let second = connector.poll_connect(ms(1)).expect("another host");
    assert_eq!(second.endpoint, 2);
}

#[test]
fn what_only_a_hand_mends_is_not_hurried() {
    let mut connector = Connector::new(Config::new(1), Rng::from_seed([1; 32]), ms(0));
    let first = connector.poll_connect(ms(0)).expect("it starts at once");
    connector.handle_path_down(ms(1), first.attempt_id, Down::Hopeless);
    let next = connector.poll_timeout().expect("it is tried again");
    assert!(next >= ms(15_000), "{next:?}");
}
