//! Sessions over what is not native, all on one port.

use std::sync::Arc;

use crate::common::{
    Relay, carries_everything, expired_tls, numbered_messages, serve_echo, server_tls, test_roots,
};
use sheetbend_tokio::{
    Address, BindError, Client, ConnectError, Guard, PathMode, Server, ServerTls, Session, Trust, runtime,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

fn socket_of(server: &Server) -> String {
    let Address::Tcp { host, port } = server.addresses()[0].socket() else {
        panic!("over tcp")
    };
    format!("{host}:{port}")
}

#[tokio::test]
async fn a_websocket_carries_everything() {
    carries_everything("ws").await;
}

#[tokio::test]
async fn tls_carries_everything() {
    carries_everything("tls").await;
}

#[tokio::test]
async fn a_websocket_over_tls_carries_everything() {
    carries_everything("wss").await;
}

#[tokio::test]
async fn quic_carries_everything() {
    carries_everything("quic").await;
}

#[tokio::test]
async fn webtransport_carries_everything() {
    carries_everything("wt").await;
}

/// Messages go on while connections of several transports to one port are cut.
async fn survives(schemes: &[&str]) {
    const COUNT: u32 = 20_000;
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .unwrap()
        .tls(server_tls())
        .bind(runtime())
        .await
        .unwrap();
    let mut client = Client::builder().trust(test_roots());
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
    numbered_messages(&client, &peer, COUNT, |number| {
        if number % 1500 == 1499 {
            relays[number as usize / 1500 % relays.len()].cut();
        }
    })
    .await;
}

#[tokio::test]
async fn messages_survive_cuts_of_a_websocket() {
    survives(&["ws"]).await;
}

#[tokio::test]
async fn messages_survive_cuts_of_tls() {
    survives(&["tls"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_survive_switches_among_all_of_one_port() {
    survives(&["ws", "tcp", "wss", "tls"]).await;
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

/// Why a client that trusts so does not get in.
async fn refusal(url: &str, trust: Trust) -> String {
    let client = Client::builder().endpoint(url).unwrap().trust(trust);
    match client.connect(runtime()).await {
        Err(ConnectError::Unreachable(why)) => why[0].1.clone(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it got in"),
    }
}

async fn tls_server(tls: ServerTls, listen: &str) -> Server {
    let server = Server::builder().listen(listen).unwrap().tls(tls);
    server.bind(runtime()).await.unwrap()
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_is_refused_by_name() {
    let server = tls_server(expired_tls(), "tls://127.0.0.1:0").await;
    let url = server.addresses()[0].to_string();
    let why = refusal(&url, test_roots()).await;
    assert!(why.contains("expired"), "{why}");

    let tls = server_tls();
    let pin = tls.pin().unwrap();
    let server = tls_server(tls, "wss://127.0.0.1:0").await;
    let url = server.addresses()[0].to_string();
    let why = refusal(&url, Trust::Pins(vec![expired_tls().pin().unwrap()])).await;
    assert!(why.contains(&pin.to_string()), "{why}");
    // The certificate is not for this address.
    let elsewhere = tls_server(server_tls(), "tls://127.0.0.2:0").await;
    let why = refusal(&elsewhere.addresses()[0].to_string(), test_roots()).await;
    assert!(why.contains("for another name"), "{why}");
    let pinned = Client::builder()
        .endpoint(&url)
        .unwrap()
        .trust(Trust::Pins(vec![pin]));
    pinned.connect(runtime()).await.unwrap();
}

#[tokio::test]
async fn an_address_of_tls_takes_nothing_plain() {
    let server = tls_server(server_tls(), "tls://127.0.0.1:0").await;
    let plain = server.addresses()[0].to_string().replace("tls://", "tcp://");
    let client = Client::builder().endpoint(plain).unwrap();
    assert!(matches!(
        client.connect(runtime()).await,
        Err(ConnectError::Unreachable(_))
    ));
    assert_eq!(says_to(&server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await, b"");

    let without = Server::builder().listen("tls://127.0.0.1:0").unwrap();
    assert!(matches!(
        without.bind(runtime()).await,
        Err(BindError::NoCertificate { .. })
    ));
}

#[tokio::test]
async fn a_session_on_tls_does_not_move_to_a_plain_connection() {
    let server = tls_server(server_tls(), "tcp://127.0.0.1:0").await;
    let relay = Relay::to(&server.addresses()[0]).await;
    let client = Client::builder()
        .endpoint(relay.url_over("tls"))
        .unwrap()
        .trust(test_roots());
    let (session, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let (session, peer) = (session.unwrap(), peer.unwrap());
    let _echo = serve_echo(peer.clone());
    assert_eq!(session.request("echo", "a").await.unwrap(), "a");
    // It comes back over TLS: the JOIN is bound, and taken.
    relay.cut();
    assert_eq!(session.request("echo", "b").await.unwrap(), "b");
    for paths in [session.paths(), peer.paths()] {
        assert!(paths.iter().all(|path| path.transport == "tls"), "{paths:?}");
    }
}

/// What ends TLS before the server, as a reverse proxy does.
struct TlsProxy {
    address: std::net::SocketAddr,
    cut: watch::Sender<u64>,
}

impl TlsProxy {
    async fn to(server: &Server) -> TlsProxy {
        let acceptor = crate::common::tls_acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, cuts) = watch::channel(0);
        let target = socket_of(server);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (acceptor, target, mut cuts) = (acceptor.clone(), target.clone(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let mut near = acceptor.accept(near).await.unwrap();
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        TlsProxy { address, cut }
    }

    fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}

#[tokio::test]
async fn behind_a_proxy_that_ends_tls_joins_are_not_bound() {
    // What the proxy passes on is plain; it is as good as encrypted, as the server was told.
    for (told, gets_in) in [(true, true), (false, false)] {
        let server = Server::builder()
            .listen("ws://127.0.0.1:0")
            .unwrap()
            .behind_tls_proxy(told)
            .bind(runtime())
            .await
            .unwrap();
        let proxy = TlsProxy::to(&server).await;
        let client = Client::builder()
            .endpoint(format!("wss://{}", proxy.address))
            .unwrap()
            .trust(test_roots())
            .through_tls_proxy(true);
        let session = client.connect(runtime()).await;
        assert_eq!(session.is_ok(), gets_in, "told {told}");
        let Ok(session) = session else { continue };
        let _echo = serve_echo(server.accept().await.unwrap());
        assert_eq!(session.request("echo", "a").await.unwrap(), "a");
        proxy.cut();
        assert_eq!(session.request("echo", "b").await.unwrap(), "b");
    }
}
