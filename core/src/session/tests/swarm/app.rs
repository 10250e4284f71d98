//! The application at one end of a random run: what it promised itself, and what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::super::super::*;
use crate::rng::Rng;
use crate::wire::{Class, Kind, StreamId};

/// Every byte of a stream is known from its id and its offset.
pub(super) fn byte_at(id: StreamId, offset: u64) -> u8 {
    let mixed = (id.value() ^ (offset >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (8 * (offset & 7))) as u8
}

pub(super) fn below(rng: &mut Rng, bound: u64) -> u64 {
    rng.next_u64() % bound.max(1)
}

pub(super) fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[below(rng, from.len() as u64) as usize]
}

/// A stream that this end writes.
pub(super) struct Writer {
    pub(super) key: StreamKey,
    pub(super) id: StreamId,
    pub(super) len: u64,
    pub(super) written: u64,
    pub(super) finished: bool,
    /// Given up by either end: nothing more is promised.
    pub(super) broken: bool,
}

/// A stream that this end reads.
pub(super) struct Reader {
    pub(super) key: StreamKey,
    pub(super) id: StreamId,
    pub(super) read: u64,
    pub(super) finished: bool,
    pub(super) broken: bool,
}

/// One end's application. It acts on events alone: an event that is missing is a stall.
#[derive(Default)]
pub(super) struct App {
    pub(super) writers: Vec<Writer>,
    pub(super) readers: Vec<Reader>,
    pub(super) may_write: BTreeSet<StreamKey>,
    pub(super) may_read: BTreeSet<StreamKey>,
    pub(super) may_accept: BTreeSet<(u8, u8)>,
    pub(super) may_receive: BTreeSet<u8>,
    pub(super) may_open: bool,
    pub(super) may_send: bool,
    pub(super) datagrams_wait: bool,
    /// Of each class: ordered messages sent and received.
    pub(super) ordered_sent: [u32; 8],
    pub(super) ordered_received: [u32; 8],
    pub(super) unordered_sent: u32,
    pub(super) unordered_received: BTreeSet<u32>,
    pub(super) unreliable_sent: u32,
    pub(super) unreliable_received: BTreeSet<u32>,
    pub(super) datagrams_sent: u32,
    pub(super) datagrams_received: BTreeSet<u32>,
    pub(super) tracked: BTreeMap<u64, Option<Outcome>>,
    pub(super) state: Option<State>,
    pub(super) up: BTreeSet<PathKey>,
}

impl App {
    pub(super) fn new() -> App {
        let mut app = App {
            may_open: true,
            may_send: true,
            datagrams_wait: true,
            ..App::default()
        };
        for class in 0..8 {
            app.may_receive.insert(class);
            app.may_accept.insert((0, class));
            app.may_accept.insert((1, class));
        }
        app
    }

    pub(super) fn take_event(&mut self, event: Event) {
        match event {
            Event::State { from, to, .. } => {
                assert_eq!(from, self.state.unwrap_or(State::Disconnected), "to {to:?}");
                assert!(!from.is_terminal());
                self.state = Some(to);
            }
            Event::PathUp(key) => assert!(self.up.insert(key), "{key:?} is up once"),
            Event::PathDown { path, .. } => {
                self.up.remove(&path);
            }
            Event::PathSuspect(_)
            | Event::PathMute(_)
            | Event::PathSilent(_)
            | Event::PathRecovered(_)
            | Event::PathMoved { .. }
            | Event::Switched { .. }
            | Event::Standstill(_)
            | Event::Quiet => {}
            Event::Opened { kind, class } => {
                self.may_accept
                    .insert((u8::from(kind == Kind::Uni), class.number()));
            }
            Event::Credit { .. } => self.may_open = true,
            Event::Readable(key) => {
                self.may_read.insert(key);
            }
            Event::Writable(key) => {
                self.may_write.insert(key);
            }
            Event::Finished(_) => {}
            Event::Stopped(key, _) => {
                for writer in self.writers.iter_mut().filter(|writer| writer.key == key) {
                    writer.broken = true;
                }
            }
            Event::MessageReady(class) => {
                self.may_receive.insert(class.number());
            }
            Event::DatagramReady => self.datagrams_wait = true,
            Event::MessageSpace => self.may_send = true,
            Event::Outcome { id, outcome } => {
                let told = self
                    .tracked
                    .get_mut(&id.0)
                    .expect("only tracked messages are told of");
                assert_eq!(told.replace(outcome), None, "{id:?} is told once");
            }
            Event::MessageTooLarge { .. } => panic!("none is"),
            Event::GoAway { .. } => panic!("nobody drains"),
        }
    }

    /// Starts something new.
    pub(super) fn begin(&mut self, rng: &mut Rng, session: &mut Session, now: Timestamp) {
        let class = Class::new(below(rng, 4) as u8).expect("small");
        match below(rng, 8) {
            0..=2 if self.may_open => {
                let kind = pick(rng, &[Kind::Bi, Kind::Uni]);
                match session.open(kind, class) {
                    Ok(key) => {
                        let id = session.stream_id(key).expect("new");
                        self.attach(key, id, kind == Kind::Bi, true, rng);
                    }
                    Err(OpenError::Exhausted) => self.may_open = false,
                    Err(error) => panic!("{error}"),
                }
            }
            3..=5 if self.may_send => self.send(rng, session, now, class),
            6 => {
                let mut payload = self.datagrams_sent.to_be_bytes().to_vec();
                payload.resize(4 + below(rng, 1000) as usize, 0);
                match session.send_datagram(now, payload.into()) {
                    Ok(()) => self.datagrams_sent += 1,
                    Err(SendError::Full | SendError::TooLarge { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            7 if !self.writers.is_empty() && below(rng, 4) == 0 => {
                let place = below(rng, self.writers.len() as u64) as usize;
                let writer = &mut self.writers[place];
                if session.reset(writer.key, 7).is_ok() {
                    writer.broken = true;
                }
            }
            _ if !self.readers.is_empty() && below(rng, 16) == 0 => {
                let place = below(rng, self.readers.len() as u64) as usize;
                let reader = &mut self.readers[place];
                if session.stop_sending(reader.key, 8).is_ok() {
                    reader.broken = true;
                }
            }
            _ => {}
        }
    }

    pub(super) fn attach(&mut self, key: StreamKey, id: StreamId, both: bool, ours: bool, rng: &mut Rng) {
        let len = match below(rng, 4) {
            0 => below(rng, 10),
            1 => below(rng, 5000),
            2 => below(rng, 50_000),
            _ => below(rng, 300_000),
        };
        if ours || both {
            self.writers.push(Writer {
                key,
                id,
                len,
                written: 0,
                finished: false,
                broken: false,
            });
            self.may_write.insert(key);
        }
        if !ours || both {
            self.readers.push(Reader {
                key,
                id,
                read: 0,
                finished: false,
                broken: false,
            });
            self.may_read.insert(key);
        }
    }

    pub(super) fn send(&mut self, rng: &mut Rng, session: &mut Session, now: Timestamp, class: Class) {
        let mode = below(rng, 3);
        let (counter, delivery) = match mode {
            0 => (self.ordered_sent[class.index()], Delivery::Ordered),
            1 => (self.unordered_sent, Delivery::Unordered),
            _ => {
                let ttl = Duration::from_millis(below(rng, 3000));
                (self.unreliable_sent, Delivery::Unreliable { ttl })
            }
        };
        let most = pick(rng, &[0, 100, 3000, if mode == 2 { 4000 } else { 40_000 }]);
        let mut payload = vec![0; 4 + below(rng, most) as usize];
        payload[..4].copy_from_slice(&counter.to_be_bytes());
        let track = below(rng, 2) == 0;
        match session.send_message(now, class, delivery, payload.into(), track) {
            Ok(id) => {
                if track {
                    assert_eq!(self.tracked.insert(id.0, None), None, "ids are used once");
                }
                match mode {
                    0 => self.ordered_sent[class.index()] += 1,
                    1 => self.unordered_sent += 1,
                    _ => self.unreliable_sent += 1,
                }
            }
            Err(SendError::Full) => self.may_send = false,
            Err(SendError::TooLarge { .. }) if mode == 2 => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Goes on with what events said can go on.
    pub(super) fn work(&mut self, rng: &mut Rng, session: &mut Session, now: Timestamp, lazy: bool) {
        if !lazy || below(rng, 3) > 0 {
            self.accept(rng, session);
            self.read(rng, session, now, lazy);
            self.receive(session, now);
        }
        for place in 0..self.writers.len() {
            let writer = &mut self.writers[place];
            if writer.finished || writer.broken || !self.may_write.contains(&writer.key) {
                continue;
            }
            let most = if lazy { 1 + below(rng, 20_000) } else { u64::MAX };
            let end = writer.len.min(writer.written.saturating_add(most));
            let data: Vec<u8> = (writer.written..end)
                .map(|offset| byte_at(writer.id, offset))
                .collect();
            let taken = if below(rng, 2) == 0 {
                session.write(writer.key, &data)
            } else {
                session.write_bytes(writer.key, &mut Bytes::from(data))
            };
            // A stream may be stopped before it is accepted.
            if taken == Err(StreamError::Stopped(8)) {
                writer.broken = true;
                continue;
            }
            writer.written += taken.expect("open") as u64;
            if writer.written == writer.len {
                session.finish(writer.key).expect("open");
                writer.finished = true;
            } else if taken == Ok(0) && end > writer.written {
                self.may_write.remove(&writer.key);
            }
        }
    }

    pub(super) fn accept(&mut self, rng: &mut Rng, session: &mut Session) {
        for (uni, class) in self.may_accept.clone() {
            let kind = if uni == 1 { Kind::Uni } else { Kind::Bi };
            while let Some(key) = session.accept(kind, Class::new(class).expect("small")) {
                let id = session.stream_id(key).expect("new");
                self.attach(key, id, kind == Kind::Bi, false, rng);
            }
            self.may_accept.remove(&(uni, class));
        }
    }

    pub(super) fn read(&mut self, rng: &mut Rng, session: &mut Session, now: Timestamp, lazy: bool) {
        for reader in &mut self.readers {
            if reader.finished || reader.broken || !self.may_read.contains(&reader.key) {
                continue;
            }
            let mut left = if lazy {
                1 + below(rng, 30_000) as usize
            } else {
                usize::MAX
            };
            while left > 0 {
                match session.read(now, reader.key, left) {
                    Ok(Read::Data(data)) => {
                        left -= data.len();
                        for byte in data {
                            assert_eq!(byte, byte_at(reader.id, reader.read), "{:?}", reader.id);
                            reader.read += 1;
                        }
                    }
                    Ok(Read::Blocked) => {
                        self.may_read.remove(&reader.key);
                        break;
                    }
                    Ok(Read::Finished) => {
                        reader.finished = true;
                        break;
                    }
                    Err(StreamError::Reset(7 | 8)) => {
                        reader.broken = true;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    pub(super) fn receive(&mut self, session: &mut Session, now: Timestamp) {
        for number in std::mem::take(&mut self.may_receive) {
            let class = Class::new(number).expect("small");
            while let Some(message) = session.recv_message(now, class).expect("sound") {
                let counter = u32::from_be_bytes(message.payload[..4].try_into().expect("four"));
                match message.delivery {
                    DeliveryKind::Ordered => {
                        let next = &mut self.ordered_received[class.index()];
                        assert_eq!(counter, *next, "in order");
                        *next += 1;
                    }
                    DeliveryKind::Unordered => assert!(self.unordered_received.insert(counter), "once"),
                    DeliveryKind::Unreliable => assert!(self.unreliable_received.insert(counter), "once"),
                }
            }
        }
        while std::mem::take(&mut self.datagrams_wait) {
            if let Some(datagram) = session.recv_datagram() {
                let counter = u32::from_be_bytes(datagram[..4].try_into().expect("four"));
                assert!(self.datagrams_received.insert(counter), "once");
                self.datagrams_wait = true;
            }
        }
    }

    /// What is still promised to this end's writers, in words.
    pub(super) fn unkept(&self, peer: &App) -> Option<String> {
        for writer in &self.writers {
            if writer.broken {
                continue;
            }
            let reader = peer.readers.iter().find(|reader| reader.id == writer.id);
            match reader {
                Some(reader) if reader.broken => {}
                Some(reader) if reader.finished => assert_eq!(reader.read, writer.len),
                _ => {
                    let read = reader.map(|reader| reader.read);
                    let (len, written) = (writer.len, writer.written);
                    return Some(format!(
                        "{:?}: {written} written of {len}, {read:?} read",
                        writer.id
                    ));
                }
            }
        }
        if self.ordered_sent != peer.ordered_received {
            return Some(format!(
                "ordered {:?} {:?}",
                self.ordered_sent, peer.ordered_received
            ));
        }
        if self.unordered_sent as usize != peer.unordered_received.len() {
            let got = peer.unordered_received.len();
            return Some(format!("unordered {} of {}", got, self.unordered_sent));
        }
        let open = self.tracked.iter().find(|(_, told)| told.is_none());
        open.map(|(id, _)| format!("no word about message {id:x}"))
    }
}
