//! RFC 6455 §5.3.

use crate::wire::OutBuffer;

/// Masks or unmasks bytes that begin `offset` bytes into a payload.
pub(super) fn apply(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let key = rotated(key, offset);
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(word) = <[u8; 8]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The key as bytes `offset` into a payload see it.
fn rotated(mut key: [u8; 4], offset: usize) -> [u8; 4] {
    key.rotate_left(offset % 4);
    key
}

/// Masks all of `out` from its byte `from` on. What it holds by reference is copied: it is others' too.
pub(super) fn apply_to(out: &mut OutBuffer, from: usize, key: [u8; 4]) {
    let mut offset = 0;
    out.own_from(from, |bytes| {
        apply(bytes, key, offset);
        offset += bytes.len();
    });
}
