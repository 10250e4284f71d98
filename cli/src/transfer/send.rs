//! Sending one file over one stream, and over the next one if that breaks.

use super::hashed::Hashed;
use super::name::{FileName, NameError};
use super::send_file;
use super::wire::{Offer, Reason, Refusal, Reply, WireError};
use super::{CHUNKS_AHEAD, Sha256, TransferId};
use bytes::Bytes;
use sha2::Digest;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long the receiver's reason is waited for once it takes no more bytes.
const REASON_PATIENCE: Duration = Duration::from_secs(10);

/// A file on its way. It survives the streams that it is sent over, and knows what it has hashed so far.
#[derive(Debug)]
pub struct Outgoing {
    path: PathBuf,
    file: Arc<File>,
    name: FileName,
    size: u64,
    id: TransferId,
    state: State,
    hashed: Hashed,
    /// Whether the receiver shall begin anew because what it held was wrong.
    fresh: bool,
    /// Whether that has happened before.
    mismatched: bool,
    /// What the receiver held when it was first asked.
    held_before: Option<u64>,
}

/// A file's state, as far as its metadata tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    size: u64,
    modified: (i64, i64),
}

/// A file that the receiver has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How many bytes the receiver held when the first stream of this run began.
    pub held_before: u64,
    /// How many bytes the receiver held when the last stream began.
    pub resumed_at: u64,
    /// The content, as both sides computed it.
    pub sha256: Sha256,
}

/// Why the receiver does not have it. The `Display` of each is a line for the user.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The stream broke or the receiver does not speak the protocol. On a stream that broke, try again.
    #[error("the transfer of {} broke: {source}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// How it broke.
        source: WireError,
    },
    /// The receiver does not want it.
    #[error("the server refuses {}: {}", path.display(), refusal_text(refusal))]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why not.
        refusal: Refusal,
    },
    /// What the receiver has is not what was read here.
    #[error("{} arrived with another SHA-256 than it was read with", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Whether that was the first time; the next attempt begins anew.
        again: bool,
    },
    /// The file was changed while it was read.
    #[error("{} was changed while it was being sent; send it again", _0.display())]
    Changed(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not a file.
    #[error("{} is not a regular file; name the files to send one by one", _0.display())]
    NotAFile(PathBuf),
    /// No receiver would take its name.
    #[error("cannot send {} under its name: {source}; rename it", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// Which rule it breaks.
        source: NameError,
    },
}

fn refusal_text(refusal: &Refusal) -> &str {
    if refusal.message.is_empty() {
        "it gives no reason"
    } else {
        &refusal.message
    }
}

impl SendError {
    /// Whether [`Outgoing::send`] over another stream may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            SendError::Broken { source, .. } => matches!(source, WireError::Stream(_)),
            SendError::Refused { refusal, .. } => refusal.reason == Reason::Busy,
            SendError::Mismatch { again, .. } => *again,
            _ => false,
        }
    }
}

impl Outgoing {
    /// Opens `path`, to be sent under its own name.
    ///
    /// # Errors
    /// `Local`, `NotAFile` or `Name`.
    pub async fn open(path: &Path) -> Result<Outgoing, SendError> {
        let path = path.to_owned();
        let at = path.clone();
        let opened = tokio::task::spawn_blocking(move || Outgoing::open_now(path)).await;
        opened.unwrap_or_else(|error| {
            Err(SendError::Local {
                path: at,
                source: io::Error::other(error),
            })
        })
    }

    fn open_now(path: PathBuf) -> Result<Outgoing, SendError> {
        let local = |source| SendError::Local {
            path: path.clone(),
            source,
        };
        // Opening a pipe without this would wait for its writer.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path)
            .map_err(local)?;
        let metadata = file.metadata().map_err(local)?;
        if !metadata.is_file() {
            return Err(SendError::NotAFile(path));
        }
        let Some(name) = path.file_name() else {
            return Err(SendError::NotAFile(path));
        };
        let name = match FileName::parse(name.as_bytes()) {
            Ok(name) => name,
            Err(source) => return Err(SendError::Name { path, source }),
        };
        let (id, state, hashed) = (
            transfer_id(&name, &metadata),
            State::of(&metadata),
            Hashed::default(),
        );
        Ok(Outgoing {
            path,
            file: Arc::new(file),
            name,
            size: state.size,
            id,
            state,
            hashed,
            fresh: false,
            held_before: None,
            mismatched: false,
        })
    }

    /// The name it is sent under.
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its transfer's id.
    pub fn id(&self) -> TransferId {
        self.id
    }

    /// Sends what the receiver lacks over the two halves of a stream, and waits for the verdict. `progress`
    /// is told how many bytes of the file have been handed to the stream or were held already.
    ///
    /// # Errors
    /// See [`SendError::is_retryable`] for whether to call this again with another stream.
    pub async fn send<R, W>(
        &mut self,
        reader: &mut R,
        writer: &mut W,
        mut progress: impl FnMut(u64),
    ) -> Result<Sent, SendError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let offer = Offer {
            name: self.name.clone(),
            size: self.size,
            id: self.id,
            fresh: self.fresh,
        };
        writer
            .write_all(&offer.encode())
            .await
            .map_err(|error| self.broken(error))?;
        writer.flush().await.map_err(|error| self.broken(error))?;
        let resumed_at = match Reply::read(reader).await {
            Ok(Reply::Have(position)) if position <= self.size => position,
            Ok(Reply::Have(position)) => return Err(self.broken(WireError::Length(position as usize))),
            Ok(Reply::Refused(refusal)) => return Err(self.refused(refusal)),
            Ok(Reply::Stored(_) | Reply::Mismatch(_)) => return Err(self.broken(WireError::Kind(2))),
            Err(error) => return Err(self.broken(error)),
        };
        self.fresh = false;
        self.held_before.get_or_insert(resumed_at);
        progress(resumed_at);
        let mut disk = Disk::start(self, resumed_at);
        let verdict = Reply::read(reader);
        tokio::pin!(verdict);
        let early = {
            let sending = push(&mut disk, writer, resumed_at, progress);
            tokio::select! {
                biased;
                early = &mut verdict => Some(early),
                sent = sending => match sent {
                    Ok(()) => None,
                    // The receiver takes no more; it may have said why.
                    Err(Stop::Stream(error)) => {
                        let reason = tokio::time::timeout(REASON_PATIENCE, &mut verdict).await;
                        Some(match reason {
                            Ok(Ok(Reply::Refused(refusal))) => Ok(Reply::Refused(refusal)),
                            _ => Err(error.into()),
                        })
                    }
                    Err(Stop::Disk) => None,
                },
            }
        };
        let (whole, read) = disk.finish(self).await;
        if read
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
        {
            return Err(SendError::Changed(self.path.clone()));
        }
        read.map_err(|source| SendError::Local {
            path: self.path.clone(),
            source,
        })?;
        let verdict = match early {
            Some(verdict) => verdict,
            None if !whole => return Err(SendError::Changed(self.path.clone())),
            None => verdict.await,
        };
        self.judge(verdict, resumed_at)
    }

    fn judge(&mut self, verdict: Result<Reply, WireError>, resumed_at: u64) -> Result<Sent, SendError> {
        let ours = self.hashed.finish();
        match verdict {
            Ok(Reply::Stored(theirs)) if theirs == ours => Ok(Sent {
                held_before: self.held_before.unwrap_or(resumed_at),
                resumed_at,
                sha256: ours,
            }),
            Ok(Reply::Stored(_) | Reply::Mismatch(_)) => {
                // The receiver has forgotten what it held; what was hashed here is not to be trusted either.
                let again = !self.mismatched;
                (self.fresh, self.mismatched) = (true, true);
                self.held_before = None;
                self.hashed = Hashed::default();
                Err(SendError::Mismatch {
                    path: self.path.clone(),
                    again,
                })
            }
            Ok(Reply::Refused(refusal)) => Err(self.refused(refusal)),
            Ok(Reply::Have(_)) => Err(self.broken(WireError::Kind(1))),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: impl Into<WireError>) -> SendError {
        SendError::Broken {
            path: self.path.clone(),
            source: error.into(),
        }
    }

    fn refused(&self, refusal: Refusal) -> SendError {
        SendError::Refused {
            path: self.path.clone(),
            refusal,
        }
    }
}

/// What keeps bytes from being sent.
enum Stop {
    Stream(io::Error),
    /// The file could not be read to its end, or has changed.
    Disk,
}

/// What the disk's thread ends with.
struct Read {
    hashed: Hashed,
    outcome: io::Result<()>,
    /// Whether the file is still as it was when it was opened.
    unchanged: bool,
}

/// The thread that reads the file, as seen from the network's side.
struct Disk {
    chunks: mpsc::Receiver<Bytes>,
    thread: JoinHandle<Read>,
    read: Option<Read>,
}

impl Disk {
    fn start(outgoing: &mut Outgoing, from: u64) -> Disk {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let (file, size, state) = (outgoing.file.clone(), outgoing.size, outgoing.state);
        let mut hashed = std::mem::take(&mut outgoing.hashed);
        let thread = tokio::task::spawn_blocking(move || {
            let outcome = send_file::read(&file, from, size, &mut hashed, &sender);
            let unchanged = file
                .metadata()
                .is_ok_and(|metadata| State::of(&metadata) == state);
            Read {
                hashed,
                outcome,
                unchanged,
            }
        });
        Disk {
            chunks,
            thread,
            read: None,
        }
    }

    /// The hash of the whole file, once all of it was taken from `chunks`.
    async fn whole(&mut self) -> Result<Sha256, Stop> {
        let read = self.joined().await;
        let whole = read.outcome.is_ok() && read.unchanged;
        if whole {
            Ok(read.hashed.finish())
        } else {
            Err(Stop::Disk)
        }
    }

    async fn joined(&mut self) -> &Read {
        if self.read.is_none() {
            let failed = |error| Read {
                hashed: Hashed::default(),
                outcome: Err(io::Error::other(error)),
                unchanged: false,
            };
            self.read = Some((&mut self.thread).await.unwrap_or_else(failed));
        }
        self.read.as_ref().expect("set above")
    }

    /// Ends the thread and gives the hash back. Returns whether the file is unchanged, and how reading went.
    async fn finish(mut self, outgoing: &mut Outgoing) -> (bool, io::Result<()>) {
        self.chunks.close();
        self.joined().await;
        match self.read {
            Some(read) => {
                outgoing.hashed = read.hashed;
                (read.unchanged, read.outcome)
            }
            None => (false, Ok(())),
        }
    }
}

/// Writes what the disk's thread reads, then the hash of the whole.
async fn push<W: AsyncWrite + Unpin>(
    disk: &mut Disk,
    writer: &mut W,
    mut position: u64,
    mut progress: impl FnMut(u64),
) -> Result<(), Stop> {
    while let Some(chunk) = disk.chunks.recv().await {
        writer.write_all(&chunk).await.map_err(Stop::Stream)?;
        position += chunk.len() as u64;
        progress(position);
    }
    let sha = disk.whole().await?;
    writer.write_all(&sha.0).await.map_err(Stop::Stream)?;
    writer.shutdown().await.map_err(Stop::Stream)
}

impl State {
    fn of(metadata: &Metadata) -> State {
        State {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// From the file's name and state, and from which file it is on this machine.
fn transfer_id(name: &FileName, metadata: &Metadata) -> TransferId {
    let mut hasher = sha2::Sha256::new();
    hasher.update(b"sheetbend transfer 1\0");
    for number in [metadata.len(), metadata.dev(), metadata.ino()] {
        hasher.update(number.to_be_bytes());
    }
    for number in [metadata.mtime(), metadata.mtime_nsec()] {
        hasher.update(number.to_be_bytes());
    }
    hasher.update(name.as_str());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    TransferId(id)
}
