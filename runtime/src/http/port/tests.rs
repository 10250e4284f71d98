//! What becomes of a poll beside a downlink that it replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use sheetbend_core::carrier::http::Operation;

use super::*;
use crate::bench::OnBench;
use crate::layers::Connection;

/// A connection that takes nothing, until it is closed.
#[derive(Clone, Default)]
struct Full(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Full {
    fn close(&self) {
        let mut full = self.0.lock();
        full.0 = true;
        full.1.drain(..).for_each(Waker::wake);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut full = self.0.lock();
        if full.0 {
            return Poll::Ready(Ok(()));
        }
        full.1.push(cx.waker().clone());
        Poll::Pending
    }
}

impl Socket for Full {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx)
    }

    fn try_read(&self, _: &mut BytesMut) -> io::Result<usize> {
        match self.0.lock().0 {
            true => Ok(0),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn try_write_vectored(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn shutdown(&self) -> io::Result<()> {
        Ok(())
    }

    fn peer(&self) -> String {
        String::new()
    }
}

/// Whether somebody was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A poll took the place of a downlink whose connection takes nothing: its answer does not wait for that one.
#[test]
fn a_poll_is_answered_though_the_downlink_before_it_is_stuck() {
    for closed_first in [false, true] {
        let ports = Arc::new(Ports::default());
        let token = Token([9; 16]);
        let (port, socket) = ports.open(
            Arc::new(OnBench::default()),
            token,
            String::new(),
            Origin::Unknown,
        );
        let key = ExchangeKey::new([7; 32].into());
        port.create(b"hello").unwrap();
        port.set_key(key.clone());
        let mut driver = Context::from_waker(Waker::noop());

        let down = key.sign(Operation::Down, token, 1, 0, 0);
        port.begin(&down, Mode::Sse, None).unwrap();
        let full = Full::default();
        let wire = Wire::new(Connection::native(Box::new(full.clone())));
        port.adopt_down(1, Mode::Sse, "", wire);
        assert!(socket.poll_readable(&mut driver).is_ready(), "hello");
        assert_eq!(socket.try_read(&mut BytesMut::with_capacity(100)).unwrap(), 5);
        assert!(socket.poll_readable(&mut driver).is_pending());

        let poll = key.sign(Operation::Poll, token, 2, 0, 0);
        port.begin(&poll, Mode::Poll, None).unwrap();
        assert!(socket.poll_readable(&mut driver).is_pending());
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = woken.clone().into();
        let mut cx = Context::from_waker(&waker);
        let mut answer = OutBuffer::new();
        assert!(port.poll_answer(&mut cx, 2, "", &mut answer).is_pending());
        if closed_first {
            full.close();
            assert!(socket.poll_readable(&mut driver).is_pending());
            // Whoever was woken for nothing looks, and waits again.
            assert!(port.poll_answer(&mut cx, 2, "", &mut answer).is_pending());
            woken.0.store(false, Ordering::SeqCst);
        }
        assert_eq!(socket.try_write_vectored(&[IoSlice::new(b"answer")]).unwrap(), 6);
        assert!(woken.0.load(Ordering::SeqCst), "closed first: {closed_first}");
        assert!(port.poll_answer(&mut cx, 2, "", &mut answer).is_ready());
    }
}
