//! Buffers that busy sessions share, so that idle ones hold none.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{MutexGuard, PoisonError};
use std::thread::LocalKey;

use bytes::{Buf, Bytes, BytesMut};
use sheetbend_core::wire::OutBuffer;
use smallvec::SmallVec;

use crate::calls::Batch;

/// Bytes of a block that sockets are read into.
pub(crate) const BLOCK: usize = 128 * 1024;
/// How many of each are kept for the next who needs one.
const KEPT: usize = 16;
/// How many blocks are watched for the end of the slices that others hold of them. To give them up
/// would mean a fresh allocation, and its page faults, for every block of a fast stream.
const WATCHED: usize = 32;
/// How many of the watched are looked at for one block.
const LOOKS: usize = 4;

static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks {
    free: Vec::new(),
    watched: VecDeque::new(),
});
static BATCHES: Mutex<Vec<Batch>> = Mutex::new(Vec::new());
static OUTPUTS: Mutex<Vec<OutBuffer>> = Mutex::new(Vec::new());

thread_local! {
    // What this thread gave back last, and takes next: without a lock, and from this core's cache.
    static OWN_BLOCK: Cell<Option<BytesMut>> = const { Cell::new(None) };
    static OWN_BATCH: Cell<Option<Batch>> = const { Cell::new(None) };
    static OWN_OUTPUT: Cell<Option<OutBuffer>> = const { Cell::new(None) };
    // Over some transports a session's output goes through another's buffer.
    static OTHER_OUTPUT: Cell<Option<OutBuffer>> = const { Cell::new(None) };
}

/// What this thread kept.
fn take_own<T>(own: &'static LocalKey<Cell<Option<T>>>) -> Option<T> {
    // A thread that ends keeps nothing.
    own.try_with(Cell::take).ok().flatten()
}

/// Keeps it for this thread; gives what was kept before.
fn keep_own<T>(own: &'static LocalKey<Cell<Option<T>>>, kept: T) -> Option<T> {
    own.try_with(|own| own.replace(Some(kept))).ok().flatten()
}

struct Blocks {
    free: Vec<BytesMut>,
    watched: VecDeque<BytesMut>,
}

impl Blocks {
    /// The block that was used last, as more of it is in the cache: a fast stream goes round in a few blocks,
    /// however many it once needed.
    fn take(&mut self) -> Option<BytesMut> {
        self.reclaim();
        self.free.pop()
    }

    /// Moves watched blocks that nobody else holds any more to the free ones.
    fn reclaim(&mut self) {
        for _ in 0..LOOKS.min(self.watched.len()) {
            let Some(mut block) = self.watched.pop_front() else {
                return;
            };
            if block.try_reclaim(BLOCK) {
                self.free.push(block);
            } else {
                self.watched.push_back(block);
            }
        }
    }

    /// Takes a block back; gives the one that is too many.
    fn give(&mut self, mut block: BytesMut) -> Option<BytesMut> {
        if block.try_reclaim(BLOCK) {
            self.free.push(block);
        } else {
            self.watched.push_back(block);
        }
        if self.free.len() > KEPT {
            // The coldest.
            return Some(self.free.remove(0));
        }
        if self.watched.len() > WATCHED {
            return self.watched.pop_front();
        }
        None
    }
}

/// An empty block with room for at least `room` bytes.
pub(crate) fn take_block(room: usize) -> BytesMut {
    let pooled = if room <= BLOCK {
        take_own(&OWN_BLOCK).or_else(|| BLOCKS.lock().take())
    } else {
        None
    };
    pooled.unwrap_or_else(|| BytesMut::with_capacity(room.max(BLOCK)))
}

/// Bytes of a cache line, most of which [`align`] may take.
pub(crate) const LINE: usize = 64;

/// Lets an empty block begin with a cache line. What a socket holds mostly begins with a page, and so does a block, but
/// for the allocator's own few bytes: to copy to a place that lies by so little further into its page than what is
/// copied takes some processors (AMD's, with `rep movsb`) ten times as long.
pub(crate) fn align(block: &mut BytesMut) {
    let unused = block.as_ptr().align_offset(LINE);
    if unused < LINE {
        block.resize(unused, 0);
        block.advance(unused);
    }
}

/// Gives a block back that was taken for `size` bytes; it is used again when nobody holds a slice of it.
pub(crate) fn give_block(mut block: BytesMut, size: usize) {
    if size != BLOCK {
        return;
    }
    block.clear();
    let colder = if block.try_reclaim(BLOCK) {
        keep_own(&OWN_BLOCK, block)
    } else {
        Some(block)
    };
    if let Some(block) = colder {
        let surplus = BLOCKS.lock().give(block);
        drop(surplus);
    }
}

/// Unread input up to this long is copied aside, so that its block is free for others.
const SMALL_TAIL: usize = 2048;

/// Keeps no block for input that is taken, or small. `size` is what its block was taken for.
pub(crate) fn put_aside(input: &mut BytesMut, size: &mut usize) {
    if input.is_empty() {
        if input.capacity() > 0 {
            give_block(std::mem::take(input), *size);
        }
    } else if input.len() <= SMALL_TAIL && *size > SMALL_TAIL {
        let small = BytesMut::from(&input[..]);
        let before = std::mem::replace(size, small.len());
        give_block(std::mem::replace(input, small), before);
    }
}

/// Moves input to another block where there is less than `room` behind it.
pub(crate) fn make_room(input: &mut BytesMut, size: &mut usize, room: usize) {
    if input.capacity() - input.len() < room {
        let mut block = take_block(input.len() + room);
        let before = std::mem::replace(size, block.capacity());
        block.extend_from_slice(input);
        give_block(std::mem::replace(input, block), before);
    }
}

/// Memory of long payloads that is kept for others, in bytes.
const KEPT_BODIES: usize = 16 * 1024 * 1024;
/// What is longer is not worth keeping.
const MAX_KEPT_BODY: usize = KEPT_BODIES / 4;

/// The memory of long payloads that were handed over, to be used again when nobody holds them any more: fresh
/// memory would be faulted in page by page.
struct Bodies {
    handed: VecDeque<(BytesMut, usize)>,
    /// Bytes of all of them.
    bytes: usize,
}

static BODIES: Mutex<Bodies> = Mutex::new(Bodies {
    handed: VecDeque::new(),
    bytes: 0,
});

/// An empty buffer with room for a payload of `room` bytes.
pub(crate) fn take_body(room: usize) -> BytesMut {
    let mut bodies = BODIES.lock();
    // What was handed over last, and is used up already, is still in the cache: of many that go round, none would be.
    for index in (0..bodies.handed.len()).rev() {
        let (body, size) = &mut bodies.handed[index];
        let suits = *size >= room && *size / 2 <= room;
        if suits && body.try_reclaim(*size) {
            if let Some((body, size)) = bodies.handed.remove(index) {
                bodies.bytes -= size;
                return body;
            }
        }
    }
    drop(bodies);
    BytesMut::with_capacity(room)
}

/// Hands a payload over. A small part of its buffer is copied out of it, so as not to keep all of it.
pub(crate) fn give_body(mut body: BytesMut) -> Bytes {
    let size = body.capacity();
    if !(BLOCK..=MAX_KEPT_BODY).contains(&size) {
        return body.freeze();
    }
    let whole = if body.len() < size / 4 {
        let copy = Bytes::copy_from_slice(&body);
        body.clear();
        copy
    } else {
        body.split().freeze()
    };
    let mut surplus = SmallVec::<[BytesMut; 4]>::new();
    let mut bodies = BODIES.lock();
    bodies.bytes += size;
    bodies.handed.push_back((body, size));
    while bodies.bytes > KEPT_BODIES {
        let Some((oldest, size)) = bodies.handed.pop_front() else {
            break;
        };
        bodies.bytes -= size;
        surplus.push(oldest);
    }
    drop(bodies);
    drop(surplus);
    whole
}

/// Keeps no memory for payloads any more.
pub(crate) fn forget_bodies() {
    let mut bodies = BODIES.lock();
    bodies.bytes = 0;
    let handed = std::mem::take(&mut bodies.handed);
    drop(bodies);
    drop(handed);
}

/// An empty output buffer.
pub(crate) fn take_output() -> OutBuffer {
    take_own(&OWN_OUTPUT)
        .or_else(|| take_own(&OTHER_OUTPUT))
        .or_else(|| OUTPUTS.lock().pop())
        .unwrap_or_default()
}

/// Gives an output buffer back.
pub(crate) fn give_output(mut output: OutBuffer) {
    output.clear();
    if let Some(output) = keep_own(&OWN_OUTPUT, output)
        && let Some(output) = keep_own(&OTHER_OUTPUT, output)
    {
        let mut outputs = OUTPUTS.lock();
        if outputs.len() < KEPT {
            outputs.push(output);
        }
    }
}

/// An empty batch of commands.
pub(crate) fn take_batch() -> Batch {
    take_own(&OWN_BATCH)
        .or_else(|| BATCHES.lock().pop())
        .unwrap_or_else(Batch::with_room)
}

/// Gives a batch of commands back.
pub(crate) fn give_batch(batch: Batch) {
    if let Some(batch) = batch.recycled()
        && let Some(batch) = keep_own(&OWN_BATCH, batch)
    {
        let mut batches = BATCHES.lock();
        if batches.len() < KEPT {
            batches.push(batch);
        }
    }
}

/// A lock between all sessions of a process. parking_lot's reads the clock when two threads meet at it, which
/// simulated worlds beside each other must not.
struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    const fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aligned_block_is_used_again_whole() {
        let mut block = take_block(BLOCK);
        let size = block.capacity();
        align(&mut block);
        assert_eq!((block.as_ptr() as usize % LINE, block.len()), (0, 0));
        assert!(block.capacity() > size - LINE);
        block.extend_from_slice(b"input");
        drop(block.split_to(5));
        give_block(block, size);
        assert!(take_block(BLOCK).capacity() >= BLOCK);
    }
}
