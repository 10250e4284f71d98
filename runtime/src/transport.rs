//! Connections that no runtime has: what a program adds of its own.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::Arc;

use sheetbend_core::handshake::Security;

use crate::address::Address;
use crate::rt::{BoxFuture, Listener, Runtime, Socket};

/// A transport of the program's own: whatever can move bytes in order both ways, and says when it is over.
///
/// An address made of it by [`Address::by`] stands for an endpoint of a client, or for what a server listens on, like any
/// other: paths over it are chosen, watched, and made again. What is spoken is what is spoken over TCP (PROTOCOL 5).
/// `examples/child_process.rs` of `sheetbend-smol` runs a session through the standard input and output of a child.
pub trait Transport: Send + Sync + 'static {
    /// What its addresses begin with, in front of a colon, and what [`PathStats`](crate::PathStats) calls it.
    fn scheme(&self) -> &'static str;

    /// What protects its bytes. Nothing, unless this says otherwise; a session keeps to what its first path had.
    fn security(&self) -> Security {
        Security::Plain
    }

    /// Connects to what stands behind the colon of an address.
    ///
    /// # Errors
    /// What is told of this endpoint, and a reason to try again later.
    fn connect(
        &self,
        runtime: Arc<dyn Runtime>,
        place: String,
    ) -> BoxFuture<'static, io::Result<Box<dyn Socket>>>;

    /// Listens on what stands behind the colon. By default nobody can.
    ///
    /// # Errors
    /// Why it cannot be listened on.
    fn listen(
        &self,
        runtime: Arc<dyn Runtime>,
        place: String,
    ) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let _ = (runtime, place);
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

/// An address of a [`Transport`]. Two are the same if they are written alike.
#[derive(Clone)]
pub struct Place {
    transport: Arc<dyn Transport>,
    name: Arc<str>,
}

impl Place {
    pub(crate) fn new(transport: Arc<dyn Transport>, name: &str) -> Place {
        Place {
            transport,
            name: name.into(),
        }
    }

    /// What its transport is called.
    pub fn scheme(&self) -> &'static str {
        self.transport.scheme()
    }

    /// What stands behind the colon.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn security(&self) -> Security {
        self.transport.security()
    }

    pub(crate) fn connect(
        &self,
        runtime: &Arc<dyn Runtime>,
    ) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        self.transport.connect(runtime.clone(), self.name.to_string())
    }

    fn written(&self) -> (&str, &str) {
        (self.scheme(), self.name())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme(), self.name)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        self.written() == other.written()
    }
}

impl Eq for Place {}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Place) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Place) -> Ordering {
        self.written().cmp(&other.written())
    }
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.written().hash(state);
    }
}

/// Listens for stream sockets: for a program's own transports by them, for all else by the runtime.
pub(crate) fn listen(
    runtime: &Arc<dyn Runtime>,
    address: &Address,
) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
    match address {
        Address::Own(place) => place.transport.listen(runtime.clone(), place.name.to_string()),
        other => runtime.listen(other.socket()),
    }
}
