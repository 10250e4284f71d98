//! Two sessions in memory: how many bytes and messages the machines themselves move, and that steady
//! state allocates nothing per frame.

#![allow(clippy::print_stdout)] // a bench prints its findings

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
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

    fn events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            if let Event::PathDown { error, .. } = event {
                panic!("a path ended: {error:?}");
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
        loop {
            self.step();
            let up = carry(self.now, &mut self.client, &mut self.server);
            self.server.events();
            let down = carry(self.now, &mut self.server, &mut self.client);
            self.client.events();
            if !up && !down {
                return;
            }
        }
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
