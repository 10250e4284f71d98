//! Header fields in QPACK without a dynamic table, RFC 9204.
//!
//! The static table and the Huffman code are wtransport-proto's. It is given one field line at a time, of
//! which every length has been checked: it shifts by what a peer says in an integer, and forgets which fields
//! were there twice.

use wtransport_proto::qpack::{Decoder, Encoder};

use super::error::{Http3Error, code};

/// Bytes of a field section, encoded, and decoded with 32 for each field (RFC 9114 §4.2.2); as for a head of
/// HTTP/1.1.
pub(super) const MAX_SECTION: u64 = 16 * 1024;
/// Fields of a section.
const MAX_FIELDS: usize = 100;
/// Octets of an integer behind the first: it stays below 2^28.
const MAX_CONTINUATION: usize = 4;

fn failed(what: &'static str) -> Http3Error {
    Http3Error::new(code::QPACK_DECOMPRESSION_FAILED, what)
}

/// A section as it is sent.
pub(super) fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    Encoder::encode(fields.iter().copied()).into_vec()
}

/// All fields in their order.
///
/// # Errors
/// The connection is over: it is not QPACK, uses a dynamic table that we do not grant, or is too large.
pub(super) fn decode(section: &[u8]) -> Result<Vec<(String, String)>, Http3Error> {
    let mut rest = section;
    // RFC 9204 §4.5.1: without entries of a dynamic table the base says nothing.
    if take_integer(&mut rest, 8)? != 0 {
        return Err(failed("a field section needs a dynamic table"));
    }
    take_integer(&mut rest, 7)?;
    let (mut fields, mut size) = (Vec::new(), 0_u64);
    while !rest.is_empty() {
        let line = take_line(&mut rest)?;
        let (name, value) = decode_line(line)?;
        size += name.len() as u64 + value.len() as u64 + 32;
        if size > MAX_SECTION || fields.len() >= MAX_FIELDS {
            return Err(Http3Error::new(
                code::EXCESSIVE_LOAD,
                "a field section that is too large",
            ));
        }
        fields.push((name, value));
    }
    Ok(fields)
}

fn decode_line(line: &[u8]) -> Result<(String, String), Http3Error> {
    let mut section = vec![0, 0];
    section.extend_from_slice(line);
    let decoded = Decoder::decode(&section).map_err(|_| failed("a field line that cannot be decoded"))?;
    decoded
        .into_iter()
        .next()
        .ok_or_else(|| failed("a field line without a field"))
}

/// Cuts one field line off, RFC 9204 §4.5.2 to §4.5.6.
fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Http3Error> {
    let start = *rest;
    let first = rest.first().copied().unwrap_or_default();
    match first {
        // T: the static table.
        0b1100_0000..=0b1111_1111 => {
            take_integer(rest, 6)?;
        }
        0b0101_0000..=0b0101_1111 | 0b0111_0000..=0b0111_1111 => {
            take_integer(rest, 4)?;
            take_string(rest, 7)?;
        }
        0b0010_0000..=0b0011_1111 => {
            take_string(rest, 3)?;
            take_string(rest, 7)?;
        }
        _ => return Err(failed("a field line of a dynamic table")),
    }
    let len = start.len() - rest.len();
    start
        .get(..len)
        .ok_or_else(|| failed("a field line that is cut off"))
}

fn take_string(rest: &mut &[u8], prefix_bits: u32) -> Result<(), Http3Error> {
    let len = take_integer(rest, prefix_bits)?;
    *rest = usize::try_from(len)
        .ok()
        .and_then(|len| rest.get(len..))
        .ok_or_else(|| failed("a string that is cut off"))?;
    Ok(())
}

/// An integer with a prefix of that many bits, RFC 7541 §5.1; what lies above the prefix is ignored.
fn take_integer(rest: &mut &[u8], prefix_bits: u32) -> Result<u64, Http3Error> {
    let cut_off = || failed("an integer that is cut off");
    let (first, mut bytes) = rest.split_first().ok_or_else(cut_off)?;
    let mask = (1_u64 << prefix_bits) - 1;
    let mut value = u64::from(*first) & mask;
    if value == mask {
        for at in 0.. {
            if at == MAX_CONTINUATION {
                return Err(failed("an integer that is too large"));
            }
            let (byte, behind) = bytes.split_first().ok_or_else(cut_off)?;
            bytes = behind;
            value += u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = bytes;
    Ok(value)
}

/// The instructions of a peer's encoder, RFC 9204 §4.3. We grant it no table, so all that it can say is that
/// it uses none.
pub(super) fn check_encoder(bytes: &[u8]) -> Result<(), Http3Error> {
    const SET_CAPACITY_0: u8 = 0b0010_0000;
    match bytes.iter().all(|byte| *byte == SET_CAPACITY_0) {
        true => Ok(()),
        false => Err(Http3Error::new(
            code::QPACK_ENCODER_STREAM_ERROR,
            "the dynamic table that is not granted is used",
        )),
    }
}

/// The instructions of a peer's decoder, RFC 9204 §4.4. We use no table, so it can only cancel streams.
#[derive(Debug, Default)]
pub(super) struct DecoderStream {
    /// Octets of an integer that has begun.
    octets: usize,
}

impl DecoderStream {
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<(), Http3Error> {
        let wrong = |what| Http3Error::new(code::QPACK_DECODER_STREAM_ERROR, what);
        for byte in bytes {
            if self.octets == 0 {
                match byte {
                    0b0111_1111 => self.octets = 1,
                    0b0100_0000..0b0111_1111 => {}
                    _ => return Err(wrong("what was never inserted is acknowledged")),
                }
            } else if byte & 0x80 == 0 {
                self.octets = 0;
            } else {
                self.octets += 1;
                // A stream id has 62 bits.
                if self.octets > 9 {
                    return Err(wrong("an integer that is too large"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(section: &[u8]) -> u64 {
        decode(section).expect_err("refused").code
    }

    #[test]
    fn fields_go_there_and_back_in_order_and_twice() {
        let fields = [
            (":method", "CONNECT"),
            (":scheme", "https"),
            (":path", "/a?b=c"),
            ("origin", "https://app.example.com"),
            ("x-twice", "one"),
            ("x-twice", "two"),
            ("x-empty", ""),
        ];
        let decoded = decode(&encode(&fields)).expect("ours");
        let decoded: Vec<_> = decoded
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(decoded, fields);
    }

    #[test]
    fn a_dynamic_table_is_refused() {
        for section in [
            &[1, 0][..],          // a required insert count
            &[0, 0, 0b1000_0001], // indexed, dynamic
            &[0, 0, 0b0001_0000], // indexed with post-base index
            &[0, 0, 0b0100_0001, 0],
            &[0, 0, 0b0000_0000, 0],
        ] {
            assert_eq!(code_of(section), code::QPACK_DECOMPRESSION_FAILED, "{section:?}");
        }
    }

    #[test]
    fn huge_qpack_integers_and_lengths_are_refused() {
        let endless = [[0, 0, 0xff].to_vec(), vec![0xff; 40]].concat();
        assert_eq!(code_of(&endless), code::QPACK_DECOMPRESSION_FAILED);
        let prefix = [[0xff].to_vec(), vec![0x80; 40]].concat();
        assert_eq!(code_of(&prefix), code::QPACK_DECOMPRESSION_FAILED);
        // A name of 2^27 bytes, of which none come.
        assert_eq!(
            code_of(&[0, 0, 0b0010_0111, 0x80, 0x80, 0x80, 0x40]),
            code::QPACK_DECOMPRESSION_FAILED
        );
        // An entry that the static table does not have.
        assert_eq!(code_of(&[0, 0, 0xff, 0x7f]), code::QPACK_DECOMPRESSION_FAILED);
    }

    #[test]
    fn every_truncation_is_refused_or_a_shorter_list() {
        let whole = encode(&[
            (":method", "CONNECT"),
            (":authority", "host.example:4433"),
            ("x-a", "b"),
        ]);
        let all = decode(&whole).expect("ours");
        for len in 0..whole.len() {
            match decode(&whole[..len]) {
                Ok(fields) => assert_eq!(fields, all[..fields.len()]),
                Err(error) => assert_eq!(error.code, code::QPACK_DECOMPRESSION_FAILED),
            }
        }
    }

    #[test]
    fn too_many_fields_and_too_large_a_section_are_refused() {
        let many = vec![("a", "b"); MAX_FIELDS + 1];
        assert_eq!(code_of(&encode(&many)), code::EXCESSIVE_LOAD);
        // One octet each stands for a field of some 100 bytes: what it grows to is counted, too.
        let section = [[0, 0].to_vec(), vec![0b1100_0000 | 57; 99]].concat();
        assert!(decode(&section).is_ok());
        let long = "a".repeat(MAX_SECTION as usize);
        assert_eq!(code_of(&encode(&[("a", &long)])), code::EXCESSIVE_LOAD);
    }

    #[test]
    fn instructions_for_a_table_that_is_not_there_are_refused() {
        assert_eq!(check_encoder(&[0x20, 0x20]), Ok(()));
        let error = check_encoder(&[0x20, 0x21]).expect_err("a capacity");
        assert_eq!(error.code, code::QPACK_ENCODER_STREAM_ERROR);
        for bytes in [&[0x80][..], &[0x01], &[0x00], &[0xff; 12]] {
            let error = DecoderStream::default().check(bytes).expect_err("refused");
            assert_eq!(error.code, code::QPACK_DECODER_STREAM_ERROR);
        }
        let mut stream = DecoderStream::default();
        // A cancellation in pieces, and another one.
        for piece in [&[0x7f][..], &[0x80, 0x80], &[0x01, 0x44]] {
            assert_eq!(stream.check(piece), Ok(()));
        }
        let endless = [vec![0x7f], vec![0x80; 9]].concat();
        assert!(DecoderStream::default().check(&endless).is_err());
    }
}
