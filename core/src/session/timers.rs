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
    /// Another path has been better for long enough to carry the data, if it still is.
    Choose,
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

pub(super) const TIMERS: usize = 11;

const KINDS: [TimerKind; TIMERS] = [
    TimerKind::Ack,
    TimerKind::Suspect,
    TimerKind::Probe,
    TimerKind::Recheck,
    TimerKind::Choose,
    TimerKind::Heartbeat,
    TimerKind::Handshake,
    TimerKind::Resume,
    TimerKind::Ttl,
    TimerKind::DrainIdle,
    TimerKind::Tidy,
];

/// Deadlines by kind.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    at: [Timestamp; TIMERS],
    /// A bit for each that is set: few are, and they are asked for several times in a turn.
    set: u16,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            at: [Timestamp::MAX; TIMERS],
            set: 0,
        }
    }
}

impl Timers {
    pub(super) fn set(&mut self, kind: TimerKind, at: Timestamp) {
        self.at[kind as usize] = at;
        let bit = 1 << kind as u16;
        if at == Timestamp::MAX {
            self.set &= !bit;
        } else {
            self.set |= bit;
        }
    }

    /// Sets it, unless it is due earlier than that.
    pub(super) fn set_earlier(&mut self, kind: TimerKind, at: Timestamp) {
        self.set(kind, at.min(self.at[kind as usize]));
    }

    pub(super) fn clear(&mut self, kind: TimerKind) {
        self.set(kind, Timestamp::MAX);
    }

    pub(super) fn clear_all(&mut self) {
        *self = Timers::default();
    }

    pub(super) fn is_set(&self, kind: TimerKind) -> bool {
        self.set & (1 << kind as u16) != 0
    }

    /// Clears and reports `kind` if it is due.
    pub(super) fn take_due(&mut self, kind: TimerKind, now: Timestamp) -> bool {
        let due = self.is_set(kind) && self.at[kind as usize] <= now;
        if due {
            self.clear(kind);
        }
        due
    }

    /// The first deadline; of those that are due together, the first kind's.
    #[inline]
    pub(super) fn next(&self) -> Option<(Timestamp, TimerKind)> {
        let mut first = None;
        let mut left = self.set;
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            let at = self.at[index];
            if first.is_none_or(|(earliest, _)| at < earliest) {
                first = Some((at, KINDS[index]));
            }
        }
        first
    }
}
