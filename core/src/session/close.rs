//! How a session ends: drain, close, failure (PROTOCOL 8).

use super::Session;
use super::classes::opening_index;
use super::event::{Event, PathEnd};
use super::lifecycle::Cause;
use super::path::Stage;
use super::streams::Flags;
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

    /// Finishes what is open and takes nothing new; the peer is told, and where to go instead. The
    /// session closes by itself once nothing is open and everything is acknowledged.
    pub fn drain(&mut self, now: Timestamp, address: &str) {
        if self.state.is_terminal() || self.drain_address.is_some() {
            return;
        }
        self.drain_address = Some(shorten(address).to_owned());
        sometimes!(self.marks, DrainedWhileOpen, !self.is_settled());
        self.goaway_due = true;
        self.wake_openers();
        self.close_if_drained(now);
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
        self.buffered == 0 && self.streams.only_message_channels() && !self.datagrams.has_outgoing()
    }

    /// The drained session's last step, looked for wherever something may have finished.
    pub(super) fn close_if_drained(&mut self, now: Timestamp) {
        // PROTOCOL 8.1: all that was sent is acknowledged, GOAWAY too. What the peer opened before it read
        // it has come by then.
        if self.goaway_told && self.is_settled() && !self.state.is_terminal() {
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
