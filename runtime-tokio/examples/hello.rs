//! The example of the README: a server and a client, here in one program so that it runs by itself.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use sheetbend_tokio::{Code, ErrorCode, Failure, Router};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = sheetbend_tokio::bind("tcp://127.0.0.1:0").await?;
    let address = server.addresses()[0].clone();
    tokio::spawn(async move { server.serve(&router()).await });

    let session = sheetbend_tokio::connect(address).await?;
    let answer = session.request("greet", "world").await?;
    println!("{}", String::from_utf8_lossy(&answer));

    let call = session.call("count").timeout(Duration::from_secs(5));
    let mut numbers = call.server_streaming("3").await?;
    while let Some(number) = numbers.next().await? {
        println!("{}", String::from_utf8_lossy(&number));
    }
    session.close(ErrorCode::NONE, "done").await;
    Ok(())
}

fn router() -> Router {
    Router::builder()
        .unary("greet", |_, name| async move {
            Ok(format!("hello, {}", String::from_utf8_lossy(&name)))
        })
        .server_streaming("count", |_, to, mut out| async move {
            let to: u32 = String::from_utf8_lossy(&to)
                .parse()
                .map_err(|_| Failure::new(Code::InvalidArgument, "not a number"))?;
            for number in 1..=to {
                out.send(number.to_string()).await?;
            }
            Ok(())
        })
        .build()
}
