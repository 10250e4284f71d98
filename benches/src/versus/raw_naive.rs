//! `raw-naive`: tokio's TCP streams with TCP_NODELAY and one write for each message.
//!
//! In `rps` nobody waits for anything by name: one task writes, one reads, and a count bounds what is in
//! flight. In `streams` it is a connection for each stream, opened beforehand.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::bulk::{payload, read_forever, write_forever};
use super::case::Test;
use super::load::{Caller, ECHO_BYTES, Load};
use super::peer::{Keep, Peer, Starting};
use super::rtt::echo_in_turn;
use super::streams::{Arrivals, WRITE_BYTES};
use super::{load, net};

/// See the [module](self).
pub(crate) struct RawNaive;

/// Buffers that are worth trying where bytes move: the reader's, and the kernel's.
const BUFFERS: [(usize, Option<usize>); 11] = [
    (16 << 10, None),
    (64 << 10, None),
    (256 << 10, None),
    (64 << 10, Some(64 << 10)),
    (256 << 10, Some(64 << 10)),
    (16 << 10, Some(128 << 10)),
    (64 << 10, Some(128 << 10)),
    (16 << 10, Some(256 << 10)),
    (64 << 10, Some(256 << 10)),
    (256 << 10, Some(256 << 10)),
    (256 << 10, Some(1 << 20)),
];
const READ_BYTES: usize = 64 << 10;

impl Peer for RawNaive {
    fn key(&self) -> &'static str {
        "raw-naive"
    }

    fn variants(&self, test: Test) -> Vec<String> {
        let label = |(read, kernel): (usize, Option<usize>)| {
            format!("NODELAY, {} KiB reads, {}", read >> 10, net::kernel_label(kernel))
        };
        match test {
            Test::Rtt => vec!["NODELAY, a write per message".into()],
            Test::Rps => vec![format!(
                "NODELAY, a write per message, {} KiB reads",
                READ_BYTES >> 10
            )],
            Test::Bulk => BUFFERS.map(label).into(),
            Test::Streams => BUFFERS
                .map(label)
                .map(|text| format!("a connection each, {text}"))
                .into(),
            Test::Idle => vec!["a task at the server waits to read, no buffer".into()],
            Test::Large | Test::Items | Test::Pending | Test::Sim => Vec::new(),
        }
    }

    fn rtt<'a>(&'a self, _variant: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server) = net::pair(None).await?;
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
            let (client, server) = net::pair(None).await?;
            let (reader, writer) = client.into_split();
            let permits = Arc::new(Semaphore::new(in_flight));
            load.spawn(echo_pipelined(server));
            load.spawn(send_all(writer, permits.clone()));
            load.spawn(receive_all(reader, permits, load.counter()));
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn bulk<'a>(&'a self, variant: usize, write_bytes: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (read_bytes, kernel) = BUFFERS[variant];
            let (client, server) = net::pair(kernel).await?;
            read_forever(server, read_bytes, load);
            write_forever(client, write_bytes, load);
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn streams<'a>(&'a self, variant: usize, count: usize, bytes: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (read_bytes, kernel) = BUFFERS[variant];
            let arrivals = Arrivals::new();
            let mut clients = Vec::with_capacity(count);
            for _ in 0..count {
                let (client, server) = net::pair(kernel).await?;
                clients.push(client);
                load.spawn(count_streams(
                    server,
                    read_bytes,
                    bytes,
                    load.counter(),
                    arrivals.clone(),
                ));
            }
            load.spawn(send_batches(clients, bytes, arrivals, load.clone()));
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn idle<'a>(&'a self, _variant: usize, sessions: usize) -> Starting<'a> {
        Box::pin(async move {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            let mut clients = Vec::with_capacity(sessions);
            for _ in 0..sessions {
                let (client, server) = net::pair_on(&listener, None).await?;
                tokio::spawn(echo_without_buffer(server));
                let mut client = Direct(client);
                client.call(&[7; ECHO_BYTES]).await?;
                clients.push(client);
            }
            Ok(Some(Box::new(clients) as Keep))
        })
    }
}

struct Direct(TcpStream);

impl Caller for Direct {
    async fn call(&mut self, request: &[u8; ECHO_BYTES]) -> io::Result<[u8; ECHO_BYTES]> {
        self.0.write_all(request).await?;
        let mut response = [0; ECHO_BYTES];
        self.0.read_exact(&mut response).await?;
        Ok(response)
    }
}

async fn echo(mut socket: TcpStream) -> io::Result<()> {
    let mut message = [0; ECHO_BYTES];
    loop {
        socket.read_exact(&mut message).await?;
        socket.write_all(&message).await?;
    }
}

async fn echo_without_buffer(socket: TcpStream) -> io::Result<()> {
    loop {
        socket.readable().await?;
        let mut message = [0; ECHO_BYTES];
        match socket.try_read(&mut message) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                socket.writable().await?;
                socket.try_write(&message[..n])?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads as much as there is, writes each message by itself.
async fn echo_pipelined(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        match socket.read(&mut buffer[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
        let whole = filled - filled % ECHO_BYTES;
        for message in buffer[..whole].chunks_exact(ECHO_BYTES) {
            socket.write_all(message).await?;
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

async fn send_all(mut writer: OwnedWriteHalf, permits: Arc<Semaphore>) -> io::Result<()> {
    let mut serial = 0_u64;
    while let Ok(permit) = permits.acquire().await {
        permit.forget();
        serial += 1;
        writer.write_all(&message(serial)).await?;
    }
    Ok(())
}

async fn receive_all(
    mut reader: OwnedReadHalf,
    permits: Arc<Semaphore>,
    counter: Arc<load::Counter>,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let (mut filled, mut serial) = (0, 0_u64);
    loop {
        match reader.read(&mut buffer[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
        let (messages, rest) = buffer[..filled].as_chunks::<ECHO_BYTES>();
        let (count, rest) = (messages.len(), rest.len());
        for response in messages {
            serial += 1;
            load::check_echo(&message(serial), response)?;
        }
        permits.add_permits(count);
        counter.add(count as u64);
        buffer.copy_within(filled - rest..filled, 0);
        filled = rest;
    }
}

fn message(serial: u64) -> [u8; ECHO_BYTES] {
    let mut message = [0x5a; ECHO_BYTES];
    message[..8].copy_from_slice(&serial.to_le_bytes());
    message
}

async fn send_batches(
    mut clients: Vec<TcpStream>,
    bytes: usize,
    arrivals: Arrivals,
    load: Load,
) -> io::Result<()> {
    let chunk: Arc<[u8]> = payload(WRITE_BYTES).into();
    while !load.stopped() {
        let count = clients.len();
        let sending: Vec<_> = clients
            .drain(..)
            .map(|mut client| {
                let chunk = chunk.clone();
                tokio::spawn(async move {
                    let mut left = bytes;
                    while left > 0 {
                        let n = left.min(chunk.len());
                        client.write_all(&chunk[..n]).await?;
                        left -= n;
                    }
                    io::Result::Ok(client)
                })
            })
            .collect();
        for client in sending {
            clients.push(client.await??);
        }
        arrivals.wait_for(count).await;
    }
    Ok(())
}

async fn count_streams(
    mut socket: TcpStream,
    read_bytes: usize,
    stream_bytes: usize,
    counter: Arc<load::Counter>,
    arrivals: Arrivals,
) -> io::Result<()> {
    let mut buffer = vec![0; read_bytes];
    let mut received = 0;
    loop {
        match socket.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                counter.add(n as u64);
                received += n;
            }
        }
        if received >= stream_bytes {
            received -= stream_bytes;
            arrivals.one_arrived();
        }
    }
}
