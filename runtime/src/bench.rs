//! A runtime for tests, under a clock that they set.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;

use crate::address::Address;
use crate::rt::{BoxFuture, Listener, Runtime, Socket, Timer};

/// A runtime that runs what it is told to, on the thread of the test.
#[derive(Default)]
pub(crate) struct Bench {
    now_ns: AtomicU64,
    pub(crate) tasks: Mutex<Vec<BoxFuture<'static, ()>>>,
}

struct BenchTimer {
    bench: Arc<Bench>,
    deadline: Timestamp,
}

impl Timer for BenchTimer {
    fn poll_expired(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // Nobody need be woken: the bench polls every task.
        match self.deadline <= self.bench.time() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn reset(&mut self, deadline: Timestamp) {
        self.deadline = deadline;
    }
}

impl Bench {
    pub(crate) fn time(&self) -> Timestamp {
        Timestamp::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    /// Runs tasks until none of them goes on.
    pub(crate) fn run(&self) {
        // Every task is polled whether it was woken or not; that none is needed is for the simulator to tell.
        for _ in 0..8 {
            let tasks = std::mem::take(&mut *self.tasks.lock());
            let mut cx = Context::from_waker(Waker::noop());
            let left = tasks
                .into_iter()
                .filter_map(|mut task| task.as_mut().poll(&mut cx).is_pending().then_some(task));
            let left: Vec<_> = left.collect();
            self.tasks.lock().extend(left);
        }
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.now_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        self.run();
    }
}

/// The bench as the handles hold it.
#[derive(Default)]
pub(crate) struct OnBench(pub(crate) Arc<Bench>);

impl Runtime for OnBench {
    fn now(&self) -> Timestamp {
        self.0.time()
    }

    fn timer(&self, deadline: Timestamp) -> Box<dyn Timer> {
        let bench = self.0.clone();
        Box::new(BenchTimer { bench, deadline })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.tasks.lock().push(task);
    }

    fn connect(&self, _: Address) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, _: Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn resolve(&self, _: String, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn seed(&self) -> [u8; 32] {
        [7; 32]
    }
}
