//! What is pooled: sessions, and plain connections.

use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::BytesMut;
use sheetbend_core::request::Cause;
use sheetbend_core::wire::ErrorCode;

use super::{Manage, Pool, PoolError};
use crate::address::Address;
use crate::caller::{Pick, Picked, Target, TargetId};
use crate::client::ClientBuilder;
use crate::rt::{BoxFuture, Runtime, Socket};
use crate::session::Session;

type Check = dyn Fn(Session) -> BoxFuture<'static, bool> + Send + Sync;

/// Pools sessions; a target is the endpoint of a server.
///
/// Each session is given out to one at a time. Its own heartbeats tell whether its paths live; without a check of
/// the application's ([`checked_by`](Self::checked_by)) one that was idle for long is well when it has a path.
pub struct Sessions {
    runtime: Arc<dyn Runtime>,
    settings: ClientBuilder,
    check: Option<Arc<Check>>,
}

impl Sessions {
    /// Sessions with these settings, whose own endpoints come after the target.
    pub fn new(runtime: Arc<dyn Runtime>, settings: ClientBuilder) -> Sessions {
        Sessions {
            runtime,
            settings,
            check: None,
        }
    }

    /// Asks this, a request that the server answers for one, whether a session that was idle for long is well.
    pub fn checked_by(
        mut self,
        check: impl Fn(Session) -> BoxFuture<'static, bool> + Send + Sync + 'static,
    ) -> Sessions {
        self.check = Some(Arc::new(check));
        self
    }
}

impl Manage for Sessions {
    type Target = Address;
    type Item = Session;

    fn open(&self, target: &Address) -> BoxFuture<'static, Result<Session, String>> {
        let settings = self.settings.clone().preferred(target.clone());
        let runtime = self.runtime.clone();
        Box::pin(async move { settings.connect(runtime).await.map_err(|error| error.to_string()) })
    }

    fn is_well(&self, session: &Session) -> bool {
        !session.state().is_terminal()
    }

    fn check(&self, session: &Arc<Session>) -> BoxFuture<'static, bool> {
        match &self.check {
            Some(check) => check(Session::clone(session)),
            None => {
                let well = self.is_well(session) && !session.paths().is_empty();
                Box::pin(std::future::ready(well))
            }
        }
    }

    fn ended(&self, session: &Arc<Session>) -> Option<BoxFuture<'static, ()>> {
        let session = Session::clone(session);
        Some(Box::pin(async move { drop(session.closed().await) }))
    }

    fn close(&self, session: Arc<Session>) {
        let last = Session::clone(&session);
        session.spawn(async move { last.close(ErrorCode::NONE, "not needed any more").await });
    }
}

/// A pool's sessions with one server, for the attempts of a [`Caller`](crate::Caller): [`Pool::sessions_to`].
#[derive(Clone)]
pub struct SessionsTo {
    pool: Pool<Sessions>,
    target: Address,
}

impl Pool<Sessions> {
    /// Its sessions with this server as what a [`Caller`](crate::Caller) calls. Each attempt has a session to
    /// itself.
    pub fn sessions_to(&self, target: Address) -> SessionsTo {
        let pool = self.clone();
        SessionsTo { pool, target }
    }
}

impl Target for SessionsTo {
    fn pick(&self, pick: Pick) -> BoxFuture<'_, Result<Picked, Cause>> {
        let take = self.pool.take_by(self.target.clone(), pick.deadline);
        Box::pin(async move {
            let pooled = take.await.map_err(|error| {
                Cause::NoConnection(match error {
                    PoolError::TimedOut { .. } => "no session of the pool came free in time",
                    PoolError::TooManyWaiting => "too many wait for the pool",
                    PoolError::TooManyTargets => "the pool has too many targets",
                    PoolError::Closed => "the pool is closed",
                })
            })?;
            Ok(Picked {
                session: Session::clone(&pooled),
                target: TargetId(0),
                guard: Some(Box::new(pooled)),
            })
        })
    }
}

/// Pools plain connections of the runtime.
///
/// One that is idle has nothing to say: what can be read is its end, or bytes that belong to nobody, and it is not
/// given out again.
pub struct Sockets {
    runtime: Arc<dyn Runtime>,
}

impl Sockets {
    /// Connections of this runtime.
    pub fn new(runtime: Arc<dyn Runtime>) -> Sockets {
        Sockets { runtime }
    }
}

impl Manage for Sockets {
    type Target = Address;
    type Item = Box<dyn Socket>;

    fn open(&self, target: &Address) -> BoxFuture<'static, Result<Box<dyn Socket>, String>> {
        let connecting = self.runtime.connect(target.clone());
        Box::pin(async move { connecting.await.map_err(|error| error.to_string()) })
    }

    fn is_well(&self, socket: &Box<dyn Socket>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if socket.poll_readable(&mut cx).is_pending() {
            return true;
        }
        // It may be ready for nothing.
        let read = socket.try_read(&mut BytesMut::with_capacity(1));
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    fn check(&self, socket: &Arc<Box<dyn Socket>>) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(self.is_well(socket)))
    }

    fn close(&self, socket: Arc<Box<dyn Socket>>) {
        // It may be closed already.
        let _ = socket.shutdown();
    }
}
