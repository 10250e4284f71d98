//! A pool of sessions through a day of work and faults.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{
    Address, Client, Config, Pool, PoolConfig, PoolError, PoolStats, Pooled, Server, Sessions, ToAddress,
};

use super::stage::{Check, ensure, failure, ms, world};
use super::{Outcome, Scenario, Setup, scenario};
use crate::failure::{Failure, FailureKind};
use crate::fault::Fault;
use crate::host::Host;
use crate::net::LinkConfig;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[scenario(
    "pool",
    "a pool of sessions through a day of work, bursts, crashes and cut networks",
    pool,
)];

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SERVERS: [&str; 2] = ["red", "blue"];
const WORKERS: usize = 8;
/// Between two pieces of a worker's work, at most.
const REST: Duration = Duration::from_secs(15);
/// How long anybody waits for a session.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many want a session at once, every hour, and how long each holds it.
const BURST: usize = 40;
const BURST_HOLD: Duration = Duration::from_millis(200);

fn limits() -> PoolConfig {
    PoolConfig {
        min_idle: 1,
        max_per_target: 4,
        max_total: 6,
        ..PoolConfig::default()
    }
}

/// Sessions without paths are given up soon.
fn impatient() -> Config {
    let mut config = Config::default();
    config.params.resume_timeout = 10 * SECOND;
    config
}

/// What came of it all.
#[derive(Default)]
struct Book {
    served: u64,
    left: u64,
    timed_out: u64,
    unanswered: u64,
    longest_wait: Duration,
    wrong: Vec<String>,
    /// Of the burst under way: for each arrival, when it was served.
    burst: Vec<Option<Timestamp>>,
}

async fn serve(host: Host, name: &'static str) {
    let builder = Server::builder().listen(format!("tcp://{name}:4433"));
    let server = builder.expect("a good address").config(impatient());
    let server = server.bind(host.runtime()).await.expect("the port is free");
    while let Some(session) = server.accept().await {
        host.spawn(async move {
            while let Ok(mut request) = session.accept_request().await {
                let payload = request.take_payload();
                request.respond(payload);
            }
        });
    }
}

/// What comes first: the future, or the end of the time.
async fn within<T>(host: &Host, time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut end) = (pin!(future), pin!(host.sleep(time)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}

fn target(name: &str) -> Address {
    format!("tcp://{name}:4433").to_address().expect("a good address")
}

type Taken = Result<Pooled<Sessions>, PoolError>;

/// Notes how long somebody waited, and what came of it.
fn note(book: &Mutex<Book>, waited: Duration, taken: Option<Taken>) -> Option<Pooled<Sessions>> {
    let mut book = book.lock();
    book.longest_wait = book.longest_wait.max(waited);
    match taken {
        None => book.left += 1,
        Some(Ok(session)) => {
            book.served += 1;
            return Some(session);
        }
        Some(Err(PoolError::TimedOut { .. })) => book.timed_out += 1,
        Some(Err(error)) => book.wrong.push(error.to_string()),
    }
    None
}

/// Works with one session after another, now and then with so little patience that it leaves the line.
async fn work(host: Host, pool: Pool<Sessions>, book: Arc<Mutex<Book>>) {
    let mut rng = host.rng();
    while host.now() < Timestamp::ZERO + DAY {
        host.sleep(rng.duration(Duration::ZERO, REST)).await;
        let began = host.now();
        let name = SERVERS[rng.below(2) as usize];
        let take = pool.take_within(target(name), PATIENCE);
        let taken = match rng.below(10) {
            0 => within(&host, rng.duration(Duration::ZERO, ms(8)), take).await,
            _ => Some(take.await),
        };
        let Some(session) = note(&book, host.now().since(began), taken) else {
            continue;
        };
        let answer = within(&host, 2 * SECOND, session.request("echo", "hello")).await;
        match answer {
            Some(Ok(_)) if rng.below(400) > 0 => drop(session),
            Some(Ok(_)) => session.discard(),
            Some(Err(_)) | None => {
                book.lock().unanswered += 1;
                session.discard();
            }
        }
    }
}

/// One of those who want a session of the same target at once.
async fn burst(host: Host, pool: Pool<Sessions>, book: Arc<Mutex<Book>>) {
    let began = host.now();
    let mut take = pool.take_within(target(SERVERS[0]), PATIENCE);
    let mut place = None;
    let taken = poll_fn(|cx| {
        // In line with its first poll.
        place.get_or_insert_with(|| {
            let mut book = book.lock();
            book.burst.push(None);
            book.burst.len() - 1
        });
        std::pin::Pin::new(&mut take).poll(cx)
    })
    .await;
    let session = note(&book, host.now().since(began), Some(taken));
    if let (Some(_session), Some(place)) = (session, place) {
        book.lock().burst[place] = Some(host.now());
        host.sleep(BURST_HOLD).await;
    }
}

/// What must hold at any time.
fn sound(stats: &PoolStats, limits: &PoolConfig) -> Check {
    let made = stats.idle + stats.busy + stats.checking;
    ensure!(
        made + stats.opening <= limits.max_total,
        "more items than there may be: {stats:?}"
    );
    let live = stats.opened - stats.closed;
    ensure!(live == made as u64, "items are lost or left: {stats:?}");
    Ok(())
}

/// Those who came first were served first; those who were not had the least patience left.
fn fair(book: &Mutex<Book>) -> Check {
    let served = std::mem::take(&mut book.lock().burst);
    ensure!(served.len() == BURST, "{} of {BURST} came", served.len());
    let count = served.iter().flatten().count();
    ensure!(count >= BURST / 3, "{count} of a burst were served");
    ensure!(
        served.iter().take(count).all(Option::is_some),
        "somebody was served before one who came first"
    );
    let in_order = served.is_sorted_by(|a, b| b.is_none() || a <= b);
    ensure!(in_order, "a burst was not served in the order of arrival");
    Ok(())
}

fn faults(world: &mut World) {
    for hour in 1..24 {
        let at = hour * HOUR;
        let host = SERVERS[hour as usize % 2].to_owned();
        match hour % 3 {
            0 => {
                world.fault_at(at, Fault::Crash { host: host.clone() });
                world.fault_at(at + 30 * SECOND, Fault::Restart { host });
            }
            1 => {
                for (after, up) in [(Duration::ZERO, false), (20 * SECOND, true)] {
                    let (host, network) = (host.clone(), "lan".into());
                    world.fault_at(at + after, Fault::Interface { host, network, up });
                }
            }
            _ => {
                let network = "lan".into();
                world.fault_at(at, Fault::Reset { host, network });
            }
        }
    }
}

/// The day itself.
fn play(world: &mut World, client: &Host, book: &Arc<Mutex<Book>>) -> Result<PoolStats, Failure> {
    let said = |world: &World, held: Check| {
        held.map_err(|words| failure(world, FailureKind::Invariant, "pool", words))
    };
    let builder = Client::builder().config(impatient());
    let sessions = Sessions::new(client.runtime(), builder);
    let pool = Pool::new(client.runtime(), sessions, limits());
    for _ in 0..WORKERS {
        world.spawn(client, work(client.clone(), pool.clone(), book.clone()));
    }
    for hour in 0..24 {
        // Faults come with the hour, bursts half an hour later.
        world.run_until(Timestamp::ZERO + hour * HOUR + HOUR / 2)?;
        for _ in 0..BURST {
            world.spawn(client, burst(client.clone(), pool.clone(), book.clone()));
        }
        world.run_for(10 * SECOND)?;
        said(world, fair(book))?;
        said(world, sound(&pool.stats(), &limits()))?;
    }
    world.run_until(Timestamp::ZERO + DAY + 60 * SECOND)?;
    Ok(pool.stats())
}

fn check(stats: &PoolStats, book: &Book) -> Check {
    if let Some(words) = book.wrong.first() {
        return Err(words.clone());
    }
    sound(stats, &limits())?;
    ensure!(
        stats.busy == 0 && stats.waiting == 0,
        "somebody has or waits for a session after all work: {stats:?}"
    );
    ensure!(
        book.longest_wait <= PATIENCE,
        "somebody waited {:?}",
        book.longest_wait
    );
    ensure!(
        book.served > 80_000 && book.left > 10 && book.timed_out > 100,
        "hardly anything went on: {} served, {} left, {} timed out",
        book.served,
        book.left,
        book.timed_out
    );
    ensure!(
        stats.reused * 100 > stats.granted * 95,
        "{} of {} were reused",
        stats.reused,
        stats.granted
    );
    Ok(())
}

fn pool(setup: &Setup) -> Outcome {
    let mut world = world(setup);
    world.network("lan", LinkConfig::with_delay(ms(2)));
    for name in SERVERS {
        world.boot(name, &["lan"], move |host| serve(host, name));
    }
    let client = world.host("client", &["lan"]);
    faults(&mut world);
    let book = Arc::new(Mutex::new(Book::default()));
    let result = world.run_for(SECOND).and_then(|()| {
        let before = world.leftovers();
        let stats = play(&mut world, &client, &book)?;
        let held = check(&stats, &book.lock());
        held.map_err(|words| failure(&world, FailureKind::Invariant, "pool", words))?;
        // Nobody has the pool any more: it closes what it has, and nothing of it is left anywhere.
        world.run_for(120 * SECOND)?;
        let mut after = world.leftovers();
        // Each server has come to have a timer of its own.
        after.timers = after.timers.saturating_sub(SERVERS.len());
        let words = format!("left behind: {after} where there was {before}");
        let held = (before == after).then_some(()).ok_or(words);
        held.map_err(|words| failure(&world, FailureKind::Invariant, "pool", words))
    });
    world.note("pool", &format!("{} served", book.lock().served));
    Outcome::of(world, result)
}
