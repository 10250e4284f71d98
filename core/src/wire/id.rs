//! Stream ids and what they are made of. PROTOCOL 2.2, 2.3.

use std::fmt;

use super::error::WireError;

/// An end of a session. `PROTOCOL 2.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Side {
    /// The end that sent HELLO.
    Client = 0,
    /// The end that answered it.
    Server = 1,
}

impl Side {
    /// The other end.
    #[inline]
    pub const fn peer(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// What a stream carries, and in which directions. `PROTOCOL 2.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Bytes in both directions.
    Bi = 0,
    /// Bytes from the initiator.
    Uni = 1,
    /// Messages from the initiator, in order; one such stream per class and side, with index 0.
    Ordered = 2,
    /// One message from the initiator, ended by FIN.
    Unordered = 3,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 4] = [Kind::Bi, Kind::Uni, Kind::Ordered, Kind::Unordered];

    /// The kind in the low two bits of `bits`.
    #[inline]
    pub(crate) const fn from_bits(bits: u64) -> Kind {
        match bits & 3 {
            0 => Kind::Bi,
            1 => Kind::Uni,
            2 => Kind::Ordered,
            _ => Kind::Unordered,
        }
    }

    /// Whether both ends send on such a stream.
    #[inline]
    pub const fn is_bidirectional(self) -> bool {
        matches!(self, Kind::Bi)
    }
}

/// A group of streams that shares flow control and urgency. `PROTOCOL 2.3`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(u8);

impl Class {
    /// How many classes there are.
    pub const COUNT: usize = 8;
    /// What steers the application: urgency 0.
    pub const CONTROL: Class = Class(0);
    /// Requests and their answers: urgency 2.
    pub const REQUESTS: Class = Class(1);
    /// Events and messages: urgency 3.
    pub const EVENTS: Class = Class(2);
    /// Large transfers: urgency 6.
    pub const BULK: Class = Class(3);
    /// The user's own.
    pub const USER: [Class; 4] = [Class(4), Class(5), Class(6), Class(7)];
    /// All classes, in the order of their numbers; 4 to 7 are the user's.
    pub const ALL: [Class; Class::COUNT] = [
        Class(0),
        Class(1),
        Class(2),
        Class(3),
        Class(4),
        Class(5),
        Class(6),
        Class(7),
    ];

    /// Class `number`, or `None` above 7.
    #[inline]
    pub const fn new(number: u8) -> Option<Class> {
        if (number as usize) < Self::COUNT {
            Some(Class(number))
        } else {
            None
        }
    }

    /// The class's number, 0 to 7.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The class's number as an index into an array of [`Class::COUNT`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The urgency that the class has unless configured: 0 (first) to 7 (last).
    pub const fn default_urgency(self) -> u8 {
        match self.0 {
            0 => 0,
            1 => 2,
            2 => 3,
            3 => 6,
            _ => 4,
        }
    }

    /// The class that a varint field names.
    #[inline]
    pub(crate) fn from_field(value: u64) -> Result<Class, WireError> {
        u8::try_from(value)
            .ok()
            .and_then(Class::new)
            .ok_or(WireError::Value { what: "class", value })
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("control"),
            1 => f.write_str("requests"),
            2 => f.write_str("events"),
            3 => f.write_str("bulk"),
            n => write!(f, "class{n}"),
        }
    }
}

/// Names a stream for the life of its session. `PROTOCOL 2.2`.
///
/// `index << 6 | class << 3 | kind << 1 | initiator`, so that any frame tells the class of its stream.
/// Opening an id opens all lower indexes of the same class, kind and initiator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u64);

impl StreamId {
    /// The largest index.
    pub const MAX_INDEX: u64 = u64::MAX >> 6;

    /// The id of stream `index`, or `None` when the index is over [`StreamId::MAX_INDEX`], or is not 0
    /// for [`Kind::Ordered`].
    #[inline]
    pub const fn new(initiator: Side, kind: Kind, class: Class, index: u64) -> Option<StreamId> {
        if index > Self::MAX_INDEX || (matches!(kind, Kind::Ordered) && index != 0) {
            return None;
        }
        Some(StreamId((index << 6) | Self::low_bits(initiator, kind, class)))
    }

    /// The id of the one ordered message stream of `class` from `initiator`.
    #[inline]
    pub const fn ordered(initiator: Side, class: Class) -> StreamId {
        StreamId(Self::low_bits(initiator, Kind::Ordered, class))
    }

    const fn low_bits(initiator: Side, kind: Kind, class: Class) -> u64 {
        (class.0 as u64) << 3 | (kind as u64) << 1 | initiator as u64
    }

    /// The end that opens the stream.
    #[inline]
    pub const fn initiator(self) -> Side {
        if self.0 & 1 == 0 {
            Side::Client
        } else {
            Side::Server
        }
    }

    /// What the stream carries.
    #[inline]
    pub const fn kind(self) -> Kind {
        Kind::from_bits(self.0 >> 1)
    }

    /// The class whose flow control and urgency apply.
    #[inline]
    pub const fn class(self) -> Class {
        Class((self.0 >> 3) as u8 & 7)
    }

    /// The stream's number among those of its class, kind and initiator, from 0.
    #[inline]
    pub const fn index(self) -> u64 {
        self.0 >> 6
    }

    /// The id as it travels.
    #[inline]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Whether `side` sends data on the stream.
    #[inline]
    pub fn is_sent_by(self, side: Side) -> bool {
        self.kind().is_bidirectional() || self.initiator() == side
    }
}

impl TryFrom<u64> for StreamId {
    type Error = WireError;

    #[inline]
    fn try_from(value: u64) -> Result<StreamId, WireError> {
        let id = StreamId(value);
        if id.kind() == Kind::Ordered && id.index() != 0 {
            return Err(WireError::StreamId { value });
        }
        Ok(id)
    }
}

impl From<StreamId> for u64 {
    fn from(id: StreamId) -> u64 {
        id.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}-{:?}-{:?}-{}",
            self.initiator(),
            self.class(),
            self.kind(),
            self.index()
        )
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
