//! CRC32C (Castagnoli). PROTOCOL 3.2.

/// The checksum of `bytes`.
#[inline]
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The checksum of bytes that do not lie together.
pub(crate) struct Checksum(crc_fast::Digest);

impl Checksum {
    /// The checksum of nothing yet.
    pub(crate) fn new() -> Checksum {
        Checksum(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes added.
    pub(crate) fn finish(&self) -> u32 {
        // A CRC-32 stands in the low half of the digest's 64 bits.
        self.0.finalize() as u32
    }
}
