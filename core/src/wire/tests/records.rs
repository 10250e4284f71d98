use bolero::check;

use super::super::*;
use super::{CHECKED, OPEN, contents, every_frame, raw_record, record_of, stream_id};

fn split<'a>(input: &mut &'a [u8], limits: &RecordLimits) -> Result<Option<Record<'a>>, WireError> {
    let scratch = Box::leak(Box::default());
    split_record(input, limits, scratch)
}

fn refusal(bytes: &[u8], limits: &RecordLimits) -> WireError {
    let mut input = bytes;
    let error = split(&mut input, limits).unwrap_err();
    assert_eq!(input, bytes, "a refused record stays in the input");
    error
}

fn compressed(claim: u64, block: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    varint::put(&mut body, claim);
    body.extend_from_slice(block);
    raw_record(0x0a, &body)
}

/// Several records of many frames, with and without CRC, LZ4 and shared payloads.
fn long_stream() -> (Vec<u8>, usize) {
    let mut out = OutBuffer::new();
    let mut compressor = Compressor::new();
    let frames = every_frame();
    let mut records = 0;
    for (i, chunk) in frames.chunks(5).enumerate() {
        let mut builder = RecordBuilder::begin(&mut out, DEFAULT_MAX_BODY, i % 2 == 0);
        chunk.iter().for_each(|frame| assert!(builder.frame(frame)));
        assert!(builder.stream_header(stream_id(3), Some(1 << 40), true, 900, i % 3 == 0));
        builder.data(&[7; 900]);
        let len = if i % 4 == 0 {
            builder.finish_compressed(&mut compressor)
        } else {
            builder.finish()
        };
        assert!(len > 0);
        records += 1;
    }
    (contents(&out), records)
}

/// The frames of `bytes` when they arrive in pieces that end at `cuts`.
fn digest(bytes: &[u8], cuts: impl Iterator<Item = usize>) -> Vec<String> {
    let (mut seen, mut done, mut scratch) = (Vec::new(), 0, Vec::new());
    for end in cuts.chain([bytes.len()]) {
        let arrived = &bytes[done..end];
        let prefix = complete_prefix(arrived, &OPEN).unwrap();
        assert!(prefix.complete + prefix.next_needed > arrived.len());
        let mut input = &arrived[..prefix.complete];
        while let Some(record) = split_record(&mut input, &OPEN, &mut scratch).unwrap() {
            seen.push(format!("record ack_now={} {}", record.ack_now, record.wire_len));
            seen.extend(record.frames().map(|frame| format!("{:?}", frame.unwrap())));
        }
        assert!(input.is_empty());
        done += prefix.complete;
    }
    assert_eq!(done, bytes.len());
    seen
}

// PROTOCOL 3.1
#[test]
fn layout() {
    let ping = [0x0a, 0x05];
    assert_eq!(
        record_of(&[Frame::Ping { seq: 5 }], false),
        [0, 0, 2, 0, 0x0a, 0x05]
    );
    let with_crc = record_of(&[Frame::Ping { seq: 5 }], true);
    assert_eq!(with_crc[..6], [0, 0, 6, 8, 0x0a, 0x05]);
    assert_eq!(with_crc, raw_record(0x08, &ping));
    let mut input = &with_crc[..];
    let record = split(&mut input, &CHECKED).unwrap().unwrap();
    assert_eq!(
        (record.body, record.wire_len, record.ack_now),
        (&ping[..], 10, false)
    );
    assert!(
        split(&mut &raw_record(0x01, &ping)[..], &OPEN)
            .unwrap()
            .unwrap()
            .ack_now
    );
}

// PROTOCOL 3.2: the check value of CRC32C.
#[test]
fn checksum_is_castagnoli() {
    assert_eq!(crc::checksum(b"123456789"), 0xe306_9283);
    let mut parts = crc::Checksum::new();
    [&b"1234"[..], b"", b"56789"]
        .into_iter()
        .for_each(|part| parts.update(part));
    assert_eq!(parts.finish(), 0xe306_9283);
}

// PROTOCOL 3.1
#[test]
fn any_cut_of_the_byte_stream_gives_the_same_frames() {
    let (bytes, records) = long_stream();
    let whole = digest(&bytes, std::iter::empty());
    assert_eq!(
        whole.iter().filter(|line| line.starts_with("record")).count(),
        records
    );
    assert_eq!(digest(&bytes, 0..bytes.len()), whole);
    for cut in (0..bytes.len()).step_by(7) {
        assert_eq!(digest(&bytes, [cut].into_iter()), whole, "cut at {cut}");
    }
    check!()
        .with_iterations(200)
        .with_type::<Vec<u16>>()
        .for_each(|cuts| {
            let mut cuts: Vec<_> = cuts.iter().map(|&cut| usize::from(cut) % bytes.len()).collect();
            cuts.sort_unstable();
            assert_eq!(digest(&bytes, cuts.into_iter()), whole);
        });
}

// PROTOCOL 3.1
#[test]
fn an_incomplete_record_waits() {
    let bytes = record_of(&every_frame(), true);
    for len in 0..bytes.len() {
        let mut input = &bytes[..len];
        assert_eq!(split(&mut input, &CHECKED), Ok(None));
        assert_eq!(input.len(), len);
        let next_needed = if len < HEADER_LEN { HEADER_LEN } else { bytes.len() };
        assert_eq!(
            complete_prefix(input, &CHECKED),
            Ok(Prefix {
                complete: 0,
                next_needed
            })
        );
    }
}

// PROTOCOL 3.1: limits are judged by the header alone.
#[test]
fn headers_are_judged_as_soon_as_they_are_there() {
    let limits = RecordLimits {
        max_body: 1200,
        require_crc: false,
        allow_lz4: false,
    };
    let checked = RecordLimits {
        require_crc: true,
        ..limits
    };
    let too_long = |len| WireError::RecordTooLong { len, max: 1200 };
    for (header, limits, error) in [
        ([0, 0, 0, 0x00], &limits, WireError::RecordEmpty { len: 0 }),
        ([0, 0, 3, 0x08], &limits, WireError::RecordEmpty { len: 3 }),
        ([0, 0, 4, 0x08], &limits, WireError::RecordEmpty { len: 4 }),
        ([0, 4, 0xb1, 0x00], &limits, too_long(1201)),
        ([0, 4, 0xb5, 0x08], &checked, too_long(1201)),
        ([0xff, 0xff, 0xff, 0x00], &limits, too_long(0xff_ffff)),
        ([0, 0, 9, 0x04], &limits, WireError::Sealed { flags: 4 }),
        ([0, 0, 9, 0x0c], &limits, WireError::Sealed { flags: 12 }),
        ([0, 0, 9, 0x10], &limits, WireError::ReservedFlags { flags: 0x10 }),
        ([0, 0, 9, 0xfb], &limits, WireError::ReservedFlags { flags: 0xf0 }),
        ([0, 0, 9, 0x02], &limits, WireError::Lz4NotNegotiated),
        ([0, 0, 9, 0x01], &checked, WireError::CrcMissing { flags: 1 }),
    ] {
        assert_eq!(complete_prefix(&header, limits), Err(error));
        assert_eq!(refusal(&header, limits), error);
    }
    let fits = complete_prefix(&[0, 4, 0xb4, 0x08], &checked);
    assert_eq!(
        fits,
        Ok(Prefix {
            complete: 0,
            next_needed: 4 + 1200 + 4
        })
    );
}

// PROTOCOL 3.1
#[test]
fn every_reserved_flag_is_refused() {
    for flags in 0..=255_u8 {
        let refused = complete_prefix(&[0, 0, 9, flags], &OPEN).is_err();
        assert_eq!(refused, flags & 0xf4 != 0, "{flags:#x}");
    }
}

// PROTOCOL 3.1: a handshake record may change the limits of those behind it.
#[test]
fn a_bad_header_behind_good_records_waits_its_turn() {
    let good = record_of(&[Frame::Ping { seq: 1 }], true);
    let bytes = [&good[..], &[0, 0xff, 0xff, 0x00]].concat();
    let limits = RecordLimits::HANDSHAKE;
    assert_eq!(
        complete_prefix(&bytes, &limits),
        Ok(Prefix {
            complete: good.len(),
            next_needed: 4
        })
    );
    assert_eq!(
        complete_prefix(&bytes[good.len()..], &limits),
        Err(WireError::CrcMissing { flags: 0 })
    );
}

// PROTOCOL 3.2
#[test]
fn any_flipped_bit_is_refused() {
    let record = record_of(&every_frame(), true);
    for bit in 0..record.len() * 8 {
        let mut bytes = record.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A length that grew makes the record wait for bytes that are not its own.
        bytes.resize(bytes.len() + (1 << 17), 0);
        assert!(split(&mut &bytes[..], &CHECKED).is_err(), "bit {bit}");
    }
    let mut bytes = record.clone();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(refusal(&bytes, &OPEN).code(), ErrorCode::BAD_CRC);
}

// PROTOCOL 3.3
#[test]
fn compressed_records_return_and_are_shorter() {
    let mut compressor = Compressor::new();
    let text = b"the quick brown fox jumps over the lazy dog; ".repeat(40);
    for (crc, shared) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut out = OutBuffer::new();
        for _ in 0..3 {
            let mut builder = RecordBuilder::begin(&mut out, DEFAULT_MAX_BODY, crc);
            assert!(builder.frame(&Frame::Ping { seq: 1 }));
            let data: bytes::Bytes = if shared { text.repeat(8) } else { text.clone() }.into();
            assert!(builder.stream_header(stream_id(1), None, false, data.len(), true));
            builder.data_shared(data.clone());
            let len = builder.finish_compressed(&mut compressor);
            assert!(len < data.len() / 4);
            let bytes = contents(&out);
            let mut input = &bytes[bytes.len() - len..];
            let record = split(&mut input, &OPEN).unwrap().unwrap();
            assert!(record.compressed && input.is_empty());
            assert_eq!(record.wire_len, len);
            let frames: Vec<_> = record.frames().map(Result::unwrap).collect();
            let stream = Frame::Stream {
                id: stream_id(1),
                offset: None,
                fin: false,
                data: &data,
            };
            assert_eq!(frames, [Frame::Ping { seq: 1 }, stream]);
        }
    }
}

// PROTOCOL 3.3
#[test]
fn what_does_not_shrink_is_sent_as_it_is() {
    let mut compressor = Compressor::new();
    let mut noise = Vec::new();
    let mut state = 1_u64;
    for _ in 0..6000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        noise.push((state >> 56) as u8);
    }
    for data in [&noise[..], &noise[..100], b"x"] {
        let [mut plain, mut tried] = [OutBuffer::new(), OutBuffer::new()];
        for (out, compress) in [(&mut plain, false), (&mut tried, true)] {
            let mut builder = RecordBuilder::begin(out, DEFAULT_MAX_BODY, true);
            assert!(builder.stream_header(stream_id(1), None, false, data.len(), false));
            builder.data_shared(bytes::Bytes::copy_from_slice(data));
            if compress {
                builder.finish_compressed(&mut compressor)
            } else {
                builder.finish()
            };
        }
        assert_eq!(contents(&plain), contents(&tried));
    }
}

// PROTOCOL 3.3: claims are judged before memory is taken.
#[test]
fn a_bomb_is_refused_before_any_allocation() {
    for claimed in [DEFAULT_MAX_BODY as u64 + 1, 1 << 40, u64::MAX] {
        let bytes = compressed(claimed, &[0x1f, 0, 1, 0, 255, 255, 255]);
        let mut scratch = Vec::new();
        let refused = split_record(&mut &bytes[..], &OPEN, &mut scratch);
        assert_eq!(
            refused,
            Err(WireError::Lz4Claim {
                claimed,
                max: DEFAULT_MAX_BODY
            })
        );
        assert_eq!(scratch.capacity(), 0);
    }
}

// PROTOCOL 3.3
#[test]
fn a_block_that_disagrees_with_its_claim_is_refused() {
    let content = [9; 5000];
    let block = lz4_flex::block::compress(&content);
    let mut scratch = Vec::new();
    for claimed in [5000_u64, 1, 4999, 5001, 65_536] {
        let bytes = compressed(claimed, &block);
        let result = split_record(&mut &bytes[..], &OPEN, &mut scratch).map(Option::unwrap);
        match claimed {
            5000 => assert_eq!(result.unwrap().body, content),
            ..5000 => assert!(matches!(result, Err(WireError::Lz4Block { .. })), "{result:?}"),
            _ => assert_eq!(
                result,
                Err(WireError::Lz4Length {
                    claimed: claimed as usize,
                    actual: 5000
                })
            ),
        }
        assert!(scratch.len() <= DEFAULT_MAX_BODY);
    }
    assert_eq!(
        refusal(&compressed(0, &[0]), &OPEN),
        WireError::RecordEmpty { len: 0 }
    );
    assert!(matches!(
        refusal(&compressed(5, &[]), &OPEN),
        WireError::Lz4Block { .. }
    ));
    // A match that reaches before the start must not show what an earlier record left in the scratch.
    assert!(matches!(
        refusal(&compressed(20, &[0x0f, 1, 0, 1]), &OPEN),
        WireError::Lz4Block { .. }
    ));
    assert!(matches!(
        refusal(&compressed(20, &[0x1f, 7, 0, 0, 1]), &OPEN),
        WireError::Lz4Block { .. }
    ));
}
