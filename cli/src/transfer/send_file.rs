//! The disk's side of sending: runs on a thread that may block.

use super::{CHUNK_BYTES, Sha256};
use bytes::Bytes;
use sha2::Digest;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use tokio::sync::mpsc;

/// The hash of a file's first bytes. It only ever goes on: what is sent a second time is not hashed again,
/// and if it has changed meanwhile, the receiver's hash will differ.
#[derive(Debug, Clone, Default)]
pub(super) struct Hashed {
    hasher: sha2::Sha256,
    to: u64,
}

impl Hashed {
    pub(super) fn finish(&self) -> Sha256 {
        Sha256(self.hasher.clone().finalize().into())
    }

    /// `data` stands at `position`, at most where this hash ends.
    fn take(&mut self, position: u64, data: &[u8]) {
        let known = usize::try_from(self.to - position)
            .unwrap_or(usize::MAX)
            .min(data.len());
        self.hasher.update(&data[known..]);
        self.to += (data.len() - known) as u64;
    }
}

/// Reads `file` from `from` up to `size`, hashes it, and hands it on until nobody takes it any more.
///
/// # Errors
/// Those of reading; `UnexpectedEof` if the file has become shorter.
pub(super) fn read(
    file: &File,
    from: u64,
    size: u64,
    hashed: &mut Hashed,
    chunks: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut position = hashed.to.min(from);
    while position < size {
        if chunks.is_closed() {
            return Ok(());
        }
        // Up to `from` it is read for its hash alone.
        let end = if position < from { from } else { size };
        let mut data = vec![
            0;
            usize::try_from(end - position)
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES)
        ];
        file.read_exact_at(&mut data, position)?;
        hashed.take(position, &data);
        let here = position;
        position += data.len() as u64;
        if here >= from && chunks.blocking_send(data.into()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
