//! What is behind the pool's lock: the machine, and the items, tasks and waiters that its ids stand for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use sheetbend_core::policy::pool::{Condition, Event, ItemId, Pool, Take, TargetId, WaiterId};
use sheetbend_core::time::Timestamp;

use super::{Manage, PoolError};
use crate::shared::store;

/// Names of targets are looked through for those that the machine has forgotten when there are more than this.
const NAMES: usize = 64;

/// An item on its way to whoever takes it.
pub(super) type Given<M> = (ItemId, Arc<<M as Manage>::Item>);

/// What taking comes to.
pub(super) enum Taken<M: Manage> {
    Has(Given<M>),
    Waits(WaiterId),
}

/// What is to be done outside of the lock.
pub(super) struct Todo<M: Manage> {
    pub(super) open: Vec<(ItemId, M::Target)>,
    pub(super) check: Vec<Given<M>>,
    pub(super) close: Vec<Arc<M::Item>>,
    pub(super) wake: Vec<Waker>,
}

impl<M: Manage> Default for Todo<M> {
    fn default() -> Todo<M> {
        Todo {
            open: Vec::new(),
            check: Vec::new(),
            close: Vec::new(),
            wake: Vec::new(),
        }
    }
}

struct Known<M: Manage> {
    name: M::Target,
    /// Why its last item could not be made, if none was made since.
    failure: Option<String>,
}

enum Waiter<M: Manage> {
    Waiting(TargetId, Waker),
    Done(Result<Given<M>, PoolError>),
}

pub(super) struct State<M: Manage> {
    pub(super) core: Pool,
    ids: BTreeMap<M::Target, TargetId>,
    known: BTreeMap<TargetId, Known<M>>,
    next_target: u64,
    /// With so many names it is time to look which are forgotten.
    names: usize,
    /// Every item that the machine knows and that is made.
    items: BTreeMap<ItemId, Arc<M::Item>>,
    /// What is being made or checked, for whom, and whom to wake to have it stop.
    tasks: BTreeMap<ItemId, (Option<TargetId>, Option<Waker>)>,
    waiters: BTreeMap<WaiterId, Waiter<M>>,
    /// The task that minds the deadlines, and until when it sleeps.
    keeper: Option<Waker>,
    sleeps_until: Option<Timestamp>,
    pub(super) closed: bool,
}

impl<M: Manage> State<M> {
    pub(super) fn new(core: Pool) -> State<M> {
        State {
            core,
            ids: BTreeMap::new(),
            known: BTreeMap::new(),
            next_target: 0,
            names: NAMES,
            items: BTreeMap::new(),
            tasks: BTreeMap::new(),
            waiters: BTreeMap::new(),
            keeper: None,
            sleeps_until: None,
            closed: false,
        }
    }

    pub(super) fn id_of(&mut self, target: &M::Target) -> TargetId {
        if let Some(id) = self.ids.get(target) {
            return *id;
        }
        if self.ids.len() >= self.names {
            let core = &self.core;
            self.ids.retain(|_, id| core.knows(*id));
            self.known.retain(|id, _| core.knows(*id));
            self.names = NAMES.max(2 * self.ids.len());
        }
        let id = TargetId(self.next_target);
        self.next_target += 1;
        self.ids.insert(target.clone(), id);
        let name = target.clone();
        self.known.insert(id, Known { name, failure: None });
        id
    }

    /// Takes an item, or stands in line.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        target: &M::Target,
        deadline: Option<Timestamp>,
        cx: &Context<'_>,
    ) -> Result<Taken<M>, PoolError> {
        let id = self.id_of(target);
        match self.core.take(now, id, deadline)? {
            Take::Item(item) => self.given(item).map(Taken::Has),
            Take::Wait(waiter) => {
                let waiting = Waiter::Waiting(id, cx.waker().clone());
                self.waiters.insert(waiter, waiting);
                Ok(Taken::Waits(waiter))
            }
        }
    }

    /// What became of a waiter, who is forgotten then.
    pub(super) fn poll_waiter(
        &mut self,
        own: WaiterId,
        cx: &Context<'_>,
    ) -> Poll<Result<Given<M>, PoolError>> {
        if let Some(Waiter::Waiting(_, waker)) = self.waiters.get_mut(&own) {
            if !waker.will_wake(cx.waker()) {
                waker.clone_from(cx.waker());
            }
            return Poll::Pending;
        }
        match self.waiters.remove(&own) {
            Some(Waiter::Done(outcome)) => Poll::Ready(outcome),
            _ => Poll::Ready(Err(PoolError::Closed)),
        }
    }

    /// Nobody waits under this id any more. What it was given goes back.
    pub(super) fn leave(&mut self, now: Timestamp, own: WaiterId) {
        match self.waiters.remove(&own) {
            Some(Waiter::Done(Ok((id, _)))) => self.core.give_back(now, id, Condition::Good),
            Some(Waiter::Waiting(..)) => {
                self.core.cancel(now, own);
            }
            Some(Waiter::Done(Err(_))) | None => {}
        }
    }

    /// The item that the machine gives out under this id.
    fn given(&self, id: ItemId) -> Result<Given<M>, PoolError> {
        let item = self.items.get(&id).cloned();
        item.map(|item| (id, item)).ok_or(PoolError::Closed)
    }

    // ---- the tasks ----

    /// Notes whom to wake when the task is to stop; `false` if it is to stop now.
    pub(super) fn arm_task(&mut self, id: ItemId, cx: &Context<'_>) -> bool {
        match self.tasks.get_mut(&id) {
            Some((_, waker)) => {
                store(waker, cx);
                true
            }
            None => false,
        }
    }

    /// An item was made, or could not be. Gives it back where nobody wants it any more.
    pub(super) fn opened(
        &mut self,
        now: Timestamp,
        id: ItemId,
        result: Result<Arc<M::Item>, String>,
    ) -> Option<Arc<M::Item>> {
        let Some((target, _)) = self.tasks.remove(&id) else {
            return result.ok();
        };
        let known = target.and_then(|target| self.known.get_mut(&target));
        match result {
            Ok(item) => {
                if let Some(known) = known {
                    known.failure = None;
                }
                self.items.insert(id, item);
                self.core.handle_opened(now, id);
            }
            Err(why) => {
                if let Some(known) = known {
                    known.failure = Some(why);
                }
                self.core.handle_open_failed(now, id);
            }
        }
        None
    }

    pub(super) fn checked(&mut self, now: Timestamp, id: ItemId, well: bool) {
        if self.tasks.remove(&id).is_some() {
            self.core.handle_checked(now, id, well);
        }
    }

    /// An item has ended by itself.
    pub(super) fn lost(&mut self, now: Timestamp, id: ItemId) -> Option<Arc<M::Item>> {
        let item = self.items.remove(&id)?;
        self.core.handle_lost(now, id);
        Some(item)
    }

    // ---- what comes of it ----

    /// Takes the machine's events, and has the task that minds the deadlines woken if one comes sooner.
    pub(super) fn settle(&mut self, todo: &mut Todo<M>) {
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Open(target, id) => match self.known.get(&target) {
                    Some(known) => {
                        self.tasks.insert(id, (Some(target), None));
                        todo.open.push((id, known.name.clone()));
                    }
                    None => debug_assert!(false, "a target without a name"),
                },
                Event::Check(id) => {
                    if let Some(item) = self.items.get(&id) {
                        self.tasks.insert(id, (None, None));
                        todo.check.push((id, item.clone()));
                    }
                }
                Event::Close(id) => self.close_item(id, todo),
                Event::Granted(waiter, id) => {
                    let given = self.given(id);
                    self.tell(waiter, given, todo);
                }
                Event::Expired(waiter) => {
                    let last = self.failure_of(waiter);
                    self.tell(waiter, Err(PoolError::TimedOut { last }), todo);
                }
                Event::Refused(waiter) => self.tell(waiter, Err(PoolError::Closed), todo),
            }
        }
        let next = self.core.poll_timeout().map(|(at, _)| at);
        let sooner = next.is_some_and(|next| self.sleeps_until.is_none_or(|until| next < until));
        if sooner || self.closed {
            todo.wake.extend(self.keeper.take());
        }
    }

    fn close_item(&mut self, id: ItemId, todo: &mut Todo<M>) {
        todo.close.extend(self.items.remove(&id));
        if let Some((_, waker)) = self.tasks.remove(&id) {
            todo.wake.extend(waker);
        }
    }

    fn failure_of(&self, waiter: WaiterId) -> Option<String> {
        match self.waiters.get(&waiter)? {
            Waiter::Waiting(target, _) => self.known.get(target)?.failure.clone(),
            Waiter::Done(_) => None,
        }
    }

    fn tell(&mut self, waiter: WaiterId, outcome: Result<Given<M>, PoolError>, todo: &mut Todo<M>) {
        let Some(slot) = self.waiters.get_mut(&waiter) else {
            debug_assert!(outcome.is_err(), "who leaves has its place in line taken back");
            return;
        };
        if let Waiter::Waiting(_, waker) = std::mem::replace(slot, Waiter::Done(outcome)) {
            todo.wake.push(waker);
        }
    }

    /// Lets the keeper sleep; until when, `None` for without end.
    pub(super) fn sleep(&mut self, cx: &Context<'_>) -> Option<Timestamp> {
        self.sleeps_until = self.core.poll_timeout().map(|(at, _)| at);
        self.keeper = Some(cx.waker().clone());
        self.sleeps_until
    }

    /// How many names of targets are kept: for tests.
    #[cfg(test)]
    pub(super) fn names(&self) -> usize {
        self.ids.len()
    }

    /// Whether nothing is left behind: for tests.
    #[cfg(test)]
    pub(super) fn audit(&self) {
        let stats = self.core.stats();
        assert_eq!(self.items.len(), stats.idle + stats.busy + stats.checking);
        assert_eq!(self.tasks.len(), stats.opening + stats.checking);
        assert_eq!(self.ids.len(), self.known.len());
        let waiting = |waiter: &&Waiter<M>| matches!(waiter, Waiter::Waiting(..));
        assert_eq!(self.waiters.values().filter(waiting).count(), stats.waiting);
    }
}
