mod frames;
mod out;
mod records;
mod varint;

use super::*;

pub(super) const OPEN: RecordLimits = RecordLimits {
    max_body: DEFAULT_MAX_BODY,
    require_crc: false,
    allow_lz4: true,
};
pub(super) const CHECKED: RecordLimits = RecordLimits {
    max_body: DEFAULT_MAX_BODY,
    require_crc: true,
    allow_lz4: true,
};

pub(super) fn stream_id(index: u64) -> StreamId {
    StreamId::new(Side::Client, Kind::Bi, Class::REQUESTS, index).unwrap()
}

/// Every byte that waits in `out`, by way of `io_slices`.
pub(super) fn contents(out: &OutBuffer) -> Vec<u8> {
    let mut slices = vec![std::io::IoSlice::new(&[]); 1024];
    let used = out.io_slices(&mut slices);
    let bytes: Vec<u8> = slices[..used]
        .iter()
        .flat_map(|slice| slice.iter().copied())
        .collect();
    assert_eq!(bytes.len(), out.len());
    bytes
}

/// One record that holds `frames`.
pub(super) fn record_of(frames: &[Frame<'_>], crc: bool) -> Vec<u8> {
    let mut out = OutBuffer::new();
    let mut builder = RecordBuilder::begin(&mut out, DEFAULT_MAX_BODY, crc);
    for frame in frames {
        assert!(builder.frame(frame));
    }
    let len = builder.finish();
    let bytes = contents(&out);
    assert_eq!(bytes.len(), len);
    bytes
}

/// A record around `body`, made by hand.
pub(super) fn raw_record(flags: u8, body: &[u8]) -> Vec<u8> {
    let crc = flags & 0x08 != 0;
    let len = body.len() as u32 + if crc { 4 } else { 0 };
    let mut bytes = len.to_be_bytes()[1..].to_vec();
    bytes.push(flags);
    bytes.extend_from_slice(body);
    if crc {
        let checksum = crc::checksum(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
    }
    bytes
}

/// A frame of each type, and several of those with optional fields; every number over one byte.
pub(super) fn every_frame() -> Vec<Frame<'static>> {
    const COUNTS: &[LaneCount] = &[
        LaneCount {
            lane: 0,
            count: u64::MAX,
        },
        LaneCount {
            lane: 1 << 20,
            count: 0,
        },
    ];
    let id = stream_id(1 << 28);
    let handshakes = [
        HandshakeKind::Hello,
        HandshakeKind::Welcome,
        HandshakeKind::Join,
        HandshakeKind::Joined,
        HandshakeKind::Confirm,
        HandshakeKind::Reject,
    ];
    let mut frames: Vec<_> = handshakes
        .map(|kind| Frame::Handshake {
            kind,
            body: b"a handshake message",
        })
        .to_vec();
    for status in [PathStatus::Active, PathStatus::Standby, PathStatus::Leave] {
        frames.push(Frame::PathStatus {
            path: 300,
            seq: 1 << 40,
            status,
            in_flight: 1 << 20,
        });
    }
    for class in Class::ALL {
        frames.push(Frame::MaxData {
            class,
            value: u64::MAX,
        });
        for kind in [Kind::Bi, Kind::Uni, Kind::Unordered] {
            frames.push(Frame::MaxStreams {
                class,
                kind,
                value: StreamId::MAX_INDEX + 1,
            });
        }
        frames.push(Frame::Datagram {
            number: 1 << 33,
            class: Some(class),
            data: b"unreliable",
        });
    }
    for offset in [None, Some(0), Some(1 << 40), Some(MAX_STREAM_OFFSET - 4)] {
        for fin in [false, true] {
            frames.push(Frame::Stream {
                id,
                offset,
                fin,
                data: b"data",
            });
            frames.push(Frame::Stream {
                id,
                offset,
                fin,
                data: b"",
            });
        }
    }
    frames.extend([
        Frame::Ack {
            path: 1 << 30,
            lane: 1 << 14,
            count: u64::MAX,
            delay_us: 25_000,
        },
        Frame::AckHere {
            count: 1 << 56,
            delay_us: 0,
        },
        Frame::Ping { seq: 1 << 49 },
        Frame::Pong { seq: 127 },
        Frame::ResetStream {
            id,
            code: 0x100,
            final_size: MAX_STREAM_OFFSET,
        },
        Frame::StopSending { id, code: 0 },
        Frame::MaxStreamData { id, value: 1 << 62 },
        Frame::Advertise(AdvertiseFrame {
            seq: 9,
            addresses: Addresses::new(&[]).unwrap(),
        }),
        Frame::Advertise(AdvertiseFrame {
            seq: 10,
            addresses: Addresses::new(&["tcp://192.0.2.1:7000", "", "wss://höst.example/"]).unwrap(),
        }),
        Frame::AckDatagrams {
            runs: Counts::new(COUNTS).unwrap(),
        },
        Frame::AckLanes {
            delay_us: 0,
            counts: Counts::new(&[]).unwrap(),
        },
        Frame::AckLanes {
            delay_us: 1 << 20,
            counts: Counts::new(COUNTS).unwrap(),
        },
        Frame::PathAbandon {
            path: 7,
            code: 14,
            counts: Counts::new(&[]).unwrap(),
        },
        Frame::PathAbandon {
            path: 7,
            code: 14,
            counts: Counts::new(COUNTS).unwrap(),
        },
        Frame::GoAway {
            code: 16,
            reason: "draining",
            address: "tcp://[2001:db8::1]:7000",
        },
        Frame::GoAway {
            code: 16,
            reason: "",
            address: "",
        },
        Frame::Close {
            code: 0,
            reason: "done ✓",
        },
        Frame::Datagram {
            number: 0,
            class: None,
            data: b"",
        },
    ]);
    frames
}
