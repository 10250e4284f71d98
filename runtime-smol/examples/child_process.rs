//! A transport of one's own: a session over the standard input and output of a child process, as in
//! `ssh host program`. When the child dies, the next one carries the session on.
//!
//! ```text
//! cargo run -p sheetbend-smol --example child_process
//! ```
//!
//! Here the child is this program again. It passes bytes on to the server, which lives in the parent for once: behind
//! `ssh` it would be a daemon of that host, and the child what `sheetbend serve --stdio --to` is.
#![allow(clippy::print_stdout)]
// Threads of its own are what it is about.
#![allow(clippy::disallowed_methods)]

use std::env;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use sheetbend_smol::{
    Address, BoxFuture, Client, ErrorCode, Router, Runtime, Socket, Transport, piped, runtime,
};

/// Places like `cmd:ssh host program`: what a command reads and writes.
#[derive(Clone, Default)]
struct Commands {
    /// The last that was started, for this example to end.
    last: Arc<Mutex<Option<Arc<Mutex<Child>>>>>,
}

impl Transport for Commands {
    fn scheme(&self) -> &'static str {
        "cmd"
    }

    fn connect(&self, _: Arc<dyn Runtime>, place: String) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        let commands = self.clone();
        Box::pin(async move {
            let mut words = place.split_whitespace();
            let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
            let mut child = Command::new(program)
                .args(words)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let (input, output) = child
                .stdin
                .take()
                .zip(child.stdout.take())
                .ok_or(io::ErrorKind::Other)?;
            let child = Arc::new(Mutex::new(child));
            *commands.last.lock().expect("no panic") = Some(child.clone());
            // Two threads move the bytes, since a child's pipes block; the child goes when its output is not wanted.
            let socket = piped(&place, Output { output, child }, input)?;
            Ok(Box::new(socket) as Box<dyn Socket>)
        })
    }
}

/// What a child writes. It is not left behind.
struct Output {
    output: ChildStdout,
    child: Arc<Mutex<Child>>,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let mut child = self.child.lock().expect("no panic");
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The child's part: passes bytes on, both ways.
fn pass_on(address: &str) -> io::Result<()> {
    let mut server = TcpStream::connect(address)?;
    server.set_nodelay(true)?;
    let mut upstream = server.try_clone()?;
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut upstream);
        let _ = upstream.shutdown(Shutdown::Write);
    });
    let (mut block, mut output) = ([0; 65_536], io::stdout().lock());
    loop {
        let count = server.read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        output.write_all(&block[..count])?;
        output.flush()?;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(address) = env::args().nth(1) {
        return Ok(pass_on(&address)?);
    }
    smol::block_on(async {
        let server = sheetbend_smol::bind("tcp://127.0.0.1:0").await?;
        let address = server.addresses()[0].to_string();
        let commands = Commands::default();
        let program = env::current_exe()?;
        let place = format!("{} {}", program.display(), address.trim_start_matches("tcp://"));
        let place = Address::by(Arc::new(commands.clone()), &place);
        let session = Client::builder().endpoint(place)?.connect(runtime()).await?;
        let peer = server.accept().await.ok_or("the server was stopped")?;
        let router = Router::builder().unary("echo", |_, payload| async move { Ok(payload) });
        let router = router.build();
        smol::spawn(async move { router.serve(peer).await }).detach();

        for number in 1..=5 {
            let text = format!("call {number}");
            let answer = session.request("echo", text.clone()).await?;
            assert_eq!(answer, text);
            let child = commands
                .last
                .lock()
                .expect("no panic")
                .clone()
                .ok_or("there is one")?;
            println!(
                "{text} was answered through process {}",
                child.lock().expect("no panic").id()
            );
            child.lock().expect("no panic").kill()?;
        }
        session.close(ErrorCode::NONE, "done").await;
        Ok(())
    })
}
