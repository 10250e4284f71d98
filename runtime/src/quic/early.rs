//! What goes in a connection's first flight, before its handshake is done (0-RTT). PROTOCOL 14.8.

use std::io;
use std::mem;

use bytes::Bytes;
use sheetbend_core::carrier::quic::{Dir, Side};

use super::wire::Wire;

/// Where the first flight of a client stands.
#[derive(Default)]
pub(super) enum Early {
    /// Nothing went in it.
    #[default]
    No,
    /// This went on lane 0, and may have to go again: HELLO, and as much as early data may be (PROTOCOL 5.6).
    Sent(Vec<Bytes>),
    /// The server took it, or all of it was sent again.
    Known { taken: bool },
}

impl Early {
    /// Keeps the first `count` bytes of what was to be written on lane 0.
    pub(super) fn keep(&mut self, chunks: Vec<Bytes>, count: usize) {
        let Early::Sent(kept) = self else { return };
        let mut left = count;
        for mut chunk in chunks {
            chunk.truncate(left);
            left -= chunk.len();
            if !chunk.is_empty() {
                kept.push(chunk);
            }
        }
    }
}

impl Wire {
    /// Begins before the handshake is done, where the server is known from before. Tells whether it does.
    pub(super) fn begin_early(&mut self) -> io::Result<bool> {
        if !self.is_native() || !self.connection.is_early() {
            return Ok(false);
        }
        self.open_first()?;
        let begins = self.first.id.is_some();
        if begins {
            self.early = Early::Sent(Vec::new());
        }
        Ok(begins)
    }

    /// Server: whether a path may begin though the handshake is not done: what has come is a first flight.
    pub(super) fn is_begun_early(&self) -> bool {
        self.connection.side() == Side::Server && self.is_native() && self.connection.is_early()
    }

    /// Whether what is written on lane 0 may have to be written again.
    pub(super) fn keeps_sent(&self) -> bool {
        matches!(self.early, Early::Sent(_))
    }

    /// The handshake is done. If the server did not take the first flight, its streams are gone: they are opened again, and
    /// what went on lane 0 goes again, the same bytes at the same place. Nothing went on others.
    pub(super) fn settle_early(&mut self) {
        let Early::Sent(kept) = &mut self.early else {
            return;
        };
        let kept = mem::take(kept);
        let taken = self.connection.is_early_taken();
        self.early = Early::Known { taken };
        if taken {
            return;
        }
        self.first.id = self.connection.open(Dir::Bi);
        self.first.blocked = false;
        self.reopen_lanes(kept);
    }

    /// Whether the server took the first flight; told once, when that is known.
    pub(super) fn take_early(&mut self) -> Option<bool> {
        let Early::Known { taken } = self.early else {
            return None;
        };
        self.early = Early::No;
        Some(taken)
    }
}
