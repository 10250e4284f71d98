//! Who may run: the core's limiter behind a lock, and the calls that wait for their turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll, Waker};

use parking_lot::Mutex;
use sheetbend_core::request::Limiter;
use sheetbend_core::request::limiter::{Admission, CallId, Config, Event, MethodId, Overload, SessionId};
use sheetbend_core::time::Timestamp;

use super::Inner;

/// Calls that may be answered at once, on different threads, without being counted.
const UNCOUNTED: usize = 256;

/// A call that waits.
#[derive(Default)]
struct Gate {
    open: bool,
    waker: Option<Waker>,
}

struct State {
    limiter: Limiter,
    waiting: BTreeMap<CallId, Gate>,
}

pub(super) struct Limits {
    state: Mutex<State>,
    /// Where this stands, every call asks before it runs.
    fewest: usize,
    crowded: AtomicBool,
}

/// A call that runs, and is counted. Dropping it lets the next one run.
pub(super) struct Permit {
    inner: Arc<Inner>,
    id: CallId,
}

impl Limits {
    pub(super) fn new(config: Config) -> Limits {
        let fewest = config
            .max_running
            .min(config.max_running_per_session)
            .min(config.max_running_per_method);
        Limits {
            // Deadlines are left to the tasks of those who wait, so it needs no clock.
            state: Mutex::new(State {
                limiter: Limiter::new(config, Timestamp::ZERO),
                waiting: BTreeMap::new(),
            }),
            fewest,
            crowded: AtomicBool::new(fewest <= UNCOUNTED),
        }
    }

    pub(super) fn set_method(&self, method: MethodId, limit: usize) {
        let mut state = self.state.lock();
        state
            .limiter
            .set_method_limit(Timestamp::ZERO, method, Some(limit));
    }

    pub(super) fn running(&self) -> usize {
        self.state.lock().limiter.running()
    }

    pub(super) fn waiting(&self) -> usize {
        self.state.lock().limiter.waiting()
    }

    /// Whether so few calls run that one which is answered at once need not be counted.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        !self.crowded.load(Ordering::Relaxed)
    }

    fn note(&self, state: &State) {
        let crowded =
            state.limiter.waiting() > 0 || state.limiter.running().saturating_add(UNCOUNTED) >= self.fewest;
        if self.crowded.load(Ordering::Relaxed) != crowded {
            self.crowded.store(crowded, Ordering::Relaxed);
        }
    }

    /// Asks whether a call may run.
    pub(super) fn arrive(&self, session: SessionId, method: MethodId) -> Result<Admission, Overload> {
        let mut state = self.state.lock();
        let admission = state.limiter.arrive(Timestamp::ZERO, session, method, None)?;
        if let Admission::Wait(id) = admission {
            state.waiting.insert(id, Gate::default());
        }
        self.note(&state);
        Ok(admission)
    }

    /// Waits for a call's turn.
    pub(super) fn poll_turn(&self, id: CallId, cx: &Task<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        match state.waiting.get_mut(&id) {
            Some(gate) if !gate.open => {
                gate.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// A call is over, or waits no longer.
    fn finish(&self, id: CallId) {
        let mut wakers = Vec::new();
        {
            let mut state = self.state.lock();
            state.waiting.remove(&id);
            state.limiter.finish(Timestamp::ZERO, id);
            while let Some(event) = state.limiter.poll_event() {
                if let Event::Run(id) = event
                    && let Some(gate) = state.waiting.get_mut(&id)
                {
                    gate.open = true;
                    wakers.extend(gate.waker.take());
                }
            }
            self.note(&state);
        }
        for waker in wakers {
            waker.wake();
        }
    }
}

impl Permit {
    /// For a call that was admitted, also one that has to wait.
    pub(super) fn new(inner: Arc<Inner>, id: CallId) -> Permit {
        Permit { inner, id }
    }

    pub(super) fn id(&self) -> CallId {
        self.id
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.limits.finish(self.id);
    }
}
