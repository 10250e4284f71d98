//! UDP with what quinn-udp knows of the system: many datagrams in one call.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::rt::{Datagrams, Received};

/// Bytes that the system is asked to keep for a socket in each direction: what comes while its task waits for its
/// turn. Less than that is what it is allowed.
const SYSTEM_BUFFER: usize = 4 << 20;
/// Buffers that are filled by one call at most.
pub const MAX_BUFFERS: usize = 32;

/// What is known of a UDP socket, by which it is read and written. A [`UdpSocket`](crate::UdpSocket) of an adapter is
/// this and a reactor's readiness.
#[derive(Debug)]
pub struct Udp(UdpSocketState);

/// Binds a socket that does not block. Of IPv6 it is the one family alone, as the streams of the same address are not in
/// the way then.
///
/// # Errors
/// What the system says.
pub fn bind_udp(address: SocketAddr) -> io::Result<(UdpSocket, Udp)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // A system that gives less than that is not worth an error.
    let _ = socket.set_recv_buffer_size(SYSTEM_BUFFER);
    let _ = socket.set_send_buffer_size(SYSTEM_BUFFER);
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    Ok((socket.into(), Udp(state)))
}

impl Udp {
    /// For [`UdpSocket::try_recv`](crate::UdpSocket::try_recv). Where there were more buffers, as far as
    /// [`MAX_BUFFERS`], there was nothing left to fill them.
    ///
    /// # Errors
    /// `WouldBlock`, or what the system says.
    pub fn recv(
        &self,
        socket: UdpSockRef<'_>,
        buffers: &mut [IoSliceMut<'_>],
        received: &mut [Received],
    ) -> io::Result<usize> {
        let most = buffers.len().min(received.len()).min(MAX_BUFFERS);
        let mut metas = [RecvMeta::default(); MAX_BUFFERS];
        let count = self.0.recv(socket, &mut buffers[..most], &mut metas[..most])?;
        for (one, meta) in received.iter_mut().zip(&metas[..count]) {
            *one = Received {
                remote: meta.addr,
                local_ip: meta.dst_ip,
                ecn: meta.ecn.map_or(0, |ecn| ecn as u8),
                len: meta.len,
                stride: meta.stride,
            };
        }
        Ok(count)
    }

    /// For [`UdpSocket::try_send`](crate::UdpSocket::try_send).
    ///
    /// # Errors
    /// `WouldBlock`, or what the system says of these datagrams.
    pub fn send(&self, socket: UdpSockRef<'_>, datagrams: &Datagrams<'_>) -> io::Result<()> {
        let transmit = Transmit {
            destination: datagrams.remote,
            ecn: EcnCodepoint::from_bits(datagrams.ecn),
            contents: datagrams.contents,
            segment_size: datagrams.segment,
            src_ip: datagrams.local_ip,
        };
        self.0.try_send(socket, &transmit)
    }

    /// For [`UdpSocket::max_segments`](crate::UdpSocket::max_segments).
    pub fn max_segments(&self) -> usize {
        self.0.max_gso_segments()
    }

    /// For [`UdpSocket::keeps_whole`](crate::UdpSocket::keeps_whole).
    pub fn keeps_whole(&self) -> bool {
        !self.0.may_fragment()
    }
}
