//! Datagrams.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{Body, Packet};
use crate::host::HostId;
use crate::state::{Shared, State};

/// Bytes that wait to be received at one socket before further datagrams are dropped.
const RECEIVE_BUFFER: usize = 208 << 10;
/// The longest datagram.
const MAX_DATAGRAM: usize = 65_507;

pub(crate) struct UdpState {
    port: u16,
    received: VecDeque<(SocketAddrV4, Bytes)>,
    held: usize,
    reader: Option<Waker>,
}

impl State {
    pub(crate) fn bind_udp(&mut self, host: HostId, port: u16) -> io::Result<usize> {
        let port = match port {
            0 => loop {
                let port = self.hosts[host.index()].next_port();
                if !self.net.udp_ports.contains_key(&(host, port)) {
                    break port;
                }
            },
            port => port,
        };
        if self.net.udp_ports.contains_key(&(host, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let index = self.net.udp.insert(UdpState {
            port,
            received: VecDeque::new(),
            held: 0,
            reader: None,
        });
        self.net.udp_ports.insert((host, port), index);
        Ok(index)
    }

    pub(crate) fn forget_udp(&mut self, host: HostId) {
        let ports = self.net.udp_ports.range((host, 0)..=(host, u16::MAX));
        let sockets: Vec<(u16, usize)> = ports.map(|((_, port), &index)| (*port, index)).collect();
        for (port, index) in sockets {
            let socket = self.net.udp.remove(index);
            self.net.udp_ports.remove(&(host, port));
            self.wakes.extend(socket.reader);
        }
    }

    pub(crate) fn datagram_arrived(
        &mut self,
        host: HostId,
        source: SocketAddrV4,
        destination: SocketAddrV4,
        data: Bytes,
    ) {
        let Some(&index) = self.net.udp_ports.get(&(host, destination.port())) else {
            return;
        };
        let socket = &mut self.net.udp[index];
        if socket.held + data.len() > RECEIVE_BUFFER {
            return;
        }
        socket.held += data.len();
        socket.received.push_back((source, data));
        self.wakes.extend(socket.reader.take());
    }
}

/// A simulated UDP socket.
pub struct UdpSocket {
    shared: Arc<Shared>,
    host: HostId,
    index: usize,
    incarnation: u32,
    /// As it was asked for: a socket hears on every interface.
    ip: IpAddr,
    /// Whether somebody has asked if there is room.
    asked: AtomicBool,
}

impl UdpSocket {
    pub(crate) fn bind(shared: &Arc<Shared>, host: HostId, address: SocketAddr) -> io::Result<UdpSocket> {
        let port = address.port();
        let (index, incarnation) = shared.with(|state| {
            let incarnation = state.hosts[host.index()].incarnation;
            state.bind_udp(host, port).map(|index| (index, incarnation))
        })?;
        Ok(UdpSocket {
            shared: shared.clone(),
            host,
            index,
            incarnation,
            ip: address.ip(),
            asked: AtomicBool::new(false),
        })
    }

    fn live<R>(&self, f: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        self.shared.with(|state| {
            if state.hosts[self.host.index()].incarnation != self.incarnation {
                return Err(io::ErrorKind::NotConnected.into());
            }
            f(state)
        })
    }

    /// The port it is bound to.
    ///
    /// # Errors
    /// `NotConnected` when its host has crashed since.
    pub fn local_port(&self) -> io::Result<u16> {
        self.live(|state| Ok(state.net.udp[self.index].port))
    }

    /// As on a reactor: a new socket has no room to begin with, until somebody asks.
    pub(super) fn has_room(&self, asks: bool) -> bool {
        self.asked.fetch_or(asks, Ordering::Relaxed) || asks
    }

    pub(super) fn local_ip(&self) -> IpAddr {
        self.ip
    }

    /// Sends a datagram. Whether it arrives, nobody tells.
    ///
    /// # Errors
    /// When no network leads there, or the datagram is too long for UDP.
    pub fn send_to(&self, data: &[u8], to: SocketAddrV4) -> io::Result<()> {
        if data.len() > MAX_DATAGRAM {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "longer than a datagram may be",
            ));
        }
        self.live(|state| {
            let from = state.route(self.host, *to.ip())?;
            let source = SocketAddrV4::new(state.net.attachment(from).ip, state.net.udp[self.index].port);
            let packet = Packet {
                source,
                destination: to,
                body: Body::Udp(Bytes::copy_from_slice(data)),
            };
            state.transmit(packet, from);
            Ok(())
        })
    }

    /// The next datagram, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn try_recv_from(&self) -> io::Result<(Bytes, SocketAddrV4)> {
        self.live(|state| {
            let socket = &mut state.net.udp[self.index];
            let (source, data) = socket.received.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
            socket.held -= data.len();
            state.progress += 1;
            Ok((data, source))
        })
    }

    /// Ready when a datagram is there; otherwise registers the waker of `cx`.
    ///
    /// # Errors
    /// `NotConnected` when its host has crashed since.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.live(|state| {
            let socket = &mut state.net.udp[self.index];
            if socket.received.is_empty() {
                socket.reader = Some(cx.waker().clone());
                return Ok(false);
            }
            Ok(true)
        });
        match ready {
            Ok(false) => Poll::Pending,
            Ok(true) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// The next datagram and where it came from.
    ///
    /// # Errors
    /// `NotConnected` when its host has crashed since.
    pub async fn recv_from(&self) -> io::Result<(Bytes, SocketAddrV4)> {
        poll_fn(|cx| self.poll_readable(cx)).await?;
        self.try_recv_from()
    }
}

impl std::ops::Drop for UdpSocket {
    fn drop(&mut self) {
        let _ = self.live(|state| {
            let socket = state.net.udp.remove(self.index);
            state.net.udp_ports.remove(&(self.host, socket.port));
            Ok(())
        });
    }
}
