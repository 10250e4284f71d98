//! The seam: what a peer implements to take part.

use std::any::Any;
use std::future::Future;
use std::io;
use std::pin::Pin;

use super::case::{Case, Shape, Test};
use super::items::Source;
use super::load::Load;
use super::rpc::Calls;
use super::sim;

/// What must live while a load runs. It is dropped, inside the runtime, when the measurement is over.
pub(crate) type Keep = Box<dyn Any + Send>;

/// A load being started. `Ok(None)` says that the peer does not take part in that test.
pub(crate) type Starting<'a> = Pin<Box<dyn Future<Output = io::Result<Option<Keep>>> + Send + 'a>>;

/// One contender.
///
/// Each function sets client and server up on loopback TCP (port 0) within the current runtime, spawns
/// whatever generates and answers the load, and returns at once with what must be kept alive. The work itself
/// belongs in spawned tasks, since the function runs outside the runtime's workers. The load's tasks count what
/// they finish into [`Load::counter`], may look at [`Load::stopped`], and report trouble with [`Load::fail`];
/// they need no tidy end, as the runtime is shut down with them.
///
/// Whoever calls and answers is an [`Rpc`](super::rpc::Rpc). The loads are shared: [`rtt::echo_in_turn`](super::rtt::echo_in_turn) and
/// [`rps::spawn_callers`](super::rps::spawn_callers) take anything that is a [`Caller`](super::load::Caller);
/// [`bulk::write_forever`](super::bulk::write_forever) and [`bulk::read_forever`](super::bulk::read_forever)
/// take tokio's `AsyncWrite` and `AsyncRead`.
pub(crate) trait Peer: Send + Sync {
    /// The key in the report.
    fn key(&self) -> &'static str;

    /// The settings that are worth trying in a test, one label each. The best is found before the rounds; its
    /// index comes back as `variant`. Whoever runs at default settings has one.
    fn variants(&self, _test: Test) -> Vec<String> {
        vec!["defaults".into()]
    }

    /// One caller, one 64-byte echo after the other.
    fn rtt<'a>(&'a self, _variant: usize, _load: &'a Load) -> Starting<'a> {
        absent()
    }

    /// 64-byte echoes with `in_flight` requests under way on one connection at all times.
    fn rps<'a>(&'a self, _variant: usize, _in_flight: usize, _load: &'a Load) -> Starting<'a> {
        absent()
    }

    /// Echoes of `bytes` with `in_flight` requests under way on one connection at all times.
    fn large<'a>(
        &'a self,
        _variant: usize,
        _bytes: usize,
        _in_flight: usize,
        _load: &'a Load,
    ) -> Starting<'a> {
        absent()
    }

    /// One call that is answered with 64-byte items without end; counts items where they are received.
    fn items<'a>(&'a self, _variant: usize, _source: Source, _load: &'a Load) -> Starting<'a> {
        absent()
    }

    /// One stream that is written `write_bytes` at a time without end; counts bytes where they are received.
    fn bulk<'a>(&'a self, _variant: usize, _write_bytes: usize, _load: &'a Load) -> Starting<'a> {
        absent()
    }

    /// `count` streams at once of `bytes` each, opened, written and ended, over and over; counts bytes where
    /// they are received.
    fn streams<'a>(&'a self, _variant: usize, _count: usize, _bytes: usize, _load: &'a Load) -> Starting<'a> {
        absent()
    }

    /// `sessions` sessions, both ends, each of which has carried one 64-byte echo and is silent since. Returns
    /// when all are; dropping what it returns may close them.
    fn idle<'a>(&'a self, _variant: usize, _sessions: usize) -> Starting<'a> {
        absent()
    }

    /// One session with `calls` calls of 64 bytes under way. Returns when the server has all of them; it answers
    /// none.
    fn pending<'a>(&'a self, _variant: usize, _calls: usize) -> Starting<'a> {
        absent()
    }

    /// A simulated network with messages under way, if the peer is a simulator.
    fn simulate(&self, _net: sim::Net) -> Option<Box<dyn sim::Simulation>> {
        None
    }
}

/// Starts a case's load on a peer.
pub(crate) fn start<'a>(peer: &'a dyn Peer, case: &Case, variant: usize, load: &'a Load) -> Starting<'a> {
    match case.shape {
        Shape::Rtt => peer.rtt(variant, load),
        Shape::Rps { in_flight } => peer.rps(variant, in_flight, load),
        Shape::Large { bytes, in_flight } => peer.large(variant, bytes, in_flight, load),
        Shape::Items { source } => peer.items(variant, source, load),
        Shape::Bulk { write_bytes } => peer.bulk(variant, write_bytes, load),
        Shape::Streams { count, bytes } => peer.streams(variant, count, bytes, load),
        Shape::Idle { sessions } => peer.idle(variant, sessions),
        Shape::Pending { calls } => peer.pending(variant, calls),
        Shape::Sim(_) => absent(),
    }
}

/// All contenders in the order of a round.
pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    let [ws, tls, http, sse, quic, wt] = super::ours::OVER;
    vec![
        Box::new(super::ours::TCP),
        Box::new(http),
        Box::new(sse),
        Box::new(ws),
        Box::new(super::tungstenite::Tungstenite),
        Box::new(tls),
        Box::new(super::rustls::Rustls),
        Box::new(quic),
        Box::new(wt),
        Box::new(super::quinn::Quinn),
        Box::new(super::raw_naive::RawNaive),
        Box::new(super::raw_callers::RawCallers),
        Box::new(super::yamux::Yamux),
        Box::new(Calls(super::tonic::Tonic)),
        Box::new(Calls(super::tarpc::Tarpc)),
        Box::new(Calls(super::h2::H2)),
        Box::new(Calls(super::jsonrpsee::Jsonrpsee)),
        Box::new(Calls(super::velo::Velo)),
        Box::new(sim::Turmoil),
    ]
}

/// The keys of the contenders that one may choose from.
pub(crate) fn keys() -> Vec<&'static str> {
    let keys = all().into_iter().map(|peer| peer.key());
    keys.filter(|key| *key != super::ours::KEY).collect()
}

/// A peer that does not take part in a test.
pub(crate) fn absent<'a>() -> Starting<'a> {
    Box::pin(async { Ok(None) })
}
