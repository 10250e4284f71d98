//! How a client reaches an endpoint: a socket, and the handshake of what is spoken on it.

#[cfg(feature = "websocket")]
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use crate::address::Address;
use crate::layers::Connection;
use crate::rt::{BoxFuture, Runtime};

/// What a client's carriers need to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    #[cfg(feature = "websocket")]
    pub(crate) origin: Option<String>,
}

/// Connects an endpoint, until it can carry a session.
pub(crate) fn connect(
    runtime: Arc<dyn Runtime>,
    address: Address,
    settings: Arc<Settings>,
) -> BoxFuture<'static, io::Result<Connection>> {
    Box::pin(async move {
        let socket = runtime.connect(address.socket()).await?;
        let connection = Connection::native(socket);
        match &address {
            Address::Over { .. } => begin(&*runtime, &address, &settings, connection).await,
            _ => Ok(connection),
        }
    })
}

#[cfg(feature = "websocket")]
async fn begin(
    runtime: &dyn Runtime,
    address: &Address,
    settings: &Settings,
    mut connection: Connection,
) -> io::Result<Connection> {
    use sheetbend_core::carrier::Carrier;
    use sheetbend_core::carrier::websocket::{ClientHandshake, Limits, WebSocket};
    use sheetbend_core::rng::Rng;

    use crate::dial::security;
    use crate::layers::{Layers, Sending, poll_handshake};

    let Address::Over { target, .. } = address else {
        return Ok(connection);
    };
    let handshake = ClientHandshake {
        host: address.authority(),
        target: target.clone(),
        origin: settings.origin.clone(),
    };
    let websocket = WebSocket::client(handshake, Limits::default(), Rng::from_seed(runtime.seed()));
    let carrier = Carrier::websocket(websocket, security(address));
    connection.layers = Some(Box::new(Layers::new(carrier)));
    let mut sending = Sending::default();
    poll_fn(|cx| poll_handshake(cx, runtime.now(), &mut connection, &mut sending)).await?;
    Ok(connection)
}

#[cfg(not(feature = "websocket"))]
async fn begin(_: &dyn Runtime, address: &Address, _: &Settings, _: Connection) -> io::Result<Connection> {
    let what = format!("built without support for {}://", address.transport());
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}
