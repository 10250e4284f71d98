//! What arrives, what switches, and the silence around each switch.

use super::fault::Fault;
use super::gap::{FaultId, GapMeter};
use super::report::{Messages, Outage, Switch};
use super::sequence::SequenceChecker;
use sheetbend_tokio::SwitchCause;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long after a fault a silence may begin that counts for it.
pub(super) const WINDOW: Duration = Duration::from_millis(400);

/// The same for a switch that no fault made: the silence around it.
const OWN_WINDOW: Duration = Duration::from_millis(30);

/// Sees every message that arrives and every switch. All times are since the demo began.
pub(super) struct Watch {
    start: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    gaps: GapMeter,
    /// The silence around switches of the session's own making.
    own_gaps: GapMeter,
    numbers: SequenceChecker,
    fault: Option<InForce>,
    /// Switches, some of whose gaps are still being measured.
    switches: Vec<(Switch, Option<Measured>)>,
    outages: Vec<Outage>,
    last_arrival: Duration,
    /// The outage that is over for the proxies, but not yet for the session.
    waking: Option<Waking>,
}

/// Which measurement gives a switch's gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measured {
    ByFault(FaultId),
    ByItself(FaultId),
}

/// A fault, from the moment it is caused until the next one.
struct InForce {
    fault: Fault,
    /// The path it breaks, as the table calls it.
    way: String,
    id: FaultId,
    at: Duration,
    healed: bool,
}

struct Waking {
    cut_at: Duration,
    opened_at: Duration,
    attempt_at: Option<Duration>,
}

impl Watch {
    /// A watch that begins now.
    pub(super) fn new() -> Watch {
        Watch {
            start: Instant::now(),
            inner: Mutex::new(Inner {
                gaps: GapMeter::new(WINDOW),
                own_gaps: GapMeter::new(OWN_WINDOW),
                numbers: SequenceChecker::new(),
                fault: None,
                switches: Vec::new(),
                outages: Vec::new(),
                last_arrival: Duration::ZERO,
                waking: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Message `number` has arrived.
    pub(super) fn arrival(&self, number: u64) {
        let mut inner = self.lock();
        let now = self.now();
        inner.numbers.arrival(number);
        inner.last_arrival = now;
        inner.gaps.arrival(now);
        inner.own_gaps.arrival(now);
        if let Some(Waking {
            cut_at,
            opened_at,
            attempt_at: Some(attempt_at),
        }) = inner.waking
        {
            inner.waking = None;
            inner
                .outages
                .push(Outage::new(opened_at - cut_at, now - opened_at, now - attempt_at));
        }
        inner.settle();
    }

    /// `fault` is about to be caused on `way`.
    pub(super) fn fault(&self, fault: Fault, way: &str) {
        let mut inner = self.lock();
        let at = self.now();
        let id = inner.gaps.fault(at);
        inner.fault = Some(InForce {
            fault,
            way: way.to_owned(),
            id,
            at,
            healed: false,
        });
    }

    /// The fault is over, as far as the proxies are concerned.
    pub(super) fn healed(&self) {
        if let Some(fault) = &mut self.lock().fault {
            fault.healed = true;
        }
    }

    /// The proxies of an outage are about to accept connections again.
    pub(super) fn reopened(&self) {
        let mut inner = self.lock();
        let opened_at = self.now();
        let cut_at = inner.fault.as_ref().map_or(opened_at, |fault| fault.at);
        inner.waking = Some(Waking {
            cut_at,
            opened_at,
            attempt_at: None,
        });
    }

    /// The first of them has accepted one.
    pub(super) fn attempt(&self) {
        let now = self.now();
        if let Some(waking) = &mut self.lock().waking {
            waking.attempt_at.get_or_insert(now);
        }
    }

    /// The session has moved its data to `to`.
    pub(super) fn switched(&self, from: &str, to: &str, cause: SwitchCause) {
        let mut inner = self.lock();
        let now = self.now();
        let by_fault = inner.fault.as_ref().filter(|fault| {
            let concerned = fault.fault.is_outage() || fault.way == from;
            concerned && cause != SwitchCause::Preferred
        });
        let word = by_fault.map_or(session_cause(cause), |fault| fault.fault.cause());
        // What a healed path still makes happen is the fault's doing, with a silence of its own.
        let id = by_fault
            .map(|fault| fault.id)
            .filter(|id| inner.gaps.so_far(*id, now).is_some());
        let measured = match id {
            Some(id) => Measured::ByFault(id),
            None => Measured::ByItself(inner.own_gaps.fault(now)),
        };
        let switch = Switch::new(now, from, to, word, Duration::ZERO).told_as(session_cause(cause));
        inner.switches.push((switch, Some(measured)));
    }

    /// What is being done to a path, for the table: the way and its mark, all ways if it is empty.
    pub(super) fn in_force(&self) -> Option<(Fault, String)> {
        let inner = self.lock();
        let fault = inner.fault.as_ref().filter(|fault| !fault.healed)?;
        Some((fault.fault, fault.way.clone()))
    }

    /// The switches whose gaps are known.
    pub(super) fn switches(&self) -> Vec<Switch> {
        let inner = self.lock();
        let known = inner.switches.iter().filter(|(_, open)| open.is_none());
        known.map(|(switch, _)| switch.clone()).collect()
    }

    /// The outages that are over.
    pub(super) fn outages(&self) -> Vec<Outage> {
        self.lock().outages.clone()
    }

    /// The messages, of which so many were sent.
    pub(super) fn messages(&self, sent: u64) -> Messages {
        self.lock().numbers.finish(sent)
    }

    /// Messages that have arrived.
    pub(super) fn delivered(&self) -> u64 {
        self.lock().numbers.delivered()
    }

    /// No message is to come any more: settles what is being measured. A silence that lasts counts unless
    /// all `sent` messages have arrived.
    pub(super) fn finish(&self, sent: u64) {
        let mut inner = self.lock();
        let complete = inner.numbers.delivered() >= sent;
        let now = if complete { inner.last_arrival } else { self.now() };
        let mut next = inner.gaps.finish(now);
        while let Some((id, gap)) = next {
            inner.measured(Measured::ByFault(id), gap);
            next = inner.gaps.settled();
        }
        let mut next = inner.own_gaps.finish(now);
        while let Some((id, gap)) = next {
            inner.measured(Measured::ByItself(id), gap);
            next = inner.own_gaps.settled();
        }
    }
}

impl Inner {
    fn settle(&mut self) {
        while let Some((id, gap)) = self.gaps.settled() {
            self.measured(Measured::ByFault(id), gap);
        }
        while let Some((id, gap)) = self.own_gaps.settled() {
            self.measured(Measured::ByItself(id), gap);
        }
    }

    fn measured(&mut self, by: Measured, gap: Duration) {
        for (switch, open) in &mut self.switches {
            if *open == Some(by) {
                switch.set_gap(gap);
                *open = None;
            }
        }
    }
}

/// The session's own reason for a switch, in a word.
fn session_cause(cause: SwitchCause) -> &'static str {
    match cause {
        SwitchCause::First => "first",
        SwitchCause::Closed => "closed",
        SwitchCause::Reset => "reset",
        SwitchCause::Suspect => "suspect",
        SwitchCause::Error => "error",
        SwitchCause::Abandoned => "abandoned",
        SwitchCause::Preferred => "preferred",
    }
}
