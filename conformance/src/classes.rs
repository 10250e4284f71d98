//! The program's own classes: what is configured holds, and one class at its limit holds up no other
//! (REQUIREMENTS W7).

use sheetbend_runtime::{
    Class, ClassError, ClassSettings, Client, Config, Delivery, DeliveryKind, Outcome, StreamLimits,
};

use crate::env::Env;

const SLOW: Class = Class::USER[0];
const QUICK: Class = Class::USER[1];

fn config() -> Config {
    let limits = StreamLimits {
        bi: 2,
        uni: 2,
        unordered: 10,
    };
    let mut config = Config::default();
    let slow = ClassSettings::new("slow")
        .urgency(0)
        .streams(limits)
        .window(20_000)
        .stream_window(10_000)
        .queue(30_000);
    let quick = ClassSettings::new("quick")
        .urgency(7)
        .delivery(Delivery::Unordered);
    config.class(SLOW, slow).unwrap().class(QUICK, quick).unwrap();
    config
}

pub async fn a_consumer_that_stands_still_holds_up_its_own_class_alone(env: Env) {
    let pair = env.pair_with("mem", config(), config()).await;
    let slow = pair.client.class("slow").unwrap();
    // Nobody at the peer takes anything of this class: its streams, its messages and its openers stand still,
    // though it is the most urgent one.
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = slow.open_uni().await.unwrap();
        held.push(env.spawn(async move {
            stream.write_all(&[1; 100_000]).await.unwrap();
            stream.finish().unwrap();
            stream.acknowledged().await.unwrap();
        }));
    }
    let stuck = slow.clone();
    let mut opener = env.spawn(async move { stuck.open_uni().await });
    let stuck = slow.clone();
    let mut sender = env.spawn(async move {
        for number in 0..100u32 {
            stuck.send(number.to_be_bytes().repeat(500)).await.unwrap();
        }
    });
    let quick = pair.client.class("quick").unwrap();
    let consumer = pair.peer.class("quick").unwrap();
    for round in 0..50u8 {
        quick.send(vec![round; 1000]).await.unwrap();
        let message = consumer.recv().await.unwrap();
        assert_eq!(message.payload, vec![round; 1000]);
        assert_eq!(message.delivery, DeliveryKind::Unordered, "as configured");
        let mut stream = quick.open_bi().await.unwrap();
        stream.write_all(&[round; 5000]).await.unwrap();
        stream.finish().unwrap();
        let mut there = consumer.accept_bi().await.unwrap();
        let came = there.recv().read_to_end(5000).await.unwrap();
        assert_eq!(came, vec![round; 5000]);
        there.write_all(b"done").await.unwrap();
        there.finish().unwrap();
        assert_eq!(stream.recv().read_to_end(10).await.unwrap(), "done");
    }
    assert!(!opener.is_finished() && !sender.is_finished());
    // Its consumer comes at last.
    let consumer = pair.peer.class("slow").unwrap();
    let taker = consumer.clone();
    let messages = env.spawn(async move {
        for number in 0..100u32 {
            let message = taker.recv().await.unwrap();
            assert_eq!(message.payload, number.to_be_bytes().repeat(500));
        }
    });
    let mut readers = Vec::new();
    for _ in 0..held.len() {
        let mut there = consumer.accept_uni().await.unwrap();
        readers.push(env.spawn(async move {
            assert_eq!(there.read_to_end(100_000).await.unwrap(), vec![1; 100_000]);
        }));
    }
    for task in readers.into_iter().chain(held) {
        task.await.unwrap();
    }
    messages.await.unwrap();
    sender.await.unwrap();
    opener.await.unwrap().unwrap();
}

pub async fn classes_have_names_and_mistakes_too(env: Env) {
    let pair = env.pair_with("mem", config(), Config::default()).await;
    assert_eq!(pair.client.class("slow").unwrap().class(), SLOW);
    assert_eq!(pair.client.class("bulk").unwrap().class(), Class::BULK);
    assert!(pair.peer.class("slow").is_none(), "the name does not travel");
    let same = pair.peer.in_class(SLOW);
    pair.client.class("slow").unwrap().try_send("hello").unwrap();
    assert_eq!(same.recv().await.unwrap().payload, "hello");
    let builder = Client::builder().class(SLOW, ClassSettings::new("own")).unwrap();
    let taken = builder.class(QUICK, ClassSettings::new("own")).err().unwrap();
    assert_eq!(
        taken,
        ClassError::Taken {
            name: "own".to_owned(),
            class: SLOW
        }
    );
    let tracked = pair.client.in_class(QUICK).send_tracked("x").await.unwrap();
    assert_eq!(tracked.await, Outcome::Acknowledged);
}
