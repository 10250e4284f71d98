//! The simulated network: packets, links, TCP, UDP and what stands between.

mod batch;
mod connection;
mod fabric;
mod link;
mod middlebox;
mod socket;
mod stream;
pub(crate) mod tcp;
mod udp;

use std::net::SocketAddrV4;

use bytes::Bytes;

pub(crate) use connection::{Connection, ConnectionKey, Listening};
pub(crate) use fabric::{AttachmentId, Fabric, LinkId};
pub use link::{Burst, Drop, LinkConfig, LinkStats};
pub(crate) use link::{Fate, Link};
pub use middlebox::{Middlebox, Unknown};
pub(crate) use socket::{SimSocket, listen, start_connect};
pub use stream::{TcpListener, TcpStream};
pub use tcp::TcpConfig;
pub use udp::UdpSocket;
pub(crate) use udp::UdpState;

/// Header bytes of a datagram: IPv4 and UDP.
pub(crate) const UDP_HEADERS: usize = 28;

/// What a packet carries.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Tcp(tcp::Segment),
    Udp(Bytes),
}

/// A packet under way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    pub(crate) body: Body,
}

impl Packet {
    /// Bytes with headers.
    pub(crate) fn size(&self) -> usize {
        match &self.body {
            Body::Tcp(segment) => tcp::TCP_HEADERS + segment.payload.len(),
            Body::Udp(data) => UDP_HEADERS + data.len(),
        }
    }

    pub(crate) fn payload_len(&self) -> usize {
        match &self.body {
            Body::Tcp(segment) => segment.payload.len(),
            Body::Udp(data) => data.len(),
        }
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.body, Body::Tcp(_))
    }
}
