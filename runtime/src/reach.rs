//! How a client reaches an endpoint: a socket, and the handshake of what is spoken on it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use sheetbend_core::carrier::Carrier;
#[cfg(any(feature = "tls", feature = "websocket"))]
use sheetbend_core::rng::Rng;

use crate::address::{Address, Scheme};
use crate::endpoint::security;
use crate::layers::{Connection, Layers, Sending, poll_handshake};
use crate::rt::{BoxFuture, Runtime};

/// What a client's carriers need to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    #[cfg(feature = "http")]
    pub(crate) origin: Option<String>,
    /// What is known of the ways down over HTTP.
    #[cfg(feature = "http")]
    pub(crate) ways: Arc<crate::http::Ways>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<sheetbend_core::carrier::tls::ClientTls>,
    #[cfg(feature = "quic")]
    pub(crate) quic: sheetbend_core::carrier::quic::QuicSettings,
    /// What leads to servers that are not reached straight.
    #[cfg(feature = "proxy")]
    pub(crate) proxies: sheetbend_core::carrier::proxy::ProxyRules,
    /// For proxies that are spoken to inside TLS.
    #[cfg(all(feature = "proxy", feature = "tls"))]
    pub(crate) proxy_tls: Option<sheetbend_core::carrier::tls::ClientTls>,
    /// JOINs are bound to TLS.
    pub(crate) binds: bool,
    /// Which address of a name answered last.
    pub(crate) winners: Arc<crate::race::Winners>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            #[cfg(feature = "http")]
            origin: None,
            #[cfg(feature = "http")]
            ways: Arc::default(),
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "quic")]
            quic: Default::default(),
            #[cfg(feature = "proxy")]
            proxies: Default::default(),
            #[cfg(all(feature = "proxy", feature = "tls"))]
            proxy_tls: None,
            binds: true,
            winners: Arc::default(),
        }
    }
}

/// Connects an endpoint, until it can carry a session; one that begins there may be carried `early`, before the
/// transport's handshake is done.
pub(crate) fn connect(
    runtime: Arc<dyn Runtime>,
    address: Address,
    settings: Arc<Settings>,
    #[cfg_attr(not(feature = "quic"), expect(unused_variables, reason = "only QUIC can"))] early: bool,
) -> BoxFuture<'static, io::Result<Connection>> {
    Box::pin(async move {
        #[cfg(feature = "quic")]
        if let Address::Over { scheme, .. } = &address
            && scheme.is_udp()
        {
            #[cfg(feature = "proxy")]
            if let Some(proxy) = crate::proxied::proxy(&address, &settings) {
                let what = format!("the proxy {proxy} leads TCP alone");
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
            return crate::quic::connect(runtime, address, settings, early).await;
        }
        let connection = connect_bare(runtime.clone(), address.clone(), settings.clone()).await?;
        match &address {
            Address::Over { scheme, .. } if scheme.is_http() => {
                over_http(runtime, address, settings, connection)
            }
            _ => Ok(connection),
        }
    })
}

/// Connects an endpoint, with all that lies under HTTP, or else under the session.
pub(crate) fn connect_bare(
    runtime: Arc<dyn Runtime>,
    address: Address,
    settings: Arc<Settings>,
) -> BoxFuture<'static, io::Result<Connection>> {
    Box::pin(async move {
        let mut connection = reach(&runtime, &address, &settings).await?;
        if let Some(carrier) = carrier(&*runtime, &address, &settings)? {
            let mut layers = Box::new(Layers::new(carrier));
            if !connection.input.is_empty() {
                // What a proxy passed on with its answer.
                if layers.carrier.reads_apart() {
                    std::mem::swap(&mut layers.wire, &mut connection.input);
                }
                let decoded = layers.decode(runtime.now(), &mut connection.input);
                decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            connection.layers = Some(layers);
            let mut sending = Sending::default();
            poll_fn(|cx| poll_handshake(cx, runtime.now(), &mut connection, &mut sending)).await?;
        }
        Ok(connection)
    })
}

/// A connection on which nothing has been spoken with the server.
#[cfg(feature = "proxy")]
async fn reach(runtime: &Arc<dyn Runtime>, address: &Address, settings: &Settings) -> io::Result<Connection> {
    match crate::proxied::proxy(address, settings) {
        Some(proxy) => crate::proxied::reach(runtime, address, proxy, settings).await,
        None => straight(runtime, address, settings).await,
    }
}

#[cfg(not(feature = "proxy"))]
async fn reach(runtime: &Arc<dyn Runtime>, address: &Address, settings: &Settings) -> io::Result<Connection> {
    straight(runtime, address, settings).await
}

async fn straight(
    runtime: &Arc<dyn Runtime>,
    address: &Address,
    settings: &Settings,
) -> io::Result<Connection> {
    let socket = match address {
        Address::Own(place) => place.connect(runtime).await?,
        _ => crate::race::connect(&**runtime, address, &settings.winners).await?,
    };
    Ok(Connection::native(socket))
}

#[cfg(feature = "http")]
fn over_http(
    runtime: Arc<dyn Runtime>,
    address: Address,
    settings: Arc<Settings>,
    first: Connection,
) -> io::Result<Connection> {
    Ok(crate::http::open(runtime, address, settings, first))
}

#[cfg(not(feature = "http"))]
fn over_http(
    _: Arc<dyn Runtime>,
    address: Address,
    _: Arc<Settings>,
    _: Connection,
) -> io::Result<Connection> {
    Err(not_built(&address))
}

/// What is spoken at an address, below HTTP; `None` where it is records alone.
fn carrier(runtime: &dyn Runtime, address: &Address, settings: &Settings) -> io::Result<Option<Carrier>> {
    let Address::Over { scheme, .. } = address else {
        return Ok(None);
    };
    let carrier = match scheme {
        Scheme::Http => return Ok(None),
        Scheme::Tls | Scheme::Https => Carrier::records(security(address)),
        Scheme::Ws | Scheme::Wss => websocket(runtime, address, settings)?,
        // A client has put its alternatives in place of the one, and the other is no stream socket.
        Scheme::Any | Scheme::Quic | Scheme::Wt => return Err(io::ErrorKind::Unsupported.into()),
    };
    if scheme.is_encrypted() {
        return over_tls(runtime, address, settings, carrier).map(Some);
    }
    Ok(Some(carrier))
}

#[cfg(not(all(feature = "tls", feature = "websocket", feature = "http")))]
fn not_built(address: &Address) -> io::Error {
    let what = format!("built without support for {}://", address.transport());
    io::Error::new(io::ErrorKind::Unsupported, what)
}

#[cfg(feature = "websocket")]
fn websocket(runtime: &dyn Runtime, address: &Address, settings: &Settings) -> io::Result<Carrier> {
    use sheetbend_core::carrier::websocket::{ClientHandshake, Limits, SUBPROTOCOL, WebSocket};

    let target = match address {
        Address::Over { target, .. } => target.clone(),
        _ => "/".to_owned(),
    };
    let handshake = ClientHandshake {
        host: address.authority(),
        target,
        origin: settings.origin.clone(),
        protocol: Some(SUBPROTOCOL),
    };
    let websocket = WebSocket::client(handshake, Limits::default(), Rng::from_seed(runtime.seed()));
    Ok(Carrier::websocket(websocket, security(address)))
}

#[cfg(not(feature = "websocket"))]
fn websocket(_: &dyn Runtime, address: &Address, _: &Settings) -> io::Result<Carrier> {
    Err(not_built(address))
}

#[cfg(feature = "tls")]
fn over_tls(
    runtime: &dyn Runtime,
    address: &Address,
    settings: &Settings,
    carrier: Carrier,
) -> io::Result<Carrier> {
    use sheetbend_core::carrier::tls::{Inner, Tls};

    let (Address::Over { scheme, host, .. }, Some(config)) = (address, &settings.tls) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let inner = if *scheme == Scheme::Tls {
        Inner::Native
    } else {
        Inner::Http1
    };
    let rng = Rng::from_seed(runtime.seed());
    let tls = Tls::client(config, host, inner, rng, crate::layers::epoch(runtime));
    let tls = tls.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(carrier.over_tls(tls))
}

#[cfg(not(feature = "tls"))]
fn over_tls(_: &dyn Runtime, address: &Address, _: &Settings, _: Carrier) -> io::Result<Carrier> {
    Err(not_built(address))
}
