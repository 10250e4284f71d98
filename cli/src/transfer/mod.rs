//! Copying files over any byte stream that may break at any byte.
//!
//! A transfer is one bidirectional stream: the sender's *offer* (a name, a size, an id), the receiver's
//! answer with how many bytes of this transfer it holds on disk, the bytes from there on, the SHA-256 of
//! the whole file, and the receiver's verdict. A broken transfer is taken up by another stream with the same
//! id. See [`wire`] for the bytes.
//!
//! Neither side trusts the other: names are reduced to plain file names ([`name`]), everything has a limit
//! ([`store::Limits`]), and both compare the SHA-256 that they computed from what they read or wrote.

mod hashed;
pub mod name;
pub mod read;
pub mod receive;
mod receive_file;
pub mod send;
mod send_file;
pub mod store;
#[cfg(test)]
mod tests;
pub mod wire;

use std::fmt;

/// Bytes read, hashed or written at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks between the disk's thread and the network's task.
const CHUNKS_AHEAD: usize = 4;

/// Names a transfer: a file in one state. The same file in the same state gets the same id, so that another
/// run of the sender finds what an earlier one left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub [u8; 16]);

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
