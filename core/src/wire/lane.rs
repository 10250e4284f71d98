//! What a stream that is a lane begins with. PROTOCOL 14.8.

use bytes::BufMut;

use super::error::WireError;
use super::varint;

/// Appends what a lane's stream begins with: its number.
pub fn put_lane_number(out: &mut impl BufMut, number: u16) {
    varint::put(out, number.into());
}

/// Takes the number off the front of what came on a stream; `None` while it is not whole.
///
/// # Errors
/// It is longer than it need be.
pub fn take_lane_number(input: &mut &[u8]) -> Result<Option<u64>, WireError> {
    match varint::get(input) {
        Ok(number) => Ok(Some(number)),
        Err(WireError::Truncated { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_may_come_in_pieces() {
        let mut wire = Vec::new();
        put_lane_number(&mut wire, 1000);
        assert_eq!(take_lane_number(&mut &wire[..1]), Ok(None));
        wire.extend_from_slice(b"rest");
        let mut input = &wire[..];
        assert_eq!(take_lane_number(&mut input), Ok(Some(1000)));
        assert_eq!(input, b"rest");
        assert_eq!(take_lane_number(&mut &[][..]), Ok(None));
    }

    #[test]
    fn a_number_that_is_too_long_is_refused() {
        let mut input: &[u8] = &[0x80, 0, 0, 5];
        assert!(take_lane_number(&mut input).is_err());
    }
}
