//! Plain TCP for the programs of a world: streams with the read and write traits of `futures`.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};
use sheetbend_runtime::Socket;

use super::socket::{SimListener, SimSocket};

/// A simulated TCP connection.
pub struct TcpStream {
    socket: SimSocket,
}

impl TcpStream {
    pub(crate) fn new(socket: SimSocket) -> TcpStream {
        TcpStream { socket }
    }

    pub(crate) fn into_socket(self) -> SimSocket {
        self.socket
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddrV4 {
        self.socket.remote
    }

    /// Reads what is there, at least one byte, as much as `buf` has room for: how many bytes, 0 at the end.
    ///
    /// # Errors
    /// When the connection was reset or timed out.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *self).poll_read(cx, buf)).await
    }

    /// Reads until `buf` is full.
    ///
    /// # Errors
    /// As [`TcpStream::read`], and `UnexpectedEof`.
    pub async fn read_exact(&mut self, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read(buf).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => buf = &mut buf[count..],
            }
        }
        Ok(())
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// When the connection was reset or timed out, or its writing side is shut.
    pub async fn write_all(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let count = poll_fn(|cx| Pin::new(&mut *self).poll_write(cx, data)).await?;
            data = &data[count..];
        }
        Ok(())
    }

    /// Ends the writing side.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.socket.shutdown()
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.socket.read(&mut &mut *buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready!(self.socket.poll_readable(cx))?;
                Poll::Ready(self.socket.read(&mut &mut *buf))
            }
            done => Poll::Ready(done),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let slices = [IoSlice::new(buf)];
        match self.socket.try_write_vectored(&slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready!(self.socket.poll_writable(cx))?;
                Poll::Ready(self.socket.try_write_vectored(&slices))
            }
            done => Poll::Ready(done),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown())
    }
}

/// A simulated listening port.
pub struct TcpListener {
    listener: SimListener,
}

impl TcpListener {
    pub(crate) fn new(listener: SimListener) -> TcpListener {
        TcpListener { listener }
    }

    /// The port it listens on.
    pub fn local_port(&self) -> u16 {
        self.listener.port
    }

    /// The next connection.
    ///
    /// # Errors
    /// When the host has crashed.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        poll_fn(|cx| self.listener.poll_socket(cx))
            .await
            .map(TcpStream::new)
    }
}
