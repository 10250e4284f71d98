//! How connections over QUIC come to a server's sessions.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use sheetbend_core::carrier::quic::{QuicSettings, ServerQuic};
use sheetbend_core::carrier::tls::ServerTls;
use sheetbend_core::session::{Incoming, PathInfo};

use super::endpoint;
use super::port::{Accepted, Port, SERVER_PIECES};
use super::socket::{self, poll_first};
use super::web;
use super::wire::Wire;
use crate::arrive::Door;
use crate::hub::Hub;
use crate::rt::Runtime;

/// Binds a UDP socket that serves QUIC.
pub(crate) fn bind(
    runtime: &Arc<dyn Runtime>,
    address: SocketAddr,
    tls: &ServerTls,
    settings: &QuicSettings,
) -> io::Result<(Arc<Port>, SocketAddr)> {
    let udp = runtime.bind_udp(address)?;
    let bound = udp.local_address()?;
    let server = ServerQuic::new(tls, settings);
    let endpoint = endpoint(&**runtime, &*udp, Some(server))?;
    Ok((Port::new(runtime.clone(), udp, endpoint, SERVER_PIECES), bound))
}

/// Receives for all connections on a port, and has each new one taken to its session.
pub(crate) fn serve(hub: Arc<Hub>, port: Arc<Port>, door: Arc<Door>) -> impl Future<Output = ()> + Send {
    poll_fn(move |cx| {
        port.poll_serve(cx, &mut |accepted| {
            let (hub, port, door) = (hub.clone(), port.clone(), door.clone());
            let runtime = hub.runtime.clone();
            runtime.spawn(Box::pin(welcome(hub, port, door, accepted)));
        })
    })
}

/// Shakes hands, and has what the connection speaks decide where it goes; as far as what came in the first flight tells.
/// Who takes too long is dropped.
async fn welcome(hub: Arc<Hub>, port: Arc<Port>, door: Arc<Door>, accepted: Accepted) {
    let mut wire = Wire::new(port.clone(), accepted, web::server(&door), false);
    let info = PathInfo::new("", "quic", sheetbend_core::handshake::Security::Encrypted);
    let mut timer = hub.runtime.timer(Incoming::new(port.now(), info).deadline());
    let ready = poll_fn(|cx| {
        let ready = poll_first(&mut wire, cx, false).map(|ready| ready.is_ok());
        match ready {
            Poll::Pending => timer.poll_expired(cx).map(|()| false),
            ready => ready,
        }
    })
    .await;
    if ready {
        wire.welcome();
        hub.welcome_path(socket::connection(wire), door);
    }
}
