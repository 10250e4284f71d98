use bytes::Bytes;

use crate::stream::{Chunk, MAX_OFFSET, SendHalf, SendState, StreamError};

#[test]
fn is_small_and_free_until_used() {
    assert!(size_of::<SendHalf>() <= 200, "{} bytes", size_of::<SendHalf>());
    assert_eq!(SendHalf::new(1 << 20).memory_bytes(), 0);
}

#[test]
fn one_small_request() {
    let mut half = SendHalf::new(1000);
    assert_eq!(half.write(&[7; 64], usize::MAX), 64);
    half.finish().unwrap();
    assert_eq!(
        half.next_chunk(1200),
        Some(Chunk {
            offset: 0,
            len: 64,
            fin: true
        })
    );
    assert_eq!(half.slice(0, 64), Some(&[7; 64][..]));
    assert_eq!(half.next_chunk(1200), None);
    let acked = half.on_acked(0, 64, true);
    assert_eq!((acked.freed, acked.complete, acked.acked_to), (64, true, 64));
    assert_eq!(half.state(), SendState::DataAcked);
    assert_eq!(half.reset(), None, "nothing is left to give up");
}

#[test]
fn writes_stop_at_the_credit_the_limit_and_the_end() {
    let mut half = SendHalf::new(100);
    assert_eq!(half.write(&[0; 80], 30), 30);
    assert_eq!(half.write(&[0; 80], 80), 70);
    assert_eq!(half.write(&[0; 80], 80), 0);
    assert!(!half.set_max_data(100));
    assert!(half.set_max_data(u64::MAX));
    assert_eq!(half.max_data(), MAX_OFFSET);
    half.finish().unwrap();
    assert_eq!(half.write(&[0; 80], 80), 0);
    assert_eq!(half.write_bytes(&mut Bytes::from_static(b"x"), 80), 0);
}

#[test]
fn large_writes_are_kept_by_reference() {
    let mut half = SendHalf::new(1 << 20);
    let block = Bytes::from(vec![3; 10_000]);
    half.write(b"head", 4);
    let mut rest = block.clone();
    assert_eq!(half.write_bytes(&mut rest, 9_000), 9_000);
    assert_eq!(rest.len(), 1000);
    assert_eq!(
        half.next_chunk(20_000),
        Some(Chunk {
            offset: 0,
            len: 9_004,
            fin: false
        })
    );
    let pieces: Vec<_> = half.pieces(0, 9_004).collect();
    assert_eq!(pieces[0].data(), b"head");
    assert_eq!(pieces[1].shared().unwrap().as_ptr(), block.as_ptr());
    assert!(half.slice(0, 9_004).is_none(), "spans two buffers");
    assert_eq!(half.slice(10, 100).unwrap(), &[3; 100]);
}

#[test]
fn late_ack_cancels_a_retransmission() {
    let mut half = SendHalf::new(1000);
    half.write(&[1; 300], 300);
    half.finish().unwrap();
    half.next_chunk(100);
    half.next_chunk(100);
    half.next_chunk(100);
    assert!(half.on_lost(0, 300, true));
    assert!(half.has_lost());
    half.on_acked(100, 100, false);
    assert_eq!(
        half.next_chunk(1000),
        Some(Chunk {
            offset: 0,
            len: 100,
            fin: false
        })
    );
    half.on_acked(200, 100, true);
    assert_eq!(half.next_chunk(1000), None);
    assert!(!half.on_lost(100, 200, true), "loss after acknowledgement");
    assert!(half.on_acked(0, 100, false).complete);
}

#[test]
fn the_end_is_a_range_of_its_own() {
    let mut half = SendHalf::new(1000);
    half.finish().unwrap();
    assert!(!half.on_acked(0, 0, true).complete, "never sent");
    let fin = Chunk {
        offset: 0,
        len: 0,
        fin: true,
    };
    assert_eq!(half.next_chunk(0), Some(fin));
    assert!(!half.has_pending());
    assert!(half.on_lost(0, 0, true));
    assert_eq!(half.next_chunk(0), Some(fin));
    assert!(half.on_acked(0, 0, true).complete);
}

#[test]
fn reset_keeps_what_flow_control_saw() {
    let mut half = SendHalf::new(1000);
    half.write(&[1; 300], 300);
    half.next_chunk(100);
    half.next_chunk(100);
    half.on_acked(0, 100, false);
    let reset = half.reset().unwrap();
    assert_eq!((reset.final_size, reset.freed), (200, 200));
    assert_eq!(half.reset(), None);
    assert_eq!(
        half.finish(),
        Err(StreamError::Closed {
            state: SendState::ResetSent
        })
    );
    assert_eq!(half.finish().unwrap_err().code(), 8);
    assert!(!half.on_lost(100, 100, true));
    assert_eq!(half.next_chunk(100), None);
    assert_eq!(half.memory_bytes(), 0);
    half.on_reset_acked();
    assert_eq!(half.state(), SendState::ResetAcked);
}

#[test]
fn mostly_empty_tails_are_not_kept() {
    let mut half = SendHalf::new(1 << 24);
    let block = Bytes::from(vec![0; 4096]);
    for _ in 0..1000 {
        half.write(b"x", 1);
        half.write_bytes(&mut block.clone(), 4096);
    }
    assert!(
        half.memory_bytes() < 1000 * 4097 * 3 / 2,
        "{}",
        half.memory_bytes()
    );
}

#[test]
fn hostile_ranges_are_harmless() {
    let mut half = SendHalf::new(u64::MAX);
    half.write(&[1; 10], 10);
    half.next_chunk(5);
    half.on_lost(u64::MAX, usize::MAX, true);
    half.on_acked(u64::MAX, usize::MAX, true);
    half.on_lost(0, usize::MAX, true);
    assert_eq!(half.pieces(u64::MAX, usize::MAX).count(), 0);
    assert_eq!(
        half.on_acked(0, usize::MAX, true).acked_to,
        5,
        "no more than was sent"
    );
}

#[test]
fn the_last_lane_is_remembered() {
    let mut half = SendHalf::new(100);
    assert!(half.continues(3, 0) && !half.continues(3, 1));
    half.sent_on(3, 64);
    assert!(half.continues(3, 64) && !half.continues(4, 0) && !half.continues(3, 0));
}
