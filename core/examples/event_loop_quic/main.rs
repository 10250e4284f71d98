//! The core without any runtime, over QUIC: a client and a server, each an event loop of `mio` with one UDP socket.
//! `event_loop.rs` is the same over TCP, and the one to read first; `docs/guides/embedding.md` walks through both.
//!
//! ```text
//! cargo run -p sheetbend-core --features quic --example event_loop_quic
//! ```
#![allow(clippy::disallowed_methods, clippy::print_stdout)] // here is the clock, and here is somebody to talk to

mod client;
mod end;
mod link;
mod server;
mod udp;

use std::error::Error;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sheetbend_core::carrier::tls::{ServerTls, Trust};
use sheetbend_core::time::Timestamp;

use client::Client;
use server::Server;

type Anyhow<T> = Result<T, Box<dyn Error>>;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Streams that a path may use beside its first. QUIC's default settings let the peer open more than these.
const LANES: u16 = 64;
/// How long a connection has for its handshakes, and the last words of a path to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// The only clock: time since it was first asked.
fn clock() -> Timestamp {
    Timestamp::ZERO + ORIGIN.elapsed()
}

/// The only randomness: keys are made of it.
fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

fn main() -> Anyhow<()> {
    let (chain, key) = (
        include_bytes!("../../tests/certs/server.pem"),
        include_bytes!("../../tests/certs/server.key"),
    );
    let tls = ServerTls::from_pem(chain, key)?;
    let trust = Trust::Pins(tls.pin().into_iter().collect());
    let mut server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &tls)?;
    let mut client = Client::new(server.udp.socket.local_addr()?, &trust)?;
    std::thread::spawn(move || server.run().expect("the server's loop goes on"));
    for number in 1..=6 {
        let text = format!("message {number}");
        assert_eq!(client.ask(&text)?, text.as_bytes());
        let from = client.udp.socket.local_addr()?;
        println!(
            "{text} was answered over connection {} from {from}",
            client.connections
        );
        if number % 2 == 1 {
            client.move_elsewhere()?;
        } else {
            client.lose_connections();
        }
    }
    client.close()
}
