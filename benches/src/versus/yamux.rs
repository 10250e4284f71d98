//! `yamux`: the crate of that name over tokio's TCP.
//!
//! A task at each end drives the connection. Echoes use a stream per caller, which stays, or a stream per
//! request; the better one is reported, as are the better windows and buffers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use yamux::{Config, Connection, Mode, Stream};

use super::bulk::payload;
use super::case::Test;
use super::load::{Caller, ECHO_BYTES, Load};
use super::net;
use super::peer::{Keep, Peer, Starting};
use super::rps::spawn_callers;
use super::rtt::echo_in_turn;
use super::streams::{Arrivals, WRITE_BYTES};
use super::yamux_socket::{Flush, Socket};

/// See the [module](self).
pub(crate) struct Yamux;

#[derive(Clone, Copy, Debug)]
struct Knobs {
    stream: PerWhat,
    flush: Flush,
    windows: Windows,
    frame_bytes: usize,
    kernel_bytes: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PerWhat {
    Caller,
    Request,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Windows {
    /// yamux's default: from 256 KiB a stream up to 1 GiB a connection, as the round trips suggest.
    Growing,
    /// 256 KiB a stream: so many streams are admitted that the connection's window has nothing to grow by.
    Fixed,
}

const FLUSHES: [Flush; 2] = [Flush::Unbuffered, Flush::PerFrame];
/// As many as the default connection window admits at 256 KiB each.
const MAX_STREAMS: usize = 4096;
/// yamux's default.
const FRAME_BYTES: usize = 16 << 10;
const BASE: Knobs = Knobs {
    stream: PerWhat::Caller,
    flush: Flush::Unbuffered,
    windows: Windows::Growing,
    frame_bytes: FRAME_BYTES,
    kernel_bytes: None,
};

impl Knobs {
    /// The settings worth trying in a test.
    fn of(test: Test) -> Vec<Knobs> {
        match test {
            // A thousand callers need more streams than the default; 64 bytes need no window.
            Test::Rtt | Test::Rps => [PerWhat::Caller, PerWhat::Request]
                .into_iter()
                .flat_map(|stream| {
                    FLUSHES.map(|flush| Knobs {
                        stream,
                        flush,
                        windows: Windows::Fixed,
                        ..BASE
                    })
                })
                .collect(),
            Test::Bulk | Test::Streams => Knobs::of_bytes(),
            Test::Idle => vec![BASE],
            Test::Large | Test::Items | Test::Pending | Test::Sim => Vec::new(),
        }
    }

    fn of_bytes() -> Vec<Knobs> {
        let fixed = Knobs {
            windows: Windows::Fixed,
            ..BASE
        };
        let mut all = FLUSHES.map(|flush| Knobs { flush, ..BASE }).to_vec();
        all.extend(FLUSHES.map(|flush| Knobs { flush, ..fixed }));
        all.push(Knobs {
            flush: Flush::PerFrame,
            frame_bytes: 64 << 10,
            ..fixed
        });
        for kernel_bytes in [Some(128 << 10), Some(256 << 10)] {
            all.push(Knobs {
                flush: Flush::PerFrame,
                kernel_bytes,
                ..fixed
            });
        }
        all
    }

    fn config(self) -> Config {
        let mut config = Config::default();
        if self.windows == Windows::Fixed {
            config.set_max_num_streams(MAX_STREAMS);
        }
        config.set_split_send_size(self.frame_bytes);
        config
    }

    fn label(self, test: Test) -> String {
        let stream = match (test, self.stream) {
            (Test::Rtt | Test::Rps, PerWhat::Caller) => "a stream per caller, ",
            (Test::Rtt | Test::Rps, PerWhat::Request) => "a stream per request, ",
            _ => "",
        };
        let windows = match self.windows {
            Windows::Growing => "growing windows (the default)",
            Windows::Fixed => "256 KiB windows",
        };
        let (flush, kernel) = (flush_label(self.flush), net::kernel_label(self.kernel_bytes));
        format!(
            "{stream}{windows}, {} KiB frames, {flush}, NODELAY, {kernel}",
            self.frame_bytes >> 10
        )
    }
}

fn flush_label(flush: Flush) -> &'static str {
    match flush {
        Flush::Unbuffered => "no buffers",
        Flush::PerFrame => "64 KiB buffers flushed per frame",
    }
}

impl Peer for Yamux {
    fn key(&self) -> &'static str {
        "yamux"
    }

    fn variants(&self, test: Test) -> Vec<String> {
        Knobs::of(test)
            .into_iter()
            .map(|knobs| knobs.label(test))
            .collect()
    }

    fn rtt<'a>(&'a self, variant: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let callers = echo_callers(Knobs::of(Test::Rtt)[variant], 1, load).await?;
            callers.into_iter().for_each(|caller| echo_in_turn(caller, load));
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn rps<'a>(&'a self, variant: usize, in_flight: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let callers = echo_callers(Knobs::of(Test::Rps)[variant], in_flight, load).await?;
            spawn_callers(callers, load);
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn bulk<'a>(&'a self, variant: usize, write_bytes: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let knobs = Knobs::of(Test::Bulk)[variant];
            let counting = load.clone();
            let opener = connect(knobs, load, move |stream| {
                counting.spawn(receive(stream, counting.clone(), None));
            });
            let opener = opener.await?;
            let stopping = load.clone();
            load.spawn(async move {
                let mut stream = opener.open().await?;
                let chunk = payload(write_bytes);
                while !stopping.stopped() {
                    stream.write_all(&chunk).await?;
                }
                Ok(())
            });
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn streams<'a>(&'a self, variant: usize, count: usize, bytes: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let knobs = Knobs::of(Test::Streams)[variant];
            let (counting, arrivals) = (load.clone(), Arrivals::new());
            let arriving = arrivals.clone();
            let opener = connect(knobs, load, move |stream| {
                counting.spawn(receive(stream, counting.clone(), Some(arriving.clone())));
            });
            let opener = opener.await?;
            let load_of_batches = load.clone();
            load.spawn(async move {
                while !load_of_batches.stopped() {
                    for _ in 0..count {
                        load_of_batches.spawn(send_stream(opener.clone(), bytes));
                    }
                    arrivals.wait_for(count).await;
                }
                Ok(())
            });
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn idle<'a>(&'a self, variant: usize, sessions: usize) -> Starting<'a> {
        Box::pin(async move {
            let knobs = Knobs::of(Test::Idle)[variant];
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            let load = Load::default();
            let mut openers = Vec::with_capacity(sessions);
            for _ in 0..sessions {
                let pair = net::pair_on(&listener, None).await?;
                let opener = attach(pair, knobs, &load, |stream| drop(tokio::spawn(echo(stream))));
                PerRequest(opener.clone()).call(&[7; ECHO_BYTES]).await?;
                openers.push(opener);
            }
            Ok(Some(Box::new(openers) as Keep))
        })
    }
}

/// An echo server, a connection to it, and callers on that.
async fn echo_callers(knobs: Knobs, count: usize, load: &Load) -> io::Result<Vec<EchoCaller>> {
    let opener = connect(knobs, load, |stream| drop(tokio::spawn(echo(stream)))).await?;
    let mut callers = Vec::with_capacity(count);
    for _ in 0..count {
        callers.push(match knobs.stream {
            PerWhat::Request => EchoCaller::PerRequest(PerRequest(opener.clone())),
            PerWhat::Caller => {
                // An echo each, since yamux opens only so many streams that are not acknowledged.
                let mut caller = PerCaller(opener.open().await?);
                caller.call(&[7; ECHO_BYTES]).await?;
                EchoCaller::PerCaller(caller)
            }
        });
    }
    Ok(callers)
}

enum EchoCaller {
    PerCaller(PerCaller),
    PerRequest(PerRequest),
}

impl Caller for EchoCaller {
    async fn call(&mut self, request: &[u8; ECHO_BYTES]) -> io::Result<[u8; ECHO_BYTES]> {
        match self {
            EchoCaller::PerCaller(caller) => caller.call(request).await,
            EchoCaller::PerRequest(caller) => caller.call(request).await,
        }
    }
}

struct PerCaller(Stream);

impl Caller for PerCaller {
    async fn call(&mut self, request: &[u8; ECHO_BYTES]) -> io::Result<[u8; ECHO_BYTES]> {
        self.0.write_all(request).await?;
        let mut response = [0; ECHO_BYTES];
        self.0.read_exact(&mut response).await?;
        Ok(response)
    }
}

struct PerRequest(Opener);

impl Caller for PerRequest {
    async fn call(&mut self, request: &[u8; ECHO_BYTES]) -> io::Result<[u8; ECHO_BYTES]> {
        let mut stream = PerCaller(self.0.open().await?);
        let response = stream.call(request).await?;
        stream.0.close().await?;
        Ok(response)
    }
}

async fn echo(mut stream: Stream) {
    let mut message = [0; ECHO_BYTES];
    while stream.read_exact(&mut message).await.is_ok() {
        if stream.write_all(&message).await.is_err() {
            return;
        }
    }
    let _ = stream.close().await;
}

async fn send_stream(opener: Opener, bytes: usize) -> io::Result<()> {
    let chunk = payload(WRITE_BYTES.min(bytes));
    let mut stream = opener.open().await?;
    for offset in (0..bytes).step_by(chunk.len()) {
        stream
            .write_all(&chunk[..chunk.len().min(bytes - offset)])
            .await?;
    }
    stream.close().await
}

/// Takes the stream's chunks as they are, without a copy.
async fn receive(mut stream: Stream, load: Load, arrivals: Option<Arrivals>) -> io::Result<()> {
    let counter = load.counter();
    while let Some(packet) = stream.next().await {
        counter.add(packet?.as_ref().len() as u64);
    }
    if let Some(arrivals) = arrivals {
        arrivals.one_arrived();
    }
    Ok(())
}

/// Asks the client's connection task for streams.
#[derive(Clone)]
struct Opener(mpsc::UnboundedSender<oneshot::Sender<Stream>>);

impl Opener {
    async fn open(&self) -> io::Result<Stream> {
        let (answer, stream) = oneshot::channel();
        self.0.send(answer).map_err(io::Error::other)?;
        stream.await.map_err(io::Error::other)
    }
}

async fn connect(
    knobs: Knobs,
    load: &Load,
    on_stream: impl FnMut(Stream) + Send + 'static,
) -> io::Result<Opener> {
    Ok(attach(
        net::pair(knobs.kernel_bytes).await?,
        knobs,
        load,
        on_stream,
    ))
}

/// Spawns both connection tasks.
fn attach(
    (client, server): (TcpStream, TcpStream),
    knobs: Knobs,
    load: &Load,
    on_stream: impl FnMut(Stream) + Send + 'static,
) -> Opener {
    let (opener, wanted) = mpsc::unbounded_channel();
    // The server opens nothing; its sender lives as long as its task.
    let (nobody, nothing) = mpsc::unbounded_channel();
    let server = Driver::new(server, knobs, Mode::Server, nothing);
    let client = Driver::new(client, knobs, Mode::Client, wanted);
    load.spawn(async move {
        let _nobody = nobody;
        server.run(on_stream).await
    });
    load.spawn(client.run(drop));
    Opener(opener)
}

struct Driver {
    connection: Connection<Socket>,
    wanted: mpsc::UnboundedReceiver<oneshot::Sender<Stream>>,
    opening: VecDeque<oneshot::Sender<Stream>>,
}

impl Driver {
    fn new(
        tcp: TcpStream,
        knobs: Knobs,
        mode: Mode,
        wanted: mpsc::UnboundedReceiver<oneshot::Sender<Stream>>,
    ) -> Driver {
        let socket = Socket::new(tcp, knobs.flush);
        let connection = Connection::new(socket, knobs.config(), mode);
        Driver {
            connection,
            wanted,
            opening: VecDeque::new(),
        }
    }

    async fn run(mut self, mut on_stream: impl FnMut(Stream)) -> io::Result<()> {
        poll_fn(move |cx| self.poll(cx, &mut on_stream)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, on_stream: &mut impl FnMut(Stream)) -> Poll<io::Result<()>> {
        while let Poll::Ready(Some(wanted)) = self.wanted.poll_recv(cx) {
            self.opening.push_back(wanted);
        }
        while !self.opening.is_empty() {
            match self.connection.poll_new_outbound(cx) {
                Poll::Ready(Ok(stream)) => {
                    let asked = self.opening.pop_front();
                    // Who no longer wants the stream drops it, which resets it.
                    asked.map(|asked| asked.send(stream));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Pending => break,
            }
        }
        loop {
            match self.connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => on_stream(stream),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }
}
