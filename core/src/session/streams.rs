//! The table of streams: ids, credit for opening, and what the application holds.

use std::collections::VecDeque;

use super::error::Misbehaviour;
use super::ids::Ids;
use super::keys::StreamKey;
use super::rare::{Blank, Rare};
use crate::stream::{RecvHalf, SendHalf};
use crate::wire::{Kind, Side, StreamId};

/// What the receiving half of a stream grants, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecvWindow {
    /// Without a word.
    pub(super) first: u64,
    /// The window from its first update on, by what streams of its class have needed.
    pub(super) expected: u64,
    /// Its window grows up to this.
    pub(super) most: u64,
}

/// Single-bit facts about a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u32);

impl Flags {
    /// In a ready queue of the scheduler.
    pub(super) const READY: Flags = Flags(1);
    /// In the control queue.
    pub(super) const CONTROL: Flags = Flags(1 << 1);
    /// RESET_STREAM is to be sent.
    pub(super) const RESET_DUE: Flags = Flags(1 << 2);
    /// STOP_SENDING is to be sent.
    pub(super) const STOP_DUE: Flags = Flags(1 << 3);
    /// MAX_STREAM_DATA is to be sent.
    pub(super) const CREDIT_DUE: Flags = Flags(1 << 4);
    /// A reader found nothing and wants to hear of more.
    pub(super) const READ_BLOCKED: Flags = Flags(1 << 5);
    /// A writer found no room and wants to hear of some.
    pub(super) const WRITE_BLOCKED: Flags = Flags(1 << 6);
    /// The application may still write.
    pub(super) const SEND_HELD: Flags = Flags(1 << 7);
    /// The application may still read.
    pub(super) const RECV_HELD: Flags = Flags(1 << 8);
    /// Waiting for class credit, in no ready queue.
    pub(super) const CLASS_BLOCKED: Flags = Flags(1 << 9);
    /// The peer asked to stop; its code is in `stop_code`.
    pub(super) const STOPPED: Flags = Flags(1 << 10);
    /// Everything was acknowledged, and the application was told.
    pub(super) const FINISHED_TOLD: Flags = Flags(1 << 11);
    /// STOP_SENDING was asked for by this end.
    pub(super) const STOPPING: Flags = Flags(1 << 12);
    /// The receiving half has handed everything over.
    pub(super) const RECV_DONE: Flags = Flags(1 << 13);
    /// Bytes of it were put on a path.
    pub(super) const TOUCHED: Flags = Flags(1 << 14);
    /// An unordered message that waits in its class's queue.
    pub(super) const MESSAGE_WAITS: Flags = Flags(1 << 15);
    /// In its class's list of those blocked for class credit; it may be so no more.
    pub(super) const IN_BLOCKED: Flags = Flags(1 << 16);
    /// In its class's list of waiting writers; it may be told already.
    pub(super) const IN_WAITERS: Flags = Flags(1 << 17);

    pub(super) fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }
    pub(super) fn set(&mut self, flag: Flags) {
        self.0 |= flag.0;
    }
    pub(super) fn clear(&mut self, flag: Flags) {
        self.0 &= !flag.0;
    }
    /// Clears it and tells whether it was set.
    pub(super) fn take(&mut self, flag: Flags) -> bool {
        let had = self.has(flag);
        self.clear(flag);
        had
    }
}

pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) generation: u32,
    pub(super) flags: Flags,
    pub(super) urgency: u8,
    /// The lane of the path in use that it has to itself, if that still says so.
    pub(super) lane: u16,
    pub(super) send: Option<SendHalf>,
    pub(super) recv: Option<RecvHalf>,
    /// The code of our RESET_STREAM, or of the peer's STOP_SENDING once `STOPPED`.
    pub(super) send_code: u64,
    /// The code of our STOP_SENDING.
    pub(super) stop_code: u64,
    /// The tracked unordered message that this stream is; 0 for none.
    pub(super) message: u64,
    /// Bytes received of an unordered message that is not whole yet.
    pub(super) partial: u64,
    /// While the place is vacant: the block of the last stream's sending half, for the next.
    spare: Vec<u8>,
}

/// The table of streams. Places are used again in place: a stream is made and forgotten without being
/// moved, which at a million requests a second shows.
#[derive(Default)]
pub(super) struct StreamTable {
    /// A vacant place has generation 0, and halves that are gone.
    slots: Vec<Stream>,
    vacant: Vec<u32>,
    ids: Ids,
    next_generation: u32,
    /// Live bidirectional streams that this end opened.
    local_bi: usize,
}

impl StreamTable {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Places, vacant ones included.
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    /// Places that the table has memory for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    pub(super) fn insert(
        &mut self,
        side: Side,
        id: StreamId,
        urgency: u8,
        send_credit: Option<u64>,
        recv_window: Option<RecvWindow>,
    ) -> StreamKey {
        if id.kind() == Kind::Bi && id.initiator() == side {
            self.local_bi += 1;
        }
        self.next_generation = self.next_generation.wrapping_add(1).max(1);
        let generation = self.next_generation;
        let mut flags = Flags::default();
        if send_credit.is_some() {
            flags.set(Flags::SEND_HELD);
        }
        if recv_window.is_some() {
            flags.set(Flags::RECV_HELD);
        }
        let slot = self.vacant.pop().unwrap_or_else(|| self.grow(id));
        let stream = &mut self.slots[slot as usize];
        stream.id = id;
        stream.generation = generation;
        stream.flags = flags;
        stream.urgency = urgency;
        stream.lane = 0;
        // Made in place: the halves are large.
        if let Some(credit) = send_credit {
            let send = stream.send.insert(SendHalf::new(credit));
            if stream.spare.capacity() > 0 {
                send.reuse_block(std::mem::take(&mut stream.spare));
            }
        }
        if let Some(window) = recv_window {
            let recv = stream.recv.insert(RecvHalf::new(window.first, window.most));
            recv.expect(window.expected);
        }
        stream.send_code = 0;
        stream.stop_code = 0;
        stream.message = 0;
        stream.partial = 0;
        self.ids.insert(id.value(), slot);
        StreamKey { slot, generation }
    }

    /// A new place at the end, vacant.
    fn grow(&mut self, id: StreamId) -> u32 {
        if self.slots.capacity() == 0 {
            // Most idle sessions have had one stream at a time; room for four is more than the rest of them.
            self.slots.reserve_exact(1);
        }
        self.slots.push(Stream {
            id,
            generation: 0,
            flags: Flags::default(),
            urgency: 0,
            lane: 0,
            send: None,
            recv: None,
            send_code: 0,
            stop_code: 0,
            message: 0,
            partial: 0,
            spare: Vec::new(),
        });
        // A table of 2^32 streams does not fit in memory, and credit is far below.
        (self.slots.len() - 1) as u32
    }

    #[inline]
    pub(super) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slot(key.slot)
            .filter(|stream| stream.generation == key.generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slot_mut(key.slot)
            .filter(|stream| stream.generation == key.generation)
    }

    #[inline]
    pub(super) fn slot(&self, slot: u32) -> Option<&Stream> {
        self.slots
            .get(slot as usize)
            .filter(|stream| stream.generation != 0)
    }

    #[inline]
    pub(super) fn slot_mut(&mut self, slot: u32) -> Option<&mut Stream> {
        self.slots
            .get_mut(slot as usize)
            .filter(|stream| stream.generation != 0)
    }

    pub(super) fn key_of(&self, slot: u32) -> Option<StreamKey> {
        self.slot(slot).map(|stream| StreamKey {
            slot,
            generation: stream.generation,
        })
    }

    pub(super) fn live(&self) -> impl Iterator<Item = (usize, &Stream)> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.generation != 0)
    }

    #[inline]
    pub(super) fn find(&self, id: StreamId) -> Option<u32> {
        self.ids.get(id.value())
    }

    /// Whether this end waits for the answer on a stream that it opened both ways.
    pub(super) fn waiting_for_answers(&self) -> bool {
        self.local_bi > 0
    }

    /// Whether nothing is open but the channels of ordered messages, and those are empty.
    pub(super) fn only_message_channels(&self) -> bool {
        self.live().all(|(_, stream)| {
            stream.id.kind() == Kind::Ordered && stream.send.as_ref().is_none_or(|send| send.buffered() == 0)
        })
    }

    /// Gives back what few streams do not need.
    pub(super) fn shrink(&mut self) {
        if self.len() == 0 {
            self.slots = Vec::new();
            self.ids = Ids::default();
        }
        self.vacant.retain(|&slot| (slot as usize) < self.slots.len());
        self.vacant.shrink_to_fit();
        for stream in &mut self.slots {
            stream.spare = Vec::new();
            if let Some(send) = stream.send.as_mut() {
                send.shrink();
            }
            if let Some(recv) = stream.recv.as_mut() {
                recv.shrink();
            }
        }
    }

    /// Forgets offsets on all lanes but `alive`.
    pub(super) fn forget_lanes(&mut self, alive: &[u32]) {
        for stream in &mut self.slots {
            if let Some(recv) = stream.recv.as_mut() {
                recv.forget_lanes(|lane| alive.contains(&lane));
            }
        }
    }

    pub(super) fn remove(&mut self, side: Side, slot: u32) {
        let Some(stream) = self.slot_mut(slot) else { return };
        let id = stream.id;
        stream.generation = 0;
        // Where they lie: the halves are large.
        if let Some(send) = &mut stream.send {
            stream.spare = send.take_block();
        }
        stream.send = None;
        stream.recv = None;
        if id.kind() == Kind::Bi && id.initiator() == side {
            self.local_bi -= 1;
        }
        self.ids.remove(id.value());
        self.vacant.push(slot);
        if self.len() == 0 && self.slots.len() > 256 {
            self.slots = Vec::new();
            self.vacant = Vec::new();
            self.ids = Ids::default();
        }
    }

    /// Every live stream, in the order of slots.
    pub(super) fn keys(&self) -> Vec<StreamKey> {
        self.live()
            .map(|(slot, stream)| StreamKey {
                slot: slot as u32,
                generation: stream.generation,
            })
            .collect()
    }
}

/// Checks that the peer may send data on `id` at all.
pub(super) fn check_direction(side: Side, id: StreamId, frame: &'static str) -> Result<(), Misbehaviour> {
    let ours = id.initiator() == side;
    if ours && id.kind() != Kind::Bi {
        return Err(Misbehaviour::WrongDirection { id, frame });
    }
    Ok(())
}

/// Checks that this end may send on `id`, so that a frame about our sending makes sense.
pub(super) fn check_ours(side: Side, id: StreamId, frame: &'static str) -> Result<(), Misbehaviour> {
    let theirs = id.initiator() != side;
    if theirs && id.kind() != Kind::Bi {
        return Err(Misbehaviour::WrongDirection { id, frame });
    }
    Ok(())
}

/// Streams with something to send, by urgency; round robin within one.
pub(super) struct Ready {
    queues: Rare<Queues>,
    /// A bit for each queue that is not empty.
    mask: u8,
}

type Queues = [VecDeque<u32>; 8];

impl Blank for Queues {
    const BLANK: &'static Queues = &[const { VecDeque::new() }; 8];
}

impl Ready {
    pub(super) const fn new() -> Ready {
        Ready {
            queues: Rare::new(),
            mask: 0,
        }
    }

    #[inline]
    pub(super) fn push_back(&mut self, urgency: u8, slot: u32) {
        let level = usize::from(urgency.min(7));
        self.queues[level].push_back(slot);
        self.mask |= 1 << level;
    }

    #[inline]
    pub(super) fn push_front(&mut self, urgency: u8, slot: u32) {
        let level = usize::from(urgency.min(7));
        self.queues[level].push_front(slot);
        self.mask |= 1 << level;
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<u32> {
        if self.mask == 0 {
            return None;
        }
        let level = self.mask.trailing_zeros() as usize;
        let queue = self.queues.get_mut(level)?;
        let slot = queue.pop_front();
        if queue.is_empty() {
            self.mask &= !(1 << level);
            if queue.capacity() > 1024 {
                *queue = VecDeque::new();
            }
        }
        slot
    }

    #[inline]
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.queues.clear();
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.mask == 0
    }

    /// The slots in all queues; one may stand in several, and may be gone.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.queues.iter().flatten().copied()
    }
}
