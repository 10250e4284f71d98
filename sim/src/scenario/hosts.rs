//! Hosts that crash, pause, sleep, and whose clocks are wrong.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_runtime::{Client, Config, Server};

use super::stage::{Plan, Stage, ensure, failure, moment, ms, world};
use super::truth::{Truth, answer, call, tell};
use super::{Outcome, Scenario, Setup, raw, scenario};
use crate::failure::FailureKind;
use crate::fault::Fault;
use crate::host::Host;
use crate::net::LinkConfig;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "server-crash",
        "a server that loses its memory, and tells the truth of it",
        server_crash,
    ),
    scenario(
        "client-crash",
        "a client that loses its memory; its server tells the truth of it",
        client_crash,
    ),
    scenario(
        "pause",
        "a server that stands still for a second and a half",
        pause,
    ),
    scenario(
        "suspend",
        "a client that sleeps for half a minute, and its clock with it",
        suspend,
    ),
    scenario("clock-skew", "clocks that run 5 % fast and 5 % slow", clock_skew),
    scenario("clock-step", "clocks that jump ahead by an hour", clock_step),
];

// ---- crashes: what was lost with the memory is told truthfully ----

/// A world of two networks in which `host` crashes twice.
fn crashing(setup: &Setup, host: &str) -> World {
    let mut world = world(setup);
    world.network("wifi", LinkConfig::with_delay(ms(5)));
    world.network("lte", LinkConfig::with_delay(ms(20)));
    let odd = ms(setup.seed % 97);
    for (crash, restart) in [(1000, 1400), (5000, 8000)] {
        let host = host.to_owned();
        world.fault_at(ms(crash) + odd, Fault::Crash { host: host.clone() });
        world.fault_at(ms(restart) + odd, Fault::Restart { host });
    }
    world
}

/// Sessions without paths are given up soon: a crashed client is not waited for.
fn impatient() -> Config {
    let mut config = Config::default();
    config.params.resume_timeout = ms(2000);
    config
}

fn client(host: &Host) -> Client {
    let builder = Client::builder().config(impatient()).keep_trying(true);
    let builder = builder
        .endpoint("tcp://server.wifi:4433")
        .expect("a good address");
    let builder = builder.endpoint("tcp://server.lte:4433").expect("a good address");
    builder.build(host.runtime()).expect("it has endpoints")
}

async fn server(host: &Host) -> Server {
    let builder = Server::builder()
        .listen("tcp://server:4433")
        .expect("a good address");
    let bound = builder.config(impatient()).bind(host.runtime()).await;
    bound.expect("the port is free")
}

fn truth(mut world: World, truth: &Arc<Mutex<Truth>>, crashed: &str) -> Outcome {
    let end = ms(20_000);
    let result = world.run_for(end).and_then(|()| {
        let held = truth.lock().check(moment(end), 3);
        let held = held.and_then(|()| {
            let crashes = world.find(crashed).map(|id| world.handle(id).crashes());
            ensure!(crashes == Some(2), "{crashed} crashed {crashes:?} times");
            Ok(())
        });
        held.map_err(|words| failure(&world, FailureKind::Safety, "truth", words))
    });
    Outcome::of(world, result)
}

fn server_crash(setup: &Setup) -> Outcome {
    let mut world = crashing(setup, "server");
    let seen = Arc::new(Mutex::new(Truth::default()));
    let told = seen.clone();
    world.boot("server", &["wifi", "lte"], move |host| {
        let told = told.clone();
        async move {
            let server = server(&host).await;
            while let Some(session) = server.accept().await {
                answer(&host, session, &told);
            }
        }
    });
    let host = world.host("client", &["wifi", "lte"]);
    let (own, told) = (host.clone(), seen.clone());
    world.spawn(&host, async move {
        let client = client(&own);
        while let Ok(session) = client.session().await {
            own.spawn(tell(own.clone(), session.clone(), told.clone()));
            call(&own, &session, &told).await;
        }
    });
    truth(world, &seen, "server")
}

fn client_crash(setup: &Setup) -> Outcome {
    let mut world = crashing(setup, "client");
    let seen = Arc::new(Mutex::new(Truth::default()));
    let told = seen.clone();
    world.boot("server", &["wifi", "lte"], move |host| {
        let told = told.clone();
        async move {
            let server = server(&host).await;
            while let Some(session) = server.accept().await {
                host.spawn(tell(host.clone(), session.clone(), told.clone()));
                let (own, told) = (host.clone(), told.clone());
                host.spawn(async move { call(&own, &session, &told).await });
            }
        }
    });
    let told = seen.clone();
    world.boot("client", &["wifi", "lte"], move |host| {
        let told = told.clone();
        async move {
            let client = client(&host);
            while let Ok(session) = client.session().await {
                answer(&host, session.clone(), &told);
                session.closed().await;
            }
        }
    });
    truth(world, &seen, "client")
}

// ---- time ----

fn pause(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let (at, client) = (stage.at, stage.client.clone());
    let host = "server".to_owned();
    stage.fault(at, Fault::Pause { host: host.clone() });
    let clock_ran = true;
    stage.fault(at + ms(1500), Fault::Resume { host, clock_ran });
    let pings = raw::ping(&mut stage.world, &client, "server", 10, ms(20), ms(60_000));
    let kernel = raw::knock(
        &mut stage.world,
        &client,
        at + ms(100),
        "server",
        super::service::ECHO,
    );
    stage.run(|_, report| {
        let silence = pings.lock().slowest(at - ms(50), at + ms(100));
        ensure!(
            silence > ms(1400) && silence < ms(1700),
            "plain TCP is answered after {silence:?}"
        );
        let (error, took) = kernel.take().ok_or("the knock never ended")?;
        ensure!(
            error.is_none() && took < ms(20),
            "its kernel stands still, too: {error:?}, {took:?}"
        );
        let gap = report.slowest(at - ms(50), at + ms(100));
        ensure!(gap > ms(1400) && gap < ms(2500), "the gap is {gap:?}");
        Ok(())
    })
}

fn suspend(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let (at, client) = (stage.at, stage.client.clone());
    let host = "client".to_owned();
    stage.fault(at, Fault::Suspend { host: host.clone() });
    let clock_ran = setup.seed % 2 == 1;
    stage.fault(at + ms(30_000), Fault::Resume { host, clock_ran });
    let began = client.now();
    stage.run(|world, report| {
        let counted = client.now().since(began);
        let passed = world.now().since(moment(Duration::ZERO));
        let missing = passed.saturating_sub(counted);
        let expected = if clock_ran { ms(0) } else { ms(30_000) };
        ensure!(missing == expected, "its clock misses {missing:?} of {passed:?}");
        let gap = report.gap();
        ensure!(gap >= ms(30_000) && gap < ms(32_500), "the gap is {gap:?}");
        Ok(())
    })
}

/// How long the clock of a host says that a world took which took so long.
fn counted(world: &World, host: &Host, began: sheetbend_core::time::Timestamp) -> (f64, f64) {
    let passed = world.now().since(moment(Duration::ZERO)).as_secs_f64();
    (host.now().since(began).as_secs_f64(), passed)
}

fn clock_skew(setup: &Setup) -> Outcome {
    let plan = Plan {
        rest: Some((50, ms(30_000))),
        ..Plan::default()
    };
    let mut stage = Stage::two_with(setup, plan);
    for (host, ppm) in [("client", 50_000), ("server", -50_000)] {
        let host = host.to_owned();
        stage.fault(ms(0), Fault::Skew { host, ppm });
    }
    let (client, server) = (stage.client.clone(), stage.server.clone());
    let began = (client.now(), server.now());
    stage.run(|world, report| {
        for (host, began, factor) in [(&client, began.0, 1.05), (&server, began.1, 0.95)] {
            let (counted, passed) = counted(world, host, began);
            let off = (counted / passed - factor).abs();
            ensure!(off < 0.001, "{} counted {counted} s of {passed}", host.name());
        }
        ensure!(report.downs() == 0, "a path was given up for its clock");
        ensure!(report.slowest(ms(100), ms(60_000)) < ms(60), "requests wait");
        Ok(())
    })
}

fn clock_step(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    let by = Duration::from_secs(3600);
    for (host, after) in [("client", 0), ("server", 1000)] {
        let host = host.to_owned();
        stage.fault(at + ms(after), Fault::Step { host, by });
    }
    let (client, server) = (stage.client.clone(), stage.server.clone());
    let began = (client.now(), server.now());
    stage.run(|world, report| {
        for (host, began) in [(&client, began.0), (&server, began.1)] {
            let (counted, passed) = counted(world, host, began);
            let ahead = counted - passed;
            ensure!(
                (ahead - 3600.0).abs() < 0.001,
                "{} is {ahead} s ahead",
                host.name()
            );
        }
        let gap = report.slowest(ms(100), ms(60_000));
        ensure!(gap < ms(1500), "the gap is {gap:?}");
        Ok(())
    })
}
