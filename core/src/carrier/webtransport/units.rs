//! What lies behind each other as type, length and value: frames (RFC 9114 §7.1) and capsules (RFC 9297 §3.2).

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;
use wtransport_proto::bytes::{BytesReader, BytesWriter};
use wtransport_proto::varint::VarInt;

/// The integer of QUIC (RFC 9000 §16) at the front of `bytes`, if it is complete; they are moved behind it.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    bytes.get_varint().map(VarInt::into_inner)
}

/// Appends an integer of QUIC. All that we write are constants, stream ids and lengths, below 2^62.
pub(super) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let value = VarInt::try_from_u64(value).unwrap_or(VarInt::MAX);
    // A vector has room for everything.
    let _ = out.put_varint(value);
}

/// Appends a whole frame or capsule.
pub(super) fn put_unit(out: &mut Vec<u8>, kind: u64, value: &[u8]) {
    put_varint(out, kind);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// What is to be done with a unit of which type and length have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Give it when it is whole: its length has been found small enough to be kept.
    Whole,
    /// Give its value as it comes.
    Pieces,
    /// Drop it.
    Skip,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Whole { kind: u64, value: Bytes },
    Piece(Bytes),
}

/// Cuts a sequence of bytes that comes in any pieces into units. It holds no more than one whose plan is
/// [`Plan::Whole`].
#[derive(Debug, Default)]
pub(super) struct Units {
    /// Type and length, as far as they have come.
    head: SmallVec<[u8; 16]>,
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    kind: u64,
    plan: Plan,
    left: u64,
    kept: BytesMut,
}

impl Units {
    /// Whether a unit has begun and is not complete.
    pub(super) fn is_within(&self) -> bool {
        self.body.is_some() || !self.head.is_empty()
    }

    /// The next unit or piece of one, or `None` when all of `input` is used up. `plan` judges each by its
    /// type and its length.
    pub(super) fn next<E>(
        &mut self,
        input: &mut Bytes,
        mut plan: impl FnMut(u64, u64) -> Result<Plan, E>,
    ) -> Result<Option<Unit>, E> {
        loop {
            let Some(body) = &mut self.body else {
                let Some((kind, len)) = self.begin(input) else {
                    return Ok(None);
                };
                self.body = Some(Body {
                    kind,
                    plan: plan(kind, len)?,
                    left: len,
                    kept: BytesMut::new(),
                });
                continue;
            };
            let count = usize::try_from(body.left).unwrap_or(usize::MAX).min(input.len());
            let piece = input.split_to(count);
            body.left -= count as u64;
            let (left, kind) = (body.left, body.kind);
            let given = match body.plan {
                Plan::Skip => None,
                Plan::Pieces => (!piece.is_empty()).then_some(Unit::Piece(piece)),
                // Most come in one piece.
                Plan::Whole if left == 0 && body.kept.is_empty() => Some(Unit::Whole { kind, value: piece }),
                Plan::Whole => {
                    body.kept.extend_from_slice(&piece);
                    (left == 0).then(|| Unit::Whole {
                        kind,
                        value: std::mem::take(&mut body.kept).freeze(),
                    })
                }
            };
            if left == 0 {
                self.body = None;
            }
            if given.is_some() {
                return Ok(given);
            }
            if left > 0 {
                return Ok(None);
            }
        }
    }

    /// Type and length, once both are there.
    fn begin(&mut self, input: &mut Bytes) -> Option<(u64, u64)> {
        while !input.is_empty() {
            self.head.push(input.get_u8());
            let mut bytes = self.head.as_slice();
            if let (Some(kind), Some(len)) = (take_varint(&mut bytes), take_varint(&mut bytes)) {
                self.head.clear();
                return Some((kind, len));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn plan(kind: u64, _: u64) -> Result<Plan, Infallible> {
        Ok(match kind {
            0 => Plan::Pieces,
            1 => Plan::Whole,
            _ => Plan::Skip,
        })
    }

    #[test]
    fn units_are_the_same_however_they_come() {
        let mut bytes = Vec::new();
        put_unit(&mut bytes, 1, b"");
        put_unit(&mut bytes, 0x1234_5678, &[7; 100]);
        put_unit(&mut bytes, 1, &[1; 70]);
        put_unit(&mut bytes, 0, &[2; 20_000]);
        put_unit(&mut bytes, 0, b"");
        put_unit(&mut bytes, 1, b"last");
        let bytes = Bytes::from(bytes);
        for size in [1, 2, 3, 63, 64, 1000, bytes.len()] {
            let (mut units, mut wholes, mut data) = (Units::default(), Vec::new(), Vec::new());
            for at in (0..bytes.len()).step_by(size) {
                let mut input = bytes.slice(at..bytes.len().min(at + size));
                while let Ok(Some(unit)) = units.next(&mut input, plan) {
                    match unit {
                        Unit::Whole { kind, value } => wholes.push((kind, value.to_vec())),
                        Unit::Piece(piece) => data.extend_from_slice(&piece),
                    }
                }
                assert!(input.is_empty());
            }
            assert!(!units.is_within());
            assert_eq!(wholes, [(1, vec![]), (1, vec![1; 70]), (1, b"last".to_vec())]);
            assert_eq!(data, [2; 20_000]);
        }
    }

    #[test]
    fn the_largest_length_is_no_trouble() {
        let mut units = Units::default();
        let mut head = vec![0];
        put_varint(&mut head, (1 << 62) - 1);
        let mut input = Bytes::from(head);
        assert_eq!(units.next(&mut input, plan), Ok(None));
        let mut input = Bytes::from_static(b"abc");
        assert_eq!(
            units.next(&mut input, plan),
            Ok(Some(Unit::Piece(Bytes::from_static(b"abc"))))
        );
        assert!(units.is_within());
    }
}
