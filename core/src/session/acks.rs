//! Acknowledgements, and what becomes of the ranges and values that a record held (PROTOCOL 4.2).

use std::time::Duration;

use super::Session;
use super::classes::opening_index;
use super::error::PathError;
use super::event::{Event, SwitchCause};
use super::sent::{Item, SentRecord};
use super::streams::Flags;
use super::timers::TimerKind;
use crate::handshake::PathIdError;
use crate::marks::sometimes;
use crate::stream::SendState;
use crate::time::Timestamp;
use crate::wire::{Counts, Kind, LaneCount};

impl Session {
    /// PROTOCOL 4.2: `count` records of the lane have been received in order. Without a delay it is told
    /// afterwards, in a handshake (PROTOCOL 6.3): it settles what was sent, and is no measurement.
    pub(super) fn take_ack(
        &mut self,
        now: Timestamp,
        id: u64,
        lane: u64,
        count: u64,
        delay_us: Option<u64>,
    ) -> Result<(), PathError> {
        let Some(slot) = self.slot_of_path_id(id) else {
            return self.ack_unsettled(id, lane, count);
        };
        let Some((bytes, newest)) = self.settle_lane(slot, lane, count)? else {
            return Ok(());
        };
        let Some(delay_us) = delay_us else {
            // What came over the path once is no evidence that anything still does.
            if self.paths[slot].suspicion.is_none() {
                self.progress(now, slot);
            }
            return Ok(());
        };
        self.delivered(now, slot, bytes, newest, delay_us);
        Ok(())
    }

    /// PROTOCOL 4.2: records of several lanes of the path that this came on have been received.
    pub(super) fn take_lane_acks(
        &mut self,
        now: Timestamp,
        slot: usize,
        counts: Counts<'_>,
        delay_us: u64,
    ) -> Result<(), PathError> {
        let mut total = 0;
        let mut newest: Option<SentRecord> = None;
        for LaneCount { lane, count } in counts.iter() {
            if let Some((bytes, record)) = self.settle_lane(slot, lane, count)? {
                total += bytes;
                let later = newest.is_none_or(|newest| newest.sent_at <= record.sent_at);
                newest = if later { Some(record) } else { newest };
            }
        }
        if let Some(newest) = newest {
            self.delivered(now, slot, total, newest, delay_us);
        }
        Ok(())
    }

    /// Settles what the first `count` records of a lane held. Gives the bytes of those that elicit acknowledgements,
    /// and the newest of them, where there is any.
    fn settle_lane(
        &mut self,
        slot: usize,
        lane: u64,
        count: u64,
    ) -> Result<Option<(u64, SentRecord)>, PathError> {
        let path = &mut self.paths[slot];
        let id = path.id;
        let unsent = |sent: u64| PathError::AckOfUnsent {
            path: id,
            lane,
            count,
            sent,
        };
        let place = usize::try_from(lane)
            .ok()
            .filter(|place| *place < path.lanes.len());
        let place = place.ok_or_else(|| unsent(0))?;
        let log = &mut path.lanes[place].sent;
        if count > log.sent() {
            return Err(unsent(log.sent()));
        }
        let extra = u64::from(crate::canary!(AckOffByOne));
        let count = (count + extra).min(log.sent());
        if count <= log.acknowledged {
            return Ok(None);
        }
        let in_flight = log.in_flight;
        let mut log = std::mem::take(log);
        let mut newest = None;
        let mut bytes = 0;
        while log.acknowledged < count {
            let Some(record) = log.pop() else { break };
            for _ in 0..record.items {
                if let Some(item) = log.items.pop_front() {
                    self.item_acked(item);
                }
            }
            if record.eliciting {
                bytes += u64::from(record.bytes);
                newest = Some(record);
            }
        }
        let path = &mut self.paths[slot];
        path.lanes[place].sent = log;
        path.lane_settled(place, in_flight);
        Ok(newest.map(|newest| (bytes, newest)))
    }

    /// What an acknowledgement says of the path.
    fn delivered(&mut self, now: Timestamp, slot: usize, bytes: u64, newest: SentRecord, delay_us: u64) {
        let delay = Duration::from_micros(delay_us).min(self.peer.max_ack_delay);
        let path = &mut self.paths[slot];
        let recovered = path.take_rtt(now, now.since(newest.sent_at), delay);
        path.rate.on_delivered(now, bytes, &newest, &mut path.rtt);
        let (usual, more) = (path.rtt.get() + self.peer.max_ack_delay, self.buffered > 0);
        if let Some(took) = self.standstill.moved(now, usual, more) {
            self.events.push_back(Event::Standstill(took));
        }
        self.progress(now, slot);
        self.reconsider(now, recovered);
    }

    fn ack_unsettled(&mut self, id: u64, lane: u64, count: u64) -> Result<(), PathError> {
        let Some(place) = self.unsettled.iter().position(|unsettled| unsettled.id == id) else {
            // PROTOCOL 4.2: acknowledgements for settled paths are ignored.
            return if self.path_existed(id) {
                sometimes!(self.marks, AckOfSettled);
                Ok(())
            } else {
                Err(PathError::AckOfUnsent {
                    path: id,
                    lane,
                    count,
                    sent: 0,
                })
            };
        };
        let Some(log) = self.unsettled[place]
            .lanes
            .iter_mut()
            .find(|known| known.id == lane)
            .map(|lane| &mut lane.sent)
        else {
            return Err(PathError::AckOfUnsent {
                path: id,
                lane,
                count,
                sent: 0,
            });
        };
        if count > log.sent() {
            return Err(PathError::AckOfUnsent {
                path: id,
                lane,
                count,
                sent: log.sent(),
            });
        }
        let mut log = std::mem::take(log);
        sometimes!(self.marks, UnsettledAcknowledged, log.acknowledged < count);
        while log.acknowledged < count {
            let Some(record) = log.pop() else { break };
            for _ in 0..record.items {
                if let Some(item) = log.items.pop_front() {
                    self.item_acked(item);
                }
            }
        }
        if let Some(known) = self.unsettled[place]
            .lanes
            .iter_mut()
            .find(|known| known.id == lane)
        {
            known.sent = log;
        }
        Ok(())
    }

    /// Whether the session ever had a path of this id.
    fn path_existed(&self, id: u64) -> bool {
        if self.is_client() {
            id < self.next_path_id
        } else {
            self.hello_ids.contains(&id) || self.path_ids.check(id).is_err_and(PathIdError::is_used)
        }
    }

    /// Evidence that the path delivers.
    fn progress(&mut self, now: Timestamp, slot: usize) {
        let max_delay = self.peer.max_ack_delay;
        let floor = self.config.min_suspicion;
        let path = &mut self.paths[slot];
        path.progress_at = now;
        path.proven_at = now;
        let recovered = path.suspicion.take().is_some();
        path.timers.clear(TimerKind::Probe);
        path.arm_suspicion(max_delay, floor);
        if recovered {
            sometimes!(self.marks, SuspicionCleared);
            self.events.push_back(Event::PathRecovered(self.path_key(slot)));
            self.choose_active(now, SwitchCause::Preferred);
            // Whether the others are dead their next probe tells: the peer may just have woken up.
            for suspect in self.suspects() {
                self.reinject_if_elsewhere(now, suspect);
            }
        }
    }

    pub(super) fn take_pong(&mut self, now: Timestamp, slot: usize, seq: u64) {
        let path = &mut self.paths[slot];
        if seq != path.ping_seq {
            return;
        }
        if let Some(sent) = path.ping_sent.take() {
            sometimes!(self.marks, PongReceived);
            let recovered = path.take_rtt(now, now.since(sent), Duration::ZERO);
            self.progress(now, slot);
            self.reconsider(now, recovered);
        }
    }

    #[inline]
    fn item_acked(&mut self, item: Item) {
        match item {
            Item::Stream {
                key,
                offset,
                len,
                fin,
            } => {
                let Some(stream) = self.streams.get_mut(key) else {
                    return;
                };
                let Some(send) = stream.send.as_mut() else { return };
                let kind = stream.id.kind();
                let class = stream.id.class();
                let acked = send.on_acked(offset, len as usize, fin);
                if acked.complete && !stream.flags.has(Flags::FINISHED_TOLD) {
                    stream.flags.set(Flags::FINISHED_TOLD);
                    if kind == Kind::Unordered {
                        self.unordered_acked(key);
                    } else if stream.flags.has(Flags::SEND_HELD) {
                        self.events.push_back(Event::Finished(key));
                    }
                }
                self.credit_buffer(class, acked.freed, kind == Kind::Ordered);
                match kind {
                    Kind::Ordered => self.ordered_acked(class, acked.acked_to),
                    _ if acked.complete => self.free_if_done(key.slot),
                    _ => {}
                }
            }
            Item::Reset { key } => {
                if let Some(send) = self.streams.get_mut(key).and_then(|stream| stream.send.as_mut()) {
                    send.on_reset_acked();
                }
                self.free_if_done(key.slot);
            }
            Item::Datagram { number } => self.datagram_acked(number),
            Item::GoAway { done } => self.goaway_told |= !done,
            Item::Abandon { path } => self.abandons.retain(|abandon| abandon.path != path),
            Item::Stop { .. }
            | Item::MaxStreamData { .. }
            | Item::MaxData { .. }
            | Item::MaxStreams { .. }
            | Item::Status { .. } => {}
        }
    }

    /// What the item held goes out again, unless something newer made it pointless.
    pub(super) fn item_lost(&mut self, now: Timestamp, item: Item) {
        match item {
            Item::Stream {
                key,
                offset,
                len,
                fin,
            } => {
                let Some(stream) = self.streams.get_mut(key) else {
                    return;
                };
                let Some(send) = stream.send.as_mut() else { return };
                let fin = fin && !crate::canary!(FinLost);
                if send.on_lost(offset, len as usize, fin) {
                    sometimes!(self.marks, FinResent, fin && !send.is_end_under_way());
                    // What was sent once has its credit; it does not wait for the class's.
                    stream.flags.clear(Flags::CLASS_BLOCKED);
                    self.make_ready(key.slot);
                }
            }
            Item::Reset { key } => {
                let due = self.streams.get_mut(key).is_some_and(|stream| {
                    let due = stream
                        .send
                        .as_ref()
                        .is_some_and(|send| send.state() == SendState::ResetSent);
                    let due = due && !crate::canary!(ResetNotResent);
                    if due {
                        stream.flags.set(Flags::RESET_DUE);
                    }
                    due
                });
                if due {
                    sometimes!(self.marks, ControlResent);
                    self.queue_control(key.slot);
                }
            }
            Item::Stop { key } => self.requeue_control(key.slot, key, Flags::STOP_DUE, |stream| {
                !stream.flags.has(Flags::RECV_DONE)
            }),
            Item::MaxStreamData { .. } | Item::MaxData { .. } if crate::canary!(CreditNotResent) => {}
            Item::MaxStreamData { key, value } => {
                self.requeue_control(key.slot, key, Flags::CREDIT_DUE, |stream| {
                    stream
                        .recv
                        .as_ref()
                        .is_some_and(|recv| recv.window().limit() == value)
                });
            }
            Item::MaxData { class, value } => {
                let state = self.classes.at(class.index());
                if state.window.limit() == value {
                    sometimes!(self.marks, ControlResent);
                    state.credit_due = true;
                    self.class_control = true;
                }
            }
            Item::MaxStreams { class, kind, value } => {
                if let Some(place) = opening_index(kind) {
                    let opening = &mut self.classes.at(class.index()).opening[place];
                    if opening.granted == value {
                        opening.due = true;
                        self.class_control = true;
                    }
                }
            }
            Item::Datagram { number } => self.datagram_lost(now, number),
            // It was put on every path there was; a new one is told on its own.
            Item::Abandon { .. } => {}
            Item::Status { path, seq } => {
                if let Some(slot) = self.slot_of_path_id(path) {
                    let path = &mut self.paths[slot];
                    path.status_due |= path.status_seq == seq;
                }
            }
            Item::GoAway { done: false } => self.goaway_due = true,
            Item::GoAway { done: true } => self.done_due = true,
        }
    }

    fn requeue_control(
        &mut self,
        slot: u32,
        key: super::keys::StreamKey,
        flag: Flags,
        still: impl Fn(&super::streams::Stream) -> bool,
    ) {
        if let Some(stream) = self.streams.get_mut(key)
            && still(stream)
        {
            stream.flags.set(flag);
            self.queue_control(slot);
        }
    }
}
