//! Transports that fail in the ways that real networks have, and what a session does about it. Each has a bar: how long
//! the longest wait for an answer may be, how often data may move.

use std::time::Duration;

use sheetbend_runtime::{SessionEvent, SwitchCause};

use super::service::PORT;
use super::stage::{Check, Plan, Report, Stage, ensure, moment, ms, partition};
use super::{Outcome, Scenario, Setup, scenario};
use crate::fault::Fault;
use crate::net::{LinkConfig, Middlebox};
use crate::relay::RelayConfig;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "blackhole",
        "the path in use is swallowed without a word, and another is warm",
        blackhole,
    ),
    scenario(
        "blackhole-out",
        "what is sent is swallowed, while what comes goes on coming",
        blackhole_out,
    ),
    scenario(
        "hard-failure",
        "the path in use is reset, and another is warm",
        hard_failure,
    ),
    scenario(
        "udp-blocked-always",
        "a network that lets no UDP pass, and QUIC is preferred",
        udp_never,
    ),
    scenario(
        "udp-blocked-later",
        "a network that lets no UDP pass any more, under QUIC",
        udp_later,
    ),
    scenario(
        "ws-mute",
        "a WebSocket opens behind a proxy, and stays mute",
        ws_mute,
    ),
    scenario(
        "sse-buffered",
        "an event stream behind a proxy that passes on what is whole",
        sse_buffered,
    ),
    scenario(
        "proxy-30s",
        "a proxy that cuts every connection at thirty seconds",
        proxy_30s,
    ),
    scenario(
        "loss-burst",
        "thirty of a hundred packets lost for ten seconds",
        loss_burst,
    ),
    scenario(
        "nat-idle",
        "an address translation that forgets what rests",
        nat_idle,
    ),
    scenario(
        "double-death",
        "both paths are reset within one round trip",
        double_death,
    ),
    scenario(
        "double-blackhole",
        "both paths are swallowed within one round trip, for three seconds",
        double_blackhole,
    ),
    scenario(
        "flapping",
        "a preferred path that comes and goes every second, for half a minute",
        flapping,
    ),
];

/// The round trip of the preferred path, and of the other.
pub(super) const WIFI: Duration = ms(10);
pub(super) const LTE: Duration = ms(40);

/// What a wait may be after a silent failure: the bar of three round trips and 100 ms until somebody acts, and the
/// round trip of the path that takes over.
const SILENT: Duration = ms(30 + 100 + 40);
/// The same where more was under way than TCP sends at once on a connection that has rested (RFC 6928): its rest takes
/// another round trip.
const SILENT_FULL: Duration = ms(30 + 100 + 2 * 40);

/// How often data moved from one path to another before the work was done.
pub(super) fn moves(report: &Report) -> usize {
    let end = report.finished.unwrap_or_default();
    let moved = |event: &SessionEvent| matches!(event, SessionEvent::Switched { from: Some(_), .. });
    let events = report.events.iter();
    events.filter(|(at, event)| *at < end && moved(event)).count()
}

/// How many paths died of silence.
pub(super) fn deaths(report: &Report) -> usize {
    let silent =
        |error: &str| error.contains("no answer to probes") || error.contains("abandoned by the peer");
    let dead = |event: &SessionEvent| matches!(event, SessionEvent::PathDown { error: Some(error), .. } if silent(error));
    report.events.iter().filter(|(_, event)| dead(event)).count()
}

/// The wait for the answer that it all was about.
fn waited(report: &Report, at: Duration, bar: Duration) -> Check {
    let gap = report.slowest(at - ms(60), at + ms(100));
    ensure!(gap <= bar, "an answer took {gap:?}, more than {bar:?}");
    Ok(())
}

fn blackhole(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    stage.cut(at, "wifi", true);
    stage.run(|_, report| {
        let (after, cause) = report.switched(at, "lte").ok_or("the session stayed")?;
        ensure!(cause == SwitchCause::Suspect, "{cause:?} after {after:?}");
        waited(report, at, SILENT_FULL)
    })
}

fn blackhole_out(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    stage.fault(at, partition("client", "server", "wifi", true));
    stage.run(|_, report| {
        ensure!(report.switched(at, "lte").is_some(), "the session stayed");
        waited(report, at, SILENT_FULL)
    })
}

fn hard_failure(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    let (host, network) = ("client".to_owned(), "wifi".to_owned());
    stage.fault(at, Fault::Reset { host, network });
    stage.run(|_, report| {
        let (after, cause) = report.switched(at, "lte").ok_or("the session stayed")?;
        ensure!(
            cause == SwitchCause::Reset && after.is_zero(),
            "{cause:?} after {after:?}"
        );
        // What was under way had up to a round trip behind it.
        waited(report, at, WIFI + LTE)
    })
}

fn no_udp() -> Fault {
    Fault::Middlebox {
        host: "client".into(),
        network: "wifi".into(),
        config: Some(Middlebox {
            block_udp: true,
            ..Middlebox::default()
        }),
    }
}

fn udp_never(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    stage.endpoints(&["quic://server.wifi:4433", "tcp://server.wifi:4433"]);
    stage.fault(ms(0), no_udp());
    stage.run(|_, report| {
        let established = report.established.unwrap_or_default().since(moment(ms(0)));
        let bar = ms(100) + WIFI * 2 + ms(5);
        ensure!(established <= bar, "a session after {established:?}");
        ensure!(report.ups("quic") == 0, "UDP was not blocked");
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < WIFI + ms(30), "a request waited for {slowest:?}");
        Ok(())
    })
}

fn udp_later(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    stage.endpoints(&["quic://server.wifi:4433", "tcp://server.lte:4433"]);
    let at = stage.at;
    stage.fault(at, no_udp());
    stage.run(|_, report| {
        ensure!(report.ups("quic") >= 1, "QUIC never came up");
        ensure!(report.switched(at, "lte").is_some(), "the session stayed");
        waited(report, at, SILENT)
    })
}

/// The preferred endpoint opens and gives nothing back; the other is a plain one on a slower network.
fn unanswered(setup: &Setup, endpoint: &str, config: RelayConfig, seen_after: Duration) -> Outcome {
    let mut stage = Stage::two(setup);
    let target = ("server.wifi", PORT);
    let relay = stage.world.relay("proxy", &["wifi"], PORT, target, config);
    stage.endpoints(&[endpoint, "server.lte:4433"]);
    stage.run(move |world, report| {
        let established = report.established.unwrap_or_default().since(moment(ms(0)));
        // It is staggered, and then takes the round trips of TCP and HELLO.
        let bar = ms(100) + LTE * 2 + ms(5);
        ensure!(established <= bar, "a session after {established:?}");
        let (active, _) = report.switched(ms(0), "lte").ok_or("it never carried the data")?;
        let bar = bar + seen_after;
        ensure!(active <= bar, "it carried the data after {active:?}");
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(
            slowest < LTE + ms(30) + seen_after,
            "a request waited for {slowest:?}"
        );
        let taken = world.relay_stats(&relay).taken;
        // A path over HTTP has up to three connections.
        ensure!((1..=30).contains(&taken), "{taken} connections were made");
        Ok(())
    })
}

fn ws_mute(setup: &Setup) -> Outcome {
    // The answer to the upgrade passes, and not WELCOME behind it.
    let mute = RelayConfig {
        mute_after: Some(200),
        ..RelayConfig::default()
    };
    unanswered(setup, "ws://proxy:4433", mute, Duration::ZERO)
}

fn sse_buffered(setup: &Setup) -> Outcome {
    let buffering = RelayConfig {
        whole_messages: true,
        ..RelayConfig::default()
    };
    // The handshake comes through; that nothing else does shows when that has been suspect.
    unanswered(setup, "http://proxy:4433/?mode=sse", buffering, SILENT)
}

fn proxy_30s(setup: &Setup) -> Outcome {
    let plan = Plan {
        rounds: 650,
        every: ms(100),
        chunk: 500,
        ..Plan::default()
    };
    let mut stage = Stage::two_with(setup, plan);
    let cutting = RelayConfig {
        cut_after: ms(30_000),
        ..RelayConfig::default()
    };
    let target = ("server.wifi", PORT);
    let relay = stage.world.relay("proxy", &["wifi"], PORT, target, cutting);
    stage.endpoints(&["ws://proxy:4433", "server.lte:4433"]);
    stage.run(move |world, report| {
        let stats = world.relay_stats(&relay);
        ensure!(stats.cut >= 2, "{stats:?}");
        ensure!(report.ups("ws://proxy") >= 3, "it was not gone back to");
        let slowest = report.slowest(ms(0), ms(100_000));
        ensure!(slowest <= WIFI + LTE + ms(10), "a request waited for {slowest:?}");
        Ok(())
    })
}

fn loss_burst(setup: &Setup) -> Outcome {
    let plan = Plan {
        rounds: 350,
        chunk: 2000,
        ..Plan::default()
    };
    let mut stage = Stage::two_with(setup, plan);
    let at = stage.at;
    stage.link(at, "wifi", LinkConfig::with_delay(ms(5)).loss(0.3));
    stage.link(at + ms(10_000), "wifi", LinkConfig::with_delay(ms(5)));
    stage.run(|_, report| {
        ensure!(report.switched(at, "lte").is_some(), "the session stayed");
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(500), "a request waited for {slowest:?}");
        let moves = moves(report);
        ensure!(moves <= 4, "data moved {moves} times");
        Ok(())
    })
}

fn nat_idle(setup: &Setup) -> Outcome {
    let mut plan = Plan {
        rest: Some((30, ms(30_000))),
        ..Plan::default()
    };
    plan.fall_silent();
    let mut stage = Stage::two_with(setup, plan);
    let config = Some(Middlebox {
        nat: true,
        idle: ms(8000),
        ..Middlebox::default()
    });
    let (host, network) = ("client".to_owned(), "wifi".to_owned());
    stage.fault(
        ms(0),
        Fault::Middlebox {
            host,
            network,
            config,
        },
    );
    stage.run(|_, report| {
        let slowest = report.slowest(ms(10_000), ms(60_000));
        ensure!(
            report.switched(ms(10_000), "lte").is_some(),
            "the box did not forget"
        );
        ensure!(slowest <= SILENT, "a request waited for {slowest:?}");
        Ok(())
    })
}

fn double_death(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    for (after, network) in [(0, "wifi"), (5, "lte")] {
        let (host, network) = ("client".to_owned(), network.to_owned());
        stage.fault(at + ms(after), Fault::Reset { host, network });
    }
    stage.run(|_, report| {
        ensure!(report.downs() >= 2, "{} paths ended", report.downs());
        // A connection and a handshake anew, after the first delay of its backoff.
        waited(report, at, ms(150))
    })
}

fn double_blackhole(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    for (after, network) in [(0, "wifi"), (5, "lte")] {
        stage.cut(at + ms(after), network, true);
        stage.cut(at + ms(3000), network, false);
    }
    stage.run(|_, report| waited(report, at, ms(4500)))
}

fn flapping(setup: &Setup) -> Outcome {
    let plan = Plan {
        rounds: 850,
        chunk: 500,
        ..Plan::default()
    };
    let mut stage = Stage::two_with(setup, plan);
    let at = stage.at;
    for round in 0..15 {
        stage.cut(at + ms(round * 2000), "wifi", true);
        stage.cut(at + ms(round * 2000 + 1000), "wifi", false);
    }
    stage.run(|_, report| {
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest <= SILENT, "a request waited for {slowest:?}");
        let moves = moves(report);
        ensure!(
            (1..=3).contains(&moves),
            "data moved {moves} times in half a minute"
        );
        Ok(())
    })
}
