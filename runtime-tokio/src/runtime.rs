//! Clock, timers, tasks and randomness of tokio.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sheetbend_core::time::Timestamp;
#[cfg(feature = "quic")]
use sheetbend_runtime::UdpSocket;
use sheetbend_runtime::os::{self, StdFiles, Threads};
use sheetbend_runtime::{Address, BoxFuture, Files, Listener, Runtime, Socket, Timer};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use crate::net;

/// [`Runtime`] on tokio.
pub struct TokioRuntime {
    handle: Handle,
    origin: Instant,
}

impl TokioRuntime {
    /// On the tokio runtime this is called from.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn current() -> TokioRuntime {
        TokioRuntime::new(Handle::current())
    }

    /// On the given tokio runtime, which must have its IO and time drivers on.
    pub fn new(handle: Handle) -> TokioRuntime {
        TokioRuntime {
            handle,
            origin: Instant::now(),
        }
    }

    fn instant(&self, at: Timestamp) -> Instant {
        let since = at.since(Timestamp::ZERO);
        let latest = self.origin.elapsed() + os::FARTHEST_TIMER;
        self.origin + since.min(latest)
    }
}

struct TokioTimer {
    sleep: Pin<Box<Sleep>>,
    origin: Instant,
}

impl Timer for TokioTimer {
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }

    fn reset(&mut self, deadline: Timestamp) {
        let since = deadline
            .since(Timestamp::ZERO)
            .min(self.origin.elapsed() + os::FARTHEST_TIMER);
        self.sleep.as_mut().reset(self.origin + since);
    }
}

/// Threads for what blocks: tokio's own.
struct BlockingThreads(Handle);

impl Threads for BlockingThreads {
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        let task = self.0.spawn_blocking(work);
        Box::pin(async move { task.await.unwrap_or_else(|error| Err(io::Error::other(error))) })
    }
}

impl Runtime for TokioRuntime {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.origin.elapsed()
    }

    fn timer(&self, deadline: Timestamp) -> Box<dyn Timer> {
        let _context = self.handle.enter();
        let sleep = Box::pin(tokio::time::sleep_until(self.instant(deadline)));
        Box::new(TokioTimer {
            sleep,
            origin: self.origin,
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle.spawn(task);
    }

    fn connect(&self, address: Address) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        Box::pin(async move {
            match address {
                Address::Tcp { host, port } => net::connect_tcp(&host, port).await,
                #[cfg(unix)]
                Address::Unix(path) => net::connect_unix(&path).await,
                Address::Mem(name) => Ok(Box::new(os::memory().connect(&name)?) as Box<dyn Socket>),
                other => Err(os::no_sockets(&other)),
            }
        })
    }

    fn listen(&self, address: Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            match address {
                Address::Tcp { host, port } => net::listen_tcp(&host, port).await,
                #[cfg(unix)]
                Address::Unix(path) => net::listen_unix(&path),
                Address::Mem(name) => Ok(Box::new(os::memory().listen(&name)?) as Box<dyn Listener>),
                other => Err(os::no_sockets(&other)),
            }
        })
    }

    #[cfg(feature = "quic")]
    fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        let _context = self.handle.enter();
        crate::udp::bind(address)
    }

    fn resolve(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) })
    }

    fn seed(&self) -> [u8; 32] {
        os::seed()
    }

    fn unix_time(&self) -> Duration {
        os::unix_time()
    }

    fn trusted_roots(&self) -> io::Result<Vec<Vec<u8>>> {
        os::trusted_roots()
    }

    fn files(&self) -> Arc<dyn Files> {
        Arc::new(StdFiles::new(BlockingThreads(self.handle.clone())))
    }
}
