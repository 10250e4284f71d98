//! QUIC as a transport: UDP sockets with connections on them, each of which is driven by its session.

mod client;
mod early;
mod lanes;
mod moves;
mod port;
mod server;
mod socket;
#[cfg(feature = "webtransport")]
#[path = "http3.rs"]
mod web;
#[cfg(not(feature = "webtransport"))]
#[path = "native.rs"]
mod web;
mod wire;

use std::io;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use sheetbend_core::carrier::quic::{Endpoint, EndpointSettings, ServerQuic};
use sheetbend_core::handshake::Exporter;
use sheetbend_core::session::{LaneRoom, LaneRun, Moved};
use sheetbend_core::wire::OutBuffer;

use crate::rt::{Runtime, UdpSocket};

pub(crate) use client::{connect, settle};
pub(crate) use port::Port;
pub(crate) use server::{bind, serve};

/// What a path over QUIC is, beside its socket.
pub(crate) struct Facts {
    pub(crate) transport: &'static str,
    pub(crate) exporter: Option<Exporter>,
    /// Its handshake is not done: so it can carry a session that begins, and no other.
    pub(crate) early: bool,
    pub(crate) lanes: Arc<dyn Lanes>,
}

/// What a link does with a connection that has lanes, beside its socket, which is lane 0.
pub(crate) trait Lanes: Send + Sync {
    /// From here on the link calls [`Socket::flush`](crate::rt::Socket::flush) whenever it has written.
    fn adopt(&self);

    /// Lanes beyond the first that this end may use.
    fn count(&self) -> u16;

    /// Hands what came on lanes beyond the first to `take`, with its lane's number and the size of the block that it
    /// lies in, until `take` says no.
    fn read(&self, take: &mut dyn FnMut(u64, &mut BytesMut, usize) -> bool);

    /// How many acknowledgements QUIC itself has had.
    fn acknowledgements(&self) -> u64;

    /// A lane on which nothing can be sent any more, told once.
    fn take_lost(&self) -> Option<u16>;

    /// Takes all output, and tells whether it may be given more at once.
    fn write(&self, output: &mut OutBuffer, runs: &mut Vec<LaneRun>) -> bool;

    /// What can be taken at present.
    fn room(&self) -> LaneRoom;

    /// Bytes of them that there is room for now.
    fn datagram_space(&self) -> usize;

    /// Sends a datagram beside the lanes, for which there is room.
    fn send_datagram(&self, datagram: Bytes);

    /// The next datagram that came beside the lanes.
    fn recv_datagram(&self) -> Option<Bytes>;

    /// Gives the connection another socket, where it has one to itself.
    fn rebind(&self);

    /// What became of the address of either end, and the path's name from here on if it has another; told once each.
    fn take_move(&self) -> Option<(Option<Arc<str>>, Moved)>;

    /// Whether the server took what went before the handshake was done; told once, when that is known.
    fn take_early(&self) -> Option<bool>;

    /// Drives a connection that nobody has yet until its handshake is done.
    fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Exporter>>>;

    /// What ended the connection.
    fn failure(&self) -> Option<io::Error>;

    /// Goes on with what had no room. Tells as [`Lanes::write`].
    fn has_room(&self) -> bool;
}

/// What quinn-proto takes for time zero. Only differences to it are ever formed, so that nothing depends on it.
#[allow(clippy::disallowed_methods, reason = "no time is read from it")]
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The endpoint of a socket.
fn endpoint(
    runtime: &dyn Runtime,
    socket: &dyn UdpSocket,
    server: Option<ServerQuic>,
) -> io::Result<Endpoint> {
    let mut made = None;
    let (seed, epoch) = (runtime.seed(), crate::layers::epoch(runtime));
    let mut server = server;
    // The keys of its tables are random; their order is never looked at.
    runtime.unobserved(&mut || {
        made = Some(Endpoint::new(EndpointSettings {
            seed,
            origin: *ORIGIN,
            epoch,
            keeps_whole: socket.keeps_whole(),
            server: server.take(),
        }));
    });
    let made = made.ok_or(io::ErrorKind::Unsupported)?;
    made.map_err(io::Error::other)
}
