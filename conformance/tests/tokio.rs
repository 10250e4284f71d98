//! The suite on tokio.

use std::future::Future;

use sheetbend_conformance::{Env, limited};

fn run<F: Future<Output = ()> + Send + 'static>(case: impl FnOnce(Env) -> F) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let tokio = builder.worker_threads(2).enable_all().build().expect("a runtime");
    tokio.block_on(async {
        let env = Env::new(sheetbend_tokio::runtime(), dir.path());
        limited(env.clone(), case(env)).await;
    });
}

sheetbend_conformance::suite!(run);
