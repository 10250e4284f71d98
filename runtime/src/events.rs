//! What a session tells about its life and its paths.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sheetbend_core::session::{
    self, Cause, Event, MAX_PATHS, Moved, PathEnd, PathKey, State as Lifecycle, SwitchCause, SwitchEvidence,
};
use sheetbend_core::wire::{Class, ErrorCode};

use crate::shared::{Shared, State};
use crate::waits::{Interest, Ticket, Waits, WakeList};

/// How many events wait for one subscriber; beyond it the oldest go and are counted.
pub const EVENT_QUEUE: usize = 256;

/// Something that happened to a session or its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// The lifecycle moved.
    State {
        /// From where.
        from: Lifecycle,
        /// To where.
        to: Lifecycle,
        /// Why.
        cause: Cause,
    },
    /// A path proved itself and may carry data.
    PathUp {
        /// Which.
        path: Arc<str>,
    },
    /// A path makes no progress; its data is sent elsewhere.
    PathSuspect {
        /// Which.
        path: Arc<str>,
    },
    /// A suspect path made progress again.
    PathRecovered {
        /// Which.
        path: Arc<str>,
    },
    /// A path ended.
    PathDown {
        /// Which.
        path: Arc<str>,
        /// How.
        end: PathEnd,
        /// What was wrong, in words, where something was.
        error: Option<String>,
    },
    /// The address of a path's end has changed, and the path goes on.
    PathMoved {
        /// Which, as it was called before.
        before: Arc<str>,
        /// The same, as it is called from here on.
        path: Arc<str>,
        /// What became of it.
        how: Moved,
    },
    /// Data moved to another path.
    Switched {
        /// The path in use before, if there was one that still has a name.
        from: Option<Arc<str>>,
        /// The path in use.
        to: Arc<str>,
        /// Why.
        cause: SwitchCause,
        /// By what evidence.
        evidence: Box<SwitchEvidence>,
    },
    /// Something moves again: for so long nothing that was sent was acknowledged, though there was something to send.
    Standstill(std::time::Duration),
    /// The peer takes nothing new.
    GoAway {
        /// Why.
        code: ErrorCode,
        /// In words.
        reason: String,
        /// Where to go instead; empty if it did not say.
        address: String,
    },
    /// A message that was queued before the session stood is longer than the peer takes, and was dropped.
    MessageTooLarge {
        /// Its class.
        class: Class,
        /// Its length, in bytes.
        len: u64,
        /// The longest that the peer takes.
        max: u64,
    },
    /// This many events were dropped because nobody read them in time.
    Lagged(u64),
}

struct Subscriber {
    id: u64,
    queue: VecDeque<SessionEvent>,
    lagged: u64,
}

/// Everyone who listens.
#[derive(Default)]
pub(crate) struct Subscribers {
    all: Vec<Subscriber>,
    next: u64,
    /// Names of the latest paths: one may have ended before what it did is told.
    names: VecDeque<(PathKey, Arc<str>)>,
}

/// How many paths' names are known: those that may live, and as many that have ended.
const NAMES: usize = 2 * MAX_PATHS;

impl Subscribers {
    /// Takes note of a path's name.
    fn meet(&mut self, path: PathKey, name: Arc<str>) {
        if self.names.len() == NAMES {
            self.names.pop_front();
        }
        if self.names.capacity() == 0 {
            // Most sessions have one path.
            self.names.reserve_exact(1);
        }
        self.names.push_back((path, name));
    }

    fn name(&self, core: &session::Session, path: PathKey) -> Arc<str> {
        let known = || {
            let mut names = self.names.iter().rev();
            Some(names.find(|(key, _)| *key == path)?.1.clone())
        };
        core.path_stats(path)
            .map(|stats| stats.name)
            .or_else(known)
            .unwrap_or_else(|| Arc::from("a path that has ended"))
    }

    /// Tells everyone of an event of the core, if it is one for them.
    pub(crate) fn publish(
        &mut self,
        core: &session::Session,
        event: Event,
        waits: &mut Waits,
        wakes: &mut WakeList,
    ) {
        match &event {
            Event::PathUp(path) => {
                if let Some(stats) = core.path_stats(*path) {
                    self.meet(*path, stats.name);
                }
            }
            Event::PathDown { path, info, .. } => self.meet(*path, info.name.clone()),
            _ => {}
        }
        if self.all.is_empty() {
            return;
        }
        let news = match event {
            Event::State { from, to, cause } => SessionEvent::State { from, to, cause },
            Event::PathUp(path) => SessionEvent::PathUp {
                path: self.name(core, path),
            },
            Event::PathSuspect(path) => SessionEvent::PathSuspect {
                path: self.name(core, path),
            },
            Event::PathRecovered(path) => SessionEvent::PathRecovered {
                path: self.name(core, path),
            },
            Event::PathDown { end, error, info, .. } => {
                let error = error.map(|error| error.to_string());
                SessionEvent::PathDown {
                    path: info.name,
                    end,
                    error,
                }
            }
            Event::PathMoved { path, before, how } => SessionEvent::PathMoved {
                before,
                path: self.name(core, path),
                how,
            },
            Event::Switched {
                from,
                to,
                cause,
                evidence,
            } => SessionEvent::Switched {
                from: from.map(|key| self.name(core, key)),
                to: self.name(core, to),
                cause,
                evidence,
            },
            Event::Standstill(time) => SessionEvent::Standstill(time),
            Event::GoAway {
                code,
                reason,
                address,
            } => SessionEvent::GoAway {
                code,
                reason,
                address,
            },
            Event::MessageTooLarge { class, len, max } => SessionEvent::MessageTooLarge { class, len, max },
            _ => return,
        };
        for subscriber in &mut self.all {
            if subscriber.queue.len() >= EVENT_QUEUE {
                subscriber.queue.pop_front();
                subscriber.lagged += 1;
            }
            subscriber.queue.push_back(news.clone());
            waits.wake(Interest::Event(subscriber.id), wakes);
        }
    }

    fn subscribe(&mut self) -> u64 {
        self.next += 1;
        self.all.push(Subscriber {
            id: self.next,
            queue: VecDeque::new(),
            lagged: 0,
        });
        self.next
    }

    fn pop(&mut self, id: u64) -> Option<SessionEvent> {
        let subscriber = self.all.iter_mut().find(|subscriber| subscriber.id == id)?;
        if subscriber.lagged > 0 {
            return Some(SessionEvent::Lagged(std::mem::take(&mut subscriber.lagged)));
        }
        subscriber.queue.pop_front()
    }
}

/// A subscription to a session's events, from its making on. It ends with the session, and does not
/// keep it alive where all other handles are gone.
pub struct Events {
    shared: Arc<Shared>,
    id: u64,
    ticket: Option<Ticket>,
}

impl Events {
    pub(crate) fn new(shared: Arc<Shared>) -> Events {
        let id = shared.lock().quiet().subscribers.subscribe();
        Events {
            shared,
            id,
            ticket: None,
        }
    }

    /// The next event; `None` once the session has ended and all was read.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// An event that is there already.
    pub fn try_next(&mut self) -> Option<SessionEvent> {
        self.shared.lock().quiet().subscribers.pop(self.id)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        let mut state = self.shared.lock();
        let state: &mut State = state.quiet();
        if let Some(event) = state.subscribers.pop(self.id) {
            return Poll::Ready(Some(event));
        }
        if state.end.is_some() {
            return Poll::Ready(None);
        }
        state
            .waits
            .register(Interest::Event(self.id), &mut self.ticket, cx);
        Poll::Pending
    }
}

impl futures_core::Stream for Events {
    type Item = SessionEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        self.poll_event(cx)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let id = self.id;
        let mut state = self.shared.lock();
        let state = state.quiet();
        state.subscribers.all.retain(|subscriber| subscriber.id != id);
        if let Some(own) = self.ticket.take() {
            state.waits.forget(Interest::Event(id), own);
        }
    }
}
