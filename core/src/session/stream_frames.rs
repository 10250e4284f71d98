//! Frames about streams that come in: data, resets, stops and credit (PROTOCOL 4.3, 7).

use super::Session;
use super::classes::opening_index;
use super::error::Misbehaviour;
use super::event::Event;
use super::receive::Origin;
use super::streams::{Flags, check_direction, check_ours};
use crate::marks::sometimes;
use crate::stream::{RecvHalf, SendState};
use crate::time::Timestamp;
use crate::wire::{Class, Frame, Kind, StreamId};

impl Session {
    #[allow(
        clippy::too_many_arguments,
        reason = "the frame's fields, and where they came from"
    )]
    pub(super) fn take_stream(
        &mut self,
        now: Timestamp,
        path_slot: usize,
        lane: usize,
        id: StreamId,
        offset: Option<u64>,
        fin: bool,
        data: &[u8],
        origin: Origin<'_>,
    ) -> Result<(), Misbehaviour> {
        let Some(slot) = self.receiving_slot(id, "STREAM")? else {
            sometimes!(self.marks, StreamGone);
            return Ok(());
        };
        let lane = (lane == 0).then_some(self.paths[path_slot].lane_key);
        let Some(stream) = self.streams.slot_mut(slot) else {
            return Ok(());
        };
        let Some(recv) = stream.recv.as_mut() else {
            return Ok(());
        };
        // PROTOCOL 4.4: beyond the first lane a frame without an offset begins its stream.
        let offset = offset.unwrap_or_else(|| lane.map_or(0, |lane| recv.next_offset(lane)));
        let gaps = recv.has_gaps();
        let inserted = recv
            .insert(offset, data, fin, origin.source(data.len()))
            .map_err(|error| Misbehaviour::Stream { id, error })?;
        if let Some(lane) = lane {
            recv.received_on(lane, offset.saturating_add(data.len() as u64))
                .map_err(|error| Misbehaviour::Stream { id, error })?;
        }
        // What came in order, as nearly everything does, is none of these.
        if inserted.growth < data.len() as u64 || gaps || !inserted.readable {
            let len = data.len() as u64;
            sometimes!(self.marks, DuplicateDropped, inserted.duplicate && len > 0);
            sometimes!(self.marks, OverlapDropped, (1..len).contains(&inserted.growth));
            sometimes!(self.marks, CameEarly, !gaps && recv.has_gaps());
            sometimes!(
                self.marks,
                GapFilled,
                gaps && !recv.has_gaps() && inserted.readable
            );
        }
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
            sometimes!(self.marks, StoppedDataDropped, inserted.growth > 0);
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
                    && !crate::canary!(ReaderNotWoken)
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
        // Places that fell free while there was credit left count from here on.
        let renewed = opening.renew();
        sometimes!(self.marks, OpenRenewedLate, renewed);
        self.class_control |= renewed;
        let mut last = None;
        for index in first..=id.index() {
            last = self.insert_remote(id.kind(), class, index);
        }
        Ok(last)
    }

    fn insert_remote(&mut self, kind: Kind, class: Class, index: u64) -> Option<u32> {
        let id = StreamId::new(self.side.peer(), kind, class, index)?;
        let urgency = self.classes.at(class.index()).urgency;
        let send = (kind == Kind::Bi).then(|| self.classes.at(class.index()).stream_credit_out);
        let recv = self.recv_window(kind, class);
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

    pub(super) fn take_stream_control(
        &mut self,
        now: Timestamp,
        frame: Frame<'_>,
    ) -> Result<(), Misbehaviour> {
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
        sometimes!(self.marks, ResetCrossedData, reset.released > reset.growth);
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
        if !open || stream.flags.has(Flags::STOPPED) || crate::canary!(StopIgnored) {
            return Ok(());
        }
        let ended = stream
            .send
            .as_ref()
            .is_some_and(|send| send.state() == SendState::Finished);
        sometimes!(self.marks, StopCrossedFin, ended);
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
        self.unblock_class(class);
    }

    /// Streams that waited for class credit try again.
    pub(super) fn unblock_class(&mut self, class: Class) {
        let state = self.classes.at(class.index());
        sometimes!(self.marks, ClassUnblocked, !state.blocked.is_empty());
        for key in std::mem::take(&mut state.blocked) {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.flags.clear(Flags::IN_BLOCKED);
                if stream.flags.take(Flags::CLASS_BLOCKED) {
                    self.make_ready(key.slot);
                }
            }
        }
    }

    pub(super) fn take_streams_credit(&mut self, class: Class, kind: Kind, value: u64) {
        let Some(place) = opening_index(kind) else { return };
        let opening = &mut self.classes.at(class.index()).opening[place];
        opening.allowed = opening.allowed.max(value);
        if opening.next_local < opening.allowed && std::mem::take(&mut opening.blocked) {
            if kind == Kind::Unordered {
                self.messages_unblocked();
            } else {
                self.events.push_back(Event::Credit { kind, class });
            }
        }
    }
}
