//! The stage of most scenarios: a client and a server, a session's work between them, and what must hold of it.
//!
//! The work is requests one after another, a stream that is sent back, and ordered messages that are sent back, all
//! at a steady pace for about four seconds. Whatever goes wrong meanwhile, every one of them is to arrive once, in
//! order, on one and the same session.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::rng::Rng;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{
    Config, ErrorCode, PathEnd, ProxyRules, RedirectRule, Session, SessionEvent, SwitchCause,
};

use super::{Outcome, Setup, service, work};
use crate::failure::{Failure, FailureKind};
use crate::fault::Fault;
use crate::host::Host;
use crate::net::LinkConfig;
use crate::world::{Join, World};

/// Fails the check that it stands in, with words.
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if $holds {
        } else {
            return Err(format!($($words)+));
        }
    };
}
pub(super) use ensure;

/// What a check says: nothing, or what does not hold.
pub(super) type Check = Result<(), String>;

/// How long the work may take, faults included, and the end of the session.
const LIMIT: Duration = Duration::from_secs(120);

/// So many milliseconds.
pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The moment so long after the world's beginning.
pub(super) fn moment(after: Duration) -> Timestamp {
    Timestamp::ZERO + after
}

/// What the session does.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) endpoints: Vec<String>,
    pub(super) client: Config,
    pub(super) server: Config,
    /// In each round a request, two messages, and a chunk of the stream; no stream for chunks of 0 bytes.
    pub(super) rounds: u64,
    pub(super) every: Duration,
    pub(super) chunk: usize,
    /// Before this round, nothing for so long.
    pub(super) rest: Option<(u64, Duration)>,
    /// How long the server takes for each piece that it reads of the stream.
    pub(super) read_pause: Duration,
    /// Which places the client goes to that a server names.
    pub(super) redirects: RedirectRule,
    /// What leads the client to its endpoints.
    pub(super) proxies: ProxyRules,
    /// How long the work may take, faults included.
    pub(super) limit: Duration,
    /// When the client is told that it is on another network, and which.
    pub(super) changes: Vec<(Duration, &'static str)>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            endpoints: Vec::new(),
            client: Config::default(),
            server: Config::default(),
            rounds: 100,
            every: ms(40),
            chunk: 10_000,
            rest: None,
            read_pause: Duration::ZERO,
            redirects: RedirectRule::default(),
            proxies: ProxyRules::default(),
            limit: LIMIT,
            changes: Vec::new(),
        }
    }
}

impl Plan {
    /// Leaves out what keeps silent connections alive: heartbeats, and a stream that waits for more.
    pub(super) fn fall_silent(&mut self) {
        self.chunk = 0;
        for config in [&mut self.client, &mut self.server] {
            config.params.heartbeat = Duration::ZERO;
        }
    }
}

/// What the server has seen. It lies outside of the world: no crash takes it.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) sessions: u32,
    /// How often each request was executed.
    pub(super) executed: BTreeMap<u64, u32>,
    /// Messages as they were read: the session, counted from 1, and the number.
    pub(super) received: Vec<(u32, u64)>,
    /// Bytes that came to the port that throws them away.
    pub(super) discarded: Vec<(Timestamp, usize)>,
    pub(super) wrong: Vec<String>,
}

/// What the client has seen.
#[derive(Default)]
pub(super) struct Report {
    /// When each request was asked, and how long its answer took.
    pub(super) answers: Vec<(Timestamp, Duration)>,
    pub(super) events: Vec<(Timestamp, SessionEvent)>,
    pub(super) echoed: u64,
    pub(super) streamed: u64,
    /// When the end of the stream came back.
    pub(super) stream_ended: Option<Timestamp>,
    pub(super) established: Option<Timestamp>,
    pub(super) finished: Option<Timestamp>,
    pub(super) session: Option<Session>,
    pub(super) done: u32,
    pub(super) wrong: Vec<String>,
}

impl Report {
    fn taken(&self, from: Duration, to: Duration) -> impl Iterator<Item = Duration> + '_ {
        let (from, to) = (moment(from), moment(to));
        let asked = self.answers.iter().filter(move |(at, _)| *at >= from && *at < to);
        asked.map(|(_, took)| *took)
    }

    /// The longest that a request took which was asked in that time.
    pub(super) fn slowest(&self, from: Duration, to: Duration) -> Duration {
        self.taken(from, to).max().unwrap_or_default()
    }

    /// The shortest.
    pub(super) fn quickest(&self, from: Duration, to: Duration) -> Duration {
        self.taken(from, to).min().unwrap_or(Duration::MAX)
    }

    /// How long after `at` data moved to a path whose name holds `to`, and why.
    pub(super) fn switched(&self, at: Duration, to: &str) -> Option<(Duration, SwitchCause)> {
        let at = moment(at);
        self.events.iter().find_map(|(when, event)| match event {
            SessionEvent::Switched { to: name, cause, .. } if *when >= at && name.contains(to) => {
                Some((when.since(at), *cause))
            }
            _ => None,
        })
    }

    /// How long after `at` a path ended whose name holds `name`, how, and with what error.
    pub(super) fn down(&self, at: Duration, name: &str) -> Option<(Duration, PathEnd, String)> {
        let at = moment(at);
        self.events.iter().find_map(|(when, event)| match event {
            SessionEvent::PathDown { path, end, error } if *when >= at && path.contains(name) => {
                Some((when.since(at), *end, error.clone().unwrap_or_default()))
            }
            _ => None,
        })
    }

    /// How many paths ended before the work was done.
    pub(super) fn downs(&self) -> usize {
        let end = self.finished.unwrap_or(Timestamp::MAX);
        let downs = self.events.iter();
        downs
            .filter(|(at, event)| *at < end && matches!(event, SessionEvent::PathDown { .. }))
            .count()
    }

    /// The longest time between one answer and the next.
    pub(super) fn gap(&self) -> Duration {
        let ends = self.answers.iter().map(|(asked, took)| *asked + *took);
        let next = ends.clone().skip(1);
        ends.zip(next)
            .map(|(end, next)| next.since(end))
            .max()
            .unwrap_or_default()
    }

    /// How many paths came up.
    pub(super) fn ups(&self, name: &str) -> usize {
        let ups = self.events.iter();
        ups.filter(|(_, event)| matches!(event, SessionEvent::PathUp { path } if path.contains(name)))
            .count()
    }
}

/// A world with a client and a server, before the work begins.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) client: Host,
    pub(super) server: Host,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) plan: Plan,
    /// When the first fault is to come: the work is well under way, and no two seeds are alike.
    pub(super) at: Duration,
    /// The world runs at least so long.
    pub(super) least: Duration,
    /// When the client gives its paths over UDP other sockets.
    pub(super) rebinds: Vec<Duration>,
}

/// A world as its setup wants it.
pub(super) fn world(setup: &Setup) -> World {
    let mut world = World::new(setup.seed);
    if setup.records {
        world.keep_records();
    }
    if setup.capture {
        world.keep_packets();
    }
    world
}

impl Stage {
    /// Client and server on these networks; the session's endpoints are the server on each of them.
    pub(super) fn new(setup: &Setup, networks: &[(&str, LinkConfig)], mut plan: Plan) -> Stage {
        let mut world = world(setup);
        let names: Vec<&str> = networks.iter().map(|(name, _)| *name).collect();
        for (name, config) in networks {
            world.network(name, config.clone());
        }
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (told, config, pause) = (ledger.clone(), plan.server.clone(), plan.read_pause);
        let server = world.boot("server", &names, move |host| {
            service::serve(host, config.clone(), pause, told.clone())
        });
        let client = world.host("client", &names);
        if plan.endpoints.is_empty() {
            let all = names
                .iter()
                .map(|name| format!("tcp://server.{name}:{}", service::PORT));
            plan.endpoints = all.collect();
        }
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&setup.seed.to_le_bytes());
        let mut rng = Rng::from_seed(seed);
        Stage {
            world,
            client,
            server,
            ledger,
            plan,
            at: rng.duration(ms(1000), ms(1300)),
            least: Duration::ZERO,
            rebinds: Vec::new(),
        }
    }

    /// One network, with 5 ms one way.
    pub(super) fn one(setup: &Setup) -> Stage {
        Stage::new(setup, &[("wifi", LinkConfig::with_delay(ms(5)))], Plan::default())
    }

    /// Two: the preferred one with 5 ms one way, another with 20.
    pub(super) fn two(setup: &Setup) -> Stage {
        Stage::two_with(setup, Plan::default())
    }

    pub(super) fn two_with(setup: &Setup, plan: Plan) -> Stage {
        let networks = [
            ("wifi", LinkConfig::with_delay(ms(5))),
            ("lte", LinkConfig::with_delay(ms(20))),
        ];
        Stage::new(setup, &networks, plan)
    }

    /// Has the session use these endpoints instead.
    pub(super) fn endpoints(&mut self, endpoints: &[&str]) {
        let url = |name: &&str| match name.contains("://") {
            true => (*name).to_owned(),
            false => format!("tcp://{name}"),
        };
        self.plan.endpoints = endpoints.iter().map(url).collect();
    }

    // ---- what goes wrong ----

    /// Has a fault take place; at zero before anything else does.
    pub(super) fn fault(&mut self, at: Duration, fault: Fault) {
        if at.is_zero() {
            return self.world.apply(&fault);
        }
        self.world.fault_at(at, fault);
    }

    /// Changes both directions between client and server.
    pub(super) fn link(&mut self, at: Duration, network: &str, config: LinkConfig) {
        for (from, to) in [("client", "server"), ("server", "client")] {
            let config = config.clone();
            self.fault(at, link(from, to, network, config));
        }
    }

    /// Cuts both directions between client and server, or joins them.
    pub(super) fn cut(&mut self, at: Duration, network: &str, cut: bool) {
        for (from, to) in [("client", "server"), ("server", "client")] {
            self.fault(at, partition(from, to, network, cut));
        }
    }

    /// Runs something on the client beside the session.
    pub(super) fn beside<T, F>(&mut self, task: impl FnOnce(Host) -> F) -> Join<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let client = self.client.clone();
        self.world.spawn(&client, task(client.clone()))
    }

    // ---- the run ----

    /// Does the work, and checks what must hold of it and then what `effect` says.
    pub(super) fn run(self, effect: impl FnOnce(&mut World, &Report) -> Check) -> Outcome {
        let Stage {
            mut world,
            client,
            ledger,
            plan,
            least,
            rebinds,
            ..
        } = self;
        let report = Arc::new(Mutex::new(Report::default()));
        if !rebinds.is_empty() {
            let (host, seen) = (client.clone(), report.clone());
            world.spawn(&client, async move {
                for at in rebinds {
                    host.sleep(moment(at).since(host.world_now())).await;
                    if let Some(session) = seen.lock().session.as_ref() {
                        session.rebind();
                    }
                }
            });
        }
        let result = play(&mut world, &client, &plan, least, &report).and_then(|()| {
            let held = check(&plan, &ledger.lock(), &report.lock());
            held.map_err(|words| failure(&world, FailureKind::Safety, "session", words))?;
            let held = effect(&mut world, &report.lock());
            held.map_err(|words| failure(&world, FailureKind::Invariant, "effect", words))
        });
        report.lock().session = None;
        Outcome::of(world, result)
    }
}

pub(super) fn failure(world: &World, kind: FailureKind, host: &str, words: impl Into<String>) -> Failure {
    Failure::new(kind, world.now(), host, words)
}

pub(super) fn link(from: &str, to: &str, network: &str, config: LinkConfig) -> Fault {
    Fault::Link {
        from: from.into(),
        to: to.into(),
        network: network.into(),
        config,
    }
}

pub(super) fn partition(from: &str, to: &str, network: &str, cut: bool) -> Fault {
    Fault::Partition {
        from: from.into(),
        to: to.into(),
        network: network.into(),
        cut,
    }
}

fn play(
    world: &mut World,
    client: &Host,
    plan: &Plan,
    least: Duration,
    report: &Arc<Mutex<Report>>,
) -> Result<(), Failure> {
    world.spawn(client, work::start(client.clone(), plan.clone(), report.clone()));
    let over = |report: &Report| report.done == work::TASKS || !report.wrong.is_empty();
    let seen = report.clone();
    let ended = world.run_while_not(plan.limit, move |_| over(&seen.lock()))?;
    if !ended {
        let seen = report.lock();
        let words = format!(
            "after {:?}: {} of {} requests answered, {} of {} messages back, {} bytes of the stream",
            plan.limit,
            seen.answers.len(),
            plan.rounds,
            seen.echoed,
            2 * plan.rounds,
            seen.streamed
        );
        return Err(failure(world, FailureKind::Liveness, "session", words));
    }
    report.lock().finished = Some(world.now());
    if world.now() < moment(least) {
        world.run_until(moment(least))?;
    }
    // The task that tells of events is to have its turn.
    world.run_for(ms(1))?;
    let session = report.lock().session.clone();
    if let Some(session) = session {
        let task = async move { session.close(ErrorCode::NONE, "done").await };
        let closed = world.spawn(client, task);
        if !world.run_while_not(LIMIT, |_| closed.is_done())? {
            return Err(failure(
                world,
                FailureKind::Liveness,
                "session",
                "it does not close",
            ));
        }
    }
    Ok(())
}

/// Exactly once, in order, nothing lost, on one session.
fn check(plan: &Plan, ledger: &Ledger, report: &Report) -> Check {
    if let Some(words) = ledger.wrong.iter().chain(&report.wrong).next() {
        return Err(words.clone());
    }
    ensure!(ledger.sessions == 1, "{} sessions were made", ledger.sessions);
    let answered = report.answers.len() as u64;
    ensure!(
        answered == plan.rounds,
        "{answered} of {} requests answered",
        plan.rounds
    );
    for number in 0..plan.rounds {
        let times = ledger.executed.get(&number).copied().unwrap_or(0);
        ensure!(times == 1, "request {number} was executed {times} times");
    }
    let expected = (0..2 * plan.rounds).map(|number| (1, number));
    ensure!(
        ledger.received.iter().copied().eq(expected),
        "{} messages came: one is missing, doubled or out of order",
        ledger.received.len()
    );
    let bytes = plan.rounds * plan.chunk as u64;
    ensure!(
        report.streamed == bytes,
        "{} of {bytes} bytes of the stream came back",
        report.streamed
    );
    Ok(())
}
