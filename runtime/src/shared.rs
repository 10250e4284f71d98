//! What the handles and the driver of a session share: one mutex, and the tables of who waits.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use sheetbend_core::session::{self, Cause, Event, Outcome, PathKey, StreamKey};
use sheetbend_core::time::Timestamp;

use crate::calls::{Calls, Carried};
use crate::events::Subscribers;
use crate::intake::{Intake, RequestLimits, Work};
use crate::layers::Connection;
use crate::open::Openers;
use crate::pool::{forget_bodies, give_batch};
use crate::rt::Runtime;
use crate::waits::{Interest, Ticket, Waits, WakeList};

/// Who waits for one stream, and what the driver does for it. Lies at the stream's slot.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) read: Option<Waker>,
    pub(crate) write: Option<Waker>,
    /// Waits for an acknowledgement of all, or for the peer to stop reading.
    pub(crate) progress: Option<Waker>,
    /// A request that the driver reads, answers or sends.
    pub(crate) work: Work,
}

impl Slot {
    fn is_used(&self) -> bool {
        self.read.is_some()
            || self.write.is_some()
            || self.progress.is_some()
            || !matches!(self.work, Work::None)
    }

    fn wake_all(&mut self, wakes: &mut WakeList) {
        wakes.extend(
            [self.read.take(), self.write.take(), self.progress.take()]
                .into_iter()
                .flatten(),
        );
    }
}

/// Keeps the waker of `cx` in a slot.
pub(crate) fn store(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

/// A tracked message: what became of it, or who waits to learn it.
#[derive(Default)]
pub(crate) struct Tracking {
    pub(crate) outcome: Option<Outcome>,
    pub(crate) waker: Option<Waker>,
}

/// A connection that the server hands to a session's driver.
pub(crate) struct NewPath {
    pub(crate) key: PathKey,
    /// Its input begins behind the handshake message.
    pub(crate) connection: Connection,
}

/// Everything behind the lock.
pub(crate) struct State {
    pub(crate) core: Box<session::Session>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) waits: Waits,
    pub(crate) openers: Openers,
    pub(crate) intake: Intake,
    pub(crate) carried: Carried,
    pub(crate) outcomes: BTreeMap<u64, Tracking>,
    pub(crate) subscribers: Subscribers,
    pub(crate) inbox: Vec<NewPath>,
    /// When the driver last looked at the clock.
    pub(crate) now: Timestamp,
    pub(crate) limits: RequestLimits,
    /// Bytes of answers and items that wait for the peer's credit.
    pub(crate) unsent: usize,
    /// The driver, while it sleeps.
    pub(crate) driver: Option<Waker>,
    /// Paths over UDP are to be given other sockets.
    #[cfg(feature = "quic")]
    pub(crate) rebind: bool,
    /// All handles are gone.
    pub(crate) orphaned: bool,
    /// Why the session ended, once it has.
    pub(crate) end: Option<Cause>,
    /// Why the last endpoints tried could not be reached; for the error of the first connect.
    pub(crate) unreachable: Vec<(String, String)>,
    /// Every endpoint of a client was tried once and failed.
    pub(crate) exhausted: bool,
}

impl State {
    pub(crate) fn new(core: Box<session::Session>, now: Timestamp, limits: RequestLimits) -> State {
        State {
            core,
            slots: Vec::new(),
            waits: Waits::default(),
            openers: Openers::default(),
            intake: Intake::default(),
            carried: Carried::default(),
            outcomes: BTreeMap::new(),
            subscribers: Subscribers::default(),
            inbox: Vec::new(),
            now,
            limits,
            unsent: 0,
            driver: None,
            #[cfg(feature = "quic")]
            rebind: false,
            orphaned: false,
            end: None,
            unreachable: Vec::new(),
            exhausted: false,
        }
    }

    /// The slot of a stream.
    pub(crate) fn slot(&mut self, key: StreamKey) -> &mut Slot {
        let index = key.index();
        if index >= self.slots.len() {
            if self.slots.capacity() == 0 {
                self.slots.reserve_exact(index + 1);
            }
            self.slots.resize_with(index + 1, Slot::default);
        }
        &mut self.slots[index]
    }

    /// The slot of a stream that has just been opened or accepted, without the traces of its
    /// predecessor.
    pub(crate) fn fresh_slot(&mut self, key: StreamKey) {
        let slot = self.slot(key);
        slot.read = None;
        slot.write = None;
        slot.progress = None;
        slot.work = Work::None;
    }

    /// Takes out what is under way on the stream. `None` if the stream is gone: an event, or a place in line, may
    /// outlive it, and by now another stream may have its slot.
    pub(crate) fn take_work(&mut self, key: StreamKey) -> Option<Work> {
        self.core.stream_id(key)?;
        Some(std::mem::take(&mut self.slot(key).work))
    }

    /// Takes every event of the core and notes whom to wake.
    pub(crate) fn take_events(
        &mut self,
        wakes: &mut WakeList,
        mut on_driver: impl FnMut(&session::Session, &Event),
    ) {
        while let Some(event) = self.core.poll_event() {
            on_driver(&self.core, &event);
            self.take_event(event, wakes);
        }
    }

    fn take_event(&mut self, event: Event, wakes: &mut WakeList) {
        match event {
            Event::Readable(key) => {
                let slot = self.slot(key);
                if let Some(reader) = slot.read.take() {
                    wakes.push(reader);
                }
                // A wake-up too many for the slot's next owner is none too few; its work is another matter.
                match slot.work {
                    Work::Call(_) | Work::LongCall(_) => self.pump_call(key),
                    Work::Request(_) => self.pump_request(self.now, key),
                    Work::None | Work::Writing(_) => {}
                }
            }
            Event::Writable(key) => {
                if self.pump_written(key) {
                    let waker = self.slot(key).write.take();
                    wakes.extend(waker.filter(|_| !sheetbend_core::canary!(WritableTaskNotWoken)));
                }
            }
            Event::Finished(key) => wakes.extend(self.slot(key).progress.take()),
            Event::Stopped(key, _) => {
                self.pump_written(key);
                let slot = self.slot(key);
                wakes.extend([slot.write.take(), slot.progress.take()].into_iter().flatten());
                self.waits.wake(Interest::Gone(key), wakes);
            }
            Event::Opened { kind, class } => {
                self.waits.wake(Interest::Opened(kind, class), wakes);
            }
            Event::Credit { kind, class } => self.grant((kind, class), wakes),
            Event::MessageReady(class) => self.waits.wake(Interest::Message(class), wakes),
            Event::DatagramReady => self.waits.wake(Interest::Datagram, wakes),
            Event::MessageSpace => self.waits.wake(Interest::Space, wakes),
            Event::Outcome { id, outcome } => {
                if let Some(tracking) = self.outcomes.get_mut(&id.0) {
                    tracking.outcome = Some(outcome);
                    wakes.extend(tracking.waker.take());
                }
            }
            Event::Quiet => self.shrink(),
            other => self.take_news(other, wakes),
        }
    }

    /// Goes on where the driver was stopped in writing. Tells whether the stream's handle may go on.
    fn pump_written(&mut self, key: StreamKey) -> bool {
        match self.slot(key).work {
            Work::LongCall(_) => {
                self.pump_call(key);
                true
            }
            Work::Writing(_) => self.pump_writing(key),
            Work::None | Work::Request(_) | Work::Call(_) => true,
        }
    }

    /// Gives back what an idle session does not need.
    fn shrink(&mut self) {
        let used = self
            .slots
            .iter()
            .rposition(Slot::is_used)
            .map_or(0, |last| last + 1);
        self.slots.truncate(used);
        self.slots.shrink_to_fit();
        self.inbox.shrink_to_fit();
        let long = self.carried.usual.rest() | self.intake.rest();
        if long {
            forget_bodies();
        }
        self.carried.shrink();
        self.intake.shrink();
        self.waits.shrink();
    }

    /// Lifecycle and paths: for the subscribers, and for those who wait for the end.
    fn take_news(&mut self, event: Event, wakes: &mut WakeList) {
        if let Event::State { to, cause, .. } = &event {
            if to.is_terminal() {
                self.end = Some(cause.clone());
                self.waits.wake_all(wakes);
                self.end_lines(wakes);
                self.end_calls();
                wakes.extend(
                    self.outcomes
                        .values_mut()
                        .filter_map(|tracking| tracking.waker.take()),
                );
                for slot in &mut self.slots {
                    slot.wake_all(wakes);
                }
            }
            self.waits.wake(Interest::Lifecycle, wakes);
        }
        let State {
            core,
            subscribers,
            waits,
            ..
        } = self;
        subscribers.publish(core, event, waits, wakes);
    }
}

/// The state behind its lock, and what is read without it.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) calls: Mutex<Calls>,
    /// There are commands in `calls`.
    commanded: AtomicBool,
    /// The application changed the state since the driver last looked.
    dirty: AtomicBool,
    pub(crate) runtime: Arc<dyn Runtime>,
}

impl Shared {
    pub(crate) fn new(
        core: Box<session::Session>,
        runtime: Arc<dyn Runtime>,
        limits: RequestLimits,
    ) -> Shared {
        let state = Mutex::new(State::new(core, runtime.now(), limits));
        Shared {
            state,
            calls: Mutex::default(),
            commanded: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
            runtime,
        }
    }

    /// The state, for the application: changing it wakes the driver. What handles left for the driver
    /// before has been carried out.
    pub(crate) fn lock(&self) -> Guard<'_> {
        let mut state = self.state.lock();
        let dirty = self.carry_out(&mut state);
        Guard {
            state: Some(state),
            shared: self,
            dirty,
        }
    }

    /// Carries out what handles left. Tells whether there was something.
    pub(crate) fn carry_out(&self, state: &mut State) -> bool {
        if !self.commanded.load(Ordering::Acquire) {
            return false;
        }
        let mut batch = {
            let mut calls = self.calls.lock();
            self.commanded.store(false, Ordering::Release);
            calls.take_batch()
        };
        state.carry_out(&mut batch);
        give_batch(batch);
        true
    }

    /// Leaves a command for the driver.
    pub(crate) fn command<T>(&self, leave: impl FnOnce(&mut Calls) -> T) -> T {
        let mut calls = self.calls.lock();
        let left = leave(&mut calls);
        // Written only where it changes, so that the cores that read it keep it in their caches.
        if calls.has_commands() && !self.commanded.load(Ordering::Relaxed) {
            self.commanded.store(true, Ordering::Release);
        }
        let driver = calls.take_driver();
        let (closed, commanded) = (calls.closed, calls.has_commands());
        drop(calls);
        if let Some(driver) = driver {
            self.dirty.store(true, Ordering::Release);
            driver.wake();
        }
        if closed && commanded {
            drop(self.lock());
        }
        left
    }

    /// The driver ends: whoever leaves a command from here on carries it out.
    pub(crate) fn close_calls(&self, state: &mut State, wakes: &mut WakeList) {
        self.calls.lock().closed = true;
        self.carry_out(state);
        state.hand_over(&mut self.calls.lock(), wakes);
    }

    /// The state, for the driver: changing it wakes nobody.
    pub(crate) fn lock_driver(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether the application changed the state since this was last asked.
    pub(crate) fn take_dirty(&self) -> bool {
        self.dirty.load(Ordering::Relaxed) && self.dirty.swap(false, Ordering::AcqRel)
    }
}

/// The locked state. Taking it mutably marks it dirty; dropping a dirty guard wakes the driver once the
/// lock is released.
pub(crate) struct Guard<'a> {
    state: Option<MutexGuard<'a, State>>,
    shared: &'a Shared,
    dirty: bool,
}

impl Guard<'_> {
    /// The state, for a change that the driver need not know of.
    pub(crate) fn quiet(&mut self) -> &mut State {
        match &mut self.state {
            Some(state) => state,
            None => unreachable!("the state is taken only on drop"),
        }
    }

    /// What was done through this guard turned out to change nothing.
    pub(crate) fn unchanged(&mut self) {
        self.dirty = false;
    }

    /// Polls `attempt` until it gives something; otherwise registers the task for `interest`.
    pub(crate) fn wait<T>(
        &mut self,
        cx: &Context<'_>,
        interest: Interest,
        ticket: &mut Option<Ticket>,
        attempt: impl FnOnce(&mut State) -> Option<T>,
    ) -> Poll<T> {
        if let Some(found) = attempt(self) {
            if let Some(own) = ticket.take() {
                self.quiet().waits.forget(interest, own);
            }
            return Poll::Ready(found);
        }
        // Messages are read in parts: what was taken without a whole one gives credit back, and
        // a breach found in it ends the session.
        if !matches!(interest, Interest::Message(_)) {
            self.unchanged();
        }
        self.quiet().waits.register(interest, ticket, cx);
        Poll::Pending
    }
}

impl Deref for Guard<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        match &self.state {
            Some(state) => state,
            None => unreachable!("the state is taken only on drop"),
        }
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.dirty = true;
        self.quiet()
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let (shared, dirty) = (self.shared, self.dirty);
        let state = self.quiet();
        // Requests that failed at once; the driver may not be there to tell.
        let failed = !state.carried.answered.is_empty();
        if !dirty && !failed {
            return;
        }
        let mut wakes = WakeList::new();
        if failed {
            shared
                .calls
                .lock()
                .complete(&mut state.carried.answered, &mut wakes);
        }
        if dirty {
            shared.dirty.store(true, Ordering::Release);
            wakes.extend(state.driver.take());
        }
        self.state = None;
        for waker in wakes {
            waker.wake();
        }
    }
}

/// The handles' share of a session. When the last one goes, the session finishes what is queued and ends.
pub(crate) struct Owner(pub(crate) Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().orphaned = true;
    }
}
