//! Examples of frames.

use sheetbend_core::handshake::{Reject, RejectCode};
use sheetbend_core::wire::{Addresses, AdvertiseFrame, Counts, Frame, HandshakeKind, LaneCount, PathStatus};

use super::{Example, class, kind, unhex};

/// What the words of an example say a frame holds, where it is not borrowed from them.
pub(super) struct Parts {
    data: Vec<u8>,
    body: Vec<u8>,
    addresses: Vec<&'static str>,
    counts: Vec<LaneCount>,
}

impl Parts {
    pub(super) fn of(example: &Example) -> Parts {
        let list = |key| match example.has(key) {
            true => example.text(key).split(',').collect::<Vec<_>>(),
            false => Vec::new(),
        };
        let counts = list("counts").into_iter().map(|pair| {
            let (lane, count) = pair.split_once(':').expect("lane:count");
            LaneCount {
                lane: lane.parse().expect("a lane"),
                count: count.parse().expect("a count"),
            }
        });
        Parts {
            data: if example.has("data") {
                example.data()
            } else {
                Vec::new()
            },
            body: if example.has("body") {
                unhex(example.text("body"))
            } else {
                Vec::new()
            },
            counts: counts.collect(),
            addresses: list("addresses"),
        }
    }

    pub(super) fn frame<'a>(&'a self, example: &Example) -> Frame<'a> {
        let number = |key| example.number(key);
        match example.text("frame") {
            "REJECT" => Frame::Handshake {
                kind: HandshakeKind::Reject,
                body: &self.body,
            },
            "ACK" => Frame::Ack {
                path: number("path"),
                lane: number("lane"),
                count: number("count"),
                delay_us: number("delay_us"),
            },
            "ACK_HERE" => Frame::AckHere {
                count: number("count"),
                delay_us: number("delay_us"),
            },
            "PING" => Frame::Ping { seq: number("seq") },
            "PONG" => Frame::Pong { seq: number("seq") },
            "RESET_STREAM" => Frame::ResetStream {
                id: example.id(),
                code: number("code"),
                final_size: number("final_size"),
            },
            "STOP_SENDING" => Frame::StopSending {
                id: example.id(),
                code: number("code"),
            },
            "MAX_DATA" => Frame::MaxData {
                class: example.class(),
                value: number("value"),
            },
            "MAX_STREAMS" => Frame::MaxStreams {
                class: example.class(),
                kind: kind(example.text("kind")),
                value: number("value"),
            },
            "MAX_STREAM_DATA" => Frame::MaxStreamData {
                id: example.id(),
                value: number("value"),
            },
            "STREAM" => Frame::Stream {
                id: example.id(),
                offset: example.optional("offset"),
                fin: example.has("fin"),
                data: &self.data,
            },
            "DATAGRAM" => Frame::Datagram {
                number: number("number"),
                class: example.optional("class").map(class),
                data: &self.data,
            },
            _ => self.path_frame(example),
        }
    }

    fn path_frame<'a>(&'a self, example: &Example) -> Frame<'a> {
        let number = |key| example.number(key);
        match example.text("frame") {
            "PATH_STATUS" => Frame::PathStatus {
                path: number("path"),
                seq: number("seq"),
                status: [PathStatus::Active, PathStatus::Standby, PathStatus::Leave]
                    [number("status") as usize],
                in_flight: number("in_flight"),
            },
            "ADVERTISE" => Frame::Advertise(AdvertiseFrame {
                seq: number("seq"),
                addresses: Addresses::new(&self.addresses).expect("within limits"),
            }),
            "ACK_LANES" => Frame::AckLanes {
                delay_us: number("delay_us"),
                counts: Counts::new(&self.counts).expect("within limits"),
            },
            "ACK_DATAGRAMS" => Frame::AckDatagrams {
                runs: Counts::new(&self.counts).expect("within limits"),
            },
            "PATH_ABANDON" => Frame::PathAbandon {
                path: number("path"),
                code: number("code"),
                counts: Counts::new(&self.counts).expect("within limits"),
            },
            "GOAWAY" => Frame::GoAway {
                code: number("code"),
                reason: example.text("reason"),
                address: example.text("address"),
            },
            "CLOSE" => Frame::Close {
                code: number("code"),
                reason: example.text("reason"),
            },
            other => panic!("line {}: unknown frame {other}", example.line),
        }
    }
}

fn encode(frame: &Frame<'_>, last: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if last {
        frame.encode_last(&mut bytes);
    } else {
        frame.encode(&mut bytes);
    }
    bytes
}

pub(super) fn check_frame(example: &Example) {
    let mut input = &example.bytes[..];
    let decoded = Frame::decode(&mut input);
    assert!(input.is_empty(), "line {}: bytes left over", example.line);
    if example.text("frame") == "EXTENSION" {
        assert_eq!(decoded, Ok(None), "line {}", example.line);
        return;
    }
    let parts = Parts::of(example);
    let frame = parts.frame(example);
    assert_eq!(decoded, Ok(Some(frame)), "line {}", example.line);
    assert_eq!(
        encode(&frame, !example.has("length")),
        example.bytes,
        "line {}",
        example.line
    );
    if let Frame::Handshake { body, .. } = frame {
        check_reject(body);
    }
}

fn check_reject(body: &[u8]) {
    let reject = Reject::decode(body).expect("a REJECT");
    assert_eq!(
        reject,
        Reject::new(RejectCode::REDIRECT, "moved").with_address("b.example:443")
    );
    let mut again = Vec::new();
    reject.encode(&mut again);
    assert_eq!(again, body);
}
