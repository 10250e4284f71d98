//! Connections die under a busy session: nothing is lost, doubled or reordered.

use sha2::{Digest, Sha256};
use sheetbend_runtime::{Class, Config, PathMode, Server, Session, SessionEvent, State};

use crate::env::{Env, pattern};
use crate::relay::Relay;

/// A session through a relay for each of these schemes; all lead to one port.
async fn relayed(env: &Env, schemes: &[&str]) -> (Server, Session, Session, Vec<Relay>) {
    let server = env.server("tcp").await;
    let mut relays = Vec::new();
    for _ in schemes {
        relays.push(Relay::to(env, &server).await);
    }
    let url = |index: usize| match schemes[index].split_once('?') {
        None => relays[index].url(schemes[index]),
        Some((scheme, query)) => format!("{}/?{query}", relays[index].url(scheme)),
    };
    let mut client = env.client(url(0));
    for index in 1..schemes.len() {
        client = client.endpoint(url(index)).unwrap();
    }
    if schemes.len() == 1 {
        client = client.config(Config {
            mode: PathMode::Single,
            ..Config::default()
        });
    }
    let (client, peer) = env.connect(client, &server).await;
    (server, client, peer, relays)
}

/// Messages go on both ways while connections are cut.
async fn messages_survive(env: Env, schemes: &[&str]) {
    const COUNT: u32 = 12_000;
    let (_server, client, peer, relays) = relayed(&env, schemes).await;
    for (from, to) in [(&client, &peer), (&peer, &client)] {
        env.numbered_messages(from, to, COUNT, |number| {
            if number % 1500 == 1499 {
                relays[number as usize / 1500 % relays.len()].cut();
            }
        })
        .await;
    }
    assert!(relays.iter().map(Relay::connections).sum::<usize>() > 5);
}

pub async fn messages_survive_cuts_of_the_only_path(env: Env) {
    messages_survive(env, &["tcp"]).await;
}

pub async fn messages_survive_cuts_with_a_standby(env: Env) {
    messages_survive(env, &["tcp", "tcp"]).await;
}

pub async fn messages_survive_cuts_of_tls(env: Env) {
    messages_survive(env, &["tls"]).await;
}

pub async fn messages_survive_cuts_of_a_websocket(env: Env) {
    messages_survive(env, &["ws"]).await;
}

pub async fn messages_survive_cuts_of_a_websocket_over_tls(env: Env) {
    messages_survive(env, &["wss"]).await;
}

pub async fn messages_survive_cuts_of_binary_http(env: Env) {
    messages_survive(env, &["http?mode=binary"]).await;
}

pub async fn messages_survive_cuts_of_an_event_stream(env: Env) {
    messages_survive(env, &["http?mode=sse"]).await;
}

pub async fn messages_survive_cuts_of_long_polls(env: Env) {
    messages_survive(env, &["http?mode=poll"]).await;
}

pub async fn messages_survive_switches_among_all_of_one_port(env: Env) {
    messages_survive(env, &["ws", "tcp", "wss", "http", "tls", "https"]).await;
}

pub async fn streams_survive_cuts_both_ways(env: Env) {
    const TOTAL: u64 = 12 * 1024 * 1024;
    const BETWEEN_CUTS: u64 = 1_000_000;
    let (_server, client, peer, relays) = relayed(&env, &["tcp", "tcp"]).await;
    let mut near = client.open_bi(Class::BULK).await.unwrap();
    near.write_all(b"!").await.unwrap();
    let mut far = peer.accept_bi(Class::BULK).await.unwrap();
    assert_eq!(far.read_chunk(1).await.unwrap().unwrap(), "!");
    let mut tasks = Vec::new();
    for (stream, relay) in [(near, &relays[0]), (far, &relays[1])] {
        let (mut send, mut recv) = stream.split();
        tasks.push(env.spawn(async move {
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
        tasks.push(env.spawn(async move {
            let (mut hash, mut expected) = (Sha256::new(), Sha256::new());
            let (mut read, mut cut_at) = (0, BETWEEN_CUTS);
            let mut scratch = Vec::new();
            while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
                scratch.resize(chunk.len(), 0);
                pattern(read, &mut scratch);
                hash.update(&chunk);
                expected.update(&scratch);
                read += chunk.len() as u64;
                if read > cut_at {
                    cut_at += BETWEEN_CUTS;
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

pub async fn requests_run_once_through_cuts(env: Env) {
    let (_server, client, peer, relays) = relayed(&env, &["tcp", "tcp"]).await;
    env.serve_echo(peer);
    let mut calls = Vec::new();
    for caller in 0..64u32 {
        let (client, relays) = (client.clone(), relays.clone());
        calls.push(env.spawn(async move {
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

pub async fn a_cut_is_told_as_events(env: Env) {
    let (_server, client, _peer, relays) = relayed(&env, &["tcp"]).await;
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
            SessionEvent::PathDown { path, .. } => assert_eq!(*path, *relays[0].url("tcp")),
            _ => {}
        }
    }
    assert!(reconnecting);
    assert_eq!(client.state(), State::Connected);
}

pub async fn a_session_on_tls_does_not_move_to_a_plain_connection(env: Env) {
    let (_server, session, peer, relays) = relayed(&env, &["tls"]).await;
    env.serve_echo(peer.clone());
    assert_eq!(session.request("echo", "a").await.unwrap(), "a");
    // It comes back over TLS: the JOIN is bound, and taken.
    relays[0].cut();
    assert_eq!(session.request("echo", "b").await.unwrap(), "b");
    for paths in [session.paths(), peer.paths()] {
        assert!(paths.iter().all(|path| path.transport == "tls"), "{paths:?}");
    }
}
