//! Listening on several addresses, and for crowds: in memory, on a clock that only moves when everything waits.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::common::free_address;
use bytes::BytesMut;
use sheetbend_tokio::core::handshake::Security;
use sheetbend_tokio::core::session::{self, PathInfo};
use sheetbend_tokio::core::time::Timestamp;
use sheetbend_tokio::core::wire::OutBuffer;
use sheetbend_tokio::{Address, Around, Client, Config, Listener, Server, Socket, mem_pair, runtime};

/// How many connections the crowd makes.
const CROWD: usize = 50_000;

/// Where somebody connects without end.
struct Crowd(Arc<AtomicUsize>);

impl Listener for Crowd {
    fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= CROWD {
            return Poll::Pending;
        }
        Poll::Ready(Ok(Box::new(mem_pair("crowd", 16).0)))
    }

    fn local_address(&self) -> Address {
        Address::Mem("crowd".to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_on_one_address_does_not_keep_others_out() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address("mem", &dir);
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    let crowded = Around::new(runtime()).on_listen(move |inner, address| {
        if address == Address::Mem("crowd".to_owned()) {
            let crowd: Box<dyn Listener> = Box::new(Crowd(counted.clone()));
            return Box::pin(std::future::ready(Ok(crowd)));
        }
        inner.listen(address)
    });
    let server = Server::builder()
        .listen("mem://crowd")
        .unwrap()
        .listen(&address)
        .unwrap()
        .bind(Arc::new(crowded))
        .await
        .unwrap();
    let client = Client::builder().endpoint(&address).unwrap();
    let (session, peer) = tokio::join!(client.connect(runtime()), server.accept());
    assert!(session.is_ok() && peer.is_some());
    let before = accepted.load(Ordering::Relaxed);
    assert!(before < CROWD, "{before} had to be accepted first");
}

/// A connection's first bytes.
fn hello(seed: u8) -> Vec<u8> {
    let now = Timestamp::ZERO;
    let mut client = session::Session::client(Config::default(), [seed; 32], now);
    let path = PathInfo::new("mem://test", "mem", Security::Local);
    let path = client.open_path(now, path).unwrap();
    let mut out = OutBuffer::new();
    client.poll_transmit(now, path, &mut out);
    out.chunk().to_vec()
}

/// How many bytes a socket has to read; 0 is its end.
fn answer(socket: &dyn Socket) -> io::Result<usize> {
    socket.try_read(&mut BytesMut::with_capacity(4096))
}

/// Waits until it has something to read, or its end.
async fn readable(socket: &dyn Socket) {
    poll_fn(|cx| socket.poll_readable(cx)).await.unwrap();
}

/// Whoever is refused and reads the reason slowly is one of those who may be in their handshake.
#[tokio::test(start_paused = true)]
async fn refused_connections_that_linger_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::builder()
        .listen(free_address("mem", &dir))
        .unwrap()
        .max_handshakes(4)
        .bind(runtime())
        .await
        .unwrap();
    server.drain("");
    let at = &server.addresses()[0];
    let mut sockets = Vec::new();
    for seed in 0..6 {
        let socket = runtime().connect(at.clone()).await.unwrap();
        socket.try_write_vectored(&[IoSlice::new(&hello(seed))]).unwrap();
        readable(&*socket).await;
        sockets.push(socket);
    }
    let told: Vec<bool> = sockets
        .iter()
        .map(|socket| answer(&**socket).unwrap() > 0)
        .collect();
    assert_eq!(told, [true, true, true, true, false, false]);
    // The server's patience ends, by a clock that only moves when everything waits.
    let mut patience = runtime().timer(runtime().now() + Duration::from_secs(2));
    poll_fn(|cx| patience.poll_expired(cx)).await;
    let socket = runtime().connect(at.clone()).await.unwrap();
    socket.try_write_vectored(&[IoSlice::new(&hello(9))]).unwrap();
    readable(&*socket).await;
    assert!(answer(&*socket).unwrap() > 0, "there is room again");
}
