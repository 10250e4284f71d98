//! Sessions over QUIC, and what networks do to UDP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{Class, Client, Config, Moved, Session, SessionEvent};

use super::service::{self, PORT};
use super::stage::{self, Check, Stage, ensure, ms};
use super::{Outcome, Scenario, Setup, scenario};
use crate::failure::{Failure, FailureKind};
use crate::fault::Fault;
use crate::host::Host;
use crate::net::{LinkConfig, Middlebox};
use crate::world::{Join, World};

pub(super) const ALL: &[Scenario] = &[
    scenario("quic", "QUIC on a link that loses one packet in fifty", lossy),
    scenario(
        "quic-reordered",
        "QUIC on a link that jumbles and doubles packets",
        jumbled,
    ),
    scenario(
        "quic-blocked",
        "a firewall lets no UDP pass any more: all moves to TCP",
        blocked,
    ),
    scenario(
        "quic-rebinding",
        "an address translation gives QUIC a new port, twice",
        rebinding,
    ),
    scenario(
        "quic-migration",
        "a client under load goes on from another socket",
        migration,
    ),
    scenario("quic-mtu", "a link takes shorter packets than it did", shorter),
    scenario(
        "quic-lanes",
        "fifty streams over QUIC: a lost packet delays its own",
        lanes,
    ),
    scenario(
        "quic-contrast",
        "the same over TCP, where it delays them all",
        contrast,
    ),
];

fn box_on_wifi(config: Option<Middlebox>) -> Fault {
    Fault::Middlebox {
        host: "client".into(),
        network: "wifi".into(),
        config,
    }
}

fn over_quic(setup: &Setup) -> Stage {
    over(setup, "quic")
}

/// A stage whose only endpoint is of that scheme.
fn over(setup: &Setup, scheme: &str) -> Stage {
    let mut stage = Stage::one(setup);
    stage.endpoints(&[&format!("{scheme}://server.wifi:{PORT}")]);
    stage
}

fn lossy(setup: &Setup) -> Outcome {
    lossy_over(setup, "quic")
}

pub(super) fn lossy_over(setup: &Setup, scheme: &str) -> Outcome {
    let mut stage = over(setup, scheme);
    let at = stage.at;
    stage.link(at, "wifi", LinkConfig::with_delay(ms(5)).loss(0.02));
    let prefix = format!("{scheme}://");
    stage.run(move |_, report| {
        ensure!(report.downs() == 0, "{} paths ended", report.downs());
        ensure!(report.ups(&prefix) == 1, "it is not over {prefix}");
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(400), "a request waited for {slowest:?}");
        Ok(())
    })
}

fn jumbled(setup: &Setup) -> Outcome {
    let mut stage = over_quic(setup);
    let at = stage.at;
    let jumble = LinkConfig {
        jitter: ms(8),
        duplicate: 0.05,
        ..LinkConfig::with_delay(ms(5))
    };
    stage.link(at, "wifi", jumble);
    stage.run(|_, report| {
        ensure!(report.downs() == 0, "{} paths ended", report.downs());
        Ok(())
    })
}

fn blocked(setup: &Setup) -> Outcome {
    blocked_over(setup, "quic")
}

pub(super) fn blocked_over(setup: &Setup, scheme: &str) -> Outcome {
    let mut stage = over(setup, scheme);
    let at = stage.at;
    let firewall = Middlebox {
        block_udp: true,
        ..Middlebox::default()
    };
    stage.endpoints(&[
        &format!("{scheme}://server.wifi:{PORT}"),
        &format!("tls://server.wifi:{PORT}"),
    ]);
    stage.fault(at, box_on_wifi(Some(firewall)));
    let prefix = format!("{scheme}://");
    stage.run(move |_, report| {
        ensure!(report.ups(&prefix) >= 1, "{prefix} never came up");
        let switched = report.switched(at, "tls://");
        ensure!(switched.is_some(), "nothing moved to TCP");
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(1500), "a request waited for {slowest:?}");
        Ok(())
    })
}

fn moves(report: &stage::Report) -> Vec<Moved> {
    let events = report.events.iter();
    events
        .filter_map(|(_, event)| match event {
            SessionEvent::PathMoved { how, .. } => Some(*how),
            _ => None,
        })
        .collect()
}

fn goes_on(report: &stage::Report, round_trip: Duration) -> Check {
    ensure!(report.downs() == 0, "{} paths ended", report.downs());
    // A request is asked every 40 ms.
    let gap = report.gap();
    let most = round_trip * 2 + ms(50) + ms(40);
    ensure!(gap <= most, "{gap:?} without an answer");
    Ok(())
}

fn rebinding(setup: &Setup) -> Outcome {
    rebinding_over(setup, "quic")
}

pub(super) fn rebinding_over(setup: &Setup, scheme: &str) -> Outcome {
    let mut stage = over(setup, scheme);
    let at = stage.at;
    let nat = Middlebox {
        nat: true,
        ..Middlebox::default()
    };
    stage.fault(ms(0), box_on_wifi(Some(nat)));
    for after in [at, at + ms(900)] {
        let (host, network) = ("client".to_owned(), "wifi".to_owned());
        stage.fault(after, Fault::Forget { host, network });
    }
    stage.run(|_, report| goes_on(report, ms(10)))
}

fn migration(setup: &Setup) -> Outcome {
    migration_over(setup, "quic")
}

pub(super) fn migration_over(setup: &Setup, scheme: &str) -> Outcome {
    let mut stage = over(setup, scheme);
    let at = stage.at;
    stage.rebinds = vec![at, at + ms(500), at + ms(900)];
    stage.run(|_, report| {
        let moves = moves(report);
        let changed = moves.iter().filter(|how| **how == Moved::Changed).count();
        ensure!(changed == 3, "{moves:?}");
        ensure!(moves.last() == Some(&Moved::Proven), "{moves:?}");
        goes_on(report, ms(10))
    })
}

fn shorter(setup: &Setup) -> Outcome {
    let mut stage = over_quic(setup);
    let at = stage.at;
    let short = LinkConfig {
        mtu: 1280,
        ..LinkConfig::with_delay(ms(5))
    };
    stage.link(at, "wifi", short);
    stage.run(|_, report| {
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(3000), "a request waited for {slowest:?}");
        Ok(())
    })
}

// ---- many streams ----

const STREAMS: usize = 50;
const MESSAGES: usize = 100;
const EVERY: Duration = ms(20);
const MESSAGE: u64 = 100;
const ONE_WAY: Duration = ms(20);
/// Of all packets in each direction.
const LOSS: f64 = 0.02;

/// How long each message took to come back, by the moment it was sent: fifty streams of one session, on each of which
/// one message after another of 100 bytes goes to the server and back, over a link of 20 ms one way that loses a
/// share of all packets.
///
/// # Errors
/// When they do not all come back.
pub fn stream_latencies(scheme: &str, seed: u64, loss: f64) -> Result<Vec<(Duration, Duration)>, Failure> {
    let setup = Setup {
        seed,
        ..Setup::default()
    };
    echoes(&setup, scheme, loss).1
}

type Latencies = Vec<(Duration, Duration)>;

fn echoes(setup: &Setup, scheme: &str, loss: f64) -> (World, Result<Latencies, Failure>) {
    let mut world = stage::world(setup);
    world.network("wifi", LinkConfig::with_delay(ONE_WAY).loss(loss));
    let ledger = Arc::new(Mutex::new(stage::Ledger::default()));
    world.boot("server", &["wifi"], move |host| {
        service::serve(host, Config::default(), Duration::ZERO, ledger.clone())
    });
    let client = world.host("client", &["wifi"]);
    let took = Arc::new(Mutex::new(Vec::new()));
    let (host, url) = (client.clone(), format!("{scheme}://server:{}", service::PORT));
    let session = world.block_on(&client, async move {
        let builder = Client::builder().endpoint(url).expect("a good address");
        builder.connect(host.runtime()).await.expect("the server answers")
    });
    let result = session.and_then(|session| {
        let mut streams = Vec::new();
        for number in 0..STREAMS {
            let work = one_stream(client.clone(), session.clone(), number, took.clone());
            streams.push(world.spawn(&client, work));
        }
        let ended = world.run_while_not(ms(120_000), |_| streams.iter().all(Join::is_done))?;
        if !ended {
            let words = "the streams do not come to their end";
            return Err(stage::failure(&world, FailureKind::Liveness, "client", words));
        }
        Ok(std::mem::take(&mut *took.lock()))
    });
    (world, result)
}

async fn one_stream(host: Host, session: Session, number: usize, took: Arc<Mutex<Latencies>>) {
    // Not all at the same moment.
    host.sleep(EVERY * number as u32 / STREAMS as u32).await;
    let mut stream = session.open_bi(Class::BULK).await.expect("streams may be opened");
    let mut at = 0;
    for _ in 0..MESSAGES {
        let message: Vec<u8> = (at..at + MESSAGE).map(service::pattern).collect();
        let sent = host.world_now();
        stream
            .send()
            .write_chunk(Bytes::from(message))
            .await
            .expect("it is taken");
        let end = at + MESSAGE;
        while at < end {
            let piece = stream.read_chunk(usize::MAX).await.expect("it comes back");
            let piece = piece.expect("all of it");
            assert!(service::matches(&mut at, &piece), "other bytes came back");
        }
        let now = host.world_now();
        took.lock().push((sent.since(Timestamp::ZERO), now.since(sent)));
        host.sleep(EVERY).await;
    }
}

/// The 99th percentile of the messages that lost no packet of their own: the others are as many as packets are lost on
/// the way there and back, and take a retransmission longer than anybody else.
pub fn undisturbed(latencies: &[(Duration, Duration)], loss: f64) -> Duration {
    let mut took: Vec<Duration> = latencies.iter().map(|(_, took)| *took).collect();
    took.sort_unstable();
    let own = 1.0 - (1.0 - loss) * (1.0 - loss);
    let place = took.len() as f64 * (1.0 - own) * 0.99;
    took.get(place as usize).copied().unwrap_or_default()
}

fn compare(setup: &Setup, scheme: &str, judge: impl FnOnce(Duration, Duration) -> Check) -> Outcome {
    let (world, sound) = echoes(setup, scheme, 0.0);
    let sound = match sound {
        Ok(latencies) => undisturbed(&latencies, 0.0),
        Err(failure) => return Outcome::of(world, Err(failure)),
    };
    let (world, lossy) = echoes(setup, scheme, LOSS);
    let result = lossy.and_then(|latencies| {
        judge(sound, undisturbed(&latencies, LOSS))
            .map_err(|words| stage::failure(&world, FailureKind::Invariant, "effect", words))
    });
    Outcome::of(world, result)
}

fn lanes(setup: &Setup) -> Outcome {
    lanes_over(setup, "quic")
}

pub(super) fn lanes_over(setup: &Setup, scheme: &str) -> Outcome {
    compare(setup, scheme, |sound, lossy| {
        // 1.3 is what it should be; this is what holds.
        let most = sound.mul_f64(1.6);
        ensure!(lossy <= most, "{lossy:?} with loss, {sound:?} without");
        Ok(())
    })
}

fn contrast(setup: &Setup) -> Outcome {
    compare(setup, "tls", |sound, lossy| {
        let least = sound.mul_f64(1.5);
        ensure!(lossy >= least, "{lossy:?} with loss, {sound:?} without");
        Ok(())
    })
}
