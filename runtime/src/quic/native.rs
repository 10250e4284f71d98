//! What stands for HTTP/3 where it is not built in.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use sheetbend_core::carrier::quic::{ClientQuic, Dir, StreamEvent};

use super::wire::Wire;
use crate::address::Address;
use crate::arrive::Door;
use crate::reach::Settings;

/// What a connection speaks beside records: nothing.
#[derive(Default)]
pub(super) struct Web;

pub(super) fn client(
    address: &Address,
    settings: &Settings,
    place: SocketAddr,
) -> io::Result<(ClientQuic, Web)> {
    use crate::address::Scheme;

    match (address, &settings.tls) {
        (
            Address::Over {
                scheme: Scheme::Quic, ..
            },
            Some(tls),
        ) => {
            let client = ClientQuic::early(tls, &settings.quic, place).map_err(io::Error::other)?;
            Ok((client, Web))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

pub(super) fn server(_: &Door) -> Web {
    Web
}

impl Wire {
    pub(super) fn transport(&self) -> &'static str {
        "quic"
    }

    pub(super) fn is_native(&self) -> bool {
        true
    }

    pub(super) fn close_code(&self) -> u64 {
        0
    }

    pub(super) fn agree(&mut self) {}

    pub(super) fn hears(&mut self, _: &StreamEvent) -> bool {
        true
    }

    pub(super) fn open_first(&mut self) -> io::Result<()> {
        self.first.id = self.connection.open(Dir::Bi);
        Ok(())
    }

    pub(super) fn max_datagram(&mut self) -> usize {
        self.connection.max_datagram().unwrap_or(0)
    }

    pub(super) fn send_datagram(&mut self, datagram: Bytes) {
        // One that has become too long meanwhile is lost, as it may be.
        let _ = self.connection.send_datagram(datagram);
    }

    pub(super) fn recv_datagram(&mut self) -> Option<Bytes> {
        self.connection.recv_datagram()
    }

    pub(super) fn lane_header(&mut self) -> Option<Vec<u8>> {
        Some(Vec::new())
    }
}
