//! What is late, and when.

use std::time::Duration;

use super::{ClientPath, Lane, Slot, Stage};
use crate::carrier::http::{HttpError, Mode};
use crate::time::Timestamp;

/// Bytes per second of the slowest way up that is waited for.
const SLOWEST_UPLOAD: u64 = 8 * 1024;
/// The longest time in which a downlink's first bytes must come.
const LONGEST_PROBE: Duration = Duration::from_secs(5);

impl ClientPath {
    fn probe(&self) -> Duration {
        (self.trip * 4).clamp(self.config.probe, LONGEST_PROBE.max(self.config.probe))
    }

    /// How long the upload under way may take, which nobody sees before all of it is there.
    fn patience(&self) -> Duration {
        let bytes = self.upload_end.saturating_sub(self.outgoing.acked());
        let slow = Duration::from_secs(bytes / SLOWEST_UPLOAD);
        self.config.patience.max(self.probe() * 2) + slow
    }

    /// When something may be late, with the slot that it is about.
    fn next_due(&self) -> Option<(Timestamp, Slot)> {
        if self.is_over() {
            return None;
        }
        let [up, down, stream, trial] = &self.lanes;
        let down = if self.is_turned() { stream } else { down };
        let late = |lane: &Lane, after: Duration| (lane.stage != Stage::Closed).then(|| lane.since + after);
        let up_due = (up.response.is_some() || up.stage == Stage::Connecting)
            .then(|| match up.stage {
                Stage::Connecting => late(up, self.config.connect),
                _ => late(up, self.patience()),
            })
            .flatten();
        let mute = (self.expected > self.incoming.received()).then(|| self.progress + self.probe());
        let down_due = match (self.mode, self.proven, down.stage) {
            (_, _, Stage::Connecting) => late(down, self.config.connect),
            (Mode::Poll, ..) => down.response.is_some().then(|| {
                let silent = down.since + self.config.silence;
                mute.map_or(silent, |mute| mute.max(down.since + self.probe()).min(silent))
            }),
            (_, false, _) => down.response.is_some().then(|| down.since + self.probe()),
            (_, true, _) => {
                let silent = down.since + self.config.silence;
                Some(mute.map_or(silent, |mute| mute.min(silent)))
            }
        };
        let stream_due = match (self.streaming.active, self.streaming.waiting_since) {
            (true, Some(since)) => Some(since + self.probe()),
            (true, None) => None,
            (false, _) => late(stream, self.probe()),
        };
        let all = [
            (up_due, Slot::Up),
            (down_due, Slot::Down),
            (stream_due, Slot::Stream),
            (late(trial, self.probe()).or(self.trial.at), Slot::Trial),
        ];
        all.into_iter().filter_map(|(at, slot)| Some((at?, slot))).min()
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.next_due().map(|(at, _)| at)
    }

    /// Does what is due, and sees which connections are wanted. To be called after anything else was, before
    /// [`ClientPath::poll_action`].
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for _ in 0..self.lanes.len() {
            let Some((_, slot)) = self.next_due().filter(|(at, _)| *at <= now) else {
                break;
            };
            match slot {
                Slot::Up if self.token.is_none() => self.fail(HttpError::Unreachable),
                Slot::Up => {
                    self.close(Slot::Up);
                    self.failed_once(0);
                }
                // Where it carries both directions, it is the downlink that is late, too.
                Slot::Stream if !self.is_turned() => self.stop_streaming(),
                Slot::Down | Slot::Stream => self.fall(now),
                Slot::Trial => self.trial_due(now),
            }
        }
        self.want(now);
    }
}
