//! Sessions in which nobody says anything: that the peer is gone is found by heartbeats alone.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{Client, Config, PathMode, Server, SessionEvent, State};

use super::service::PORT;
use super::stage::{Check, ensure, failure, link, moment, ms, partition, world};
use super::{Outcome, Scenario, Setup, scenario};
use crate::failure::{Failure, FailureKind};
use crate::fault::Fault;
use crate::host::Host;
use crate::net::LinkConfig;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "silent-blackhole",
        "a network swallows everything while nobody speaks",
        blackhole,
    ),
    scenario(
        "silent-half-open",
        "a server is started anew behind a client that says nothing",
        half_open,
    ),
    scenario(
        "silent-jitter",
        "the delay changes five times as much as it used to, while nobody speaks",
        jitter,
    ),
];

type Events = Arc<Mutex<Vec<(Timestamp, SessionEvent)>>>;

struct Silent {
    world: World,
    events: Events,
    heartbeat: Duration,
    /// When it goes wrong: between any two heartbeats.
    at: Duration,
}

/// Takes sessions in and says nothing.
async fn serve(host: Host) {
    let server = Server::builder()
        .listen(format!("tcp://server:{PORT}"))
        .expect("a good address")
        .bind(host.runtime())
        .await
        .expect("the port is free");
    let mut sessions = Vec::new();
    while let Some(session) = server.accept().await {
        sessions.push(session);
    }
}

/// Keeps a session, and tells of it.
async fn watch(host: Host, endpoints: Vec<String>, config: Config, told: Events) {
    let mut builder = Client::builder().config(config).keep_trying(true);
    for endpoint in endpoints {
        builder = builder.endpoint(endpoint).expect("a good address");
    }
    let client = builder.build(host.runtime()).expect("it has endpoints");
    let session = client.start_connecting();
    let mut events = session.events();
    while let Some(event) = events.next().await {
        told.lock().push((host.world_now(), event));
    }
}

impl Silent {
    /// A session over these networks, with a heartbeat that follows from the seed.
    fn new(setup: &Setup, networks: &[(&str, LinkConfig)]) -> Silent {
        let mut world = world(setup);
        for (name, config) in networks {
            world.network(name, config.clone());
        }
        let names: Vec<&str> = networks.iter().map(|(name, _)| *name).collect();
        world.boot("server", &names, serve);
        let client = world.host("client", &names);
        let heartbeat = [ms(200), ms(1000), ms(5000), ms(5000), ms(15_000)][(setup.seed % 5) as usize];
        let mut config = Config::default();
        config.params.heartbeat = heartbeat;
        config.mode = PathMode::Standby;
        let endpoints = names.iter().map(|name| format!("tcp://server.{name}:{PORT}"));
        let events = Events::default();
        let task = watch(client.clone(), endpoints.collect(), config, events.clone());
        world.spawn(&client, task);
        let at = world.rng("when").duration(ms(30_000), ms(50_000));
        Silent {
            world,
            events,
            // The server's wish is 5 s: the lesser counts.
            heartbeat: heartbeat.min(ms(5000)),
            at,
        }
    }

    /// How long after it went wrong this was told of.
    fn after(&self, is: impl Fn(&SessionEvent) -> bool) -> Option<Duration> {
        let from = moment(self.at);
        let events = self.events.lock();
        let found = events.iter().find(|(at, event)| *at >= from && is(event));
        found.map(|(at, _)| at.since(from))
    }

    fn run(mut self, lasts: Duration, check: impl FnOnce(&Silent) -> Check) -> Outcome {
        let until = self.at + lasts;
        let result = self.play(until, check);
        Outcome::of(self.world, result)
    }

    fn play(&mut self, until: Duration, check: impl FnOnce(&Silent) -> Check) -> Result<(), Failure> {
        self.world.run_until(moment(until))?;
        let early = self.events.lock().iter().any(|(at, event)| {
            let bad = matches!(
                event,
                SessionEvent::PathSuspect { .. } | SessionEvent::PathDown { .. }
            );
            bad && *at < moment(self.at)
        });
        let held = if early {
            Err("a path was suspected while nothing was wrong".to_owned())
        } else {
            check(self)
        };
        held.map_err(|words| failure(&self.world, FailureKind::Invariant, "effect", words))
    }
}

fn suspects(name: &str) -> impl Fn(&SessionEvent) -> bool {
    move |event| matches!(event, SessionEvent::PathSuspect { path } if path.contains(name))
}

fn downs(name: &str) -> impl Fn(&SessionEvent) -> bool {
    move |event| matches!(event, SessionEvent::PathDown { path, .. } if path.contains(name))
}

fn blackhole(setup: &Setup) -> Outcome {
    let networks = [
        ("wifi", LinkConfig::with_delay(ms(5))),
        ("lte", LinkConfig::with_delay(ms(20))),
    ];
    let mut silent = Silent::new(setup, &networks);
    let at = silent.at;
    // Either way, or both.
    let ways = [("client", "server"), ("server", "client")];
    let cut = match setup.seed % 3 {
        0 => &ways[..],
        1 => &ways[..1],
        _ => &ways[1..],
    };
    for (from, to) in cut {
        silent.world.fault_at(at, partition(from, to, "wifi", true));
    }
    silent.run(ms(20_000), |silent| {
        let heartbeat = silent.heartbeat;
        let after = silent.after(suspects("wifi")).ok_or("it was not suspected")?;
        ensure!(after < heartbeat + ms(200), "suspect after {after:?}");
        let after = silent.after(downs("wifi")).ok_or("it was not given up")?;
        ensure!(after < heartbeat + ms(1600), "given up after {after:?}");
        let other = silent.after(suspects("lte"));
        ensure!(other.is_none(), "the sound one was suspected after {other:?}");
        Ok(())
    })
}

fn half_open(setup: &Setup) -> Outcome {
    let mut silent = Silent::new(setup, &[("wifi", LinkConfig::with_delay(ms(5)))]);
    let at = silent.at;
    // The client's host never hears that the server's is gone.
    for (from, to) in [("client", "server"), ("server", "client")] {
        silent.world.fault_at(at, partition(from, to, "wifi", true));
        silent
            .world
            .fault_at(at + ms(20), partition(from, to, "wifi", false));
    }
    let host = || "server".to_owned();
    silent.world.fault_at(at + ms(5), Fault::Crash { host: host() });
    silent
        .world
        .fault_at(at + ms(10), Fault::Restart { host: host() });
    silent.run(ms(10_000), |silent| {
        let heartbeat = silent.heartbeat;
        let after = silent.after(downs("wifi")).ok_or("it was not found")?;
        ensure!(after < heartbeat + ms(200), "found after {after:?}");
        let over = |event: &SessionEvent| {
            matches!(
                event,
                SessionEvent::State {
                    to: State::Failed,
                    ..
                }
            )
        };
        let after = silent.after(over).ok_or("the session goes on")?;
        ensure!(after < heartbeat + ms(1000), "known to be lost after {after:?}");
        Ok(())
    })
}

fn jitter(setup: &Setup) -> Outcome {
    let usual = [ms(2), ms(5), ms(10), ms(20)][(setup.seed % 4) as usize];
    let config = |jitter| LinkConfig::with_delay(ms(20)).jitter(jitter);
    let mut silent = Silent::new(
        setup,
        &[("wifi", config(usual)), ("lte", LinkConfig::with_delay(ms(60)))],
    );
    let at = silent.at;
    for (from, to) in [("client", "server"), ("server", "client")] {
        let five_times = config(usual * 5);
        silent.world.fault_at(at, link(from, to, "wifi", five_times));
    }
    silent.run(ms(300_000), |silent| {
        let after = silent.after(|event| {
            matches!(
                event,
                SessionEvent::PathDown { .. } | SessionEvent::PathSuspect { .. }
            )
        });
        ensure!(
            after.is_none(),
            "a false alarm after {after:?}, usually {usual:?}"
        );
        Ok(())
    })
}
