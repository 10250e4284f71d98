//! The receiving half of a TCP connection.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes};
use smallvec::SmallVec;

/// Ranges that one acknowledgement reports above the cumulative one.
const MAX_SACKS: usize = 64;

/// Ranges `(from, to)` that have arrived out of order.
pub(crate) type Sacks = SmallVec<[(u64, u64); 1]>;

pub(super) struct Receiver {
    nxt: u64,
    ready: VecDeque<Bytes>,
    ready_len: usize,
    early: BTreeMap<u64, Bytes>,
    early_len: usize,
    fin_at: Option<u64>,
    ended: bool,
    capacity: usize,
    /// The edge that was last announced.
    announced: u64,
}

/// What a segment did.
#[derive(Default)]
pub(super) struct Taken {
    /// There is more to read, or the end.
    pub(super) readable: bool,
    /// It has to be acknowledged at once: it was out of order, or nothing new.
    pub(super) odd: bool,
}

impl Receiver {
    pub(super) fn new(capacity: usize) -> Receiver {
        Receiver {
            nxt: 0,
            ready: VecDeque::new(),
            ready_len: 0,
            early: BTreeMap::new(),
            early_len: 0,
            fin_at: None,
            ended: false,
            capacity,
            announced: 0,
        }
    }

    /// The peer's SYN.
    pub(super) fn open(&mut self) {
        self.nxt = 1;
    }

    pub(super) fn nxt(&self) -> u64 {
        self.nxt
    }

    pub(super) fn is_readable(&self) -> bool {
        self.ready_len > 0 || self.ended
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn unread(&self) -> usize {
        self.ready_len
    }

    fn edge(&self) -> u64 {
        // What was announced is never taken back (RFC 9293 §3.8.6).
        let free = self.capacity.saturating_sub(self.ready_len);
        self.announced.max(self.nxt + free as u64)
    }

    /// The room to announce.
    pub(super) fn announce(&mut self) -> u64 {
        self.announced = self.edge();
        self.announced - self.nxt
    }

    /// Whether the room has grown enough to say so without being asked.
    pub(super) fn has_opened(&self, mss: usize) -> bool {
        let told = self.announced.saturating_sub(self.nxt);
        let step = (self.capacity / 2).min(2 * mss) as u64;
        told < step && self.edge() - self.announced >= step
    }

    pub(super) fn take(&mut self, seq: u64, mut data: Bytes, fin: bool) -> Taken {
        let mut taken = Taken::default();
        let end = seq + data.len() as u64;
        if fin {
            self.fin_at = Some(end);
        }
        if data.is_empty() && !fin {
            return taken;
        }
        if end < self.nxt || (end == self.nxt && !fin) || self.ended {
            taken.odd = true;
            return taken;
        }
        if seq < self.nxt {
            data = data.slice((self.nxt - seq) as usize..);
        }
        let seq = seq.max(self.nxt);
        let room = usize::try_from(self.edge().saturating_sub(seq)).unwrap_or(usize::MAX);
        if data.len() > room {
            data.truncate(room);
            taken.odd = true;
        }
        if seq > self.nxt {
            taken.odd = true;
            if !data.is_empty() && self.early.get(&seq).is_none_or(|old| old.len() < data.len()) {
                self.early_len += data.len();
                if let Some(old) = self.early.insert(seq, data) {
                    self.early_len -= old.len();
                }
            }
            return taken;
        }
        self.append(data);
        taken.odd |= !self.early.is_empty();
        self.join_early();
        if self.fin_at == Some(self.nxt) {
            self.nxt += 1;
            self.ended = true;
            taken.odd = true;
        }
        taken.readable = self.is_readable();
        taken
    }

    fn append(&mut self, data: Bytes) {
        self.nxt += data.len() as u64;
        self.ready_len += data.len();
        if !data.is_empty() {
            self.ready.push_back(data);
        }
    }

    fn join_early(&mut self) {
        while let Some(entry) = self.early.first_entry() {
            let seq = *entry.key();
            if seq > self.nxt {
                return;
            }
            let data = entry.remove();
            self.early_len -= data.len();
            let known = (self.nxt - seq) as usize;
            if known < data.len() {
                self.append(data.slice(known..));
            }
        }
    }

    pub(super) fn sacks(&self) -> Sacks {
        let mut ranges = Sacks::new();
        for (&from, data) in &self.early {
            let to = from + data.len() as u64;
            let count = ranges.len();
            match ranges.last_mut() {
                Some((_, end)) if *end >= from => *end = to.max(*end),
                _ if count == MAX_SACKS => break,
                _ => ranges.push((from, to)),
            }
        }
        ranges
    }

    /// Copies what is there into `buf`, as much as it has room for.
    pub(super) fn read(&mut self, buf: &mut impl BufMut) -> usize {
        let mut count = 0;
        while let Some(front) = self.ready.front_mut() {
            let spare = buf.remaining_mut();
            if spare == 0 {
                break;
            }
            let part = front.split_to(front.len().min(spare));
            buf.put_slice(&part);
            count += part.len();
            if front.is_empty() {
                self.ready.pop_front();
            }
        }
        self.ready_len -= count;
        count
    }
}
