//! Streams on threads that block.

use std::io::{Read, Write};

use crate::common::{pair, pattern};
use sheetbend_tokio::{Blocking, Class};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_copy_over_a_stream_with_the_standard_traits() {
    let pair = pair("mem").await;
    let peer = pair.peer.clone();
    let echo = async move {
        let stream = peer.accept_bi(Class::BULK).await.unwrap();
        let copied = tokio::task::spawn_blocking(move || {
            let (send, recv) = stream.split();
            let (mut send, mut recv) = (Blocking::new(send), Blocking::new(recv));
            let copied = std::io::copy(&mut recv, &mut send).unwrap();
            send.inner().finish().unwrap();
            copied
        });
        copied.await.unwrap()
    };
    let stream = pair.client.open_bi(Class::BULK).await.unwrap();
    // More than any window: writing blocks until the other end has read.
    let mut sent = vec![0; 5 << 20];
    pattern(0, &mut sent);
    let expected = sent.clone();
    let (send, recv) = stream.split();
    let writer = tokio::task::spawn_blocking(move || {
        let mut send = Blocking::new(send);
        send.write_all(&sent).unwrap();
        send.flush().unwrap();
        send.into_inner().finish().unwrap();
    });
    let reader = tokio::task::spawn_blocking(move || {
        let mut received = Vec::new();
        Blocking::new(recv).read_to_end(&mut received).unwrap();
        received
    });
    let (copied, written, received) = tokio::join!(echo, writer, reader);
    written.unwrap();
    let received = received.unwrap();
    assert_eq!(copied, expected.len() as u64);
    assert!(received == expected, "intact");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_reader_is_told_of_the_end_of_the_session() {
    let pair = pair("mem").await;
    let stream = pair.client.open_bi(Class::BULK).await.unwrap();
    let mut stream = Blocking::new(stream);
    let reader = tokio::task::spawn_blocking(move || stream.read(&mut [0; 10]));
    pair.client.close(sheetbend_tokio::ErrorCode::NONE, "done").await;
    let error = reader.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
}
