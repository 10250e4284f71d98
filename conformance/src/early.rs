//! Sessions that begin in the first flight of a connection (0-RTT). PROTOCOL 14.8.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use sheetbend_runtime::{
    Class, Client, Config, EarlyStart, ErrorCode, PathMode, QuicSettings, Router, Server, Session,
};

use crate::env::{Env, Task, until};

/// A server that counts how often it was called with what.
struct Counting {
    address: String,
    counts: Arc<Mutex<BTreeMap<Bytes, u32>>>,
    peers: Arc<Mutex<Vec<Session>>>,
    _serving: Task<()>,
}

impl Counting {
    async fn at(env: &Env, kind: &str, quic: QuicSettings) -> Counting {
        let server = env
            .serve(Server::builder().quic(quic), &env.free_address(kind))
            .await;
        let counts = Arc::new(Mutex::new(BTreeMap::new()));
        let peers = Arc::new(Mutex::new(Vec::new()));
        let counted = counts.clone();
        let router = Router::builder().unary("count", move |_, payload: Bytes| {
            *counted.lock().entry(payload.clone()).or_insert(0) += 1;
            async move { Ok(payload) }
        });
        let (router, own, kept) = (router.build(), env.clone(), peers.clone());
        let address = server.addresses()[0].to_string();
        let serving = env.spawn(async move {
            while let Some(peer) = server.accept().await {
                kept.lock().push(peer.clone());
                let router = router.clone();
                own.spawn(async move {
                    router.serve(peer).await;
                });
            }
        });
        Counting {
            address,
            counts,
            peers,
            _serving: serving,
        }
    }

    /// What it was called with, and how often.
    fn counts(&self) -> Vec<(Bytes, u32)> {
        let counts = self.counts.lock();
        counts
            .iter()
            .map(|(what, count)| (what.clone(), *count))
            .collect()
    }
}

/// A client of that server which lets early data go.
fn client(env: &Env, server: &Counting, quic: QuicSettings) -> Client {
    let config = Config {
        early_data: true,
        ..Config::default()
    };
    let client = env.client(&server.address).config(config).quic(quic);
    client.build(env.runtime()).unwrap()
}

/// A session, by which the client comes to know the server.
async fn acquaint(client: &Client) {
    let session = client.connect().await.unwrap();
    for _ in 0..2 {
        session.call("count").unary("before").await.unwrap();
    }
    session.close(ErrorCode::NONE, "done").await;
}

/// Begins a session, and at once calls what may be done twice and what may not.
async fn begin(client: &Client) -> (Session, EarlyStart) {
    let session = client.start_connecting();
    let twice = session.call("count").repeatable().unary("twice");
    let once = session.call("count").unary("once");
    let (once, twice) = futures::join!(once, twice);
    assert_eq!(
        (&once.unwrap().payload[..], &twice.unwrap().payload[..]),
        (&b"once"[..], &b"twice"[..])
    );
    let early = session.paths()[0].early;
    (session, early)
}

/// Whatever goes early, and what becomes of it, each call is done once.
async fn begins(env: Env, kind: &str, ends: [QuicSettings; 2], between: bool) -> EarlyStart {
    let [near, far] = ends;
    let server = Counting::at(&env, kind, far).await;
    let known = client(&env, &server, near.clone());
    acquaint(&known).await;
    if between {
        acquaint(&client(&env, &server, near)).await;
    }
    server.counts.lock().clear();
    let (session, early) = begin(&known).await;
    assert_eq!(server.counts(), [("once".into(), 1), ("twice".into(), 1)]);
    let peer = server.peers.lock().last().cloned().unwrap();
    let taken = matches!(early, EarlyStart::Taken);
    assert_eq!(peer.paths()[0].early == EarlyStart::Taken, taken, "both know it");
    session.close(ErrorCode::NONE, "done").await;
    early
}

pub async fn a_known_server_is_called_in_the_first_flight(env: Env) {
    let ends = [QuicSettings::default(), QuicSettings::default()];
    assert_eq!(begins(env, "quic", ends, false).await, EarlyStart::Taken);
}

pub async fn what_the_server_does_not_take_goes_again_and_is_done_once(env: Env) {
    // It remembers one ticket, and has given another.
    let forgetful = QuicSettings {
        max_tickets: 1,
        ..QuicSettings::default()
    };
    let ends = [QuicSettings::default(), forgetful];
    assert_eq!(begins(env, "quic", ends, true).await, EarlyStart::Refused);
}

pub async fn either_end_may_do_without_the_first_flight(env: Env) {
    let off = QuicSettings {
        zero_rtt: false,
        ..QuicSettings::default()
    };
    for ends in [
        [off.clone(), QuicSettings::default()],
        [QuicSettings::default(), off],
    ] {
        assert_eq!(begins(env.clone(), "quic", ends, false).await, EarlyStart::No);
    }
}

pub async fn no_other_transport_begins_before_its_handshake(env: Env) {
    for kind in ["wt", "tls", "tcp"] {
        let ends = [QuicSettings::default(), QuicSettings::default()];
        assert_eq!(
            begins(env.clone(), kind, ends, false).await,
            EarlyStart::No,
            "{kind}"
        );
    }
}

/// A second path joins, and waits for its handshake: also where the server is known, and the session came to be while the
/// path was made.
pub async fn a_path_that_joins_waits_for_its_handshake(env: Env) {
    let server = Counting::at(&env, "sheetbend", QuicSettings::default()).await;
    let place = server.address.trim_start_matches("sheetbend://").to_owned();
    let config = Config {
        early_data: true,
        mode: PathMode::Standby,
        ..Config::default()
    };
    let client = env
        .client(format!("tls://{place}"))
        .endpoint(format!("quic://{place}"));
    let client = client.unwrap().config(config).build(env.runtime()).unwrap();
    for _ in 0..3 {
        let session = client.start_connecting();
        session.call("count").repeatable().unary("twice").await.unwrap();
        let live = || session.paths().iter().filter(|path| path.rtt.is_some()).count();
        until(&session, || live() == 2).await;
        session.send_datagram("anything").unwrap();
        let stream = session.open_uni(Class::BULK).await.unwrap();
        drop(stream);
        session.close(ErrorCode::NONE, "done").await;
    }
    assert_eq!(server.counts(), [("twice".into(), 3)]);
}
