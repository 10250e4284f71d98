//! What strangers and people in the middle do to TLS and WebSocket, on real sockets: it ends their own connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Relay, serve_echo, server_tls, test_roots};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use sheetbend_tokio::{Address, Client, ConnectError, Server, certificates, runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, rustls};

/// PROTOCOL 10: how long the handshake of a path may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

async fn server() -> (Server, SocketAddr) {
    let server = Server::builder().listen("tcp://127.0.0.1:0").unwrap();
    let server = server.tls(server_tls()).bind(runtime()).await.unwrap();
    let address = server.addresses()[0].to_string();
    let address = address.strip_prefix("tcp://").unwrap().parse().unwrap();
    (server, address)
}

fn upgrade(host: &str, more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\n{more}Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: sheetbend.v1\r\n\r\n"
    )
}

fn verifier() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for root in certificates(include_bytes!("../../../core/tests/certs/ca.pem")).unwrap() {
        roots.add(root).unwrap();
    }
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"sheetbend/1".to_vec()];
    config
}

/// A ClientHello as rustls says it.
fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(verifier()), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// Says this, a byte in each `pause`, until all is said or the server closes: how long it took until then.
async fn trickle(address: SocketAddr, words: &[u8], pause: Duration) -> Duration {
    let began = Instant::now();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let ended = async {
        let mut heard = Vec::new();
        let _ = reader.read_to_end(&mut heard).await;
    };
    let saying = async {
        for byte in words {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = ended => {}
        () = saying => {}
    }
    began.elapsed()
}

// Time is tokio's, and runs on by itself while everybody waits.
#[tokio::test(start_paused = true)]
async fn slow_and_half_open_handshakes_end_in_time() {
    let (_server, address) = server().await;
    let hello = client_hello();
    let request = upgrade("127.0.0.1", "");
    let second = Duration::from_secs(1);
    for (what, words, pause) in [
        ("nothing", &b""[..], second),
        ("half of a TLS record's head", b"\x16\x03", second),
        ("a TLS handshake of a byte a second", &hello, second),
        ("a whole ClientHello and no more", &hello, Duration::ZERO),
        ("a request of a byte a second", request.as_bytes(), second),
        ("half a request", &request.as_bytes()[..60], Duration::ZERO),
        (
            "a WebSocket and nothing on it",
            request.as_bytes(),
            Duration::ZERO,
        ),
        ("the beginning of a record", b"\0", second),
    ] {
        let took = trickle(address, words, pause).await;
        // Those who are told why they are closed have a moment to read it.
        let late = HANDSHAKE + 2 * second;
        assert!(took >= HANDSHAKE - second && took <= late, "{what}: {took:?}");
    }
}

/// TLS is up, and nothing comes inside.
#[tokio::test(start_paused = true)]
async fn a_tls_connection_without_a_session_ends_in_time() {
    let (_server, address) = server().await;
    let began = Instant::now();
    let socket = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(verifier()));
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = connector.connect(name, socket).await.unwrap();
    let mut heard = Vec::new();
    let _ = tls.read_to_end(&mut heard).await;
    assert!(heard.is_empty());
    assert!(began.elapsed() <= HANDSHAKE + Duration::from_secs(2));
}

/// The client's side of it: a server that accepts, and says nothing or half a word.
#[tokio::test(start_paused = true)]
async fn a_server_that_stays_mute_in_its_handshake_is_left_in_time() {
    for (scheme, words) in [
        ("tls", &b""[..]),
        ("tls", b"\x16\x03\x03"),
        ("ws", b"HTTP/1.1 101"),
        ("wss", b""),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.write_all(words).await;
                kept.push(socket);
            }
        });
        let client = Client::builder().endpoint(&url).unwrap().trust(test_roots());
        let Err(ConnectError::Unreachable(why)) = client.connect(runtime()).await else {
            panic!("it got in")
        };
        assert_eq!(why[0].1, "no answer in time", "{scheme}");
    }
}

/// After a handshake that is sound: what the server says last, behind the answer.
async fn last_words(address: SocketAddr, frames: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket
        .write_all(upgrade("127.0.0.1", "").as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let _ = socket.write_all(frames).await;
    let mut heard = Vec::new();
    let _ = timeout(Duration::from_secs(5), socket.read_to_end(&mut heard)).await;
    heard
}

#[tokio::test]
async fn bad_frames_end_their_own_connection_alone() {
    let (server, address) = server().await;
    let client = Client::builder().endpoint(format!("ws://{address}")).unwrap();
    let (session, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let session = session.unwrap();
    let _echo = serve_echo(peer.unwrap());
    let masked = |first: u8, payload: &[u8]| {
        let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    };
    let bomb = [masked(0x02, b""), masked(0x00, b"").repeat(5000)].concat();
    for (what, frames, code) in [
        ("an unmasked frame", vec![0x82, 1, 0], 1002_u16),
        (
            "a frame of 64 GiB",
            vec![0x82, 0xff, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0],
            1009,
        ),
        (
            "a length that is too long for it",
            vec![0x82, 0xfe, 0, 5, 0, 0, 0, 0],
            1002,
        ),
        (
            "a long ping",
            [vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0], vec![0; 126]].concat(),
            1002,
        ),
        ("a bomb of fragments", bomb, 1008),
        ("pings without end", masked(0x89, b"x").repeat(5000), 1008),
        ("text", masked(0x81, b"hello"), 1003),
        ("a reason that is not UTF-8", masked(0x88, b"\x03\xe8\xff"), 1007),
    ] {
        let heard = last_words(address, &frames).await;
        let closing = heard.windows(2).any(|pair| pair == code.to_be_bytes());
        assert!(closing, "{what}: {heard:?}");
        assert_eq!(session.request("echo", what).await.unwrap(), what);
    }
}

/// A page whose name was made to resolve to this server says its own name, as the browser has it.
#[tokio::test]
async fn a_page_with_a_rebound_name_is_kept_out() {
    let (_server, address) = server().await;
    for (host, status) in [("evil.example", "421"), (&address.to_string(), "101")] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = upgrade(host, &format!("Origin: http://{host}\r\n"));
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(
            std::str::from_utf8(&answer).unwrap(),
            format!("HTTP/1.1 {status}")
        );
    }
}

/// Somebody who has the server's key and certificate, and opens what passes: TLS ends at it, and begins again.
async fn in_the_middle(target: SocketAddr) -> SocketAddr {
    let chain = certificates(include_bytes!("../../../core/tests/certs/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../../core/tests/certs/server.key")).unwrap();
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"sheetbend/1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let connector = TlsConnector::from(Arc::new(verifier()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (acceptor, connector) = (acceptor.clone(), connector.clone());
            tokio::spawn(async move {
                let mut near = acceptor.accept(near).await?;
                let far = TcpStream::connect(target).await?;
                let name = ServerName::try_from("localhost").unwrap();
                let mut far = connector.connect(name, far).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    address
}

#[tokio::test]
async fn a_join_through_somebody_in_the_middle_is_refused() {
    let (server, address) = server().await;
    let target: Address = format!("tcp://{address}").parse().unwrap();
    let straight = Relay::to(&target).await;
    let middle = in_the_middle(address).await;
    let client = Client::builder()
        .endpoint(straight.url_over("tls"))
        .unwrap()
        .endpoint(format!("tls://{middle}"))
        .unwrap()
        .standby_paths(2)
        .trust(test_roots());
    let (session, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let (session, peer) = (session.unwrap(), peer.unwrap());
    let _echo = serve_echo(peer.clone());
    let began_at = session.paths()[0].name.clone();
    assert!(began_at.contains(&straight.address.to_string()), "{began_at}");
    for round in 0..5 {
        straight.cut();
        let word = format!("{round}");
        assert_eq!(session.request("echo", word.clone()).await.unwrap(), word);
        // The way through the middle is tried again and again, and never carries anything.
        for path in session.paths() {
            let through = path.name.contains(&middle.to_string());
            assert!(!through || format!("{:?}", path.state) == "Handshake", "{path:?}");
        }
    }
    crate::common::until(&peer, || peer.paths().len() == 1).await;
}
