//! Sessions over WebTransport on real sockets: whom they are granted, and that they share their port.
#![cfg(feature = "webtransport")]

use crate::common::{numbered_messages, serve_echo, server_tls, test_roots};
use sheetbend_tokio::{Client, ClientBuilder, ConnectError, ErrorCode, Guard, Server, runtime};

async fn bind(url: &str, guard: Guard) -> Server {
    let server = Server::builder()
        .listen(url)
        .unwrap()
        .tls(server_tls())
        .guard(guard);
    server.bind(runtime()).await.unwrap()
}

fn client(url: &str) -> ClientBuilder {
    Client::builder().endpoint(url).unwrap().trust(test_roots())
}

/// Why a client does not get in.
async fn refusal(client: ClientBuilder) -> String {
    match client.connect(runtime()).await {
        Err(ConnectError::Unreachable(why)) => why[0].1.clone(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it got in"),
    }
}

#[tokio::test]
async fn one_port_serves_quic_and_webtransport_together() {
    let server = bind("tcp://127.0.0.1:0", Guard::default()).await;
    let port = server.addresses()[0].to_string().replace("tcp://", "");
    let mut sessions = Vec::new();
    for scheme in ["quic", "wt", "wt", "quic"] {
        let url = format!("{scheme}://{port}");
        let (client, peer) = tokio::join!(client(&url).connect(runtime()), server.accept());
        let (client, peer) = (client.unwrap(), peer.unwrap());
        let name = peer.paths()[0].name.to_string();
        assert!(name.starts_with(&format!("{scheme}://")), "{name}");
        sessions.push((client, serve_echo(peer)));
    }
    for (session, _) in &sessions {
        assert_eq!(session.request("echo", "over udp").await.unwrap(), "over udp");
    }
    for (session, echo) in sessions {
        session.close(ErrorCode::NONE, "done").await;
        echo.abort();
    }
}

#[tokio::test]
async fn a_path_moves_to_another_socket() {
    let server = bind("wt://127.0.0.1:0/", Guard::default()).await;
    let url = server.addresses()[0].to_string();
    let (client, peer) = tokio::join!(client(&url).connect(runtime()), server.accept());
    let (client, peer) = (client.unwrap(), peer.unwrap());
    let mover = client.clone();
    numbered_messages(&client, &peer, 20_000, |number| {
        if number % 4000 == 3999 {
            mover.rebind();
        }
    })
    .await;
}

#[tokio::test]
async fn other_paths_and_pages_of_other_origins_are_refused() {
    let guard = Guard::default().allow_origin("https://app.example.com");
    let server = bind("wt://127.0.0.1:0/session", guard).await;
    let url = server.addresses()[0].to_string();
    let why = refusal(client(&url.replace("/session", "/other"))).await;
    assert!(why.contains("HTTP 404"), "{why}");
    let why = refusal(client(&url).origin("https://evil.example.com")).await;
    assert!(why.contains("HTTP 403"), "{why}");
    client(&url)
        .origin("https://app.example.com")
        .connect(runtime())
        .await
        .unwrap();
}
