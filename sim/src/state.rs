//! Everything of a world that its handles touch, behind one lock that is never held while foreign code runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use parking_lot::Mutex;
use sheetbend_core::rng::Rng;
use sheetbend_runtime::BoxFuture;
use slab::Slab;

use crate::host::{HostId, HostState, Power};
use crate::net::Fabric;
use crate::observe::Watch;
use crate::queue::{Due, Queue};
use crate::trace::Trace;

/// A task's place, and which of the tasks that had this place it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// What the executor is to do next.
pub(crate) enum Job {
    Poll(TaskId),
    Spawn(HostId, u32, BoxFuture<'static, ()>),
}

/// Tasks that are ready, in the order in which they became so.
#[derive(Default)]
pub(crate) struct Ready {
    pub(crate) jobs: Mutex<VecDeque<Job>>,
}

pub(crate) struct TaskWaker {
    pub(crate) id: TaskId,
    pub(crate) queued: AtomicBool,
    pub(crate) ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.jobs.lock().push_back(Job::Poll(self.id));
        }
    }
}

/// A timer of a task.
pub(crate) struct TimerState {
    pub(crate) host: HostId,
    /// By the clock of its host.
    pub(crate) deadline: u64,
    pub(crate) waker: Option<Waker>,
    /// Its expiry was told.
    pub(crate) told: bool,
    generation: u32,
    armed: bool,
}

/// What lies behind the lock.
pub(crate) struct State {
    pub(crate) now: u64,
    pub(crate) queue: Queue,
    pub(crate) rng: Rng,
    pub(crate) hosts: Vec<HostState>,
    pub(crate) net: Fabric,
    pub(crate) timers: Slab<TimerState>,
    pub(crate) trace: Trace,
    pub(crate) watch: Watch,
    /// To be woken when the lock is released.
    pub(crate) wakes: Vec<Waker>,
    /// Grows with everything that brings a program forward: bytes moved, timers expired.
    pub(crate) progress: u64,
    generation: u32,
}

impl State {
    pub(crate) fn local_now(&self, host: HostId) -> u64 {
        let host = &self.hosts[host.index()];
        let now = if host.power == Power::Suspended {
            host.since
        } else {
            self.now
        };
        host.clock.at(now)
    }

    // ---- timers ----

    pub(crate) fn new_timer(&mut self, host: HostId, deadline: u64) -> usize {
        self.generation += 1;
        let generation = self.generation;
        self.timers.insert(TimerState {
            host,
            deadline,
            waker: None,
            told: false,
            generation,
            armed: false,
        })
    }

    /// Has the queue look at a timer when it is due.
    pub(crate) fn arm_timer(&mut self, index: usize) {
        let timer = &mut self.timers[index];
        if timer.armed || timer.deadline == u64::MAX {
            return;
        }
        timer.armed = true;
        let at = self.hosts[timer.host.index()].clock.when(timer.deadline);
        self.queue
            .push(at.max(self.now), Due::Timer(index as u32, timer.generation));
    }

    /// Sets a timer anew.
    pub(crate) fn reset_timer(&mut self, index: usize, deadline: u64) {
        self.generation += 1;
        let timer = &mut self.timers[index];
        timer.deadline = deadline;
        timer.generation = self.generation;
        timer.armed = false;
        timer.told = false;
        if timer.waker.is_some() {
            self.arm_timer(index);
        }
    }

    pub(crate) fn timer_due(&mut self, index: u32, generation: u32) {
        let found = self.timers.get_mut(index as usize);
        let Some(timer) = found.filter(|timer| timer.generation == generation) else {
            return;
        };
        timer.armed = false;
        let host = timer.host;
        match self.hosts[host.index()].power {
            Power::Suspended => return self.hosts[host.index()].held_timers.push(index),
            Power::Crashed => return,
            Power::Running | Power::Paused => {}
        }
        if self.hosts[host.index()].clock.at(self.now) < timer.deadline {
            return self.arm_timer(index as usize);
        }
        let waker = timer.waker.take();
        self.wakes.extend(waker);
    }

    /// A host's clock was changed: its timers are due at other moments.
    pub(crate) fn rearm_timers(&mut self, host: HostId) {
        let own = self.timers.iter().filter(|(_, timer)| timer.host == host);
        let own: Vec<usize> = own.map(|(index, _)| index).collect();
        for index in own {
            let deadline = self.timers[index].deadline;
            self.reset_timer(index, deadline);
        }
    }
}

/// A world's state, shared by everything that lives in it.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) ready: Arc<Ready>,
    /// A session's invariants were breached: see `Watch`.
    pub(crate) breached: AtomicBool,
}

impl Shared {
    pub(crate) fn new(mut rng: Rng) -> Shared {
        let state = State {
            now: 0,
            queue: Queue::default(),
            rng: rng.fork("network"),
            hosts: Vec::new(),
            net: Fabric::default(),
            timers: Slab::new(),
            trace: Trace::default(),
            watch: Watch::default(),
            wakes: Vec::new(),
            progress: 0,
            generation: 0,
        };
        Shared {
            state: Mutex::new(state),
            ready: Arc::default(),
            breached: AtomicBool::new(false),
        }
    }

    /// Works on the state; whoever is to be woken by that is woken when the lock is released.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let done = f(&mut state);
        if state.wakes.is_empty() {
            return done;
        }
        let mut wakes = std::mem::take(&mut state.wakes);
        drop(state);
        for waker in wakes.drain(..) {
            waker.wake();
        }
        let mut state = self.state.lock();
        if state.wakes.is_empty() {
            state.wakes = wakes; // keeps the allocation
        }
        done
    }

    pub(crate) fn spawn(&self, host: HostId, incarnation: u32, task: BoxFuture<'static, ()>) {
        self.ready
            .jobs
            .lock()
            .push_back(Job::Spawn(host, incarnation, task));
    }
}
