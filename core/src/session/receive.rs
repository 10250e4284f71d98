//! What comes in on a path: records, then frames by family. Those about streams: `stream_frames.rs`.

use bytes::{Bytes, BytesMut};

use super::Session;
use super::classes::{OPENING_KINDS, opening_index};
use super::error::PathError;
use super::event::{Event, PathEnd, SwitchCause};
use super::keys::PathKey;
use super::path::Stage;
use super::timers::TimerKind;
use crate::marks::sometimes;
use crate::stream::Source;
use crate::time::Timestamp;
use crate::wire::{
    Class, ErrorCode, Frame, HandshakeKind, PathStatus, Record, RecordLimits, Side, complete_prefix,
    split_record,
};

/// Records of acknowledgements and answers alone that may be unacknowledged on a path; each costs memory.
const MAX_SILENT_RECORDS: usize = 16_384;

/// Where a record's bytes lie, for slices that outlive it.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) block: &'a Bytes,
    /// Bytes of the whole read buffer; 0 where slices cannot be kept.
    pub(super) capacity: usize,
}

impl<'a> Origin<'a> {
    pub(super) fn source(&self, payload: usize) -> Source<'a> {
        if self.capacity == 0 || payload < 1024 {
            Source::Borrowed
        } else {
            Source::Block {
                block: self.block,
                capacity: self.capacity,
            }
        }
    }
}

impl Session {
    /// Takes in what a path's connection received: every complete record at the front of `buffer`
    /// is consumed, a partial one stays. `block_capacity` is the size of the allocation that
    /// `buffer` lies in; payloads of a quarter of it and more are kept as slices.
    ///
    /// # Errors
    /// The path is over: write once more what [`Session::poll_transmit`] gives, then close the
    /// connection. Where [`PathError::ends_session`], the session has failed with it.
    pub fn handle_input(
        &mut self,
        now: Timestamp,
        key: PathKey,
        buffer: &mut BytesMut,
        block_capacity: usize,
    ) -> Result<(), PathError> {
        let slot = self.path_slot(key).ok_or(PathError::Unknown)?;
        if self.paths[slot].stage == Stage::Closing {
            buffer.clear();
            return Ok(());
        }
        let late = self.paths[slot].timers.next().is_some_and(|(at, _)| at < now);
        sometimes!(self.marks, ReadBeforeJudging, late);
        let mut limits = self.limits_in(slot);
        let mut result = self.take_records(now, slot, 0, &limits, buffer, block_capacity);
        // PROTOCOL 3.1: what comes behind the end of a handshake is judged by the limits after it.
        while result.is_ok() && self.paths[slot].stage != Stage::Closing {
            let changed = self.limits_in(slot);
            if changed == limits {
                break;
            }
            limits = changed;
            result = self.take_records(now, slot, 0, &limits, buffer, block_capacity);
        }
        if let Err(error) = &result {
            self.path_failed(now, slot, error.clone());
        }
        result
    }

    pub(super) fn take_records(
        &mut self,
        now: Timestamp,
        slot: usize,
        lane: usize,
        limits: &RecordLimits,
        buffer: &mut BytesMut,
        capacity: usize,
    ) -> Result<(), PathError> {
        let complete = complete_prefix(buffer, limits)?.complete;
        if complete == 0 {
            return Ok(());
        }
        let block = buffer.split_to(complete).freeze();
        let mut input: &[u8] = &block;
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut result = Ok(());
        while !input.is_empty() && result.is_ok() {
            // The handshake changes the limits between two records of one read.
            let limits = self.limits_in(slot);
            result = match split_record(&mut input, &limits, &mut scratch) {
                Ok(Some(record)) => {
                    sometimes!(self.marks, Lz4Received, record.compressed);
                    let capacity = if record.compressed { 0 } else { capacity };
                    let origin = Origin {
                        block: &block,
                        capacity,
                    };
                    self.take_record(now, slot, lane, &record, origin)
                }
                Ok(None) => break,
                Err(error) => Err(error.into()),
            };
            if self
                .paths
                .get(slot)
                .is_none_or(|path| path.stage == Stage::Closing)
            {
                break;
            }
        }
        self.scratch = scratch;
        result
    }

    pub(super) fn limits_in(&self, slot: usize) -> RecordLimits {
        let path = &self.paths[slot];
        if path.stage != Stage::Live {
            return RecordLimits::HANDSHAKE;
        }
        RecordLimits {
            max_body: self.config.params.max_record as usize,
            require_crc: path.crc,
            allow_lz4: self.lz4(),
        }
    }

    fn take_record(
        &mut self,
        now: Timestamp,
        slot: usize,
        lane: usize,
        record: &Record<'_>,
        origin: Origin<'_>,
    ) -> Result<(), PathError> {
        let (wire_len, ack_now) = (record.wire_len, record.ack_now);
        let mut eliciting = false;
        let mut input = record.body;
        while !input.is_empty() {
            let Some(frame) = Frame::decode(&mut input)? else {
                continue;
            };
            eliciting |= self.take_frame(now, slot, lane, frame, origin)?;
            if self
                .paths
                .get(slot)
                .is_none_or(|path| path.stage == Stage::Closing)
            {
                return Ok(());
            }
        }
        let path = &mut self.paths[slot];
        path.bytes_received += wire_len as u64;
        path.records_received += 1;
        path.lanes[0].unreported_bytes += wire_len as u64;
        let number = lane;
        let lane = &mut path.lanes[number];
        lane.received += 1;
        lane.received_at = now;
        if eliciting || ack_now {
            // Whoever sends so much acknowledges our answers with it, sooner or later.
            if lane.sent.silent > MAX_SILENT_RECORDS {
                return Err(PathError::Flood(
                    "records whose acknowledgements are never acknowledged",
                ));
            }
            if number == 0 {
                lane.ack_wanted = true;
            } else {
                path.lane_received(number);
            }
            // PROTOCOL 4.2: a sender that wants to know earlier asks.
            let half = path.peer_in_flight / 2;
            if ack_now || path.lanes[0].unreported_bytes >= half {
                path.ack_due = true;
            } else if !path.timers.is_set(TimerKind::Ack) {
                path.timers
                    .set(TimerKind::Ack, now + self.config.params.max_ack_delay);
            }
        }
        Ok(())
    }

    /// One frame. Tells whether it wants an acknowledgement.
    #[inline]
    fn take_frame(
        &mut self,
        now: Timestamp,
        slot: usize,
        lane: usize,
        frame: Frame<'_>,
        origin: Origin<'_>,
    ) -> Result<bool, PathError> {
        match frame {
            Frame::Stream {
                id,
                offset,
                fin,
                data,
            } => {
                if !self.paths[slot].may_send() {
                    sometimes!(self.marks, EarlyDataRefused);
                    return Err(PathError::Premature("a STREAM frame"));
                }
                if data.is_empty() && !fin {
                    self.spend_budget(now, slot, "empty STREAM frames")?;
                }
                self.take_stream(now, slot, lane, id, offset, fin, data, origin)?;
                Ok(true)
            }
            // PROTOCOL 14.8.
            _ if lane > 0 => Err(PathError::Misplaced {
                what: "a frame other than STREAM",
                lane: lane as u64,
            }),
            Frame::AckHere { count, delay_us } => {
                let path = &self.paths[slot];
                // PROTOCOL 6: who has proven nothing acknowledges nothing. Counts only grow, so that
                // the next acknowledgement makes up for it.
                if path.is_live() {
                    let id = path.id;
                    self.take_ack(now, id, 0, count, Some(delay_us))?;
                }
                Ok(false)
            }
            Frame::AckLanes { delay_us, counts } => {
                if self.paths[slot].is_live() {
                    self.take_lane_acks(now, slot, counts, delay_us)?;
                }
                Ok(false)
            }
            Frame::AckDatagrams { runs } => {
                if self.paths[slot].is_live() {
                    self.take_datagram_acks(runs);
                }
                Ok(false)
            }
            Frame::Handshake { kind, body } => {
                self.take_handshake(now, slot, kind, body)?;
                Ok(kind != HandshakeKind::Reject)
            }
            other => self.take_other(now, slot, other),
        }
    }

    fn take_other(&mut self, now: Timestamp, slot: usize, frame: Frame<'_>) -> Result<bool, PathError> {
        // PROTOCOL 5.6: early data is STREAM frames and nothing else.
        if !self.paths[slot].is_live() {
            return Err(PathError::Premature("a control frame"));
        }
        match frame {
            Frame::Ack {
                path,
                lane,
                count,
                delay_us,
            } => {
                self.spend_budget(now, slot, "ACK for other paths")?;
                self.take_ack(now, path, lane, count, Some(delay_us))?;
                return Ok(false);
            }
            Frame::Ping { seq } => {
                self.spend_budget(now, slot, "PING")?;
                if crate::canary!(PingUnanswered) {
                    return Ok(true);
                }
                let pongs = &mut self.paths[slot].pongs;
                if pongs.len() >= 8 {
                    pongs.remove(0);
                }
                pongs.push(seq);
            }
            Frame::Pong { seq } => {
                self.take_pong(now, slot, seq);
                return Ok(false);
            }
            Frame::Datagram { number, class, data } => {
                self.take_datagram(number, class, data);
            }
            Frame::ResetStream { .. }
            | Frame::StopSending { .. }
            | Frame::MaxData { .. }
            | Frame::MaxStreams { .. }
            | Frame::MaxStreamData { .. } => {
                self.spend_budget(now, slot, "stream control")?;
                self.take_stream_control(now, frame)?;
            }
            Frame::PathStatus {
                path,
                seq,
                status,
                in_flight,
            } => {
                self.spend_budget(now, slot, "PATH_STATUS")?;
                self.take_path_status(now, path, seq, status, in_flight);
            }
            Frame::Advertise(_) => self.spend_budget(now, slot, "ADVERTISE")?,
            Frame::PathAbandon { path, code, counts } => {
                self.spend_budget(now, slot, "PATH_ABANDON")?;
                let counts: Vec<(u64, u64)> = counts.iter().map(|count| (count.lane, count.count)).collect();
                self.take_abandon(now, path, code, &counts)?;
            }
            Frame::GoAway {
                code,
                reason,
                address,
            } => {
                self.spend_budget(now, slot, "GOAWAY")?;
                self.take_goaway(code, reason, address);
            }
            Frame::Close { code, reason } => {
                self.peer_closed(now, ErrorCode::from(code), reason);
                return Ok(false);
            }
            Frame::Stream { .. }
            | Frame::AckHere { .. }
            | Frame::AckLanes { .. }
            | Frame::AckDatagrams { .. }
            | Frame::Handshake { .. } => {}
        }
        Ok(true)
    }

    fn spend_budget(&mut self, now: Timestamp, slot: usize, what: &'static str) -> Result<(), PathError> {
        if self.paths[slot].budget.spend(now) {
            Ok(())
        } else {
            sometimes!(self.marks, FloodStopped);
            Err(PathError::Flood(what))
        }
    }

    // ---- the rest ----

    fn take_path_status(&mut self, now: Timestamp, id: u64, seq: u64, status: PathStatus, in_flight: u64) {
        let Some(slot) = self.slot_of_path_id(id) else {
            return;
        };
        let path = &mut self.paths[slot];
        if path.peer_status_seq.is_some_and(|newest| seq <= newest) {
            return;
        }
        path.peer_status_seq = Some(seq);
        path.peer_in_flight = in_flight.max(4096);
        path.peer_wants_leave = status == PathStatus::Leave;
        if path.peer_wants_leave {
            self.choose_active(now, SwitchCause::Abandoned);
        }
        if self.side == Side::Server {
            // PROTOCOL 4.7: a server follows its client to the path that this sends on.
            self.statuses += 1;
            self.paths[slot].peer_sends = match status {
                PathStatus::Active => self.statuses,
                _ => 0,
            };
            self.choose_active(now, SwitchCause::Preferred);
        }
    }

    fn take_goaway(&mut self, code: u64, reason: &str, address: &str) {
        let code = ErrorCode::from(code);
        if code == ErrorCode::NONE {
            // PROTOCOL 8.1: the answer to this end's.
            self.peer_done |= self.drain_address.is_some();
            return;
        }
        if self.peer_draining {
            return;
        }
        sometimes!(self.marks, GoAwayReceived);
        self.peer_draining = true;
        self.events.push_back(Event::GoAway {
            code,
            reason: reason.to_owned(),
            address: address.to_owned(),
        });
        for class in Class::ALL {
            for kind in OPENING_KINDS {
                let Some(place) = opening_index(kind) else {
                    continue;
                };
                if std::mem::take(&mut self.classes.at(class.index()).opening[place].blocked) {
                    self.events.push_back(Event::Credit { kind, class });
                }
            }
        }
        self.messages_unblocked();
    }

    fn take_abandon(
        &mut self,
        now: Timestamp,
        id: u64,
        code: u64,
        counts: &[(u64, u64)],
    ) -> Result<(), PathError> {
        for &(lane, count) in counts {
            self.take_ack(now, id, lane, count, None)?;
        }
        if let Some(slot) = self.slot_of_path_id(id) {
            sometimes!(self.marks, PathAbandoned);
            self.end_path(now, slot, PathEnd::Local, Some(PathError::Abandoned(code)));
        }
        Ok(())
    }
}
