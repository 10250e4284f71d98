//! `sheetbend://`: whatever works at a port.

use std::sync::Arc;

use crate::common::{serve_echo, server_tls, test_roots};
use sheetbend_tokio::{Around, Client, ConnectError, Server, Session, Trust, runtime};

const ENCRYPTED: [&str; 5] = ["tls", "quic", "wt", "wss", "https"];

async fn server(encrypted: bool) -> Server {
    let mut server = Server::builder().listen("sheetbend://127.0.0.1:0").unwrap();
    if encrypted {
        server = server.tls(server_tls());
    }
    server.bind(runtime()).await.unwrap()
}

fn transports(session: &Session) -> Vec<&'static str> {
    let mut names: Vec<_> = session.paths().iter().map(|path| path.transport).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[tokio::test]
async fn what_is_encrypted_is_used_where_the_server_can_be_trusted() {
    let server = server(true).await;
    let url = server.addresses()[0].to_string();
    assert!(url.starts_with("sheetbend://127.0.0.1:"), "{url}");
    let client = Client::builder().endpoint(url).unwrap().trust(test_roots());
    let (session, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let (session, peer) = (session.unwrap(), peer.unwrap());
    let _echo = serve_echo(peer.clone());
    assert_eq!(session.request("echo", "a").await.unwrap(), "a");
    crate::common::until(&session, || session.paths().len() == 2).await;
    let used = transports(&session);
    assert!(used.iter().all(|name| ENCRYPTED.contains(name)), "{used:?}");
}

#[tokio::test]
async fn a_server_without_a_certificate_is_reached_without_one() {
    let server = server(false).await;
    let client = Client::builder().endpoint(&server.addresses()[0]).unwrap();
    let (session, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let session = session.unwrap();
    let _echo = serve_echo(peer.unwrap());
    assert_eq!(session.request("echo", "a").await.unwrap(), "a");
    assert_eq!(transports(&session)[0], "tcp");
}

#[tokio::test]
async fn who_says_whom_to_trust_gets_nothing_plain() {
    let server = server(false).await;
    let pins = Trust::Pins(server_tls().pin().into_iter().collect());
    let client = Client::builder()
        .endpoint(&server.addresses()[0])
        .unwrap()
        .trust(pins);
    let Err(ConnectError::Unreachable(why)) = client.connect(runtime()).await else {
        panic!("it went on without TLS")
    };
    let tried: Vec<&str> = why
        .iter()
        .map(|(url, _)| url.split(':').next().unwrap())
        .collect();
    assert!(tried.contains(&"tls") && tried.contains(&"wss"), "{tried:?}");
    assert!(tried.iter().all(|name| ENCRYPTED.contains(name)), "{tried:?}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_answered_with_plain_text() {
    let server = server(true).await;
    // Authorities there are, and this server's is none of them: as with the platform's.
    let roots = crate::common::other_roots();
    let runtime = Arc::new(Around::new(runtime()).roots(roots));
    let client = Client::builder().endpoint(&server.addresses()[0]).unwrap();
    let Err(ConnectError::Unreachable(why)) = client.connect(runtime).await else {
        panic!("it went on without TLS")
    };
    let tried: Vec<&str> = why
        .iter()
        .map(|(url, _)| url.split(':').next().unwrap())
        .collect();
    assert!(
        tried.contains(&"tls") && tried.iter().all(|name| ENCRYPTED.contains(name)),
        "{why:?}"
    );
    assert!(
        why.iter().any(|(_, why)| why.contains("unknown issuer")),
        "{why:?}"
    );
}
