//! What goes out on a path: handshake, then acknowledgements, control (`transmit_control.rs`), datagrams
//! and streams, in records that are built when the path has room for them (DESIGN "Scheduling").

use std::time::Duration;

use super::Session;
use super::datagrams::DATAGRAM_ROOM;
use super::keys::{PathKey, StreamKey};
use super::path::{Path, Stage};
use super::sent::{Item, SentRecord};
use super::streams::Flags;
use super::timers::TimerKind;
use crate::marks::sometimes;
use crate::stream::SendHalf;
use crate::time::Timestamp;
use crate::wire::{Compressor, Frame, Kind, OutBuffer, RecordBuilder, SHARE_THRESHOLD};

/// What [`Session::poll_transmit`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// The path has nothing to send, or no room in flight.
    Nothing,
    /// Records were appended.
    Wrote,
    /// Write what the buffer holds, then close the connection and report
    /// [`Session::handle_path_closed`].
    CloseAfterFlush,
}

/// Output is bound to a path in batches of about this many bytes: one large write's worth.
pub(super) const BATCH: usize = 256 * 1024;
/// A session that has sent nothing for this long gives back the memory that it does not need.
pub(super) const TIDY_AFTER: Duration = Duration::from_millis(50);
/// Acknowledgements of what wants none ride along once this many records wait for one.
const LAZY_ACK: u64 = 16;
/// What acknowledgements and a path's own control take of a record at most.
const ACK_ROOM: usize = 128;
/// A STREAM frame is not started in less room than this, unless it ends the data.
const MIN_STREAM_ROOM: usize = 32;

/// One record under construction.
pub(super) struct Draft<'a> {
    pub(super) builder: RecordBuilder<'a>,
    /// The lane that it goes on.
    pub(super) lane: usize,
    pub(super) items: u32,
    /// There are STREAM frames in it.
    pub(super) has_streams: bool,
    pub(super) eliciting: bool,
    /// Ask for an acknowledgement: the sender waits for one.
    pub(super) ack_now: bool,
}

impl Session {
    /// Appends to `out` what the path is to send now. Give it an empty buffer, or one that is being
    /// written: data is bound to a path as late as possible.
    pub fn poll_transmit(&mut self, now: Timestamp, key: PathKey, out: &mut OutBuffer) -> Transmit {
        if self.draining() {
            self.close_if_drained(now);
        }
        let Some(slot) = self.path_slot(key) else {
            return Transmit::CloseAfterFlush;
        };
        if self.class_dropped != 0 {
            self.update_dropped(now);
        }
        let before = out.len();
        self.flush_handshake(now, slot, out);
        if self.paths[slot].may_send()
            || self.paths[slot].stage == Stage::HelloSent
            || self.paths[slot].close_due
        {
            while out.len() < BATCH && self.build_record(now, slot, out) {}
        }
        if self.paths[slot].stage == Stage::Closing {
            return Transmit::CloseAfterFlush;
        }
        if out.len() > before {
            Transmit::Wrote
        } else {
            Transmit::Nothing
        }
    }

    /// Handshake frames: a record each, always with a checksum (PROTOCOL 5).
    fn flush_handshake(&mut self, now: Timestamp, slot: usize, out: &mut OutBuffer) {
        let path = &mut self.paths[slot];
        for frame in std::mem::take(&mut path.handshake) {
            let mut builder = RecordBuilder::begin(out, crate::wire::HANDSHAKE_MAX_BODY, true);
            // The frame is complete in itself: type, length, body.
            builder.encoded(&frame);
            let bytes = builder.finish();
            let record = SentRecord {
                sent_at: now,
                delivered: path.rate.delivered,
                delivered_at: path.rate.delivered_at,
                bytes: bytes as u32,
                items: 0,
                eliciting: false,
                app_limited: true,
                reinjected: false,
            };
            path.lanes[0].sent.push(record);
            path.bytes_sent += bytes as u64;
            path.records_sent += 1;
        }
    }

    /// Whether data, and control that goes on any path, belongs on this one now.
    pub(super) fn carries_data(&self, slot: usize) -> bool {
        match self.active {
            Some(active) => active == slot,
            // Early data, before any path has proven itself (PROTOCOL 5.6).
            None => self.early.is_some_and(|path| path == slot),
        }
    }

    /// Builds the path's next record. Tells whether there was something to send.
    fn build_record(&mut self, now: Timestamp, slot: usize, out: &mut OutBuffer) -> bool {
        let carries = self.carries_data(slot);
        let path = &self.paths[slot];
        let in_flight = path.in_flight();
        let limit = path.limit();
        let room = in_flight < limit;
        let stage_early = path.stage == Stage::HelloSent;
        let control = carries && !stage_early && self.has_session_control();
        // PROTOCOL 5.6: datagrams are no early data.
        let datagrams = !stage_early && self.datagrams.has_outgoing() && !self.goes_beside(slot);
        // Where there are lanes, streams are sent on those; but early data is behind HELLO.
        let streams = (path.pool.is_none() || stage_early) && !self.ready.is_empty();
        let data = carries && room && (datagrams || streams);
        let own = path.ack_due
            || (room && carries && path.has_many_lane_acks() && !self.ready.is_empty())
            || path.ping_due
            || path.close_due
            || !path.pongs.is_empty()
            || (path.status_due && path.may_send())
            || (path.may_send()
                && self
                    .abandons
                    .iter()
                    .any(|abandon| !abandon.told.contains(&path.id)));
        let copies = room && self.carries_copies(slot);
        if !(control || data || own || copies || (carries && self.foreign_ack_due(slot))) {
            return false;
        }
        let crc = path.crc || stage_early;
        let mut target = path.rate.record_target().max(2048);
        if data && datagrams {
            // A datagram is never cut: what is larger than the path likes has a record to itself.
            target = target.max(self.datagrams.next_size() + ACK_ROOM);
        }
        let max_body = path.max_record.min(target);
        let mut draft = Draft {
            builder: RecordBuilder::begin(out, max_body, crc),
            lane: 0,
            items: 0,
            has_streams: false,
            eliciting: false,
            ack_now: false,
        };
        if !stage_early {
            self.put_acks(now, slot, carries, &mut draft);
            self.put_path_control(now, slot, &mut draft);
        }
        if control {
            self.put_session_control(slot, &mut draft);
        }
        if data {
            if datagrams {
                self.put_datagrams(now, slot, &mut draft);
            }
            if streams {
                self.put_streams(slot, limit - in_flight, &mut draft);
            }
        }
        if copies {
            self.put_copies(slot, limit - in_flight, &mut draft);
        }
        self.finish_record(now, slot, draft)
    }

    pub(super) fn finish_record(&mut self, now: Timestamp, slot: usize, mut draft: Draft<'_>) -> bool {
        let idle = self.ready.is_empty() && !self.datagrams.has_outgoing();
        let lz4 = self.lz4();
        if draft.eliciting {
            self.standstill.waits(now);
        }
        let path = &mut self.paths[slot];
        let size = draft.builder.body_len() as u64;
        if draft.eliciting {
            path.since_ack_asked += size;
            if path.since_ack_asked >= path.ask_after() || draft.ack_now {
                path.since_ack_asked = 0;
                draft.builder.set_ack_now();
            }
        }
        let bytes = if lz4 && path.stage == Stage::Live && size >= 256 {
            let whole = draft.builder.wire_len();
            let bytes = draft
                .builder
                .finish_compressed(self.compressor.get_or_insert_with(|| Box::new(Compressor::new())));
            sometimes!(self.marks, Lz4NotWorthIt, bytes == whole);
            bytes
        } else {
            draft.builder.finish()
        };
        if bytes == 0 {
            return false;
        }
        let was_waiting = path.in_flight() > 0 || path.ping_sent.is_some();
        let app_limited = idle && path.in_flight() + (bytes as u64) < path.limit();
        if draft.eliciting && path.in_flight() == 0 {
            // After a pause the rate is measured from here.
            path.rate.delivered_at = now;
        }
        if draft.eliciting {
            path.lane_sent(draft.lane, bytes as u64);
        }
        path.lanes[draft.lane].sent.push(SentRecord {
            sent_at: now,
            delivered: path.rate.delivered,
            delivered_at: path.rate.delivered_at,
            bytes: bytes as u32,
            items: draft.items,
            eliciting: draft.eliciting,
            app_limited,
            reinjected: false,
        });
        path.bytes_sent += bytes as u64;
        path.records_sent += 1;
        self.stirred = true;
        if !self.timers.is_set(TimerKind::Tidy) && !self.state.is_terminal() {
            self.timers.set(TimerKind::Tidy, now + TIDY_AFTER);
        }
        if draft.eliciting {
            path.last_asked = now;
            path.budget.earn(bytes);
            if !was_waiting {
                path.progress_at = now;
            }
            if !was_waiting || !path.timers.is_set(TimerKind::Suspect) {
                path.arm_suspicion(self.peer.max_ack_delay, self.config.min_suspicion);
            }
        }
        true
    }

    // ---- acknowledgements ----

    /// Acknowledgements for a suspect path go where they arrive (PROTOCOL 4.2).
    fn foreign_ack_due(&self, slot: usize) -> bool {
        self.paths.len() > 1
            && self.paths.iter().any(|(other, path)| {
                other != slot
                    && path.ack_due
                    && path.suspicion.is_some()
                    && path.lanes[0].received > path.lanes[0].reported
            })
    }

    fn put_acks(&mut self, now: Timestamp, slot: usize, carries: bool, draft: &mut Draft<'_>) {
        let path = &mut self.paths[slot];
        let lane = &path.lanes[0];
        let waiting = lane.received - lane.reported;
        if waiting > 0 && (lane.ack_wanted || path.ack_due || waiting >= LAZY_ACK) {
            let frame = Frame::AckHere {
                count: lane.received,
                delay_us: delay_us(now, path),
            };
            if draft.builder.frame(&frame) {
                reported(path);
            }
        }
        let lanes = path.has_lane_acks() && (path.ack_due || path.has_many_lane_acks());
        if lanes {
            self.paths[slot].put_lane_acks(now, draft);
        }
        let path = &mut self.paths[slot];
        // What did not fit goes with the next record.
        path.ack_due = lanes && path.has_lane_acks();
        if !path.lanes[0].ack_wanted && !path.has_lane_acks() {
            path.lanes[0].unreported_bytes = 0;
            path.timers.clear(TimerKind::Ack);
        }
        if !carries || self.paths.len() < 2 {
            return;
        }
        for (other, path) in self.paths.iter_mut() {
            let due = other != slot && path.ack_due && path.suspicion.is_some();
            if due && path.lanes[0].received > path.lanes[0].reported {
                let frame = Frame::Ack {
                    path: path.id,
                    lane: 0,
                    count: path.lanes[0].received,
                    delay_us: delay_us(now, path),
                };
                if draft.builder.frame(&frame) {
                    sometimes!(self.marks, AckElsewhere);
                    // The suspect path itself is told once more, should it live.
                    path.lanes[0].unreported_bytes = 0;
                    path.ack_due = false;
                }
            }
        }
    }

    // ---- data ----

    fn put_datagrams(&mut self, now: Timestamp, slot: usize, draft: &mut Draft<'_>) {
        while let Some(datagram) =
            self.next_datagram(now, draft.builder.remaining().saturating_sub(DATAGRAM_ROOM))
        {
            let frame = Frame::Datagram {
                number: datagram.number,
                class: datagram.class,
                data: &datagram.payload,
            };
            if !draft.builder.frame(&frame) {
                self.datagrams.put_back(datagram);
                return;
            }
            self.push_item(
                slot,
                Item::Datagram {
                    number: datagram.number,
                },
                draft,
            );
            self.datagram_sent(now, datagram);
        }
    }

    /// STREAM frames by urgency, round robin within one, until the record or the path is full.
    fn put_streams(&mut self, path: usize, mut room: u64, draft: &mut Draft<'_>) {
        while room > 0 && draft.builder.remaining() >= MIN_STREAM_ROOM {
            let Some(slot) = self.ready.pop() else { return };
            match self.put_stream(path, slot, room, draft) {
                Some(sent) => room = room.saturating_sub(sent),
                None => return,
            }
        }
        // A full path asks for an acknowledgement, which is what it waits for.
        draft.ack_now |= room == 0;
    }

    /// One STREAM frame of the stream in `slot`. `None` where the record is full.
    #[inline]
    pub(super) fn put_stream(
        &mut self,
        path_slot: usize,
        slot: u32,
        room: u64,
        draft: &mut Draft<'_>,
    ) -> Option<u64> {
        let path = &mut self.paths[path_slot];
        let Some(stream) = self.streams.slot_mut(slot) else {
            return Some(0);
        };
        if !stream.flags.take(Flags::READY) {
            return Some(0);
        }
        let Some(send) = stream.send.as_mut() else {
            return Some(0);
        };
        // PROTOCOL 4.4: which frame came last on a lane, nobody remembers but of the first.
        let (id, lane) = (stream.id, (draft.lane == 0).then_some(path.lane_key));
        let class = self.classes.at(id.class().index());
        // Room for data behind the longest header: type, id, offset, length.
        let space = draft.builder.remaining().saturating_sub(24);
        let mut most = space.min(usize::try_from(room).unwrap_or(usize::MAX));
        if !send.has_lost() && !crate::canary!(ClassCreditIgnored) {
            let credit = class.send_limit - class.sent;
            if (credit == 0 && send.unsent() > 0) || class.holds_back(id, send) {
                sometimes!(self.marks, ClassBlocked);
                stream.flags.set(Flags::CLASS_BLOCKED);
                if !stream.flags.has(Flags::IN_BLOCKED) {
                    stream.flags.set(Flags::IN_BLOCKED);
                    let generation = stream.generation;
                    class.blocked.push_back(StreamKey { slot, generation });
                }
                return Some(0);
            }
            most = most.min(usize::try_from(credit).unwrap_or(usize::MAX));
            // What a record of its own could hold is not cut in two, for its receiver to put together.
            let (whole, alone) = (send.sendable(), space + draft.builder.body_len());
            let cut = whole > space as u64;
            if cut && draft.has_streams && whole <= (alone as u64).min(room).min(credit) {
                stream.flags.set(Flags::READY);
                self.ready.push_front(stream.urgency, slot);
                return None;
            }
        }
        let high = send.sent_to();
        let Some(chunk) = send.next_chunk(most) else {
            return Some(0);
        };
        class.sent += send.sent_to() - high;
        let over = id.kind() == Kind::Unordered && class.message_sent(high, send);
        stream.flags.set(Flags::TOUCHED);
        let implied = match lane {
            Some(lane) => send.continues(lane, chunk.offset),
            None => chunk.offset == 0,
        };
        let offset = (!implied).then_some(chunk.offset);
        let more = send.has_pending();
        let last = chunk.len >= space || (!more && self.ready.is_empty());
        draft
            .builder
            .stream_header(id, offset, chunk.fin, chunk.len, last);
        put_data(send, chunk.offset, chunk.len, &mut draft.builder);
        if let Some(lane) = lane {
            send.sent_on(lane, chunk.offset + chunk.len as u64);
        }
        let key = StreamKey {
            slot,
            generation: stream.generation,
        };
        let item = Item::Stream {
            key,
            offset: chunk.offset,
            len: chunk.len as u32,
            fin: chunk.fin,
        };
        path.lanes[draft.lane].sent.items.push_back(item);
        draft.items += 1;
        draft.has_streams = true;
        draft.eliciting = true;
        if more {
            stream.flags.set(Flags::READY);
            // A message is finished before the next begins, so that credit never ends amid many.
            if id.kind() == Kind::Unordered {
                self.ready.push_front(stream.urgency, slot);
            } else {
                self.ready.push_back(stream.urgency, slot);
            }
        }
        if over {
            self.unblock_class(id.class());
        }
        self.copy_later(id.class(), item);
        Some(chunk.len as u64 + 1)
    }
}

/// Small data is copied into the record, large pieces go by reference.
#[inline]
pub(super) fn put_data(send: &SendHalf, offset: u64, len: usize, builder: &mut RecordBuilder<'_>) {
    if len == 0 {
        return;
    }
    for piece in send.pieces(offset, len) {
        if piece.data().len() >= SHARE_THRESHOLD {
            builder.data_shared(piece.to_bytes());
        } else {
            builder.data(piece.data());
        }
    }
}

fn delay_us(now: Timestamp, path: &Path) -> u64 {
    u64::try_from(now.since(path.lanes[0].received_at).as_micros()).unwrap_or(u64::MAX)
}

fn reported(path: &mut Path) {
    let lane = &mut path.lanes[0];
    lane.reported = lane.received;
    lane.ack_wanted = false;
}
