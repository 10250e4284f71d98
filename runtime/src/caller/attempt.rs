//! One attempt of a call.

use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use sheetbend_core::policy::breaker::{Permit, Verdict};
use sheetbend_core::request::{CallError, Cause, Classify};
use sheetbend_core::time::Timestamp;

use crate::call::{CallBuilder, Reply};
use crate::rt::BoxFuture;

use super::target::{Pick, TargetId};
use super::{Inner, Request};

/// What an attempt came to, and where.
pub(super) struct Ended {
    pub(super) outcome: Result<Reply, CallError>,
    pub(super) target: Option<TargetId>,
}

/// An attempt under way.
pub(super) struct Attempt {
    pub(super) future: BoxFuture<'static, Ended>,
    /// Where it went, once that is known.
    pub(super) target: Arc<Mutex<Option<TargetId>>>,
}

/// A breaker's leave for one attempt. It hears of the end whatever becomes of that.
struct Leave {
    inner: Arc<Inner>,
    permit: Option<Permit>,
    verdict: Verdict,
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let now = self.inner.runtime.now();
            let mut state = self.inner.state.lock();
            if let Some(breakers) = &mut state.breakers {
                breakers.record(now, permit, self.verdict);
                while breakers.poll_event().is_some() {}
            }
        }
    }
}

/// Begins an attempt, which ends at `until`, if not before.
pub(super) fn start(inner: &Arc<Inner>, request: &Request, pick: Pick, until: Option<Timestamp>) -> Attempt {
    let mut request = request.clone();
    if pick.attempt > 0 {
        let options = request.options.get_or_insert_default();
        options.attempt = u64::from(pick.attempt);
    }
    inner.state.lock().stats.attempts += 1;
    let target = Arc::new(Mutex::new(None));
    let (inner, found) = (inner.clone(), target.clone());
    let future = Box::pin(async move {
        let outcome = attempt(&inner, request, pick, until, &found).await;
        let target = *found.lock();
        Ended { outcome, target }
    });
    Attempt { future, target }
}

async fn attempt(
    inner: &Arc<Inner>,
    request: Request,
    pick: Pick,
    until: Option<Timestamp>,
    found: &Mutex<Option<TargetId>>,
) -> Result<Reply, CallError> {
    let mut timer = until.map(|at| inner.runtime.timer(at));
    let mut picking = inner.target.pick(pick);
    let picked = std::future::poll_fn(|cx| {
        if let Poll::Ready(picked) = picking.as_mut().poll(cx) {
            return Poll::Ready(picked);
        }
        match &mut timer {
            Some(timer) => timer.poll_expired(cx).map(|()| Err(Cause::Deadline)),
            None => Poll::Pending,
        }
    });
    let picked = picked.await.map_err(CallError::NotSent)?;
    drop((picking, timer));
    *found.lock() = Some(picked.target);
    let mut leave = Leave {
        inner: inner.clone(),
        permit: None,
        verdict: Verdict::Neither,
    };
    {
        let mut state = inner.state.lock();
        let method = state.method_id(&request.method);
        if let Some(breakers) = &mut state.breakers {
            let admitted = breakers.admit(inner.runtime.now(), picked.target, method);
            while breakers.poll_event().is_some() {}
            match admitted {
                Ok(permit) => leave.permit = Some(permit),
                Err(_) => {
                    state.stats.held_back += 1;
                    return Err(CallError::NotSent(Cause::BreakerOpen));
                }
            }
        }
    }
    let began = inner.runtime.now();
    let outcome = CallBuilder::new(picked.session.owner(), &request.method)
        .with(request.deadline, request.options)
        .unary_until(until, request.payload)
        .await;
    leave.verdict = match &outcome {
        Ok(_) => Verdict::Good,
        Err(error) if error.classify().counts_against_target() => Verdict::Bad,
        Err(CallError::Failed(_)) => Verdict::Good,
        Err(_) => Verdict::Neither,
    };
    if outcome.is_ok() {
        let took = inner.runtime.now().since(began);
        if let Some(method) = inner.state.lock().method(&request.method) {
            method.latencies.observe(took);
        }
    }
    outcome
}
