//! How a session ends: drain, close, failure (PROTOCOL 8).

use super::Session;
use super::classes::opening_index;
use super::event::{Event, PathEnd};
use super::lifecycle::{Cause, State};
use super::path::Stage;
use super::streams::Flags;
use super::timers::TimerKind;
use crate::marks::sometimes;
use crate::time::Timestamp;
use crate::wire::{Class, ErrorCode, Kind, MAX_REASON};

impl Session {
    /// Ends the session at once: CLOSE on every path, and whatever is unacknowledged is settled as
    /// it stands. `reason` is cut at 256 bytes.
    pub fn close(&mut self, now: Timestamp, code: ErrorCode, reason: &str) {
        let reason = shorten(reason).to_owned();
        self.end_session(now, Cause::LocalClose { code, reason });
    }

    /// Ends a session that no further path will come to: whoever connects has given up. Without effect while
    /// a path is attached. `detail` tells why.
    pub fn give_up(&mut self, now: Timestamp, detail: &str) {
        if self.paths.iter().all(|(_, path)| path.stage == Stage::Closing) {
            let detail = detail.to_owned();
            self.end_session(now, Cause::GivenUp { detail });
        }
    }

    /// What the session holds of its application's and its peer's data, in bytes: written and not acknowledged,
    /// or received and not read.
    pub fn held_bytes(&self) -> u64 {
        let classes = self.classes.all_used().into_iter();
        let unread = classes
            .filter_map(|index| self.classes.used(index))
            .map(|class| class.received.saturating_sub(class.consumed))
            .fold(0, u64::saturating_add);
        self.buffered
            .saturating_add(unread)
            .saturating_add(self.datagrams.held_bytes())
    }

    /// Ends a session that has no path as if it had been without for too long: its memory is needed. Without
    /// effect where it has one.
    pub fn expire(&mut self, now: Timestamp) {
        if self.state == State::Reconnecting {
            self.end_session(now, Cause::ResumeTimeout);
        }
    }

    /// Finishes what is open and takes nothing new; the peer is told, and where to go instead. The
    /// session closes by itself once nothing is open and everything is acknowledged.
    pub fn drain(&mut self, now: Timestamp, address: &str) {
        if self.state.is_terminal() || self.drain_address.is_some() {
            return;
        }
        self.drain_address = Some(shorten(address).to_owned());
        sometimes!(self.marks, DrainedWhileOpen, !self.is_settled());
        self.goaway_due = true;
        self.drain_moved = self.moved();
        self.timers
            .set(TimerKind::DrainIdle, now + self.config.max_drain_idle);
        self.wake_openers();
        self.close_if_drained(now);
    }

    /// Grows with every byte that goes either way, or is read.
    fn moved(&self) -> u64 {
        let classes = self.classes.all_used().into_iter();
        classes
            .filter_map(|index| self.classes.used(index))
            .flat_map(|class| [class.sent, class.received, class.consumed])
            .fold(0, u64::wrapping_add)
    }

    /// PROTOCOL 8.1: what nobody goes on with does not keep a drained session.
    pub(super) fn drain_idle(&mut self, now: Timestamp) {
        let moved = self.moved();
        if std::mem::replace(&mut self.drain_moved, moved) != moved {
            self.timers
                .set(TimerKind::DrainIdle, now + self.config.max_drain_idle);
            return;
        }
        let cause = Cause::LocalClose {
            code: ErrorCode::DRAINED,
            reason: "drained, but for what nobody went on with".to_owned(),
        };
        self.end_session(now, cause);
    }

    fn wake_openers(&mut self) {
        for class in Class::ALL {
            for kind in [Kind::Bi, Kind::Uni] {
                let Some(place) = opening_index(kind) else {
                    continue;
                };
                if std::mem::take(&mut self.classes.at(class.index()).opening[place].blocked) {
                    self.events.push_back(Event::Credit { kind, class });
                }
            }
        }
        self.messages_unblocked();
    }

    /// Whether nothing written is unacknowledged and no stream is open.
    pub fn is_settled(&self) -> bool {
        self.buffered == 0
            && self.streams.only_message_channels()
            && !self.datagrams.has_outgoing()
            && !self.has_early_messages()
    }

    /// The drained session's last step, looked for wherever something may have finished.
    pub(super) fn close_if_drained(&mut self, now: Timestamp) {
        if !self.draining() || self.state.is_terminal() || !self.is_settled() {
            return;
        }
        // PROTOCOL 8.1: nothing that this end opened is left, wherever it still may have been on its way.
        if self.peer_draining && !std::mem::replace(&mut self.done_said, true) {
            self.done_due = true;
        }
        if self.goaway_told && self.peer_done {
            sometimes!(self.marks, Drained);
            let cause = Cause::LocalClose {
                code: ErrorCode::DRAINED,
                reason: "drained".to_owned(),
            };
            self.end_session(now, cause);
        }
    }

    /// PROTOCOL 8.2: the peer's CLOSE.
    pub(super) fn peer_closed(&mut self, now: Timestamp, code: ErrorCode, reason: &str) {
        self.end_session(
            now,
            Cause::PeerClose {
                code,
                reason: reason.to_owned(),
            },
        );
    }

    /// The one way out. Everything that waits is told.
    pub(super) fn end_session(&mut self, now: Timestamp, cause: Cause) {
        if self.state.is_terminal() || self.state.after(&cause).is_none() {
            return;
        }
        sometimes!(self.marks, ClosedWithData, self.buffered > 0);
        // Messages first: their outcomes are read from streams that are still there.
        self.settle_messages();
        self.close_reason = match &cause {
            Cause::LocalClose { code, reason } => Some((*code, reason.clone())),
            Cause::PeerMisbehaved { code, detail } => Some((*code, shorten(detail).to_owned())),
            Cause::HandshakeTimeout | Cause::ResumeTimeout => Some((ErrorCode::TIMEOUT, String::new())),
            _ => None,
        };
        let say_close = self.close_reason.is_some();
        let error = match &cause {
            Cause::PeerMisbehaved { .. } => Some(super::PathError::Abandoned(ErrorCode::PROTOCOL.value())),
            _ => None,
        };
        self.transition(cause);
        self.timers.clear_all();
        let slots: Vec<usize> = self.paths.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let path = &mut self.paths[slot];
            path.close_due = say_close && path.may_send();
            if path.stage != Stage::Closing {
                self.retire_path(now, slot, PathEnd::Local, error.clone());
            }
        }
        self.unsettled.clear();
        self.wake_everyone();
    }

    fn wake_everyone(&mut self) {
        for key in self.streams.keys() {
            if let Some(stream) = self.streams.get_mut(key)
                && stream.flags.take(Flags::READ_BLOCKED)
            {
                self.events.push_back(Event::Readable(key));
            }
            self.tell_writable(key);
            self.free_if_done(key.slot);
        }
        self.wake_openers();
        for class in Class::ALL {
            self.events.push_back(Event::MessageReady(class));
        }
        self.events.push_back(Event::DatagramReady);
    }
}

fn shorten(text: &str) -> &str {
    let mut end = text.len().min(MAX_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
