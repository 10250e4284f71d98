//! What is overheard of HTTP exchanges, on real sockets, and what slow clients cost: their own connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::serve_echo;
use sheetbend_tokio::{Client, Server, runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

async fn server() -> (Server, SocketAddr) {
    let server = Server::builder().listen("http://127.0.0.1:0").unwrap();
    let server = server.bind(runtime()).await.unwrap();
    let address = server.addresses()[0].to_string();
    let address = address
        .strip_prefix("http://")
        .unwrap()
        .trim_end_matches('/')
        .parse();
    (server, address.unwrap())
}

/// Somebody on the way who writes down what the client says.
async fn listener(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = heard.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let notes = notes.clone();
            tokio::spawn(async move {
                let far = TcpStream::connect(target).await.unwrap();
                let (mut near_read, mut near_write) = near.into_split();
                let (mut far_read, mut far_write) = far.into_split();
                tokio::spawn(async move { copy(&mut far_read, &mut near_write).await });
                let mut block = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = near_read.read(&mut block).await {
                    notes.lock().unwrap().extend_from_slice(&block[..count]);
                    far_write.write_all(&block[..count]).await.unwrap();
                }
            });
        }
    });
    (address, heard)
}

/// The status of the answer to a request.
async fn status(address: SocketAddr, line: &str, more: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!("{line}\r\nHost: 127.0.0.1\r\nConnection: close\r\n{more}\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

/// A stolen path token, and whole requests that were recorded: nothing is opened, read, ended or disturbed by them.
async fn what_was_overheard_is_of_no_use(mode: &str) {
    let (server, address) = server().await;
    let (relay, heard) = listener(address).await;
    let client = Client::builder()
        .endpoint(format!("http://{relay}/{mode}"))
        .unwrap();
    let (session, peer) = tokio::join!(client.connect(runtime()), server.accept());
    let session = session.unwrap();
    let _echo = serve_echo(peer.unwrap());
    for number in 0..5_u8 {
        assert_eq!(session.request("echo", vec![number]).await.unwrap(), vec![number]);
    }
    let path = session.paths()[0].id;
    let heard = heard.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&heard).into_owned();
    let lines: Vec<&str> = text
        .split("\r\n")
        .flat_map(|line| {
            line.find("GET /?op=")
                .or(line.find("POST /?op="))
                .map(|at| &line[at..])
        })
        .filter(|line| line.ends_with(" HTTP/1.1") && !line.contains("op=new"))
        .collect();
    assert!(lines.len() >= 2, "{lines:?}");
    for line in lines {
        assert_eq!(status(address, line, "").await, "409", "{line}");
        assert_eq!(
            status(address, line, "Last-Event-ID: 1\r\n").await,
            "409",
            "{line}"
        );
        let (before, number) = line.split_once("&n=").unwrap();
        let (_, after) = number.split_once('&').unwrap();
        let ahead = format!("{before}&n=1000&{after}");
        assert_eq!(status(address, &ahead, "").await, "403", "{ahead}");
        for (from, to) in [
            ("op=up", "op=end"),
            ("op=down", "op=events"),
            ("op=stream", "op=both"),
        ] {
            let other = line.replace(from, to);
            if other != line {
                assert_eq!(
                    status(address, &other, "Last-Event-ID: 1\r\n").await,
                    "403",
                    "{other}"
                );
            }
        }
    }
    assert_eq!(session.request("echo", "after").await.unwrap(), "after");
    assert_eq!(session.paths()[0].id, path, "the path is another one");
}

#[tokio::test]
async fn what_was_overheard_of_streams_is_of_no_use() {
    what_was_overheard_is_of_no_use("").await;
}

#[tokio::test]
async fn what_was_overheard_of_event_streams_is_of_no_use() {
    what_was_overheard_is_of_no_use("?mode=sse").await;
}

#[tokio::test]
async fn what_was_overheard_of_polls_is_of_no_use() {
    what_was_overheard_is_of_no_use("?mode=poll").await;
}

/// Says `first` at once and then the rest, a byte every second: how long the server bears it.
async fn trickle(address: SocketAddr, first: &str, rest: &str) -> Duration {
    let began = Instant::now();
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(first.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let saying = async {
        for byte in rest.bytes() {
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = reader.read_to_end(&mut answer) => {}
        () = saying => {}
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn heads_and_bodies_that_trickle_in_end_in_time() {
    let (_server, address) = server().await;
    let new = "POST /?op=new HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n";
    let long = "x".repeat(100);
    for (first, rest) in [("", new), ("GET / HTTP/1.1\r\nX: ", &long[..]), (new, &long)] {
        let took = trickle(address, first, rest).await;
        assert!(took <= Duration::from_secs(12), "{took:?} for {first:.20}");
    }
    let answered = timeout(Duration::from_secs(5), status(address, "GET / HTTP/1.1", "")).await;
    assert_eq!(answered.unwrap(), "426");
}
