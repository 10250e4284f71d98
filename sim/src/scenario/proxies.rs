//! Proxies that end TCP.

use super::service::PORT;
use super::stage::{Plan, Stage, ensure, ms};
use super::{Outcome, Scenario, Setup, raw, scenario};
use crate::fault::Fault;
use crate::host::Host;
use crate::relay::RelayConfig;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "buffering-proxy",
        "a proxy that holds back until there is more",
        buffering,
    ),
    scenario("mute-proxy", "a proxy that goes mute after the upgrade", mute),
    scenario("slow-proxy", "a proxy that throttles", slow),
    scenario(
        "proxy-limit",
        "a proxy that takes one connection at a time",
        limit,
    ),
    scenario("proxy-idle", "a proxy that closes what is silent", idle),
    scenario(
        "cutting-proxy",
        "a proxy that closes every connection after a second",
        cutting,
    ),
];

/// The preferred endpoint is a proxy; the other, if there is one, leads straight to the server.
fn stage(setup: &Setup, plan: Plan, config: RelayConfig, endpoints: &[&str]) -> (Stage, Host) {
    let mut stage = Stage::two_with(setup, plan);
    let relay = stage
        .world
        .relay("proxy", &["wifi"], PORT, ("server.wifi", PORT), config);
    stage.endpoints(endpoints);
    (stage, relay)
}

const ALONE: &[&str] = &["proxy:4433"];
const BOTH: &[&str] = &["proxy:4433", "server.lte:4433"];

fn changes(stage: &mut Stage, at: std::time::Duration, config: RelayConfig) {
    let host = "proxy".to_owned();
    stage.fault(at, Fault::Relay { host, config });
}

fn buffering(setup: &Setup) -> Outcome {
    let (mut stage, _) = stage(setup, Plan::default(), RelayConfig::default(), ALONE);
    let at = stage.at;
    let holding = RelayConfig {
        hold_bytes: 4096,
        hold_for: ms(150),
        ..RelayConfig::default()
    };
    changes(&mut stage, at, holding);
    stage.run(|_, report| {
        let (before, after) = (
            report.slowest(ms(100), at - ms(50)),
            report.slowest(at, ms(60_000)),
        );
        ensure!(before < ms(60), "{before:?} before");
        ensure!(after > ms(120), "{after:?} while it holds back");
        ensure!(report.downs() == 0, "a path was given up for a buffer");
        Ok(())
    })
}

fn mute(setup: &Setup) -> Outcome {
    // Enough for the handshake, and some of the work.
    let muted = RelayConfig {
        mute_after: Some(60_000),
        ..RelayConfig::default()
    };
    let (stage, relay) = stage(setup, Plan::default(), muted, BOTH);
    stage.run(|world, report| {
        let stats = world.relay_stats(&relay);
        ensure!(stats.bytes > 60_000, "it was never used: {stats:?}");
        let (after, _) = report.switched(ms(1), "lte").ok_or("the session stayed")?;
        ensure!(after > ms(100), "it left before the proxy went mute");
        let gap = report.slowest(ms(0), ms(60_000));
        ensure!(gap > ms(50) && gap < ms(1000), "the gap is {gap:?}");
        Ok(())
    })
}

fn slow(setup: &Setup) -> Outcome {
    let plan = Plan {
        chunk: 2000,
        ..Plan::default()
    };
    let throttled = RelayConfig {
        rate: 300_000,
        ..RelayConfig::default()
    };
    let bits = plan.rounds * plan.chunk as u64 * 8;
    let (stage, relay) = stage(setup, plan, throttled, ALONE);
    stage.run(|world, report| {
        let took = report.finished.unwrap_or_default().as_nanos();
        let least = bits * 1_000_000 / 300;
        ensure!(took > least, "{bits} bits in {took} ns: faster than the proxy");
        ensure!(
            world.relay_stats(&relay).bytes * 8 > 2 * bits,
            "not through the proxy"
        );
        Ok(())
    })
}

fn limit(setup: &Setup) -> Outcome {
    let one = RelayConfig {
        max_connections: 1,
        reset: true,
        ..RelayConfig::default()
    };
    let (mut stage, relay) = stage(setup, Plan::default(), one, BOTH);
    let (at, client) = (stage.at, stage.client.clone());
    let second = stage.beside(|host| async move {
        host.sleep(ms(500)).await;
        let mut stream = host.connect_tcp("proxy", PORT).await.ok()?;
        stream.read(&mut [0]).await.err().map(|error| error.kind())
    });
    let (host, network) = ("client".to_owned(), "wifi".to_owned());
    stage.fault(at, Fault::Reset { host, network });
    let late = raw::knock(&mut stage.world, &client, ms(3000), "proxy", PORT);
    stage.run(|world, report| {
        ensure!(
            second.take().flatten().is_some(),
            "the second connection was not closed"
        );
        ensure!(late.is_done(), "it hears nobody any more");
        let stats = world.relay_stats(&relay);
        ensure!(stats.refused >= 1 && stats.taken >= 2, "{stats:?}");
        ensure!(
            report.switched(at, "lte").is_some(),
            "the other path did not take over"
        );
        ensure!(
            report.ups("proxy") >= 2,
            "the session did not come back to the proxy"
        );
        Ok(())
    })
}

fn idle(setup: &Setup) -> Outcome {
    let mut plan = Plan {
        rest: Some((30, ms(30_000))),
        ..Plan::default()
    };
    plan.fall_silent();
    let idle = RelayConfig {
        idle: ms(5000),
        ..RelayConfig::default()
    };
    let (stage, relay) = stage(setup, plan, idle, ALONE);
    stage.run(|world, report| {
        let stats = world.relay_stats(&relay);
        ensure!(stats.idled >= 1, "{stats:?}");
        ensure!(report.down(ms(2000), "proxy").is_some(), "no path ended");
        let slowest = report.slowest(ms(10_000), ms(60_000));
        ensure!(slowest < ms(500), "a request waited for {slowest:?}");
        Ok(())
    })
}

fn cutting(setup: &Setup) -> Outcome {
    let cut = RelayConfig {
        cut_after: ms(1000),
        ..RelayConfig::default()
    };
    let (stage, relay) = stage(setup, Plan::default(), cut, ALONE);
    stage.run(|world, report| {
        let stats = world.relay_stats(&relay);
        ensure!(stats.cut >= 3, "{stats:?}");
        ensure!(
            report.ups("proxy") as u64 >= stats.cut,
            "{} paths came up",
            report.ups("proxy")
        );
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(500), "a request waited for {slowest:?}");
        Ok(())
    })
}
