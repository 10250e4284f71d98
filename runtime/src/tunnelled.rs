//! The inside of a TLS connection as a socket, for what has TLS of its own: a tunnel through a proxy that is spoken
//! to inside TLS.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, BytesMut};
use parking_lot::Mutex;
use sheetbend_core::server::Origin;

use crate::layers::Connection;
use crate::rt::{Runtime, Socket};
use crate::wire::Wire;

/// Bytes that are encrypted at once. The next are taken when these are written.
const MAX_PIECE: usize = 64 * 1024;

/// What lies inside a connection whose TLS handshake is done.
pub(crate) fn inside(runtime: Arc<dyn Runtime>, connection: Connection) -> Connection {
    let peer = connection.socket.peer();
    let origin = connection.socket.origin();
    let state = State {
        wire: Wire::new(connection),
        ended: false,
        waker: None,
    };
    Connection::native(Box::new(Inside {
        state: Mutex::new(state),
        runtime,
        peer,
        origin,
    }))
}

struct State {
    wire: Wire,
    ended: bool,
    /// Who reads: it goes on with what could not be written.
    waker: Option<Waker>,
}

struct Inside {
    state: Mutex<State>,
    runtime: Arc<dyn Runtime>,
    peer: String,
    origin: Origin,
}

impl State {
    /// Goes on writing what is encrypted already; ready when none is left.
    fn push(&mut self) -> Poll<io::Result<()>> {
        let waker = self.waker.as_ref().unwrap_or(Waker::noop());
        self.wire.poll_write(&mut Context::from_waker(waker))
    }

    fn register(&mut self, cx: &Context<'_>) {
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waker = Some(cx.waker().clone()),
        }
    }
}

impl Socket for Inside {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        state.register(cx);
        // An error of writing is told to who writes.
        let _ = state.push();
        while state.wire.input.is_empty() && !state.ended {
            state.ended = !ready!(state.wire.poll_fill(cx, self.runtime.now()))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        state.register(cx);
        state.push()
    }

    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let mut state = self.state.lock();
        let count = state.wire.input.len().min(buf.capacity() - buf.len());
        if count > 0 {
            buf.put_slice(&state.wire.input[..count]);
            state.wire.input.advance(count);
            state.wire.put_aside();
            return Ok(count);
        }
        match state.ended {
            true => Ok(0),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state.lock();
        if state.push()?.is_pending() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut room = MAX_PIECE;
        state.wire.lay_out(self.runtime.now(), |out| {
            for slice in slices {
                let count = slice.len().min(room);
                out.put(&slice[..count]);
                room -= count;
            }
        });
        // It is taken, and goes on from `poll_readable` where there is no room for all of it.
        let _ = state.push()?;
        Ok(MAX_PIECE - room)
    }

    fn shutdown(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let _ = state.push()?;
        state.wire.close();
        Ok(())
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }

    fn origin(&self) -> Origin {
        self.origin
    }
}
