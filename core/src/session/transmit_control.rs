//! Control frames that go out: those of a path, of the session, of classes and of streams.

use super::classes::{OPENING_KINDS, class_at};
use super::keys::StreamKey;
use super::path::Stage;
use super::sent::Item;
use super::streams::Flags;
use super::transmit::Draft;
use super::{Abandon, Session};
use crate::stream::SendHalf;
use crate::time::Timestamp;
use crate::wire::{Counts, Frame, LaneCount, PathStatus};

impl Session {
    /// What belongs to this path alone, and the news that go on every path.
    pub(super) fn put_path_control(&mut self, now: Timestamp, slot: usize, draft: &mut Draft<'_>) {
        if self.paths[slot].stage == Stage::Closing {
            return self.put_close(slot, draft);
        }
        let announced = self.announce_in_flight(slot);
        let path = &mut self.paths[slot];
        for seq in std::mem::take(&mut path.pongs) {
            draft.builder.frame(&Frame::Pong { seq });
        }
        if std::mem::take(&mut path.ping_due) {
            path.ping_seq += 1;
            if path.ping_sent.is_none() && path.in_flight() == 0 {
                // The wait for an answer begins here, however long ago the last one came.
                path.progress_at = now;
            }
            if draft.builder.frame(&Frame::Ping { seq: path.ping_seq }) {
                path.ping_sent = Some(now);
                draft.eliciting = true;
            }
        }
        if let Some(seq) = announced {
            let status = if self.active == Some(slot) {
                PathStatus::Active
            } else {
                PathStatus::Standby
            };
            let in_flight = self.paths[slot].limit();
            let path = self.paths[slot].id;
            if draft.builder.frame(&Frame::PathStatus {
                path,
                seq,
                status,
                in_flight,
            }) {
                self.push_item(slot, Item::Status { path, seq }, draft);
            }
        }
        self.put_abandons(slot, draft);
    }

    /// PROTOCOL 8.2: the last word on a path of a session that has ended.
    fn put_close(&mut self, slot: usize, draft: &mut Draft<'_>) {
        if std::mem::take(&mut self.paths[slot].close_due)
            && let Some((code, reason)) = &self.close_reason
        {
            let reason = if crate::canary!(CloseReasonLost) {
                ""
            } else {
                reason
            };
            draft.builder.frame(&Frame::Close {
                code: code.value(),
                reason,
            });
        }
    }

    /// The peer acknowledges by a quarter of the bound that it knows: it is told when that doubled.
    fn announce_in_flight(&mut self, slot: usize) -> Option<u64> {
        let path = &mut self.paths[slot];
        if path.stage != Stage::Live {
            return None;
        }
        let limit = path.limit();
        if limit >= path.announced_in_flight.saturating_mul(2) || limit <= path.announced_in_flight / 4 {
            path.announced_in_flight = limit;
            path.status_seq += 1;
            path.status_due = true;
        }
        std::mem::take(&mut path.status_due).then_some(path.status_seq)
    }

    /// Path-down news, once on every path until one has it acknowledged.
    fn put_abandons(&mut self, slot: usize, draft: &mut Draft<'_>) {
        let own = self.paths[slot].id;
        for index in 0..self.abandons.len() {
            let Abandon { path, code, ref told } = self.abandons[index];
            if told.contains(&own) {
                continue;
            }
            let counts: Vec<_> = self
                .dead_counts
                .iter()
                .filter(|count| count.path == path)
                .map(|count| LaneCount {
                    lane: count.lane,
                    count: count.count,
                })
                .collect();
            let Ok(counts) = Counts::new(&counts) else {
                continue;
            };
            if draft.builder.frame(&Frame::PathAbandon { path, code, counts }) {
                self.abandons[index].told.push(own);
                self.push_item(slot, Item::Abandon { path }, draft);
            }
        }
    }

    pub(super) fn has_session_control(&self) -> bool {
        !self.control.is_empty() || self.class_control || self.goaway_due || self.done_due
    }

    pub(super) fn put_session_control(&mut self, slot: usize, draft: &mut Draft<'_>) {
        if self.goaway_due {
            let address = self.drain_address.clone().unwrap_or_default();
            let code = crate::wire::ErrorCode::DRAINED.value();
            if draft.builder.frame(&Frame::GoAway {
                code,
                reason: "draining",
                address: &address,
            }) {
                self.goaway_due = false;
                draft.ack_now = true;
                self.push_item(slot, Item::GoAway { done: false }, draft);
            }
        }
        if self.done_due
            && draft.builder.frame(&Frame::GoAway {
                code: crate::wire::ErrorCode::NONE.value(),
                reason: "done",
                address: "",
            })
        {
            self.done_due = false;
            self.push_item(slot, Item::GoAway { done: true }, draft);
        }
        if self.class_control {
            self.put_class_control(slot, draft);
        }
        while let Some(&stream) = self.control.front() {
            if !self.put_stream_control(slot, stream, draft) {
                break;
            }
            self.control.pop_front();
        }
    }

    fn put_class_control(&mut self, slot: usize, draft: &mut Draft<'_>) {
        self.class_control = false;
        for index in self.classes.all_used() {
            let class = class_at(index);
            if crate::canary!(WindowUpdateDropped) {
                self.classes.at(index).credit_due = false;
            }
            if self.classes.at(index).credit_due {
                let value = self.classes.at(index).window.limit();
                if draft.builder.frame(&Frame::MaxData { class, value }) {
                    self.classes.at(index).credit_due = false;
                    self.push_item(slot, Item::MaxData { class, value }, draft);
                } else {
                    self.class_control = true;
                }
            }
            for (place, &kind) in OPENING_KINDS.iter().enumerate() {
                if !self.classes.at(index).opening[place].due {
                    continue;
                }
                let value = self.classes.at(index).opening[place].granted;
                if draft.builder.frame(&Frame::MaxStreams { class, kind, value }) {
                    self.classes.at(index).opening[place].due = false;
                    self.push_item(slot, Item::MaxStreams { class, kind, value }, draft);
                } else {
                    self.class_control = true;
                }
            }
        }
    }

    /// Tells whether everything due for the stream fitted.
    fn put_stream_control(&mut self, path: usize, slot: u32, draft: &mut Draft<'_>) -> bool {
        let Some(key) = self.streams.key_of(slot) else {
            return true;
        };
        let Some(stream) = self.streams.slot(slot) else {
            return true;
        };
        let (id, flags) = (stream.id, stream.flags);
        if flags.has(Flags::RESET_DUE) {
            let final_size = stream.send.as_ref().map_or(0, SendHalf::written);
            if !draft.builder.frame(&Frame::ResetStream {
                id,
                code: stream.send_code,
                final_size,
            }) {
                return false;
            }
            self.control_sent(path, key, Flags::RESET_DUE, Item::Reset { key }, draft);
        }
        let Some(stream) = self.streams.slot(slot) else {
            return true;
        };
        if flags.has(Flags::STOP_DUE) {
            if !draft.builder.frame(&Frame::StopSending {
                id,
                code: stream.stop_code,
            }) {
                return false;
            }
            self.control_sent(path, key, Flags::STOP_DUE, Item::Stop { key }, draft);
        }
        let Some(stream) = self.streams.slot(slot) else {
            return true;
        };
        if flags.has(Flags::CREDIT_DUE) {
            let value = stream.recv.as_ref().map_or(0, |recv| recv.window().limit());
            if !draft.builder.frame(&Frame::MaxStreamData { id, value }) {
                return false;
            }
            self.control_sent(
                path,
                key,
                Flags::CREDIT_DUE,
                Item::MaxStreamData { key, value },
                draft,
            );
        }
        if let Some(stream) = self.streams.slot_mut(slot) {
            stream.flags.clear(Flags::CONTROL);
        }
        true
    }

    fn control_sent(&mut self, path: usize, key: StreamKey, flag: Flags, item: Item, draft: &mut Draft<'_>) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.flags.clear(flag);
        }
        self.push_item(path, item, draft);
    }

    #[inline]
    pub(super) fn push_item(&mut self, slot: usize, item: Item, draft: &mut Draft<'_>) {
        self.paths[slot].lanes[draft.lane].sent.items.push_back(item);
        draft.items += 1;
        draft.eliciting = true;
    }
}
