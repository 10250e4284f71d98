//! UDP sockets of tokio as [`UdpSocket`], with what quinn-udp knows of the system: many datagrams in one call.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use sheetbend_runtime::{Datagrams, Received, UdpSocket};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;

/// Bytes that the system is asked to keep for a socket in each direction: what comes while its task waits for its
/// turn. Less than that is what it is allowed.
const SYSTEM_BUFFER: usize = 4 << 20;
/// Buffers that are filled by one call at most.
const MAX_BUFFERS: usize = 32;

struct TokioUdp {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
}

/// Binds a socket. Of IPv6 it is the one family alone, as the streams of the same address are not in the way then.
pub(crate) fn bind(address: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let socket = tokio::net::UdpSocket::from_std(socket.into())?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    let options = SockRef::from(&socket);
    // A system that gives less than that is not worth an error.
    let _ = options.set_recv_buffer_size(SYSTEM_BUFFER);
    let _ = options.set_send_buffer_size(SYSTEM_BUFFER);
    Ok(Arc::new(TokioUdp { socket, state }))
}

impl UdpSocket for TokioUdp {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }

    fn try_recv(&self, buffers: &mut [IoSliceMut<'_>], received: &mut [Received]) -> io::Result<usize> {
        let most = buffers.len().min(received.len()).min(MAX_BUFFERS);
        let mut metas = [RecvMeta::default(); MAX_BUFFERS];
        // Fewer than there is room for means that there are no more: as with streams, tokio is told so at once, and
        // the call that would only say so is saved.
        let mut short = None;
        let result = self.socket.try_io(Interest::READABLE, || {
            let socket = UdpSockRef::from(&self.socket);
            let count = self
                .state
                .recv(socket, &mut buffers[..most], &mut metas[..most])?;
            if count < most {
                short = Some(count);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(count)
        });
        let count = short.map_or(result, Ok)?;
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

    fn try_send(&self, datagrams: &Datagrams<'_>) -> io::Result<()> {
        let transmit = Transmit {
            destination: datagrams.remote,
            ecn: EcnCodepoint::from_bits(datagrams.ecn),
            contents: datagrams.contents,
            segment_size: datagrams.segment,
            src_ip: datagrams.local_ip,
        };
        self.socket.try_io(Interest::WRITABLE, || {
            self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn keeps_whole(&self) -> bool {
        !self.state.may_fragment()
    }
}
