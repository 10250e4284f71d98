//! A session between two ends in one program, on an executor of its own.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::Arc;

use sheetbend_smol::{Client, ErrorCode, Router, Runtime, Server, SmolRuntime};

fn main() -> Result<(), Box<dyn Error>> {
    let executor = Arc::new(smol::Executor::new());
    let tasks = executor.clone();
    let runtime = Arc::new(SmolRuntime::new(move |task| tasks.spawn(task).detach()));
    smol::block_on(executor.run(talk(runtime)))
}

async fn talk(runtime: Arc<dyn Runtime>) -> Result<(), Box<dyn Error>> {
    let server = Server::builder().listen("tcp://127.0.0.1:0")?;
    let server = server.bind(runtime.clone()).await?;
    let client = Client::builder().endpoint(&server.addresses()[0])?;
    let session = client.connect(runtime.clone()).await?;

    let greeter = Router::builder().unary("greet", |_, name| async move {
        Ok([b"Hello, ", &name[..], b"!"].concat())
    });
    let (greeter, peer) = (
        greeter.build(),
        server.accept().await.ok_or("the server was stopped")?,
    );
    runtime.spawn(Box::pin(async move {
        greeter.serve(peer).await;
    }));

    let answer = session.request("greet", "world").await?;
    println!("{}", String::from_utf8_lossy(&answer));
    session.close(ErrorCode::NONE, "done").await;
    Ok(())
}
