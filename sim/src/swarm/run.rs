//! One run of a plan, from the first event to the last check.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::app::{self, Cx};
use super::book::{Book, Phase};
use super::jobs;
use super::plan::{PROXY, Plan, What};
use crate::failure::{Failure, FailureKind};
use crate::fault::Fault;
use crate::host::HostId;
use crate::relay::RelayConfig;
use crate::scenario::{Outcome, Setup};
use crate::world::World;

/// How long everything promised may take once the world is sound.
const LIVENESS: Duration = Duration::from_secs(60);
/// While something is promised to a client, something of what it has to do with comes forward in this time
/// (one healthy path, and progress).
const PROGRESS: Duration = Duration::from_secs(5);
/// By how many of the round trips that links had before, where those were long.
const SLOW_ROUND_TRIPS: u32 = 16;
/// How long a session that its client never confirmed keeps its place among the handshakes, and a client that was
/// told to wait does so.
const OVERDUE: Duration = Duration::from_secs(15);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How long it takes until the last path of bad times is gone.
const SETTLING: Duration = Duration::from_secs(30);
/// How long no path may end then: some heartbeats.
const REST: Duration = Duration::from_secs(12);
/// How long sessions may take to close.
const CLOSING: Duration = Duration::from_secs(20);
/// When at the latest nothing is left, kernels' retransmissions to hosts that are gone included.
const EMPTY: Duration = Duration::from_secs(200);

/// When a proxy closes a connection on which nothing comes: long after heartbeats would have.
const PROXY_IDLE: Duration = Duration::from_secs(60);

struct Run {
    world: World,
    plan: Arc<Plan>,
    book: Arc<Book>,
    hosts: Vec<HostId>,
}

/// Runs what a seed stands for.
pub fn run(setup: &Setup) -> Outcome {
    let plan = Arc::new(Plan::from_seed(setup.seed));
    let items = plan.items.len() as u32;
    let book = Arc::new(Book::new(plan.clone()));
    let mut world = World::new(setup.seed);
    if setup.records {
        world.keep_records();
    }
    if setup.capture {
        world.keep_packets();
    }
    world.audit_sessions();
    world.shuffle(plan.shuffle);
    world.probe_wakeups(plan.probe);
    let mut run = Run {
        world,
        plan,
        book,
        hosts: Vec::new(),
    };
    let result = catch_unwind(AssertUnwindSafe(|| {
        run.build();
        run.schedule(setup.keep.as_deref());
        run.go()
    }));
    run.book.clear();
    let result = result.unwrap_or_else(|_| Err(run.failed(FailureKind::Panic, "swarm", "a check panicked")));
    Outcome {
        world: run.world,
        failure: result.err(),
        items,
    }
}

impl Run {
    fn failed(&self, kind: FailureKind, who: &str, what: impl Into<String>) -> Failure {
        Failure::new(kind, self.world.now(), who, what)
    }

    fn build(&mut self) {
        for network in &self.plan.networks {
            self.world.network(network.name, network.link.clone());
        }
        let all: Vec<&str> = self.plan.networks.iter().map(|network| network.name).collect();
        let (book, plan) = (self.book.clone(), self.plan.clone());
        let server = self.world.boot("server", &all, move |host| {
            app::server(Cx {
                host,
                book: book.clone(),
                plan: plan.clone(),
            })
        });
        for (index, client) in self.plan.clients.iter().enumerate() {
            let own: Vec<&str> = client.networks.iter().map(|&place| all[place]).collect();
            let (book, plan) = (self.book.clone(), self.plan.clone());
            let host = self.world.boot(&client.name, &own, move |host| {
                let (book, plan) = (book.clone(), plan.clone());
                app::client(Cx { host, book, plan }, index)
            });
            self.world.tcp(&host, self.plan.tcp.clone());
            self.hosts.push(host.id());
        }
        self.world.tcp(&server, self.plan.tcp.clone());
        self.hosts.push(server.id());
        if self.plan.clients.iter().any(|client| client.proxy.is_some()) {
            let (book, plan) = (self.book.clone(), self.plan.clone());
            let proxy = self.world.boot(PROXY, &all, move |host| {
                let (book, plan) = (book.clone(), plan.clone());
                app::proxy(Cx { host, book, plan })
            });
            let config = RelayConfig {
                idle: PROXY_IDLE,
                ..RelayConfig::default()
            };
            proxy.relay(|state| state.config = config);
        }
    }

    /// The host of a client, or the server's.
    fn host_of(&self, name: &str) -> (HostId, Option<usize>) {
        let client = self.plan.clients.iter().position(|client| client.name == name);
        (self.hosts[client.unwrap_or(self.plan.clients.len())], client)
    }

    fn schedule(&mut self, keep: Option<&[u32]>) {
        let plan = self.plan.clone();
        for item in &plan.items {
            if keep.is_some_and(|keep| !keep.contains(&item.number)) {
                continue;
            }
            match &item.what {
                What::Work { client, side, job } => {
                    let name = match side {
                        sheetbend_runtime::Side::Client => plan.clients[*client].name.as_str(),
                        sheetbend_runtime::Side::Server => "server",
                    };
                    let (id, _) = self.host_of(name);
                    let (book, plan) = (self.book.clone(), plan.clone());
                    let (number, client, side, job) = (item.number, *client, *side, job.clone());
                    self.world.at(item.at, move |world| {
                        // A host that is down runs nothing.
                        if !world.is_up(id) {
                            return;
                        }
                        let host = world.handle(id);
                        world.note(&host.name(), &format!("item {number}: {job}"));
                        book.due(number);
                        let cx = Cx {
                            host: host.clone(),
                            book,
                            plan,
                        };
                        host.spawn(jobs::run(cx, number, client, side, job));
                    });
                }
                What::Fault { steps, .. } => {
                    for (after, fault) in steps {
                        self.schedule_fault(item.at + *after, fault.clone());
                    }
                }
            }
        }
    }

    /// Who sends and who receives, between a client that is behind a proxy and that proxy.
    fn behind_proxy(&self, from: &str, to: &str) -> Option<(String, String)> {
        let proxied = |name: &str| {
            let mut clients = self.plan.clients.iter();
            clients.any(|client| client.name == name && client.proxy.is_some())
        };
        match (proxied(from), proxied(to)) {
            (true, _) => Some((from.to_owned(), PROXY.to_owned())),
            (_, true) => Some((PROXY.to_owned(), to.to_owned())),
            _ => None,
        }
    }

    /// The same on the link to the proxy, where it is about one that a proxy replaces.
    fn mirrored(&self, mut fault: Fault) -> Option<Fault> {
        match &mut fault {
            Fault::Link { from, to, .. } | Fault::Partition { from, to, .. } => {
                (*from, *to) = self.behind_proxy(from, to)?;
                Some(fault)
            }
            _ => None,
        }
    }

    fn schedule_fault(&mut self, at: Duration, fault: Fault) {
        if let Some(mirrored) = self.mirrored(fault.clone()) {
            self.world.at(at, move |world| world.apply(&mirrored));
        }
        let crash = match &fault {
            Fault::Crash { host } => Some(self.host_of(host)),
            _ => None,
        };
        let book = self.book.clone();
        self.world.at(at, move |world| {
            if let Some((id, client)) = crash
                && world.is_up(id)
            {
                book.crashed(client);
            }
            world.apply(&fault);
        });
    }

    /// Runs for a time, or until `done`; whether it was done.
    fn run(&mut self, limit: Duration, mut done: impl FnMut(&Book) -> bool) -> Result<bool, Failure> {
        let book = self.book.clone();
        let done = self
            .world
            .run_while_not(limit, |_| book.failed() || done(&book))?;
        match self.book.failure() {
            Some((kind, who, what)) => Err(self.failed(kind, &who, what)),
            None => Ok(done),
        }
    }

    fn go(&mut self) -> Result<(), Failure> {
        let horizon = self.plan.horizon;
        self.run(horizon, |_| false)?;
        self.heal();
        self.live()?;
        self.rest()?;
        self.book.enter(Phase::Closing);
        if !self.run(CLOSING, |book| book.programs() <= 1)? {
            return Err(self.failed(
                FailureKind::Liveness,
                "close",
                "a client's session does not close",
            ));
        }
        self.run(Duration::from_secs(1), |_| false)?;
        self.book.enter(Phase::Stopping);
        if !self.run(CLOSING, |book| book.programs() == 0)? {
            return Err(self.failed(FailureKind::Liveness, "close", "the server does not stop"));
        }
        self.book.clear();
        self.empty()?;
        match self.book.lost() {
            Some(words) => Err(self.failed(FailureKind::Safety, "the end", words)),
            None => Ok(()),
        }
    }

    /// Every link is sound from here on.
    fn heal(&mut self) {
        let clients = self.plan.clients.iter().map(|client| client.name.as_str());
        let mut links: Vec<_> = clients.map(|name| (name, "server")).collect();
        for client in &self.plan.clients {
            if client.proxy.is_some() {
                links.extend([(client.name.as_str(), PROXY), (PROXY, "server")]);
            }
        }
        for network in &self.plan.networks {
            for (from, to) in links.iter().flat_map(|&(a, b)| [(a, b), (b, a)]) {
                self.world.apply(&Fault::Link {
                    from: from.to_owned(),
                    to: to.to_owned(),
                    network: network.name.to_owned(),
                    config: network.sound(),
                });
            }
        }
    }

    /// Everything that was promised happens, and meanwhile something always does.
    fn live(&mut self) -> Result<(), Failure> {
        let healed = self.world.now();
        // A server that takes few handshakes at a time has its places back when they are overdue.
        let crowded = self.plan.max_unconfirmed <= 2 * self.plan.clients.len();
        let mut patience = PROGRESS + if crowded { OVERDUE } else { Duration::ZERO };
        if self.book.crashes() > 0 {
            // A client that says nothing learns by its heartbeat that its server is another, and then has to come
            // to believe it: once the last path has been silent for what a fault's delay of more than a second has taught
            // its timers, and for three probes.
            patience += 5 * PROGRESS + self.plan.server.params.heartbeat;
        }
        // What a path's timers learned while it was slow, they wait for once more: suspicion, and a probe's answer.
        let slowest = self.plan.networks.iter().map(|network| network.link.delay).max();
        let proxied = self.plan.clients.iter().any(|client| client.proxy.is_some());
        patience += slowest.unwrap_or_default() * (2 + 2 * u32::from(proxied)) * SLOW_ROUND_TRIPS;
        let mut last = vec![(u64::MAX, healed); self.plan.clients.len()];
        loop {
            let now = self.world.now();
            let mut kept = true;
            for (client, last) in last.iter_mut().enumerate() {
                let progress = self.book.progress(client);
                let Some(unkept) = self.book.unkept(client) else {
                    *last = (progress, now);
                    continue;
                };
                kept = false;
                if last.0 != progress {
                    *last = (progress, now);
                }
                let stuck = now.since(last.1) > patience;
                if stuck || now.since(healed) >= LIVENESS {
                    let what = format!(
                        "{:?} after the last fault, {:?} without progress: {unkept}",
                        now.since(healed),
                        now.since(last.1)
                    );
                    return Err(self.failed(FailureKind::Liveness, "promises", what));
                }
            }
            if kept {
                return Ok(());
            }
            self.run(LOOK, |_| false)?;
        }
    }

    /// In a sound world no path ends.
    fn rest(&mut self) -> Result<(), Failure> {
        self.run(SETTLING, |_| false)?;
        let before = self.book.paths_ended();
        self.run(REST, |_| false)?;
        let ended = self.book.paths_ended() - before;
        if ended > 0 {
            let what = format!("{ended} paths ended although nothing was wrong");
            return Err(self.failed(FailureKind::Liveness, "rest", what));
        }
        Ok(())
    }

    /// Nothing is left.
    fn empty(&mut self) -> Result<(), Failure> {
        let deadline = self.world.now() + EMPTY;
        loop {
            let left = self.world.leftovers();
            if left.is_none() {
                return Ok(());
            }
            if self.world.now() >= deadline {
                let what = format!("after the sessions were closed: {left}");
                return Err(self.failed(FailureKind::Leftover, "the end", what));
            }
            self.run(Duration::from_secs(5), |_| false)?;
        }
    }
}
