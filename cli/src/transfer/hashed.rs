//! The SHA-256 of a file's first bytes, which goes on as more of them pass.

use super::{CHUNK_BYTES, Sha256};
use sha2::Digest;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The hash of a file's first bytes. It only ever goes on: bytes that pass a second time are not hashed
/// again. If they have changed meanwhile, the other side's hash will differ.
#[derive(Debug, Clone, Default)]
pub(super) struct Hashed {
    hasher: sha2::Sha256,
    to: u64,
}

impl Hashed {
    /// How many bytes are hashed.
    pub(super) fn to(&self) -> u64 {
        self.to
    }

    /// The hash so far.
    pub(super) fn finish(&self) -> Sha256 {
        Sha256(self.hasher.clone().finalize().into())
    }

    /// `data` stands at `position`, which is at most where this hash ends.
    pub(super) fn take(&mut self, position: u64, data: &[u8]) {
        let known = usize::try_from(self.to - position)
            .unwrap_or(usize::MAX)
            .min(data.len());
        self.hasher.update(&data[known..]);
        self.to += (data.len() - known) as u64;
    }

    /// Reads what is missing of the first `end` bytes of `file`. Stops early, without an error, when
    /// `go_on` says so.
    pub(super) fn catch_up(&mut self, file: &File, end: u64, go_on: impl Fn() -> bool) -> io::Result<()> {
        if self.to >= end {
            return Ok(());
        }
        let mut buffer = vec![0; CHUNK_BYTES];
        while self.to < end && go_on() {
            let wanted = usize::try_from(end - self.to)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            file.read_exact_at(&mut buffer[..wanted], self.to)?;
            self.take(self.to, &buffer[..wanted]);
        }
        Ok(())
    }
}
