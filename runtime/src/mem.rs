//! Connections inside one process: bounded pipes with wakers, usable under any runtime.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BufMut, BytesMut};
use parking_lot::Mutex;

use crate::address::Address;
use crate::rt::{Listener, Socket};

/// How many bytes one direction of a memory connection holds.
pub const MEM_CAPACITY: usize = 256 * 1024;
/// How many connections wait to be accepted.
pub const MEM_BACKLOG: usize = 1024;
/// An empty pipe gives its memory back above this capacity, in bytes.
const KEEP_CAPACITY: usize = 4096;

#[derive(Default)]
struct Pipe {
    data: BytesMut,
    /// The writer will write no more.
    ended: bool,
    /// The reader is gone.
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// One end of a connection in memory.
pub struct MemSocket {
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
    capacity: usize,
    name: String,
}

/// Two connected ends that hold at most `capacity` bytes in each direction.
pub fn mem_pair(name: &str, capacity: usize) -> (MemSocket, MemSocket) {
    let (a, b) = (Arc::<Mutex<Pipe>>::default(), Arc::<Mutex<Pipe>>::default());
    let end = |incoming: &Arc<Mutex<Pipe>>, outgoing: &Arc<Mutex<Pipe>>| MemSocket {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
        capacity: capacity.max(1),
        name: name.to_owned(),
    };
    (end(&a, &b), end(&b, &a))
}

impl MemSocket {
    /// Takes no more of what the other end writes, which is told so; this end can go on writing.
    pub(crate) fn close_incoming(&self) {
        let mut pipe = self.incoming.lock();
        pipe.broken = true;
        pipe.data = BytesMut::new();
        let writer = pipe.writer.take();
        drop(pipe);
        wake(writer);
    }
}

impl Socket for MemSocket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.incoming.lock();
        if !pipe.data.is_empty() || pipe.ended {
            return Poll::Ready(Ok(()));
        }
        register(&mut pipe.reader, cx);
        Poll::Pending
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.outgoing.lock();
        if pipe.data.len() < self.capacity || pipe.broken {
            return Poll::Ready(Ok(()));
        }
        register(&mut pipe.writer, cx);
        Poll::Pending
    }

    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let mut pipe = self.incoming.lock();
        if pipe.data.is_empty() {
            return if pipe.ended {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            };
        }
        let count = pipe.data.len().min(buf.capacity() - buf.len());
        buf.put_slice(&pipe.data[..count]);
        pipe.data.advance(count);
        if pipe.data.is_empty() && pipe.data.capacity() > KEEP_CAPACITY {
            pipe.data = BytesMut::new();
        }
        let writer = pipe.writer.take();
        drop(pipe);
        wake(writer);
        Ok(count)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.outgoing.lock();
        if pipe.broken || pipe.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut room = self.capacity.saturating_sub(pipe.data.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut written = 0;
        for slice in slices {
            let count = slice.len().min(room);
            pipe.data.extend_from_slice(&slice[..count]);
            room -= count;
            written += count;
        }
        let reader = pipe.reader.take();
        drop(pipe);
        wake(reader);
        Ok(written)
    }

    fn shutdown(&self) -> io::Result<()> {
        let mut pipe = self.outgoing.lock();
        pipe.ended = true;
        let reader = pipe.reader.take();
        drop(pipe);
        wake(reader);
        Ok(())
    }

    fn peer(&self) -> String {
        self.name.clone()
    }
}

impl Drop for MemSocket {
    fn drop(&mut self) {
        let _ = self.shutdown();
        self.close_incoming();
    }
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<MemSocket>,
    acceptor: Option<Waker>,
    closed: bool,
}

/// A namespace of `mem://` listeners. Clones share it.
#[derive(Clone, Default)]
pub struct MemNetwork {
    listeners: Arc<Mutex<BTreeMap<String, Arc<Mutex<Backlog>>>>>,
}

impl MemNetwork {
    /// An empty namespace.
    pub fn new() -> MemNetwork {
        MemNetwork::default()
    }

    /// Connects to the listener of that name.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there or its backlog is full.
    pub fn connect(&self, name: &str) -> io::Result<MemSocket> {
        let backlog = self.listeners.lock().get(name).cloned();
        let refused = |why: &str| io::Error::new(io::ErrorKind::ConnectionRefused, why.to_owned());
        let backlog = backlog.ok_or_else(|| refused("nobody listens on this name"))?;
        let mut state = backlog.lock();
        if state.closed || state.waiting.len() >= MEM_BACKLOG {
            return Err(refused("the listener's backlog is full"));
        }
        let (near, far) = mem_pair(name, MEM_CAPACITY);
        state.waiting.push_back(far);
        let acceptor = state.acceptor.take();
        drop(state);
        wake(acceptor);
        Ok(near)
    }

    /// Listens on a name until the listener is dropped.
    ///
    /// # Errors
    /// `AddrInUse` when the name is taken.
    pub fn listen(&self, name: &str) -> io::Result<MemListener> {
        let mut listeners = self.listeners.lock();
        if listeners.contains_key(name) {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "this name has a listener",
            ));
        }
        let backlog = Arc::<Mutex<Backlog>>::default();
        listeners.insert(name.to_owned(), backlog.clone());
        Ok(MemListener {
            network: self.clone(),
            name: name.to_owned(),
            backlog,
        })
    }
}

/// A listener of a [`MemNetwork`].
pub struct MemListener {
    network: MemNetwork,
    name: String,
    backlog: Arc<Mutex<Backlog>>,
}

impl Listener for MemListener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        let mut backlog = self.backlog.lock();
        if let Some(socket) = backlog.waiting.pop_front() {
            return Poll::Ready(Ok(Box::new(socket)));
        }
        register(&mut backlog.acceptor, cx);
        Poll::Pending
    }

    fn local_address(&self) -> Address {
        Address::Mem(self.name.clone())
    }
}

impl Drop for MemListener {
    fn drop(&mut self) {
        self.network.listeners.lock().remove(&self.name);
        let mut backlog = self.backlog.lock();
        backlog.closed = true;
        let waiting = std::mem::take(&mut backlog.waiting);
        drop(backlog);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(socket: &MemSocket, room: usize) -> io::Result<Vec<u8>> {
        let mut buf = BytesMut::with_capacity(room);
        socket.try_read(&mut buf)?;
        Ok(buf.to_vec())
    }

    #[test]
    fn a_pipe_is_bounded_and_ends() {
        let (a, b) = mem_pair("x", 4);
        assert_eq!(read(&b, 8).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(
            a.try_write_vectored(&[IoSlice::new(b"abc"), IoSlice::new(b"def")])
                .unwrap(),
            4
        );
        let full = a.try_write_vectored(&[IoSlice::new(b"g")]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(read(&b, 8).unwrap(), b"abcd");
        drop(b);
        let broken = a.try_write_vectored(&[IoSlice::new(b"g")]).unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(read(&a, 8).unwrap(), b"");
    }

    #[test]
    fn names_are_taken_and_given_back() {
        let network = MemNetwork::new();
        assert_eq!(
            network.connect("n").err().unwrap().kind(),
            io::ErrorKind::ConnectionRefused
        );
        let listener = network.listen("n").unwrap();
        assert_eq!(
            network.listen("n").err().unwrap().kind(),
            io::ErrorKind::AddrInUse
        );
        let near = network.connect("n").unwrap();
        drop(listener);
        assert_eq!(
            read(&near, 1).unwrap(),
            b"",
            "a connection that was never accepted is closed"
        );
        assert!(network.listen("n").is_ok());
    }
}
