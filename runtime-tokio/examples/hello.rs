//! The example of the README: a server and a client, here in one program so that it runs by itself.
#![allow(clippy::print_stdout)]

use sheetbend_tokio::{Code, ErrorCode, Failure, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = sheetbend_tokio::bind("tcp://127.0.0.1:0").await?;
    let address = server.addresses()[0].clone();
    tokio::spawn(serve(server));

    let session = sheetbend_tokio::connect(address).await?;
    let answer = session.request("greet", "world").await?;
    println!("{}", String::from_utf8_lossy(&answer));
    session.close(ErrorCode::NONE, "done").await;
    Ok(())
}

async fn serve(server: Server) {
    while let Some(session) = server.accept().await {
        tokio::spawn(async move {
            while let Ok(request) = session.accept_request().await {
                let answer = format!("hello, {}", String::from_utf8_lossy(request.payload()));
                match request.method() {
                    "greet" => request.respond(answer),
                    _ => request.fail(Failure::new(Code::Unimplemented, "no such method")),
                }
            }
        });
    }
}
