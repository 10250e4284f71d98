//! Times to live, on a clock that only moves when everything waits. `conformance/` has all else about messages.

use std::time::Duration;

use crate::common::pair;
use sheetbend_tokio::{Class, Delivery};

/// REQUIREMENTS W8: a time to live begins when the message is sent, however long nothing happened before.
#[tokio::test(start_paused = true)]
async fn what_is_sent_after_a_rest_has_its_whole_time_to_live() {
    let pair = pair("mem").await;
    let ttl = Duration::from_millis(100);
    pair.client.sleep(Duration::from_secs(4)).await;
    pair.client.send_datagram("raw").unwrap();
    pair.client.sleep(Duration::from_secs(3)).await;
    let delivery = Delivery::Unreliable { ttl };
    pair.client
        .send_message(Class::EVENTS, delivery, "brief")
        .await
        .unwrap();
    let limit = Duration::from_secs(60);
    let raw = tokio::time::timeout(limit, pair.peer.recv_datagram()).await;
    assert_eq!(raw.expect("it came").unwrap(), "raw");
    let brief = tokio::time::timeout(limit, pair.peer.recv_message(Class::EVENTS)).await;
    assert_eq!(brief.expect("it came").unwrap().payload, "brief");
}
