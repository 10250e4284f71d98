//! A peer that is who it says it is, and breaks the rules (issue "Bad input"; NUMBERS "Attacks"). What ends,
//! ends alone: a path, or this session; nothing panics, and memory stays in its bounds.

use std::time::Duration;

use super::super::*;
use super::basics::{pattern, read_all};
use super::faults::over;
use super::handshakes::exchange;
use super::{Options, World, body, record, records};
use crate::wire::{
    Addresses, AdvertiseFrame, Class, Counts, Frame, Frames, HandshakeKind, Kind, LaneCount, PathStatus,
    StreamId,
};

pub(super) const MS: Duration = Duration::from_millis(1);
const MAX: u64 = u64::MAX;

pub(super) fn id(side: Side, kind: Kind, index: u64) -> StreamId {
    StreamId::new(side, kind, Class::EVENTS, index).expect("in range")
}

pub(super) fn stream(id: StreamId, offset: u64, data: &[u8]) -> Frame<'_> {
    Frame::Stream {
        id,
        offset: Some(offset),
        fin: false,
        data,
    }
}

/// A session over two links; the test is the client's end of the second.
pub(super) fn attacker() -> (World, usize) {
    let mut world = over(2, MS);
    world.take_client_end(1);
    (world, 1)
}

fn send(world: &mut World, link: usize, frames: &[Frame<'_>]) {
    let bytes = record(frames, true);
    world.inject_up(link, &bytes);
    world.run_for(MS * 3);
}

/// What the server thinks ended the path.
pub(super) fn path_error(world: &World) -> Option<PathError> {
    world.server_events.iter().find_map(|event| match event {
        Event::PathDown { error, .. } => error.clone(),
        _ => None,
    })
}

/// The frame ends its path with this code and nothing else; a stream begun before it is whole.
fn ends_the_path(frame: Frame<'_>, code: ErrorCode) {
    let (mut world, link) = attacker();
    let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    let data = pattern(100_000, 5);
    assert_eq!(world.client.write(key, &data), Ok(data.len()));
    send(&mut world, link, &[frame]);
    let error = path_error(&world).unwrap_or_else(|| panic!("{frame:?} ends its path"));
    assert_eq!(error.code(), code, "{frame:?}: {error}");
    assert!(!error.ends_session());
    assert_eq!(world.server().stats().paths, 1);
    world.settle();
    let now = world.now;
    let server = world.server();
    let there = server.accept(Kind::Uni, Class::BULK).expect("opened");
    assert!(read_all(server, now, there).0 == data);
    exchange(&mut world);
}

/// The frames end the session with this code, told in CLOSE on every path.
fn ends_the_session(frames: &[Frame<'_>], code: ErrorCode) {
    let (mut world, link) = attacker();
    world.links[0].tap = true;
    send(&mut world, link, frames);
    assert_eq!(world.server().state(), State::Failed, "{frames:?}");
    let told = world.server_events.iter().find_map(|event| match event {
        Event::State {
            cause: Cause::PeerMisbehaved { code, .. },
            ..
        } => Some(*code),
        _ => None,
    });
    assert_eq!(told, Some(code), "{frames:?}");
    world.settle();
    for link in [0, 1] {
        let last = records(&world.links[link].tapped_down).pop().expect("said");
        let close = Frames::new(body(&last)).last().expect("a frame").expect("sound");
        assert!(
            matches!(close, Frame::Close { code: told, .. } if told == code.value()),
            "{close:?}"
        );
    }
    assert_eq!(world.client.state(), State::Closed);
    assert_eq!(world.server().poll_timeout(), None);
}

/// The frames are borne: no path ends, and the session goes on.
fn is_borne(frames: &[Frame<'_>]) {
    let (mut world, link) = attacker();
    send(&mut world, link, frames);
    assert_eq!(path_error(&world), None, "{frames:?}");
    assert_eq!(world.server().state(), State::Connected);
    exchange(&mut world);
}

// ---- flow control, streams, acknowledgements ----

/// Bad input: data beyond the stream's window, the class's window, the final size, or any offset.
#[test]
fn data_beyond_any_limit_ends_the_session() {
    let uni = id(Side::Client, Kind::Uni, 0);
    let window = 256 << 10;
    ends_the_session(&[stream(uni, window, &[1])], ErrorCode::FLOW_CONTROL);
    let four: Vec<Frame<'_>> = (0..5)
        .map(|index| stream(id(Side::Client, Kind::Uni, index), window - 1, &[1]))
        .collect();
    ends_the_session(&four, ErrorCode::FLOW_CONTROL);
    let end = Frame::Stream {
        id: uni,
        offset: Some(0),
        fin: true,
        data: b"end",
    };
    ends_the_session(&[end, stream(uni, 3, b"more")], ErrorCode::FINAL_SIZE);
    let other_end = Frame::Stream {
        id: uni,
        offset: Some(0),
        fin: true,
        data: b"en",
    };
    ends_the_session(&[stream(uni, 0, b"end"), other_end], ErrorCode::FINAL_SIZE);
    let reset = |final_size| Frame::ResetStream {
        id: uni,
        code: 1,
        final_size,
    };
    ends_the_session(&[stream(uni, 0, b"more"), reset(3)], ErrorCode::FINAL_SIZE);
    ends_the_session(&[reset(window + 1)], ErrorCode::FLOW_CONTROL);
}

/// Bad input: ids of the wrong side or direction, never opened, or beyond the credit.
#[test]
fn ids_that_cannot_be_end_the_session() {
    let state = ErrorCode::STREAM_STATE;
    for kind in [Kind::Uni, Kind::Unordered] {
        ends_the_session(&[stream(id(Side::Server, kind, 0), 0, b"x")], state);
    }
    let ordered = StreamId::ordered(Side::Server, Class::EVENTS);
    ends_the_session(&[stream(ordered, 0, b"x")], state);
    ends_the_session(&[stream(id(Side::Server, Kind::Bi, 0), 0, b"x")], state);
    let stop = |id| Frame::StopSending { id, code: 0 };
    let credit = |id| Frame::MaxStreamData { id, value: 1 << 20 };
    for never in [Kind::Bi, Kind::Uni, Kind::Unordered] {
        ends_the_session(&[stop(id(Side::Server, never, 3))], state);
        ends_the_session(&[credit(id(Side::Server, never, 3))], state);
    }
    for theirs in [Kind::Uni, Kind::Unordered] {
        ends_the_session(&[stop(id(Side::Client, theirs, 0))], state);
        ends_the_session(&[credit(id(Side::Client, theirs, 0))], state);
    }
    ends_the_session(
        &[stream(id(Side::Client, Kind::Bi, 1024), 0, b"x")],
        ErrorCode::STREAM_LIMIT,
    );
    ends_the_session(
        &[stream(id(Side::Client, Kind::Unordered, 4096), 0, b"x")],
        ErrorCode::STREAM_LIMIT,
    );
}

/// PROTOCOL 7.4: a message's stream cannot be stopped.
#[test]
fn stopping_a_message_ends_the_session() {
    for delivery in [Delivery::Ordered, Delivery::Unordered] {
        let (mut world, link) = attacker();
        world.links[0].server = None;
        let now = world.now;
        let sent = world
            .server()
            .send_message(now, Class::EVENTS, delivery, vec![1; 100].into(), true);
        sent.expect("room");
        let of = match delivery {
            Delivery::Ordered => StreamId::ordered(Side::Server, Class::EVENTS),
            _ => id(Side::Server, Kind::Unordered, 0),
        };
        send(&mut world, link, &[Frame::StopSending { id: of, code: 0 }]);
        assert_eq!(world.server().state(), State::Failed);
        assert!(world.server_saw(|event| matches!(event, Event::Outcome { .. })));
    }
}

/// NUMBERS "Optimistic acknowledgement": of what was never sent, on this path and others, known or not.
#[test]
fn acknowledgements_of_nothing_end_the_path() {
    let ack = |path, lane, count| Frame::Ack {
        path,
        lane,
        count,
        delay_us: 0,
    };
    let here = |count| Frame::AckHere { count, delay_us: 0 };
    for frame in [
        here(1000),
        here(MAX),
        ack(1, 0, 1000),
        ack(0, 0, 1000),
        ack(0, 1, 0),
        ack(0, MAX, 1),
        ack(2, 0, 1),
        ack(MAX, MAX, MAX),
    ] {
        ends_the_path(frame, ErrorCode::BAD_ACK);
    }
    let counts = [LaneCount { lane: 0, count: 9999 }];
    let abandon = Frame::PathAbandon {
        path: 0,
        code: 0,
        counts: Counts::new(&counts).expect("one"),
    };
    ends_the_path(abandon, ErrorCode::BAD_ACK);
}

/// PROTOCOL 4.2: acknowledgements of paths that were settled are ignored.
#[test]
fn acknowledgements_of_settled_paths_are_ignored() {
    let mut world = over(3, MS);
    let link = 1;
    world.cut(2);
    world.settle();
    world.take_client_end(link);
    let ack = Frame::Ack {
        path: 2,
        lane: 0,
        count: 1 << 40,
        delay_us: 0,
    };
    send(&mut world, link, &[ack]);
    exchange(&mut world);
    assert!(!world.links[link].dead);
}

/// NUMBERS "Remote panics": the largest number in every field of every frame.
#[test]
fn the_largest_number_in_every_field() {
    let far = StreamId::try_from(MAX).unwrap_or(id(Side::Client, Kind::Bi, StreamId::MAX_INDEX));
    let ours = id(Side::Server, Kind::Bi, StreamId::MAX_INDEX);
    let addresses = ["x"];
    let counts = [LaneCount {
        lane: MAX,
        count: MAX,
    }];
    let mut frames = vec![
        Frame::AckHere {
            count: MAX,
            delay_us: MAX,
        },
        Frame::AckHere {
            count: 1,
            delay_us: MAX,
        },
        Frame::Ack {
            path: MAX,
            lane: MAX,
            count: MAX,
            delay_us: MAX,
        },
        Frame::Ping { seq: MAX },
        Frame::Pong { seq: MAX },
        Frame::MaxData {
            class: Class::EVENTS,
            value: MAX,
        },
        Frame::MaxStreams {
            class: Class::EVENTS,
            kind: Kind::Bi,
            value: StreamId::MAX_INDEX + 1,
        },
        Frame::PathStatus {
            path: 0,
            seq: MAX,
            status: PathStatus::Active,
            in_flight: MAX,
        },
        Frame::PathStatus {
            path: MAX,
            seq: MAX,
            status: PathStatus::Leave,
            in_flight: 0,
        },
        Frame::Advertise(AdvertiseFrame {
            seq: MAX,
            addresses: Addresses::new(&addresses).expect("one"),
        }),
        Frame::PathAbandon {
            path: MAX,
            code: MAX,
            counts: Counts::new(&counts).expect("one"),
        },
        Frame::GoAway {
            code: MAX,
            reason: "",
            address: "",
        },
        Frame::Close {
            code: MAX,
            reason: "",
        },
        Frame::Datagram {
            number: MAX,
            class: None,
            data: b"x",
        },
        Frame::Datagram {
            number: MAX - 1,
            class: Some(Class::EVENTS),
            data: b"x",
        },
    ];
    for id in [far, ours, id(Side::Client, Kind::Bi, 0)] {
        frames.push(Frame::ResetStream {
            id,
            code: MAX,
            final_size: 1 << 62,
        });
        frames.push(Frame::ResetStream {
            id,
            code: MAX,
            final_size: 0,
        });
        frames.push(Frame::StopSending { id, code: MAX });
        frames.push(Frame::MaxStreamData { id, value: MAX });
        frames.push(stream(id, (1 << 62) - 1, b"x"));
    }
    for frame in frames {
        for direction in [true, false] {
            let (mut world, link) = attacker();
            let bytes = record(&[frame, Frame::Ping { seq: 1 }], true);
            if direction {
                world.inject_up(link, &bytes);
            } else {
                world.links[0].server = None;
                world.inject_down(0, &bytes);
            }
            world.run_for(Duration::from_secs(3));
        }
    }
    is_borne(&[
        Frame::Ping { seq: MAX },
        Frame::MaxData {
            class: Class::EVENTS,
            value: MAX,
        },
        Frame::MaxStreamData {
            id: id(Side::Client, Kind::Bi, 0),
            value: MAX,
        },
        Frame::PathStatus {
            path: 1,
            seq: MAX,
            status: PathStatus::Standby,
            in_flight: MAX,
        },
        Frame::Datagram {
            number: MAX,
            class: None,
            data: b"x",
        },
    ]);
}

// ---- any bytes ----

/// Bad input: every bit of a few records flipped: its path ends or, where that is not to be seen, nothing does.
#[test]
fn every_flipped_bit_is_found() {
    let data = [7; 40];
    let good = record(
        &[
            Frame::Ping { seq: 3 },
            stream(id(Side::Client, Kind::Uni, 0), 0, &data),
            Frame::MaxData {
                class: Class::BULK,
                value: 1 << 21,
            },
        ],
        true,
    );
    for bit in 0..good.len() * 8 {
        let (mut world, link) = attacker();
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        world.inject_up(link, &bad);
        world.run_for(MS);
        let waiting = world.server().stats().paths == 2;
        // A longer length waits for bytes that do not come; more of them end it.
        if waiting {
            world.inject_up(link, &vec![0xff; 1 << 17]);
            world.run_for(MS);
        }
        assert_eq!(world.server().stats().paths, 1, "bit {bit}");
        assert_eq!(world.server().state(), State::Connected);
        assert_eq!(world.server().stats().streams, 0, "nothing of it took effect");
    }
}

/// Bad input: records cut short, doubled, out of order: TCP does not do that, an attacker may.
#[test]
fn truncated_and_reordered_records_end_their_path_only() {
    let data = [7; 100];
    let uni = id(Side::Client, Kind::Uni, 0);
    let one = record(&[stream(uni, 0, &data)], true);
    let two = record(
        &[Frame::Stream {
            id: uni,
            offset: None,
            fin: true,
            data: &data,
        }],
        true,
    );
    for cut in 1..one.len() {
        let (mut world, link) = attacker();
        let bytes = [&one[..cut], &two[..]].concat();
        world.inject_up(link, &bytes);
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.server().state(), State::Connected, "cut at {cut}");
        world.inject_up(link, &vec![0xff; 1 << 17]);
        world.run_for(MS);
        assert_eq!(world.server().stats().paths, 1);
    }
    // The second first: without an offset it stands at 0, and its end is no end for the other.
    let (mut world, link) = attacker();
    world.inject_up(link, &[&two[..], &one[..], &one[..]].concat());
    world.run_for(MS);
    assert_eq!(
        world.server().state(),
        State::Connected,
        "the same bytes at the same place"
    );
}

/// Handshake messages on a live path end it, whatever they say.
#[test]
fn handshake_messages_on_a_live_path_end_it() {
    for kind in [
        HandshakeKind::Hello,
        HandshakeKind::Welcome,
        HandshakeKind::Join,
        HandshakeKind::Joined,
        HandshakeKind::Confirm,
        HandshakeKind::Reject,
    ] {
        ends_the_path(Frame::Handshake { kind, body: b"what" }, ErrorCode::BAD_HANDSHAKE);
    }
}

/// A path error ends that path, a session error that session: another session of the same process goes on.
#[test]
fn sessions_are_apart() {
    let (mut bad, link) = attacker();
    let mut good = World::connected(Options {
        seed: 5,
        ..Options::default()
    });
    send(
        &mut bad,
        link,
        &[stream(id(Side::Client, Kind::Uni, 0), 1 << 40, b"x")],
    );
    assert_eq!(bad.server().state(), State::Failed);
    exchange(&mut good);
}
