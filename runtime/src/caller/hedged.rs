//! A call and its hedges, side by side.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use sheetbend_core::policy::hedge::{Event, Hedge, HedgePolicy, Latencies};
use sheetbend_core::policy::retry::Marks;
use sheetbend_core::request::{CallError, Cause, Classify, Executed};
use smallvec::SmallVec;

use crate::alarm::Alarm;
use crate::call::Reply;

use super::attempt::{Attempt, start};
use super::target::{Pick, TargetId};
use super::{Inner, Request, State, truly};

pub(super) async fn run(
    inner: &Arc<Inner>,
    policy: HedgePolicy,
    marks: Marks,
    request: Request,
) -> Result<Reply, CallError> {
    // Every attempt ends at the call's deadline by itself, and knows how far it has come.
    let marks = Marks {
        deadline: None,
        ..marks
    };
    let mut hedge = {
        let mut state = inner.state.lock();
        let State { budget, methods, .. } = &mut *state;
        let mut unknown = None;
        let latencies = match methods.get_mut(&request.method) {
            Some(method) => &mut method.latencies,
            None => unknown.insert(Latencies::new()),
        };
        Hedge::new(policy, latencies, marks, budget, inner.runtime.now())
    };
    let mut running: SmallVec<[(u32, Attempt); 2]> = SmallVec::new();
    let (mut maybe, mut last, mut alarm) = (false, None, Alarm::default());
    loop {
        while let Some(event) = hedge.poll_event() {
            match event {
                Event::Start(number) => {
                    let before: Option<TargetId> =
                        running.last().and_then(|(_, attempt)| *attempt.target.lock());
                    let pick = Pick {
                        attempt: number,
                        avoid: before,
                        switch_transport: false,
                        deadline: request.deadline,
                    };
                    running.push((number, start(inner, &request, pick, request.deadline)));
                }
                Event::Cancel(number) => {
                    maybe = true;
                    running.retain(|(other, _)| *other != number);
                }
                Event::GiveUp => {
                    let none = || CallError::NotSent(Cause::Cancelled);
                    return Err(truly(last.unwrap_or_else(none), maybe));
                }
            }
        }
        let due = hedge.poll_timeout().map(|(at, _)| at);
        let ended = poll_fn(|cx| {
            for (number, attempt) in &mut running {
                if let Poll::Ready(ended) = attempt.future.as_mut().poll(cx) {
                    return Poll::Ready(Some((*number, ended)));
                }
            }
            alarm.poll(inner.runtime.as_ref(), due, cx).map(|()| None)
        });
        let ended = ended.await;
        let now = inner.runtime.now();
        let mut state = inner.state.lock();
        let budget = &mut state.budget;
        match ended {
            None => hedge.handle_timeout(now, budget),
            Some((number, ended)) => {
                let attempt = running.iter().position(|(other, _)| *other == number);
                let attempt = attempt.map(|place| running.remove(place));
                match ended.outcome {
                    Ok(reply) => {
                        hedge.handle_success(number, budget);
                        drop(state);
                        return Ok(reply);
                    }
                    Err(error) => {
                        hedge.handle_failure(now, number, error.classify(), budget);
                        maybe |= error.executed() != Executed::No;
                        last = Some(error);
                    }
                }
                drop(state);
                drop(attempt);
            }
        }
    }
}
