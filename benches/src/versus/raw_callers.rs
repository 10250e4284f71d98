//! `raw-callers`: the limit of anything with a call interface over tokio's TCP.
//!
//! A message is an id, a length and the payload. Callers append requests to one shared buffer and wait by id.
//! One task at the client writes all that is queued with one write, reads all that has come, completes the
//! callers it was for, lets them run, and starts again; while it is awake nobody has to wake it. The server
//! answers all that one read brought with one write. No flow control, no cancellation, no acknowledgement.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::case::Test;
use super::load::{Caller, ECHO_BYTES, Load, lock};
use super::net;
use super::peer::{Keep, Peer, Starting};
use super::rps::spawn_callers;

/// See the [module](self).
pub(crate) struct RawCallers;

/// Read buffers worth trying, and whether the client's task lets callers run before it writes.
const VARIANTS: [(usize, bool); 3] = [(64 << 10, true), (256 << 10, true), (64 << 10, false)];
/// Id and length, four bytes each, and the payload.
const MESSAGE_BYTES: usize = 8 + ECHO_BYTES;

impl Peer for RawCallers {
    fn key(&self) -> &'static str {
        "raw-callers"
    }

    fn variants(&self, _test: Test) -> Vec<String> {
        let label = |(read, yields)| {
            let turn = if yields {
                "callers run before each write"
            } else {
                "writes at once"
            };
            format!("NODELAY, {} KiB reads, {turn}", read >> 10)
        };
        VARIANTS.map(label).into()
    }

    fn rps<'a>(&'a self, variant: usize, in_flight: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (read_bytes, yields) = VARIANTS[variant];
            let (client, server) = net::pair(None).await?;
            let shared = Arc::new(Mutex::new(Shared::default()));
            load.spawn(serve(server, read_bytes));
            load.spawn(drive(client, shared.clone(), read_bytes, yields));
            spawn_callers((0..in_flight).map(|_| ById(shared.clone())), load);
            Ok(Some(Box::new(()) as Keep))
        })
    }
}

/// What callers and the client's task share.
#[derive(Default)]
struct Shared {
    out: Vec<u8>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The client's task, if it sleeps.
    driver: Option<Waker>,
}

enum Slot {
    Free,
    Waiting(Waker),
    Done([u8; ECHO_BYTES]),
}

impl Shared {
    fn send(&mut self, payload: &[u8; ECHO_BYTES], waker: Waker) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            (self.slots.len() - 1) as u32
        });
        self.slots[id as usize] = Slot::Waiting(waker);
        append(&mut self.out, id, payload);
        id
    }

    fn complete(&mut self, id: u32, payload: &[u8; ECHO_BYTES]) -> io::Result<Waker> {
        match self
            .slots
            .get_mut(id as usize)
            .map(|slot| std::mem::replace(slot, Slot::Done(*payload)))
        {
            Some(Slot::Waiting(waker)) => Ok(waker),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an answer that nobody waits for",
            )),
        }
    }
}

struct ById(Arc<Mutex<Shared>>);

impl Caller for ById {
    fn call(
        &mut self,
        request: &[u8; ECHO_BYTES],
    ) -> impl Future<Output = io::Result<[u8; ECHO_BYTES]>> + Send {
        Call {
            shared: &self.0,
            request: *request,
            id: None,
        }
    }
}

struct Call<'a> {
    shared: &'a Mutex<Shared>,
    request: [u8; ECHO_BYTES],
    id: Option<u32>,
}

impl Future for Call<'_> {
    type Output = io::Result<[u8; ECHO_BYTES]>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.get_mut();
        let mut shared = lock(call.shared);
        let Some(id) = call.id else {
            call.id = Some(shared.send(&call.request, cx.waker().clone()));
            let driver = shared.driver.take();
            drop(shared);
            if let Some(driver) = driver {
                driver.wake();
            }
            return Poll::Pending;
        };
        match &mut shared.slots[id as usize] {
            Slot::Done(payload) => {
                let payload = *payload;
                shared.slots[id as usize] = Slot::Free;
                shared.free.push(id);
                Poll::Ready(Ok(payload))
            }
            Slot::Waiting(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            Slot::Free => Poll::Ready(Err(io::Error::other("the slot of a call is free"))),
        }
    }
}

/// The client's task.
async fn drive(
    mut socket: TcpStream,
    shared: Arc<Mutex<Shared>>,
    read_bytes: usize,
    yields: bool,
) -> io::Result<()> {
    let mut out = Vec::new();
    let mut input = Input::new(read_bytes);
    let mut woken = Vec::new();
    loop {
        out.clear();
        std::mem::swap(&mut out, &mut lock(&shared).out);
        if !out.is_empty() {
            socket.write_all(&out).await?;
        }
        match input.try_read_from(&socket)? {
            None => wait(&socket, &shared).await?,
            Some(messages) => {
                let mut shared = lock(&shared);
                for (id, payload) in messages {
                    woken.push(shared.complete(id, payload)?);
                }
            }
        }
        input.discard_whole();
        if !woken.is_empty() {
            woken.drain(..).for_each(Waker::wake);
            if yields {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Waits until there is something to read or to write.
async fn wait(socket: &TcpStream, shared: &Mutex<Shared>) -> io::Result<()> {
    poll_fn(|cx| {
        {
            let mut shared = lock(shared);
            if !shared.out.is_empty() {
                shared.driver = None;
                return Poll::Ready(Ok(()));
            }
            shared.driver = Some(cx.waker().clone());
        }
        socket.poll_read_ready(cx)
    })
    .await?;
    lock(shared).driver = None;
    Ok(())
}

/// The server's task.
async fn serve(mut socket: TcpStream, read_bytes: usize) -> io::Result<()> {
    let mut input = Input::new(read_bytes);
    let mut out = Vec::with_capacity(read_bytes);
    loop {
        for (id, payload) in input.read_from(&mut socket).await? {
            append(&mut out, id, payload);
        }
        input.discard_whole();
        if !out.is_empty() {
            socket.write_all(&out).await?;
            out.clear();
        }
    }
}

fn append(out: &mut Vec<u8>, id: u32, payload: &[u8; ECHO_BYTES]) {
    let mut message = [0; MESSAGE_BYTES];
    message[..4].copy_from_slice(&id.to_le_bytes());
    message[4..8].copy_from_slice(&(ECHO_BYTES as u32).to_le_bytes());
    message[8..].copy_from_slice(payload);
    out.extend_from_slice(&message);
}

/// A read buffer that hands out whole messages.
struct Input {
    buffer: Vec<u8>,
    filled: usize,
}

/// `None` if the length is not an echo's.
fn parse(message: &[u8; MESSAGE_BYTES]) -> Option<Message<'_>> {
    let (id, rest) = message.split_first_chunk::<4>()?;
    let (len, payload) = rest.split_first_chunk::<4>()?;
    let payload = payload.first_chunk::<ECHO_BYTES>()?;
    (u32::from_le_bytes(*len) as usize == ECHO_BYTES).then_some((u32::from_le_bytes(*id), payload))
}

type Message<'a> = (u32, &'a [u8; ECHO_BYTES]);

impl Input {
    fn new(bytes: usize) -> Input {
        Input {
            buffer: vec![0; bytes],
            filled: 0,
        }
    }

    /// `None` if there is nothing to read.
    fn try_read_from(&mut self, socket: &TcpStream) -> io::Result<Option<impl Iterator<Item = Message<'_>>>> {
        match socket.try_read(&mut self.buffer[self.filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.filled += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        self.messages().map(Some)
    }

    async fn read_from(&mut self, socket: &mut TcpStream) -> io::Result<impl Iterator<Item = Message<'_>>> {
        match socket.read(&mut self.buffer[self.filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => self.filled += n,
        }
        self.messages()
    }

    /// All whole messages, after a look at every header.
    fn messages(&self) -> io::Result<impl Iterator<Item = Message<'_>>> {
        let (messages, _) = self.buffer[..self.filled].as_chunks::<MESSAGE_BYTES>();
        if messages.iter().any(|message| parse(message).is_none()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message of another length",
            ));
        }
        Ok(messages.iter().filter_map(parse))
    }

    /// Moves what is left of a message to the front.
    fn discard_whole(&mut self) {
        let whole = self.filled - self.filled % MESSAGE_BYTES;
        self.buffer.copy_within(whole..self.filled, 0);
        self.filled -= whole;
    }
}
