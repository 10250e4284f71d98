//! Through proxies: HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928, RFC 1929). PROTOCOL 14.6.
//!
//! Where a proxy is spoken to inside TLS ([`ProxyKind::Https`]) a [`Tunnel`] has what is inside.
//!
//! A [`Proxy`] is what a user writes, [`ProxyRules`] say which of them leads where, and a [`Tunnel`] is one
//! connection to a proxy until it leads to the target. What is spoken through it begins behind it.

mod address;
mod connect;
mod error;
mod no_proxy;
mod rules;
mod socks5;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::BytesMut;

pub use address::{Proxy, ProxyKind, ProxyParseError};
pub use error::{ProxyError, SocksRefusal};
pub use no_proxy::{NoProxy, NoProxyError};
pub use rules::{ProxyRules, VariableError};

use crate::time::Timestamp;
use crate::wire::OutBuffer;
use connect::Connect;
use socks5::Socks5;

/// Limits on what a proxy may do before it leads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelLimits {
    /// Bytes of the head of one of its answers.
    pub head: usize,
    /// Interim answers (status 1xx) before the one that counts.
    pub interim: u32,
    /// How long all of it may take.
    pub timeout: Duration,
}

impl Default for TunnelLimits {
    /// 16 KiB, 8 interim answers, 4 s: less than a connector waits, so that it is known who was slow.
    fn default() -> TunnelLimits {
        TunnelLimits {
            head: 16 * 1024,
            interim: 8,
            timeout: Duration::from_secs(4),
        }
    }
}

/// One connection to a proxy that is asked to lead to a target.
///
/// 1. Write what [`Tunnel::poll_transmit`] gives.
/// 2. Give what the proxy says to [`Tunnel::handle_input`], and [`Tunnel::handle_timeout`] the time at
///    [`Tunnel::poll_timeout`]; then 1 again, until it [`is_open`](Tunnel::is_open).
/// 3. The connection is the target's from there on, what is left in the input included.
///
/// An error is final: the connection is of no use.
#[derive(Debug)]
pub struct Tunnel {
    machine: Machine,
    pending: Vec<u8>,
    deadline: Timestamp,
    state: Result<bool, ProxyError>,
}

#[derive(Debug)]
enum Machine {
    Connect(Connect),
    Socks5(Socks5),
}

/// How far a machine has come.
enum Step {
    /// It needs more.
    Waiting,
    /// It has said something, and may go on at once.
    Said(Vec<u8>),
    Open,
}

impl Tunnel {
    /// Asks the proxy to lead to a host name or address (IPv6 without brackets) and port.
    ///
    /// # Errors
    /// [`ProxyError::Target`]: no proxy can be asked for it.
    pub fn new(
        proxy: &Proxy,
        host: &str,
        port: u16,
        limits: TunnelLimits,
        now: Timestamp,
    ) -> Result<Tunnel, ProxyError> {
        let visible = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\\\"<>".contains(&byte);
        if host.is_empty() || host.len() > 255 || !host.bytes().all(visible) {
            return Err(ProxyError::Target(host.chars().take(64).collect()));
        }
        let (machine, pending) = match proxy.kind() {
            // What lies around an encrypted one is the caller's.
            ProxyKind::Http | ProxyKind::Https => {
                let (machine, request) = Connect::new(proxy.credentials(), host, port, limits);
                (Machine::Connect(machine), request)
            }
            ProxyKind::Socks5 { .. } => {
                let (machine, greeting) = Socks5::new(proxy.credentials(), host, port);
                (Machine::Socks5(machine), greeting)
            }
        };
        Ok(Tunnel {
            machine,
            pending,
            deadline: now + limits.timeout,
            state: Ok(false),
        })
    }

    /// Appends what is to be told to the proxy.
    pub fn poll_transmit(&mut self, out: &mut OutBuffer) {
        out.put(&self.pending);
        self.pending.clear();
    }

    /// Takes what the proxy said from the front of the input. Tells whether the tunnel is open.
    ///
    /// # Errors
    /// It leads nowhere.
    pub fn handle_input(&mut self, input: &mut BytesMut) -> Result<bool, ProxyError> {
        while let Ok(false) = self.state {
            let step = match &mut self.machine {
                Machine::Connect(machine) => machine.take(input),
                Machine::Socks5(machine) => machine.take(input),
            };
            match step {
                Ok(Step::Waiting) => break,
                Ok(Step::Said(more)) => self.pending.extend_from_slice(&more),
                Ok(Step::Open) => self.state = Ok(true),
                Err(error) => self.state = Err(error),
            }
        }
        self.state.clone()
    }

    /// The proxy has closed the connection: what that means.
    pub fn handle_end(&mut self) -> ProxyError {
        match &self.state {
            Err(error) => error.clone(),
            // Open or not: whoever says so before it was asked can close before the question is written.
            Ok(_) => {
                self.state = Err(ProxyError::Closed);
                ProxyError::Closed
            }
        }
    }

    /// The time has come that [`Tunnel::poll_timeout`] told.
    ///
    /// # Errors
    /// [`ProxyError::TimedOut`], if it has.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Result<(), ProxyError> {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.state = Err(ProxyError::TimedOut);
        }
        self.state.clone().map(|_| ())
    }

    /// When the proxy is too slow; `None` once it is open or of no use.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        (self.state == Ok(false)).then_some(self.deadline)
    }

    /// Whether the connection is the target's.
    pub fn is_open(&self) -> bool {
        self.state == Ok(true)
    }
}
