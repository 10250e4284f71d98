//! A runtime on which some things are different.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sheetbend_core::time::Timestamp;

use crate::address::Address;
use crate::files::Files;
use crate::observer::Observer;
use crate::rt::{BoxFuture, Listener, Runtime, Socket, Timer, UdpSocket};

type Connecting = BoxFuture<'static, io::Result<Box<dyn Socket>>>;
type Listening = BoxFuture<'static, io::Result<Box<dyn Listener>>>;
type Hook<T> = Box<dyn Fn(&dyn Runtime, Address) -> T + Send + Sync>;

/// Another runtime but for what is said to be different: to count what is connected, to put something between, to
/// have in a test what a machine does not have.
pub struct Around {
    inner: Arc<dyn Runtime>,
    connect: Option<Hook<Connecting>>,
    listen: Option<Hook<Listening>>,
    roots: Option<Vec<Vec<u8>>>,
}

impl Around {
    /// The same as that one.
    pub fn new(inner: Arc<dyn Runtime>) -> Around {
        Around {
            inner,
            connect: None,
            listen: None,
            roots: None,
        }
    }

    /// What [`Runtime::connect`] does instead; it is given the runtime inside.
    pub fn on_connect(
        mut self,
        connect: impl Fn(&dyn Runtime, Address) -> Connecting + Send + Sync + 'static,
    ) -> Around {
        self.connect = Some(Box::new(connect));
        self
    }

    /// What [`Runtime::listen`] does instead; it is given the runtime inside.
    pub fn on_listen(
        mut self,
        listen: impl Fn(&dyn Runtime, Address) -> Listening + Send + Sync + 'static,
    ) -> Around {
        self.listen = Some(Box::new(listen));
        self
    }

    /// Other [`Runtime::trusted_roots`], in DER.
    pub fn roots(mut self, roots: Vec<Vec<u8>>) -> Around {
        self.roots = Some(roots);
        self
    }
}

impl Runtime for Around {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn timer(&self, deadline: Timestamp) -> Box<dyn Timer> {
        self.inner.timer(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.inner.spawn(task);
    }

    fn connect(&self, address: Address) -> Connecting {
        match &self.connect {
            Some(connect) => connect(&*self.inner, address),
            None => self.inner.connect(address),
        }
    }

    fn listen(&self, address: Address) -> Listening {
        match &self.listen {
            Some(listen) => listen(&*self.inner, address),
            None => self.inner.listen(address),
        }
    }

    fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        self.inner.bind_udp(address)
    }

    fn resolve(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.inner.resolve(host, port)
    }

    fn seed(&self) -> [u8; 32] {
        self.inner.seed()
    }

    fn unix_time(&self) -> Duration {
        self.inner.unix_time()
    }

    fn unobserved(&self, work: &mut dyn FnMut()) {
        self.inner.unobserved(work);
    }

    fn trusted_roots(&self) -> io::Result<Vec<Vec<u8>>> {
        match &self.roots {
            Some(roots) => Ok(roots.clone()),
            None => self.inner.trusted_roots(),
        }
    }

    fn files(&self) -> Arc<dyn Files> {
        self.inner.files()
    }

    fn observer(&self) -> Option<Box<dyn Observer>> {
        self.inner.observer()
    }
}
