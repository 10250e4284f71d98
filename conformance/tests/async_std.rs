//! The suite on async-std's executor, whose threads all tests share. async-std is unmaintained: this shows that nothing
//! but an executor is needed, and advises nobody to use it.

use std::future::Future;
use std::sync::Arc;

use sheetbend_conformance::{Env, limited};
use sheetbend_smol::SmolRuntime;

fn run<F: Future<Output = ()> + Send + 'static>(case: impl FnOnce(Env) -> F) {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = SmolRuntime::new(|task| drop(async_std::task::spawn(task)));
    let env = Env::new(Arc::new(runtime), dir.path());
    async_std::task::block_on(limited(env.clone(), case(env)));
}

sheetbend_conformance::suite!(run);
