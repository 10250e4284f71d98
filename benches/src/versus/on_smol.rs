//! Workers of smol: threads, each of which runs one executor and takes its turn at the reactor.

use std::io;
use std::sync::Arc;
use std::thread;

use sheetbend_smol::SmolRuntime;
use sheetbend_tokio::Runtime;
use smol::Executor;
use smol::channel::{Receiver, Sender, bounded};

use super::load::{Load, Spawn};

type Shared = Arc<Executor<'static>>;

/// Threads that run executors until this is dropped.
pub(crate) struct Workers {
    near: Shared,
    far: Shared,
    /// They end when it is closed.
    _stop: Sender<()>,
}

/// How executors and threads are shared out.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    /// One executor, on as many threads as the measurement's tokio runtime has.
    AsTokio,
    /// One executor on one thread, which is smol's own default (`SMOL_THREADS`).
    One,
    /// An executor on a thread of its own for each end, as two programs would have it.
    OneEach,
}

impl Threads {
    /// Every way, with what the report calls it.
    pub(crate) const ALL: [(Threads, &'static str); 3] = [
        (Threads::AsTokio, "as many executor threads"),
        (Threads::One, "one executor thread, smol's default"),
        (Threads::OneEach, "an executor thread for each end"),
    ];
}

impl Workers {
    /// The runtimes for the client's session, and for the server's.
    pub(crate) fn runtimes(&self) -> [Arc<dyn Runtime>; 2] {
        [&self.near, &self.far].map(|executor| {
            let executor = executor.clone();
            Arc::new(SmolRuntime::new(move |task| executor.spawn(task).detach())) as Arc<dyn Runtime>
        })
    }
}

/// Starts them within the tokio runtime of a measurement, and gives them the tasks of its load.
pub(crate) fn start(load: &Load, threads: Threads) -> io::Result<Workers> {
    let near = Shared::default();
    let (stop, stopped) = bounded(1);
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let far = match threads {
        Threads::AsTokio | Threads::One => near.clone(),
        Threads::OneEach => Shared::default(),
    };
    run(&near, &stopped)?;
    match threads {
        Threads::One => {}
        Threads::AsTokio => (1..workers).try_for_each(|_| run(&near, &stopped))?,
        Threads::OneEach => run(&far, &stopped)?,
    }
    load.spawn_on(spawner(&near), spawner(&far));
    Ok(Workers {
        near,
        far,
        _stop: stop,
    })
}

/// One thread of an executor.
fn run(executor: &Shared, stopped: &Receiver<()>) -> io::Result<()> {
    let (executor, stopped) = (executor.clone(), stopped.clone());
    let worker = thread::Builder::new().name("smol".into());
    worker.spawn(move || smol::block_on(executor.run(stopped.recv())))?;
    Ok(())
}

fn spawner(executor: &Shared) -> Spawn {
    let executor = executor.clone();
    Box::new(move |task| executor.spawn(task).detach())
}
