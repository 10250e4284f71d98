use super::super::*;
use super::every_frame;

fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut buf = Vec::new();
    frame.encode(&mut buf);
    buf
}

fn decode(bytes: &[u8]) -> Result<Option<Frame<'_>>, WireError> {
    Frame::decode(&mut &bytes[..])
}

fn numbers(kind: u8, values: &[u64]) -> Vec<u8> {
    let mut bytes = vec![kind];
    values.iter().for_each(|&value| varint::put(&mut bytes, value));
    bytes
}

// PROTOCOL 2.2
#[test]
fn stream_ids_hold_their_parts() {
    for initiator in [Side::Client, Side::Server] {
        for class in Class::ALL {
            for kind in Kind::ALL {
                for index in [0, 1, 1 << 28, StreamId::MAX_INDEX] {
                    let Some(id) = StreamId::new(initiator, kind, class, index) else {
                        assert!(kind == Kind::Ordered && index > 0);
                        continue;
                    };
                    assert_eq!(
                        (id.initiator(), id.kind(), id.class(), id.index()),
                        (initiator, kind, class, index)
                    );
                    assert_eq!(StreamId::try_from(id.value()), Ok(id));
                    let value = index << 6 | (class.index() as u64) << 3 | (kind as u64) << 1;
                    assert_eq!(id.value(), value | initiator as u64);
                    assert_eq!(id.is_sent_by(initiator.peer()), kind == Kind::Bi);
                }
            }
            assert_eq!(
                Some(StreamId::ordered(initiator, class)),
                StreamId::new(initiator, Kind::Ordered, class, 0)
            );
        }
    }
    assert_eq!(
        StreamId::new(Side::Client, Kind::Bi, Class::BULK, StreamId::MAX_INDEX + 1),
        None
    );
    let second_ordered = 1 << 6 | 2 << 1;
    assert_eq!(
        StreamId::try_from(second_ordered),
        Err(WireError::StreamId {
            value: second_ordered
        })
    );
}

// PROTOCOL 4
#[test]
fn every_frame_returns() {
    for frame in every_frame() {
        let mut bytes = encode(&frame);
        assert_eq!(bytes.len(), frame.encoded_len(), "{frame:?}");
        bytes.extend_from_slice(b"next");
        let mut input = &bytes[..];
        assert_eq!(Frame::decode(&mut input), Ok(Some(frame)));
        assert_eq!(input, b"next", "{frame:?}");

        let mut again = Vec::new();
        decode(&bytes).unwrap().unwrap().encode(&mut again);
        assert_eq!(
            again,
            bytes[..bytes.len() - 4],
            "a decoded {frame:?} is sent as it came"
        );
    }
}

// PROTOCOL 4.4, 4.6: without a length, data runs to the end of the body.
#[test]
fn every_frame_returns_as_the_last() {
    for frame in every_frame() {
        let mut bytes = Vec::new();
        frame.encode_last(&mut bytes);
        assert_eq!(bytes.len(), frame.encoded_last_len());
        let mut input = &bytes[..];
        assert_eq!(Frame::decode(&mut input), Ok(Some(frame)));
        assert!(input.is_empty());
    }
}

// PROTOCOL 4
#[test]
fn every_frame_cut_off_anywhere_is_refused() {
    for frame in every_frame() {
        let bytes = encode(&frame);
        for len in 0..bytes.len() {
            let error = decode(&bytes[..len]).unwrap_err();
            assert!(
                matches!(error, WireError::Truncated { .. }),
                "{frame:?} at {len}: {error}"
            );
            assert_eq!(error.code(), ErrorCode::MALFORMED_FRAME);
        }
    }
}

// PROTOCOL 4
#[test]
fn unknown_types_are_refused() {
    let known = [0x01..=0x06, 0x08..=0x17, 0x20..=0x2b];
    for kind in (0..0x40).filter(|kind| !known.iter().any(|range| range.contains(kind))) {
        let error = decode(&[kind, 1, 0, 0, 0, 0, 0, 0]).unwrap_err();
        assert_eq!(
            error,
            WireError::UnknownFrame {
                frame_type: kind.into()
            }
        );
        assert_eq!(error.code(), ErrorCode::UNKNOWN_FRAME);
    }
}

// PROTOCOL 2.1: a frame's type is minimal like any other varint.
#[test]
fn a_type_in_a_longer_form_is_refused() {
    let error = decode(&[0x80, 0x20, 0, 0]).unwrap_err();
    assert_eq!(
        error,
        WireError::NotMinimal {
            what: "frame type",
            value: 0x20,
            len: 2
        }
    );
}

// PROTOCOL 4.9
#[test]
fn extensions_are_skipped() {
    for kind in [0x40, 0x7f, 0x80, 0x4000, u64::MAX] {
        let mut body = Vec::new();
        for len in [0, 1, 200] {
            varint::put(&mut body, kind);
            varint::put(&mut body, len);
            body.extend(std::iter::repeat_n(0xee, len as usize));
        }
        assert_eq!(Frames::new(&body).count(), 0);
        Frame::Ping { seq: 1 }.encode(&mut body);
        assert_eq!(
            Frames::new(&body).collect::<Vec<_>>(),
            [Ok(Frame::Ping { seq: 1 })]
        );

        let mut cut = Vec::new();
        varint::put(&mut cut, kind);
        varint::put(&mut cut, u64::MAX);
        let refused = WireError::Truncated {
            what: "extension",
            needed: u64::MAX,
            have: 0,
        };
        assert_eq!(decode(&cut), Err(refused));
    }
}

// PROTOCOL 4: lengths up to 2^64 - 1 in every field that counts bytes.
#[test]
fn absurd_lengths_are_refused() {
    for len in [10, 1 << 32, u64::MAX - 1, u64::MAX] {
        let frames = [
            numbers(0x01, &[len]),
            numbers(0x06, &[len]),
            numbers(0x24, &[8, len]),
            numbers(0x26, &[8, 0, len]),
            numbers(0x29, &[1, len]),
            numbers(0x2b, &[1, 2, len]),
            numbers(0x12, &[1, 1, len]),
            numbers(0x14, &[0, len]),
            numbers(0x14, &[0, 0, len]),
            numbers(0x15, &[0, len]),
        ];
        for bytes in frames {
            let error = decode(&bytes).unwrap_err();
            assert!(
                matches!(error, WireError::Truncated { needed, .. } | WireError::TooLong { len: needed, .. } if needed == len),
                "{bytes:x?}: {error}"
            );
        }
    }
}

// PROTOCOL 4.4: a stream ends at 2^62 or before.
#[test]
fn stream_offsets_are_bounded() {
    for offset in [
        MAX_STREAM_OFFSET - 3,
        MAX_STREAM_OFFSET,
        1 << 63,
        u64::MAX - 3,
        u64::MAX,
    ] {
        for kind in [0x22, 0x23, 0x26, 0x27] {
            let mut bytes = numbers(kind, &[8, offset]);
            if kind & 0x04 != 0 {
                bytes.push(4);
            }
            bytes.extend_from_slice(b"data");
            assert_eq!(
                decode(&bytes),
                Err(WireError::StreamOffset {
                    id: 8,
                    offset,
                    len: 4
                })
            );
        }
    }
    for final_size in [MAX_STREAM_OFFSET + 1, u64::MAX] {
        let refused = WireError::StreamOffset {
            id: 8,
            offset: final_size,
            len: 0,
        };
        assert_eq!(decode(&numbers(0x0c, &[8, 0, final_size])), Err(refused));
    }
}

// PROTOCOL 2.2, 2.3, 4.5, 4.6, 4.7
#[test]
fn meaningless_values_are_refused() {
    let what = |kind, values: &[u64]| decode(&numbers(kind, values)).unwrap_err();
    for class in [8, 255, 256, u64::MAX] {
        let refused = WireError::Value {
            what: "class",
            value: class,
        };
        assert_eq!(what(0x0e, &[class, 1]), refused);
        assert_eq!(what(0x2a, &[1, class]), refused);
    }
    assert_eq!(
        what(0x0f, &[32, 1]),
        WireError::Value {
            what: "class",
            value: 8
        }
    );
    assert_eq!(
        what(0x0f, &[u64::MAX, 1]),
        WireError::Value {
            what: "class",
            value: u64::MAX >> 2
        }
    );
    assert_eq!(
        what(0x0f, &[2, 1]),
        WireError::Value {
            what: "kind of max streams",
            value: 2
        }
    );
    let value = StreamId::MAX_INDEX + 2;
    assert_eq!(
        what(0x0f, &[0, value]),
        WireError::Value {
            what: "max streams",
            value
        }
    );
    assert_eq!(
        what(0x11, &[1, 1, 3, 0]),
        WireError::Value {
            what: "path status",
            value: 3
        }
    );
    let value = 1 << 6 | 2 << 1;
    for kind in [0x0c, 0x0d, 0x10, 0x20, 0x27] {
        assert_eq!(what(kind, &[value, 0, 0]), WireError::StreamId { value });
    }
}

// PROTOCOL 10
#[test]
fn lists_and_texts_are_bounded() {
    let long = "x".repeat(MAX_REASON + 1);
    let too_many = |what, count, max| WireError::TooMany { what, count, max };
    assert_eq!(
        decode(&numbers(0x12, &[1, 17])),
        Err(too_many("addresses", 17, 16))
    );
    assert_eq!(
        decode(&numbers(0x13, &[1, 1, u64::MAX])),
        Err(too_many("lane counts", u64::MAX, 64))
    );
    assert_eq!(
        Addresses::new(&[""; 17]).unwrap_err(),
        too_many("addresses", 17, 16)
    );
    assert!(Addresses::new(&[&long]).is_err());
    let counts = [LaneCount { lane: 1, count: 2 }; MAX_LANE_COUNTS + 1];
    assert_eq!(Counts::new(&counts).unwrap_err(), too_many("lane counts", 65, 64));
    let counts = Counts::new(&counts[1..]).unwrap();
    let full = Frame::PathAbandon {
        path: 1,
        code: 1,
        counts,
    };
    assert_eq!(decode(&encode(&full)), Ok(Some(full)));

    for (prefix, what) in [
        (numbers(0x12, &[1, 1]), "address"),
        (numbers(0x14, &[0]), "goaway reason"),
        (numbers(0x14, &[0, 0]), "goaway address"),
        (numbers(0x15, &[0]), "close reason"),
    ] {
        let with = |text: &[u8]| {
            let mut bytes = prefix.clone();
            varint::put(&mut bytes, text.len() as u64);
            bytes.extend_from_slice(text);
            bytes
        };
        let refused = WireError::TooLong {
            what,
            len: 257,
            max: 256,
        };
        assert_eq!(decode(&with(long.as_bytes())), Err(refused));
        assert_eq!(refused.code(), ErrorCode::LIMIT);
        assert_eq!(decode(&with(b"ab\xff")), Err(WireError::NotUtf8 { what, at: 2 }));
    }
}

// PROTOCOL 4.8: a reason is cut to what may travel.
#[test]
fn long_reasons_are_cut_between_characters() {
    let reason = format!("{}ß", "x".repeat(MAX_REASON - 1));
    for frame in [
        Frame::Close {
            code: 1,
            reason: &reason,
        },
        Frame::GoAway {
            code: 1,
            reason: &reason,
            address: &reason,
        },
    ] {
        let bytes = encode(&frame);
        assert_eq!(bytes.len(), frame.encoded_len());
        match decode(&bytes).unwrap().unwrap() {
            Frame::Close { reason: cut, .. } => assert_eq!(cut, &reason[..MAX_REASON - 1]),
            Frame::GoAway {
                reason: cut, address, ..
            } => {
                assert_eq!((cut, address), (&reason[..MAX_REASON - 1], ""));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn frames_end_after_the_first_error() {
    let mut body = encode(&Frame::Ping { seq: 1 });
    body.extend_from_slice(&[0x07, 0x0a, 0x01]);
    let mut frames = Frames::new(&body);
    assert_eq!(frames.next(), Some(Ok(Frame::Ping { seq: 1 })));
    assert_eq!(
        frames.next(),
        Some(Err(WireError::UnknownFrame { frame_type: 7 }))
    );
    assert_eq!(frames.next(), None);
}

// PROTOCOL 9
#[test]
fn codes_have_names() {
    assert_eq!(ErrorCode::BAD_CRC.to_string(), "BAD_CRC");
    assert_eq!(ErrorCode::from(18).name(), Some("PROTOCOL"));
    assert_eq!(ErrorCode::from(19).name(), None);
    assert_eq!(ErrorCode::application(5).map(ErrorCode::value), Some(0x105));
    assert_eq!(ErrorCode::from(0x105).as_application(), Some(5));
    assert_eq!(ErrorCode::TIMEOUT.as_application(), None);
    assert_eq!(ErrorCode::application(u64::MAX), None);
    assert_eq!(RejectCode::from(3), RejectCode::USE_JOIN);
    assert_eq!(format!("{:?}", RejectCode::from(99)), "0x63");
}
