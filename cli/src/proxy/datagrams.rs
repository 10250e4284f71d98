//! The same for UDP: datagrams between clients and a target, as an address translation passes them on.
//!
//! What is in force means for UDP what a network would do of the kind: a stall loses what comes meanwhile, a cut is a
//! flow that nothing gets through any more, and a reset gives every flow another port, as a translation does that has
//! forgotten it. A throttle loses what it has no room for.

use super::{Direction, Kill, ListenCommand, Proxy, ProxyHandle, Shared};
use crate::address::Address;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// The longest datagram.
const LONGEST: usize = 65_536;
/// Flows at a time; more are not passed on.
const MAX_FLOWS: usize = 1024;
/// What a throttle lets wait, as time.
const THROTTLE_QUEUE: Duration = Duration::from_millis(50);

/// What a client sends, and what comes back for it.
struct Flow {
    far: Arc<UdpSocket>,
    back: JoinHandle<()>,
    /// Nothing gets through any more.
    dead: bool,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.back.abort();
    }
}

impl Proxy {
    /// Starts to pass datagrams on, from `listen` (port 0 takes a free port) to `target`. Must be called in a tokio
    /// runtime.
    ///
    /// # Errors
    /// Those of binding the socket.
    pub async fn start_udp(listen: SocketAddr, target: SocketAddr) -> io::Result<Proxy> {
        let near = Arc::new(UdpSocket::bind(listen).await?);
        let of = |address: SocketAddr| Address::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
        };
        let (commands, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(of(near.local_addr()?), of(target), commands));
        let task = tokio::spawn(pass_on(shared.clone(), near, target, inbox));
        Ok(Proxy {
            handle: ProxyHandle(shared),
            task,
        })
    }
}

/// Runs until it is dropped.
async fn pass_on(
    shared: Arc<Shared>,
    near: Arc<UdpSocket>,
    target: SocketAddr,
    mut commands: mpsc::UnboundedReceiver<ListenCommand>,
) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut kill = shared.kill.subscribe();
    let mut buffer = vec![0; LONGEST];
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            Some(command) = commands.recv() => {
                open = command.open;
                let _ = command.done.send(Ok(()));
            }
            Ok(()) = kill.changed() => {
                let how = *kill.borrow_and_update();
                for (client, flow) in &mut flows {
                    match how {
                        Kill::Cut => flow.dead = true,
                        Kill::Reset if !flow.dead => {
                            if let Ok(new) = Flow::new(&shared, &near, *client, target).await {
                                *flow = new;
                            }
                        }
                        Kill::Reset => {}
                    }
                }
            }
            came = near.recv_from(&mut buffer) => {
                let Ok((len, client)) = came else { continue };
                if !flows.contains_key(&client) {
                    if !open || shared.refuse.load(Ordering::Relaxed) || flows.len() >= MAX_FLOWS {
                        continue;
                    }
                    let Ok(flow) = Flow::new(&shared, &near, client, target).await else { continue };
                    flows.insert(client, flow);
                    shared.add(&shared.live, 1);
                }
                if let Some(flow) = flows.get(&client).filter(|flow| !flow.dead) {
                    let far = flow.far.clone();
                    send(&shared, Direction::ToTarget, far, target, &buffer[..len]);
                }
            }
        }
    }
}

impl Flow {
    async fn new(
        shared: &Arc<Shared>,
        near: &Arc<UdpSocket>,
        client: SocketAddr,
        target: SocketAddr,
    ) -> io::Result<Flow> {
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let far = Arc::new(UdpSocket::bind(any).await?);
        let (from, near, shared) = (far.clone(), near.clone(), shared.clone());
        let back = tokio::spawn(async move {
            let mut buffer = vec![0; LONGEST];
            let mut answered = false;
            loop {
                if let Ok((len, _)) = from.recv_from(&mut buffer).await {
                    // Anybody can send. What is answered is an attempt to connect.
                    if !std::mem::replace(&mut answered, true) {
                        shared.add(&shared.total, 1);
                    }
                    send(&shared, Direction::ToClient, near.clone(), client, &buffer[..len]);
                }
            }
        });
        Ok(Flow {
            far,
            back,
            dead: false,
        })
    }
}

/// Passes a datagram on, unless what is in force loses it.
fn send(shared: &Arc<Shared>, direction: Direction, by: Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) {
    let (stalled, mut delay, throttle) = {
        let faults = shared.faults.borrow();
        (faults.stalls(direction), faults.delay, faults.throttle)
    };
    if stalled {
        return;
    }
    if let Some(rate) = throttle {
        let bucket = &shared.buckets[direction as usize];
        let Some(turn) = bucket.admit(rate, datagram.len(), THROTTLE_QUEUE) else {
            return;
        };
        delay += turn.saturating_duration_since(Instant::now());
    }
    if delay.is_zero() {
        if by.try_send_to(datagram, to).is_ok() {
            shared.forwarded(direction, datagram.len());
        }
        return;
    }
    let (shared, datagram) = (shared.clone(), datagram.to_vec());
    tokio::spawn(async move {
        sleep(delay).await;
        if by.send_to(&datagram, to).await.is_ok() {
            shared.forwarded(direction, datagram.len());
        }
    });
}
