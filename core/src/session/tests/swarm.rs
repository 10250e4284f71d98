//! Random configurations, workloads and faults from a seed; after them everything that was promised must
//! be kept (NUMBERS "The simulator's own bars": exactly once, in order, flow-control bounds, legal
//! transitions, no stall).
//!
//! A failing seed is printed with the command that runs it alone.

use std::time::Duration;

use super::super::*;
use super::{Options, World};
use crate::handshake::Security;
use crate::rng::Rng;
use crate::wire::{Kind, StreamId};

mod app;

use app::{App, below, pick};

const SEEDS: u64 = 250;
/// Seeds that found something once.
const KNOWN: [u64; 1] = [474];
const SEED_VARIABLE: &str = "SHEETBEND_SWARM_SEED";

/// What must hold at every moment.
fn check(session: &Session) {
    session
        .audit()
        .and_then(|()| session.audit_in_flight())
        .unwrap_or_else(|violation| panic!("{:?}: {violation}", session.side()));
}

fn config(rng: &mut Rng) -> Config {
    let mut config = Config::default();
    let params = &mut config.params;
    params.max_data = [pick(rng, &[20_000, 100_000, 1 << 20]); 8];
    params.max_stream_data = [pick(rng, &[2000, 30_000, 256 << 10]); 8];
    params.max_record = pick(rng, &[1200, 5000, 65_536]);
    params.max_message = 50_000;
    params.lz4 = below(rng, 3) == 0;
    params.in_flight = pick(rng, &[4096, 64 << 10, 256 << 10]);
    params.max_ack_delay = Duration::from_millis(pick(rng, &[0, 1, 25]));
    params.heartbeat = Duration::from_millis(pick(rng, &[200, 5000]));
    for limits in &mut params.max_streams {
        limits.bi = pick(rng, &[1, 5, 100]);
        limits.uni = pick(rng, &[1, 5, 100]);
        limits.unordered = pick(rng, &[1, 5, 100]);
    }
    config.max_send_buffer = pick(rng, &[20_000, 100_000, 1 << 25]);
    config.max_message_queue = pick(rng, &[5000, 200_000]);
    config.early_data = below(rng, 3) == 0;
    config
}

struct Run {
    world: World,
    rng: Rng,
    apps: [App; 2],
    check: bool,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut bytes = [0x5b; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::from_seed(bytes);
        let options = Options {
            client: config(&mut rng),
            server: config(&mut rng),
            seed,
        };
        let mut run = Run {
            world: World::new(options),
            rng,
            apps: [App::new(), App::new()],
            check: true,
        };
        run.connect();
        run
    }

    fn connect(&mut self) {
        let info = PathInfo::new("mem://swarm", "mem", Security::Plain);
        if let Ok(link) = self.world.connect_with(info) {
            self.world.links[link].delay = Duration::from_micros(pick(&mut self.rng, &[100, 1000, 15_000]));
            self.world.links[link].rate = pick(&mut self.rng, &[0, 0, 300_000, 10_000_000]);
        }
    }

    fn fault(&mut self) {
        let live: Vec<usize> = (0..self.world.links.len())
            .filter(|&link| !self.world.links[link].dead)
            .collect();
        if live.is_empty() {
            return self.connect();
        }
        let link = pick(&mut self.rng, &live);
        match below(&mut self.rng, 10) {
            0 => self.world.cut(link),
            1 => self.world.end(link, PathEnd::Eof),
            2 => self.world.stall(link, true, false),
            3 => self.world.stall(link, false, true),
            4 => self.world.stall(link, true, true),
            5 | 6 => live.iter().for_each(|&link| self.world.stall(link, false, false)),
            7 if below(&mut self.rng, 2) == 0 => self.world.links[link].corrupt_up = true,
            7 => self.world.links[link].corrupt_down = true,
            8 => self.world.links[link].delay = Duration::from_micros(below(&mut self.rng, 30_000)),
            _ => self.connect(),
        }
    }

    fn step(&mut self, lazy: bool) {
        let time = Duration::from_micros(below(&mut self.rng, if lazy { 20_000 } else { 2000 }));
        self.world.run_for(time);
        let now = self.world.now;
        let Run {
            world,
            rng,
            apps,
            check: checking,
        } = self;
        for event in std::mem::take(&mut world.client_events) {
            apps[0].take_event(event);
        }
        for event in std::mem::take(&mut world.server_events) {
            apps[1].take_event(event);
        }
        apps[0].work(rng, &mut world.client, now, lazy);
        if let Some(server) = &mut world.server {
            apps[1].work(rng, server, now, lazy);
        }
        if *checking {
            check(&world.client);
            world.server.iter().for_each(check);
        }
    }

    fn unkept(&self) -> Option<String> {
        let [client, server] = &self.apps;
        let words = client.unkept(server).map(|words| format!("client {words}"));
        words.or_else(|| server.unkept(client).map(|words| format!("server {words}")))
    }

    fn go(&mut self) {
        for _ in 0..50 {
            for _ in 0..below(&mut self.rng, 4) {
                let now = self.world.now;
                let (world, rng) = (&mut self.world, &mut self.rng);
                self.apps[0].begin(rng, &mut world.client, now);
                if let Some(server) = &mut world.server {
                    self.apps[1].begin(rng, server, now);
                }
            }
            if below(&mut self.rng, 4) == 0 {
                self.fault();
            }
            self.step(true);
        }
        self.heal();
        self.close();
    }

    /// One sound path; everything promised is kept within five seconds.
    fn heal(&mut self) {
        for link in 0..self.world.links.len() {
            self.world.stall(link, false, false);
            self.world.links[link].corrupt_up = false;
            self.world.links[link].corrupt_down = false;
            self.world.links[link].rate = 0;
            self.world.links[link].delay = Duration::from_micros(200);
        }
        let deadline = self.world.now + Duration::from_secs(5);
        while let Some(words) = self.unkept() {
            assert!(
                self.world.now < deadline,
                "{words}\n{:?}\n{:?}",
                self.world.client,
                self.world.server
            );
            if self.world.links.iter().all(|link| link.dead) {
                self.connect();
                let last = self.world.links.len() - 1;
                self.world.links[last].rate = 0;
                self.world.links[last].delay = Duration::from_micros(200);
            }
            self.step(false);
        }
        for app in &self.apps {
            let reliable = app.tracked.iter().filter(|(id, _)| **id < 1 << 62);
            reliable.for_each(|(id, told)| {
                let fine = told == &Some(Outcome::Acknowledged);
                assert!(fine, "{id} is acknowledged: {told:?}");
            });
        }
    }

    /// Nothing is left but what the application holds, and then nothing at all.
    fn close(&mut self) {
        if self.world.client.state() != State::Connected {
            self.connect();
        }
        self.step(false);
        self.world.run_for(Duration::from_secs(1));
        let now = self.world.now;
        self.world.client.close(now, ErrorCode::NONE, "done");
        self.world.settle();
        for (session, app) in [Some(&mut self.world.client), self.world.server.as_mut()]
            .into_iter()
            .flatten()
            .zip(&self.apps)
        {
            assert_eq!(session.state(), State::Closed);
            assert_eq!(session.poll_timeout(), None, "no timer is left");
            assert_eq!(session.stats().paths, 0);
            for key in app.writers.iter().map(|writer| writer.key) {
                session.release(key);
            }
            for key in app.readers.iter().map(|reader| reader.key) {
                session.release(key);
            }
            let kinds = session
                .streams
                .keys()
                .into_iter()
                .filter_map(|key| session.stream_id(key));
            let left: Vec<StreamId> = kinds.filter(|id| id.kind() != Kind::Ordered).collect();
            assert_eq!(left, [], "no stream is left");
        }
    }
}

fn run(seed: u64) {
    let outcome = std::panic::catch_unwind(|| Run::new(seed).go());
    if let Err(panic) = outcome {
        let words = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no words");
        panic!(
            "seed {seed}: {words}\nrun it alone: {SEED_VARIABLE}={seed} cargo test -p sheetbend-core --lib swarm"
        );
    }
}

#[test]
fn random_faults_under_random_work() {
    match std::env::var(SEED_VARIABLE) {
        Ok(seed) => run(seed.parse().expect("a number")),
        Err(_) => KNOWN.into_iter().chain(0..SEEDS).for_each(run),
    }
}
