//! Buffers that busy sessions share, so that idle ones hold none.

use bytes::BytesMut;
use parking_lot::Mutex;
use sheetbend_core::wire::OutBuffer;

/// Bytes of a block that sockets are read into.
pub(crate) const BLOCK: usize = 128 * 1024;
/// How many blocks, and how many output buffers, are kept for the next who needs one.
const KEPT: usize = 64;

static BLOCKS: Mutex<Vec<BytesMut>> = Mutex::new(Vec::new());
static OUTPUTS: Mutex<Vec<OutBuffer>> = Mutex::new(Vec::new());

/// An empty block with room for at least `room` bytes.
pub(crate) fn take_block(room: usize) -> BytesMut {
    if room <= BLOCK {
        let mut blocks = BLOCKS.lock();
        // The newest is the likeliest to be in a cache; one whose slices are still held is passed over.
        for index in (0..blocks.len()).rev() {
            if blocks[index].try_reclaim(BLOCK) {
                return blocks.swap_remove(index);
            }
        }
    }
    BytesMut::with_capacity(room.max(BLOCK))
}

/// Gives a block back. It may still be read through slices: it is used again when they are gone, which
/// spares the system from mapping and clearing fresh pages for every read.
pub(crate) fn give_block(mut block: BytesMut) {
    block.clear();
    let mut blocks = BLOCKS.lock();
    if blocks.len() < KEPT {
        blocks.push(block);
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
