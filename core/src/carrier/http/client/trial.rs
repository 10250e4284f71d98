//! Whether a better way down gets through again, asked beside the one that is used.

use std::time::Duration;

use super::{ClientPath, Slot, Stage};
use crate::carrier::http::Mode;
use crate::time::Timestamp;

/// How long a slower way down is used before a better one is tried; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What is known of trials.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) number: u64,
    /// What is tried, or was last.
    pub(super) mode: Mode,
    wait: Duration,
    /// When the next begins.
    pub(super) at: Option<Timestamp>,
}

impl Default for Trial {
    fn default() -> Trial {
        Trial {
            number: 0,
            mode: Mode::Binary,
            wait: FIRST_WAIT,
            at: None,
        }
    }
}

impl Trial {
    fn put_off(&mut self, now: Timestamp) {
        self.at = Some(now + self.wait);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }
}

impl ClientPath {
    /// Sets the time of a trial where there is something better to try.
    pub(super) fn want_trial(&mut self, now: Timestamp) {
        let better = self.mode != Mode::Binary && self.config.mode.is_none() && !self.ending;
        let under_way = self.trial.at.is_some() || self.lanes[Slot::Trial as usize].stage != Stage::Closed;
        if better && !under_way {
            self.trial.put_off(now);
        }
    }

    /// Its time has come, or is over.
    pub(super) fn trial_due(&mut self, now: Timestamp) {
        if self.lanes[Slot::Trial as usize].stage != Stage::Closed {
            return self.end_trial();
        }
        self.trial.at = None;
        // What keeps one of them back may let the other through.
        self.trial.mode = match (self.mode, self.trial.number % 2) {
            (Mode::Poll, 1) => Mode::Sse,
            _ => Mode::Binary,
        };
        self.connect(now, Slot::Trial);
    }

    /// Nothing better than what there is.
    pub(super) fn end_trial(&mut self) {
        self.close(Slot::Trial);
    }

    /// It got through: the downlink changes over, which costs nothing that is under way.
    pub(super) fn take_better(&mut self, now: Timestamp) {
        self.end_trial();
        self.close(Slot::Down);
        self.mode = self.trial.mode;
        self.proven = false;
        self.failures[1] = 0;
        self.progress = now;
        self.want_down(now);
    }
}
