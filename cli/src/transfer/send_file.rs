//! The disk's side of sending: runs on a thread that may block.

use super::CHUNK_BYTES;
use super::hashed::Hashed;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use tokio::sync::mpsc;

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
    hashed.catch_up(file, from, || !chunks.is_closed())?;
    let mut position = from;
    while position < size && !chunks.is_closed() {
        let mut data = vec![
            0;
            usize::try_from(size - position)
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES)
        ];
        file.read_exact_at(&mut data, position)?;
        hashed.take(position, &data);
        position += data.len() as u64;
        if chunks.blocking_send(data.into()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
