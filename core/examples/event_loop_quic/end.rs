//! One end of a session with its connections.

use sheetbend_core::carrier::quic::{Connection, ConnectionHandle};
use sheetbend_core::session::{PathKey, Session};
use sheetbend_core::time::Timestamp;

use crate::link::Link;
use crate::udp::Udp;

/// One end of a session with its connections, the same for client and server.
pub(crate) struct End {
    pub(crate) session: Session,
    pub(crate) links: Vec<(PathKey, Link)>,
}

impl End {
    pub(crate) fn connection(&mut self, handle: ConnectionHandle) -> Option<&mut Connection> {
        let mut connections = self.links.iter_mut().map(|(_, link)| &mut link.connection);
        connections.find(|connection| connection.handle() == handle)
    }

    /// Input before time, as `event_loop.rs` explains.
    pub(crate) fn take_in(&mut self, now: Timestamp, udp: &mut Udp) {
        for (key, link) in &mut self.links {
            link.fill(now);
            if !link.input.is_empty() {
                let _ = self.session.handle_input(now, *key, &mut link.input, 0);
            }
            if self.session.takes_lanes(*key) {
                link.fill_lanes(now, &mut self.session, *key);
            }
            if let Some(end) = link.end {
                self.session.handle_path_closed(now, *key, end);
            }
        }
        for (_, link) in self.links.extract_if(.., |(_, link)| link.end.is_some()) {
            link.close(now, udp);
        }
        if self.session.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.session.handle_timeout(now);
        }
    }

    pub(crate) fn send_out(&mut self, now: Timestamp, udp: &mut Udp) {
        for (key, link) in &mut self.links {
            link.flush();
            link.pull(now, &mut self.session, *key);
            link.transmit(now, udp);
        }
    }

    pub(crate) fn deadline(&mut self) -> Option<Timestamp> {
        let links = self.links.iter_mut().flat_map(|(_, link)| {
            let ended = link.end.map(|_| Timestamp::ZERO);
            [ended, link.closing, link.connection.poll_timeout()]
                .into_iter()
                .flatten()
        });
        let session = self.session.poll_timeout().map(|(at, _)| at);
        links.chain(session).min()
    }
}
