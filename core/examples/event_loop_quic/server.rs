//! The server's loop.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use sheetbend_core::carrier::quic::{Arrival, ConnectionEvent, ConnectionHandle, QuicSettings, ServerQuic};
use sheetbend_core::carrier::tls::ServerTls;
use sheetbend_core::server::registry::{self, Ended};
use sheetbend_core::server::{Acceptor, Routed, SessionToken};
use sheetbend_core::session::{Cause, Config, Delivery, Event, Incoming, State};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::Class;

use crate::end::End;
use crate::link::Link;
use crate::udp::Udp;
use crate::{Anyhow, PATIENCE, clock, seed};

/// A server: connections come in, the acceptor says whose they are.
pub(crate) struct Server {
    pub(crate) udp: Udp,
    acceptor: Acceptor,
    /// Connections whose first message is not there yet, nor at first their handshake.
    waiting: Vec<(Option<Incoming>, Link)>,
    ends: BTreeMap<SessionToken, End>,
}

impl Server {
    pub(crate) fn bind(address: SocketAddr, tls: &ServerTls) -> Anyhow<Server> {
        let quic = ServerQuic::new(
            tls,
            &QuicSettings {
                zero_rtt: false,
                ..QuicSettings::default()
            },
        );
        let (registry, config) = (registry::Config::default(), Config::default());
        Ok(Server {
            udp: Udp::bind(address, Some(quic))?,
            acceptor: Acceptor::new(registry, config, seed()?, clock()),
            waiting: Vec::new(),
            ends: BTreeMap::new(),
        })
    }

    /// Serves for ever.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        loop {
            let ends = self.ends.values_mut().filter_map(End::deadline);
            let waiting = self.waiting.iter_mut().flat_map(|(_, link)| {
                let late = link.closing.unwrap_or(link.since + PATIENCE);
                link.connection.poll_timeout().into_iter().chain([late])
            });
            let deadline = ends.chain(waiting).chain(self.acceptor.poll_timeout()).min();
            self.udp.wait(deadline)?;
            let now = clock();
            for arrival in self.udp.receive(now) {
                match arrival {
                    Arrival::New(connection) => self.waiting.push((None, Link::new(*connection, now))),
                    Arrival::Event(handle, event) => self.hand_on(now, handle, event),
                    Arrival::Response(_) => {}
                }
            }
            self.route(now);
            self.turn(now);
        }
    }

    fn hand_on(&mut self, now: Timestamp, handle: ConnectionHandle, event: ConnectionEvent) {
        let mut waiting = self.waiting.iter_mut().map(|(_, link)| &mut link.connection);
        let connection = waiting
            .find(|connection| connection.handle() == handle)
            .or_else(|| self.ends.values_mut().find_map(|end| end.connection(handle)));
        if let Some(connection) = connection {
            connection.handle_events(now, [event]);
        }
    }

    /// Hands connections whose first message has come to their sessions.
    fn route(&mut self, now: Timestamp) {
        for (mut incoming, mut link) in std::mem::take(&mut self.waiting) {
            link.fill(now);
            if link.closing.is_some() && link.end.is_none() {
                // It was refused, and is to hear why.
                link.flush();
                link.transmit(now, &mut self.udp);
                self.waiting.push((None, link));
                continue;
            }
            if link.up && link.closing.is_none() && incoming.is_none() {
                self.udp.endpoint.settled(link.connection.handle());
                incoming = Some(Incoming::new(now, link.info()));
            }
            let whole = match &mut incoming {
                Some(incoming) => incoming.handle_input(&mut link.input),
                None => Ok(false),
            };
            match (whole, incoming) {
                (Ok(true), Some(incoming)) => self.attach(now, incoming, link),
                (Ok(_), incoming) if link.end.is_none() && now < link.since + PATIENCE => {
                    link.transmit(now, &mut self.udp);
                    self.waiting.push((incoming, link));
                }
                _ => link.close(now, &mut self.udp),
            }
        }
    }

    fn attach(&mut self, now: Timestamp, incoming: Incoming, mut link: Link) {
        let refused = match self.acceptor.route(now, &incoming) {
            Routed::Reject(rejected) => rejected,
            Routed::New { token, session } => {
                let (session, links) = (*session, Vec::new());
                let end = self.ends.entry(token).or_insert(End { session, links });
                match end.session.accept_path(now, incoming) {
                    Ok(key) => return end.links.push((key, link)),
                    Err(rejected) => rejected,
                }
            }
            Routed::Existing { token } => {
                let Some(end) = self.ends.get_mut(&token) else {
                    return link.close(now, &mut self.udp);
                };
                match end.session.accept_path(now, incoming) {
                    Ok(key) => return end.links.push((key, link)),
                    Err(rejected) => rejected,
                }
            }
        };
        link.output
            .extend(link.first.map(|first| (first, refused.record)));
        link.closing = Some(now + PATIENCE);
        link.flush();
        link.transmit(now, &mut self.udp);
        self.waiting.push((None, link));
    }

    fn turn(&mut self, now: Timestamp) {
        for (&token, end) in &mut self.ends {
            end.take_in(now, &mut self.udp);
            while let Some(event) = end.session.poll_event() {
                let Event::State { to, cause, .. } = event else {
                    continue;
                };
                match (to, cause) {
                    (State::Connected, _) => drop(self.acceptor.confirmed(now, token)),
                    (State::Failed, Cause::ResumeTimeout) => self.acceptor.ended(now, token, Ended::Expired),
                    (State::Closed | State::Failed, _) => self.acceptor.ended(now, token, Ended::Closed),
                    _ => {}
                }
            }
            // What this server does with messages: it sends them back.
            while let Ok(Some(message)) = end.session.recv_message(now, Class::EVENTS) {
                let payload = message.payload;
                let _ = end
                    .session
                    .send_message(now, Class::EVENTS, Delivery::Ordered, payload, false);
            }
            end.send_out(now, &mut self.udp);
        }
        let ended = |end: &End| end.session.state().is_terminal() && end.links.is_empty();
        self.ends.retain(|_, end| !ended(end));
        self.acceptor.handle_timeout(now);
        while let Some(token) = self.acceptor.poll_expired() {
            self.ends.remove(&token);
        }
    }
}
