//! Messages in their three modes and datagrams (REQUIREMENTS W8; PROTOCOL 4.6, 7.4), and what they cost on
//! the wire.

use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::basics::read_all;
use super::faults::over;
use super::{Options, World, body, record, records};
use crate::handshake::Security;
use crate::stream::SendHalf;
use crate::wire::{Class, Frame, Kind, OutBuffer, RecordBuilder, StreamId};

const MS: Duration = Duration::from_millis(1);

fn send(
    world: &mut World,
    class: Class,
    delivery: Delivery,
    payload: Vec<u8>,
) -> Result<MessageId, SendError> {
    let now = world.now;
    world
        .client
        .send_message(now, class, delivery, payload.into(), true)
}

fn receive(world: &mut World, class: Class) -> Option<Message> {
    let now = world.now;
    world.server().recv_message(now, class).expect("sound")
}

fn outcome(world: &World, id: MessageId) -> Option<Outcome> {
    world.client_events.iter().find_map(|event| match event {
        Event::Outcome { id: of, outcome } if *of == id => Some(*outcome),
        _ => None,
    })
}

const RELIABLE: [Delivery; 2] = [Delivery::Ordered, Delivery::Unordered];
const UNRELIABLE: Delivery = Delivery::Unreliable {
    ttl: Duration::from_secs(1),
};

/// Empty messages are messages, in every mode.
#[test]
fn empty_messages_arrive() {
    let mut world = World::connected(Options::default());
    let kinds = [
        (Delivery::Ordered, DeliveryKind::Ordered),
        (Delivery::Unordered, DeliveryKind::Unordered),
        (UNRELIABLE, DeliveryKind::Unreliable),
    ];
    for (delivery, kind) in kinds {
        let id = send(&mut world, Class::EVENTS, delivery, Vec::new()).expect("room");
        world.settle();
        let message = receive(&mut world, Class::EVENTS).expect("it came");
        assert_eq!((message.delivery, message.payload.len()), (kind, 0));
        assert_eq!(receive(&mut world, Class::EVENTS), None);
        assert_eq!(outcome(&world, id), Some(Outcome::Acknowledged));
    }
}

/// The modes side by side: each keeps its own promise, and none waits for another.
#[test]
fn the_modes_do_not_disturb_each_other() {
    let mut world = over(1, MS);
    for n in 0..300_u32 {
        for delivery in [Delivery::Ordered, Delivery::Unordered, UNRELIABLE] {
            send(&mut world, Class::EVENTS, delivery, n.to_be_bytes().to_vec()).expect("room");
        }
    }
    world.settle();
    let (mut ordered, mut unordered, mut unreliable) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(message) = receive(&mut world, Class::EVENTS) {
        let n = u32::from_be_bytes(message.payload[..].try_into().expect("four bytes"));
        match message.delivery {
            DeliveryKind::Ordered => ordered.push(n),
            DeliveryKind::Unordered => unordered.push(n),
            DeliveryKind::Unreliable => unreliable.push(n),
        }
    }
    let all: Vec<u32> = (0..300).collect();
    assert_eq!(ordered, all);
    unordered.sort_unstable();
    assert_eq!(unordered, all);
    assert_eq!(unreliable, all, "nothing was lost, so nothing is missing");
}

/// A message larger than the windows of its stream and of its class.
#[test]
fn messages_larger_than_the_windows_arrive() {
    for delivery in RELIABLE {
        // With little credit for each stream, others begin while the first waits.
        let windows = [
            (1 << 20, 256 << 10),
            (64 << 10, 16 << 10),
            (64 << 10, 1400),
            (4096, 4096),
        ];
        for (class_window, stream_window) in windows {
            let mut options = Options::default();
            options.server.params.max_data = [class_window; 8];
            options.server.params.max_stream_data = [stream_window; 8];
            let mut world = World::connected(options);
            let sizes = [300 << 10, 1 << 20, 100, 0, 900_000];
            assert_eq!(receive(&mut world, Class::EVENTS), None);
            for size in sizes {
                send(&mut world, Class::EVENTS, delivery, vec![5; size]).expect("room");
            }
            let mut got = Vec::new();
            for _ in 0..2000 {
                world.run_for(MS * 2);
                // Only when told.
                let ready = Event::MessageReady(Class::EVENTS);
                if std::mem::take(&mut world.server_events).contains(&ready) {
                    while let Some(message) = receive(&mut world, Class::EVENTS) {
                        got.push(message.payload.len());
                    }
                }
            }
            let mut expected = sizes.to_vec();
            if delivery == Delivery::Unordered {
                got.sort_unstable();
                expected.sort_unstable();
            }
            assert_eq!(got, expected, "{delivery:?} {class_window}");
        }
    }
}

/// PROTOCOL 7.4: unordered messages of more than half of the class's window, one after the other, while
/// nobody reads but whole messages: the parts never use up the credit that the rest needs.
#[test]
fn partial_messages_do_not_deadlock() {
    let mut world = World::connected(Options::default());
    let mut sent = 0;
    let mut got = 0;
    for _ in 0..3000 {
        while sent < 60 && send(&mut world, Class::EVENTS, Delivery::Unordered, vec![1; 700_000]).is_ok() {
            sent += 1;
        }
        world.run_for(MS);
        while let Some(message) = receive(&mut world, Class::EVENTS) {
            assert_eq!(message.payload.len(), 700_000);
            got += 1;
        }
    }
    assert_eq!((sent, got), (60, 60));
    assert_eq!(world.server().classes.at(Class::EVENTS.index()).partial, 0);
}

/// PROTOCOL 7.4: a peer that begins thousands of messages and ends none is held at twice the class's window
/// and one message.
#[test]
fn messages_that_never_end_are_bounded() {
    let mut options = Options::default();
    options.server.params.max_message = 100_000;
    let mut world = World::connected(options);
    world.take_client_end(0);
    let data = [3; 1000];
    let mut sent = 0;
    for round in 0..4000 {
        let id = StreamId::new(Side::Client, Kind::Unordered, Class::EVENTS, round).expect("small");
        let frame = Frame::Stream {
            id,
            offset: None,
            fin: false,
            data: &data,
        };
        if world.server().state() != State::Connected {
            break;
        }
        let bytes = record(&[frame], true);
        world.inject_up(0, &bytes);
        world.run_for(Duration::from_micros(10));
        sent += data.len();
        let state = world.server().classes.at(Class::EVENTS.index());
        // Two windows and one message.
        assert!(state.window.limit() <= (2 << 20) + 100_000);
    }
    assert!((2_000_000..2_300_000).contains(&sent), "{sent}");
    assert_eq!(world.server().state(), State::Failed, "beyond its credit");
}

/// REQUIREMENTS W8: messages up to the peer's limit and no longer; an unreliable one fits one record.
#[test]
fn lengths_are_checked_before_anything_is_sent() {
    let mut options = Options::default();
    options.server.params.max_message = 1000;
    options.server.params.max_datagram = 1200;
    let mut world = World::connected(options);
    for delivery in RELIABLE {
        let refused = send(&mut world, Class::EVENTS, delivery, vec![0; 1001]);
        assert_eq!(refused, Err(SendError::TooLarge { len: 1001, max: 1000 }));
        send(&mut world, Class::EVENTS, delivery, vec![0; 1000]).expect("fits");
    }
    let refused = send(&mut world, Class::EVENTS, UNRELIABLE, vec![0; 1201]);
    assert_eq!(refused, Err(SendError::TooLarge { len: 1201, max: 1200 }));
    world.settle();
    let now = world.now;
    let refused = world.client.send_datagram(now, vec![0; 1201].into());
    assert_eq!(refused, Err(SendError::TooLarge { len: 1201, max: 1200 }));
    assert!(receive(&mut world, Class::EVENTS).is_some() && receive(&mut world, Class::EVENTS).is_some());
}

/// A peer that ignores the limit on messages ends its session when the message is taken, not later.
#[test]
fn a_message_over_the_limit_ends_the_session() {
    let framed = {
        let mut bytes = Vec::new();
        crate::wire::varint::put(&mut bytes, 2_000_000);
        bytes.extend_from_slice(&[0; 100]);
        bytes
    };
    for data in [framed, vec![0x80, 0x01, 0]] {
        let mut world = World::connected(Options::default());
        world.take_client_end(0);
        let frame = Frame::Stream {
            id: StreamId::ordered(Side::Client, Class::EVENTS),
            offset: None,
            fin: false,
            data: &data,
        };
        let bytes = record(&[frame], true);
        world.inject_up(0, &bytes);
        world.settle();
        let now = world.now;
        assert!(world.server().recv_message(now, Class::EVENTS).is_err());
        assert_eq!(world.server().state(), State::Failed);
        world.settle();
        let close = records(&world.links[0].tapped_down)
            .pop()
            .expect("something was said");
        assert!(matches!(
            crate::wire::Frames::new(body(&close)).last(),
            Some(Ok(Frame::Close { .. }))
        ));
    }
}

// ---- unreliable ----

/// REQUIREMENTS W8: an unreliable message is not delivered after its time to live, and its sender is told
/// when that ends, in the order of the times and not of the sending.
#[test]
fn time_to_live_ends_on_time() {
    let mut world = World::connected(Options::default());
    world.cut(0);
    let start = world.now;
    let ids: Vec<MessageId> = [5000, 100, 1000]
        .into_iter()
        .map(|millis| {
            let ttl = Duration::from_millis(millis);
            send(&mut world, Class::EVENTS, Delivery::Unreliable { ttl }, vec![1]).expect("room")
        })
        .collect();
    world.run_until(start + MS * 99);
    assert_eq!(outcome(&world, ids[1]), None);
    world.run_until(start + MS * 101);
    assert_eq!(outcome(&world, ids[1]), Some(Outcome::NotSent));
    assert_eq!(outcome(&world, ids[2]), None);
    world.run_until(start + MS * 1001);
    assert_eq!(outcome(&world, ids[2]), Some(Outcome::NotSent));
    world.connect();
    world.settle();
    assert_eq!(outcome(&world, ids[0]), Some(Outcome::Acknowledged));
    assert!(receive(&mut world, Class::EVENTS).is_some());
    assert_eq!(
        receive(&mut world, Class::EVENTS),
        None,
        "the others' time was over"
    );
}

/// Sent, and its path stalls: another path carries it within its time; past it the word is *maybe*.
#[test]
fn an_unreliable_message_moves_within_its_time() {
    for (ttl, word) in [(1000, Outcome::Acknowledged), (20, Outcome::Maybe)] {
        let mut world = over(2, MS);
        world.stall(0, true, true);
        let ttl = Duration::from_millis(ttl);
        let id = send(&mut world, Class::EVENTS, Delivery::Unreliable { ttl }, vec![1]).expect("room");
        world.run_for(Duration::from_millis(500));
        assert_eq!(outcome(&world, id), Some(word));
        let arrived = receive(&mut world, Class::EVENTS).is_some();
        assert_eq!(arrived, word == Outcome::Acknowledged);
        world.stall(0, false, false);
        world.run_for(Duration::from_millis(500));
        let again = receive(&mut world, Class::EVENTS).is_some();
        assert_eq!(again, word == Outcome::Maybe, "at most once");
    }
}

/// A path so slow that its records are short carries the longest datagrams all the same.
#[test]
fn long_datagrams_go_over_slow_paths() {
    let mut world = World::connected(Options::default());
    world.links[0].rate = 100_000;
    let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    let mut there = None;
    for _ in 0..300 {
        world.client.write(key, &[0; 1000]).expect("open");
        world.run_for(MS * 10);
        let now = world.now;
        let server = world.server();
        there = there.or_else(|| server.accept(Kind::Uni, Class::BULK));
        if let Some(there) = there {
            read_all(server, now, there);
        }
    }
    let max = usize::try_from(world.client.max_datagram_out()).expect("small");
    let now = world.now;
    world
        .client
        .send_datagram(now, vec![1; max].into())
        .expect("room");
    world.client.send_datagram(now, vec![2; 10].into()).expect("room");
    world.run_for(Duration::from_millis(900));
    assert_eq!(world.server().recv_datagram().map(|data| data.len()), Some(max));
    assert_eq!(world.server().recv_datagram().map(|data| data.len()), Some(10));
}

/// The first datagrams of a path, before its rate is known.
#[test]
fn the_longest_datagram_goes_first() {
    let mut world = World::connected(Options::default());
    let max = usize::try_from(world.client.max_datagram_out()).expect("small");
    let now = world.now;
    world
        .client
        .send_datagram(now, vec![1; max].into())
        .expect("room");
    world.run_for(MS * 5);
    assert_eq!(world.server().recv_datagram().map(|data| data.len()), Some(max));
}

/// PROTOCOL 4.6: a datagram that comes twice is delivered once; unread ones are dropped, the oldest first,
/// within the queue's bound.
#[test]
fn datagrams_are_deduplicated_and_bounded() {
    let mut options = Options::default();
    options.server.max_datagram_queue = 10_000;
    let mut world = World::connected(options);
    world.take_client_end(0);
    for number in (0..100).chain(0..100) {
        let data = [u8::try_from(number).expect("small"); 136];
        for class in [None, Some(Class::EVENTS)] {
            let number = number * 2 + u64::from(class.is_some());
            let frame = Frame::Datagram {
                number,
                class,
                data: &data,
            };
            let bytes = record(&[frame], true);
            world.inject_up(0, &bytes);
        }
        world.run_for(Duration::from_micros(10));
    }
    let mut raw = Vec::new();
    while let Some(data) = world.server().recv_datagram() {
        raw.push(data[0]);
    }
    let mut with_class = Vec::new();
    while let Some(message) = receive(&mut world, Class::EVENTS) {
        with_class.push(message.payload[0]);
    }
    assert_eq!(raw.len() + with_class.len(), 50, "200 bytes each");
    assert!(raw.is_sorted() && with_class.is_sorted());
    assert_eq!(
        (raw.last(), with_class.last()),
        (Some(&99), Some(&99)),
        "the newest stay"
    );
    assert_eq!(world.server().stats().datagrams_dropped, 150);
}

/// PROTOCOL 4.6: one longer than announced is dropped, and nothing else comes of it.
#[test]
fn a_datagram_over_the_limit_is_dropped() {
    let mut world = World::connected(Options::default());
    world.take_client_end(0);
    let data = [0; 20_000];
    let frame = Frame::Datagram {
        number: 0,
        class: None,
        data: &data,
    };
    let bytes = record(&[frame], true);
    world.inject_up(0, &bytes);
    world.settle();
    assert_eq!(world.server().recv_datagram(), None);
    assert_eq!(world.server().state(), State::Connected);
}

// ---- limits ----

/// A full queue says so, and says when there is room; every message that was taken arrives.
#[test]
fn a_full_queue_tells_when_it_has_room() {
    for delivery in [Delivery::Ordered, Delivery::Unordered, UNRELIABLE] {
        let mut options = Options::default();
        options.client.max_message_queue = 3000;
        options.client.max_datagram_queue = 3000;
        let mut world = World::connected(options);
        let mut sent = 0;
        for _ in 0..20 {
            let refused = loop {
                match send(&mut world, Class::EVENTS, delivery, vec![0; 100]) {
                    Ok(_) => sent += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(refused, SendError::Full);
            world.client_events.clear();
            world.run_for(MS * 60);
            assert!(
                world.client_saw(|event| *event == Event::MessageSpace),
                "{delivery:?}"
            );
        }
        world.settle();
        let mut got = 0;
        while receive(&mut world, Class::EVENTS).is_some() {
            got += 1;
        }
        assert_eq!(got, sent);
        // One larger than the whole queue goes when the queue is empty.
        send(&mut world, Class::EVENTS, delivery, vec![0; 8000]).expect("alone");
        world.settle();
        assert!(receive(&mut world, Class::EVENTS).is_some());
    }
}

/// Unordered messages beyond the peer's stream credit wait for it; the slots come back as they are read.
#[test]
fn unordered_messages_wait_for_slots() {
    let mut options = Options::default();
    for limits in &mut options.server.params.max_streams {
        limits.unordered = 4;
    }
    let mut world = World::connected(options);
    let (mut sent, mut got) = (0, 0);
    for _ in 0..200 {
        while send(&mut world, Class::EVENTS, Delivery::Unordered, vec![1; 10]).is_ok() {
            sent += 1;
        }
        assert!(sent - got <= 4);
        world.client_events.clear();
        world.run_for(MS * 2);
        while receive(&mut world, Class::EVENTS).is_some() {
            got += 1;
        }
        world.run_for(MS * 30);
        assert!(world.client_saw(|event| *event == Event::MessageSpace));
    }
    assert_eq!(sent, got);
    assert!(sent >= 600, "{sent}");
    assert!(world.server().stream_count() <= 1 && world.client.stream_count() <= 1);
}

// ---- what it costs ----

/// Bytes on the wire of one ordered message of 64 bytes on a warm path without checksums, beyond these.
fn overhead(world: &mut World) -> u64 {
    // The acknowledgement of what came before has been sent, too.
    world.run_for(Duration::from_secs(1));
    let key = world.links[0].client.expect("live");
    let before = world.client.path_stats(key).expect("live");
    send(world, Class::EVENTS, Delivery::Ordered, vec![9; 64]).expect("room");
    world.settle();
    let after = world.client.path_stats(key).expect("live");
    assert_eq!(after.records_sent - before.records_sent, 1);
    after.bytes_sent - before.bytes_sent - 64
}

/// Issue "Done when": a 64-byte message on a warm path without the CRC costs at most 8 bytes more.
#[test]
fn a_small_message_costs_eight_bytes() {
    let mut unchecked = Options::default();
    unchecked.client.params.crc = Some(false);
    unchecked.server.params.crc = Some(false);
    for (options, security) in [
        (unchecked, Security::Plain),
        (Options::default(), Security::Encrypted),
    ] {
        let mut world = World::new(options);
        let info = PathInfo::new("mem://warm", "mem", security);
        world.connect_with(info).expect("a path opens");
        world.settle();
        for _ in 0..3 {
            send(&mut world, Class::EVENTS, Delivery::Ordered, vec![9; 64]).expect("room");
            world.settle();
        }
        let spent = overhead(&mut world);
        assert!(spent <= 8, "{spent} bytes");
    }
}

/// The same at offset 2^40 and, with 12 bytes, at stream index 2^28: what the session's own calls put into
/// a record there.
#[test]
fn far_offsets_and_indexes_cost_no_more() {
    let cost = |id: StreamId, start: u64| {
        let mut out = OutBuffer::new();
        let mut send = SendHalf::new(1 << 62);
        // Where the last frame of the stream on the lane ended is all that the header depends on.
        send.sent_on(7, start);
        let offset = (!send.continues(7, start)).then_some(start);
        let mut builder = RecordBuilder::begin(&mut out, 65_536, false);
        assert!(builder.stream_header(id, offset, false, 65, true));
        builder.data(&[0; 65]);
        builder.finish() - 64
    };
    let ordered = StreamId::ordered(Side::Client, Class::EVENTS);
    assert!(cost(ordered, 1 << 40) <= 8, "{}", cost(ordered, 1 << 40));
    let far = StreamId::new(Side::Client, Kind::Uni, Class::BULK, 1 << 28).expect("in range");
    assert!(cost(far, 0) <= 12, "{}", cost(far, 0));
    assert!(cost(far, 1 << 40) <= 12);
}

/// Many small messages are bounded by what is kept for each, not by their bytes alone.
#[test]
fn tracked_messages_count_by_number_too() {
    let mut options = Options::default();
    options.client.max_message_queue = 64 * 100;
    let mut world = World::new(options);
    let fill = |world: &mut World| {
        let payload = Bytes::from_static(b"x");
        let now = world.now;
        let mut send = || {
            world
                .client
                .send_message(now, Class::EVENTS, Delivery::Ordered, payload.clone(), true)
        };
        let count = std::iter::repeat_with(&mut send)
            .take_while(Result::is_ok)
            .count();
        assert_eq!(send(), Err(SendError::Full));
        count
    };
    let count = fill(&mut world);
    assert!((90..=100).contains(&count), "{count}");
    world.connect();
    world.settle();
    let acknowledged = world.client_events.iter().filter(|event| {
        let acknowledged = Outcome::Acknowledged;
        matches!(event, Event::Outcome { outcome, .. } if *outcome == acknowledged)
    });
    assert_eq!(acknowledged.count(), count);
    assert!(world.client_saw(|event| matches!(event, Event::MessageSpace)));
    assert_eq!(fill(&mut world), count, "all of it is given back");
}

/// PROTOCOL 5.5: how long a message may be is known with WELCOME. One that was queued before, and is longer, is
/// refused by name instead of breaking the session.
#[test]
fn a_message_queued_before_welcome_is_checked_again() {
    let mut options = Options::default();
    options.server.params.max_message = 1000;
    let mut world = World::new(options);
    let now = world.now;
    let class = Class::EVENTS;
    let mut ids = Vec::new();
    for len in [10, 5000, 1000] {
        let payload = Bytes::from(vec![7; len]);
        let sent = world
            .client
            .send_message(now, class, Delivery::Ordered, payload, true);
        ids.push(sent.expect("room"));
    }
    assert!(!world.client.is_settled());
    world.connect();
    world.settle();
    assert_eq!(world.client.state(), State::Connected);
    let now = world.now;
    for len in [10, 1000] {
        let message = world.server().recv_message(now, class).expect("sound");
        assert_eq!(message.expect("there").payload.len(), len);
    }
    assert_eq!(world.server().recv_message(now, class), Ok(None));
    let too_large = Outcome::TooLarge { max: 1000 };
    let expected = [Outcome::Acknowledged, too_large, Outcome::Acknowledged];
    for (id, word) in ids.into_iter().zip(expected) {
        assert_eq!(outcome(&world, id), Some(word));
    }
    assert!(world.client.is_settled());
}
