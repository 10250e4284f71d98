//! The head of a request. PROTOCOL 11.2.
//!
//! ```text
//! head:    varint method index << 1 | options?
//!          [options: varint flags || name || time left || key || trace || metadata || attempt]
//! ```
//!
//! A unary call of a method that the peer knows, without options, has a head of one byte up to method 63,
//! of two bytes up to method 1024.

use bytes::BufMut;

use super::deadline::TimeLeft;
use super::error::HeadError;
use super::intern::{MAX_METHOD_NAME, MAX_METHODS};
use super::metadata::{self, Block};
use super::trace::{TRACE_LEN, TraceContext};
use crate::wire::{WireError, varint};

/// The longest idempotency key, in bytes. PROTOCOL 10.
pub const MAX_KEY: usize = 64;
/// No head is longer, in bytes: a bound for whoever collects one.
pub const MAX_HEAD: usize = 9 + 9 + (2 + 255) + 9 + (1 + MAX_KEY) + TRACE_LEN + (9 + super::MAX_METADATA) + 9;

/// What a call looks like: one payload or many items, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// One payload there, one back.
    #[default]
    Unary,
    /// One payload there, items back.
    ServerStreaming,
    /// Items there, one payload back.
    ClientStreaming,
    /// Items both ways.
    Bidirectional,
}

impl CallKind {
    /// Whether the request is items.
    pub const fn request_items(self) -> bool {
        matches!(self, CallKind::ClientStreaming | CallKind::Bidirectional)
    }

    /// Whether the answer is items.
    pub const fn answer_items(self) -> bool {
        matches!(self, CallKind::ServerStreaming | CallKind::Bidirectional)
    }

    const fn flags(self) -> u64 {
        match self {
            CallKind::Unary => 0,
            CallKind::ServerStreaming => flag::ANSWER_ITEMS,
            CallKind::ClientStreaming => flag::REQUEST_ITEMS,
            CallKind::Bidirectional => flag::ANSWER_ITEMS | flag::REQUEST_ITEMS,
        }
    }

    const fn from_flags(flags: u64) -> CallKind {
        match (flags & flag::REQUEST_ITEMS != 0, flags & flag::ANSWER_ITEMS != 0) {
            (false, false) => CallKind::Unary,
            (false, true) => CallKind::ServerStreaming,
            (true, false) => CallKind::ClientStreaming,
            (true, true) => CallKind::Bidirectional,
        }
    }
}

/// How a head names its method. Made by [`MethodTable`](super::MethodTable), understood by
/// [`PeerMethods`](super::PeerMethods).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method<'a> {
    /// By a number that the peer knows.
    Index(u32),
    /// By a number and the name that it stands for from here on.
    Define {
        /// The number.
        index: u32,
        /// The name.
        name: &'a str,
    },
    /// By name alone.
    Named(&'a str),
}

impl Method<'_> {
    /// The number that the head defines: the peer has it once it has answered.
    pub const fn defines(self) -> Option<u32> {
        match self {
            Method::Define { index, .. } => Some(index),
            Method::Index(_) | Method::Named(_) => None,
        }
    }
}

/// A key under which a request is executed once, however often it is sent: 1 to [`MAX_KEY`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey<'a>(&'a [u8]);

impl<'a> IdempotencyKey<'a> {
    /// The key of these bytes.
    ///
    /// # Errors
    /// [`HeadError::Key`]
    pub fn new(bytes: &'a [u8]) -> Result<IdempotencyKey<'a>, HeadError> {
        match bytes.len() {
            1..=MAX_KEY => Ok(IdempotencyKey(bytes)),
            len => Err(HeadError::Key { len: len as u64 }),
        }
    }

    /// Its bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// The head of a request, borrowed from what it is made of or from the bytes in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// Which method.
    pub method: Method<'a>,
    /// Payload or items.
    pub kind: CallKind,
    /// How long the caller still waits.
    pub time_left: Option<TimeLeft>,
    /// Executed once under this key.
    pub key: Option<IdempotencyKey<'a>>,
    /// The trace to go on with.
    pub trace: Option<TraceContext>,
    /// Keys and values.
    pub metadata: Block<'a>,
    /// The caller says that executing this more than once does no harm.
    pub repeatable: bool,
    /// How many attempts came before this one (a retry or a hedge).
    pub attempt: u64,
}

mod flag {
    pub(super) const ANSWER_ITEMS: u64 = 1;
    pub(super) const REQUEST_ITEMS: u64 = 2;
    pub(super) const NAME: u64 = 4;
    pub(super) const TIME_LEFT: u64 = 8;
    pub(super) const KEY: u64 = 0x10;
    pub(super) const TRACE: u64 = 0x20;
    pub(super) const METADATA: u64 = 0x40;
    pub(super) const REPEATABLE: u64 = 0x80;
    pub(super) const ATTEMPT: u64 = 0x100;
    pub(super) const KNOWN: u64 = 0x1ff;
}

impl<'a> RequestHead<'a> {
    /// A unary call without options.
    pub const fn unary(method: Method<'a>) -> RequestHead<'a> {
        RequestHead {
            method,
            kind: CallKind::Unary,
            time_left: None,
            key: None,
            trace: None,
            metadata: Block::empty(),
            repeatable: false,
            attempt: 0,
        }
    }

    fn flags(&self) -> u64 {
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        self.kind.flags()
            | flag(!matches!(self.method, Method::Index(_)), flag::NAME)
            | flag(self.time_left.is_some(), flag::TIME_LEFT)
            | flag(self.key.is_some(), flag::KEY)
            | flag(self.trace.is_some(), flag::TRACE)
            | flag(!self.metadata.is_empty(), flag::METADATA)
            | flag(self.repeatable, flag::REPEATABLE)
            | flag(self.attempt > 0, flag::ATTEMPT)
    }

    /// Appends the head to `out`; payload or items follow.
    #[inline]
    pub fn encode(&self, out: &mut impl BufMut) {
        let flags = self.flags();
        match self.method {
            Method::Index(index) if flags == 0 => varint::put(out, u64::from(index) << 1),
            _ => self.encode_options(flags, out),
        }
    }

    fn encode_options(&self, flags: u64, out: &mut impl BufMut) {
        let (index, name) = match self.method {
            Method::Index(index) => (index, None),
            Method::Define { index, name } => (index, Some(name)),
            Method::Named(name) => (0, Some(name)),
        };
        varint::put(out, u64::from(index) << 1 | 1);
        varint::put(out, flags);
        if let Some(name) = name {
            varint::put(out, name.len() as u64);
            out.put_slice(name.as_bytes());
        }
        if let Some(left) = self.time_left {
            varint::put(out, left.micros());
        }
        if let Some(key) = self.key {
            varint::put(out, key.0.len() as u64);
            out.put_slice(key.0);
        }
        if let Some(trace) = self.trace {
            out.put_slice(&trace.to_bytes());
        }
        if !self.metadata.is_empty() {
            self.metadata.encode(out);
        }
        if self.attempt > 0 {
            varint::put(out, self.attempt);
        }
    }

    /// Takes a head off the front of `input`; `None`, with `input` as it was, when there is not all of it
    /// yet. Every limit is judged as soon as the length or count is there that breaks it.
    ///
    /// # Errors
    /// [`HeadError`]: the call is to be failed with [`HeadError::failure`]. Nothing else is harmed.
    #[inline]
    pub fn decode(input: &mut &'a [u8]) -> Result<Option<RequestHead<'a>>, HeadError> {
        // The cheap case: a known method of up to 63, no options.
        if let Some((&first, rest)) = input.split_first() {
            if first & 0x81 == 0 && first != 0 {
                *input = rest;
                return Ok(Some(RequestHead::unary(Method::Index(u32::from(first >> 1)))));
            }
        }
        let mut rest = *input;
        match decode(&mut rest) {
            Ok(head) => {
                *input = rest;
                Ok(Some(head))
            }
            Err(Fault::More) => Ok(None),
            Err(Fault::Bad(error)) => Err(error),
        }
    }
}

/// Why there is no head.
enum Fault {
    /// Not all of it is there.
    More,
    Bad(HeadError),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Fault {
        match error {
            WireError::Truncated { .. } => Fault::More,
            error => Fault::Bad(HeadError::Wire(error)),
        }
    }
}

impl<E: Into<HeadError>> From<Bad<E>> for Fault {
    fn from(Bad(error): Bad<E>) -> Fault {
        Fault::Bad(error.into())
    }
}

/// Marks an error as the peer's fault rather than want of bytes.
struct Bad<E>(E);

fn decode<'a>(input: &mut &'a [u8]) -> Result<RequestHead<'a>, Fault> {
    let tag = varint::field(input, "method")?;
    let index = tag >> 1;
    if index > u64::from(MAX_METHODS) {
        return Err(Fault::Bad(HeadError::IndexTooLarge { index }));
    }
    let index = index as u32;
    let flags = match tag & 1 {
        0 => 0,
        _ => varint::field(input, "flags")?,
    };
    if flags & !flag::KNOWN != 0 {
        return Err(Fault::Bad(HeadError::UnknownOptions { flags }));
    }
    let method = if flags & flag::NAME != 0 {
        let name = take_name(input)?;
        match index {
            0 => Method::Named(name),
            _ => Method::Define { index, name },
        }
    } else if index == 0 {
        return Err(Fault::Bad(HeadError::NoMethod));
    } else {
        Method::Index(index)
    };
    let mut head = RequestHead::unary(method);
    head.kind = CallKind::from_flags(flags);
    head.repeatable = flags & flag::REPEATABLE != 0;
    if flags & flag::TIME_LEFT != 0 {
        let micros = varint::field(input, "time left")?;
        head.time_left = Some(TimeLeft::from_micros(micros).map_err(Bad)?);
    }
    if flags & flag::KEY != 0 {
        let len = varint::field(input, "idempotency key")?;
        if !(1..=MAX_KEY as u64).contains(&len) {
            return Err(Fault::Bad(HeadError::Key { len }));
        }
        head.key = Some(IdempotencyKey(varint::take(input, len, "idempotency key")?));
    }
    if flags & flag::TRACE != 0 {
        let bytes = varint::take(input, TRACE_LEN as u64, "trace context")?;
        head.trace = Some(TraceContext::from_bytes(bytes).map_err(Bad)?);
    }
    if flags & flag::METADATA != 0 {
        match metadata::take_block(input, &mut head.metadata) {
            metadata::Cut::Whole => {}
            metadata::Cut::Bad(error) => return Err(Bad(error).into()),
            metadata::Cut::Wire(error) => return Err(error.into()),
        }
    }
    if flags & flag::ATTEMPT != 0 {
        head.attempt = varint::field(input, "attempt")?;
    }
    Ok(head)
}

fn take_name<'a>(input: &mut &'a [u8]) -> Result<&'a str, Fault> {
    let len = varint::field(input, "method name")?;
    if len > MAX_METHOD_NAME as u64 {
        return Err(Fault::Bad(HeadError::Wire(WireError::TooLong {
            what: "method name",
            len,
            max: MAX_METHOD_NAME,
        })));
    }
    if len == 0 {
        return Err(Fault::Bad(HeadError::NoMethod));
    }
    let name = varint::take(input, len, "method name")?;
    std::str::from_utf8(name).map_err(|error| {
        Fault::Bad(HeadError::Wire(WireError::NotUtf8 {
            what: "method name",
            at: error.valid_up_to(),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::super::error::{DeadlineError, MetadataError};
    use super::super::metadata::Metadata;
    use super::*;
    use std::time::Duration;

    fn wire(head: &RequestHead<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        head.encode(&mut out);
        out
    }

    /// PROTOCOL 11.2: what a cheap call costs.
    #[test]
    fn the_cheap_case_is_one_byte() {
        assert_eq!(wire(&RequestHead::unary(Method::Index(1))), [2]);
        assert_eq!(wire(&RequestHead::unary(Method::Index(63))), [126]);
        assert_eq!(wire(&RequestHead::unary(Method::Index(MAX_METHODS))).len(), 2);
    }

    fn full(metadata: &Metadata) -> RequestHead<'_> {
        RequestHead {
            method: Method::Define {
                index: 7,
                name: "orders.place",
            },
            kind: CallKind::Bidirectional,
            time_left: Some(TimeLeft::new(Duration::from_secs(2)).unwrap()),
            key: Some(IdempotencyKey::new(b"0123456789abcdef").unwrap()),
            trace: Some(TraceContext::new([1; 16], [2; 8], 1).unwrap()),
            metadata: metadata.as_block(),
            repeatable: true,
            attempt: 3,
        }
    }

    #[test]
    fn every_option_round_trips_and_every_prefix_waits() {
        let metadata = Metadata::from_entries([("user", &b"ann"[..])]).unwrap();
        let head = full(&metadata);
        let mut bytes = wire(&head);
        for end in 0..bytes.len() {
            let mut part = &bytes[..end];
            assert_eq!(RequestHead::decode(&mut part), Ok(None), "{end}");
            assert_eq!(part.len(), end);
        }
        bytes.extend_from_slice(b"payload");
        let mut input = &bytes[..];
        assert_eq!(RequestHead::decode(&mut input), Ok(Some(head)));
        assert_eq!(input, b"payload");
        for kind in [
            CallKind::Unary,
            CallKind::ServerStreaming,
            CallKind::ClientStreaming,
        ] {
            let head = RequestHead {
                kind,
                ..RequestHead::unary(Method::Named("x"))
            };
            assert_eq!(RequestHead::decode(&mut &wire(&head)[..]), Ok(Some(head)));
        }
    }

    fn refused(bytes: &[u8]) -> HeadError {
        RequestHead::decode(&mut &bytes[..]).unwrap_err()
    }

    #[test]
    fn bad_heads_are_refused_as_early_as_can_be() {
        assert_eq!(refused(&[0]), HeadError::NoMethod);
        assert_eq!(refused(&[1, 0]), HeadError::NoMethod);
        assert_eq!(refused(&[1, 4, 0]), HeadError::NoMethod);
        // Index 1025.
        assert_eq!(refused(&[0x88, 0x02]), HeadError::IndexTooLarge { index: 1025 });
        let mut huge = vec![0xff; 9];
        assert_eq!(refused(&huge), HeadError::IndexTooLarge { index: u64::MAX >> 1 });
        assert_eq!(
            refused(&[3, 0x82, 0x00]),
            HeadError::UnknownOptions { flags: 0x200 }
        );
        assert!(matches!(
            refused(&[1, 4, 0x81, 0]),
            HeadError::Wire(WireError::TooLong { len: 256, .. })
        ));
        assert!(matches!(
            refused(&[1, 4, 1, 0xff]),
            HeadError::Wire(WireError::NotUtf8 { .. })
        ));
        assert!(matches!(
            refused(&[0x80, 0x02]),
            HeadError::Wire(WireError::NotMinimal { .. })
        ));
        assert_eq!(refused(&[3, 8, 0]), HeadError::Deadline(DeadlineError::Zero));
        huge.splice(0..0, [3, 8]);
        assert_eq!(
            refused(&huge),
            HeadError::Deadline(DeadlineError::TooFar { micros: u64::MAX })
        );
        assert_eq!(refused(&[3, 0x10, 0]), HeadError::Key { len: 0 });
        assert_eq!(refused(&[3, 0x10, 65]), HeadError::Key { len: 65 });
        assert_eq!(refused(&[&[3, 0x20][..], &[0; 25]].concat()), HeadError::Trace);
        // 16,385 bytes of metadata, none of which are there.
        assert_eq!(
            refused(&[3, 0x40, 0xc0, 0x40, 0x01]),
            HeadError::Metadata(MetadataError::TooLarge { len: 16_385 })
        );
        for error in [
            HeadError::NoMethod,
            HeadError::Cut,
            HeadError::TableFull,
            HeadError::Trace,
        ] {
            assert_eq!(error.failure().executed, super::super::Executed::No);
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut rest = bytes;
            match RequestHead::decode(&mut rest) {
                Ok(Some(head)) => {
                    let taken = bytes.len() - rest.len();
                    assert!(taken <= MAX_HEAD);
                    // Options that say nothing may have been written with flags; what was read stays.
                    let again = wire(&head);
                    assert_eq!(RequestHead::decode(&mut &again[..]), Ok(Some(head)));
                    assert!(again.len() <= taken);
                }
                Ok(None) => assert!(bytes.len() <= MAX_HEAD),
                Err(_) => {}
            }
        });
    }
}
