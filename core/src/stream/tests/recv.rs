use std::time::Duration;

use bytes::Bytes;

use crate::stream::{MAX_LANES, MAX_OFFSET, Read, RecvHalf, Source, StreamError};
use crate::time::Timestamp;

fn half(window: u64) -> RecvHalf {
    RecvHalf::new(window, window)
}

fn put(half: &mut RecvHalf, offset: u64, data: &[u8], fin: bool) {
    half.insert(offset, data, fin, Source::Borrowed).unwrap();
}

#[test]
fn is_small_and_free_until_used() {
    assert!(size_of::<RecvHalf>() <= 200, "{} bytes", size_of::<RecvHalf>());
    assert_eq!(half(1 << 20).memory_bytes(), 0);
}

#[test]
fn one_small_message_is_one_exact_block() {
    let mut half = half(1000);
    put(&mut half, 0, &[7; 64], true);
    assert_eq!(half.memory_bytes(), 64);
    assert!(half.is_complete() && !half.is_read());
    assert_eq!(half.read(usize::MAX), Read::Data(Bytes::from_static(&[7; 64])));
    assert_eq!(half.read(usize::MAX), Read::Finished);
    assert!(half.is_read());
}

#[test]
fn small_frames_share_a_block_that_is_used_again() {
    let mut half = half(1 << 20);
    for n in 0..1000_u64 {
        put(&mut half, n * 64, &[n as u8; 64], false);
        let mut out = [0; 100];
        assert_eq!(half.read_into(&mut out), Read::Data(64));
        assert_eq!(out[..64], [n as u8; 64]);
        assert_eq!(half.memory_bytes(), 256);
    }
    half.shrink();
    assert_eq!(half.memory_bytes(), 0);
    assert_eq!(half.read(1), Read::Blocked);
}

/// DESIGN "Memory": from a quarter of the block on, data is kept by reference and charged.
#[test]
fn large_pieces_are_slices() {
    let mut half = half(1 << 20);
    let block = Bytes::from(vec![5; 40_000]);
    let source = Source::Block {
        block: &block,
        capacity: 40_000,
    };
    half.insert(0, &block[100..10_099], false, source).unwrap();
    assert_eq!(half.pinned(), 0, "9,999 of 40,000: copied");
    half.insert(9_999, &block[10_100..20_100], false, source).unwrap();
    assert_eq!(half.pinned(), 30_000);
    half.insert(19_999, &block[20_200..30_200], false, source)
        .unwrap();
    assert_eq!(half.pinned(), 20_000, "the same block is charged once");
    let Read::Data(copied) = half.read(usize::MAX) else {
        panic!()
    };
    assert_eq!(copied.len(), 9_999);
    let Read::Data(part) = half.read(5_000) else {
        panic!()
    };
    assert_eq!(part.as_ptr(), block[10_100..].as_ptr());
    let Read::Data(tiny) = half.read(100) else {
        panic!()
    };
    assert!(
        !block.as_ptr_range().contains(&tiny.as_ptr()),
        "a small part must not pin the block"
    );
    assert_eq!(half.skip(4_900), 4_900);
    assert_eq!(half.pinned(), 20_000);
    assert_eq!(half.skip(usize::MAX), 10_000);
    assert_eq!(half.pinned(), 0);
}

#[test]
fn a_block_that_does_not_hold_the_data_is_not_trusted() {
    let mut half = half(1 << 20);
    let block = Bytes::from(vec![5; 4000]);
    half.insert(
        0,
        &[1; 3000],
        false,
        Source::Block {
            block: &block,
            capacity: 0,
        },
    )
    .unwrap();
    assert_eq!(half.pinned(), 0);
    assert_eq!(half.peek(), &[1; 3000]);
}

#[test]
fn a_few_bytes_of_a_tail_block_are_copied() {
    let mut half = half(1 << 20);
    put(&mut half, 0, &[1; 200], false);
    assert_eq!(half.read(50), Read::Data(Bytes::from_static(&[1; 50])));
    assert_eq!(half.memory_bytes(), 256);
    assert_eq!(half.read(140), Read::Data(Bytes::from_static(&[1; 140])));
    assert_eq!(half.readable(), 10);
    assert_eq!(half.read(0), Read::Data(Bytes::new()));
    assert_eq!(half.read(100), Read::Data(Bytes::from_static(&[1; 10])));
}

/// PROTOCOL 7: final sizes.
#[test]
fn final_size_rules() {
    let mut half = half(1000);
    put(&mut half, 50, &[1; 50], false);
    let insert = |half: &mut RecvHalf, offset, len: usize, fin| {
        half.insert(offset, &vec![0; len], fin, Source::Borrowed)
            .unwrap_err()
    };
    let small = StreamError::FinalSizeTooSmall {
        final_size: 99,
        highest: 100,
    };
    assert_eq!(insert(&mut half, 90, 9, true), small);
    assert_eq!(half.reset(1, 99), Err(small));
    assert_eq!(half.final_size(), None, "a bad frame changes nothing");
    put(&mut half, 120, &[], true);
    let beyond = StreamError::BeyondFinalSize {
        final_size: 120,
        end: 121,
    };
    assert_eq!(insert(&mut half, 120, 1, false), beyond);
    let changed = StreamError::FinalSize {
        known: 120,
        claimed: 110,
    };
    assert_eq!(insert(&mut half, 100, 10, true), changed);
    assert_eq!(half.reset(1, 110), Err(changed));
    assert!([small, beyond, changed].iter().all(|error| error.code() == 9));
    assert!(half.insert(120, &[], true, Source::Borrowed).unwrap().duplicate);
}

/// PROTOCOL 7: flow control.
#[test]
fn limits_hold_for_hostile_offsets() {
    let mut half = half(1000);
    let error = half.insert(999, &[0; 2], false, Source::Borrowed).unwrap_err();
    assert_eq!(
        error,
        StreamError::FlowControl {
            end: 1001,
            limit: 1000
        }
    );
    assert_eq!(error.code(), 6);
    for offset in [u64::MAX, u64::MAX - 1, MAX_OFFSET, MAX_OFFSET - 1] {
        assert_eq!(
            half.insert(offset, &[0; 2], true, Source::Borrowed)
                .unwrap_err()
                .code(),
            6
        );
        assert_eq!(half.reset(0, offset).unwrap_err().code(), 6);
    }
    assert_eq!(half.highest(), 0);
}

#[test]
fn reset_and_stop_give_credit_back() {
    let mut stream = half(1000);
    put(&mut stream, 0, &[1; 100], false);
    put(&mut stream, 200, &[1; 100], false);
    stream.skip(40);
    let reset = stream.reset(77, 500).unwrap();
    assert_eq!((reset.growth, reset.released), (200, 460));
    assert_eq!(
        (stream.read(10), stream.reset_code()),
        (Read::Reset(77), Some(77))
    );
    assert_eq!(stream.reset(78, 500).unwrap().released, 0);
    assert!(stream.is_settled());

    let mut stream = half(1000);
    put(&mut stream, 0, &[1; 100], false);
    assert_eq!((stream.stop(), stream.stop()), (100, 0));
    let late = stream.insert(100, &[1; 50], true, Source::Borrowed).unwrap();
    assert_eq!((late.growth, late.released, late.readable), (50, 50, false));
    assert_eq!(stream.read(10), Read::Stopped);
    assert!(stream.is_settled());
    assert_eq!(stream.memory_bytes(), 0);
}

#[test]
fn a_reset_after_the_end_was_read_changes_nothing() {
    let mut stream = half(1000);
    put(&mut stream, 0, &[1; 100], true);
    stream.skip(100);
    assert_eq!(stream.reset(1, 100).unwrap().released, 0);
    assert_eq!(stream.read(1), Read::Finished);
}

/// DESIGN "Memory": the bound does not depend on how the peer cuts its data.
#[test]
fn fragments_do_not_cost_memory() {
    const WINDOW: u64 = 256 * 1024;
    for step in [2, 3, 64, 1000, 4096, 5000] {
        let mut stream = half(WINDOW);
        for offset in (1..WINDOW).step_by(step) {
            put(&mut stream, offset, b"x", false);
        }
        let memory = stream.memory_bytes();
        assert!(
            memory <= 3 * WINDOW as usize + 65_536,
            "{memory} bytes for every {step}th byte"
        );
    }
    let mut stream = half(WINDOW);
    let block = Bytes::from(vec![1; 4096]);
    let source = Source::Block {
        block: &block,
        capacity: 4096,
    };
    for offset in (1..WINDOW - 4096).step_by(1026) {
        stream.insert(offset, b"x", false, Source::Borrowed).unwrap();
        stream.insert(offset + 1, &block[..1024], false, source).unwrap();
    }
    let memory = stream.memory_bytes();
    assert!(memory <= 6 * WINDOW as usize + 65_536, "{memory} with slices");
    let unpinned = memory as u64 - stream.pinned();
    assert!(unpinned <= 3 * WINDOW + 65_536, "{unpinned} without the blocks");
    // A flood behind which everything becomes contiguous.
    for offset in (0..WINDOW).step_by(1000) {
        let len = 1000.min(WINDOW - offset) as usize;
        put(&mut stream, offset, &vec![2; len], false);
    }
    assert_eq!(stream.readable(), WINDOW);
    assert!(stream.memory_bytes() as u64 - stream.pinned() <= 3 * WINDOW + 65_536);
    assert_eq!(stream.skip(usize::MAX), WINDOW as usize);
    assert_eq!((stream.pinned(), stream.has_gaps()), (0, false));
    assert!(stream.memory_bytes() < 8192);
}

#[test]
fn window_updates_end_with_the_stream() {
    let rtt = Duration::from_millis(1);
    let mut stream = half(100);
    put(&mut stream, 0, &[0; 80], false);
    assert_eq!(stream.poll_window_update(Timestamp::ZERO, rtt), None);
    stream.skip(80);
    assert_eq!(stream.poll_window_update(Timestamp::ZERO, rtt), Some(180));
    put(&mut stream, 80, &[0; 100], true);
    stream.skip(100);
    assert_eq!(stream.poll_window_update(Timestamp::ZERO, rtt), None);
}

#[test]
fn lanes_are_remembered_up_to_a_limit() {
    let mut stream = half(100);
    assert_eq!(stream.next_offset(9), 0);
    for lane in 1..=MAX_LANES as u32 {
        stream.received_on(lane, u64::from(lane) * 10).unwrap();
    }
    for lane in 1..=MAX_LANES as u32 {
        assert_eq!(stream.next_offset(lane), u64::from(lane) * 10);
    }
    let error = stream.received_on(1000, 1).unwrap_err();
    assert_eq!(
        (error, error.code()),
        (StreamError::TooManyLanes { limit: MAX_LANES }, 12)
    );
    stream.received_on(5, 7).unwrap();
    assert_eq!((stream.next_offset(5), stream.next_offset(6)), (7, 60));
    stream.forget_lanes(|lane| lane == 6);
    assert_eq!((stream.next_offset(5), stream.next_offset(6)), (0, 60));
    stream.received_on(1000, 1).unwrap();
    assert_eq!((stream.next_offset(1000), stream.next_offset(6)), (1, 60));
}
