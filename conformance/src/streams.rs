//! Byte streams: intact both ways, with the IO traits, ended in every way.

use bytes::Bytes;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use sha2::{Digest, Sha256};
use sheetbend_runtime::{BiStream, Class, Delivery, ReadToEndError, RecvStream, SendStream, StreamError};

use crate::env::{Env, pattern};

const TOTAL: u64 = 16 * 1024 * 1024;

async fn write_pattern(mut send: SendStream, total: u64) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut offset = 0;
    let mut block = vec![0; 60_000];
    while offset < total {
        let len = block.len().min(usize::try_from(total - offset).unwrap());
        pattern(offset, &mut block[..len]);
        hash.update(&block[..len]);
        if offset % 3 == 0 {
            send.write_chunk(Bytes::copy_from_slice(&block[..len]))
                .await
                .unwrap();
        } else {
            send.write_all(&block[..len]).await.unwrap();
        }
        offset += len as u64;
    }
    send.finish().unwrap();
    send.acknowledged().await.unwrap();
    hash.finalize().to_vec()
}

async fn read_hash(mut recv: RecvStream) -> (u64, Vec<u8>) {
    let mut hash = Sha256::new();
    let mut total = 0;
    while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
        total += chunk.len() as u64;
        hash.update(&chunk);
    }
    (total, hash.finalize().to_vec())
}

async fn both_ways(env: Env, kind: &str, total: u64) {
    let pair = env.pair(kind).await;
    let mut near = pair.client.open_bi(Class::BULK).await.unwrap();
    near.write_all(b"!").await.unwrap();
    let mut far = pair.peer.accept_bi(Class::BULK).await.unwrap();
    assert_eq!(far.read_chunk(1).await.unwrap().unwrap(), "!");
    let ((near_send, near_recv), (far_send, far_recv)) = (near.split(), far.split());
    let (up, down, up_read, down_read) = futures::join!(
        env.spawn(write_pattern(near_send, total)),
        env.spawn(write_pattern(far_send, total)),
        env.spawn(read_hash(far_recv)),
        env.spawn(read_hash(near_recv)),
    );
    assert_eq!(up_read.unwrap(), (total, up.unwrap()));
    assert_eq!(down_read.unwrap(), (total, down.unwrap()));
}

pub async fn bytes_arrive_intact_both_ways_over_tcp(env: Env) {
    both_ways(env, "tcp", TOTAL).await;
}

pub async fn bytes_arrive_intact_both_ways_over_a_unix_socket(env: Env) {
    both_ways(env, "unix", TOTAL / 4).await;
}

pub async fn bytes_arrive_intact_both_ways_in_memory(env: Env) {
    both_ways(env, "mem", TOTAL / 4).await;
}

pub async fn streams_are_readers_and_writers(env: Env) {
    let pair = env.pair("tcp").await;
    let peer = pair.peer.clone();
    let echo = env.spawn(async move {
        let stream = peer.accept_bi(Class::BULK).await.unwrap();
        let (reader, mut writer) = AsyncReadExt::split(stream);
        futures::io::copy(reader, &mut writer).await.unwrap();
        writer.close().await.unwrap();
    });
    let stream: BiStream = pair.client.open_bi(Class::BULK).await.unwrap();
    let (mut recv, mut send) = AsyncReadExt::split(stream);
    let sent = vec![42; 1_000_000];
    let copy = sent.clone();
    let writer = env.spawn(async move {
        AsyncWriteExt::write_all(&mut send, &copy).await.unwrap();
        send.close().await.unwrap();
        send
    });
    let mut back = Vec::new();
    AsyncReadExt::read_to_end(&mut recv, &mut back).await.unwrap();
    assert!(back == sent, "intact");
    drop(writer.await.unwrap());
    echo.await.unwrap();
}

pub async fn a_hundred_streams_do_not_mix(env: Env) {
    let pair = env.pair("tcp").await;
    let (peer, own) = (pair.peer.clone(), env.clone());
    let reader = env.spawn(async move {
        let mut readers = Vec::new();
        for _ in 0..100 {
            let mut stream = peer.accept_uni(Class::BULK).await.unwrap();
            readers.push(own.spawn(async move {
                let all = stream.read_to_end(1 << 20).await.unwrap();
                assert_eq!(all.len(), 50_000 + usize::from(all[0]));
                assert!(all.iter().all(|byte| *byte == all[0]));
            }));
        }
        for reader in readers {
            reader.await.unwrap();
        }
    });
    for number in 0..100u8 {
        let mut stream = pair.client.open_uni(Class::BULK).await.unwrap();
        env.spawn(async move {
            stream
                .write_all(&vec![number; 50_000 + usize::from(number)])
                .await
                .unwrap();
            stream.finish().unwrap();
        });
    }
    reader.await.unwrap();
}

pub async fn stop_and_limits_are_told(env: Env) {
    let pair = env.pair("mem").await;
    let mut send = pair.client.open_uni(Class::BULK).await.unwrap();
    send.write_all(b"unwanted").await.unwrap();
    let mut recv = pair.peer.accept_uni(Class::BULK).await.unwrap();
    recv.stop(5).unwrap();
    assert_eq!(send.stopped().await.unwrap(), Some(5));
    assert_eq!(
        send.write_all(b"more").await.unwrap_err(),
        StreamError::Stopped(5)
    );

    let mut send = pair.client.open_uni(Class::BULK).await.unwrap();
    send.write_all(&[0; 2000]).await.unwrap();
    send.finish().unwrap();
    let mut recv = pair.peer.accept_uni(Class::BULK).await.unwrap();
    assert_eq!(
        recv.read_to_end(1999).await.unwrap_err(),
        ReadToEndError::TooLong(1999)
    );
}

pub async fn a_writer_waits_for_a_reader_that_rests(env: Env) {
    let pair = env.pair("mem").await;
    let mut send = pair.client.open_uni(Class::BULK).await.unwrap();
    send.write_all(b"x").await.unwrap();
    let mut recv = pair.peer.accept_uni(Class::BULK).await.unwrap();
    let mut writer = env.spawn(async move {
        send.write_all(&vec![1; 8 * 1024 * 1024]).await.unwrap();
        send.finish().unwrap();
        send.acknowledged().await.unwrap();
    });
    // Other streams go on meanwhile.
    for _ in 0..20 {
        let mut other = pair.client.open_uni(Class::EVENTS).await.unwrap();
        other.write_all(b"goes on").await.unwrap();
        other.finish().unwrap();
        let mut other = pair.peer.accept_uni(Class::EVENTS).await.unwrap();
        assert_eq!(other.read_to_end(100).await.unwrap(), "goes on");
    }
    assert!(!writer.is_finished(), "the window holds the writer");
    assert_eq!(
        recv.read_to_end(1 << 24).await.unwrap().len(),
        8 * 1024 * 1024 + 1
    );
    writer.await.unwrap();
}

pub async fn a_reset_is_no_end_of_the_stream(env: Env) {
    let pair = env.pair("mem").await;
    let mut send = pair.client.open_uni(Class::BULK).await.unwrap();
    send.write_all(b"half").await.unwrap();
    let mut recv = pair.peer.accept_uni(Class::BULK).await.unwrap();
    assert_eq!(recv.read_chunk(100).await.unwrap().unwrap(), "half");
    send.reset(77).unwrap();
    assert_eq!(recv.read_chunk(100).await.unwrap_err(), StreamError::Reset(77));
}

/// A stop is heard of even where it came before the stream was accepted, and a reset by this end ends the
/// wait for the acknowledgement.
pub async fn nobody_waits_for_the_acknowledgement_of_what_was_given_up(env: Env) {
    let pair = env.pair("mem").await;
    let mut near = pair.client.open_bi(Class::BULK).await.unwrap();
    near.write_all(b"hello").await.unwrap();
    near.recv().stop(7).unwrap();
    // What is on the same path behind it has come, so it has come too.
    pair.client
        .send_message(Class::EVENTS, Delivery::Ordered, "behind")
        .await
        .unwrap();
    pair.peer.recv_message(Class::EVENTS).await.unwrap();
    let mut far = pair.peer.accept_bi(Class::BULK).await.unwrap();
    assert_eq!(far.send().stopped().await, Ok(Some(7)));
    near.send().reset(1).unwrap();
    let waited = near.send().acknowledged().await;
    assert_eq!(waited, Err(StreamError::ResetLocally), "nothing is to come");
}
