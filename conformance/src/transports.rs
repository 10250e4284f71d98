//! Every transport carries everything: calls, streams both ways, and messages in every mode of delivery.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use sheetbend_runtime::{
    Address, BoxFuture, Class, Client, ConnectError, Delivery, DeliveryKind, Listener, Outcome, Proxy,
    ProxyRules, Runtime, Server, ServerTls, Session, Socket, Transport, Trust,
};

use crate::env::{Env, Wire, authority, pattern, until};
use crate::relay::Relay;

/// What a stream's transfer takes: several blocks, and a bit.
const LONG: usize = 9_000_001;

async fn stream(env: &Env, from: &Session, to: &Session) {
    let mut sent = vec![0; LONG];
    pattern(3, &mut sent);
    let expected = sent.clone();
    let mut stream = from.open_uni(Class::BULK).await.unwrap();
    let sending = env.spawn(async move {
        stream.write_all(&sent).await.unwrap();
        stream.finish().unwrap();
    });
    let mut stream = to.accept_uni(Class::BULK).await.unwrap();
    let received = stream.read_to_end(LONG).await.unwrap();
    assert!(received == expected, "the bytes arrive as they were sent");
    sending.await.unwrap();
}

async fn every_delivery(from: &Session, to: &Session) {
    let ttl = Duration::from_secs(60);
    for (delivery, kind) in [
        (Delivery::Ordered, DeliveryKind::Ordered),
        (Delivery::Unordered, DeliveryKind::Unordered),
        (Delivery::Unreliable { ttl }, DeliveryKind::Unreliable),
    ] {
        let tracked = from.send_message_tracked(Class::EVENTS, delivery, "message");
        let tracked = tracked.await.unwrap();
        let message = to.recv_message(Class::EVENTS).await.unwrap();
        assert_eq!((message.payload, message.delivery), ("message".into(), kind));
        assert_eq!(tracked.await, Outcome::Acknowledged);
    }
    from.send_datagram("datagram").unwrap();
    assert_eq!(to.recv_datagram().await.unwrap(), "datagram");
}

async fn everything(env: &Env, client: &Session, peer: &Session) {
    env.serve_echo(peer.clone());
    assert_eq!(client.request("echo", "hello").await.unwrap(), "hello");
    let large = vec![7; 1_000_000];
    assert!(client.request("echo", large.clone()).await.unwrap() == large);
    for (from, to) in [(client, peer), (peer, client)] {
        stream(env, from, to).await;
        every_delivery(from, to).await;
        env.numbered_messages(from, to, 1000, |_| {}).await;
    }
}

async fn carries_everything(env: Env, kind: &str) {
    let pair = env.pair(kind).await;
    everything(&env, &pair.client, &pair.peer).await;
    let scheme = kind.split('?').next();
    assert_eq!(pair.client.paths().first().map(|path| path.transport), scheme);
}

pub async fn tcp_carries_everything(env: Env) {
    carries_everything(env, "tcp").await;
}

pub async fn unix_sockets_carry_everything(env: Env) {
    carries_everything(env, "unix").await;
}

pub async fn memory_carries_everything(env: Env) {
    carries_everything(env, "mem").await;
}

pub async fn tls_carries_everything(env: Env) {
    carries_everything(env, "tls").await;
}

pub async fn a_websocket_carries_everything(env: Env) {
    carries_everything(env, "ws").await;
}

pub async fn a_websocket_over_tls_carries_everything(env: Env) {
    carries_everything(env, "wss").await;
}

pub async fn binary_http_carries_everything(env: Env) {
    carries_everything(env, "http?mode=binary").await;
}

pub async fn event_streams_carry_everything(env: Env) {
    carries_everything(env, "http?mode=sse").await;
}

pub async fn lines_of_json_carry_everything(env: Env) {
    carries_everything(env, "http?mode=ndjson").await;
}

pub async fn long_polls_carry_everything(env: Env) {
    carries_everything(env, "http?mode=poll").await;
}

pub async fn https_carries_everything(env: Env) {
    carries_everything(env, "https").await;
}

pub async fn quic_carries_everything(env: Env) {
    carries_everything(env, "quic").await;
}

pub async fn webtransport_carries_everything(env: Env) {
    carries_everything(env, "wt").await;
}

pub async fn whatever_works_carries_everything(env: Env) {
    let server = env.server("sheetbend").await;
    let (client, peer) = env.connect(env.client(&server.addresses()[0]), &server).await;
    everything(&env, &client, &peer).await;
    // Whom to trust was said: so nothing plain was tried.
    until(&client, || client.paths().len() == 2).await;
    assert!(
        client
            .paths()
            .iter()
            .all(|path| !matches!(path.transport, "tcp" | "ws" | "http"))
    );
}

/// Answers one CONNECT, whatever it asks for, by passing on to the server.
pub async fn proxies_lead_to_the_server(env: Env) {
    let server = env.server("tcp").await;
    let relay = Relay::to(&env, &server).await;
    let (listener, address) = env.listen().await;
    let (own, target) = (env.clone(), relay.url("tcp"));
    let proxying = env.spawn(async move {
        let near = std::future::poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        let (near, mut asked) = (Wire(near), BytesMut::new());
        while !asked.ends_with(b"\r\n\r\n") {
            assert!(near.hear(&mut asked).await.unwrap());
        }
        let far = own.runtime().connect(target.parse().unwrap()).await.unwrap();
        near.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await
            .unwrap();
        let (up, down) = (Wire(near.0), Wire(far));
        futures::join!(pass_on(&up, &down), pass_on(&down, &up));
        String::from_utf8(asked.to_vec()).unwrap()
    });
    let proxy: Proxy = address.replace("tcp://", "http://").parse().unwrap();
    let elsewhere = "tcp://nowhere.example:7";
    let client = env.client(elsewhere).proxies(ProxyRules::all(proxy));
    let (client, peer) = env.connect(client, &server).await;
    everything(&env, &client, &peer).await;
    client.close(sheetbend_runtime::ErrorCode::NONE, "done").await;
    drop((client, peer));
    let asked = proxying.await.unwrap();
    assert!(
        asked.starts_with("CONNECT nowhere.example:7 HTTP/1.1\r\n"),
        "{asked}"
    );
}

/// A transport of a program's own: TCP by another name.
struct Detour;

impl Detour {
    fn tcp(place: &str) -> Address {
        format!("tcp://{place}").parse().unwrap()
    }
}

impl Transport for Detour {
    fn scheme(&self) -> &'static str {
        "detour"
    }

    fn connect(
        &self,
        runtime: Arc<dyn Runtime>,
        place: String,
    ) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        runtime.connect(Detour::tcp(&place))
    }

    fn listen(
        &self,
        runtime: Arc<dyn Runtime>,
        place: String,
    ) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        runtime.listen(Detour::tcp(&place))
    }
}

pub async fn a_transport_of_ones_own_carries_everything(env: Env) {
    let by = |place: &str| Address::by(Arc::new(Detour), place);
    let server = Server::builder().listen(by("127.0.0.1:0")).unwrap();
    let server = server.bind(env.runtime()).await.unwrap();
    let client = Client::builder().endpoint(by(&authority(&server))).unwrap();
    let (client, peer) = env.connect(client, &server).await;
    everything(&env, &client, &peer).await;
    assert_eq!(client.paths()[0].transport, "detour");
    assert_eq!(by("a").to_string(), "detour:a");
    assert!(by("a") == by("a") && by("a") != by("b"));
}

async fn pass_on(from: &Wire, to: &Wire) {
    let mut block = BytesMut::new();
    while let Ok(true) = from.hear(&mut block).await {
        if to.say(&block).await.is_err() {
            break;
        }
        block.clear();
    }
    let _ = to.0.shutdown();
}

pub async fn a_server_that_cannot_be_trusted_is_refused(env: Env) {
    let other = ServerTls::from_pem(
        include_bytes!("../../core/tests/certs/server.pem"),
        include_bytes!("../../core/tests/certs/server.key"),
    );
    let pin = other.unwrap().pin().unwrap();
    for scheme in ["tls", "wss", "https"] {
        let server: Server = env.server(scheme).await;
        let client = env.client(&server.addresses()[0]).trust(Trust::Pins(vec![pin]));
        let Err(ConnectError::Unreachable(why)) = client.connect(env.runtime()).await else {
            panic!("it got in over {scheme}")
        };
        let own = env.tls().pin().unwrap().to_string();
        assert!(why[0].1.contains(&own), "{why:?}");
    }
}
