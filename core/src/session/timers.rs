//! The fixed set of timers, one table per owner.

use crate::time::Timestamp;

/// Why a deadline is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TimerKind {
    /// An acknowledgement has waited its longest (PROTOCOL 4.2).
    Ack,
    /// A path made no progress for its suspicion time (PROTOCOL 6.6).
    Suspect,
    /// A suspect path did not answer its probe (PROTOCOL 6.6).
    Probe,
    /// A path that has become slow, and carries nothing for that, is looked at again (PROTOCOL 6.6).
    Recheck,
    /// A path has been idle for the heartbeat interval (PROTOCOL 6.7).
    Heartbeat,
    /// A path's or a session's handshake is overdue (PROTOCOL 5).
    Handshake,
    /// The session has had no path for the resume timeout (PROTOCOL 6.8).
    Resume,
    /// An unreliable message's time to live ends (PROTOCOL 4.6).
    Ttl,
    /// Nothing has moved in a session that is being drained (PROTOCOL 8.1).
    DrainIdle,
    /// The session has been quiet for a moment and gives memory back.
    Tidy,
}

pub(super) const TIMERS: usize = 10;

const KINDS: [TimerKind; TIMERS] = [
    TimerKind::Ack,
    TimerKind::Suspect,
    TimerKind::Probe,
    TimerKind::Recheck,
    TimerKind::Heartbeat,
    TimerKind::Handshake,
    TimerKind::Resume,
    TimerKind::Ttl,
    TimerKind::DrainIdle,
    TimerKind::Tidy,
];

/// Deadlines by kind.
#[derive(Clone, Debug)]
pub(super) struct Timers([Timestamp; TIMERS]);

impl Default for Timers {
    fn default() -> Self {
        Timers([Timestamp::MAX; TIMERS])
    }
}

impl Timers {
    pub(super) fn set(&mut self, kind: TimerKind, at: Timestamp) {
        self.0[kind as usize] = at;
    }

    /// Sets it, unless it is due earlier than that.
    pub(super) fn set_earlier(&mut self, kind: TimerKind, at: Timestamp) {
        let known = &mut self.0[kind as usize];
        *known = at.min(*known);
    }

    pub(super) fn clear(&mut self, kind: TimerKind) {
        self.0[kind as usize] = Timestamp::MAX;
    }

    pub(super) fn clear_all(&mut self) {
        *self = Timers::default();
    }

    pub(super) fn is_set(&self, kind: TimerKind) -> bool {
        self.0[kind as usize] != Timestamp::MAX
    }

    /// Clears and reports `kind` if it is due.
    pub(super) fn take_due(&mut self, kind: TimerKind, now: Timestamp) -> bool {
        let due = self.is_set(kind) && self.0[kind as usize] <= now;
        if due {
            self.clear(kind);
        }
        due
    }

    pub(super) fn next(&self) -> Option<(Timestamp, TimerKind)> {
        // The first of those that are due together. Asked several times in a turn.
        let mut first = (Timestamp::MAX, KINDS[0]);
        for (at, kind) in self.0.iter().zip(KINDS) {
            if *at < first.0 {
                first = (*at, kind);
            }
        }
        (first.0 != Timestamp::MAX).then_some(first)
    }
}
