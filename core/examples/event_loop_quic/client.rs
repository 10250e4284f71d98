//! The client's loop.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use sheetbend_core::carrier::quic::{Arrival, ClientQuic, Dir, QuicSettings};
use sheetbend_core::carrier::tls::{ClientTls, Trust};
use sheetbend_core::session::{Config, Delivery, Event, PathEnd, Session, State};
use sheetbend_core::wire::{Class, ErrorCode};

use crate::end::End;
use crate::link::Link;
use crate::udp::Udp;
use crate::{Anyhow, clock, seed};

/// A client: one message at a time, over whichever connection there is.
pub(crate) struct Client {
    pub(crate) udp: Udp,
    quic: ClientQuic,
    server: SocketAddr,
    end: End,
    /// A connection in its handshake, which is no path yet.
    begun: Option<Link>,
    pub(crate) connections: usize,
}

impl Client {
    pub(crate) fn new(server: SocketAddr, trust: &Trust) -> Anyhow<Client> {
        let (session, links) = (Session::client(Config::default(), seed()?, clock()), Vec::new());
        Ok(Client {
            udp: Udp::bind(SocketAddr::new(server.ip(), 0), None)?,
            quic: ClientQuic::new(&ClientTls::new(trust)?, &QuicSettings::default())?,
            server,
            end: End { session, links },
            begun: None,
            connections: 0,
        })
    }

    /// Sends a message, and waits for the next one.
    pub(crate) fn ask(&mut self, text: &str) -> Anyhow<Vec<u8>> {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let (session, now) = (&mut self.end.session, clock());
        session.send_message(now, Class::EVENTS, Delivery::Ordered, payload, false)?;
        loop {
            self.turn()?;
            if let Some(answer) = self.end.session.recv_message(clock(), Class::EVENTS)? {
                return Ok(answer.payload.into());
            }
        }
    }

    /// As if the machine had moved to another network: its connections go on from there.
    pub(crate) fn move_elsewhere(&mut self) -> io::Result<()> {
        self.udp.rebind()?;
        for (_, link) in &mut self.end.links {
            link.connection.local_address_changed();
        }
        Ok(())
    }

    /// As if their state had been lost: another connection takes the session on.
    pub(crate) fn lose_connections(&mut self) {
        for (_, link) in &mut self.end.links {
            link.end = Some(PathEnd::Reset);
        }
    }

    /// Says goodbye, so that the server need not keep the session for somebody who comes back.
    pub(crate) fn close(&mut self) -> Anyhow<()> {
        self.end.session.close(clock(), ErrorCode::NONE, "done");
        while !self.end.links.is_empty() {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Anyhow<()> {
        let now = clock();
        if self.begun.is_none() && self.end.links.is_empty() && self.end.session.wants_path() {
            // A connection that fails does so after a while: that is pause enough for one client.
            let begun = self
                .udp
                .endpoint
                .connect(now, &self.quic, self.server, "localhost")?;
            self.begun = Some(Link::new(begun, now));
            self.connections += 1;
        }
        if let Some(link) = &mut self.begun {
            link.transmit(now, &mut self.udp);
        }
        self.end.send_out(now, &mut self.udp);
        let begun = self
            .begun
            .as_mut()
            .and_then(|link| link.connection.poll_timeout());
        let deadline = self.end.deadline().into_iter().chain(begun).min();
        self.udp.wait(deadline)?;
        let now = clock();
        for arrival in self.udp.receive(now) {
            let Arrival::Event(handle, event) = arrival else {
                continue;
            };
            let begun = self.begun.as_mut().map(|link| &mut link.connection);
            let begun = begun.filter(|connection| connection.handle() == handle);
            if let Some(connection) = begun.or_else(|| self.end.connection(handle)) {
                connection.handle_events(now, [event]);
            }
        }
        if let Some(mut link) = self.begun.take() {
            link.fill(now);
            match link.end {
                Some(_) => link.close(now, &mut self.udp),
                None if link.up => {
                    // Its handshake is done, and with it there is what JOIN is bound to.
                    link.first = link.connection.open(Dir::Bi);
                    let path = self.end.session.open_path(now, link.info())?;
                    self.end.links.push((path, link));
                }
                None => self.begun = Some(link),
            }
        }
        self.end.take_in(now, &mut self.udp);
        while let Some(event) = self.end.session.poll_event() {
            if let Event::State {
                to: State::Failed,
                cause,
                ..
            } = event
            {
                return Err(format!("the session has failed: {cause:?}").into());
            }
        }
        Ok(())
    }
}
