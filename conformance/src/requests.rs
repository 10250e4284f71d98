//! Requests over every transport.

use bytes::Bytes;
use sheetbend_runtime::{CallError, Code, Executed, Failure, Reason, Server};

use crate::env::{Env, pending_once, yield_now};

fn reason(error: &CallError) -> Option<Reason> {
    match error {
        CallError::Failed(failure) => failure.reason,
        _ => None,
    }
}

async fn thousand_at_once(env: Env, kind: &str) {
    let pair = env.pair(kind).await;
    let server = env.serve_echo(pair.peer.clone());
    let mut calls = Vec::new();
    for number in 0..1000u32 {
        let client = pair.client.clone();
        calls.push(env.spawn(async move {
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

pub async fn a_thousand_requests_at_once_over_tcp(env: Env) {
    thousand_at_once(env, "tcp").await;
}

pub async fn a_thousand_requests_at_once_over_a_unix_socket(env: Env) {
    thousand_at_once(env, "unix").await;
}

pub async fn a_thousand_requests_at_once_in_memory(env: Env) {
    thousand_at_once(env, "mem").await;
}

pub async fn requests_go_both_ways(env: Env) {
    let pair = env.pair("mem").await;
    env.serve_echo(pair.peer.clone());
    env.serve_echo(pair.client.clone());
    let (there, back) = futures::join!(
        pair.client.request("a", "to the server"),
        pair.peer.request("b", "to the client")
    );
    assert_eq!(there.unwrap(), "to the server");
    assert_eq!(back.unwrap(), "to the client");
}

pub async fn large_and_empty_payloads_pass(env: Env) {
    let pair = env.pair("tcp").await;
    env.serve_echo(pair.peer.clone());
    let large = Bytes::from(vec![7; 5 * 1024 * 1024]);
    assert_eq!(pair.client.request("echo", large.clone()).await.unwrap(), large);
    assert_eq!(pair.client.request("echo", "").await.unwrap(), "");
    let error = pair.client.request("", "no name").await.unwrap_err();
    assert!(matches!(error, CallError::NotSent(_)), "{error}");
}

pub async fn failures_are_told_apart(env: Env) {
    let pair = env.pair("mem").await;
    let peer = pair.peer.clone();
    env.spawn(async move {
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

pub async fn a_request_that_is_too_long_is_refused_by_the_server(env: Env) {
    let builder = Server::builder().max_request(1000);
    let server = env.serve(builder, &env.free_address("mem")).await;
    let (client, peer) = env.connect(env.client(&server.addresses()[0]), &server).await;
    env.serve_echo(peer);
    assert!(client.request("echo", vec![0; 1000]).await.is_ok());
    let error = client.request("echo", vec![0; 100_000]).await.unwrap_err();
    assert_eq!(
        (error.code(), error.executed(), reason(&error)),
        (Code::ResourceExhausted, Executed::No, Some(Reason::TooLarge))
    );
    assert!(client.request("echo", "still fine").await.is_ok());
}

pub async fn dropped_requests_leave_nothing_behind(env: Env) {
    let pair = env.pair("mem").await;
    // Nobody serves yet: every request is dropped while it waits.
    for _ in 0..3000 {
        let mut request = Box::pin(pair.client.request("lost", vec![1; 100]));
        assert!(pending_once(&mut request).await);
        drop(request);
        yield_now().await;
    }
    env.serve_echo(pair.peer.clone());
    assert_eq!(pair.client.request("echo", "after").await.unwrap(), "after");
}

pub async fn requests_in_line_for_a_stream_may_be_dropped(env: Env) {
    let pair = env.pair("mem").await;
    // More than the peer's credit: the rest stands in line.
    let mut waiting = Vec::new();
    for number in 0..3000u32 {
        let mut request = Box::pin(pair.client.request("echo", number.to_be_bytes().to_vec()));
        assert!(pending_once(&mut request).await);
        waiting.push((number, request));
    }
    yield_now().await;
    waiting.retain(|(number, _)| number % 2 == 0);
    env.serve_echo(pair.peer.clone());
    for (number, request) in waiting {
        assert_eq!(request.await.unwrap()[..], number.to_be_bytes());
    }
}

pub async fn requests_are_not_lost_with_those_who_gave_up_waiting_for_them(env: Env) {
    let pair = env.pair("mem").await;
    for number in 0..200u32 {
        let mut gave_up = Box::pin(pair.peer.accept_request());
        assert!(pending_once(&mut gave_up).await);
        let call = pair.client.request("echo", number.to_be_bytes().to_vec());
        let answer = async {
            // It is laid ready for one who leaves.
            for _ in 0..number % 8 {
                yield_now().await;
            }
            drop(gave_up);
            let mut request = pair.peer.accept_request().await.unwrap();
            let payload = request.take_payload();
            request.respond(payload);
        };
        let (answered, ()) = futures::join!(call, answer);
        assert_eq!(answered.unwrap()[..], number.to_be_bytes());
    }
}
