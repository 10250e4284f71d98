//! `tokio-tungstenite` over TCP: a message for each echo or chunk, flushed by itself.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use super::bulk::payload;
use super::case::Test;
use super::load::{Caller, Counter, ECHO_BYTES, Load};
use super::net;
use super::peer::{Keep, Peer, Starting};
use super::rtt::echo_in_turn;

/// See the [module](self).
pub(crate) struct Tungstenite;

type Socket = WebSocketStream<TcpStream>;

impl Peer for Tungstenite {
    fn key(&self) -> &'static str {
        "tungstenite"
    }

    fn variants(&self, test: Test) -> Vec<String> {
        let label = match test {
            Test::Rps => "a message per echo, each flushed by itself",
            _ => "defaults, a message per write",
        };
        vec![label.into()]
    }

    fn rtt<'a>(&'a self, _variant: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server) = pair().await?;
            load.spawn(echo(server));
            echo_in_turn(Direct(client), load);
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn rps<'a>(&'a self, variant: usize, in_flight: usize, load: &'a Load) -> Starting<'a> {
        if in_flight == 1 {
            return self.rtt(variant, load);
        }
        Box::pin(async move {
            let (client, server) = pair().await?;
            let (sink, stream) = client.split();
            let permits = Arc::new(Semaphore::new(in_flight));
            load.spawn(echo(server));
            load.spawn(send_all(sink, permits.clone()));
            load.spawn(receive_all(stream, permits, load.counter()));
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn bulk<'a>(&'a self, _variant: usize, write_bytes: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (mut client, mut server) = pair().await?;
            let chunk = Bytes::from(payload(write_bytes));
            load.spawn(async move {
                loop {
                    let message = Message::Binary(chunk.clone());
                    client.feed(message).await.map_err(io::Error::other)?;
                }
            });
            let counter = load.counter();
            load.spawn(async move {
                while let Some(message) = server.next().await {
                    counter.add(message.map_err(io::Error::other)?.len() as u64);
                }
                Ok(())
            });
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn idle<'a>(&'a self, _variant: usize, sessions: usize) -> Starting<'a> {
        Box::pin(async move {
            let mut kept = Vec::with_capacity(sessions);
            for _ in 0..sessions {
                let (client, server) = pair().await?;
                tokio::spawn(echo(server));
                let mut client = Direct(client);
                client.call(&[7; ECHO_BYTES]).await?;
                kept.push(client);
            }
            Ok(Some(Box::new(kept) as Keep))
        })
    }
}

async fn pair() -> io::Result<(Socket, Socket)> {
    let (client, server) = net::pair(None).await?;
    let (client, server) = tokio::join!(client_async("ws://localhost/", client), accept_async(server));
    let (client, _) = client.map_err(io::Error::other)?;
    Ok((client, server.map_err(io::Error::other)?))
}

async fn echo(mut socket: Socket) -> io::Result<()> {
    while let Some(message) = socket.next().await {
        let message = message.map_err(io::Error::other)?;
        socket.send(message).await.map_err(io::Error::other)?;
    }
    Ok(())
}

async fn send_all(mut sink: SplitSink<Socket, Message>, permits: Arc<Semaphore>) -> io::Result<()> {
    let request = Bytes::from_static(&[0x5a; ECHO_BYTES]);
    loop {
        let permit = permits.acquire().await.map_err(io::Error::other)?;
        permit.forget();
        sink.send(Message::Binary(request.clone()))
            .await
            .map_err(io::Error::other)?;
    }
}

async fn receive_all(
    mut stream: SplitStream<Socket>,
    permits: Arc<Semaphore>,
    counter: Arc<Counter>,
) -> io::Result<()> {
    while let Some(message) = stream.next().await {
        if message.map_err(io::Error::other)?.len() != ECHO_BYTES {
            return Err(io::Error::other("the echo is not what was sent"));
        }
        counter.add(1);
        permits.add_permits(1);
    }
    Ok(())
}

struct Direct(Socket);

impl Caller for Direct {
    async fn call(&mut self, request: &[u8; ECHO_BYTES]) -> io::Result<[u8; ECHO_BYTES]> {
        let message = Message::Binary(Bytes::copy_from_slice(request));
        self.0.send(message).await.map_err(io::Error::other)?;
        let answer = self.0.next().await.ok_or(io::ErrorKind::UnexpectedEof)?;
        let answer = answer.map_err(io::Error::other)?.into_data();
        answer[..].try_into().map_err(io::Error::other)
    }
}
