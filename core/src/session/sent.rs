//! What each unacknowledged record held: ranges and values, never bytes (PROTOCOL 4.2).

use std::collections::VecDeque;

use super::keys::StreamKey;
use crate::time::Timestamp;
use crate::wire::{Class, Kind};

/// Something in a record that must arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Stream {
        key: StreamKey,
        offset: u64,
        len: u32,
        fin: bool,
    },
    Reset {
        key: StreamKey,
    },
    Stop {
        key: StreamKey,
    },
    MaxStreamData {
        key: StreamKey,
        value: u64,
    },
    MaxData {
        class: Class,
        value: u64,
    },
    MaxStreams {
        class: Class,
        kind: Kind,
        value: u64,
    },
    Datagram {
        number: u64,
    },
    Abandon {
        path: u64,
    },
    Status {
        path: u64,
        seq: u64,
    },
    GoAway {
        /// The one that says that nothing is left.
        done: bool,
    },
}

/// One record that was sent and not yet acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentRecord {
    pub(super) sent_at: Timestamp,
    /// Bytes the path had delivered when this was sent, and when it had: a delivery rate sample.
    pub(super) delivered: u64,
    pub(super) delivered_at: Timestamp,
    pub(super) bytes: u32,
    pub(super) items: u32,
    /// Holds something to acknowledge.
    pub(super) eliciting: bool,
    /// The sender had nothing more to send: no evidence about the path's rate.
    pub(super) app_limited: bool,
    /// Its items were sent again on another path.
    pub(super) reinjected: bool,
}

/// The unacknowledged records of one lane, in order.
#[derive(Debug, Default)]
pub(super) struct SentLog {
    /// Records acknowledged so far; the front of `records` has this number.
    pub(super) acknowledged: u64,
    pub(super) records: VecDeque<SentRecord>,
    pub(super) items: VecDeque<Item>,
    /// Bytes of eliciting records under way.
    pub(super) in_flight: u64,
    /// Records under way that elicit no acknowledgement.
    pub(super) silent: usize,
}

impl SentLog {
    /// Records sent so far on the lane.
    pub(super) fn sent(&self) -> u64 {
        self.acknowledged + self.records.len() as u64
    }

    pub(super) fn push(&mut self, record: SentRecord) {
        if record.eliciting {
            self.in_flight += u64::from(record.bytes);
        } else {
            self.silent += 1;
        }
        self.records.push_back(record);
    }

    /// Takes the front record; its items are the first `items` of the item queue.
    pub(super) fn pop(&mut self) -> Option<SentRecord> {
        let record = self.records.pop_front()?;
        self.acknowledged += 1;
        if record.eliciting {
            self.in_flight = self.in_flight.saturating_sub(u64::from(record.bytes));
        } else {
            self.silent -= 1;
        }
        Some(record)
    }

    /// Takes all items; the records go on counting, with nothing in them.
    pub(super) fn forget_items(&mut self) -> VecDeque<Item> {
        for record in &mut self.records {
            record.items = 0;
        }
        std::mem::take(&mut self.items)
    }

    /// Gives back what an idle lane does not need.
    pub(super) fn shrink(&mut self) {
        self.records.shrink_to_fit();
        self.items.shrink_to_fit();
    }
}
