//! How one call runs.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::{BufMut, Bytes};
use sheetbend_core::request::idempotency::{Begin, RequestDigest};
use sheetbend_core::request::limiter::{Admission, SessionId};
use sheetbend_core::request::{CallKind, Code, Executed, Failure, Metadata, Reason};
use sheetbend_core::session::StreamKey;

use crate::call::{Context, ItemSender, Items};
use crate::intake::answer_head;
use crate::rt::{BoxFuture, Timer};
use crate::shared::Owner;

use super::keys::{Execution, Turn};
use super::limits::Permit;
use super::{Body, Handler, Inner, Outcome};

/// Where a call's answer goes.
struct Caller {
    owner: Arc<Owner>,
    key: StreamKey,
    kind: CallKind,
}

/// Why a call does not go on.
enum Stop {
    /// Nobody waits for its answer.
    Gone,
    /// To be answered with this.
    Fail(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Fail(failure)
    }
}

fn panicked() -> Failure {
    Failure::cut_short(Code::Internal, Reason::Panicked)
}

fn answer(owner: &Owner, key: StreamKey, kind: CallKind, outcome: Outcome) {
    if kind.answer_items() {
        let (result, trailers) = match outcome {
            Ok(reply) => (Ok(()), reply.metadata),
            Err(failure) => (Err(failure), Metadata::new()),
        };
        owner.0.lock().end_items(key, result.as_ref().copied(), &trailers);
    } else {
        let (head, payload) = encode(outcome);
        owner.0.command(|calls| calls.respond(key, &head, payload));
    }
}

fn encode(outcome: Outcome) -> (impl AsRef<[u8]> + std::ops::Deref<Target = [u8]>, Bytes) {
    match outcome {
        Ok(reply) => (answer_head(Ok(()), &reply.metadata), reply.payload),
        Err(failure) => (answer_head(Err(&failure), &Metadata::new()), Bytes::new()),
    }
}

/// An answer in one piece.
fn whole(outcome: Outcome) -> Bytes {
    let (head, payload) = encode(outcome);
    let mut all = Vec::with_capacity(head.len() + payload.len());
    all.put_slice(&head);
    all.put_slice(&payload);
    all.into()
}

/// Makes the handler's future.
fn prepare(handler: &Handler, context: Context, first: Bytes) -> Option<BoxFuture<'static, Outcome>> {
    let (owner, key, kind) = (context.owner.clone(), context.key, context.kind());
    let body = if kind.request_items() {
        let items = Items::new(owner.clone(), key, first, context.is_finished());
        Body::Items(Box::new(items))
    } else {
        Body::Payload(first)
    };
    let out = kind.answer_items().then(|| ItemSender::of_answer(owner, key));
    catch_unwind(AssertUnwindSafe(|| (handler.run)(context, body, out))).ok()
}

/// Polls a handler, and drops it once it is done. Its panic is its own failure.
fn poll_handler(future: &mut Option<BoxFuture<'static, Outcome>>, cx: &mut Task<'_>) -> Poll<Outcome> {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let running = future.as_mut()?;
        let polled = running.as_mut().poll(cx);
        if polled.is_ready() {
            *future = None;
        }
        Some(polled)
    }));
    match polled {
        Ok(Some(polled)) => polled,
        Ok(None) => Poll::Ready(Err(panicked())),
        Err(_) => {
            let rest = AssertUnwindSafe(future.take());
            let _ = catch_unwind(move || drop(rest));
            Poll::Ready(Err(panicked()))
        }
    }
}

/// Begins a call that has come. What it does not do at once it does in a task of its own.
pub(super) fn begin(
    inner: &Arc<Inner>,
    number: SessionId,
    mut context: Context,
    first: Bytes,
    state: Option<&Arc<dyn Any + Send + Sync>>,
    cx: &mut Task<'_>,
) {
    if let Some(state) = state {
        context.set_state(state.clone());
    }
    let owner = &context.owner.clone();
    let (key, kind) = (context.key, context.kind());
    let handler = match inner.find(context.method(), kind) {
        Ok(handler) => handler,
        Err(failure) => return answer(owner, key, kind, Err(failure)),
    };
    let id = handler.id;
    let limited = handler.limited || inner.spawn_each || !inner.limits.has_room();
    if limited || context.key().is_some() {
        let call = queued(inner.clone(), number, context, first);
        owner.0.runtime.spawn(Box::pin(call));
        return;
    }
    let deadline = context.deadline();
    if deadline.is_some_and(|deadline| deadline.has_passed(owner.0.runtime.now())) {
        let failure = Failure::refused(Code::DeadlineExceeded, Reason::Expired);
        return answer(owner, key, kind, Err(failure));
    }
    let mut future = prepare(handler, context, first);
    match poll_handler(&mut future, cx) {
        Poll::Ready(outcome) => answer(owner, key, kind, outcome),
        Poll::Pending => {
            let permit = match inner.limits.arrive(number, id) {
                Ok(Admission::Run(id)) => Some(Permit::new(inner.clone(), id)),
                // It runs already: it goes without.
                Ok(Admission::Wait(id)) => {
                    drop(Permit::new(inner.clone(), id));
                    None
                }
                Err(_) => None,
            };
            let caller = Caller {
                owner: owner.clone(),
                key,
                kind,
            };
            let timer = deadline.map(|deadline| owner.0.runtime.timer(deadline.timestamp()));
            let running = async move {
                let _permit = permit;
                let ended = run(&caller, future, timer).await;
                caller.answer(ended);
            };
            owner.0.runtime.spawn(Box::pin(running));
        }
    }
}

/// Runs a handler as long as somebody waits for it.
async fn run(
    caller: &Caller,
    mut future: Option<BoxFuture<'static, Outcome>>,
    mut timer: Option<Box<dyn Timer>>,
) -> Result<Outcome, Stop> {
    let ended = poll_fn(|cx| {
        if let Poll::Ready(outcome) = poll_handler(&mut future, cx) {
            return Poll::Ready(Ok(outcome));
        }
        caller.poll_stop(&mut timer, cx, true).map(Err)
    })
    .await;
    // Before its stream goes.
    let rest = AssertUnwindSafe(future.take());
    let _ = catch_unwind(move || drop(rest));
    ended
}

impl Caller {
    /// Whether the call is to go no further; `begun` tells that its handler was.
    fn poll_stop(&self, timer: &mut Option<Box<dyn Timer>>, cx: &mut Task<'_>, begun: bool) -> Poll<Stop> {
        if Context::poll_gone(&self.owner, self.key, cx).is_ready() {
            return Poll::Ready(Stop::Gone);
        }
        match timer {
            Some(timer) => timer.poll_expired(cx).map(|()| {
                let (code, reason) = (Code::DeadlineExceeded, Reason::Expired);
                Stop::Fail(match begun {
                    true => Failure::cut_short(code, reason),
                    false => Failure::refused(code, reason),
                })
            }),
            None => Poll::Pending,
        }
    }

    fn answer(&self, ended: Result<Outcome, Stop>) {
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(Stop::Fail(failure)) => Err(failure),
            Err(Stop::Gone) => {
                let mut state = self.owner.0.lock();
                state.drop_writing(self.key);
                return state.core.release(self.key);
            }
        };
        answer(&self.owner, self.key, self.kind, outcome);
    }

    fn replay(&self, whole: Bytes) {
        self.owner.0.command(|calls| calls.respond(self.key, &[], whole));
    }
}

/// A call that may have to wait for its turn, or has a deadline or a key.
async fn queued(inner: Arc<Inner>, number: SessionId, context: Context, first: Bytes) {
    let caller = Caller {
        owner: context.owner.clone(),
        key: context.key,
        kind: context.kind(),
    };
    if context.key().is_some() {
        return keyed(inner, number, caller, context, first).await;
    }
    let ended = limited(&inner, number, &caller, context, first, None).await;
    caller.answer(ended);
}

/// Waits for a call's turn, then runs it. One with a key runs to its end, whoever waits for it.
async fn limited(
    inner: &Arc<Inner>,
    number: SessionId,
    caller: &Caller,
    context: Context,
    first: Bytes,
    execution: Option<&mut Execution>,
) -> Result<Outcome, Stop> {
    let runtime = &caller.owner.0.runtime;
    let deadline = context.deadline();
    if deadline.is_some_and(|deadline| deadline.has_passed(runtime.now())) {
        return Err(Failure::refused(Code::DeadlineExceeded, Reason::Expired).into());
    }
    let mut timer = deadline.map(|deadline| runtime.timer(deadline.timestamp()));
    let handler = inner.find(context.method(), caller.kind)?;
    let admission = inner.limits.arrive(number, handler.id);
    let permit = match admission.map_err(|overload| overload.failure())? {
        Admission::Run(id) => Permit::new(inner.clone(), id),
        Admission::Wait(id) => {
            let permit = Permit::new(inner.clone(), id);
            let turn = poll_fn(|cx| {
                if inner.limits.poll_turn(permit.id(), cx).is_ready() {
                    return Poll::Ready(Ok(()));
                }
                caller.poll_stop(&mut timer, cx, false).map(Err)
            });
            turn.await?;
            permit
        }
    };
    let ended = match execution {
        None => run(caller, prepare(handler, context, first), timer).await,
        Some(execution) => {
            let dropped = Failure::cut_short(Code::Internal, Reason::Dropped);
            execution.cut = Some(whole(Err(dropped)));
            let mut future = prepare(handler, context, first);
            Ok(poll_fn(|cx| poll_handler(&mut future, cx)).await)
        }
    };
    drop(permit);
    ended
}

/// A call with a key: PROTOCOL 11.8.
async fn keyed(inner: Arc<Inner>, number: SessionId, caller: Caller, context: Context, first: Bytes) {
    let refuse = |failure| caller.answer(Ok(Err(failure)));
    let (Some(keys), CallKind::Unary) = (&inner.keys, caller.kind) else {
        let failure = Failure::refused(Code::Unimplemented, Reason::NoSuchMethod);
        return refuse(
            failure.with_message("keys are served on unary calls, where there is a table for them"),
        );
    };
    let runtime = caller.owner.0.runtime.clone();
    let digest = RequestDigest::of(context.method(), &first);
    let scope = (inner.key_scope)(&context);
    let (begin, waiter) = keys.begin(runtime.now(), scope, context.key().unwrap_or_default(), digest);
    let turn = match begin {
        Begin::Execute(ticket) => Turn::Execute(ticket),
        Begin::Replay(whole) => Turn::Replay(whole),
        Begin::Refuse(refusal) => return refuse(refusal.failure()),
        Begin::Wait => {
            let deadline = context.deadline().map(|deadline| deadline.timestamp());
            let mut timer = deadline.map(|at| runtime.timer(at));
            let turn = poll_fn(|cx| {
                if let Poll::Ready(turn) = keys.poll_turn(waiter, cx) {
                    return Poll::Ready(Ok(turn));
                }
                // Its handler may be running for another attempt.
                caller.poll_stop(&mut timer, cx, true).map(Err)
            });
            match turn.await {
                Ok(turn) => turn,
                Err(stop) => {
                    keys.cancel_wait(runtime.now(), waiter);
                    return caller.answer(Err(stop));
                }
            }
        }
    };
    let ticket = match turn {
        Turn::Replay(whole) => return caller.replay(whole),
        Turn::Execute(ticket) => ticket,
    };
    let clock = runtime.clone();
    let mut execution = Execution {
        inner: inner.clone(),
        now: Box::new(move || clock.now()),
        ticket: Some(ticket),
        cut: None,
    };
    match limited(&inner, number, &caller, context, first, Some(&mut execution)).await {
        // It says itself that nothing was done: the key stays free.
        Ok(Err(failure)) if failure.executed == Executed::No => {
            execution.settle(None);
            caller.answer(Ok(Err(failure)));
        }
        Ok(outcome) => {
            let answer = whole(outcome);
            execution.settle(Some(answer.clone()));
            caller.replay(answer);
        }
        // No handler ran.
        Err(stop) => {
            execution.settle(None);
            caller.answer(Err(stop));
        }
    }
}
