//! The pool's tasks: one that minds its deadlines, and one for each item that is made or checked.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use sheetbend_core::policy::pool::ItemId;

use super::state::Todo;
use super::{Inner, Manage};
use crate::rt::{BoxFuture, Timer};

/// Minds the deadlines until the pool is closed.
pub(super) struct Keeper<M: Manage> {
    inner: Arc<Inner<M>>,
    timer: Option<Box<dyn Timer>>,
}

impl<M: Manage> Keeper<M> {
    pub(super) fn new(inner: Arc<Inner<M>>) -> Keeper<M> {
        Keeper { inner, timer: None }
    }
}

impl<M: Manage> Future for Keeper<M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Keeper { inner, timer } = &mut *self;
        loop {
            let now = inner.runtime.now();
            let mut todo = Todo::default();
            let next = {
                let mut state = inner.state.lock();
                state.core.handle_timeout(now);
                state.settle(&mut todo);
                if state.closed {
                    drop(state);
                    inner.carry_out(todo);
                    return Poll::Ready(());
                }
                state.sleep(cx)
            };
            inner.carry_out(todo);
            let Some(next) = next else { return Poll::Pending };
            let timer = match timer {
                Some(timer) => {
                    timer.reset(next);
                    timer
                }
                None => timer.insert(inner.runtime.timer(next)),
            };
            ready!(timer.poll_expired(cx));
        }
    }
}

/// The making or the check of an item. It ends when the pool wants neither any more.
pub(super) struct Work<M: Manage> {
    inner: Arc<Inner<M>>,
    id: ItemId,
    kind: Kind<M>,
}

enum Kind<M: Manage> {
    Open(BoxFuture<'static, Result<M::Item, String>>),
    Check(BoxFuture<'static, bool>),
}

impl<M: Manage> Work<M> {
    pub(super) fn open(
        inner: Arc<Inner<M>>,
        id: ItemId,
        open: BoxFuture<'static, Result<M::Item, String>>,
    ) -> Work<M> {
        let kind = Kind::Open(open);
        Work { inner, id, kind }
    }

    pub(super) fn check(inner: Arc<Inner<M>>, id: ItemId, check: BoxFuture<'static, bool>) -> Work<M> {
        let kind = Kind::Check(check);
        Work { inner, id, kind }
    }
}

impl<M: Manage> Future for Work<M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Work { inner, id, kind } = &mut *self;
        if !inner.state.lock().arm_task(*id, cx) {
            return Poll::Ready(());
        }
        match kind {
            Kind::Open(open) => {
                let result = ready!(open.as_mut().poll(cx));
                inner.opened(*id, result);
            }
            Kind::Check(check) => {
                let well = ready!(check.as_mut().poll(cx));
                inner.act(|state, now| state.checked(now, *id, well));
            }
        }
        Poll::Ready(())
    }
}

impl<M: Manage> Inner<M> {
    fn opened(self: &Arc<Self>, id: ItemId, result: Result<M::Item, String>) {
        let result = result.map(Arc::new);
        let made = result.as_ref().ok().cloned();
        if let Some(unwanted) = self.act(|state, now| state.opened(now, id, result)) {
            return self.manager.close(unwanted);
        }
        if let Some(ended) = made.and_then(|item| self.manager.ended(&item)) {
            let pool = Arc::downgrade(self);
            self.runtime.spawn(Box::pin(watch(pool, id, ended)));
        }
    }
}

async fn watch<M: Manage>(pool: Weak<Inner<M>>, id: ItemId, ended: BoxFuture<'static, ()>) {
    ended.await;
    if let Some(pool) = pool.upgrade() {
        if let Some(item) = pool.act(|state, now| state.lost(now, id)) {
            pool.manager.close(item);
        }
    }
}
