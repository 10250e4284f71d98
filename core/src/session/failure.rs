//! Suspicion and death of paths, and what moves elsewhere (DESIGN "Failure, suspicion, death";
//! PROTOCOL 6.6).

use std::time::Duration;

use smallvec::SmallVec;

use super::choose::Left;
use super::error::PathError;
use super::event::{Event, PathEnd, SwitchCause};
use super::keys::PathKey;
use super::lifecycle::{Cause, State};
use super::path::{Lane, Stage, Suspicion, Unsettled};
use super::timers::TimerKind;
use super::{Abandon, Session};
use crate::handshake::PathCount;
use crate::marks::sometimes;
use crate::time::Timestamp;
use crate::wire::WireError;

/// Probes without an answer before a suspect path is dead.
const PROBES: u32 = 3;
/// So many probes count for nothing on a path whose carrier has acknowledgements of its own.
const SPARED_PROBES: u32 = 6;
/// No probe is given longer than this, whatever the path's answers took of late.
const MAX_PROBE_WAIT: Duration = Duration::from_secs(5);
/// How many counts of dead paths are kept for JOINED and CONFIRM (PROTOCOL 6.3).
pub(super) const MAX_DEAD_COUNTS: usize = 32;
/// How many dead paths' unacknowledged records are kept for the peer's counts.
pub(super) const MAX_UNSETTLED: usize = 8;

impl Session {
    // ---- suspicion ----

    /// The path made no progress for its suspicion time.
    pub(super) fn suspect(&mut self, now: Timestamp, slot: usize) {
        let interval = self.probe_interval(now, slot);
        let path = &mut self.paths[slot];
        if path.suspicion.is_some() || !path.may_send() {
            return;
        }
        sometimes!(self.marks, PathSuspected);
        path.suspicion = Some(Suspicion {
            since: now,
            probes: 0,
            condemned: false,
            mute: false,
            outlived: false,
            carrier: None,
            heard: false,
            spared: 0,
        });
        path.ping_due = true;
        path.health.on_stall(now);
        path.timers.set(TimerKind::Probe, now + interval);
        self.events.push_back(Event::PathSuspect(self.path_key(slot)));
        self.choose_active(now, SwitchCause::Suspect);
        self.reinject_if_elsewhere(now, slot);
        self.probe_idle(slot);
    }

    /// Asks the other paths, too: it is no death of this path if they are all silent, as when the
    /// peer's process stands still.
    fn probe_idle(&mut self, suspect: usize) {
        for (slot, path) in &mut self.paths {
            if slot != suspect && path.may_send() && path.ping_sent.is_none() && path.in_flight() == 0 {
                path.ping_due = true;
            }
        }
    }

    /// A probe timeout. What stalls did to the variance does not stretch it without end: a path that is silent is
    /// to be replaced in time.
    fn probe_interval(&self, now: Timestamp, slot: usize) -> Duration {
        let rtt = &self.paths[slot].rtt;
        // Where queues made answers late a moment ago, they may do so again: a busy path is not dead.
        let longest = rtt.peak(now).min(MAX_PROBE_WAIT);
        let most = longest
            .saturating_mul(2)
            .min(MAX_PROBE_WAIT)
            .max(self.config.min_death);
        let timeout = rtt.pto(self.peer.max_ack_delay).max(longest).min(most);
        // Not a nanosecond less than the whole, all of them together.
        timeout.max(self.config.min_death / PROBES + Duration::from_nanos(1))
    }

    /// A probe was not answered in time.
    pub(super) fn probe_unanswered(&mut self, now: Timestamp, slot: usize) {
        let interval = self.probe_interval(now, slot);
        let min_death = self.config.min_death;
        // One that repeats what it loses has lost a probe itself before one goes unanswered.
        let enough = PROBES + u32::from(self.paths[slot].pool.is_some());
        let Some(since) = self.paths[slot].suspicion.map(|suspicion| suspicion.since) else {
            return;
        };
        let elsewhere = self.has_better_path(slot, since);
        if !elsewhere {
            self.probe_idle(slot);
        }
        let alone = !elsewhere && !self.has_other_sound_path(slot);
        let path = &mut self.paths[slot];
        let Some(suspicion) = path.suspicion.as_mut() else {
            return;
        };
        let heard = std::mem::take(&mut suspicion.heard) && suspicion.spared < SPARED_PROBES;
        sometimes!(self.marks, CarrierHeard, heard);
        match heard {
            true => suspicion.spared += 1,
            false => suspicion.probes += 1,
        }
        let before = suspicion.condemned;
        suspicion.condemned |= suspicion.probes >= enough && now.since(suspicion.since) >= min_death;
        let news = suspicion.condemned && !before;
        let outlived = std::mem::replace(&mut suspicion.outlived, elsewhere);
        // Once it has had its time, that is told, and is more.
        let mute = alone && !suspicion.mute && !suspicion.condemned;
        suspicion.mute |= alone;
        sometimes!(self.marks, LastPathSpared, suspicion.condemned && !elsewhere);
        if suspicion.condemned && elsewhere && outlived {
            sometimes!(self.marks, PathSilent);
            self.retire_path(now, slot, PathEnd::Local, Some(PathError::Silent));
            return;
        }
        path.ping_due = true;
        let wait = if suspicion.condemned {
            interval.max(Duration::from_secs(1))
        } else {
            interval
        };
        path.timers.set(TimerKind::Probe, now + wait);
        if mute {
            self.events.push_back(Event::PathMute(self.path_key(slot)));
        }
        if news {
            self.events.push_back(Event::PathSilent(self.path_key(slot)));
        }
    }

    /// Whether the path is suspect: then its driver tells of the carrier's acknowledgements, where it has any.
    pub fn is_suspect(&self, key: PathKey) -> bool {
        self.path_slot(key)
            .is_some_and(|slot| self.paths[slot].suspicion.is_some())
    }

    /// How many acknowledgements of its own a path's carrier has had by now for what was sent, as QUIC has them. While
    /// their number grows the network carries what is sent, whatever became of the peer's session: that does not clear
    /// a suspicion, but puts the path's death off for a while (PROTOCOL 6.6).
    pub fn handle_carrier_acks(&mut self, key: PathKey, total: u64) {
        let Some(slot) = self.path_slot(key) else { return };
        if let Some(suspicion) = &mut self.paths[slot].suspicion {
            let before = suspicion.carrier.replace(total);
            suspicion.heard |= before.is_some_and(|before| before < total);
        }
    }

    /// Whether another path has proven since then that the peer is there.
    fn has_better_path(&self, slot: usize, since: Timestamp) -> bool {
        self.paths.iter().any(|(other, path)| {
            other != slot && path.may_send() && path.suspicion.is_none() && path.proven_at >= since
        })
    }

    pub(super) fn has_other_sound_path(&self, slot: usize) -> bool {
        self.paths
            .iter()
            .any(|(other, path)| other != slot && path.may_send() && path.suspicion.is_none())
    }

    /// Sends what a suspect path holds on another one too; the path may still deliver it first.
    pub(super) fn reinject_if_elsewhere(&mut self, now: Timestamp, slot: usize) {
        if !self.has_other_sound_path(slot) {
            return;
        }
        let count = self.paths[slot].lanes.len();
        for place in 0..count {
            let mut log = std::mem::take(&mut self.paths[slot].lanes[place].sent);
            let mut first = 0;
            for record in &mut log.records {
                let items = record.items as usize;
                if !record.reinjected {
                    sometimes!(self.marks, Reinjected, items > 0);
                    record.reinjected = true;
                    let skip = usize::from(crate::canary!(ReinjectionForgets));
                    for index in first + skip..first + items {
                        if let Some(&item) = log.items.get(index) {
                            self.item_lost(now, item);
                        }
                    }
                }
                first += items;
            }
            self.paths[slot].lanes[place].sent = log;
        }
    }

    // ---- death ----

    /// Ends a path for what came on it.
    pub(super) fn path_failed(&mut self, now: Timestamp, slot: usize, error: PathError) {
        if let PathError::Session(misbehaviour) = &error {
            let cause = Cause::PeerMisbehaved {
                code: misbehaviour.code(),
                detail: misbehaviour.to_string(),
            };
            sometimes!(self.marks, PeerMisbehaved);
            self.end_session(now, cause);
            return;
        }
        sometimes!(
            self.marks,
            AckOfUnsent,
            matches!(error, PathError::AckOfUnsent { .. })
        );
        sometimes!(
            self.marks,
            CrcFailed,
            matches!(error, PathError::Wire(WireError::CrcMismatch { .. }))
        );
        self.retire_path(now, slot, PathEnd::Local, Some(error));
    }

    /// Ends a path: what it had not acknowledged moves, the peer hears of it on the others, and the
    /// driver closes the connection once what is queued for it is out.
    pub(super) fn retire_path(
        &mut self,
        now: Timestamp,
        slot: usize,
        end: PathEnd,
        error: Option<PathError>,
    ) {
        let key = self.path_key(slot);
        let path = &mut self.paths[slot];
        if path.stage == Stage::Closing {
            return;
        }
        let (proven, live) = (path.may_send(), path.is_live());
        let code = error.as_ref().map_or(crate::wire::ErrorCode::IO, PathError::code);
        path.stage = Stage::Closing;
        path.timers.clear_all();
        path.suspicion = None;
        (path.ping_due, path.ping_sent) = (false, None);
        path.pongs.clear();
        path.error = error.clone().map(Box::new);
        let (id, generation) = (path.id, path.generation);
        let beside = path.pool.is_some();
        let lanes = path.take_lanes();
        let info = Box::new(path.info.clone());
        let delivered = path.rate.delivered;
        let cause = switch_cause(end, error.as_ref());
        if live {
            self.remember_counts(id, &lanes);
            self.remember_damping(now, slot, end != PathEnd::Local || error.is_some());
        }
        self.events.push_back(Event::PathDown {
            path: key,
            end,
            error,
            info,
            delivered,
        });
        if self.active == Some(slot) {
            self.active = None;
            let path = &self.paths[slot];
            let evidence = path.health.evidence(now, &path.rtt);
            self.left = Some(Left { key, cause, evidence });
        }
        if self.state.is_terminal() {
            return;
        }
        self.choose_active(now, cause);
        if beside {
            self.lose_datagrams(now, generation);
        }
        self.renew_acks();
        if self.active.is_some() {
            self.lose_lanes(now, lanes);
            if proven {
                if self.abandons.len() >= MAX_DEAD_COUNTS {
                    self.abandons.remove(0);
                }
                self.abandons.push(Abandon {
                    path: id,
                    code: code.value(),
                    told: SmallVec::new(),
                });
            }
        } else {
            self.keep_unsettled(now, id, lanes);
            self.paths_lost(now);
        }
    }

    /// Acknowledgements are never sent again (PROTOCOL 4.2): those for a suspect path that went over the one
    /// that is dead now may be lost, and are given on their own path after all.
    fn renew_acks(&mut self) {
        for (_, path) in &mut self.paths {
            let lane = &path.lanes[0];
            let first = lane.ack_wanted && lane.received > lane.reported;
            if (first || path.has_lane_acks()) && !path.timers.is_set(TimerKind::Ack) {
                path.ack_due = true;
            }
        }
    }

    /// Ends a path whose connection is gone already.
    pub(super) fn end_path(&mut self, now: Timestamp, slot: usize, end: PathEnd, error: Option<PathError>) {
        self.retire_path(now, slot, end, error);
    }

    pub(super) fn lose_lanes(&mut self, now: Timestamp, lanes: SmallVec<[Lane; 1]>) {
        if crate::canary!(DeadPathForgotten) {
            return;
        }
        for lane in lanes {
            let mut items = lane.sent.items.into_iter();
            for record in &lane.sent.records {
                for _ in 0..record.items {
                    let Some(item) = items.next() else { break };
                    if !record.reinjected {
                        self.item_lost(now, item);
                    }
                }
            }
        }
    }

    fn keep_unsettled(&mut self, now: Timestamp, id: u64, lanes: SmallVec<[Lane; 1]>) {
        if lanes.iter().all(|lane| lane.sent.items.is_empty()) {
            return;
        }
        sometimes!(self.marks, UnsettledKept);
        if self.unsettled.len() >= MAX_UNSETTLED {
            let oldest = self.unsettled.remove(0);
            self.lose_lanes(now, oldest.lanes);
        }
        self.unsettled.push(Unsettled { id, lanes });
    }

    /// PROTOCOL 6.3: after the peer's counts, whatever dead paths still held is lost.
    pub(super) fn settle_all(&mut self, now: Timestamp) {
        for unsettled in std::mem::take(&mut self.unsettled) {
            self.lose_lanes(now, unsettled.lanes);
        }
    }

    fn remember_counts(&mut self, id: u64, lanes: &[Lane]) {
        for lane in lanes.iter().filter(|lane| lane.received > 0) {
            if self.dead_counts.len() >= MAX_DEAD_COUNTS {
                self.dead_counts.remove(0);
            }
            self.dead_counts.push(PathCount {
                path: id,
                lane: lane.id,
                count: lane.received + u64::from(crate::canary!(DeadCountOff)),
            });
        }
    }

    /// No path is left that may carry data.
    pub(super) fn paths_lost(&mut self, now: Timestamp) {
        match self.state {
            State::Connected => {
                if self.buffered > 0 {
                    self.standstill.waits(now);
                }
                self.drop_copies();
                self.transition(Cause::PathsLost);
                let timeout = self.config.params.resume_timeout.min(self.peer.resume_timeout);
                self.timers.set(TimerKind::Resume, now + timeout);
            }
            State::Connecting if self.is_client() => {
                let trying = self.paths.iter().any(|(_, path)| path.stage != Stage::Closing);
                if !trying {
                    self.transition(Cause::AttemptsFailed);
                }
            }
            _ => {}
        }
    }

    /// A path has proven itself.
    pub(super) fn path_live(&mut self, now: Timestamp, slot: usize) {
        let heartbeat = self.heartbeat();
        let max_delay = self.peer.max_ack_delay;
        let path = &mut self.paths[slot];
        path.stage = Stage::Live;
        path.progress_at = now;
        path.proven_at = now;
        path.health.on_up(now);
        path.timers.clear(TimerKind::Handshake);
        path.timers.set(TimerKind::Heartbeat, now + heartbeat);
        // The proof answers what this end sent. What else is under way, early data or what followed WELCOME,
        // waits for its own answer.
        let recovered = path.suspicion.take().is_some();
        path.timers.clear(TimerKind::Probe);
        path.arm_suspicion(max_delay, self.config.min_suspicion);
        self.events.push_back(Event::PathUp(self.path_key(slot)));
        if recovered {
            self.events.push_back(Event::PathRecovered(self.path_key(slot)));
        }
        sometimes!(self.marks, Resumed, self.state == State::Reconnecting);
        sometimes!(self.marks, SuspicionCleared, recovered);
        self.settle_all(now);
        self.choose_active(now, SwitchCause::Preferred);
        self.timers.clear(TimerKind::Resume);
        self.transition(Cause::Established);
        // A sound path stands: the dead are dead, and it carries what the suspect hold.
        for suspect in self.suspects() {
            if self.paths[suspect]
                .suspicion
                .is_some_and(|suspicion| suspicion.condemned)
            {
                sometimes!(self.marks, PathSilent);
                self.retire_path(now, suspect, PathEnd::Local, Some(PathError::Silent));
            } else {
                self.reinject_if_elsewhere(now, suspect);
            }
        }
    }

    pub(super) fn suspects(&self) -> SmallVec<[usize; 8]> {
        self.paths
            .iter()
            .filter(|(_, path)| path.suspicion.is_some())
            .map(|(slot, _)| slot)
            .collect()
    }

    pub(super) fn path_key(&self, slot: usize) -> PathKey {
        let generation = self.paths.get(slot).map_or(0, |path| path.generation);
        PathKey {
            slot: slot as u32,
            generation,
        }
    }
}

fn switch_cause(end: PathEnd, error: Option<&PathError>) -> SwitchCause {
    match (end, error) {
        (_, Some(PathError::Silent)) => SwitchCause::Suspect,
        (_, Some(PathError::Abandoned(_))) => SwitchCause::Abandoned,
        (_, Some(_)) => SwitchCause::Error,
        (PathEnd::Eof, None) => SwitchCause::Closed,
        (PathEnd::Reset | PathEnd::Io(_), None) => SwitchCause::Reset,
        (PathEnd::Local, None) => SwitchCause::Preferred,
    }
}
