//! PROTOCOL 6: a JOIN that is changed, repeated, reflected or meant for another session never makes a path,
//! nor does a CONFIRM that its client did not make.

use std::time::Duration;

use bolero::check;
use sheetbend_core::handshake::{Confirm, Join, Security};
use sheetbend_core::session::{Config, Event, PathInfo, State};
use sheetbend_core::wire::{Frame, HandshakeKind, OutBuffer, RecordBuilder, RecordLimits, split_record};
use sheetbend_fuzz::input::Input;
use sheetbend_fuzz::life;
use sheetbend_fuzz::pair::Pair;

fn info(security: Security) -> PathInfo {
    PathInfo::new("mem://fuzz", "mem", security)
}

/// The handshake messages in what was tapped: their kinds and bodies.
fn messages(mut bytes: &[u8]) -> Vec<(HandshakeKind, Vec<u8>)> {
    let (mut found, mut scratch) = (Vec::new(), Vec::new());
    while let Ok(Some(record)) = split_record(&mut bytes, &RecordLimits::HANDSHAKE, &mut scratch) {
        if let Ok(Some(Frame::Handshake { kind, body })) = Frame::decode(&mut { record.body }) {
            found.push((kind, body.to_vec()));
        }
    }
    found
}

fn record(kind: HandshakeKind, body: &[u8]) -> Vec<u8> {
    let mut out = OutBuffer::new();
    let mut builder = RecordBuilder::begin(&mut out, 1 << 16, true);
    if !builder.frame(&Frame::Handshake { kind, body }) {
        return Vec::new();
    }
    builder.finish();
    out.chunk().to_vec()
}

fn ups(events: &[Event]) -> usize {
    events
        .iter()
        .filter(|event| matches!(event, Event::PathUp(_)))
        .count()
}

/// A session with one path, and what its handshakes said; a second path's JOIN is held back on its way.
struct Scene {
    pair: Pair,
    held: usize,
    join: Vec<u8>,
    /// What the first path's client said: HELLO and CONFIRM.
    said: Vec<(HandshakeKind, Vec<u8>)>,
}

fn scene(seed: u64) -> Scene {
    let mut pair = Pair::new(Config::default(), Config::default(), seed);
    let first = pair.connect(info(Security::Plain)).expect("the first");
    pair.links[first].tap = true;
    pair.run_for(Duration::from_millis(100));
    assert_eq!((ups(&pair.client_events), ups(&pair.server_events)), (1, 1));
    pair.check = life::check;
    let said = messages(&pair.links[first].up.tapped);
    let held = pair.connect(info(Security::Plain)).expect("the second");
    pair.links[held].tap = true;
    pair.links[held].up.stalled = true;
    pair.run_for(Duration::from_millis(1));
    let [(HandshakeKind::Join, join)] = &messages(&pair.links[held].up.tapped)[..] else {
        panic!("a second path begins with JOIN");
    };
    let join = join.clone();
    Scene {
        pair,
        held,
        join,
        said,
    }
}

/// The JOIN with something changed; the same if the changes undo each other.
fn changed(input: &mut Input<'_>, original: &[u8], other: &Scene) -> Vec<u8> {
    let mut join = Join::decode(original).expect("the client made it");
    for _ in 0..1 + input.below(3) {
        match input.byte() % 9 {
            0 => join.path_id = input.u64() >> (input.byte() & 63),
            1 => join.path_id += 1,
            2 => join.nonce[input.below(16)] ^= input.byte(),
            3 => join.live.clear(),
            4 => join.floor = input.pick(&[Security::Plain, Security::Encrypted]),
            5 => join.in_flight = input.u64() >> 20,
            6 => join.bound ^= true,
            7 => join.session_id = other.pair.client.id().expect("it stands"),
            _ => join.proof[input.below(32)] ^= input.byte(),
        }
    }
    let mut body = Vec::new();
    join.encode(&mut body);
    if input.byte().is_multiple_of(4) && !body.is_empty() {
        let at = usize::from(input.u16()) % body.len();
        body[at] ^= input.byte();
    }
    body
}

fn assault(input: &mut Input<'_>, scene: &mut Scene, other: &Scene) {
    let Scene {
        pair,
        held,
        join,
        said,
    } = scene;
    let security = input.pick(&[Security::Plain, Security::Plain, Security::Encrypted]);
    let mut carrier = info(security);
    carrier.exporter = (input.byte().is_multiple_of(4)).then_some([5; 32]);
    match input.byte() % 6 {
        0 | 1 => {
            let body = changed(input, join, other);
            let link = pair.stranger(carrier);
            pair.inject_up(link, &record(HandshakeKind::Join, &body));
            pair.run_for(Duration::from_millis(1));
            assert!(
                body == *join || pair.server_path(link).is_none(),
                "a changed JOIN is refused"
            );
        }
        // The one of another session.
        2 => {
            let link = pair.stranger(carrier);
            pair.inject_up(link, &record(HandshakeKind::Join, &other.join));
            pair.run_for(Duration::from_millis(1));
            assert!(
                pair.server_path(link).is_none(),
                "a JOIN for another session is refused"
            );
        }
        // What the client said before, once more.
        3 => {
            let link = pair.stranger(carrier);
            for (kind, body) in said.iter() {
                pair.inject_up(link, &record(*kind, body));
            }
        }
        // To the client itself, who waits for JOINED.
        4 => {
            let (kind, body) = match input.byte() % 3 {
                0 => (HandshakeKind::Join, join.clone()),
                1 => (HandshakeKind::Joined, join.clone()),
                _ => (HandshakeKind::Joined, input.take(90).to_vec()),
            };
            pair.inject_down(*held, &record(kind, &body));
        }
        // A true copy, and a CONFIRM that is somebody else's.
        _ => {
            let link = pair.stranger(carrier);
            pair.inject_up(link, &record(HandshakeKind::Join, join));
            pair.run_for(Duration::from_micros(700));
            let mut confirm = Confirm::decode(&said[1].1).expect("the client made it");
            confirm.path_id = Join::decode(join).expect("the client made it").path_id;
            if input.flag() {
                confirm.proof[input.below(32)] ^= input.byte();
            }
            let mut body = Vec::new();
            confirm.encode(&mut body);
            pair.inject_up(link, &record(HandshakeKind::Confirm, &body));
        }
    }
    pair.run_for(Duration::from_millis(2));
}

#[test]
fn forgeries() {
    check!().with_iterations(400).for_each(forge);
}

pub(crate) fn forge(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mut scene, other) = (scene(1), scene(2));
    for _ in 0..10 {
        if input.is_empty() {
            break;
        }
        assault(&mut input, &mut scene, &other);
        assert_eq!(ups(&scene.pair.server_events), 1, "no path but the first");
        assert_eq!(ups(&scene.pair.client_events), 1, "no path but the first");
    }
    let pair = &mut scene.pair;
    assert_eq!(pair.client.state(), State::Connected);
    assert_eq!(
        pair.server.as_ref().map(|server| server.state()),
        Some(State::Connected)
    );
    // The client itself can still join.
    pair.links[scene.held].up.stalled = false;
    pair.run_for(Duration::from_millis(10));
    if ups(&pair.server_events) == 1 {
        // Its id was used up by a true copy: another has one of its own.
        pair.run_for(Duration::from_secs(11));
        pair.connect(info(Security::Plain)).expect("a third");
        pair.run_for(Duration::from_millis(10));
    }
    assert_eq!(ups(&pair.server_events), 2, "the client's own path is taken");
}
