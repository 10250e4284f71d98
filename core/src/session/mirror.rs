//! Copies of what some classes send, on a second path at the same time (*redundant*): if either path dies, the other
//! has brought it. DESIGN "Scheduling".

use std::collections::VecDeque;

use super::Session;
use super::config::PathMode;
use super::keys::StreamKey;
use super::rare::Blank;
use super::sent::Item;
use super::transmit::{Draft, put_data};
use crate::stream::SendState;
use crate::wire::Class;

/// The most pieces that wait for the second path. Beyond it the oldest goes without a copy.
const MAX_COPIES: usize = 4096;
/// Room for the longest header of a STREAM frame: type, id, offset, length.
const HEADER: usize = 24;

/// A piece of a stream that was put on the path in use.
struct Copy {
    key: StreamKey,
    offset: u64,
    len: u32,
    fin: bool,
}

/// What waits for the second path.
#[derive(Default)]
pub(super) struct Copies {
    waiting: VecDeque<Copy>,
}

impl Blank for Copies {
    const BLANK: &'static Copies = &Copies {
        waiting: VecDeque::new(),
    };
}

impl Copies {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Session {
    /// Whether everything of the class goes on two paths.
    fn is_redundant(&self, class: Class) -> bool {
        self.config.mode == PathMode::Redundant || self.config.classes[class.index()].redundant
    }

    /// A piece was put on the path in use.
    #[inline]
    pub(super) fn copy_later(&mut self, class: Class, item: Item) {
        if self.paths.len() < 2 || !self.is_redundant(class) {
            return;
        }
        let Item::Stream {
            key,
            offset,
            len,
            fin,
        } = item
        else {
            return;
        };
        if self.copies.waiting.len() >= MAX_COPIES {
            self.copies.waiting.pop_front();
        }
        let copy = Copy {
            key,
            offset,
            len,
            fin,
        };
        self.copies.waiting.push_back(copy);
    }

    /// Whether copies go on this path: the quickest sound one beside that in use.
    pub(super) fn carries_copies(&self, slot: usize) -> bool {
        if self.copies.is_empty() || self.active == Some(slot) {
            return false;
        }
        let sound = self.paths.iter().filter(|(other, path)| {
            self.active != Some(*other) && path.may_send() && path.suspicion.is_none()
        });
        let quickest = sound.min_by_key(|(_, path)| (path.rtt.get(), path.id));
        quickest.is_some_and(|(quickest, _)| quickest == slot)
    }

    /// No path is left that copies could go on.
    pub(super) fn drop_copies(&mut self) {
        self.copies.clear();
    }

    /// STREAM frames with what waits, until the record or the path is full.
    pub(super) fn put_copies(&mut self, slot: usize, mut room: u64, draft: &mut Draft<'_>) {
        let path = &mut self.paths[slot];
        let lane = path.lane_key;
        while room > 0 && draft.builder.remaining() > HEADER {
            let Some(copy) = self.copies.waiting.pop_front() else {
                return;
            };
            let Some(stream) = self.streams.get_mut(copy.key) else {
                continue;
            };
            let id = stream.id;
            let Some(send) = stream.send.as_mut() else {
                continue;
            };
            if !matches!(send.state(), SendState::Open | SendState::Finished) {
                continue;
            }
            // What the peer has by now needs no copy.
            let end = copy.offset + u64::from(copy.len);
            let start = copy.offset.max(send.acked_prefix());
            if start > end || (start == end && !copy.fin) {
                continue;
            }
            let space = (draft.builder.remaining() - HEADER) as u64;
            let len = (end - start).min(space).min(room);
            let whole = start + len == end;
            let fin = copy.fin && whole;
            let Ok(len) = u32::try_from(len) else { continue };
            draft
                .builder
                .stream_header(id, Some(start), fin, len as usize, false);
            put_data(send, start, len as usize, &mut draft.builder);
            send.sent_on(lane, start + u64::from(len));
            path.lanes[0].sent.items.push_back(Item::Stream {
                key: copy.key,
                offset: start,
                len,
                fin,
            });
            draft.items += 1;
            draft.eliciting = true;
            room = room.saturating_sub(u64::from(len) + 1);
            if !whole {
                self.copies.waiting.push_front(Copy {
                    offset: start + u64::from(len),
                    len: u32::try_from(end - start).unwrap_or(u32::MAX) - len,
                    ..copy
                });
            }
        }
    }
}
