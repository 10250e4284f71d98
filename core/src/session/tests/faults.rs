//! Connections that are cut, reset, stalled and corrupted under a session (DESIGN "Failure, suspicion,
//! death"; NUMBERS "Failure detection"; REQUIREMENTS W1, W2, S2, S6).

use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::basics::{pattern, read_all};
use super::handshakes::{exchange, plain};
use super::{Options, World};
use crate::wire::{Class, Kind};

const MS: Duration = Duration::from_millis(1);

/// A session over this many links of the same delay.
pub(super) fn over(links: usize, delay: Duration) -> World {
    let mut world = World::new(Options::default());
    for _ in 0..links {
        let link = world.connect();
        world.links[link].delay = delay;
        world.settle();
    }
    world.run_for(Duration::from_secs(1));
    world
}

/// One stream from the client to the server that is written and read a step at a time.
pub(super) struct Flow {
    pub(super) key: StreamKey,
    pub(super) there: Option<StreamKey>,
    pub(super) data: Vec<u8>,
    pub(super) written: usize,
    pub(super) received: Vec<u8>,
}

impl Flow {
    pub(super) fn new(world: &mut World, len: usize) -> Flow {
        let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
        Flow {
            key,
            there: None,
            data: pattern(len, 11),
            written: 0,
            received: Vec::new(),
        }
    }

    /// Writes at most `most` and reads what is there; tells how much came.
    pub(super) fn step(&mut self, world: &mut World, most: usize) -> usize {
        let end = self.written.saturating_add(most).min(self.data.len());
        self.written += world
            .client
            .write(self.key, &self.data[self.written..end])
            .expect("open");
        world.run_for(MS);
        let now = world.now;
        let server = world.server();
        self.there = self.there.or_else(|| server.accept(Kind::Uni, Class::BULK));
        let Some(there) = self.there else { return 0 };
        let (got, _) = read_all(server, now, there);
        self.received.extend_from_slice(&got);
        got.len()
    }

    /// Runs until everything came, or fails.
    pub(super) fn finish(&mut self, world: &mut World, within: Duration) {
        let end = world.now + within;
        while self.received.len() < self.data.len() {
            assert!(world.now < end, "{} of {}", self.received.len(), self.data.len());
            self.step(world, usize::MAX);
        }
        assert!(self.received == self.data, "in order and intact");
    }
}

/// The longest time without anything received, over `time`, of a sender of a KiB each millisecond.
pub(super) fn longest_gap(world: &mut World, flow: &mut Flow, time: Duration) -> Duration {
    let end = world.now + time;
    let (mut last, mut longest) = (world.now, Duration::ZERO);
    while world.now < end {
        if flow.step(world, 1024) > 0 {
            last = world.now;
        }
        longest = longest.max(world.now - last);
    }
    longest
}

// ---- hard ends ----

/// NUMBERS: an explicit close or reset is acted on in the same turn: with a warm standby path the gap is
/// at most a round trip.
#[test]
fn a_cut_with_a_warm_standby_costs_a_round_trip() {
    for end in [PathEnd::Reset, PathEnd::Eof] {
        let delay = Duration::from_millis(10);
        let mut world = over(2, delay);
        let mut flow = Flow::new(&mut world, 4 << 20);
        for _ in 0..200 {
            flow.step(&mut world, 1024);
        }
        world.end(0, end);
        let gap = longest_gap(&mut world, &mut flow, Duration::from_millis(500));
        assert!(gap <= delay * 2 + MS * 2, "{gap:?}");
        flow.data.truncate(flow.written);
        flow.finish(&mut world, Duration::from_secs(1));
        let why = if end == PathEnd::Reset {
            SwitchCause::Reset
        } else {
            SwitchCause::Closed
        };
        assert!(world.client_saw(|event| matches!(event, Event::Switched { cause, .. } if *cause == why)));
    }
}

/// PROTOCOL 3.2: a flipped bit ends its path and nothing else; what it held goes on another.
#[test]
fn corruption_ends_its_path_only() {
    for up in [true, false] {
        let mut world = over(2, MS);
        let mut flow = Flow::new(&mut world, 1 << 20);
        for _ in 0..20 {
            flow.step(&mut world, 8192);
        }
        if up {
            world.links[0].corrupt_up = true;
        } else {
            world.links[0].corrupt_down = true;
        }
        flow.finish(&mut world, Duration::from_secs(2));
        assert!(world.links[0].dead && !world.links[1].dead);
        let saw = |event: &Event| {
            matches!(
                event,
                Event::Switched {
                    cause: SwitchCause::Error | SwitchCause::Closed | SwitchCause::Abandoned,
                    ..
                }
            )
        };
        assert!(world.client_saw(saw));
        exchange(&mut world);
    }
}

/// DESIGN "Path-down news goes on every path": the peer stops using a connection whose end it cannot see.
#[test]
fn news_of_a_dead_path_reach_the_peer() {
    let mut world = over(2, MS);
    // The client's end is gone, and the connection says nothing to the server.
    let (now, key) = (world.now, world.links[0].client.take().expect("live"));
    world.client.handle_path_closed(now, key, PathEnd::Reset);
    world.run_for(MS * 3);
    assert!(world.server_saw(|event| matches!(
        event,
        Event::PathDown {
            error: Some(PathError::Abandoned(_)),
            ..
        }
    )));
    assert_eq!(world.server().active_path(), world.links[1].server);
    exchange(&mut world);
}

// ---- without any path ----

/// REQUIREMENTS S2, W1: without a path everything queued waits, in bounds, and goes on after JOIN.
#[test]
fn what_is_queued_waits_for_the_next_path() {
    let mut options = Options::default();
    options.client.max_message_queue = 10_000;
    options.client.max_send_buffer = 20_000;
    let mut world = World::connected(options);
    let key = world.client.open(Kind::Uni, Class::BULK).expect("credit");
    assert_eq!(world.client.write(key, &[1; 5000]), Ok(5000));
    world.cut(0);
    assert_eq!(world.client.state(), State::Reconnecting);
    assert_eq!(world.server().state(), State::Reconnecting);
    let now = world.now;
    let mut sent = 0_u32;
    let refused = loop {
        let payload = Bytes::from(sent.to_be_bytes().to_vec());
        match world
            .client
            .send_message(now, Class::EVENTS, Delivery::Ordered, payload, false)
        {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, SendError::Full);
    assert!((10_000 / (4 + 64)..=10_000 / 5).contains(&sent), "{sent}");
    let mut written = 5000;
    let full = loop {
        match world.client.write(key, &[1; 999]).expect("open") {
            0 => break written,
            taken => written += taken,
        }
    };
    assert!(full <= 20_000, "{full}");
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.client.stats().buffered, world.client.buffered);
    world.connect();
    world.settle();
    let now = world.now;
    assert!(world.client_saw(|event| *event == Event::MessageSpace));
    assert!(world.client_saw(|event| *event == Event::Writable(key)));
    let server = world.server();
    for expected in 0..sent {
        let message = server
            .recv_message(now, Class::EVENTS)
            .expect("sound")
            .expect("in order");
        assert_eq!(message.payload[..], expected.to_be_bytes());
    }
    assert_eq!(server.recv_message(now, Class::EVENTS), Ok(None));
    let there = server.accept(Kind::Uni, Class::BULK).expect("opened");
    assert_eq!(read_all(server, now, there).0, vec![1; full]);
}

/// REQUIREMENTS S2: when the session is lost, each thing is told as what it is: acknowledged, maybe, not sent.
#[test]
fn a_lost_session_says_what_became_of_each_thing() {
    let mut options = Options::default();
    options.server.params.resume_timeout = Duration::from_secs(30);
    let mut world = World::connected(options);
    let modes = [
        Delivery::Ordered,
        Delivery::Unordered,
        Delivery::Unreliable {
            ttl: Duration::from_secs(300),
        },
    ];
    let mut ids = [[MessageId(0); 3]; 3];
    let streams = [0, 1, 2].map(|_| world.client.open(Kind::Uni, Class::BULK).expect("credit"));
    for phase in 0..3 {
        match phase {
            1 => world.stall(0, true, false),
            2 => world.cut(0),
            _ => {}
        }
        let now = world.now;
        for (place, delivery) in modes.into_iter().enumerate() {
            let sent = world
                .client
                .send_message(now, Class::EVENTS, delivery, vec![0; 100].into(), true);
            ids[phase][place] = sent.expect("room");
        }
        world.client.write(streams[phase], &[0; 100]).expect("open");
        world.client.finish(streams[phase]).expect("open");
        world.run_for(MS * 40);
    }
    assert_eq!(world.client.state(), State::Reconnecting);
    world.run_for(Duration::from_secs(31));
    assert_eq!(world.client.state(), State::Failed);
    assert_eq!(world.server().state(), State::Failed);
    let words = [Outcome::Acknowledged, Outcome::Maybe, Outcome::NotSent];
    for (phase, word) in words.into_iter().enumerate() {
        for id in ids[phase] {
            let told: Vec<_> = world
                .client_events
                .iter()
                .filter_map(|event| match event {
                    Event::Outcome { id: of, outcome } if *of == id => Some(*outcome),
                    _ => None,
                })
                .collect();
            assert_eq!(told, [word], "{id:?} of phase {phase}");
        }
        let progress = world.client.send_progress(streams[phase]).expect("held");
        let expected = Progress {
            written: 100,
            sent: if phase < 2 { 100 } else { 0 },
            acknowledged: if phase == 0 { 100 } else { 0 },
            complete: phase == 0,
        };
        assert_eq!(progress, expected);
    }
    // A server that lost it says so to whoever still tries.
    assert_eq!(
        world.client.open_path(world.now, plain()),
        Err(OpenPathError::Ended)
    );
    assert_eq!(world.client.poll_timeout(), None);
    assert_eq!(world.server().poll_timeout(), None);
}

/// PROTOCOL 6.3: what had arrived before every path died is acknowledged by the handshake of the next,
/// and not sent again.
#[test]
fn counts_settle_what_had_arrived() {
    let mut world = over(1, MS);
    let mut flow = Flow::new(&mut world, 100_000);
    world.stall(0, false, true);
    for _ in 0..100 {
        flow.step(&mut world, usize::MAX);
    }
    let before = flow.received.len();
    assert!(before >= 10_000);
    world.cut(0);
    let next = world.connect();
    world.run_for(MS * 20);
    let spent = world.links[next].carried();
    flow.finish(&mut world, Duration::from_secs(1));
    assert!(
        spent <= (100_000 - before) as u64 + 2000,
        "{spent} bytes after {before}"
    );
}

// ---- at random moments ----

/// The faults of one run at moments picked by a seed, on one to three paths, under a stream both ways and
/// messages in every mode: exactly once, and in order where that is promised.
#[test]
fn faults_at_random_moments_lose_and_double_nothing() {
    for seed in 0..24_u64 {
        let mut rng = crate::rng::Rng::from_seed([u8::try_from(seed).expect("small"); 32]);
        let paths = 1 + (seed % 3) as usize;
        let mut world = over(paths, MS);
        let mut flow = Flow::new(&mut world, 300_000);
        let mut live: Vec<usize> = (0..paths).collect();
        for _ in 0..12 {
            for _ in 0..rng.next_u64() % 20 {
                flow.step(&mut world, 4000);
            }
            if world.client.stats().paths >= MAX_PATHS - 1 {
                live.iter().for_each(|&link| world.cut(link));
            }
            let place = (rng.next_u64() % live.len() as u64) as usize;
            let link = live[place];
            match rng.next_u64() % 4 {
                0 => world.cut(link),
                1 => world.end(link, PathEnd::Eof),
                2 => world.links[link].corrupt_up = true,
                _ => world.stall(link, rng.next_u64().is_multiple_of(2), true),
            }
            live[place] = world.connect();
        }
        flow.finish(&mut world, Duration::from_secs(5));
    }
}
