//! Two sessions in memory: how many bytes and messages the machines themselves move, and that steady
//! state allocates nothing per frame.

#![allow(clippy::print_stdout)] // a bench prints its findings

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sheetbend_core::handshake::Security;
use sheetbend_core::server::{Acceptor, Routed, registry};
use sheetbend_core::session::{
    Config, Delivery, Event, Incoming, PathInfo, PathKey, Read, Session, StreamKey, Transmit,
};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, Kind, OutBuffer};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes of one read buffer.
const BLOCK: usize = 192 * 1024;

struct End {
    session: Session,
    path: PathKey,
    out: OutBuffer,
    input: BytesMut,
}

impl End {
    fn new(session: Session, path: PathKey) -> End {
        End {
            session,
            path,
            out: OutBuffer::new(),
            input: BytesMut::with_capacity(BLOCK),
        }
    }

    /// Takes what happened; tells of streams that there is something to read on.
    fn events(&mut self, mut readable: impl FnMut(&mut Session, StreamKey)) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::PathDown { error, .. } => panic!("a path ended: {error:?}"),
                Event::Readable(key) => readable(&mut self.session, key),
                _ => {}
            }
        }
    }
}

/// Moves what `from` has to send to `to`, as a socket and its driver would. Tells whether there was any.
fn carry(now: Timestamp, from: &mut End, to: &mut End) -> bool {
    if from.session.poll_transmit(now, from.path, &mut from.out) == Transmit::Nothing {
        return false;
    }
    while !from.out.is_empty() {
        let room = BLOCK - to.input.len();
        let len = from.out.chunk().len().min(room);
        to.input.extend_from_slice(&from.out.chunk()[..len]);
        from.out.advance(len);
        if from.out.is_empty() || to.input.len() == BLOCK {
            to.session
                .handle_input(now, to.path, &mut to.input, BLOCK)
                .expect("records are sound");
            if !to.input.try_reclaim(BLOCK) {
                let rest = to.input.split();
                to.input = BytesMut::with_capacity(BLOCK);
                to.input.extend_from_slice(&rest);
            }
        }
    }
    true
}

struct Pair {
    client: End,
    server: End,
    now: Timestamp,
}

impl Pair {
    fn new() -> Pair {
        let now = Timestamp::from_nanos(1_000_000_000);
        let info = PathInfo::new("mem://bench", "mem", Security::Plain);
        let mut session = Session::client(Config::default(), [1; 32], now);
        let path = session.open_path(now, info.clone()).expect("a path");
        let mut client = End::new(session, path);
        let mut acceptor = Acceptor::new(registry::Config::default(), Config::default(), [2; 32], now);
        let mut incoming = Incoming::new(now, info);
        client.session.poll_transmit(now, path, &mut client.out);
        let mut hello = BytesMut::from(client.out.chunk());
        client.out.clear();
        assert!(incoming.handle_input(&mut hello).expect("a HELLO"));
        let Routed::New { mut session, .. } = acceptor.route(now, &incoming) else {
            panic!("no session")
        };
        let path = session.accept_path(now, incoming).expect("attached");
        let server = End::new(*session, path);
        let mut pair = Pair { client, server, now };
        pair.run();
        pair
    }

    fn step(&mut self) {
        // Time goes on by what a fast loopback would take, so that rates have something to measure.
        self.now += Duration::from_micros(20);
        if self
            .client
            .session
            .poll_timeout()
            .is_some_and(|(at, _)| at <= self.now)
        {
            self.client.session.handle_timeout(self.now);
        }
        if self
            .server
            .session
            .poll_timeout()
            .is_some_and(|(at, _)| at <= self.now)
        {
            self.server.session.handle_timeout(self.now);
        }
    }

    fn run(&mut self) {
        while self.turn(|_| (), |_, _| ()) {}
    }

    /// Carries what there is, first up, then down, and lets both ends do their part. Tells whether there was any.
    fn turn(
        &mut self,
        serve: impl FnOnce(&mut Session),
        readable: impl FnMut(&mut Session, StreamKey),
    ) -> bool {
        self.step();
        let up = carry(self.now, &mut self.client, &mut self.server);
        self.server.events(|_, _| ());
        serve(&mut self.server.session);
        let down = carry(self.now, &mut self.server, &mut self.client);
        self.client.events(readable);
        up || down
    }
}

fn bulk(pair: &mut Pair, key: StreamKey, there: &mut Option<StreamKey>, payload: &[u8], total: u64) {
    let mut received = 0;
    let mut written = 0;
    while received < total {
        while written < total {
            let left = usize::try_from(total - written)
                .unwrap_or(usize::MAX)
                .min(payload.len());
            match pair.client.session.write(key, &payload[..left]).expect("open") {
                0 => break,
                taken => written += taken as u64,
            }
        }
        pair.run();
        let server = &mut pair.server.session;
        *there = there.or_else(|| server.accept(Kind::Uni, Class::BULK));
        let Some(there) = *there else { continue };
        while let Read::Data(data) = server.read(pair.now, there, usize::MAX).expect("open") {
            received += black_box(data).len() as u64;
        }
    }
}

fn messages(pair: &mut Pair, payload: &Bytes, count: u64, buffer: &mut Vec<u8>) {
    let mut sent = 0;
    let mut received = 0;
    while received < count {
        for _ in 0..1000.min(count - sent) {
            let taken = pair.client.session.send_message(
                pair.now,
                Class::EVENTS,
                Delivery::Ordered,
                payload.clone(),
                false,
            );
            if taken.is_err() {
                break;
            }
            sent += 1;
        }
        pair.run();
        let server = &mut pair.server.session;
        while server
            .recv_message_into(pair.now, Class::EVENTS, buffer)
            .expect("sound")
        {
            black_box(&*buffer);
            received += 1;
        }
    }
}

/// Reads a stream on; tells whether that was all of it. Where a record ends, a call may be in two parts.
fn read_on(session: &mut Session, now: Timestamp, key: StreamKey, so_far: &mut Bytes) -> bool {
    if so_far.is_empty()
        && let Some(whole) = session.read_last(now, key)
    {
        *so_far = whole;
        return true;
    }
    loop {
        match session.read(now, key, usize::MAX).expect("open") {
            Read::Data(data) => *so_far = [&so_far[..], &data].concat().into(),
            Read::Blocked => return false,
            Read::Finished => return true,
        }
    }
}

/// Echoes, as the streams that calls are: so many are under way at a time.
fn calls(pair: &mut Pair, payload: &[u8], in_flight: usize, count: usize) {
    let mut begun = 0;
    let mut ended = 0;
    let mut requests = Vec::new();
    let mut parts: BTreeMap<StreamKey, Bytes> = BTreeMap::new();
    while ended < count {
        while begun < count && begun - ended < in_flight {
            let client = &mut pair.client.session;
            let Ok(key) = client.open(Kind::Bi, Class::REQUESTS) else {
                break;
            };
            assert!(client.write_last(key, payload), "a call has credit");
            client.watch(key);
            begun += 1;
        }
        let now = pair.now;
        let serve = |server: &mut Session| {
            let opened = iter::from_fn(|| server.accept(Kind::Bi, Class::REQUESTS));
            requests.extend(opened.map(|key| (key, Bytes::new())));
            requests.retain_mut(|(key, so_far)| {
                let whole = read_on(server, now, *key, so_far);
                if whole {
                    assert!(server.write_last(*key, so_far), "an answer has credit");
                    server.release(*key);
                }
                !whole
            });
        };
        pair.turn(serve, |client, key| {
            let mut answer = parts.remove(&key).unwrap_or_default();
            if read_on(client, now, key, &mut answer) {
                black_box(answer);
                client.release(key);
                ended += 1;
            } else {
                parts.insert(key, answer);
            }
        });
    }
}

fn sessions(c: &mut Criterion) {
    let payload = vec![7; 64 * 1024];
    let total = 64 << 20;
    let mut pair = Pair::new();
    let key = pair.client.session.open(Kind::Uni, Class::BULK).expect("credit");
    let mut there = None;
    let mut group = c.benchmark_group("pair");
    group.sample_size(20).throughput(Throughput::Bytes(total));
    group.bench_function("bulk, 64 KiB writes", |b| {
        b.iter(|| bulk(&mut pair, key, &mut there, &payload, total));
    });

    let message = Bytes::from(vec![3; 64]);
    let mut buffer = Vec::new();
    let count = 100_000;
    group.throughput(Throughput::Elements(count));
    group.bench_function("64-byte messages", |b| {
        b.iter(|| messages(&mut pair, &message, count, &mut buffer));
    });
    for in_flight in [1, 128, 1024] {
        group.bench_function(format!("64-byte calls, {in_flight} in flight"), |b| {
            b.iter(|| calls(&mut pair, &message, in_flight, count as usize));
        });
    }
    group.finish();

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    messages(&mut pair, &message, count, &mut buffer);
    let after_messages = ALLOCATIONS.load(Ordering::Relaxed);
    bulk(&mut pair, key, &mut there, &payload, total);
    let after_bulk = ALLOCATIONS.load(Ordering::Relaxed);
    let per_message = (after_messages - before) as f64 / count as f64;
    let per_write = (after_bulk - after_messages) as f64 / (total / 65_536) as f64;
    println!("allocations: {per_message:.4} a 64-byte message, {per_write:.2} a 64 KiB write");
    assert!(
        per_message < 0.05,
        "steady state allocates for messages: {per_message}"
    );
}

criterion_group!(benches, sessions);
criterion_main!(benches);
