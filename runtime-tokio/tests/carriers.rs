//! Sessions over what is not native, all on one port.

mod common;

use std::sync::Arc;

use common::{Relay, pair, pattern, serve_echo};
use sheetbend_tokio::{
    Address, Class, Client, ConnectError, Delivery, Guard, PathMode, Server, Session, runtime,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a stream's transfer takes: several blocks, and a bit.
const LONG: usize = 9_000_001;

fn socket_of(server: &Server) -> String {
    let Address::Tcp { host, port } = server.addresses()[0].socket() else {
        panic!("over tcp")
    };
    format!("{host}:{port}")
}

async fn carries_everything(kind: &str) {
    let pair = pair(kind).await;
    let echo = serve_echo(pair.peer.clone());
    assert_eq!(pair.client.request("echo", "hello").await.unwrap(), "hello");
    let large = vec![7; 1_000_000];
    assert_eq!(pair.client.request("echo", large.clone()).await.unwrap(), large);

    for (from, to) in [(&pair.client, &pair.peer), (&pair.peer, &pair.client)] {
        let mut sent = vec![0; LONG];
        pattern(3, &mut sent);
        let expected = sent.clone();
        let mut stream = from.open_uni(Class::BULK).await.unwrap();
        let sending = tokio::spawn(async move {
            stream.write_all(&sent).await.unwrap();
            stream.finish().unwrap();
        });
        let mut stream = to.accept_uni(Class::BULK).await.unwrap();
        let received = stream.read_to_end(LONG).await.unwrap();
        assert!(received == expected, "the bytes arrive as they were sent");
        sending.await.unwrap();
    }
    drop(pair);
    echo.abort();
}

#[tokio::test]
async fn a_websocket_carries_everything() {
    carries_everything("ws").await;
}

/// Messages go on while connections of several transports to one port are cut.
async fn survives(schemes: &[&str]) {
    const COUNT: u32 = 20_000;
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .unwrap()
        .bind(runtime())
        .await
        .unwrap();
    let mut client = Client::builder();
    let mut relays = Vec::new();
    for scheme in schemes {
        let relay = Relay::to(&server.addresses()[0]).await;
        client = client.endpoint(relay.url_over(scheme)).unwrap();
        relays.push(Arc::new(relay));
    }
    if schemes.len() == 1 {
        client = client.config(sheetbend_tokio::Config {
            mode: PathMode::Single,
            ..Default::default()
        });
    }
    let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let (client, peer): (Session, Session) = (client.unwrap(), peer.unwrap());
    let sender = client.clone();
    let sending = tokio::spawn(async move {
        for number in 0..COUNT {
            let payload = number.to_be_bytes().repeat(1 + number as usize % 30);
            sender
                .send_message(Class::EVENTS, Delivery::Ordered, payload)
                .await
                .unwrap();
        }
    });
    for number in 0..COUNT {
        let message = peer.recv_message(Class::EVENTS).await.unwrap();
        let expected = number.to_be_bytes().repeat(1 + number as usize % 30);
        assert_eq!(message.payload, expected, "message {number}");
        if number % 1500 == 1499 {
            relays[number as usize / 1500 % relays.len()].cut();
        }
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn messages_survive_cuts_of_a_websocket() {
    survives(&["ws"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_survive_switches_between_tcp_and_websocket() {
    survives(&["ws", "tcp"]).await;
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let guard = Guard::default().allow_origin("https://app.example.com");
    let server = Server::builder()
        .listen("ws://127.0.0.1:0/session")
        .unwrap()
        .guard(guard)
        .bind(runtime())
        .await
        .unwrap();
    let url = server.addresses()[0].to_string();
    let of = |origin: &str| Client::builder().endpoint(&url).unwrap().origin(origin);
    let refused = of("https://evil.example.com").connect(runtime()).await;
    let Err(ConnectError::Unreachable(why)) = refused else {
        panic!("a foreign page got in")
    };
    assert!(why[0].1.contains("HTTP 403"), "{why:?}");
    of("https://app.example.com").connect(runtime()).await.unwrap();
    // A page of this very server.
    of(&format!("http://{}", socket_of(&server)))
        .connect(runtime())
        .await
        .unwrap();

    let elsewhere = url.replace("/session", "/other");
    let refused = Client::builder().endpoint(elsewhere).unwrap();
    let Err(ConnectError::Unreachable(why)) = refused.connect(runtime()).await else {
        panic!("another path is served")
    };
    assert!(why[0].1.contains("HTTP 404"), "{why:?}");
}

/// What the server says to a stranger before it closes.
async fn says_to(server: &Server, words: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(socket_of(server)).await.unwrap();
    socket.write_all(words).await.unwrap();
    let mut heard = Vec::new();
    let _ = socket.read_to_end(&mut heard).await;
    heard
}

#[tokio::test]
async fn strangers_are_told_politely() {
    let server = sheetbend_tokio::bind("tcp://127.0.0.1:0").await.unwrap();
    let says = |words: &'static [u8]| {
        let server = &server;
        async move { String::from_utf8_lossy(&says_to(server, words).await).into_owned() }
    };
    let page = says(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    assert!(page.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{page}");
    let folded = says(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n X: y\r\n\r\n").await;
    assert!(folded.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{folded}");
    let http2 = says_to(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(http2[3], 4, "SETTINGS first");
    assert_eq!(http2.last(), Some(&0xd), "then GOAWAY(HTTP_1_1_REQUIRED)");
    assert_eq!(says(b"SSH-2.0-OpenSSH\r\n").await, "");
}
