//! What one stream costs without the session around it.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sheetbend_core::stream::{Read, RecvHalf, SendHalf, Source};
use sheetbend_core::time::Timestamp;

const BULK: usize = 64 * 1024;
const CREDIT: u64 = 1 << 40;

fn small(c: &mut Criterion) {
    let data = [7_u8; 64];
    let mut group = c.benchmark_group("small");
    group.throughput(Throughput::Elements(1));
    group.bench_function("send: create, write 64 B, chunk, ack, drop", |b| {
        b.iter(|| {
            let mut half = SendHalf::new(black_box(CREDIT));
            half.write(black_box(&data), usize::MAX);
            half.finish().ok();
            while let Some(chunk) = half.next_chunk(1200) {
                black_box(half.slice(chunk.offset, chunk.len));
                black_box(half.on_acked(chunk.offset, chunk.len, chunk.fin));
            }
        });
    });
    group.bench_function("receive: create, insert 64 B, read, drop", |b| {
        b.iter(|| {
            let mut half = RecvHalf::new(black_box(65_536), CREDIT);
            black_box(half.insert(0, black_box(&data), true, Source::Borrowed).ok());
            black_box(half.read(usize::MAX));
        });
    });
    group.bench_function("create and drop both", |b| {
        b.iter(|| {
            black_box(SendHalf::new(black_box(CREDIT)));
            black_box(RecvHalf::new(black_box(65_536), CREDIT));
        });
    });
    group.finish();
}

fn stream_of_small(c: &mut Criterion) {
    let data = [7_u8; 64];
    let mut group = c.benchmark_group("long stream of 64 B");
    group.throughput(Throughput::Elements(1));
    let mut half = SendHalf::new(u64::MAX);
    group.bench_function("send, acknowledged 16 behind", |b| {
        b.iter(|| {
            half.write(black_box(&data), usize::MAX);
            if let Some(chunk) = half.next_chunk(1200) {
                black_box(half.slice(chunk.offset, chunk.len));
                half.on_acked(chunk.offset.saturating_sub(1024), chunk.len, false);
            }
        });
    });
    let mut half = RecvHalf::new(65_536, 65_536);
    let mut offset = 0;
    let mut out = [0; 64];
    group.bench_function("receive, read into a buffer", |b| {
        b.iter(|| {
            half.insert(offset, black_box(&data), false, Source::Borrowed)
                .ok();
            offset += 64;
            black_box(half.read_into(&mut out));
            black_box(half.poll_window_update(Timestamp::ZERO, Duration::ZERO));
        });
    });
    group.finish();
}

fn bulk(c: &mut Criterion) {
    let block = Bytes::from(vec![7_u8; BULK]);
    let mut group = c.benchmark_group("64 KiB");
    group.throughput(Throughput::Bytes(BULK as u64));
    let mut send = SendHalf::new(u64::MAX);
    let transmit = |half: &mut SendHalf| {
        while let Some(chunk) = half.next_chunk(48 * 1024) {
            for piece in half.pieces(chunk.offset, chunk.len) {
                black_box(piece.to_bytes());
            }
            half.on_acked(chunk.offset, chunk.len, false);
        }
    };
    group.bench_function("send, copied in", |b| {
        b.iter(|| {
            send.write(black_box(&block), usize::MAX);
            transmit(&mut send);
        });
    });
    group.bench_function("send, by reference", |b| {
        b.iter(|| {
            send.write_bytes(&mut black_box(&block).clone(), usize::MAX);
            transmit(&mut send);
        });
    });
    for (name, by_reference) in [("receive, copied", false), ("receive, by reference", true)] {
        let mut half = RecvHalf::new(1 << 20, 1 << 20);
        let mut offset = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                let source = match by_reference {
                    true => Source::Block {
                        block: &block,
                        capacity: BULK,
                    },
                    false => Source::Borrowed,
                };
                half.insert(offset, black_box(&block), false, source).ok();
                offset += BULK as u64;
                while let Read::Data(data) = half.read(usize::MAX) {
                    black_box(data);
                }
                black_box(half.poll_window_update(Timestamp::ZERO, Duration::ZERO));
            });
        });
    }
    group.finish();
}

fn reordered(c: &mut Criterion) {
    let data = [7_u8; 1000];
    let mut group = c.benchmark_group("reordered");
    group.throughput(Throughput::Elements(2));
    let mut half = RecvHalf::new(65_536, 65_536);
    let mut offset = 0;
    let mut out = [0; 2000];
    group.bench_function("pairs of 1000 B swapped", |b| {
        b.iter(|| {
            half.insert(offset + 1000, black_box(&data), false, Source::Borrowed)
                .ok();
            half.insert(offset, black_box(&data), false, Source::Borrowed)
                .ok();
            offset += 2000;
            black_box(half.read_into(&mut out));
            black_box(half.poll_window_update(Timestamp::ZERO, Duration::ZERO));
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = small, stream_of_small, bulk, reordered
}
criterion_main!(benches);
