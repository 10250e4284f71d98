//! What a running load shares with the one who measures it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::TryFutureExt;

/// Bytes of an echo's request and of its response.
pub(crate) const ECHO_BYTES: usize = 64;

/// One echo at a time over a shared connection.
pub(crate) trait Caller: Send + 'static {
    /// Sends `request` and waits for what comes back.
    fn call(
        &mut self,
        request: &[u8; ECHO_BYTES],
    ) -> impl Future<Output = io::Result<[u8; ECHO_BYTES]>> + Send;
}

/// A load under way. Clones are the same load.
#[derive(Clone, Default)]
pub(crate) struct Load(Arc<Inner>);

#[derive(Default)]
struct Inner {
    stopped: AtomicBool,
    recording: AtomicBool,
    counters: Mutex<Vec<Arc<Counter>>>,
    latencies_ns: Mutex<Vec<u32>>,
    error: Mutex<Option<io::Error>>,
    /// Where the tasks of its client run, and those of its server, if not on tokio.
    near: OnceLock<Spawn>,
    far: OnceLock<Spawn>,
}

/// Spawns on some executor.
pub(crate) type Spawn = Box<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// Counts of one task, alone on its cache line.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds to the count. One task owns a counter, so that no read-modify-write is needed.
    pub(crate) fn add(&self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
}

impl Load {
    /// A counter for one task: echoes done, or bytes received.
    pub(crate) fn counter(&self) -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        lock(&self.0.counters).push(counter.clone());
        counter
    }

    /// Whether the measurement is over.
    pub(crate) fn stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Relaxed)
    }

    /// Whether latencies are wanted at this moment (not while warming up).
    pub(crate) fn recording(&self) -> bool {
        self.0.recording.load(Ordering::Relaxed)
    }

    /// Hands in the latencies of one task.
    pub(crate) fn record(&self, latencies_ns: &mut Vec<u32>) {
        lock(&self.0.latencies_ns).append(latencies_ns);
    }

    /// The load broke; the first error is reported. Those after the end are the end's own.
    pub(crate) fn fail(&self, error: io::Error) {
        if !self.stopped() {
            lock(&self.0.error).get_or_insert(error);
        }
    }

    /// Runs `work` as a task whose error is the load's.
    pub(crate) fn spawn(&self, work: impl Future<Output = io::Result<()>> + Send + 'static) {
        self.spawn_at(&self.0.near, work);
    }

    /// [`Load::spawn`] for what the server does.
    pub(crate) fn spawn_far(&self, work: impl Future<Output = io::Result<()>> + Send + 'static) {
        self.spawn_at(&self.0.far, work);
    }

    fn spawn_at(&self, place: &OnceLock<Spawn>, work: impl Future<Output = io::Result<()>> + Send + 'static) {
        let load = self.clone();
        // A combinator holds the work once, an async block would hold it twice: memory of calls is measured.
        let task = work.unwrap_or_else(move |error| load.fail(error));
        match place.get() {
            Some(spawn) => spawn(Box::pin(task)),
            None => drop(tokio::spawn(task)),
        }
    }

    /// Has its tasks run on other executors than tokio's: those of its client, and those of its server.
    pub(crate) fn spawn_on(&self, near: Spawn, far: Spawn) {
        let _ = self.0.near.set(near);
        let _ = self.0.far.set(far);
    }

    pub(crate) fn set_recording(&self, recording: bool) {
        self.0.recording.store(recording, Ordering::Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }

    /// The sum of all counters.
    pub(crate) fn total(&self) -> u64 {
        lock(&self.0.counters)
            .iter()
            .map(|counter| counter.0.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn take_latencies_ns(&self) -> Vec<u32> {
        std::mem::take(&mut lock(&self.0.latencies_ns))
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        lock(&self.0.error).take()
    }
}

/// Checks an echo against what was sent.
pub(crate) fn check_echo(request: &[u8; ECHO_BYTES], response: &[u8; ECHO_BYTES]) -> io::Result<()> {
    match request == response {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the echo is not what was sent",
        )),
    }
}

/// Locks; a panic elsewhere is reported by whoever panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
