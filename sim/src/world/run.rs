//! The loop: tasks that are ready, then the next event.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sheetbend_core::time::Timestamp;

use super::{Join, Task, World};
use crate::failure::{Failure, FailureKind};
use crate::host::{Host, HostId};
use crate::leaks;
use crate::queue::Due;
use crate::state::{Job, TaskId, TaskWaker};

/// Polls of one task at one moment, without anything coming of them, that are a stall.
const MAX_IDLE_TURNS: u32 = 100;
/// Polls at one moment that are too many even if every one of them does something.
const MAX_TURNS: u64 = 5_000_000;

/// What took place.
enum Step {
    Event,
    Act(u32),
    /// Nothing more is due until the limit.
    Quiet,
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without words");
    match crate::quiet::last_place() {
        Some(place) => format!("{text} ({place})"),
        None => text.to_owned(),
    }
}

impl World {
    /// Runs a task on a host.
    pub fn spawn<T: Send + 'static>(
        &mut self,
        host: &Host,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Join<T> {
        let (join, task) = Join::of(task);
        self.shared.spawn(host.id, host.incarnation, Box::pin(task));
        join
    }

    /// Runs for a time.
    ///
    /// # Errors
    /// What went wrong; the world stands still from then on.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        self.run_until(Timestamp::from_nanos(self.now) + time)
    }

    /// Runs until a moment.
    ///
    /// # Errors
    /// What went wrong; the world stands still from then on.
    pub fn run_until(&mut self, until: Timestamp) -> Result<(), Failure> {
        self.run(until.as_nanos(), |_| false).map(|_| ())
    }

    /// Runs a task on a host, and the world until the task has ended.
    ///
    /// # Errors
    /// What went wrong, or `Deadlock` if the task waits for what will never happen.
    pub fn block_on<T: Send + 'static>(
        &mut self,
        host: &Host,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        let join = self.spawn(host, task);
        self.run(u64::MAX, |_| join.is_done())?;
        let stuck = || {
            self.failed(
                FailureKind::Deadlock,
                host.id,
                "the task waits for what will never happen",
            )
        };
        join.take().ok_or_else(stuck)
    }

    /// Runs until `done` says so, asked after every event, or until a time has passed: tells which.
    ///
    /// # Errors
    /// What went wrong; the world stands still from then on.
    pub fn run_while_not(
        &mut self,
        limit: Duration,
        done: impl FnMut(&World) -> bool,
    ) -> Result<bool, Failure> {
        let until = Timestamp::from_nanos(self.now) + limit;
        self.run(until.as_nanos(), done)
    }

    fn run(&mut self, limit: u64, mut done: impl FnMut(&World) -> bool) -> Result<bool, Failure> {
        loop {
            self.run_ready();
            if self.probe > 0 && self.failure.is_none() && self.rng.below(self.probe) == 0 {
                self.probe_task();
            }
            if let Some(failure) = &self.failure {
                return Err(failure.clone());
            }
            if done(self) {
                return Ok(true);
            }
            match self.step(limit) {
                Step::Event => {}
                Step::Act(index) => {
                    let action = self.actions.remove(index as usize);
                    action(self);
                }
                Step::Quiet => return Ok(false),
            }
        }
    }

    /// The next event that is due until `limit`; the time is the limit's when there is none.
    fn step(&mut self, limit: u64) -> Step {
        let (now, step) = self.shared.with(|state| {
            let Some((at, due)) = state.queue.pop(limit) else {
                if limit < u64::MAX {
                    state.now = limit;
                }
                return (state.now, Step::Quiet);
            };
            debug_assert!(at >= state.now, "time does not run backwards");
            state.now = at;
            match due {
                Due::Packet(index) => state.arrive(index),
                Due::Connection(index, generation) => state.connection_due(index, generation),
                Due::Timer(index, generation) => state.timer_due(index, generation),
                Due::Action(index) => return (at, Step::Act(index)),
            }
            (at, Step::Event)
        });
        if now != self.now {
            self.now = now;
            self.turns = 0;
        }
        if !matches!(step, Step::Quiet) {
            self.events += 1;
        }
        step
    }

    /// Runs tasks until none is ready.
    fn run_ready(&mut self) {
        while self.failure.is_none() {
            let mut batch = std::mem::take(&mut self.batch);
            std::mem::swap(&mut batch, &mut *self.shared.ready.jobs.lock());
            if batch.is_empty() {
                self.batch = batch;
                return;
            }
            if self.shuffle {
                for index in (1..batch.len()).rev() {
                    batch.swap(index, self.rng.below(index as u64 + 1) as usize);
                }
            }
            for job in batch.drain(..) {
                match job {
                    Job::Poll(id) => self.poll(id),
                    Job::Spawn(host, incarnation, future) => {
                        if self.shared.with(|state| state.hosts[host.index()].incarnation) == incarnation {
                            let id = self.insert(host, future);
                            self.poll(id);
                        }
                    }
                }
            }
            self.batch = batch;
        }
    }

    /// Runs one task, any one, although nobody woke it: it may not come forward by that.
    fn probe_task(&mut self) {
        let (due, before) = self.shared.with(|state| {
            let due = state.queue.next_at().is_some_and(|at| at <= state.now);
            (due, state.progress)
        });
        if due || self.tasks.is_empty() {
            return;
        }
        let place = self.rng.below(self.tasks.len() as u64) as usize;
        let Some((id, host)) = self.tasks.iter().nth(place).map(|(index, task)| {
            let id = TaskId {
                index: index as u32,
                generation: task.generation,
            };
            (id, task.host)
        }) else {
            return;
        };
        if !self.runs(host) {
            return;
        }
        self.poll(id);
        let after = self.shared.with(|state| state.progress);
        if after != before && self.failure.is_none() {
            let text = format!(
                "task {} came forward when it was run, and nobody had woken it",
                id.index
            );
            self.failure = Some(self.failed(FailureKind::LostWakeup, host, &text));
        }
        self.run_ready();
    }

    fn insert(&mut self, host: HostId, future: sheetbend_runtime::BoxFuture<'static, ()>) -> TaskId {
        self.next_generation += 1;
        let entry = self.tasks.vacant_entry();
        let id = TaskId {
            index: entry.key() as u32,
            generation: self.next_generation,
        };
        let flag = Arc::new(TaskWaker {
            id,
            queued: AtomicBool::new(false),
            ready: self.shared.ready.clone(),
        });
        entry.insert(Task {
            future: Some(future),
            waker: Waker::from(flag.clone()),
            flag,
            generation: id.generation,
            host,
            turns: 0,
            turned_at: u64::MAX,
            progress: 0,
        });
        id
    }

    fn poll(&mut self, id: TaskId) {
        let found = self.tasks.get_mut(id.index as usize);
        let Some(task) = found.filter(|task| task.generation == id.generation) else {
            return;
        };
        let host = task.host;
        if !self.runs(host) {
            self.held.push(id);
            return;
        }
        self.polls += 1;
        self.turns += 1;
        self.hash.add(u64::from(id.index));
        let task = &mut self.tasks[id.index as usize];
        task.flag.queued.store(false, Ordering::Relaxed);
        let Some(mut future) = task.future.take() else {
            return;
        };
        if task.turned_at != self.now {
            (task.turned_at, task.turns) = (self.now, 0);
        }
        task.turns += 1;
        let waker = task.waker.clone();
        let turns = task.turns;
        let guard = leaks::Guard::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            future.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        if let Some(leak) = guard.leak() {
            let failure = self.failed(FailureKind::Leak, host, &leak);
            self.failure.get_or_insert(failure);
        }
        if self.shared.breached.swap(false, Ordering::Relaxed) {
            let breach = self.shared.with(|state| state.watch.breach.take());
            self.failure = self.failure.take().or(breach);
        }
        match outcome {
            Ok(Poll::Pending) => {
                // A crash that the task itself brought about has taken its place away.
                if let Some(task) = self.tasks.get_mut(id.index as usize) {
                    task.future = Some(future);
                }
                if turns > MAX_IDLE_TURNS {
                    self.check_stall(id);
                }
            }
            Ok(Poll::Ready(())) => {
                self.tasks.remove(id.index as usize);
                drop(future);
            }
            Err(panic) => {
                let failure = self.failed(FailureKind::Panic, host, &words(&*panic));
                self.failure.get_or_insert(failure);
                self.tasks.remove(id.index as usize);
            }
        }
    }

    fn check_stall(&mut self, id: TaskId) {
        let progress = self.shared.with(|state| state.progress);
        let task = &mut self.tasks[id.index as usize];
        let idle = task.progress == progress;
        (task.progress, task.turns) = (progress, 0);
        let host = task.host;
        if idle || self.turns > MAX_TURNS {
            let text = if idle {
                format!(
                    "task {} was run {MAX_IDLE_TURNS} times at one moment, and nothing came of it",
                    id.index
                )
            } else {
                format!("{MAX_TURNS} turns, and time stands still")
            };
            let failure = self.failed(FailureKind::Stall, host, &text);
            self.failure.get_or_insert(failure);
        }
    }

    pub(super) fn failed(&self, kind: FailureKind, host: HostId, message: &str) -> Failure {
        let name = self.shared.with(|state| state.hosts[host.index()].name.clone());
        Failure::new(kind, self.now(), name, message)
    }
}
