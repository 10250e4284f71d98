//! Where the attempts of a call go.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};

use sheetbend_core::request::Cause;
use sheetbend_core::time::Timestamp;

use crate::client::Client;
use crate::rt::BoxFuture;
use crate::session::Session;

pub use sheetbend_core::policy::breaker::TargetId;

/// What an attempt needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pick {
    /// The attempt, counted from 0.
    pub attempt: u32,
    /// Where the attempt before failed: rather not there again, if there is anywhere else.
    pub avoid: Option<TargetId>,
    /// Over another transport, if there is one.
    pub switch_transport: bool,
    /// Nobody waits longer.
    pub deadline: Option<Timestamp>,
}

/// A session for an attempt.
pub struct Picked {
    /// The session.
    pub session: Session,
    /// What fails together: breakers go by it.
    pub target: TargetId,
    /// Dropped when the attempt is over: what gives the session back to where it came from.
    pub guard: Option<Box<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Picked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picked")
            .field("session", &self.session)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Gives sessions to attempts. Implemented by [`Session`], [`Client`] and [`RoundRobin`]; a pool of sessions is one.
pub trait Target: Send + Sync + 'static {
    /// A session for an attempt. Waiting is bounded by whoever asks: it may be dropped at any time.
    ///
    /// # Errors
    /// Why there is none. The attempt was not sent.
    fn pick(&self, pick: Pick) -> BoxFuture<'_, Result<Picked, Cause>>;
}

/// This session and no other.
impl Target for Session {
    fn pick(&self, _: Pick) -> BoxFuture<'_, Result<Picked, Cause>> {
        let picked = Picked {
            session: self.clone(),
            target: TargetId(0),
            guard: None,
        };
        Box::pin(std::future::ready(Ok(picked)))
    }
}

/// The client's session, or a new one where the last was lost.
impl Target for Client {
    fn pick(&self, _: Pick) -> BoxFuture<'_, Result<Picked, Cause>> {
        Box::pin(async move {
            let session = self.session().await;
            Ok(Picked {
                session: session.map_err(|_| Cause::NoConnection("no session could be made"))?,
                target: TargetId(0),
                guard: None,
            })
        })
    }
}

/// Several targets that serve the same, by turns. The target with index `n` is [`TargetId`] `n`.
pub struct RoundRobin {
    targets: Vec<Box<dyn Target>>,
    next: AtomicUsize,
}

impl RoundRobin {
    /// Over these, of which there must be one at least for a call to succeed.
    pub fn new<T: Target>(targets: impl IntoIterator<Item = T>) -> RoundRobin {
        RoundRobin {
            targets: targets
                .into_iter()
                .map(|target| Box::new(target) as Box<dyn Target>)
                .collect(),
            next: AtomicUsize::new(0),
        }
    }
}

impl Target for RoundRobin {
    fn pick(&self, pick: Pick) -> BoxFuture<'_, Result<Picked, Cause>> {
        let count = self.targets.len();
        if count == 0 {
            return Box::pin(std::future::ready(Err(Cause::NoConnection("there is no target"))));
        }
        let mut index = self.next.fetch_add(1, Ordering::Relaxed) % count;
        if pick.avoid == Some(TargetId(index as u64)) && count > 1 {
            index = self.next.fetch_add(1, Ordering::Relaxed) % count;
        }
        Box::pin(async move {
            let picked = self.targets[index].pick(pick).await?;
            Ok(Picked {
                target: TargetId(index as u64),
                ..picked
            })
        })
    }
}
