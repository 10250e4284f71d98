//! Buffers that busy sessions share, so that idle ones hold none.

use bytes::BytesMut;
use parking_lot::Mutex;
use sheetbend_core::wire::OutBuffer;

/// Bytes of a block that sockets are read into.
pub(crate) const BLOCK: usize = 128 * 1024;
/// How many blocks, and how many output buffers, are kept for the next who needs one.
const KEPT: usize = 16;

static BLOCKS: Mutex<Vec<BytesMut>> = Mutex::new(Vec::new());
static OUTPUTS: Mutex<Vec<OutBuffer>> = Mutex::new(Vec::new());

/// An empty block with room for at least `room` bytes.
pub(crate) fn take_block(room: usize) -> BytesMut {
    if room <= BLOCK {
        if let Some(block) = BLOCKS.lock().pop() {
            return block;
        }
    }
    BytesMut::with_capacity(room.max(BLOCK))
}

/// Gives a block back, if nobody holds a slice of it.
pub(crate) fn give_block(mut block: BytesMut) {
    block.clear();
    if block.try_reclaim(BLOCK) && block.capacity() < 2 * BLOCK {
        let mut blocks = BLOCKS.lock();
        if blocks.len() < KEPT {
            blocks.push(block);
        }
    }
}

/// An empty output buffer.
pub(crate) fn take_output() -> OutBuffer {
    OUTPUTS.lock().pop().unwrap_or_else(OutBuffer::new)
}

/// Gives an output buffer back.
pub(crate) fn give_output(mut output: OutBuffer) {
    output.clear();
    let mut outputs = OUTPUTS.lock();
    if outputs.len() < KEPT {
        outputs.push(output);
    }
}
