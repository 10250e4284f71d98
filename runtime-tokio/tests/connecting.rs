//! Connecting, and giving it up: in memory, on a clock that only moves when everything waits.

use std::time::Duration;

use sheetbend_tokio::core::policy::BackoffPolicy;
use sheetbend_tokio::{Cause, Client, ClientBuilder, ConnectError, ConnectorConfig, State, runtime};

/// A client of this address whose attempts are numbered.
fn limited(address: &str) -> ClientBuilder {
    let mut connector = ConnectorConfig::new(1);
    connector.backoff = BackoffPolicy::constant(Duration::from_millis(100)).with_max_attempts(3);
    Client::builder()
        .endpoint(address)
        .expect("an address")
        .connector(connector)
        .keep_trying(true)
}

#[tokio::test(start_paused = true)]
async fn a_connect_whose_backoff_is_exhausted_is_an_error() {
    let error = limited("mem://nobody-at-all")
        .connect(runtime())
        .await
        .unwrap_err();
    let ConnectError::Unreachable(list) = &error else {
        panic!("{error}")
    };
    assert_eq!(list.len(), 1);
    assert!(error.to_string().contains("nobody listens"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_backoff_is_exhausted_ends() {
    let client = limited("mem://nobody-either")
        .build(runtime())
        .expect("an endpoint");
    let ended = client.start_connecting().closed().await;
    assert_eq!(ended.state, State::Failed);
    let Cause::GivenUp { detail } = &ended.cause else {
        panic!("{ended}")
    };
    assert!(detail.contains("mem://nobody-either"), "{detail}");
}
