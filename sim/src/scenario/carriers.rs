//! What is spoken over TCP and is not native.

use std::time::Duration;

use super::service::PORT;
use super::stage::{Plan, Stage, ensure, ms};
use super::{Outcome, Scenario, Setup, scenario};
use crate::fault::Fault;
use crate::relay::RelayConfig;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "tls",
        "TLS through a proxy that closes every connection after a second",
        tls,
    ),
    scenario(
        "websocket",
        "a WebSocket through a proxy that closes every connection after a second",
        websocket,
    ),
    scenario(
        "websocket-tls",
        "a WebSocket over TLS through a proxy that closes every connection after a second",
        websocket_tls,
    ),
    scenario(
        "http",
        "exchanges of HTTP through a proxy that closes every connection after a second",
        http,
    ),
    scenario(
        "http-events",
        "an event stream through a proxy that closes every connection after a second",
        http_events,
    ),
    scenario(
        "http-lines",
        "lines of JSON through a proxy that closes every connection after a second",
        http_lines,
    ),
    scenario(
        "http-polls",
        "long polls over TLS through a proxy that closes every connection after a second",
        http_polls,
    ),
    scenario(
        "http-buffered",
        "HTTP through a proxy that passes on what is whole",
        http_buffered,
    ),
    scenario(
        "http-reopened",
        "HTTP through a proxy that stops holding responses back, and begins again",
        http_reopened,
    ),
    scenario(
        "http-mute",
        "HTTP through a proxy that goes mute on every connection",
        http_mute,
    ),
    scenario(
        "carriers",
        "from WebSocket over TLS to TLS to TCP, as one proxy after another closes every connection",
        all,
    ),
    scenario(
        "whatever-works",
        "sheetbend:// finds TLS first, and keeps to it, as a proxy closes every connection",
        whatever,
    ),
];

fn cutting() -> RelayConfig {
    RelayConfig {
        cut_after: ms(1000),
        ..RelayConfig::default()
    }
}

/// One endpoint, which is cut again and again: each connection's handshake is made anew, and the session goes on.
fn cut(setup: &Setup, scheme: &str) -> Outcome {
    let mut stage = Stage::two_with(setup, Plan::default());
    let target = ("server.wifi", PORT);
    let relay = stage.world.relay("proxy", &["wifi"], PORT, target, cutting());
    stage.endpoints(&[&format!("{scheme}://proxy:{PORT}")]);
    let scheme = scheme.to_owned();
    stage.run(move |world, report| {
        let stats = world.relay_stats(&relay);
        ensure!(stats.cut >= 3, "{stats:?}");
        let ups = report.ups(&format!("{scheme}://proxy")) as u64;
        ensure!(ups >= stats.cut, "{ups} paths came up");
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(500), "a request waited for {slowest:?}");
        Ok(())
    })
}

/// Over HTTP a path outlives its connections: nobody above sees that they are cut.
fn exchanges(setup: &Setup, endpoint: &str) -> Outcome {
    through(setup, endpoint, cutting(), ms(500), (6, 0))
}

/// At least so many connections are cut, and at most so many paths end.
fn through(
    setup: &Setup,
    endpoint: &str,
    config: RelayConfig,
    slowest: Duration,
    (cuts, downs): (u64, usize),
) -> Outcome {
    let mut stage = Stage::two_with(setup, Plan::default());
    let target = ("server.wifi", PORT);
    let relay = stage.world.relay("proxy", &["wifi"], PORT, target, config);
    stage.endpoints(&[endpoint]);
    stage.run(move |world, report| {
        let stats = world.relay_stats(&relay);
        ensure!(stats.cut >= cuts, "{stats:?}");
        ensure!(report.downs() <= downs, "{} paths ended", report.downs());
        let took = report.slowest(ms(0), ms(60_000));
        ensure!(took < slowest, "a request waited for {took:?}");
        Ok(())
    })
}

fn http(setup: &Setup) -> Outcome {
    exchanges(setup, "http://proxy:4433")
}

fn http_events(setup: &Setup) -> Outcome {
    exchanges(setup, "http://proxy:4433/?mode=sse")
}

fn http_lines(setup: &Setup) -> Outcome {
    exchanges(setup, "http://proxy:4433/?mode=ndjson")
}

fn http_polls(setup: &Setup) -> Outcome {
    exchanges(setup, "https://proxy:4433/?mode=poll")
}

fn http_buffered(setup: &Setup) -> Outcome {
    let buffering = RelayConfig {
        whole_messages: true,
        ..RelayConfig::default()
    };
    // Two ways down do not get through, and each is given a second for it.
    through(setup, "http://proxy:4433", buffering, ms(3000), (0, 2))
}

/// A path that has fallen to polls finds out by itself that it may stream again, and nobody waits for that. That it
/// did is seen when streams are held back once more, which polls would not notice.
fn http_reopened(setup: &Setup) -> Outcome {
    let plan = Plan {
        every: ms(600),
        ..Plan::default()
    };
    let mut stage = Stage::two_with(setup, plan);
    let buffering = RelayConfig {
        whole_messages: true,
        ..RelayConfig::default()
    };
    let target = ("server.wifi", PORT);
    stage
        .world
        .relay("proxy", &["wifi"], PORT, target, buffering.clone());
    stage.endpoints(&["http://proxy:4433"]);
    for (at, config) in [(ms(10_000), RelayConfig::default()), (ms(50_000), buffering)] {
        let host = "proxy".to_owned();
        stage.fault(at, Fault::Relay { host, config });
    }
    stage.run(move |_, report| {
        let meanwhile = report.slowest(ms(5_000), ms(49_000));
        ensure!(meanwhile < ms(500), "a request waited for {meanwhile:?}");
        let after = report.slowest(ms(49_000), ms(70_000));
        ensure!(after > ms(500), "it polled on: {after:?}");
        // Three ways do not get through, and each is given a second for it.
        ensure!(after < ms(4_000), "a request waited for {after:?}");
        Ok(())
    })
}

fn http_mute(setup: &Setup) -> Outcome {
    let mute = RelayConfig {
        mute_after: Some(60_000),
        ..RelayConfig::default()
    };
    through(setup, "http://proxy:4433", mute, ms(4000), (0, 40))
}

fn tls(setup: &Setup) -> Outcome {
    cut(setup, "tls")
}

fn websocket(setup: &Setup) -> Outcome {
    cut(setup, "ws")
}

fn websocket_tls(setup: &Setup) -> Outcome {
    cut(setup, "wss")
}

fn all(setup: &Setup) -> Outcome {
    let mut stage = Stage::two_with(setup, Plan::default());
    let target = ("server.wifi", PORT);
    let relay = stage.world.relay("proxy", &["wifi"], PORT, target, cutting());
    let endpoints = [
        "wss://proxy:4433",
        "tls://server.wifi:4433",
        "tcp://server.lte:4433",
    ];
    stage.endpoints(&endpoints);
    stage.run(move |world, report| {
        let stats = world.relay_stats(&relay);
        ensure!(stats.cut >= 1, "{stats:?}");
        for endpoint in ["wss://proxy", "tls://server"] {
            ensure!(report.ups(endpoint) >= 1, "{endpoint} never came up");
        }
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(500), "a request waited for {slowest:?}");
        Ok(())
    })
}

fn whatever(setup: &Setup) -> Outcome {
    let mut stage = Stage::two_with(setup, Plan::default());
    let target = ("server.wifi", PORT);
    let relay = stage.world.relay("proxy", &["wifi"], PORT, target, cutting());
    stage.endpoints(&["sheetbend://proxy:4433"]);
    stage.run(move |world, report| {
        let stats = world.relay_stats(&relay);
        ensure!(stats.cut >= 3, "{stats:?}");
        ensure!(report.ups("tls://proxy") >= 1, "TLS never came up");
        // The first path was encrypted, so that no other may be plain.
        let plain = report.ups("tcp://") + report.ups("ws://proxy");
        ensure!(plain == 0, "{plain} plain paths came up");
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(500), "a request waited for {slowest:?}");
        Ok(())
    })
}
