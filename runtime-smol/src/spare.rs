//! Reading into memory that is not initialised: the one place of this crate that is unsafe.
#![allow(unsafe_code)]

use std::io;

use bytes::{BufMut, BytesMut};
use socket2::SockRef;

/// Reads from a socket into the spare capacity of a buffer, and returns how many bytes it is longer by.
pub(crate) fn read(socket: SockRef<'_>, buf: &mut BytesMut) -> io::Result<usize> {
    let spare = buf.spare_capacity_mut();
    let room = spare.len();
    let count = socket.recv(spare)?;
    assert!(count <= room, "no more is read than there was room for");
    // SAFETY: `recv` has initialised the first `count` bytes of the spare capacity, which are no more than it has.
    unsafe { buf.advance_mut(count) };
    Ok(count)
}
