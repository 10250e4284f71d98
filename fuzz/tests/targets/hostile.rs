//! A session under bytes that a hostile peer, or somebody between the ends, puts onto its paths.

use std::time::Duration;

use bolero::check;
use bytes::Bytes;
use sheetbend_core::handshake::Security;
use sheetbend_core::session::{Config, Delivery, PathInfo, Read, Session, State};
use sheetbend_core::wire::{Class, Kind, OutBuffer, RecordBuilder};
use sheetbend_fuzz::input::Input;
use sheetbend_fuzz::life;
use sheetbend_fuzz::pair::Pair;

use super::wire::with_frame;

fn plain() -> PathInfo {
    PathInfo::new("mem://fuzz", "mem", Security::Plain)
}

/// A record with a checksum around any body.
fn record(body: &[u8]) -> Vec<u8> {
    let mut out = OutBuffer::new();
    let mut builder = RecordBuilder::begin(&mut out, 1 << 20, true);
    builder.encoded(body);
    builder.finish();
    out.chunk().to_vec()
}

/// Any bytes, any bytes in a sound record, or sound frames in a sound record.
fn attack(input: &mut Input<'_>) -> Vec<u8> {
    match input.byte() % 4 {
        0 => {
            let len = input.size(300);
            input.take(len).to_vec()
        }
        1 => {
            let len = 1 + input.size(300);
            record(input.take(len))
        }
        _ => {
            let mut body = Vec::new();
            for _ in 0..1 + input.below(4) {
                let end = body.len();
                let mut more = Vec::new();
                let cell = std::cell::RefCell::new(&mut more);
                with_frame(input, |frame| frame.encode(&mut **cell.borrow_mut()));
                body.extend(more);
                // Around frames that are known bytes that are not, at times.
                if body.len() > end && input.byte() == 0 {
                    body[end] ^= input.byte();
                }
            }
            record(&body)
        }
    }
}

/// What an application does when it is told of things.
fn use_up(pair: &mut Pair) {
    let now = pair.now;
    pair.client_events.clear();
    pair.server_events.clear();
    for session in [Some(&mut pair.client), pair.server.as_mut()]
        .into_iter()
        .flatten()
    {
        for class in Class::ALL {
            while let Ok(Some(_)) = session.recv_message(now, class) {}
            for kind in [Kind::Bi, Kind::Uni] {
                while let Some(key) = session.accept(kind, class) {
                    let _ = session.write(key, b"an answer");
                    while let Ok(Read::Data(_)) = session.read(now, key, 1000) {}
                    if kind == Kind::Bi {
                        session.release_send(key);
                    }
                }
            }
        }
        while session.recv_datagram().is_some() {}
    }
}

/// Something to attack: streams with data in both directions, messages, datagrams.
fn busy(session: &mut Session, pair_now: sheetbend_core::time::Timestamp) {
    for class in [Class::REQUESTS, Class::BULK] {
        if let Ok(key) = session.open(Kind::Bi, class) {
            let _ = session.write(key, &[7; 3000]);
        }
        let _ = session.send_message(
            pair_now,
            class,
            Delivery::Ordered,
            Bytes::from_static(b"one"),
            true,
        );
        let _ = session.send_message(
            pair_now,
            class,
            Delivery::Unordered,
            Bytes::from_static(b"two"),
            true,
        );
    }
    let _ = session.send_datagram(pair_now, Bytes::from_static(b"three"));
}

/// NUMBERS "Remote panics": any bytes at every stage, at both ends; what they do is a typed error.
#[test]
fn any_stage() {
    check!().with_iterations(500).for_each(attack_ends);
}

pub(crate) fn attack_ends(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut pair = Pair::new(Config::default(), Config::default(), 77);
    pair.check = life::check;
    let mut link = pair.connect(plain()).expect("the first");
    let stage = input.byte() % 6;
    match stage {
        // HELLO under way, WELCOME under way, live.
        0 => pair.run_for(Duration::from_micros(100)),
        1 => pair.run_for(Duration::from_micros(600)),
        _ => pair.run_for(Duration::from_millis(50)),
    }
    if stage == 3 {
        link = pair.connect(plain()).expect("a second");
        pair.run_for(Duration::from_micros(u64::from(input.byte()) * 10));
    }
    if stage >= 4 {
        let now = pair.now;
        busy(&mut pair.client, now);
        pair.server.iter_mut().for_each(|server| busy(server, now));
        pair.run_for(Duration::from_micros(u64::from(input.byte()) * 10));
    }
    for _ in 0..24 {
        if input.is_empty() {
            break;
        }
        let up = input.flag();
        let bytes = attack(&mut input);
        if up {
            pair.inject_up(link, &bytes);
        } else {
            pair.inject_down(link, &bytes);
        }
        pair.run_for(Duration::from_micros(input.size(50_000) as u64));
        if input.flag() {
            use_up(&mut pair);
        }
    }
    pair.run_for(Duration::from_millis(500));
    use_up(&mut pair);
    pair.run_for(Duration::from_secs(30));
}

/// PROTOCOL 6: whoever has proven nothing harms nothing: a session of somebody else's goes on.
#[test]
fn strangers() {
    check!().with_iterations(500).for_each(attack_as_stranger);
}

pub(crate) fn attack_as_stranger(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut pair = Pair::connected(Config::default(), Config::default(), 78, plain());
    pair.check = life::check;
    for _ in 0..12 {
        if input.is_empty() {
            break;
        }
        let link = pair.stranger(plain());
        for _ in 0..1 + input.below(3) {
            let bytes = attack(&mut input);
            pair.inject_up(link, &bytes);
            pair.run_for(Duration::from_micros(input.size(5000) as u64));
        }
    }
    pair.run_for(Duration::from_millis(20));
    exchange(&mut pair);
}

/// A stream goes through, both ways.
fn exchange(pair: &mut Pair) {
    let key = pair.client.open(Kind::Bi, Class::REQUESTS).expect("credit");
    assert_eq!(pair.client.write(key, b"is it there?"), Ok(12));
    pair.client.finish(key).expect("open");
    pair.run_for(Duration::from_millis(50));
    let now = pair.now;
    let server = pair.server.as_mut().expect("it is there");
    let theirs = server.accept(Kind::Bi, Class::REQUESTS).expect("it came");
    let read = server.read(now, theirs, 100).expect("open");
    assert_eq!(read, Read::Data(Bytes::from_static(b"is it there?")));
    assert_eq!(server.read(now, theirs, 100), Ok(Read::Finished));
    assert_eq!(server.write(theirs, b"it is"), Ok(5));
    server.finish(theirs).expect("open");
    pair.run_for(Duration::from_millis(50));
    let answer = pair.client.read(pair.now, key, 100).expect("open");
    assert_eq!(answer, Read::Data(Bytes::from_static(b"it is")));
    assert_eq!(pair.client.state(), State::Connected);
}
