//! TCP and Unix sockets as one type.

use crate::address::Address;
use bytes::BytesMut;
use rustix::net::{Shutdown, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// How long the bytes of a peer are swallowed after a cut, for its FIN to arrive before any RST.
const LINGER: Duration = Duration::from_secs(1);

/// The longest queue of connections that wait to be accepted.
const BACKLOG: u32 = 1024;

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! either {
    ($socket:expr, $stream:ident => $body:expr) => {
        match $socket {
            Socket::Tcp($stream) => $body,
            Socket::Unix($stream) => $body,
        }
    };
}

impl Socket {
    pub(super) async fn connect(target: &Address) -> io::Result<Socket> {
        match target {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Address::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    }

    /// Bounds what the kernel holds for this socket.
    pub(super) fn bound_buffers(&self, bytes: usize) -> io::Result<()> {
        let fd = either!(self, stream => stream.as_fd());
        sockopt::set_socket_recv_buffer_size(fd, bytes)?;
        sockopt::set_socket_send_buffer_size(fd, bytes)?;
        Ok(())
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        either!(self, stream => stream.readable().await)
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        either!(self, stream => stream.writable().await)
    }

    pub(super) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        either!(self, stream => stream.try_read_buf(buffer))
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_write(bytes))
    }

    /// Sends a FIN; an error means that the peer is gone already.
    pub(super) fn finish(&self) {
        let fd = either!(self, stream => stream.as_fd());
        let _ = rustix::net::shutdown(fd, Shutdown::Write);
    }

    /// Closes with a RST.
    pub(super) fn abort(self) {
        if let Socket::Tcp(stream) = &self {
            let _ = stream.set_zero_linger();
        }
    }

    /// Sends a FIN, and swallows what the peer sends until it closes too: closing a TCP socket that has
    /// unread bytes would send a RST.
    pub(super) async fn close(self) {
        self.finish();
        let swallow = async {
            let mut buffer = BytesMut::with_capacity(64 * 1024);
            while self.readable().await.is_ok() {
                buffer.clear();
                match self.try_read(&mut buffer) {
                    Ok(0) => return,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                    _ => {}
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, swallow).await;
    }
}

/// A listener that can be closed and opened again on its address.
#[derive(Debug)]
pub(super) struct Listener {
    address: Address,
    socket: Option<Listening>,
    /// A second socket that is bound to the port and does not listen: it keeps the port ours while the
    /// listener is closed, so that no outgoing connection is given that port as its own.
    _reserved: Option<TcpSocket>,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) async fn bind(address: &Address) -> io::Result<Listener> {
        match address {
            Address::Tcp { host, port } => {
                let wanted = tokio::net::lookup_host((host.as_str(), *port))
                    .await?
                    .next()
                    .ok_or_else(|| {
                        io::Error::new(io::ErrorKind::NotFound, format!("'{host}' has no address"))
                    })?;
                let reserved = tcp_socket(wanted)?;
                let bound = reserved.local_addr()?;
                let socket = tcp_socket(bound)?.listen(BACKLOG)?;
                let socket = Some(Listening::Tcp(socket));
                Ok(Listener {
                    address: bound.into(),
                    socket,
                    _reserved: Some(reserved),
                })
            }
            Address::Unix(path) => {
                let socket = Some(Listening::Unix(UnixListener::bind(path)?));
                Ok(Listener {
                    address: address.clone(),
                    socket,
                    _reserved: None,
                })
            }
        }
    }

    /// The address with the port that was taken.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Closes the listener. The file of a Unix socket stays, so that connecting is refused.
    pub(super) fn close(&mut self) {
        self.socket = None;
    }

    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.is_open() {
            return Ok(());
        }
        self.socket = Some(match &self.address {
            Address::Tcp { host, port } => {
                let ip = host.parse().map_err(io::Error::other)?;
                Listening::Tcp(tcp_socket(SocketAddr::new(ip, *port))?.listen(BACKLOG)?)
            }
            Address::Unix(path) => {
                remove_socket_file(path)?;
                Listening::Unix(UnixListener::bind(path)?)
            }
        });
        Ok(())
    }

    /// The next connection; never resolves while the listener is closed.
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        match &self.socket {
            Some(Listening::Tcp(listener)) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Some(Listening::Unix(listener)) => Ok(Socket::Unix(listener.accept().await?.0)),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            let _ = remove_socket_file(path);
        }
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn remove_socket_file(path: &PathBuf) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
