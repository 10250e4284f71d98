//! Messages that come in, from the streams and datagrams that carry them (PROTOCOL 4.6, 7.4).

use bytes::{Bytes, BytesMut};

use super::Session;
use super::error::Misbehaviour;
use super::event::{DeliveryKind, Event, Message};
use super::lifecycle::Cause;
use super::messages::Partial;
use super::streams::{Flags, Stream};
use crate::marks::sometimes;
use crate::stream::{Read as HalfRead, RecvHalf};
use crate::time::Timestamp;
use crate::wire::{Class, Kind, StreamId, varint};

impl Session {
    pub(super) fn ordered_opened(&self, class: Class) -> bool {
        self.messages
            .as_ref()
            .is_some_and(|messages| messages.channels[class.index()].out.is_some())
    }

    /// The peer's ordered message stream of the class begins.
    pub(super) fn open_ordered_in(&mut self, class: Class) -> Option<u32> {
        if self.messages.get_or_insert_default().channels[class.index()]
            .inbound
            .is_some()
        {
            return None;
        }
        let recv = self.recv_window(Kind::Ordered, class);
        let urgency = self.classes.at(class.index()).urgency;
        let id = StreamId::ordered(self.side.peer(), class);
        let key = self.streams.insert(self.side, id, urgency, None, Some(recv));
        self.messages.get_or_insert_default().channels[class.index()].inbound = Some(key);
        Some(key.slot)
    }

    pub(super) fn message_bytes_came(&mut self, class: Class) {
        let channel = &mut self.messages.get_or_insert_default().channels[class.index()];
        if std::mem::take(&mut channel.blocked) {
            self.events.push_back(Event::MessageReady(class));
        }
    }

    /// Bytes of an unordered message came; once it is whole it waits to be read.
    pub(super) fn message_part_came(&mut self, slot: u32) -> Result<(), Misbehaviour> {
        let max = self.config.params.max_message;
        let Some(stream) = self.streams.slot_mut(slot) else {
            return Ok(());
        };
        let Some(recv) = stream.recv.as_ref() else {
            return Ok(());
        };
        if recv.readable() > max {
            return Err(Misbehaviour::MessageTooLong {
                len: recv.readable(),
                max,
            });
        }
        if !recv.is_complete() || stream.flags.has(Flags::MESSAGE_WAITS) {
            return Ok(());
        }
        stream.flags.set(Flags::MESSAGE_WAITS);
        let class = stream.id.class();
        if let Some(key) = self.streams.key_of(slot) {
            self.messages.get_or_insert_default().channels[class.index()]
                .whole
                .push_back(key);
        }
        self.message_bytes_came(class);
        Ok(())
    }

    /// PROTOCOL 7.4: a message that is not whole cannot be read, so its bytes must not use up the
    /// credit that the rest of it needs.
    pub(super) fn part_grew(&mut self, now: Timestamp, slot: u32, growth: u64) {
        let max = self.config.params.max_message;
        let Some(stream) = self.streams.slot_mut(slot) else {
            return;
        };
        let Some(recv) = stream.recv.as_mut() else { return };
        if recv.is_complete() {
            self.part_settled(slot);
            return;
        }
        let low = recv.highest() >= recv.window().limit() / 2;
        let extended = low && recv.final_size().is_none() && recv.extend_window(max);
        let class = stream.id.class();
        stream.partial += growth;
        if extended {
            sometimes!(self.marks, CreditLent);
            stream.flags.set(Flags::CREDIT_DUE);
            self.queue_control(slot);
        }
        self.classes.at(class.index()).partial += growth;
        self.consume_class(class, 0);
        let rtt = self.best_rtt();
        self.update_class(now, class, rtt);
    }

    /// The message is whole, read, or was given up.
    pub(super) fn part_settled(&mut self, slot: u32) {
        if let Some(stream) = self.streams.slot_mut(slot) {
            let partial = std::mem::take(&mut stream.partial);
            let class = stream.id.class();
            self.classes.at(class.index()).partial -= partial;
        }
    }

    pub(super) fn unreliable_came(&mut self, class: Class, payload: Bytes) {
        self.messages.get_or_insert_default().channels[class.index()]
            .unreliable
            .push_back(payload);
        self.message_bytes_came(class);
    }

    /// Drops the oldest unread unreliable message of the class. Returns its length.
    pub(super) fn drop_oldest_unreliable(&mut self, class: Class) -> Option<usize> {
        let messages = self.messages.as_mut()?;
        messages.channels[class.index()]
            .unreliable
            .pop_front()
            .map(|payload| payload.len())
    }

    /// The class's next message, in whichever mode one is there; the modes take turns.
    ///
    /// # Errors
    /// The peer broke the rules of messages; the session has ended.
    pub fn recv_message(&mut self, now: Timestamp, class: Class) -> Result<Option<Message>, Misbehaviour> {
        let found = self.next_message(now, class);
        if let Err(misbehaviour) = &found {
            let cause = Cause::PeerMisbehaved {
                code: misbehaviour.code(),
                detail: misbehaviour.to_string(),
            };
            self.end_session(now, cause);
        }
        found
    }

    fn next_message(&mut self, now: Timestamp, class: Class) -> Result<Option<Message>, Misbehaviour> {
        let messages = self.messages.get_or_insert_default();
        let ordered_first = !messages.channels[class.index()].took_ordered;
        let mut found = None;
        if ordered_first {
            found = self.recv_ordered(now, class)?;
        }
        if found.is_none() {
            found = self
                .recv_unordered(now, class)
                .or_else(|| self.recv_unreliable(class));
        }
        if found.is_none() && !ordered_first {
            found = self.recv_ordered(now, class)?;
        }
        let channel = &mut self.messages.get_or_insert_default().channels[class.index()];
        match &found {
            Some(message) => channel.took_ordered = message.delivery == DeliveryKind::Ordered,
            None => channel.blocked = true,
        }
        Ok(found)
    }

    /// [`Session::recv_message`] that copies the payload into `buffer`, which is cleared first: no
    /// allocation once the buffer is large enough. `false`: there is none.
    pub fn recv_message_into(
        &mut self,
        now: Timestamp,
        class: Class,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, Misbehaviour> {
        buffer.clear();
        if self.copy_ordered(now, class, buffer)? {
            return Ok(true);
        }
        Ok(match self.recv_message(now, class)? {
            Some(message) => {
                buffer.extend_from_slice(&message.payload);
                true
            }
            None => false,
        })
    }

    /// The next ordered message, if all of it is there and it is the ordered ones' turn.
    fn copy_ordered(
        &mut self,
        now: Timestamp,
        class: Class,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, Misbehaviour> {
        let Some(messages) = &mut self.messages else {
            return Ok(false);
        };
        let channel = &mut messages.channels[class.index()];
        let waiting = !channel.whole.is_empty() || !channel.unreliable.is_empty();
        if channel.partial.is_some() || (waiting && channel.took_ordered) {
            return Ok(false);
        }
        let Some(key) = channel.inbound else {
            return Ok(false);
        };
        let Some(recv) = self.streams.get_mut(key).and_then(|stream| stream.recv.as_mut()) else {
            return Ok(false);
        };
        let Ok(Some((len, prefix))) = peek_length(recv) else {
            return Ok(false);
        };
        if len > self.config.params.max_message || recv.readable() < len + prefix as u64 {
            return Ok(false);
        }
        recv.skip(prefix);
        buffer.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        recv.read_into(buffer);
        channel.took_ordered = true;
        self.after_read(now, key, len + prefix as u64);
        Ok(true)
    }

    fn recv_unreliable(&mut self, class: Class) -> Option<Message> {
        let payload = self.messages.as_mut()?.channels[class.index()]
            .unreliable
            .pop_front()?;
        self.datagrams.taken(payload.len());
        Some(Message {
            class,
            delivery: DeliveryKind::Unreliable,
            payload,
        })
    }

    fn recv_unordered(&mut self, now: Timestamp, class: Class) -> Option<Message> {
        let key = self.messages.as_mut()?.channels[class.index()]
            .whole
            .pop_front()?;
        let stream = self.streams.get_mut(key)?;
        let payload = take_all(stream);
        stream.flags.set(Flags::RECV_DONE);
        stream.flags.clear(Flags::RECV_HELD);
        let len = payload.len() as u64;
        self.part_settled(key.slot);
        self.consume_class(class, len);
        let rtt = self.best_rtt();
        self.update_class(now, class, rtt);
        self.free_if_done(key.slot);
        Some(Message {
            class,
            delivery: DeliveryKind::Unordered,
            payload,
        })
    }

    fn recv_ordered(&mut self, now: Timestamp, class: Class) -> Result<Option<Message>, Misbehaviour> {
        let max = self.config.params.max_message;
        let channel = &mut self.messages.get_or_insert_default().channels[class.index()];
        let Some(key) = channel.inbound else {
            return Ok(None);
        };
        let Some(recv) = self.streams.get_mut(key).and_then(|stream| stream.recv.as_mut()) else {
            return Ok(None);
        };
        let taken = take_ordered(recv, &mut channel.partial, max);
        let (payload, consumed) = taken.map_err(|error| match error {
            Framing::TooLong(len) => Misbehaviour::MessageTooLong { len, max },
            Framing::Malformed => Misbehaviour::MessageFraming,
        })?;
        sometimes!(self.marks, MessageInParts, payload.is_none() && consumed > 0);
        if consumed > 0 {
            self.after_read(now, key, consumed);
        }
        if crate::canary!(MessageDoubled)
            && let Some(payload) = payload.as_ref().filter(|payload| payload.len() % 3 == 0)
        {
            let channel = &mut self.messages.get_or_insert_default().channels[class.index()];
            channel.unreliable.push_back(payload.clone());
        }
        Ok(payload.map(|payload| Message {
            class,
            delivery: DeliveryKind::Ordered,
            payload,
        }))
    }
}

enum Framing {
    TooLong(u64),
    Malformed,
}

/// The next whole message of an ordered stream, and the bytes taken off it for that.
fn take_ordered(
    recv: &mut RecvHalf,
    partial: &mut Option<Partial>,
    max: u64,
) -> Result<(Option<Bytes>, u64), Framing> {
    let mut consumed = 0;
    if partial.is_none() {
        let Some((len, prefix)) = peek_length(recv)? else {
            return Ok((None, 0));
        };
        if len > max {
            return Err(Framing::TooLong(len));
        }
        recv.skip(prefix);
        consumed += prefix as u64;
        let len = usize::try_from(len).map_err(|_| Framing::Malformed)?;
        if len == 0 {
            return Ok((Some(Bytes::new()), consumed));
        }
        if let HalfRead::Data(data) = recv.read(len) {
            consumed += data.len() as u64;
            if data.len() == len {
                return Ok((Some(data), consumed));
            }
            let mut bytes = BytesMut::with_capacity(len.min(data.len() * 2));
            bytes.extend_from_slice(&data);
            *partial = Some(Partial { len, bytes });
        } else {
            *partial = Some(Partial {
                len,
                bytes: BytesMut::new(),
            });
        }
    }
    let Some(mut part) = partial.take() else {
        return Ok((None, consumed));
    };
    while part.bytes.len() < part.len {
        let HalfRead::Data(data) = recv.read(part.len - part.bytes.len()) else {
            *partial = Some(part);
            return Ok((None, consumed));
        };
        consumed += data.len() as u64;
        part.bytes.extend_from_slice(&data);
    }
    Ok((Some(part.bytes.freeze()), consumed))
}

/// A message's length, if all of it is there, and how many bytes it takes.
fn peek_length(recv: &RecvHalf) -> Result<Option<(u64, usize)>, Framing> {
    let mut head = [0; varint::MAX_LEN];
    let there = recv.peek_copy(&mut head);
    let Some(&first) = head[..there].first() else {
        return Ok(None);
    };
    let need = first.leading_ones() as usize + 1;
    if there < need {
        return Ok(None);
    }
    let mut input = &head[..need];
    let len = varint::get(&mut input).map_err(|_| Framing::Malformed)?;
    Ok(Some((len, need)))
}

fn take_all(stream: &mut Stream) -> Bytes {
    let Some(recv) = stream.recv.as_mut() else {
        return Bytes::new();
    };
    let total = usize::try_from(recv.readable()).unwrap_or(usize::MAX);
    let mut whole: Option<BytesMut> = None;
    while let HalfRead::Data(data) = recv.read(usize::MAX) {
        if whole.is_none() && data.len() == total {
            return data;
        }
        whole
            .get_or_insert_with(|| BytesMut::with_capacity(total))
            .extend_from_slice(&data);
    }
    whole.map(BytesMut::freeze).unwrap_or_default()
}
