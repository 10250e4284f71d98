//! Workers of smol: as many threads as the measurement's tokio runtime has, each of which runs one executor and takes
//! its turn at the reactor.

use std::io;
use std::sync::Arc;
use std::thread;

use sheetbend_smol::SmolRuntime;
use sheetbend_tokio::Runtime;
use smol::Executor;
use smol::channel::{Receiver, Sender, bounded};

use super::load::Load;

/// Threads that run an executor until this is dropped.
pub(crate) struct Workers {
    executor: Arc<Executor<'static>>,
    /// They end when it is closed.
    _stop: Sender<()>,
}

impl Workers {
    /// The runtime for sessions.
    pub(crate) fn runtime(&self) -> Arc<dyn Runtime> {
        let executor = self.executor.clone();
        Arc::new(SmolRuntime::new(move |task| executor.spawn(task).detach()))
    }
}

/// Starts them within the tokio runtime of a measurement, and gives them the tasks of its load.
pub(crate) fn start(load: &Load) -> io::Result<Workers> {
    let executor = Arc::new(Executor::new());
    let (stop, stopped): (Sender<()>, Receiver<()>) = bounded(1);
    for number in 0..tokio::runtime::Handle::current().metrics().num_workers() {
        let (executor, stopped) = (executor.clone(), stopped.clone());
        let worker = thread::Builder::new().name(format!("smol {number}"));
        worker.spawn(move || smol::block_on(executor.run(stopped.recv())))?;
    }
    let tasks = executor.clone();
    load.spawn_on(move |task| tasks.spawn(task).detach());
    Ok(Workers {
        executor,
        _stop: stop,
    })
}
