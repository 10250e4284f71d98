//! TCP and Unix sockets of `async-io` as [`Socket`] and [`Listener`].

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
#[cfg(unix)]
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use async_io::Async;
use bytes::BytesMut;
use sheetbend_runtime::os;
use sheetbend_runtime::{Address, Listener, Socket};
use socket2::SockRef;

use crate::spare;

/// What is known of one direction of a socket: whether it may be tried without asking the reactor.
///
/// The reactor tells of a direction once for each time that it was asked, which is a system call. So it is asked only
/// when a try has found nothing, or less than there was room for: the kernel's buffer is drained or full then. It says
/// at once what came in between, so that nothing is missed whoever has tried last. Before that other tasks run once, and
/// it is tried again: of two ends that are busy with one another, the answer is often there by then. Where it is not,
/// that is not done again for a while, which doubles each time.
#[derive(Default)]
pub(crate) struct Ready {
    exhausted: AtomicBool,
    /// Since something was found, others were let run, or it was found to be in vain.
    decided: AtomicBool,
    /// Others have run, and nothing was tried since.
    yielded: AtomicBool,
    /// So many more times others are not let run first.
    skips: AtomicU32,
    /// How often it was in vain in a row, up to [`MAX_MISSES`].
    misses: AtomicU32,
}

/// Letting others run first is skipped up to 2 to the power of this in a row.
const MAX_MISSES: u32 = 6;

impl Ready {
    /// Ready if it may be tried; otherwise asks the reactor.
    pub(crate) fn poll(&self, ask: impl FnOnce() -> Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if self.exhausted.load(Ordering::Acquire) {
            ready!(ask())?;
            self.exhausted.store(false, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }

    /// [`Ready::poll`], after others have run once.
    fn poll_after_others(
        &self,
        cx: &mut Context<'_>,
        ask: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        if self.exhausted.load(Ordering::Acquire) && self.is_worth_yielding() {
            self.yielded.store(true, Ordering::Relaxed);
            self.exhausted.store(false, Ordering::Release);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll(|| ask(cx))
    }

    /// Whether something is likely to be found once others have run. Only who drives the socket asks, so that counts
    /// need not be exact between threads.
    fn is_worth_yielding(&self) -> bool {
        if self.decided.swap(true, Ordering::Relaxed) {
            return false;
        }
        let skips = self.skips.load(Ordering::Relaxed);
        self.skips.store(skips.saturating_sub(1), Ordering::Relaxed);
        skips == 0
    }

    /// Takes note of whether something was found after others had run.
    fn learn(&self, found: bool) {
        let misses = match found {
            true => 0,
            false => (self.misses.load(Ordering::Relaxed) + 1).min(MAX_MISSES),
        };
        self.misses.store(misses, Ordering::Relaxed);
        self.skips.store((1 << misses) - 1, Ordering::Relaxed);
    }

    /// Takes note of what a try came to that had room for so many bytes.
    pub(crate) fn tried(&self, room: usize, result: io::Result<usize>) -> io::Result<usize> {
        let exhausted = match &result {
            Ok(count) => *count > 0 && *count < room,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if exhausted {
            self.exhausted.store(true, Ordering::Release);
        }
        if self.yielded.load(Ordering::Relaxed) && self.yielded.swap(false, Ordering::Relaxed) {
            self.learn(result.is_ok());
        }
        if result.is_ok() && self.decided.load(Ordering::Relaxed) {
            self.decided.store(false, Ordering::Relaxed);
        }
        result
    }
}

/// [`Socket`] for a stream of the system.
struct StreamSocket<S> {
    stream: Async<S>,
    peer: String,
    readable: Ready,
    writable: Ready,
}

impl<S> StreamSocket<S> {
    fn new(stream: Async<S>, peer: String) -> Box<StreamSocket<S>> {
        Box::new(StreamSocket {
            stream,
            peer,
            readable: Ready::default(),
            writable: Ready::default(),
        })
    }
}

impl<S: Send + Sync + 'static> Socket for StreamSocket<S>
where
    for<'a> SockRef<'a>: From<&'a S>,
{
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.readable
            .poll_after_others(cx, |cx| self.stream.poll_readable(cx))
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writable.poll(|| self.stream.poll_writable(cx))
    }

    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let room = buf.capacity() - buf.len();
        let read = spare::read(self.stream.get_ref().into(), buf);
        self.readable.tried(room, read)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let total = slices.iter().map(|slice| slice.len()).sum();
        let socket = SockRef::from(self.stream.get_ref());
        let written = match slices {
            [slice] => socket.send(slice),
            slices => socket.send_vectored(slices),
        };
        self.writable.tried(total, written)
    }

    fn shutdown(&self) -> io::Result<()> {
        SockRef::from(self.stream.get_ref()).shutdown(Shutdown::Write)
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }
}

/// The socket addresses of a name: asked of the system on a thread that may block, unless it is an address itself.
pub(crate) async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    blocking::unblock(move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await
}

fn tcp(stream: Async<TcpStream>, peer: SocketAddr) -> io::Result<Box<dyn Socket>> {
    stream.get_ref().set_nodelay(true)?;
    Ok(StreamSocket::new(stream, peer.to_string()))
}

pub(crate) async fn connect_tcp(host: String, port: u16) -> io::Result<Box<dyn Socket>> {
    os::connect_first(resolve(host, port).await?, |address| async move {
        tcp(Async::<TcpStream>::connect(address).await?, address)
    })
    .await
}

pub(crate) async fn listen_tcp(host: String, port: u16) -> io::Result<Box<dyn Listener>> {
    let addresses = resolve(host, port).await?;
    let listener = TcpListener::bind(&addresses[..])?;
    let address = listener.local_addr()?;
    Ok(Box::new(TcpAcceptor(Async::new(listener)?, address)))
}

/// Takes the next connection, and asks the reactor only if there is none.
fn poll_accept<L, S>(
    cx: &mut Context<'_>,
    listener: &Async<L>,
    accept: impl Fn(&L) -> io::Result<S>,
) -> Poll<io::Result<S>> {
    loop {
        match accept(listener.get_ref()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(listener.poll_readable(cx))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return Poll::Ready(other),
        }
    }
}

struct TcpAcceptor(Async<TcpListener>, SocketAddr);

impl Listener for TcpAcceptor {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        let (stream, peer) = ready!(poll_accept(cx, &self.0, TcpListener::accept))?;
        Poll::Ready(tcp(Async::new(stream)?, peer))
    }

    fn local_address(&self) -> Address {
        Address::Tcp {
            host: self.1.ip().to_string(),
            port: self.1.port(),
        }
    }
}

#[cfg(unix)]
pub(crate) async fn connect_unix(path: &Path) -> io::Result<Box<dyn Socket>> {
    let stream = Async::<UnixStream>::connect(path).await?;
    Ok(StreamSocket::new(stream, path.display().to_string()))
}

#[cfg(unix)]
pub(crate) fn listen_unix(path: &Path) -> io::Result<Box<dyn Listener>> {
    let (listener, file) = os::bind_unix(path)?;
    Ok(Box::new(UnixAcceptor(Async::new(listener)?, file)))
}

#[cfg(unix)]
struct UnixAcceptor(Async<UnixListener>, os::SocketFile);

#[cfg(unix)]
impl Listener for UnixAcceptor {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        let (stream, _) = ready!(poll_accept(cx, &self.0, UnixListener::accept))?;
        let name = format!("{} (client)", self.1.path().display());
        Poll::Ready(Ok(StreamSocket::new(Async::new(stream)?, name)))
    }

    fn local_address(&self) -> Address {
        Address::Unix(self.1.path().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Something is found, less than there was room for. Tells whether others are let run before the reactor is asked;
    /// then another try comes to what `finds` says.
    fn yields(ready: &Ready, finds: bool) -> bool {
        assert_eq!(ready.tried(100, Ok(10)).unwrap(), 10);
        let mut cx = Context::from_waker(Waker::noop());
        let mut asked = false;
        let polled = ready.poll_after_others(&mut cx, |_| {
            asked = true;
            Poll::Pending
        });
        assert!(polled.is_pending());
        if asked {
            return false;
        }
        assert!(ready.poll_after_others(&mut cx, |_| Poll::Pending).is_ready());
        let found = if finds {
            Ok(10)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        };
        assert_eq!(ready.tried(100, found).is_ok(), finds);
        if !finds {
            // Once for each find: from here on the reactor tells.
            let mut asked = false;
            let polled = ready.poll_after_others(&mut cx, |_| {
                asked = true;
                Poll::Pending
            });
            assert!(asked && polled.is_pending());
        }
        true
    }

    #[test]
    fn others_run_first_where_that_pays_and_are_tried_again_where_it_did_not() {
        let ready = Ready::default();
        assert!((0..100).all(|_| yields(&ready, true)));
        let tries: Vec<usize> = (0..300).filter(|_| yields(&ready, false)).collect();
        assert_eq!(tries, [0, 2, 6, 14, 30, 62, 126, 190, 254]);
        // It pays again.
        let again = (0..100).filter(|_| yields(&ready, true)).count();
        assert!((30..100).contains(&again), "{again}");
    }
}
