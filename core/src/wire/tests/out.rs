use bolero::check;
use bytes::Bytes;

use super::super::*;
use super::{CHECKED, contents, stream_id};

/// Wire bytes of a record that holds `message` as one STREAM frame that continues its stream.
fn message_record(id: StreamId, message: &[u8], fin: bool, last: bool) -> usize {
    let mut out = OutBuffer::new();
    let mut builder = RecordBuilder::begin(&mut out, DEFAULT_MAX_BODY, false);
    assert!(builder.stream_header(id, None, fin, message.len(), last));
    builder.data(message);
    builder.finish()
}

// PROTOCOL 3.1, 4.4: at most 8 bytes for an ordered message, at any offset, since the frame continues
// the stream; at most 12 for an unordered one at index 2^28.
#[test]
fn overhead_of_a_small_message() {
    let message = [0x55; 64];
    let mut ordered = Vec::new();
    varint::put(&mut ordered, message.len() as u64);
    ordered.extend_from_slice(&message);
    let events = StreamId::ordered(Side::Client, Class::EVENTS);
    assert_eq!(message_record(events, &ordered, false, true) - message.len(), 7);
    assert_eq!(message_record(events, &ordered, false, false) - message.len(), 8);

    let unordered = StreamId::new(Side::Server, Kind::Unordered, Class::EVENTS, 1 << 28).unwrap();
    assert_eq!(
        message_record(unordered, &message, true, true) - message.len(),
        10
    );
    assert_eq!(
        message_record(unordered, &message, true, false) - message.len(),
        11
    );
}

// PROTOCOL 3.1
#[test]
fn a_record_holds_no_more_than_its_limit() {
    let id = stream_id(1 << 20);
    for last in [false, true] {
        for max_body in [
            1, 5, 20, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 1200, 16_400,
        ] {
            let mut out = OutBuffer::new();
            let mut builder = RecordBuilder::begin(&mut out, max_body, true);
            let Some(room) = builder.stream_room(id, Some(7), last) else {
                assert!(max_body <= 6);
                assert!(!builder.stream_header(id, Some(7), true, 0, last));
                continue;
            };
            assert!(!builder.stream_header(id, Some(7), true, room + 2, last));
            assert_eq!(builder.body_len(), 0);
            assert!(builder.stream_header(id, Some(7), true, room, last));
            assert_eq!(builder.body_len() + room, max_body - builder.remaining());
            builder.data(&vec![1; room]);
            assert!(builder.remaining() <= 1);
            let len = builder.finish();
            assert!(len <= HEADER_LEN + max_body + CRC_LEN && len >= HEADER_LEN + max_body + CRC_LEN - 1);
            let limits = RecordLimits { max_body, ..CHECKED };
            let bytes = contents(&out);
            assert!(
                split_record(&mut &bytes[..], &limits, &mut Vec::new())
                    .unwrap()
                    .is_some()
            );
        }
    }
}

// PROTOCOL 3.1: the length is 24 bits wide.
#[test]
fn the_largest_record() {
    let mut out = OutBuffer::new();
    let mut builder = RecordBuilder::begin(&mut out, usize::MAX, true);
    assert_eq!(builder.remaining(), LARGEST_MAX_BODY);
    let room = builder.stream_room(stream_id(0), None, true).unwrap();
    assert!(builder.stream_header(stream_id(0), None, false, room, true));
    builder.data_shared(vec![0; room].into());
    assert_eq!(builder.remaining(), 0);
    assert_eq!(builder.finish(), HEADER_LEN + 0xff_ffff);
    assert_eq!(contents(&out)[..4], [0xff, 0xff, 0xff, 0x08]);
}

#[test]
fn what_is_not_finished_was_never_there() {
    let mut out = OutBuffer::new();
    assert_eq!(RecordBuilder::begin(&mut out, 1200, true).finish(), 0);
    out.put(b"before");
    out.put_shared(vec![1; SHARE_THRESHOLD].into());
    let before = contents(&out);
    for cancel in [true, false] {
        let mut builder = RecordBuilder::begin(&mut out, DEFAULT_MAX_BODY, true);
        assert!(builder.frame(&Frame::Ping { seq: 1 }));
        assert!(builder.stream_header(stream_id(1), None, false, SHARE_THRESHOLD, false));
        builder.data_shared(vec![2; SHARE_THRESHOLD].into());
        if cancel {
            builder.cancel()
        } else {
            drop(builder)
        }
        assert_eq!(contents(&out), before);
    }
}

#[test]
fn no_frame_follows_the_last() {
    let mut out = OutBuffer::new();
    let mut builder = RecordBuilder::begin(&mut out, 1200, true);
    let last = Frame::Datagram {
        number: 1,
        class: None,
        data: b"to the end",
    };
    assert!(builder.last_frame(&last));
    assert_eq!(builder.remaining(), 0);
    assert!(!builder.frame(&Frame::Ping { seq: 1 }));
    assert!(!builder.stream_header(stream_id(1), None, true, 0, false));
    builder.finish();
    let bytes = contents(&out);
    let mut scratch = Vec::new();
    let record = split_record(&mut &bytes[..], &CHECKED, &mut scratch)
        .unwrap()
        .unwrap();
    assert_eq!(record.frames().collect::<Vec<_>>(), [Ok(last)]);
}

#[test]
fn memory_is_taken_late_and_given_back() {
    let mut out = OutBuffer::new();
    assert_eq!(out.capacity(), 0);
    out.put(&[1; 10_000]);
    out.put_shared(vec![2; 10_000].into());
    out.shrink();
    assert_eq!(out.len(), 20_000, "what waits is not touched");
    out.advance(usize::MAX);
    assert!(out.is_empty() && out.capacity() > 0);
    out.shrink();
    assert_eq!(out.capacity(), 0);
}

#[test]
fn a_buffer_that_never_drains_stays_small() {
    let mut out = OutBuffer::new();
    out.put(&[0; 100]);
    for _ in 0..10_000 {
        out.put(&[0; 1000]);
        out.advance(1000);
    }
    assert_eq!(out.len(), 100);
    assert!(out.capacity() < 32_768);
}

#[derive(Clone, Debug, bolero::TypeGenerator)]
enum Op {
    Put(u8),
    PutShared(u16),
    Record {
        small: u8,
        shared: u16,
        crc: bool,
        cancel: bool,
    },
    Advance(u16),
    AdvanceChunk,
    Shrink,
}

/// Distinct bytes, so that a slice out of place shows.
fn pattern(next: &mut u32, len: usize) -> Vec<u8> {
    let start = *next;
    *next = next.wrapping_add(len as u32);
    (0..len as u32)
        .map(|i| (start.wrapping_add(i).wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Appends a record of two STREAM frames to `out`, and to `model` what it must have become.
fn record(out: &mut OutBuffer, model: &mut Vec<u8>, small: &[u8], shared: &[u8], crc: bool, cancel: bool) {
    let mut builder = RecordBuilder::begin(out, 1 << 17, crc);
    assert!(builder.stream_header(stream_id(1), None, false, small.len(), false));
    builder.data(small);
    assert!(builder.stream_header(stream_id(2), Some(5), true, shared.len(), true));
    builder.data_shared(Bytes::copy_from_slice(shared));
    if cancel {
        return builder.cancel();
    }
    let len = builder.finish();
    let mut body = Vec::new();
    Frame::Stream {
        id: stream_id(1),
        offset: None,
        fin: false,
        data: small,
    }
    .encode(&mut body);
    Frame::Stream {
        id: stream_id(2),
        offset: Some(5),
        fin: true,
        data: shared,
    }
    .encode_last(&mut body);
    let bytes = super::raw_record(if crc { 8 } else { 0 }, &body);
    assert_eq!(len, bytes.len());
    model.extend_from_slice(&bytes);
}

// PROTOCOL 3: the buffer against a plain vector.
#[test]
fn any_sequence_of_operations_matches_a_plain_vector() {
    check!().with_type::<Vec<Op>>().for_each(|ops| {
        let (mut out, mut model, mut next) = (OutBuffer::new(), Vec::new(), 0);
        for op in ops {
            match *op {
                Op::Put(len) => {
                    let bytes = pattern(&mut next, len.into());
                    out.put(&bytes);
                    model.extend_from_slice(&bytes);
                }
                Op::PutShared(len) => {
                    let bytes = pattern(&mut next, usize::from(len) % 10_000);
                    model.extend_from_slice(&bytes);
                    out.put_shared(bytes.into());
                }
                Op::Record {
                    small,
                    shared,
                    crc,
                    cancel,
                } => {
                    let small = pattern(&mut next, small.into());
                    let shared = pattern(&mut next, usize::from(shared) % 10_000);
                    record(&mut out, &mut model, &small, &shared, crc, cancel);
                }
                Op::Advance(n) => {
                    out.advance(n.into());
                    model.drain(..model.len().min(n.into()));
                }
                Op::AdvanceChunk => {
                    let chunk = out.chunk().to_vec();
                    assert!(model.starts_with(&chunk));
                    assert_eq!(chunk.is_empty(), model.is_empty());
                    out.advance(chunk.len());
                    model.drain(..chunk.len());
                }
                Op::Shrink => out.shrink(),
            }
            assert_eq!(out.len(), model.len());
        }
        assert_eq!(contents(&out), model);
    });
}

// PROTOCOL 4.4: headers of every length, both as a builder and as a frame writes them.
#[test]
fn stream_headers_are_the_same_everywhere() {
    let numbers = [0, 1 << 6, 1 << 20, 1 << 34, 1 << 48, 1 << 55, 1 << 61];
    for (value, data_len) in numbers.into_iter().zip([0, 1, 127, 128, 20_000, 5, 300]) {
        let id = StreamId::try_from(value).unwrap();
        let data = vec![3; data_len];
        for offset in numbers.map(Some).into_iter().chain([None]) {
            for (fin, last) in [(false, false), (true, false), (false, true), (true, true)] {
                let frame = Frame::Stream {
                    id,
                    offset,
                    fin,
                    data: &data,
                };
                let mut body = Vec::new();
                if last {
                    frame.encode_last(&mut body)
                } else {
                    frame.encode(&mut body)
                }
                assert_eq!(Frame::decode(&mut &body[..]), Ok(Some(frame)));

                let mut out = OutBuffer::new();
                let mut small = RecordBuilder::begin(&mut out, body.len() - 1, true);
                assert!(!small.stream_header(id, offset, fin, data_len, last));
                drop(small);
                let mut builder = RecordBuilder::begin(&mut out, body.len(), true);
                assert!(builder.stream_header(id, offset, fin, data_len, last));
                builder.data(&data);
                builder.finish();
                assert_eq!(contents(&out), super::raw_record(8, &body));
            }
        }
    }
}
