//! Servers that are restarted as planned, and sessions that live elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{
    CallError, Class, Client, RedirectRule, RegistryConfig, Server, Session, SessionEvent,
};

use super::service::{self, PORT};
use super::stage::{Check, Plan, Stage, ensure, failure, moment, ms, world};
use super::{Outcome, Scenario, Setup, scenario, work};
use crate::failure::{Failure, FailureKind};
use crate::fault::Fault;
use crate::host::Host;
use crate::net::LinkConfig;
use crate::relay::RelayConfig;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "planned-restart",
        "a server hands over to another, is restarted, and takes over again",
        planned,
    ),
    scenario(
        "moved-session",
        "connections are led to a server that knows where the session lives",
        moved,
    ),
];

/// Tasks of the client that make requests.
const WORKERS: u64 = 6;
/// Bytes of the stream that is open all along.
const STREAM: usize = 400_000;

/// The application's own rule: these hosts, and no other.
fn only(hosts: &'static [&'static str]) -> RedirectRule {
    RedirectRule::Ask(Arc::new(move |wish| {
        let to = wish.to.to_string();
        hosts.iter().any(|host| to == format!("tcp://{host}:{PORT}"))
    }))
}

/// What is known of a run.
#[derive(Default)]
struct Seen {
    /// Who executed each request.
    executed: BTreeMap<u64, Vec<&'static str>>,
    answered: BTreeMap<u64, (Timestamp, Duration)>,
    /// Requests that were not sent, and were made again in the next session.
    again: u32,
    streamed: usize,
    /// How far it has come: which of the handovers.
    handovers: u32,
    drained: Option<Timestamp>,
    stop: bool,
    workers: u64,
    wrong: Vec<String>,
}

type Told = Arc<Mutex<Seen>>;

/// A process: it serves until it is told to hand over to `next`, and ends when it has finished what was open.
async fn process(host: Host, name: &'static str, next: &'static str, turn: u32, told: Told) {
    let server = Server::builder()
        .listen(format!("tcp://{name}:{PORT}"))
        .expect("a good address")
        .bind(host.runtime())
        .await
        .expect("the port is free");
    let server = Arc::new(server);
    let (accepting, own, seen) = (server.clone(), host.clone(), told.clone());
    host.spawn(async move {
        while let Some(session) = accepting.accept().await {
            own.spawn(answer(own.clone(), session.clone(), name, seen.clone()));
            own.spawn(swallow(own.clone(), session, seen.clone()));
        }
    });
    // A process that was started again serves on.
    if told.lock().handovers > turn {
        return;
    }
    while told.lock().handovers <= turn {
        host.sleep(ms(1)).await;
    }
    server.drain(&format!("tcp://{next}:{PORT}"));
    server.drained().await;
    server.stop();
    told.lock().drained = Some(host.world_now());
}

async fn answer(host: Host, session: Session, name: &'static str, told: Told) {
    while let Ok(request) = session.accept_request().await {
        let body = request.payload().clone();
        let Some(number) = body.first_chunk::<8>().map(|number| u64::from_be_bytes(*number)) else {
            return told.lock().wrong.push("a request without its number".into());
        };
        told.lock().executed.entry(number).or_default().push(name);
        let own = host.clone();
        host.spawn(async move {
            own.sleep(ms(number * 37 % 300)).await;
            request.respond(body);
        });
    }
}

async fn swallow(host: Host, session: Session, told: Told) {
    while let Ok(mut stream) = session.accept_uni(Class::BULK).await {
        while let Ok(Some(piece)) = stream.read_chunk(8 << 10).await {
            told.lock().streamed += piece.len();
            host.sleep(ms(1)).await;
        }
    }
}

/// Makes requests, each in the session that takes work at the moment.
async fn requests(host: Host, client: Arc<Client>, worker: u64, told: Told) {
    let mut number = worker;
    while !told.lock().stop {
        let asked = host.world_now();
        loop {
            let session = match client.session().await {
                Ok(session) => session,
                Err(error) => return told.lock().wrong.push(format!("no session: {error}")),
            };
            match session.request("work", work::body(number, 200)).await {
                Ok(_) => break,
                Err(CallError::NotSent(_)) => told.lock().again += 1,
                Err(error) => return told.lock().wrong.push(format!("request {number}: {error}")),
            }
        }
        let took = host.world_now().since(asked);
        told.lock().answered.insert(number, (asked, took));
        number += WORKERS;
        host.sleep(ms(5 + worker * 3)).await;
    }
    told.lock().workers += 1;
}

/// A long stream that is under way when the first server is drained.
async fn long_stream(client: Arc<Client>, told: Told) {
    let Ok(session) = client.session().await else {
        return;
    };
    let Ok(mut stream) = session.open_uni(Class::BULK).await else {
        return;
    };
    let written = stream.write_all(&vec![7; STREAM]).await;
    let done = written.and_then(|()| stream.finish());
    if done.is_err() || stream.acknowledged().await.is_err() {
        told.lock().wrong.push("the stream was not finished".into());
    }
}

/// One handover: the server at `host` is drained, its host crashes once it has finished, and nobody misses it.
fn hand_over(world: &mut World, host: &str, told: &Told) -> Result<(), Failure> {
    {
        let mut told = told.lock();
        told.handovers += 1;
        told.drained = None;
    }
    let seen = told.clone();
    let over = move |_: &World| {
        let seen = seen.lock();
        seen.drained.is_some() || !seen.wrong.is_empty()
    };
    if !world.run_while_not(Duration::from_secs(20), over)? {
        let words = "it is not drained after 20 s";
        return Err(failure(world, FailureKind::Liveness, host, words));
    }
    // The process is gone: whatever it still held would be missed.
    world.apply(&Fault::Crash {
        host: host.to_owned(),
    });
    world.run_for(ms(800))
}

fn planned(setup: &Setup) -> Outcome {
    let mut world = world(setup);
    let networks = [("wifi", 5), ("lte", 20)];
    for (name, delay) in networks {
        world.network(name, LinkConfig::with_delay(ms(delay)));
    }
    let told = Told::default();
    let names = networks.map(|(name, _)| name);
    for (turn, name, next) in [(0, "server", "spare"), (1, "spare", "server")] {
        let told = told.clone();
        world.boot(name, &names, move |host| {
            process(host, name, next, turn, told.clone())
        });
    }
    let client = world.host("client", &names);
    let mut builder = Client::builder()
        .redirects(only(&["spare", "server"]))
        .keep_trying(true);
    for name in names {
        builder = builder
            .endpoint(format!("tcp://server.{name}:{PORT}"))
            .expect("a good address");
    }
    let connector = Arc::new(builder.build(client.runtime()).expect("it has endpoints"));
    for worker in 0..WORKERS {
        let task = requests(client.clone(), connector.clone(), worker, told.clone());
        world.spawn(&client, task);
    }
    world.spawn(&client, long_stream(connector.clone(), told.clone()));
    // A connection is cut while the first server is being drained.
    let cut = ms(1000 + setup.seed * 17 % 200);
    let (host, network) = ("client".to_owned(), "wifi".to_owned());
    world.fault_at(cut, Fault::Reset { host, network });
    let result = play(&mut world, &told);
    drop(connector);
    Outcome::of(world, result)
}

fn play(world: &mut World, told: &Told) -> Result<(), Failure> {
    world.run_for(ms(1000))?;
    hand_over(world, "server", told)?;
    world.apply(&Fault::Restart {
        host: "server".to_owned(),
    });
    world.run_for(ms(500))?;
    hand_over(world, "spare", told)?;
    told.lock().stop = true;
    let seen = told.clone();
    let over = move |_: &World| {
        let seen = seen.lock();
        seen.workers == WORKERS || !seen.wrong.is_empty()
    };
    if !world.run_while_not(Duration::from_secs(10), over)? {
        let words = "requests are not answered";
        return Err(failure(world, FailureKind::Liveness, "client", words));
    }
    let held = judge(&told.lock());
    held.map_err(|words| failure(world, FailureKind::Safety, "restart", words))
}

/// No request was lost, none was executed twice, and nobody waited for long.
fn judge(seen: &Seen) -> Check {
    if let Some(words) = seen.wrong.first() {
        return Err(words.clone());
    }
    ensure!(
        seen.streamed == STREAM,
        "{} bytes of the stream came",
        seen.streamed
    );
    ensure!(seen.answered.len() > 100, "{} requests", seen.answered.len());
    for number in seen.answered.keys() {
        let times = seen.executed.get(number).map_or(0, Vec::len);
        ensure!(times == 1, "request {number} was executed {times} times");
    }
    ensure!(
        seen.executed.len() == seen.answered.len(),
        "{} executed, {} answered",
        seen.executed.len(),
        seen.answered.len()
    );
    // Each takes up to 300 ms.
    let slowest = seen.answered.values().max_by_key(|(_, took)| *took);
    let (asked, took) = slowest.copied().unwrap_or_default();
    ensure!(took < ms(800), "a request of {asked:?} took {took:?}");
    let last = seen.executed.values().last().and_then(|by| by.first()).copied();
    ensure!(last == Some("server"), "the last was executed by {last:?}");
    let spare = seen.executed.values().filter(|by| by.contains(&"spare")).count();
    ensure!(spare > 20, "{spare} were executed by the spare one");
    Ok(())
}

/// A server without sessions of its own, that knows where they are.
async fn signpost(host: Host) {
    let registry = RegistryConfig {
        owner: Some(Arc::new(|_, _| Some(format!("tcp://server:{PORT}")))),
        ..RegistryConfig::default()
    };
    let server = Server::builder()
        .listen(format!("tcp://signpost:{PORT}"))
        .expect("a good address")
        .registry(registry)
        .bind(host.runtime())
        .await
        .expect("the port is free");
    while let Some(session) = server.accept().await {
        drop(session);
    }
}

fn moved(setup: &Setup) -> Outcome {
    let plan = Plan {
        redirects: only(&["server"]),
        ..Plan::default()
    };
    let mut stage = Stage::two_with(setup, plan);
    let to = ("server.wifi", service::PORT);
    stage.world.boot("signpost", &["wifi"], signpost);
    stage
        .world
        .relay("front", &["wifi"], PORT, to, RelayConfig::default());
    stage.endpoints(&["front:4433"]);
    let at = stage.at;
    let config = RelayConfig {
        divert: Some(("signpost".to_owned(), PORT)),
        ..RelayConfig::default()
    };
    let host = "front".to_owned();
    stage.fault(at, Fault::Relay { host, config });
    let (host, network) = ("client".to_owned(), "wifi".to_owned());
    stage.fault(at, Fault::Reset { host, network });
    stage.run(|_, report| {
        let (after, _) = report
            .switched(at, &format!("tcp://server:{PORT}"))
            .ok_or("the session did not go where it lives")?;
        ensure!(after < ms(500), "there after {after:?}");
        let fronts = report.events.iter().filter(|(when, event)| {
            *when > moment(at) && matches!(event, SessionEvent::PathUp { path } if path.contains("front"))
        });
        ensure!(fronts.count() == 0, "a path through the front came up");
        Ok(())
    })
}
