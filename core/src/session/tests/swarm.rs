//! Random configurations, workloads and faults from a seed; after them everything that was promised must
//! be kept (NUMBERS "The simulator's own bars": exactly once, in order, flow-control bounds, legal
//! transitions, no stall).
//!
//! A failing seed is printed with the command that runs it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::{Options, World};
use crate::handshake::Security;
use crate::rng::Rng;
use crate::wire::{Class, Kind, StreamId};

const SEEDS: u64 = 250;
/// Seeds that found something once.
const KNOWN: [u64; 1] = [474];
const SEED_VARIABLE: &str = "SHEETBEND_SWARM_SEED";

/// Every byte of a stream is known from its id and its offset.
fn byte_at(id: StreamId, offset: u64) -> u8 {
    let mixed = (id.value() ^ (offset >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (8 * (offset & 7))) as u8
}

fn below(rng: &mut Rng, bound: u64) -> u64 {
    rng.next_u64() % bound.max(1)
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[below(rng, from.len() as u64) as usize]
}

/// A stream that this end writes.
struct Writer {
    key: StreamKey,
    id: StreamId,
    len: u64,
    written: u64,
    finished: bool,
    /// Given up by either end: nothing more is promised.
    broken: bool,
}

/// A stream that this end reads.
struct Reader {
    key: StreamKey,
    id: StreamId,
    read: u64,
    finished: bool,
    broken: bool,
}

/// One end's application. It acts on events alone: an event that is missing is a stall.
#[derive(Default)]
struct App {
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    may_write: BTreeSet<StreamKey>,
    may_read: BTreeSet<StreamKey>,
    may_accept: BTreeSet<(u8, u8)>,
    may_receive: BTreeSet<u8>,
    may_open: bool,
    may_send: bool,
    datagrams_wait: bool,
    /// Of each class: ordered messages sent and received.
    ordered_sent: [u32; 8],
    ordered_received: [u32; 8],
    unordered_sent: u32,
    unordered_received: BTreeSet<u32>,
    unreliable_sent: u32,
    unreliable_received: BTreeSet<u32>,
    datagrams_sent: u32,
    datagrams_received: BTreeSet<u32>,
    tracked: BTreeMap<u64, Option<Outcome>>,
    state: Option<State>,
    up: BTreeSet<PathKey>,
}

impl App {
    fn new() -> App {
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

    fn take_event(&mut self, event: Event) {
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
            Event::PathSuspect(_) | Event::PathRecovered(_) | Event::Switched { .. } | Event::Quiet => {}
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
            Event::GoAway { .. } => panic!("nobody drains"),
        }
    }

    /// Starts something new.
    fn begin(&mut self, rng: &mut Rng, session: &mut Session, now: Timestamp) {
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

    fn attach(&mut self, key: StreamKey, id: StreamId, both: bool, ours: bool, rng: &mut Rng) {
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

    fn send(&mut self, rng: &mut Rng, session: &mut Session, now: Timestamp, class: Class) {
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
    fn work(&mut self, rng: &mut Rng, session: &mut Session, now: Timestamp, lazy: bool) {
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

    fn accept(&mut self, rng: &mut Rng, session: &mut Session) {
        for (uni, class) in self.may_accept.clone() {
            let kind = if uni == 1 { Kind::Uni } else { Kind::Bi };
            while let Some(key) = session.accept(kind, Class::new(class).expect("small")) {
                let id = session.stream_id(key).expect("new");
                self.attach(key, id, kind == Kind::Bi, false, rng);
            }
            self.may_accept.remove(&(uni, class));
        }
    }

    fn read(&mut self, rng: &mut Rng, session: &mut Session, now: Timestamp, lazy: bool) {
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

    fn receive(&mut self, session: &mut Session, now: Timestamp) {
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
    fn unkept(&self, peer: &App) -> Option<String> {
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

/// What must hold at every moment.
fn check(session: &Session) {
    let mut buffered = [0; Class::COUNT];
    let mut partial = [0; Class::COUNT];
    for key in session.streams.keys() {
        let stream = session.streams.get(key).expect("listed");
        let class = stream.id.class().index();
        partial[class] += stream.partial;
        if let Some(send) = &stream.send {
            buffered[class] += send.buffered();
        }
        if let Some(recv) = &stream.recv {
            assert!(recv.highest() <= recv.window().limit());
        }
    }
    assert_eq!(
        session.buffered,
        buffered.iter().sum::<u64>(),
        "bytes are conserved"
    );
    for index in session.classes.all_used() {
        let class = session.classes.used(index).expect("used");
        assert_eq!(class.buffered, buffered[index]);
        assert_eq!(class.partial, partial[index]);
        assert!(class.sent <= class.send_limit, "class {index} within its credit");
        assert!(class.received <= class.window.limit());
        assert!(class.window.consumed() <= class.received, "nothing is read twice");
    }
    for (_, path) in &session.paths {
        for lane in &path.lanes {
            let eliciting = lane.sent.records.iter().filter(|record| record.eliciting);
            assert_eq!(
                lane.sent.in_flight,
                eliciting.map(|record| u64::from(record.bytes)).sum::<u64>()
            );
            let items: usize = lane.sent.records.iter().map(|record| record.items as usize).sum();
            assert_eq!(lane.sent.items.len(), items);
        }
    }
    assert!(session.paths.len() <= MAX_PATHS);
}

fn config(rng: &mut Rng) -> Config {
    let mut config = Config::default();
    let params = &mut config.params;
    params.max_data = [pick(rng, &[20_000, 100_000, 1 << 20]); 8];
    params.max_stream_data = [pick(rng, &[2000, 30_000, 256 << 10]); 8];
    params.max_record = pick(rng, &[1200, 5000, 65_536]);
    params.max_message = 50_000;
    params.lz4 = below(rng, 3) == 0;
    params.in_flight = pick(rng, &[4096, 64 << 10, 256 << 10]);
    params.max_ack_delay = Duration::from_millis(pick(rng, &[0, 1, 25]));
    params.heartbeat = Duration::from_millis(pick(rng, &[200, 5000]));
    for limits in &mut params.max_streams {
        limits.bi = pick(rng, &[1, 5, 100]);
        limits.uni = pick(rng, &[1, 5, 100]);
        limits.unordered = pick(rng, &[1, 5, 100]);
    }
    config.max_send_buffer = pick(rng, &[20_000, 100_000, 1 << 25]);
    config.max_message_queue = pick(rng, &[5000, 200_000]);
    config.early_data = below(rng, 3) == 0;
    config
}

struct Run {
    world: World,
    rng: Rng,
    apps: [App; 2],
    check: bool,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut bytes = [0x5b; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::from_seed(bytes);
        let options = Options {
            client: config(&mut rng),
            server: config(&mut rng),
            seed,
        };
        let mut run = Run {
            world: World::new(options),
            rng,
            apps: [App::new(), App::new()],
            check: true,
        };
        run.connect();
        run
    }

    fn connect(&mut self) {
        let info = PathInfo::new("mem://swarm", "mem", Security::Plain);
        if let Ok(link) = self.world.connect_with(info) {
            self.world.links[link].delay = Duration::from_micros(pick(&mut self.rng, &[100, 1000, 15_000]));
            self.world.links[link].rate = pick(&mut self.rng, &[0, 0, 300_000, 10_000_000]);
        }
    }

    fn fault(&mut self) {
        let live: Vec<usize> = (0..self.world.links.len())
            .filter(|&link| !self.world.links[link].dead)
            .collect();
        if live.is_empty() {
            return self.connect();
        }
        let link = pick(&mut self.rng, &live);
        match below(&mut self.rng, 10) {
            0 => self.world.cut(link),
            1 => self.world.end(link, PathEnd::Eof),
            2 => self.world.stall(link, true, false),
            3 => self.world.stall(link, false, true),
            4 => self.world.stall(link, true, true),
            5 | 6 => live.iter().for_each(|&link| self.world.stall(link, false, false)),
            7 if below(&mut self.rng, 2) == 0 => self.world.links[link].corrupt_up = true,
            7 => self.world.links[link].corrupt_down = true,
            8 => self.world.links[link].delay = Duration::from_micros(below(&mut self.rng, 30_000)),
            _ => self.connect(),
        }
    }

    fn step(&mut self, lazy: bool) {
        let time = Duration::from_micros(below(&mut self.rng, if lazy { 20_000 } else { 2000 }));
        self.world.run_for(time);
        let now = self.world.now;
        let Run {
            world,
            rng,
            apps,
            check: checking,
        } = self;
        for event in std::mem::take(&mut world.client_events) {
            apps[0].take_event(event);
        }
        for event in std::mem::take(&mut world.server_events) {
            apps[1].take_event(event);
        }
        apps[0].work(rng, &mut world.client, now, lazy);
        if let Some(server) = &mut world.server {
            apps[1].work(rng, server, now, lazy);
        }
        if *checking {
            check(&world.client);
            world.server.iter().for_each(check);
        }
    }

    fn unkept(&self) -> Option<String> {
        let [client, server] = &self.apps;
        let words = client.unkept(server).map(|words| format!("client {words}"));
        words.or_else(|| server.unkept(client).map(|words| format!("server {words}")))
    }

    fn go(&mut self) {
        for _ in 0..50 {
            for _ in 0..below(&mut self.rng, 4) {
                let now = self.world.now;
                let (world, rng) = (&mut self.world, &mut self.rng);
                self.apps[0].begin(rng, &mut world.client, now);
                if let Some(server) = &mut world.server {
                    self.apps[1].begin(rng, server, now);
                }
            }
            if below(&mut self.rng, 4) == 0 {
                self.fault();
            }
            self.step(true);
        }
        self.heal();
        self.close();
    }

    /// One sound path; everything promised is kept within five seconds.
    fn heal(&mut self) {
        for link in 0..self.world.links.len() {
            self.world.stall(link, false, false);
            self.world.links[link].corrupt_up = false;
            self.world.links[link].corrupt_down = false;
            self.world.links[link].rate = 0;
            self.world.links[link].delay = Duration::from_micros(200);
        }
        let deadline = self.world.now + Duration::from_secs(5);
        while let Some(words) = self.unkept() {
            assert!(
                self.world.now < deadline,
                "{words}\n{:?}\n{:?}",
                self.world.client,
                self.world.server
            );
            if self.world.links.iter().all(|link| link.dead) {
                self.connect();
                let last = self.world.links.len() - 1;
                self.world.links[last].rate = 0;
                self.world.links[last].delay = Duration::from_micros(200);
            }
            self.step(false);
        }
        for app in &self.apps {
            let reliable = app.tracked.iter().filter(|(id, _)| **id < 1 << 62);
            reliable.for_each(|(id, told)| {
                let fine = told == &Some(Outcome::Acknowledged);
                assert!(fine, "{id} is acknowledged: {told:?}");
            });
        }
    }

    /// Nothing is left but what the application holds, and then nothing at all.
    fn close(&mut self) {
        if self.world.client.state() != State::Connected {
            self.connect();
        }
        self.step(false);
        self.world.run_for(Duration::from_secs(1));
        let now = self.world.now;
        self.world.client.close(now, ErrorCode::NONE, "done");
        self.world.settle();
        for (session, app) in [Some(&mut self.world.client), self.world.server.as_mut()]
            .into_iter()
            .flatten()
            .zip(&self.apps)
        {
            assert_eq!(session.state(), State::Closed);
            assert_eq!(session.poll_timeout(), None, "no timer is left");
            assert_eq!(session.stats().paths, 0);
            for key in app.writers.iter().map(|writer| writer.key) {
                session.release(key);
            }
            for key in app.readers.iter().map(|reader| reader.key) {
                session.release(key);
            }
            let kinds = session
                .streams
                .keys()
                .into_iter()
                .filter_map(|key| session.stream_id(key));
            let left: Vec<StreamId> = kinds.filter(|id| id.kind() != Kind::Ordered).collect();
            assert_eq!(left, [], "no stream is left");
        }
    }
}

fn run(seed: u64) {
    let outcome = std::panic::catch_unwind(|| Run::new(seed).go());
    if let Err(panic) = outcome {
        let words = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no words");
        panic!(
            "seed {seed}: {words}\nrun it alone: {SEED_VARIABLE}={seed} cargo test -p sheetbend-core --lib swarm"
        );
    }
}

#[test]
fn random_faults_under_random_work() {
    match std::env::var(SEED_VARIABLE) {
        Ok(seed) => run(seed.parse().expect("a number")),
        Err(_) => KNOWN.into_iter().chain(0..SEEDS).for_each(run),
    }
}
