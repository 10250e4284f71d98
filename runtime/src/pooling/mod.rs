//! A pool of what is made for a target and kept for reuse: sessions, plain connections, or anything else.
//!
//! [`policy::pool`](sheetbend_core::policy::pool) decides; this carries out what it says. [`Manage`] tells how
//! items are made, checked and closed.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::policy::pool::{self as policy, Condition, ItemId, WaiterId};
use sheetbend_core::time::Timestamp;

use crate::rt::{BoxFuture, Runtime};

mod manage;
mod state;
#[cfg(test)]
mod tests;
mod work;

pub use manage::{Sessions, SessionsTo, Sockets};
pub use sheetbend_core::policy::pool::{Config as PoolConfig, Stats as PoolStats};

use state::{Given, State, Taken, Todo};
use work::{Keeper, Work};

/// How the items of a [`Pool`] are made, checked and closed. Nothing of it is called under the pool's lock.
pub trait Manage: Send + Sync + 'static {
    /// What an item is made for.
    type Target: Ord + Clone + Send + Sync + 'static;
    /// What is pooled.
    type Item: Send + Sync + 'static;

    /// Makes an item. The future is dropped when it takes longer than [`PoolConfig::open_timeout`], or is not
    /// needed any more. The error is for people: who waits in vain reads it.
    fn open(&self, target: &Self::Target) -> BoxFuture<'static, Result<Self::Item, String>>;

    /// Whether an item may be given out, as far as that can be seen at once. Asked when one is taken out and when
    /// it comes back.
    fn is_well(&self, item: &Self::Item) -> bool;

    /// Whether an item that was idle for long is well. Dropped after [`PoolConfig::check_timeout`], which is as
    /// good as "no".
    fn check(&self, item: &Arc<Self::Item>) -> BoxFuture<'static, bool>;

    /// Ready once the item has ended by itself, for items that can tell.
    fn ended(&self, _item: &Arc<Self::Item>) -> Option<BoxFuture<'static, ()>> {
        None
    }

    /// The pool has no use for the item any more. Who was given it may hold it still.
    fn close(&self, item: Arc<Self::Item>);
}

/// Why [`Pool::take`] gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The deadline passed, or [`PoolConfig::max_wait`].
    #[error("no item came free in time{}", last.as_ref().map(|why| format!("; the last could not be made: {why}")).unwrap_or_default())]
    TimedOut {
        /// Why the target's last item could not be made, if none was made since.
        last: Option<String>,
    },
    /// As many as may wait do.
    #[error("too many wait for this pool")]
    TooManyWaiting,
    /// As many targets as there may be are in use.
    #[error("the pool has too many targets in use")]
    TooManyTargets,
    /// The pool or the target was closed.
    #[error("the pool is closed")]
    Closed,
}

impl From<policy::TakeError> for PoolError {
    fn from(error: policy::TakeError) -> PoolError {
        match error {
            policy::TakeError::TooManyWaiting => PoolError::TooManyWaiting,
            policy::TakeError::TooManyTargets => PoolError::TooManyTargets,
            policy::TakeError::Closed => PoolError::Closed,
        }
    }
}

/// A pool. Clones are the same pool; when the last is dropped it closes, but for what is given out.
pub struct Pool<M: Manage> {
    owner: Arc<Owner<M>>,
}

impl<M: Manage> Clone for Pool<M> {
    fn clone(&self) -> Pool<M> {
        Pool {
            owner: self.owner.clone(),
        }
    }
}

struct Owner<M: Manage>(Arc<Inner<M>>);

impl<M: Manage> Drop for Owner<M> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Inner<M: Manage> {
    runtime: Arc<dyn Runtime>,
    manager: M,
    state: Mutex<State<M>>,
}

impl<M: Manage> Pool<M> {
    /// An empty pool, with a task that minds its deadlines.
    pub fn new(runtime: Arc<dyn Runtime>, manager: M, config: PoolConfig) -> Pool<M> {
        let core = policy::Pool::new(config, runtime.seed(), runtime.now());
        let inner = Arc::new(Inner {
            state: Mutex::new(State::new(core)),
            manager,
            runtime: runtime.clone(),
        });
        runtime.spawn(Box::pin(Keeper::new(inner.clone())));
        Pool {
            owner: Arc::new(Owner(inner)),
        }
    }

    fn inner(&self) -> &Arc<Inner<M>> {
        &self.owner.0
    }

    /// Takes an item of the target, waiting in line for [`PoolConfig::max_wait`] at most. Dropping the future
    /// leaves the line.
    ///
    /// # Errors
    /// [`PoolError`]
    pub fn take(&self, target: M::Target) -> Take<'_, M> {
        self.take_by(target, None)
    }

    /// Likewise, waiting no longer than `time`.
    ///
    /// # Errors
    /// [`PoolError`]
    pub fn take_within(&self, target: M::Target, time: Duration) -> Take<'_, M> {
        let deadline = self.inner().runtime.now() + time;
        self.take_by(target, Some(deadline))
    }

    fn take_by(&self, target: M::Target, deadline: Option<Timestamp>) -> Take<'_, M> {
        Take {
            inner: self.inner(),
            target,
            deadline,
            waiter: None,
        }
    }

    /// Keeps [`PoolConfig::min_idle`] items for the target from now on, also before the first take.
    ///
    /// # Errors
    /// [`PoolError::TooManyTargets`] and [`PoolError::Closed`].
    pub fn warm(&self, target: &M::Target) -> Result<(), PoolError> {
        let inner = self.inner();
        inner.act(|state, now| {
            let id = state.id_of(target);
            Ok(state.core.warm(now, id)?)
        })
    }

    /// Closes what is idle or being made for the target, and refuses who waits. What is given out goes on.
    pub fn close_target(&self, target: &M::Target) {
        self.inner().act(|state, now| {
            let id = state.id_of(target);
            state.core.close_target(now, id);
        });
    }

    /// Closes everything; what is given out when it comes back. Nothing is given out any more.
    pub fn close(&self) {
        self.inner().close();
    }

    /// Counts and gauges.
    pub fn stats(&self) -> PoolStats {
        self.inner().state.lock().core.stats()
    }
}

impl<M: Manage> fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.stats()).finish()
    }
}

impl<M: Manage> Inner<M> {
    /// Runs a command, and carries out what came of it once the lock is released.
    fn act<T>(self: &Arc<Self>, command: impl FnOnce(&mut State<M>, Timestamp) -> T) -> T {
        let now = self.runtime.now();
        let mut todo = Todo::default();
        let result = {
            let mut state = self.state.lock();
            let result = command(&mut state, now);
            state.settle(&mut todo);
            result
        };
        self.carry_out(todo);
        result
    }

    fn carry_out(self: &Arc<Self>, todo: Todo<M>) {
        for item in todo.close {
            self.manager.close(item);
        }
        for (id, target) in todo.open {
            let open = self.manager.open(&target);
            self.runtime.spawn(Box::pin(Work::open(self.clone(), id, open)));
        }
        for (id, item) in todo.check {
            let check = self.manager.check(&item);
            self.runtime.spawn(Box::pin(Work::check(self.clone(), id, check)));
        }
        for waker in todo.wake {
            waker.wake();
        }
    }

    fn close(self: &Arc<Self>) {
        self.act(|state, now| {
            state.core.close(now);
            state.closed = true;
        });
    }

    fn give_back(self: &Arc<Self>, id: ItemId, condition: Condition) {
        self.act(|state, now| state.core.give_back(now, id, condition));
    }

    /// Whether what was given out is well; what is not goes back at once.
    fn pooled(self: &Arc<Self>, given: Given<M>) -> Option<Pooled<M>> {
        let (id, item) = given;
        if self.manager.is_well(&item) {
            return Some(Pooled {
                inner: self.clone(),
                id,
                item,
                broken: false,
            });
        }
        self.give_back(id, Condition::Broken);
        None
    }
}

/// The future of [`Pool::take`].
pub struct Take<'a, M: Manage> {
    inner: &'a Arc<Inner<M>>,
    target: M::Target,
    deadline: Option<Timestamp>,
    waiter: Option<WaiterId>,
}

impl<M: Manage> Unpin for Take<'_, M> {}

impl<M: Manage> Future for Take<'_, M> {
    type Output = Result<Pooled<M>, PoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Take {
            inner,
            target,
            deadline,
            waiter,
        } = &mut *self;
        loop {
            let outcome = match *waiter {
                Some(own) => inner.state.lock().poll_waiter(own, cx),
                None => match inner.act(|state, now| state.take(now, target, *deadline, cx)) {
                    Ok(Taken::Waits(own)) => {
                        *waiter = Some(own);
                        continue;
                    }
                    Ok(Taken::Has(given)) => Poll::Ready(Ok(given)),
                    Err(error) => return Poll::Ready(Err(error)),
                },
            };
            match outcome {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(outcome) => {
                    *waiter = None;
                    match outcome {
                        // One that turns out to have ended: the next, if the deadline allows.
                        Ok(given) => {
                            if let Some(pooled) = inner.pooled(given) {
                                return Poll::Ready(Ok(pooled));
                            }
                        }
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
            }
        }
    }
}

impl<M: Manage> Drop for Take<'_, M> {
    fn drop(&mut self) {
        let Some(own) = self.waiter.take() else { return };
        self.inner.act(|state, now| state.leave(now, own));
    }
}

/// An item that was given out. It goes back to its pool when this is dropped.
pub struct Pooled<M: Manage> {
    inner: Arc<Inner<M>>,
    id: ItemId,
    item: Arc<M::Item>,
    broken: bool,
}

impl<M: Manage> Pooled<M> {
    /// Gives it back as one that is not to be used again.
    pub fn discard(mut self) {
        self.broken = true;
    }
}

impl<M: Manage> Deref for Pooled<M> {
    type Target = M::Item;

    fn deref(&self) -> &M::Item {
        &self.item
    }
}

impl<M: Manage> Drop for Pooled<M> {
    fn drop(&mut self) {
        let condition = match self.broken || !self.inner.manager.is_well(&self.item) {
            true => Condition::Broken,
            false => Condition::Good,
        };
        self.inner.give_back(self.id, condition);
    }
}

impl<M: Manage> fmt::Debug for Pooled<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(&self.id.value()).finish()
    }
}
