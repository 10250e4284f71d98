//! TCP and Unix sockets of tokio as [`Socket`] and [`Listener`].

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use sheetbend_runtime::{Address, Listener, Socket};
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
    let mut last = None;
    for address in tokio::net::lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return tcp(stream, address),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no addresses")))
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

/// Listens on a path. A socket file that nobody listens on any more is replaced, one in use is not.
#[cfg(unix)]
pub(crate) fn listen_unix(path: &Path) -> io::Result<Box<dyn Listener>> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    Ok(Box::new(UnixAcceptor {
        listener,
        path: path.to_owned(),
        file: file_id(path),
    }))
}

/// What tells this socket file from a later one of the same name.
#[cfg(unix)]
fn file_id(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path)
        .ok()
        .map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(unix)]
fn is_stale(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    is_socket && refused
}

#[cfg(unix)]
struct UnixAcceptor {
    listener: UnixListener,
    path: PathBuf,
    file: Option<(u64, u64)>,
}

#[cfg(unix)]
impl Listener for UnixAcceptor {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        let (stream, _) = ready!(self.listener.poll_accept(cx))?;
        let name = format!("{} (client)", self.path.display());
        Poll::Ready(Ok(Box::new(UnixSocket(stream, name))))
    }

    fn local_address(&self) -> Address {
        Address::Unix(self.path.clone())
    }
}

#[cfg(unix)]
impl Drop for UnixAcceptor {
    fn drop(&mut self) {
        // Another server may have taken the name over.
        if self.file.is_some() && self.file == file_id(&self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(not(unix))]
fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets")
}

#[cfg(not(unix))]
pub(crate) async fn connect_unix(_: &Path) -> io::Result<Box<dyn Socket>> {
    Err(unsupported())
}

#[cfg(not(unix))]
pub(crate) fn listen_unix(_: &Path) -> io::Result<Box<dyn Listener>> {
    Err(unsupported())
}
