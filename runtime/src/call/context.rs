//! What a handler knows of the call that it serves.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use sheetbend_core::request::{CallKind, Deadline, Failure, Metadata, TraceContext};
use sheetbend_core::session::StreamKey;

use crate::intake::{Arrived, MethodName, More, answer_head};
use crate::session::Session;
use crate::shared::{Owner, State, store};
use crate::wait::wait_for;
use crate::waits::Interest;

use super::reply::Reply;

static NO_METADATA: Metadata = Metadata::new();

/// What a call says of itself, who makes it, and whether somebody still waits for it.
pub struct Context {
    pub(crate) owner: Arc<Owner>,
    pub(crate) key: StreamKey,
    method: MethodName,
    more: Option<Box<More>>,
    state: Option<Arc<dyn Any + Send + Sync>>,
}

/// Why nobody waits for a call any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// Its caller gave it up, with this code of PROTOCOL 11.7.
    ByCaller(u64),
    /// Its deadline has passed.
    Deadline,
    /// The session has ended, or the call was answered.
    Over,
}

impl Context {
    /// The context, and the payload or the first bytes of the items.
    pub(crate) fn new(owner: Arc<Owner>, arrived: Arrived) -> (Context, Bytes) {
        let Arrived {
            key,
            method,
            payload,
            more,
        } = arrived;
        let context = Context {
            owner,
            key,
            method,
            more,
            state: None,
        };
        (context, payload)
    }

    pub(crate) fn set_state(&mut self, state: Arc<dyn Any + Send + Sync>) {
        self.state = Some(state);
    }

    /// What was given with the session to [`Router::serve_with`](crate::Router::serve_with), if it is of this type.
    pub fn state<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.state.as_ref()?.downcast_ref()
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        std::str::from_utf8(&self.method).unwrap_or_default()
    }

    /// Which of the four kinds it is.
    pub fn kind(&self) -> CallKind {
        self.more.as_ref().map_or(CallKind::Unary, |more| more.kind)
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        self.more.as_ref().map_or(&NO_METADATA, |more| &more.metadata)
    }

    /// When the caller waits no longer, by the clock of this end.
    pub fn deadline(&self) -> Option<Deadline> {
        self.more.as_ref()?.deadline
    }

    /// How long the caller still waits; zero when it does no more, `None` when it has set no deadline.
    pub fn time_left(&self) -> Option<Duration> {
        let at = self.deadline()?.timestamp();
        Some(at.since(self.owner.0.runtime.now()))
    }

    /// The key under which it is executed once (PROTOCOL 11.8).
    pub fn key(&self) -> Option<&[u8]> {
        self.more.as_ref()?.key.as_deref()
    }

    /// The trace that it belongs to.
    pub fn trace(&self) -> Option<TraceContext> {
        self.more.as_ref()?.trace
    }

    /// Whether its caller says that executing it twice does no harm.
    pub fn is_repeatable(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.repeatable)
    }

    /// How many attempts of it came before this one, by its caller's word.
    pub fn attempt(&self) -> u64 {
        self.more.as_ref().map_or(0, |more| more.attempt)
    }

    /// The session over which it came. Calls in the other direction go there.
    pub fn session(&self) -> Session {
        Session::new(self.owner.clone())
    }

    /// Waits until nobody waits for the call any more. Where a [`Router`](crate::Router) runs the handler it drops
    /// it then, unless the call has a key; this is for what the handler has spawned, and for those with a key.
    pub fn cancelled(&self) -> impl Future<Output = Cancelled> + Send + 'static {
        let (owner, key) = (self.owner.clone(), self.key);
        let mut timer = self
            .deadline()
            .map(|deadline| owner.0.runtime.timer(deadline.timestamp()));
        async move {
            let mut gone = wait_for(&owner.0, Interest::Gone(key), |state: &mut State| state.gone(key));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(why) = std::pin::Pin::new(&mut gone).poll(cx) {
                    return Poll::Ready(why);
                }
                match &mut timer {
                    Some(timer) => timer.poll_expired(cx).map(|()| Cancelled::Deadline),
                    None => Poll::Pending,
                }
            })
            .await
        }
    }

    /// Whether somebody still waits, for the one task that runs the handler.
    pub(crate) fn poll_gone(owner: &Owner, key: StreamKey, cx: &mut Task<'_>) -> Poll<Cancelled> {
        let mut state = owner.0.lock();
        let state = state.quiet();
        match state.gone(key) {
            Some(why) => Poll::Ready(why),
            None => {
                store(&mut state.slot(key).progress, cx);
                Poll::Pending
            }
        }
    }

    /// The end of the request has come.
    pub(crate) fn is_finished(&self) -> bool {
        self.more.as_ref().is_none_or(|more| more.finished)
    }

    /// Answers a call whose answer is one payload.
    pub(crate) fn respond(&self, result: Result<Reply, Failure>) {
        let (head, payload) = match result {
            Ok(Reply { payload, metadata }) => (answer_head(Ok(()), &metadata), payload),
            Err(failure) => (answer_head(Err(&failure), &Metadata::new()), Bytes::new()),
        };
        self.owner
            .0
            .command(|calls| calls.respond(self.key, &head, payload));
    }
}

impl State {
    /// Whether a call of the peer is wanted no more, and why.
    fn gone(&self, key: StreamKey) -> Option<Cancelled> {
        if let Some(code) = self.core.stopped(key) {
            return Some(Cancelled::ByCaller(code));
        }
        (self.end.is_some() || self.core.stream_id(key).is_none()).then_some(Cancelled::Over)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("method", &self.method())
            .field("more", &self.more)
            .finish()
    }
}
