//! Who gets what, and what is made or closed for it.

use super::{Event, Item, ItemId, Place, Pool, TargetId, Timer, WaiterId};

impl Pool {
    /// Serves those who wait for the target from what is idle, and has made what is missing.
    pub(super) fn supply(&mut self, target: TargetId) {
        self.serve_from_idle(target);
        // Before the target's own wants: a place that it gave up was given up for them.
        self.feed_unserved();
        self.open_missing(target);
        self.note_unserved(target);
        self.forget_unused(target);
    }

    fn serve_from_idle(&mut self, target: TargetId) {
        while let Some(state) = self.targets.get(&target) {
            let Some(&id) = state.idle.back() else { return };
            // Checks are for those who wait and have no check or item under way for them yet.
            let unserved = state.waiting.len().saturating_sub(state.checking);
            if unserved == 0 {
                return;
            }
            let Some(item) = self.items.get(&id) else { return };
            if item.old_at <= self.now {
                self.remove(id, true);
            } else if self.is_stale(item) {
                self.check(id);
            } else {
                self.grant_first(target, id);
            }
        }
    }

    fn grant_first(&mut self, target: TargetId, id: ItemId) {
        let first = self
            .targets
            .get(&target)
            .and_then(|state| state.waiting.keys().next().copied());
        let Some(waiter) = first else { return };
        self.drop_waiter(waiter);
        self.make_busy(id);
        self.events.push_back(Event::Granted(waiter, id));
    }

    /// Makes items for those who wait, then for the idle minimum.
    fn open_missing(&mut self, target: TargetId) {
        while let Some(state) = self.targets.get(&target) {
            if self.closed || state.not_before > self.now || state.items() >= self.config.max_per_target {
                return;
            }
            let coming = state.opening + state.checking;
            let missing = state.waiting.len() > coming;
            let thin = (state.idle.len() + coming).saturating_sub(state.waiting.len()) < self.config.min_idle;
            if !missing && !thin {
                return;
            }
            if self.items.len() >= self.config.max_total && !(missing && self.evict_idle(target)) {
                return;
            }
            self.open(target);
        }
    }

    fn open(&mut self, target: TargetId) {
        let id = ItemId(self.number());
        let spread = self
            .rng
            .duration(std::time::Duration::ZERO, self.config.max_age / 10);
        let timer = (self.now + self.config.open_timeout, Timer::Open(id));
        self.timers.insert(timer);
        let item = Item {
            target,
            place: Place::Opening,
            since: self.now,
            old_at: self.now + self.config.max_age.saturating_sub(spread),
            used: false,
            timer: Some(timer),
        };
        self.items.insert(id, item);
        if let Some(state) = self.targets.get_mut(&target) {
            state.opening += 1;
        }
        self.events.push_back(Event::Open(target, id));
    }

    /// Closes the longest idle item of another target.
    fn evict_idle(&mut self, not_of: TargetId) -> bool {
        let Some(&(_, id)) = self.idle.first() else {
            return false;
        };
        debug_assert!(self.items.get(&id).is_none_or(|item| item.target != not_of));
        let Some(target) = self.remove(id, true) else {
            return false;
        };
        self.forget_unused(target);
        true
    }

    /// Notes whether the target wants an item that it cannot have while the pool is full.
    fn note_unserved(&mut self, target: TargetId) {
        let full = self.items.len() >= self.config.max_total;
        let Some(state) = self.targets.get_mut(&target) else {
            return;
        };
        let wants = full
            && state.waiting.len() > state.opening + state.checking
            && state.items() < self.config.max_per_target
            && state.not_before <= self.now;
        let first = state.waiting.keys().next().copied().filter(|_| wants);
        let is = first.map(|waiter| (state.items() > 0, waiter));
        if state.unserved != is {
            if let Some(before) = std::mem::replace(&mut state.unserved, is) {
                self.unserved.remove(&before);
            }
            if let Some(key) = is {
                self.unserved.insert(key, target);
            }
        }
    }

    /// Lets targets that could have nothing have what room there is: first those without any item, in the
    /// order of arrival.
    pub(super) fn feed_unserved(&mut self) {
        while let Some((&(has_some, waiter), &target)) = self.unserved.first_key_value() {
            let full = self.items.len() >= self.config.max_total;
            // Idle items go for those who have none; who has some waits for its own.
            if full && (has_some || self.idle.is_empty()) {
                return;
            }
            self.open_missing(target);
            self.note_unserved(target);
            if self
                .targets
                .get(&target)
                .is_some_and(|state| state.unserved == Some((has_some, waiter)))
            {
                return;
            }
        }
    }

    /// Whether a target without any item is first in line for the place of an item that comes back.
    pub(super) fn is_wanted_elsewhere(&self, target: TargetId) -> bool {
        let Some(((false, starved), _)) = self.unserved.first_key_value() else {
            return false;
        };
        let own = self
            .targets
            .get(&target)
            .and_then(|state| state.waiting.keys().next());
        own.is_none_or(|own| starved < own)
    }

    /// Whether it was idle for so long that it is to be checked first.
    pub(super) fn is_stale(&self, item: &Item) -> bool {
        let idle = self.now.since(item.since);
        item.used && self.config.check_after.is_some_and(|after| idle > after)
    }

    fn check(&mut self, id: ItemId) {
        self.leave_place(id);
        self.enter_place(id, Place::Checking);
        self.set_timer(id, Some((self.now + self.config.check_timeout, Timer::Check(id))));
        self.events.push_back(Event::Check(id));
    }

    pub(super) fn make_busy(&mut self, id: ItemId) {
        self.leave_place(id);
        self.enter_place(id, Place::Busy);
        self.set_timer(id, None);
        self.stats.granted += 1;
        if let Some(item) = self.items.get_mut(&id) {
            self.stats.reused += u64::from(item.used);
            item.used = true;
        }
    }

    pub(super) fn make_idle(&mut self, id: ItemId) {
        self.leave_place(id);
        self.enter_place(id, Place::Idle);
        self.arm_idle(id);
    }

    pub(super) fn arm_idle(&mut self, id: ItemId) {
        let Some(old_at) = self.items.get(&id).map(|item| item.old_at) else {
            return;
        };
        let at = old_at.min(self.now + self.config.idle_timeout);
        self.set_timer(id, Some((at.max(self.now), Timer::Idle(id))));
    }

    fn set_timer(&mut self, id: ItemId, timer: Option<(crate::time::Timestamp, Timer)>) {
        let Some(item) = self.items.get_mut(&id) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut item.timer, timer) {
            self.timers.remove(&before);
        }
        self.timers.extend(timer);
    }

    fn leave_place(&mut self, id: ItemId) {
        let Some(item) = self.items.get(&id) else {
            return;
        };
        let Some(state) = self.targets.get_mut(&item.target) else {
            return;
        };
        match item.place {
            Place::Opening => state.opening -= 1,
            Place::Checking => state.checking -= 1,
            Place::Busy => state.busy -= 1,
            Place::Idle => {
                self.idle.remove(&(item.since, id));
                // Given out from the back, evicted from the front: one of the two in nearly every case.
                if state.idle.back() == Some(&id) {
                    state.idle.pop_back();
                } else if let Some(at) = state.idle.iter().position(|other| *other == id) {
                    state.idle.remove(at);
                }
            }
        }
    }

    fn enter_place(&mut self, id: ItemId, place: Place) {
        let Some(item) = self.items.get_mut(&id) else {
            return;
        };
        item.place = place;
        item.since = self.now;
        let Some(state) = self.targets.get_mut(&item.target) else {
            return;
        };
        match place {
            Place::Opening => state.opening += 1,
            Place::Checking => state.checking += 1,
            Place::Busy => state.busy += 1,
            Place::Idle => {
                state.idle.push_back(id);
                self.idle.insert((item.since, id));
            }
        }
    }

    /// Forgets an item, and tells the driver if it is to close it. Gives its target.
    pub(super) fn remove(&mut self, id: ItemId, close: bool) -> Option<TargetId> {
        self.set_timer(id, None);
        self.leave_place(id);
        let item = self.items.remove(&id)?;
        if item.place != Place::Opening {
            self.stats.closed += 1;
        }
        if close {
            self.events.push_back(Event::Close(id));
        }
        Some(item.target)
    }

    /// Takes a waiter out of its line. Gives its target.
    pub(super) fn drop_waiter(&mut self, waiter: WaiterId) -> Option<TargetId> {
        let target = self.waiters.remove(&waiter)?;
        if let Some(state) = self.targets.get_mut(&target) {
            if let Some(deadline) = state.waiting.remove(&waiter) {
                self.timers.remove(&(deadline, Timer::Deadline(waiter)));
            }
        }
        self.note_unserved(target);
        Some(target)
    }

    /// Forgets a target that has nothing, and of which nothing is to be remembered.
    pub(super) fn forget_unused(&mut self, target: TargetId) {
        let warm = self.config.min_idle > 0 && !self.closed;
        let unused = self.targets.get(&target).is_some_and(|state| {
            state.items() == 0 && state.waiting.is_empty() && (state.not_before <= self.now || self.closed)
        });
        if unused && !warm {
            if let Some(state) = self.targets.remove(&target) {
                self.timers.remove(&(state.not_before, Timer::Backoff(target)));
            }
        }
    }
}
