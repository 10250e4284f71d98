//! A UDP socket with its end of QUIC.

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::BytesMut;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use sheetbend_core::carrier::quic::{Arrival, Endpoint, EndpointSettings, From, ServerQuic};
use sheetbend_core::time::Timestamp;

use crate::{Anyhow, ORIGIN, clock, seed};

/// Datagrams taken in one turn: a peer that never stops does not keep the others waiting.
const AT_ONCE: usize = 256;

/// A UDP socket, and what knows for which connection a datagram is.
pub(crate) struct Udp {
    pub(crate) poll: Poll,
    pub(crate) socket: UdpSocket,
    /// mio tells of new datagrams once: from then on there may be some, until a read finds none.
    pub(crate) readable: bool,
    pub(crate) endpoint: Endpoint,
}

impl Udp {
    pub(crate) fn bind(address: SocketAddr, server: Option<ServerQuic>) -> Anyhow<Udp> {
        let (poll, mut socket) = (Poll::new()?, UdpSocket::bind(address)?);
        poll.registry()
            .register(&mut socket, Token(0), Interest::READABLE)?;
        let origin = *ORIGIN;
        let epoch = SystemTime::UNIX_EPOCH.elapsed()?.saturating_sub(origin.elapsed());
        let endpoint = Endpoint::new(EndpointSettings {
            seed: seed()?,
            origin,
            epoch,
            keeps_whole: false,
            server,
        })?;
        Ok(Udp {
            poll,
            socket,
            readable: false,
            endpoint,
        })
    }

    /// Goes on from another port.
    pub(crate) fn rebind(&mut self) -> io::Result<()> {
        self.poll.registry().deregister(&mut self.socket)?;
        self.socket = UdpSocket::bind(SocketAddr::new(self.socket.local_addr()?.ip(), 0))?;
        self.readable = true;
        self.poll
            .registry()
            .register(&mut self.socket, Token(0), Interest::READABLE)
    }

    pub(crate) fn wait(&mut self, deadline: Option<Timestamp>) -> io::Result<()> {
        let deadline = if self.readable { Some(clock()) } else { deadline };
        let mut events = Events::with_capacity(4);
        self.poll
            .poll(&mut events, deadline.map(|at| at.since(clock())))?;
        self.readable |= !events.is_empty();
        Ok(())
    }

    /// What has come: for connections that there are, and new ones.
    pub(crate) fn receive(&mut self, now: Timestamp) -> Vec<Arrival> {
        let (mut block, mut arrivals) = ([0; 65_536], Vec::new());
        for _ in 0..AT_ONCE {
            let (len, remote) = match self.socket.recv_from(&mut block) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                // Somebody's refusal of an earlier datagram.
                Err(_) => continue,
            };
            let from = From {
                remote,
                local_ip: None,
                ecn: None,
            };
            let mut response = Vec::new();
            match self
                .endpoint
                .handle_datagram(now, from, BytesMut::from(&block[..len]), &mut response)
            {
                Some(Arrival::Response(to)) => {
                    drop(self.socket.send_to(&response[..to.size], to.destination))
                }
                arrival => arrivals.extend(arrival),
            }
        }
        arrivals
    }
}
