//! Requests at the end of their session, where nothing else runs in between. `conformance/` has all else about requests.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use crate::common::{pair, serve_echo};
use sheetbend_tokio::{CallError, ErrorCode};

#[tokio::test(start_paused = true)]
async fn requests_of_an_ended_session_were_not_sent() {
    let pair = pair("mem").await;
    let server = serve_echo(pair.peer.clone());
    assert!(pair.client.request("echo", "before").await.is_ok());
    let mut queued = Box::pin(pair.client.request("echo", "queued"));
    assert!(poll_fn(|cx| Poll::Ready(queued.as_mut().poll(cx).is_pending())).await);
    pair.client.close(ErrorCode::NONE, "enough").await;
    // What was queued behind the end never left; what the driver finds no more, the caller finds itself.
    assert!(matches!(queued.await, Err(CallError::NotSent(_))));
    for _ in 0..3 {
        let late = pair.client.request("echo", "late").await;
        assert!(matches!(late, Err(CallError::NotSent(_))), "{late:?}");
        pair.client.sleep(Duration::from_millis(700)).await;
    }
    assert!(pair.client.accept_request().await.is_err());
    server.await.unwrap();
}
