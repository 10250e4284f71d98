//! Sessions over what processes read and write: `cmd:ssh host sheetbend serve --stdio`, and the other end of it.

use crate::address::Address as Target;
use crate::failure::Failure;
use sheetbend_tokio::{Address, BoxFuture, Listener, Runtime, Socket, Transport, piped};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use tokio::sync::Notify;

/// What stands in front of a command.
pub const COMMAND: &str = "cmd:";

/// `cmd:COMMAND`: what a command of the shell reads and writes.
///
/// Nothing is known of what lies behind it, so its bytes count as plain, though `ssh` may carry them. A server cannot
/// name one: it is never parsed from what comes over the wire.
struct Shell;

/// The address of a command.
pub fn command(line: &str) -> Address {
    Address::by(Arc::new(Shell), line)
}

impl Transport for Shell {
    fn scheme(&self) -> &'static str {
        "cmd"
    }

    fn connect(&self, _: Arc<dyn Runtime>, line: String) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        Box::pin(async move {
            // As ssh does with its ProxyCommand: the shell makes way, so that it is the command that is stopped.
            let mut child = Command::new("/bin/sh")
                .args(["-c", &format!("exec {line}")])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(io::ErrorKind::BrokenPipe.into());
            };
            let socket = piped(&line, Output { output, child }, input)?;
            Ok(Box::new(socket) as Box<dyn Socket>)
        })
    }
}

/// What a child writes. It is stopped when nobody reads that any more.
struct Output {
    output: ChildStdout,
    child: Child,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This process's own standard input and output, to listen on: one connection, which is there from the beginning.
pub struct Standard {
    ended: Arc<Notify>,
}

impl Standard {
    /// `ended` is told when standard input is at its end.
    pub fn new(ended: Arc<Notify>) -> Standard {
        Standard { ended }
    }
}

impl Transport for Standard {
    fn scheme(&self) -> &'static str {
        "stdio"
    }

    fn connect(&self, _: Arc<dyn Runtime>, _: String) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn listen(&self, _: Arc<dyn Runtime>, _: String) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let ended = self.ended.clone();
        Box::pin(async move {
            let socket = piped("stdio", Input(ended.clone()), io::stdout())?;
            let only = Only {
                socket: Mutex::new(Some(Box::new(socket))),
                address: Address::by(Arc::new(Standard { ended }), ""),
            };
            Ok(Box::new(only) as Box<dyn Listener>)
        })
    }
}

/// Standard input, whose end is told.
struct Input(Arc<Notify>);

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::stdin().read(buffer)
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A listener of one connection.
struct Only {
    socket: Mutex<Option<Box<dyn Socket>>>,
    address: Address,
}

impl Listener for Only {
    fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<Box<dyn Socket>>> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        socket.map_or(Poll::Pending, |socket| Poll::Ready(Ok(socket)))
    }

    fn local_address(&self) -> Address {
        self.address.clone()
    }
}

/// Passes standard input and output on to a server, which outlives this process: `sheetbend serve --stdio --to`.
///
/// # Errors
/// It cannot be reached. An end of the connection is none.
pub fn pass_on(target: &Target) -> Result<(), Failure> {
    let unreachable = |error: io::Error| Failure::failed(format!("cannot reach {target}: {error}"));
    match target {
        Target::Tcp { host, port } => {
            let socket = std::net::TcpStream::connect((host.as_str(), *port)).map_err(unreachable)?;
            let set_up = socket.set_nodelay(true).and_then(|()| socket.try_clone());
            let writer = set_up.map_err(unreachable)?;
            copy_both(socket, writer, |writer| writer.shutdown(Shutdown::Write))
        }
        Target::Unix(path) => {
            let socket = UnixStream::connect(path).map_err(unreachable)?;
            let writer = socket.try_clone().map_err(unreachable)?;
            copy_both(socket, writer, |writer| writer.shutdown(Shutdown::Write))
        }
    }
    Ok(())
}

/// Copies until the server's side ends; the other way in a thread that is left to itself.
fn copy_both<W: Write + Send + 'static>(
    mut from: impl Read,
    mut to: W,
    shut: impl FnOnce(&W) -> io::Result<()> + Send + 'static,
) {
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut to);
        let _ = shut(&to);
    });
    let (mut block, mut out) = (vec![0; 65_536], io::stdout().lock());
    while let Ok(count) = from.read(&mut block) {
        if count == 0 || out.write_all(&block[..count]).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
