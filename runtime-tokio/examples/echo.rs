//! Requests: many at once on one connection, and the ways in which one can fail.
//!
//! ```text
//! cargo run -p sheetbend-tokio --example echo
//! cargo run -p sheetbend-tokio --example echo -- tcp://127.0.0.1:4433
//! ```
//!
//! Without an address it is server and client in one, and ends by itself. With an address it serves there
//! until it is stopped; `docs/examples/python/sheetbend_client.py` is a client for it.
#![allow(clippy::print_stdout)]

use std::error::Error;

use sheetbend_tokio::{CallError, Code, ErrorCode, Failure, Server, Session, bind, connect};

/// Requests that are under way at the same time.
const AT_ONCE: u32 = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(address) = std::env::args().nth(1) {
        let server = bind(address).await?;
        println!("listening on {}", server.addresses()[0]);
        serve(server).await;
        return Ok(());
    }
    let server = bind("tcp://127.0.0.1:0").await?;
    let session = connect(&server.addresses()[0]).await?;
    tokio::spawn(serve(server));

    all_at_once(&session).await?;
    failures(&session).await;
    session.close(ErrorCode::NONE, "done").await;
    Ok(())
}

/// A task for every session.
async fn serve(server: Server) {
    while let Some(session) = server.accept().await {
        tokio::spawn(answer(session));
    }
}

/// One request after the other. Where answers take time, move the request to a task of its own.
async fn answer(session: Session) {
    while let Ok(mut request) = session.accept_request().await {
        match request.method() {
            "echo" => {
                let payload = request.take_payload();
                request.respond(payload);
            }
            "forget" => drop(request),
            _ => request.fail(Failure::new(Code::Unimplemented, "no such method")),
        }
    }
}

/// Each request is a stream of its own: none waits for another.
async fn all_at_once(session: &Session) -> Result<(), Box<dyn Error>> {
    let start = session.now();
    let mut calls = Vec::new();
    for number in 0..AT_ONCE {
        let session = session.clone();
        calls.push(tokio::spawn(async move {
            let answer = session.request("echo", number.to_be_bytes().to_vec()).await?;
            assert_eq!(answer[..], number.to_be_bytes());
            Ok::<(), CallError>(())
        }));
    }
    for call in calls {
        call.await??;
    }
    let took = session.now().since(start);
    println!("{AT_ONCE} requests answered in {took:.1?}");
    Ok(())
}

/// What was not executed, what may have been, and what failed are told apart.
async fn failures(session: &Session) {
    for method in ["unknown", "forget"] {
        match session.request(method, "").await {
            Ok(_) => println!("{method}: answered"),
            Err(CallError::Failed(failure)) => println!("{method}: the server says: {failure}"),
            Err(CallError::NotSent(why)) => println!("{method}: not executed, may be repeated: {why}"),
            Err(CallError::MaybeExecuted(why)) => println!("{method}: perhaps executed: {why}"),
        }
    }
}
