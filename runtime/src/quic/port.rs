//! A UDP socket and the connections on it.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use parking_lot::{Mutex, RwLock};
use sheetbend_core::carrier::quic::{
    Arrival, Connection, ConnectionEvent, ConnectionHandle, EcnCodepoint, Endpoint, EndpointEvent, From,
    Transmit,
};
use sheetbend_core::time::Timestamp;
use smallvec::SmallVec;

use crate::rt::{Datagrams, Received, Runtime, UdpSocket};

/// Bytes of the longest run of datagrams that a system hands over in one piece.
const PIECE: usize = 64 * 1024;
/// Pieces that are received at once by the socket of a server.
pub(super) const SERVER_PIECES: usize = 8;
/// Pieces that are received at once by the socket of a client.
pub(super) const CLIENT_PIECES: usize = 2;
/// Datagrams of a run that share their memory: what a stream keeps of one keeps the others', too.
const GROUP: usize = 8;
/// Calls to the system before others get their turn.
const ROUNDS: usize = 8;
/// Datagrams that wait for one connection to be driven; beyond it they are lost, as they are where a socket's buffer
/// is full.
const MAX_WAITING: usize = 4096;
/// Buffers that are kept for the next who needs one.
const KEPT_BUFFERS: usize = 8;

static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer of that many pieces.
fn take_buffer(pieces: usize) -> Vec<u8> {
    let mut kept = BUFFERS.lock();
    let found = kept.iter().position(|buffer| buffer.len() == pieces * PIECE);
    let found = found.map(|index| kept.swap_remove(index));
    drop(kept);
    found.unwrap_or_else(|| vec![0; pieces * PIECE])
}

fn give_buffer(buffer: Vec<u8>) {
    let mut kept = BUFFERS.lock();
    if kept.len() < KEPT_BUFFERS {
        kept.push(buffer);
    }
}

/// What waits for a connection, and who drives it.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<ConnectionEvent>,
    driver: Option<Waker>,
}

impl Inbox {
    /// Takes what waits, and notes whom to wake for more.
    pub(super) fn take(&self, cx: &Context<'_>, into: &mut VecDeque<ConnectionEvent>) {
        let mut waiting = self.waiting.lock();
        match &waiting.driver {
            Some(driver) if driver.will_wake(cx.waker()) => {}
            _ => waiting.driver = Some(cx.waker().clone()),
        }
        if into.is_empty() {
            mem::swap(into, &mut waiting.events);
        } else {
            into.append(&mut waiting.events);
        }
    }

    /// Puts an event in, and gives who is to be woken if he does not know yet that something waits.
    fn put(&self, event: ConnectionEvent) -> Option<Waker> {
        let mut waiting = self.waiting.lock();
        if waiting.events.len() >= MAX_WAITING {
            return None;
        }
        waiting.events.push_back(event);
        if waiting.events.len() > 1 {
            return None;
        }
        waiting.driver.clone()
    }
}

/// A connection that was accepted, and what waits for it.
pub(super) struct Accepted {
    pub(super) connection: Box<Connection>,
    pub(super) inbox: Arc<Inbox>,
}

struct Table {
    endpoint: Endpoint,
    /// By handle.
    inboxes: Vec<Option<Arc<Inbox>>>,
    /// What is answered to a datagram.
    response: Vec<u8>,
}

impl Table {
    fn enter(&mut self, handle: ConnectionHandle) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        if self.inboxes.len() <= handle.0 {
            self.inboxes.resize(handle.0 + 1, None);
        }
        self.inboxes[handle.0] = Some(inbox.clone());
        inbox
    }
}

/// A UDP socket with QUIC on it. Connections are driven by those who have them, and send straight to the socket.
pub(crate) struct Port {
    socket: RwLock<Arc<dyn UdpSocket>>,
    table: Mutex<Table>,
    /// Those who wait for room to send.
    writers: Mutex<Vec<Waker>>,
    /// Who receives, where that is a task of its own.
    receiver: Mutex<Option<Waker>>,
    stopped: AtomicBool,
    pieces: usize,
    pub(super) runtime: Arc<dyn Runtime>,
}

impl Port {
    pub(super) fn new(
        runtime: Arc<dyn Runtime>,
        socket: Arc<dyn UdpSocket>,
        endpoint: Endpoint,
        pieces: usize,
    ) -> Arc<Port> {
        let table = Table {
            endpoint,
            inboxes: Vec::new(),
            response: Vec::new(),
        };
        Arc::new(Port {
            socket: RwLock::new(socket),
            table: Mutex::new(table),
            writers: Mutex::default(),
            receiver: Mutex::default(),
            stopped: AtomicBool::new(false),
            pieces,
            runtime,
        })
    }

    pub(super) fn socket(&self) -> Arc<dyn UdpSocket> {
        self.socket.read().clone()
    }

    /// Sends and receives by another socket from here on.
    pub(super) fn replace_socket(&self, socket: Arc<dyn UdpSocket>) {
        *self.socket.write() = socket;
    }

    /// Makes a connection by way of the endpoint.
    pub(super) fn begin<E>(
        &self,
        connect: impl FnOnce(&mut Endpoint) -> Result<Connection, E>,
    ) -> Result<Accepted, E> {
        let mut table = self.table.lock();
        let connection = Box::new(connect(&mut table.endpoint)?);
        let inbox = table.enter(connection.handle());
        Ok(Accepted { connection, inbox })
    }

    /// Receives what is there, a number of times, and hands it to its connections. Those that it began go to
    /// `accept`. Tells whether there is more.
    pub(super) fn receive(&self, cx: &mut Context<'_>, accept: &mut dyn FnMut(Accepted)) -> io::Result<bool> {
        let socket = self.socket();
        for _ in 0..ROUNDS {
            if socket.poll_readable(cx)?.is_pending() {
                return Ok(false);
            }
            let mut buffer = take_buffer(self.pieces);
            let mut received = [Received::default(); SERVER_PIECES];
            let result = {
                let mut pieces: SmallVec<[IoSliceMut<'_>; SERVER_PIECES]> =
                    buffer.chunks_exact_mut(PIECE).map(IoSliceMut::new).collect();
                let count = pieces.len();
                socket.try_recv(&mut pieces, &mut received[..count])
            };
            match &result {
                Ok(count) => self.sort(&*socket, &buffer, &received[..*count], cx, accept),
                Err(error) if is_passing(error) => {}
                Err(_) => return result.map(|_| false),
            }
            give_buffer(buffer);
        }
        Ok(true)
    }

    /// Hands what was received to whom it is for.
    fn sort(
        &self,
        socket: &dyn UdpSocket,
        buffer: &[u8],
        received: &[Received],
        cx: &Context<'_>,
        accept: &mut dyn FnMut(Accepted),
    ) {
        let now = self.runtime.now();
        let mut wakers: SmallVec<[Waker; 8]> = SmallVec::new();
        let mut accepted: SmallVec<[Accepted; 4]> = SmallVec::new();
        let mut guard = self.table.lock();
        let table = &mut *guard;
        for (piece, one) in buffer.chunks_exact(PIECE).zip(received) {
            let from = From {
                remote: one.remote,
                local_ip: one.local_ip,
                ecn: EcnCodepoint::from_bits(one.ecn),
            };
            let filled = piece.get(..one.len).unwrap_or_default();
            for data in datagrams(filled, one.stride.max(1)) {
                table.response.clear();
                match table
                    .endpoint
                    .handle_datagram(now, from, data, &mut table.response)
                {
                    None => {}
                    Some(Arrival::Event(handle, event)) => {
                        let inbox = table.inboxes.get(handle.0).and_then(Option::as_ref);
                        wakers.extend(inbox.and_then(|inbox| inbox.put(event)));
                    }
                    Some(Arrival::New(connection)) => {
                        let inbox = table.enter(connection.handle());
                        accepted.push(Accepted { connection, inbox });
                    }
                    Some(Arrival::Response(transmit)) => {
                        // Nobody waits for it: where there is no room it is lost, as it may be on its way.
                        let _ = send(socket, &transmit, &table.response);
                    }
                }
            }
        }
        drop(guard);
        for waker in wakers {
            if !waker.will_wake(cx.waker()) {
                waker.wake();
            }
        }
        accepted.into_iter().for_each(accept);
    }

    /// Sends what a connection has made. `Ok(false)`: there is no room, and `cx` is woken when there is.
    pub(super) fn send(&self, cx: &Context<'_>, transmit: &Transmit, contents: &[u8]) -> bool {
        let socket = self.socket();
        if send(&*socket, transmit, contents) {
            return true;
        }
        let Some(receiver) = self.receiver.lock().clone() else {
            return self.send_alone(cx, &*socket, transmit, contents);
        };
        let mut writers = self.writers.lock();
        if !writers.iter().any(|waker| waker.will_wake(cx.waker())) {
            writers.push(cx.waker().clone());
        }
        drop(writers);
        // Whoever polls the socket wakes the others.
        receiver.wake();
        false
    }

    /// [`Port::send`] again, on a socket that one connection has for itself. A new one has no room to begin with, as far
    /// as its reactor knows.
    fn send_alone(
        &self,
        cx: &Context<'_>,
        socket: &dyn UdpSocket,
        transmit: &Transmit,
        contents: &[u8],
    ) -> bool {
        let mut cx = Context::from_waker(cx.waker());
        for _ in 0..2 {
            if socket.poll_writable(&mut cx).is_pending() {
                return false;
            }
            if send(socket, transmit, contents) {
                return true;
            }
        }
        cx.waker().wake_by_ref();
        false
    }

    /// Sends what nobody waits for.
    pub(super) fn send_last(&self, transmit: &Transmit, contents: &[u8]) {
        send(&*self.socket(), transmit, contents);
    }

    /// How many datagrams may be sent in one go.
    pub(super) fn max_segments(&self) -> usize {
        self.socket().max_segments()
    }

    /// Wakes those who wait for room, once there is some.
    pub(super) fn relieve(&self, cx: &mut Context<'_>) {
        if self.writers.lock().is_empty() || self.socket().poll_writable(cx).is_pending() {
            return;
        }
        let writers = mem::take(&mut *self.writers.lock());
        writers.into_iter().for_each(Waker::wake);
    }

    /// Tells the endpoint what a connection has for it, and gives what it answers.
    pub(super) fn tell(&self, handle: ConnectionHandle, event: EndpointEvent) -> Option<ConnectionEvent> {
        let (mut event, mut answer) = (Some(event), None);
        // It makes a table for each address that tells how it resets.
        self.runtime.unobserved(&mut || {
            if let Some(event) = event.take() {
                answer = self.table.lock().endpoint.handle_event(handle, event);
            }
        });
        answer
    }

    /// An accepted connection has shaken hands, or never will.
    pub(super) fn settled(&self, handle: ConnectionHandle) {
        self.table.lock().endpoint.settled(handle);
    }

    /// A connection is not driven any more.
    pub(super) fn forget(&self, handle: ConnectionHandle) {
        let mut table = self.table.lock();
        table.endpoint.forget(handle);
        if let Some(inbox) = table.inboxes.get_mut(handle.0) {
            *inbox = None;
        }
        let empty = table.endpoint.connections() == 0;
        drop(table);
        if empty && self.stopped.load(Ordering::Relaxed) {
            self.wake_receiver();
        }
    }

    fn wake_receiver(&self) {
        let receiver = self.receiver.lock().take();
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }

    /// Accepts no more; the socket goes with the last connection.
    pub(crate) fn stop(&self) {
        self.table.lock().endpoint.refuse_all();
        self.stopped.store(true, Ordering::Relaxed);
        self.wake_receiver();
    }

    /// Receives for all connections, until it was stopped and the last of them is gone.
    pub(super) fn poll_serve(&self, cx: &mut Context<'_>, accept: &mut dyn FnMut(Accepted)) -> Poll<()> {
        *self.receiver.lock() = Some(cx.waker().clone());
        if self.stopped.load(Ordering::Relaxed) && self.table.lock().endpoint.connections() == 0 {
            return Poll::Ready(());
        }
        self.relieve(cx);
        match self.receive(cx, accept) {
            Ok(false) => Poll::Pending,
            Ok(true) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            // The socket is of no more use.
            Err(_) => Poll::Ready(()),
        }
    }

    /// What a timer of a connection counts from.
    pub(super) fn now(&self) -> Timestamp {
        self.runtime.now()
    }
}

/// Whether an error says nothing of the socket itself: there is nothing at present, or it is what the network said of
/// a datagram that was sent, which anybody could have made up (RFC 9000 §14.2.1).
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

/// The datagrams of a run, each of `stride` bytes but the last.
fn datagrams(run: &[u8], stride: usize) -> impl Iterator<Item = BytesMut> {
    let groups = run.chunks(stride.saturating_mul(GROUP)).map(BytesMut::from);
    groups.flat_map(move |mut group| {
        std::iter::from_fn(move || match group.len() {
            0 => None,
            len if len <= stride => Some(mem::take(&mut group)),
            _ => Some(group.split_to(stride)),
        })
    })
}

/// Tells whether there was room. What cannot be sent for another reason is lost, as it may be on its way.
fn send(socket: &dyn UdpSocket, transmit: &Transmit, contents: &[u8]) -> bool {
    let datagrams = Datagrams {
        remote: transmit.destination,
        local_ip: transmit.src_ip,
        ecn: transmit.ecn.map_or(0, |ecn| ecn as u8),
        contents: contents.get(..transmit.size).unwrap_or(contents),
        segment: transmit.segment_size,
    };
    match socket.try_send(&datagrams) {
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        Ok(()) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_cut_into_its_datagrams() {
        let run: Vec<u8> = (0..=255).cycle().take(1200 * 19 + 7).collect();
        for stride in [1, 1200, 30_000, usize::MAX] {
            let cut: Vec<BytesMut> =
                datagrams(&run[..run.len().min(stride.saturating_mul(100))], stride).collect();
            assert!(cut.iter().rev().skip(1).all(|datagram| datagram.len() == stride));
            let whole: Vec<u8> = cut.into_iter().flatten().collect();
            assert!(run.starts_with(&whole) && whole.len() == run.len().min(stride.saturating_mul(100)));
        }
        assert_eq!(datagrams(&[], 1200).count(), 0);
    }
}
