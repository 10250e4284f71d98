//! What the driver asks of a runtime, and no more.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use sheetbend_core::server::Origin;
use sheetbend_core::time::Timestamp;

use crate::address::Address;
use crate::files::{Files, NoFiles};
use crate::observer::Observer;

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The runtime behind the handles: clock, timers, tasks, sockets, names, files and randomness.
///
/// Object-safe, so that handles are the same type under every runtime. Implementations are meant to
/// be a few hundred lines; the simulator is one of them.
pub trait Runtime: Send + Sync + 'static {
    /// The current time, since an origin that this runtime picks once.
    fn now(&self) -> Timestamp;

    /// A timer that expires at `deadline`.
    fn timer(&self, deadline: Timestamp) -> Box<dyn Timer>;

    /// Runs a task to its end, detached.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Connects a stream socket. Names are resolved, and every address they stand for is tried. What is
    /// spoken over TCP comes as [`Address::socket`].
    ///
    /// # Errors
    /// What the operating system says, or `Unsupported` for a kind of address that it does not have.
    fn connect(&self, address: Address) -> BoxFuture<'static, io::Result<Box<dyn Socket>>>;

    /// Listens for stream sockets.
    ///
    /// # Errors
    /// As [`Runtime::connect`].
    fn listen(&self, address: Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;

    /// Binds a UDP socket; port 0 asks for any free one.
    ///
    /// # Errors
    /// What the operating system says; `Unsupported` where there is no UDP.
    fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        let _ = address;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The socket addresses a host name stands for, in the order to try them.
    ///
    /// # Errors
    /// When the name is unknown or the resolver fails.
    fn resolve(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

    /// Does something that asks the system for randomness or for the time, although nothing depends on either, such as
    /// making a table with random keys whose order is never looked at. A simulator lets that pass.
    fn unobserved(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// Fresh randomness for the seed of one machine.
    fn seed(&self) -> [u8; 32];

    /// Time since the beginning of 1970, by which certificates are judged. By default that moment itself, at which
    /// none is valid yet.
    fn unix_time(&self) -> Duration {
        Duration::ZERO
    }

    /// The certificates of those whom the platform trusts to name servers, in DER.
    ///
    /// # Errors
    /// Where there are none, or they cannot be read.
    fn trusted_roots(&self) -> io::Result<Vec<Vec<u8>>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Its files. Where there are none, every operation says `Unsupported`.
    fn files(&self) -> Arc<dyn Files> {
        Arc::new(NoFiles)
    }

    /// Who looks on, asked once for each session and each server; nobody by default.
    fn observer(&self) -> Option<Box<dyn Observer>> {
        None
    }
}

/// A timer that can be set again.
pub trait Timer: Send {
    /// Ready once the deadline has passed; otherwise registers the waker of `cx`.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Sets another deadline.
    fn reset(&mut self, deadline: Timestamp);
}

/// One connected stream socket.
///
/// Readiness registers a waker; the `try_` calls never do, so that whoever is running may use them
/// without stealing the driver's waker.
pub trait Socket: Send + Sync + 'static {
    /// Ready when a read may succeed (or report the end); otherwise registers the waker of `cx` for reads.
    ///
    /// # Errors
    /// When the socket can no longer report readiness.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when a write may succeed; otherwise registers the waker of `cx` for writes.
    ///
    /// # Errors
    /// As [`Socket::poll_readable`].
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads into the spare capacity of `buf` and returns how many bytes were appended; 0 is the end.
    ///
    /// The caller provides spare capacity.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing now, or what the transport says.
    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize>;

    /// Writes from several slices and returns how many bytes were taken.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room now, or what the transport says.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Sends what it holds back, where a write need not do so; a driver calls it when it has written.
    fn flush(&self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// Ends the writing side: the peer reads the end after what was written.
    ///
    /// # Errors
    /// What the transport says; the socket may be gone already.
    fn shutdown(&self) -> io::Result<()>;

    /// Who is at the other end, for people: `127.0.0.1:50312`.
    fn peer(&self) -> String;

    /// Whom a session is counted for that a client makes over this: by default the address in [`Socket::peer`], or
    /// nobody where that is none.
    fn origin(&self) -> Origin {
        let address = self.peer().parse::<SocketAddr>();
        address.map_or(Origin::Unknown, |address| Origin::of_address(address.ip()))
    }
}

/// A listening stream socket.
pub trait Listener: Send + Sync + 'static {
    /// Ready with the next connected socket; otherwise registers the waker of `cx`.
    ///
    /// # Errors
    /// What the operating system says; the caller may go on accepting.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>>;

    /// The address it listens on, with the port that was really bound.
    fn local_address(&self) -> Address;
}

/// Datagrams that were received in one buffer.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Who sent them.
    pub remote: SocketAddr,
    /// The own address that they were sent to, where the system tells.
    pub local_ip: Option<IpAddr>,
    /// Their two bits of explicit congestion notification (RFC 3168).
    pub ecn: u8,
    /// Bytes in the buffer.
    pub len: usize,
    /// Bytes of each datagram but the last, which may be shorter.
    pub stride: usize,
}

impl Default for Received {
    fn default() -> Received {
        Received {
            remote: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            local_ip: None,
            ecn: 0,
            len: 0,
            stride: 0,
        }
    }
}

/// Datagrams to be sent to one place.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams<'a> {
    /// Where to.
    pub remote: SocketAddr,
    /// The own address to send from, if it matters.
    pub local_ip: Option<IpAddr>,
    /// Two bits of explicit congestion notification (RFC 3168).
    pub ecn: u8,
    /// All of them, one behind the other.
    pub contents: &'a [u8],
    /// Bytes of each datagram but the last, which may be shorter; `None` where there is one.
    pub segment: Option<usize>,
}

/// One bound UDP socket. As with [`Socket`], readiness registers a waker, and the `try_` calls never do. The
/// socket keeps one waker for each direction.
pub trait UdpSocket: Send + Sync + 'static {
    /// Ready when [`UdpSocket::try_recv`] may succeed; otherwise registers the waker of `cx`.
    ///
    /// # Errors
    /// When the socket can no longer report readiness.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when [`UdpSocket::try_send`] may succeed; otherwise registers the waker of `cx`.
    ///
    /// # Errors
    /// As [`UdpSocket::poll_readable`].
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Receives into as many of the buffers as can be filled at once, and says of each what it holds. There are as
    /// many of one as of the other.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing now, or what the system says.
    fn try_recv(&self, buffers: &mut [IoSliceMut<'_>], received: &mut [Received]) -> io::Result<usize>;

    /// Sends datagrams, all or none of them.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room now. What else the system says concerns these datagrams alone.
    fn try_send(&self, datagrams: &Datagrams<'_>) -> io::Result<()>;

    /// Where it is bound, with the port that was really taken.
    ///
    /// # Errors
    /// What the system says.
    fn local_address(&self) -> io::Result<SocketAddr>;

    /// How many datagrams one call of [`UdpSocket::try_send`] takes at most.
    fn max_segments(&self) -> usize {
        1
    }

    /// Whether datagrams that are too long are dropped and not cut in pieces (RFC 9000 §14).
    fn keeps_whole(&self) -> bool {
        false
    }
}
