//! A call and its retries, one after the other.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use sheetbend_core::policy::retry::{Event, Marks, Retry};
use sheetbend_core::request::{CallError, Cause, Classify, Executed};

use crate::alarm::Alarm;
use crate::call::Reply;

use super::attempt::{Attempt, Ended, start};
use super::target::{Pick, TargetId};
use super::{Inner, Request, State, truly};

pub(super) async fn run(inner: &Arc<Inner>, marks: Marks, request: Request) -> Result<Reply, CallError> {
    let now = inner.runtime.now();
    let retry = Retry::new(inner.retry.clone(), marks, &mut inner.state.lock().budget, now);
    let mut call = Call {
        inner,
        request,
        retry,
        attempt: None,
        failed: None,
        last: None,
        maybe: false,
    };
    let mut alarm = Alarm::default();
    loop {
        if let Some(outcome) = call.advance() {
            return outcome;
        }
        let due = call.retry.poll_timeout().map(|(at, _)| at);
        let ended = poll_fn(|cx| {
            if let Some(attempt) = &mut call.attempt
                && let Poll::Ready(ended) = attempt.future.as_mut().poll(cx)
            {
                return Poll::Ready(Some(ended));
            }
            alarm.poll(inner.runtime.as_ref(), due, cx).map(|()| None)
        });
        match ended.await {
            Some(ended) => {
                call.attempt = None;
                if let Some(reply) = call.take(ended) {
                    return Ok(reply);
                }
            }
            None => call.retry.handle_timeout(inner.runtime.now()),
        }
    }
}

struct Call<'a> {
    inner: &'a Arc<Inner>,
    request: Request,
    retry: Retry,
    attempt: Option<Attempt>,
    /// Where the last attempt failed.
    failed: Option<TargetId>,
    last: Option<CallError>,
    /// An attempt may have been executed.
    maybe: bool,
}

impl Call<'_> {
    /// Does what the machine says. The outcome, once there will be no attempt any more.
    fn advance(&mut self) -> Option<Result<Reply, CallError>> {
        while let Some(event) = self.retry.poll_event() {
            match event {
                Event::Start(attempt) => {
                    let now = self.inner.runtime.now();
                    let until = self.inner.retry.attempt_timeout.map(|most| now + most);
                    let until = until.into_iter().chain(self.request.deadline).min();
                    let pick = Pick {
                        attempt: attempt.number,
                        avoid: self.failed.filter(|_| attempt.elsewhere),
                        switch_transport: attempt.switch_transport,
                        deadline: until,
                    };
                    self.attempt = Some(start(self.inner, &self.request, pick, until));
                }
                // The attempt ends by itself at the same moment, and knows how far it has come.
                Event::Cancel => {}
                Event::GiveUp(_) => {
                    let none = || CallError::NotSent(Cause::Cancelled);
                    let error = self.last.take().unwrap_or_else(none);
                    return Some(Err(truly(error, self.maybe)));
                }
            }
        }
        None
    }

    /// An attempt has ended.
    fn take(&mut self, ended: Ended) -> Option<Reply> {
        let now = self.inner.runtime.now();
        let mut state = self.inner.state.lock();
        let State { budget, rng, .. } = &mut *state;
        match ended.outcome {
            Ok(reply) => {
                self.retry.handle_success(budget);
                Some(reply)
            }
            Err(error) => {
                // If it took too long the machine is to know that first.
                self.retry.handle_timeout(now);
                while let Some(event) = self.retry.poll_event() {
                    debug_assert_eq!(event, Event::Cancel, "an attempt is under way");
                }
                let executed = error.executed();
                self.retry
                    .handle_failure(now, executed, error.classify(), budget, rng);
                self.maybe |= executed != Executed::No;
                self.failed = ended.target;
                self.last = Some(error);
                None
            }
        }
    }
}
