//! For threads that may block: streams with the standard library's `Read` and `Write`, and what mirrors `std::net`.

mod net;

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

pub use net::{SessionListener, SessionStream};

use crate::stream::{BiStream, RecvStream, SendStream, poll_read_io, poll_write_io};

/// A stream, or half of one, whose calls block the thread instead of a task.
///
/// The session's driver has to run elsewhere: on a thread that drives the same runtime and nothing else, such
/// a call never returns. With tokio, use it on the threads of `spawn_blocking`, or outside of the runtime.
#[derive(Debug)]
pub struct Blocking<S>(S);

impl<S> Blocking<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Blocking<S> {
        Blocking(stream)
    }

    /// The stream, for its asynchronous methods.
    pub fn into_inner(self) -> S {
        self.0
    }

    /// The stream, for the methods that do not wait, such as [`SendStream::finish`].
    pub fn inner(&mut self) -> &mut S {
        &mut self.0
    }
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls until it is ready, sleeping in between.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(found) => return found,
            // A wake-up before this is remembered; one without cause only polls once more.
            Poll::Pending => thread::park(),
        }
    }
}

macro_rules! reader {
    ($name:ty, $($half:tt)*) => {
        impl Read for Blocking<$name> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                block_on(poll_fn(|cx| poll_read_io(&mut self.0$($half)*, cx, buffer)))
            }
        }
    };
}

macro_rules! writer {
    ($name:ty, $($half:tt)*) => {
        impl Write for Blocking<$name> {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                block_on(poll_fn(|cx| poll_write_io(&mut self.0$($half)*, cx, data)))
            }

            /// Does nothing: the driver sends what is written without being asked.
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    };
}

reader!(RecvStream,);
reader!(BiStream, .recv);
writer!(SendStream,);
writer!(BiStream, .send);
