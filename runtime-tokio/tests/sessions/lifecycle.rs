//! Beginnings and ends: refusal, garbage, drain, close, loss, handles dropped at bad moments.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::common::{free_address, pair, serve_echo};
use sheetbend_tokio::{
    Around, CallError, Cause, Class, Client, Config, ConnectError, Delivery, ErrorCode, OpenError, Outcome,
    SendError, Server, State, connect, runtime,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_refused_connection_is_a_clear_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = connect(&address).await.unwrap_err();
    let ConnectError::Unreachable(list) = &error else {
        panic!("{error}")
    };
    assert_eq!(list[0].0, address);
    assert!(error.to_string().contains("refused"), "{error}");
    let error = connect("mem://nobody-is-here").await.unwrap_err();
    assert!(error.to_string().contains("nobody listens"), "{error}");
    assert!(matches!(
        connect("tcp://no-port").await,
        Err(ConnectError::Address(_))
    ));
}

#[tokio::test]
async fn a_server_of_another_protocol_is_a_clear_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket
                .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    });
    let error = connect(&address).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn garbage_on_the_port_harms_nobody() {
    let pair = pair("tcp").await;
    serve_echo(pair.peer.clone());
    let address = pair.server.addresses()[0].to_string();
    let address = address.strip_prefix("tcp://").unwrap();
    let floods: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 64],
        &[0xff; 100_000],
        b"\x00\x00\x05\x08hello",
        &[1],
    ];
    for flood in floods {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let _ = socket.write_all(flood).await;
        socket.shutdown().await.ok();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
        assert_eq!(pair.client.request("echo", "fine").await.unwrap(), "fine");
    }
}

#[tokio::test]
async fn close_tells_the_other_end_why() {
    let pair = pair("tcp").await;
    pair.client.close(ErrorCode::from(0x105), "enough").await;
    let ended = pair.peer.closed().await;
    assert_eq!(ended.state, State::Closed);
    assert!(
        matches!(&ended.cause, Cause::PeerClose { code, reason } if code.value() == 0x105 && reason == "enough")
    );
    assert!(matches!(
        pair.client.closed().await.cause,
        Cause::LocalClose { .. }
    ));
    assert_eq!(
        pair.client.open_bi(Class::BULK).await.err(),
        Some(OpenError::Ended)
    );
    assert_eq!(
        pair.client
            .try_send_message(Class::EVENTS, Delivery::Ordered, "x"),
        Err(SendError::Ended)
    );
    assert!(matches!(
        pair.client.request("x", "").await,
        Err(CallError::NotSent(_))
    ));
    assert!(pair.peer.recv_message(Class::EVENTS).await.is_err());
}

#[tokio::test]
async fn drain_finishes_what_is_open_and_refuses_the_new() {
    let pair = pair("tcp").await;
    let client = pair.client.clone();
    let call = tokio::spawn(async move { client.request("slow", "question").await });
    let request = pair.peer.accept_request().await.unwrap();
    pair.server.drain("");
    // The answer still goes out, then the session closes by itself.
    request.respond("answer");
    assert_eq!(call.await.unwrap().unwrap(), "answer");
    pair.client.closed().await;
    pair.server.drained().await;
    let error = connect(&pair.server.addresses()[0]).await.unwrap_err();
    assert!(
        error.to_string().contains("drain") || error.to_string().contains("DRAIN"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_forgot_the_session_leaves_outcomes() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address("unix", &dir);
    let old = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let bound = address.clone();
    let server = old
        .spawn(async move {
            Server::builder()
                .listen(bound)
                .unwrap()
                .bind(runtime())
                .await
                .unwrap()
        })
        .await
        .unwrap();
    let client = Client::builder()
        .endpoint(&address)
        .unwrap()
        .build(runtime())
        .unwrap();
    let session = client.session().await.unwrap();
    let got_it = session
        .send_message_tracked(Class::EVENTS, Delivery::Ordered, "first")
        .await
        .unwrap();
    assert_eq!(got_it.await, Outcome::Acknowledged);
    let caller = session.clone();
    let mut call = Box::pin(async move { caller.request("never", "answered").await });
    std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
    // The peer has the request once a message behind it is acknowledged.
    let behind = session
        .send_message_tracked(Class::EVENTS, Delivery::Ordered, "behind")
        .await
        .unwrap();
    behind.await;
    // The process dies: no word to anybody.
    drop(server);
    old.shutdown_background();
    let _ = std::fs::remove_file(address.strip_prefix("unix://").unwrap());
    let server = loop {
        match Server::builder().listen(&address).unwrap().bind(runtime()).await {
            Ok(server) => break server,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let ended = session.closed().await;
    assert_eq!(ended.state, State::Failed);
    assert!(matches!(ended.cause, Cause::Rejected { .. }), "{ended}");
    let error = call.await.unwrap_err();
    assert!(matches!(error, CallError::MaybeExecuted(_)), "{error}");
    // The client makes a new one when asked.
    let (again, peer) = tokio::join!(client.session(), server.accept());
    serve_echo(peer.unwrap());
    assert_eq!(again.unwrap().request("echo", "again").await.unwrap(), "again");
}

#[tokio::test]
async fn handles_dropped_at_bad_moments_harm_nobody() {
    let pair = pair("tcp").await;
    serve_echo(pair.peer.clone());
    for round in 0..500 {
        let mut bi = pair.client.open_bi(Class::BULK).await.unwrap();
        match round % 5 {
            0 => drop(bi),
            1 => bi.write_all(b"unfinished").await.unwrap(),
            2 => {
                bi.write_all(b"finished").await.unwrap();
                bi.finish().unwrap();
            }
            3 => {
                let (send, recv) = bi.split();
                drop(recv);
                drop(send);
            }
            _ => {
                let mut read = Box::pin(bi.read_chunk(10));
                assert!(std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await);
            }
        }
        let mut message = Box::pin(pair.client.recv_message(Class::EVENTS));
        assert!(std::future::poll_fn(|cx| Poll::Ready(message.as_mut().poll(cx).is_pending())).await);
        drop(message);
        drop(pair.client.events());
        if round % 50 == 0 {
            assert_eq!(pair.client.request("echo", "fine").await.unwrap(), "fine");
        }
    }
    assert_eq!(pair.client.request("echo", "fine").await.unwrap(), "fine");
}

#[tokio::test]
async fn a_session_without_handles_delivers_what_was_queued_and_closes() {
    let pair = pair("tcp").await;
    for number in 0..100u8 {
        pair.client
            .send_message(Class::EVENTS, Delivery::Ordered, vec![number])
            .await
            .unwrap();
    }
    let mut stream = pair.client.open_uni(Class::BULK).await.unwrap();
    stream.write_all(&[5; 10_000]).await.unwrap();
    stream.finish().unwrap();
    drop(stream);
    let (client, peer) = (pair.client, pair.peer);
    drop(client);
    let mut stream = peer.accept_uni(Class::BULK).await.unwrap();
    assert_eq!(stream.read_to_end(20_000).await.unwrap().len(), 10_000);
    for number in 0..100u8 {
        assert_eq!(peer.recv_message(Class::EVENTS).await.unwrap().payload[0], number);
    }
    let ended = peer.closed().await;
    assert!(matches!(ended.cause, Cause::PeerClose { .. }), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn idle_sessions_send_heartbeats_and_nothing_else() {
    let pair = pair("mem").await;
    assert_eq!(pair.client.request("nobody", "").now_or_never(), None);
    pair.client.sleep(Duration::from_secs(2)).await;
    let before: Vec<_> = pair
        .client
        .paths()
        .into_iter()
        .map(|path| path.bytes_sent)
        .collect();
    pair.client.sleep(Duration::from_secs(60)).await;
    let after: Vec<_> = pair
        .client
        .paths()
        .into_iter()
        .map(|path| path.bytes_sent)
        .collect();
    assert_eq!(pair.client.state(), State::Connected);
    for (before, after) in before.iter().zip(&after) {
        let sent = after - before;
        assert!(sent > 0, "heartbeats go");
        assert!(sent < 60 * 40, "{sent} bytes in a minute of silence");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_closed_after_the_handshake_deadline() {
    let pair = pair("tcp").await;
    let address = pair.server.addresses()[0].to_string();
    let mut socket = TcpStream::connect(address.strip_prefix("tcp://").unwrap())
        .await
        .unwrap();
    let mut rest = Vec::new();
    assert_eq!(socket.read_to_end(&mut rest).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_security_floor_refuses_weaker_carriers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::builder()
        .listen(free_address("tcp", &dir))
        .unwrap()
        .config(Config {
            security_floor: Some(sheetbend_tokio::core::handshake::Security::Encrypted),
            ..Config::default()
        })
        .bind(runtime())
        .await
        .unwrap();
    let error = connect(&server.addresses()[0]).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Failed(_) | ConnectError::Unreachable(_)),
        "{error}"
    );
}

trait NowOrNever: Future + Sized {
    /// Polls once and drops the future.
    fn now_or_never(self) -> Option<Self::Output> {
        let mut this = Box::pin(self);
        let waker = std::task::Waker::noop();
        match this.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}

impl<F: Future> NowOrNever for F {}

/// A host that drops every SYN is an error once the connect timeout is over, not a wait without end.
#[tokio::test(start_paused = true)]
async fn an_address_that_never_answers_is_a_clear_error() {
    let mute = Around::new(runtime()).on_connect(|_, _| Box::pin(std::future::pending()));
    let client = Client::builder().endpoint("tcp://127.0.0.1:1").unwrap();
    let connecting = client.connect(Arc::new(mute));
    let outcome = tokio::time::timeout(Duration::from_secs(60), connecting).await;
    let error = outcome.expect("an answer in time").unwrap_err();
    assert!(error.to_string().contains("no answer in time"), "{error}");
}
