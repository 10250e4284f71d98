//! What comes in on a path: records, then frames by family.

use bytes::{Bytes, BytesMut};

use super::Session;
use super::classes::{OPENING_KINDS, opening_index};
use super::error::{Misbehaviour, PathError};
use super::event::{Event, PathEnd, SwitchCause};
use super::keys::PathKey;
use super::path::Stage;
use super::streams::{Flags, check_direction, check_ours};
use super::timers::TimerKind;
use crate::stream::{RecvHalf, SendHalf, Source};
use crate::time::Timestamp;
use crate::wire::{
    Class, ErrorCode, Frame, HandshakeKind, Kind, PathStatus, RecordLimits, StreamId, complete_prefix,
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
    fn source(&self, payload: usize) -> Source<'a> {
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
        let mut limits = self.limits_in(slot);
        let mut result = self.take_records(now, slot, &limits, buffer, block_capacity);
        // PROTOCOL 3.1: what comes behind the end of a handshake is judged by the limits after it.
        while result.is_ok() && self.paths[slot].stage != Stage::Closing {
            let changed = self.limits_in(slot);
            if changed == limits {
                break;
            }
            limits = changed;
            result = self.take_records(now, slot, &limits, buffer, block_capacity);
        }
        if let Err(error) = &result {
            self.path_failed(now, slot, error.clone());
        }
        result
    }

    fn take_records(
        &mut self,
        now: Timestamp,
        slot: usize,
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
                    let capacity = if record.compressed { 0 } else { capacity };
                    let origin = Origin {
                        block: &block,
                        capacity,
                    };
                    self.take_record(now, slot, record.body, record.wire_len, record.ack_now, origin)
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

    fn limits_in(&self, slot: usize) -> RecordLimits {
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
        body: &[u8],
        wire_len: usize,
        ack_now: bool,
        origin: Origin<'_>,
    ) -> Result<(), PathError> {
        let mut eliciting = false;
        let mut input = body;
        while !input.is_empty() {
            let Some(frame) = Frame::decode(&mut input)? else {
                continue;
            };
            eliciting |= self.take_frame(now, slot, frame, origin)?;
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
        let lane = &mut path.lanes[0];
        lane.received += 1;
        lane.received_at = now;
        lane.unreported_bytes += wire_len as u64;
        if eliciting || ack_now {
            // Whoever sends so much acknowledges our answers with it, sooner or later.
            if lane.sent.silent > MAX_SILENT_RECORDS {
                return Err(PathError::Flood(
                    "records whose acknowledgements are never acknowledged",
                ));
            }
            lane.ack_wanted = true;
            let quarter = path.peer_in_flight / 4;
            if ack_now || path.lanes[0].unreported_bytes >= quarter {
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
                    return Err(PathError::Premature("a STREAM frame"));
                }
                if data.is_empty() && !fin {
                    self.spend_budget(now, slot, "empty STREAM frames")?;
                }
                self.take_stream(now, slot, id, offset, fin, data, origin)?;
                Ok(true)
            }
            Frame::AckHere { count, delay_us } => {
                let path = &self.paths[slot];
                // PROTOCOL 6: who has proven nothing acknowledges nothing. Counts only grow, so that
                // the next acknowledgement makes up for it.
                if path.is_live() {
                    let id = path.id;
                    self.take_ack(now, id, 0, count, delay_us)?;
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
                self.take_ack(now, path, lane, count, delay_us)?;
                return Ok(false);
            }
            Frame::Ping { seq } => {
                self.spend_budget(now, slot, "PING")?;
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
                self.take_path_status(path, seq, status, in_flight);
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
            Frame::Stream { .. } | Frame::AckHere { .. } | Frame::Handshake { .. } => {}
        }
        Ok(true)
    }

    fn spend_budget(&mut self, now: Timestamp, slot: usize, what: &'static str) -> Result<(), PathError> {
        if self.paths[slot].budget.spend(now) {
            Ok(())
        } else {
            Err(PathError::Flood(what))
        }
    }

    // ---- streams ----

    #[allow(
        clippy::too_many_arguments,
        reason = "the frame's fields, and where they came from"
    )]
    fn take_stream(
        &mut self,
        now: Timestamp,
        path_slot: usize,
        id: StreamId,
        offset: Option<u64>,
        fin: bool,
        data: &[u8],
        origin: Origin<'_>,
    ) -> Result<(), Misbehaviour> {
        let Some(slot) = self.receiving_slot(id, "STREAM")? else {
            return Ok(());
        };
        let lane = self.paths[path_slot].lane_key;
        let Some(stream) = self.streams.slot_mut(slot) else {
            return Ok(());
        };
        let Some(recv) = stream.recv.as_mut() else {
            return Ok(());
        };
        let offset = offset.unwrap_or_else(|| recv.next_offset(lane));
        let inserted = recv
            .insert(offset, data, fin, origin.source(data.len()))
            .map_err(|error| Misbehaviour::Stream { id, error })?;
        recv.received_on(lane, offset.saturating_add(data.len() as u64))
            .map_err(|error| Misbehaviour::Stream { id, error })?;
        if inserted.growth > 0 {
            let class = self.classes.at(id.class().index());
            class.received = class.received.saturating_add(inserted.growth);
            if class.received > class.window.limit() {
                return Err(Misbehaviour::ClassCredit {
                    class: id.class().number(),
                    received: class.received,
                    limit: class.window.limit(),
                });
            }
            self.check_early(inserted.growth)?;
            if id.kind() == Kind::Unordered {
                self.part_grew(now, slot, inserted.growth);
            }
        }
        let stopping = self
            .streams
            .slot(slot)
            .is_some_and(|stream| stream.flags.has(Flags::STOPPING));
        if stopping {
            return self.settle_stopped(now, slot, inserted.released);
        }
        if inserted.readable {
            self.stream_readable(slot)?;
        }
        Ok(())
    }

    /// A stopped stream's late data is only counted, and its credit given back.
    fn settle_stopped(&mut self, now: Timestamp, slot: u32, released: u64) -> Result<(), Misbehaviour> {
        let Some(stream) = self.streams.slot_mut(slot) else {
            return Ok(());
        };
        let class = stream.id.class();
        if stream.recv.as_ref().is_some_and(RecvHalf::is_settled) {
            stream.flags.set(Flags::RECV_DONE);
        }
        self.consume_class(class, released);
        let rtt = self.best_rtt();
        self.update_class(now, class, rtt);
        self.free_if_done(slot);
        Ok(())
    }

    /// Lets whoever waits for the stream know.
    #[inline]
    fn stream_readable(&mut self, slot: u32) -> Result<(), Misbehaviour> {
        let Some(stream) = self.streams.slot_mut(slot) else {
            return Ok(());
        };
        match stream.id.kind() {
            Kind::Bi | Kind::Uni => {
                if stream.flags.take(Flags::READ_BLOCKED)
                    && let Some(key) = self.streams.key_of(slot)
                {
                    self.events.push_back(Event::Readable(key));
                }
                Ok(())
            }
            Kind::Ordered => {
                let class = stream.id.class();
                self.message_bytes_came(class);
                Ok(())
            }
            Kind::Unordered => self.message_part_came(slot),
        }
    }

    /// The stream that a frame from the peer is for; `None` where it is finished and gone.
    #[inline]
    fn receiving_slot(&mut self, id: StreamId, frame: &'static str) -> Result<Option<u32>, Misbehaviour> {
        if let Some(slot) = self.streams.find(id) {
            if id.kind() != Kind::Bi {
                check_direction(self.side, id, frame)?;
            }
            return Ok(Some(slot));
        }
        check_direction(self.side, id, frame)?;
        self.open_remote(id)
    }

    /// Opens what the peer's first frame for `id` opens: it and every lower index of its kind
    /// (PROTOCOL 2.2).
    fn open_remote(&mut self, id: StreamId) -> Result<Option<u32>, Misbehaviour> {
        let class = id.class();
        if id.initiator() == self.side {
            let opened = match opening_index(id.kind()) {
                Some(place) => self
                    .classes
                    .used(class.index())
                    .is_some_and(|state| id.index() < state.opening[place].next_local),
                None => self.ordered_opened(class),
            };
            return if opened {
                Ok(None)
            } else {
                Err(Misbehaviour::NeverOpened { id })
            };
        }
        self.check_early_stream(id.kind(), class, id.index())?;
        let Some(place) = opening_index(id.kind()) else {
            if id.index() != 0 {
                return Err(Misbehaviour::StreamLimit { id, limit: 1 });
            }
            return Ok(self.open_ordered_in(class));
        };
        let opening = &mut self.classes.at(class.index()).opening[place];
        if id.index() < opening.next_remote {
            return Ok(None);
        }
        if id.index() >= opening.granted {
            return Err(Misbehaviour::StreamLimit {
                id,
                limit: opening.granted,
            });
        }
        let first = opening.next_remote;
        opening.next_remote = id.index() + 1;
        let mut last = None;
        for index in first..=id.index() {
            last = self.insert_remote(id.kind(), class, index);
        }
        Ok(last)
    }

    fn insert_remote(&mut self, kind: Kind, class: Class, index: u64) -> Option<u32> {
        let id = StreamId::new(self.side.peer(), kind, class, index)?;
        let urgency = self.classes.at(class.index()).urgency;
        let send =
            (kind == Kind::Bi).then(|| SendHalf::new(self.classes.at(class.index()).stream_credit_out));
        let recv = self.new_recv(class);
        let key = self.streams.insert(self.side, id, urgency, send, Some(recv));
        let place = match kind {
            Kind::Bi => 0,
            Kind::Uni => 1,
            Kind::Ordered | Kind::Unordered => return Some(key.slot),
        };
        let state = self.classes.at(class.index());
        if state.accept[place].is_empty() || state.accept_blocked[place] {
            state.accept_blocked[place] = false;
            self.events.push_back(Event::Opened { kind, class });
        }
        self.classes.at(class.index()).accept[place].push_back(key.slot);
        Some(key.slot)
    }

    fn take_stream_control(&mut self, now: Timestamp, frame: Frame<'_>) -> Result<(), Misbehaviour> {
        match frame {
            Frame::ResetStream { id, code, final_size } => self.take_reset(now, id, code, final_size),
            Frame::StopSending { id, code } => self.take_stop(id, code),
            Frame::MaxStreamData { id, value } => self.take_stream_credit(id, value),
            Frame::MaxData { class, value } => {
                self.take_class_credit(class, value);
                Ok(())
            }
            Frame::MaxStreams { class, kind, value } => {
                self.take_streams_credit(class, kind, value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take_reset(
        &mut self,
        now: Timestamp,
        id: StreamId,
        code: u64,
        final_size: u64,
    ) -> Result<(), Misbehaviour> {
        let Some(slot) = self.receiving_slot(id, "RESET_STREAM")? else {
            return Ok(());
        };
        let Some(stream) = self.streams.slot_mut(slot) else {
            return Ok(());
        };
        let Some(recv) = stream.recv.as_mut() else {
            return Ok(());
        };
        if stream.flags.has(Flags::RECV_DONE) {
            return Ok(());
        }
        let reset = recv
            .reset(code, final_size)
            .map_err(|error| Misbehaviour::Stream { id, error })?;
        let class = id.class();
        let state = self.classes.at(class.index());
        state.received = state.received.saturating_add(reset.growth);
        if state.received > state.window.limit() {
            let limit = state.window.limit();
            return Err(Misbehaviour::ClassCredit {
                class: class.number(),
                received: state.received,
                limit,
            });
        }
        // What the application never read goes back to the peer as credit.
        self.part_settled(slot);
        self.consume_class(class, reset.released);
        let rtt = self.best_rtt();
        self.update_class(now, class, rtt);
        let Some(stream) = self.streams.slot_mut(slot) else {
            return Ok(());
        };
        if stream.flags.has(Flags::STOPPING) {
            stream.flags.set(Flags::RECV_DONE);
            self.free_if_done(slot);
            return Ok(());
        }
        match id.kind() {
            Kind::Bi | Kind::Uni => self.stream_readable(slot),
            Kind::Ordered | Kind::Unordered => {
                // PROTOCOL 7.4: a reset message is a message that never was.
                stream.flags.set(Flags::RECV_DONE);
                stream.flags.clear(Flags::RECV_HELD);
                self.free_if_done(slot);
                Ok(())
            }
        }
    }

    fn take_stop(&mut self, id: StreamId, code: u64) -> Result<(), Misbehaviour> {
        check_ours(self.side, id, "STOP_SENDING")?;
        if !matches!(id.kind(), Kind::Bi | Kind::Uni) {
            // PROTOCOL 7.4: messages are taken as they come.
            return Err(Misbehaviour::WrongDirection {
                id,
                frame: "STOP_SENDING",
            });
        }
        let Some(slot) = self.sending_slot(id)? else {
            return Ok(());
        };
        let Some(key) = self.streams.key_of(slot) else {
            return Ok(());
        };
        let Some(stream) = self.streams.slot_mut(slot) else {
            return Ok(());
        };
        let open = stream
            .send
            .as_ref()
            .is_some_and(|send| !send.state().is_terminal());
        if !open || stream.flags.has(Flags::STOPPED) {
            return Ok(());
        }
        stream.flags.set(Flags::STOPPED);
        stream.flags.clear(Flags::WRITE_BLOCKED);
        // RFC 9000 §3.5: the answer to STOP_SENDING is a reset with its code.
        let _ = self.reset(key, code);
        if let Some(stream) = self.streams.slot_mut(slot) {
            stream.send_code = code;
        }
        self.events.push_back(Event::Stopped(key, code));
        Ok(())
    }

    /// The stream on which this end sends that a frame is about; `None` where it is gone.
    fn sending_slot(&mut self, id: StreamId) -> Result<Option<u32>, Misbehaviour> {
        match self.streams.find(id) {
            Some(slot) => Ok(Some(slot)),
            None => self.open_remote(id),
        }
    }

    fn take_stream_credit(&mut self, id: StreamId, value: u64) -> Result<(), Misbehaviour> {
        check_ours(self.side, id, "MAX_STREAM_DATA")?;
        let Some(slot) = self.sending_slot(id)? else {
            return Ok(());
        };
        let Some(key) = self.streams.key_of(slot) else {
            return Ok(());
        };
        if let Some(send) = self
            .streams
            .slot_mut(slot)
            .and_then(|stream| stream.send.as_mut())
            && send.set_max_data(value)
        {
            self.make_ready(slot);
            self.tell_writable(key);
        }
        Ok(())
    }

    pub(super) fn take_class_credit(&mut self, class: Class, value: u64) {
        let state = self.classes.at(class.index());
        if value <= state.send_limit {
            return;
        }
        state.send_limit = value;
        for slot in std::mem::take(&mut state.blocked) {
            if let Some(stream) = self.streams.slot_mut(slot)
                && stream.flags.take(Flags::CLASS_BLOCKED)
            {
                self.make_ready(slot);
            }
        }
    }

    pub(super) fn take_streams_credit(&mut self, class: Class, kind: Kind, value: u64) {
        let Some(place) = opening_index(kind) else { return };
        let opening = &mut self.classes.at(class.index()).opening[place];
        if value > opening.allowed {
            opening.allowed = value;
            if std::mem::take(&mut opening.blocked) {
                if kind == Kind::Unordered {
                    self.messages_unblocked();
                } else {
                    self.events.push_back(Event::Credit { kind, class });
                }
            }
        }
    }

    // ---- the rest ----

    fn take_path_status(&mut self, id: u64, seq: u64, status: PathStatus, in_flight: u64) {
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
            self.choose_active(SwitchCause::Abandoned);
        }
    }

    fn take_goaway(&mut self, code: u64, reason: &str, address: &str) {
        if self.peer_draining {
            return;
        }
        self.peer_draining = true;
        self.events.push_back(Event::GoAway {
            code: ErrorCode::from(code),
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
            self.take_ack(now, id, lane, count, 0)?;
        }
        if let Some(slot) = self.slot_of_path_id(id) {
            self.end_path(now, slot, PathEnd::Local, Some(PathError::Abandoned(code)));
        }
        Ok(())
    }
}
