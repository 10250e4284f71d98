//! The lanes of a link: what of a session's output goes on which, and what comes on them.

use std::sync::Arc;

use sheetbend_core::session::{LaneRoom, LaneRun, PathKey, Session, Transmit};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;

use crate::quic::Lanes;

/// Output of this size means that the session may have more.
const LARGE_OUTPUT: usize = 64 * 1024;

/// A link's lanes.
pub(crate) struct Laned {
    lanes: Arc<dyn Lanes>,
    /// What of the output goes where.
    runs: Vec<LaneRun>,
    /// What the session knows.
    known: LaneRoom,
    full: bool,
}

impl Laned {
    pub(crate) fn new(lanes: Arc<dyn Lanes>) -> Box<Laned> {
        lanes.adopt();
        Box::new(Laned {
            lanes,
            runs: Vec::new(),
            known: LaneRoom::default(),
            full: false,
        })
    }

    /// Whether no more output can be taken at present.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Goes on from another address, if this end has an address of its own for the path.
    pub(crate) fn rebind(&self) {
        self.lanes.rebind();
    }

    /// Hands what came to the session.
    pub(crate) fn deliver(&mut self, now: Timestamp, core: &mut Session, key: PathKey) {
        while let Some((name, how)) = self.lanes.take_move() {
            core.handle_path_moved(key, name, how);
        }
        if let Some(taken) = self.lanes.take_early() {
            core.handle_early_start(key, taken);
        }
        if core.is_suspect(key) {
            core.handle_carrier_acks(key, self.lanes.acknowledgements());
        }
        while let Some(lane) = self.lanes.take_lost() {
            core.handle_lane_lost(now, key, lane);
        }
        while let Some(datagram) = self.lanes.recv_datagram() {
            let _ = core.handle_datagram_input(now, key, &datagram);
        }
        if core.takes_lanes(key) {
            // An error ends the path, which the session reports.
            self.lanes.read(&mut |lane, bytes, capacity| {
                core.handle_lane_input(now, key, lane, bytes, capacity).is_ok()
            });
        }
    }

    /// Asks the session for output.
    pub(crate) fn pull(
        &mut self,
        now: Timestamp,
        core: &mut Session,
        key: PathKey,
        output: &mut OutBuffer,
    ) -> Transmit {
        let room = self.lanes.room();
        if room != self.known {
            self.known = room;
            core.set_lanes(key, room);
        }
        loop {
            let room = room.max_datagram.min(self.lanes.datagram_space());
            match core.poll_datagram(now, key, room) {
                Some(datagram) => self.lanes.send_datagram(datagram),
                None => break,
            }
        }
        core.poll_transmit_lanes(now, key, output, &mut self.runs)
    }

    /// Takes all output. Tells whether the session may have more at once.
    pub(crate) fn write(&mut self, output: &mut OutBuffer) -> bool {
        let large = output.len() >= LARGE_OUTPUT;
        self.full = !self.lanes.write(output, &mut self.runs);
        if self.runs.capacity() > 64 {
            self.runs.shrink_to(64);
        }
        large && !self.full
    }

    /// Goes on with what had no room. Tells whether there is room.
    pub(crate) fn renew(&mut self) -> bool {
        if self.full {
            self.full = !self.lanes.has_room();
        }
        !self.full
    }
}
