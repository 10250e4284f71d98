//! The handle of a session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use sheetbend_core::policy::selection::Explanation;
use sheetbend_core::request::{CallKind, Code, Failure, Reason};
use sheetbend_core::session::{
    Cause, Delivery, Message, MessageId, OpenError, Outcome, PathStats, SendError, State as Lifecycle, Stats,
};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, ErrorCode, Kind, Side};

use crate::call::CallBuilder;
use crate::events::Events;
use crate::intake::Arrived;
use crate::open::open;
use crate::request::{IncomingRequest, Request, next_request, refuse};
use crate::rt::{BoxFuture, Runtime, Timer};
use crate::shared::{Owner, Shared, State, Tracking, store};
use crate::stream::{BiStream, RecvStream, SendStream};
use crate::wait::wait_for;
use crate::waits::Interest;

/// One session between two programs. Clones are handles of the same session.
///
/// Connections under it come and go; what is queued is delivered once, in order, when there is one.
/// When the last handle of any kind is dropped, what was finished is still delivered, then it closes.
#[derive(Clone)]
pub struct Session {
    owner: Arc<Owner>,
}

/// The session has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended: {cause:?}")]
pub struct Ended {
    /// Whether it was closed in agreement or failed.
    pub state: Lifecycle,
    /// Why.
    pub cause: Cause,
}

fn ended(state: &State) -> Option<Ended> {
    let cause = state.end.clone()?;
    Some(Ended {
        state: state.core.state(),
        cause,
    })
}

impl Session {
    pub(crate) fn new(owner: Arc<Owner>) -> Session {
        Session { owner }
    }

    pub(crate) fn is_same(&self, other: &Session) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner)
    }

    /// Neither over nor being drained.
    pub(crate) fn takes_work(&self) -> bool {
        let mut state = self.shared().lock();
        let core = &state.quiet().core;
        !core.state().is_terminal() && !core.is_draining()
    }

    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.owner.0
    }

    // ---- requests ----

    /// Calls a method of the peer and waits for the answer. Any number may be under way.
    ///
    /// # Errors
    /// [`CallError`](crate::CallError) says whether it was sent, maybe executed, or has failed.
    pub fn request<'a>(&'a self, method: &'a str, payload: impl Into<Bytes>) -> Request<'a> {
        Request::new(self.shared(), method, payload.into())
    }

    /// A call with more to it: a deadline, metadata, a key, items instead of one payload.
    pub fn call<'a>(&'a self, method: &'a str) -> CallBuilder<'a> {
        CallBuilder::new(&self.owner, method)
    }

    /// The peer's next request, once it is whole. Calls of other kinds, and those with a key, are refused: a
    /// [`Router`](crate::Router) serves them.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn accept_request(&self) -> Result<IncomingRequest, Ended> {
        loop {
            let arrived = self.accept_arrived().await?;
            match &arrived.more {
                // PROTOCOL 11.8: nobody is to rely in vain on a key.
                Some(more) if more.kind != CallKind::Unary || more.key.is_some() => {
                    let mut failure = Failure::refused(Code::Unimplemented, Reason::NoSuchMethod);
                    "only unary calls without a key are served".clone_into(&mut failure.message);
                    refuse(&self.owner, &arrived, &failure);
                }
                _ => return Ok(IncomingRequest::new(self.owner.clone(), arrived)),
            }
        }
    }

    /// The peer's next call, of any kind.
    pub(crate) async fn accept_arrived(&self) -> Result<Arrived, Ended> {
        let shared = self.shared();
        if let Some(arrived) = next_request(shared).await {
            return Ok(arrived);
        }
        // What was whole when the session ended may still be asked for.
        wait_for(shared, Interest::Lifecycle, |state: &mut State| {
            let now = state.now;
            let next = state.last_request(now);
            next.map(Ok).or_else(|| ended(state).map(Err))
        })
        .await
    }

    // ---- streams ----

    /// Opens a stream with both directions, waiting for credit if need be. The peer hears of it with
    /// its first bytes.
    ///
    /// # Errors
    /// When the session is being drained or has ended.
    pub async fn open_bi(&self, class: Class) -> Result<BiStream, OpenError> {
        let key = open(self.shared(), Kind::Bi, class).await?;
        Ok(BiStream::new(self.owner.clone(), key))
    }

    /// Opens a stream that only this end writes.
    ///
    /// # Errors
    /// As [`Session::open_bi`].
    pub async fn open_uni(&self, class: Class) -> Result<SendStream, OpenError> {
        let key = open(self.shared(), Kind::Uni, class).await?;
        Ok(SendStream::new(self.owner.clone(), key))
    }

    /// The next stream of a class that the peer opened with both directions.
    ///
    /// Those of class REQUESTS are what [`Session::accept_request`] takes: use one of both.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn accept_bi(&self, class: Class) -> Result<BiStream, Ended> {
        let key = self.accept(Kind::Bi, class).await?;
        Ok(BiStream::new(self.owner.clone(), key))
    }

    /// The next stream of a class that only the peer writes.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn accept_uni(&self, class: Class) -> Result<RecvStream, Ended> {
        let key = self.accept(Kind::Uni, class).await?;
        Ok(RecvStream::new(self.owner.clone(), key))
    }

    async fn accept(&self, kind: Kind, class: Class) -> Result<sheetbend_core::session::StreamKey, Ended> {
        wait_for(
            self.shared(),
            Interest::Opened(kind, class),
            |state: &mut State| {
                let key = state.core.accept(kind, class);
                if let Some(key) = key {
                    state.fresh_slot(key);
                }
                key.map(Ok).or_else(|| ended(state).map(Err))
            },
        )
        .await
    }

    // ---- messages and datagrams ----

    /// Queues a message, waiting while the queue is full.
    ///
    /// # Errors
    /// When it is too large, or the session is being drained or has ended.
    pub async fn send_message(
        &self,
        class: Class,
        delivery: Delivery,
        payload: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        self.queue_message(class, delivery, payload.into(), false)
            .await
            .map(|_| ())
    }

    /// Queues a message, or says that the queue is full.
    ///
    /// # Errors
    /// [`SendError::Full`], and as [`Session::send_message`].
    pub fn try_send_message(
        &self,
        class: Class,
        delivery: Delivery,
        payload: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        let now = self.send_time(delivery);
        self.shared()
            .lock()
            .core
            .send_message(now, class, delivery, payload.into(), false)
            .map(|_| ())
    }

    /// Queues a message, waiting while the queue is full, and gives a future of what becomes of it.
    ///
    /// # Errors
    /// As [`Session::send_message`].
    pub async fn send_message_tracked(
        &self,
        class: Class,
        delivery: Delivery,
        payload: impl Into<Bytes>,
    ) -> Result<Tracked, SendError> {
        let id = self.queue_message(class, delivery, payload.into(), true).await?;
        Ok(Tracked {
            shared: self.owner.0.clone(),
            id: id.0,
        })
    }

    /// The time from which a time to live is counted. The driver's last look at the clock may be long ago;
    /// where none is counted, looking again would cost more than it is worth.
    fn send_time(&self, delivery: Delivery) -> Timestamp {
        match delivery {
            Delivery::Unreliable { .. } => self.shared().runtime.now(),
            Delivery::Ordered | Delivery::Unordered => Timestamp::ZERO,
        }
    }

    async fn queue_message(
        &self,
        class: Class,
        delivery: Delivery,
        payload: Bytes,
        track: bool,
    ) -> Result<MessageId, SendError> {
        let now = self.send_time(delivery);
        wait_for(self.shared(), Interest::Space, |state: &mut State| {
            let now = now.max(state.now);
            match state
                .core
                .send_message(now, class, delivery, payload.clone(), track)
            {
                Ok(id) => {
                    if track {
                        state.outcomes.insert(id.0, Tracking::default());
                    }
                    Some(Ok(id))
                }
                Err(SendError::Full) => None,
                Err(error) => Some(Err(error)),
            }
        })
        .await
    }

    /// The next message of a class.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn recv_message(&self, class: Class) -> Result<Message, Ended> {
        wait_for(self.shared(), Interest::Message(class), |state: &mut State| {
            let now = state.now;
            // A peer that breaks the framing has ended the session: the second arm tells.
            let message = state.core.recv_message(now, class).ok().flatten();
            message.map(Ok).or_else(|| ended(state).map(Err))
        })
        .await
    }

    /// Sends a datagram: at most once, dropped rather than delayed.
    ///
    /// # Errors
    /// When it is too large, the queue is full, or the session is being drained or has ended.
    pub fn send_datagram(&self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        let now = self.shared().runtime.now();
        self.shared().lock().core.send_datagram(now, payload.into())
    }

    /// The next datagram.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn recv_datagram(&self) -> Result<Bytes, Ended> {
        wait_for(self.shared(), Interest::Datagram, |state: &mut State| {
            state
                .core
                .recv_datagram()
                .map(Ok)
                .or_else(|| ended(state).map(Err))
        })
        .await
    }

    // ---- state ----

    /// Subscribes to what happens to the session and its paths.
    pub fn events(&self) -> Events {
        Events::new(self.owner.0.clone())
    }

    /// Where the session stands.
    pub fn state(&self) -> Lifecycle {
        self.shared().lock().core.state()
    }

    /// Whether either end takes nothing new: what is open goes on to its end, and work belongs in another session
    /// ([`Client::session`](crate::Client::session) gives it).
    pub fn is_draining(&self) -> bool {
        self.shared().lock().core.is_draining()
    }

    /// Which side of the session this is.
    pub fn side(&self) -> Side {
        self.shared().lock().core.side()
    }

    /// Counters of the session.
    pub fn stats(&self) -> Stats {
        self.shared().lock().core.stats()
    }

    /// Which path carries the data and why, in words and numbers; `None` while none does.
    pub fn explain(&self) -> Option<Explanation> {
        let state = self.shared().lock();
        state.core.explain(self.shared().runtime.now())
    }

    /// The paths attached, the one in use first.
    pub fn paths(&self) -> Vec<PathStats> {
        let state = self.shared().lock();
        let active = state.core.active_path();
        let others = state.core.paths().filter(|path| Some(*path) != active);
        active
            .into_iter()
            .chain(others)
            .filter_map(|path| state.core.path_stats(path))
            .collect()
    }

    /// Whether everything sent is acknowledged and nothing waits.
    pub fn is_settled(&self) -> bool {
        self.shared().lock().core.is_settled()
    }

    // ---- end ----

    /// Takes nothing new, finishes what is open, then closes by itself. The peer learns `address` as
    /// the place to go instead; it may be empty.
    pub fn drain(&self, address: &str) {
        let now = self.shared().runtime.now();
        self.shared().lock().core.drain(now, address);
    }

    /// Closes at once: what was not acknowledged is *maybe*, what was not sent is *not sent*. Waits
    /// until the session has ended at this end.
    pub async fn close(&self, code: ErrorCode, reason: &str) {
        let now = self.shared().runtime.now();
        self.shared().lock().core.close(now, code, reason);
        let _ = self.closed().await;
    }

    /// Waits for the end, and says why.
    pub async fn closed(&self) -> Ended {
        wait_for(self.shared(), Interest::Lifecycle, |state: &mut State| {
            ended(state)
        })
        .await
    }

    /// Gives the client's paths over UDP other sockets, as when the network under them has changed: they go on from
    /// another address, without a handshake. A path whose socket nobody replaces finds that out by itself, but later.
    #[cfg(feature = "quic")]
    pub fn rebind(&self) {
        self.shared().lock().rebind = true;
    }

    // ---- the runtime ----

    /// Sleeps, whatever the runtime.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let runtime = &self.shared().runtime;
        Sleep {
            timer: runtime.timer(runtime.now() + duration),
        }
    }

    /// Runs a task, whatever the runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task: BoxFuture<'static, ()> = Box::pin(task);
        self.shared().runtime.spawn(task);
    }

    /// The time, as the session's runtime counts it.
    pub fn now(&self) -> Timestamp {
        self.shared().runtime.now()
    }

    /// The runtime behind the session.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.shared().runtime
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("side", &self.side())
            .field("state", &self.state())
            .finish()
    }
}

/// The future of what becomes of a message.
pub struct Tracked {
    shared: Arc<Shared>,
    id: u64,
}

impl Future for Tracked {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.shared.lock();
        let state = state.quiet();
        let ended = state.end.is_some();
        match state.outcomes.get_mut(&self.id) {
            Some(Tracking {
                outcome: Some(outcome),
                ..
            }) => Poll::Ready(*outcome),
            Some(tracking) if !ended => {
                store(&mut tracking.waker, cx);
                Poll::Pending
            }
            // The session reports every outcome before it ends; one that it did not is not known.
            _ => Poll::Ready(Outcome::Maybe),
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.quiet().outcomes.remove(&self.id);
    }
}

/// The future of [`Session::sleep`].
pub struct Sleep {
    timer: Box<dyn Timer>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.poll_expired(cx)
    }
}
