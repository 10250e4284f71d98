//! Networks that change under a session, servers and machines that are away: how long it takes until the session goes on.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::policy::selection::Reason;
use sheetbend_runtime::{Client, Config, Server, SessionEvent};

use super::failing::{LTE, WIFI, deaths, moves};
use super::service::PORT;
use super::stage::{Plan, Stage, ensure, failure, moment, ms, world};
use super::truth::{Truth, answer, call, tell};
use super::{Outcome, Scenario, Setup, scenario};
use crate::failure::FailureKind;
use crate::fault::Fault;
use crate::net::LinkConfig;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "rtt-jump",
        "round trips of 20 ms become 800 ms, and short again",
        rtt_jump,
    ),
    scenario(
        "slow-path",
        "the preferred path is slow and never fails",
        slow_path,
    ),
    scenario(
        "narrow",
        "256 kbit/s, and as much to send as there is room for",
        narrow,
    ),
    scenario(
        "dead-address",
        "a name with two addresses, the first of which is dead",
        dead_address,
    ),
    scenario(
        "network-change",
        "all addresses change at once, and the client is told",
        told_change,
    ),
    scenario(
        "network-change-untold",
        "all addresses change at once, and nobody says so",
        untold_change,
    ),
    scenario(
        "server-gone",
        "a server that is away for four minutes",
        server_gone,
    ),
    scenario(
        "pause-long",
        "a server's process that stands still for twenty seconds",
        pause_long,
    ),
    scenario("sleep-minute", "a laptop that sleeps for a minute", sleep_minute),
    scenario(
        "sleep-hour",
        "a laptop that sleeps for an hour: a new session, and the truth of the old one",
        sleep_hour,
    ),
    scenario(
        "lossy-hour",
        "an hour of 5 % loss and jitter of three round trips",
        lossy_hour,
    ),
    scenario("quic-lossy-hour", "the same over QUIC", quic_lossy_hour),
];

fn rtt_jump(setup: &Setup) -> Outcome {
    let plan = Plan {
        rounds: 600,
        chunk: 1000,
        ..Plan::default()
    };
    let networks = [
        ("wifi", LinkConfig::with_delay(ms(10))),
        ("lte", LinkConfig::with_delay(ms(20))),
    ];
    let mut stage = Stage::new(setup, &networks, plan);
    let at = stage.at;
    stage.link(at, "wifi", LinkConfig::with_delay(ms(400)));
    stage.link(at + ms(8000), "wifi", LinkConfig::with_delay(ms(10)));
    stage.run(|_, report| {
        ensure!(report.switched(at, "lte").is_some(), "the session stayed");
        let slowest = report.slowest(ms(100), ms(60_000));
        ensure!(slowest <= ms(60 + 100 + 40), "a request waited for {slowest:?}");
        // TCP begins anew with one segment a round trip: that may outlast the second in which it is to answer.
        ensure!(report.downs() <= 1, "{} paths were called dead", report.downs());
        let (after, _) = report
            .switched(at + ms(8000), "wifi")
            .ok_or("it was not gone back to")?;
        ensure!(after < ms(30_000), "it was gone back to after {after:?}");
        let moves = moves(report);
        ensure!(moves <= 3, "data moved {moves} times");
        Ok(())
    })
}

fn slow_path(setup: &Setup) -> Outcome {
    let networks = [
        ("wifi", LinkConfig::with_delay(ms(150))),
        ("lte", LinkConfig::with_delay(ms(20))),
    ];
    let stage = Stage::new(setup, &networks, Plan::default());
    stage.run(|_, report| {
        ensure!(report.downs() == 0, "a path ended");
        let slow = report.slowest(ms(3000), ms(60_000));
        ensure!(slow < LTE + ms(20), "it stays on the slow path: {slow:?}");
        let better = |event: &SessionEvent| {
            let SessionEvent::Switched { to, evidence, .. } = event else {
                return false;
            };
            to.contains("lte")
                && matches!(
                    evidence.reason,
                    Reason::Better { .. } | Reason::Cheapest | Reason::Only
                )
        };
        ensure!(
            report.events.iter().any(|(_, event)| better(event)),
            "nothing says why it is on the other"
        );
        Ok(())
    })
}

fn narrow(setup: &Setup) -> Outcome {
    let plan = Plan {
        rounds: 20,
        every: ms(200),
        chunk: 20_000,
        ..Plan::default()
    };
    let bits = plan.rounds * plan.chunk as u64 * 8;
    let network = [("wifi", LinkConfig::with_delay(ms(20)).rate(256_000, 64 << 10))];
    Stage::new(setup, &network, plan).run(|_, report| {
        let took = report.stream_ended.unwrap_or_default().as_nanos() / 1_000_000;
        let least = bits / 256;
        ensure!(took > least, "{bits} bits in {took} ms: above the rate");
        ensure!(took < least * 2, "{bits} bits in {took} ms: far below the rate");
        // Both directions stand in queues of seconds: that an answer is late looks like silence, and another connection
        // is made. It costs nothing but that.
        ensure!(report.downs() <= 4, "{} paths were called dead", report.downs());
        let suspected = |event: &SessionEvent| matches!(event, SessionEvent::PathSuspect { .. });
        let suspicions = report.events.iter().filter(|(_, event)| suspected(event)).count();
        ensure!(suspicions <= 8, "a busy path was suspected {suspicions} times");
        Ok(())
    })
}

fn dead_address(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    stage.endpoints(&["server:4433"]);
    stage.cut(ms(0), "wifi", true);
    stage.run(|_, report| {
        let established = report.established.unwrap_or_default().since(moment(ms(0)));
        let bar = ms(100) + LTE * 2 + ms(5);
        ensure!(established <= bar, "a session after {established:?}");
        Ok(())
    })
}

/// The client leaves one network and comes to another: no address of before is of any use.
fn network_change(setup: &Setup, told: bool, bar: Duration) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    let mut interface = |at, network: &str, up| {
        let (host, network) = ("client".to_owned(), network.to_owned());
        stage.fault(at, Fault::Interface { host, network, up });
    };
    interface(ms(0), "lte", false);
    interface(at, "wifi", false);
    interface(at, "lte", true);
    if told {
        stage.plan.changes.push((at + ms(10), "lte"));
    }
    stage.run(|_, report| {
        ensure!(report.switched(at, "lte").is_some(), "the session stayed");
        let gap = report.slowest(at - ms(60), at + ms(100));
        ensure!(gap <= bar, "an answer took {gap:?}, more than {bar:?}");
        Ok(())
    })
}

fn told_change(setup: &Setup) -> Outcome {
    // It was asked up to 60 ms before, and is told after 10 ms; a connection, a handshake, and the answer.
    network_change(setup, true, ms(60 + 10) + LTE * 3 + ms(40))
}

fn untold_change(setup: &Setup) -> Outcome {
    network_change(setup, false, ms(2500))
}

fn server_gone(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    stage.plan.limit = ms(400_000);
    let at = stage.at;
    let away = ms(240_000);
    for network in ["wifi", "lte"] {
        stage.cut(at, network, true);
        stage.cut(at + away, network, false);
    }
    stage.run(|_, report| {
        let gap = report.slowest(at - ms(60), at + ms(100));
        ensure!(
            gap > away - ms(100) && gap < away + ms(5500),
            "an answer took {gap:?}"
        );
        Ok(())
    })
}

fn pause_long(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    let host = || "server".to_owned();
    stage.fault(at, Fault::Pause { host: host() });
    let clock_ran = true;
    let host = host();
    stage.fault(at + ms(20_000), Fault::Resume { host, clock_ran });
    stage.run(|_, report| {
        let gap = report.slowest(at - ms(60), at + ms(100));
        ensure!(gap > ms(19_800) && gap < ms(21_500), "an answer took {gap:?}");
        Ok(())
    })
}

fn asleep(stage: &mut Stage, at: Duration, time: Duration, clock_ran: bool) {
    let host = || "client".to_owned();
    stage.fault(at, Fault::Suspend { host: host() });
    let host = host();
    stage.fault(at + time, Fault::Resume { host, clock_ran });
}

fn sleep_minute(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    asleep(&mut stage, at, ms(60_000), setup.seed % 2 == 1);
    stage.run(|_, report| {
        let gap = report.gap();
        ensure!(gap >= ms(60_000) && gap < ms(62_500), "the gap is {gap:?}");
        Ok(())
    })
}

fn sleep_hour(setup: &Setup) -> Outcome {
    let mut world = world(setup);
    for (name, delay) in [("wifi", 5), ("lte", 20)] {
        world.network(name, LinkConfig::with_delay(ms(delay)));
    }
    let seen = Arc::new(Mutex::new(Truth::default()));
    let told = seen.clone();
    world.boot("server", &["wifi", "lte"], move |host| {
        let told = told.clone();
        async move {
            let builder = Server::builder()
                .listen("tcp://server:4433")
                .expect("a good address");
            let server = builder.config(Config::default()).bind(host.runtime()).await;
            let server = server.expect("the port is free");
            while let Some(session) = server.accept().await {
                answer(&host, session, &told);
            }
        }
    });
    let host = world.host("client", &["wifi", "lte"]);
    let (own, told) = (host.clone(), seen.clone());
    world.spawn(&host, async move {
        let mut builder = Client::builder().keep_trying(true);
        for name in ["server.wifi", "server.lte"] {
            let endpoint = format!("tcp://{name}:{PORT}");
            builder = builder.endpoint(endpoint).expect("a good address");
        }
        let client = builder.build(own.runtime()).expect("it has endpoints");
        while let Ok(session) = client.session().await {
            own.spawn(tell(own.clone(), session.clone(), told.clone()));
            call(&own, &session, &told).await;
        }
    });
    let asleep = ms(3_600_000);
    let at = ms(2000 + setup.seed % 97);
    let (from, until) = ("client".to_owned(), "client".to_owned());
    world.fault_at(at, Fault::Suspend { host: from });
    let clock_ran = setup.seed % 2 == 1;
    world.fault_at(
        at + asleep,
        Fault::Resume {
            host: until,
            clock_ran,
        },
    );
    let end = at + asleep + ms(10_000);
    let result = world.run_for(end).and_then(|()| {
        let held = seen.lock().check(moment(end), 2);
        held.map_err(|words| failure(&world, FailureKind::Safety, "truth", words))
    });
    Outcome::of(world, result)
}

fn lossy_hour(setup: &Setup) -> Outcome {
    an_hour_of_loss(setup, "tcp", 3)
}

fn quic_lossy_hour(setup: &Setup) -> Outcome {
    an_hour_of_loss(setup, "quic", 0)
}

/// Both paths are of that scheme, and none of them is wrong: so many false deaths may be.
fn an_hour_of_loss(setup: &Setup, scheme: &str, most: usize) -> Outcome {
    // An answer takes 0.2 s on the mean here, less over QUIC, with what is lost: together they are an hour.
    let plan = Plan {
        rounds: 3200,
        every: ms(1000),
        chunk: 200,
        limit: ms(4_500_000),
        ..Plan::default()
    };
    let lossy = |delay| LinkConfig::with_delay(delay).jitter(delay * 6).loss(0.05);
    let networks = [("wifi", lossy(WIFI / 2)), ("lte", lossy(LTE / 2))];
    let mut stage = Stage::new(setup, &networks, plan);
    let endpoints = ["wifi", "lte"].map(|network| format!("{scheme}://server.{network}:{PORT}"));
    stage.endpoints(&endpoints.each_ref().map(String::as_str));
    let prefix = format!("{scheme}://");
    stage.run(move |world, report| {
        let deaths = deaths(report);
        let words = format!("{deaths} false deaths, {} moves", moves(report));
        world.note("lossy-hour", &words);
        ensure!(report.ups(&prefix) >= 2, "it is not over {prefix}");
        ensure!(deaths <= most, "{deaths} false deaths in an hour");
        Ok(())
    })
}
