//! TCP and Unix sockets of `async-io` as [`Socket`] and [`Listener`].

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
#[cfg(unix)]
use std::path::Path;
use std::task::{Context, Poll, ready};

use async_io::Async;
use bytes::BytesMut;
use sheetbend_runtime::os;
use sheetbend_runtime::{Address, Listener, Socket};
use socket2::SockRef;

use crate::ready::{Ready, clock};
use crate::spare;

/// [`Socket`] for a stream of the system.
struct StreamSocket<S> {
    stream: Async<S>,
    peer: String,
    readable: Ready,
    writable: Ready,
}

impl<S> StreamSocket<S> {
    fn new(stream: Async<S>, peer: String) -> Box<StreamSocket<S>> {
        Box::new(StreamSocket {
            stream,
            peer,
            readable: Ready::default(),
            writable: Ready::default(),
        })
    }
}

impl<S: Send + Sync + 'static> Socket for StreamSocket<S>
where
    for<'a> SockRef<'a>: From<&'a S>,
{
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.readable
            .poll_after_others(cx, clock, |cx| self.stream.poll_readable(cx))
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writable.poll(|| self.stream.poll_writable(cx))
    }

    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let room = buf.capacity() - buf.len();
        let read = spare::read(self.stream.get_ref().into(), buf);
        self.readable.tried(room, read)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let total = slices.iter().map(|slice| slice.len()).sum();
        let socket = SockRef::from(self.stream.get_ref());
        let written = match slices {
            [slice] => socket.send(slice),
            slices => socket.send_vectored(slices),
        };
        self.writable.tried(total, written)
    }

    fn shutdown(&self) -> io::Result<()> {
        SockRef::from(self.stream.get_ref()).shutdown(Shutdown::Write)
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }
}

/// The socket addresses of a name: asked of the system on a thread that may block, unless it is an address itself.
pub(crate) async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    blocking::unblock(move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await
}

fn tcp(stream: Async<TcpStream>, peer: SocketAddr) -> io::Result<Box<dyn Socket>> {
    stream.get_ref().set_nodelay(true)?;
    Ok(StreamSocket::new(stream, peer.to_string()))
}

pub(crate) async fn connect_tcp(host: String, port: u16) -> io::Result<Box<dyn Socket>> {
    os::connect_first(resolve(host, port).await?, |address| async move {
        tcp(Async::<TcpStream>::connect(address).await?, address)
    })
    .await
}

pub(crate) async fn listen_tcp(host: String, port: u16) -> io::Result<Box<dyn Listener>> {
    let addresses = resolve(host, port).await?;
    let listener = TcpListener::bind(&addresses[..])?;
    let address = listener.local_addr()?;
    Ok(Box::new(TcpAcceptor(Async::new(listener)?, address)))
}

/// Takes the next connection, and asks the reactor only if there is none.
fn poll_accept<L, S>(
    cx: &mut Context<'_>,
    listener: &Async<L>,
    accept: impl Fn(&L) -> io::Result<S>,
) -> Poll<io::Result<S>> {
    loop {
        match accept(listener.get_ref()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(listener.poll_readable(cx))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return Poll::Ready(other),
        }
    }
}

struct TcpAcceptor(Async<TcpListener>, SocketAddr);

impl Listener for TcpAcceptor {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        let (stream, peer) = ready!(poll_accept(cx, &self.0, TcpListener::accept))?;
        Poll::Ready(tcp(Async::new(stream)?, peer))
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
    let stream = Async::<UnixStream>::connect(path).await?;
    Ok(StreamSocket::new(stream, path.display().to_string()))
}

#[cfg(unix)]
pub(crate) fn listen_unix(path: &Path) -> io::Result<Box<dyn Listener>> {
    let (listener, file) = os::bind_unix(path)?;
    Ok(Box::new(UnixAcceptor(Async::new(listener)?, file)))
}

#[cfg(unix)]
struct UnixAcceptor(Async<UnixListener>, os::SocketFile);

#[cfg(unix)]
impl Listener for UnixAcceptor {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        let (stream, _) = ready!(poll_accept(cx, &self.0, UnixListener::accept))?;
        let name = format!("{} (client)", self.1.path().display());
        Poll::Ready(Ok(StreamSocket::new(Async::new(stream)?, name)))
    }

    fn local_address(&self) -> Address {
        Address::Unix(self.1.path().to_owned())
    }
}
