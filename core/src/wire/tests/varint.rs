use super::super::{WireError, varint};

fn encode(value: u64) -> Vec<u8> {
    let mut buf = Vec::new();
    varint::put(&mut buf, value);
    buf
}

/// `value` in `len` bytes, minimal or not, by the words of PROTOCOL 2.1.
fn encode_in(value: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for i in 0..len.min(8) {
        bytes[len - 1 - i] = (value >> (8 * i)) as u8;
    }
    bytes[0] |= !(0xff_u16 >> (len - 1)) as u8;
    bytes
}

// PROTOCOL 2.1
#[test]
fn known_encodings() {
    for (value, bytes) in [
        (0, &[0x00][..]),
        (127, &[0x7f]),
        (128, &[0x80, 0x80]),
        (0x3fff, &[0xbf, 0xff]),
        (0x4000, &[0xc0, 0x40, 0x00]),
        (1 << 40, &[0xf9, 0, 0, 0, 0, 0]),
        (
            0x00ff_ffff_ffff_ffff,
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        (1 << 56, &[0xff, 0x01, 0, 0, 0, 0, 0, 0, 0]),
        (u64::MAX, &[0xff; 9]),
    ] {
        assert_eq!(encode(value), bytes, "{value}");
        assert_eq!(varint::get(&mut &encode(value)[..]), Ok(value));
    }
}

// PROTOCOL 2.1
#[test]
fn every_length_at_both_ends_of_its_range() {
    for len in 1..=varint::MAX_LEN {
        let smallest = if len == 1 { 0 } else { 1 << (7 * (len - 1)) };
        let largest = if len == varint::MAX_LEN {
            u64::MAX
        } else {
            (1 << (7 * len)) - 1
        };
        for value in [smallest, smallest + 1, largest - 1, largest] {
            let mut bytes = encode(value);
            assert_eq!(bytes, encode_in(value, len), "{value}");
            assert_eq!(varint::len(value), len, "{value}");
            for trail in [0, 1, 8, 20] {
                bytes.truncate(len);
                bytes.resize(len + trail, 0xa5);
                let mut input = &bytes[..];
                assert_eq!(varint::get(&mut input), Ok(value));
                assert_eq!(input.len(), trail);
            }
        }
    }
}

// PROTOCOL 2.1: the shortest form only.
#[test]
fn longer_forms_are_refused() {
    for len in 2..=varint::MAX_LEN {
        for value in [0, 1, (1_u64 << (7 * (len - 1))) - 1] {
            for trail in [0, 9] {
                let mut bytes = encode_in(value, len);
                bytes.resize(len + trail, 0xff);
                let mut input = &bytes[..];
                let refused = Err(WireError::NotMinimal {
                    what: "varint",
                    value,
                    len,
                });
                assert_eq!(varint::get(&mut input), refused);
                assert_eq!(input, bytes);
            }
        }
    }
}

// PROTOCOL 2.1
#[test]
fn cut_off_at_every_length() {
    for len in 1..=varint::MAX_LEN {
        let bytes = encode_in(u64::MAX >> (63 - 7 * (len - 1)), len);
        for have in 0..len {
            let needed = if have == 0 { 1 } else { len as u64 };
            let refused = Err(WireError::Truncated {
                what: "varint",
                needed,
                have,
            });
            assert_eq!(varint::get(&mut &bytes[..have]), refused);
        }
    }
}
