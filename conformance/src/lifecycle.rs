//! Beginnings and ends: refusal, drain, close, loss, handles dropped at bad moments.

use std::pin::Pin;
use std::time::Duration;

use sheetbend_core::handshake::Security;
use sheetbend_runtime::{
    CallError, Cause, Class, Config, ConnectError, Delivery, ErrorCode, OpenError, Outcome, SendError,
    Server, Session, State,
};

use crate::env::{Env, pending_once, until};
use crate::relay::Relay;

pub async fn a_refused_connection_is_a_clear_error(env: Env) {
    let (listener, address) = env.listen().await;
    drop(listener);
    let error = env.client(&address).connect(env.runtime()).await.unwrap_err();
    let ConnectError::Unreachable(list) = &error else {
        panic!("{error}")
    };
    assert_eq!(list[0].0, address);
    assert!(error.to_string().contains("refused"), "{error}");
    let nobody = env.client("mem://nobody-is-here");
    let error = nobody.connect(env.runtime()).await.unwrap_err();
    assert!(error.to_string().contains("nobody listens"), "{error}");
    let missing = env.client(env.free_address("unix"));
    let error = missing.connect(env.runtime()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
}

pub async fn close_tells_the_other_end_why(env: Env) {
    let pair = env.pair("tcp").await;
    pair.client.close(ErrorCode::from(0x105), "enough").await;
    let ended = pair.peer.closed().await;
    assert_eq!(ended.state, State::Closed);
    assert!(
        matches!(&ended.cause, Cause::PeerClose { code, reason } if code.value() == 0x105 && reason == "enough")
    );
    assert!(matches!(
        pair.client.closed().await.cause,
        Cause::LocalClose { .. }
    ));
    assert_eq!(
        pair.client.open_bi(Class::BULK).await.err(),
        Some(OpenError::Ended)
    );
    let late = pair
        .client
        .try_send_message(Class::EVENTS, Delivery::Ordered, "x");
    assert_eq!(late, Err(SendError::Ended));
    assert!(matches!(
        pair.client.request("x", "").await,
        Err(CallError::NotSent(_))
    ));
    assert!(pair.peer.recv_message(Class::EVENTS).await.is_err());
}

pub async fn drain_finishes_what_is_open_and_refuses_the_new(env: Env) {
    let pair = env.pair("tcp").await;
    let client = pair.client.clone();
    let call = env.spawn(async move { client.request("slow", "question").await });
    let request = pair.peer.accept_request().await.unwrap();
    pair.server.drain("");
    // The answer still goes out, then the session closes by itself.
    request.respond("answer");
    assert_eq!(call.await.unwrap().unwrap(), "answer");
    pair.client.closed().await;
    pair.server.drained().await;
    let late = env.client(&pair.server.addresses()[0]);
    let error = late.connect(env.runtime()).await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("drain"), "{error}");
}

/// The client's way leads to another server all of a sudden: one that never heard of the session.
pub async fn a_server_that_forgot_the_session_leaves_outcomes(env: Env) {
    let server = env.server("tcp").await;
    let relay = Relay::to(&env, &server).await;
    let client = env.client(relay.url("tcp")).build(env.runtime()).unwrap();
    let (session, peer) = futures::join!(client.session(), server.accept());
    let (session, peer) = (session.unwrap(), peer.unwrap());
    let tracked = async |text: &'static str| {
        let sent = session.send_message_tracked(Class::EVENTS, Delivery::Ordered, text);
        sent.await.unwrap().await
    };
    assert_eq!(tracked("first").await, Outcome::Acknowledged);
    let caller = session.clone();
    let call = env.spawn(async move { caller.request("never", "answered").await });
    let request = peer.accept_request().await.unwrap();
    // The peer has the request once a message behind it is acknowledged.
    assert_eq!(tracked("behind").await, Outcome::Acknowledged);
    let other = env.server("tcp").await;
    relay.lead_to(&other);
    relay.cut();
    let ended = session.closed().await;
    assert_eq!(ended.state, State::Failed);
    assert!(matches!(ended.cause, Cause::Rejected { .. }), "{ended}");
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::MaybeExecuted(_)), "{error}");
    drop(request);
    // The client makes a new one when asked.
    let (again, peer) = futures::join!(client.session(), other.accept());
    env.serve_echo(peer.unwrap());
    assert_eq!(again.unwrap().request("echo", "again").await.unwrap(), "again");
}

/// Polls something once, and drops it where it stands.
async fn glance<F: Future>(future: F) {
    let mut future: Pin<Box<F>> = Box::pin(future);
    pending_once(&mut future).await;
}

async fn drop_at_a_bad_moment(session: &Session, round: u32) {
    match round % 20 {
        0 => glance(session.open_bi(Class::BULK)).await,
        1 => glance(session.open_uni(Class::EVENTS)).await,
        2 => glance(session.accept_bi(Class::BULK)).await,
        3 => glance(session.accept_uni(Class::BULK)).await,
        4 => glance(session.request("echo", "dropped")).await,
        5 => glance(session.call("nobody knows it").server_streaming("")).await,
        6 => glance(session.call("echo").client_streaming()).await,
        7 => glance(session.accept_request()).await,
        8 => glance(session.recv_message(Class::EVENTS)).await,
        9 => glance(session.recv_datagram()).await,
        10 => glance(session.send_message(Class::EVENTS, Delivery::Ordered, "m")).await,
        11 => glance(session.send_message_tracked(Class::EVENTS, Delivery::Unordered, "m")).await,
        12 => drop(session.events()),
        13 => glance(session.events().next()).await,
        14 => glance(session.closed()).await,
        15 => drop(session.clone()),
        _ => {
            let mut stream = session.open_bi(Class::BULK).await.unwrap();
            match round % 4 {
                0 => stream.write_all(b"unfinished").await.unwrap(),
                1 => stream.finish().unwrap(),
                2 => glance(stream.read_chunk(10)).await,
                _ => {
                    let (mut send, recv) = stream.split();
                    drop(recv);
                    glance(send.acknowledged()).await;
                }
            }
        }
    }
}

pub async fn ten_thousand_handles_dropped_at_bad_moments_harm_nobody(env: Env) {
    let pair = env.pair("tcp").await;
    env.serve_echo(pair.peer.clone());
    // What is sent is taken in, so that it is not the windows that hold things up.
    let taker = pair.peer.clone();
    env.spawn(async move { while taker.recv_message(Class::EVENTS).await.is_ok() {} });
    let taker = pair.peer.clone();
    env.spawn(async move { while taker.accept_bi(Class::BULK).await.is_ok() {} });
    let taker = pair.peer.clone();
    env.spawn(async move { while taker.accept_uni(Class::EVENTS).await.is_ok() {} });
    // The stream of ordered messages stays.
    let message = (Class::EVENTS, Delivery::Ordered, "first");
    pair.client
        .send_message(message.0, message.1, message.2)
        .await
        .unwrap();
    assert_eq!(pair.client.request("echo", "fine").await.unwrap(), "fine");
    let streams = || (pair.client.stats().streams, pair.peer.stats().streams);
    until(&pair.client, || streams() == (1, 1)).await;
    for round in 0..10_000 {
        drop_at_a_bad_moment(&pair.client, round).await;
        if round % 200 == 0 {
            assert_eq!(pair.client.request("echo", "fine").await.unwrap(), "fine");
        }
    }
    assert_eq!(pair.client.request("echo", "fine").await.unwrap(), "fine");
    // Nothing else is left once all of it is acknowledged.
    until(&pair.client, || streams() == (1, 1)).await;
    assert_eq!(pair.client.state(), State::Connected);
}

pub async fn connections_given_up_at_bad_moments_harm_nobody(env: Env) {
    let server = env.server("tcp").await;
    let url = server.addresses()[0].to_string();
    for round in 0..200 {
        let scheme = ["tcp", "tls", "ws", "wss", "http"][round % 5];
        let client = env.client(url.replace("tcp", scheme));
        let connecting = std::pin::pin!(client.connect(env.runtime()));
        // Given up a little later each time.
        let (runtime, patience) = (env.runtime(), Duration::from_micros(20) * round as u32);
        let mut timer = runtime.timer(runtime.now() + patience);
        let patience = std::future::poll_fn(|cx| timer.poll_expired(cx));
        drop(futures::future::select(connecting, patience).await);
    }
    // Those that came through nevertheless are answered, too.
    let own = env.clone();
    let serving = env.spawn(async move {
        while let Some(peer) = server.accept().await {
            own.serve_echo(peer);
        }
    });
    let session = env.client(&url).connect(env.runtime()).await.unwrap();
    assert_eq!(session.request("echo", "fine").await.unwrap(), "fine");
    serving.abort();
}

pub async fn a_session_without_handles_delivers_what_was_queued_and_closes(env: Env) {
    let pair = env.pair("tcp").await;
    for number in 0..100u8 {
        let sent = pair
            .client
            .send_message(Class::EVENTS, Delivery::Ordered, vec![number]);
        sent.await.unwrap();
    }
    let mut stream = pair.client.open_uni(Class::BULK).await.unwrap();
    stream.write_all(&[5; 10_000]).await.unwrap();
    stream.finish().unwrap();
    drop(stream);
    let (client, peer) = (pair.client, pair.peer);
    drop(client);
    let mut stream = peer.accept_uni(Class::BULK).await.unwrap();
    assert_eq!(stream.read_to_end(20_000).await.unwrap().len(), 10_000);
    for number in 0..100u8 {
        assert_eq!(peer.recv_message(Class::EVENTS).await.unwrap().payload[0], number);
    }
    let ended = peer.closed().await;
    assert!(matches!(ended.cause, Cause::PeerClose { .. }), "{ended}");
}

pub async fn a_security_floor_refuses_weaker_carriers(env: Env) {
    let config = Config {
        security_floor: Some(Security::Encrypted),
        ..Config::default()
    };
    let server = env
        .serve(Server::builder().config(config), "tcp://127.0.0.1:0")
        .await;
    let url = server.addresses()[0].to_string();
    let error = env.client(&url).connect(env.runtime()).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Failed(_) | ConnectError::Unreachable(_)),
        "{error}"
    );
    let strong = env.client(url.replace("tcp", "tls"));
    let (session, _peer) = env.connect(strong, &server).await;
    assert_eq!(session.state(), State::Connected);
}

pub async fn a_server_that_is_dropped_lets_go_of_its_port(env: Env) {
    for kind in ["tcp", "unix", "mem"] {
        let server = env.server(kind).await;
        let address = server.addresses()[0].to_string();
        let (client, peer) = env.connect(env.client(&address), &server).await;
        drop(server);
        client.close(ErrorCode::NONE, "done").await;
        peer.closed().await;
        // The listening task is told, and has its turn.
        let again = loop {
            let again = Server::builder()
                .listen(&address)
                .unwrap()
                .bind(env.runtime())
                .await;
            match again {
                Ok(again) => break again,
                Err(_) => client.sleep(Duration::from_millis(1)).await,
            }
        };
        let (client, _peer) = env.connect(env.client(&address), &again).await;
        assert_eq!(client.state(), State::Connected, "{kind}");
    }
}
