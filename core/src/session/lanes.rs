//! Lanes beyond the first, where a carrier has them: which stream's data goes on which (PROTOCOL 3.4, 14.8).
//!
//! What is lost on a lane holds up what follows it there, and nothing else. A stream's data need not stay on one
//! lane, as every frame says where it belongs. So it is not streams that have lanes but what is sent at a time: a
//! stream with much to send has a lane to itself, and small things of several streams that fit a packet share one,
//! since they would be lost together anyway. A lane is used again once all that went on it is acknowledged. Then
//! nothing ever waits for another stream's loss, and a call costs neither a lane nor the opening of one.

use super::Session;
use super::config::PathInfo;
use super::error::PathError;
use super::keys::{PathKey, StreamKey};
use super::path::{Lane, Path, Stage};
use super::sent::SentLog;
use super::streams::Flags;
use super::transmit::{BATCH, Draft, Transmit};
use crate::time::Timestamp;
use crate::wire::{Frame, LaneCount, MAX_LANE_COUNTS, OutBuffer, RecordBuilder};

use bytes::BytesMut;
use smallvec::SmallVec;

/// Lanes of one direction of a path, in all its life, at most. PROTOCOL 10.
pub const MAX_LANES: u16 = 1024;
/// What shares a lane is no longer than about a packet.
const GROUP: usize = 1100;
/// A stream with more than this to send has a lane to itself.
const SMALL: u64 = 4096;
/// A record on a lane of its own: what comes later on it waits for the end of it.
const LANE_RECORD: usize = 40 * 1024;
/// What a carrier has beyond two of its congestion windows, and at most in all.
const AHEAD: u64 = 128 * 1024;
const MAX_AHEAD: u64 = 16 << 20;
/// Acknowledgements go with other output once so many records wait for one.
const LAZY_ACKS: u32 = 8;

/// Where a part of the output belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneRun {
    /// The lane's number; 0 is the first.
    pub lane: u16,
    /// Bytes.
    pub len: usize,
    /// The urgency of its stream: the lower, the sooner it should leave. 0 on lane 0.
    pub urgency: u8,
}

/// What a carrier with lanes can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneRoom {
    /// Lanes beyond the first; never fewer than before.
    pub lanes: u16,
    /// The longest datagram that goes beside them, in bytes; 0 for none.
    pub max_datagram: usize,
    /// What its congestion control lets be under way, in bytes; 0 where it has none of its own.
    pub window: u64,
}

/// The lanes of a path beyond the first.
#[derive(Debug)]
pub(super) struct Pool {
    /// How many this end may open, for now.
    most: u16,
    /// How many it has opened: their numbers are 1 to this.
    opened: u16,
    /// Those on which nothing is under way.
    free: Vec<u16>,
    /// Bytes of eliciting records under way on all of them.
    pub(super) in_flight: u64,
    /// Those on which records came that want to be acknowledged.
    dirty: Vec<u16>,
    /// Those records.
    unreported: u32,
    /// The longest datagram that goes beside the lanes, with its header; 0 if none does.
    pub(super) max_datagram: usize,
    /// What the carrier's own congestion control lets be under way, in bytes; 0 where it has none.
    window: u64,
    /// Messages that came so, and are to be acknowledged: runs of numbers.
    pub(super) messages: SmallVec<[(u64, u64); 2]>,
}

impl Pool {
    pub(super) fn of(info: &PathInfo) -> Option<Box<Pool>> {
        (info.lanes > 0).then(|| {
            Box::new(Pool {
                most: info.lanes.min(MAX_LANES),
                opened: 0,
                free: Vec::new(),
                in_flight: 0,
                dirty: Vec::new(),
                unreported: 0,
                max_datagram: 0,
                window: 0,
                messages: SmallVec::new(),
            })
        })
    }

    pub(super) fn shrink(&mut self) {
        self.free.shrink_to_fit();
        self.dirty.shrink_to_fit();
    }

    /// Takes note of a message that is to be acknowledged. Where too many wait the oldest stays untold.
    pub(super) fn message_came(&mut self, number: u64) {
        match self.messages.last_mut() {
            Some((first, count)) if first.saturating_add(*count) == number => *count += 1,
            _ => {
                if self.messages.len() >= MAX_LANE_COUNTS {
                    self.messages.remove(0);
                }
                self.messages.push((number, 1));
            }
        }
    }
}

impl Path {
    /// The bound on bytes in flight. Where the carrier controls congestion itself, the path's own estimate of it would
    /// hold that back: the carrier is to have enough that it never waits for more.
    #[inline]
    pub(super) fn limit(&self) -> u64 {
        match &self.pool {
            Some(pool) if pool.window > 0 => {
                let ahead = pool.window.saturating_mul(2).saturating_add(AHEAD);
                self.rate.limit().max(ahead.min(MAX_AHEAD))
            }
            _ => self.rate.limit(),
        }
    }

    /// After so many bytes an acknowledgement is asked for.
    #[inline]
    pub(super) fn ask_after(&self) -> u64 {
        match &self.pool {
            Some(pool) if pool.window > 0 => self.limit() / 4,
            _ => self.rate.ask_after(),
        }
    }

    /// The lane of that number, made if there can be one.
    fn lane_mut(&mut self, number: u16) -> &mut Lane {
        let wanted = usize::from(number);
        while self.lanes.len() <= wanted {
            let id = self.lanes.len() as u64;
            self.lanes.push(Lane {
                id,
                ..Lane::default()
            });
        }
        &mut self.lanes[wanted]
    }

    /// A lane on which nothing is under way.
    fn acquire_lane(&mut self) -> Option<u16> {
        let pool = self.pool.as_mut()?;
        if let Some(free) = pool.free.pop() {
            return Some(free);
        }
        if pool.opened >= pool.most {
            return None;
        }
        pool.opened += 1;
        let number = pool.opened;
        self.lane_mut(number);
        Some(number)
    }

    /// Takes note that records on a lane were acknowledged or given up.
    pub(super) fn lane_settled(&mut self, number: usize, in_flight_before: u64) {
        let Some(pool) = self.pool.as_mut().filter(|_| number > 0) else {
            return;
        };
        let lane = &mut self.lanes[number];
        pool.in_flight -= in_flight_before - lane.sent.in_flight;
        if lane.sent.records.is_empty() && !lane.lost {
            lane.owner = None;
            pool.free.push(number as u16);
        }
    }

    /// Takes note that an eliciting record of that many bytes went out on a lane.
    pub(super) fn lane_sent(&mut self, number: usize, bytes: u64) {
        if let Some(pool) = self.pool.as_mut().filter(|_| number > 0) {
            pool.in_flight += bytes;
        }
    }

    /// Takes note that a record came on a lane which wants to be acknowledged.
    pub(super) fn lane_received(&mut self, number: usize) {
        let Some(pool) = self.pool.as_mut().filter(|_| number > 0) else {
            return;
        };
        let lane = &mut self.lanes[number];
        if !std::mem::replace(&mut lane.ack_wanted, true) {
            pool.dirty.push(number as u16);
        }
        pool.unreported = pool.unreported.saturating_add(1);
    }

    /// Whether records of lanes beyond the first, or messages beside them, wait to be acknowledged.
    pub(super) fn has_lane_acks(&self) -> bool {
        let waits = |pool: &Pool| !pool.dirty.is_empty() || !pool.messages.is_empty();
        self.pool.as_ref().is_some_and(|pool| waits(pool))
    }

    /// Whether so many do that they go with what goes out.
    pub(super) fn has_many_lane_acks(&self) -> bool {
        self.pool
            .as_ref()
            .is_some_and(|pool| pool.unreported >= LAZY_ACKS)
    }

    /// Acknowledges what came on lanes beyond the first, as much as fits.
    pub(super) fn put_lane_acks(&mut self, now: Timestamp, draft: &mut Draft<'_>) {
        let Some(pool) = &mut self.pool else { return };
        if !pool.messages.is_empty() {
            let runs = pool.messages.iter().map(|(lane, count)| LaneCount {
                lane: *lane,
                count: *count,
            });
            let runs: SmallVec<[LaneCount; 8]> = runs.collect();
            let Ok(runs) = crate::wire::Counts::new(&runs) else {
                return;
            };
            if !draft.builder.frame(&Frame::AckDatagrams { runs }) {
                return;
            }
            pool.messages.clear();
        }
        while !pool.dirty.is_empty() {
            let mut counts: SmallVec<[LaneCount; MAX_LANE_COUNTS]> = SmallVec::new();
            let mut newest = Timestamp::ZERO;
            for number in pool.dirty.iter().rev().take(MAX_LANE_COUNTS) {
                let lane = &self.lanes[usize::from(*number)];
                newest = newest.max(lane.received_at);
                counts.push(LaneCount {
                    lane: lane.id,
                    count: lane.received,
                });
            }
            let delay_us = u64::try_from(now.since(newest).as_micros()).unwrap_or(u64::MAX);
            let Ok(list) = crate::wire::Counts::new(&counts) else {
                return;
            };
            let frame = Frame::AckLanes {
                delay_us,
                counts: list,
            };
            if !draft.builder.frame(&frame) {
                return;
            }
            for _ in 0..counts.len() {
                if let Some(number) = pool.dirty.pop() {
                    let lane = &mut self.lanes[usize::from(number)];
                    lane.reported = lane.received;
                    lane.ack_wanted = false;
                }
            }
        }
        pool.unreported = 0;
    }

    /// The path is over: what its lanes held.
    pub(super) fn take_lanes(&mut self) -> SmallVec<[Lane; 1]> {
        let lanes = std::mem::take(&mut self.lanes);
        self.lanes.push(Lane::default());
        self.pool = None;
        lanes
    }
}

impl Session {
    /// Whether what came on lanes beyond the first can be taken in: before the path's handshake is done it waits.
    pub fn takes_lanes(&self, key: PathKey) -> bool {
        self.path_slot(key)
            .is_some_and(|slot| self.paths[slot].is_live() && self.paths[slot].pool.is_some())
    }

    /// What the carrier of a path with lanes can take at present.
    pub fn set_lanes(&mut self, key: PathKey, room: LaneRoom) {
        if let Some(slot) = self.path_slot(key)
            && let Some(pool) = &mut self.paths[slot].pool
        {
            pool.most = pool.most.max(room.lanes.min(MAX_LANES));
            pool.max_datagram = room.max_datagram;
            pool.window = room.window;
        }
    }

    /// [`Session::handle_input`] for what came on a lane beyond the first. PROTOCOL 14.8.
    ///
    /// # Errors
    /// As there.
    pub fn handle_lane_input(
        &mut self,
        now: Timestamp,
        key: PathKey,
        lane: u64,
        buffer: &mut BytesMut,
        block_capacity: usize,
    ) -> Result<(), PathError> {
        let slot = self.path_slot(key).ok_or(PathError::Unknown)?;
        if self.paths[slot].stage == Stage::Closing {
            buffer.clear();
            return Ok(());
        }
        let number = u16::try_from(lane).ok();
        let number = number.filter(|number| (1..=MAX_LANES).contains(number));
        let result = match number.filter(|_| self.takes_lanes(key)) {
            Some(number) => {
                self.paths[slot].lane_mut(number);
                let limits = self.limits_in(slot);
                self.take_records(now, slot, number.into(), &limits, buffer, block_capacity)
            }
            None => Err(PathError::Misplaced {
                what: "a record",
                lane,
            }),
        };
        if let Err(error) = &result {
            self.path_failed(now, slot, error.clone());
        }
        result
    }

    /// What was sent on a lane will not arrive: it goes out again. The lane is not used any more.
    pub fn handle_lane_lost(&mut self, now: Timestamp, key: PathKey, lane: u16) {
        let Some(slot) = self.path_slot(key) else { return };
        let path = &mut self.paths[slot];
        let number = usize::from(lane);
        if number == 0 || path.stage == Stage::Closing || number >= path.lanes.len() {
            return;
        }
        let lane = &mut path.lanes[number];
        if std::mem::replace(&mut lane.lost, true) {
            return;
        }
        let rest = SentLog {
            acknowledged: lane.sent.sent(),
            ..SentLog::default()
        };
        let lost = std::mem::replace(&mut lane.sent, rest);
        lane.owner = None;
        path.lane_settled(number, lost.in_flight);
        if let Some(pool) = &mut path.pool {
            pool.free.retain(|free| usize::from(*free) != number);
        }
        let max_delay = self.peer.max_ack_delay;
        path.arm_suspicion(max_delay, self.config.min_suspicion);
        self.lose_lanes(
            now,
            SmallVec::from_buf([Lane {
                sent: lost,
                ..Lane::default()
            }]),
        );
    }

    /// [`Session::poll_transmit`] for a path with lanes: `runs` tells what of the output goes on which, in order.
    pub fn poll_transmit_lanes(
        &mut self,
        now: Timestamp,
        key: PathKey,
        out: &mut OutBuffer,
        runs: &mut Vec<LaneRun>,
    ) -> Transmit {
        let before = out.len();
        let answer = self.poll_transmit(now, key, out);
        if out.len() > before {
            runs.push(LaneRun {
                lane: 0,
                len: out.len() - before,
                urgency: 0,
            });
        }
        let Some(slot) = self
            .path_slot(key)
            .filter(|_| answer != Transmit::CloseAfterFlush)
        else {
            return answer;
        };
        let mut group = None;
        while out.len() < BATCH {
            let start = out.len();
            match self.build_lane_record(now, slot, out, &mut group) {
                Some(run) if run.len > 0 => {
                    debug_assert_eq!(run.len, out.len() - start);
                    match runs.last_mut().filter(|last| last.lane == run.lane) {
                        Some(last) => last.len += run.len,
                        None => runs.push(run),
                    }
                }
                Some(_) => {}
                None => break,
            }
        }
        if out.len() > before {
            Transmit::Wrote
        } else {
            answer
        }
    }

    /// The next stream that has something to send, which stays where it is.
    fn peek_ready(&mut self) -> Option<u32> {
        while let Some(slot) = self.ready.pop() {
            if let Some(stream) = self.streams.slot(slot)
                && stream.flags.has(Flags::READY)
            {
                self.ready.push_front(stream.urgency, slot);
                return Some(slot);
            }
        }
        None
    }

    /// The lane that a stream has to itself on the path, and whether it is to have one.
    fn own_lane(&self, path: usize, slot: u32) -> (Option<u16>, bool) {
        let Some(stream) = self.streams.slot(slot) else {
            return (None, false);
        };
        let key = StreamKey {
            slot,
            generation: stream.generation,
        };
        let lane = self.paths[path].lanes.get(usize::from(stream.lane));
        let owned = lane.is_some_and(|lane| lane.owner == Some(key));
        let large = stream.send.as_ref().is_some_and(|send| send.unsent() > SMALL);
        (owned.then_some(stream.lane), large)
    }

    /// Builds the next record on a lane beyond the first, or tells that there is nothing for any. An empty run says
    /// that what seemed to be ready has to wait.
    fn build_lane_record(
        &mut self,
        now: Timestamp,
        slot: usize,
        out: &mut OutBuffer,
        group: &mut Option<(u16, usize)>,
    ) -> Option<LaneRun> {
        if !self.carries_data(slot) || self.paths[slot].pool.is_none() || !self.paths[slot].may_send() {
            return None;
        }
        let (in_flight, limit) = (self.paths[slot].in_flight(), self.paths[slot].limit());
        if in_flight >= limit {
            return None;
        }
        let first = self.peek_ready()?;
        let urgency = self.streams.slot(first).map_or(0, |stream| stream.urgency);
        let (own, large) = self.own_lane(slot, first);
        let alone = own.is_some() || large;
        let shared = group.filter(|(_, used)| *used < GROUP).map(|(lane, _)| lane);
        let found = match alone {
            true => own.or_else(|| self.paths[slot].acquire_lane()),
            false => shared.or_else(|| self.paths[slot].acquire_lane()),
        };
        // With none to be had, the first lane carries it, as on a carrier that has no other.
        let lane = found.unwrap_or(0);
        if alone && lane > 0 && own.is_none() {
            self.give_lane(slot, first, lane);
        }
        let path = &self.paths[slot];
        let most = if alone { LANE_RECORD } else { GROUP * 2 };
        let max_body = path
            .max_record
            .min(path.rate.record_target().clamp(2048, most.max(2048)));
        let mut draft = Draft {
            builder: RecordBuilder::begin(out, max_body, path.crc),
            lane: lane.into(),
            items: 0,
            has_streams: false,
            eliciting: false,
            ack_now: false,
        };
        if alone {
            self.put_one(slot, limit - in_flight, &mut draft);
        } else {
            self.put_small(slot, limit - in_flight, &mut draft);
        }
        let before = self.paths[slot].bytes_sent;
        let wrote = self.finish_record(now, slot, draft);
        let len = (self.paths[slot].bytes_sent - before) as usize;
        if !wrote {
            self.paths[slot].lane_settled_if_idle(lane);
            return Some(LaneRun {
                lane,
                len: 0,
                urgency,
            });
        }
        if !alone && lane > 0 {
            let used = shared.and(*group).map_or(0, |(_, used)| used);
            *group = Some((lane, used + len));
        }
        Some(LaneRun { lane, len, urgency })
    }

    /// Lets a stream have a lane to itself.
    fn give_lane(&mut self, path: usize, slot: u32, lane: u16) {
        if let Some(stream) = self.streams.slot_mut(slot) {
            stream.lane = lane;
            let generation = stream.generation;
            self.paths[path].lanes[usize::from(lane)].owner = Some(StreamKey { slot, generation });
        }
    }

    /// One frame of the next stream.
    fn put_one(&mut self, path: usize, room: u64, draft: &mut Draft<'_>) {
        if let Some(slot) = self.ready.pop()
            && let Some(sent) = self.put_stream(path, slot, room, draft)
        {
            draft.ack_now |= sent >= room;
        }
    }

    /// Frames of streams that have little to send, until about a packet is full.
    fn put_small(&mut self, path: usize, mut room: u64, draft: &mut Draft<'_>) {
        while room > 0 && draft.builder.body_len() < GROUP {
            let Some(slot) = self.ready.pop() else { return };
            match self.put_stream(path, slot, room, draft) {
                Some(sent) => room = room.saturating_sub(sent),
                None => return,
            }
            let Some(next) = self.peek_ready() else { return };
            if matches!(self.own_lane(path, next), (Some(_), _) | (_, true)) {
                return;
            }
        }
        draft.ack_now |= room == 0;
    }
}

impl Path {
    /// A lane that was taken for nothing is free again.
    fn lane_settled_if_idle(&mut self, number: u16) {
        let lane = usize::from(number);
        let Some(pool) = self.pool.as_mut().filter(|_| lane > 0) else {
            return;
        };
        if self.lanes[lane].sent.records.is_empty() && !pool.free.contains(&number) {
            self.lanes[lane].owner = None;
            pool.free.push(number);
        }
    }
}
