//! Boxes that know flows: address translations, firewalls, limits.

use std::io::ErrorKind;

use super::service::ECHO;
use super::stage::{Plan, Stage, ensure, moment, ms};
use super::{Outcome, Scenario, Setup, raw, scenario};
use crate::fault::Fault;
use crate::net::{Middlebox, Unknown};

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "nat-rebinding",
        "an address translation that forgets its flows",
        nat_rebinding,
    ),
    scenario(
        "nat-expiry",
        "an address translation that forgets what is silent",
        nat_expiry,
    ),
    scenario("idle-kill", "a firewall that resets what was silent", idle_kill),
    scenario(
        "connection-limit",
        "a box that lets two connections pass",
        connection_limit,
    ),
];

fn behind(config: Middlebox) -> Fault {
    Fault::Middlebox {
        host: "client".into(),
        network: "wifi".into(),
        config: Some(config),
    }
}

fn nat_rebinding(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let (at, client) = (stage.at, stage.client.clone());
    let nat = Middlebox {
        nat: true,
        ..Middlebox::default()
    };
    stage.fault(ms(0), behind(nat));
    let (host, network) = ("client".to_owned(), "wifi".to_owned());
    stage.fault(at, Fault::Forget { host, network });
    let pings = raw::ping(&mut stage.world, &client, "server", 10, ms(20), ms(60_000));
    stage.least = at + ms(6000);
    stage.run(|_, report| {
        let last = pings.lock().answers.last().map(|(asked, _)| *asked);
        ensure!(last < Some(moment(at)), "the old flow still works: {last:?}");
        ensure!(report.ups("wifi") >= 2, "no new path came up");
        let gap = report.slowest(at - ms(50), at + ms(100));
        ensure!(gap > ms(50) && gap < ms(2500), "back after {gap:?}");
        Ok(())
    })
}

/// A session that rests for half a minute, and what a connection without heartbeats sees of the same box.
fn resting(
    setup: &Setup,
    config: Middlebox,
    heartbeats: bool,
) -> (Stage, crate::world::Join<Option<ErrorKind>>) {
    let mut plan = Plan {
        rest: Some((30, ms(30_000))),
        ..Plan::default()
    };
    if !heartbeats {
        plan.fall_silent();
    }
    let mut stage = Stage::two_with(setup, plan);
    stage.endpoints(&["server.wifi:4433"]);
    stage.fault(ms(0), behind(config));
    let silent = stage.beside(|host| async move {
        let mut stream = host.connect_tcp("server.wifi", ECHO).await.ok()?;
        stream.write_all(b"a").await.ok()?;
        stream.read_exact(&mut [0]).await.ok()?;
        host.sleep(ms(30_000)).await;
        stream.write_all(b"b").await.ok()?;
        stream.read(&mut [0]).await.err().map(|error| error.kind())
    });
    (stage, silent)
}

fn nat_expiry(setup: &Setup) -> Outcome {
    let nat = Middlebox {
        nat: true,
        idle: ms(8000),
        ..Middlebox::default()
    };
    let (mut stage, silent) = resting(setup, nat, true);
    stage.least = ms(45_000);
    stage.run(|_, report| {
        ensure!(!silent.is_done(), "the box did not forget the silent connection");
        // Heartbeats come every five seconds from either end: the session's flow is never silent for eight.
        ensure!(report.downs() == 0, "the box forgot the session's flow");
        Ok(())
    })
}

fn idle_kill(setup: &Setup) -> Outcome {
    let firewall = Middlebox {
        idle: ms(5000),
        unknown: Unknown::Reset,
        ..Middlebox::default()
    };
    let (mut stage, silent) = resting(setup, firewall, false);
    stage.least = ms(45_000);
    stage.run(|_, report| {
        let seen = silent.take();
        ensure!(
            seen == Some(Some(ErrorKind::ConnectionReset)),
            "the silent connection saw {seen:?}"
        );
        ensure!(report.downs() > 0, "the session's connections were spared");
        // The first request finds out.
        let slowest = report.slowest(ms(10_000), ms(60_000));
        ensure!(slowest < ms(500), "a request waited for {slowest:?}");
        Ok(())
    })
}

fn connection_limit(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let (at, client) = (stage.at, stage.client.clone());
    let limit = Middlebox {
        max_connections: 2,
        unknown: Unknown::Reset,
        ..Middlebox::default()
    };
    stage.fault(ms(0), behind(limit));
    let held = stage.beside(|host| async move {
        host.sleep(ms(500)).await;
        let stream = host.connect_tcp("server.wifi", ECHO).await;
        host.sleep(ms(8000)).await;
        stream.is_ok()
    });
    let knock = raw::knock(&mut stage.world, &client, ms(600), "server.wifi", ECHO);
    let (host, network) = ("client".to_owned(), "wifi".to_owned());
    stage.fault(at, Fault::Reset { host, network });
    stage.least = ms(9000);
    stage.run(|_, report| {
        ensure!(
            held.take() == Some(true),
            "the second connection was not let through"
        );
        let (error, _) = knock.take().ok_or("the knock never ended")?;
        ensure!(
            error == Some(ErrorKind::ConnectionRefused),
            "the third: {error:?}"
        );
        // A reset frees the places: the session comes back to its preferred path.
        ensure!(report.ups("wifi") >= 2, "{} paths came up", report.ups("wifi"));
        let (after, _) = report
            .switched(at, "lte")
            .ok_or("the other path did not take over")?;
        ensure!(after < ms(50), "the other path took over after {after:?}");
        Ok(())
    })
}
