//! UDP sockets of tokio as [`UdpSocket`].

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use sheetbend_runtime::os::{self, MAX_BUFFERS, Udp};
use sheetbend_runtime::{Datagrams, Received, UdpSocket};
use tokio::io::Interest;

struct TokioUdp {
    socket: tokio::net::UdpSocket,
    udp: Udp,
}

/// Binds a socket within the current tokio runtime.
pub(crate) fn bind(address: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
    let (socket, udp) = os::bind_udp(address)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    Ok(Arc::new(TokioUdp { socket, udp }))
}

impl UdpSocket for TokioUdp {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }

    fn try_recv(&self, buffers: &mut [IoSliceMut<'_>], received: &mut [Received]) -> io::Result<usize> {
        // Fewer than there is room for means that there are no more: as with streams, tokio is told so at once, and
        // the system call that would only say it is saved.
        let most = buffers.len().min(received.len()).min(MAX_BUFFERS);
        let mut short = None;
        let result = self.socket.try_io(Interest::READABLE, || {
            let count = self.udp.recv((&self.socket).into(), buffers, received)?;
            if count < most {
                short = Some(count);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(count)
        });
        short.map_or(result, Ok)
    }

    fn try_send(&self, datagrams: &Datagrams<'_>) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || {
            self.udp.send((&self.socket).into(), datagrams)
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_segments(&self) -> usize {
        self.udp.max_segments()
    }

    fn keeps_whole(&self) -> bool {
        self.udp.keeps_whole()
    }
}
