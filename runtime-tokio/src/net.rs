//! TCP and Unix sockets of tokio as [`Socket`] and [`Listener`].

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
#[cfg(unix)]
use std::path::Path;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use sheetbend_runtime::{Address, Listener, Socket, os};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

/// `Socket` for a tokio stream.
///
/// A short read or write means that the kernel's buffer is drained or full, so the closure reports
/// `WouldBlock` to tokio, which clears the readiness (unless an event came in meanwhile) and saves the
/// system call that would only say so. Tokio's own `poll_read` does the same.
macro_rules! stream_socket {
    ($name:ident, $stream:ty) => {
        pub(crate) struct $name($stream, String);

        impl Socket for $name {
            fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.0.poll_read_ready(cx)
            }

            fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.0.poll_write_ready(cx)
            }

            fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
                let room = buf.capacity() - buf.len();
                let mut short = None;
                let result = self.0.try_io(Interest::READABLE, || {
                    let count = self.0.try_read_buf(buf)?;
                    if count > 0 && count < room {
                        short = Some(count);
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    Ok(count)
                });
                short.map_or(result, Ok)
            }

            fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
                let total: usize = slices.iter().map(|slice| slice.len()).sum();
                let mut short = None;
                let result = self.0.try_io(Interest::WRITABLE, || {
                    let count = match slices {
                        [one] => self.0.try_write(one)?,
                        _ => self.0.try_write_vectored(slices)?,
                    };
                    if count > 0 && count < total {
                        short = Some(count);
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    Ok(count)
                });
                short.map_or(result, Ok)
            }

            fn shutdown(&self) -> io::Result<()> {
                SockRef::from(&self.0).shutdown(Shutdown::Write)
            }

            fn peer(&self) -> String {
                self.1.clone()
            }
        }
    };
}

stream_socket!(TcpSocket, TcpStream);
#[cfg(unix)]
stream_socket!(UnixSocket, UnixStream);

fn tcp(stream: TcpStream, peer: SocketAddr) -> io::Result<Box<dyn Socket>> {
    stream.set_nodelay(true)?;
    Ok(Box::new(TcpSocket(stream, peer.to_string())))
}

pub(crate) async fn connect_tcp(host: &str, port: u16) -> io::Result<Box<dyn Socket>> {
    let addresses = tokio::net::lookup_host((host, port)).await?;
    os::connect_first(addresses, |address| async move {
        tcp(TcpStream::connect(address).await?, address)
    })
    .await
}

pub(crate) async fn listen_tcp(host: &str, port: u16) -> io::Result<Box<dyn Listener>> {
    let listener = TcpListener::bind((host, port)).await?;
    let address = listener.local_addr()?;
    Ok(Box::new(TcpAcceptor(listener, address)))
}

struct TcpAcceptor(TcpListener, SocketAddr);

impl Listener for TcpAcceptor {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        let (stream, peer) = ready!(self.0.poll_accept(cx))?;
        Poll::Ready(tcp(stream, peer))
    }

    fn local_address(&self) -> Address {
        Address::Tcp {
            host: self.1.ip().to_string(),
            port: self.1.port(),
        }
    }
}

#[cfg(unix)]
pub(crate) async fn connect_unix(path: &Path) -> io::Result<Box<dyn Socket>> {
    let stream = UnixStream::connect(path).await?;
    Ok(Box::new(UnixSocket(stream, path.display().to_string())))
}

#[cfg(unix)]
pub(crate) fn listen_unix(path: &Path) -> io::Result<Box<dyn Listener>> {
    let (listener, file) = os::bind_unix(path)?;
    Ok(Box::new(UnixAcceptor(UnixListener::from_std(listener)?, file)))
}

#[cfg(unix)]
struct UnixAcceptor(UnixListener, os::SocketFile);

#[cfg(unix)]
impl Listener for UnixAcceptor {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        let (stream, _) = ready!(self.0.poll_accept(cx))?;
        let name = format!("{} (client)", self.1.path().display());
        Poll::Ready(Ok(Box::new(UnixSocket(stream, name))))
    }

    fn local_address(&self) -> Address {
        Address::Unix(self.1.path().to_owned())
    }
}
