//! Variable-length integers. `PROTOCOL 2.1`.
//!
//! The number of leading one bits in the first byte is the number of bytes that follow; the remaining
//! bits, most significant first, are the value. So seven bits fit in one byte, fourteen in two, 56 in
//! eight and 64 in nine. A longer form than the value needs is an error.

use bytes::BufMut;

use super::error::WireError;

/// The longest varint, in bytes.
pub const MAX_LEN: usize = 9;

/// Length of `value` as a varint, in bytes: 1 to [`MAX_LEN`].
#[inline]
pub const fn len(value: u64) -> usize {
    if value >> 56 != 0 {
        return MAX_LEN;
    }
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// `value` in the first bytes of an array, and how many of them it takes.
#[inline]
pub(crate) const fn array(value: u64) -> ([u8; MAX_LEN], usize) {
    let mut bytes = [0; MAX_LEN];
    let Some((word, len)) = word(value) else {
        let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
        return ([0xff, a, b, c, d, e, f, g, h], MAX_LEN);
    };
    let [a, b, c, d, e, f, g, h] = (word << (64 - 8 * len)).to_be_bytes();
    (bytes[0], bytes[1], bytes[2], bytes[3]) = (a, b, c, d);
    (bytes[4], bytes[5], bytes[6], bytes[7]) = (e, f, g, h);
    (bytes, len)
}

/// `value` in the low bytes of a word, and how many of them it takes; `None` when that is nine.
#[inline]
pub(crate) const fn word(value: u64) -> Option<(u64, usize)> {
    let len = len(value);
    if len == MAX_LEN {
        return None;
    }
    let prefix = !(u64::MAX >> (len - 1)) >> (64 - 8 * len);
    Some((value | prefix, len))
}

/// Appends `value` to `buf`.
///
/// # Panics
/// As [`BufMut::put_slice`] does when a buffer of fixed size has no room.
#[inline]
pub fn put(buf: &mut impl BufMut, value: u64) {
    if value < 0x80 {
        buf.put_u8(value as u8);
    } else {
        let (bytes, len) = array(value);
        buf.put_slice(&bytes[..len]);
    }
}

/// Takes a varint off the front of `input`.
///
/// # Errors
/// [`WireError::Truncated`] and [`WireError::NotMinimal`]; `input` is then left as it was.
#[inline]
pub fn get(input: &mut &[u8]) -> Result<u64, WireError> {
    field(input, "varint")
}

/// [`get`] for the field `what`, which errors name.
#[inline]
pub(crate) fn field(input: &mut &[u8], what: &'static str) -> Result<u64, WireError> {
    match input.split_first() {
        Some((&first, rest)) if first < 0x80 => {
            *input = rest;
            Ok(u64::from(first))
        }
        _ => long(input, what),
    }
}

#[inline]
fn long(input: &mut &[u8], what: &'static str) -> Result<u64, WireError> {
    let Some(&first) = input.first() else {
        return Err(WireError::Truncated {
            what,
            needed: 1,
            have: 0,
        });
    };
    let follow = first.leading_ones() as usize;
    let Some((bytes, rest)) = input.split_at_checked(follow + 1) else {
        return Err(WireError::Truncated {
            what,
            needed: follow as u64 + 1,
            have: input.len(),
        });
    };
    let value = match input.first_chunk::<8>() {
        Some(chunk) if follow < 8 => {
            let word = u64::from_be_bytes(*chunk) >> (8 * (7 - follow));
            word & (u64::MAX >> (64 - 7 * (follow + 1)))
        }
        _ => {
            // With eight bytes to follow the first byte has no bits left for the value: 0xff >> 8 = 0.
            let head = u64::from(first) & (0x7f >> follow);
            bytes
                .iter()
                .skip(1)
                .fold(head, |value, &byte| value << 8 | u64::from(byte))
        }
    };
    if value >> (7 * follow) == 0 {
        return Err(WireError::NotMinimal {
            what,
            value,
            len: follow + 1,
        });
    }
    *input = rest;
    Ok(value)
}

/// Takes `len` bytes of the field `what` off the front of `input`.
#[inline]
pub(crate) fn take<'a>(input: &mut &'a [u8], len: u64, what: &'static str) -> Result<&'a [u8], WireError> {
    match usize::try_from(len)
        .ok()
        .and_then(|len| input.split_at_checked(len))
    {
        Some((head, rest)) => {
            *input = rest;
            Ok(head)
        }
        None => Err(WireError::Truncated {
            what,
            needed: len,
            have: input.len(),
        }),
    }
}
