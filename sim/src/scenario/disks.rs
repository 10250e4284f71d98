//! Disks that tear, lie and fill up, under a service that keeps what it has answered.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_runtime::{CallError, Client, Code, Failure, Files, IncomingRequest, Server};

use super::stage::{Check, ensure, failure, ms, world};
use super::work::body;
use super::{Outcome, Scenario, Setup, scenario};
use crate::disk::DiskConfig;
use crate::failure::FailureKind;
use crate::fault::Fault;
use crate::host::Host;
use crate::net::LinkConfig;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    scenario("torn-write", "crashes in the middle of writing", torn_write),
    scenario(
        "lost-fsync",
        "a disk that says it has what it has not",
        lost_fsync,
    ),
    scenario("no-space", "a disk that is full for a while", no_space),
    scenario("rename-race", "two who want one name", rename_race),
];

const LOG: &str = "/data/log";
const NUMBERS: u64 = 100;
/// Bytes of a record: a number, and a sum of it that a torn one does not have.
const RECORD: usize = 700;
/// What the service says when it could not write.
const FULL: Code = Code::ResourceExhausted;

/// What was seen from outside.
#[derive(Default)]
struct Seen {
    /// Numbers that the client was told are kept.
    answered: BTreeSet<u64>,
    /// Of those, the ones that a restarted service had not.
    missing: BTreeSet<u64>,
    /// What the log held at last.
    kept: Vec<u64>,
    failures: u32,
    won: Vec<u64>,
    done: bool,
}

type Shared = Arc<Mutex<Seen>>;

// ---- a service that keeps numbers in a log ----

fn record(number: u64) -> Vec<u8> {
    (0..RECORD as u64 / 8)
        .flat_map(|at| (number ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes())
        .collect()
}

struct Log {
    files: Arc<dyn Files>,
    kept: Vec<u64>,
    /// The last write failed: what it left behind is to be cut off.
    spoiled: bool,
}

impl Log {
    /// Reads what is whole, and cuts off what is not.
    async fn open(files: Arc<dyn Files>) -> io::Result<Log> {
        files.create_dir("/data".into()).await?;
        files.sync_dir("/".into()).await?;
        let mut log = Log {
            files,
            kept: Vec::new(),
            spoiled: false,
        };
        let data = match log.files.read(LOG.into(), 0, usize::MAX).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return log.rewrite().await.map(|()| log);
            }
            other => other?,
        };
        for piece in data.chunks(record(0).len()) {
            let number = piece
                .first_chunk::<8>()
                .map_or(u64::MAX, |id| u64::from_be_bytes(*id));
            if piece != record(number) {
                break;
            }
            log.kept.push(number);
        }
        log.rewrite().await.map(|()| log)
    }

    async fn rewrite(&mut self) -> io::Result<()> {
        let temp = PathBuf::from("/data/log.tmp");
        match self.files.remove(temp.clone()).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let all: Vec<u8> = self.kept.iter().flat_map(|number| record(*number)).collect();
        self.files.create(temp.clone(), all.into()).await?;
        self.files.sync(temp.clone()).await?;
        self.files.rename(temp, LOG.into()).await?;
        self.files.sync_dir("/data".into()).await?;
        self.spoiled = false;
        Ok(())
    }

    /// Has a number kept, once.
    async fn add(&mut self, number: u64) -> io::Result<()> {
        if self.spoiled {
            self.rewrite().await?;
        }
        if self.kept.contains(&number) {
            return Ok(());
        }
        self.spoiled = true;
        self.files.append(LOG.into(), record(number).into()).await?;
        self.files.sync(LOG.into()).await?;
        self.spoiled = false;
        self.kept.push(number);
        Ok(())
    }
}

async fn keep(request: IncomingRequest, log: &mut Log, seen: &Shared) {
    let number = request
        .payload()
        .first_chunk::<8>()
        .map_or(0, |id| u64::from_be_bytes(*id));
    match log.add(number).await {
        Ok(()) => request.respond("kept"),
        Err(error) => request.fail(Failure::new(FULL, error.to_string())),
    }
    seen.lock().kept.clone_from(&log.kept);
}

async fn keeper(host: Host, seen: Shared) {
    let server = Server::builder()
        .listen("tcp://server:4433")
        .expect("a good address");
    let Ok(server) = server.bind(host.runtime()).await else {
        return;
    };
    let mut log = loop {
        match Log::open(host.runtime().files()).await {
            Ok(log) => break log,
            Err(_) => host.sleep(ms(20)).await,
        }
    };
    {
        let mut seen = seen.lock();
        let missing: Vec<u64> = seen
            .answered
            .iter()
            .filter(|number| !log.kept.contains(number))
            .copied()
            .collect();
        seen.missing.extend(missing);
    }
    // One client, one session at a time: its requests are kept one after another.
    while let Some(session) = server.accept().await {
        while let Ok(request) = session.accept_request().await {
            keep(request, &mut log, &seen).await;
        }
    }
}

/// Has every number kept: asks again, for the same number, until it is told so.
async fn ask(host: Host, seen: Shared) {
    let builder = Client::builder().keep_trying(true);
    let builder = builder.endpoint("tcp://server:4433").expect("a good address");
    let client = builder.build(host.runtime()).expect("it has an endpoint");
    for number in 0..NUMBERS {
        loop {
            let Ok(session) = client.session().await else {
                continue;
            };
            match session.request("keep", body(number, 8)).await {
                Ok(_) => break,
                Err(CallError::Failed(_)) => {
                    seen.lock().failures += 1;
                    host.sleep(ms(50)).await;
                }
                Err(_) => host.sleep(ms(5)).await,
            }
        }
        seen.lock().answered.insert(number);
        host.sleep(ms(5)).await;
    }
    seen.lock().done = true;
}

// ---- the scenarios ----

fn build(setup: &Setup, config: DiskConfig) -> (World, Host, Shared) {
    let mut world = world(setup);
    world.network("lan", LinkConfig::with_delay(ms(2)));
    let seen = Shared::default();
    let told = seen.clone();
    let server = world.boot("server", &["lan"], move |host| keeper(host, told.clone()));
    set_disk(&mut world, config);
    let client = world.host("client", &["lan"]);
    world.spawn(&client, ask(client.clone(), seen.clone()));
    (world, server, seen)
}

fn set_disk(world: &mut World, config: DiskConfig) {
    let host = "server".to_owned();
    world.apply(&Fault::Disk { host, config });
}

/// Syncs take long, so that crashes fall into them.
fn slow_syncs() -> DiskConfig {
    DiskConfig {
        sync_latency: ms(20),
        ..DiskConfig::default()
    }
}

/// Crashes the server again and again until `enough`, three times at least.
fn crash_until(
    world: &mut World,
    server: &Host,
    enough: impl Fn(&World, &Host) -> bool + Send + Sync + 'static,
) {
    let enough = Arc::new(enough);
    for round in 0..60_u32 {
        let (server, enough) = (server.clone(), enough.clone());
        // Odd to the rhythm of the requests.
        let at = ms(300) + round * Duration::from_micros(383_771);
        world.at(at, move |world| {
            if round < 3 || !enough(world, &server) {
                let host = "server".to_owned();
                world.apply(&Fault::Crash { host: host.clone() });
                let up = at + ms(30);
                world.fault_at(up, Fault::Restart { host });
            }
        });
    }
}

fn finish(mut world: World, seen: &Shared, effect: impl FnOnce(&mut World, &Seen) -> Check) -> Outcome {
    let watched = seen.clone();
    let result = world
        .run_while_not(Duration::from_secs(120), move |_| watched.lock().done)
        .and_then(|done| {
            if !done {
                let words = format!("{} of {NUMBERS} kept", seen.lock().answered.len());
                return Err(failure(&world, FailureKind::Liveness, "service", words));
            }
            let held = effect(&mut world, &seen.lock());
            held.map_err(|words| failure(&world, FailureKind::Invariant, "effect", words))
        });
    Outcome::of(world, result)
}

fn each_once(seen: &Seen) -> Check {
    let kept: BTreeSet<u64> = seen.kept.iter().copied().collect();
    ensure!(kept.len() == seen.kept.len(), "a number is kept twice");
    let gone: Vec<&u64> = seen
        .answered
        .difference(&kept)
        .filter(|number| !seen.missing.contains(number))
        .collect();
    ensure!(gone.is_empty(), "answered and not kept: {gone:?}");
    Ok(())
}

fn torn_write(setup: &Setup) -> Outcome {
    let (mut world, server, seen) = build(setup, slow_syncs());
    crash_until(&mut world, &server, |world, server| {
        world.disk_stats(server).torn > 0
    });
    finish(world, &seen, |world, seen| {
        let stats = world.disk_stats(&server);
        ensure!(stats.torn > 0, "no crash took anything: {stats:?}");
        ensure!(
            seen.missing.is_empty(),
            "answered, and lost by a crash: {:?}",
            seen.missing
        );
        each_once(seen)
    })
}

fn lost_fsync(setup: &Setup) -> Outcome {
    let config = DiskConfig {
        lost_syncs: 0.7,
        ..slow_syncs()
    };
    let (mut world, server, seen) = build(setup, config);
    let watched = seen.clone();
    crash_until(&mut world, &server, move |_, _| {
        !watched.lock().missing.is_empty()
    });
    finish(world, &seen, |world, seen| {
        let stats = world.disk_stats(&server);
        ensure!(stats.lost_syncs > 0, "every sync was honest: {stats:?}");
        ensure!(!seen.missing.is_empty(), "a disk that lies lost nothing");
        each_once(seen)
    })
}

fn no_space(setup: &Setup) -> Outcome {
    let full = DiskConfig {
        quota: 30_000,
        ..DiskConfig::default()
    };
    let (mut world, server, seen) = build(setup, full);
    world.at(ms(3000), |world| set_disk(world, DiskConfig::default()));
    world.fault_at(
        ms(3300),
        Fault::Crash {
            host: "server".into(),
        },
    );
    world.fault_at(
        ms(3400),
        Fault::Restart {
            host: "server".into(),
        },
    );
    finish(world, &seen, |world, seen| {
        let stats = world.disk_stats(&server);
        ensure!(
            stats.refused > 0 && seen.failures > 0,
            "it was never full: {stats:?}"
        );
        ensure!(seen.missing.is_empty(), "answered, and lost: {:?}", seen.missing);
        each_once(seen)
    })
}

/// Answers whether a name was still to be had. Requests run side by side.
async fn registrar(host: Host) {
    let files = host.runtime().files();
    let server = Server::builder()
        .listen("tcp://server:4433")
        .expect("a good address");
    let (Ok(server), Ok(())) = (
        server.bind(host.runtime()).await,
        files.create_dir("/names".into()).await,
    ) else {
        return;
    };
    let mut temps = 0;
    while let Some(session) = server.accept().await {
        while let Ok(request) = session.accept_request().await {
            temps += 1;
            let temp = PathBuf::from(format!("/names/{temps}.tmp"));
            let name = PathBuf::from(format!("/names/{}", request.method()));
            let files = files.clone();
            host.spawn(async move {
                let made = files.create(temp.clone(), request.payload().clone()).await;
                match made.and(files.rename_new(temp.clone(), name).await) {
                    Ok(()) => request.respond("yours"),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        let _ = files.remove(temp).await;
                        request.respond("taken");
                    }
                    Err(error) => request.fail(Failure::new(FULL, error.to_string())),
                }
            });
        }
    }
}

fn rename_race(setup: &Setup) -> Outcome {
    let mut world = world(setup);
    world.network("lan", LinkConfig::with_delay(ms(2)).jitter(ms(1)));
    world.boot("server", &["lan"], registrar);
    let seen = Shared::default();
    let ended = Arc::new(Mutex::new(0));
    for name in ["one", "two"] {
        let host = world.host(name, &["lan"]);
        let (own, told, ended) = (host.clone(), seen.clone(), ended.clone());
        world.spawn(&host, async move {
            let builder = Client::builder().keep_trying(true);
            let builder = builder.endpoint("tcp://server:4433").expect("a good address");
            let Ok(session) = builder.connect(own.runtime()).await else {
                return;
            };
            for number in 0..NUMBERS {
                // Both ask at the same moments.
                let round = ms(100) * (number as u32 + 1);
                own.sleep(round.saturating_sub(Duration::from_nanos(own.world_now().as_nanos())))
                    .await;
                match session.request(&number.to_string(), name).await {
                    Ok(answer) if answer == "yours" => told.lock().won.push(number),
                    Ok(_) => told.lock().failures += 1,
                    Err(_) => return,
                }
            }
            let mut ended = ended.lock();
            *ended += 1;
            told.lock().done = *ended == 2;
        });
    }
    finish(world, &seen, |_, seen| {
        let all: BTreeSet<u64> = seen.won.iter().copied().collect();
        ensure!(
            all.len() as u64 == NUMBERS,
            "{} of {NUMBERS} names found an owner",
            all.len()
        );
        ensure!(seen.won.len() == all.len(), "a name has two owners");
        ensure!(
            u64::from(seen.failures) == NUMBERS,
            "{} were told that it is taken",
            seen.failures
        );
        Ok(())
    })
}
