//! The prefix varint of PROTOCOL 3, private to the handshake.
//!
//! The number of leading one bits of the first byte is the number of bytes that follow; the rest is
//! big-endian. Only the shortest form is accepted.

use bytes::BufMut;

/// What was wrong with a varint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VarintError {
    /// The input ended within it.
    Truncated,
    /// A shorter form of the same value exists.
    NotMinimal,
}

/// Takes one varint off the front of `input`; `input` is unchanged on error.
pub(super) fn get(input: &mut &[u8]) -> Result<u64, VarintError> {
    let (&first, rest) = input.split_first().ok_or(VarintError::Truncated)?;
    let extra = first.leading_ones() as usize;
    let (tail, rest) = rest.split_at_checked(extra).ok_or(VarintError::Truncated)?;
    let mut value = if extra >= 7 {
        0
    } else {
        u64::from(first & (0x7f >> extra))
    };
    for &byte in tail {
        value = (value << 8) | u64::from(byte);
    }
    if extra > 0 && value >> (7 * extra) == 0 {
        return Err(VarintError::NotMinimal);
    }
    *input = rest;
    Ok(value)
}

/// Appends `value` in its shortest form.
pub(super) fn put(buf: &mut impl BufMut, value: u64) {
    let extra = (0..8).find(|n| value >> (7 * (n + 1)) == 0).unwrap_or(8);
    let bytes = value.to_be_bytes();
    if extra == 8 {
        buf.put_u8(0xff);
        buf.put_slice(&bytes);
        return;
    }
    let mark = !(0xff_u8 >> extra);
    buf.put_u8(mark | bytes[7 - extra]);
    buf.put_slice(&bytes[8 - extra..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_round_trips() {
        for bits in 0..=64_u32 {
            for value in [
                1_u64.checked_shl(bits).unwrap_or(0).wrapping_sub(1),
                1_u64.checked_shl(bits).unwrap_or(1),
            ] {
                let mut buf = Vec::new();
                put(&mut buf, value);
                let want = (1..=8).find(|n| value >> (7 * n) == 0).unwrap_or(9);
                assert_eq!(buf.len(), want, "{value:#x}");
                let mut input = &buf[..];
                assert_eq!(get(&mut input), Ok(value));
                assert!(input.is_empty());
            }
        }
    }

    #[test]
    fn longer_forms_are_refused() {
        for bytes in [
            &[0x80, 0x7f][..],
            &[0xc0, 0x3f, 0xff],
            &[0xff, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(get(&mut &bytes[..]), Err(VarintError::NotMinimal));
        }
        assert_eq!(get(&mut &[0xff, 1][..]), Err(VarintError::Truncated));
        assert_eq!(get(&mut &[][..]), Err(VarintError::Truncated));
    }

    #[test]
    fn arbitrary_bytes_decode_to_what_encodes_back() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut input = bytes;
            if let Ok(value) = get(&mut input) {
                let mut again = Vec::new();
                put(&mut again, value);
                assert_eq!(again, bytes[..bytes.len() - input.len()]);
            }
        });
    }
}
