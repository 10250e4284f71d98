//! The sockets that the driver of a session sees: [`Socket`] and [`Listener`] over simulated TCP.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, BytesMut};
use sheetbend_runtime::{Address, Listener, Socket};

use super::{Connection, ConnectionKey};
use crate::host::HostId;
use crate::state::{Shared, State};

fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "its host has crashed")
}

/// A program's handle on a TCP connection.
pub(crate) struct SimSocket {
    shared: Arc<Shared>,
    key: ConnectionKey,
    pub(crate) remote: SocketAddrV4,
}

impl SimSocket {
    fn with<R>(&self, f: impl FnOnce(&mut Connection) -> R) -> io::Result<R> {
        self.shared
            .with(|state| state.connection(self.key).map(f))
            .ok_or_else(gone)
    }

    /// Does something with the connection that may make it speak.
    fn act<R>(&self, f: impl FnOnce(&mut Connection) -> io::Result<R>) -> io::Result<R> {
        self.shared.with(|state| {
            let connection = state.connection(self.key).ok_or_else(gone)?;
            // A little may be written before the kernel says so: nobody is woken for that.
            let ready = connection.tcp.is_readable() || connection.tcp.is_writable();
            let done = f(connection)?;
            state.progress += u64::from(ready);
            state.pump(self.key);
            Ok(done)
        })
    }
}

impl SimSocket {
    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        let kind = io::ErrorKind::ConnectionAborted;
        self.shared.with(|state| state.abandon(self.key, Some(kind)));
    }

    /// Reads what is there, as much as `buf` has room for.
    pub(crate) fn read(&self, buf: &mut impl BufMut) -> io::Result<usize> {
        self.act(|connection| connection.tcp.read(buf))
    }
}

/// Begins to connect, and waits until the connection stands or has failed.
pub(crate) async fn start_connect(
    shared: Arc<Shared>,
    host: HostId,
    remote: SocketAddrV4,
) -> io::Result<SimSocket> {
    let key = shared.with(|state| state.connect(host, remote))?;
    let socket = SimSocket { shared, key, remote };
    poll_fn(|cx| {
        let done = socket.with(|connection| {
            if let Some(kind) = connection.tcp.error() {
                return Some(Err(io::Error::from(kind)));
            }
            if connection.tcp.is_open() {
                return Some(Ok(()));
            }
            register(&mut connection.writer, cx);
            None
        });
        match done {
            Err(error) => Poll::Ready(Err(error)),
            Ok(None) => Poll::Pending,
            Ok(Some(outcome)) => Poll::Ready(outcome),
        }
    })
    .await?;
    Ok(socket)
}

impl Socket for SimSocket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.with(|connection| {
            let ready = connection.tcp.is_readable();
            if !ready {
                register(&mut connection.reader, cx);
            }
            ready
        });
        match ready {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.with(|connection| {
            let ready = connection.tcp.is_writable();
            if !ready {
                register(&mut connection.writer, cx);
            }
            ready
        });
        match ready {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let spare = buf.capacity() - buf.len();
        self.read(&mut buf.limit(spare))
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.act(|connection| connection.tcp.write(slices))
    }

    fn shutdown(&self) -> io::Result<()> {
        self.act(|connection| connection.tcp.shutdown())
    }

    fn peer(&self) -> String {
        self.remote.to_string()
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.shared.with(|state| state.abandon(self.key, None));
    }
}

/// A program's handle on a listening port.
pub(crate) struct SimListener {
    shared: Arc<Shared>,
    host: HostId,
    incarnation: u32,
    index: usize,
    name: String,
    pub(crate) port: u16,
}

/// Listens on a port of every interface of a host.
pub(crate) fn listen(shared: &Arc<Shared>, host: HostId, name: &str, port: u16) -> io::Result<SimListener> {
    shared.with(|state| {
        let index = state.listen_on(host, port)?;
        Ok(SimListener {
            shared: shared.clone(),
            host,
            incarnation: state.hosts[host.index()].incarnation,
            index,
            name: name.to_owned(),
            port: state.net.listeners[index].port,
        })
    })
}

impl SimListener {
    fn live<R>(&self, f: impl FnOnce(&mut State) -> R) -> Option<R> {
        self.shared.with(|state| {
            let live = state.hosts[self.host.index()].incarnation == self.incarnation;
            live.then(|| f(state))
        })
    }

    pub(crate) fn poll_socket(&self, cx: &mut Context<'_>) -> Poll<io::Result<SimSocket>> {
        let accepted = self.live(|state| {
            let accepted = state.accept(self.index);
            match accepted {
                Some(_) => state.progress += 1,
                None => register(&mut state.net.listeners[self.index].acceptor, cx),
            }
            accepted.map(|key| (key, state.connection(key).map(|connection| connection.remote)))
        });
        match accepted {
            Some(Some((key, Some(remote)))) => Poll::Ready(Ok(SimSocket {
                shared: self.shared.clone(),
                key,
                remote,
            })),
            Some(_) => Poll::Pending,
            None => Poll::Ready(Err(gone())),
        }
    }
}

impl Listener for SimListener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        self.poll_socket(cx)
            .map_ok(|socket| -> Box<dyn Socket> { Box::new(socket) })
    }

    fn local_address(&self) -> Address {
        Address::Tcp {
            host: self.name.clone(),
            port: self.port,
        }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.live(|state| state.stop_listening(self.index));
    }
}
