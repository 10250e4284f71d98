//! Metadata of requests and answers: keys and values, bounded before they are decoded. PROTOCOL 11.3.
//!
//! ```text
//! block:  varint bytes that follow || varint entries || entries × (byte key length || key || value)
//! value:  varint length || bytes
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::error::MetadataError;
use crate::wire::{WireError, varint};

/// The longest metadata, in bytes on the wire without the length before it. PROTOCOL 10.
pub const MAX_METADATA: usize = 16 * 1024;
/// The most entries. PROTOCOL 10.
pub const MAX_METADATA_ENTRIES: usize = 128;
/// The longest key, in bytes. PROTOCOL 10.
pub const MAX_METADATA_KEY: usize = 64;

fn valid_key(key: &[u8]) -> bool {
    (1..=MAX_METADATA_KEY).contains(&key.len())
        && key
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}

/// Metadata: entries in their order; a key may stand more than once. Cloning is cheap.
///
/// What came from a peer is held as it came, checked once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    count: u64,
    /// The entries as they travel.
    entries: Bytes,
}

impl Metadata {
    /// No entries.
    pub const fn new() -> Metadata {
        Metadata {
            count: 0,
            entries: Bytes::new(),
        }
    }

    /// Metadata of these entries.
    ///
    /// # Errors
    /// [`MetadataError`] when a key or the whole exceeds its limit.
    pub fn from_entries<'a>(
        entries: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Metadata, MetadataError> {
        let (mut out, mut count) = (BytesMut::new(), 0_u64);
        for (key, value) in entries {
            if !valid_key(key.as_bytes()) {
                return Err(MetadataError::Key);
            }
            let len = out.len() as u64 + value.len() as u64;
            if len > MAX_METADATA as u64 {
                return Err(MetadataError::TooLarge { len });
            }
            out.put_u8(key.len() as u8);
            out.put_slice(key.as_bytes());
            varint::put(&mut out, value.len() as u64);
            out.put_slice(value);
            count += 1;
        }
        if count > MAX_METADATA_ENTRIES as u64 {
            return Err(MetadataError::TooMany { count });
        }
        let len = (out.len() + varint::len(count)) as u64;
        if len > MAX_METADATA as u64 {
            return Err(MetadataError::TooLarge { len });
        }
        Ok(Metadata {
            count,
            entries: out.freeze(),
        })
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// The entries in their order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.entries }
    }

    /// The first value of `key`.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value)
    }

    pub(super) fn encode(&self, out: &mut impl BufMut) {
        self.as_block().encode(out);
    }

    /// Checks a block that `get` cut off.
    pub(super) fn check(block: &[u8]) -> Result<Block<'_>, MetadataError> {
        let mut input = block;
        let count = varint::get(&mut input).map_err(|_| MetadataError::Framing)?;
        if count > MAX_METADATA_ENTRIES as u64 {
            return Err(MetadataError::TooMany { count });
        }
        let mut iter = Iter { rest: input };
        for _ in 0..count {
            let (key, _) = iter.next_raw().ok_or(MetadataError::Framing)?;
            if !valid_key(key) {
                return Err(MetadataError::Key);
            }
        }
        match iter.rest.is_empty() {
            true => Ok(Block {
                count,
                entries: input,
            }),
            false => Err(MetadataError::Framing),
        }
    }
}

impl<'a> IntoIterator for &'a Metadata {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Metadata that was checked, still in the bytes in which it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block<'a> {
    count: u64,
    entries: &'a [u8],
}

impl<'a> Block<'a> {
    /// No entries.
    pub const fn empty() -> Block<'a> {
        Block {
            count: 0,
            entries: &[],
        }
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries in their order.
    pub fn iter(&self) -> Iter<'a> {
        Iter { rest: self.entries }
    }

    /// An owned copy.
    pub fn to_owned(&self) -> Metadata {
        Metadata {
            count: self.count,
            entries: Bytes::copy_from_slice(self.entries),
        }
    }
}

impl Metadata {
    /// Lends it for encoding.
    pub fn as_block(&self) -> Block<'_> {
        Block {
            count: self.count,
            entries: &self.entries,
        }
    }
}

impl Block<'_> {
    pub(super) fn encode(&self, out: &mut impl BufMut) {
        varint::put(out, (varint::len(self.count) + self.entries.len()) as u64);
        varint::put(out, self.count);
        out.put_slice(self.entries);
    }
}

/// What is there of a block.
pub(super) enum Cut {
    Whole,
    /// Its length is known to be over the limit, or it is malformed.
    Bad(MetadataError),
    Wire(WireError),
}

/// Cuts a block off the front of `input` and checks it. The length is judged before the bytes are there.
pub(super) fn take_block<'a>(input: &mut &'a [u8], block: &mut Block<'a>) -> Cut {
    let len = match varint::field(input, "metadata") {
        Ok(len) => len,
        Err(error) => return Cut::Wire(error),
    };
    if len > MAX_METADATA as u64 {
        return Cut::Bad(MetadataError::TooLarge { len });
    }
    match varint::take(input, len, "metadata") {
        Ok(bytes) => match Metadata::check(bytes) {
            Ok(checked) => {
                *block = checked;
                Cut::Whole
            }
            Err(error) => Cut::Bad(error),
        },
        Err(error) => Cut::Wire(error),
    }
}

/// Iterates over entries.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iter<'a> {
    fn next_raw(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (&len, rest) = self.rest.split_first()?;
        let (key, mut rest) = rest.split_at_checked(usize::from(len))?;
        let len = varint::get(&mut rest).ok()?;
        let value = varint::take(&mut rest, len, "value").ok()?;
        self.rest = rest;
        Some((key, value))
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.next_raw()?;
        Some((std::str::from_utf8(key).ok()?, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(metadata: &Metadata) -> Vec<u8> {
        let mut out = Vec::new();
        metadata.encode(&mut out);
        out
    }

    fn back(mut bytes: &[u8]) -> Result<Metadata, Option<MetadataError>> {
        let mut block = Block::default();
        match take_block(&mut bytes, &mut block) {
            Cut::Whole => Ok(block.to_owned()),
            Cut::Bad(error) => Err(Some(error)),
            Cut::Wire(_) => Err(None),
        }
    }

    #[test]
    fn round_trip() {
        let entries: [(&str, &[u8]); 3] = [("user", b"ann"), ("bin", b"\0\xff\r\n"), ("user", b"")];
        let metadata = Metadata::from_entries(entries).unwrap();
        assert_eq!(metadata.iter().collect::<Vec<_>>(), entries);
        assert_eq!((metadata.len(), metadata.value("user")), (3, Some(&b"ann"[..])));
        assert_eq!(back(&wire(&metadata)), Ok(metadata));
        assert_eq!(back(&wire(&Metadata::new())), Ok(Metadata::new()));
    }

    #[test]
    fn limits_hold_before_the_bytes_are_there() {
        assert_eq!(
            back(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Err(Some(MetadataError::TooLarge { len: u64::MAX }))
        );
        assert_eq!(
            back(&[3, 0x80, 0x81, 0]),
            Err(Some(MetadataError::TooMany { count: 129 }))
        );
        let big = vec![0; MAX_METADATA + 1];
        assert!(matches!(
            Metadata::from_entries([("k", &big[..])]),
            Err(MetadataError::TooLarge { .. })
        ));
        let many = vec![("k", &b""[..]); 129];
        assert_eq!(
            Metadata::from_entries(many),
            Err(MetadataError::TooMany { count: 129 })
        );
    }

    #[test]
    fn bad_keys_and_framing() {
        for key in ["", "Upper", "line\nbreak", "sp ace", &"k".repeat(65)] {
            assert_eq!(
                Metadata::from_entries([(key, &b""[..])]),
                Err(MetadataError::Key),
                "{key:?}"
            );
        }
        for bytes in [
            &b"\x01\x01"[..],
            b"\x00",
            b"\x04\x01\x01k\x05",
            b"\x05\x01\x01k\x00\x00",
            b"\x02\x00\x00",
        ] {
            assert_eq!(back(bytes), Err(Some(MetadataError::Framing)), "{bytes:?}");
        }
        assert_eq!(back(b"\x04\x01\x01K\x00"), Err(Some(MetadataError::Key)));
    }

    #[test]
    fn any_bytes_are_taken_or_refused() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(metadata) = back(bytes) {
                let again = wire(&metadata);
                assert_eq!(&again[..], &bytes[..again.len()]);
                assert_eq!(metadata.iter().count(), metadata.len());
            }
        });
    }
}
