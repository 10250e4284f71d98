//! One end's application. It acts on events alone, so that an event that is missing is a stall; it knows what
//! it was promised, and says what is still owed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use sheetbend_core::session::{
    Cause, Delivery, DeliveryKind, Event, OpenError, Outcome, PathError, PathKey, Read, ReadInto, SendError,
    Session, State, StreamError, StreamKey,
};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, Kind, StreamId};

use crate::input::Input;

/// The code of a stream that its writer gave up.
pub const RESET: u64 = 7;
/// The code of a stream that its reader gave up.
pub const STOP: u64 = 8;

/// Every byte is known from what it belongs to and its offset.
fn byte_at(owner: u64, offset: u64) -> u8 {
    let mixed = (owner ^ (offset >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (8 * (offset & 7))) as u8
}

/// A payload that is known by its counter; the shortest is [`SHORTEST`] bytes.
fn payload(mode: u8, class: Class, counter: u32, len: usize) -> Bytes {
    let owner = u64::from(counter) << 16 | u64::from(mode) << 8 | u64::from(class.number());
    let mut bytes = counter.to_be_bytes().to_vec();
    bytes.push(mode);
    bytes.extend((0..len as u64).map(|offset| byte_at(owner, offset)));
    bytes.into()
}

const SHORTEST: usize = 5;

/// The counter of a payload, which must be whole.
fn counter(mode: u8, class: Class, bytes: &[u8]) -> u32 {
    let head = bytes.first_chunk().expect("a message is as long as it was");
    let counter = u32::from_be_bytes(*head);
    let whole = payload(mode, class, counter, bytes.len().saturating_sub(SHORTEST));
    assert_eq!(bytes, whole, "a payload is what it was");
    counter
}

const ORDERED: u8 = 0;
const UNORDERED: u8 = 1;
const UNRELIABLE: u8 = 2;
const DATAGRAM: u8 = 3;

/// A stream that this end writes.
struct Writer {
    key: StreamKey,
    id: StreamId,
    len: u64,
    written: u64,
    finished: bool,
    /// Given up by either end: nothing more is promised.
    broken: bool,
    /// Finished or given up, and let go.
    released: bool,
    told_finished: bool,
}

/// A stream that this end reads.
struct Reader {
    key: StreamKey,
    id: StreamId,
    read: u64,
    finished: bool,
    broken: bool,
    released: bool,
}

/// One end's application.
#[derive(Default)]
pub struct App {
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    may_write: BTreeSet<StreamKey>,
    may_read: BTreeSet<StreamKey>,
    may_accept: BTreeSet<(u8, u8)>,
    may_receive: BTreeSet<u8>,
    may_open: bool,
    may_send: bool,
    may_take_datagrams: bool,
    /// Of each class: ordered messages sent and received, and the lengths of those sent.
    ordered_sent: [Vec<usize>; 8],
    ordered_received: [Vec<usize>; 8],
    /// Classes in which an ordered message was sent, or refused for want of room: their channel is open.
    ordered_tried: BTreeSet<usize>,
    unordered_sent: BTreeMap<u32, usize>,
    unordered_received: BTreeMap<u32, usize>,
    unreliable_sent: u32,
    unreliable_received: BTreeSet<u32>,
    datagrams_sent: u32,
    datagrams_received: BTreeSet<u32>,
    tracked: BTreeMap<u64, Option<Outcome>>,
    state: Option<State>,
    up: BTreeSet<PathKey>,
    suspects: BTreeSet<PathKey>,
    /// Why the session ended, once it has.
    pub cause: Option<Cause>,
    /// Nothing is wrong and nothing is under way: no path has a reason to fail.
    pub calm: bool,
    /// Either end drains: nothing new is taken.
    pub draining: bool,
}

impl App {
    /// An application that has done nothing yet.
    pub fn new() -> App {
        let mut app = App {
            may_open: true,
            may_send: true,
            may_take_datagrams: true,
            ..App::default()
        };
        for class in 0..8 {
            app.may_receive.insert(class);
            app.may_accept.insert((0, class));
            app.may_accept.insert((1, class));
        }
        app
    }

    /// What the session reported.
    pub fn take_event(&mut self, event: Event) {
        match event {
            Event::State { from, to, cause } => {
                assert_eq!(from, self.state.unwrap_or(State::Disconnected), "to {to:?}");
                assert!(!from.is_terminal());
                self.state = Some(to);
                if to.is_terminal() {
                    self.cause = Some(cause);
                }
            }
            Event::PathUp(key) => assert!(self.up.insert(key), "{key:?} is up once"),
            Event::PathDown { path, error, .. } => {
                // PROTOCOL 5.6: early data ends a path whose HELLO comes second, and that is no mistake.
                if let Some(
                    PathError::AckOfUnsent { .. } | PathError::UnexpectedHandshake(_) | PathError::Flood(_),
                ) = error
                {
                    panic!("the peer keeps to the protocol: {error:?}");
                }
                if self.calm {
                    panic!("a sound path ended: {error:?}");
                }
                self.up.remove(&path);
                self.suspects.remove(&path);
            }
            Event::PathSuspect(key) => {
                assert!(!self.calm, "a sound path is suspect");
                assert!(self.suspects.insert(key), "{key:?} is suspect once");
            }
            Event::PathRecovered(key) => assert!(self.suspects.remove(&key), "{key:?} was suspect"),
            Event::Opened { kind, class } => {
                let uni = u8::from(kind == Kind::Uni);
                self.may_accept.insert((uni, class.number()));
            }
            Event::Credit { .. } => self.may_open = true,
            Event::Readable(key) => {
                self.may_read.insert(key);
            }
            Event::Writable(key) => {
                self.may_write.insert(key);
            }
            Event::Finished(key) => {
                let writer = self.writers.iter_mut().find(|writer| writer.key == key);
                let writer = writer.expect("only what is written finishes");
                assert!(writer.finished && !std::mem::replace(&mut writer.told_finished, true));
            }
            Event::Stopped(key, code) => {
                assert_eq!(code, STOP);
                for writer in self.writers.iter_mut().filter(|writer| writer.key == key) {
                    writer.broken = true;
                }
            }
            Event::MessageReady(class) => {
                self.may_receive.insert(class.number());
            }
            Event::DatagramReady => self.may_take_datagrams = true,
            Event::MessageSpace => self.may_send = true,
            Event::Outcome { id, outcome } => {
                let told = self.tracked.get_mut(&id.0);
                let told = told.expect("only tracked messages are told of");
                assert_eq!(told.replace(outcome), None, "{id:?} is told once");
            }
            Event::GoAway { .. } => self.draining = true,
            _ => {}
        }
    }

    // ---- beginning something ----

    /// Opens a stream that will carry up to `len` bytes.
    pub fn open(&mut self, session: &mut Session, kind: Kind, class: Class, len: u64) {
        if !self.may_open {
            return;
        }
        match session.open(kind, class) {
            Ok(key) => {
                let id = session.stream_id(key).expect("new");
                self.write_on(key, id, len);
                if kind == Kind::Bi {
                    self.read_from(key, id);
                }
            }
            Err(OpenError::Exhausted) => self.may_open = false,
            Err(OpenError::Draining) => assert!(self.draining),
            Err(OpenError::Ended) => assert!(session.state().is_terminal()),
            Err(error) => panic!("{error}"),
        }
    }

    fn write_on(&mut self, key: StreamKey, id: StreamId, len: u64) {
        self.may_write.insert(key);
        self.writers.push(Writer {
            key,
            id,
            len,
            written: 0,
            finished: false,
            broken: false,
            released: false,
            told_finished: false,
        });
    }

    fn read_from(&mut self, key: StreamKey, id: StreamId) {
        self.may_read.insert(key);
        self.readers.push(Reader {
            key,
            id,
            read: 0,
            finished: false,
            broken: false,
            released: false,
        });
    }

    /// Sends a message, or a datagram.
    pub fn send(&mut self, input: &mut Input<'_>, session: &mut Session, now: Timestamp, class: Class) {
        let mode = (input.byte() % 4).min(DATAGRAM);
        if mode == DATAGRAM {
            let bytes = payload(DATAGRAM, Class::CONTROL, self.datagrams_sent, input.size(2000));
            match session.send_datagram(now, bytes) {
                Ok(()) => self.datagrams_sent += 1,
                Err(SendError::Full | SendError::TooLarge { .. }) => {}
                Err(error) => self.refused(session, &error),
            }
            return;
        }
        if !self.may_send {
            return;
        }
        let (number, delivery, most) = match mode {
            ORDERED => (self.ordered_sent[class.index()].len(), Delivery::Ordered, 45_000),
            UNORDERED => (self.unordered_sent.len(), Delivery::Unordered, 45_000),
            _ => {
                let ttl = Duration::from_millis(10 * u64::from(input.byte()));
                (self.unreliable_sent as usize, Delivery::Unreliable { ttl }, 2000)
            }
        };
        let (len, track) = (input.size(most), input.flag());
        let bytes = payload(mode, class, number as u32, len);
        if mode == ORDERED {
            self.ordered_tried.insert(class.index());
        }
        match session.send_message(now, class, delivery, bytes, track) {
            Ok(id) => {
                if track {
                    assert_eq!(self.tracked.insert(id.0, None), None, "ids are used once");
                }
                match mode {
                    ORDERED => self.ordered_sent[class.index()].push(len + SHORTEST),
                    UNORDERED => {
                        self.unordered_sent.insert(number as u32, len + SHORTEST);
                    }
                    _ => self.unreliable_sent += 1,
                }
            }
            Err(SendError::Full) => self.may_send = false,
            Err(SendError::TooLarge { .. }) if mode == UNRELIABLE => {}
            Err(error) => self.refused(session, &error),
        }
    }

    fn refused(&self, session: &Session, error: &SendError) {
        match error {
            SendError::Draining => assert!(self.draining),
            SendError::Ended => assert!(session.state().is_terminal()),
            error => panic!("{error}"),
        }
    }

    // ---- going on ----

    /// Writes on one of the streams, at most `most` bytes, and ends it when all is written.
    pub fn write(&mut self, session: &mut Session, place: usize, most: usize, shared: bool) {
        let open = |writer: &&mut Writer| !writer.finished && !writer.broken;
        let count = self.writers.iter_mut().filter(|writer| open(writer)).count();
        if count == 0 {
            return;
        }
        let nth = self.writers.iter_mut().filter(open).nth(place % count);
        let writer = nth.expect("counted");
        if !self.may_write.contains(&writer.key) {
            return;
        }
        let end = writer.len.min(writer.written.saturating_add(most as u64));
        let owner = writer.id.value();
        let data: Vec<u8> = (writer.written..end)
            .map(|offset| byte_at(owner, offset))
            .collect();
        let taken = if shared {
            session.write_bytes(writer.key, &mut Bytes::from(data))
        } else {
            session.write(writer.key, &data)
        };
        match taken {
            Ok(taken) => {
                writer.written += taken as u64;
                if writer.written == writer.len {
                    session.finish(writer.key).expect("open");
                    writer.finished = true;
                } else if taken == 0 && end > writer.written {
                    self.may_write.remove(&writer.key);
                }
            }
            // It may be stopped before it is accepted.
            Err(StreamError::Stopped(code)) => {
                assert_eq!(code, STOP);
                writer.broken = true;
            }
            Err(StreamError::SessionEnded | StreamError::Unknown) if session.state().is_terminal() => {
                writer.broken = true;
            }
            Err(error) => panic!("{:?}: {error}", writer.id),
        }
    }

    /// Takes what the peer opened.
    pub fn accept(&mut self, input: &mut Input<'_>, session: &mut Session) {
        for (uni, number) in std::mem::take(&mut self.may_accept) {
            let kind = if uni == 1 { Kind::Uni } else { Kind::Bi };
            let class = Class::new(number).expect("small");
            while let Some(key) = session.accept(kind, class) {
                // One that the session's end settled is gone before it is accepted.
                let Some(id) = session.stream_id(key) else {
                    continue;
                };
                if kind == Kind::Bi {
                    self.write_on(key, id, input.size(60_000) as u64);
                }
                self.read_from(key, id);
            }
        }
    }

    /// Reads from one of the streams, at most `most` bytes.
    pub fn read(&mut self, session: &mut Session, now: Timestamp, place: usize, mut most: usize, copy: bool) {
        let open = |reader: &&mut Reader| !reader.finished && !reader.broken;
        let count = self.readers.iter_mut().filter(|reader| open(reader)).count();
        if count == 0 {
            return;
        }
        let nth = self.readers.iter_mut().filter(open).nth(place % count);
        let reader = nth.expect("counted");
        if !self.may_read.contains(&reader.key) {
            return;
        }
        let mut buffer = [0; 512];
        while most > 0 {
            let found = if copy {
                let room = most.min(buffer.len());
                session
                    .read_into(now, reader.key, &mut buffer[..room])
                    .map(|found| match found {
                        ReadInto::Copied(len) => Read::Data(Bytes::copy_from_slice(&buffer[..len])),
                        ReadInto::Blocked => Read::Blocked,
                        ReadInto::Finished => Read::Finished,
                    })
            } else {
                session.read(now, reader.key, most)
            };
            match found {
                Ok(Read::Data(data)) => {
                    assert!(!data.is_empty() && data.len() <= most);
                    most -= data.len();
                    for byte in data {
                        let right = byte_at(reader.id.value(), reader.read);
                        assert_eq!(byte, right, "{:?} at {}", reader.id, reader.read);
                        reader.read += 1;
                    }
                }
                Ok(Read::Blocked) => {
                    self.may_read.remove(&reader.key);
                    return;
                }
                Ok(Read::Finished) => {
                    reader.finished = true;
                    return;
                }
                Err(StreamError::Reset(code)) => {
                    assert!(code == RESET || code == STOP || code == 0, "{code}");
                    reader.broken = true;
                    return;
                }
                Err(StreamError::SessionEnded | StreamError::Unknown) if session.state().is_terminal() => {
                    reader.broken = true;
                    return;
                }
                Err(error) => panic!("{:?}: {error}", reader.id),
            }
        }
    }

    /// Takes all messages and datagrams that there are.
    pub fn receive(&mut self, session: &mut Session, now: Timestamp, copy: bool) {
        let mut buffer = Vec::new();
        for number in std::mem::take(&mut self.may_receive) {
            let class = Class::new(number).expect("small");
            loop {
                if copy && self.ordered_received[class.index()].len() % 2 == 1 {
                    match session.recv_message_into(now, class, &mut buffer) {
                        Ok(true) => self.got_some(class, &buffer),
                        Ok(false) => break,
                        Err(error) => panic!("{error}"),
                    }
                    continue;
                }
                match session.recv_message(now, class) {
                    Ok(Some(message)) => self.got(class, message.delivery, &message.payload),
                    Ok(None) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        while std::mem::take(&mut self.may_take_datagrams) {
            if let Some(datagram) = session.recv_datagram() {
                let counter = counter(DATAGRAM, Class::CONTROL, &datagram);
                assert!(self.datagrams_received.insert(counter), "datagram {counter} once");
                self.may_take_datagrams = true;
            }
        }
    }

    /// The call that copies tells nothing of the mode: the payload does.
    fn got_some(&mut self, class: Class, bytes: &[u8]) {
        let delivery = match bytes.get(SHORTEST - 1) {
            Some(&ORDERED) => DeliveryKind::Ordered,
            Some(&UNORDERED) => DeliveryKind::Unordered,
            Some(&UNRELIABLE) => DeliveryKind::Unreliable,
            _ => panic!("a payload is what it was"),
        };
        self.got(class, delivery, bytes);
    }

    fn got(&mut self, class: Class, delivery: DeliveryKind, bytes: &[u8]) {
        match delivery {
            DeliveryKind::Ordered => {
                let number = counter(ORDERED, class, bytes);
                let received = &mut self.ordered_received[class.index()];
                assert_eq!(number as usize, received.len(), "in order");
                received.push(bytes.len());
            }
            DeliveryKind::Unordered => {
                let number = counter(UNORDERED, class, bytes);
                let before = self.unordered_received.insert(number, bytes.len());
                assert_eq!(before, None, "message {number} once");
            }
            DeliveryKind::Unreliable => {
                let number = counter(UNRELIABLE, class, bytes);
                assert!(self.unreliable_received.insert(number), "message {number} once");
            }
        }
    }

    /// Gives a stream up that this end writes.
    pub fn reset(&mut self, session: &mut Session, place: usize) {
        let count = self.writers.len();
        let Some(writer) = self.writers.get_mut(place % count.max(1)) else {
            return;
        };
        if !writer.released && session.reset(writer.key, RESET).is_ok() {
            writer.broken = true;
        }
    }

    /// Wants no more of a stream that the peer writes.
    pub fn stop(&mut self, session: &mut Session, place: usize) {
        let count = self.readers.len();
        let Some(reader) = self.readers.get_mut(place % count.max(1)) else {
            return;
        };
        if !reader.released && session.stop_sending(reader.key, STOP).is_ok() {
            reader.broken = true;
        }
    }

    /// Moves a stream to another urgency.
    pub fn set_urgency(&mut self, session: &mut Session, place: usize, urgency: u8) {
        let count = self.writers.len();
        if let Some(writer) = self.writers.get(place % count.max(1)) {
            let _ = session.set_urgency(writer.key, urgency);
        }
    }

    /// Lets go of what is done.
    pub fn release(&mut self, session: &mut Session) {
        let ended = session.state().is_terminal();
        for writer in &mut self.writers {
            if (writer.finished || writer.broken || ended) && !writer.released {
                writer.released = true;
                // It is told of no end that it did not wait for.
                session.release_send(writer.key);
            }
        }
        for reader in &mut self.readers {
            if (reader.finished || reader.broken || ended) && !reader.released {
                reader.released = true;
                session.release_recv(reader.key);
            }
        }
    }

    /// Goes on with everything that events said can go on.
    pub fn work(&mut self, session: &mut Session, now: Timestamp) {
        self.accept(&mut Input::new(&[]), session);
        for place in (0..self.readers.len()).rev() {
            self.read(session, now, place, usize::MAX, false);
        }
        self.receive(session, now, false);
        for place in (0..self.writers.len()).rev() {
            self.write(session, place, usize::MAX, true);
        }
        self.release(session);
    }

    // ---- what is owed ----

    /// What is still owed to this end's writers, in words.
    pub fn owed(&self, peer: &App) -> Option<String> {
        for writer in self.writers.iter().filter(|writer| !writer.broken) {
            let reader = peer.readers.iter().find(|reader| reader.id == writer.id);
            match reader {
                Some(reader) if reader.broken => {}
                Some(reader) if reader.finished => assert_eq!(reader.read, writer.len, "{:?}", writer.id),
                _ => {
                    let read = reader.map(|reader| reader.read);
                    let (id, len, written) = (writer.id, writer.len, writer.written);
                    return Some(format!("{id:?}: {written} written of {len}, {read:?} read"));
                }
            }
        }
        if self.ordered_sent != peer.ordered_received {
            return Some("ordered messages".to_owned());
        }
        if self.unordered_sent != peer.unordered_received {
            let (got, sent) = (peer.unordered_received.len(), self.unordered_sent.len());
            return Some(format!("unordered messages: {got} of {sent}"));
        }
        let open = self.tracked.iter().find(|(_, told)| told.is_none());
        open.map(|(id, _)| format!("no word about message {id:x}"))
    }

    /// What holds once nothing is owed, while the session stands.
    pub fn check_kept(&self) {
        for (id, told) in self.tracked.iter().filter(|(id, _)| **id < 1 << 62) {
            assert_eq!(told, &Some(Outcome::Acknowledged), "message {id:x}");
        }
    }

    /// How many streams are left when nothing is owed: the channels of ordered messages, both ways.
    pub fn channels(&self, peer: &App) -> usize {
        let sent = self.ordered_tried.len();
        let received = peer.ordered_sent.iter().filter(|sent| !sent.is_empty()).count();
        sent + received
    }

    /// What holds once the session has ended, however it did.
    pub fn check_ended(&self, peer: &App) {
        for (id, told) in &self.tracked {
            assert!(told.is_some(), "no word about message {id:x}");
        }
        for class in 0..8 {
            let (sent, received) = (&self.ordered_sent[class], &peer.ordered_received[class]);
            assert!(
                sent.starts_with(received),
                "what came of class {class} is the beginning of what went"
            );
        }
        for reader in &self.readers {
            let may = reader.finished || reader.broken || self.may_read.contains(&reader.key);
            assert!(may, "{:?}: its reader waits for ever", reader.id);
        }
        for writer in &self.writers {
            let may = writer.finished || writer.broken || self.may_write.contains(&writer.key);
            assert!(may, "{:?}: its writer waits for ever", writer.id);
        }
    }
}
