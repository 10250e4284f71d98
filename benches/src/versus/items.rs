//! `items`: one call that is answered with 64-byte items without end; items a second where they are received.
//!
//! The client checks their numbers.

use std::io;
use std::sync::Arc;

use super::case::{Better, Case, Metric, Shape, Test, workers_label};
use super::load::{Counter, ECHO_BYTES};

pub(crate) fn cases(workers: usize) -> Vec<Case> {
    let case = |source: Source| Case {
        test: Test::Items,
        shape: Shape::Items { source },
        workers,
        op: "item",
        metrics: vec![Metric {
            setting: format!("64-byte items {}, {}", source.label(), workers_label(workers)),
            unit: "1/s",
            better: Better::Higher,
        }],
    };
    [Source::Task, Source::AtHand].map(case).into()
}

/// Where the server's items come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A task makes one after another, and waits for room for each.
    Task,
    /// They are there before they are asked for: whoever takes an iterator gets one.
    AtHand,
}

impl Source {
    fn label(self) -> &'static str {
        match self {
            Source::Task => "from a task",
            Source::AtHand => "at hand",
        }
    }
}

/// An item.
pub(crate) fn item(serial: u64) -> [u8; ECHO_BYTES] {
    let mut item = [0x5a; ECHO_BYTES];
    item[..8].copy_from_slice(&serial.to_le_bytes());
    item
}

/// Checks and counts items as they come.
pub(crate) struct Receiver {
    next: u64,
    counter: Arc<Counter>,
}

impl Receiver {
    pub(crate) fn new(counter: Arc<Counter>) -> Receiver {
        Receiver { next: 0, counter }
    }

    /// An item has come.
    pub(crate) fn received(&mut self, item: &[u8]) -> io::Result<()> {
        let serial = item.first_chunk().map(|serial| u64::from_le_bytes(*serial));
        if item.len() != ECHO_BYTES || serial != Some(self.next) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an item that is not the next",
            ));
        }
        self.next += 1;
        self.counter.add(1);
        Ok(())
    }
}
