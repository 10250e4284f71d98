//! UDP sockets of `async-io` as [`UdpSocket`].

use std::io::{self, IoSliceMut};
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use async_io::Async;
use sheetbend_runtime::os::{self, MAX_BUFFERS, Udp};
use sheetbend_runtime::{Datagrams, Received, UdpSocket};

use crate::ready::Ready;

struct SmolUdp {
    socket: Async<net::UdpSocket>,
    udp: Udp,
    readable: Ready,
    writable: Ready,
}

pub(crate) fn bind(address: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
    let (socket, udp) = os::bind_udp(address)?;
    Ok(Arc::new(SmolUdp {
        socket: Async::new_nonblocking(socket)?,
        udp,
        readable: Ready::default(),
        writable: Ready::default(),
    }))
}

impl UdpSocket for SmolUdp {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.readable.poll(|| self.socket.poll_readable(cx))
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writable.poll(|| self.socket.poll_writable(cx))
    }

    fn try_recv(&self, buffers: &mut [IoSliceMut<'_>], received: &mut [Received]) -> io::Result<usize> {
        let most = buffers.len().min(received.len()).min(MAX_BUFFERS);
        let result = self.udp.recv(self.socket.get_ref().into(), buffers, received);
        self.readable.tried(most, result)
    }

    fn try_send(&self, datagrams: &Datagrams<'_>) -> io::Result<()> {
        let result = self.udp.send(self.socket.get_ref().into(), datagrams);
        self.writable.tried(0, result.map(|()| 0)).map(drop)
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    fn max_segments(&self) -> usize {
        self.udp.max_segments()
    }

    fn keeps_whole(&self) -> bool {
        self.udp.keeps_whole()
    }
}
