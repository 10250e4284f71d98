//! PROTOCOL 5.1, 5.7 and 6.2: where paths are routed.

use super::*;
use crate::handshake::Params;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u32) -> Timestamp {
    Timestamp::ZERO + SECOND * seconds
}

fn hello_with(nonce: u64, params: Params) -> Hello {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&nonce.to_le_bytes());
    Hello::new(0, bytes, [9; 32], params).unwrap()
}

fn hello(nonce: u64) -> Hello {
    hello_with(nonce, Params::default())
}

fn registry(edit: impl FnOnce(&mut Config)) -> Registry {
    let mut config = Config::default();
    edit(&mut config);
    Registry::new(config, Rng::from_seed([5; 32]), Timestamp::ZERO)
}

#[track_caller]
fn new(route: Route) -> (SessionToken, SessionId) {
    match route {
        Route::New {
            token,
            session_id,
            version: VERSION,
        } => (token, session_id),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn code(route: Route) -> RejectCode {
    match route {
        Route::Reject(reject) => reject.code,
        other => panic!("{other:?}"),
    }
}

fn join(registry: &mut Registry, now: Timestamp, id: &SessionId) -> Route {
    registry.route_join(now, id, &Routing::default())
}

/// What must hold after every call.
fn check(registry: &Registry) {
    let config = &registry.config;
    assert!(registry.unconfirmed + registry.stillborn <= config.max_unconfirmed);
    assert!(registry.live() <= config.max_sessions);
    assert!(registry.remembered.len() <= config.max_remembered);
    assert_eq!(registry.nonces.len(), registry.sessions.len());
    assert_eq!(registry.ids.len(), registry.sessions.len());
    let mut deadlines: Vec<_> = registry
        .sessions
        .iter()
        .filter_map(|(token, e)| Some((e.state.deadline()?, *token)))
        .collect();
    deadlines.sort();
    assert!(deadlines.iter().eq(&registry.deadlines));
    let unconfirmed = registry
        .sessions
        .values()
        .filter(|e| matches!(e.state, State::Unconfirmed(_)))
        .count();
    assert_eq!(unconfirmed, registry.unconfirmed);
    let ended = registry
        .sessions
        .values()
        .filter(|e| matches!(e.state, State::Ended { .. }))
        .count();
    assert_eq!(ended, registry.remembered());
    assert_eq!(registry.live(), registry.sessions.len() - ended);
}

#[test]
fn a_session_and_its_nonce() {
    let mut r = registry(|_| ());
    let (token, id) = new(r.route_hello(at(0), &hello(1), Security::Plain));
    assert_eq!(
        r.route_hello(at(1), &hello(1).on_path(3), Security::Plain),
        Route::Existing { token }
    );
    assert_eq!(join(&mut r, at(1), &id), Route::Existing { token });
    // The same nonce with other bytes.
    let other = hello_with(
        1,
        Params {
            lz4: true,
            ..Params::default()
        },
    );
    assert_eq!(
        code(r.route_hello(at(1), &other, Security::Plain)),
        RejectCode::MALFORMED
    );
    assert!(r.confirmed(at(2), token));
    assert!(r.confirmed(at(2), token));
    assert_eq!(r.poll_timeout(), None);
    assert_eq!(
        code(r.route_hello(at(100_000), &hello(1), Security::Plain)),
        RejectCode::USE_JOIN
    );
    assert_eq!(
        code(r.route_hello(at(100_000), &other, Security::Plain)),
        RejectCode::MALFORMED
    );
    assert_eq!(join(&mut r, at(100_000), &id), Route::Existing { token });
    r.ended(at(100_000), token, Ended::Expired);
    assert!(!r.confirmed(at(100_000), token));
    assert_eq!(r.live(), 0);
    assert_eq!(
        code(r.route_hello(at(100_599), &hello(1), Security::Plain)),
        RejectCode::USE_JOIN
    );
    assert_eq!(code(join(&mut r, at(100_599), &id)), RejectCode::EXPIRED);
    assert_eq!(r.poll_timeout(), Some(at(100_600)));
    r.handle_timeout(at(100_600));
    assert_eq!(r.poll_event(), None);
    assert_eq!(r.poll_timeout(), None);
    assert_eq!(code(join(&mut r, at(100_600), &id)), RejectCode::UNKNOWN_SESSION);
    new(r.route_hello(at(100_600), &hello(1), Security::Plain));
}

#[test]
fn closed_sessions_say_so() {
    let mut r = registry(|_| ());
    let (token, id) = new(r.route_hello(at(0), &hello(1), Security::Plain));
    assert!(r.confirmed(at(0), token));
    r.ended(at(0), token, Ended::Closed);
    r.ended(at(9), token, Ended::Expired);
    assert_eq!(code(join(&mut r, at(1), &id)), RejectCode::CLOSED);
    // Ended before it was confirmed: neither a new session nor advice to join one.
    let (token, id) = new(r.route_hello(at(1), &hello(2), Security::Plain));
    r.ended(at(1), token, Ended::Closed);
    assert_eq!(
        code(r.route_hello(at(2), &hello(2), Security::Plain)),
        RejectCode::CLOSED
    );
    assert_eq!(code(join(&mut r, at(2), &id)), RejectCode::CLOSED);
    check(&r);
    r.handle_timeout(at(11));
    assert_eq!(code(join(&mut r, at(11), &id)), RejectCode::UNKNOWN_SESSION);
    assert_eq!(r.poll_event(), None);
}

/// NUMBERS: slowloris. Handshakes that nobody finishes stay within their limit and vanish.
#[test]
fn unconfirmed_sessions_are_bounded_and_die() {
    let mut r = registry(|_| ());
    let (mut made, mut busy) = (0, 0);
    let mut longest = Duration::ZERO;
    for n in 0..10_000 {
        let now = Timestamp::ZERO + Duration::from_millis(n / 10);
        longest = now.since(Timestamp::ZERO);
        match r.route_hello(now, &hello(n), Security::Plain) {
            Route::New { .. } => made += 1,
            route => {
                assert_eq!(code(route), RejectCode::BUSY);
                busy += 1;
            }
        }
    }
    check(&r);
    assert_eq!((made, busy), (4096, 10_000 - 4096));
    assert_eq!(r.unconfirmed(), 4096);
    // Driven by its own deadlines.
    let (mut last, mut expired) = (Timestamp::ZERO, 0);
    while let Some(deadline) = r.poll_timeout() {
        r.handle_timeout(deadline);
        while let Some(Event::Unconfirmed { .. }) = r.poll_event() {
            expired += 1;
        }
        last = deadline;
    }
    assert_eq!(expired, 4096);
    assert!(last <= Timestamp::ZERO + longest + 10 * SECOND);
    assert!(r.sessions.is_empty() && r.nonces.is_empty() && r.ids.is_empty() && r.deadlines.is_empty());
    new(r.route_hello(last, &hello(0), Security::Plain));
}

/// One who opens and closes at once stays within the same limit and pushes nothing out of memory.
#[test]
fn stillborn_sessions_do_not_fill_the_memory() {
    let mut r = registry(|c| (c.max_unconfirmed, c.max_remembered) = (10, 3));
    let (proven, id) = new(r.route_hello(at(0), &hello(0), Security::Plain));
    assert!(r.confirmed(at(0), proven));
    r.ended(at(0), proven, Ended::Closed);
    for n in 1..100 {
        if let Route::New { token, .. } = r.route_hello(at(1), &hello(n), Security::Plain) {
            r.ended(at(1), token, Ended::Closed);
        }
        check(&r);
    }
    assert_eq!(r.remembered(), 11);
    assert_eq!(
        code(r.route_hello(at(1), &hello(200), Security::Plain)),
        RejectCode::BUSY
    );
    assert_eq!(code(join(&mut r, at(1), &id)), RejectCode::CLOSED);
    new(r.route_hello(at(11), &hello(200), Security::Plain));
}

#[test]
fn the_oldest_ended_sessions_are_forgotten_first() {
    let mut r = registry(|c| c.max_remembered = 3);
    let ids: Vec<_> = (0..5_u32)
        .map(|n| {
            let (token, id) = new(r.route_hello(at(n), &hello(u64::from(n)), Security::Plain));
            assert!(r.confirmed(at(n), token));
            r.ended(at(n), token, Ended::Closed);
            check(&r);
            id
        })
        .collect();
    let codes: Vec<_> = ids
        .iter()
        .map(|id| code(join(&mut r, at(5), id)).value())
        .collect();
    assert_eq!(codes, [1, 1, 14, 14, 14]);
}

#[test]
fn sessions_are_bounded() {
    let mut r = registry(|c| c.max_sessions = 2);
    let (first, _) = new(r.route_hello(at(0), &hello(1), Security::Plain));
    new(r.route_hello(at(0), &hello(2), Security::Plain));
    assert!(r.confirmed(at(0), first));
    assert_eq!(
        code(r.route_hello(at(0), &hello(3), Security::Plain)),
        RejectCode::BUSY
    );
    r.ended(at(0), first, Ended::Closed);
    new(r.route_hello(at(0), &hello(3), Security::Plain));
}

#[test]
fn draining_refuses_hello_and_never_join() {
    let mut r = registry(|_| ());
    let (token, id) = new(r.route_hello(at(0), &hello(1), Security::Plain));
    r.drain(Some("b.example:443".into()));
    let Route::Reject(reject) = r.route_hello(at(0), &hello(2), Security::Plain) else {
        panic!()
    };
    assert_eq!(
        (reject.code, reject.address.as_str()),
        (RejectCode::DRAINING, "b.example:443")
    );
    // A second path of a handshake under way is no new session.
    assert_eq!(
        r.route_hello(at(0), &hello(1), Security::Plain),
        Route::Existing { token }
    );
    assert_eq!(join(&mut r, at(0), &id), Route::Existing { token });
    r.drain(None);
    new(r.route_hello(at(0), &hello(2), Security::Plain));
}

/// PROTOCOL 6.5: the stronger of both floors.
#[test]
fn the_floor_holds_from_the_first_path() {
    let mut r = registry(|c| c.floor = Security::Local);
    assert_eq!(
        code(r.route_hello(at(0), &hello(1), Security::Plain)),
        RejectCode::SECURITY_FLOOR
    );
    let (token, _) = new(r.route_hello(at(0), &hello(1), Security::Local));
    assert_eq!(
        code(r.route_hello(at(0), &hello(1), Security::Plain)),
        RejectCode::SECURITY_FLOOR
    );
    assert_eq!(
        r.route_hello(at(0), &hello(1), Security::Encrypted),
        Route::Existing { token }
    );
    let strict = hello_with(
        2,
        Params {
            floor: Security::Encrypted,
            ..Params::default()
        },
    );
    assert_eq!(
        code(r.route_hello(at(0), &strict, Security::Local)),
        RejectCode::SECURITY_FLOOR
    );
    new(r.route_hello(at(0), &strict, Security::Encrypted));
}

#[test]
fn versions_and_redirects() {
    let mut r = registry(|c| {
        c.versions = vec![7];
        c.owner = Some(Arc::new(|_, routing| {
            (routing.as_bytes() == [3]).then(|| "three.example".to_owned())
        }));
    });
    assert_eq!(
        code(r.route_hello(at(0), &hello(1), Security::Plain)),
        RejectCode::VERSION
    );
    let id = SessionId([1; 16]);
    let Route::Reject(reject) = r.route_join(at(0), &id, &Routing::new(&[3]).unwrap()) else {
        panic!()
    };
    assert_eq!(
        (reject.code, reject.address.as_str()),
        (RejectCode::REDIRECT, "three.example")
    );
    let elsewhere = r.route_join(at(0), &id, &Routing::new(&[4]).unwrap());
    assert_eq!(code(elsewhere), RejectCode::UNKNOWN_SESSION);
}

/// A machine that wakes late first takes in what its sockets hold.
#[test]
fn a_late_confirmation_before_the_timeout_was_judged_counts() {
    let mut r = registry(|_| ());
    let (token, _) = new(r.route_hello(at(0), &hello(1), Security::Plain));
    assert!(r.confirmed(at(60), token));
    r.handle_timeout(at(60));
    assert_eq!(r.poll_event(), None);
    let (token, id) = new(r.route_hello(at(60), &hello(2), Security::Plain));
    r.handle_timeout(at(70));
    assert_eq!(r.poll_timeout(), Some(at(70)));
    assert_eq!(r.poll_event(), Some(Event::Unconfirmed { token }));
    assert!(!r.confirmed(at(70), token));
    assert_eq!(code(join(&mut r, at(70), &id)), RejectCode::UNKNOWN_SESSION);
}

#[test]
fn same_seed_same_ids() {
    let id = || new(registry(|_| ()).route_hello(at(0), &hello(1), Security::Plain)).1;
    assert_eq!(id(), id());
}

/// Random operations against the lifecycle, invariants after each.
#[test]
fn model() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Model {
        Unconfirmed(u64),
        Confirmed,
        Ended(u64, bool),
    }
    bolero::check!().with_type::<Vec<(u8, u8, u8)>>().for_each(|ops| {
        let mut r = registry(|c| (c.max_sessions, c.max_unconfirmed, c.max_remembered) = (6, 4, 100));
        // By nonce: token, id, state.
        let mut model: BTreeMap<u64, (SessionToken, SessionId, Model)> = BTreeMap::new();
        let mut now = 0_u64;
        for &(op, which, wait) in ops {
            now += u64::from(wait % 16);
            let at = Timestamp::ZERO + SECOND * u32::try_from(now).unwrap();
            let nonce = u64::from(which % 12);
            r.handle_timeout(at);
            model.retain(|_, (_, _, state)| match *state {
                Model::Unconfirmed(until) | Model::Ended(until, _) => until > now,
                Model::Confirmed => true,
            });
            let known = model.get(&nonce).copied();
            match op % 4 {
                0 => {
                    let route = r.route_hello(at, &hello(nonce), Security::Plain);
                    let handshakes = |m: &&(SessionToken, SessionId, Model)| {
                        matches!(m.2, Model::Unconfirmed(_) | Model::Ended(_, false))
                    };
                    let live = model
                        .values()
                        .filter(|m| !matches!(m.2, Model::Ended(..)))
                        .count();
                    match known.map(|known| (known.0, known.2)) {
                        Some((token, Model::Unconfirmed(_))) => assert_eq!(route, Route::Existing { token }),
                        Some((_, Model::Ended(_, false))) => assert_eq!(code(route), RejectCode::CLOSED),
                        Some(_) => assert_eq!(code(route), RejectCode::USE_JOIN),
                        None if live >= 6 || model.values().filter(handshakes).count() >= 4 => {
                            assert_eq!(code(route), RejectCode::BUSY);
                        }
                        None => {
                            let (token, id) = new(route);
                            model.insert(nonce, (token, id, Model::Unconfirmed(now + 10)));
                        }
                    }
                }
                1 => {
                    let Some((_, id, state)) = known else { continue };
                    let alive = matches!(join(&mut r, at, &id), Route::Existing { .. });
                    assert_eq!(alive, !matches!(state, Model::Ended(..)));
                }
                2 => {
                    let Some((token, _, state)) = model.get_mut(&nonce) else {
                        continue;
                    };
                    let alive = r.confirmed(at, *token);
                    assert_eq!(alive, !matches!(state, Model::Ended(..)));
                    if alive {
                        *state = Model::Confirmed;
                    }
                }
                _ => {
                    let Some((token, _, state)) = model.get_mut(&nonce) else {
                        continue;
                    };
                    r.ended(at, *token, Ended::Closed);
                    match *state {
                        Model::Unconfirmed(_) => *state = Model::Ended(now + 10, false),
                        Model::Confirmed => *state = Model::Ended(now + 600, true),
                        Model::Ended(..) => {}
                    }
                }
            }
            check(&r);
        }
    });
}

/// DESIGN §2: what sessions without paths hold has a budget for all of them: the longest away goes first.
#[test]
fn sessions_without_paths_share_a_budget() {
    let mut r = registry(|config| config.max_detached_bytes = 1000);
    let mut all = Vec::new();
    for nonce in 0..4 {
        let (token, _) = new(r.route_hello(at(0), &hello(nonce), Security::Plain));
        assert!(r.confirmed(at(0), token));
        all.push(token);
    }
    r.detached(at(1), all[0], 400);
    r.detached(at(2), all[1], 400);
    r.detached(at(3), all[2], 200);
    assert_eq!((r.poll_event(), r.detached_bytes()), (None, 1000));
    // The first has a path again; the others write on.
    r.attached(all[0]);
    r.detached(at(4), all[2], 700);
    assert_eq!(
        (r.poll_event(), r.detached_bytes()),
        (Some(Event::Evicted { token: all[1] }), 700)
    );
    r.ended(at(4), all[1], Ended::Expired);
    r.detached(at(5), all[0], 100);
    r.detached(at(6), all[3], 5000);
    for token in [all[2], all[0], all[3]] {
        assert_eq!(r.poll_event(), Some(Event::Evicted { token }));
        r.ended(at(6), token, Ended::Expired);
        r.detached(at(7), token, 5000);
    }
    assert_eq!((r.poll_event(), r.detached_bytes()), (None, 0));
}

fn origin(last: u8) -> Origin {
    Origin::of_address([10, 0, 0, last].into())
}

/// A session of this origin that its client confirmed.
fn confirmed(r: &mut Registry, nonce: u64, from: Origin) -> SessionToken {
    let (token, _) = new(r.route_hello(at(0), &hello(nonce), Security::Plain));
    r.identify(token, from);
    assert!(r.confirmed(at(0), token));
    token
}

fn evicted(r: &mut Registry) -> Vec<SessionToken> {
    std::iter::from_fn(|| r.poll_event())
        .filter_map(|event| match event {
            Event::Evicted { token } => Some(token),
            _ => None,
        })
        .collect()
}

/// DESIGN §2: one address opens sessions and leaves them. It pushes out its own, the oldest first, and no other's.
#[test]
fn who_leaves_sessions_behind_harms_no_other() {
    for by_bytes in [true, false] {
        let mut r = registry(|config| {
            config.max_detached_bytes = 100_000;
            config.max_detached_bytes_per_origin = if by_bytes { 10_000 } else { u64::MAX };
            config.max_detached_per_origin = if by_bytes { usize::MAX } else { 10 };
        });
        // An honest one went away first, so it has been away for longest.
        let honest = confirmed(&mut r, 0, origin(1));
        r.detached(at(0), honest, 5000);
        let mut hostile = Vec::new();
        for nonce in 1..=1000 {
            let token = confirmed(&mut r, nonce, origin(2));
            r.detached(at(1), token, 1000);
            hostile.push(token);
        }
        assert_eq!(evicted(&mut r), hostile[..990], "by bytes: {by_bytes}");
        assert_eq!((r.detached_sessions(), r.detached_bytes()), (11, 15_000));
        // The honest one is there to come back.
        r.attached(honest);
        assert_eq!((r.detached_sessions(), r.detached_bytes()), (10, 10_000));
    }
}

/// Many addresses fill the budget for all: whoever holds the most loses first.
#[test]
fn the_origin_that_holds_the_most_goes_first() {
    for by_bytes in [true, false] {
        let mut r = registry(|config| {
            config.max_detached_bytes = if by_bytes { 50_000 } else { u64::MAX };
            config.max_detached = if by_bytes { usize::MAX } else { 50 };
        });
        let honest = confirmed(&mut r, 0, origin(0));
        r.detached(at(0), honest, 1000);
        let mut nonce = 0;
        for _ in 0..20 {
            for from in 1..=7 {
                nonce += 1;
                let token = confirmed(&mut r, nonce, origin(from));
                r.detached(at(1), token, 1000);
            }
        }
        let gone = evicted(&mut r);
        assert_eq!(gone.len(), 91, "by bytes: {by_bytes}");
        assert!(!gone.contains(&honest), "by bytes: {by_bytes}");
        assert_eq!((r.detached_sessions(), r.detached_bytes()), (50, 50_000));
    }
}

/// Who has authenticated is counted by that, wherever it comes from.
#[test]
fn an_identity_learnt_late_takes_its_sessions_along() {
    let mut r = registry(|config| config.max_detached_per_origin = 2);
    let all: Vec<_> = (0..4)
        .map(|nonce| confirmed(&mut r, nonce, origin(nonce as u8)))
        .collect();
    for &token in &all {
        r.detached(at(1), token, 10);
    }
    assert_eq!(evicted(&mut r), []);
    for &token in &all {
        r.identify(token, Origin::of_name("alice"));
        r.detached(at(2), token, 20);
    }
    assert_eq!(evicted(&mut r), all[..2], "the longest away");
    assert_eq!((r.detached_sessions(), r.detached_bytes()), (2, 40));
    for token in all {
        r.ended(at(3), token, Ended::Closed);
    }
    assert_eq!((r.detached_sessions(), r.detached_bytes()), (0, 0));
}

/// Where nothing is known of clients, only the budget for all of them counts.
#[test]
fn unknown_origins_share_no_budget_of_their_own() {
    let mut r = registry(|config| config.max_detached_per_origin = 1);
    for nonce in 0..10 {
        let token = confirmed(&mut r, nonce, Origin::Unknown);
        r.detached(at(1), token, 10);
    }
    assert_eq!((evicted(&mut r), r.detached_sessions()), (Vec::new(), 10));
}
