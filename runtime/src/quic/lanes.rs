//! The streams of a connection as the lanes of a path. PROTOCOL 14.8.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use bytes::{Buf, Bytes, BytesMut};
use sheetbend_core::carrier::quic::{Dir, QuicStreamId, Read, WriteError};
use sheetbend_core::session::LaneRun;
use sheetbend_core::wire::{OutBuffer, put_lane_number, take_lane_number};

use super::wire::Wire;
use crate::pool::{give_block, take_block};

/// Streams that are opened beyond those in use.
const STOCK: u16 = 8;
/// While so many bytes wait for room on streams, no more are asked for.
const HIGH_WATER: usize = 64 * 1024;
/// Bytes that are taken off a stream before they go to the session, at most.
const PIECE: usize = 96 * 1024;

/// A lane that this end sends on.
struct Out {
    id: QuicStreamId,
    waiting: VecDeque<Bytes>,
    blocked: bool,
    /// Its number was written.
    begun: bool,
    urgency: u8,
}

/// A lane that the peer sends on.
#[derive(Default)]
struct In {
    number: Option<u64>,
    /// The beginning of a record, or of the number.
    part: BytesMut,
    readable: bool,
}

/// The lanes of a path.
#[derive(Default)]
pub(super) struct Lanes {
    /// By number, the first stream being number 0.
    out: Vec<Out>,
    /// By the stream's index.
    incoming: BTreeMap<u64, In>,
    /// Those with something to read.
    ready: VecDeque<QuicStreamId>,
    /// Bytes that wait for room.
    waiting: usize,
    /// The peer allows no more streams.
    exhausted: bool,
    lost: Vec<u16>,
    /// Streams that were opened before the first lane.
    pub(super) before: u64,
}

impl Lanes {
    /// The number of the lane that this end sends on by that stream: they are opened in order.
    pub(super) fn lane_of(&self, id: QuicStreamId) -> u16 {
        u16::try_from((id.index() + 1).saturating_sub(self.before)).unwrap_or(u16::MAX)
    }

    /// Whether it is a lane that the peer sends on.
    #[cfg(feature = "webtransport")]
    pub(super) fn takes(&self, id: QuicStreamId) -> bool {
        id.dir() == Dir::Uni && self.incoming.contains_key(&id.index())
    }

    /// Whether it is a lane that this end sends on.
    #[cfg(feature = "webtransport")]
    pub(super) fn sends(&self, id: QuicStreamId) -> bool {
        let lane = self.out.get(usize::from(self.lane_of(id)));
        lane.is_some_and(|lane| lane.id == id)
    }

    /// A lane of the peer's, and what came on it already.
    pub(super) fn accept(&mut self, id: QuicStreamId, early: &[u8]) {
        let lane = In {
            readable: true,
            part: BytesMut::from(early),
            ..In::default()
        };
        self.incoming.insert(id.index(), lane);
        self.ready.push_back(id);
    }

    pub(super) fn readable(&mut self, id: QuicStreamId) {
        if let Some(lane) = self.incoming.get_mut(&id.index())
            && !mem::replace(&mut lane.readable, true)
        {
            self.ready.push_back(id);
        }
    }

    pub(super) fn writable(&mut self, number: u16) {
        if let Some(lane) = self.out.get_mut(usize::from(number)) {
            lane.blocked = false;
        }
    }

    pub(super) fn lose(&mut self, number: u16) {
        if let Some(lane) = self.out.get_mut(usize::from(number)) {
            let waiting = mem::take(&mut lane.waiting);
            self.waiting -= waiting.iter().map(Bytes::len).sum::<usize>();
            self.lost.push(number);
        }
    }
}

impl Wire {
    /// Lanes beyond the first that may be used. A few more streams than needed are opened, which costs the peer
    /// nothing; so it is known how many there are before the session puts anything on them.
    pub(super) fn lane_count(&self) -> u16 {
        u16::try_from(self.lanes.out.len().saturating_sub(1)).unwrap_or(u16::MAX)
    }

    /// Opens streams, so that there are some beyond number `used`.
    pub(super) fn stock_lanes(&mut self, used: u16) {
        if self.lanes.out.is_empty()
            && let Some(id) = self.first.id
        {
            self.lanes.out.push(Out {
                id,
                waiting: VecDeque::new(),
                blocked: false,
                begun: true,
                urgency: 0,
            });
            // What is said on it is needed to go on with everything else.
            self.connection.prioritize(id, 1);
        }
        let wanted = used.saturating_add(STOCK);
        if self.lane_count() >= wanted || self.lane_header().is_none() {
            return;
        }
        while !self.lanes.exhausted && self.lane_count() < wanted {
            match self.connection.open(Dir::Uni) {
                Some(id) => self.lanes.out.push(Out {
                    id,
                    waiting: VecDeque::new(),
                    blocked: false,
                    begun: false,
                    urgency: 0,
                }),
                // They are never closed, so that no more will be allowed.
                None => self.lanes.exhausted = true,
            }
        }
    }

    /// Opens all streams again, as those that were are gone, with what was written on the first one.
    pub(super) fn reopen_lanes(&mut self, again: Vec<Bytes>) {
        self.lanes.exhausted = false;
        for number in 0..self.lanes.out.len() {
            let id = match number {
                0 => self.first.id,
                _ => self.connection.open(Dir::Uni),
            };
            let Some(id) = id else {
                // The server allows fewer now. Nothing went on the others.
                self.lanes.out.truncate(number.max(1));
                self.lanes.exhausted = true;
                break;
            };
            self.lanes.out[number].id = id;
            self.lanes.out[number].blocked = false;
        }
        if let Some(id) = self.first.id {
            self.connection.prioritize(id, 1);
        }
        if let Some(first) = self.lanes.out.first_mut() {
            self.lanes.waiting += again.iter().map(Bytes::len).sum::<usize>();
            for bytes in again.into_iter().rev() {
                first.waiting.push_front(bytes);
            }
        }
        self.push_lane(0);
    }

    /// Puts output on the lanes that it is for.
    pub(super) fn put_runs(&mut self, output: &mut OutBuffer, runs: &mut Vec<LaneRun>) {
        for run in runs.drain(..) {
            self.stock_lanes(run.lane);
            let mut left = run.len;
            let is_new = self
                .lanes
                .out
                .get(usize::from(run.lane))
                .is_some_and(|lane| !lane.begun);
            let head = if is_new {
                self.lane_head(run.lane)
            } else {
                Bytes::new()
            };
            let Some(lane) = self.lanes.out.get_mut(usize::from(run.lane)) else {
                // There is none: the session was told how many there are.
                output.advance(left);
                continue;
            };
            if run.lane > 0 && run.urgency != lane.urgency {
                lane.urgency = run.urgency;
                let (id, priority) = (lane.id, -i32::from(run.urgency));
                self.connection.prioritize(id, priority);
            }
            if is_new {
                lane.begun = true;
                self.lanes.waiting += head.len();
                lane.waiting.push_back(head);
            }
            while left > 0 {
                let piece = output.take(left);
                if piece.is_empty() {
                    break;
                }
                left -= piece.len();
                self.lanes.waiting += piece.len();
                lane.waiting.push_back(piece);
            }
            self.push_lane(run.lane.into());
        }
    }

    /// What a lane begins with.
    fn lane_head(&mut self, number: u16) -> Bytes {
        let mut head = BytesMut::from(&self.lane_header().unwrap_or_default()[..]);
        put_lane_number(&mut head, number);
        head.freeze()
    }

    /// Writes what waits for a lane, as far as there is room.
    fn push_lane(&mut self, number: usize) {
        let keeps = number == 0 && self.keeps_sent();
        let Some(lane) = self.lanes.out.get_mut(number) else {
            return;
        };
        while !lane.blocked && !lane.waiting.is_empty() {
            let (chunks, _) = lane.waiting.as_mut_slices();
            let before = if keeps { chunks.to_vec() } else { Vec::new() };
            match self.connection.write(lane.id, chunks) {
                Ok(count) => {
                    self.lanes.waiting -= count;
                    self.early.keep(before, count);
                    while lane.waiting.front().is_some_and(Bytes::is_empty) {
                        lane.waiting.pop_front();
                    }
                }
                Err(WriteError::Blocked) => lane.blocked = true,
                Err(_) => {
                    self.lanes.lose(number as u16);
                    return;
                }
            }
        }
    }

    /// Goes on with lanes that had no room. Tells whether more output can be taken.
    pub(super) fn push_lanes(&mut self) -> bool {
        if self.lanes.waiting > 0 {
            for number in 0..self.lanes.out.len() {
                self.push_lane(number);
            }
        }
        if self.first.finishing
            && !self.keeps_sent()
            && self
                .lanes
                .out
                .first()
                .is_none_or(|first| first.waiting.is_empty())
            && let Some(id) = self.first.id
        {
            self.first.finishing = false;
            self.connection.finish(id);
        }
        self.lanes.waiting < HIGH_WATER
    }

    /// A lane whose stream the peer does not want any more.
    pub(super) fn take_lost_lane(&mut self) -> Option<u16> {
        self.lanes.lost.pop()
    }

    /// Hands what came on lanes beyond the first to `take`, with its lane's number and the size of the block that it
    /// lies in. What that leaves is the beginning of a record. `false` from it ends this.
    pub(super) fn read_lanes(&mut self, take: &mut dyn FnMut(u64, &mut BytesMut, usize) -> bool) {
        if self.lanes.ready.is_empty() {
            return;
        }
        let mut block = take_block(PIECE);
        let size = block.capacity();
        while let Some(id) = self.lanes.ready.pop_front() {
            let Some(lane) = self.lanes.incoming.get_mut(&id.index()) else {
                continue;
            };
            lane.readable = false;
            let mut go_on = true;
            let read = loop {
                if block.capacity() - block.len() < PIECE + lane.part.len() {
                    give_block(
                        mem::replace(&mut block, take_block(PIECE + lane.part.len())),
                        size,
                    );
                }
                block.extend_from_slice(&lane.part);
                lane.part.clear();
                let mut room = PIECE;
                let read = self.connection.read(id, room, |chunk| {
                    room -= chunk.len();
                    block.extend_from_slice(&chunk);
                    room
                });
                let mut bytes = block.split();
                if lane.number.is_none() {
                    lane.number = take_number(&mut bytes);
                }
                if let Some(number) = lane.number {
                    go_on = take(number, &mut bytes, size);
                }
                if !bytes.is_empty() {
                    lane.part.extend_from_slice(&bytes);
                } else if lane.part.capacity() > 0 {
                    lane.part = BytesMut::new();
                }
                if read != Read::More || !go_on {
                    break read;
                }
            };
            if matches!(read, Read::Finished | Read::Reset) {
                self.lanes.incoming.remove(&id.index());
            }
            if !go_on {
                break;
            }
        }
        give_block(block, size);
    }
}

/// The number at the front of a lane, once it is whole.
fn take_number(bytes: &mut BytesMut) -> Option<u64> {
    let mut rest: &[u8] = bytes;
    let number = match take_lane_number(&mut rest) {
        Ok(number) => number?,
        // There is no such lane, which is for the session to say.
        Err(_) => u64::MAX,
    };
    let taken = bytes.len() - rest.len();
    bytes.advance(taken);
    Some(number)
}
