//! HTTP as a transport: connections that carry exchanges, and sockets in which a session sees none of that.

mod bells;
mod client;
mod connection;
mod port;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use parking_lot::Mutex;
use sheetbend_core::carrier::http::{ExchangeKey, Mode};
use sheetbend_core::handshake::{Exporter, Security};
use sheetbend_core::time::Timestamp;

use crate::address::Address;

pub(crate) use client::open;
pub(crate) use connection::serve;
pub(crate) use port::Ports;

/// What takes the key that proves exchanges, once a session has one.
pub(crate) trait Keyed: Send + Sync {
    fn set_key(&self, key: ExchangeKey);

    /// Why the path is over, if something broke it.
    fn failure(&self) -> Option<String>;
}

/// Moves what waits for the session behind what `buf` holds, as far as there is room, and tells how much that was.
fn take_waiting(waiting: &mut BytesMut, buf: &mut BytesMut) -> usize {
    let count = waiting.len().min(buf.capacity() - buf.len());
    buf.put_slice(&waiting[..count]);
    waiting.advance(count);
    if waiting.is_empty() {
        waiting.clear();
    }
    count
}

/// How long it is remembered which ways down do not get through.
const MEMORY: Duration = Duration::from_secs(300);
/// Of how many places that is remembered.
const PLACES: usize = 16;

/// Which ways down to begin with: a session gives a path up sooner than the path itself its downlink, and the next
/// one shall not begin where that ended.
#[derive(Debug, Default)]
pub(crate) struct Ways(Mutex<Vec<(Address, Mode, Timestamp)>>);

impl Ways {
    fn first(&self, place: &Address, now: Timestamp) -> Mode {
        let mut ways = self.0.lock();
        ways.retain(|(_, _, since)| now < *since + MEMORY);
        let known = ways.iter().find(|(known, ..)| known == place);
        known.map_or(Mode::Binary, |(_, mode, _)| *mode)
    }

    /// A way was left for this one.
    fn note(&self, place: &Address, mode: Mode, now: Timestamp) {
        let mut ways = self.0.lock();
        ways.retain(|(known, ..)| known != place);
        if ways.len() >= PLACES {
            ways.remove(0);
        }
        ways.push((place.clone(), mode, now));
    }
}

/// What a path over HTTP is, beside its socket.
pub(crate) struct Facts {
    pub(crate) keyed: Arc<dyn Keyed>,
    pub(crate) transport: &'static str,
    pub(crate) security: Security,
    /// Of the connection on which the path was made, where this end itself ends its TLS.
    pub(crate) exporter: Option<Exporter>,
}
