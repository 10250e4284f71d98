//! TCP, told truly.

use std::io::ErrorKind;

use sheetbend_runtime::{Class, PathEnd, SwitchCause};

use super::service::{self, PORT};
use super::stage::{Plan, Stage, ensure, moment, ms};
use super::{Outcome, Scenario, Setup, raw, scenario};
use crate::fault::Fault;
use crate::net::{LinkConfig, TcpConfig};
use crate::relay::RelayConfig;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "retransmission",
        "a tenth of a second of loss costs two",
        retransmission,
    ),
    scenario("half-open", "a peer that is gone, and nobody tells", half_open),
    scenario("reset", "connections reset", reset),
    scenario("fin", "connections closed in order by somebody between", fin),
    scenario(
        "zero-window",
        "a peer that takes nothing for a while",
        zero_window,
    ),
    scenario(
        "slow-reader",
        "a stream that is read slowly beside quick requests",
        slow_reader,
    ),
    scenario(
        "connect-timeout",
        "the preferred address swallows what calls it",
        connect_timeout,
    ),
    scenario(
        "connection-refused",
        "nobody listens at the preferred address",
        connection_refused,
    ),
    scenario(
        "full-backlog",
        "the preferred server accepts nobody",
        full_backlog,
    ),
];

fn retransmission(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let (at, client, server) = (stage.at, stage.client.clone(), stage.server.clone());
    stage.cut(at, "wifi", true);
    stage.cut(at + ms(100), "wifi", false);
    stage.link(at + ms(800), "wifi", LinkConfig::with_delay(ms(5)).loss(0.03));
    let pings = raw::ping(&mut stage.world, &client, "server", 1, ms(1), at + ms(700));
    stage.run(|world, report| {
        // What was sent meanwhile is sent again by a timer of 200 ms at least.
        let gap = pings.lock().slowest(at - ms(20), at + ms(100));
        ensure!(gap >= ms(200) && gap < ms(600), "the gap is {gap:?}");
        let gap = report.slowest(at - ms(50), at + ms(100));
        ensure!(gap < ms(900), "the session's gap is {gap:?}");
        let stats = world.link_stats(&client, &server, "wifi").unwrap_or_default();
        ensure!(stats.lost > 0, "nothing was lost");
        Ok(())
    })
}

fn half_open(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let (at, client) = (stage.at, stage.client.clone());
    let relay = stage.world.relay(
        "proxy",
        &["wifi"],
        PORT,
        ("server.wifi", PORT),
        RelayConfig::default(),
    );
    stage.world.boot("peer", &["wifi"], service::echo_tcp);
    stage.endpoints(&["proxy:4433", "server.lte:4433"]);
    for host in ["proxy", "peer"] {
        stage.fault(at, Fault::Crash { host: host.into() });
        stage.fault(at + ms(3000), Fault::Restart { host: host.into() });
    }
    let idle = stage.beside(|host| async move {
        let mut stream = host.connect_tcp("peer", service::ECHO).await.ok()?;
        host.sleep(at + ms(3500)).await;
        // Three seconds after the crash nothing is known of it; the first byte brings it out.
        let written = stream.write_all(b"?").await;
        let end = stream.read(&mut [0]).await;
        Some((written.is_ok(), end.map_err(|error| error.kind())))
    });
    let pings = raw::ping(&mut stage.world, &client, "peer", 10, ms(20), ms(10_000));
    stage.least = at + ms(6000);
    stage.run(|world, report| {
        ensure!(
            world.relay_stats(&relay).taken > 0,
            "the session did not go through the proxy"
        );
        let idle = idle.take().flatten();
        ensure!(
            idle == Some((true, Err(ErrorKind::ConnectionReset))),
            "an idle connection saw {idle:?}"
        );
        let pings = pings.lock();
        let (when, kind) = pings.error.ok_or("a half-open connection never failed")?;
        let gap = when.since(moment(at));
        ensure!(
            kind == ErrorKind::ConnectionReset && gap > ms(3000),
            "{kind:?} after {gap:?}"
        );
        let (after, cause) = report.switched(at, "lte").ok_or("the session stayed")?;
        ensure!(
            cause == SwitchCause::Suspect && after < ms(1000),
            "{cause:?} after {after:?}"
        );
        Ok(())
    })
}

fn reset(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let (at, client) = (stage.at, stage.client.clone());
    let (host, network) = ("client".to_owned(), "wifi".to_owned());
    stage.fault(at, Fault::Reset { host, network });
    let pings = raw::ping(&mut stage.world, &client, "server", 10, ms(20), ms(4000));
    stage.run(|_, report| {
        let error = pings.lock().error;
        ensure!(
            error.is_some_and(|(_, kind)| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)),
            "plain TCP saw {error:?}"
        );
        let (after, end, _) = report.down(at, "wifi").ok_or("no path ended")?;
        ensure!(end == PathEnd::Reset && after < ms(10), "{end:?} after {after:?}");
        ensure!(report.ups("wifi") == 2, "{} paths came up", report.ups("wifi"));
        let gap = report.slowest(at - ms(50), at + ms(50));
        ensure!(gap < ms(200), "back after {gap:?}");
        Ok(())
    })
}

fn fin(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let at = stage.at;
    let relay = stage
        .world
        .relay("proxy", &["wifi"], PORT, ("server", PORT), RelayConfig::default());
    stage.endpoints(&["proxy:4433"]);
    let cut = RelayConfig {
        cut_after: ms(1),
        ..RelayConfig::default()
    };
    for (at, config) in [(at, cut), (at + ms(1), RelayConfig::default())] {
        let host = "proxy".to_owned();
        stage.fault(at, Fault::Relay { host, config });
    }
    stage.run(|world, report| {
        ensure!(
            world.relay_stats(&relay).cut == 1,
            "{:?}",
            world.relay_stats(&relay)
        );
        let (after, end, _) = report.down(at, "proxy").ok_or("no path ended")?;
        // With data of the other direction on its way, the end is followed by a reset.
        ensure!(matches!(end, PathEnd::Eof | PathEnd::Reset), "{end:?}");
        ensure!(after < ms(20), "seen after {after:?}");
        let gap = report.slowest(at - ms(50), at + ms(50));
        ensure!(gap < ms(250), "back after {gap:?}");
        Ok(())
    })
}

fn zero_window(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let (at, client) = (stage.at, stage.client.clone());
    let bytes = 4_000_000;
    let written = raw::flood(&mut stage.world, &client, "server", at + ms(50), bytes);
    stage.fault(
        at + ms(60),
        Fault::Pause {
            host: "server".into(),
        },
    );
    stage.fault(
        at + ms(2060),
        Fault::Resume {
            host: "server".into(),
            clock_ran: true,
        },
    );
    let ledger = stage.ledger.clone();
    stage.least = at + ms(6000);
    stage.run(|_, _| {
        let written = written.lock();
        let until = |end| {
            written
                .iter()
                .filter(|(when, _)| *when < moment(at + end))
                .count()
        };
        let (early, late) = (until(ms(1000)), until(ms(2060)));
        ensure!(
            early == late,
            "written in a closed window: {early} pieces, later {late}"
        );
        let held = written.get(late.saturating_sub(1)).map_or(0, |(_, bytes)| *bytes);
        let ledger = ledger.lock();
        let read: usize = ledger
            .discarded
            .iter()
            .filter(|(when, _)| *when < moment(at + ms(2060)))
            .map(|(_, count)| count)
            .sum();
        ensure!(
            held - read <= 512 << 10,
            "{held} bytes taken, {read} read: more than both buffers"
        );
        let came: usize = ledger.discarded.iter().map(|(_, count)| count).sum();
        ensure!(came == bytes, "{came} of {bytes} bytes arrived");
        Ok(())
    })
}

fn slow_reader(setup: &Setup) -> Outcome {
    let mut plan = Plan {
        chunk: 40_000,
        read_pause: ms(40),
        ..Plan::default()
    };
    // The stream's credit is what bounds it.
    plan.server.params.max_stream_data[Class::BULK.index()] = 128 << 10;
    plan.server.max_stream_window = 128 << 10;
    let stage = Stage::two_with(setup, plan.clone());
    stage.run(|_, report| {
        let pieces = plan.rounds as u32 * (plan.chunk as u32 / (16 << 10));
        let took = report.finished.unwrap_or_default();
        ensure!(
            took > moment(pieces * plan.read_pause),
            "read in {took:?}: not slowly"
        );
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(150), "requests wait {slowest:?} behind the stream");
        ensure!(report.downs() == 0, "a path was given up for a slow reader");
        Ok(())
    })
}

fn connect_timeout(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let client = stage.client.clone();
    let config = TcpConfig {
        syn_retries: 1,
        ..TcpConfig::default()
    };
    stage.world.tcp(&client, config);
    stage.cut(ms(0), "wifi", true);
    stage.cut(ms(4000), "wifi", false);
    let knock = raw::knock(&mut stage.world, &client, ms(10), "server.wifi", service::ECHO);
    stage.least = ms(16_000);
    stage.plan.rest = Some((50, ms(12_000)));
    stage.run(|_, report| {
        // One second, and two more after the second try.
        let (error, took) = knock.take().ok_or("the knock never ended")?;
        ensure!(error == Some(ErrorKind::TimedOut), "{error:?}");
        ensure!(took >= ms(3000) && took < ms(3100), "after {took:?}");
        let since = report.established.unwrap_or(moment(ms(60_000)));
        ensure!(since < moment(ms(500)), "the session stands only after {since:?}");
        let (_, cause) = report.switched(ms(0), "lte").ok_or("not over the other path")?;
        ensure!(cause == SwitchCause::First, "{cause:?}");
        ensure!(
            report.ups("wifi") >= 1,
            "the preferred path never came up after it was mended"
        );
        Ok(())
    })
}

fn connection_refused(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let client = stage.client.clone();
    stage.endpoints(&["server.wifi:9999", "server.lte:4433"]);
    let knock = raw::knock(&mut stage.world, &client, ms(10), "server.wifi", 9999);
    stage.run(|_, report| {
        let (error, took) = knock.take().ok_or("the knock never ended")?;
        ensure!(error == Some(ErrorKind::ConnectionRefused), "{error:?}");
        ensure!(took < ms(12), "after {took:?}");
        let since = report.established.unwrap_or(moment(ms(60_000)));
        ensure!(since < moment(ms(250)), "the session stands only after {since:?}");
        Ok(())
    })
}

fn full_backlog(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let client = stage.client.clone();
    let clogged = stage.world.boot("clogged", &["wifi"], |host| async move {
        let _listener = host.listen_tcp(PORT);
        host.sleep(ms(1_000_000)).await;
    });
    let config = TcpConfig {
        backlog: 2,
        ..TcpConfig::default()
    };
    stage.world.tcp(&clogged, config);
    let config = TcpConfig {
        syn_retries: 1,
        ..TcpConfig::default()
    };
    stage.world.tcp(&client, config);
    stage.endpoints(&["clogged:4433", "server.lte:4433"]);
    // Two wait to be accepted, and hold their places.
    let held = [(), ()].map(|()| {
        stage.beside(|host| async move {
            let stream = host.connect_tcp("clogged", PORT).await;
            host.sleep(ms(8000)).await;
            stream.is_ok()
        })
    });
    let knock = raw::knock(&mut stage.world, &client, ms(100), "clogged", PORT);
    stage.least = ms(9000);
    stage.run(|_, report| {
        ensure!(
            held.iter().all(|held| held.take() == Some(true)),
            "the first two were not let in"
        );
        let (error, took) = knock.take().ok_or("the knock never ended")?;
        ensure!(
            error == Some(ErrorKind::TimedOut) && took >= ms(3000),
            "{error:?} after {took:?}"
        );
        let since = report.established.unwrap_or(moment(ms(60_000)));
        ensure!(
            since < moment(ms(1000)),
            "the session stands only after {since:?}"
        );
        Ok(())
    })
}
