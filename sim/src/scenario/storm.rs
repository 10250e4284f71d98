//! Ten thousand clients of one server, when all of them lose it and want it back.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{
    Around, BudgetPolicy, Caller, CallerStats, Client, Reply, RetryPolicy, Router, Server,
};

use super::stage::{Check, ensure, failure, ms, world};
use super::{Outcome, Scenario, Setup, scenario};
use crate::failure::{Failure, FailureKind};
use crate::fault::Fault;
use crate::host::Host;
use crate::net::LinkConfig;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[scenario(
    "retry-storm",
    "ten thousand clients whose server cannot be reached for thirty seconds",
    storm,
)];

const HOSTS: usize = 100;
const CLIENTS: usize = 10_000;
/// They come one after another for so long.
const ARRIVALS: Duration = Duration::from_secs(10);
const OUTAGE_AT: Duration = Duration::from_secs(20);
const OUTAGE: Duration = Duration::from_secs(30);
/// By then all are to be back.
const RECOVERY: Duration = Duration::from_secs(30);
const BIN: Duration = Duration::from_millis(100);
/// Between two calls of a client.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));
const DEADLINE: Duration = Duration::from_secs(5);
const ATTEMPT: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Book {
    callers: Vec<Caller>,
    /// When each client was answered last.
    answered: Vec<Option<Timestamp>>,
    /// Calls that were begun.
    calls: u64,
    /// Connections begun, by [`BIN`]s of the world's time.
    connects: Vec<u32>,
}

fn bin(at: Timestamp) -> usize {
    (at.since(Timestamp::ZERO).as_nanos() / BIN.as_nanos()) as usize
}

impl Book {
    fn connect(&mut self, now: Timestamp) {
        let bin = bin(now);
        if self.connects.len() <= bin {
            self.connects.resize(bin + 1, 0);
        }
        self.connects[bin] += 1;
    }

    /// How many clients were answered since.
    fn served_since(&self, at: Timestamp) -> usize {
        self.answered.iter().flatten().filter(|last| **last >= at).count()
    }

    /// Attempts of calls so far.
    fn attempts(&self) -> u64 {
        self.callers
            .iter()
            .map(Caller::stats)
            .map(|stats: CallerStats| stats.attempts)
            .sum()
    }
}

async fn serve(host: Host) {
    let builder = Server::builder().listen("tcp://server:4433");
    let server = builder.expect("a good address").bind(host.runtime()).await;
    let server = server.expect("the port is free");
    let router = Router::builder().unary("echo", |_, payload| async move { Ok(Reply::new(payload)) });
    let router = router.build();
    while let Some(session) = server.accept().await {
        let router = router.clone();
        host.spawn(async move { drop(router.serve(session).await) });
    }
}

/// Calls again and again, each call with retries as one of many clients makes them.
async fn client(host: Host, number: usize, book: Arc<Mutex<Book>>) {
    let mut rng = host.rng();
    host.sleep(rng.duration(Duration::ZERO, ARRIVALS)).await;
    let counted = book.clone();
    let runtime = Around::new(host.runtime()).on_connect(move |inner, address| {
        counted.lock().connect(inner.now());
        inner.connect(address)
    });
    let builder = Client::builder()
        .endpoint("tcp://server:4433")
        .expect("a good address");
    let client = builder
        .keep_trying(true)
        .build(Arc::new(runtime))
        .expect("it has an endpoint");
    let policy = RetryPolicy {
        attempt_timeout: Some(ATTEMPT),
        ..RetryPolicy::default()
    };
    let caller = Caller::builder(client)
        .retry(policy)
        .budget(BudgetPolicy::strict());
    let caller = caller.build(host.runtime());
    book.lock().callers.push(caller.clone());
    loop {
        book.lock().calls += 1;
        let call = caller.call("echo").repeatable().timeout(DEADLINE);
        if call.unary("hello").await.is_ok() {
            book.lock().answered[number] = Some(host.world_now());
        }
        host.sleep(rng.duration(PAUSE.0, PAUSE.1)).await;
    }
}

fn said(world: &World, held: Check) -> Result<(), Failure> {
    held.map_err(|words| failure(world, FailureKind::Invariant, "storm", words))
}

/// What must hold of the calls and the connections from the outage on.
fn check(world: &World, book: &Book, before: (u64, u64), end: Timestamp) -> Check {
    let (calls, attempts) = (book.calls - before.0, book.attempts() - before.1);
    let recovery = book.connects.get(bin(end)..=bin(world.now())).unwrap_or_default();
    let total: u32 = recovery.iter().sum();
    let mean = f64::from(total) / recovery.len().max(1) as f64;
    let worst = recovery.iter().copied().max().unwrap_or_default();
    let told = format!(
        "{calls} calls in {attempts} attempts; all back after {:?}; {total} connections begun meanwhile, {mean:.1} in \
         {BIN:?}, {worst} at most: {recovery:?}",
        world.now().since(end)
    );
    world.note("storm", &told);
    let retries = attempts.saturating_sub(calls);
    ensure!(retries * 5 <= calls, "{retries} retries are too many: {told}");
    ensure!(
        f64::from(worst) <= 2.0 * mean,
        "they came back all at once: {told}"
    );
    Ok(())
}

fn play(world: &mut World, book: &Mutex<Book>) -> Result<(), Failure> {
    let outage = Timestamp::ZERO + OUTAGE_AT;
    world.run_until(outage)?;
    let before = {
        let book = book.lock();
        let served = book.served_since(Timestamp::ZERO);
        let held = (served == CLIENTS).then_some((book.calls, book.attempts()));
        held.ok_or_else(|| {
            failure(
                world,
                FailureKind::Liveness,
                "storm",
                format!("{served} clients were served"),
            )
        })?
    };
    let end = outage + OUTAGE;
    world.run_until(end)?;
    let late = book.lock().served_since(outage + BIN);
    let words = format!("{late} clients were served while nothing could be reached");
    said(world, (late == 0).then_some(()).ok_or(words))?;
    while book.lock().served_since(end) < CLIENTS {
        if world.now() > end + RECOVERY {
            let words = format!("{} clients are back", book.lock().served_since(end));
            return Err(failure(world, FailureKind::Liveness, "storm", words));
        }
        world.run_for(BIN)?;
    }
    said(world, check(world, &book.lock(), before, end))
}

fn storm(setup: &Setup) -> Outcome {
    let mut world = world(setup);
    world.network("wan", LinkConfig::with_delay(ms(20)));
    world.boot("server", &["wan"], serve);
    let book = Arc::new(Mutex::new(Book {
        answered: vec![None; CLIENTS],
        ..Book::default()
    }));
    for index in 0..HOSTS {
        let host = world.host(&format!("client{index}"), &["wan"]);
        for number in (0..CLIENTS).skip(index).step_by(HOSTS) {
            world.spawn(&host, client(host.clone(), number, book.clone()));
        }
    }
    for (at, up) in [(OUTAGE_AT, false), (OUTAGE_AT + OUTAGE, true)] {
        let (host, network) = ("server".into(), "wan".into());
        world.fault_at(at, Fault::Interface { host, network, up });
    }
    let result = play(&mut world, &book);
    // The world holds the tasks, and the book what lives in them: neither is to hold the other.
    book.lock().callers.clear();
    Outcome::of(world, result)
}
