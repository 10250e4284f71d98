//! Messages over streams and datagrams: sending them, and what became of them (REQUIREMENTS W8;
//! PROTOCOL 4.6, 7.4). How they come in: `messages_in.rs`.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Session;
use super::audit::{Violation, rule};
use super::config::Config;
use super::datagrams::OVERHEAD;
use super::error::{OpenError, SendError};
use super::event::{Delivery, Event, MessageId, Outcome};
use super::keys::StreamKey;
use super::streams::Flags;
use crate::marks::sometimes;
use crate::stream::SendHalf;
use crate::time::Timestamp;
use crate::wire::{Class, Kind, varint};

/// What an unordered message costs the queue beyond its bytes: a stream of its own.
const UNORDERED_COST: u64 = 256;

/// What a tracked ordered message costs the queue beyond its bytes: its place, and its outcome. Others are
/// bytes of their class's stream and nothing else.
const TRACKED_COST: u64 = 64;

/// A message of which a part was taken out of its stream.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) len: usize,
    pub(super) bytes: BytesMut,
}

/// A class's side of messages.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) out: Option<StreamKey>,
    /// Once opened by the peer; its stream is never freed while the session lives.
    pub(super) inbound: Option<StreamKey>,
    /// Ordered messages queued before WELCOME has told how long one may be.
    pub(super) early: Vec<(Bytes, MessageId)>,
    /// Tracked messages by the offsets at which they begin and end.
    pub(super) tracked: VecDeque<(u64, u64, MessageId)>,
    pub(super) partial: Option<Partial>,
    /// Whole unordered messages, by their streams.
    pub(super) whole: VecDeque<StreamKey>,
    pub(super) unreliable: VecDeque<Bytes>,
    /// Its part of [`Messages::queued`].
    pub(super) queued: u64,
    pub(super) blocked: bool,
    /// Whether the last message handed out was an ordered one: the modes take turns.
    pub(super) took_ordered: bool,
}

#[derive(Default)]
pub(super) struct Messages {
    pub(super) channels: [Channel; Class::COUNT],
    pub(super) next_id: u64,
    pub(super) queued: u64,
    /// The classes, a bit for each, in which a sender waits for room.
    pub(super) blocked: u8,
}

/// How much of the queue a class has whatever the others hold: so many parts of it.
pub(super) const QUEUE_SHARES: u64 = 16;

/// What a class may queue.
#[derive(Clone, Copy)]
struct QueueLimit {
    all: u64,
    own: u64,
}

impl QueueLimit {
    fn of(config: &Config, class: Class) -> QueueLimit {
        QueueLimit {
            all: config.max_message_queue,
            own: config.classes[class.index()].max_queue.unwrap_or(u64::MAX),
        }
    }

    /// Whether so much more may be queued. A message of any size may go in a class that has none waiting.
    fn admits(self, all: u64, own: u64, cost: u64) -> bool {
        let (all, next) = (all.saturating_add(cost), own.saturating_add(cost));
        own == 0 || (next <= self.own && (all <= self.all || next <= self.all / QUEUE_SHARES))
    }

    /// Whether enough is free for those who wait to be told.
    fn relieved(self, all: u64, own: u64) -> bool {
        own <= self.own / 2 && (all <= self.all / 2 || own <= self.all / QUEUE_SHARES / 2)
    }
}

impl Messages {
    fn id(&mut self) -> MessageId {
        self.next_id += 1;
        MessageId(self.next_id)
    }

    /// Part of [`Session::audit`]. Returns what unread unreliable messages cost the datagrams' budget.
    pub(super) fn audit(&self, session: &Session) -> Result<u64, Violation> {
        if !session.state.is_terminal() {
            self.audit_queue(session)?;
        }
        let mut unread = 0;
        for (index, channel) in self.channels.iter().enumerate() {
            let costs = channel.unreliable.iter();
            unread += costs.map(|payload| payload.len() as u64 + OVERHEAD).sum::<u64>();
            rule!(
                !channel.blocked || (channel.whole.is_empty() && channel.unreliable.is_empty()),
                "nobody waits for a message that has come",
                index,
            );
        }
        Ok(unread)
    }

    fn audit_queue(&self, session: &Session) -> Result<(), Violation> {
        let mut queued = [0; Class::COUNT];
        for (_, stream) in session.streams.live() {
            let Some(send) = stream.send.as_ref() else {
                continue;
            };
            let queued = &mut queued[stream.id.class().index()];
            match stream.id.kind() {
                Kind::Ordered => *queued += send.buffered(),
                Kind::Unordered if !stream.flags.has(Flags::FINISHED_TOLD) => {
                    *queued += send.written() + UNORDERED_COST;
                }
                _ => {}
            }
        }
        let longest = session.peer.max_message + UNORDERED_COST;
        for class in Class::ALL {
            let index = class.index();
            let channel = &self.channels[index];
            let early = channel.early.iter();
            let queued = queued[index]
                + channel.tracked.len() as u64 * TRACKED_COST
                + early
                    .map(|(payload, id)| ordered_cost(payload, id.0 != 0))
                    .sum::<u64>();
            let limit = QueueLimit::of(&session.config, class);
            let most = limit.own.min(limit.all).max(longest);
            rule!(
                channel.queued == queued && queued <= most,
                "a class's message queue counts what it holds, and keeps within its limit",
                index,
                channel.queued,
                queued,
                most,
            );
            let opener = session.classes.used(index);
            let opener_waits = opener.is_some_and(|class| class.opening[2].blocked);
            rule!(
                self.blocked & bit(class) == 0 || queued > 0 || opener_waits,
                "nobody waits for an empty message queue",
                index,
            );
        }
        let all = self.channels.iter().map(|channel| channel.queued).sum::<u64>();
        rule!(
            self.queued == all,
            "the message queue is the sum of its parts",
            self.queued,
            all
        );
        Ok(())
    }
}

fn bit(class: Class) -> u8 {
    1 << class.index()
}

impl Session {
    /// Queues a message. With `track`, an [`Event::Outcome`] tells what became of it; without, the
    /// id means nothing.
    pub fn send_message(
        &mut self,
        now: Timestamp,
        class: Class,
        delivery: Delivery,
        payload: Bytes,
        track: bool,
    ) -> Result<MessageId, SendError> {
        if self.state.is_terminal() {
            return Err(SendError::Ended);
        }
        if self.draining() {
            return Err(SendError::Draining);
        }
        let len = payload.len() as u64;
        let max = match delivery {
            Delivery::Unreliable { .. } => self.max_datagram_out(),
            Delivery::Ordered | Delivery::Unordered => self.peer.max_message,
        };
        if len > max {
            return Err(SendError::TooLarge { len, max });
        }
        match delivery {
            Delivery::Ordered => self.send_ordered(class, payload, track),
            Delivery::Unordered => self.send_unordered(class, payload, track),
            Delivery::Unreliable { ttl } => self.send_unreliable(now, Some(class), ttl, payload, track),
        }
    }

    /// Takes room in the queue. A class at its limit holds up no other: each has a share that the others leave
    /// it (REQUIREMENTS W7).
    fn reserve(&mut self, class: Class, cost: u64) -> Result<(), SendError> {
        let limit = QueueLimit::of(&self.config, class);
        let messages = self.messages.get_or_insert_default();
        let channel = &mut messages.channels[class.index()];
        if !limit.admits(messages.queued, channel.queued, cost) {
            sometimes!(self.marks, MessageQueueFull);
            messages.blocked |= bit(class);
            return Err(SendError::Full);
        }
        messages.queued += cost;
        channel.queued += cost;
        Ok(())
    }

    fn send_ordered(&mut self, class: Class, payload: Bytes, track: bool) -> Result<MessageId, SendError> {
        let key = self.ordered_out(class)?;
        self.reserve(class, ordered_cost(&payload, track))?;
        let messages = self.messages.get_or_insert_default();
        let id = if track { messages.id() } else { MessageId(0) };
        if self.identity.is_none() {
            messages.channels[class.index()].early.push((payload, id));
            return Ok(id);
        }
        self.append_ordered(class, key, payload, id)?;
        Ok(id)
    }

    fn append_ordered(
        &mut self,
        class: Class,
        key: StreamKey,
        payload: Bytes,
        id: MessageId,
    ) -> Result<(), SendError> {
        let len = payload.len() as u64;
        let framed = framed_len(len);
        let Some(send) = self.streams.get_mut(key).and_then(|stream| stream.send.as_mut()) else {
            return Err(SendError::Ended);
        };
        let mut prefix = [0; varint::MAX_LEN];
        let mut rest = &mut prefix[..];
        varint::put(&mut rest, len);
        let used = varint::MAX_LEN - rest.len();
        let start = send.written();
        send.append(&prefix[..used]);
        send.append_bytes(payload);
        let end = send.written();
        self.hold_buffer(class, framed);
        if id.0 != 0 {
            self.messages.get_or_insert_default().channels[class.index()]
                .tracked
                .push_back((start, end, id));
        }
        self.make_ready(key.slot);
        Ok(())
    }

    /// The peer's limit is known (PROTOCOL 5.5): what was queued before goes on its way, or is refused.
    pub(super) fn release_early_messages(&mut self) {
        let max = self.peer.max_message;
        for class in Class::ALL {
            let Some(messages) = &mut self.messages else {
                return;
            };
            let channel = &mut messages.channels[class.index()];
            let (early, out) = (std::mem::take(&mut channel.early), channel.out);
            for (payload, id) in early {
                let len = payload.len() as u64;
                if len <= max {
                    if let Some(key) = out {
                        let _ = self.append_ordered(class, key, payload, id);
                    }
                    continue;
                }
                self.events.push_back(Event::MessageTooLarge { class, len, max });
                if id.0 != 0 {
                    let outcome = Outcome::TooLarge { max };
                    self.events.push_back(Event::Outcome { id, outcome });
                }
                self.messages_freed(class, ordered_cost(&payload, id.0 != 0));
            }
        }
    }

    /// Whether messages wait for the peer's limit.
    pub(super) fn has_early_messages(&self) -> bool {
        self.messages.as_ref().is_some_and(|messages| {
            let mut channels = messages.channels.iter();
            channels.any(|channel| !channel.early.is_empty())
        })
    }

    fn ordered_out(&mut self, class: Class) -> Result<StreamKey, SendError> {
        let known = self.messages.get_or_insert_default().channels[class.index()].out;
        if let Some(key) = known {
            return Ok(key);
        }
        let key = self.open_any(Kind::Ordered, class).map_err(send_error)?;
        self.messages.get_or_insert_default().channels[class.index()].out = Some(key);
        Ok(key)
    }

    fn send_unordered(&mut self, class: Class, payload: Bytes, track: bool) -> Result<MessageId, SendError> {
        let cost = payload.len() as u64 + UNORDERED_COST;
        self.reserve(class, cost)?;
        let key = match self.open_any(Kind::Unordered, class) {
            Ok(key) => key,
            Err(error) => {
                let messages = self.messages.get_or_insert_default();
                messages.queued -= cost;
                messages.channels[class.index()].queued -= cost;
                if error == OpenError::Exhausted {
                    messages.blocked |= bit(class);
                }
                return Err(send_error(error));
            }
        };
        let id = if track {
            self.messages.get_or_insert_default().id()
        } else {
            MessageId(0)
        };
        self.hold_buffer(class, payload.len() as u64);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.message = id.0;
            // The message is the session's from here on; no handle holds it.
            stream.flags.clear(Flags::SEND_HELD);
            if let Some(send) = stream.send.as_mut() {
                send.append_bytes(payload);
                let _ = send.finish();
            }
        }
        self.make_ready(key.slot);
        Ok(id)
    }

    // ---- what became of them ----

    pub(super) fn messages_freed(&mut self, class: Class, bytes: u64) {
        let messages = self.messages.get_or_insert_default();
        messages.queued = messages.queued.saturating_sub(bytes);
        let own = &mut messages.channels[class.index()].queued;
        *own = own.saturating_sub(bytes);
        if messages.blocked == 0 {
            return;
        }
        let mut relieved = 0;
        for class in Class::ALL {
            let own = messages.channels[class.index()].queued;
            if QueueLimit::of(&self.config, class).relieved(messages.queued, own) {
                relieved |= messages.blocked & bit(class);
            }
        }
        if relieved != 0 {
            sometimes!(self.marks, MessageSpace);
            messages.blocked &= !relieved;
            self.events.push_back(Event::MessageSpace);
        }
    }

    pub(super) fn messages_unblocked(&mut self) {
        if let Some(messages) = &mut self.messages
            && std::mem::take(&mut messages.blocked) != 0
        {
            self.events.push_back(Event::MessageSpace);
        }
    }

    pub(super) fn ordered_acked(&mut self, class: Class, acked_to: u64) {
        let Some(messages) = &mut self.messages else {
            return;
        };
        let tracked = &mut messages.channels[class.index()].tracked;
        let mut freed = 0;
        while let Some(&(_, end, id)) = tracked.front() {
            if end > acked_to {
                break;
            }
            tracked.pop_front();
            freed += TRACKED_COST;
            self.events.push_back(Event::Outcome {
                id,
                outcome: Outcome::Acknowledged,
            });
        }
        if freed > 0 {
            self.messages_freed(class, freed);
        }
    }

    pub(super) fn unordered_acked(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else {
            return;
        };
        let (id, class) = (MessageId(stream.message), stream.id.class());
        let len = stream.send.as_ref().map_or(0, SendHalf::written);
        if id.0 != 0 {
            self.events.push_back(Event::Outcome {
                id,
                outcome: Outcome::Acknowledged,
            });
        }
        self.messages_freed(class, len + UNORDERED_COST);
    }

    /// The session is over: a word for every tracked message (REQUIREMENTS S2).
    pub(super) fn settle_messages(&mut self) {
        for key in self.streams.keys() {
            let Some(stream) = self.streams.get(key) else {
                continue;
            };
            if stream.id.kind() == Kind::Unordered
                && stream.message != 0
                && !stream.flags.has(Flags::FINISHED_TOLD)
            {
                let outcome = if stream.flags.has(Flags::TOUCHED) {
                    sometimes!(self.marks, OutcomeMaybe);
                    Outcome::Maybe
                } else {
                    sometimes!(self.marks, OutcomeNotSent);
                    Outcome::NotSent
                };
                self.events.push_back(Event::Outcome {
                    id: MessageId(stream.message),
                    outcome,
                });
            }
        }
        self.settle_datagrams();
        let Some(messages) = &mut self.messages else {
            return;
        };
        for channel in &mut messages.channels {
            for (_, id) in channel.early.drain(..).filter(|(_, id)| id.0 != 0) {
                let outcome = Outcome::NotSent;
                self.events.push_back(Event::Outcome { id, outcome });
            }
            let sent = channel
                .out
                .and_then(|key| self.streams.get(key))
                .and_then(|stream| stream.send.as_ref())
                .map_or(0, SendHalf::sent_to);
            for (start, _, id) in channel.tracked.drain(..) {
                let outcome = if sent > start {
                    Outcome::Maybe
                } else {
                    Outcome::NotSent
                };
                self.events.push_back(Event::Outcome { id, outcome });
            }
        }
        messages.queued = 0;
        for channel in &mut messages.channels {
            channel.queued = 0;
        }
        if std::mem::take(&mut messages.blocked) != 0 {
            self.events.push_back(Event::MessageSpace);
        }
    }
}
fn framed_len(len: u64) -> u64 {
    len.saturating_add(varint::len(len) as u64)
}

/// What an ordered message costs the queue.
fn ordered_cost(payload: &Bytes, tracked: bool) -> u64 {
    framed_len(payload.len() as u64) + if tracked { TRACKED_COST } else { 0 }
}

fn send_error(error: OpenError) -> SendError {
    match error {
        OpenError::Exhausted => SendError::Full,
        OpenError::Draining => SendError::Draining,
        OpenError::Ended | OpenError::NotAByteStream => SendError::Ended,
    }
}
