//! Beginnings and ends: refusal, garbage, drain, close, loss, handles dropped at bad moments.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::common::{pair, serve_echo};
use sheetbend_tokio::{Around, Class, Client, State, runtime};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

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
