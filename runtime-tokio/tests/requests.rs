//! Requests over every transport.

mod common;

use bytes::Bytes;
use common::{pair, serve_echo};
use sheetbend_tokio::{CallError, Code, ErrorCode, Executed, Failure, Reason};

fn reason(error: &CallError) -> Option<Reason> {
    match error {
        CallError::Failed(failure) => failure.reason,
        _ => None,
    }
}

async fn thousand_at_once(kind: &str) {
    let pair = pair(kind).await;
    let server = serve_echo(pair.peer.clone());
    let mut calls = Vec::new();
    for number in 0..1000u32 {
        let client = pair.client.clone();
        calls.push(tokio::spawn(async move {
            let payload = number.to_be_bytes().repeat(1 + number as usize % 40);
            let answer = client.request("echo", payload.clone()).await.unwrap();
            assert_eq!(answer, payload);
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
    drop(pair);
    server.abort();
}

#[tokio::test]
async fn a_thousand_requests_at_once_over_tcp() {
    thousand_at_once("tcp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_at_once_over_tcp_on_two_threads() {
    thousand_at_once("tcp").await;
}

#[tokio::test]
async fn a_thousand_requests_at_once_over_a_unix_socket() {
    thousand_at_once("unix").await;
}

#[tokio::test]
async fn a_thousand_requests_at_once_in_memory() {
    thousand_at_once("mem").await;
}

#[tokio::test]
async fn requests_go_both_ways() {
    let pair = pair("mem").await;
    serve_echo(pair.peer.clone());
    serve_echo(pair.client.clone());
    let (there, back) = tokio::join!(
        pair.client.request("a", "to the server"),
        pair.peer.request("b", "to the client")
    );
    assert_eq!(there.unwrap(), "to the server");
    assert_eq!(back.unwrap(), "to the client");
}

#[tokio::test]
async fn large_and_empty_payloads_pass() {
    let pair = pair("tcp").await;
    serve_echo(pair.peer.clone());
    let large = Bytes::from(vec![7; 5 * 1024 * 1024]);
    assert_eq!(pair.client.request("echo", large.clone()).await.unwrap(), large);
    assert_eq!(pair.client.request("echo", "").await.unwrap(), "");
    let error = pair.client.request("", "no name").await.unwrap_err();
    assert!(matches!(error, CallError::NotSent(_)), "{error}");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let pair = pair("mem").await;
    let peer = pair.peer.clone();
    tokio::spawn(async move {
        while let Ok(request) = peer.accept_request().await {
            match request.method() {
                "fail" => request.fail(Failure::new(Code::Application(1), "not today")),
                _ => drop(request),
            }
        }
    });
    let error = pair.client.request("fail", "").await.unwrap_err();
    assert_eq!(
        error,
        CallError::Failed(Failure::new(Code::Application(1), "not today"))
    );
    let error = pair.client.request("drop", "").await.unwrap_err();
    assert_eq!(
        (error.code(), error.executed(), reason(&error)),
        (Code::Internal, Executed::Yes, Some(Reason::Dropped))
    );
    let error = pair.client.request(&"x".repeat(300), "").await.unwrap_err();
    assert!(matches!(error, CallError::NotSent(_)), "{error}");
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused_by_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = sheetbend_tokio::Server::builder()
        .listen(common::free_address("mem", &dir))
        .unwrap()
        .max_request(1000)
        .bind(sheetbend_tokio::runtime())
        .await
        .unwrap();
    let (client, peer) = tokio::join!(sheetbend_tokio::connect(&server.addresses()[0]), server.accept());
    let (client, peer) = (client.unwrap(), peer.unwrap());
    serve_echo(peer);
    assert!(client.request("echo", vec![0; 1000]).await.is_ok());
    let error = client.request("echo", vec![0; 100_000]).await.unwrap_err();
    assert_eq!(
        (error.code(), error.executed(), reason(&error)),
        (Code::ResourceExhausted, Executed::No, Some(Reason::TooLarge))
    );
    assert!(client.request("echo", "still fine").await.is_ok());
}

#[tokio::test]
async fn dropped_requests_leave_nothing_behind() {
    let pair = pair("mem").await;
    // Nobody serves yet: every request is dropped while it waits.
    for _ in 0..3000 {
        let mut request = Box::pin(pair.client.request("lost", vec![1; 100]));
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(request.as_mut().poll(cx).is_pending())).await
        );
        drop(request);
        tokio::task::yield_now().await;
    }
    serve_echo(pair.peer.clone());
    assert_eq!(pair.client.request("echo", "after").await.unwrap(), "after");
}

#[tokio::test]
async fn requests_in_line_for_a_stream_may_be_dropped() {
    let pair = pair("mem").await;
    // More than the peer's credit: the rest stands in line.
    let mut waiting = Vec::new();
    for number in 0..3000u32 {
        let mut request = Box::pin(pair.client.request("echo", number.to_be_bytes().to_vec()));
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(request.as_mut().poll(cx).is_pending())).await
        );
        waiting.push((number, request));
    }
    tokio::task::yield_now().await;
    waiting.retain(|(number, _)| number % 2 == 0);
    serve_echo(pair.peer.clone());
    for (number, request) in waiting {
        assert_eq!(request.await.unwrap()[..], number.to_be_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn requests_of_an_ended_session_were_not_sent() {
    let pair = pair("mem").await;
    let server = serve_echo(pair.peer.clone());
    assert!(pair.client.request("echo", "before").await.is_ok());
    let mut queued = Box::pin(pair.client.request("echo", "queued"));
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(queued.as_mut().poll(cx).is_pending())).await);
    pair.client.close(ErrorCode::NONE, "enough").await;
    // What was queued behind the end never left; what the driver finds no more, the caller finds itself.
    assert!(matches!(queued.await, Err(CallError::NotSent(_))));
    for _ in 0..3 {
        let late = pair.client.request("echo", "late").await;
        assert!(matches!(late, Err(CallError::NotSent(_))), "{late:?}");
        pair.client.sleep(std::time::Duration::from_millis(700)).await;
    }
    assert!(pair.client.accept_request().await.is_err());
    server.await.unwrap();
}

#[tokio::test]
async fn requests_are_not_lost_with_those_who_gave_up_waiting_for_them() {
    let pair = pair("mem").await;
    for number in 0..200u32 {
        let mut gave_up = Box::pin(pair.peer.accept_request());
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(gave_up.as_mut().poll(cx).is_pending())).await
        );
        let call = pair.client.request("echo", number.to_be_bytes().to_vec());
        let answer = async {
            // It is laid ready for one who leaves.
            for _ in 0..number % 8 {
                tokio::task::yield_now().await;
            }
            drop(gave_up);
            let mut request = pair.peer.accept_request().await.unwrap();
            let payload = request.take_payload();
            request.respond(payload);
        };
        let (answered, ()) = tokio::join!(call, answer);
        assert_eq!(answered.unwrap()[..], number.to_be_bytes());
    }
}

use std::future::Future;
