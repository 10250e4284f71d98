//! The WebSocket machine by itself, without sessions: it sends every message back, for conformance suites.
//!
//! `websocket_echo serve 127.0.0.1:9001` for Autobahn's fuzzingclient, `websocket_echo run 127.0.0.1:9002` for its
//! fuzzingserver: asks how many cases there are, and takes part in each. On blocking sockets, a thread each.
#![allow(clippy::print_stdout, clippy::disallowed_methods)] // a program

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sheetbend_core::carrier::http::Guard;
use sheetbend_core::carrier::websocket::{ClientHandshake, Limits, Message, ServerHandshake, WebSocket};
use sheetbend_core::rng::Rng;
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;

/// As large as the suite's largest case.
const LIMITS: Limits = Limits {
    message: 64 << 20,
    frames: 1 << 20,
    idle_frames: 1 << 20,
    text: true,
};

struct Connection {
    socket: TcpStream,
    machine: WebSocket,
    input: BytesMut,
    clean: usize,
}

impl Connection {
    fn new(socket: TcpStream, mut machine: WebSocket) -> Connection {
        machine.stop_at_messages();
        Connection {
            socket,
            machine,
            input: BytesMut::new(),
            clean: 0,
        }
    }

    fn send(&mut self, message: Option<(Bytes, Message)>) -> io::Result<()> {
        let mut out = OutBuffer::new();
        self.machine.prepare(&mut out);
        let kind = message.as_ref().map_or(Message::Binary, |(_, kind)| *kind);
        let empty = message.as_ref().is_some_and(|(bytes, _)| bytes.is_empty());
        out.put_shared(message.map(|(bytes, _)| bytes).unwrap_or_default());
        match empty {
            true => self.machine.seal_empty(&mut out, kind),
            false => self.machine.seal_as(&mut out, kind),
        }
        self.write(&mut out)
    }

    fn write(&mut self, out: &mut OutBuffer) -> io::Result<()> {
        while !out.is_empty() {
            let count = self.socket.write(out.chunk())?;
            out.advance(count);
        }
        Ok(())
    }

    /// The next message; `None` when the peer has closed, or broke the rules.
    fn next(&mut self) -> io::Result<Option<(Bytes, Message)>> {
        loop {
            let broken = self
                .machine
                .handle_input(Timestamp::ZERO, &mut self.input, &mut self.clean)
                .is_err();
            if let Some(kind) = self.machine.take_message() {
                let message = self.input.split_to(self.clean).freeze();
                self.clean = 0;
                return Ok(Some((message, kind)));
            }
            if self.machine.has_output() {
                self.send(None)?;
            }
            if broken || self.machine.is_ended() {
                let mut out = OutBuffer::new();
                self.machine.close(&mut out);
                self.write(&mut out)?;
                self.socket.shutdown(Shutdown::Write)?;
                let _ = io::copy(&mut self.socket, &mut io::sink());
                return Ok(None);
            }
            let mut piece = vec![0; 64 * 1024];
            match self.socket.read(&mut piece)? {
                0 => return Ok(None),
                count => self.input.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn echo(mut self) -> io::Result<()> {
        while let Some(message) = self.next()? {
            self.send(Some(message))?;
        }
        Ok(())
    }
}

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    for socket in listener.incoming() {
        let handshake = ServerHandshake {
            guard: Arc::new(Guard::default()),
            path: "/".into(),
            encrypted: false,
            protocol: None,
        };
        let connection = Connection::new(socket?, WebSocket::server(handshake, LIMITS));
        std::thread::spawn(move || connection.echo());
    }
    Ok(())
}

fn ask(address: &str, target: &str, number: u64) -> io::Result<Connection> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let handshake = ClientHandshake {
        host: address.to_owned(),
        target: target.to_owned(),
        origin: None,
        protocol: None,
    };
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let machine = WebSocket::client(handshake, LIMITS, Rng::from_seed(seed));
    let mut connection = Connection::new(socket, machine);
    connection.send(None)?;
    Ok(connection)
}

fn run(address: &str) -> io::Result<()> {
    let agent = "agent=sheetbend";
    let count = ask(address, "/getCaseCount", 0)?.next()?;
    let count = count.and_then(|(text, _)| std::str::from_utf8(&text).ok()?.parse().ok());
    let count: u64 = count.ok_or(io::ErrorKind::InvalidData)?;
    for case in 1..=count {
        // The suite ends some cases by a reset.
        let _ = ask(address, &format!("/runCase?case={case}&{agent}"), case)?.echo();
    }
    ask(address, &format!("/updateReports?{agent}"), 0)?.echo()?;
    println!("took part in {count} cases");
    Ok(())
}

fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    match (words.next().as_deref(), words.next()) {
        (Some("serve"), Some(address)) => serve(&address),
        (Some("run"), Some(address)) => run(&address),
        _ => Err(io::Error::other("usage: websocket_echo serve|run ADDRESS")),
    }
}
