//! Simulated UDP as runtimes offer it: several datagrams at a time.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use sheetbend_runtime::{Datagrams, Received};

use super::UdpSocket;

/// Datagrams that are sent in one call at most.
const MAX_SEGMENTS: usize = 16;

impl sheetbend_runtime::UdpSocket for UdpSocket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        UdpSocket::poll_readable(self, cx)
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What finds no room later is lost on the way.
        self.has_room(true);
        Poll::Ready(Ok(()))
    }

    fn try_recv(&self, buffers: &mut [IoSliceMut<'_>], received: &mut [Received]) -> io::Result<usize> {
        let mut count = 0;
        for (buffer, one) in buffers.iter_mut().zip(received) {
            let (data, source) = match self.try_recv_from() {
                Ok(datagram) => datagram,
                Err(_) if count > 0 => break,
                Err(error) => return Err(error),
            };
            let len = data.len().min(buffer.len());
            buffer[..len].copy_from_slice(&data[..len]);
            *one = Received {
                remote: source.into(),
                len,
                stride: len,
                ..Received::default()
            };
            count += 1;
        }
        Ok(count)
    }

    fn try_send(&self, datagrams: &Datagrams<'_>) -> io::Result<()> {
        let SocketAddr::V4(to) = datagrams.remote else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        if !self.has_room(false) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let segment = datagrams.segment.unwrap_or(datagrams.contents.len());
        for datagram in datagrams.contents.chunks(segment.max(1)) {
            self.send_to(datagram, to)?;
        }
        Ok(())
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(self.local_ip(), self.local_port()?))
    }

    fn max_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    fn keeps_whole(&self) -> bool {
        true
    }
}
