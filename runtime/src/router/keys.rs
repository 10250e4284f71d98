//! Calls with idempotency keys: the core's table behind a lock, and the repeats that wait. PROTOCOL 11.8.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use sheetbend_core::request::IdempotencyTable;
use sheetbend_core::request::idempotency::{Begin, Config, Event, RequestDigest, Scope, Ticket, WaiterId};
use sheetbend_core::time::Timestamp;

use super::Inner;

/// A repeat that waits.
#[derive(Default)]
struct Waiter {
    event: Option<Turn>,
    waker: Option<Waker>,
}

/// What a repeat is to do after it has waited.
pub(super) enum Turn {
    /// Answer with this.
    Replay(Bytes),
    /// Run the handler: the one before it did not.
    Execute(Ticket),
}

struct State {
    table: IdempotencyTable,
    waiters: BTreeMap<WaiterId, Waiter>,
    next: u64,
}

pub(super) struct Keys {
    state: Mutex<State>,
}

impl Keys {
    pub(super) fn new(config: Config) -> Keys {
        Keys {
            state: Mutex::new(State {
                table: IdempotencyTable::new(config, Timestamp::ZERO),
                waiters: BTreeMap::new(),
                next: 0,
            }),
        }
    }

    /// A request with a key is there; the id is for the case that it has to wait.
    pub(super) fn begin(
        &self,
        now: Timestamp,
        scope: u64,
        key: &[u8],
        digest: RequestDigest,
    ) -> (Begin, WaiterId) {
        let mut state = self.state.lock();
        state.next += 1;
        let id = WaiterId(state.next);
        let begin = state.table.begin(now, Scope(scope), key, digest, id);
        if begin == Begin::Wait {
            state.waiters.insert(id, Waiter::default());
        }
        (begin, id)
    }

    /// What a repeat is to do.
    pub(super) fn poll_turn(&self, id: WaiterId, cx: &Task<'_>) -> Poll<Turn> {
        let mut state = self.state.lock();
        let Some(waiter) = state.waiters.get_mut(&id) else {
            return Poll::Pending;
        };
        match waiter.event.take() {
            Some(turn) => {
                state.waiters.remove(&id);
                Poll::Ready(turn)
            }
            None => {
                waiter.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// A repeat waits no longer. If it was its turn to run, that goes to the next.
    pub(super) fn cancel_wait(&self, now: Timestamp, id: WaiterId) {
        let waiter = {
            let mut state = self.state.lock();
            state.table.cancel_wait(id);
            state.waiters.remove(&id)
        };
        if let Some(Turn::Execute(ticket)) = waiter.and_then(|waiter| waiter.event) {
            self.settle(now, ticket, None);
        }
    }

    /// A request was executed with this answer, or will not be.
    fn settle(&self, now: Timestamp, ticket: Ticket, answer: Option<Bytes>) {
        let mut wakers = Vec::new();
        {
            let mut state = self.state.lock();
            match answer {
                Some(answer) => state.table.complete(now, ticket, answer),
                None => state.table.abandon(now, ticket),
            }
            while let Some(event) = state.table.poll_event() {
                let (id, turn) = match event {
                    Event::Replay(id, answer) => (id, Turn::Replay(answer)),
                    Event::Execute(id, ticket) => (id, Turn::Execute(ticket)),
                };
                if let Some(waiter) = state.waiters.get_mut(&id) {
                    waiter.event = Some(turn);
                    wakers.extend(waiter.waker.take());
                }
            }
        }
        for waker in wakers {
            waker.wake();
        }
    }
}

/// An execution under a key. Dropping it unsettled leaves the key free if its handler never began, and
/// otherwise notes `cut`: whatever becomes of the task, no repeat runs.
pub(super) struct Execution {
    pub(super) inner: Arc<Inner>,
    pub(super) now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    pub(super) ticket: Option<Ticket>,
    /// The answer to repeats should this be dropped; set when the handler begins.
    pub(super) cut: Option<Bytes>,
}

impl Execution {
    /// It was executed, or refused before that.
    pub(super) fn settle(mut self, answer: Option<Bytes>) {
        self.cut = answer;
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        if let (Some(ticket), Some(keys)) = (self.ticket.take(), &self.inner.keys) {
            keys.settle((self.now)(), ticket, self.cut.take());
        }
    }
}
