//! Sessions over QUIC on real sockets: addresses that change, and networks that let no UDP pass.
#![cfg(feature = "quic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{
    Pair, expired_tls, numbered_messages, pair, pattern, serve_echo, server_tls, test_roots, until,
};
use sheetbend_tokio::{
    Address, Class, Client, Congestion, ErrorCode, Moved, QuicSettings, Server, Session, SessionEvent, Trust,
    runtime,
};
use tokio::net::UdpSocket;
use tokio::sync::watch;

/// Forwards datagrams between one client and a server, as an address translation does.
struct Translation {
    address: SocketAddr,
    port: Arc<watch::Sender<u64>>,
    blocked: Arc<AtomicBool>,
}

impl Translation {
    async fn to(server: SocketAddr) -> Translation {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = near.local_addr().unwrap();
        let port = Arc::new(watch::channel(0).0);
        let blocked = Arc::new(AtomicBool::new(false));
        let (mut changes, stop) = (port.subscribe(), blocked.clone());
        tokio::spawn(async move {
            let mut client = None;
            let (mut out, mut back) = (vec![0; 65_536], vec![0; 65_536]);
            loop {
                let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                loop {
                    tokio::select! {
                        came = near.recv_from(&mut out) => {
                            let Ok((len, from)) = came else { continue };
                            client = Some(from);
                            if !stop.load(Ordering::Relaxed) {
                                let _ = far.send_to(&out[..len], server).await;
                            }
                        }
                        came = far.recv_from(&mut back) => {
                            let (Ok((len, _)), Some(client)) = (came, client) else { continue };
                            if !stop.load(Ordering::Relaxed) {
                                let _ = near.send_to(&back[..len], client).await;
                            }
                        }
                        changed = changes.changed() => match changed {
                            Ok(()) => break,
                            Err(_) => return,
                        }
                    }
                }
            }
        });
        Translation {
            address,
            port,
            blocked,
        }
    }

    /// The server sees another port from here on.
    fn rebind(&self) {
        self.port.send_modify(|count| *count += 1);
    }
}

async fn bind(url: &str) -> Server {
    let server = Server::builder().listen(url).unwrap().tls(server_tls());
    server.bind(runtime()).await.unwrap()
}

fn socket_of(server: &Server) -> SocketAddr {
    let Address::Tcp { host, port } = server.addresses()[0].socket() else {
        panic!("it has a port")
    };
    SocketAddr::new(host.parse().unwrap(), port)
}

async fn through(translation: &Translation, server: &Server) -> (Session, Session) {
    let client = Client::builder()
        .endpoint(format!("quic://{}", translation.address))
        .unwrap()
        .trust(test_roots());
    let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
    (client.unwrap(), peer.unwrap())
}

#[tokio::test]
async fn a_server_with_tls_speaks_quic_on_the_port_of_the_same_number() {
    let server = bind("tcp://127.0.0.1:0").await;
    let client = Client::builder()
        .endpoint(format!("quic://{}", socket_of(&server)))
        .unwrap()
        .trust(test_roots());
    let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let (client, peer) = (client.unwrap(), peer.unwrap());
    let echo = serve_echo(peer);
    assert_eq!(client.request("echo", "over udp").await.unwrap(), "over udp");
    client.close(ErrorCode::NONE, "done").await;
    echo.abort();
}

#[tokio::test]
async fn without_udp_there_is_no_quic() {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .unwrap()
        .tls(server_tls())
        .udp(false);
    let server = server.bind(runtime()).await.unwrap();
    // Nobody has the port, so that it can be had.
    UdpSocket::bind(socket_of(&server)).await.unwrap();
}

#[tokio::test]
async fn a_path_outlives_the_rebinding_of_its_address() {
    let server = bind("quic://127.0.0.1:0").await;
    let translation = Translation::to(socket_of(&server)).await;
    let (client, peer) = through(&translation, &server).await;
    let mut events = peer.events();
    numbered_messages(&client, &peer, 20_000, |number| {
        if number % 4000 == 3999 {
            translation.rebind();
        }
    })
    .await;
    let mut moves = Vec::new();
    while moves.last() != Some(&Moved::Proven) {
        match events.next().await.unwrap() {
            SessionEvent::PathMoved { how, before, path } => {
                assert!(path.starts_with("quic://") && before.starts_with("quic://"));
                moves.push(how);
            }
            SessionEvent::PathDown { .. } => panic!("the path ended"),
            _ => {}
        }
    }
    assert_eq!(moves[0], Moved::Changed);
}

#[tokio::test]
async fn a_client_goes_on_from_another_socket() {
    let server = bind("quic://127.0.0.1:0").await;
    let client = Client::builder()
        .endpoint(&server.addresses()[0])
        .unwrap()
        .trust(test_roots());
    let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let (client, peer) = (client.unwrap(), peer.unwrap());
    let mut events = client.events();
    let mover = client.clone();
    numbered_messages(&client, &peer, 20_000, |number| {
        if number % 4000 == 3999 {
            mover.rebind();
        }
    })
    .await;
    let mut moves = 0;
    while moves < 2 {
        match events.next().await.unwrap() {
            SessionEvent::PathMoved { how, .. } => {
                assert_ne!(how, Moved::GivenUp);
                moves += 1;
            }
            SessionEvent::PathDown { .. } => panic!("the path ended"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn where_udp_is_blocked_everything_moves_to_tcp() {
    let server = bind("tcp://127.0.0.1:0").await;
    let translation = Translation::to(socket_of(&server)).await;
    let client = Client::builder()
        .endpoint(format!("quic://{}", translation.address))
        .unwrap()
        .endpoint(format!("tls://{}", socket_of(&server)))
        .unwrap()
        .trust(test_roots());
    let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let (client, peer) = (client.unwrap(), peer.unwrap());
    numbered_messages(&client, &peer, 3000, |number| {
        if number == 1000 {
            translation.blocked.store(true, Ordering::Relaxed);
        }
    })
    .await;
    assert_eq!(client.paths()[0].transport, "tls");
}

#[tokio::test]
async fn a_server_that_is_not_the_right_one_is_named() {
    let server = bind("quic://127.0.0.1:0").await;
    let wrong = Trust::Pins(vec![expired_tls().pin().unwrap()]);
    let client = Client::builder()
        .endpoint(&server.addresses()[0])
        .unwrap()
        .trust(wrong);
    let error = client.connect(runtime()).await.unwrap_err().to_string();
    assert!(error.contains("pin"), "{error}");
}

#[tokio::test]
async fn every_congestion_controller_carries_a_stream() {
    for congestion in [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr] {
        let settings = QuicSettings {
            congestion,
            ..QuicSettings::default()
        };
        let server = Server::builder()
            .listen("quic://127.0.0.1:0")
            .unwrap()
            .tls(server_tls())
            .quic(settings.clone());
        let server = server.bind(runtime()).await.unwrap();
        let client = Client::builder()
            .endpoint(&server.addresses()[0])
            .unwrap()
            .trust(test_roots())
            .quic(settings);
        let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
        let (client, peer) = (client.unwrap(), peer.unwrap());
        let mut sent = vec![0; 3_000_000];
        pattern(5, &mut sent);
        let expected = sent.clone();
        let mut stream = client.open_uni(Class::BULK).await.unwrap();
        let sending = tokio::spawn(async move {
            stream.write_all(&sent).await.unwrap();
            stream.finish().unwrap();
        });
        let mut stream = peer.accept_uni(Class::BULK).await.unwrap();
        let received = stream.read_to_end(expected.len()).await.unwrap();
        assert!(received == expected, "{congestion:?}");
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_session_stays() {
    let Pair {
        client, peer, server, ..
    } = pair("quic").await;
    let echo = serve_echo(peer);
    for _ in 0..3 {
        client.request("echo", "again").await.unwrap();
        until(&client, || client.stats().buffered == 0).await;
    }
    drop(server);
    echo.abort();
}
