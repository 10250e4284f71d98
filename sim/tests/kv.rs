//! A user's own code under the simulator: a small key-value service, for real and simulated.
//!
//! `kv/service.rs` and `kv/client.rs` are what a user would write: they know the handles of sheetbend and nothing of a
//! simulator. This file shows what to do with them:
//!
//! 1. [`real`] and [`simulated`] run one and the same [`story`]; they differ in where the runtime comes from.
//! 2. [`swarm`] makes of a seed a world with three clients who work at random, and faults at random, and checks all
//!    that they are told against a model (`kv/model.rs`).
//! 3. Two mistakes are planted in the service, and the swarm finds each within 200 seeds.
//!
//! To run one seed again, with all that happens in it: `KV_SEED=17 cargo test -p sheetbend-sim --test kv replay -- --nocapture`
#![allow(unreachable_pub, reason = "in a user's crate they are reached")]
#![allow(clippy::print_stderr, reason = "the seed that found something is told")]

#[path = "kv/client.rs"]
mod client;
#[path = "kv/model.rs"]
mod model;
#[path = "kv/service.rs"]
mod service;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Cas, Kv};
use model::Model;
use service::{Bug, serve};
use sheetbend_runtime::Runtime;
use sheetbend_sim::{Fault, Host, LinkConfig, Rng, World};

type Trouble = Box<dyn std::error::Error + Send + Sync>;

// ---- one story, for real and simulated ----

async fn story(runtime: Arc<dyn Runtime>, address: String) -> Result<(), Trouble> {
    let mut kv = Kv::new(runtime, &[address], "ann", Bug::None)?;
    let mut watch = kv.watch("colour").await?;
    assert_eq!(watch.next().await?.version, 0);
    assert_eq!(kv.put("colour", "red").await?, 1);
    assert_eq!(kv.cas("colour", 1, "green").await?, Cas::Done(2));
    assert_eq!(kv.cas("colour", 1, "blue").await?, Cas::Mismatch(2));
    assert_eq!(kv.delete("colour").await?, 3);
    for (version, value) in [(1, Some("red")), (2, Some("green")), (3, None)] {
        let entry = watch.next().await?;
        assert_eq!((entry.version, entry.value.as_deref()), (version, value));
    }
    assert_eq!(kv.get("colour").await?.value, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = sheetbend_tokio::runtime();
    let place = Some(dir.path().join("kv"));
    let address = serve(runtime.clone(), "tcp://127.0.0.1:0", place, Bug::None).await;
    let address = address.expect("a free port").to_string();
    story(runtime, address).await.expect("as it should be");
}

#[test]
fn simulated() {
    let mut world = World::new(1);
    world.boot("server", &["lan"], |host| server(host, Bug::None));
    let client = world.host("client", &["lan"]);
    let runtime = client.runtime();
    let told = world.block_on(&client, story(runtime, "tcp://server:4000".into()));
    told.expect("nothing goes wrong").expect("as it should be");
}

async fn server(host: Host, bug: Bug) {
    let served = serve(host.runtime(), "tcp://server:4000", Some("/kv".into()), bug).await;
    served.expect("it starts again after every crash");
}

// ---- the swarm ----

const CLIENTS: [&str; 3] = ["ann", "bob", "eve"];
/// What each client does, one thing after another.
const STEPS: u64 = 40;
const FAULTS: u64 = 6;
const NETWORKS: [&str; 2] = ["wifi", "lte"];

fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    rng.duration(Duration::from_millis(from), Duration::from_millis(to))
}

fn client(host: &Host, name: &str, bug: Bug) -> Kv {
    let addresses = NETWORKS.map(|network| format!("tcp://server.{network}:4000"));
    Kv::new(host.runtime(), &addresses, name, bug).expect("good addresses")
}

/// Changes its own key, which has its name, and reads everybody's.
async fn work(host: Host, name: &'static str, bug: Bug, model: Arc<Mutex<Model>>) -> Result<(), Trouble> {
    let (mut kv, mut rng) = (client(&host, name, bug), host.rng());
    let model = || model.lock().expect("nobody panics");
    let mut seen = [0; CLIENTS.len()];
    for step in 0..STEPS {
        let value = format!("{name}-{step}");
        match rng.below(6) {
            0 | 1 => {
                let makes = model().begins(name, Some(&value));
                let version = kv.put(name, &value).await?;
                model().ends(name, makes, version);
            }
            2 => {
                let from = model().answered(name);
                let makes = model().begins(name, Some(&value));
                let cas = kv.cas(name, from, &value).await?;
                model().compared(name, Some(makes), cas);
            }
            3 => {
                let from = model().answered(name) + 1;
                let cas = kv.cas(name, from, &value).await?;
                model().compared(name, None, cas);
            }
            4 if rng.below(3) == 0 => {
                let makes = model().begins(name, None);
                let version = kv.delete(name).await?;
                model().ends(name, makes, version);
            }
            _ => {
                let whose = rng.below(CLIENTS.len() as u64) as usize;
                let answered = model().answered(CLIENTS[whose]);
                let entry = kv.get(CLIENTS[whose]).await?;
                model().read(CLIENTS[whose], answered, seen[whose], &entry);
                seen[whose] = entry.version;
            }
        }
        host.sleep(millis(&mut rng, 0, 150)).await;
    }
    Ok(())
}

/// Watches a key for ever, and that no change of it is missed.
async fn follow(host: Host, key: &'static str, bug: Bug, model: Arc<Mutex<Model>>, seen: Arc<Mutex<u64>>) {
    let kv = client(&host, "watcher", bug);
    let model = || model.lock().expect("nobody panics");
    loop {
        let answered = model().answered(key);
        let mut last = None;
        let Ok(mut watch) = kv.watch(key).await else {
            continue;
        };
        while let Ok(entry) = watch.next().await {
            let before = last.unwrap_or(*seen.lock().expect("nobody panics"));
            model().read(key, if last.is_none() { answered } else { 0 }, before, &entry);
            if last.is_some_and(|last| entry.version != last + 1) {
                let words = format!("a watch of {key} goes from {last:?} to {}", entry.version);
                model().wrong.push(words);
            }
            last = Some(entry.version);
            *seen.lock().expect("nobody panics") = entry.version;
        }
    }
}

/// Faults at random, each of which ends.
fn trouble(world: &mut World, rng: &mut Rng) {
    for _ in 0..FAULTS {
        let (at, lasts) = (millis(rng, 100, 4000), millis(rng, 50, 1500));
        let name = CLIENTS[rng.below(CLIENTS.len() as u64) as usize];
        let network = NETWORKS[rng.below(2) as usize].to_owned();
        let (client, server) = (name.to_owned(), "server".to_owned());
        match rng.below(4) {
            0 | 1 => {
                world.fault_at(at, Fault::Crash { host: server.clone() });
                world.fault_at(at + lasts, Fault::Restart { host: server });
            }
            2 => {
                for (from, to) in [(&client, &server), (&server, &client)] {
                    for (at, cut) in [(at, true), (at + lasts, false)] {
                        let (from, to, network) = (from.clone(), to.clone(), network.clone());
                        let fault = Fault::Partition {
                            from,
                            to,
                            network,
                            cut,
                        };
                        world.fault_at(at, fault);
                    }
                }
            }
            _ => world.fault_at(
                at,
                Fault::Reset {
                    host: client,
                    network,
                },
            ),
        }
    }
}

/// One world. What went wrong in it, if anything did.
fn run(seed: u64, bug: Bug) -> (World, Result<(), String>) {
    let mut world = World::new(seed);
    let mut rng = world.rng("plan");
    world.network("wifi", LinkConfig::with_delay(millis(&mut rng, 1, 30)));
    world.network("lte", LinkConfig::with_delay(millis(&mut rng, 10, 80)));
    world.boot("server", &NETWORKS, move |host| server(host, bug));
    let model = Arc::new(Mutex::new(Model::default()));
    let (mut workers, mut watchers) = (Vec::new(), Vec::new());
    for (index, name) in CLIENTS.into_iter().enumerate() {
        let host = world.host(name, &NETWORKS);
        let watched = CLIENTS[(index + 1) % CLIENTS.len()];
        let seen = Arc::new(Mutex::new(0));
        watchers.push((watched, seen.clone()));
        workers.push(world.spawn(&host, work(host.clone(), name, bug, model.clone())));
        world.spawn(&host, follow(host.clone(), watched, bug, model.clone(), seen));
    }
    trouble(&mut world, &mut rng);
    let result = check(&mut world, &model, &workers, &watchers);
    (world, result)
}

type Worker = sheetbend_sim::Join<Result<(), Trouble>>;
type Watcher = (&'static str, Arc<Mutex<u64>>);

/// Safety all along, and in the end everything that was promised.
fn check(
    world: &mut World,
    model: &Arc<Mutex<Model>>,
    workers: &[Worker],
    watchers: &[Watcher],
) -> Result<(), String> {
    let limit = Duration::from_secs(120);
    let wrong = || model.lock().expect("nobody panics").wrong.first().cloned();
    let over = |_: &World| workers.iter().all(|worker| worker.is_done()) || wrong().is_some();
    let ended = world
        .run_while_not(limit, over)
        .map_err(|failure| failure.to_string())?;
    world
        .run_for(Duration::from_secs(20))
        .map_err(|failure| failure.to_string())?;
    if let Some(wrong) = wrong() {
        return Err(wrong);
    }
    if !ended {
        return Err(format!("the work is not done after {limit:?}"));
    }
    for worker in workers {
        if let Some(Err(trouble)) = worker.take() {
            return Err(trouble.to_string());
        }
    }
    for (key, seen) in watchers {
        let last = model.lock().expect("nobody panics").answered(key);
        let seen = *seen.lock().expect("nobody panics");
        if seen != last {
            return Err(format!("a watch of {key} has seen version {seen} of {last}"));
        }
    }
    Ok(())
}

/// The first of 200 seeds that finds something, and what.
fn swarm(bug: Bug) -> Option<(u64, String)> {
    (0..200).find_map(|seed| run(seed, bug).1.err().map(|wrong| (seed, wrong)))
}

#[test]
fn the_service_holds() {
    if let Some((seed, wrong)) = swarm(Bug::None) {
        panic!("seed {seed}: {wrong}");
    }
}

#[test]
fn what_is_done_twice_is_found() {
    let (seed, wrong) = swarm(Bug::ForgetsAnswers).expect("the swarm finds it");
    eprintln!("seed {seed}: {wrong}");
}

#[test]
fn what_a_watch_misses_is_found() {
    let (seed, wrong) = swarm(Bug::SubscribesLate).expect("the swarm finds it");
    eprintln!("seed {seed}: {wrong}");
}

/// One seed, chosen by `KV_SEED`.
#[test]
fn replay() {
    let seed = std::env::var("KV_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0);
    let (world, result) = run(seed, Bug::None);
    let (again, _) = run(seed, Bug::None);
    assert_eq!(world.totals(), again.totals(), "one seed, one run");
    assert_eq!(result, Ok(()), "seed {seed}");
}
