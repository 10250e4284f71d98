//! Messages in every mode, and datagrams.

use std::time::Duration;

use sheetbend_runtime::{Class, Config, Delivery, DeliveryKind, ErrorCode, Outcome, SendError};

use crate::env::Env;

pub async fn ordered_messages_keep_their_order(env: Env) {
    let pair = env.pair("tcp").await;
    let client = pair.client.clone();
    let sender = env.spawn(async move {
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

pub async fn unordered_messages_come_once_each(env: Env) {
    let pair = env.pair("tcp").await;
    let client = pair.client.clone();
    let sender = env.spawn(async move {
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

pub async fn unreliable_messages_and_datagrams_pass_on_a_sound_path(env: Env) {
    let pair = env.pair("mem").await;
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

pub async fn tracked_messages_tell_their_outcome(env: Env) {
    let pair = env.pair("mem").await;
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

pub async fn a_full_queue_says_so_or_waits(env: Env) {
    let config = Config {
        max_message_queue: 10_000,
        ..Config::default()
    };
    let pair = env.pair_with("mem", config, Config::default()).await;
    let mut queued = 0usize;
    // Nobody takes any, so that the peer's window is full at last, and then the queue.
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
    assert!(queued >= 8, "{queued} messages fit");
    let waiting = pair
        .client
        .send_message(Class::EVENTS, Delivery::Ordered, vec![1; 1000]);
    let (waited, _) = futures::join!(waiting, async {
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

/// Each of many who wait for an outcome is told its own, and all of them when the session ends.
pub async fn every_tracked_message_is_told_its_outcome(env: Env) {
    let pair = env.pair("mem").await;
    let mut waiting = Vec::new();
    for number in 0..2000_u32 {
        let payload = number.to_be_bytes().to_vec();
        let sent = pair
            .client
            .send_message_tracked(Class::EVENTS, Delivery::Ordered, payload);
        waiting.push(env.spawn(sent.await.unwrap()));
    }
    for outcome in waiting {
        assert_eq!(outcome.await.unwrap(), Outcome::Acknowledged);
    }
    let sent = pair
        .client
        .send_message_tracked(Class::EVENTS, Delivery::Ordered, "last");
    let last = env.spawn(sent.await.unwrap());
    pair.client.close(ErrorCode::NONE, "done").await;
    assert_ne!(last.await.unwrap(), Outcome::Acknowledged);
}
