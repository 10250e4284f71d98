//! Streams by tokio's IO traits. `conformance/` has all else about streams.

use crate::common::pair;
use sheetbend_tokio::Class;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn streams_are_tokio_readers_and_writers() {
    let pair = pair("tcp").await;
    let peer = pair.peer.clone();
    let echo = tokio::spawn(async move {
        let stream = peer.accept_bi(Class::BULK).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let stream = pair.client.open_bi(Class::BULK).await.unwrap();
    let (mut recv, mut send) = tokio::io::split(stream);
    let sent = vec![42; 1_000_000];
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        AsyncWriteExt::write_all(&mut send, &copy).await.unwrap();
        send.shutdown().await.unwrap();
        send
    });
    let mut back = Vec::new();
    recv.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, sent);
    writer.await.unwrap();
    echo.await.unwrap();
}
