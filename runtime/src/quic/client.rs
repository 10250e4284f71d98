//! How a client reaches a server over QUIC.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sheetbend_core::carrier::quic::ClientQuic;

use super::endpoint;
use super::port::{CLIENT_PIECES, Port};
use super::socket::{self, poll_first};
use super::web::{self, Web};
use super::wire::Wire;
use crate::address::Address;
use crate::alarm::Alarm;
use crate::layers::Connection;
use crate::reach::Settings;
use crate::rt::{BoxFuture, Runtime};

/// How long one address of a name is tried before the next is tried beside it (RFC 8305 §8). Nothing tells that
/// nobody listens at one.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Connects a server, until the path's first lane stands: at once, if `early` is wanted and the server is known from
/// before.
pub(crate) async fn connect(
    runtime: Arc<dyn Runtime>,
    address: Address,
    settings: Arc<Settings>,
    early: bool,
) -> io::Result<Connection> {
    let Address::Over { host, port, .. } = &address else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let mut places = runtime.resolve(host.clone(), *port).await?;
    places.truncate(MAX_ADDRESSES);
    // The next one is the last.
    places.reverse();
    let mut attempts: Vec<BoxFuture<'static, io::Result<Connection>>> = Vec::new();
    let mut alarm = Alarm::default();
    let mut next = runtime.now();
    let mut last = None;
    poll_fn(|cx| {
        loop {
            let now = runtime.now();
            let mut index = 0;
            while let Some(attempt) = attempts.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(connection)) => return Poll::Ready(Ok(connection)),
                    Poll::Ready(Err(error)) => {
                        last = Some(error);
                        next = now;
                        drop(attempts.swap_remove(index));
                    }
                    Poll::Pending => index += 1,
                }
            }
            if now >= next
                && let Some(place) = places.pop()
            {
                let mut made = None;
                // quinn-proto's settings begin with a table of tokens, whose keys are random.
                runtime.unobserved(&mut || made = Some(web::client(&address, &settings, place)));
                let made = made.ok_or(io::ErrorKind::Unsupported)??;
                let attempt = reach(runtime.clone(), made, place, host.clone(), early);
                attempts.push(Box::pin(attempt));
                next = now + STAGGER;
                continue;
            }
            if attempts.is_empty() && places.is_empty() {
                let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
                return Poll::Ready(Err(last.take().unwrap_or_else(nowhere)));
            }
            let due = (!places.is_empty()).then_some(next);
            if alarm.poll(&*runtime, due, cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Where a socket is bound that is to reach a place.
pub(super) fn any_address(place: SocketAddr) -> SocketAddr {
    match place {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

/// Waits for the handshake of a connection that was to begin early, and has nothing to say before it is done.
pub(crate) async fn settle(mut connection: Connection) -> io::Result<Connection> {
    if let Some(facts) = &mut connection.quic {
        facts.exporter = poll_fn(|cx| facts.lanes.poll_settled(cx)).await?;
        facts.early = false;
        // Nothing was in it.
        let _ = facts.lanes.take_early();
    }
    Ok(connection)
}

/// A socket of its own for each connection: so the session that has it receives from it without a task between.
async fn reach(
    runtime: Arc<dyn Runtime>,
    (client, web): (ClientQuic, Web),
    place: SocketAddr,
    name: String,
    early: bool,
) -> io::Result<Connection> {
    let udp = runtime.bind_udp(any_address(place))?;
    let endpoint = endpoint(&*runtime, &*udp, None)?;
    let port = Port::new(runtime, udp, endpoint, CLIENT_PIECES);
    let now = port.now();
    let begun = port.begin(|endpoint| endpoint.connect(now, &client, place, &name));
    let begun = begun.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut wire = Wire::new(port, begun, web, true);
    if early && wire.begin_early()? {
        // What the session begins with goes with the first packet.
        return Ok(socket::connection(wire));
    }
    poll_fn(|cx| poll_first(&mut wire, cx, true)).await?;
    Ok(socket::connection(wire))
}
