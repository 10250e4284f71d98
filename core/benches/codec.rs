//! Frames in and out of records, and the checksum: `cargo bench -p sheetbend-core --bench codec`.
//!
//! Before anything is measured, a counting allocator asserts that steady state allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sheetbend_core::wire::{
    Class, DEFAULT_MAX_BODY, Frame, Kind, OutBuffer, RecordBuilder, RecordLimits, Side, StreamId,
    split_record,
};

/// Frames per record: what one busy wake-up puts into a record of about 14 KiB.
const FRAMES: usize = 200;
const MESSAGE: [u8; 64] = [0x5a; 64];
const LIMITS: RecordLimits = RecordLimits {
    max_body: DEFAULT_MAX_BODY,
    require_crc: true,
    allow_lz4: false,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed to the system allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn ids() -> Vec<StreamId> {
    let id = |index| StreamId::new(Side::Client, Kind::Bi, Class::REQUESTS, 1000 + index);
    (0..FRAMES as u64).filter_map(id).collect()
}

/// Puts one record of 64-byte frames into `out`.
#[inline]
fn encode(out: &mut OutBuffer, ids: &[StreamId], offset: Option<u64>) -> usize {
    let mut record = RecordBuilder::begin(out, DEFAULT_MAX_BODY, true);
    for &id in ids {
        assert!(record.stream_header(id, offset, false, MESSAGE.len(), false));
        record.data(black_box(&MESSAGE));
    }
    record.finish()
}

/// Takes one record apart and looks at every field.
#[inline]
fn decode(mut input: &[u8], scratch: &mut Vec<u8>) -> u64 {
    let mut sum = 0;
    while let Ok(Some(record)) = split_record(&mut input, &LIMITS, scratch) {
        for frame in record.frames() {
            if let Ok(Frame::Stream {
                id,
                offset,
                fin,
                data,
            }) = frame
            {
                sum += id.value() + offset.unwrap_or(0) + u64::from(fin) + u64::from(data[data.len() - 1]);
            }
        }
    }
    sum
}

fn round_trip(out: &mut OutBuffer, ids: &[StreamId], offset: Option<u64>, scratch: &mut Vec<u8>) -> u64 {
    encode(out, ids, offset);
    let sum = decode(out.chunk(), scratch);
    out.advance(out.len());
    sum
}

/// Allocations made by 1,000 records of [`FRAMES`] frames, written, gathered, read and acknowledged.
fn steady_state_allocates_nothing() {
    let (ids, mut out, mut scratch) = (ids(), OutBuffer::new(), Vec::new());
    let mut turn = |out: &mut OutBuffer| {
        encode(out, &ids, Some(1 << 40));
        let mut slices = [IoSlice::new(&[]); 8];
        let used = out.io_slices(&mut slices);
        assert_eq!(used, 1);
        assert!(decode(&slices[0], &mut scratch) > 0);
        out.advance(out.len());
        let mut record = RecordBuilder::begin(out, DEFAULT_MAX_BODY, true);
        assert!(record.frame(&Frame::AckHere {
            count: 1 << 30,
            delay_us: 25_000
        }));
        record.finish();
        out.advance(out.len());
    };
    turn(&mut out);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1_000 {
        turn(&mut out);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(
        allocations,
        0,
        "allocations for {} frames in steady state",
        1_000 * FRAMES
    );
}

fn frames(c: &mut Criterion) {
    steady_state_allocates_nothing();
    let (ids, mut out, mut scratch) = (ids(), OutBuffer::new(), Vec::new());
    let mut group = c.benchmark_group("stream_frame_64");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for (name, offset) in [("continued", None), ("offset_2^40", Some(1 << 40))] {
        group.bench_function(format!("encode/{name}"), |b| {
            b.iter(|| {
                encode(&mut out, &ids, black_box(offset));
                out.advance(black_box(out.len()));
            });
        });
        encode(&mut out, &ids, offset);
        let wire = out.chunk().to_vec();
        out.clear();
        group.bench_function(format!("decode/{name}"), |b| {
            b.iter(|| decode(black_box(&wire), &mut scratch));
        });
        group.bench_function(format!("both/{name}"), |b| {
            b.iter(|| round_trip(&mut out, &ids, black_box(offset), &mut scratch));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("both/one_per_record", |b| {
        b.iter(|| round_trip(&mut out, &ids[..1], black_box(None), &mut scratch));
    });
    group.finish();
}

/// The checksum as a record's reader pays for it: one record with one datagram frame.
fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("split_record_with_crc");
    for len in [80, 48 * 1024] {
        let payload = vec![0x5a; len];
        let mut out = OutBuffer::new();
        let mut record = RecordBuilder::begin(&mut out, DEFAULT_MAX_BODY, true);
        assert!(record.last_frame(&Frame::Datagram {
            number: 1,
            class: None,
            data: &payload
        }));
        record.finish();
        let wire = out.chunk();
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_function(len.to_string(), |b| {
            let mut scratch = Vec::new();
            b.iter(|| split_record(&mut black_box(wire), &LIMITS, &mut scratch).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, frames, checksum);
criterion_main!(benches);
