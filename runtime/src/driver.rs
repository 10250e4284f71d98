//! The one task of a session: reads, lets the core work, wakes, writes, sleeps.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sheetbend_core::session::{Cause, Event, State as Lifecycle};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::ErrorCode;
use smallvec::SmallVec;

use crate::dial::Dialer;
use crate::hub::Attachment;
use crate::link::Link;
use crate::observer::Observer;
use crate::rt::Timer;
use crate::shared::{Shared, State};
use crate::waits::{Interest, WakeList};

/// Turns for which a session that reads without end may put its timers off.
const BUSY_TURNS: usize = 8;
/// How long a session without handles goes on delivering what was queued.
const ORPHAN_LINGER: Duration = Duration::from_secs(10);

/// What only one side does.
pub(crate) enum Role {
    /// Connects, and connects again.
    Client(Box<Dialer>),
    /// Reports to the server.
    Server(Attachment),
}

/// The future that drives a session until it has ended and its sockets are closed.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    role: Role,
    links: Vec<Link>,
    timer: Option<Box<dyn Timer>>,
    /// What the timer is set to; `MAX` when it is not running.
    armed: Timestamp,
    /// The timer has the task's waker: until it is due there is nothing to ask it.
    watched: bool,
    /// Other tasks were let go first since the application last changed something.
    deferred: bool,
    /// The last turn woke one task for one call: nobody else is about to queue anything.
    lone: bool,
    /// Turns since the clock was last looked at, because the sockets held more.
    unjudged: usize,
    orphan_until: Option<Timestamp>,
    observer: Option<Box<dyn Observer>>,
    #[cfg(feature = "tracing")]
    traced: crate::traced::Traced,
}

/// The states that the session passed through in one turn: it may have begun and ended.
type Moved = SmallVec<[(Lifecycle, Cause); 2]>;

enum Turn {
    Again,
    Idle,
    Done,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, role: Role) -> Driver {
        let observer = shared.runtime.observer();
        Driver {
            shared,
            role,
            links: Vec::with_capacity(1),
            timer: None,
            armed: Timestamp::MAX,
            watched: false,
            deferred: false,
            lone: false,
            unjudged: 0,
            orphan_until: None,
            observer,
            #[cfg(feature = "tracing")]
            traced: crate::traced::Traced::new(),
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        let mut again = false;
        for link in &mut self.links {
            again |= link.fill(cx);
        }
        if let Role::Client(dialer) = &mut self.role {
            dialer.poll(cx);
        }
        let now = self.shared.runtime.now();
        let mut wakes = WakeList::new();
        let mut moved = Moved::new();
        let shared = self.shared.clone();
        let mut guard = shared.lock_driver();
        let state = &mut *guard;
        state.now = now;
        // A driver that wakes late takes in what its sockets hold before it judges by the clock, but a
        // peer that never stops sending does not stop the clock.
        let busy = again && self.unjudged < BUSY_TURNS;
        self.unjudged = if busy { self.unjudged + 1 } else { 0 };
        again |= self.adopt(now, state);
        again |= self.work(cx, now, state, busy, &mut wakes, &mut moved);
        let deadline = self.deadline(state);
        let offers = matches!(&self.role, Role::Server(attachment) if attachment.may_offer())
            && state.core.has_fresh_early_data();
        let detached = state.core.state() == Lifecycle::Reconnecting;
        let held = detached.then(|| state.core.held_bytes() + state.intake.held_bytes());
        let done = state.core.state().is_terminal() && self.links.is_empty() && state.inbox.is_empty();
        if done {
            shared.close_calls(state, &mut wakes);
        }
        if let Some(observer) = &mut self.observer {
            observer.turn(now, &state.core);
            if let Role::Client(dialer) = &self.role {
                observer.connector(now, dialer.connector());
            }
            if done {
                observer.ended(now, &state.core);
            }
        }
        match &state.driver {
            Some(own) if own.will_wake(cx.waker()) => {}
            _ => state.driver = Some(cx.waker().clone()),
        }
        drop(guard);
        for waker in wakes {
            waker.wake();
        }
        if let Role::Server(attachment) = &mut self.role {
            if offers {
                attachment.offer();
            }
            for (to, cause) in &moved {
                attachment.report(now, *to, cause);
            }
            attachment.hold(now, held);
        }
        for link in &mut self.links {
            again |= link.flush(cx);
        }
        if done {
            return Turn::Done;
        }
        again |= deadline.is_some_and(|at| at <= now);
        again |= self.expired(cx, now, deadline);
        if let Role::Client(dialer) = &mut self.role {
            again |= dialer.has_new();
        }
        if again { Turn::Again } else { Turn::Idle }
    }

    /// Takes in new sockets. Tells whether there are any: nobody has looked at them yet.
    fn adopt(&mut self, now: Timestamp, state: &mut State) -> bool {
        let before = self.links.len();
        for new in state.inbox.drain(..) {
            self.links.push(Link::new(new.key, new.connection));
        }
        if let Role::Client(dialer) = &mut self.role {
            dialer.open_paths(now, state, &mut self.links);
        }
        self.links.len() > before
    }

    /// Everything else that happens under the lock. Tells whether there is more to do: where a path ended after
    /// the others were asked for output, what it leaves is theirs to send.
    fn work(
        &mut self,
        cx: &Context<'_>,
        now: Timestamp,
        state: &mut State,
        busy: bool,
        wakes: &mut WakeList,
        moved: &mut Moved,
    ) -> bool {
        self.shared.carry_out(state);
        #[cfg(feature = "quic")]
        let rebound = std::mem::take(&mut state.rebind);
        #[cfg(not(feature = "quic"))]
        let rebound = false;
        for link in &mut self.links {
            #[cfg(feature = "quic")]
            if rebound {
                link.rebind();
            }
            link.deliver(now, &mut state.core);
        }
        if !busy && state.core.poll_timeout().is_some_and(|(at, _)| at <= now) {
            state.core.handle_timeout(now);
        }
        if !busy {
            state.expire_calls(now, wakes);
        }
        self.end_orphan(now, state);
        self.take_events(now, state, wakes, moved);
        // Before output is asked for: what is read gives credit back.
        state.take_in(&self.shared.calls);
        for link in &mut self.links {
            link.pull(now, &mut state.core);
        }
        if let Role::Client(dialer) = &mut self.role
            && dialer.dial(now, state, &mut self.links)
        {
            state.waits.wake(Interest::Lifecycle, wakes);
        }
        // Closing a path may itself be news.
        let whole = state.intake.whole();
        let ended = self.take_events(now, state, wakes, moved);
        let more = state.intake.whole() > whole;
        let mut calls = self.shared.calls.lock();
        let handed = state.hand_over(&mut calls, wakes);
        // What was left since this turn began goes into the next.
        let left = calls.arm(cx);
        drop(calls);
        self.lone = handed == 1 && wakes.len() == 1;
        self.links.retain(|link| !link.is_gone());
        // Nobody has looked at a new socket yet.
        ended || more || left || rebound
    }

    /// Tells everyone of what happened; whether a path ended.
    fn take_events(
        &mut self,
        now: Timestamp,
        state: &mut State,
        wakes: &mut WakeList,
        moved: &mut Moved,
    ) -> bool {
        let mut ended = false;
        let Driver {
            shared,
            links,
            role,
            observer,
            #[cfg(feature = "tracing")]
            traced,
            ..
        } = self;
        state.take_events(wakes, |core, event| {
            if let Some(observer) = observer {
                observer.event(now, core, event);
            }
            #[cfg(feature = "tracing")]
            traced.event(core, event);
            match event {
                Event::State { to, cause, .. } => moved.push((*to, cause.clone())),
                Event::PathDown { path, .. } => {
                    ended = true;
                    if let Some(link) = links.iter_mut().find(|link| link.key == *path) {
                        link.doom(now);
                    }
                }
                Event::PathUp(_)
                | Event::PathMute(_)
                | Event::PathSilent(_)
                | Event::PathRecovered(_)
                | Event::GoAway { .. } => {}
                Event::Quiet => {
                    shared.calls.lock().shrink();
                    links.shrink_to_fit();
                    if let Role::Client(dialer) = &mut *role {
                        dialer.shrink();
                    }
                    return;
                }
                _ => return,
            }
            if let Role::Client(dialer) = &mut *role {
                dialer.note(now, event);
            }
        });
        ended
    }

    /// Ends a session that nobody holds, once what was queued is delivered.
    fn end_orphan(&mut self, now: Timestamp, state: &mut State) {
        if !state.orphaned || state.core.state().is_terminal() {
            return;
        }
        let until = *self.orphan_until.get_or_insert(now + ORPHAN_LINGER);
        if state.core.is_settled() || until <= now {
            state.core.close(now, ErrorCode::NONE, "every handle was dropped");
        }
    }

    fn deadline(&self, state: &mut State) -> Option<Timestamp> {
        let core = state.core.poll_timeout().map(|(at, _)| at);
        let dialer = match &self.role {
            Role::Client(dialer) if !state.core.state().is_terminal() => dialer.deadline(),
            _ => None,
        };
        let orphan = self.orphan_until.filter(|_| !state.core.state().is_terminal());
        let links = self.links.iter().filter_map(Link::deadline).min();
        let call = state.carried.next_due();
        [core, dialer, orphan, links, call].into_iter().flatten().min()
    }

    /// Sets the timer, and tells whether it has expired. It is not set back to a later deadline:
    /// expiring early once is cheaper than moving it on every turn.
    fn expired(&mut self, cx: &mut Context<'_>, now: Timestamp, deadline: Option<Timestamp>) -> bool {
        if let Some(at) = deadline.filter(|at| *at < self.armed) {
            self.armed = at;
            self.watched = false;
            match &mut self.timer {
                Some(timer) => timer.reset(at),
                None => self.timer = Some(self.shared.runtime.timer(at)),
            }
        }
        if self.armed == Timestamp::MAX || (self.watched && now < self.armed) {
            return false;
        }
        let expired = self
            .timer
            .as_mut()
            .is_some_and(|timer| timer.poll_expired(cx).is_ready());
        self.watched = !expired;
        if expired && !sheetbend_core::canary!(DriverTimerForgotten) {
            self.armed = Timestamp::MAX;
        }
        expired
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // Woken because the application changed something: let everyone else who can run queue their
        // part first, so that one write carries all of it.
        let dirty = this.shared.take_dirty();
        if dirty && !this.lone && !std::mem::replace(&mut this.deferred, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.deferred = false;
        // One turn, then whoever it woke: what was just read is still in the core's cache for them.
        match this.turn(cx) {
            Turn::Done => return Poll::Ready(()),
            Turn::Again => cx.waker().wake_by_ref(),
            Turn::Idle => {}
        }
        Poll::Pending
    }
}
