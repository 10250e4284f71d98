//! The world: its hosts and networks, its tasks, and the loop that jumps from event to event.

mod join;
mod run;

use std::future::Future;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use sheetbend_core::rng::Rng;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::BoxFuture;
use slab::Slab;

pub use join::Join;

use crate::disk::DiskStats;
use crate::failure::Failure;
use crate::fault::{Consequence, Fault};
use crate::host::{Clock, Host, HostId, HostState, Power, Program};
use crate::net::{LinkConfig, LinkStats, TcpConfig};
use crate::queue::Due;
use crate::state::{Job, Shared, TaskId, TaskWaker};
use crate::trace::{Hash, Record, Story};

/// A host's clock shows up to this much more than another's when a world begins.
const CLOCK_SPREAD: Duration = Duration::from_secs(1000);

struct Task {
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
    flag: Arc<TaskWaker>,
    generation: u32,
    host: HostId,
    /// Polls at the moment of the last one, and the progress of the world at the first of them.
    turns: u32,
    turned_at: u64,
    progress: u64,
}

type Action = Box<dyn FnOnce(&mut World) + Send>;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Packets, timers and scheduled actions that took place.
    pub events: u64,
    /// Packets put onto links.
    pub packets: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// The hash of all that happened.
    pub trace_hash: u64,
}

/// What is there at a moment, to be looked at when nothing should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Leftovers {
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Timers that tasks hold.
    pub timers: usize,
    /// Ends of TCP connections, those included that only kernels know of.
    pub connections: usize,
    /// Listening sockets.
    pub listeners: usize,
    /// UDP sockets.
    pub udp_sockets: usize,
}

impl Leftovers {
    /// Whether there is nothing.
    pub fn is_none(&self) -> bool {
        *self == Leftovers::default()
    }
}

impl std::fmt::Display for Leftovers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} tasks, {} timers, {} connections, {} listeners, {} UDP sockets",
            self.tasks, self.timers, self.connections, self.listeners, self.udp_sockets
        )
    }
}

/// A simulated world. See the [crate](crate) for an example.
pub struct World {
    pub(crate) shared: Arc<Shared>,
    pub(crate) seed: u64,
    rng: Rng,
    shuffle: bool,
    /// One in so many quiet moments is probed for lost wake-ups.
    probe: u64,
    tasks: Slab<Task>,
    next_generation: u32,
    /// Tasks of hosts that are paused.
    held: Vec<TaskId>,
    actions: Slab<Action>,
    batch: std::collections::VecDeque<Job>,
    pub(crate) failure: Option<Failure>,
    hash: Hash,
    events: u64,
    polls: u64,
    /// Polls since time last moved.
    turns: u64,
    now: u64,
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

impl World {
    /// A world without hosts.
    pub fn new(seed: u64) -> World {
        sheetbend_core::carrier::tls::prepare();
        let mut rng = Rng::from_seed(seed_bytes(seed));
        World {
            shared: Arc::new(Shared::new(rng.fork("world"))),
            seed,
            rng,
            shuffle: false,
            probe: 0,
            tasks: Slab::new(),
            next_generation: 0,
            held: Vec::new(),
            actions: Slab::new(),
            batch: Default::default(),
            failure: None,
            hash: Hash::default(),
            events: 0,
            polls: 0,
            turns: 0,
            now: 0,
        }
    }

    /// The seed that it was made from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A generator for what the world's owner plans at random: the same for one seed and purpose, whenever asked.
    pub fn rng(&self, purpose: &str) -> Rng {
        Rng::from_seed(seed_bytes(self.seed)).fork("owner").fork(purpose)
    }

    /// Runs tasks that are ready at one moment in random order rather than in the order of their wake-ups.
    pub fn shuffle(&mut self, shuffle: bool) {
        self.shuffle = shuffle;
    }

    /// Looks for lost wake-ups: at one in so many quiet moments, chosen at random, runs one task, any one, although
    /// nobody woke it. If it then comes forward, it had something to do, and the run fails. 0 is never.
    pub fn probe_wakeups(&mut self, one_in: u64) {
        self.probe = one_in;
    }

    /// Remembers what happens from here on, and what each link carries, for [`World::records`] and the writers of
    /// [`trace`](crate::trace). Sessions are seen that are made from here on. The run is the same with it.
    pub fn keep_records(&mut self) {
        self.shared.with(|state| {
            state.trace.log.get_or_insert_default();
        });
    }

    /// Remembers every packet as well. A long run needs much memory for that.
    pub fn keep_packets(&mut self) {
        self.keep_records();
        self.shared.with(|state| {
            state.trace.capture.get_or_insert_default();
        });
    }

    /// What happened since [`World::keep_records`], in order: with every packet since [`World::keep_packets`] if that
    /// was called, else with what the links carried, interval by interval.
    pub fn records(&self) -> Vec<Record> {
        Story::of(self).records()
    }

    /// Says something in the trace.
    pub fn note(&self, who: &str, text: &str) {
        self.shared.with(|state| state.trace.note(state.now, who, text));
    }

    // ---- what there is ----

    /// Makes a network whose links are like this, unless they are changed one by one.
    pub fn network(&mut self, name: &str, config: LinkConfig) {
        self.shared.with(|state| state.net.network(name, config));
    }

    /// Makes a host with an interface on each of these networks. Networks that do not exist are made with
    /// default links.
    pub fn host(&mut self, name: &str, networks: &[&str]) -> Host {
        let id = self.shared.with(|state| {
            let id = HostId(state.hosts.len() as u32);
            let mut rng = state.rng.fork(name);
            let shown = rng.duration(Duration::from_secs(1), CLOCK_SPREAD).as_nanos() as u64;
            state.hosts.push(HostState::new(name, rng, Clock::new(shown)));
            for network in networks {
                let network = state.net.network(network, LinkConfig::default());
                state.net.attach(id, network);
            }
            id
        });
        self.handle(id)
    }

    /// Makes a host that runs a program, and runs it again whenever it comes back from a crash.
    pub fn boot<F>(
        &mut self,
        name: &str,
        networks: &[&str],
        program: impl Fn(Host) -> F + Send + Sync + 'static,
    ) -> Host
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let host = self.host(name, networks);
        let program: Program = Arc::new(move |host| Box::pin(program(host)));
        let task = program(host.clone());
        self.shared
            .with(|state| state.hosts[host.id.index()].program = Some(program));
        self.shared.spawn(host.id, host.incarnation, task);
        host
    }

    /// Sets how a host's TCP behaves, for connections made from here on.
    pub fn tcp(&mut self, host: &Host, config: TcpConfig) {
        self.shared
            .with(|state| state.hosts[host.id.index()].tcp = config);
    }

    /// A handle of a host as it is: one that was taken before a crash is of no use after it.
    pub fn handle(&self, id: HostId) -> Host {
        let incarnation = self.shared.with(|state| state.hosts[id.index()].incarnation);
        Host {
            shared: self.shared.clone(),
            id,
            incarnation,
        }
    }

    /// The host of that name.
    pub fn find(&self, name: &str) -> Option<HostId> {
        self.shared.with(|state| state.find_host(name))
    }

    /// What the link from one host to another has done; nothing if they share no such network.
    pub fn link_stats(&self, from: &Host, to: &Host, network: &str) -> Option<LinkStats> {
        self.shared.with(|state| {
            let network = state.net.find_network(network)?;
            let (from, to) = (state.net.on(from.id, network)?, state.net.on(to.id, network)?);
            let id = state.link_between(from, to);
            Some(state.net.link_mut(id).stats)
        })
    }

    /// How the link from one host to another is; nothing if they share no such network.
    pub fn link_config(&self, from: &str, to: &str, network: &str) -> Option<LinkConfig> {
        self.shared.with(|state| {
            let network = state.net.find_network(network)?;
            let (from, to) = (state.find_host(from)?, state.find_host(to)?);
            let (from, to) = (state.net.on(from, network)?, state.net.on(to, network)?);
            let id = state.link_between(from, to);
            Some(state.net.link_mut(id).config.clone())
        })
    }

    /// What a host's disk has been through.
    pub fn disk_stats(&self, host: &Host) -> DiskStats {
        self.shared.with(|state| state.hosts[host.id.index()].disk.stats)
    }

    // ---- what goes wrong, and when ----

    /// Does something at a moment, counted from the world's beginning.
    pub fn at(&mut self, at: Duration, action: impl FnOnce(&mut World) + Send + 'static) {
        let index = self.actions.insert(Box::new(action));
        let at = Timestamp::ZERO + at;
        self.shared.with(|state| {
            let at = at.as_nanos().max(state.now);
            state.queue.push(at, Due::Action(index as u32));
        });
    }

    /// Has a fault take place at a moment.
    pub fn fault_at(&mut self, at: Duration, fault: Fault) {
        self.at(at, move |world| world.apply(&fault));
    }

    /// Has a fault take place.
    pub fn apply(&mut self, fault: &Fault) {
        match self.shared.with(|state| state.apply(fault)) {
            Consequence::None => {}
            Consequence::Crashed(host) => self.drop_tasks(host),
            Consequence::Restarted(id) => {
                let host = self.handle(id);
                let program = self.shared.with(|state| state.hosts[id.index()].program.clone());
                if let Some(program) = program {
                    let task = program(host.clone());
                    self.shared.spawn(id, host.incarnation, task);
                }
            }
            Consequence::Resumed(host) => self.release_tasks(host),
        }
    }

    fn drop_tasks(&mut self, host: HostId) {
        let own: Vec<usize> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.host == host)
            .map(|(index, _)| index)
            .collect();
        // What the futures hold reaches for the world's state when it is dropped, and may wake others.
        for index in own {
            let task = self.tasks.remove(index);
            drop(task);
        }
    }

    fn release_tasks(&mut self, host: HostId) {
        let held = std::mem::take(&mut self.held);
        let mut jobs = self.shared.ready.jobs.lock();
        for id in held {
            let own = self
                .tasks
                .get(id.index as usize)
                .is_some_and(|task| task.host == host);
            if own {
                jobs.push_back(Job::Poll(id))
            } else {
                self.held.push(id)
            }
        }
    }

    fn runs(&self, host: HostId) -> bool {
        self.shared
            .with(|state| state.hosts[host.index()].power == Power::Running)
    }

    // ---- what came of it ----

    /// The world's own time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    /// Counts so far, and the hash of all that happened.
    pub fn totals(&self) -> Totals {
        let (packets, trace) = self.shared.with(|state| (state.trace.packets, state.trace.hash));
        let mut hash = self.hash;
        hash.add(trace.finish());
        Totals {
            events: self.events,
            packets,
            polls: self.polls,
            trace_hash: hash.finish(),
        }
    }

    /// Whether a host has not crashed, or has come back.
    pub fn is_up(&self, host: HostId) -> bool {
        self.shared
            .with(|state| state.hosts[host.index()].power != Power::Crashed)
    }

    /// What there still is of tasks, timers, sockets and connections.
    pub fn leftovers(&self) -> Leftovers {
        self.shared.with(|state| Leftovers {
            tasks: self.tasks.len(),
            timers: state.timers.len(),
            connections: state.net.connections.len(),
            listeners: state.net.listeners.len(),
            udp_sockets: state.net.udp.len(),
        })
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.clear();
        self.actions.clear();
        // What the tasks' ends spawned holds the state, and is held by it.
        let jobs = std::mem::take(&mut *self.shared.ready.jobs.lock());
        drop(jobs);
    }
}
