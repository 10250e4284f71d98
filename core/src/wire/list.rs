//! The lists that frames carry: addresses and receive counts. PROTOCOL 4.7.

use std::fmt;

use bytes::BufMut;

use super::error::WireError;
use super::varint::{self, field, take};

/// Most addresses in one ADVERTISE. `PROTOCOL 10`.
pub const MAX_ADDRESSES: usize = 16;
/// The longest address, in bytes. `PROTOCOL 10`.
pub const MAX_ADDRESS: usize = 256;
/// Most counts in one PATH_ABANDON, ACK_LANES or ACK_DATAGRAMS. `PROTOCOL 10`.
pub const MAX_LANE_COUNTS: usize = 64;

/// How many records of a lane were received in order. `PROTOCOL 3.4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneCount {
    /// The lane of the path in question.
    pub lane: u64,
    /// Records received in order, the path's first included.
    pub count: u64,
}

/// A list that is either still as it came, checked, or given by the caller.
#[derive(Clone, Copy)]
enum List<'a, T> {
    Wire { count: usize, bytes: &'a [u8] },
    Given(&'a [T]),
}

/// The addresses of an ADVERTISE frame: at most [`MAX_ADDRESSES`] of at most [`MAX_ADDRESS`] bytes.
#[derive(Clone, Copy)]
pub struct Addresses<'a>(List<'a, &'a str>);

impl<'a> Addresses<'a> {
    /// A list to send.
    ///
    /// # Errors
    /// [`WireError::TooMany`] and [`WireError::TooLong`].
    pub fn new(addresses: &'a [&'a str]) -> Result<Addresses<'a>, WireError> {
        check_count(addresses.len() as u64, MAX_ADDRESSES, "addresses")?;
        for address in addresses {
            check_len(address.len() as u64, MAX_ADDRESS, "address")?;
        }
        Ok(Addresses(List::Given(addresses)))
    }

    pub(crate) fn decode(input: &mut &'a [u8]) -> Result<Addresses<'a>, WireError> {
        let count = check_count(field(input, "address count")?, MAX_ADDRESSES, "addresses")?;
        let bytes = *input;
        for _ in 0..count {
            text(input, MAX_ADDRESS, "address")?;
        }
        Ok(Addresses(List::Wire {
            count,
            bytes: consumed(bytes, input),
        }))
    }

    /// How many addresses there are.
    pub fn len(&self) -> usize {
        match self.0 {
            List::Wire { count, .. } => count,
            List::Given(list) => list.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The addresses, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (mut bytes, given) = match self.0 {
            List::Wire { bytes, .. } => (bytes, &[][..]),
            List::Given(list) => (&[][..], list),
        };
        let wire = std::iter::from_fn(move || text(&mut bytes, MAX_ADDRESS, "address").ok());
        wire.chain(given.iter().copied())
    }

    pub(crate) fn encoded_len(&self) -> usize {
        let list: usize = match self.0 {
            List::Wire { bytes, .. } => bytes.len(),
            List::Given(list) => list.iter().map(|a| varint::len(a.len() as u64) + a.len()).sum(),
        };
        varint::len(self.len() as u64) + list
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        varint::put(out, self.len() as u64);
        match self.0 {
            List::Wire { bytes, .. } => out.put_slice(bytes),
            List::Given(list) => list.iter().for_each(|address| put_text(out, address)),
        }
    }
}

impl PartialEq for Addresses<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Addresses<'_> {}

impl fmt::Debug for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The counts of a PATH_ABANDON or ACK_LANES frame, or the runs of an ACK_DATAGRAMS frame: at most [`MAX_LANE_COUNTS`].
#[derive(Clone, Copy)]
pub struct Counts<'a>(List<'a, LaneCount>);

impl<'a> Counts<'a> {
    /// A list to send. What it leaves out, the peer sends again.
    ///
    /// # Errors
    /// [`WireError::TooMany`].
    pub fn new(counts: &'a [LaneCount]) -> Result<Counts<'a>, WireError> {
        check_count(counts.len() as u64, MAX_LANE_COUNTS, "lane counts")?;
        Ok(Counts(List::Given(counts)))
    }

    pub(crate) fn decode(input: &mut &'a [u8]) -> Result<Counts<'a>, WireError> {
        let count = check_count(
            field(input, "lane count list length")?,
            MAX_LANE_COUNTS,
            "lane counts",
        )?;
        let bytes = *input;
        for _ in 0..count {
            lane_count(input)?;
        }
        Ok(Counts(List::Wire {
            count,
            bytes: consumed(bytes, input),
        }))
    }

    /// How many counts there are.
    pub fn len(&self) -> usize {
        match self.0 {
            List::Wire { count, .. } => count,
            List::Given(list) => list.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counts, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = LaneCount> + use<'a> {
        let (mut bytes, given) = match self.0 {
            List::Wire { bytes, .. } => (bytes, &[][..]),
            List::Given(list) => (&[][..], list),
        };
        let wire = std::iter::from_fn(move || lane_count(&mut bytes).ok());
        wire.chain(given.iter().copied())
    }

    pub(crate) fn encoded_len(&self) -> usize {
        let list: usize = match self.0 {
            List::Wire { bytes, .. } => bytes.len(),
            List::Given(list) => list
                .iter()
                .map(|c| varint::len(c.lane) + varint::len(c.count))
                .sum(),
        };
        varint::len(self.len() as u64) + list
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        varint::put(out, self.len() as u64);
        match self.0 {
            List::Wire { bytes, .. } => out.put_slice(bytes),
            List::Given(list) => {
                for LaneCount { lane, count } in list {
                    varint::put(out, *lane);
                    varint::put(out, *count);
                }
            }
        }
    }
}

impl PartialEq for Counts<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Counts<'_> {}

impl fmt::Debug for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn lane_count(input: &mut &[u8]) -> Result<LaneCount, WireError> {
    Ok(LaneCount {
        lane: field(input, "lane")?,
        count: field(input, "count")?,
    })
}

/// The part of `all` that is no longer in `rest`, its tail.
fn consumed<'a>(all: &'a [u8], rest: &[u8]) -> &'a [u8] {
    all.len()
        .checked_sub(rest.len())
        .and_then(|len| all.get(..len))
        .unwrap_or_default()
}

fn check_count(count: u64, max: usize, what: &'static str) -> Result<usize, WireError> {
    match usize::try_from(count) {
        Ok(count) if count <= max => Ok(count),
        _ => Err(WireError::TooMany { what, count, max }),
    }
}

fn check_len(len: u64, max: usize, what: &'static str) -> Result<(), WireError> {
    if len > max as u64 {
        Err(WireError::TooLong { what, len, max })
    } else {
        Ok(())
    }
}

/// Takes a length and a UTF-8 text of at most `max` bytes.
pub(crate) fn text<'a>(input: &mut &'a [u8], max: usize, what: &'static str) -> Result<&'a str, WireError> {
    let len = field(input, what)?;
    check_len(len, max, what)?;
    let bytes = take(input, len, what)?;
    std::str::from_utf8(bytes).map_err(|error| WireError::NotUtf8 {
        what,
        at: error.valid_up_to(),
    })
}

/// Appends the length of `text` and `text`.
pub(crate) fn put_text(out: &mut impl BufMut, text: &str) {
    varint::put(out, text.len() as u64);
    out.put_slice(text.as_bytes());
}
