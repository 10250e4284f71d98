//! Frames and how they are read. PROTOCOL 4.

use super::error::WireError;
use super::id::{Class, Kind, StreamId};
use super::list::{Addresses, Counts, MAX_ADDRESS, text};
use super::varint::{field, take};

/// No stream reaches beyond this offset. `PROTOCOL 4.4`.
pub const MAX_STREAM_OFFSET: u64 = 1 << 62;
/// The longest reason in CLOSE and GOAWAY, in bytes. `PROTOCOL 10`.
pub const MAX_REASON: usize = 256;
/// MAX_STREAMS cannot allow more streams than there are indexes.
const MAX_STREAM_COUNT: u64 = StreamId::MAX_INDEX + 1;

/// Frame types, PROTOCOL 4.
pub(super) mod frame_type {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const REJECT: u8 = 0x06;
    pub(crate) const ACK: u8 = 0x08;
    pub(crate) const ACK_HERE: u8 = 0x09;
    pub(crate) const PING: u8 = 0x0a;
    pub(crate) const PONG: u8 = 0x0b;
    pub(crate) const RESET_STREAM: u8 = 0x0c;
    pub(crate) const STOP_SENDING: u8 = 0x0d;
    pub(crate) const MAX_DATA: u8 = 0x0e;
    pub(crate) const MAX_STREAMS: u8 = 0x0f;
    pub(crate) const MAX_STREAM_DATA: u8 = 0x10;
    pub(crate) const PATH_STATUS: u8 = 0x11;
    pub(crate) const ADVERTISE: u8 = 0x12;
    pub(crate) const PATH_ABANDON: u8 = 0x13;
    pub(crate) const GOAWAY: u8 = 0x14;
    pub(crate) const CLOSE: u8 = 0x15;
    pub(crate) const ACK_LANES: u8 = 0x16;
    pub(crate) const ACK_DATAGRAMS: u8 = 0x17;
    pub(crate) const STREAM: u8 = 0x20;
    pub(crate) const STREAM_LAST: u8 = 0x27;
    pub(crate) const DATAGRAM: u8 = 0x28;
    pub(crate) const DATAGRAM_LAST: u8 = 0x2b;
    /// From here on, types are extensions and carry their length.
    pub(crate) const FIRST_EXTENSION: u64 = 0x40;

    pub(crate) const STREAM_FIN: u8 = 0x01;
    pub(crate) const STREAM_OFFSET: u8 = 0x02;
    pub(crate) const STREAM_LENGTH: u8 = 0x04;
    pub(crate) const DATAGRAM_LENGTH: u8 = 0x01;
    pub(crate) const DATAGRAM_CLASS: u8 = 0x02;
}

/// The frames that carry handshake messages. `PROTOCOL 4.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HandshakeKind {
    /// The client opens a session.
    Hello = 0x01,
    /// The server's answer to HELLO.
    Welcome = 0x02,
    /// The client brings another path to a session.
    Join = 0x03,
    /// The server's answer to JOIN.
    Joined = 0x04,
    /// The client proves itself on the path.
    Confirm = 0x05,
    /// The server refuses the path.
    Reject = 0x06,
}

/// What the sender of PATH_STATUS wants of a path. `PROTOCOL 4.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PathStatus {
    /// Use the path.
    Active = 0,
    /// Keep the path warm and use others.
    Standby = 1,
    /// The server asks the client to abandon the path.
    Leave = 2,
}

/// The addresses at which the sender can be reached. `PROTOCOL 4.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertiseFrame<'a> {
    /// Counts up with each ADVERTISE; the newest wins.
    pub seq: u64,
    /// The addresses, best first.
    pub addresses: Addresses<'a>,
}

/// One frame, its data borrowed. `PROTOCOL 4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// HELLO, WELCOME, JOIN, JOINED, CONFIRM or REJECT. `PROTOCOL 4.1`.
    Handshake {
        /// Which one.
        kind: HandshakeKind,
        /// The message.
        body: &'a [u8],
    },
    /// ACK: records received on a lane of any path. `PROTOCOL 4.2`.
    Ack {
        /// The path.
        path: u64,
        /// The lane.
        lane: u64,
        /// Records received in order.
        count: u64,
        /// How long the newest of them has waited for this, in microseconds.
        delay_us: u64,
    },
    /// ACK_HERE: records received on lane 0 of the path that this travels on. `PROTOCOL 4.2`.
    AckHere {
        /// Records received in order.
        count: u64,
        /// How long the newest of them has waited for this, in microseconds.
        delay_us: u64,
    },
    /// ACK_LANES: records received on lanes of the path that this travels on. `PROTOCOL 4.2`.
    AckLanes {
        /// How long the newest of them all has waited for this, in microseconds.
        delay_us: u64,
        /// Records received in order, by lane.
        counts: Counts<'a>,
    },
    /// ACK_DATAGRAMS: unreliable messages that came beside the lanes of the path that this travels on. `PROTOCOL 4.6`.
    AckDatagrams {
        /// Runs of numbers: the first, and how many.
        runs: Counts<'a>,
    },
    /// PING: asks for a PONG on the same path. `PROTOCOL 4.3`.
    Ping {
        /// What PONG repeats.
        seq: u64,
    },
    /// PONG: answers PING. `PROTOCOL 4.3`.
    Pong {
        /// The number of the PING.
        seq: u64,
    },
    /// RESET_STREAM: the sender gives up its direction of a stream. `PROTOCOL 4.4`.
    ResetStream {
        /// The stream.
        id: StreamId,
        /// The application's reason.
        code: u64,
        /// Bytes that the sender had put on the stream, for flow control.
        final_size: u64,
    },
    /// STOP_SENDING: the receiver wants no more of a stream. `PROTOCOL 4.4`.
    StopSending {
        /// The stream.
        id: StreamId,
        /// The application's reason.
        code: u64,
    },
    /// MAX_DATA: credit for all streams of a class together. `PROTOCOL 4.5`.
    MaxData {
        /// The class.
        class: Class,
        /// Bytes that may be sent in all since the session began.
        value: u64,
    },
    /// MAX_STREAMS: how many streams of a class and kind may be opened. `PROTOCOL 4.5`.
    MaxStreams {
        /// The class.
        class: Class,
        /// The kind; never [`Kind::Ordered`].
        kind: Kind,
        /// Indexes below this may be used.
        value: u64,
    },
    /// MAX_STREAM_DATA: credit for one stream. `PROTOCOL 4.5`.
    MaxStreamData {
        /// The stream.
        id: StreamId,
        /// The offset up to which data may be sent.
        value: u64,
    },
    /// PATH_STATUS: how a path is to be used. `PROTOCOL 4.7`.
    PathStatus {
        /// The path.
        path: u64,
        /// Counts up with each PATH_STATUS for the path; the newest wins.
        seq: u64,
        /// What the sender wants.
        status: PathStatus,
        /// The sender's bound on its bytes in flight on the path.
        in_flight: u64,
    },
    /// ADVERTISE: where else the sender can be reached. `PROTOCOL 4.7`.
    Advertise(AdvertiseFrame<'a>),
    /// PATH_ABANDON: a path is given up. `PROTOCOL 4.7`.
    PathAbandon {
        /// The path.
        path: u64,
        /// Why, an [`ErrorCode`](super::ErrorCode)'s value.
        code: u64,
        /// What the sender has received on it.
        counts: Counts<'a>,
    },
    /// GOAWAY: no new sessions here. `PROTOCOL 4.8`.
    GoAway {
        /// Why, an [`ErrorCode`](super::ErrorCode)'s value.
        code: u64,
        /// Why, in words.
        reason: &'a str,
        /// The address of this very process, or empty.
        address: &'a str,
    },
    /// CLOSE: the session ends. `PROTOCOL 4.8`.
    Close {
        /// Why, an [`ErrorCode`](super::ErrorCode)'s value.
        code: u64,
        /// Why, in words.
        reason: &'a str,
    },
    /// STREAM: data of a stream. `PROTOCOL 4.4`.
    Stream {
        /// The stream.
        id: StreamId,
        /// Where the data starts; `None` continues the stream's last frame on the same lane.
        offset: Option<u64>,
        /// Whether the data ends the stream.
        fin: bool,
        /// The data.
        data: &'a [u8],
    },
    /// DATAGRAM: data that may be lost. `PROTOCOL 4.6`.
    Datagram {
        /// Counts up per direction, so that repeats are known.
        number: u64,
        /// The class of an unreliable message; `None` for a raw datagram.
        class: Option<Class>,
        /// The data.
        data: &'a [u8],
    },
}

impl<'a> Frame<'a> {
    /// Takes a frame off the front of `input`, or skips an extension and returns `None`.
    ///
    /// # Errors
    /// Any [`WireError`] of `PROTOCOL 4`; where `input` then stands is not specified.
    #[inline]
    pub fn decode(input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, WireError> {
        match input.split_first() {
            Some((&kind @ frame_type::STREAM..=frame_type::STREAM_LAST, rest)) => {
                *input = rest;
                stream(input, kind).map(Some)
            }
            Some((&frame_type::ACK_HERE, rest)) => {
                *input = rest;
                let count = field(input, "ack count")?;
                let delay_us = field(input, "ack delay")?;
                Ok(Some(Frame::AckHere { count, delay_us }))
            }
            _ => decode_rare(input),
        }
    }
}

#[inline]
fn stream_id(input: &mut &[u8]) -> Result<StreamId, WireError> {
    StreamId::try_from(field(input, "stream id")?)
}

#[inline]
fn stream<'a>(input: &mut &'a [u8], kind: u8) -> Result<Frame<'a>, WireError> {
    let id = stream_id(input)?;
    let offset = match kind & frame_type::STREAM_OFFSET {
        0 => None,
        _ => Some(field(input, "stream offset")?),
    };
    let data = if kind & frame_type::STREAM_LENGTH != 0 {
        let len = field(input, "stream data length")?;
        take(input, len, "stream data")?
    } else {
        std::mem::take(input)
    };
    // PROTOCOL 4.4: where no offset is given, whoever knows the stream's place checks its end.
    check_end(id, offset.unwrap_or(0), data.len())?;
    Ok(Frame::Stream {
        id,
        offset,
        fin: kind & frame_type::STREAM_FIN != 0,
        data,
    })
}

#[inline]
fn check_end(id: StreamId, offset: u64, len: usize) -> Result<(), WireError> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= MAX_STREAM_OFFSET => Ok(()),
        _ => Err(WireError::StreamOffset {
            id: id.value(),
            offset,
            len,
        }),
    }
}

/// All frames but the two that dominate traffic.
#[inline(never)]
fn decode_rare<'a>(input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, WireError> {
    let number = field(input, "frame type")?;
    if number >= frame_type::FIRST_EXTENSION {
        let len = field(input, "extension length")?;
        take(input, len, "extension")?;
        return Ok(None);
    }
    // Below FIRST_EXTENSION a type fits a byte.
    let kind = number as u8;
    let frame = match kind {
        frame_type::HELLO..=frame_type::REJECT => handshake(input, kind)?,
        frame_type::ACK => Frame::Ack {
            path: field(input, "ack path")?,
            lane: field(input, "ack lane")?,
            count: field(input, "ack count")?,
            delay_us: field(input, "ack delay")?,
        },
        frame_type::ACK_LANES => Frame::AckLanes {
            delay_us: field(input, "ack delay")?,
            counts: Counts::decode(input)?,
        },
        frame_type::ACK_DATAGRAMS => Frame::AckDatagrams {
            runs: Counts::decode(input)?,
        },
        frame_type::PING => Frame::Ping {
            seq: field(input, "ping number")?,
        },
        frame_type::PONG => Frame::Pong {
            seq: field(input, "pong number")?,
        },
        frame_type::RESET_STREAM..=frame_type::MAX_STREAM_DATA => stream_control(input, kind)?,
        frame_type::PATH_STATUS..=frame_type::PATH_ABANDON => path_control(input, kind)?,
        frame_type::GOAWAY => Frame::GoAway {
            code: field(input, "goaway code")?,
            reason: text(input, MAX_REASON, "goaway reason")?,
            address: text(input, MAX_ADDRESS, "goaway address")?,
        },
        frame_type::CLOSE => Frame::Close {
            code: field(input, "close code")?,
            reason: text(input, MAX_REASON, "close reason")?,
        },
        frame_type::DATAGRAM..=frame_type::DATAGRAM_LAST => datagram(input, kind)?,
        _ => return Err(WireError::UnknownFrame { frame_type: number }),
    };
    Ok(Some(frame))
}

/// PROTOCOL 4.1.
fn handshake<'a>(input: &mut &'a [u8], kind: u8) -> Result<Frame<'a>, WireError> {
    let kind = match kind {
        0x01 => HandshakeKind::Hello,
        0x02 => HandshakeKind::Welcome,
        0x03 => HandshakeKind::Join,
        0x04 => HandshakeKind::Joined,
        0x05 => HandshakeKind::Confirm,
        0x06 => HandshakeKind::Reject,
        _ => {
            return Err(WireError::UnknownFrame {
                frame_type: kind.into(),
            });
        }
    };
    let len = field(input, "handshake message length")?;
    Ok(Frame::Handshake {
        kind,
        body: take(input, len, "handshake message")?,
    })
}

/// PROTOCOL 4.4, 4.5.
fn stream_control<'a>(input: &mut &'a [u8], kind: u8) -> Result<Frame<'a>, WireError> {
    Ok(match kind {
        frame_type::RESET_STREAM => {
            let id = stream_id(input)?;
            let code = field(input, "reset code")?;
            let final_size = field(input, "final size")?;
            check_end(id, final_size, 0)?;
            Frame::ResetStream { id, code, final_size }
        }
        frame_type::STOP_SENDING => Frame::StopSending {
            id: stream_id(input)?,
            code: field(input, "stop code")?,
        },
        frame_type::MAX_DATA => Frame::MaxData {
            class: Class::from_field(field(input, "class")?)?,
            value: field(input, "max data")?,
        },
        frame_type::MAX_STREAMS => {
            let packed = field(input, "class and kind")?;
            let class = Class::from_field(packed >> 2)?;
            let kind = Kind::from_bits(packed);
            if kind == Kind::Ordered {
                return Err(WireError::Value {
                    what: "kind of max streams",
                    value: packed & 3,
                });
            }
            let value = field(input, "max streams")?;
            if value > MAX_STREAM_COUNT {
                return Err(WireError::Value {
                    what: "max streams",
                    value,
                });
            }
            Frame::MaxStreams { class, kind, value }
        }
        frame_type::MAX_STREAM_DATA => Frame::MaxStreamData {
            id: stream_id(input)?,
            value: field(input, "max stream data")?,
        },
        _ => {
            return Err(WireError::UnknownFrame {
                frame_type: kind.into(),
            });
        }
    })
}

/// PROTOCOL 4.7.
fn path_control<'a>(input: &mut &'a [u8], kind: u8) -> Result<Frame<'a>, WireError> {
    Ok(match kind {
        frame_type::PATH_STATUS => Frame::PathStatus {
            path: field(input, "path")?,
            seq: field(input, "path status number")?,
            status: match field(input, "path status")? {
                0 => PathStatus::Active,
                1 => PathStatus::Standby,
                2 => PathStatus::Leave,
                value => {
                    return Err(WireError::Value {
                        what: "path status",
                        value,
                    });
                }
            },
            in_flight: field(input, "in-flight bound")?,
        },
        frame_type::ADVERTISE => Frame::Advertise(AdvertiseFrame {
            seq: field(input, "advertise number")?,
            addresses: Addresses::decode(input)?,
        }),
        frame_type::PATH_ABANDON => Frame::PathAbandon {
            path: field(input, "path")?,
            code: field(input, "abandon code")?,
            counts: Counts::decode(input)?,
        },
        _ => {
            return Err(WireError::UnknownFrame {
                frame_type: kind.into(),
            });
        }
    })
}

/// PROTOCOL 4.6.
fn datagram<'a>(input: &mut &'a [u8], kind: u8) -> Result<Frame<'a>, WireError> {
    let number = field(input, "datagram number")?;
    let class = match kind & frame_type::DATAGRAM_CLASS {
        0 => None,
        _ => Some(Class::from_field(field(input, "class")?)?),
    };
    let data = if kind & frame_type::DATAGRAM_LENGTH != 0 {
        let len = field(input, "datagram length")?;
        take(input, len, "datagram")?
    } else {
        std::mem::take(input)
    };
    Ok(Frame::Datagram { number, class, data })
}

/// The frames of a record's body, extensions left out. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// The frames in `body`.
    #[inline]
    pub const fn new(body: &'a [u8]) -> Frames<'a> {
        Frames { rest: body }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match Frame::decode(&mut self.rest) {
                Ok(Some(frame)) => return Some(Ok(frame)),
                Ok(None) => {}
                Err(error) => {
                    self.rest = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl std::iter::FusedIterator for Frames<'_> {}
