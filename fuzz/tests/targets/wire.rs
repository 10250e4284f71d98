//! The decoders of the wire: no bytes make them panic, and what they accept is what would be sent.

use bolero::check;
use sheetbend_core::wire::{
    Addresses, AdvertiseFrame, Class, Compressor, Counts, ErrorCode, Frame, Frames, HandshakeKind, Kind,
    LaneCount, OutBuffer, PathStatus, RecordBuilder, RecordLimits, RejectCode, StreamId, complete_prefix,
    split_record, varint,
};
use sheetbend_fuzz::input::Input;
use sheetbend_fuzz::life::stream_id;

fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    assert_eq!(bytes.len(), frame.encoded_len());
    bytes
}

/// Every byte that waits in `out`.
fn contents(out: &mut OutBuffer) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(out.len());
    while !out.is_empty() {
        let taken = out.chunk().len();
        bytes.extend_from_slice(out.chunk());
        out.advance(taken);
    }
    bytes
}

fn limits(bits: u8) -> RecordLimits {
    if bits & 3 == 3 {
        return RecordLimits::HANDSHAKE;
    }
    RecordLimits {
        max_body: 4096,
        require_crc: bits & 1 == 1,
        allow_lz4: bits & 2 == 0,
    }
}

/// PROTOCOL 2.1: one value has one form.
#[test]
fn varints() {
    check!().for_each(|bytes: &[u8]| {
        let mut input = bytes;
        match varint::get(&mut input) {
            Ok(value) => {
                let mut again = Vec::new();
                varint::put(&mut again, value);
                assert_eq!(again, bytes[..bytes.len() - input.len()]);
                assert_eq!(again.len(), varint::len(value));
            }
            Err(_) => assert_eq!(input.len(), bytes.len()),
        }
        let value = Input::new(bytes).u64() >> (bytes.len() & 63);
        let mut encoded = Vec::new();
        varint::put(&mut encoded, value);
        assert_eq!(varint::get(&mut &encoded[..]), Ok(value));
    });
}

/// PROTOCOL 4: whatever is accepted is also what would be sent.
#[test]
fn frames() {
    check!().for_each(|bytes: &[u8]| {
        for frame in Frames::new(bytes).flatten() {
            assert_eq!(Frame::decode(&mut &encode(&frame)[..]), Ok(Some(frame)));
            let mut last = Vec::new();
            frame.encode_last(&mut last);
            assert_eq!(last.len(), frame.encoded_last_len());
            assert_eq!(Frame::decode(&mut &last[..]), Ok(Some(frame)));
            touch(&frame);
        }
    });
}

/// Reads what a frame holds by way of iterators.
fn touch(frame: &Frame<'_>) {
    match frame {
        Frame::Advertise(advertise) => {
            assert_eq!(advertise.addresses.iter().count(), advertise.addresses.len());
        }
        Frame::PathAbandon { counts, .. }
        | Frame::AckLanes { counts, .. }
        | Frame::AckDatagrams { runs: counts } => {
            assert_eq!(counts.iter().count(), counts.len())
        }
        _ => {}
    }
}

/// PROTOCOL 3: records out of any bytes, read whole and in two pieces.
#[test]
fn records() {
    check!().for_each(|bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let limits = limits(input.byte());
        let bytes = input.rest();
        let mut scratch = Vec::new();
        let prefix = complete_prefix(bytes, &limits);
        let (mut rest, mut taken) = (bytes, 0);
        loop {
            let before = rest.len();
            match split_record(&mut rest, &limits, &mut scratch) {
                Ok(Some(record)) => {
                    assert!(!record.body.is_empty() && record.body.len() <= limits.max_body);
                    assert_eq!(record.wire_len, before - rest.len());
                    record.frames().for_each(drop);
                    taken += record.wire_len;
                    // Of each shorter piece there is no record yet.
                    let short = &bytes[taken - record.wire_len..taken - 1];
                    let mut piece = short;
                    let mut scratch = Vec::new();
                    let result = split_record(&mut piece, &limits, &mut scratch);
                    assert!(matches!(result, Ok(None)), "{result:?}");
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(rest.len(), before, "a refused record stays in the input");
                    let _ = error.code();
                    break;
                }
            }
        }
        match prefix {
            Ok(prefix) => {
                assert!(prefix.complete <= bytes.len() && taken <= prefix.complete);
                assert!(prefix.next_needed > bytes.len() - prefix.complete || prefix.complete > 0);
            }
            Err(_) => assert_eq!(taken, 0),
        }
        assert!(scratch.capacity() <= 2 * limits.max_body);
    });
}

/// PROTOCOL 3.2, 3.3: what is built is read, with CRC and LZ4, and one flipped bit is seen by the CRC.
#[test]
fn records_return() {
    check!().for_each(|bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let bits = input.byte();
        let (crc, lz4) = (bits & 1 == 1, bits & 2 == 2);
        let flip = input.u16();
        let mut out = OutBuffer::new();
        let mut builder = RecordBuilder::begin(&mut out, 4096, crc);
        let mut body = Vec::new();
        while !input.is_empty() && body.len() < 3000 {
            let (id, len, byte) = (stream_id(&mut input), input.size(1000), input.byte());
            let data = vec![byte; len];
            let frame = Frame::Stream {
                id,
                offset: input.flag().then_some(u64::from(byte)),
                fin: input.flag(),
                data: &data,
            };
            if builder.frame(&frame) {
                body.extend(encode(&frame));
            }
        }
        if bits & 4 == 4 {
            builder.set_ack_now();
        }
        let empty = builder.is_empty();
        let len = if lz4 {
            builder.finish_compressed(&mut Compressor::new())
        } else {
            builder.finish()
        };
        let mut wire = contents(&mut out);
        assert_eq!(wire.len(), len);
        if empty {
            return assert!(wire.is_empty());
        }
        let open = RecordLimits {
            max_body: 4096,
            require_crc: crc,
            allow_lz4: lz4,
        };
        let mut scratch = Vec::new();
        let mut rest = &wire[..];
        let record = split_record(&mut rest, &open, &mut scratch)
            .expect("sound")
            .expect("whole");
        assert_eq!((record.body, record.ack_now), (&body[..], bits & 4 == 4));
        assert!(rest.is_empty());
        if crc {
            let at = usize::from(flip) % wire.len();
            wire[at] ^= 1 << (flip >> 13);
            let found = split_record(&mut &wire[..], &open, &mut scratch);
            assert!(!matches!(found, Ok(Some(_))), "a flipped bit at {at} is seen");
        }
    });
}

/// PROTOCOL 4: every frame that can be made comes back as it was.
#[test]
fn frames_return() {
    check!().for_each(|bytes: &[u8]| {
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            with_frame(&mut input, |frame| {
                let bytes = encode(&frame);
                let mut rest = &bytes[..];
                assert_eq!(Frame::decode(&mut rest), Ok(Some(frame)));
                assert!(rest.is_empty());
            });
        }
    });
}

fn number(input: &mut Input<'_>) -> u64 {
    let shift = input.byte() & 63;
    input.u64() >> shift
}

pub(crate) fn with_frame(input: &mut Input<'_>, then: impl Fn(Frame<'_>)) {
    let class = Class::new(input.byte() % 8).expect("small");
    let (id, a, b) = (stream_id(input), number(input), number(input));
    let text = String::from_utf8_lossy(input.take(40)).into_owned();
    let offset = a % (1 << 61);
    let counts: Vec<LaneCount> = (0..input.below(4))
        .map(|lane| LaneCount {
            lane: lane as u64,
            count: b,
        })
        .collect();
    let kinds = [
        HandshakeKind::Hello,
        HandshakeKind::Welcome,
        HandshakeKind::Join,
        HandshakeKind::Joined,
        HandshakeKind::Confirm,
        HandshakeKind::Reject,
    ];
    then(match input.byte() % 20 {
        0 => Frame::Ack {
            path: a,
            lane: b,
            count: a,
            delay_us: b,
        },
        1 => Frame::AckHere {
            count: a,
            delay_us: b,
        },
        2 => Frame::Ping { seq: a },
        3 => Frame::Pong { seq: b },
        4 => Frame::ResetStream {
            id,
            code: b,
            final_size: offset,
        },
        5 => Frame::StopSending { id, code: a },
        6 => Frame::MaxData { class, value: a },
        7 => {
            let kind = input.pick(&[Kind::Bi, Kind::Uni, Kind::Unordered]);
            let value = a % (StreamId::MAX_INDEX + 1);
            Frame::MaxStreams { class, kind, value }
        }
        8 => Frame::MaxStreamData { id, value: offset },
        9 => {
            let status = input.pick(&[PathStatus::Active, PathStatus::Standby, PathStatus::Leave]);
            Frame::PathStatus {
                path: a,
                seq: b,
                status,
                in_flight: a,
            }
        }
        10 => {
            let list = [text.as_str(); 3];
            let addresses = Addresses::new(&list[..input.below(4)]).expect("few");
            return then(Frame::Advertise(AdvertiseFrame { seq: a, addresses }));
        }
        11 => {
            let counts = Counts::new(&counts).expect("few");
            return then(Frame::PathAbandon {
                path: a,
                code: b,
                counts,
            });
        }
        18 => {
            let counts = Counts::new(&counts).expect("few");
            return then(Frame::AckDatagrams { runs: counts });
        }
        17 => {
            let counts = Counts::new(&counts).expect("few");
            return then(Frame::AckLanes { delay_us: a, counts });
        }
        12 => {
            return then(Frame::GoAway {
                code: a,
                reason: &text,
                address: &text,
            });
        }
        13 => {
            return then(Frame::Close {
                code: b,
                reason: &text,
            });
        }
        14 => {
            return then(Frame::Datagram {
                number: a,
                class: Some(class),
                data: text.as_bytes(),
            });
        }
        15 => {
            return then(Frame::Datagram {
                number: b,
                class: None,
                data: text.as_bytes(),
            });
        }
        16 => {
            let kind = input.pick(&kinds);
            return then(Frame::Handshake {
                kind,
                body: text.as_bytes(),
            });
        }
        _ => {
            let (offset, fin) = (input.flag().then_some(offset), input.flag());
            return then(Frame::Stream {
                id,
                offset,
                fin,
                data: text.as_bytes(),
            });
        }
    });
}

/// PROTOCOL 9: codes are numbers, whatever they are called.
#[test]
fn codes() {
    check!().with_type::<u64>().for_each(|&value| {
        let (error, reject) = (ErrorCode::from(value), RejectCode::from(value));
        assert_eq!((error.value(), reject.value()), (value, value));
        assert_eq!(
            error
                .as_application()
                .and_then(ErrorCode::application)
                .unwrap_or(error),
            error
        );
        assert_eq!(format!("{error}").is_empty(), error.name() == Some(""));
        assert_eq!(format!("{reject}").is_empty(), reject.name() == Some(""));
        match StreamId::try_from(value) {
            Ok(id) => assert_eq!(
                StreamId::new(id.initiator(), id.kind(), id.class(), id.index()),
                Some(id)
            ),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}
