//! Sockets of readers and writers that block: pipes, terminals, serial lines.

use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::thread;

use bytes::BytesMut;

use crate::blocking::block_on;
use crate::mem::{MEM_CAPACITY, MemSocket, mem_pair};
use crate::rt::Socket;

/// How much is read at once, in bytes.
const BLOCK: usize = 64 * 1024;

/// A [`Socket`] over a reader and a writer that block, such as the output and the input of a child process. Two threads
/// of its own move the bytes; they hold a quarter of a MiB each way at most.
///
/// When the socket is shut, what was written is passed on and the writer is dropped; when the reader ends or fails, so
/// does the socket. The reader is dropped once it returns from its last read after that. `name` is what
/// [`Socket::peer`] says.
///
/// # Errors
/// When the system has no more threads.
pub fn piped(
    name: &str,
    mut reader: impl Read + Send + 'static,
    mut writer: impl Write + Send + 'static,
) -> io::Result<MemSocket> {
    let (near, far) = mem_pair(name, MEM_CAPACITY);
    let far = Arc::new(far);
    let incoming = far.clone();
    let in_thread = thread::Builder::new().name(format!("{name} in"));
    in_thread.spawn(move || {
        let mut block = vec![0; BLOCK];
        loop {
            match reader.read(&mut block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(count) if count > 0 && put(&incoming, &block[..count]).is_ok() => {}
                _ => break,
            }
        }
        let _ = incoming.shutdown();
    })?;
    let out_thread = thread::Builder::new().name(format!("{name} out"));
    out_thread.spawn(move || {
        let mut block = BytesMut::with_capacity(BLOCK);
        while let Ok(true) = take(&far, &mut block) {
            if writer.write_all(&block).and_then(|()| writer.flush()).is_err() {
                break;
            }
            block.clear();
        }
        // Whoever writes on is told, although the other direction may go on.
        far.close_incoming();
    })?;
    Ok(near)
}

/// Writes all of it, waiting for room.
fn put(socket: &MemSocket, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match socket.try_write_vectored(&[IoSlice::new(data)]) {
            Ok(count) => data = &data[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                block_on(poll_fn(|cx| socket.poll_writable(cx)))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads some, waiting for it; `false` is the end.
fn take(socket: &MemSocket, block: &mut BytesMut) -> io::Result<bool> {
    loop {
        match socket.try_read(block) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                block_on(poll_fn(|cx| socket.poll_readable(cx)))?;
            }
            other => return other.map(|count| count > 0),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a program at the other end of a pipe is a thread here"
)]
mod tests {
    use std::io::{PipeReader, PipeWriter, pipe};

    use super::*;

    fn pair() -> (MemSocket, PipeReader, PipeWriter) {
        let (from_us, to_us) = (pipe().unwrap(), pipe().unwrap());
        let socket = piped("test", to_us.0, from_us.1).unwrap();
        (socket, from_us.0, to_us.1)
    }

    fn read_all(socket: &MemSocket) -> Vec<u8> {
        let mut block = BytesMut::with_capacity(BLOCK);
        let mut all = Vec::new();
        while take(socket, &mut block).unwrap() {
            all.extend_from_slice(&block);
            block.clear();
        }
        all
    }

    #[test]
    fn bytes_pass_both_ways_and_ends_are_told() {
        let (socket, mut theirs, mut to_us) = pair();
        let long: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
        let sent = long.clone();
        let writing = thread::spawn(move || {
            to_us.write_all(&sent).unwrap();
        });
        assert!(read_all(&socket) == long);
        writing.join().unwrap();
        // Their end has ended; ours has not.
        let echo = thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        put(&socket, &long).unwrap();
        socket.shutdown().unwrap();
        assert!(echo.join().unwrap() == long);
    }

    #[test]
    fn a_writer_that_is_gone_is_an_error() {
        let (socket, theirs, _to_us) = pair();
        drop(theirs);
        let broken = loop {
            if let Err(error) = put(&socket, &[0; 1000]) {
                break error;
            }
        };
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_socket_that_is_dropped_ends_the_writer() {
        let (socket, mut theirs, _to_us) = pair();
        put(&socket, b"last words").unwrap();
        drop(socket);
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"last words");
    }
}
