//! Named limits, credit and tables (REQUIREMENTS W5, W6; DESIGN §6 "Everything a peer can make us hold").

use std::time::Duration;

use super::super::*;
use super::basics::{pattern, read_all};
use super::faults::over;
use super::handshakes::exchange;
use super::{Options, World};
use crate::handshake::StreamLimits;
use crate::wire::{Class, Kind};

const MS: Duration = Duration::from_millis(1);

/// Opens a stream, writes, and ends it; the other end reads and lets go.
fn one_stream(world: &mut World, kind: Kind) {
    let key = world.client.open(kind, Class::REQUESTS).expect("credit");
    world.client.write(key, b"x").expect("open");
    world.client.finish(key).expect("open");
    if kind == Kind::Uni {
        world.client.release(key);
    }
    world.run_for(Duration::from_micros(1100));
    let now = world.now;
    let server = world.server();
    let there = server.accept(kind, Class::REQUESTS).expect("opened");
    assert_eq!(read_all(server, now, there), (b"x".to_vec(), true));
    if kind == Kind::Bi {
        server.write(there, b"y").expect("open");
        server.finish(there).expect("open");
    }
    server.release(there);
    if kind == Kind::Bi {
        world.run_for(Duration::from_micros(1100));
        let now = world.now;
        assert_eq!(read_all(&mut world.client, now, key), (b"y".to_vec(), true));
        world.client.release(key);
    }
    world.client_events.clear();
    world.server_events.clear();
}

/// 100,000 streams of each kind one after another: credit comes back, and nothing is kept of them.
#[test]
fn a_hundred_thousand_streams_leave_nothing() {
    for kind in [Kind::Uni, Kind::Bi] {
        let mut world = World::connected(Options::default());
        for _ in 0..100_000 {
            one_stream(&mut world, kind);
        }
        world.settle();
        assert_eq!(
            (world.client.stream_count(), world.server().stream_count()),
            (0, 0)
        );
        assert_eq!(world.client.stats().buffered, 0);
        for session in [&world.client, world.server.as_ref().expect("there")] {
            assert!(
                session.streams.capacity() <= 1024,
                "{}",
                session.streams.capacity()
            );
            assert!(session.control.capacity() <= 4096);
            assert!(session.events.capacity() <= 4096);
            let logs = session.paths.iter().flat_map(|(_, path)| &path.lanes);
            let items: usize = logs.map(|lane| lane.sent.items.capacity()).sum();
            assert!(items <= 4096, "{items}");
        }
    }
}

/// Streams up to the peer's limit, and the word when there are more.
#[test]
fn streams_wait_for_credit() {
    for kind in [Kind::Bi, Kind::Uni] {
        let mut options = Options::default();
        for limits in &mut options.server.params.max_streams {
            (limits.bi, limits.uni) = (10, 10);
        }
        let mut world = World::connected(options);
        let keys: Vec<StreamKey> = (0..10)
            .map(|_| world.client.open(kind, Class::BULK).expect("credit"))
            .collect();
        assert_eq!(world.client.open(kind, Class::BULK), Err(OpenError::Exhausted));
        let other = world
            .client
            .open(kind, Class::EVENTS)
            .expect("another class's credit");
        world.client.release(other);
        for &key in &keys {
            world.client.write(key, b"1").expect("open");
        }
        world.settle();
        world.server_events.clear();
        world.client_events.clear();
        while let Some(there) = world.server().accept(kind, Class::BULK) {
            world.server().release(there);
        }
        for &key in &keys {
            world.client.release(key);
        }
        world.settle();
        assert!(world.client_saw(|event| *event
            == Event::Credit {
                kind,
                class: Class::BULK
            }));
        world.client.open(kind, Class::BULK).expect("more credit");
    }
}

/// Keys of what is gone are errors, and its slot's next owner is not touched by them.
#[test]
fn stale_keys_are_errors() {
    let mut world = over(2, MS);
    let key = world.client.open(Kind::Bi, Class::EVENTS).expect("credit");
    world.client.release(key);
    world.settle();
    while let Some(there) = world.server().accept(Kind::Bi, Class::EVENTS) {
        world.server().release(there);
    }
    world.settle();
    assert_eq!(world.client.stream_count(), 0);
    let next = world.client.open(Kind::Bi, Class::EVENTS).expect("credit");
    assert_eq!(next.index(), key.index());
    let now = world.now;
    let client = &mut world.client;
    assert_eq!(client.write(key, b"x"), Err(StreamError::Unknown));
    assert_eq!(
        client.write_bytes(key, &mut "x".into()),
        Err(StreamError::Unknown)
    );
    assert_eq!(client.read(now, key, 1), Err(StreamError::Unknown));
    assert_eq!(client.read_into(now, key, &mut [0]), Err(StreamError::Unknown));
    assert_eq!(client.finish(key), Err(StreamError::Unknown));
    assert_eq!(client.reset(key, 1), Err(StreamError::Unknown));
    assert_eq!(client.stop_sending(key, 1), Err(StreamError::Unknown));
    assert_eq!(client.set_urgency(key, 1), Err(StreamError::Unknown));
    assert_eq!(client.send_progress(key), None);
    assert_eq!(client.stream_id(key), None);
    client.release(key);
    assert_eq!(client.write(next, b"x"), Ok(1), "untouched");
    // Paths.
    let path = world.links[1].client.expect("live");
    world.cut(1);
    let again = world.connect();
    let now = world.now;
    assert_eq!(world.links[again].client.map(PathKey::index), Some(path.index()));
    let mut buffer = bytes::BytesMut::from(&b"junk"[..]);
    assert_eq!(
        world.client.handle_input(now, path, &mut buffer, 4),
        Err(PathError::Unknown)
    );
    world.client.handle_path_closed(now, path, PathEnd::Reset);
    let mut out = crate::wire::OutBuffer::new();
    assert_eq!(
        world.client.poll_transmit(now, path, &mut out),
        Transmit::CloseAfterFlush
    );
    assert!(out.is_empty());
    assert!(world.client.path_stats(path).is_none());
    world.settle();
    assert_eq!(world.client.stats().paths, 2);
}

/// What one half can no longer do is an error of its own.
#[test]
fn misuse_of_a_stream_is_an_error() {
    let mut world = World::connected(Options::default());
    let uni = world.client.open(Kind::Uni, Class::EVENTS).expect("credit");
    let now = world.now;
    assert_eq!(world.client.read(now, uni, 1), Err(StreamError::Unknown));
    assert_eq!(world.client.stop_sending(uni, 1), Err(StreamError::Unknown));
    world.client.write(uni, b"x").expect("open");
    world.client.finish(uni).expect("open");
    assert_eq!(world.client.finish(uni), Err(StreamError::Finished));
    assert_eq!(world.client.write(uni, b"x"), Err(StreamError::Finished));
    let reset = world.client.open(Kind::Uni, Class::EVENTS).expect("credit");
    world.client.reset(reset, 5).expect("open");
    assert_eq!(world.client.reset(reset, 5), Err(StreamError::ResetLocally));
    assert_eq!(world.client.write(reset, b"x"), Err(StreamError::ResetLocally));
    world.settle();
    let now = world.now;
    let server = world.server();
    let there = server.accept(Kind::Uni, Class::EVENTS).expect("opened");
    assert_eq!(read_all(server, now, there), (b"x".to_vec(), true));
    let there = server.accept(Kind::Uni, Class::EVENTS).expect("opened");
    assert_eq!(server.read(now, there, 1), Err(StreamError::Reset(5)));
    for kind in [Kind::Ordered, Kind::Unordered] {
        assert_eq!(
            world.client.open(kind, Class::EVENTS),
            Err(OpenError::NotAByteStream)
        );
        assert_eq!(world.server().accept(kind, Class::EVENTS), None);
    }
}

/// A class at its limit holds up no other, and its own streams go on when credit comes (REQUIREMENTS W5).
#[test]
fn a_class_at_its_limit_holds_up_no_other() {
    let mut world = World::connected(Options::default());
    let data = pattern(200_000, 3);
    let stuck: Vec<StreamKey> = (0..8)
        .map(|_| world.client.open(Kind::Uni, Class::BULK).expect("credit"))
        .collect();
    for &key in &stuck {
        assert_eq!(world.client.write(key, &data), Ok(data.len()));
        world.client.finish(key).expect("open");
    }
    world.settle();
    let now = world.now;
    let sent = world
        .client
        .send_message(now, Class::EVENTS, Delivery::Ordered, "through".into(), false);
    sent.expect("room");
    exchange(&mut world);
    let now = world.now;
    let message = world.server().recv_message(now, Class::EVENTS).expect("sound");
    assert_eq!(message.expect("it came").payload, "through");
    // Now the readers read, in whatever order, and all comes.
    let mut got = vec![Vec::new(); 8];
    let mut there = Vec::new();
    for _ in 0..200 {
        let now = world.now;
        let server = world.server();
        while let Some(key) = server.accept(Kind::Uni, Class::BULK) {
            there.push(key);
        }
        for (place, &key) in there.iter().enumerate().rev() {
            got[place].extend(read_all(server, now, key).0);
        }
        world.run_for(MS * 2);
    }
    assert!(got.iter().all(|bytes| *bytes == data));
}

/// Streams that are given up unread give their class's credit back, whole ones too.
#[test]
fn unread_streams_give_their_credit_back() {
    let mut world = World::connected(Options::default());
    let data = vec![1; 250_000];
    for round in 0..10 {
        for _ in 0..4 {
            let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
            assert_eq!(world.client.write(key, &data), Ok(data.len()), "round {round}");
            world.client.finish(key).expect("open");
            world.client.release(key);
        }
        world.settle();
        let mut count = 0;
        while let Some(there) = world.server().accept(Kind::Uni, Class::BULK) {
            world.server().release(there);
            count += 1;
        }
        assert_eq!(count, 4, "round {round}");
        world.settle();
        assert_eq!(world.client.stats().buffered, 0, "round {round}");
        assert_eq!(world.client.stream_count(), 0);
    }
}

/// Writers that wait for the session's buffer are told when half of it is free; a class that holds little
/// has its share even of a full one.
#[test]
fn a_full_buffer_leaves_every_class_its_share() {
    let mut options = Options::default();
    options.client.max_send_buffer = 160_000;
    let mut world = World::connected(options);
    world.cut(0);
    let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    assert_eq!(world.client.write(key, &[0; 200_000]), Ok(160_000));
    assert_eq!(world.client.write(key, &[0; 1]), Ok(0));
    let other = world.client.open(Kind::Uni, Class::EVENTS).expect("credit");
    assert_eq!(
        world.client.write(other, &[0; 200_000]),
        Ok(10_000),
        "a sixteenth"
    );
    assert_eq!(world.client.write(other, &[0; 1]), Ok(0));
    world.client_events.clear();
    world.connect();
    world.settle();
    for key in [key, other] {
        let told = world
            .client_events
            .iter()
            .filter(|event| **event == Event::Writable(key))
            .count();
        assert_eq!(told, 1);
        assert!(world.client.write(key, &[0; 10]).expect("open") > 0);
    }
}

/// A reset or stopped stream's bytes leave the buffer at once.
#[test]
fn what_is_given_up_leaves_the_buffer() {
    let mut world = World::connected(Options::default());
    world.cut(0);
    let keys: Vec<StreamKey> = (0..10)
        .map(|_| world.client.open(Kind::Bi, Class::BULK).expect("credit"))
        .collect();
    for &key in &keys {
        world.client.write(key, &[0; 10_000]).expect("open");
    }
    assert_eq!(world.client.stats().buffered, 100_000);
    for &key in &keys {
        world.client.release(key);
    }
    assert_eq!(world.client.stats().buffered, 0);
    world.connect();
    world.settle();
    while let Some(there) = world.server().accept(Kind::Bi, Class::BULK) {
        world.server().release(there);
    }
    world.settle();
    assert_eq!(
        (world.client.stream_count(), world.server().stream_count()),
        (0, 0)
    );
}

/// After the end nothing is left but what the application holds, and every call says so.
#[test]
fn an_ended_session_holds_nothing() {
    let mut world = over(2, MS);
    let key = world.client.open(Kind::Bi, Class::EVENTS).expect("credit");
    world.client.write(key, &[0; 1000]).expect("open");
    let now = world.now;
    assert_eq!(world.client.read(now, key, 1), Ok(Read::Blocked));
    world.client.close(now, ErrorCode::NONE, "bye");
    assert!(world.client_saw(|_| true) || world.client.poll_event().is_some());
    world.settle();
    assert_eq!(world.server().state(), State::Closed);
    let now = world.now;
    let client = &mut world.client;
    assert_eq!(client.write(key, b"x"), Err(StreamError::SessionEnded));
    assert_eq!(client.read(now, key, 1), Err(StreamError::SessionEnded));
    assert_eq!(client.open(Kind::Bi, Class::EVENTS), Err(OpenError::Ended));
    assert_eq!(client.send_datagram(now, "x".into()), Err(SendError::Ended));
    let sent = client.send_message(now, Class::EVENTS, Delivery::Ordered, "x".into(), true);
    assert_eq!(sent, Err(SendError::Ended));
    client.close(now, ErrorCode::INTERNAL, "again");
    client.drain(now, "elsewhere");
    client.release(key);
    assert_eq!(client.stream_count(), 0);
    assert_eq!(client.poll_timeout(), None);
    assert_eq!(client.stats().buffered, 0);
    assert_eq!(client.state(), State::Closed);
}

/// A stream stands once in the list of those that wait for class credit, however often its paths die, and
/// none stays there that is gone.
#[test]
fn waiting_for_class_credit_takes_one_place_each() {
    let mut options = Options::default();
    options.server.params.max_data[Class::BULK.index()] = 20_000;
    let mut world = World::connected(options);
    let blocked = |world: &World| {
        let class = world.client.classes.used(Class::BULK.index());
        class.expect("used").blocked.len()
    };
    let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    assert_eq!(world.client.write(key, &[0; 50_000]), Ok(50_000));
    let mut link = 0;
    for round in 0..20 {
        // The path dies with the first bytes under way: they are sent again on the next.
        while world.links[link].client.is_none_or(|path| {
            let stats = world.client.path_stats(path).expect("live");
            stats.in_flight < 20_000
        }) {
            world.run_for(Duration::from_micros(50));
        }
        assert!(blocked(&world) <= 1, "round {round}: {}", blocked(&world));
        world.cut(link);
        link = world.connect();
    }
    world.settle();
    for _ in 0..1000 {
        let other = world.client.open(Kind::Uni, Class::BULK).expect("credit");
        assert_eq!(world.client.write(other, &[0; 10]), Ok(10));
        world.run_for(MS);
        world.client.release(other);
        world.run_for(MS * 3);
        while let Some(there) = world.server().accept(Kind::Uni, Class::BULK) {
            if world.server().stream_count() > 1 {
                world.server().release(there);
            }
        }
    }
    assert!(blocked(&world) <= 64, "{}", blocked(&world));
}

/// Whoever finishes a stream that the peer wants no more of is told so, with the peer's code.
#[test]
fn finishing_a_stopped_stream_tells_the_code() {
    let mut world = World::connected(Options::default());
    let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    world.client.write(key, b"unwanted").expect("open");
    world.settle();
    let there = world.server().accept(Kind::Uni, Class::BULK).expect("opened");
    world.server().stop_sending(there, 77).expect("open");
    world.settle();
    assert_eq!(world.client.finish(key), Err(StreamError::Stopped(77)));
    assert_eq!(world.client.write(key, b"x"), Err(StreamError::Stopped(77)));
}

/// PROTOCOL 8.1: a drained session waits for what goes on, however slowly, and not for what nobody reads.
#[test]
fn an_unread_stream_does_not_keep_a_drained_session() {
    let mut options = Options::default();
    options.server.max_drain_idle = Duration::from_secs(60);
    let mut world = World::connected(options);
    let unread = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    world.client.write(unread, b"nobody reads this").expect("open");
    world.client.finish(unread).expect("open");
    let slow = world.client.open(Kind::Uni, Class::EVENTS).expect("credit");
    world.client.write(slow, b"a").expect("open");
    world.settle();
    let now = world.now;
    world.server().drain(now, "");
    for _ in 0..10 {
        world.run_for(Duration::from_secs(30));
        world.client.write(slow, b"b").expect("open");
        assert_eq!(world.server().state(), State::Connected);
    }
    world.client.finish(slow).expect("open");
    world.run_for(Duration::from_secs(130));
    assert_eq!(world.server().state(), State::Closed);
    assert_eq!(world.client.state(), State::Closed);
}

/// A session whose server needs its memory ends as one that was away for too long, unless it has a path.
#[test]
fn a_session_without_paths_can_be_expired() {
    let mut world = World::connected(Options::default());
    let now = world.now;
    world.server().expire(now);
    assert_eq!(world.server().state(), State::Connected);
    let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    world.client.write(key, &[1; 3000]).expect("open");
    world.settle();
    let answer = world.server().open(Kind::Uni, Class::BULK).expect("credit");
    world.cut(0);
    world.server().write(answer, &[2; 500]).expect("open");
    assert_eq!(world.server().held_bytes(), 3500, "unread, and unsent");
    let now = world.now;
    world.server().expire(now);
    assert_eq!(world.server().state(), State::Failed);
    world.settle();
    let why = |event: &Event| {
        let cause = Cause::ResumeTimeout;
        matches!(event, Event::State { cause: told, .. } if *told == cause)
    };
    assert!(world.server_saw(why));
}

fn event(world: &mut World, class: Class, len: usize) -> Result<MessageId, SendError> {
    let now = world.now;
    let payload = vec![class.number(); len].into();
    world
        .client
        .send_message(now, class, Delivery::Ordered, payload, false)
}

/// REQUIREMENTS W7: a class whose messages nobody reads fills the queue, and holds up no other's.
#[test]
fn a_class_whose_messages_wait_holds_up_no_other() {
    let [slow, quick, other, _] = Class::USER;
    let mut options = Options::default();
    options.client.max_message_queue = 100_000;
    options
        .server
        .class(slow, ClassSettings::new("slow").window(10_000))
        .expect("sound");
    let mut world = World::connected(options);
    while event(&mut world, slow, 1000).is_ok() {
        world.run_for(MS);
    }
    assert!(world.client.stats().buffered > 90_000, "the queue is full");
    for round in 0..100 {
        event(&mut world, quick, 1000).expect("a share of its own");
        world.run_for(MS * 40);
        let now = world.now;
        let message = world.server().recv_message(now, quick).expect("sound");
        assert_eq!(message.expect("it came").payload.len(), 1000, "round {round}");
    }
    // One that is longer than the share goes where its class has none waiting.
    event(&mut world, other, 50_000).expect("alone");
    assert_eq!(event(&mut world, other, 50_000), Err(SendError::Full));
    world.client_events.clear();
    world.run_for(MS * 100);
    assert!(world.client_saw(|event| *event == Event::MessageSpace));
    event(&mut world, other, 50_000).expect("there is room again");
}

/// A class with a limit of its own keeps to it while there is room for others.
#[test]
fn a_class_keeps_to_its_own_queue() {
    let [own, other, ..] = Class::USER;
    let mut options = Options::default();
    options
        .client
        .class(own, ClassSettings::new("own").queue(5000))
        .expect("sound");
    let mut world = World::connected(options);
    let count = (0..100)
        .take_while(|_| event(&mut world, own, 1000).is_ok())
        .count();
    assert_eq!(count, 4, "1,002 bytes each");
    event(&mut world, other, 100_000).expect("it is another's limit");
    world.client_events.clear();
    world.run_for(MS * 100);
    assert!(world.client_saw(|event| *event == Event::MessageSpace));
    event(&mut world, own, 1000).expect("there is room again");
}

/// REQUIREMENTS W7: a class with few streams and a small window holds up none but its own.
#[test]
fn a_class_with_small_limits_holds_up_no_other() {
    let [small, other, ..] = Class::USER;
    let mut options = Options::default();
    let limits = StreamLimits {
        bi: 1,
        uni: 2,
        unordered: 0,
    };
    let settings = ClassSettings::new("small").streams(limits).window(3000);
    options.server.class(small, settings).expect("sound");
    let mut world = World::connected(options);
    let data = pattern(10_000, 1);
    let mut stuck = Vec::new();
    while let Ok(key) = world.client.open(Kind::Uni, small) {
        let written = world.client.write(key, &data).expect("open");
        assert_eq!(written, 3000, "the stream's credit");
        stuck.push((key, written));
    }
    assert_eq!(stuck.len(), 2);
    let now = world.now;
    let refused = world
        .client
        .send_message(now, small, Delivery::Unordered, "no".into(), false);
    assert_eq!(refused, Err(SendError::Full));
    world.settle();
    for _ in 0..20 {
        let key = world.client.open(Kind::Uni, other).expect("credit of its own");
        assert_eq!(world.client.write(key, &data), Ok(data.len()));
        world.client.finish(key).expect("open");
        world.settle();
        let now = world.now;
        let there = world.server().accept(Kind::Uni, other).expect("it came");
        assert_eq!(read_all(world.server(), now, there), (data.clone(), true));
        world.server().release(there);
        world.client.release(key);
        world.settle();
    }
    // The window does not grow while the small one is read, and all of it comes.
    let mut got = Vec::new();
    for _ in 0..200 {
        let now = world.now;
        while let Some(key) = world.server().accept(Kind::Uni, small) {
            got.push((key, Vec::new()));
        }
        for (key, written) in &mut stuck {
            if *written < data.len() {
                *written += world.client.write(*key, &data[*written..]).expect("open");
                if *written == data.len() {
                    world.client.finish(*key).expect("open");
                }
            }
        }
        for (key, bytes) in &mut got {
            let piece = read_all(world.server(), now, *key).0;
            assert!(piece.len() <= 3000, "{} bytes waited", piece.len());
            bytes.extend(piece);
        }
        world.run_for(MS * 2);
    }
    assert!(got.len() == 2 && got.iter().all(|(_, bytes)| *bytes == data));
}

/// Round trips that a stream of that many bytes takes whose reader is quick.
fn trips(world: &mut World, len: usize) -> usize {
    let key = world.client.open(Kind::Uni, Class::REQUESTS).expect("credit");
    let data = pattern(len, 0);
    let (mut written, mut read, mut there) = (0, 0, None);
    for trip in 1..100 {
        if written < len {
            written += world.client.write(key, &data[written..]).expect("open");
            if written == len {
                world.client.finish(key).expect("open");
            }
        }
        world.run_for(Duration::from_micros(1100));
        let now = world.now;
        let server = world.server();
        there = there.or_else(|| server.accept(Kind::Uni, Class::REQUESTS));
        let (bytes, end) = read_all(server, now, there.expect("opened"));
        assert_eq!(bytes, data[read..read + bytes.len()]);
        read += bytes.len();
        if end {
            server.release(there.expect("opened"));
            world.client.release(key);
            world.client_events.clear();
            world.server_events.clear();
            return trip;
        }
    }
    panic!("no end of it");
}

/// What one stream of a class has shown to need, the next has from its first bytes on.
#[test]
fn a_stream_has_the_window_that_others_needed() {
    let mut world = World::connected(Options::default());
    let trips: Vec<usize> = (0..4).map(|_| trips(&mut world, 3 << 20)).collect();
    assert!(trips[1] < trips[0] && trips[3] <= 3, "{trips:?}");
}
