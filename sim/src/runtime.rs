//! [`Runtime`] on virtual time.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{
    Address, BoxFuture, Files, Listener, MemListener, MemNetwork, Observer, Runtime, Socket, Timer, UdpSocket,
};

use crate::disk::SimFiles;
use crate::host::Host;
use crate::net::{listen, start_connect};
use crate::observe;
use crate::state::Shared;

/// What the clocks of every world say at its beginning: 2026-01-01, as time since 1970.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// The runtime of one host of a world.
pub(crate) struct HostRuntime {
    host: Host,
}

impl HostRuntime {
    pub(crate) fn new(host: Host) -> HostRuntime {
        HostRuntime { host }
    }
}

/// What connects the programs of one host.
fn memory(host: &Host) -> MemNetwork {
    host.shared.with(|state| state.hosts[host.id.index()].mem.clone())
}

/// A connection within a host: what moves there is progress of the world, as it is on a network.
struct Within {
    socket: Box<dyn Socket>,
    shared: Arc<Shared>,
}

impl Within {
    fn counted(&self, result: io::Result<usize>) -> io::Result<usize> {
        if result.is_ok() {
            self.shared.with(|state| state.progress += 1);
        }
        result
    }
}

impl Socket for Within {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_writable(cx)
    }

    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        self.counted(self.socket.try_read(buf))
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.counted(self.socket.try_write_vectored(slices))
    }

    fn shutdown(&self) -> io::Result<()> {
        self.socket.shutdown()
    }

    fn peer(&self) -> String {
        self.socket.peer()
    }
}

fn connect_within(host: &Host, name: &str) -> io::Result<Box<dyn Socket>> {
    Ok(Box::new(Within {
        socket: Box::new(memory(host).connect(name)?),
        shared: host.shared.clone(),
    }))
}

fn listen_within(host: &Host, name: &str, address: Address) -> io::Result<Box<dyn Listener>> {
    Ok(Box::new(ListenerWithin {
        listener: memory(host).listen(name)?,
        shared: host.shared.clone(),
        address,
    }))
}

/// What a Unix socket is called there. It is on no disk, and a listener's end frees its name.
fn unix_name(path: &Path) -> String {
    Address::Unix(path.to_owned()).to_string()
}

/// A listener for the programs of one host.
struct ListenerWithin {
    listener: MemListener,
    shared: Arc<Shared>,
    address: Address,
}

impl Listener for ListenerWithin {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        let socket = ready!(self.listener.poll_accept(cx))?;
        let shared = self.shared.clone();
        shared.with(|state| state.progress += 1);
        Poll::Ready(Ok(Box::new(Within { socket, shared })))
    }

    fn local_address(&self) -> Address {
        self.address.clone()
    }
}

fn unsupported(address: &Address) -> io::Error {
    let text = format!("{address}: a simulated host has no sockets for it");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

impl Runtime for HostRuntime {
    fn now(&self) -> Timestamp {
        self.host.now()
    }

    fn timer(&self, deadline: Timestamp) -> Box<dyn Timer> {
        let index = self
            .host
            .shared
            .with(|state| state.new_timer(self.host.id, deadline.as_nanos()));
        Box::new(SimTimer {
            shared: self.host.shared.clone(),
            index,
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.host.shared.spawn(self.host.id, self.host.incarnation, task);
    }

    fn connect(&self, address: Address) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        let host = self.host.clone();
        Box::pin(async move {
            let (name, port) = match &address {
                Address::Tcp { host, port } => (host, *port),
                Address::Mem(name) => return connect_within(&host, name),
                Address::Unix(path) => return connect_within(&host, &unix_name(path)),
                _ => return Err(unsupported(&address)),
            };
            let mut last = io::ErrorKind::NotFound.into();
            for ip in host.shared.with(|state| state.resolve(host.id, name))? {
                match start_connect(host.shared.clone(), host.id, SocketAddrV4::new(ip, port)).await {
                    Ok(socket) => return Ok(Box::new(socket) as Box<dyn Socket>),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    fn listen(&self, address: Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let host = self.host.clone();
        Box::pin(async move {
            match &address {
                Address::Tcp { host: name, port } => {
                    let listener = listen(&host.shared, host.id, name, *port)?;
                    Ok(Box::new(listener) as Box<dyn Listener>)
                }
                Address::Mem(name) => listen_within(&host, name, address.clone()),
                Address::Unix(path) => listen_within(&host, &unix_name(path), address.clone()),
                _ => Err(unsupported(&address)),
            }
        })
    }

    fn unobserved(&self, work: &mut dyn FnMut()) {
        crate::leaks::unsimulated(work);
    }

    fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        Ok(Arc::new(crate::net::UdpSocket::bind(
            &self.host.shared,
            self.host.id,
            address,
        )?))
    }

    fn resolve(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let own = self.host.clone();
        Box::pin(async move { own.resolve(&host, port) })
    }

    fn unix_time(&self) -> Duration {
        EPOCH + self.now().since(Timestamp::ZERO)
    }

    fn trusted_roots(&self) -> io::Result<Vec<Vec<u8>>> {
        Ok(crate::identity::roots())
    }

    fn seed(&self) -> [u8; 32] {
        self.host
            .shared
            .with(|state| state.hosts[self.host.id.index()].rng.bytes())
    }

    fn files(&self) -> Arc<dyn Files> {
        Arc::new(SimFiles::new(self.host.clone()))
    }

    fn observer(&self) -> Option<Box<dyn Observer>> {
        observe::observer(&self.host)
    }
}

struct SimTimer {
    shared: Arc<Shared>,
    index: usize,
}

impl Timer for SimTimer {
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.with(|state| {
            let timer = &mut state.timers[self.index];
            let (host, deadline) = (timer.host, timer.deadline);
            if state.local_now(host) >= deadline {
                let told = std::mem::replace(&mut state.timers[self.index].told, true);
                state.progress += u64::from(!told);
                return Poll::Ready(());
            }
            match &mut state.timers[self.index].waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                slot => *slot = Some(cx.waker().clone()),
            }
            state.arm_timer(self.index);
            Poll::Pending
        })
    }

    fn reset(&mut self, deadline: Timestamp) {
        self.shared
            .with(|state| state.reset_timer(self.index, deadline.as_nanos()));
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        self.shared.with(|state| state.timers.remove(self.index));
    }
}
