//! The fault proxy: a relay whose faults are commanded while it runs.
//!
//! A [`Proxy`] listens on one address and forwards every connection to another. Its [`ProxyHandle`] breaks
//! things: it cuts, resets, stalls without closing, refuses, delays and throttles, and it counts. The relay
//! is an honest link in between: nothing is lost, doubled or reordered on a connection that lives.

mod bucket;
pub mod command;
mod datagrams;
mod link;
mod relay;
mod socket;
#[cfg(test)]
mod tests;

use crate::address::Address;
use bucket::Bucket;
use socket::Listener;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// What the kernel may hold in each buffer of each socket, in bytes. A link between two programs has a queue
/// of this order; the megabytes that loopback sockets grow to would hide what a throttle is meant to show.
pub const SOCKET_BUFFER_BYTES: usize = 256 * 1024;

/// The way that bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the accepted connection to the target.
    ToTarget,
    /// From the target back to the accepted connection.
    ToClient,
}

/// What a proxy has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes written to targets.
    pub to_target_bytes: u64,
    /// Bytes written to clients.
    pub to_client_bytes: u64,
    /// Connections that stand, those held back by a stall included.
    pub live: u64,
    /// Connections accepted so far, the refused ones not included.
    pub total: u64,
    /// Connections closed at once because of [`ProxyHandle::refuse`].
    pub refused: u64,
    /// Connections given up because the target could not be reached.
    pub unreachable: u64,
}

/// The faults in force.
#[derive(Debug, Clone, Default)]
struct Faults {
    /// By [`Direction`].
    stalled: [bool; 2],
    delay: Duration,
    throttle: Option<u64>,
}

impl Faults {
    fn stalls(&self, direction: Direction) -> bool {
        self.stalled[direction as usize]
    }
}

/// How connections are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    Cut,
    Reset,
}

#[derive(Debug)]
struct Shared {
    address: Address,
    target: Address,
    faults: watch::Sender<Faults>,
    kill: watch::Sender<Kill>,
    refuse: AtomicBool,
    buckets: [Bucket; 2],
    forwarded_bytes: [AtomicU64; 2],
    live: AtomicU64,
    total: AtomicU64,
    refused: AtomicU64,
    unreachable: AtomicU64,
    changed: Notify,
    commands: mpsc::UnboundedSender<ListenCommand>,
}

/// Open or close the listener, and say how that went.
struct ListenCommand {
    open: bool,
    done: oneshot::Sender<io::Result<()>>,
}

/// A relay in this process. Dropping it closes its listener and resets its connections.
#[derive(Debug)]
pub struct Proxy {
    handle: ProxyHandle,
    task: JoinHandle<()>,
}

/// Commands the faults of a [`Proxy`] and reads its counters. Cheap to clone; outlives the proxy harmlessly.
#[derive(Debug, Clone)]
pub struct ProxyHandle(Arc<Shared>);

impl Proxy {
    /// Starts to listen on `listen` (TCP port 0 takes a free port) and to forward to `target`, which need
    /// not be there yet. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Those of binding the listener.
    pub async fn start(listen: &Address, target: &Address) -> io::Result<Proxy> {
        let listener = Listener::bind(listen).await?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(listener.address().clone(), target.clone(), commands));
        let task = tokio::spawn(relay::accept_loop(shared.clone(), listener, inbox));
        Ok(Proxy {
            handle: ProxyHandle(shared),
            task,
        })
    }

    /// A handle to this proxy.
    pub fn handle(&self) -> ProxyHandle {
        self.handle.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ProxyHandle {
    /// The address that clients connect to, with the port that was taken.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// The address that is forwarded to.
    pub fn target(&self) -> &Address {
        &self.0.target
    }

    /// Closes every connection with a FIN in both directions; what was under way in the proxy is lost, and
    /// what a peer still sends is swallowed for a moment so that no RST overtakes the FIN. Returns how many
    /// connections there were.
    pub fn cut(&self) -> u64 {
        self.end_all(Kill::Cut)
    }

    /// Resets every connection in both directions: RST on TCP, an abrupt close on Unix sockets. Returns how
    /// many connections there were.
    pub fn reset(&self) -> u64 {
        self.end_all(Kill::Reset)
    }

    fn end_all(&self, kill: Kill) -> u64 {
        let live = self.0.live.load(Ordering::Relaxed);
        self.0.kill.send_replace(kill);
        live
    }

    /// Stops (or goes on) forwarding both ways without a sign to anybody. Connections that arrive meanwhile
    /// are accepted, and reach the target only when the stall is over, as if their SYN had been lost.
    pub fn stall(&self, on: bool) {
        self.0.faults.send_modify(|faults| faults.stalled = [on; 2]);
    }

    /// The same for one direction. New connections wait while either direction is stalled.
    pub fn stall_direction(&self, direction: Direction, on: bool) {
        self.0
            .faults
            .send_modify(|faults| faults.stalled[direction as usize] = on);
    }

    /// Resets new connections as soon as they are accepted; existing ones are left alone.
    pub fn refuse(&self, on: bool) {
        self.0.refuse.store(on, Ordering::Relaxed);
    }

    /// Really closes the listener (`false`), so that connecting fails with "connection refused", or opens
    /// it again on the same address (`true`); it is done when this returns. Existing connections are left
    /// alone. The TCP port stays reserved meanwhile.
    ///
    /// # Errors
    /// Those of binding again; `NotConnected` if the proxy is gone.
    pub async fn listen(&self, open: bool) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the proxy was dropped");
        let (done, answer) = oneshot::channel();
        self.0
            .commands
            .send(ListenCommand { open, done })
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Delays what is read from here on by `delay` in each direction. Order and throughput are kept, up to
    /// 16 MiB under way per connection and direction.
    pub fn delay(&self, delay: Duration) {
        self.0.faults.send_modify(|faults| faults.delay = delay);
    }

    /// Forwards at most so many bytes per second in each direction, all connections together; `None` lifts
    /// the limit. A rate of 0 counts as 1. Bytes go in pieces of at most 64 KiB.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        self.0.buckets.iter().for_each(Bucket::clear);
        self.0
            .faults
            .send_modify(|faults| faults.throttle = bytes_per_second.map(|rate| rate.max(1)));
    }

    /// Lifts every fault but a closed listener.
    pub fn heal(&self) {
        self.refuse(false);
        self.0.faults.send_modify(|faults| *faults = Faults::default());
    }

    /// What the proxy has done so far.
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            to_target_bytes: read(&self.0.forwarded_bytes[Direction::ToTarget as usize]),
            to_client_bytes: read(&self.0.forwarded_bytes[Direction::ToClient as usize]),
            live: read(&self.0.live),
            total: read(&self.0.total),
            refused: read(&self.0.refused),
            unreachable: read(&self.0.unreachable),
        }
    }

    /// Waits until `condition` holds for the counters; asks again whenever one changes.
    pub async fn wait_for(&self, mut condition: impl FnMut(&Counters) -> bool) -> Counters {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let counters = self.counters();
            if condition(&counters) {
                return counters;
            }
            changed.await;
        }
    }
}

impl Shared {
    fn new(address: Address, target: Address, commands: mpsc::UnboundedSender<ListenCommand>) -> Shared {
        Shared {
            address,
            target,
            faults: watch::Sender::new(Faults::default()),
            kill: watch::Sender::new(Kill::Cut),
            refuse: AtomicBool::new(false),
            buckets: [Bucket::default(), Bucket::default()],
            forwarded_bytes: [AtomicU64::new(0), AtomicU64::new(0)],
            live: AtomicU64::new(0),
            total: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unreachable: AtomicU64::new(0),
            changed: Notify::new(),
            commands,
        }
    }

    fn add(&self, counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    fn forwarded(&self, direction: Direction, bytes: usize) {
        self.add(&self.forwarded_bytes[direction as usize], bytes as u64);
    }
}
