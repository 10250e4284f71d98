//! LZ4 blocks in records. PROTOCOL 3.3.

use lz4_flex::block;

use super::error::WireError;
use super::varint;

/// The working memory of LZ4 compression: a hash table and two buffers of at most one record each.
///
/// One serves any number of paths and sessions in turn. A new one holds no buffers yet.
pub struct Compressor {
    table: block::CompressTable,
    gathered: Vec<u8>,
    output: Vec<u8>,
}

impl Compressor {
    /// A compressor that has compressed nothing.
    pub fn new() -> Compressor {
        Compressor {
            table: block::CompressTable::small(),
            gathered: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Compresses what `parts` holds (`len` bytes in all) into claim and block, or returns `None`
    /// when that would not be shorter.
    pub(crate) fn compress<'p>(
        &mut self,
        len: usize,
        first: &'p [u8],
        rest: impl Iterator<Item = &'p [u8]>,
    ) -> Option<&[u8]> {
        let input = if first.len() == len {
            first
        } else {
            self.gathered.clear();
            self.gathered.extend_from_slice(first);
            rest.for_each(|part| self.gathered.extend_from_slice(part));
            &self.gathered
        };
        let needed = varint::MAX_LEN + block::get_maximum_output_size(len);
        if self.output.len() < needed {
            self.output.resize(needed, 0);
        }
        let (claim, claim_len) = varint::array(len as u64);
        self.output
            .get_mut(..claim_len)?
            .copy_from_slice(claim.get(..claim_len)?);
        let room = self.output.get_mut(claim_len..)?;
        let block_len = block::compress_into_with_table(input, room, &mut self.table).ok()?;
        self.output
            .get(..claim_len + block_len)
            .filter(|output| output.len() < len)
    }
}

impl Default for Compressor {
    fn default() -> Compressor {
        Compressor::new()
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// Decompresses a record's body of claim and block into `scratch`, which never grows beyond `max_body`.
pub(crate) fn decompress<'s>(
    mut body: &[u8],
    max_body: usize,
    scratch: &'s mut Vec<u8>,
) -> Result<&'s [u8], WireError> {
    let claimed = varint::field(&mut body, "uncompressed length")?;
    // PROTOCOL 3.3: the claim is judged before any memory is taken for it.
    let claimed = match usize::try_from(claimed) {
        Ok(0) => return Err(WireError::RecordEmpty { len: 0 }),
        Ok(len) if len <= max_body => len,
        _ => {
            return Err(WireError::Lz4Claim {
                claimed,
                max: max_body,
            });
        }
    };
    if scratch.len() < claimed {
        scratch.resize(claimed, 0);
    }
    let malformed = WireError::Lz4Block {
        len: body.len(),
        claimed,
    };
    let room = scratch.get_mut(..claimed).ok_or(malformed)?;
    let actual = block::decompress_into(body, room).map_err(|_| malformed)?;
    if actual != claimed {
        return Err(WireError::Lz4Length { claimed, actual });
    }
    Ok(room)
}
