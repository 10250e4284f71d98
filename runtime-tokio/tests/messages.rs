//! Messages in every mode, and datagrams.

mod common;

use std::time::Duration;

use common::{pair, pair_with};
use sheetbend_tokio::{Class, Config, Delivery, DeliveryKind, Outcome, SendError};

#[tokio::test]
async fn ordered_messages_keep_their_order() {
    let pair = pair("tcp").await;
    let client = pair.client.clone();
    let sender = tokio::spawn(async move {
        for number in 0..20_000u32 {
            let payload = number.to_be_bytes().repeat(1 + number as usize % 50);
            client
                .send_message(Class::EVENTS, Delivery::Ordered, payload)
                .await
                .unwrap();
        }
    });
    for number in 0..20_000u32 {
        let message = pair.peer.recv_message(Class::EVENTS).await.unwrap();
        assert_eq!(
            message.payload,
            number.to_be_bytes().repeat(1 + number as usize % 50)
        );
        assert_eq!(message.delivery, DeliveryKind::Ordered);
    }
    sender.await.unwrap();
}

#[tokio::test]
async fn unordered_messages_come_once_each() {
    let pair = pair("tcp").await;
    let client = pair.client.clone();
    let sender = tokio::spawn(async move {
        for number in 0..5000usize {
            let mut payload = vec![0; 8 + number * 7 % 9000];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            client
                .send_message(Class::EVENTS, Delivery::Unordered, payload)
                .await
                .unwrap();
        }
    });
    let mut seen = vec![false; 5000];
    for _ in 0..5000 {
        let message = pair.peer.recv_message(Class::EVENTS).await.unwrap();
        let number = usize::from_be_bytes(message.payload[..8].try_into().unwrap());
        assert_eq!(message.payload.len(), 8 + number * 7 % 9000);
        assert!(!std::mem::replace(&mut seen[number], true), "{number} came twice");
    }
    sender.await.unwrap();
}

#[tokio::test]
async fn unreliable_messages_and_datagrams_pass_on_a_sound_path() {
    let pair = pair("mem").await;
    let ttl = Duration::from_secs(60);
    let tracked = pair
        .client
        .send_message_tracked(Class::EVENTS, Delivery::Unreliable { ttl }, "perhaps")
        .await
        .unwrap();
    let message = pair.peer.recv_message(Class::EVENTS).await.unwrap();
    assert_eq!(
        (message.payload, message.delivery),
        ("perhaps".into(), DeliveryKind::Unreliable)
    );
    assert_eq!(tracked.await, Outcome::Acknowledged);
    pair.peer.send_datagram("raw").unwrap();
    assert_eq!(pair.client.recv_datagram().await.unwrap(), "raw");
}

#[tokio::test]
async fn tracked_messages_tell_their_outcome() {
    let pair = pair("mem").await;
    for delivery in [Delivery::Ordered, Delivery::Unordered] {
        let tracked = pair
            .client
            .send_message_tracked(Class::EVENTS, delivery, "tell me")
            .await
            .unwrap();
        assert_eq!(tracked.await, Outcome::Acknowledged);
        assert_eq!(
            pair.peer.recv_message(Class::EVENTS).await.unwrap().payload,
            "tell me"
        );
    }
}

#[tokio::test]
async fn a_full_queue_says_so_or_waits() {
    let config = Config {
        max_message_queue: 10_000,
        ..Config::default()
    };
    let pair = pair_with("mem", config, Config::default()).await;
    let mut queued = 0usize;
    // Nothing runs between these calls, so nothing drains the queue.
    let error = loop {
        match pair
            .client
            .try_send_message(Class::EVENTS, Delivery::Ordered, vec![0; 1000])
        {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Full);
    assert!((8..=10).contains(&queued), "{queued} messages fit");
    let waiting = pair
        .client
        .send_message(Class::EVENTS, Delivery::Ordered, vec![1; 1000]);
    let (waited, _) = tokio::join!(waiting, async {
        for _ in 0..=queued {
            pair.peer.recv_message(Class::EVENTS).await.unwrap();
        }
    });
    waited.unwrap();
    let too_large = pair
        .client
        .try_send_message(Class::EVENTS, Delivery::Ordered, vec![0; 1 << 28]);
    assert!(
        matches!(too_large, Err(SendError::TooLarge { .. })),
        "{too_large:?}"
    );
}

/// REQUIREMENTS W8: a time to live begins when the message is sent, however long nothing happened before.
#[tokio::test(start_paused = true)]
async fn what_is_sent_after_a_rest_has_its_whole_time_to_live() {
    let pair = common::pair("mem").await;
    let ttl = std::time::Duration::from_millis(100);
    pair.client.sleep(std::time::Duration::from_secs(4)).await;
    pair.client.send_datagram("raw").unwrap();
    pair.client.sleep(std::time::Duration::from_secs(3)).await;
    let delivery = Delivery::Unreliable { ttl };
    pair.client
        .send_message(Class::EVENTS, delivery, "brief")
        .await
        .unwrap();
    let limit = std::time::Duration::from_secs(60);
    let raw = tokio::time::timeout(limit, pair.peer.recv_datagram()).await;
    assert_eq!(raw.expect("it came").unwrap(), "raw");
    let brief = tokio::time::timeout(limit, pair.peer.recv_message(Class::EVENTS)).await;
    assert_eq!(brief.expect("it came").unwrap().payload, "brief");
}

/// Each of many who wait for an outcome is told its own, and all of them when the session ends.
#[tokio::test]
async fn every_tracked_message_is_told_its_outcome() {
    let pair = common::pair("mem").await;
    let mut waiting = Vec::new();
    for number in 0..2000_u32 {
        let payload = number.to_be_bytes().to_vec();
        let sent = pair
            .client
            .send_message_tracked(Class::EVENTS, Delivery::Ordered, payload);
        waiting.push(tokio::spawn(sent.await.unwrap()));
    }
    for outcome in waiting {
        assert_eq!(outcome.await.unwrap(), Outcome::Acknowledged);
    }
    let sent = pair
        .client
        .send_message_tracked(Class::EVENTS, Delivery::Ordered, "last");
    let last = tokio::spawn(sent.await.unwrap());
    pair.client.close(sheetbend_tokio::ErrorCode::NONE, "done").await;
    assert_ne!(last.await.unwrap(), Outcome::Acknowledged);
}
