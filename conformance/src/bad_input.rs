//! What is no session's business on a server's port, and what is none at a client's: it ends its own connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use sheetbend_core::handshake::Security;
use sheetbend_core::session::{Config, PathInfo, Session as Machine};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;
use sheetbend_runtime::{Class, ConnectError, Delivery, PathMode, State};

use crate::env::{Env, Wire, authority};

pub async fn garbage_on_the_port_harms_nobody(env: Env) {
    let pair = env.pair("tcp").await;
    env.serve_echo(pair.peer.clone());
    let floods: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00hello, this is no ClientHello",
        &[0; 64],
        &[0xff; 100_000],
        b"\x00\x00\x05\x08hello",
        &[1],
    ];
    for flood in floods {
        let wire = env.wire(&pair.server).await;
        let _ = wire.say(flood).await;
        let _ = wire.0.shutdown();
        wire.hear_all().await;
        assert_eq!(pair.client.request("echo", "fine").await.unwrap(), "fine");
    }
}

pub async fn garbage_of_every_first_byte_harms_nobody(env: Env) {
    let pair = env.pair("tcp").await;
    env.serve_echo(pair.peer.clone());
    for first in 0..=255 {
        let wire = env.wire(&pair.server).await;
        let _ = wire.say(&[first, 0x91, 0, 0xff, 13, 10, 13, 10]).await;
        let _ = wire.0.shutdown();
        wire.hear_all().await;
    }
    assert_eq!(pair.client.request("echo", "fine").await.unwrap(), "fine");
    assert_eq!(pair.server.addresses().len(), 1);
}

/// A connection's first bytes.
fn hello(seed: u8) -> Vec<u8> {
    let mut client = Machine::client(Config::default(), [seed; 32], Timestamp::ZERO);
    let path = PathInfo::new("tcp://test", "tcp", Security::Plain);
    let path = client.open_path(Timestamp::ZERO, path).unwrap();
    let mut out = OutBuffer::new();
    client.poll_transmit(Timestamp::ZERO, path, &mut out);
    out.chunk().to_vec()
}

pub async fn a_session_is_cut_anywhere_in_its_first_bytes(env: Env) {
    let pair = env.pair("tcp").await;
    env.serve_echo(pair.peer.clone());
    let whole = hello(1);
    for len in 0..=whole.len() {
        let wire = env.wire(&pair.server).await;
        let _ = wire.say(&whole[..len]).await;
        if len % 2 == 0 {
            let _ = wire.0.shutdown();
            let heard = wire.hear_all().await;
            assert_eq!(
                heard.is_empty(),
                len < whole.len(),
                "{len} of {} bytes",
                whole.len()
            );
        }
    }
    // One byte of it is another: the checksum tells, or the server says what it does not understand.
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 0x40;
        let wire = env.wire(&pair.server).await;
        let _ = wire.say(&bent).await;
        let _ = wire.0.shutdown();
        wire.hear_all().await;
    }
    assert_eq!(pair.client.request("echo", "fine").await.unwrap(), "fine");
}

/// Somebody in the middle puts bytes between: that path ends, the session goes on over the next.
pub async fn garbage_amid_a_session_ends_its_path_alone(env: Env) {
    let server = env.server("tcp").await;
    let (listener, address) = env.listen().await;
    let (own, target) = (env.clone(), server.addresses()[0].clone());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    env.spawn(async move {
        while let Ok(near) = poll_fn(|cx| listener.poll_accept(cx)).await {
            let spoil = counter.fetch_add(1, Ordering::SeqCst) == 0;
            let far = own.runtime().connect(target.clone()).await.unwrap();
            let (near, far) = (Wire(near), Wire(far));
            own.spawn(async move {
                futures::join!(bend(&near, &far, spoil), bend(&far, &near, false));
            });
        }
    });
    let client = env.client(&address).config(Config {
        mode: PathMode::Single,
        ..Config::default()
    });
    let (client, peer) = env.connect(client, &server).await;
    env.numbered_messages(&client, &peer, 3000, |_| {}).await;
    client
        .send_message(Class::EVENTS, Delivery::Ordered, "last")
        .await
        .unwrap();
    assert_eq!(peer.recv_message(Class::EVENTS).await.unwrap().payload, "last");
    assert_eq!(client.state(), State::Connected);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

/// Passes bytes on; of the second thousand one is changed, if it is to be.
async fn bend(from: &Wire, to: &Wire, spoil: bool) {
    let (mut block, mut passed) = (BytesMut::new(), 0);
    while let Ok(true) = from.hear(&mut block).await {
        if let Some(byte) = 1500_usize.checked_sub(passed).and_then(|at| block.get_mut(at)) {
            *byte ^= u8::from(spoil);
        }
        passed += block.len();
        if to.say(&block).await.is_err() {
            break;
        }
        block.clear();
    }
    let _ = to.0.shutdown();
}

/// Connects where every connection is answered so, and then closed.
async fn connect_to_one_that_says(env: &Env, words: &'static [u8]) -> ConnectError {
    let (listener, address) = env.listen().await;
    let own = env.clone();
    env.spawn(async move {
        while let Ok(near) = poll_fn(|cx| listener.poll_accept(cx)).await {
            own.spawn(async move {
                let wire = Wire(near);
                let _ = wire.say(words).await;
                let _ = wire.0.shutdown();
                wire.hear_all().await;
            });
        }
    });
    env.client(&address).connect(env.runtime()).await.unwrap_err()
}

pub async fn a_server_of_another_protocol_is_a_clear_error(env: Env) {
    for words in [
        &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH\r\n",
        &[0xff; 5000],
    ] {
        let error = connect_to_one_that_says(&env, words).await;
        assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
    }
}

pub async fn a_server_that_hangs_up_is_a_clear_error(env: Env) {
    let error = connect_to_one_that_says(&env, b"").await;
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
}

pub async fn strangers_are_told_politely(env: Env) {
    let server = env.server("tcp").await;
    let authority = authority(&server);
    let says = async |words: String| {
        let wire = env.wire(&server).await;
        wire.say(words.as_bytes()).await.unwrap();
        wire.hear_all().await
    };
    let page = says(format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await;
    assert!(page.starts_with(b"HTTP/1.1 426 Upgrade Required\r\n"));
    let folded = says(format!("GET / HTTP/1.1\r\nHost: {authority}\r\n X: y\r\n\r\n")).await;
    assert!(folded.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    let http2 = says("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()).await;
    assert_eq!(http2[3], 4, "SETTINGS first");
    assert_eq!(http2.last(), Some(&0xd), "then GOAWAY(HTTP_1_1_REQUIRED)");
    assert_eq!(says("SSH-2.0-OpenSSH\r\n".to_owned()).await, b"");
}
