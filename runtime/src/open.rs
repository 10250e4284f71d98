//! Who waits for credit to open a stream: in line, and each woken with its stream already open, so that
//! thousands may wait without all of them trying at every bit of credit.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use sheetbend_core::session::{OpenError, StreamKey};
use sheetbend_core::wire::{Class, Kind, Side};

use crate::dispatch::WaitingCall;
use crate::shared::{Shared, State};
use crate::waits::WakeList;

/// Who stands in line.
pub(crate) enum Waiting {
    /// A task, which asks again when it is woken.
    Task(Waker),
    /// A request, which the driver sends.
    Call(Box<WaitingCall>),
}

/// The line of one kind and class.
#[derive(Default)]
struct Line {
    /// By ticket, which count up.
    waiting: VecDeque<(u64, Waiting)>,
    /// Opened for those who have been woken.
    granted: BTreeMap<u64, StreamKey>,
}

/// The lines of a session. Those that nobody stands in cost nothing.
#[derive(Default)]
pub(crate) struct Openers {
    lines: Vec<((Kind, Class), Line)>,
    next: u64,
}

impl Openers {
    fn line(&mut self, what: (Kind, Class)) -> Option<&mut Line> {
        self.lines
            .iter_mut()
            .find(|(of, _)| *of == what)
            .map(|(_, line)| line)
    }

    /// Joins the end of a line; gives the ticket.
    pub(crate) fn join(&mut self, what: (Kind, Class), who: Waiting) -> u64 {
        self.next += 1;
        let ticket = self.next;
        if self.line(what).is_none() {
            self.lines.push((what, Line::default()));
        }
        if let Some(line) = self.line(what) {
            line.waiting.push_back((ticket, who));
        }
        ticket
    }
}

impl State {
    /// Opens a stream, or stands in line for it.
    pub(crate) fn poll_open(
        &mut self,
        cx: &Context<'_>,
        what: (Kind, Class),
        ticket: &mut Option<u64>,
    ) -> Poll<Result<StreamKey, OpenError>> {
        if let Some(own) = *ticket {
            if let Some(line) = self.openers.line(what) {
                if let Some(key) = line.granted.remove(&own) {
                    *ticket = None;
                    return Poll::Ready(Ok(key));
                }
                if let Ok(place) = line.waiting.binary_search_by_key(&own, |(ticket, _)| *ticket) {
                    line.waiting[place].1 = Waiting::Task(cx.waker().clone());
                    return Poll::Pending;
                }
            }
            *ticket = None;
        }
        match self.open_in_turn(what, false) {
            Err(OpenError::Exhausted) => {}
            other => return Poll::Ready(other),
        }
        *ticket = Some(self.openers.join(what, Waiting::Task(cx.waker().clone())));
        Poll::Pending
    }

    /// Opens a stream, unless others have been waiting for one. What is `repeatable` does not wait for WELCOME, where the
    /// configuration allows early data, nor for those who do (PROTOCOL 5.6).
    pub(crate) fn open_in_turn(
        &mut self,
        what: (Kind, Class),
        repeatable: bool,
    ) -> Result<StreamKey, OpenError> {
        let early = repeatable && self.core.side() == Side::Client && self.core.id().is_none();
        let in_line = self
            .openers
            .line(what)
            .is_some_and(|line| !line.waiting.is_empty());
        if in_line && !early && !self.core.state().is_terminal() {
            return Err(OpenError::Exhausted);
        }
        let key = match early {
            true => self.core.open(what.0, what.1)?,
            false => self.core.open_once(what.0, what.1)?,
        };
        self.fresh_slot(key);
        Ok(key)
    }

    /// There is credit: opens streams for those in line.
    pub(crate) fn grant(&mut self, what: (Kind, Class), wakes: &mut WakeList) {
        loop {
            let State { openers, core, .. } = self;
            let Some(line) = openers.line(what) else { return };
            if line.waiting.is_empty() {
                return;
            }
            match core.open(what.0, what.1) {
                Ok(key) => {
                    let next = line.waiting.pop_front();
                    if let Some((ticket, Waiting::Task(_))) = &next {
                        line.granted.insert(*ticket, key);
                    }
                    self.fresh_slot(key);
                    match next {
                        Some((_, Waiting::Task(waker))) => wakes.push(waker),
                        Some((_, Waiting::Call(call))) => self.start_waiting_call(key, *call),
                        None => {}
                    }
                }
                Err(OpenError::Exhausted) => return,
                Err(error) => return self.refuse_line(what, &error, wakes),
            }
        }
    }

    /// Nobody in line gets a stream: tasks ask again and are told, requests have failed.
    fn refuse_line(&mut self, what: (Kind, Class), error: &OpenError, wakes: &mut WakeList) {
        let Some(line) = self.openers.line(what) else {
            return;
        };
        for (_, waiting) in std::mem::take(&mut line.waiting) {
            match waiting {
                Waiting::Task(waker) => wakes.push(waker),
                Waiting::Call(call) => self.refuse_waiting_call(&call, error),
            }
        }
    }

    /// The session has ended.
    pub(crate) fn end_lines(&mut self, wakes: &mut WakeList) {
        for index in 0..self.openers.lines.len() {
            let what = self.openers.lines[index].0;
            self.refuse_line(what, &OpenError::Ended, wakes);
        }
    }

    /// Leaves the line; a stream that was opened meanwhile is given up.
    pub(crate) fn leave_line(&mut self, what: (Kind, Class), ticket: u64) {
        let Some(line) = self.openers.line(what) else {
            return;
        };
        if let Some(key) = line.granted.remove(&ticket) {
            self.core.release(key);
        } else if let Ok(place) = line.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
            line.waiting.remove(place);
        }
    }
}

/// The future of an open stream.
pub(crate) struct Open<'a> {
    shared: &'a Shared,
    what: (Kind, Class),
    ticket: Option<u64>,
}

/// Opens a stream, waiting for credit if need be.
pub(crate) fn open(shared: &Shared, kind: Kind, class: Class) -> Open<'_> {
    Open {
        shared,
        what: (kind, class),
        ticket: None,
    }
}

impl Future for Open<'_> {
    type Output = Result<StreamKey, OpenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Open { shared, what, ticket } = &mut *self;
        // An opened stream is no news to the driver until something is written.
        shared.lock().quiet().poll_open(cx, *what, ticket)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(own) = self.ticket.take() {
            self.shared.lock().leave_line(self.what, own);
        }
    }
}
