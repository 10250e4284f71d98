//! [`Runtime`] on virtual time.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{Address, BoxFuture, Files, Listener, Observer, Runtime, Socket, Timer, UdpSocket};

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

fn unsupported(address: &Address) -> io::Error {
    let text = format!("{address}: a simulated host has tcp:// and mem:// addresses only");
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
                Address::Mem(name) => {
                    let mem = host.shared.with(|state| state.hosts[host.id.index()].mem.clone());
                    return mem
                        .connect(name)
                        .map(|socket| Box::new(socket) as Box<dyn Socket>);
                }
                Address::Unix(_) | Address::Over { .. } => return Err(unsupported(&address)),
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
                Address::Mem(name) => {
                    let mem = host.shared.with(|state| state.hosts[host.id.index()].mem.clone());
                    mem.listen(name)
                        .map(|listener| Box::new(listener) as Box<dyn Listener>)
                }
                Address::Unix(_) | Address::Over { .. } => Err(unsupported(&address)),
            }
        })
    }

    fn unobserved(&self, work: &mut dyn FnMut()) {
        crate::leaks::unsimulated(work);
    }

    fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        Ok(Arc::new(self.host.bind_udp(address.port())?))
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
