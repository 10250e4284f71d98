//! What a seed stands for: a topology, configurations, and a list of numbered items of work and faults.

use std::fmt;
use std::time::Duration;

use sheetbend_core::rng::Rng;
use sheetbend_runtime::{Class, ClassSettings, Config, PathMode, Side, StreamLimits};

use super::faults::{self, FaultKind};
use super::work::{self, Job, JobKind};
use crate::fault::Fault;
use crate::net::{LinkConfig, TcpConfig};
use crate::tunnel::PROXY_PORT;

/// The most items of a plan: as many as a token can name.
pub const MAX_ITEMS: u32 = 150;
/// The least.
const MIN_ITEMS: u64 = 40;

/// A network of a plan.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its name.
    pub name: &'static str,
    /// Its links while nothing is wrong.
    pub link: LinkConfig,
}

impl Network {
    /// Its links once everything has healed: without loss, and fast enough for all that waits.
    pub fn sound(&self) -> LinkConfig {
        LinkConfig {
            delay: self.link.delay.min(Duration::from_millis(40)),
            rate: if self.link.rate == 0 { 0 } else { 50_000_000 },
            ..LinkConfig::default()
        }
    }
}

/// A client of a plan.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    /// Its host.
    pub name: String,
    /// The networks it is on, by their places in the plan.
    pub networks: Vec<usize>,
    /// Where it looks for the server, the most preferred first.
    pub endpoints: Vec<String>,
    /// Its sessions' configuration.
    pub config: Config,
    /// How many paths it keeps up in standby mode.
    pub standby_paths: usize,
    /// Whether it uses sessions before they are established.
    pub hasty: bool,
    /// The proxy that leads it to the server, if there is one between.
    pub proxy: Option<String>,
}

/// The host of every proxy, and whom it leads.
pub(super) const PROXY: &str = "proxy";
pub(super) const LOGIN: (&str, &str) = ("swarm", "secret");

/// What an item does.
#[derive(Clone, Debug)]
pub enum What {
    /// Something that is promised to be done.
    Work {
        /// Which client's session.
        client: usize,
        /// Which end begins.
        side: Side,
        /// What.
        job: Job,
    },
    /// Something that goes wrong, and is mended, in steps at times after its start.
    Fault {
        /// What it is called.
        kind: FaultKind,
        /// The steps.
        steps: Vec<(Duration, Fault)>,
    },
}

/// One item of a plan. Each is derived by itself: leaving one out changes none of the others.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its place in the plan.
    pub number: u32,
    /// When it begins.
    pub at: Duration,
    /// What it does.
    pub what: What,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3} {:>9.3} s  ", self.number, self.at.as_secs_f64())?;
        match &self.what {
            What::Work { client, side, job } => {
                write!(f, "{} {client}: {job}", format!("{side:?}").to_lowercase())
            }
            What::Fault { kind, steps } => {
                write!(f, "{kind:?}:")?;
                for (index, (after, fault)) in steps.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ";" };
                    write!(f, "{comma} +{:.3} s {fault}", after.as_secs_f64())?;
                }
                Ok(())
            }
        }
    }
}

/// Everything that a seed stands for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The networks. The server is on all of them.
    pub networks: Vec<Network>,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// The configuration of the server's ends.
    pub server: Config,
    /// The TCP of every host.
    pub tcp: TcpConfig,
    /// How many sessions may be in their handshake at the server.
    pub max_unconfirmed: usize,
    /// The classes that work is done in.
    pub classes: Vec<Class>,
    /// Whether tasks that are ready at one moment run in random order.
    pub shuffle: bool,
    /// One in so many quiet moments is used to look for lost wake-ups; 0 for none.
    pub probe: u64,
    /// When everything has healed, and the last work has begun.
    pub horizon: Duration,
    /// The items.
    pub items: Vec<Item>,
}

pub(super) fn pick<T: Clone>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len() as u64) as usize].clone()
}

pub(super) fn millis(rng: &mut Rng, low: u64, high: u64) -> Duration {
    rng.duration(Duration::from_millis(low), Duration::from_millis(high))
}

/// Those of `all` that a coin fell for; at least one.
pub(super) fn some<T: Clone>(rng: &mut Rng, all: &[T]) -> Vec<T> {
    let sure = rng.below(all.len() as u64) as usize;
    let mut chosen = Vec::new();
    for (index, one) in all.iter().enumerate() {
        if index == sure || rng.below(2) == 0 {
            chosen.push(one.clone());
        }
    }
    chosen
}

fn links() -> [Network; 6] {
    let network = |name, delay_micros, jitter_micros, rate, queue, loss| Network {
        name,
        link: LinkConfig::with_delay(Duration::from_micros(delay_micros))
            .jitter(Duration::from_micros(jitter_micros))
            .rate(rate, queue)
            .loss(loss),
    };
    [
        network("lan", 250, 0, 0, 0, 0.0),
        network("wifi", 3000, 2000, 50_000_000, 200_000, 0.005),
        network("lte", 25_000, 10_000, 20_000_000, 500_000, 0.001),
        network("dsl", 15_000, 500, 5_000_000, 64_000, 0.0),
        network("sat", 280_000, 5000, 10_000_000, 1_000_000, 0.002),
        network("edge", 120_000, 40_000, 500_000, 40_000, 0.01),
    ]
}

fn config(rng: &mut Rng) -> Config {
    let mut config = Config::default();
    let params = &mut config.params;
    params.max_data = [pick(rng, &[20_000, 100_000, 1 << 20]); 8];
    params.max_stream_data = [pick(rng, &[2000, 30_000, 256 << 10]); 8];
    params.max_record = pick(rng, &[1200, 5000, 65_536]);
    params.max_message = 50_000;
    params.lz4 = rng.below(3) == 0;
    params.in_flight = pick(rng, &[4096, 64 << 10, 256 << 10]);
    params.max_ack_delay = Duration::from_millis(pick(rng, &[0, 1, 25]));
    params.heartbeat = Duration::from_millis(pick(rng, &[200, 1000, 5000]));
    params.resume_timeout = Duration::from_millis(pick(rng, &[1500, 6000, 30_000, 300_000]));
    for limits in &mut params.max_streams {
        limits.bi = pick(rng, &[1, 5, 100]);
        limits.uni = pick(rng, &[1, 5, 100]);
        limits.unordered = pick(rng, &[1, 5, 100]);
    }
    config.max_send_buffer = pick(rng, &[20_000, 100_000, 1 << 25]);
    config.max_message_queue = pick(rng, &[60_000, 200_000, 4 << 20]);
    config.max_datagram_queue = pick(rng, &[4000, 256 << 10]);
    config.max_stream_window = pick(rng, &[256 << 10, 32 << 20]);
    config.max_class_window = pick(rng, &[1 << 20, 48 << 20]);
    config
}

fn client(rng: &mut Rng, index: usize, networks: &[Network]) -> ClientPlan {
    let places: Vec<usize> = (0..networks.len()).collect();
    let own = some(rng, &places);
    let mut endpoints: Vec<String> = own
        .iter()
        .map(|&place| format!("tcp://server.{}:4433", networks[place].name))
        .collect();
    if rng.below(2) == 0 {
        endpoints.reverse();
    }
    if rng.below(4) == 0 {
        endpoints.push("tcp://server:4433".to_owned());
    }
    let mut config = config(rng);
    config.mode = pick(rng, &[PathMode::Single, PathMode::Standby]);
    config.early_data = rng.below(4) == 0;
    ClientPlan {
        name: format!("client{index}"),
        networks: own,
        endpoints,
        config,
        standby_paths: pick(rng, &[2, 2, 3]),
        hasty: rng.below(3) == 0,
        proxy: None,
    }
}

/// One client in six is behind a proxy, of any kind.
fn lead(seed: u64, index: usize) -> Option<String> {
    let mut bytes = *b"sheetbend swarm proxies .......!";
    bytes[22..30].copy_from_slice(&seed.to_le_bytes());
    bytes[30] = index as u8;
    let mut rng = Rng::from_seed(bytes);
    if rng.below(6) > 0 {
        return None;
    }
    let scheme = pick(&mut rng, &["http", "socks5", "socks5h"]);
    let (user, password) = LOGIN;
    Some(format!("{scheme}://{user}:{password}@{PROXY}:{PROXY_PORT}"))
}

/// The transports of a client's endpoints: half of the clients have TCP alone, the others some of each.
fn carry(endpoints: &mut [String], seed: u64, index: usize) {
    let mut bytes = *b"sheetbend swarm carriers ......!";
    bytes[23..31].copy_from_slice(&seed.to_le_bytes());
    bytes[31] = index as u8;
    let mut rng = Rng::from_seed(bytes);
    if rng.below(2) == 0 {
        return;
    }
    for endpoint in endpoints {
        let scheme = pick(
            &mut rng,
            &["tcp", "tls", "ws", "wss", "http", "http", "https", "sheetbend"],
        );
        *endpoint = endpoint.replacen("tcp", scheme, 1);
        if scheme.starts_with("http") {
            // One way down in two is left to be found out.
            let ways = [
                "",
                "",
                "",
                "",
                "?mode=binary",
                "?mode=sse",
                "?mode=ndjson",
                "?mode=poll",
            ];
            *endpoint += &format!("/{}", pick(&mut rng, &ways));
        }
    }
}

/// Endpoints over QUIC, or WebTransport: some of them for one client in three that no proxy leads.
fn datagrams(client: &mut ClientPlan, seed: u64, index: usize) {
    let mut bytes = *b"sheetbend swarm quic ..........!";
    bytes[21..29].copy_from_slice(&seed.to_le_bytes());
    bytes[29] = index as u8;
    let mut rng = Rng::from_seed(bytes);
    if client.proxy.is_some() || rng.below(3) > 0 {
        return;
    }
    for endpoint in some(&mut rng, &(0..client.endpoints.len()).collect::<Vec<_>>()) {
        let url = &mut client.endpoints[endpoint];
        let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next());
        let scheme = if rng.below(3) == 0 { "wt" } else { "quic" };
        *url = format!("{scheme}://{}", authority.unwrap_or("server:4433"));
    }
}

/// Small buffers, for half of the even seeds: then a write is often taken in part.
fn tcp(seed: u64) -> TcpConfig {
    let mut bytes = *b"sheetbend swarm tcp ...........!";
    bytes[20..28].copy_from_slice(&seed.to_le_bytes());
    let mut rng = Rng::from_seed(bytes);
    let mut config = TcpConfig::default();
    if seed.is_multiple_of(4) {
        config.send_buffer = pick(&mut rng, &[10_000, 30_000]);
        config.receive_buffer = pick(&mut rng, &[20_000, 60_000, 256 << 10]);
    }
    config
}

/// The program's own classes instead of the first four, with limits of their own, for one seed in five.
fn own_classes(plan: &mut Plan) {
    if plan.seed % 5 != 1 {
        return;
    }
    let mut bytes = *b"sheetbend swarm classes ........";
    bytes[24..].copy_from_slice(&plan.seed.to_le_bytes());
    let mut rng = Rng::from_seed(bytes);
    for (class, own) in plan.classes.iter_mut().zip(Class::USER) {
        *class = own;
    }
    let clients = plan.clients.iter_mut().map(|client| &mut client.config);
    for config in clients.chain([&mut plan.server]) {
        for class in Class::USER {
            let mut most = || pick(&mut rng, &[1, 5, 100]);
            let streams = StreamLimits {
                bi: most(),
                uni: most(),
                unordered: most(),
            };
            let settings = ClassSettings::new(format!("own {}", class.number()))
                .urgency(rng.below(8) as u8)
                .streams(streams)
                .window(pick(&mut rng, &[20_000, 60_000, 1 << 20]))
                .stream_window(pick(&mut rng, &[10_000, 30_000]))
                .queue(pick(&mut rng, &[3000, 60_000, 4 << 20]));
            config.class(class, settings).expect("sound settings");
        }
    }
}

impl Plan {
    /// What a seed stands for.
    pub fn from_seed(seed: u64) -> Plan {
        let mut bytes = *b"sheetbend swarm plan ..........!";
        bytes[21..29].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::from_seed(bytes);
        let mut topology = rng.fork("topology");
        let count = 1 + topology.below(4) as usize;
        let mut networks = links().to_vec();
        while networks.len() > count {
            networks.remove(topology.below(networks.len() as u64) as usize);
        }
        let clients = 1 + topology.below(3) as usize;
        let clients: Vec<ClientPlan> = (0..clients)
            .map(|index| {
                let mut client = client(&mut rng.fork("client"), index, &networks);
                carry(&mut client.endpoints, seed, index);
                client.proxy = lead(seed, index);
                datagrams(&mut client, seed, index);
                client
            })
            .collect();
        let server = config(&mut rng.fork("server"));
        let mut choice = rng.fork("choice");
        let classes = some(
            &mut choice,
            &[Class::CONTROL, Class::REQUESTS, Class::EVENTS, Class::BULK],
        );
        let mut plan = Plan {
            seed,
            networks,
            clients,
            server,
            tcp: tcp(seed),
            max_unconfirmed: pick(&mut choice, &[1, 2, 4096]),
            classes,
            shuffle: choice.below(2) == 0,
            probe: pick(&mut choice, &[0, 2, 20]),
            horizon: millis(&mut choice, 6000, 30_000),
            items: Vec::new(),
        };
        own_classes(&mut plan);
        let mut jobs = some(&mut choice, JobKind::ALL);
        // Calls are in every run.
        if !jobs.contains(&JobKind::Call) {
            jobs.push(JobKind::Call);
        }
        let kinds = if choice.below(16) == 0 {
            Vec::new()
        } else {
            some(&mut choice, FaultKind::ALL)
        };
        let total = MIN_ITEMS + choice.below(u64::from(MAX_ITEMS) - MIN_ITEMS + 1);
        let share = pick(&mut choice, &[5, 15, 30, 45]);
        let mut rng = rng.fork("items");
        for number in 0..total as u32 {
            let mut own = rng.fork("item");
            let item = if !kinds.is_empty() && own.below(100) < share {
                faults::item(&mut own, number, &plan, &kinds)
            } else {
                work::item(&mut own, number, &plan, &jobs)
            };
            plan.items.push(item);
        }
        plan
    }

    /// The item of this number.
    pub fn item(&self, number: u32) -> Option<&Item> {
        self.items.get(number as usize)
    }
}
