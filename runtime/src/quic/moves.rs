//! Addresses that change under a connection: the client's own, or as what translates them lets them appear.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use sheetbend_core::carrier::quic::Connection;
use sheetbend_core::session::Moved;

use super::client::any_address;
use super::wire::Wire;

/// News that wait to be told, at most: a peer may change its address with each datagram.
const MAX_NEWS: usize = 8;

/// Which addresses a connection has, and what became of them.
pub(super) struct Moves {
    remote: SocketAddr,
    /// What had come when the address changed that has not proven itself.
    unproven: Option<Evidence>,
    news: VecDeque<(Option<SocketAddr>, Moved)>,
}

enum Evidence {
    /// This end's own address: anything that comes proves that the peer has the new one.
    Datagrams(u64),
    /// The peer's: it answers a challenge (RFC 9000 §8.2).
    Answers(u64),
}

impl Moves {
    pub(super) fn new(remote: SocketAddr) -> Moves {
        Moves {
            remote,
            unproven: None,
            news: VecDeque::new(),
        }
    }

    pub(super) fn take(&mut self, transport: &str) -> Option<(Option<Arc<str>>, Moved)> {
        let (address, how) = self.news.pop_front()?;
        Some((
            address.map(|address| format!("{transport}://{address}").into()),
            how,
        ))
    }

    fn tell(&mut self, address: Option<SocketAddr>, how: Moved) {
        if self.news.len() >= MAX_NEWS {
            self.news.pop_front();
        }
        self.news.push_back((address, how));
    }

    /// Looks whether something has changed. `timeout`: a deadline has passed, and nothing came.
    pub(super) fn look(&mut self, connection: &Connection, timeout: bool) {
        let remote = connection.remote();
        if remote != self.remote {
            self.remote = remote;
            if timeout {
                self.unproven = None;
                self.tell(Some(remote), Moved::GivenUp);
            } else {
                let answers = connection.stats().frame_rx.path_response;
                self.unproven = Some(Evidence::Answers(answers));
                self.tell(Some(remote), Moved::Changed);
            }
            return;
        }
        let proven = match &self.unproven {
            None => return,
            Some(Evidence::Datagrams(before)) => connection.stats().udp_rx.datagrams > *before,
            Some(Evidence::Answers(before)) => connection.stats().frame_rx.path_response > *before,
        };
        if proven {
            self.unproven = None;
            self.tell(None, Moved::Proven);
        }
    }

    fn rebound(&mut self, connection: &Connection) {
        self.unproven = Some(Evidence::Datagrams(connection.stats().udp_rx.datagrams));
        self.tell(None, Moved::Changed);
    }
}

impl Wire {
    /// Goes on by another socket, if the connection has one to itself; not before its handshake is done (RFC 9000 §9).
    pub(super) fn rebind(&mut self) {
        if !self.alone || !self.connected || self.lost.is_some() {
            return;
        }
        // Where there is none to be had, the old one goes on.
        if let Ok(socket) = self.port.runtime.bind_udp(any_address(self.connection.remote())) {
            self.port.replace_socket(socket);
            self.connection.local_address_changed();
            self.moves.rebound(&self.connection);
        }
    }
}
