//! Datagrams and unreliable messages: numbered, deduplicated in a window (PROTOCOL 4.6).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Session;
use super::audit::{Violation, rule};
use super::error::{PathError, SendError};
use super::event::{Event, MessageId, Outcome};
use super::keys::PathKey;
use super::rare::Blank;
use super::timers::TimerKind;
use crate::marks::sometimes;
use crate::time::Timestamp;
use crate::wire::{Class, Counts, Frame, LaneCount};

/// Numbers behind the highest one within which a repeat is known; older ones are dropped.
const WINDOW: u64 = 1024;

#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) number: u64,
    pub(super) class: Option<Class>,
    pub(super) payload: Bytes,
    expires: Timestamp,
    id: MessageId,
    sent: bool,
    /// It went beside the lanes of this path.
    beside: Option<u32>,
}

/// Which numbers have been seen.
#[derive(Default)]
struct Seen {
    /// One past the highest.
    next: u64,
    bits: Box<[u64; (WINDOW / 64) as usize]>,
}

impl Seen {
    /// Marks `number`; false for a repeat or one that is too old to tell.
    fn insert(&mut self, number: u64) -> bool {
        let Some(end) = number.checked_add(1) else {
            return false;
        };
        if end > self.next {
            let skipped = number - self.next;
            if skipped >= WINDOW {
                self.bits.fill(0);
            } else {
                for passed in self.next..number {
                    self.clear(passed);
                }
            }
            self.next = end;
            self.clear(number);
        } else if self.next - number > WINDOW {
            return false;
        }
        let (word, bit) = place(number);
        let seen = self.bits[word] & bit != 0;
        self.bits[word] |= bit;
        !seen
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.bits[word] &= !bit;
    }
}

fn place(number: u64) -> (usize, u64) {
    let index = number % WINDOW;
    ((index / 64) as usize, 1 << (index % 64))
}

#[derive(Default)]
pub(super) struct Datagrams {
    next_number: u64,
    outgoing: VecDeque<Datagram>,
    outgoing_bytes: u64,
    /// Sent, within their time to live, not yet acknowledged.
    waiting: BTreeMap<u64, Datagram>,
    waiting_bytes: u64,
    next_id: u64,
    seen: Option<Seen>,
    raw: VecDeque<Bytes>,
    raw_blocked: bool,
    /// Bytes received and unread, unreliable messages included.
    received_bytes: u64,
    pub(super) dropped: u64,
}

impl Blank for Datagrams {
    const BLANK: &'static Datagrams = &Datagrams {
        next_number: 0,
        outgoing: VecDeque::new(),
        outgoing_bytes: 0,
        waiting: BTreeMap::new(),
        waiting_bytes: 0,
        next_id: 0,
        seen: None,
        raw: VecDeque::new(),
        raw_blocked: false,
        received_bytes: 0,
        dropped: 0,
    };
}

impl Datagrams {
    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The room that the next one takes in a record, header included.
    pub(super) fn next_size(&self) -> usize {
        self.outgoing
            .front()
            .map_or(0, |datagram| datagram.payload.len() + DATAGRAM_ROOM)
    }

    pub(super) fn put_back(&mut self, datagram: Datagram) {
        self.outgoing_bytes += cost(&datagram);
        self.outgoing.push_front(datagram);
    }

    /// Bytes of what waits to go out or to be read.
    pub(super) fn held_bytes(&self) -> u64 {
        self.outgoing_bytes
            .saturating_add(self.waiting_bytes)
            .saturating_add(self.received_bytes)
    }

    /// Part of [`Session::audit`]; `unread` is what unreliable messages that wait to be read cost.
    pub(super) fn audit(&self, session: &Session, unread: u64) -> Result<(), Violation> {
        let limit = session.config.max_datagram_queue;
        let outgoing = self.outgoing.iter().map(cost).sum::<u64>();
        let waiting = self.waiting.values().map(cost).sum::<u64>();
        rule!(
            self.outgoing_bytes == outgoing && self.waiting_bytes == waiting,
            "the datagram queue counts what it holds",
            self.outgoing_bytes,
            outgoing,
            self.waiting_bytes,
            waiting,
        );
        // One that is longer than the queue may go when the queue is empty.
        let most = limit.max(u64::from(session.peer.max_datagram.max(16 << 10)) + OVERHEAD);
        rule!(
            outgoing + waiting <= most,
            "the datagram queue keeps within its limit",
            outgoing,
            waiting,
            most,
        );
        let raw = self.raw.iter().map(|payload| payload.len() as u64 + OVERHEAD);
        let unread = unread + raw.sum::<u64>();
        rule!(
            self.received_bytes == unread && unread <= limit,
            "datagrams that wait to be read keep within their limit",
            self.received_bytes,
            unread,
            limit,
        );
        rule!(
            self.raw.is_empty() || !self.raw_blocked,
            "nobody waits for a datagram that has come"
        );
        rule!(
            outgoing + waiting == 0 || session.timers.is_set(TimerKind::Ttl),
            "a datagram's time to live has a timer"
        );
        rule!(
            outgoing + waiting > 0 || !session.datagram_sender_blocked,
            "nobody waits for an empty datagram queue"
        );
        Ok(())
    }

    pub(super) fn taken(&mut self, len: usize) {
        self.received_bytes = self.received_bytes.saturating_sub(len as u64 + OVERHEAD);
    }
}

/// What a datagram costs a queue beyond its bytes.
pub(super) const OVERHEAD: u64 = 64;
/// The longest header of a DATAGRAM frame: type, number, class, length.
pub(super) const DATAGRAM_ROOM: usize = 24;

fn cost(datagram: &Datagram) -> u64 {
    datagram.payload.len() as u64 + OVERHEAD
}

impl Session {
    /// Sends a datagram: at most once, or never.
    pub fn send_datagram(&mut self, now: Timestamp, payload: Bytes) -> Result<(), SendError> {
        if self.state.is_terminal() {
            return Err(SendError::Ended);
        }
        let (len, max) = (payload.len() as u64, self.max_datagram_out());
        if len > max {
            sometimes!(self.marks, DatagramTooLong);
            return Err(SendError::TooLarge { len, max });
        }
        self.send_unreliable(now, None, Duration::from_secs(1), payload, false)
            .map(|_| ())
    }

    pub(super) fn max_datagram_out(&self) -> u64 {
        // One record must hold it, header and number included.
        u64::from(
            self.peer
                .max_datagram
                .min(self.peer.max_record.saturating_sub(32)),
        )
    }

    pub(super) fn send_unreliable(
        &mut self,
        now: Timestamp,
        class: Option<Class>,
        ttl: Duration,
        payload: Bytes,
        track: bool,
    ) -> Result<MessageId, SendError> {
        let limit = self.config.max_datagram_queue;
        let datagrams = &mut self.datagrams;
        let held = datagrams.outgoing_bytes + datagrams.waiting_bytes;
        if held > 0 && held + payload.len() as u64 + OVERHEAD > limit {
            sometimes!(self.marks, MessageQueueFull);
            self.datagram_sender_blocked = true;
            return Err(SendError::Full);
        }
        // Ids of unreliable messages are odd above 2^62, apart from those of the others.
        let id = if track {
            datagrams.next_id += 1;
            MessageId((1 << 62) + datagrams.next_id)
        } else {
            MessageId(0)
        };
        let number = datagrams.next_number;
        datagrams.next_number += 1;
        let datagram = Datagram {
            number,
            class,
            payload,
            expires: now + ttl,
            id,
            sent: false,
            beside: None,
        };
        let expires = datagram.expires;
        datagrams.outgoing_bytes += cost(&datagram);
        datagrams.outgoing.push_back(datagram);
        self.timers.set_earlier(TimerKind::Ttl, expires);
        Ok(id)
    }

    fn arm_ttl(&mut self) {
        let queued = self
            .datagrams
            .outgoing
            .iter()
            .map(|datagram| datagram.expires)
            .min();
        let waiting = self
            .datagrams
            .waiting
            .values()
            .map(|datagram| datagram.expires)
            .min();
        match queued.into_iter().chain(waiting).min() {
            Some(at) => self.timers.set(TimerKind::Ttl, at),
            None => self.timers.clear(TimerKind::Ttl),
        }
    }

    /// The next datagram that fits into `room` and has not expired.
    pub(super) fn next_datagram(&mut self, now: Timestamp, room: usize) -> Option<Datagram> {
        let max = self.max_datagram_out();
        loop {
            let datagram = self.datagrams.outgoing.pop_front()?;
            self.datagrams.outgoing_bytes = self.datagrams.outgoing_bytes.saturating_sub(cost(&datagram));
            // One that was queued before the peer said what it takes may be too long for it.
            if datagram.expires <= now || datagram.payload.len() as u64 > max {
                self.datagram_gone(&datagram);
                continue;
            }
            if datagram.payload.len() > room {
                self.datagrams.put_back(datagram);
                return None;
            }
            return Some(datagram);
        }
    }

    pub(super) fn datagram_sent(&mut self, now: Timestamp, mut datagram: Datagram) {
        datagram.sent = true;
        // A raw datagram is sent once; a message is kept for its time to live.
        if datagram.class.is_some() && datagram.expires > now {
            self.datagrams.waiting_bytes += cost(&datagram);
            self.datagrams.waiting.insert(datagram.number, datagram);
        } else {
            self.datagram_space();
        }
    }

    /// Whether the next datagram goes beside the lanes of a path, and so in no record.
    pub(super) fn goes_beside(&self, slot: usize) -> bool {
        let path = &self.paths[slot];
        let room = path.pool.as_ref().map_or(0, |pool| pool.max_datagram);
        path.is_live() && self.datagrams.next_size() <= room
    }

    /// The next datagram that goes beside the lanes of a path, as a carrier's own of `room` bytes at most: a DATAGRAM
    /// frame and nothing else. PROTOCOL 14.8.
    pub fn poll_datagram(&mut self, now: Timestamp, key: PathKey, room: usize) -> Option<Bytes> {
        let slot = self.path_slot(key)?;
        let path = &self.paths[slot];
        if !self.datagrams.has_outgoing()
            || !path.is_live()
            || path.pool.is_none()
            || !self.carries_data(slot)
        {
            return None;
        }
        let generation = path.generation;
        let mut datagram = self.next_datagram(now, room.saturating_sub(DATAGRAM_ROOM))?;
        let frame = Frame::Datagram {
            number: datagram.number,
            class: datagram.class,
            data: &datagram.payload,
        };
        let mut bytes = BytesMut::with_capacity(frame.encoded_last_len());
        frame.encode_last(&mut bytes);
        datagram.beside = Some(generation);
        self.paths[slot].bytes_sent += bytes.len() as u64;
        self.stirred = true;
        self.datagram_sent(now, datagram);
        Some(bytes.freeze())
    }

    /// Takes in a datagram that came beside the lanes of a path. PROTOCOL 14.8.
    ///
    /// # Errors
    /// It is no DATAGRAM frame: the path is over.
    pub fn handle_datagram_input(
        &mut self,
        now: Timestamp,
        key: PathKey,
        data: &[u8],
    ) -> Result<(), PathError> {
        let slot = self.path_slot(key).ok_or(PathError::Unknown)?;
        // One that overtook the handshake is lost, as it may be.
        if !self.paths[slot].is_live() {
            return Ok(());
        }
        let mut input = data;
        let result = match Frame::decode(&mut input) {
            Ok(Some(Frame::Datagram { number, class, data })) => {
                self.take_datagram(number, class, data);
                self.paths[slot].bytes_received += data.len() as u64;
                if class.is_some() {
                    self.message_beside(now, slot, number);
                }
                Ok(())
            }
            Ok(_) => Err(PathError::Misplaced {
                what: "a frame other than DATAGRAM in a datagram",
                lane: 0,
            }),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = &result {
            self.path_failed(now, slot, error.clone());
        }
        result
    }

    /// A message came that is to be acknowledged by its number.
    fn message_beside(&mut self, now: Timestamp, slot: usize, number: u64) {
        let delay = self.config.params.max_ack_delay;
        let path = &mut self.paths[slot];
        if let Some(pool) = &mut path.pool {
            pool.message_came(number);
            if !path.timers.is_set(TimerKind::Ack) {
                path.timers.set(TimerKind::Ack, now + delay);
            }
        }
    }

    /// PROTOCOL 4.6: messages of these numbers have come.
    pub(super) fn take_datagram_acks(&mut self, runs: Counts<'_>) {
        for LaneCount { lane: first, count } in runs.iter() {
            let waiting = &self.datagrams.waiting;
            let numbers = waiting.range(first..first.saturating_add(count));
            for number in numbers.map(|(number, _)| *number).collect::<Vec<_>>() {
                self.datagram_acked(number);
            }
        }
    }

    /// A path is over: what went beside its lanes may go again.
    pub(super) fn lose_datagrams(&mut self, now: Timestamp, generation: u32) {
        let waiting = self.datagrams.waiting.iter();
        let lost = waiting.filter(|(_, datagram)| datagram.beside == Some(generation));
        for number in lost.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.datagram_lost(now, number);
        }
    }

    fn take_waiting(&mut self, number: u64) -> Option<Datagram> {
        let datagram = self.datagrams.waiting.remove(&number)?;
        self.datagrams.waiting_bytes = self.datagrams.waiting_bytes.saturating_sub(cost(&datagram));
        Some(datagram)
    }

    pub(super) fn datagram_acked(&mut self, number: u64) {
        if let Some(datagram) = self.take_waiting(number) {
            if datagram.id.0 != 0 {
                self.events.push_back(Event::Outcome {
                    id: datagram.id,
                    outcome: Outcome::Acknowledged,
                });
            }
            self.datagram_space();
        }
    }

    pub(super) fn datagram_lost(&mut self, now: Timestamp, number: u64) {
        let Some(datagram) = self.take_waiting(number) else {
            return;
        };
        if datagram.expires <= now {
            self.datagram_gone(&datagram);
        } else {
            sometimes!(self.marks, DatagramResent);
            self.datagrams.put_back(Datagram {
                beside: None,
                ..datagram
            });
        }
    }

    fn datagram_gone(&mut self, datagram: &Datagram) {
        if datagram.id.0 != 0 {
            let outcome = if datagram.sent {
                Outcome::Maybe
            } else {
                Outcome::NotSent
            };
            self.events.push_back(Event::Outcome {
                id: datagram.id,
                outcome,
            });
        }
        self.datagram_space();
    }

    fn datagram_space(&mut self) {
        let held = self.datagrams.outgoing_bytes + self.datagrams.waiting_bytes;
        if self.datagram_sender_blocked && held <= self.config.max_datagram_queue / 2 {
            self.datagram_sender_blocked = false;
            self.events.push_back(Event::MessageSpace);
        }
    }

    /// Lets go of what outlived its time.
    pub(super) fn expire_datagrams(&mut self, now: Timestamp) {
        sometimes!(self.marks, DatagramExpired);
        let expired: Vec<u64> = self
            .datagrams
            .waiting
            .iter()
            .filter(|(_, datagram)| datagram.expires <= now)
            .map(|(&number, _)| number)
            .collect();
        for number in expired {
            if let Some(datagram) = self.take_waiting(number) {
                self.datagram_gone(&datagram);
            }
        }
        let queue = std::mem::take(&mut self.datagrams.outgoing);
        self.datagrams.outgoing_bytes = 0;
        for datagram in queue {
            if datagram.expires <= now {
                self.datagram_gone(&datagram);
            } else {
                self.datagrams.outgoing_bytes += cost(&datagram);
                self.datagrams.outgoing.push_back(datagram);
            }
        }
        self.arm_ttl();
    }

    pub(super) fn settle_datagrams(&mut self) {
        for number in self.datagrams.waiting.keys().copied().collect::<Vec<_>>() {
            if let Some(datagram) = self.take_waiting(number) {
                self.datagram_gone(&datagram);
            }
        }
        // Before they are told of, so that a sender that waits for room is told, too.
        self.datagrams.outgoing_bytes = 0;
        for datagram in std::mem::take(&mut self.datagrams.outgoing) {
            self.datagram_gone(&datagram);
        }
        self.timers.clear(TimerKind::Ttl);
    }

    // ---- receiving ----

    pub(super) fn take_datagram(&mut self, number: u64, class: Option<Class>, data: &[u8]) {
        if !self
            .datagrams
            .seen
            .get_or_insert_with(Seen::default)
            .insert(number)
            && !crate::canary!(DatagramRepeated)
        {
            sometimes!(self.marks, DatagramRepeated);
            return;
        }
        let limit = self.config.max_datagram_queue;
        let size = data.len() as u64 + OVERHEAD;
        if data.len() as u64 > u64::from(self.config.params.max_datagram) {
            self.datagrams.dropped += 1;
            return;
        }
        while self.datagrams.received_bytes + size > limit {
            let dropped = match class {
                Some(class) => self.drop_oldest_unreliable(class),
                None => self.datagrams.raw.pop_front().map(|payload| payload.len()),
            };
            sometimes!(self.marks, DatagramDropped);
            self.datagrams.dropped += 1;
            match dropped {
                Some(len) => self.datagrams.taken(len),
                // The other queues hold the budget: this one goes.
                None => return,
            }
        }
        self.datagrams.received_bytes += size;
        let payload = Bytes::copy_from_slice(data);
        match class {
            Some(class) => self.unreliable_came(class, payload),
            None => {
                self.datagrams.raw.push_back(payload);
                if std::mem::take(&mut self.datagrams.raw_blocked) {
                    self.events.push_back(Event::DatagramReady);
                }
            }
        }
    }

    /// The oldest unread datagram. [`Event::DatagramReady`] tells when to ask again.
    pub fn recv_datagram(&mut self) -> Option<Bytes> {
        match self.datagrams.raw.pop_front() {
            Some(payload) => {
                self.datagrams.taken(payload.len());
                Some(payload)
            }
            None => {
                self.datagrams.raw_blocked = true;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PROTOCOL 4.6: each number once, within the window.
    #[test]
    fn repeats_and_the_too_old_are_dropped() {
        let mut seen = Seen::default();
        assert!(seen.insert(0));
        assert!(!seen.insert(0));
        assert!(seen.insert(5));
        assert!(seen.insert(3));
        assert!(!seen.insert(3));
        assert!(seen.insert(5 + WINDOW));
        assert!(!seen.insert(5), "below the window");
        assert!(seen.insert(6));
        assert!(!seen.insert(u64::MAX), "no number follows the last");
        assert!(seen.insert(u64::MAX - 1));
        assert!(!seen.insert(u64::MAX - 1));
        assert!(seen.insert(u64::MAX - WINDOW));
    }
}
