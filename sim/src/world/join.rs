//! The outcome of a task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

struct Slot<T> {
    outcome: Option<T>,
    waker: Option<Waker>,
}

/// What a task will return. It may be awaited by other tasks, or taken once the world has run.
pub struct Join<T> {
    slot: Arc<Mutex<Slot<T>>>,
}

impl<T: Send + 'static> Join<T> {
    pub(crate) fn of(
        task: impl Future<Output = T> + Send + 'static,
    ) -> (Join<T>, impl Future<Output = ()> + Send + 'static) {
        let slot = Arc::new(Mutex::new(Slot {
            outcome: None,
            waker: None,
        }));
        let theirs = slot.clone();
        let task = async move {
            let outcome = task.await;
            let mut slot = theirs.lock();
            slot.outcome = Some(outcome);
            let waker = slot.waker.take();
            drop(slot);
            if let Some(waker) = waker {
                waker.wake();
            }
        };
        (Join { slot }, task)
    }

    /// Whether the task has ended and its outcome is still here.
    pub fn is_done(&self) -> bool {
        self.slot.lock().outcome.is_some()
    }

    /// The outcome, once.
    pub fn take(&self) -> Option<T> {
        self.slot.lock().outcome.take()
    }
}

impl<T> Future for Join<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.slot.lock();
        match slot.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
