//! A relay of TCP connections that cuts them, on the seam of the runtime.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures::future::{AbortHandle, abortable};
use parking_lot::Mutex;
use sheetbend_runtime::{Address, Server, Socket};

use crate::env::Env;

/// What a relay holds of one direction at most.
const HELD: usize = 64 * 1024;

/// Forwards TCP connections until it is told to cut them.
#[derive(Clone)]
pub struct Relay {
    authority: String,
    state: Arc<State>,
}

struct State {
    target: Mutex<Address>,
    live: Mutex<Vec<AbortHandle>>,
    accepted: AtomicUsize,
}

impl Relay {
    /// A relay to a server.
    pub async fn to(env: &Env, server: &Server) -> Relay {
        let (listener, address) = env.listen().await;
        let state = Arc::new(State {
            target: Mutex::new(server.addresses()[0].socket()),
            live: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let (own, shared) = (env.clone(), state.clone());
        env.spawn(async move {
            while let Ok(near) = poll_fn(|cx| listener.poll_accept(cx)).await {
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                let target = shared.target.lock().clone();
                let (connection, abort) = abortable(forward(own.clone(), near, target));
                shared.live.lock().push(abort);
                own.spawn(connection);
            }
        });
        Relay {
            authority: address.trim_start_matches("tcp://").to_owned(),
            state,
        }
    }

    /// Where it is reached by that scheme.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.authority)
    }

    /// Leads to another server from the next connection on.
    pub fn lead_to(&self, server: &Server) {
        *self.state.target.lock() = server.addresses()[0].socket();
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Cuts every connection there is. Where bytes were under way, the system says so by a reset.
    pub fn cut(&self) {
        let live = std::mem::take(&mut *self.state.live.lock());
        for connection in live {
            connection.abort();
        }
    }
}

async fn forward(env: Env, near: Box<dyn Socket>, target: Address) {
    let Ok(far) = env.runtime().connect(target).await else {
        return;
    };
    let (mut up, mut down) = (Flow::default(), Flow::default());
    poll_fn(|cx| {
        let up = up.poll(cx, &*near, &*far);
        let down = down.poll(cx, &*far, &*near);
        match (up, down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
}

/// One direction.
#[derive(Default)]
struct Flow {
    held: BytesMut,
    ended: bool,
    told: bool,
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>, from: &dyn Socket, to: &dyn Socket) -> Poll<io::Result<()>> {
        loop {
            while !self.held.is_empty() {
                match to.try_write_vectored(&[IoSlice::new(&self.held)]) {
                    Ok(count) => self.held.advance(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(to.poll_writable(cx))?,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if self.ended {
                if !std::mem::replace(&mut self.told, true) {
                    let _ = to.shutdown();
                }
                return Poll::Ready(Ok(()));
            }
            ready!(from.poll_readable(cx))?;
            self.held.reserve(HELD);
            match from.try_read(&mut self.held) {
                Ok(count) => self.ended = count == 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
