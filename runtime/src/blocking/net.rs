//! A listener and a stream that are used like those of `std::net`, for programs that know nothing of async.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::wire::{Class, ErrorCode};

use super::block_on;
use crate::address::{Address, ToAddress};
use crate::client::{Client, ConnectError};
use crate::rt::Runtime;
use crate::server::{BindError, Server};
use crate::session::Session;
use crate::stream::{RecvStream, SendStream, poll_read_io, poll_write_io};

/// What a stream's writer gives up with when it is shut for reading: nobody takes what comes.
const UNWANTED: u64 = 0;

/// Listens for sessions that are one stream each, like `std::net::TcpListener`.
///
/// The runtime has to run on other threads: that of `sheetbend-smol` does so by itself.
pub struct SessionListener(Server);

impl SessionListener {
    /// Listens on an address.
    ///
    /// # Errors
    /// As [`ServerBuilder::bind`](crate::ServerBuilder::bind), told as an error of IO.
    pub fn bind(runtime: &Arc<dyn Runtime>, address: impl ToAddress) -> io::Result<SessionListener> {
        let address = address.to_address().map_err(invalid)?;
        let server = Server::builder().listen(address).map_err(invalid)?;
        let server = block_on(server.bind(runtime.clone())).map_err(|error| match error {
            BindError::Listen { error, .. } => error,
            other => invalid(other),
        })?;
        Ok(SessionListener(server))
    }

    /// Listens as a server does that was set up in all its details.
    pub fn new(server: Server) -> SessionListener {
        SessionListener(server)
    }

    /// The next session.
    ///
    /// # Errors
    /// When the server was stopped.
    pub fn accept(&self) -> io::Result<SessionStream> {
        let session = block_on(self.0.accept()).ok_or(io::ErrorKind::NotConnected)?;
        SessionStream::new(session)
    }

    /// The sessions that come, without end.
    pub fn incoming(&self) -> impl Iterator<Item = io::Result<SessionStream>> + '_ {
        std::iter::repeat_with(|| self.accept())
    }

    /// Where it listens, with the port that was really bound.
    pub fn local_addr(&self) -> &Address {
        // A server that is bound has an address.
        &self.0.addresses()[0]
    }
}

impl fmt::Debug for SessionListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionListener({})", self.local_addr())
    }
}

/// A session that is one stream of bytes each way, like `std::net::TcpStream`; but it outlives its connections.
///
/// `Read` and `Write` are there for references, too, so that two threads may share it, one that reads and one that
/// writes. Dropping it ends the session once what was written has been delivered, as far as the program lives so long:
/// [`SessionStream::finish`] waits for that.
pub struct SessionStream {
    session: Session,
    send: Mutex<SendStream>,
    /// The peer's stream, once it has written something.
    recv: Mutex<Option<RecvStream>>,
    timeouts: Mutex<Timeouts>,
}

/// How long a call may block at most.
#[derive(Clone, Copy, Default)]
struct Timeouts {
    read: Option<Duration>,
    write: Option<Duration>,
}

impl SessionStream {
    /// Connects to an address.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`](crate::ClientBuilder::connect), told as an error of IO.
    pub fn connect(runtime: &Arc<dyn Runtime>, address: impl ToAddress) -> io::Result<SessionStream> {
        let address = address.to_address().map_err(invalid)?;
        let client = Client::builder().endpoint(address).map_err(invalid)?;
        let session = block_on(client.connect(runtime.clone())).map_err(|error| match error {
            ConnectError::Unreachable(_) => io::Error::new(io::ErrorKind::ConnectionRefused, error),
            ConnectError::Failed(_) => io::Error::new(io::ErrorKind::ConnectionAborted, error),
            other => invalid(other),
        })?;
        SessionStream::new(session)
    }

    /// The streams of a session that stands; the other end does the same.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn new(session: Session) -> io::Result<SessionStream> {
        let send = block_on(session.open_uni(Class::BULK)).map_err(ended)?;
        Ok(SessionStream {
            session,
            send: Mutex::new(send),
            recv: Mutex::new(None),
            timeouts: Mutex::default(),
        })
    }

    /// The session, for all else that it can do.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Ends one direction or both, as `TcpStream::shutdown` does.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.send.lock().finish().map_err(io::Error::other)?;
        }
        if how != Shutdown::Write
            && let Some(recv) = &mut *self.recv.lock()
        {
            recv.stop(UNWANTED).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// How long a read may block, or `None` for as long as it takes; then it is `TimedOut`.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.timeouts.lock().read = timeout;
    }

    /// How long a write may block, likewise.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.timeouts.lock().write = timeout;
    }

    /// Waits until the other end has all that was written, and ends the session.
    ///
    /// # Errors
    /// When the session ends before that.
    pub fn finish(self) -> io::Result<()> {
        let mut send = self.send.lock();
        // It may be shut already.
        let _ = send.finish();
        block_on(send.acknowledged()).map_err(io::Error::other)?;
        drop(send);
        block_on(self.session.close(ErrorCode::NONE, ""));
        Ok(())
    }

    /// Blocks on something, but no longer than so long.
    fn within<T>(
        &self,
        timeout: Option<Duration>,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let Some(timeout) = timeout else {
            return block_on(work);
        };
        let mut work = pin!(work);
        let mut sleep = pin!(self.session.sleep(timeout));
        block_on(poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Pending => sleep
                .as_mut()
                .poll(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into())),
            ready => ready,
        }))
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        // The other end reads the end, as it does when a `TcpStream` is dropped.
        let _ = self.send.get_mut().finish();
    }
}

impl Read for &SessionStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = self.timeouts.lock().read;
        let mut recv = self.recv.lock();
        self.within(timeout, async {
            let stream = match &mut *recv {
                Some(stream) => stream,
                none => none.insert(self.session.accept_uni(Class::BULK).await.map_err(ended)?),
            };
            poll_fn(|cx| poll_read_io(stream, cx, buffer)).await
        })
    }
}

impl Write for &SessionStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let timeout = self.timeouts.lock().write;
        let mut send = self.send.lock();
        self.within(timeout, poll_fn(|cx| poll_write_io(&mut send, cx, data)))
    }

    /// Does nothing: what is written is sent without being asked.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for SessionStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for SessionStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for SessionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionStream")
            .field(&self.session.state())
            .finish()
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

fn ended(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, error)
}
