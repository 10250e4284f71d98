//! Sessions over what is not native, all on one port.

use crate::common::{expired_tls, serve_echo, server_tls, test_roots};
use sheetbend_tokio::{Address, BindError, Client, ConnectError, Guard, Server, ServerTls, Trust, runtime};
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
