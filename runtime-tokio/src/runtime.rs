//! Clock, timers, tasks and randomness of tokio.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use sheetbend_core::time::Timestamp;
#[cfg(feature = "quic")]
use sheetbend_runtime::UdpSocket;
use sheetbend_runtime::{Address, BoxFuture, Files, Listener, MemNetwork, Runtime, Socket, Timer};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use crate::files::StdFiles;
use crate::net;

/// How far in the future a timer is set at most; the driver sets it again.
const FAR: Duration = Duration::from_secs(30 * 24 * 3600);

/// `mem://` names are shared by all tokio runtimes of the process.
static MEMORY: OnceLock<MemNetwork> = OnceLock::new();

/// [`Runtime`] on tokio.
pub struct TokioRuntime {
    handle: Handle,
    origin: Instant,
    memory: MemNetwork,
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
        let memory = MEMORY.get_or_init(MemNetwork::new).clone();
        TokioRuntime {
            handle,
            origin: Instant::now(),
            memory,
        }
    }

    fn instant(&self, at: Timestamp) -> Instant {
        let since = at.since(Timestamp::ZERO);
        let latest = self.origin.elapsed() + FAR;
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
        let since = deadline.since(Timestamp::ZERO).min(self.origin.elapsed() + FAR);
        self.sleep.as_mut().reset(self.origin + since);
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
        let memory = self.memory.clone();
        Box::pin(async move {
            match address {
                Address::Tcp { host, port } => net::connect_tcp(&host, port).await,
                Address::Unix(path) => net::connect_unix(&path).await,
                Address::Mem(name) => Ok(Box::new(memory.connect(&name)?) as Box<dyn Socket>),
                Address::Over { .. } => Err(io::ErrorKind::Unsupported.into()),
            }
        })
    }

    fn listen(&self, address: Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let memory = self.memory.clone();
        Box::pin(async move {
            match address {
                Address::Tcp { host, port } => net::listen_tcp(&host, port).await,
                Address::Unix(path) => net::listen_unix(&path),
                Address::Mem(name) => Ok(Box::new(memory.listen(&name)?) as Box<dyn Listener>),
                Address::Over { .. } => Err(io::ErrorKind::Unsupported.into()),
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
        let mut seed = [0; 32];
        // Without randomness no key is safe: there is nothing sensible to go on with.
        getrandom::fill(&mut seed).expect("the operating system has randomness");
        seed
    }

    fn unix_time(&self) -> Duration {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }

    #[cfg(feature = "tls")]
    fn trusted_roots(&self) -> io::Result<Vec<Vec<u8>>> {
        let found = rustls_native_certs::load_native_certs();
        match found.errors.into_iter().next() {
            Some(error) if found.certs.is_empty() => Err(io::Error::other(error)),
            _ => Ok(found.certs.into_iter().map(|root| root.to_vec()).collect()),
        }
    }

    fn files(&self) -> Arc<dyn Files> {
        Arc::new(StdFiles::new(self.handle.clone()))
    }
}
