//! The suite on smol: an executor of this test's own on one thread.

use std::future::Future;
use std::sync::Arc;

use sheetbend_conformance::{Env, limited};
use sheetbend_smol::SmolRuntime;

fn run<F: Future<Output = ()> + Send + 'static>(case: impl FnOnce(Env) -> F) {
    let dir = tempfile::tempdir().expect("a directory");
    let executor = Arc::new(smol::Executor::new());
    let tasks = executor.clone();
    let runtime = Arc::new(SmolRuntime::new(move |task| tasks.spawn(task).detach()));
    let env = Env::new(runtime, dir.path());
    smol::block_on(executor.run(limited(env.clone(), case(env))));
}

sheetbend_conformance::suite!(run);
