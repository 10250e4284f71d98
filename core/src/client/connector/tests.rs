//! The connector, driven by its own deadlines against simulated endpoints.

use super::*;

mod upgrade;
use crate::policy::BackoffPolicy;

const MS: Duration = Duration::from_millis(1);

fn ms(n: u64) -> Timestamp {
    Timestamp::from_nanos(n * 1_000_000)
}

fn in_ms(at: Timestamp) -> u64 {
    at.as_nanos() / 1_000_000
}

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug)]
enum Server {
    /// Proves its handshake after this long.
    Up { after_ms: u64 },
    /// Refuses after this long.
    Refuses { after_ms: u64 },
    /// Sends REJECT after this long.
    Rejects { after_ms: u64 },
    /// Says nothing.
    Mute,
    /// Proves its handshake, then dies after this long.
    Flaps { after_ms: u64, life_ms: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    Failed(AttemptId),
    Rejected(AttemptId),
    Up(Attempt, Option<u64>),
    Down(AttemptId),
    /// The endpoint's behaviour changes; its paths are cut if it is not up any more.
    Change(usize, Server),
}

struct World {
    connector: Connector,
    now: Timestamp,
    servers: Vec<Server>,
    agenda: Vec<(Timestamp, Happens)>,
    given_up: Vec<AttemptId>,
    dropped: Vec<AttemptId>,
    /// (ms, endpoint) of every start.
    starts: Vec<(u64, usize)>,
    /// (ms, endpoint) of every path that came up.
    ups: Vec<(u64, usize)>,
    up: Vec<Attempt>,
    surplus: usize,
    exhausted: usize,
    limits: (usize, usize),
    /// Paths carry data while they live.
    works: bool,
}

impl World {
    fn new(seed: u8, servers: &[Server], edit: impl FnOnce(&mut Config)) -> World {
        let mut config = Config::new(servers.len());
        edit(&mut config);
        let limits = (config.max_in_flight, config.max_in_flight_per_endpoint);
        World {
            connector: Connector::new(config, Rng::from_seed([seed; 32]), Timestamp::ZERO),
            now: Timestamp::ZERO,
            servers: servers.to_vec(),
            agenda: Vec::new(),
            given_up: Vec::new(),
            dropped: Vec::new(),
            starts: Vec::new(),
            ups: Vec::new(),
            up: Vec::new(),
            surplus: 0,
            exhausted: 0,
            limits,
            works: false,
        }
    }

    fn at(&mut self, at_ms: u64, what: Happens) {
        self.agenda.push((ms(at_ms), what));
    }

    fn run_to(&mut self, end_ms: u64) {
        let (mut turns_here, mut last) = (0, self.now);
        loop {
            self.drain();
            let deadline = self.connector.poll_timeout();
            let next = self.agenda.iter().map(|(at, _)| *at).min();
            let Some(at) = deadline
                .into_iter()
                .chain(next)
                .min()
                .filter(|at| *at <= ms(end_ms))
            else {
                break;
            };
            self.now = self.now.max(at);
            turns_here = if self.now == last { turns_here + 1 } else { 0 };
            last = self.now;
            assert!(turns_here < 100, "no progress at {:?}: {deadline:?}", self.now);
            while let Some(i) = self.agenda.iter().position(|(at, _)| *at <= self.now) {
                let (_, what) = self.agenda.remove(i);
                self.happen(what);
            }
            if deadline.is_some_and(|deadline| deadline <= self.now) {
                self.connector.handle_timeout(self.now);
            }
        }
        self.now = ms(end_ms);
    }

    fn drain(&mut self) {
        self.connect();
        while let Some(event) = self.connector.poll_event() {
            match event {
                Event::GiveUp(attempt) => self.given_up.push(attempt.attempt_id),
                Event::Surplus(attempt) => {
                    self.surplus += 1;
                    self.up.retain(|path| *path != attempt);
                    self.connector
                        .handle_path_down(self.now, attempt.attempt_id, Down::Abandoned);
                }
                Event::Exhausted => self.exhausted += 1,
                Event::Brokenness { .. } => {}
            }
        }
        self.connect();
        assert!(self.dropped.drain(..).all(|id| self.given_up.contains(&id)));
        self.check();
    }

    fn connect(&mut self) {
        while let Some(attempt) = self.connector.poll_connect(self.now) {
            self.starts.push((in_ms(self.now), attempt.endpoint));
            let id = attempt.attempt_id;
            let after = |after_ms: u64| self.now + MS * u32::try_from(after_ms).unwrap();
            match self.servers[attempt.endpoint] {
                Server::Up { after_ms } => self.agenda.push((after(after_ms), Happens::Up(attempt, None))),
                Server::Refuses { after_ms } => self.agenda.push((after(after_ms), Happens::Failed(id))),
                Server::Rejects { after_ms } => self.agenda.push((after(after_ms), Happens::Rejected(id))),
                Server::Flaps { after_ms, life_ms } => {
                    self.agenda
                        .push((after(after_ms), Happens::Up(attempt, Some(life_ms))));
                }
                Server::Mute => {}
            }
            self.check();
        }
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Failed(id) => self.connector.handle_connect_failed(self.now, id),
            Happens::Rejected(id) => self.connector.handle_path_down(self.now, id, Down::Rejected),
            Happens::Up(attempt, life_ms) => {
                let given_up = self.given_up.contains(&attempt.attempt_id);
                let verdict = self.connector.handle_path_up(self.now, attempt.attempt_id);
                assert!(verdict == Verdict::Drop || !given_up);
                if verdict == Verdict::Drop {
                    // Its event may still wait.
                    self.dropped.push(attempt.attempt_id);
                }
                if verdict == Verdict::Keep {
                    self.ups.push((in_ms(self.now), attempt.endpoint));
                    self.up.push(attempt);
                    if let Some(life_ms) = life_ms {
                        self.at(in_ms(self.now) + life_ms, Happens::Down(attempt.attempt_id));
                    }
                }
            }
            Happens::Down(id) => {
                self.up.retain(|path| path.attempt_id != id);
                if self.works {
                    self.connector.handle_path_worked(id);
                }
                self.connector.handle_path_down(self.now, id, Down::Failed);
            }
            Happens::Change(endpoint, server) => {
                self.servers[endpoint] = server;
                if !matches!(server, Server::Up { .. }) {
                    for path in self.up.extract_if(.., |path| path.endpoint == endpoint) {
                        self.connector
                            .handle_path_down(self.now, path.attempt_id, Down::Failed);
                    }
                }
            }
        }
    }

    fn check(&self) {
        let c = &self.connector;
        assert!(c.in_flight() <= self.limits.0);
        for endpoint in 0..self.servers.len() {
            let same = c
                .in_flight
                .iter()
                .filter(|a| a.attempt.endpoint == endpoint)
                .count();
            assert!(same <= self.limits.1);
        }
        if !c.stopped && c.paths_up() == 0 && !c.exhausted && !self.servers.is_empty() {
            assert!(c.poll_timeout().is_some(), "all is down and nothing is planned");
        }
        // One more than wanted only while the place of a doubled path is looked at.
        assert!(c.paths_up() == 0 || c.paths_up() + c.in_flight() <= c.mode.paths() + 1);
    }

    fn starts_between(&self, from_ms: u64, to_ms: u64) -> usize {
        self.starts
            .iter()
            .filter(|(at, _)| (from_ms..to_ms).contains(at))
            .count()
    }
}

fn standby(paths: usize) -> impl FnOnce(&mut Config) {
    move |config| config.mode = Mode::Standby { paths }
}

const UP: Server = Server::Up { after_ms: 2 };
const REFUSES: Server = Server::Refuses { after_ms: 1 };

#[test]
fn one_path_and_then_silence() {
    let mut world = World::new(1, &[UP, UP], |_| ());
    world.run_to(60_000);
    assert_eq!(world.starts, [(0, 0)]);
    assert_eq!(world.ups, [(2, 0)]);
    assert_eq!(world.connector.poll_timeout(), None);
}

/// RFC 8305 §5: staggered, in order, and at once after a failure.
#[test]
fn the_race() {
    let mut world = World::new(
        1,
        &[Server::Mute, Server::Mute, Server::Up { after_ms: 30 }, UP],
        |_| (),
    );
    world.run_to(1000);
    assert_eq!(world.starts, [(0, 0), (100, 1), (200, 2)]);
    assert_eq!(world.ups, [(230, 2)]);
    // One that would be better goes on for its time.
    assert_eq!(world.given_up.len(), 1);

    let mut world = World::new(1, &[REFUSES, REFUSES, UP], |_| ());
    world.run_to(1000);
    assert_eq!(world.starts[..3], [(0, 0), (1, 1), (2, 2)]);
    assert_eq!(world.ups, [(4, 2)]);
}

#[test]
fn a_slow_endpoint_that_wins_after_all() {
    let mut world = World::new(1, &[Server::Up { after_ms: 350 }, Server::Mute], |_| ());
    world.run_to(10_000);
    assert_eq!(world.starts, [(0, 0), (100, 1)]);
    assert_eq!(world.ups, [(350, 0)]);
}

/// The gate of the brief outage: refused connections for up to a second, on loopback.
#[test]
fn a_short_outage_ends_soon_after_the_endpoint_is_back() {
    for seed in 0..50 {
        for cut_ms in [5, 50, 200, 500, 1000, 1900] {
            let mut world = World::new(seed, &[UP], |_| ());
            world.at(5000, Happens::Change(0, REFUSES));
            world.at(5000 + cut_ms, Happens::Change(0, UP));
            world.run_to(20_000);
            let back = world.ups.last().unwrap().0;
            assert_eq!(world.ups.len(), 2);
            assert!(
                back <= 5000 + cut_ms + 105,
                "seed {seed}, cut {cut_ms}: back at {back}"
            );
            assert!(world.starts_between(5000, 5000 + cut_ms) <= 8 + cut_ms as usize / 10);
        }
    }
}

/// The same when the endpoint is mute: attempts that hang do not hold up the next.
#[test]
fn a_mute_outage_is_hedged() {
    for seed in 0..20 {
        for cut_ms in [100, 500, 1000, 1800] {
            let mut world = World::new(seed, &[UP], |_| ());
            world.at(5000, Happens::Change(0, Server::Mute));
            world.at(5000 + cut_ms, Happens::Change(0, UP));
            world.run_to(20_000);
            let back = world.ups.last().unwrap().0;
            assert_eq!(world.ups.len(), 2);
            assert!(
                back <= 5000 + 2 * cut_ms.max(400) + 10,
                "seed {seed}, cut {cut_ms}: back at {back}"
            );
        }
    }
}

/// An endpoint never seen before may be slow: attempts to it are not cut short.
#[test]
fn a_mute_stranger_is_hedged_with_patience() {
    let mut world = World::new(1, &[Server::Mute], |_| ());
    world.run_to(4999);
    assert_eq!(world.starts, [(0, 0), (400, 0), (1200, 0), (2800, 0)]);
    assert!(world.given_up.is_empty());
    world.servers[0] = UP;
    world.run_to(6000);
    assert_eq!(world.given_up.len(), 4);
    assert_eq!(world.connector.paths_up(), 1);
}

/// A slow link's handshakes are not cut short by the pace of a fast one's.
#[test]
fn a_slow_endpoint_sets_its_own_pace() {
    let slow = Server::Up { after_ms: 700 };
    let mut world = World::new(1, &[slow], |_| ());
    world.at(5000, Happens::Change(0, Server::Mute));
    world.at(5001, Happens::Change(0, slow));
    world.run_to(20_000);
    assert!(world.ups.last().unwrap().0 <= 6701, "{:?}", world.ups);
    assert!(world.starts_between(5000, 20_000) <= 2);
}

#[test]
fn delays_grow_with_the_outage() {
    for seed in 0..20 {
        let mut world = World::new(seed, &[REFUSES], |_| ());
        world.run_to(120_000);
        assert!(world.starts_between(0, 2000) >= 20);
        let later: Vec<_> = world.starts.iter().filter(|(at, _)| *at > 15_000).collect();
        assert!((9..60).contains(&later.len()), "{}", later.len());
        let gaps = world.starts.windows(2).map(|pair| pair[1].0 - pair[0].0);
        assert!(gaps.clone().max().unwrap() <= 10_001);
        let early = world
            .starts
            .windows(2)
            .take_while(|pair| pair[0].0 < 1999)
            .map(|pair| pair[1].0 - pair[0].0);
        assert!(early.max().unwrap() <= 101);
        let middle = world
            .starts
            .windows(2)
            .filter(|pair| pair[0].0 < 4999)
            .map(|pair| pair[1].0 - pair[0].0);
        assert!(middle.max().unwrap() <= 2001);
    }
}

/// NUMBERS: an unproven transport never resets its backoff.
#[test]
fn a_flapping_endpoint_backs_off() {
    for seed in 0..10 {
        let flaps = Server::Flaps {
            after_ms: 1,
            life_ms: 50,
        };
        let mut world = World::new(seed, &[flaps], |_| ());
        world.run_to(120_000);
        let late = world.starts_between(60_000, 120_000);
        assert!((5..120).contains(&late), "seed {seed}: {late}");
        // One that lives for longer than a second is tried again without delay.
        let lives = Server::Flaps {
            after_ms: 1,
            life_ms: 1500,
        };
        let mut world = World::new(seed, &[lives], |_| ());
        world.run_to(30_000);
        assert!(
            world
                .starts
                .iter()
                .enumerate()
                .all(|(n, (at, _))| *at == n as u64 * 1501),
            "{:?}",
            world.starts
        );
    }
}

#[test]
fn a_path_that_worked_is_replaced_soon_however_short_its_life() {
    for seed in 0..10 {
        let flaps = Server::Flaps {
            after_ms: 1,
            life_ms: 150,
        };
        let mut world = World::new(seed, &[flaps], |_| ());
        world.works = true;
        world.run_to(60_000);
        for (before, after) in world.ups.iter().zip(&world.ups[1..]) {
            // Its life, the handshake, and a first delay of 10 to 30 ms.
            assert!((160..=182).contains(&(after.0 - before.0)), "{:?}", world.ups);
        }
        // What is cut at once still backs off, whatever it carried.
        let flaps = Server::Flaps {
            after_ms: 1,
            life_ms: 5,
        };
        let mut world = World::new(seed, &[flaps], |_| ());
        world.works = true;
        world.run_to(120_000);
        assert!(world.starts_between(60_000, 120_000) < 120);
    }
}

#[test]
fn rejections_are_not_hurried() {
    let mut world = World::new(3, &[Server::Rejects { after_ms: 1 }], |_| ());
    world.run_to(2000);
    assert!((3..=9).contains(&world.starts.len()), "{:?}", world.starts);
}

#[test]
fn attempts_time_out() {
    let mut world = World::new(3, &[Server::Mute], |config| config.max_in_flight_per_endpoint = 1);
    world.run_to(10_400);
    assert_eq!(world.starts[0], (0, 0));
    assert!(world.starts[1].0 >= 5010, "{:?}", world.starts);
    assert_eq!(world.given_up.len(), world.starts.len() - 1);
}

#[test]
fn standby_uses_different_endpoints() {
    let mut world = World::new(1, &[UP, UP, UP], standby(2));
    world.run_to(5000);
    assert_eq!(world.ups.iter().map(|up| up.1).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(world.starts.len(), 2);
    // The first dies for good: the third takes its place at once.
    world.at(5000, Happens::Change(0, REFUSES));
    world.run_to(5010);
    assert_eq!(world.ups.last().unwrap().1, 2);
    assert_eq!(world.connector.paths_up(), 2);
    world.run_to(60_000);
    assert_eq!(world.connector.paths_up(), 2);
    assert_eq!(world.surplus, 0);
    // Nothing is due before the first, which is preferred, has had its rest.
    assert!(world.connector.poll_timeout().is_some_and(|at| at > ms(300_000)));
}

#[test]
fn standby_doubles_up_only_when_it_must() {
    // One endpoint: both paths on it.
    let mut world = World::new(1, &[UP], standby(2));
    world.run_to(1000);
    assert_eq!(world.connector.paths_up(), 2);
    // Two endpoints, one of them dead: doubled after some failures, and undone when it is back.
    let mut world = World::new(1, &[UP, REFUSES], standby(2));
    world.run_to(5000);
    assert_eq!(world.connector.paths_up(), 2);
    assert!(world.up.iter().all(|path| path.endpoint == 0));
    assert!(world.starts.iter().filter(|start| start.1 == 1).count() >= 3);
    world.at(5000, Happens::Change(1, UP));
    world.run_to(60_000);
    let mut on: Vec<_> = world.up.iter().map(|path| path.endpoint).collect();
    on.sort_unstable();
    assert_eq!((on, world.surplus), (vec![0, 1], 1));
    assert_eq!(world.connector.poll_timeout(), None);
}

#[test]
fn a_resting_endpoint_is_looked_at_when_the_last_path_dies() {
    for seed in 0..20 {
        let mut world = World::new(seed, &[UP, REFUSES], standby(2));
        world.run_to(300_000);
        world.at(300_000, Happens::Change(1, UP));
        world.at(300_001, Happens::Change(0, REFUSES));
        world.run_to(300_150);
        assert!(
            !world.up.is_empty() && world.up.iter().all(|path| path.endpoint == 1),
            "seed {seed}"
        );
    }
}

#[test]
fn targets_change() {
    let mut world = World::new(1, &[UP, UP], |_| ());
    world.run_to(1000);
    world.connector.set_target(Mode::Standby { paths: 2 });
    world.run_to(2000);
    assert_eq!(world.connector.paths_up(), 2);
    world.connector.set_target(Mode::Single);
    world.run_to(3000);
    assert_eq!(world.up.iter().map(|path| path.endpoint).collect::<Vec<_>>(), [0]);
    world.connector.set_target(Mode::Standby { paths: usize::MAX });
    world.run_to(9000);
    assert_eq!(world.connector.paths_up(), MAX_PATHS);
    world.connector.stop();
    world.at(9000, Happens::Change(0, REFUSES));
    world.at(9000, Happens::Change(1, REFUSES));
    let starts = world.starts.len();
    world.run_to(60_000);
    assert_eq!(world.starts.len(), starts);
    assert_eq!(world.connector.poll_timeout(), None);
}

#[test]
fn stopping_gives_up_what_is_under_way() {
    let mut world = World::new(1, &[Server::Up { after_ms: 500 }, Server::Mute], |_| ());
    world.run_to(300);
    world.connector.stop();
    world.run_to(2000);
    assert_eq!(world.given_up.len(), 2);
    assert!(world.ups.is_empty());
}

#[test]
fn limits_of_the_backoff_exhaust() {
    let mut world = World::new(1, &[REFUSES, REFUSES], |config| {
        config.backoff = BackoffPolicy::constant(10 * MS).with_max_attempts(3);
    });
    world.run_to(10_000);
    assert_eq!((world.starts.len(), world.exhausted), (8, 1));
    assert_eq!(world.connector.poll_timeout(), None);
    world.servers[0] = UP;
    world.connector.handle_network_change(ms(10_000));
    world.run_to(10_010);
    assert_eq!(world.ups, [(10_002, 0)]);
}

#[test]
fn unknown_ids_and_no_endpoints() {
    let mut connector = Connector::new(Config::new(0), Rng::from_seed([0; 32]), ms(0));
    assert_eq!(
        (connector.poll_connect(ms(0)), connector.poll_timeout()),
        (None, None)
    );
    assert_eq!(connector.handle_path_up(ms(1), AttemptId(9)), Verdict::Drop);
    connector.handle_path_down(ms(1), AttemptId(9), Down::Failed);
    connector.handle_connect_failed(ms(1), AttemptId(9));
    connector.handle_network_change(ms(2));
    connector.set_target(Mode::Standby { paths: 0 });
    connector.handle_timeout(ms(3));
    connector.stop();
}

/// The pace at which one endpoint is tried again early in an outage keeps no other waiting.
#[test]
fn a_mute_endpoint_does_not_starve_one_that_answers() {
    let mut world = World::new(8, &[UP, UP], standby(2));
    world.run_to(4999);
    world.at(5000, Happens::Change(0, Server::Mute));
    world.at(6000, Happens::Change(1, REFUSES));
    world.at(6001, Happens::Change(1, UP));
    world.run_to(8000);
    let back = world
        .ups
        .iter()
        .find(|(at, endpoint)| *at > 6000 && *endpoint == 1);
    let (at, _) = back.expect("it answers");
    assert!(*at < 6400, "up again at {at} ms; starts {:?}", world.starts);
}

/// Of two paths to one endpoint of which one is too many, the one that came up first stays, however old the
/// other's attempt is: it is in use.
#[test]
fn a_late_attempt_does_not_displace_a_path_in_use() {
    let mut config = Config::new(1);
    config.mode = Mode::Standby { paths: 2 };
    let mut connector = Connector::new(config, Rng::from_seed([9; 32]), ms(0));
    let slow = connector.poll_connect(ms(0)).expect("due at once");
    let (at, _) = connector.next_start().expect("a hedge");
    let quick = connector.poll_connect(at).expect("a hedge");
    assert_eq!(connector.handle_path_up(at, quick.attempt_id), Verdict::Keep);
    assert_eq!(connector.handle_path_up(at + MS, slow.attempt_id), Verdict::Keep);
    connector.set_target(Mode::Single);
    assert_eq!(connector.poll_event(), Some(Event::Surplus(slow)));
}

/// Random worlds: the invariants of `World::check` hold all along, and once all endpoints are up
/// for good every wanted path stands within the longest delay.
#[test]
fn random_worlds_heal() {
    bolero::check!()
        .with_type::<(u8, u8, u8, Vec<(u16, u8, u8)>)>()
        .for_each(|(seed, n, paths, changes)| {
            let n = usize::from(n % 4) + 1;
            let paths = usize::from(paths % 4) + 1;
            let mut world = World::new(*seed, &vec![UP; n], standby(paths));
            let mut at = 0;
            for (wait, endpoint, kind) in changes {
                at += u64::from(*wait) % 4000;
                let server = match kind % 6 {
                    0 => REFUSES,
                    1 => Server::Mute,
                    2 => Server::Rejects { after_ms: 20 },
                    3 => Server::Flaps {
                        after_ms: 10,
                        life_ms: u64::from(*wait) % 1500,
                    },
                    4 => Server::Up {
                        after_ms: u64::from(*wait) % 6000,
                    },
                    _ => UP,
                };
                world.at(at, Happens::Change(usize::from(*endpoint) % n, server));
            }
            world.run_to(at);
            for endpoint in 0..n {
                world.at(at, Happens::Change(endpoint, UP));
            }
            world.run_to(at + 40_000);
            // A better one may just be taking over.
            let up = world.connector.paths_up();
            assert!(up == paths || up == paths + 1, "{up} of {paths}");
            let spread: std::collections::BTreeSet<_> = world.up.iter().map(|path| path.endpoint).collect();
            assert!(spread.len() >= n.min(paths), "{spread:?}");
            let next = world.connector.poll_timeout();
            assert!(next.is_none_or(|next| next > ms(at + 40_000)), "{next:?}");
        });
}

#[test]
fn a_silent_path_is_replaced_and_a_recovered_one_is_not() {
    let mut connector = Connector::new(Config::new(1), Rng::from_seed([3; 32]), Timestamp::ZERO);
    let first = connector.poll_connect(ms(0)).expect("it starts at once");
    assert_eq!(connector.handle_path_up(ms(10), first.attempt_id), Verdict::Keep);
    assert_eq!(connector.poll_timeout(), None);

    connector.handle_path_silent(ms(5000), first.attempt_id);
    assert_eq!(connector.paths_up(), 0);
    let at = connector.poll_timeout().expect("another is wanted");
    assert!(in_ms(at) <= 5100, "at {} ms", in_ms(at));
    let second = connector.poll_connect(at).expect("it starts");

    connector.handle_path_recovered(at + 10 * MS, first.attempt_id);
    assert_eq!(connector.poll_event(), Some(Event::GiveUp(second)));
    assert_eq!(connector.poll_timeout(), None);
    assert_eq!(connector.paths_up(), 1);
}

/// One unanswered question is no reason to load the endpoint that did not answer with another connection.
#[test]
fn a_mute_path_is_replaced_by_one_to_another_endpoint() {
    for endpoints in [1, 2] {
        let mut connector = Connector::new(Config::new(endpoints), Rng::from_seed([3; 32]), Timestamp::ZERO);
        let first = connector.poll_connect(ms(0)).expect("it starts at once");
        assert_eq!(connector.handle_path_up(ms(10), first.attempt_id), Verdict::Keep);
        connector.handle_path_mute(ms(5000), first.attempt_id);
        assert_eq!(connector.paths_up(), 0);
        let start = connector.poll_timeout();
        assert_eq!(start.is_some(), endpoints == 2);
        if let Some(at) = start {
            let next = connector.poll_connect(at).expect("it starts");
            assert_ne!(next.endpoint, first.endpoint);
        }
        connector.handle_path_silent(ms(6000), first.attempt_id);
        assert!(connector.poll_timeout().is_some(), "now it is tried itself");
    }
}

/// PROTOCOL 8.3: a place that the server named is tried first, from the moment on.
#[test]
fn what_the_server_names_is_tried_first() {
    let config = Config::new(2);
    let mut connector = Connector::new(config, Rng::from_seed([1; 32]), ms(0));
    let first = connector.poll_connect(ms(0)).expect("at once");
    assert_eq!(first.endpoint, 0);
    connector.handle_path_down(ms(5), first.attempt_id, Down::Rejected);
    assert_eq!(connector.learn_endpoint(ms(5)), 2);
    let next = connector.poll_connect(ms(5)).expect("at once");
    assert_eq!(next.endpoint, 2);
    assert_eq!(connector.handle_path_up(ms(9), next.attempt_id), Verdict::Keep);
    assert_eq!(connector.poll_connect(ms(9)), None);
    // It goes, too, and names another, and that a third, which takes the oldest's place.
    connector.handle_path_down(ms(2000), next.attempt_id, Down::Failed);
    assert_eq!(connector.learn_endpoint(ms(2000)), 3);
    let next = connector.poll_connect(ms(2000)).expect("at once");
    assert_eq!(next.endpoint, 3);
    assert_eq!(connector.learn_endpoint(ms(2001)), 2);
    let next = connector.poll_connect(ms(2001)).expect("at once");
    assert_eq!(next.endpoint, 2, "the newest is preferred");
    assert_eq!(connector.learn_endpoint(ms(2002)), 3);
    assert!(matches!(
        connector.poll_event(),
        Some(Event::GiveUp(Attempt { endpoint: 3, .. }))
    ));
    assert_eq!(connector.poll_event(), None);
    assert_eq!(connector.handle_path_up(ms(2003), next.attempt_id), Verdict::Keep);
    assert_eq!(connector.learn_endpoint(ms(2004)), 2);
    assert!(matches!(connector.poll_event(), Some(Event::Surplus(attempt)) if attempt == next));
}

/// PROTOCOL 8.3: once a session stands it is looked for where it lives, and nowhere else.
#[test]
fn a_retired_endpoint_is_not_tried() {
    let mut config = Config::new(2);
    config.mode = Mode::Standby { paths: 2 };
    let mut connector = Connector::new(config, Rng::from_seed([1; 32]), ms(0));
    let first = connector.poll_connect(ms(0)).expect("at once");
    let second = connector.poll_connect(ms(200)).expect("staggered");
    assert_eq!((first.endpoint, second.endpoint), (0, 1));
    assert_eq!(
        connector.handle_path_up(ms(210), second.attempt_id),
        Verdict::Keep
    );
    connector.retire_endpoint(0);
    assert_eq!(connector.poll_event(), Some(Event::GiveUp(first)));
    // The standby path, and what follows an outage.
    let mut now = ms(210);
    for _ in 0..20 {
        while let Some(next) = connector.poll_connect(now) {
            assert_eq!(next.endpoint, 1);
            connector.handle_connect_failed(now, next.attempt_id);
        }
        if connector.paths_up() == 1 && now > ms(3000) {
            connector.handle_path_down(now, second.attempt_id, Down::Failed);
        }
        now = connector.poll_timeout().expect("it goes on");
        connector.handle_timeout(now);
    }
    assert_eq!(connector.paths_up(), 0);
}
