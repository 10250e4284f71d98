//! `sim`: messages of 64 bytes there and back between simulated hosts over plain TCP, one on each connection at
//! a time; how many of them one thread simulates in a second of the wall clock.
//!
//! Both worlds have links with one fixed delay and nothing else. Neither is slowed to real time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sheetbend_sim::{Host, LinkConfig, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::case::{Better, Case, Metric, Shape, Test};
use super::peer::Peer;
use super::runner::Sample;
use super::usage::Cpu;

const PORT: u16 = 7;
const MESSAGE: usize = 64;
/// Simulated before the clock is looked at again, in one-way delays.
const STRETCH: u32 = 16;

/// A simulated network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net {
    /// Pairs of hosts, each a client and a server.
    pub(crate) pairs: usize,
    /// Connections of each pair.
    pub(crate) connections: usize,
    /// One way.
    pub(crate) delay: Duration,
}

/// A simulation under way.
pub(crate) trait Simulation {
    /// Runs for a while of simulated time.
    fn run_for(&mut self, time: Duration) -> io::Result<()>;
    /// Messages that have arrived so far.
    fn messages(&self) -> u64;
}

pub(crate) fn cases() -> Vec<Case> {
    let nets = [(1, 1, 1), (1, 100, 1), (1, 1, 20), (25, 1, 1)];
    nets.map(|(pairs, connections, millis)| {
        let setting = match (pairs, connections) {
            (1, 1) => format!("1 connection, {millis} ms"),
            (1, _) => format!("{connections} connections, {millis} ms"),
            _ => format!("{} hosts, {millis} ms", 2 * pairs),
        };
        Case {
            test: Test::Sim,
            shape: Shape::Sim(Net {
                pairs,
                connections,
                delay: Duration::from_millis(millis),
            }),
            workers: 1,
            op: "message",
            metrics: vec![Metric {
                setting,
                unit: "1/s",
                better: Better::Higher,
            }],
        }
    })
    .into()
}

/// Runs a peer's simulation for `warm_up` and then `window` of the wall clock.
pub(crate) fn measure(
    peer: &dyn Peer,
    net: Net,
    warm_up: Duration,
    window: Duration,
) -> io::Result<Option<Sample>> {
    let Some(mut simulation) = peer.simulate(net) else {
        return Ok(None);
    };
    let mut run = |window: Duration| {
        let started = Instant::now();
        while started.elapsed() < window {
            simulation.run_for(net.delay * STRETCH)?;
        }
        io::Result::Ok((simulation.messages(), started.elapsed()))
    };
    let (before, _) = run(warm_up)?;
    let cpu = Cpu::of_this_process()?;
    let (after, elapsed) = run(window)?;
    let cpu = Cpu::of_this_process()?.since(cpu);
    let messages = (after - before) as f64;
    if messages == 0.0 {
        return Err(io::Error::other("nothing moved"));
    }
    Ok(Some(Sample {
        values: vec![messages / elapsed.as_secs_f64()],
        user_us_per_op: cpu.user.as_secs_f64() * 1e6 / messages,
        system_us_per_op: cpu.system.as_secs_f64() * 1e6 / messages,
    }))
}

fn server_name(pair: usize) -> String {
    format!("server{pair}")
}

// ---- sheetbend-sim ----

struct Ours {
    world: World,
    messages: Arc<AtomicU64>,
}

/// The world of sheetbend's simulator.
pub(crate) fn ours(net: Net) -> Box<dyn Simulation> {
    let messages = Arc::new(AtomicU64::new(0));
    let mut world = World::new(1);
    world.network("net", LinkConfig::with_delay(net.delay));
    for pair in 0..net.pairs {
        world.boot(&server_name(pair), &["net"], our_server);
        let counter = messages.clone();
        world.boot(&format!("client{pair}"), &["net"], move |host| {
            let counter = counter.clone();
            async move {
                for _ in 0..net.connections {
                    host.spawn(our_client(host.clone(), pair, counter.clone()));
                }
            }
        });
    }
    Box::new(Ours { world, messages })
}

async fn our_server(host: Host) {
    let Ok(listener) = host.listen_tcp(PORT) else {
        return;
    };
    while let Ok(mut stream) = listener.accept().await {
        host.spawn(async move {
            let mut buf = [0; MESSAGE];
            while stream.read_exact(&mut buf).await.is_ok() && stream.write_all(&buf).await.is_ok() {}
        });
    }
}

async fn our_client(host: Host, pair: usize, messages: Arc<AtomicU64>) {
    let Ok(mut stream) = host.connect_tcp(&server_name(pair), PORT).await else {
        return;
    };
    let mut buf = [7; MESSAGE];
    while stream.write_all(&buf).await.is_ok() && stream.read_exact(&mut buf).await.is_ok() {
        messages.fetch_add(2, Ordering::Relaxed);
    }
}

impl Simulation for Ours {
    fn run_for(&mut self, time: Duration) -> io::Result<()> {
        self.world.run_for(time).map_err(io::Error::other)
    }

    fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
}

// ---- turmoil ----

/// `turmoil`, with fixed latency and a tick of a millisecond, its default.
pub(crate) struct Turmoil;

struct TurmoilWorld {
    sim: turmoil::Sim<'static>,
    messages: Arc<AtomicU64>,
}

impl Peer for Turmoil {
    fn key(&self) -> &'static str {
        "turmoil"
    }

    fn variants(&self, _test: Test) -> Vec<String> {
        vec!["ticks of 1 ms (the default), fixed latency".into()]
    }

    fn simulate(&self, net: Net) -> Option<Box<dyn Simulation>> {
        let messages = Arc::new(AtomicU64::new(0));
        let mut sim = turmoil::Builder::new()
            .simulation_duration(Duration::from_secs(1_000_000))
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(net.delay)
            .max_message_latency(net.delay)
            .tcp_capacity(1024)
            .build();
        for pair in 0..net.pairs {
            sim.host(server_name(pair), || async {
                let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    tokio::spawn(turmoil_server(stream));
                }
            });
            let counter = messages.clone();
            sim.client(format!("client{pair}"), async move {
                for _ in 0..net.connections {
                    tokio::spawn(turmoil_client(pair, counter.clone()));
                }
                std::future::pending().await
            });
        }
        Some(Box::new(TurmoilWorld { sim, messages }))
    }
}

async fn turmoil_server(mut stream: turmoil::net::TcpStream) {
    let mut buf = [0; MESSAGE];
    while stream.read_exact(&mut buf).await.is_ok() && stream.write_all(&buf).await.is_ok() {}
}

async fn turmoil_client(pair: usize, messages: Arc<AtomicU64>) {
    let Ok(mut stream) = turmoil::net::TcpStream::connect((server_name(pair), PORT)).await else {
        return;
    };
    let mut buf = [7; MESSAGE];
    while stream.write_all(&buf).await.is_ok() && stream.read_exact(&mut buf).await.is_ok() {
        messages.fetch_add(2, Ordering::Relaxed);
    }
}

impl Simulation for TurmoilWorld {
    fn run_for(&mut self, time: Duration) -> io::Result<()> {
        for _ in 0..time.as_millis() {
            self.sim
                .step()
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(())
    }

    fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
}
