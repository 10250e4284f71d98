//! A stream socket to whichever address of a name answers first (RFC 8305).

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use sheetbend_core::policy::Race;
use sheetbend_core::policy::racing::STAGGER;

use crate::address::Address;
use crate::rt::{BoxFuture, Runtime, Socket, Timer};

/// Of how many names it is remembered which address answered last.
const NAMES: usize = 16;

/// Which address of a name answered last.
#[derive(Debug, Default)]
pub(crate) struct Winners(Mutex<Vec<(String, SocketAddr)>>);

impl Winners {
    fn of(&self, host: &str, port: u16) -> Option<SocketAddr> {
        let known = self.0.lock();
        let found = known.iter().find(|(name, at)| name == host && at.port() == port);
        found.map(|(_, address)| *address)
    }

    fn note(&self, host: &str, address: SocketAddr) {
        let mut known = self.0.lock();
        known.retain(|(name, at)| name != host || at.port() != address.port());
        if known.len() >= NAMES {
            known.remove(0);
        }
        known.push((host.to_owned(), address));
    }
}

type Attempt = (SocketAddr, BoxFuture<'static, io::Result<Box<dyn Socket>>>);

struct Runners {
    race: Race,
    attempts: Vec<Attempt>,
    timer: Box<dyn Timer>,
    last: Option<io::Error>,
}

/// Connects the socket that an address is spoken over. Where its name stands for several addresses these race.
pub(crate) async fn connect(
    runtime: &dyn Runtime,
    address: &Address,
    winners: &Winners,
) -> io::Result<Box<dyn Socket>> {
    let socket = address.socket();
    let Address::Tcp { host, port } = &socket else {
        return runtime.connect(socket).await;
    };
    if host.parse::<IpAddr>().is_ok() {
        return runtime.connect(socket).await;
    }
    let found = runtime.resolve(host.clone(), *port).await;
    // Resolvers have errors of many kinds; what they mean is one.
    let addresses = found.map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
    let now = runtime.now();
    let mut runners = Runners {
        race: Race::new(&addresses, winners.of(host, *port), STAGGER, now),
        attempts: Vec::new(),
        timer: runtime.timer(now + STAGGER),
        last: None,
    };
    let (winner, socket) = poll_fn(|cx| runners.poll(cx, runtime)).await?;
    if addresses.len() > 1 {
        winners.note(host, winner);
    }
    Ok(socket)
}

impl Runners {
    /// Ready with the first that has connected, or with the last error once all have failed.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        runtime: &dyn Runtime,
    ) -> Poll<io::Result<(SocketAddr, Box<dyn Socket>)>> {
        loop {
            let now = runtime.now();
            while let Some(next) = self.race.poll_start(now) {
                let host = next.ip().to_string();
                let port = next.port();
                let attempt = runtime.connect(Address::Tcp { host, port });
                self.attempts.push((next, attempt));
            }
            let mut failed = false;
            let mut at = 0;
            while at < self.attempts.len() {
                match self.attempts[at].1.as_mut().poll(cx) {
                    Poll::Pending => at += 1,
                    Poll::Ready(Ok(socket)) => return Poll::Ready(Ok((self.attempts[at].0, socket))),
                    Poll::Ready(Err(error)) => {
                        drop(self.attempts.remove(at));
                        self.last = Some(error);
                        self.race.handle_failed(now);
                        failed = true;
                    }
                }
            }
            if self.race.is_lost() {
                let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Poll::Ready(Err(self.last.take().unwrap_or_else(none)));
            }
            if failed {
                continue;
            }
            let Some(next) = self.race.poll_timeout() else {
                return Poll::Pending;
            };
            self.timer.reset(next);
            if self.timer.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
