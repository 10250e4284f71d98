//! Connections die under a busy session: nothing is lost, doubled or reordered.

mod common;

use std::sync::Arc;

use common::{Relay, numbered_messages, pattern, serve_echo};
use sha2::{Digest, Sha256};
use sheetbend_tokio::{Class, Client, Config, PathMode, Server, Session, SessionEvent, State, runtime};

/// A session through one relay, or two.
async fn relayed(relays: usize) -> (Server, Session, Session, Vec<Arc<Relay>>) {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .unwrap()
        .bind(runtime())
        .await
        .unwrap();
    let mut client = Client::builder();
    let mut all = Vec::new();
    for _ in 0..relays {
        let relay = Relay::to(&server.addresses()[0]).await;
        client = client.endpoint(relay.url()).unwrap();
        all.push(Arc::new(relay));
    }
    if relays == 1 {
        client = client.config(Config {
            mode: PathMode::Single,
            ..Config::default()
        });
    }
    let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
    (server, client.unwrap(), peer.unwrap(), all)
}

async fn messages_survive(relays: usize) {
    const COUNT: u32 = 30_000;
    let (_server, client, peer, relays) = relayed(relays).await;
    numbered_messages(&client, &peer, COUNT, |number| {
        if number % 1500 == 1499 {
            relays[number as usize / 1500 % relays.len()].cut();
        }
    })
    .await;
    assert!(
        relays
            .iter()
            .map(|relay| relay.connections.load(std::sync::atomic::Ordering::Relaxed))
            .sum::<usize>()
            > 5
    );
}

#[tokio::test]
async fn messages_survive_cuts_of_the_only_path() {
    messages_survive(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_survive_cuts_with_a_standby() {
    messages_survive(2).await;
}

#[tokio::test]
async fn streams_survive_cuts_both_ways() {
    const TOTAL: u64 = 24 * 1024 * 1024;
    let (_server, client, peer, relays) = relayed(2).await;
    let mut near = client.open_bi(Class::BULK).await.unwrap();
    near.write_all(b"!").await.unwrap();
    let mut far = peer.accept_bi(Class::BULK).await.unwrap();
    assert_eq!(far.read_chunk(1).await.unwrap().unwrap(), "!");
    let mut tasks = Vec::new();
    for (stream, relay) in [(near, &relays[0]), (far, &relays[1])] {
        let (mut send, mut recv) = stream.split();
        tasks.push(tokio::spawn(async move {
            let mut block = vec![0; 50_000];
            let mut offset = 0;
            while offset < TOTAL {
                let len = block.len().min(usize::try_from(TOTAL - offset).unwrap());
                pattern(offset, &mut block[..len]);
                send.write_all(&block[..len]).await.unwrap();
                offset += len as u64;
            }
            send.finish().unwrap();
            send.acknowledged().await.unwrap();
        }));
        let relay = relay.clone();
        tasks.push(tokio::spawn(async move {
            let (mut hash, mut expected, mut read, mut cut_at) = (Sha256::new(), Sha256::new(), 0, 2_000_000);
            let mut scratch = Vec::new();
            while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
                scratch.resize(chunk.len(), 0);
                pattern(read, &mut scratch);
                hash.update(&chunk);
                expected.update(&scratch);
                read += chunk.len() as u64;
                if read > cut_at {
                    cut_at += 2_000_000;
                    relay.cut();
                }
            }
            assert_eq!(read, TOTAL);
            assert_eq!(hash.finalize(), expected.finalize());
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn requests_run_once_through_cuts() {
    let (_server, client, peer, relays) = relayed(2).await;
    serve_echo(peer);
    let mut calls = Vec::new();
    for caller in 0..64u32 {
        let (client, relays) = (client.clone(), relays.clone());
        calls.push(tokio::spawn(async move {
            for number in 0..100u32 {
                let payload = [caller.to_be_bytes(), number.to_be_bytes()].concat();
                assert_eq!(client.request("echo", payload.clone()).await.unwrap(), payload);
                if caller == 0 && number % 10 == 9 {
                    relays[number as usize / 10 % 2].cut();
                }
            }
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn a_cut_is_told_as_events() {
    let (_server, client, _peer, relays) = relayed(1).await;
    let mut events = client.events();
    relays[0].cut();
    let mut reconnecting = false;
    loop {
        match events.next().await.unwrap() {
            SessionEvent::State {
                to: State::Reconnecting,
                ..
            } => reconnecting = true,
            SessionEvent::State {
                to: State::Connected, ..
            } => break,
            SessionEvent::PathDown { path, .. } => assert_eq!(*path, *relays[0].url()),
            _ => {}
        }
    }
    assert!(reconnecting);
    assert_eq!(client.state(), State::Connected);
}
