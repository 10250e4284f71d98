//! Floods, and what they can make an end keep (NUMBERS "Attacks": rapid reset, ping and window floods, slow
//! readers, fragment bombs; issue "Bad input").

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::*;
use super::attacks::{MS, attacker, id, path_error, stream};
use super::handshakes::exchange;
use super::{Options, World, record};
use crate::wire::{Class, Frame, Kind, PathStatus, StreamId};

/// Bad input: two peers that only acknowledge each other fall silent.
#[test]
fn acknowledgements_are_not_acknowledged() {
    let mut world = World::connected(Options::default());
    exchange(&mut world);
    world.run_for(Duration::from_millis(500));
    let before = world.links[0].carried();
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.links[0].carried(), before);
    // A peer that acknowledges again and again hears nothing either.
    world.take_client_end(0);
    for _ in 0..1000 {
        let count = world.links[0]
            .server
            .and_then(|key| world.server().path_stats(key));
        let count = count.expect("live").records_sent;
        let bytes = record(&[Frame::AckHere { count, delay_us: 0 }], true);
        world.inject_up(0, &bytes);
        world.run_for(Duration::from_micros(100));
    }
    world.run_for(Duration::from_secs(1));
    assert!(world.links[0].carried() - before < 100, "at most a heartbeat");
}

/// NUMBERS "Ping, settings, window, empty-frame floods": more than an honest peer ever sends ends the path, and
/// what is kept meanwhile is bounded.
#[test]
fn control_floods_end_their_path() {
    let bi = id(Side::Client, Kind::Bi, 0);
    let flood: [fn(u64, StreamId) -> Frame<'static>; 7] = [
        |n, _| Frame::Ping { seq: n },
        |n, _| Frame::MaxData {
            class: Class::EVENTS,
            value: n,
        },
        |n, id| Frame::MaxStreamData { id, value: n },
        |n, _| Frame::PathStatus {
            path: 1,
            seq: n,
            status: PathStatus::Active,
            in_flight: n,
        },
        |_, id| Frame::Stream {
            id,
            offset: Some(0),
            fin: false,
            data: b"",
        },
        |_, id| Frame::StopSending { id, code: 0 },
        |_, id| Frame::ResetStream {
            id,
            code: 0,
            final_size: 0,
        },
    ];
    for frame in flood {
        let mut world = World::connected(Options::default());
        world.take_client_end(0);
        let mut sent = 0_u64;
        while world.server().stats().paths == 1 {
            let frames: Vec<Frame<'_>> = (sent..sent + 500).map(|n| frame(n, bi)).collect();
            let bytes = record(&frames, true);
            world.inject_up(0, &bytes);
            world.run_for(Duration::from_micros(100));
            sent += 500;
            assert!(sent < 100_000, "{:?} goes on and on", frame(0, bi));
        }
        assert!(sent >= 20_000, "an honest burst is borne, not {sent}");
        assert_eq!(
            path_error(&world).map(|error| error.code()),
            Some(ErrorCode::LIMIT)
        );
        assert_eq!(
            world.server().state(),
            State::Reconnecting,
            "the session is unharmed"
        );
        assert!(world.server().stream_count() <= 1);
    }
}

/// Bad input: a peer that asks and asks and acknowledges nothing: what is kept for it is bounded.
#[test]
fn answers_that_are_never_acknowledged_are_bounded() {
    let (mut world, link) = attacker();
    world.run_for(MS);
    let mut rounds = 0_u64;
    while world.server().stats().paths == 2 {
        let bytes = record(&[Frame::Ping { seq: rounds }], true);
        world.inject_up(link, &bytes);
        // Before this end's own PING, which is not answered, ends the path.
        world.run_for(MS / 5);
        rounds += 1;
        let kept: usize = world
            .server()
            .paths
            .iter()
            .flat_map(|(_, path)| &path.lanes)
            .map(|lane| lane.sent.records.len())
            .sum();
        assert!(kept <= 17_000);
        assert!(rounds < 50_000);
    }
    assert_eq!(
        path_error(&world).map(|error| error.code()),
        Some(ErrorCode::LIMIT)
    );
    exchange(&mut world);
}

/// NUMBERS "Rapid reset": streams opened and reset at once, honestly slow and as fast as can be; nothing stays.
#[test]
fn rapid_resets_leave_nothing() {
    let mut world = World::connected(Options::default());
    let link = 0;
    world.take_client_end(link);
    let (mut opened, mut taken) = (0_u64, 0_u64);
    let rounds = 16_000;
    for _ in 0..rounds {
        // As many as the credit allows, two a millisecond.
        let limit = world.server().classes.at(Class::EVENTS.index()).opening[0].granted;
        let mut frames = Vec::new();
        while frames.len() < 200 && opened < limit {
            let id = id(Side::Client, Kind::Bi, opened);
            frames.push(stream(id, 0, b"x"));
            frames.push(Frame::ResetStream {
                id,
                code: 1,
                final_size: 1,
            });
            frames.push(Frame::StopSending { id, code: 1 });
            opened += 1;
        }
        if frames.is_empty() {
            frames.push(Frame::Ping { seq: opened });
        }
        let bytes = record(&frames, true);
        world.inject_up(link, &bytes);
        world.run_for(MS * 100);
        let key = world.links[link].server.expect("an honest pace");
        let sent = world.server().path_stats(key).expect("live");
        let bytes = record(
            &[Frame::AckHere {
                count: sent.records_sent,
                delay_us: 0,
            }],
            true,
        );
        world.inject_up(link, &bytes);
        world.run_for(MS);
        let server = world.server();
        while let Some(key) = server.accept(Kind::Bi, Class::EVENTS) {
            server.release(key);
            taken += 1;
        }
        world.server_events.clear();
        assert!(world.server().stream_count() <= 1024);
        if opened >= 1_000_000 {
            break;
        }
    }
    assert!(opened >= 1_000_000, "{opened}");
    world.settle();
    let server = world.server();
    while let Some(key) = server.accept(Kind::Bi, Class::EVENTS) {
        server.release(key);
        taken += 1;
    }
    assert_eq!(taken, opened);
    assert!(
        server.streams.capacity() <= 4096,
        "the table is no larger than its credit"
    );
    assert!(server.control.capacity() <= 16_384);
}

// ---- memory ----

/// Bad input: a peer that never reads: the writer is held at the window, and no memory beyond it is used.
#[test]
fn a_peer_that_never_reads_holds_its_writer() {
    let mut world = World::connected(Options::default());
    let keys: Vec<StreamKey> = (0..1024)
        .map(|_| world.client.open(Kind::Uni, Class::BULK).expect("credit"))
        .collect();
    let data = vec![1; 64 << 10];
    let mut written = 0;
    for _ in 0..50 {
        for &key in &keys {
            written += world.client.write(key, &data).expect("open") as u64;
        }
        world.run_for(MS * 10);
    }
    let stats = world.client.stats();
    assert!(
        stats.buffered <= world.client.config.max_send_buffer,
        "{}",
        stats.buffered
    );
    assert_eq!(
        written - stats.buffered,
        1 << 20,
        "the class's window and no more has gone"
    );
    let held: usize = world
        .server()
        .streams
        .keys()
        .into_iter()
        .filter_map(|key| world.server.as_ref()?.streams.get(key)?.recv.as_ref())
        .map(crate::stream::RecvHalf::memory_bytes)
        .sum();
    assert!(held <= (6 << 20) + 1024 * 4096, "{held} bytes held for 1 MiB");
    // Other classes have room all the same, in the sender's buffer too.
    exchange(&mut world);
}

/// Bad input: one byte kept from each of 16,384 read buffers: none of the buffers is kept for it.
#[test]
fn a_byte_of_many_buffers_pins_none() {
    let mut options = Options::default();
    for limits in &mut options.server.params.max_streams {
        limits.uni = 20_000;
    }
    let mut world = World::connected(options);
    world.take_client_end(0);
    let (now, key) = (world.now, world.links[0].server.expect("live"));
    let mut kept: Vec<Bytes> = Vec::new();
    for index in 0..16_384 {
        let mut buffer = BytesMut::with_capacity(64 << 10);
        let data = [1; 2];
        let frame = stream(id(Side::Client, Kind::Uni, index), 0, &data);
        buffer.extend_from_slice(&record(&[frame], true));
        let capacity = buffer.capacity();
        let server = world.server();
        server
            .handle_input(now, key, &mut buffer, capacity)
            .expect("sound");
        let there = server.accept(Kind::Uni, Class::EVENTS).expect("opened");
        // One byte is read and kept, the other never read.
        match server.read(now, there, 1) {
            Ok(Read::Data(byte)) => kept.push(byte),
            other => panic!("{other:?}"),
        }
        assert!(
            buffer.try_reclaim(capacity),
            "nothing refers to the buffer, at {index}"
        );
    }
    let held: usize = world
        .server()
        .streams
        .keys()
        .into_iter()
        .filter_map(|key| world.server.as_ref()?.streams.get(key)?.recv.as_ref())
        .map(crate::stream::RecvHalf::memory_bytes)
        .sum();
    assert!(held <= 16_384 * 512, "{held} bytes for 16 KiB");
}

/// NUMBERS "fragment bombs": a window's worth of single bytes with holes between them.
#[test]
fn fragments_with_holes_stay_in_their_bound() {
    let (mut world, link) = attacker();
    let uni = id(Side::Client, Kind::Uni, 0);
    let data = [9];
    for part in 0..128_u64 {
        let frames: Vec<Frame<'_>> = (0..1000)
            .map(|n| stream(uni, 1 + (part * 1000 + n) * 2, &data))
            .collect();
        let bytes = record(&frames, true);
        world.inject_up(link, &bytes);
        world.run_for(Duration::from_micros(10));
    }
    assert_eq!(world.server().state(), State::Connected);
    let server = world.server();
    let slot = server.streams.find(uni).expect("open");
    let recv = server
        .streams
        .slot(slot)
        .and_then(|stream| stream.recv.as_ref())
        .expect("receiving");
    let bound = 6 * (256 << 10) + (64 << 10);
    assert!(recv.memory_bytes() <= bound, "{} bytes", recv.memory_bytes());
}
