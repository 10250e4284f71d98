//! Byte streams: tokio's read and write traits, both directions, and knowing that all has arrived.
//!
//! ```text
//! cargo run -p sheetbend-tokio --example streaming
//! ```
#![allow(clippy::print_stdout)]

use std::error::Error;

use sheetbend_tokio::{BiStream, Class, Delivery, ErrorCode, Session, bind, connect};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Bytes of the upload.
const UPLOAD: usize = 64 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = bind("tcp://127.0.0.1:0").await?;
    let session = connect(&server.addresses()[0]).await?;
    let peer = server.accept().await.ok_or("the server was stopped")?;
    tokio::spawn(take_uploads(peer.clone()));
    tokio::spawn(take_conversations(peer.clone()));

    upload(&session).await?;
    converse(&session).await?;
    messages(&session, &peer).await?;
    session.close(ErrorCode::NONE, "done").await;
    Ok(())
}

/// One direction. The class says how urgent it is: BULK gives way to everything else.
async fn upload(session: &Session) -> Result<(), Box<dyn Error>> {
    let mut stream = session.open_uni(Class::BULK).await?;
    let chunk = bytes::Bytes::from(vec![7; 256 * 1024]);
    for _ in 0..UPLOAD / chunk.len() {
        // Waits while the receiver is slower; hands the chunk over without copying it.
        stream.write_chunk(chunk.clone()).await?;
    }
    stream.finish()?;
    // Until here it may be under way. From here on the peer's session has all of it.
    stream.acknowledged().await?;
    let progress = stream.progress();
    println!("upload: {} bytes acknowledged", progress.acknowledged);
    Ok(())
}

async fn take_uploads(peer: Session) {
    while let Ok(mut stream) = peer.accept_uni(Class::BULK).await {
        let copied = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        println!("server: an upload of {} bytes", copied.unwrap_or(0));
    }
}

/// Both directions, line by line. The server hears of a stream with its first bytes.
async fn converse(session: &Session) -> Result<(), Box<dyn Error>> {
    let mut stream = session.open_bi(Class::CONTROL).await?;
    stream.write_all(b"one\ntwo\nthree\n").await?;
    stream.finish()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("conversation: {}", answer.trim_end().replace('\n', ", "));
    Ok(())
}

async fn take_conversations(peer: Session) {
    while let Ok(stream) = peer.accept_bi(Class::CONTROL).await {
        tokio::spawn(async move {
            if let Err(error) = reverse_lines(stream).await {
                println!("server: the conversation failed: {error}");
            }
        });
    }
}

async fn reverse_lines(stream: BiStream) -> std::io::Result<()> {
    let (mut out, input) = stream.split();
    let mut lines = BufReader::new(input).lines();
    while let Some(line) = lines.next_line().await? {
        let reversed: String = line.chars().rev().collect();
        AsyncWriteExt::write_all(&mut out, format!("{reversed}\n").as_bytes()).await?;
    }
    out.shutdown().await
}

/// Where a payload is one piece, a message is less work than a stream.
async fn messages(session: &Session, peer: &Session) -> Result<(), Box<dyn Error>> {
    for word in ["first", "second"] {
        session
            .send_message(Class::EVENTS, Delivery::Ordered, word)
            .await?;
    }
    for _ in 0..2 {
        let message = peer.recv_message(Class::EVENTS).await?;
        println!("message: {}", String::from_utf8_lossy(&message.payload));
    }
    Ok(())
}
