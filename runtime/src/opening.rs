//! How the addresses of a server are opened: what listens on them.

use std::io;
use std::sync::Arc;

use crate::address::Address;
use crate::rt::{Listener, Runtime};

#[cfg(feature = "quic")]
use {
    crate::quic::Port,
    sheetbend_core::carrier::quic::QuicSettings,
    sheetbend_core::carrier::tls::ServerTls,
    std::net::{IpAddr, SocketAddr},
};

/// Ports of TCP that are tried for one whose number is free for UDP as well.
#[cfg(feature = "quic")]
const TRIES: usize = 16;

/// What serves an address.
pub(crate) struct Opened {
    /// It, with the port that was bound.
    pub(crate) address: Address,
    pub(crate) listener: Option<Box<dyn Listener>>,
    #[cfg(feature = "quic")]
    pub(crate) port: Option<Arc<Port>>,
}

/// Opens addresses.
pub(crate) struct Opening<'a> {
    pub(crate) runtime: &'a Arc<dyn Runtime>,
    #[cfg(feature = "quic")]
    pub(crate) tls: Option<&'a ServerTls>,
    #[cfg(feature = "quic")]
    pub(crate) quic: &'a QuicSettings,
    /// TCP is served over UDP as well.
    #[cfg(feature = "quic")]
    pub(crate) udp: bool,
}

impl Opening<'_> {
    async fn listen(&self, address: &Address) -> io::Result<Opened> {
        let listener = self.runtime.listen(address.socket()).await?;
        Ok(Opened {
            address: address.over_socket(listener.local_address()),
            listener: Some(listener),
            #[cfg(feature = "quic")]
            port: None,
        })
    }

    #[cfg(not(feature = "quic"))]
    pub(crate) async fn open(&self, address: &Address) -> io::Result<Opened> {
        match address {
            Address::Over { scheme, .. } if scheme.is_udp() => Err(io::ErrorKind::Unsupported.into()),
            _ => self.listen(address).await,
        }
    }

    #[cfg(feature = "quic")]
    pub(crate) async fn open(&self, address: &Address) -> io::Result<Opened> {
        if let Address::Over {
            scheme, host, port, ..
        } = address
            && scheme.is_udp()
        {
            return self.open_udp(address, host, *port).await;
        }
        let Some(tls) = self.tls.filter(|_| self.udp) else {
            return self.listen(address).await;
        };
        let any = matches!(address.socket(), Address::Tcp { port: 0, .. });
        let mut opened = self.listen(address).await?;
        for _ in 0..TRIES {
            let Some(twin) = self.twin(&opened).await else {
                break;
            };
            match crate::quic::bind(self.runtime, twin, tls, self.quic) {
                Ok((port, _)) => {
                    opened.port = Some(port);
                    break;
                }
                // The next number, while this one is kept.
                Err(error) if any && error.kind() == io::ErrorKind::AddrInUse => {
                    opened = self.listen(address).await?;
                }
                // TCP does without.
                Err(_) => break,
            }
        }
        Ok(opened)
    }

    /// Where the UDP socket beside a listening TCP socket is to be.
    #[cfg(feature = "quic")]
    async fn twin(&self, opened: &Opened) -> Option<SocketAddr> {
        let Address::Tcp { host, port } = opened.listener.as_ref()?.local_address() else {
            return None;
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(SocketAddr::new(ip, port));
        }
        // Not every runtime tells the address that a name stands for.
        let places = self.runtime.resolve(host, port).await.ok()?;
        places.first().copied()
    }

    #[cfg(feature = "quic")]
    async fn open_udp(&self, address: &Address, host: &str, port: u16) -> io::Result<Opened> {
        let tls = self.tls.ok_or(io::ErrorKind::Unsupported)?;
        let places = self.runtime.resolve(host.to_owned(), port).await?;
        let place = places.first().ok_or(io::ErrorKind::NotFound)?;
        let (port, bound) = crate::quic::bind(self.runtime, *place, tls, self.quic)?;
        let bound = Address::Tcp {
            host: bound.ip().to_string(),
            port: bound.port(),
        };
        Ok(Opened {
            address: address.over_socket(bound),
            listener: None,
            port: Some(port),
        })
    }
}
