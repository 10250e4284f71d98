//! How paths join a session, and who must not get in (issue "Bad input"; NUMBERS "Attacks": resume hijack,
//! replay, reflection, downgrade, cross-session, slowloris).

use std::time::Duration;

use super::super::*;
use super::handshakes::{encrypted, exchange, handshake, messages, plain, reject_of};
use super::{Options, World, record, records};
use crate::handshake::{HandshakeError, Join, Reject, Security, Welcome};
use crate::wire::{Frame, HandshakeKind, RejectCode};

// ---- joining ----

/// PROTOCOL 6.2: no JOIN without the key, and none that was used.
#[test]
fn forged_and_replayed_joins_are_refused() {
    let mut world = World::tapped(Options::default());
    world.connect();
    world.settle();
    let second = world.connect();
    world.settle();
    let (kind, join) = messages(&world.links[second].tapped_up).remove(0);
    assert_eq!(kind, HandshakeKind::Join);
    let genuine = Join::decode(&join).expect("sound");
    // Every bit of the message matters.
    for bit in 0..join.len() * 8 {
        let mut forged = join.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let thief = world.stranger(plain());
        let bytes = handshake(HandshakeKind::Join, &forged);
        world.inject_up(thief, &bytes);
        world.run_for(Duration::from_millis(1));
        let refused = reject_of(&world, thief);
        let malformed = world.links[thief].dead && refused.is_none();
        let codes = [
            RejectCode::BAD_PROOF,
            RejectCode::UNKNOWN_SESSION,
            RejectCode::UNBOUND,
        ];
        assert!(
            malformed || refused.is_some_and(|code| codes.contains(&code)),
            "bit {bit}: {refused:?}"
        );
    }
    // A new path id under the old proof, and the recording itself.
    let mut other = genuine.clone();
    other.path_id = 77;
    let mut forged = Vec::new();
    other.encode(&mut forged);
    for (bytes, code) in [(forged, RejectCode::BAD_PROOF), (join, RejectCode::PATH_ID_USED)] {
        let thief = world.stranger(plain());
        let bytes = handshake(HandshakeKind::Join, &bytes);
        world.inject_up(thief, &bytes);
        world.run_for(Duration::from_millis(1));
        assert_eq!(reject_of(&world, thief), Some(code));
    }
    assert_eq!(world.server().stats().paths, 2);
    exchange(&mut world);
}

/// NUMBERS "Attacks", raced: a copied JOIN that arrives first gets no further than JOINED, and the client
/// comes back with another.
#[test]
fn a_raced_join_costs_one_attempt() {
    let mut world = World::tapped(Options::default());
    let first = world.connect();
    world.settle();
    let second = world.connect();
    world.links[second].delay = Duration::from_millis(10);
    world.run_for(Duration::from_millis(1));
    let join = records(&world.links[second].tapped_up)[0].clone();
    let thief = world.stranger(plain());
    world.inject_up(thief, &join);
    world.settle();
    assert_eq!(reject_of(&world, second), Some(RejectCode::PATH_ID_USED));
    assert!(world.links[second].dead);
    let kinds: Vec<_> = messages(&world.links[thief].tapped_down)
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, [HandshakeKind::Joined]);
    // What the thief says without the key ends its path.
    let data = record(&[Frame::Ping { seq: 1 }], true);
    world.inject_up(thief, &data);
    world.settle();
    assert!(world.links[thief].dead);
    let third = world.connect();
    world.settle();
    world.cut(first);
    assert_eq!(reject_of(&world, third), None);
    exchange(&mut world);
}

/// NUMBERS "Attacks", reflection: the server's own messages sent back to it, and the client's to it.
#[test]
fn reflected_handshakes_end_their_path() {
    let mut world = World::tapped(Options::default());
    let first = world.connect();
    world.settle();
    let second = world.connect();
    world.settle();
    let welcome = records(&world.links[first].tapped_down)[0].clone();
    let joined = records(&world.links[second].tapped_down)[0].clone();
    let confirm = records(&world.links[second].tapped_up)[1].clone();
    for bytes in [&welcome, &joined, &confirm] {
        let thief = world.stranger(plain());
        world.inject_up(thief, bytes);
        world.settle();
        assert!(world.links[thief].dead, "no connection begins so");
    }
    // On a live path they are out of place; the other path goes on.
    let third = world.connect();
    world.settle();
    world.take_client_end(third);
    world.inject_up(third, &joined);
    world.settle();
    assert!(world.server_saw(|event| matches!(
        event,
        Event::PathDown {
            error: Some(PathError::UnexpectedHandshake("JOINED")),
            ..
        }
    )));
    // JOIN sent back to the client in place of JOINED.
    let fourth = world.connect();
    world.take_server_end(fourth);
    let own = {
        world.run_for(Duration::from_millis(1));
        records(&world.links[fourth].tapped_up)[0].clone()
    };
    world.inject_down(fourth, &own);
    world.settle();
    assert!(world.client_saw(|event| matches!(
        event,
        Event::PathDown {
            error: Some(PathError::UnexpectedHandshake("JOIN")),
            ..
        }
    )));
    exchange(&mut world);
}

/// NUMBERS "Attacks", cross-session: the JOIN of one session presented to another, as it is and renamed.
#[test]
fn a_join_of_another_session_is_refused() {
    let mut other = World::tapped(Options {
        seed: 99,
        ..Options::default()
    });
    other.session_id.0 = [8; 16];
    other.connect();
    other.settle();
    let link = other.connect();
    other.settle();
    let (_, join) = messages(&other.links[link].tapped_up).remove(0);
    let mut world = World::connected(Options::default());
    let mut renamed = join.clone();
    renamed[..16].copy_from_slice(&world.session_id.0);
    for (bytes, code) in [
        (join, RejectCode::UNKNOWN_SESSION),
        (renamed, RejectCode::BAD_PROOF),
    ] {
        let thief = world.stranger(plain());
        let bytes = handshake(HandshakeKind::Join, &bytes);
        world.inject_up(thief, &bytes);
        world.settle();
        assert_eq!(reject_of(&world, thief), Some(code));
    }
    exchange(&mut world);
}

/// PROTOCOL 5.4, 6.4: without CONFIRM a path ends after 10 s, with a forged one at once.
#[test]
fn a_path_without_its_confirm_ends() {
    for forged in [false, true] {
        let mut world = World::tapped(Options::default());
        world.connect();
        world.settle();
        let second = world.connect();
        world.run_for(Duration::from_micros(1));
        world.take_client_end(second);
        world.settle();
        assert_eq!(world.server().stats().paths, 2);
        if forged {
            let id = world.client.next_path_id - 1;
            let mut message = vec![u8::try_from(id).expect("small"), 0];
            message.extend_from_slice(&[0x55; 32]);
            let bytes = handshake(HandshakeKind::Confirm, &message);
            world.inject_up(second, &bytes);
            world.run_for(Duration::from_millis(2));
        } else {
            world.run_for(Duration::from_secs(9));
            assert_eq!(world.server().stats().paths, 2);
            world.run_for(Duration::from_secs(1));
        }
        assert_eq!(world.server().stats().paths, 1);
        assert!(world.links[second].dead);
        exchange(&mut world);
    }
}

/// PROTOCOL 5.4: a session that nobody confirms is gone after 10 s.
#[test]
fn an_unconfirmed_session_ends() {
    let mut world = World::new(Options::default());
    let link = world.connect();
    world.stall(link, false, true);
    world.run_for(Duration::from_millis(9_900));
    assert_eq!(world.server().state(), State::Connecting);
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.server().state(), State::Failed);
    assert_eq!(world.server().poll_timeout(), None);
    assert_eq!(world.server().stats().paths, 0);
}

/// Issue "Bad input": a peer that opens, sends nothing and stays; at the server, and at the client.
#[test]
fn a_mute_peer_has_ten_seconds() {
    let mut world = World::connected(Options::default());
    let mute = world.stranger(plain());
    world.inject_up(mute, &[0, 0]);
    world.run_for(Duration::from_millis(9_999));
    assert!(!world.links[mute].dead);
    world.run_for(Duration::from_millis(2));
    assert!(world.links[mute].dead);
    let second = world.connect();
    world.take_server_end(second);
    world.stall(second, true, true);
    world.run_for(Duration::from_millis(9_999));
    assert_eq!(world.client.stats().paths, 2);
    world.run_for(Duration::from_millis(2));
    assert_eq!(world.client.stats().paths, 1);
    assert!(world.client_saw(|event| matches!(
        event,
        Event::PathDown {
            error: Some(PathError::HandshakeTimeout),
            ..
        }
    )));
    exchange(&mut world);
}

// ---- security floor, versions, binding ----

/// PROTOCOL 6.5: neither end lets a session onto a weaker carrier than its first.
#[test]
fn nothing_moves_below_the_security_floor() {
    let mut world = World::tapped(Options::default());
    world.connect_with(encrypted()).expect("a path opens");
    world.settle();
    assert_eq!(
        world.client.open_path(world.now, plain()),
        Err(OpenPathError::BelowFloor)
    );
    // A client without scruples: a good JOIN, but over a plain connection.
    let second = world.connect_with(encrypted()).expect("a path opens");
    world.run_for(Duration::from_micros(1));
    let join = records(&world.links[second].tapped_up)[0].clone();
    world.cut(second);
    let thief = world.stranger(plain());
    world.inject_up(thief, &join);
    world.settle();
    assert_eq!(reject_of(&world, thief), Some(RejectCode::SECURITY_FLOOR));
    exchange(&mut world);
}

/// PROTOCOL 6.5: a server that asks for encryption takes no HELLO on less, and says so in WELCOME.
#[test]
fn a_server_insists_on_its_floor() {
    let server = Config {
        security_floor: Some(Security::Encrypted),
        ..Config::default()
    };
    let mut world = World::new(Options {
        server,
        ..Options::default()
    });
    let link = world.connect();
    world.settle();
    assert_eq!(reject_of(&world, link), Some(RejectCode::SECURITY_FLOOR));
    assert!(matches!(world.client.state(), State::Failed));
    // Had the client's end called the carrier weaker than it is, WELCOME's floor would still bind it.
    let client = Config {
        security_floor: Some(Security::Plain),
        ..Config::default()
    };
    let server = Config {
        security_floor: Some(Security::Encrypted),
        ..Config::default()
    };
    let mut world = World::new(Options {
        client,
        server,
        seed: 2,
    });
    world.connect_with(encrypted()).expect("a path opens");
    world.settle();
    assert_eq!(
        world.client.open_path(world.now, plain()),
        Err(OpenPathError::BelowFloor)
    );
    exchange(&mut world);
}

/// PROTOCOL 5.2: a WELCOME in a version that was not offered, or with any other bit changed, is refused.
#[test]
fn a_forged_welcome_is_refused() {
    let mut world = World::tapped(Options::default());
    let link = world.connect();
    world.run_for(Duration::from_micros(700));
    let (kind, welcome) = messages(&world.links[link].tapped_down).remove(0);
    assert_eq!(kind, HandshakeKind::Welcome);
    let genuine = Welcome::decode(&welcome).expect("sound");
    assert_eq!(genuine.version(), crate::handshake::VERSION);
    world.stall(link, false, true);
    for bit in (0..welcome.len() * 8).step_by(3) {
        let mut forged = welcome.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let again = world.connect();
        world.take_server_end(again);
        world.stall(again, true, false);
        // The message is for path 0: the id is put right, so that the rest is looked at.
        forged[0] = u8::try_from(world.client.next_path_id - 1).expect("small") & 0x7f;
        let bytes = handshake(HandshakeKind::Welcome, &forged);
        world.inject_down(again, &bytes);
        world.run_for(Duration::from_micros(1));
        assert_eq!(world.client.state(), State::Connecting, "bit {bit}");
        world.cut(again);
    }
    world.stall(link, false, false);
    world.settle();
    exchange(&mut world);
}

/// PROTOCOL 5.7: REJECT is believed only while no other path is, or may become, alive.
#[test]
fn an_unauthenticated_reject_ends_one_path() {
    let reject = |code| {
        let mut body = Vec::new();
        Reject::new(code, "says who").encode(&mut body);
        handshake(HandshakeKind::Reject, &body)
    };
    let mut world = World::connected(Options::default());
    let second = world.connect();
    world.take_server_end(second);
    world.inject_down(second, &reject(RejectCode::UNKNOWN_SESSION));
    world.settle();
    assert_eq!(world.client.state(), State::Connected);
    exchange(&mut world);
    // While another path is in its handshake, too.
    world.cut(0);
    world.cut(second);
    let third = world.connect();
    let fourth = world.connect();
    world.take_server_end(third);
    world.inject_down(third, &reject(RejectCode::UNKNOWN_SESSION));
    world.settle();
    assert_eq!(world.client.state(), State::Connected);
    assert!(!world.links[fourth].dead);
    exchange(&mut world);
    // A live path takes none at all.
    let fifth = world.connect();
    world.settle();
    world.take_server_end(fifth);
    world.inject_down(fifth, &reject(RejectCode::CLOSED));
    world.settle();
    assert_eq!(world.client.state(), State::Connected);
    exchange(&mut world);
}

/// PROTOCOL 6.2: where this end itself ends TLS, a JOIN must be bound to that very connection.
#[test]
fn joins_are_bound_to_their_tls_connection() {
    let bound = |byte: u8| PathInfo {
        exporter: Some([byte; 32]),
        ..encrypted()
    };
    let mut world = World::tapped(Options::default());
    world.connect_with(bound(1)).expect("a path opens");
    world.settle();
    let second = world.connect_with(bound(2)).expect("a path opens");
    world.run_for(Duration::from_micros(1));
    let join = records(&world.links[second].tapped_up)[0].clone();
    world.cut(second);
    // Between two TLS connections sits someone who passes it on.
    let thief = world.stranger(bound(3));
    world.inject_up(thief, &join);
    world.settle();
    assert_eq!(reject_of(&world, thief), Some(RejectCode::BAD_PROOF));
    // A client that knows of no exporter.
    let third = world.connect_with(encrypted()).expect("a path opens");
    world.run_for(Duration::from_micros(1));
    let unbound = records(&world.links[third].tapped_up)[0].clone();
    world.cut(third);
    let thief = world.stranger(bound(4));
    world.inject_up(thief, &unbound);
    world.settle();
    assert_eq!(reject_of(&world, thief), Some(RejectCode::UNBOUND));
    let fourth = world.connect_with(bound(5)).expect("a path opens");
    world.settle();
    assert_eq!(reject_of(&world, fourth), None);
    assert_eq!(world.server().stats().paths, 2);
}

// ---- paths ----

/// PROTOCOL 6.2: the server ends paths that the client no longer lists, and no others.
#[test]
fn unlisted_paths_are_fenced() {
    let mut world = World::connected(Options::default());
    // The client's end is gone; the server knows nothing of it.
    let (now, key) = (world.now, world.links[0].client.take().expect("live"));
    world.client.handle_path_closed(now, key, PathEnd::Reset);
    assert_eq!(world.client.state(), State::Reconnecting);
    world.server_events.clear();
    let next = world.connect();
    world.run_for(Duration::from_millis(3));
    assert_eq!(world.server().active_path(), world.links[next].server);
    assert!(world.server_saw(|event| matches!(
        event,
        Event::PathDown {
            error: Some(PathError::Abandoned(code)),
            ..
        } if *code == ErrorCode::FENCED.value()
    )));
    assert!(
        !world.server_saw(|event| matches!(event, Event::State { .. })),
        "the server never was without a path"
    );
    exchange(&mut world);
}

/// PROTOCOL 6.2: paths that join at the same time do not fence each other.
#[test]
fn paths_that_join_together_stay() {
    let mut world = World::connected(Options::default());
    world.connect();
    world.connect();
    world.connect();
    world.settle();
    assert_eq!(world.client.stats().paths, 4);
    assert_eq!(world.server().stats().paths, 4);
    assert!(!world.server_saw(|event| matches!(event, Event::PathDown { .. })));
}

/// PROTOCOL 6.1: eight paths and no more, at either end; a refused one does not use up its id.
#[test]
fn a_ninth_path_is_refused() {
    let mut world = World::tapped(Options::default());
    for _ in 0..MAX_PATHS {
        world.connect();
        world.settle();
    }
    assert_eq!(
        world.client.open_path(world.now, plain()),
        Err(OpenPathError::TooMany)
    );
    // The client's end of one is gone, and the server has not noticed.
    world.take_client_end(3);
    let ninth = world.connect();
    world.settle();
    assert_eq!(reject_of(&world, ninth), Some(RejectCode::TOO_MANY_PATHS));
    world.cut(3);
    let tenth = world.connect();
    world.settle();
    assert_eq!(reject_of(&world, tenth), None);
    exchange(&mut world);
}

/// Connections that died in their handshake, which only the client knows, do not keep the next one out.
#[test]
fn joins_that_came_to_nothing_make_room() {
    let mut world = World::connected(Options::default());
    for _ in 0..MAX_PATHS {
        let link = world.connect();
        // JOIN arrives, JOINED does not, and the client gives the connection up.
        world.stall(link, false, true);
        world.run_for(Duration::from_millis(5));
        let key = world.links[link].client.take().expect("live");
        let now = world.now;
        world.client.handle_path_closed(now, key, PathEnd::Reset);
    }
    let link = world.connect();
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.links[link].rejected, None);
    let key = world.links[link].client.expect("live");
    let stats = world.client.path_stats(key).expect("live");
    assert_eq!(stats.state, PathState::Standby);
}

/// Nor do paths whose connections take long to close.
#[test]
fn paths_that_close_make_room() {
    let mut world = World::connected(Options::default());
    let now = world.now;
    for _ in 1..MAX_PATHS {
        let info = PathInfo::new("mem://test", "mem", Security::Plain);
        let key = world.client.open_path(now, info).expect("room");
        let slot = world.client.path_slot(key).expect("there");
        world
            .client
            .retire_path(now, slot, PathEnd::Local, Some(PathError::HandshakeTimeout));
    }
    let link = world.connect();
    world.settle();
    let key = world.links[link].client.expect("live");
    assert!(world.client.path_stats(key).is_some());
}

/// PROTOCOL 6.5: behind a proxy the server sees another carrier than the client does. A floor that only the
/// server's side of it reaches is named as what is wrong.
#[test]
fn a_floor_that_only_the_server_sees_reached_is_named() {
    let server = Config {
        security_floor: Some(Security::Encrypted),
        ..Config::default()
    };
    let mut world = World::new(Options {
        server,
        ..Options::default()
    });
    let now = world.now;
    let key = world.client.open_path(now, plain()).expect("a path opens");
    let link = world.stranger(encrypted());
    world.links[link].client = Some(key);
    world.settle();
    let error = PathError::Handshake(HandshakeError::BelowFloor {
        floor: Security::Encrypted,
        carrier: Security::Plain,
    });
    let named = |event: &Event| matches!(event, Event::PathDown { error: Some(why), .. } if *why == error);
    assert!(world.client_saw(named), "{:?}", world.client_events);
}

/// PROTOCOL 5.7: a REJECT ends a session whose last path has been silent for as long as makes a path dead: the server
/// was started anew, and nothing that it says comes over the old connection.
#[test]
fn a_silent_path_does_not_keep_a_session_that_is_gone() {
    let mut world = World::connected(Options::default());
    world.stall(0, true, true);
    let silent = |event: &Event| matches!(event, Event::PathSilent(_));
    while !world.client_saw(silent) {
        world.run_for(Duration::from_millis(10));
    }
    let second = world.connect();
    world.take_server_end(second);
    let mut body = Vec::new();
    Reject::new(RejectCode::UNKNOWN_SESSION, "no such session").encode(&mut body);
    let bytes = handshake(HandshakeKind::Reject, &body);
    world.inject_down(second, &bytes);
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.client.state(), State::Failed);
}
