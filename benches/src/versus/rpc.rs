//! What peers that call and answer have in common: the loads of requests on any [`Rpc`].

use std::future::{Future, pending};
use std::io;

use bytes::Bytes;

use super::case::Test;
use super::items::{self, Source};
use super::large::spawn_large_callers;
use super::load::{Caller, ECHO_BYTES, Load};
use super::peer::{Keep, Peer, Starting, absent};
use super::rps::spawn_callers;
use super::rtt::echo_in_turn;
use super::streams::Arrivals;

/// Calls that may be under way at once wherever a peer limits them.
pub(crate) const MAX_IN_FLIGHT: usize = 20_000;

/// What a server does with a call.
#[derive(Clone)]
pub(crate) enum Service {
    /// Answers with the payload.
    Echo,
    /// Tells that the call has come, and never answers.
    Hold(Arrivals),
}

impl Service {
    /// The answer.
    pub(crate) async fn answer(&self, payload: Bytes) -> Bytes {
        match self {
            Service::Echo => payload,
            Service::Hold(arrivals) => {
                arrivals.one_arrived();
                pending().await
            }
        }
    }
}

/// One caller of a connection that others share.
pub(crate) trait Client: Clone + Send + 'static {
    /// Calls with `payload` and waits for the answer.
    fn call(&mut self, payload: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send;
}

/// A contender that calls and answers over one connection.
pub(crate) trait Rpc: Send + Sync + 'static {
    /// Its caller's side.
    type Client: Client;

    /// The key in the report.
    fn key(&self) -> &'static str;

    /// As [`Peer::variants`].
    fn variants(&self, test: Test) -> Vec<String>;

    /// A connection on loopback TCP whose server does as `service` says.
    fn connect(
        &self,
        variant: usize,
        service: Service,
        load: &Load,
    ) -> impl Future<Output = io::Result<(Self::Client, Keep)>> + Send;

    /// As [`Peer::items`].
    fn items<'a>(&'a self, _variant: usize, _source: Source, _load: &'a Load) -> Starting<'a> {
        absent()
    }
}

/// An [`Rpc`] as a peer.
pub(crate) struct Calls<R>(pub(crate) R);

impl<R: Rpc> Peer for Calls<R> {
    fn key(&self) -> &'static str {
        self.0.key()
    }

    fn variants(&self, test: Test) -> Vec<String> {
        self.0.variants(test)
    }

    fn rtt<'a>(&'a self, variant: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, keep) = self.0.connect(variant, Service::Echo, load).await?;
            echo_in_turn(Small(client), load);
            Ok(Some(keep))
        })
    }

    fn rps<'a>(&'a self, variant: usize, in_flight: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, keep) = self.0.connect(variant, Service::Echo, load).await?;
            spawn_callers((0..in_flight).map(|_| Small(client.clone())), load);
            Ok(Some(keep))
        })
    }

    fn large<'a>(&'a self, variant: usize, bytes: usize, in_flight: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, keep) = self.0.connect(variant, Service::Echo, load).await?;
            spawn_large_callers((0..in_flight).map(|_| client.clone()), bytes, load);
            Ok(Some(keep))
        })
    }

    fn items<'a>(&'a self, variant: usize, source: Source, load: &'a Load) -> Starting<'a> {
        self.0.items(variant, source, load)
    }

    fn pending<'a>(&'a self, variant: usize, calls: usize) -> Starting<'a> {
        Box::pin(async move {
            let (arrivals, load) = (Arrivals::new(), Load::default());
            let service = Service::Hold(arrivals.clone());
            let (client, keep) = self.0.connect(variant, service, &load).await?;
            call_and_wait(client, calls, arrivals, load).await?;
            Ok(Some(keep))
        })
    }
}

/// Makes calls that are never answered, each in a task of its own; returns when the server has all of them.
pub(crate) async fn call_and_wait<C: Client>(
    client: C,
    calls: usize,
    arrivals: Arrivals,
    load: Load,
) -> io::Result<()> {
    for _ in 0..calls {
        let mut client = client.clone();
        load.spawn(async move {
            client.call(Bytes::from_static(&[7; ECHO_BYTES])).await?;
            Err(io::Error::other("an answer that nobody gave"))
        });
    }
    // One that fails would be waited for without end.
    let mut arrived = std::pin::pin!(arrivals.wait_for(calls));
    loop {
        tokio::select! {
            () = &mut arrived => return Ok(()),
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {
                if let Some(error) = load.take_error() {
                    return Err(error);
                }
            }
        }
    }
}

/// A caller of 64 bytes.
pub(crate) struct Small<C>(pub(crate) C);

impl<C: Client> Caller for Small<C> {
    fn call(
        &mut self,
        request: &[u8; ECHO_BYTES],
    ) -> impl Future<Output = io::Result<[u8; ECHO_BYTES]>> + Send {
        let payload = Bytes::copy_from_slice(request);
        async move {
            let answer = self.0.call(payload).await?;
            answer[..].try_into().map_err(io::Error::other)
        }
    }
}

/// Items without end, numbered from 0.
pub(crate) fn endless_items() -> impl Iterator<Item = Bytes> + Send + 'static {
    (0..).map(|serial: u64| Bytes::copy_from_slice(&items::item(serial)))
}
