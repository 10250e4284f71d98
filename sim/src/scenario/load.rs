//! Worlds in which nothing goes wrong, for a long time or for many: how fast the simulator is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sheetbend_runtime::{Class, Client, Config, Delivery, PathMode, Server, Session};

use super::{Outcome, Scenario, Setup, scenario};
use crate::failure::{Failure, FailureKind};
use crate::host::Host;
use crate::net::LinkConfig;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "idle",
        "a session over two paths that has nothing to say for thirty days",
        idle,
    ),
    scenario("steady", "ten messages a second over two paths for a day", steady),
    scenario("crowd", "a thousand hosts that talk for a minute", crowd),
];

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Hosts of [`crowd`], a server for every ten of them.
const CROWD: usize = 1000;

fn world(setup: &Setup) -> World {
    let mut world = World::new(setup.seed);
    if setup.records {
        world.keep_records();
    }
    world.network("wifi", LinkConfig::with_delay(Duration::from_millis(4)));
    world.network("lte", LinkConfig::with_delay(Duration::from_millis(25)));
    world
}

/// Counts the messages that come, and answers requests.
async fn serve(host: Host, name: String, received: Arc<AtomicU64>) {
    let address = format!("tcp://{name}:4433");
    let server = Server::builder().listen(address).expect("a good address");
    let server = server.bind(host.runtime()).await.expect("a free port");
    while let Some(session) = server.accept().await {
        let received = received.clone();
        host.spawn(async move {
            while session.recv_message(Class::EVENTS).await.is_ok() {
                received.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

async fn connect(host: &Host, endpoints: &[String]) -> Session {
    let config = Config {
        mode: PathMode::Standby,
        ..Config::default()
    };
    let mut builder = Client::builder().config(config);
    for endpoint in endpoints {
        builder = builder.endpoint(endpoint).expect("a good address");
    }
    builder.connect(host.runtime()).await.expect("the server answers")
}

/// Sends messages at a steady pace, and tells how many.
async fn talk(host: Host, session: Session, pause: Duration, sent: Arc<AtomicU64>) {
    loop {
        let outcome = session
            .send_message(Class::EVENTS, Delivery::Ordered, "tick")
            .await;
        outcome.expect("the session lives");
        sent.fetch_add(1, Ordering::Relaxed);
        host.sleep(pause).await;
    }
}

fn two_paths() -> Vec<String> {
    ["wifi", "lte"]
        .map(|network| format!("tcp://server.{network}:4433"))
        .into()
}

fn pair(world: &mut World, received: &Arc<AtomicU64>) -> Host {
    let counter = received.clone();
    world.boot("server", &["wifi", "lte"], move |host| {
        serve(host, "server".into(), counter.clone())
    });
    world.host("client", &["wifi", "lte"])
}

/// A session over two paths that has nothing to say for thirty days.
pub(super) fn idle(setup: &Setup) -> Outcome {
    let mut world = world(setup);
    let client = pair(&mut world, &Arc::default());
    let host = client.clone();
    let session = world.block_on(&client, async move { connect(&host, &two_paths()).await });
    let result = session.and_then(|session| {
        world.run_for(DAY * 30)?;
        let fine = !session.state().is_terminal() && session.stats().paths == 2;
        fine.then_some(())
            .ok_or_else(|| lost(&world, "the session lost a path although nothing happened"))
    });
    Outcome::of(world, result)
}

/// Ten messages a second for a day over two paths.
pub(super) fn steady(setup: &Setup) -> Outcome {
    let (sent, received) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let mut world = world(setup);
    let client = pair(&mut world, &received);
    let (host, counter) = (client.clone(), Arc::clone(&sent));
    world.spawn(&client, async move {
        let session = connect(&host, &two_paths()).await;
        talk(host, session, Duration::from_millis(100), counter).await;
    });
    let result = world
        .run_for(DAY)
        .and_then(|()| all_arrived(&world, &sent, &received, 1));
    Outcome::of(world, result)
}

/// A thousand hosts that talk for a minute, each once a second.
pub(super) fn crowd(setup: &Setup) -> Outcome {
    let (sent, received) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let mut world = world(setup);
    let servers = CROWD / 10;
    for index in 0..servers {
        let (counter, name) = (Arc::clone(&received), format!("server{index}"));
        world.boot(&name.clone(), &["wifi"], move |host| {
            serve(host, name.clone(), counter.clone())
        });
    }
    for index in servers..CROWD {
        let client = world.host(&format!("client{index}"), &["wifi"]);
        let endpoint = [format!("tcp://server{}:4433", index % servers)];
        let (host, counter) = (client.clone(), Arc::clone(&sent));
        world.spawn(&client, async move {
            let session = connect(&host, &endpoint).await;
            talk(host, session, Duration::from_secs(1), counter).await;
        });
    }
    let result = world.run_for(Duration::from_secs(60));
    let result = result.and_then(|()| all_arrived(&world, &sent, &received, CROWD as u64));
    Outcome::of(world, result)
}

/// Everything sent has arrived but for what may be under way.
fn all_arrived(world: &World, sent: &AtomicU64, received: &AtomicU64, under_way: u64) -> Result<(), Failure> {
    let (sent, received) = (sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
    if sent > 0 && received <= sent && sent - received <= under_way {
        return Ok(());
    }
    Err(lost(world, &format!("{sent} messages sent, {received} received")))
}

fn lost(world: &World, text: &str) -> Failure {
    Failure::new(FailureKind::Liveness, world.now(), "load", text)
}
