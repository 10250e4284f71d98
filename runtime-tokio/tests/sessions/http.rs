//! Sessions over exchanges of HTTP/1.1.

use crate::common::{Relay, numbered_messages};
use sheetbend_tokio::{Address, Client, ConnectError, Guard, Server, runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let guard = Guard::default().allow_origin("https://app.example.com");
    let server = Server::builder()
        .listen("http://127.0.0.1:0/session")
        .unwrap()
        .guard(guard)
        .bind(runtime())
        .await
        .unwrap();
    let url = server.addresses()[0].to_string();
    let of = |url: &str, origin: &str| Client::builder().endpoint(url).unwrap().origin(origin);
    for (url, origin, status) in [
        (url.clone(), "https://evil.example.com", "HTTP 403"),
        (
            url.replace("/session", "/other"),
            "https://app.example.com",
            "HTTP 404",
        ),
    ] {
        let refused = of(&url, origin).connect(runtime()).await;
        let Err(ConnectError::Unreachable(why)) = refused else {
            panic!("a stranger got in")
        };
        assert!(why[0].1.contains(status), "{why:?}");
    }
    of(&url, "https://app.example.com")
        .connect(runtime())
        .await
        .unwrap();
}

/// What the server answers to one request.
async fn answer(server: &Server, request: &str) -> String {
    let Address::Tcp { host, port } = server.addresses()[0].socket() else {
        panic!("over tcp")
    };
    let mut socket = TcpStream::connect((host, port)).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let _ = socket.read_to_end(&mut heard).await;
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test]
async fn requests_of_strangers_are_answered_by_what_is_wrong_with_them() {
    let server = Server::builder()
        .listen("http://127.0.0.1:0")
        .unwrap()
        .guard(Guard::default().allow_origin("https://app.example.com"))
        .bind(runtime())
        .await
        .unwrap();
    let token = "A".repeat(22);
    let exchange = format!("path={token}&n=1&from=0&received=0&mac={token}");
    let host = "Host: 127.0.0.1\r\n";
    for (request, expected) in [
        (format!("GET / HTTP/1.1\r\n{host}\r\n"), "426"),
        (format!("GET /?op=new HTTP/1.1\r\n{host}\r\n"), "405"),
        (format!("POST /?op=fly HTTP/1.1\r\n{host}\r\n"), "404"),
        (
            format!("POST /?op=up&{exchange} HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n"),
            "404",
        ),
        (format!("GET /?op=down&{exchange} HTTP/1.1\r\n{host}\r\n"), "404"),
        (
            format!(
                "POST /?op=new HTTP/1.1\r\n{host}Content-Length: 100000\r\n\r\n{}",
                "x".repeat(100_000)
            ),
            "413",
        ),
        (
            format!(
                "POST /?op=new HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            "400",
        ),
        (
            format!("POST /?op=new HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n"),
            "400",
        ),
        (
            format!("POST /?op=new HTTP/1.1\r\n{host}Origin: http://evil.example\r\n\r\n"),
            "403",
        ),
        (
            "POST /?op=new HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n".to_owned(),
            "421",
        ),
        (
            format!("OPTIONS /?op=new HTTP/1.1\r\n{host}Origin: http://evil.example\r\n\r\n"),
            "403",
        ),
    ] {
        let answer = answer(&server, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{request:.80}: {answer}"
        );
        assert!(!answer.contains("Access-Control"), "{answer}");
    }
    let preflight = format!(
        "OPTIONS /?op=new HTTP/1.1\r\n{host}Origin: https://app.example.com\r\nConnection: close\r\n\r\n"
    );
    let answer = answer(&server, &preflight).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(
        answer.contains("Access-Control-Allow-Origin: https://app.example.com\r\n"),
        "{answer}"
    );
}

/// Messages go on both ways while every connection is cut.
async fn outlives_its_connections(mode: &str) {
    const COUNT: u32 = 20_000;
    let server = sheetbend_tokio::bind("tcp://127.0.0.1:0").await.unwrap();
    let relay = Relay::to(&server.addresses()[0]).await;
    let url = format!("{}/?mode={mode}", relay.url_over("http").trim_end_matches('/'));
    let client = Client::builder().endpoint(url).unwrap();
    let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let (client, peer) = (client.unwrap(), peer.unwrap());
    numbered_messages(&client, &peer, COUNT, |number| {
        if number % 1500 == 1499 {
            relay.cut();
        }
    })
    .await;
    numbered_messages(&peer, &client, COUNT, |number| {
        if number % 1500 == 1499 {
            relay.cut();
        }
    })
    .await;
}

#[tokio::test]
async fn a_binary_path_outlives_its_connections() {
    outlives_its_connections("binary").await;
}

#[tokio::test]
async fn an_event_stream_outlives_its_connections() {
    outlives_its_connections("sse").await;
}

#[tokio::test]
async fn a_polled_path_outlives_its_connections() {
    outlives_its_connections("poll").await;
}
