//! Accepting connections, and each connection's life.

use super::link::forward;
use super::socket::{Listener, Socket};
use super::{Direction, Kill, ListenCommand, SOCKET_BUFFER_BYTES, Shared};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How long accepting rests after an error, which is most often a lack of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(10);

/// Runs until it is dropped, and takes its connections with it.
pub(super) async fn accept_loop(
    shared: Arc<Shared>,
    mut listener: Listener,
    mut commands: mpsc::UnboundedReceiver<ListenCommand>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(command) = commands.recv() => {
                let outcome = if command.open { listener.open() } else { listener.close(); Ok(()) };
                // Whoever asked may have gone.
                let _ = command.done.send(outcome);
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok(client) if shared.refuse.load(Ordering::Relaxed) => {
                    client.abort();
                    shared.add(&shared.refused, 1);
                }
                Ok(client) => {
                    // Subscribed here, so that a cut which follows the counter's change also cuts this one.
                    let kill = shared.kill.subscribe();
                    let live = Live::new(shared.clone());
                    connections.spawn(connection(shared.clone(), client, kill, live));
                }
                Err(_) => tokio::time::sleep(ACCEPT_REST).await,
            },
        }
    }
}

/// One live connection, as far as the counters are concerned.
struct Live(Arc<Shared>);

impl Live {
    fn new(shared: Arc<Shared>) -> Self {
        shared.live.fetch_add(1, Ordering::Relaxed);
        shared.add(&shared.total, 1);
        Live(shared)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_waiters();
    }
}

async fn connection(shared: Arc<Shared>, client: Socket, mut kill: watch::Receiver<Kill>, live: Live) {
    let target = tokio::select! {
        kill = killed(&mut kill) => return end(kill, client, None, live).await,
        target = reach(&shared) => target,
    };
    let target = match target {
        Ok(target) => target,
        Err(_) => {
            client.abort();
            return shared.add(&shared.unreachable, 1);
        }
    };
    if client
        .bound_buffers(SOCKET_BUFFER_BYTES)
        .and(target.bound_buffers(SOCKET_BUFFER_BYTES))
        .is_err()
    {
        return end(Kill::Reset, client, Some(target), live).await;
    }
    let both = async {
        tokio::try_join!(
            forward(&shared, Direction::ToTarget, &client, &target),
            forward(&shared, Direction::ToClient, &target, &client),
        )
    };
    let kill = tokio::select! {
        kill = killed(&mut kill) => kill,
        closed = both => match closed {
            Ok(_) => return,
            // One end broke, and the other shall see it break.
            Err(_) => Kill::Reset,
        },
    };
    end(kill, client, Some(target), live).await;
}

/// Connects to the target, once nothing is stalled.
async fn reach(shared: &Shared) -> io::Result<Socket> {
    let mut faults = shared.faults.subscribe();
    let _ = faults.wait_for(|faults| faults.stalled == [false; 2]).await;
    drop(faults);
    Socket::connect(&shared.target).await
}

async fn killed(kill: &mut watch::Receiver<Kill>) -> Kill {
    // The sender lives in the state that the connection holds.
    let _ = kill.changed().await;
    *kill.borrow_and_update()
}

async fn end(kill: Kill, client: Socket, target: Option<Socket>, live: Live) {
    match kill {
        Kill::Reset => {
            client.abort();
            target.into_iter().for_each(Socket::abort);
            drop(live);
        }
        Kill::Cut => {
            client.finish();
            target.iter().for_each(Socket::finish);
            drop(live);
            match target {
                Some(target) => {
                    tokio::join!(client.close(), target.close());
                }
                None => client.close().await,
            }
        }
    }
}
