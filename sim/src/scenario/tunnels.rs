//! Proxies that are asked where to lead.

use super::service::PORT;
use super::stage::{Plan, Stage, ensure, ms};
use super::{Outcome, Scenario, Setup, scenario};
use crate::fault::Fault;
use crate::host::Host;
use crate::relay::RelayConfig;
use crate::tunnel::PROXY_PORT;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "connect-proxy",
        "a WebSocket over TLS through an HTTP proxy that closes every connection after a second",
        connect,
    ),
    scenario(
        "socks-proxy",
        "TLS through a SOCKS5 proxy that closes every connection after a second",
        socks,
    ),
    scenario(
        "socks-proxy-plain",
        "TCP through a SOCKS5 proxy that resolves names itself and closes every connection after a second",
        socks_plain,
    ),
    scenario(
        "proxy-gone",
        "an HTTP proxy that crashes, and a way around it",
        gone,
    ),
];

const LOGIN: (&str, &str) = ("user", "pass:word");

/// A client whose proxy is at the edge of its network.
fn stage(setup: &Setup, proxy: &str, config: RelayConfig) -> (Stage, Host) {
    let plan = Plan {
        proxies: proxy_rules(proxy),
        ..Plan::default()
    };
    let mut stage = Stage::two_with(setup, plan);
    let host = stage.world.proxy("proxy", &["wifi"], Some(LOGIN), config);
    (stage, host)
}

fn proxy_rules(kind: &str) -> sheetbend_runtime::ProxyRules {
    let (user, password) = LOGIN;
    let url = format!("{kind}://{user}:{password}@proxy:{PROXY_PORT}");
    let rules = sheetbend_runtime::ProxyRules::all(url.parse().expect("a sound proxy"));
    rules.except("server.lte".parse().expect("a sound list"))
}

/// One endpoint, to which the proxy leads: each connection's handshakes are made anew, and the session goes on.
fn cut(setup: &Setup, kind: &str, scheme: &str) -> Outcome {
    let cutting = RelayConfig {
        cut_after: ms(1000),
        ..RelayConfig::default()
    };
    let (mut stage, proxy) = stage(setup, kind, cutting);
    stage.endpoints(&[&format!("{scheme}://server.wifi:{PORT}")]);
    stage.run(move |world, report| {
        let stats = world.relay_stats(&proxy);
        ensure!(stats.cut >= 3, "{stats:?}");
        let ups = report.ups("server.wifi") as u64;
        ensure!(ups >= stats.cut, "{ups} paths came up");
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(500), "a request waited for {slowest:?}");
        Ok(())
    })
}

fn connect(setup: &Setup) -> Outcome {
    cut(setup, "http", "wss")
}

fn socks(setup: &Setup) -> Outcome {
    cut(setup, "socks5", "tls")
}

fn socks_plain(setup: &Setup) -> Outcome {
    cut(setup, "socks5h", "tcp")
}

fn gone(setup: &Setup) -> Outcome {
    let (mut stage, proxy) = stage(setup, "http", RelayConfig::default());
    stage.endpoints(&["ws://server.wifi:4433", "tcp://server.lte:4433"]);
    let at = stage.at;
    stage.fault(at, Fault::Crash { host: "proxy".into() });
    stage.run(move |world, report| {
        let stats = world.relay_stats(&proxy);
        ensure!(stats.taken >= 1, "it was never used: {stats:?}");
        ensure!(report.ups("ws://server.wifi") >= 1, "it never led anywhere");
        let switched = report.switched(at, "lte");
        ensure!(switched.is_some(), "the session did not go around it");
        let gap = report.slowest(ms(0), ms(60_000));
        ensure!(gap < ms(1000), "the gap is {gap:?}");
        Ok(())
    })
}
