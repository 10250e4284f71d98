//! Clock, timers, tasks and randomness without tokio.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use sheetbend_core::time::Timestamp;
#[cfg(feature = "quic")]
use sheetbend_runtime::UdpSocket;
use sheetbend_runtime::os::{self, StdFiles, Threads};
use sheetbend_runtime::{Address, BoxFuture, Files, Listener, Runtime, Socket, Timer};

use crate::net;

/// When the clock of this process begins, so that runtimes agree on it.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

fn origin() -> Instant {
    *ORIGIN.get_or_init(Instant::now)
}

/// [`Runtime`] on the reactor of `async-io`, and on whatever executor.
pub struct SmolRuntime {
    spawn: Box<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>,
}

impl SmolRuntime {
    /// On the executor that `spawn` gives tasks to. It runs them to their ends, unless it ends before.
    pub fn new(spawn: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static) -> SmolRuntime {
        origin();
        SmolRuntime {
            spawn: Box::new(spawn),
        }
    }
}

fn instant(at: Timestamp) -> Instant {
    let latest = origin().elapsed() + os::FARTHEST_TIMER;
    origin() + at.since(Timestamp::ZERO).min(latest)
}

struct SmolTimer {
    timer: async_io::Timer,
    /// The reactor's timer says so once, and is silent then.
    expired: bool,
}

impl Timer for SmolTimer {
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.expired = self.expired || Pin::new(&mut self.timer).poll(cx).is_ready();
        match self.expired {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn reset(&mut self, deadline: Timestamp) {
        self.expired = false;
        self.timer.set_at(instant(deadline));
    }
}

/// Threads for what blocks: those of the crate `blocking`.
struct BlockingThreads;

impl Threads for BlockingThreads {
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        Box::pin(blocking::unblock(work))
    }
}

impl Runtime for SmolRuntime {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO + origin().elapsed()
    }

    fn timer(&self, deadline: Timestamp) -> Box<dyn Timer> {
        Box::new(SmolTimer {
            timer: async_io::Timer::at(instant(deadline)),
            expired: false,
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        (self.spawn)(task);
    }

    fn connect(&self, address: Address) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        Box::pin(async move {
            match address {
                Address::Tcp { host, port } => net::connect_tcp(host, port).await,
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
                Address::Tcp { host, port } => net::listen_tcp(host, port).await,
                #[cfg(unix)]
                Address::Unix(path) => net::listen_unix(&path),
                Address::Mem(name) => Ok(Box::new(os::memory().listen(&name)?) as Box<dyn Listener>),
                other => Err(os::no_sockets(&other)),
            }
        })
    }

    #[cfg(feature = "quic")]
    fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        crate::udp::bind(address)
    }

    fn resolve(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(net::resolve(host, port))
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
        Arc::new(StdFiles::new(BlockingThreads))
    }
}
