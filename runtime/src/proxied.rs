//! How a client reaches an endpoint through a proxy. PROTOCOL 14.6.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use sheetbend_core::carrier::proxy::{Proxy, ProxyError, ProxyKind, Tunnel, TunnelLimits};

use crate::address::Address;
use crate::layers::{Connection, Sending, poll_read};
use crate::reach::Settings;
use crate::rt::{Runtime, Timer};

/// How many of a name's addresses a proxy is asked for, one after the other.
const MAX_ADDRESSES: usize = 4;

/// The proxy that leads to an address, if one is needed.
pub(crate) fn proxy<'a>(address: &Address, settings: &'a Settings) -> Option<&'a Proxy> {
    let (host, port) = target(address)?;
    settings.proxies.proxy(address.transport(), host, port)
}

/// What a proxy is asked for; `None` for what no proxy leads to.
fn target(address: &Address) -> Option<(&str, u16)> {
    match address {
        Address::Tcp { host, port } | Address::Over { host, port, .. } => Some((host, *port)),
        Address::Unix(_) | Address::Mem(_) => None,
    }
}

/// A connection that the proxy has led to the address.
pub(crate) async fn reach(
    runtime: &Arc<dyn Runtime>,
    address: &Address,
    proxy: &Proxy,
    settings: &Settings,
) -> io::Result<Connection> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("through the proxy {proxy}: {error}"));
    let Some((host, port)) = target(address) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let hosts = match proxy.kind() {
        ProxyKind::Socks5 { resolves: false } => {
            let found = runtime.resolve(host.to_owned(), port).await?;
            found.iter().map(|address| address.ip().to_string()).collect()
        }
        _ => vec![host.to_owned()],
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
    for host in hosts.iter().take(MAX_ADDRESSES) {
        match open(runtime, proxy, host, port, settings).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = named(error),
        }
    }
    Err(last)
}

async fn open(
    runtime: &Arc<dyn Runtime>,
    proxy: &Proxy,
    host: &str,
    port: u16,
    settings: &Settings,
) -> io::Result<Connection> {
    let tunnel = Tunnel::new(proxy, host, port, TunnelLimits::default(), runtime.now());
    let mut tunnel = tunnel.map_err(refused)?;
    let Some(deadline) = tunnel.poll_timeout() else {
        return Err(refused(tunnel.handle_end()));
    };
    let mut timer = runtime.timer(deadline);
    let mut connection = {
        let mut connecting = std::pin::pin!(connect(runtime, proxy, settings));
        poll_fn(|cx| match timer.poll_expired(cx) {
            Poll::Ready(()) => Poll::Ready(Err(refused(ProxyError::TimedOut))),
            Poll::Pending => connecting.as_mut().poll(cx),
        })
        .await?
    };
    let mut sending = Sending::default();
    poll_fn(|cx| {
        poll_open(
            cx,
            &**runtime,
            &mut tunnel,
            &mut connection,
            &mut sending,
            &mut *timer,
        )
    })
    .await?;
    Ok(connection)
}

/// A connection on which the proxy is spoken to.
async fn connect(runtime: &Arc<dyn Runtime>, proxy: &Proxy, settings: &Settings) -> io::Result<Connection> {
    let own = Address::Tcp {
        host: proxy.host().to_owned(),
        port: proxy.port(),
    };
    let connection = Connection::native(crate::race::connect(&**runtime, &own, &settings.winners).await?);
    match proxy.kind() {
        ProxyKind::Https => encrypted(runtime, proxy, settings, connection).await,
        _ => Ok(connection),
    }
}

/// The proxy proves its name before it is told any, or a password.
#[cfg(feature = "tls")]
async fn encrypted(
    runtime: &Arc<dyn Runtime>,
    proxy: &Proxy,
    settings: &Settings,
    mut connection: Connection,
) -> io::Result<Connection> {
    use sheetbend_core::carrier::Carrier;
    use sheetbend_core::carrier::tls::{Inner, Tls};
    use sheetbend_core::handshake::Security;
    use sheetbend_core::rng::Rng;

    use crate::layers::{Layers, epoch, poll_handshake};

    let Some(config) = &settings.proxy_tls else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let rng = Rng::from_seed(runtime.seed());
    let tls = Tls::client(config, proxy.host(), Inner::Http1, rng, epoch(&**runtime));
    let tls = tls.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let carrier = Carrier::records(Security::Plain).over_tls(tls);
    connection.layers = Some(Box::new(Layers::new(carrier)));
    let mut sending = Sending::default();
    poll_fn(|cx| poll_handshake(cx, runtime.now(), &mut connection, &mut sending)).await?;
    Ok(crate::tunnelled::inside(runtime.clone(), connection))
}

#[cfg(not(feature = "tls"))]
async fn encrypted(_: &Arc<dyn Runtime>, _: &Proxy, _: &Settings, _: Connection) -> io::Result<Connection> {
    let what = "built without support for proxies inside TLS";
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

/// Ready when the connection is the target's. What it said already is in the input.
fn poll_open(
    cx: &mut Context<'_>,
    runtime: &dyn Runtime,
    tunnel: &mut Tunnel,
    connection: &mut Connection,
    sending: &mut Sending,
    timer: &mut dyn Timer,
) -> Poll<io::Result<()>> {
    let Connection { socket, input, .. } = connection;
    loop {
        tunnel.poll_transmit(sending.buffer());
        if let Poll::Ready(written) = sending.poll_write(cx, &**socket) {
            written?;
            if tunnel.is_open() {
                return Poll::Ready(Ok(()));
            }
        }
        if timer.poll_expired(cx).is_ready() {
            tunnel.handle_timeout(runtime.now()).map_err(refused)?;
        }
        match std::task::ready!(poll_read(cx, &**socket, input)) {
            Ok(true) => tunnel.handle_input(input).map_err(refused)?,
            Ok(false) => return Poll::Ready(Err(refused(tunnel.handle_end()))),
            Err(error) => return Poll::Ready(Err(error)),
        };
    }
}

fn refused(error: ProxyError) -> io::Error {
    let kind = match &error {
        ProxyError::TimedOut => io::ErrorKind::TimedOut,
        ProxyError::Closed => io::ErrorKind::UnexpectedEof,
        ProxyError::Target(_) => io::ErrorKind::InvalidInput,
        ProxyError::Refused { .. } | ProxyError::Socks(_) => io::ErrorKind::ConnectionRefused,
        ProxyError::AuthenticationRequired(_)
        | ProxyError::UnknownAuthentication
        | ProxyError::CredentialsRefused => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}
