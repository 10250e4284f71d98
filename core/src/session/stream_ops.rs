//! What the application does with streams, beside reading them.

use bytes::Bytes;

use super::Session;
use super::classes::{class_at, opening_index};
use super::error::{OpenError, StreamError};
use super::event::Event;
use super::keys::StreamKey;
use super::streams::Flags;
use crate::marks::sometimes;
use crate::stream::{SendHalf, SendState};
use crate::wire::{Class, Kind, Side, StreamId};

/// How far a sending half has come, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Written by the application.
    pub written: u64,
    /// Put on some path at least once.
    pub sent: u64,
    /// Acknowledged without a gap.
    pub acknowledged: u64,
    /// Everything and the end of the stream are acknowledged.
    pub complete: bool,
}

impl Session {
    /// Opens a stream of `kind` ([`Kind::Bi`] or [`Kind::Uni`]) in `class`. The peer hears of it with
    /// its first bytes.
    pub fn open(&mut self, kind: Kind, class: Class) -> Result<StreamKey, OpenError> {
        if !matches!(kind, Kind::Bi | Kind::Uni) {
            return Err(OpenError::NotAByteStream);
        }
        self.open_any(kind, class)
    }

    /// [`Session::open`] for work that must not be done twice: a client's stream waits for WELCOME, whatever early data
    /// is allowed (PROTOCOL 5.6). Until then the answer is [`OpenError::Exhausted`].
    ///
    /// # Errors
    /// As there.
    pub fn open_once(&mut self, kind: Kind, class: Class) -> Result<StreamKey, OpenError> {
        let waits = self.side == Side::Client && self.identity.is_none() && !self.state.is_terminal();
        if waits
            && matches!(kind, Kind::Bi | Kind::Uni)
            && let Some(place) = opening_index(kind)
        {
            self.classes.at(class.index()).opening[place].blocked = true;
            return Err(OpenError::Exhausted);
        }
        self.open(kind, class)
    }

    pub(super) fn open_any(&mut self, kind: Kind, class: Class) -> Result<StreamKey, OpenError> {
        if self.state.is_terminal() {
            return Err(OpenError::Ended);
        }
        if self.draining() {
            return Err(OpenError::Draining);
        }
        let side = self.side;
        let state = self.classes.at(class.index());
        let index = match opening_index(kind) {
            None => 0,
            Some(place) => {
                let opening = &mut state.opening[place];
                if opening.next_local >= opening.allowed {
                    opening.blocked = true;
                    sometimes!(self.marks, OpenBlocked);
                    return Err(OpenError::Exhausted);
                }
                opening.next_local += 1;
                opening.next_local - 1
            }
        };
        let Some(id) = StreamId::new(side, kind, class, index) else {
            return Err(OpenError::Exhausted);
        };
        // PROTOCOL 5.6: early credit is for requests alone; WELCOME brings that of other streams.
        let early = self.identity.is_none() && kind != Kind::Bi;
        let credit = if early { 0 } else { state.stream_credit_out };
        let send = Some(credit);
        let recv = (kind == Kind::Bi).then(|| self.recv_window(kind, class));
        let urgency = self.classes.at(class.index()).urgency;
        let waited = self.streams.waiting_for_answers();
        let key = self.streams.insert(self.side, id, urgency, send, recv);
        if !waited && self.streams.waiting_for_answers() {
            self.hasten_heartbeats();
        }
        Ok(key)
    }

    /// The next stream of `kind` in `class` that the peer opened, if there is one.
    /// [`Event::Opened`] tells when to ask again.
    pub fn accept(&mut self, kind: Kind, class: Class) -> Option<StreamKey> {
        let place = match kind {
            Kind::Bi => 0,
            Kind::Uni => 1,
            Kind::Ordered | Kind::Unordered => return None,
        };
        let state = self.classes.at(class.index());
        let Some(slot) = state.accept[place].pop_front() else {
            state.accept_blocked[place] = true;
            return None;
        };
        self.streams.key_of(slot)
    }

    /// The stream's id on the wire.
    pub fn stream_id(&self, key: StreamKey) -> Option<StreamId> {
        self.streams.get(key).map(|stream| stream.id)
    }

    /// Live streams, those of messages included.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Bytes of buffer that a class always has, however much the others hold.
    fn buffer_share(&self) -> u64 {
        self.config.max_send_buffer / 16
    }

    /// Bytes that the session's buffer still takes for the class.
    fn buffer_room(&self, class: Class) -> u64 {
        let held = self.classes.used(class.index()).map_or(0, |state| state.buffered);
        let own = self.buffer_share().saturating_sub(held);
        self.config.max_send_buffer.saturating_sub(self.buffered).max(own)
    }

    /// Counts bytes that a send half has taken.
    #[inline]
    pub(super) fn hold_buffer(&mut self, class: Class, bytes: u64) {
        self.buffered += bytes;
        self.classes.at(class.index()).buffered += bytes;
    }

    /// Bytes that may be written on top, by the stream's credit and the session's buffer.
    fn write_room(&self, send: &SendHalf, class: Class) -> usize {
        usize::try_from(self.buffer_room(class).min(send.capacity())).unwrap_or(usize::MAX)
    }

    /// Copies bytes into the stream, as many as credit and buffers allow. `Ok(0)` for a non-empty
    /// slice means blocked: [`Event::Writable`] tells when to go on.
    pub fn write(&mut self, key: StreamKey, data: &[u8]) -> Result<usize, StreamError> {
        let room = self.check_writable(key)?;
        let taken = match self.streams.get_mut(key).and_then(|stream| stream.send.as_mut()) {
            Some(send) => send.write(data, room),
            None => return Err(StreamError::Unknown),
        };
        self.after_write(key, taken, data.is_empty());
        Ok(taken)
    }

    /// Takes bytes off the front of `data` without copying them; otherwise like [`Session::write`].
    pub fn write_bytes(&mut self, key: StreamKey, data: &mut Bytes) -> Result<usize, StreamError> {
        let room = self.check_writable(key)?;
        let empty = data.is_empty();
        let taken = match self.streams.get_mut(key).and_then(|stream| stream.send.as_mut()) {
            Some(send) => send.write_bytes(data, room),
            None => return Err(StreamError::Unknown),
        };
        self.after_write(key, taken, empty);
        Ok(taken)
    }

    fn check_writable(&self, key: StreamKey) -> Result<usize, StreamError> {
        let ended = self.state.is_terminal();
        let stream = self.streams.get(key).ok_or(StreamError::Unknown)?;
        let send = stream.send.as_ref().ok_or(StreamError::Unknown)?;
        if stream.flags.has(Flags::STOPPED) {
            return Err(StreamError::Stopped(stream.send_code));
        }
        match send.state() {
            SendState::Open => {}
            SendState::Finished | SendState::DataAcked => return Err(StreamError::Finished),
            SendState::ResetSent | SendState::ResetAcked => return Err(StreamError::ResetLocally),
        }
        if ended {
            return Err(StreamError::SessionEnded);
        }
        Ok(self.write_room(send, stream.id.class()))
    }

    fn after_write(&mut self, key: StreamKey, taken: usize, was_empty: bool) {
        let Some(class) = self.streams.get(key).map(|stream| stream.id.class()) else {
            return;
        };
        if taken > 0 {
            self.hold_buffer(class, taken as u64);
            self.make_ready(key.slot);
        } else if !was_empty {
            let full = self.buffer_room(class) == 0;
            if let Some(stream) = self.streams.get_mut(key)
                && !stream.flags.has(Flags::WRITE_BLOCKED)
            {
                stream.flags.set(Flags::WRITE_BLOCKED);
                sometimes!(self.marks, StreamBlocked, !full);
                sometimes!(self.marks, BufferFull, full);
                if full && !stream.flags.has(Flags::IN_WAITERS) {
                    stream.flags.set(Flags::IN_WAITERS);
                    self.writers_wait = true;
                    self.classes.at(class.index()).waiters.push_back(key);
                }
            }
        }
    }

    /// Copies all of `data` into the stream and ends it, if there is room for all of it; tells whether
    /// there was. Otherwise nothing is changed, and [`Session::write`] tells what stands against it.
    pub fn write_last(&mut self, key: StreamKey, data: &[u8]) -> bool {
        let Ok(room) = self.check_writable(key) else {
            return false;
        };
        let Some(stream) = self.streams.get_mut(key) else {
            return false;
        };
        let class = stream.id.class();
        let Some(send) = stream.send.as_mut().filter(|_| room >= data.len()) else {
            return false;
        };
        let taken = send.write(data, room);
        debug_assert_eq!(taken, data.len(), "the room was asked for just before");
        let _ = send.finish();
        self.hold_buffer(class, taken as u64);
        self.make_ready(key.slot);
        true
    }

    /// Ends the stream after what was written.
    pub fn finish(&mut self, key: StreamKey) -> Result<(), StreamError> {
        let stream = self.streams.get_mut(key).ok_or(StreamError::Unknown)?;
        if stream.flags.has(Flags::STOPPED) {
            return Err(StreamError::Stopped(stream.send_code));
        }
        let send = stream.send.as_mut().ok_or(StreamError::Unknown)?;
        // Being stopped resets the stream: the code says more than that.
        if stream.flags.has(Flags::STOPPED) {
            return Err(StreamError::Stopped(stream.send_code));
        }
        match send.state() {
            SendState::Open => {}
            SendState::Finished | SendState::DataAcked => return Err(StreamError::Finished),
            SendState::ResetSent | SendState::ResetAcked => return Err(StreamError::ResetLocally),
        }
        let _ = send.finish();
        self.make_ready(key.slot);
        Ok(())
    }

    /// Gives the stream's sending half up: what was not sent is dropped, and the peer reads `code`.
    pub fn reset(&mut self, key: StreamKey, code: u64) -> Result<(), StreamError> {
        let stream = self.streams.get_mut(key).ok_or(StreamError::Unknown)?;
        let send = stream.send.as_mut().ok_or(StreamError::Unknown)?;
        match send.state() {
            SendState::Open | SendState::Finished => {}
            SendState::DataAcked => return Ok(()),
            SendState::ResetSent | SendState::ResetAcked => return Err(StreamError::ResetLocally),
        }
        let begun = stream.id.kind() == Kind::Unordered && send.sent_to() > 0;
        let left = if begun { send.unsent() } else { 0 };
        let freed = send.reset().map_or(0, |reset| reset.freed);
        stream.send_code = code;
        stream.flags.set(Flags::RESET_DUE);
        let (class, ordered) = (stream.id.class(), stream.id.kind() == Kind::Ordered);
        if left > 0 && self.classes.at(class.index()).message_given_up(left) {
            self.unblock_class(class);
        }
        self.credit_buffer(class, freed, ordered);
        self.queue_control(key.slot);
        Ok(())
    }

    /// Asks the peer to stop sending; what came and was not read is dropped.
    pub fn stop_sending(&mut self, key: StreamKey, code: u64) -> Result<(), StreamError> {
        let stream = self.streams.get_mut(key).ok_or(StreamError::Unknown)?;
        let class = stream.id.class();
        let recv = stream.recv.as_mut().ok_or(StreamError::Unknown)?;
        if stream.flags.has(Flags::STOPPING) || stream.flags.has(Flags::RECV_DONE) {
            return Ok(());
        }
        let dropped = recv.stop();
        stream.flags.set(Flags::STOPPING);
        if recv.is_settled() {
            stream.flags.set(Flags::RECV_DONE);
        } else {
            stream.stop_code = code;
            stream.flags.set(Flags::STOP_DUE);
        }
        self.consume_class(class, dropped);
        self.class_dropped |= 1 << class.index();
        if self
            .streams
            .get(key)
            .is_some_and(|stream| stream.flags.has(Flags::STOP_DUE))
        {
            self.queue_control(key.slot);
        }
        Ok(())
    }

    /// Moves the stream to another urgency, 0 first and 7 last.
    pub fn set_urgency(&mut self, key: StreamKey, urgency: u8) -> Result<(), StreamError> {
        let stream = self.streams.get_mut(key).ok_or(StreamError::Unknown)?;
        stream.urgency = urgency.min(7);
        // Where it waits now, it waits once more; then it is queued by its new urgency.
        Ok(())
    }

    /// The code with which the peer asked this end to stop sending, if it did.
    pub fn stopped(&self, key: StreamKey) -> Option<u64> {
        let stream = self.streams.get(key)?;
        stream.flags.has(Flags::STOPPED).then_some(stream.send_code)
    }

    /// How far the sending half has come.
    pub fn send_progress(&self, key: StreamKey) -> Option<Progress> {
        let send = self.streams.get(key)?.send.as_ref()?;
        Some(Progress {
            written: send.written(),
            sent: send.sent_to(),
            acknowledged: send.acked_prefix(),
            complete: send.state() == SendState::DataAcked,
        })
    }

    /// The application is done with the sending half: unfinished, it is reset.
    pub fn release_send(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if !stream.flags.take(Flags::SEND_HELD) {
            return;
        }
        let unfinished = stream
            .send
            .as_ref()
            .is_some_and(|send| send.state() == SendState::Open);
        if unfinished {
            let _ = self.reset(key, 0);
        }
        self.free_if_done(key.slot);
    }

    /// The application is done with the receiving half: unread, it is stopped.
    pub fn release_recv(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if !stream.flags.take(Flags::RECV_HELD) {
            return;
        }
        if !stream.flags.has(Flags::RECV_DONE) {
            let _ = self.stop_sending(key, 0);
        }
        self.free_if_done(key.slot);
    }

    /// The application is done with the stream.
    pub fn release(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let send_held = stream.flags.take(Flags::SEND_HELD);
        let recv_held = stream.flags.take(Flags::RECV_HELD);
        let unfinished = stream
            .send
            .as_ref()
            .is_some_and(|send| send.state() == SendState::Open);
        let unread = !stream.flags.has(Flags::RECV_DONE);
        if send_held && unfinished {
            let _ = self.reset(key, 0);
        }
        if recv_held && unread {
            let _ = self.stop_sending(key, 0);
        }
        if send_held || recv_held {
            self.free_if_done(key.slot);
        }
    }

    /// Puts a stream with something to send into its ready queue.
    #[inline]
    pub(super) fn make_ready(&mut self, slot: u32) {
        let Some(stream) = self.streams.slot_mut(slot) else {
            return;
        };
        if stream.flags.has(Flags::READY) || stream.flags.has(Flags::CLASS_BLOCKED) {
            return;
        }
        if stream.send.as_ref().is_some_and(SendHalf::has_pending) {
            stream.flags.set(Flags::READY);
            // PROTOCOL 7.4: a message that was begun goes on before another begins.
            if stream.id.kind() == Kind::Unordered && stream.flags.has(Flags::TOUCHED) {
                self.ready.push_front(stream.urgency, slot);
            } else {
                self.ready.push_back(stream.urgency, slot);
            }
        }
    }

    pub(super) fn queue_control(&mut self, slot: u32) {
        let Some(stream) = self.streams.slot_mut(slot) else {
            return;
        };
        if !stream.flags.has(Flags::CONTROL) {
            stream.flags.set(Flags::CONTROL);
            self.control.push_back(slot);
        }
    }

    /// Gives buffer back and lets waiting writers know once half of it is free. Should others hold more than
    /// that for long, the first of each class is told as soon as there is a class's share.
    #[inline]
    pub(super) fn credit_buffer(&mut self, class: Class, freed: u64, ordered_messages: bool) {
        if freed == 0 {
            return;
        }
        let before = self.buffered;
        self.buffered = before.saturating_sub(freed);
        let state = self.classes.at(class.index());
        state.buffered = state.buffered.saturating_sub(freed);
        let own = !state.waiters.is_empty() && state.buffered < self.config.max_send_buffer / 32;
        if ordered_messages {
            self.messages_freed(class, freed);
        }
        if !self.writers_wait {
            return;
        }
        let half = self.config.max_send_buffer / 2;
        if before > half && self.buffered <= half {
            for index in self.classes.all_used() {
                self.wake_writers(class_at(index));
            }
        } else if own {
            self.wake_writers(class);
        } else if self.config.max_send_buffer.saturating_sub(self.buffered) >= self.buffer_share() {
            self.wake_first_writers();
        }
    }

    fn wake_writers(&mut self, class: Class) {
        for key in std::mem::take(&mut self.classes.at(class.index()).waiters) {
            self.wake_writer(key);
        }
    }

    /// Tells whether somebody was waiting.
    fn wake_writer(&mut self, key: StreamKey) -> bool {
        let Some(stream) = self.streams.get_mut(key) else {
            return false;
        };
        stream.flags.clear(Flags::IN_WAITERS);
        let waits = stream.flags.has(Flags::WRITE_BLOCKED);
        self.tell_writable(key);
        waits
    }

    fn wake_first_writers(&mut self) {
        self.writers_wait = false;
        for index in 0..Class::COUNT {
            if self
                .classes
                .used(index)
                .is_none_or(|state| state.waiters.is_empty())
            {
                continue;
            }
            while let Some(key) = self.classes.at(index).waiters.pop_front() {
                if self.wake_writer(key) {
                    break;
                }
            }
            self.writers_wait |= !self.classes.at(index).waiters.is_empty();
        }
    }

    pub(super) fn tell_writable(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key)
            && stream.flags.take(Flags::WRITE_BLOCKED)
            && !crate::canary!(WriterNotWoken)
        {
            sometimes!(self.marks, WriterWoken);
            self.events.push_back(Event::Writable(key));
        }
    }

    /// Frees the slot once both halves are settled and released.
    pub(super) fn free_if_done(&mut self, slot: u32) {
        let Some(stream) = self.streams.slot(slot) else {
            return;
        };
        if stream.flags.has(Flags::SEND_HELD) || stream.flags.has(Flags::RECV_HELD) {
            return;
        }
        let sent = stream
            .send
            .as_ref()
            .is_none_or(|send| matches!(send.state(), SendState::DataAcked | SendState::ResetAcked));
        let received = stream.recv.is_none() || stream.flags.has(Flags::RECV_DONE);
        let ended = self.state.is_terminal();
        if !(sent && received || ended)
            || (stream.id.initiator() != self.side && crate::canary!(StreamLeaked))
        {
            return;
        }
        let id = stream.id;
        let listed = usize::from(stream.flags.has(Flags::IN_BLOCKED))
            + usize::from(stream.flags.has(Flags::IN_WAITERS));
        let held = stream.send.as_ref().map_or(0, SendHalf::buffered);
        self.streams.remove(self.side, slot);
        self.credit_buffer(id.class(), held, false);
        if listed > 0 {
            self.forget_listed(id.class(), listed);
        }
        if id.initiator() != self.side {
            self.remote_gone(id);
        }
    }

    /// A stream that is gone stood in `listed` lists of its class: they are cleared of such once they are many.
    fn forget_listed(&mut self, class: Class, listed: usize) {
        let Session { classes, streams, .. } = self;
        let state = classes.at(class.index());
        state.stale += listed;
        if state.stale > 16 && state.stale * 2 > state.blocked.len() + state.waiters.len() {
            state.blocked.retain(|key| streams.get(*key).is_some());
            state.waiters.retain(|key| streams.get(*key).is_some());
            state.stale = 0;
        }
    }

    /// A stream of the peer is gone: its place is free for another.
    fn remote_gone(&mut self, id: StreamId) {
        let Some(place) = opening_index(id.kind()) else {
            return;
        };
        let opening = &mut self.classes.at(id.class().index()).opening[place];
        opening.gone += 1;
        let renewed = opening.renew();
        sometimes!(self.marks, OpenRenewed, renewed);
        self.class_control |= renewed;
    }
}
