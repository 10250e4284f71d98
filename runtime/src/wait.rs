//! The future behind most of the session's methods.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::shared::{Shared, State};
use crate::waits::{Interest, Ticket};

/// Repeats an attempt on the locked state until it gives something. Dropping it takes back its
/// registration, so it may be used in `select!` without leaving anything behind.
pub(crate) struct Wait<'a, F> {
    shared: &'a Shared,
    interest: Interest,
    ticket: Option<Ticket>,
    attempt: F,
}

/// Waits for `attempt` to give something, trying again whenever `interest` is met.
pub(crate) fn wait_for<T, F>(shared: &Shared, interest: Interest, attempt: F) -> Wait<'_, F>
where
    F: FnMut(&mut State) -> Option<T> + Unpin,
{
    Wait {
        shared,
        interest,
        ticket: None,
        attempt,
    }
}

impl<T, F> Future for Wait<'_, F>
where
    F: FnMut(&mut State) -> Option<T> + Unpin,
{
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Wait {
            shared,
            interest,
            ticket,
            attempt,
        } = &mut *self;
        shared.lock().wait(cx, *interest, ticket, attempt)
    }
}

impl<F> Drop for Wait<'_, F> {
    fn drop(&mut self) {
        if let Some(own) = self.ticket.take() {
            self.shared.lock().quiet().waits.forget(self.interest, own);
        }
    }
}
