//! Fifty streams of one session on a link that loses packets: whom a lost packet delays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{Class, Client, Config, Session};

use super::service;
use super::stage::{self, Check, ensure, ms};
use super::{Outcome, Scenario, Setup, scenario};
use crate::failure::{Failure, FailureKind};
use crate::host::Host;
use crate::net::LinkConfig;
use crate::trace::What;
use crate::world::{Join, World};

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "quic-lanes",
        "fifty streams over QUIC: a lost packet delays its own",
        |setup| few_are_delayed(setup, "quic"),
    ),
    scenario("wt-lanes", "the same over WebTransport", |setup| {
        few_are_delayed(setup, "wt")
    }),
    scenario(
        "quic-contrast",
        "the same over TCP, where a lost packet delays them all",
        contrast,
    ),
];

const STREAMS: usize = 50;
const MESSAGES: usize = 50;
/// Seldom enough that the congestion window, which loss makes small, is no part of what is measured.
const EVERY: Duration = ms(500);
const MESSAGE: u64 = 100;
const ONE_WAY: Duration = ms(20);
/// Of all packets in each direction.
const LOSS: f64 = 0.02;
/// A message that went to the server and back.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// When it was sent.
    pub sent: Duration,
    /// How long it took.
    pub took: Duration,
    /// Whether a packet was lost that left when this message or its echo did, and so may have held it.
    pub lost: bool,
}

/// Fifty streams of one session, on each of which one message after another of 100 bytes goes to the server and back,
/// over a link of 20 ms one way that loses a share of all packets.
///
/// # Errors
/// When they do not all come back.
pub fn echoes(scheme: &str, seed: u64, loss: f64) -> Result<Vec<Echo>, Failure> {
    let setup = Setup {
        seed,
        ..Setup::default()
    };
    run(&setup, scheme, loss).1
}

fn run(setup: &Setup, scheme: &str, loss: f64) -> (World, Result<Vec<Echo>, Failure>) {
    let mut world = stage::world(setup);
    world.keep_packets();
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
        let mut echoes = std::mem::take(&mut *took.lock());
        note_losses(&world, &mut echoes);
        Ok(echoes)
    });
    (world, result)
}

async fn one_stream(host: Host, session: Session, number: usize, took: Arc<Mutex<Vec<Echo>>>) {
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
        took.lock().push(Echo {
            sent: sent.since(Timestamp::ZERO),
            took: now.since(sent),
            lost: false,
        });
        host.sleep(EVERY).await;
    }
}

/// Tells which messages may have been in a packet that was lost. A program takes no time here: a message leaves when it
/// is written, and its echo when it arrives.
fn note_losses(world: &World, echoes: &mut [Echo]) {
    let (mut there, mut back) = (BTreeSet::new(), BTreeSet::new());
    for record in world.records() {
        if let What::Packet {
            from,
            dropped: Some(_),
            ..
        } = record.what
        {
            let lost = if from == "client" { &mut there } else { &mut back };
            lost.insert(record.at);
        }
    }
    let lost =
        |lost: &BTreeSet<u64>, at: Duration| u64::try_from(at.as_nanos()).is_ok_and(|at| lost.contains(&at));
    for echo in echoes {
        echo.lost = lost(&there, echo.sent) || lost(&back, echo.sent + ONE_WAY);
    }
}

/// The 99th percentile of the messages that lost no packet of their own.
pub fn undisturbed(echoes: &[Echo]) -> Duration {
    let others = echoes.iter().filter(|echo| !echo.lost);
    let mut took: Vec<Duration> = others.map(|echo| echo.took).collect();
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}

fn compare(setup: &Setup, scheme: &str, judge: impl FnOnce(Duration, Duration) -> Check) -> Outcome {
    let (world, sound) = run(setup, scheme, 0.0);
    let sound = match sound {
        Ok(echoes) => undisturbed(&echoes),
        Err(failure) => return Outcome::of(world, Err(failure)),
    };
    let (world, lossy) = run(setup, scheme, LOSS);
    let result = lossy.and_then(|echoes| {
        let lost = echoes.iter().filter(|echo| echo.lost).count();
        let others = undisturbed(&echoes);
        let words = format!(
            "{others:?}, without loss {sound:?}; {lost} of {} lost a packet",
            echoes.len()
        );
        world.note("streams", &words);
        judge(sound, others).map_err(|words| stage::failure(&world, FailureKind::Invariant, "effect", words))
    });
    Outcome::of(world, result)
}

fn few_are_delayed(setup: &Setup, scheme: &str) -> Outcome {
    compare(setup, scheme, |sound, lossy| {
        ensure!(
            lossy <= sound.mul_f64(1.3),
            "{lossy:?} with loss, {sound:?} without"
        );
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
