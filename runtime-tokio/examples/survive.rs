//! A transfer that goes on while its connections are cut under it.
//!
//! ```text
//! cargo run -p sheetbend-tokio --example survive
//! ```
//!
//! Client and server talk through a relay that closes or resets each connection after 250 ms. The receiver
//! checks that every number comes once and in order.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use sheetbend_tokio::{Class, ErrorCode, Events, RecvStream, Server, Session, SessionEvent, bind, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};

type Failure = Box<dyn Error + Send + Sync>;

const CUT_EVERY: Duration = Duration::from_millis(250);
const RUN_FOR: Duration = Duration::from_secs(3);
const BUFFER: usize = 64 * 1024;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = bind("tcp://127.0.0.1:0").await?;
    let target = server.addresses()[0].to_string().replace("tcp://", "");
    let relay = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("tcp://{}", relay.local_addr()?);
    tokio::spawn(run_relay(relay, target));

    let receiver = tokio::spawn(receive(server));
    let session = connect(address).await?;
    let watcher = tokio::spawn(watch(session.clone(), session.events()));
    let sent = send(&session).await?;
    session.close(ErrorCode::NONE, "done").await;
    let received = receiver.await??;
    let cuts = watcher.await?;
    println!("{sent} numbers sent, {received} received in order, {cuts} connections lost on the way");
    assert_eq!(sent, received);
    Ok(())
}

/// Counts for as long as it may, and waits until the peer's session has it all.
async fn send(session: &Session) -> Result<u64, Failure> {
    let start = session.now();
    let stream = session.open_uni(Class::BULK).await?;
    let mut writer = BufWriter::with_capacity(BUFFER, stream);
    let mut next = 0;
    while session.now().since(start) < RUN_FOR {
        for _ in 0..BUFFER / 8 {
            writer.write_u64(next).await?;
            next += 1;
        }
    }
    writer.shutdown().await?;
    writer.get_mut().acknowledged().await?;
    Ok(next)
}

async fn receive(server: Server) -> Result<u64, Failure> {
    let session = server.accept().await.ok_or("the server was stopped")?;
    let stream: RecvStream = session.accept_uni(Class::BULK).await?;
    let mut reader = BufReader::with_capacity(BUFFER, stream);
    let mut expected = 0;
    loop {
        match reader.read_u64().await {
            Ok(number) if number == expected => expected += 1,
            Ok(number) => return Err(format!("{number} came where {expected} was due").into()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        }
    }
    // Dropping the session would close it, perhaps before the sender has its acknowledgement.
    session.closed().await;
    Ok(expected)
}

/// Tells of every connection that is lost, and how long the session was without one.
async fn watch(session: Session, mut events: Events) -> u32 {
    let (mut lost, mut down_at) = (0, None);
    while let Some(event) = events.next().await {
        match event {
            SessionEvent::PathDown { end, .. } if !session.state().is_terminal() => {
                lost += 1;
                down_at = Some((session.now(), end));
            }
            SessionEvent::PathUp { .. } => {
                if let Some((at, end)) = down_at.take() {
                    let gap = session.now().since(at);
                    println!("connection {lost} lost ({end:?}), resumed on another after {gap:.1?}");
                }
            }
            _ => {}
        }
    }
    lost
}

/// Forwards connections, and cuts each: every other one is reset instead of closed.
async fn run_relay(listener: TcpListener, target: String) -> std::io::Result<()> {
    for number in 0.. {
        let (mut near, _) = listener.accept().await?;
        let target = target.clone();
        tokio::spawn(async move {
            let mut far = TcpStream::connect(target).await?;
            let copy = tokio::io::copy_bidirectional(&mut near, &mut far);
            let cut = tokio::time::timeout(CUT_EVERY, copy).await.is_err();
            if cut && number % 2 == 1 {
                near.set_zero_linger()?;
            }
            std::io::Result::Ok(())
        });
    }
    Ok(())
}
