//! The small machines: path ids, backoff, connector, acceptor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bolero::check;
use bytes::BytesMut;
use sheetbend_core::client::connector::{self, AttemptId, Connector, Down, MAX_PATHS, Mode, Verdict};
use sheetbend_core::handshake::{PATH_ID_WINDOW, PathIdWindow, Security};
use sheetbend_core::policy::{Backoff, BackoffPolicy};
use sheetbend_core::rng::Rng;
use sheetbend_core::server::{Acceptor, Routed, SessionToken, registry};
use sheetbend_core::session::{Config, Incoming, PathInfo, Session};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;
use sheetbend_fuzz::input::{Input, wide};

/// PROTOCOL 6.1: the window of path ids against a set that remembers everything.
#[test]
fn path_ids() {
    check!().with_type::<Vec<(u8, u16)>>().for_each(|steps| {
        let mut window = PathIdWindow::new();
        let mut used = BTreeSet::new();
        let mut highest = 0_u64;
        for &(kind, n) in steps {
            let id = match kind % 4 {
                0 => highest.saturating_add(u64::from(n % 8)),
                1 => highest.saturating_sub(u64::from(n % 1100)),
                2 => highest.saturating_add(u64::from(n)),
                _ => highest.saturating_add(u64::from(n) << (kind >> 2)),
            };
            let near = id.saturating_sub(highest) <= 1 << 32;
            let allowed = near && !used.contains(&id) && (used.is_empty() || id + PATH_ID_WINDOW > highest);
            assert_eq!(window.check(id).is_ok(), allowed, "{id} after {used:?}");
            assert_eq!(window.insert(id).is_ok(), allowed, "{id} after {used:?}");
            if allowed {
                used.insert(id);
                highest = highest.max(id);
            }
            assert_eq!(window.highest(), used.last().copied());
        }
    });
}

/// Delays stay within their bounds, whatever is asked when.
#[test]
fn backoff() {
    check!().for_each(|bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let base = Duration::from_millis(1 + u64::from(input.u16()));
        let cap = base + Duration::from_millis(u64::from(input.u16()));
        let policy = match input.byte() % 4 {
            0 => BackoffPolicy::constant(base),
            1 => BackoffPolicy::linear(base, base, cap),
            2 => BackoffPolicy::exponential(base, cap),
            _ => BackoffPolicy::decorrelated(base, cap),
        };
        let most = input.byte();
        let limited = input.flag();
        let policy = if limited {
            policy.with_max_attempts(u32::from(most))
        } else {
            policy
        };
        let mut backoff = Backoff::new(policy);
        let mut rng = Rng::from_seed(wide(u64::from(most)));
        let mut now = Timestamp::ZERO;
        let mut tries = 0;
        while !input.is_empty() {
            match input.byte() % 8 {
                0 => {
                    backoff.reset();
                    tries = 0;
                }
                1 => now += Duration::from_secs(u64::from(input.u16())),
                _ => {
                    let bound = Duration::from_millis(u64::from(input.u16()));
                    match backoff.next_within(now, &mut rng, bound) {
                        Some(delay) => {
                            assert!(delay <= cap.min(bound), "{delay:?}");
                            tries += 1;
                        }
                        None => assert!(limited && tries >= u32::from(most)),
                    }
                    assert_eq!(backoff.attempts(), tries);
                }
            }
        }
    });
}

/// The connector under any calls, known and unknown ids: its limits hold, it asks for nothing twice, and once
/// everything connects it has what it wants.
#[test]
fn connector() {
    check!().for_each(|bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let endpoints = 1 + input.below(4);
        let paths = 1 + input.below(4);
        let mut config = connector::Config::new(endpoints);
        config.mode = Mode::Standby { paths };
        let (most, each) = (config.max_in_flight, config.max_in_flight_per_endpoint);
        let mut now = Timestamp::ZERO;
        let rng = Rng::from_seed(wide(u64::from(input.byte())));
        let mut world = Dials {
            connector: Connector::new(config, rng, now),
            under_way: BTreeMap::new(),
            up: BTreeMap::new(),
            every: Vec::new(),
        };
        while !input.is_empty() {
            let which = input.below(256);
            match input.byte() % 10 {
                0 | 1 => now += Duration::from_millis(input.size(20_000) as u64),
                2 => now = world.connector.poll_timeout().unwrap_or(now).max(now),
                3 => world.come_up(now, which),
                4 => world.fail(now, which, Down::Failed),
                5 => world.fail(now, which, Down::Rejected),
                6 => world.go_down(now, which, input.pick(&[Down::Failed, Down::Abandoned])),
                7 => world.connector.handle_network_change(now),
                8 => {
                    if let Some(&id) = world.every.get(which % world.every.len().max(1)) {
                        world.connector.handle_path_worked(id);
                    }
                }
                _ => world.stale(now, which),
            }
            world.settle(now);
            assert!(world.under_way.len() <= most && world.connector.in_flight() <= most);
            for endpoint in 0..endpoints {
                let dials = world.under_way.values().filter(|&&at| at == endpoint).count();
                assert!(dials <= each);
            }
            assert!(world.connector.paths_up() <= MAX_PATHS);
            assert!(
                world.connector.poll_timeout().is_none_or(|at| at > now),
                "nothing is due twice"
            );
        }
        for _ in 0..200 {
            while !world.under_way.is_empty() {
                world.come_up(now, 0);
                world.settle(now);
            }
            if world.connector.paths_up() == paths {
                break;
            }
            now = world
                .connector
                .poll_timeout()
                .expect("it goes on trying")
                .max(now);
            world.settle(now);
        }
        assert_eq!(world.connector.paths_up(), paths);
        world.connector.stop();
        world.settle(now);
        assert!(world.under_way.is_empty() && world.connector.poll_connect(now).is_none());
    });
}

struct Dials {
    connector: Connector,
    under_way: BTreeMap<AttemptId, usize>,
    up: BTreeMap<AttemptId, usize>,
    every: Vec<AttemptId>,
}

impl Dials {
    fn settle(&mut self, now: Timestamp) {
        for _ in 0..1000 {
            if self.connector.poll_timeout().is_some_and(|at| at <= now) {
                self.connector.handle_timeout(now);
            }
            let mut still = true;
            while let Some(attempt) = self.connector.poll_connect(now) {
                still = false;
                assert!(self.every.last().is_none_or(|&last| last < attempt.attempt_id));
                self.every.push(attempt.attempt_id);
                self.under_way.insert(attempt.attempt_id, attempt.endpoint);
            }
            while let Some(event) = self.connector.poll_event() {
                still = false;
                match event {
                    connector::Event::GiveUp(attempt) => {
                        let known = self.under_way.remove(&attempt.attempt_id);
                        assert_eq!(known, Some(attempt.endpoint));
                    }
                    connector::Event::Surplus(attempt) => {
                        assert_eq!(self.up.remove(&attempt.attempt_id), Some(attempt.endpoint));
                        self.connector
                            .handle_path_down(now, attempt.attempt_id, Down::Abandoned);
                    }
                    _ => {}
                }
            }
            if still {
                return;
            }
        }
        panic!("no end of work at one moment");
    }

    fn come_up(&mut self, now: Timestamp, which: usize) {
        let count = self.under_way.len();
        let Some((&id, &endpoint)) = self.under_way.iter().nth(which % count.max(1)) else {
            return;
        };
        self.under_way.remove(&id);
        assert_eq!(self.connector.handle_path_up(now, id), Verdict::Keep);
        self.up.insert(id, endpoint);
    }

    fn fail(&mut self, now: Timestamp, which: usize, why: Down) {
        let count = self.under_way.len();
        let Some((&id, _)) = self.under_way.iter().nth(which % count.max(1)) else {
            return;
        };
        self.under_way.remove(&id);
        self.connector.handle_path_down(now, id, why);
    }

    fn go_down(&mut self, now: Timestamp, which: usize, why: Down) {
        let count = self.up.len();
        let Some((&id, _)) = self.up.iter().nth(which % count.max(1)) else {
            return;
        };
        self.up.remove(&id);
        self.connector.handle_path_down(now, id, why);
    }

    /// What is said of an attempt that is over changes nothing.
    fn stale(&mut self, now: Timestamp, which: usize) {
        let Some(&id) = self.every.get(which % self.every.len().max(1)) else {
            return;
        };
        if self.under_way.contains_key(&id) || self.up.contains_key(&id) {
            return;
        }
        let before = (self.connector.in_flight(), self.connector.paths_up());
        assert_eq!(self.connector.handle_path_up(now, id), Verdict::Drop);
        self.connector.handle_path_down(now, id, Down::Failed);
        assert_eq!((self.connector.in_flight(), self.connector.paths_up()), before);
    }
}

/// PROTOCOL 5, 6: an acceptor and its registry under any first bytes, and sound HELLOs between them: the
/// limits hold, and each session is made once.
#[test]
fn acceptor() {
    let config = || registry::Config {
        max_sessions: 6,
        max_unconfirmed: 4,
        max_remembered: 5,
        ..registry::Config::default()
    };
    check!().for_each(|bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let mut now = Timestamp::from_nanos(1);
        let mut acceptor = Acceptor::new(config(), Config::default(), [3; 32], now);
        // By the seed of its client.
        let mut made: BTreeMap<u8, (SessionToken, Box<Session>)> = BTreeMap::new();
        while !input.is_empty() {
            let (op, seed) = (input.byte() % 8, input.byte() % 10);
            match op {
                0 | 1 => {
                    let info = PathInfo::new("mem://", "mem", Security::Plain);
                    let mut incoming = Incoming::new(now, info);
                    let mut bytes = BytesMut::from(input.take(64));
                    if incoming.handle_input(&mut bytes) == Ok(true) {
                        let _ = acceptor.route(now, &incoming);
                    }
                }
                2..=4 => hello(now, seed, &mut input, &mut acceptor, &mut made),
                5 => now += Duration::from_millis(u64::from(input.u16())),
                6 => {
                    if let Some((token, _)) = made.get(&seed) {
                        let _ = acceptor.confirmed(now, *token);
                    }
                }
                _ => {
                    if let Some((token, _)) = made.get(&seed) {
                        let why = input.pick(&[registry::Ended::Closed, registry::Ended::Expired]);
                        acceptor.ended(now, *token, why);
                    }
                }
            }
            if acceptor.poll_timeout().is_some_and(|at| at <= now) {
                acceptor.handle_timeout(now);
            }
            while let Some(token) = acceptor.poll_expired() {
                made.retain(|_, (known, _)| *known != token);
            }
            let (live, unconfirmed) = acceptor.counts();
            assert!(live <= 6 && unconfirmed <= 4 && unconfirmed <= live);
            assert!(acceptor.poll_timeout().is_none_or(|at| at > now));
        }
    });
}

/// The HELLO of the client with this seed, perhaps with one byte changed.
fn hello(
    now: Timestamp,
    seed: u8,
    input: &mut Input<'_>,
    acceptor: &mut Acceptor,
    made: &mut BTreeMap<u8, (SessionToken, Box<Session>)>,
) {
    let info = PathInfo::new("mem://", "mem", Security::Plain);
    let mut client = Session::client(Config::default(), [seed; 32], now);
    let path = client.open_path(now, info.clone()).expect("the first");
    let mut out = OutBuffer::new();
    client.poll_transmit(now, path, &mut out);
    let mut bytes = BytesMut::from(out.chunk());
    let (at, change) = (usize::from(input.byte()), input.byte() & 0x1f);
    let changed = change != 0 && input.flag();
    if changed {
        let at = at % bytes.len();
        bytes[at] ^= change;
    }
    let mut incoming = Incoming::new(now, info);
    let first = incoming.handle_input(&mut bytes);
    if changed {
        return assert_ne!(first, Ok(true), "the checksum sees it");
    }
    assert_eq!(first, Ok(true));
    match acceptor.route(now, &incoming) {
        Routed::New { token, mut session } => {
            assert!(session.accept_path(now, incoming).is_ok());
            made.insert(seed, (token, session));
        }
        Routed::Existing { token } => {
            let (known, _) = made.get(&seed).expect("it was made");
            assert_eq!(*known, token);
        }
        Routed::Reject(_) => {}
    }
}
