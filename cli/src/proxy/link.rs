//! One direction of one connection: reads, holds for as long as the delay says, writes.

use super::socket::Socket;
use super::{Direction, Faults, Shared};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// How much is read at once.
const READ_BYTES: usize = 128 * 1024;

/// A read buffer with less room than this is replaced.
const LEAST_ROOM_BYTES: usize = 16 * 1024;

/// How many bytes wait in a direction without a delay: one read, so that pressure passes through.
const DIRECT_BYTES: usize = READ_BYTES;

/// How many bytes are under way at most in a direction with a delay: 160 ms at 100 MB/s.
pub(super) const DELAYED_BYTES: usize = 16 * 1024 * 1024;

/// A piece of the stream, or its end if it is empty.
struct Chunk {
    due: Option<Instant>,
    data: Bytes,
}

/// What has been read and not yet been written.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    pushed: Notify,
    popped: Notify,
}

#[derive(Default)]
struct QueueState {
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks` and in the hands of the writer.
    bytes: usize,
}

impl Queue {
    fn with<T>(&self, change: impl FnOnce(&mut QueueState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, chunk: Chunk) {
        self.with(|state| {
            state.bytes += chunk.data.len();
            state.chunks.push_back(chunk);
        });
        self.pushed.notify_one();
    }

    async fn pop(&self) -> Chunk {
        loop {
            if let Some(chunk) = self.with(|state| state.chunks.pop_front()) {
                return chunk;
            }
            self.pushed.notified().await;
        }
    }

    fn wrote(&self, bytes: usize) {
        self.with(|state| state.bytes -= bytes);
        self.popped.notify_one();
    }

    /// Waits until fewer than the bytes that the delay allows are waiting.
    async fn room(&self, faults: &mut watch::Receiver<Faults>) {
        loop {
            let limit = if faults.borrow_and_update().delay.is_zero() {
                DIRECT_BYTES
            } else {
                DELAYED_BYTES
            };
            if self.with(|state| state.bytes) < limit {
                return;
            }
            tokio::select! {
                () = self.popped.notified() => {}
                _ = faults.changed() => {}
            }
        }
    }
}

/// Forwards `source` to `sink` up to and including its end.
///
/// # Errors
/// Those of the sockets; the connection is then to be reset.
pub(super) async fn forward(
    shared: &Shared,
    direction: Direction,
    source: &Socket,
    sink: &Socket,
) -> io::Result<()> {
    let queue = Queue::default();
    tokio::try_join!(
        read(shared, direction, source, &queue),
        write(shared, direction, sink, &queue)
    )?;
    Ok(())
}

async fn read(shared: &Shared, direction: Direction, source: &Socket, queue: &Queue) -> io::Result<()> {
    let mut faults = shared.faults.subscribe();
    let mut buffer = BytesMut::new();
    loop {
        queue.room(&mut faults).await;
        // A stall may begin while this waits for bytes: ask again when there are some.
        source.readable().await?;
        flowing(&mut faults, direction).await;
        if buffer.capacity() - buffer.len() < LEAST_ROOM_BYTES {
            buffer.reserve(READ_BYTES);
        }
        match source.try_read(&mut buffer) {
            Ok(_) => {
                let delay = faults.borrow().delay;
                let due = (!delay.is_zero()).then(|| Instant::now() + delay);
                let data = buffer.split().freeze();
                let end = data.is_empty();
                queue.push(Chunk { due, data });
                if end {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write(shared: &Shared, direction: Direction, sink: &Socket, queue: &Queue) -> io::Result<()> {
    let mut faults = shared.faults.subscribe();
    loop {
        let Chunk { due, mut data } = queue.pop().await;
        if let Some(due) = due {
            sleep_until(due).await;
        }
        flowing(&mut faults, direction).await;
        if data.is_empty() {
            sink.finish();
            return Ok(());
        }
        let bytes = data.len();
        while !data.is_empty() {
            let granted = shared.buckets[direction as usize]
                .take(data.len(), &mut faults)
                .await;
            write_all(shared, direction, sink, &mut faults, data.split_to(granted)).await?;
        }
        queue.wrote(bytes);
    }
}

async fn write_all(
    shared: &Shared,
    direction: Direction,
    sink: &Socket,
    faults: &mut watch::Receiver<Faults>,
    mut piece: Bytes,
) -> io::Result<()> {
    while !piece.is_empty() {
        flowing(faults, direction).await;
        match sink.try_write(&piece) {
            Ok(written) => {
                piece.advance(written);
                shared.forwarded(direction, written);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sink.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits while `direction` is stalled.
async fn flowing(faults: &mut watch::Receiver<Faults>, direction: Direction) {
    // The sender lives in the state that every connection holds.
    let _ = faults.wait_for(|faults| !faults.stalls(direction)).await;
}
