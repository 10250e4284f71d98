//! Receiving one file over one stream.

use super::name::FileName;
use super::receive_file::{Incoming, Job, Trouble, Verdict};
use super::store::{Store, refusal, superseded_refusal};
use super::wire::{Offer, Reason, Refusal, Reply, WireError};
use super::{CHUNK_BYTES, CHUNKS_AHEAD, Sha256};
use bytes::{BufMut, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A read buffer with less room than this is replaced.
const LEAST_ROOM_BYTES: usize = 16 * 1024;

/// A file that is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its name.
    pub name: FileName,
    /// Its size in bytes.
    pub size: u64,
    /// How many of them were held when this stream began.
    pub resumed_at: u64,
    /// Whether it was there already, finished and the same.
    pub unchanged: bool,
    /// Its content.
    pub sha256: Sha256,
}

/// Why no file is in place. The sender has been told, unless the stream broke.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The stream broke before the end; so many bytes of the file are kept to go on from.
    #[error("the stream broke after {held} bytes: {source}")]
    Broken {
        /// Bytes on disk; 0 if the file was not opened yet.
        held: u64,
        /// How it broke.
        source: WireError,
    },
    /// The transfer was refused.
    #[error("refused: {}{}", .0.message, .1.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default())]
    Refused(Refusal, #[source] Option<io::Error>),
    /// The bytes that came are not those of the sender; they are forgotten.
    #[error("the received bytes have SHA-256 {0}, which is not the sender's")]
    Mismatch(Sha256),
}

impl From<Trouble> for ReceiveError {
    fn from(trouble: Trouble) -> Self {
        ReceiveError::Refused(trouble.refusal, trouble.cause)
    }
}

/// Serves one transfer on the two halves of a stream, from the offer to the verdict, and ends the stream.
/// `progress` is told the name, how many bytes have come, and how many there are.
///
/// # Errors
/// Whatever kept the file from being stored. Nothing of a hostile sender's making does harm elsewhere.
pub async fn receive<R, W>(
    store: &Store,
    reader: &mut R,
    writer: &mut W,
    progress: impl FnMut(&FileName, u64, u64),
) -> Result<Received, ReceiveError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let outcome = take(store, reader, writer, progress).await;
    let reply = match &outcome {
        Ok(received) => Reply::Stored(received.sha256),
        Err(ReceiveError::Mismatch(sha)) => Reply::Mismatch(*sha),
        Err(ReceiveError::Refused(refusal, _)) => Reply::Refused(refusal.clone()),
        Err(ReceiveError::Broken { .. }) => return outcome,
    };
    let told = async {
        writer.write_all(&reply.encode()).await?;
        writer.shutdown().await
    };
    // A file that is in place is in place, whether its sender hears of it or asks again.
    let _ = told.await;
    outcome
}

async fn take<R, W>(
    store: &Store,
    reader: &mut R,
    writer: &mut W,
    mut progress: impl FnMut(&FileName, u64, u64),
) -> Result<Received, ReceiveError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let offer = patient(store, async { Ok(Offer::read(reader).await) }).await;
    let offer = offer
        .unwrap_or_else(|error| Err(error.into()))
        .map_err(offer_error)?;
    let (name, size) = (offer.name.clone(), offer.size);
    let claim = store.claim(&name, offer.id).await.map_err(Trouble::from)?;
    let mut superseded = claim.superseded();
    let incoming = blocking(move || Incoming::open(claim, offer)).await?;
    let (resumed_at, unchanged) = (incoming.have(), incoming.finished());
    let broken = |held, source| ReceiveError::Broken { held, source };
    writer
        .write_all(&Reply::Have(resumed_at).encode())
        .await
        .map_err(|e| broken(resumed_at, e.into()))?;
    writer.flush().await.map_err(|e| broken(resumed_at, e.into()))?;

    let (jobs, inbox) = mpsc::channel(CHUNKS_AHEAD);
    let disk = tokio::task::spawn_blocking(move || incoming.run(inbox));
    let progress = |at| progress(&name, at, size);
    let pumped = tokio::select! {
        biased;
        () = superseded.wait() => Err(Stop::Superseded),
        pumped = pump(store, reader, &jobs, resumed_at, size, progress) => pumped,
    };
    drop(jobs);
    match (finished(disk).await?, pumped) {
        (Verdict::Stored(sha256), _) => Ok(Received {
            name,
            size,
            resumed_at,
            unchanged,
            sha256,
        }),
        (Verdict::Mismatch(ours), _) => Err(ReceiveError::Mismatch(ours)),
        (Verdict::Incomplete(_), Err(Stop::Superseded)) => Err(Trouble::from(superseded_refusal()).into()),
        (Verdict::Incomplete(held), Err(Stop::Stream(error))) => Err(broken(held, error.into())),
        // The disk's side ends by itself only with a verdict or in trouble.
        (Verdict::Incomplete(held), _) => {
            Err(broken(held, io::Error::from(io::ErrorKind::Interrupted).into()))
        }
    }
}

/// Why the bytes stopped coming.
enum Stop {
    Stream(io::Error),
    Superseded,
    /// The disk's side has ended; it says why.
    Disk,
}

/// Hands the bytes and the hash that follows them to the disk's side.
async fn pump<R: AsyncRead + Unpin>(
    store: &Store,
    reader: &mut R,
    jobs: &mpsc::Sender<Job>,
    mut position: u64,
    size: u64,
    mut progress: impl FnMut(u64),
) -> Result<(), Stop> {
    let mut buffer = BytesMut::new();
    progress(position);
    while position < size {
        if buffer.capacity() < LEAST_ROOM_BYTES {
            buffer.reserve(CHUNK_BYTES);
        }
        let room = usize::try_from(size - position)
            .unwrap_or(usize::MAX)
            .min(buffer.capacity());
        let mut chunk = (&mut buffer).limit(room);
        let read = patient(store, reader.read_buf(&mut chunk))
            .await
            .map_err(Stop::Stream)?;
        if read == 0 {
            return Err(Stop::Stream(io::ErrorKind::UnexpectedEof.into()));
        }
        jobs.send(Job::Data(buffer.split().freeze()))
            .await
            .map_err(|_| Stop::Disk)?;
        position += read as u64;
        progress(position);
    }
    let mut sha = [0; 32];
    patient(store, reader.read_exact(&mut sha))
        .await
        .map_err(Stop::Stream)?;
    jobs.send(Job::Commit(Sha256(sha))).await.map_err(|_| Stop::Disk)
}

/// `reading`, for no longer than a stream may be silent.
async fn patient<T>(store: &Store, reading: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing came for too long");
    tokio::time::timeout(store.limits().idle, reading)
        .await
        .map_err(silent)?
}

fn offer_error(error: WireError) -> ReceiveError {
    let reason = match error {
        WireError::Stream(_) => {
            return ReceiveError::Broken {
                held: 0,
                source: error,
            };
        }
        WireError::Name(_) => Reason::BadName,
        _ => Reason::BadOffer,
    };
    Trouble::from(refusal(reason, &error.to_string())).into()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    finished(tokio::task::spawn_blocking(work)).await
}

async fn finished<T>(thread: JoinHandle<Result<T, Trouble>>) -> Result<T, Trouble> {
    thread
        .await
        .map_err(|error| Trouble::from(io::Error::other(error)))?
}
