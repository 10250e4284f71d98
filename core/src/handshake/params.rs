//! What each end announces in HELLO and WELCOME. PROTOCOL 5.5.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::HandshakeError;
use super::reader::{Reader, put_bytes, put_varint};

/// The number of stream classes.
pub const CLASSES: usize = 8;
/// Record sizes: the least that every end takes.
pub const MIN_RECORD: u32 = 1200;
/// Record sizes: the greatest that the length field can say.
pub const MAX_RECORD: u32 = (1 << 24) - 1;
/// The greatest credit, offset or in-flight bound.
pub const MAX_CREDIT: u64 = 1 << 62;
/// The most streams that a limit can allow.
pub const MAX_STREAM_LIMIT: u64 = 1 << 40;
/// The greatest message that an end can say it takes.
pub const MAX_MESSAGE: u64 = 1 << 40;
/// The longest resume timeout: seven days.
pub const MAX_RESUME_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The shortest heartbeat, other than none.
pub const MIN_HEARTBEAT: Duration = Duration::from_millis(100);
/// The longest heartbeat.
pub const MAX_HEARTBEAT: Duration = Duration::from_secs(3600);
/// The longest time for which an end may hold an acknowledgement back.
pub const MAX_ACK_DELAY: Duration = Duration::from_secs(10);
/// The longest service name, in bytes.
pub const MAX_SERVICE_LEN: usize = 255;
/// The longest token, in bytes.
pub const MAX_TOKEN_LEN: usize = 4096;

/// How well a carrier protects the bytes. PROTOCOL 6.5.
///
/// Ordered: a session's floor is the weakest of these that it accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Security {
    /// Anyone on the way can read and change them.
    #[default]
    Plain,
    /// They do not leave the machine: a Unix socket, a private directory.
    Local,
    /// Encrypted and authenticated: TLS, QUIC.
    Encrypted,
}

impl Security {
    /// The number on the wire.
    pub const fn value(self) -> u64 {
        match self {
            Security::Plain => 0,
            Security::Local => 1,
            Security::Encrypted => 2,
        }
    }

    /// The security of a number on the wire.
    pub const fn from_value(value: u64) -> Option<Security> {
        match value {
            0 => Some(Security::Plain),
            1 => Some(Security::Local),
            2 => Some(Security::Encrypted),
            _ => None,
        }
    }
}

/// Names the parameters on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is documented as the field of `Params`")]
pub enum ParamId {
    MaxRecord = 1,
    Crc = 2,
    Lz4 = 3,
    ResumeTimeout = 4,
    Heartbeat = 5,
    MaxAckDelay = 6,
    InFlight = 7,
    MaxData = 8,
    MaxStreamData = 9,
    MaxStreams = 10,
    Floor = 11,
    MaxMessage = 12,
    MaxDatagram = 13,
    Service = 14,
    Token = 15,
}

impl ParamId {
    const ALL: [ParamId; 15] = [
        ParamId::MaxRecord,
        ParamId::Crc,
        ParamId::Lz4,
        ParamId::ResumeTimeout,
        ParamId::Heartbeat,
        ParamId::MaxAckDelay,
        ParamId::InFlight,
        ParamId::MaxData,
        ParamId::MaxStreamData,
        ParamId::MaxStreams,
        ParamId::Floor,
        ParamId::MaxMessage,
        ParamId::MaxDatagram,
        ParamId::Service,
        ParamId::Token,
    ];

    fn from_value(id: u64) -> Option<ParamId> {
        ParamId::ALL.into_iter().find(|known| *known as u64 == id)
    }

    /// The name in PROTOCOL 5.5.
    pub const fn name(self) -> &'static str {
        match self {
            ParamId::MaxRecord => "max_record",
            ParamId::Crc => "crc",
            ParamId::Lz4 => "lz4",
            ParamId::ResumeTimeout => "resume_timeout_ms",
            ParamId::Heartbeat => "heartbeat_ms",
            ParamId::MaxAckDelay => "max_ack_delay_us",
            ParamId::InFlight => "in_flight",
            ParamId::MaxData => "max_data",
            ParamId::MaxStreamData => "max_stream_data",
            ParamId::MaxStreams => "max_streams",
            ParamId::Floor => "floor",
            ParamId::MaxMessage => "max_message",
            ParamId::MaxDatagram => "max_datagram",
            ParamId::Service => "service",
            ParamId::Token => "token",
        }
    }
}

/// A parameter outside its range. For texts and tokens the value is the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("parameter {} is {value}, outside {min}..={max}", .param.name())]
pub struct ParamError {
    /// Which one.
    pub param: ParamId,
    /// Its value, in the unit of its name in PROTOCOL 5.5.
    pub value: u64,
    /// The least allowed.
    pub min: u64,
    /// The greatest allowed.
    pub max: u64,
}

/// How many streams of each kind the peer may open in a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Bidirectional streams.
    pub bi: u64,
    /// Unidirectional streams.
    pub uni: u64,
    /// Unordered messages.
    pub unordered: u64,
}

impl StreamLimits {
    /// The default of every class.
    pub const DEFAULT: StreamLimits = StreamLimits {
        bi: 1024,
        uni: 1024,
        unordered: 4096,
    };
    /// What an end allows each class unless it says otherwise: ten thousand requests may be under way.
    pub const PER_CLASS: [StreamLimits; CLASSES] = {
        let mut limits = [StreamLimits::DEFAULT; CLASSES];
        limits[1].bi = 16_384;
        limits
    };
}

impl Default for StreamLimits {
    fn default() -> StreamLimits {
        StreamLimits::DEFAULT
    }
}

/// What one end announces. A parameter that does not travel has its default. PROTOCOL 5.5.
#[derive(Clone, PartialEq, Eq)]
pub struct Params {
    /// The longest record body that this end takes, before and after decompression, in bytes.
    pub max_record: u32,
    /// Whether records shall carry a CRC; `None` (the default) leaves it to each path: yes when the
    /// carrier does not authenticate the bytes. See [`Params::wants_crc`].
    pub crc: Option<bool>,
    /// Whether this end takes LZ4 records.
    pub lz4: bool,
    /// For how long a session without paths can be resumed; the lesser of both ends' counts. Whole milliseconds.
    pub resume_timeout: Duration,
    /// How often an idle path is probed; zero for never. Whole milliseconds.
    pub heartbeat: Duration,
    /// For how long this end may hold an acknowledgement back. Whole microseconds.
    pub max_ack_delay: Duration,
    /// This end's bound on its bytes in flight on the path on which it says so.
    pub in_flight: u64,
    /// For each class, the bytes that the peer may send on all its streams together.
    pub max_data: [u64; CLASSES],
    /// For each class, the bytes that the peer may send on one stream.
    pub max_stream_data: [u64; CLASSES],
    /// For each class, how many streams the peer may open.
    pub max_streams: [StreamLimits; CLASSES],
    /// The weakest carrier that this end accepts for the session.
    pub floor: Security,
    /// The longest message that this end takes, in bytes.
    pub max_message: u64,
    /// The longest datagram that this end takes, in bytes.
    pub max_datagram: u32,
    /// The service that the client asks for; at most 255 bytes.
    pub service: String,
    /// Opaque to the protocol, reserved for authentication; at most 4096 bytes. Never printed.
    pub token: Vec<u8>,
}

impl Default for Params {
    fn default() -> Params {
        Params {
            max_record: 65_536,
            crc: None,
            lz4: false,
            resume_timeout: Duration::from_secs(300),
            heartbeat: Duration::from_secs(5),
            max_ack_delay: Duration::from_millis(25),
            in_flight: 256 << 10,
            max_data: [1 << 20; CLASSES],
            max_stream_data: [256 << 10; CLASSES],
            max_streams: StreamLimits::PER_CLASS,
            floor: Security::Plain,
            max_message: 1 << 20,
            max_datagram: 16 << 10,
            service: String::new(),
            token: Vec::new(),
        }
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Params")
            .field("max_record", &self.max_record)
            .field("crc", &self.crc)
            .field("lz4", &self.lz4)
            .field("resume_timeout", &self.resume_timeout)
            .field("heartbeat", &self.heartbeat)
            .field("max_ack_delay", &self.max_ack_delay)
            .field("in_flight", &self.in_flight)
            .field("max_data", &self.max_data)
            .field("max_stream_data", &self.max_stream_data)
            .field("max_streams", &self.max_streams)
            .field("floor", &self.floor)
            .field("max_message", &self.max_message)
            .field("max_datagram", &self.max_datagram)
            .field("service", &self.service)
            .field("token", &format_args!("<{} bytes>", self.token.len()))
            .finish()
    }
}

/// What both ends' parameters come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The lesser of both resume timeouts.
    pub resume_timeout: Duration,
    /// The lesser of both heartbeats, of those that are not zero; zero when both are.
    pub heartbeat: Duration,
    /// Whether this end may send LZ4 records: the peer takes them and this end wants them.
    pub lz4: bool,
    /// The stronger of both floors.
    pub floor: Security,
}

impl Params {
    /// What `self` (this end's) and the peer's come to.
    pub fn agree(&self, peer: &Params) -> Agreed {
        let heartbeat = match (self.heartbeat, peer.heartbeat) {
            (Duration::ZERO, other) | (other, Duration::ZERO) => other,
            (ours, theirs) => ours.min(theirs),
        };
        Agreed {
            resume_timeout: self.resume_timeout.min(peer.resume_timeout),
            heartbeat,
            lz4: self.lz4 && peer.lz4,
            floor: self.floor.max(peer.floor),
        }
    }

    /// Whether the end that announced these wants a CRC on a path that it sees as `carrier`.
    pub fn wants_crc(&self, carrier: Security) -> bool {
        self.crc.unwrap_or(carrier < Security::Encrypted)
    }

    /// Whether every parameter lies in its range: the ranges that a peer will hold them to.
    pub fn check(&self) -> Result<(), ParamError> {
        use ParamId as P;
        in_range(P::MaxRecord, u64::from(self.max_record))?;
        in_range(P::ResumeTimeout, whole(self.resume_timeout.as_millis()))?;
        in_range(P::Heartbeat, whole(self.heartbeat.as_millis()))?;
        in_range(P::MaxAckDelay, whole(self.max_ack_delay.as_micros()))?;
        in_range(P::InFlight, self.in_flight)?;
        for class in 0..CLASSES {
            in_range(P::MaxData, self.max_data[class])?;
            in_range(P::MaxStreamData, self.max_stream_data[class])?;
            let StreamLimits { bi, uni, unordered } = self.max_streams[class];
            for limit in [bi, uni, unordered] {
                in_range(P::MaxStreams, limit)?;
            }
        }
        in_range(P::MaxMessage, self.max_message)?;
        in_range(P::MaxDatagram, u64::from(self.max_datagram))?;
        in_range(P::Service, self.service.len() as u64)?;
        in_range(P::Token, self.token.len() as u64)?;
        Ok(())
    }

    /// Appends what differs from the defaults, and the floor always: it stands in every transcript.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        use ParamId as P;
        let default = Params::default();
        let mut value = Vec::new();
        let mut put = |id: ParamId, differs: bool, values: &[u64]| {
            if differs {
                value.clear();
                values.iter().for_each(|v| put_varint(&mut value, *v));
                put_varint(out, id as u64);
                put_bytes(out, &value);
            }
        };
        put(
            P::MaxRecord,
            self.max_record != default.max_record,
            &[u64::from(self.max_record)],
        );
        put(P::Crc, self.crc.is_some(), &[u64::from(self.crc == Some(true))]);
        put(P::Lz4, self.lz4, &[1]);
        let resume_ms = whole(self.resume_timeout.as_millis());
        put(
            P::ResumeTimeout,
            self.resume_timeout != default.resume_timeout,
            &[resume_ms],
        );
        put(
            P::Heartbeat,
            self.heartbeat != default.heartbeat,
            &[whole(self.heartbeat.as_millis())],
        );
        let ack_us = whole(self.max_ack_delay.as_micros());
        put(
            P::MaxAckDelay,
            self.max_ack_delay != default.max_ack_delay,
            &[ack_us],
        );
        put(
            P::InFlight,
            self.in_flight != default.in_flight,
            &[self.in_flight],
        );
        put(P::MaxData, self.max_data != default.max_data, &self.max_data);
        put(
            P::MaxStreamData,
            self.max_stream_data != default.max_stream_data,
            &self.max_stream_data,
        );
        let mut streams = [0; 3 * CLASSES];
        for (slot, limits) in streams.chunks_exact_mut(3).zip(&self.max_streams) {
            slot.copy_from_slice(&[limits.bi, limits.uni, limits.unordered]);
        }
        put(P::MaxStreams, self.max_streams != default.max_streams, &streams);
        put(P::Floor, true, &[self.floor.value()]);
        put(
            P::MaxMessage,
            self.max_message != default.max_message,
            &[self.max_message],
        );
        put(
            P::MaxDatagram,
            self.max_datagram != default.max_datagram,
            &[u64::from(self.max_datagram)],
        );
        for (id, bytes) in [(P::Service, self.service.as_bytes()), (P::Token, &self.token[..])] {
            if !bytes.is_empty() {
                put_varint(out, id as u64);
                put_bytes(out, bytes);
            }
        }
    }

    /// Reads parameters to the end of `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Params, HandshakeError> {
        let mut params = Params::default();
        let mut seen = 0_u32;
        let mut reader = Reader::new("params", bytes, bytes.len())?;
        while !reader.is_empty() {
            let id = reader.varint("param id")?;
            let value = reader.bytes("param", bytes.len())?;
            let Some(id) = ParamId::from_value(id) else {
                continue;
            };
            let bit = 1 << (id as u32);
            if seen & bit != 0 {
                return Err(HandshakeError::DuplicateParam { id: id as u64 });
            }
            seen |= bit;
            params.set(id, value)?;
        }
        Ok(params)
    }

    fn set(&mut self, id: ParamId, bytes: &[u8]) -> Result<(), HandshakeError> {
        let mut value = Reader::new(id.name(), bytes, bytes.len())?;
        match id {
            ParamId::MaxRecord => self.max_record = small(id, &mut value)?,
            ParamId::Crc => self.crc = Some(number(id, &mut value)? == 1),
            ParamId::Lz4 => self.lz4 = number(id, &mut value)? == 1,
            ParamId::ResumeTimeout => self.resume_timeout = Duration::from_millis(number(id, &mut value)?),
            ParamId::Heartbeat => self.heartbeat = Duration::from_millis(number(id, &mut value)?),
            ParamId::MaxAckDelay => self.max_ack_delay = Duration::from_micros(number(id, &mut value)?),
            ParamId::InFlight => self.in_flight = number(id, &mut value)?,
            ParamId::MaxData => {
                for class in &mut self.max_data {
                    *class = number(id, &mut value)?;
                }
            }
            ParamId::MaxStreamData => {
                for class in &mut self.max_stream_data {
                    *class = number(id, &mut value)?;
                }
            }
            ParamId::MaxStreams => {
                for class in &mut self.max_streams {
                    class.bi = number(id, &mut value)?;
                    class.uni = number(id, &mut value)?;
                    class.unordered = number(id, &mut value)?;
                }
            }
            ParamId::Floor => {
                let floor = number(id, &mut value)?;
                self.floor = Security::from_value(floor).unwrap_or(Security::Encrypted);
            }
            ParamId::MaxMessage => self.max_message = number(id, &mut value)?,
            ParamId::MaxDatagram => self.max_datagram = small(id, &mut value)?,
            ParamId::Service => {
                in_range(id, bytes.len() as u64)?;
                let text = std::str::from_utf8(bytes).map_err(|error| HandshakeError::NotUtf8 {
                    field: id.name(),
                    valid_up_to: error.valid_up_to(),
                })?;
                self.service = text.to_owned();
                return Ok(());
            }
            ParamId::Token => {
                in_range(id, bytes.len() as u64)?;
                self.token = bytes.to_vec();
                return Ok(());
            }
        }
        value.finish(id.name())
    }
}

fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn number(id: ParamId, value: &mut Reader<'_>) -> Result<u64, HandshakeError> {
    let number = value.varint(id.name())?;
    in_range(id, number)?;
    Ok(number)
}

fn small(id: ParamId, value: &mut Reader<'_>) -> Result<u32, HandshakeError> {
    Ok(u32::try_from(number(id, value)?).unwrap_or(u32::MAX))
}

/// PROTOCOL 5.5: the range of each parameter.
fn in_range(param: ParamId, value: u64) -> Result<(), ParamError> {
    let (min, max) = match param {
        ParamId::MaxRecord => (u64::from(MIN_RECORD), u64::from(MAX_RECORD)),
        ParamId::Crc | ParamId::Lz4 => (0, 1),
        ParamId::ResumeTimeout => (0, whole(MAX_RESUME_TIMEOUT.as_millis())),
        ParamId::Heartbeat if value == 0 => (0, 0),
        ParamId::Heartbeat => (whole(MIN_HEARTBEAT.as_millis()), whole(MAX_HEARTBEAT.as_millis())),
        ParamId::MaxAckDelay => (0, whole(MAX_ACK_DELAY.as_micros())),
        ParamId::InFlight => (1, MAX_CREDIT),
        ParamId::MaxData | ParamId::MaxStreamData => (0, MAX_CREDIT),
        ParamId::MaxStreams => (0, MAX_STREAM_LIMIT),
        ParamId::Floor => (0, Security::Encrypted.value()),
        ParamId::MaxMessage => (0, MAX_MESSAGE),
        ParamId::MaxDatagram => (u64::from(MIN_RECORD), u64::from(MAX_RECORD)),
        ParamId::Service => (0, MAX_SERVICE_LEN as u64),
        ParamId::Token => (0, MAX_TOKEN_LEN as u64),
    };
    if value < min || value > max {
        return Err(ParamError {
            param,
            value,
            min,
            max,
        });
    }
    Ok(())
}
