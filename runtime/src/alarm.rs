//! A deadline that moves, and a timer that is made when there first is one.

use std::task::{Context, Poll};

use sheetbend_core::time::Timestamp;

use crate::rt::{Runtime, Timer};

/// Waits until a deadline, which may be another one each time.
#[derive(Default)]
pub(crate) struct Alarm(Option<(Box<dyn Timer>, Timestamp)>);

impl Alarm {
    /// Ready once `due` has passed; never without one.
    pub(crate) fn poll(
        &mut self,
        runtime: &dyn Runtime,
        due: Option<Timestamp>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(due) = due else { return Poll::Pending };
        let (timer, at) = self.0.get_or_insert_with(|| (runtime.timer(due), due));
        if *at != due {
            timer.reset(due);
            *at = due;
        }
        timer.poll_expired(cx).map(|()| {
            // An expired timer is set anew before it is asked again.
            *at = Timestamp::MAX;
        })
    }

    /// [`Alarm::poll`] for a deadline that keeps moving away: the timer is not set back with it, so that it may be
    /// ready too soon.
    #[cfg(any(feature = "http", feature = "quic"))]
    pub(crate) fn poll_soonest(
        &mut self,
        runtime: &dyn Runtime,
        due: Option<Timestamp>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let set = self.0.as_ref().map(|(_, at)| *at);
        let soonest = due.into_iter().chain(set).min();
        self.poll(runtime, soonest.filter(|at| *at < Timestamp::MAX), cx)
    }

    /// Whether the timer's time has come.
    #[cfg(feature = "http")]
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.0.as_ref().is_some_and(|(_, at)| *at <= now)
    }

    /// Whether [`Alarm::poll_soonest`] would set the timer. Otherwise it need not be asked before the timer wakes.
    #[cfg(feature = "http")]
    pub(crate) fn is_late_for(&self, due: Option<Timestamp>) -> bool {
        let set = self.0.as_ref().map_or(Timestamp::MAX, |(_, at)| *at);
        due.is_some_and(|due| due < set)
    }
}
