//! A pool of items (sessions, connections, …) for each target, kept for reuse. Ids go in, decisions come out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::backoff::{Backoff, BackoffPolicy};
use crate::rng::Rng;
use crate::time::Timestamp;

mod config;
mod supply;
#[cfg(test)]
mod tests;

pub use config::{Config, Stats};

/// A target, numbered by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u64);

/// An item, numbered by the pool; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(u64);

impl ItemId {
    /// The number; counts up.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// Somebody who waits for an item, numbered by the pool in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(u64);

/// What [`Pool::take`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// This item, at once.
    Item(ItemId),
    /// [`Event::Granted`] or [`Event::Expired`] will come; [`Pool::cancel`] if it is not wanted any more.
    Wait(WaiterId),
}

/// Why nobody may even wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// As many as may wait do.
    #[error("too many wait for this pool")]
    TooManyWaiting,
    /// As many targets as there may be are in use.
    #[error("the pool has too many targets in use")]
    TooManyTargets,
    /// The pool is closed.
    #[error("the pool is closed")]
    Closed,
}

/// In which state an item comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It may be used again.
    Good,
    /// It may not.
    Broken,
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Make this item for the target; then [`Pool::handle_opened`] or [`Pool::handle_open_failed`].
    Open(TargetId, ItemId),
    /// See whether this idle item is well; then [`Pool::handle_checked`].
    Check(ItemId),
    /// Close this item; nothing is to be reported back. One that is being made need not be finished.
    Close(ItemId),
    /// The waiter has the item. If nobody waits any more, give it back.
    Granted(WaiterId, ItemId),
    /// The waiter's deadline passed.
    Expired(WaiterId),
    /// The pool or target was closed while it waited.
    Refused(WaiterId),
}

/// Why [`Pool::handle_timeout`] is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// An event waits to be polled.
    Event,
    /// A waiter's deadline.
    Deadline(WaiterId),
    /// The making of an item takes too long.
    Open(ItemId),
    /// The check of an item takes too long.
    Check(ItemId),
    /// An idle item reaches its age or its idle limit.
    Idle(ItemId),
    /// A target's backoff is over.
    Backoff(TargetId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Opening,
    Idle,
    Checking,
    Busy,
}

#[derive(Debug)]
struct Item {
    target: TargetId,
    place: Place,
    /// Since when it is there.
    since: Timestamp,
    /// When it is too old.
    old_at: Timestamp,
    used: bool,
    timer: Option<(Timestamp, Timer)>,
}

#[derive(Debug)]
struct Target {
    /// The longest idle in front.
    idle: VecDeque<ItemId>,
    waiting: BTreeMap<WaiterId, Timestamp>,
    opening: usize,
    checking: usize,
    busy: usize,
    backoff: Backoff,
    /// Nothing is made before this.
    not_before: Timestamp,
    /// Whether it has an item, and its first waiter, when it wants one more that it cannot have because of
    /// the pool's total.
    unserved: Option<(bool, WaiterId)>,
}

impl Target {
    fn items(&self) -> usize {
        self.idle.len() + self.opening + self.checking + self.busy
    }
}

/// A pool.
///
/// - Commands: [`take`](Self::take), [`give_back`](Self::give_back), [`cancel`](Self::cancel),
///   [`warm`](Self::warm), [`close_target`](Self::close_target), [`close`](Self::close).
/// - Inputs: [`handle_opened`](Self::handle_opened), [`handle_open_failed`](Self::handle_open_failed),
///   [`handle_checked`](Self::handle_checked), [`handle_lost`](Self::handle_lost),
///   [`handle_timeout`](Self::handle_timeout).
/// - Outputs, after each of them: [`poll_event`](Self::poll_event), [`poll_timeout`](Self::poll_timeout).
///
/// Who waits for a target is served in the order of arrival. The item used last is given first, so that what is
/// too many ages and goes. When all places of the pool are taken, the longest idle item of another target makes
/// room; a target without any item gets the next that comes back, in the order of arrival too, so nobody starves.
pub struct Pool {
    config: Config,
    rng: Rng,
    now: Timestamp,
    items: BTreeMap<ItemId, Item>,
    targets: BTreeMap<TargetId, Target>,
    waiters: BTreeMap<WaiterId, TargetId>,
    timers: BTreeSet<(Timestamp, Timer)>,
    /// Idle items of all targets, the longest idle first.
    idle: BTreeSet<(Timestamp, ItemId)>,
    /// Those without an item first, then in the order of arrival.
    unserved: BTreeMap<(bool, WaiterId), TargetId>,
    next: u64,
    closed: bool,
    events: VecDeque<Event>,
    stats: Stats,
}

impl Pool {
    /// An empty pool.
    pub fn new(config: Config, seed: [u8; 32], now: Timestamp) -> Pool {
        Pool {
            config,
            rng: Rng::from_seed(seed),
            now,
            items: BTreeMap::new(),
            targets: BTreeMap::new(),
            waiters: BTreeMap::new(),
            timers: BTreeSet::new(),
            idle: BTreeSet::new(),
            unserved: BTreeMap::new(),
            next: 0,
            closed: false,
            events: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Takes an item of the target, or waits for one until `deadline`, at most [`Config::max_wait`].
    ///
    /// # Errors
    /// [`TakeError`]
    pub fn take(
        &mut self,
        now: Timestamp,
        target: TargetId,
        deadline: Option<Timestamp>,
    ) -> Result<Take, TakeError> {
        self.advance(now);
        if self.closed {
            return Err(TakeError::Closed);
        }
        self.ensure(target)?;
        if let Some(item) = self.take_idle(target) {
            return Ok(Take::Item(item));
        }
        if self.waiters.len() >= self.config.max_waiting {
            self.forget_unused(target);
            return Err(TakeError::TooManyWaiting);
        }
        let waiter = WaiterId(self.number());
        let latest = self.now + self.config.max_wait;
        let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
        self.waiters.insert(waiter, target);
        self.timers.insert((deadline, Timer::Deadline(waiter)));
        if let Some(state) = self.targets.get_mut(&target) {
            state.waiting.insert(waiter, deadline);
        }
        self.stats.waits += 1;
        self.supply(target);
        Ok(Take::Wait(waiter))
    }

    /// An idle item that can be had without a check, when nobody was there first.
    fn take_idle(&mut self, target: TargetId) -> Option<ItemId> {
        let state = self.targets.get(&target)?;
        if !state.waiting.is_empty() {
            return None;
        }
        let id = *state.idle.back()?;
        let item = self.items.get(&id)?;
        if item.old_at <= self.now || self.is_stale(item) {
            return None;
        }
        self.make_busy(id);
        Some(id)
    }

    /// Gives an item back that [`Take::Item`] or [`Event::Granted`] gave.
    pub fn give_back(&mut self, now: Timestamp, id: ItemId, condition: Condition) {
        self.advance(now);
        let Some(item) = self.items.get(&id).filter(|item| item.place == Place::Busy) else {
            return;
        };
        let (target, old) = (item.target, item.old_at <= self.now);
        if condition == Condition::Broken || old || self.closed || self.is_wanted_elsewhere(target) {
            self.remove(id, true);
        } else {
            self.make_idle(id);
        }
        self.supply(target);
    }

    /// Nobody waits any more under this id. Whether it was still waiting: otherwise [`Event::Granted`] was
    /// polled or is to come, and the item is to be given back.
    pub fn cancel(&mut self, now: Timestamp, waiter: WaiterId) -> bool {
        self.advance(now);
        let Some(target) = self.drop_waiter(waiter) else {
            return false;
        };
        self.supply(target);
        true
    }

    /// Keeps [`Config::min_idle`] items for the target from now on, also before the first take.
    ///
    /// # Errors
    /// [`TakeError`]
    pub fn warm(&mut self, now: Timestamp, target: TargetId) -> Result<(), TakeError> {
        self.advance(now);
        if self.closed {
            return Err(TakeError::Closed);
        }
        self.ensure(target)?;
        self.supply(target);
        Ok(())
    }

    /// The item is made.
    pub fn handle_opened(&mut self, now: Timestamp, id: ItemId) {
        self.advance(now);
        let Some(item) = self.items.get(&id).filter(|item| item.place == Place::Opening) else {
            return;
        };
        let target = item.target;
        self.stats.opened += 1;
        if let Some(state) = self.targets.get_mut(&target) {
            state.backoff.reset();
        }
        self.make_idle(id);
        self.supply(target);
    }

    /// The item could not be made. Those who wait go on waiting; the next is made after a backoff.
    pub fn handle_open_failed(&mut self, now: Timestamp, id: ItemId) {
        self.advance(now);
        if self
            .items
            .get(&id)
            .is_some_and(|item| item.place == Place::Opening)
        {
            self.open_failed(id, false);
        }
    }

    fn open_failed(&mut self, id: ItemId, close: bool) {
        let Some(target) = self.remove(id, close) else {
            return;
        };
        self.stats.open_failures += 1;
        let now = self.now;
        if let Some(state) = self.targets.get_mut(&target) {
            let longest = self.config.max_backoff;
            let delay = state.backoff.next(now, &mut self.rng).unwrap_or(longest);
            self.timers.remove(&(state.not_before, Timer::Backoff(target)));
            state.not_before = state.not_before.max(now + delay);
            self.timers.insert((state.not_before, Timer::Backoff(target)));
        }
        self.supply(target);
    }

    /// A check is over.
    pub fn handle_checked(&mut self, now: Timestamp, id: ItemId, healthy: bool) {
        self.advance(now);
        let Some(item) = self.items.get(&id).filter(|item| item.place == Place::Checking) else {
            return;
        };
        let target = item.target;
        if healthy {
            self.make_idle(id);
        } else {
            self.stats.failed_checks += 1;
            self.remove(id, true);
        }
        self.supply(target);
    }

    /// An item is gone by itself, wherever it was. A busy one need not be given back then.
    pub fn handle_lost(&mut self, now: Timestamp, id: ItemId) {
        self.advance(now);
        if self
            .items
            .get(&id)
            .is_some_and(|item| item.place == Place::Opening)
        {
            self.open_failed(id, false);
        } else if let Some(target) = self.remove(id, false) {
            self.supply(target);
        }
    }

    /// Closes what is idle or being made for the target, and refuses who waits. Busy items are closed when they
    /// come back broken or old, as ever.
    pub fn close_target(&mut self, now: Timestamp, target: TargetId) {
        self.advance(now);
        let Some(state) = self.targets.get(&target) else {
            return;
        };
        let waiters: Vec<_> = state.waiting.keys().copied().collect();
        for waiter in waiters {
            self.drop_waiter(waiter);
            self.events.push_back(Event::Refused(waiter));
        }
        let items: Vec<_> = self
            .items
            .iter()
            .filter(|(_, item)| item.target == target && item.place != Place::Busy)
            .map(|(id, _)| *id)
            .collect();
        for id in items {
            self.remove(id, true);
        }
        self.forget_unused(target);
        self.feed_unserved();
    }

    /// Closes everything; busy items when they come back. Nothing is given out any more.
    pub fn close(&mut self, now: Timestamp) {
        self.closed = true;
        let targets: Vec<_> = self.targets.keys().copied().collect();
        for target in targets {
            self.close_target(now, target);
        }
    }

    /// What to do next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, Timer)> {
        match self.events.is_empty() {
            false => Some((self.now, Timer::Event)),
            true => self.timers.first().copied(),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.advance(now);
        while let Some(&(at, timer)) = self.timers.first() {
            if at > self.now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Event => {}
                Timer::Deadline(waiter) => {
                    if let Some(target) = self.drop_waiter(waiter) {
                        self.stats.expired += 1;
                        self.events.push_back(Event::Expired(waiter));
                        self.supply(target);
                    }
                }
                Timer::Open(id) => self.open_failed(id, true),
                Timer::Check(id) => {
                    self.stats.failed_checks += 1;
                    if let Some(target) = self.remove(id, true) {
                        self.supply(target);
                    }
                }
                Timer::Idle(id) => self.idle_timeout(id),
                Timer::Backoff(target) => {
                    self.supply(target);
                    self.forget_unused(target);
                }
            }
        }
    }

    fn idle_timeout(&mut self, id: ItemId) {
        let Some(item) = self.items.get_mut(&id) else {
            return;
        };
        item.timer = None;
        let (target, old) = (item.target, item.old_at <= self.now);
        let spare = self.targets.get(&target).map_or(0, |state| state.idle.len());
        if old || spare > self.config.min_idle {
            self.remove(id, true);
            self.supply(target);
        } else {
            self.arm_idle(id);
        }
        self.forget_unused(target);
    }

    /// Whether anything is known of the target. One that is not used is forgotten.
    pub fn knows(&self, target: TargetId) -> bool {
        self.targets.contains_key(&target)
    }

    /// Counts and gauges.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        for state in self.targets.values() {
            stats.idle += state.idle.len();
            stats.busy += state.busy;
            stats.opening += state.opening;
            stats.checking += state.checking;
        }
        stats.waiting = self.waiters.len();
        stats.targets = self.targets.len();
        stats
    }

    fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn ensure(&mut self, target: TargetId) -> Result<(), TakeError> {
        if self.targets.contains_key(&target) {
            return Ok(());
        }
        if self.targets.len() >= self.config.max_targets {
            return Err(TakeError::TooManyTargets);
        }
        let state = Target {
            idle: VecDeque::new(),
            waiting: BTreeMap::new(),
            opening: 0,
            checking: 0,
            busy: 0,
            backoff: Backoff::new(BackoffPolicy::decorrelated(
                self.config.min_backoff,
                self.config.max_backoff,
            )),
            not_before: Timestamp::ZERO,
            unserved: None,
        };
        self.targets.insert(target, state);
        Ok(())
    }
}

/// The longest that anybody waits, by default.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
