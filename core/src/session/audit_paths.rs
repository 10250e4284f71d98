//! The rules of [`Session::audit`] about paths, records under way and the lifecycle.

use super::Session;
use super::audit::{MAX_HANDSHAKE_FRAMES, MAX_PONGS, Violation, rule};
use super::config::MAX_PATHS;
use super::keys::StreamKey;
use super::lifecycle::State;
use super::path::{Lane, Path, Stage};
use super::sent::Item;
use super::streams::{Flags, Stream};
use super::timers::TimerKind;
use crate::stream::{RangeSet, SendState};
use crate::wire::{Kind, Side};

impl Session {
    // ---- paths ----

    pub(super) fn audit_path(&self, slot: usize, path: &Path) -> Result<(), Violation> {
        path.lanes.iter().try_for_each(audit_lane)?;
        let id = path.id;
        rule!(
            path.pongs.len() <= MAX_PONGS && path.handshake.len() <= MAX_HANDSHAKE_FRAMES,
            "what waits for a path's next record is bounded",
            id,
            path.pongs.len(),
            path.handshake.len(),
        );
        if path.stage == Stage::Closing {
            rule!(
                path.timers.next().is_none() && path.in_flight() == 0,
                "nothing waits on a path that is closing",
                id,
            );
            return Ok(());
        }
        rule!(
            path.is_live() || path.timers.is_set(TimerKind::Handshake),
            "a handshake under way has a deadline",
            id,
            path.stage,
        );
        rule!(
            !path.is_live() || path.timers.is_set(TimerKind::Heartbeat),
            "a live path has a heartbeat",
            id,
        );
        rule!(
            path.suspicion.is_none() || path.timers.is_set(TimerKind::Probe),
            "a suspect path is probed",
            id,
        );
        let waits = path.ping_sent.is_some() || path.in_flight() > 0;
        rule!(
            !(waits && path.is_live()) || path.suspicion.is_some() || path.timers.is_set(TimerKind::Suspect),
            "a path that waits for an answer is suspected in time",
            id,
            path.ping_sent,
            path.in_flight(),
        );
        let wanted = path.lanes.iter().any(|lane| lane.ack_wanted);
        // An acknowledgement may have gone over another path; then this one is told with what comes next.
        rule!(
            !wanted || self.paths.len() > 1 || path.ack_due || path.timers.is_set(TimerKind::Ack),
            "an acknowledgement that is wanted has a deadline",
            id,
        );
        rule!(
            self.active != Some(slot) || path.may_send(),
            "the path in use may be used",
            id,
            path.stage,
        );
        Ok(())
    }

    pub(super) fn audit_path_table(&self) -> Result<(), Violation> {
        let open = || self.paths.iter().filter(|(_, path)| path.stage != Stage::Closing);
        rule!(
            open().count() <= MAX_PATHS && self.paths.len() <= 2 * MAX_PATHS,
            "a session has as many paths as it may, at most",
            self.paths.len(),
        );
        for (slot, path) in open() {
            rule!(
                open().all(|(other, twin)| other == slot || twin.id != path.id),
                "a path id is used once",
                path.id,
            );
        }
        if let Some(active) = self.active {
            rule!(self.paths.contains(active), "the path in use is there", active);
        }
        rule!(
            self.active.is_some()
                || self.state.is_terminal()
                || !self.paths.iter().any(|(_, path)| path.may_send()),
            "a path that may be used is in use"
        );
        Ok(())
    }

    // ---- lifecycle ----

    pub(super) fn audit_lifecycle(&self) -> Result<(), Violation> {
        let state = self.state;
        match state {
            State::Connected => rule!(self.active.is_some(), "a connected session has a path"),
            State::Reconnecting => rule!(
                self.active.is_none() && self.timers.is_set(TimerKind::Resume),
                "a session without paths has a deadline",
                self.active,
            ),
            State::Connecting if self.side == Side::Server && !self.confirmed => rule!(
                self.timers.is_set(TimerKind::Handshake),
                "an unconfirmed session has a deadline"
            ),
            State::Connecting if self.side == Side::Client => rule!(
                self.paths.iter().any(|(_, path)| path.stage != Stage::Closing),
                "a session that is connecting has a path under way",
            ),
            State::Closed | State::Failed => self.audit_ended()?,
            State::Disconnected | State::Connecting => {}
        }
        rule!(
            state != State::Connected || self.is_established(),
            "both ends of a connected session are proven",
            state,
        );
        Ok(())
    }

    fn audit_ended(&self) -> Result<(), Violation> {
        rule!(
            self.timers.next().is_none(),
            "no timer runs once the session has ended",
            self.timers.next(),
        );
        rule!(
            self.paths.iter().all(|(_, path)| path.stage == Stage::Closing),
            "no path outlives the session"
        );
        let held = |stream: &Stream| stream.flags.has(Flags::SEND_HELD) || stream.flags.has(Flags::RECV_HELD);
        let kept = self.streams.live().find(|(_, stream)| {
            !held(stream) && !matches!(stream.id.kind(), Kind::Ordered | Kind::Unordered)
        });
        rule!(
            kept.is_none(),
            "an ended session keeps no stream that nobody holds",
            kept.map(|(_, stream)| stream.id),
        );
        Ok(())
    }

    // ---- under way ----

    /// Checks that nothing was forgotten: every byte, end and reset of a stream that is neither acknowledged
    /// nor waiting to be sent is in a record under way, whose loss would be noticed.
    ///
    /// # Errors
    /// A stream of which something would never arrive.
    ///
    /// Costs more than [`audit`](Session::audit): all items of all records for each stream with data under way.
    pub fn audit_in_flight(&self) -> Result<(), Violation> {
        if self.state.is_terminal() {
            return Ok(());
        }
        for (slot, stream) in self.streams.live() {
            let Some(send) = stream.send.as_ref() else {
                continue;
            };
            let mut bytes = send.under_way();
            let mut end = send.is_end_under_way();
            let mut reset = send.state() == SendState::ResetSent && !stream.flags.has(Flags::RESET_DUE);
            if bytes.is_empty() && !end && !reset {
                continue;
            }
            self.each_item(|item| match item {
                Item::Stream {
                    key,
                    offset,
                    len,
                    fin,
                } if self.is_key_of(key, slot, stream) => {
                    bytes.remove(offset..offset + u64::from(len));
                    end &= !fin;
                }
                Item::Reset { key } if self.is_key_of(key, slot, stream) => reset = false,
                _ => {}
            });
            rule!(
                bytes.is_empty() && !end && !reset,
                "what is not acknowledged is under way, or will be sent",
                stream.id,
                missing(&bytes),
                end,
                reset,
            );
        }
        Ok(())
    }

    fn is_key_of(&self, key: StreamKey, slot: usize, stream: &Stream) -> bool {
        key.slot as usize == slot && key.generation == stream.generation
    }

    /// Everything in records whose loss would have it sent again.
    fn each_item(&self, mut take: impl FnMut(Item)) {
        let alive = self.paths.iter().flat_map(|(_, path)| &path.lanes);
        let dead = self.unsettled.iter().flat_map(|unsettled| &unsettled.lanes);
        for lane in alive.chain(dead) {
            let mut items = lane.sent.items.iter();
            for record in &lane.sent.records {
                for &item in items.by_ref().take(record.items as usize) {
                    if !record.reinjected {
                        take(item);
                    }
                }
            }
        }
    }
}

fn missing(bytes: &RangeSet) -> Vec<std::ops::Range<u64>> {
    bytes.iter().collect()
}

pub(super) fn audit_lane(lane: &Lane) -> Result<(), Violation> {
    let log = &lane.sent;
    let eliciting = log.records.iter().filter(|record| record.eliciting);
    let (count, bytes) = eliciting.fold((0, 0), |(count, bytes), record| {
        (count + 1, bytes + u64::from(record.bytes))
    });
    rule!(
        log.in_flight == bytes && log.silent + count == log.records.len(),
        "a lane's records under way add up",
        log.in_flight,
        bytes,
        log.silent,
        log.records.len(),
    );
    let items = log
        .records
        .iter()
        .map(|record| record.items as usize)
        .sum::<usize>();
    rule!(
        log.items.len() == items,
        "what records hold adds up",
        log.items.len(),
        items
    );
    rule!(
        lane.reported <= lane.received,
        "no more is acknowledged than came",
        lane.reported,
        lane.received,
    );
    Ok(())
}
