//! One QUIC connection.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{
    ConnectionEvent, ConnectionHandle, ConnectionStats, Dir, EndpointEvent, Event, ReadError,
    SendDatagramError, Side, StreamId, Transmit, VarInt, WriteError,
};

use super::clock::Clock;
use super::error::QuicError;
use crate::carrier::tls::{self, ALPN_NATIVE};
use crate::handshake::{EXPORTER_LABEL, Exporter};
use crate::rng::SparseRng;
use crate::time::Timestamp;

/// What the ends agreed to speak on a connection, by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Records on streams: PROTOCOL 14.8.
    Native,
    /// HTTP/3.
    Http3,
}

/// Bytes of datagrams that are sent in one call, at most.
const MAX_RUN: usize = 60_000;

/// The application protocol of HTTP/3.
pub const ALPN_HTTP3: &[u8] = b"h3";

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// No more was wanted; there may be more.
    More,
    /// There is nothing more at present.
    Blocked,
    /// The peer has finished the stream, and all of it was read.
    Finished,
    /// The peer has reset the stream, or it is not known.
    Reset,
}

/// One end of a QUIC connection. See the [module](super) for the order of calls.
pub struct Connection {
    inner: quinn_proto::Connection,
    handle: ConnectionHandle,
    clock: Clock,
    epoch: Duration,
    rng: SparseRng,
    refused: Option<QuicError>,
    events: VecDeque<Event>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("handle", &self.handle)
            .field("remote", &self.inner.remote_address())
            .field("handshaking", &self.inner.is_handshaking())
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(
        handle: ConnectionHandle,
        inner: quinn_proto::Connection,
        clock: Clock,
        epoch: Duration,
        seed: [u8; 32],
    ) -> Connection {
        Connection {
            inner,
            handle,
            clock,
            epoch,
            rng: SparseRng::from_seed(seed),
            refused: None,
            events: VecDeque::new(),
        }
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.inner.side()
    }

    /// By which its endpoint knows it.
    pub fn handle(&self) -> ConnectionHandle {
        self.handle
    }

    /// Takes what its endpoint has for it.
    pub fn handle_events(&mut self, now: Timestamp, events: impl IntoIterator<Item = ConnectionEvent>) {
        // Only TLS draws, and only while it shakes hands; later it may want to know the time.
        let unix = self.epoch + now.since(Timestamp::ZERO);
        let peer = self.inner.remote_address().ip();
        let inner = &mut self.inner;
        let refused = self.rng.draw(|rng| {
            let ((), refused) = tls::ambient_judged(rng, unix, peer, || {
                events.into_iter().for_each(|event| inner.handle_event(event));
            });
            refused
        });
        if let Some(error) = refused {
            self.refused = Some(error.into());
        }
    }

    /// Acts on a deadline that has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.inner.handle_timeout(self.clock.instant(now));
    }

    /// When [`Connection::handle_timeout`] is to be called.
    pub fn poll_timeout(&mut self) -> Option<Timestamp> {
        self.inner.poll_timeout().map(|at| self.clock.timestamp(at))
    }

    /// Puts datagrams to send into `buf`: up to `max_segments`, all of one size but the last, to go out in one call.
    pub fn poll_transmit(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        // One call of the system takes what an IP datagram can hold, whatever it is cut into afterwards.
        let most = MAX_RUN / usize::from(self.inner.current_mtu()).max(1);
        let most = max_segments.min(most).max(1);
        self.inner.poll_transmit(self.clock.instant(now), most, buf)
    }

    /// What its endpoint is to be told.
    pub fn poll_endpoint_event(&mut self) -> Option<EndpointEvent> {
        self.inner.poll_endpoint_events()
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front().or_else(|| self.inner.poll())
    }

    /// Why it was lost, by the reason that quinn-proto gives.
    pub fn why(&mut self, reason: quinn_proto::ConnectionError) -> QuicError {
        // What TLS thinks of the peer's certificate, quinn-proto has as a text alone.
        self.refused.take().unwrap_or_else(|| reason.into())
    }

    /// Whether the handshake is under way.
    pub fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    /// Whether the first flight carries data, so that streams can be opened, or may have come, before the handshake is
    /// done. PROTOCOL 14.8.
    pub fn is_early(&self) -> bool {
        self.inner.has_0rtt()
    }

    /// Client: whether the server took what was sent before the handshake was done, once it is. If not, streams that were
    /// opened by then are gone, and their numbers are given anew.
    pub fn is_early_taken(&self) -> bool {
        self.inner.accepted_0rtt()
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// What the ends speak, once that is agreed.
    pub fn protocol(&self) -> Option<Protocol> {
        let data = self.inner.crypto_session().handshake_data()?;
        let data = data.downcast_ref::<HandshakeData>()?;
        match data.protocol.as_deref()? {
            ALPN_NATIVE => Some(Protocol::Native),
            ALPN_HTTP3 => Some(Protocol::Http3),
            _ => None,
        }
    }

    /// What binds a JOIN to this connection, once the handshake is done. PROTOCOL 6.2.
    pub fn exporter(&self) -> Option<Exporter> {
        let mut exporter = [0; 32];
        let session = self.inner.crypto_session();
        session
            .export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
            .ok()
            .filter(|()| !self.inner.is_handshaking())
            .map(|()| exporter)
    }

    /// The peer's present address.
    pub fn remote(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// The own address that the peer sends to, where the socket tells.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.inner.local_ip()
    }

    /// Round-trip time as QUIC sees it, and all else that is counted.
    pub fn stats(&self) -> ConnectionStats {
        self.inner.stats()
    }

    /// This end has another address: the peer is let know by the next datagram, and no longer used ids of the
    /// connection are exchanged, so that nobody sees that both addresses are of one end.
    pub fn local_address_changed(&mut self) {
        self.inner.local_address_changed();
    }

    /// Other keys from here on (RFC 9001 §6).
    pub fn update_keys(&mut self) {
        self.inner.force_key_update();
    }

    /// Closes it, with a code of the application below 2^62.
    pub fn close(&mut self, now: Timestamp, code: u64, reason: &'static [u8]) {
        let instant = self.clock.instant(now);
        self.inner
            .close(instant, varint(code), Bytes::from_static(reason));
    }
}

/// Streams.
impl Connection {
    /// Streams that the peer may have open at a time.
    pub fn allow_streams(&mut self, dir: Dir, count: u32) {
        self.inner
            .set_max_concurrent_streams(dir, VarInt::from_u32(count));
    }

    /// Opens a stream, unless the peer allows no more.
    pub fn open(&mut self, dir: Dir) -> Option<StreamId> {
        self.inner.streams().open(dir)
    }

    /// The next stream that the peer has opened.
    pub fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        self.inner.streams().accept(dir)
    }

    /// Whether this end sends on a stream.
    fn sends_on(&self, id: StreamId) -> bool {
        id.dir() == Dir::Bi || id.initiator() == self.inner.side()
    }

    /// Whether this end receives on a stream.
    fn receives_on(&self, id: StreamId) -> bool {
        id.dir() == Dir::Bi || id.initiator() != self.inner.side()
    }

    /// Writes chunks without copying them, and tells how many bytes were taken. Those are taken off the front.
    ///
    /// # Errors
    /// There is no room at present, the peer wants no more, or the stream has ended.
    pub fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        if !self.sends_on(id) {
            return Err(WriteError::ClosedStream);
        }
        let written = self.inner.send_stream(id).write_chunks(chunks)?;
        Ok(written.bytes)
    }

    /// Writes a copy of `data`, as far as there is room.
    ///
    /// # Errors
    /// As [`Connection::write`].
    pub fn write_slice(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        if !self.sends_on(id) {
            return Err(WriteError::ClosedStream);
        }
        self.inner.send_stream(id).write(data)
    }

    /// Hands on what was received in order: the first piece of `most` bytes at most, each further one of as many as
    /// `take` says, until that is none.
    pub fn read(&mut self, id: StreamId, mut most: usize, mut take: impl FnMut(Bytes) -> usize) -> Read {
        if !self.receives_on(id) {
            return Read::Reset;
        }
        let mut stream = self.inner.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            return Read::Reset;
        };
        let outcome = loop {
            match chunks.next(most) {
                Ok(Some(chunk)) => {
                    most = take(chunk.bytes);
                    if most == 0 {
                        break Read::More;
                    }
                }
                Ok(None) => break Read::Finished,
                Err(ReadError::Blocked) => break Read::Blocked,
                Err(ReadError::Reset(_)) => break Read::Reset,
            }
        };
        // What credit that gives back, goes out with the next transmit.
        let _ = chunks.finalize();
        outcome
    }

    /// Ends this end's side of a stream in order.
    pub fn finish(&mut self, id: StreamId) {
        if self.sends_on(id) {
            let _ = self.inner.send_stream(id).finish();
        }
    }

    /// Ends this end's side of a stream at once, with a code below 2^62.
    pub fn reset(&mut self, id: StreamId, code: u64) {
        if self.sends_on(id) {
            let _ = self.inner.send_stream(id).reset(varint(code));
        }
    }

    /// Wants no more of a stream, for a reason below 2^62.
    pub fn stop(&mut self, id: StreamId, code: u64) {
        if self.receives_on(id) {
            let _ = self.inner.recv_stream(id).stop(varint(code));
        }
    }

    /// What has a higher priority is sent first. 0 at the beginning.
    pub fn prioritize(&mut self, id: StreamId, priority: i32) {
        if self.sends_on(id) {
            let _ = self.inner.send_stream(id).set_priority(priority);
        }
    }

    /// Bytes that may be written before they are acknowledged, on all streams together.
    pub fn set_send_window(&mut self, bytes: u64) {
        self.inner.set_send_window(bytes);
    }

    /// Queues a datagram. Tells whether there was room.
    ///
    /// # Errors
    /// The peer takes none, or none of that size at present.
    pub fn send_datagram(&mut self, data: Bytes) -> Result<bool, QuicError> {
        match self.inner.datagrams().send(data, false) {
            Ok(()) => Ok(true),
            Err(SendDatagramError::Blocked(_)) => Ok(false),
            Err(error) => Err(QuicError::Config(error.to_string())),
        }
    }

    /// The largest datagram that can be sent on this path; `None` where the peer takes none.
    pub fn max_datagram(&mut self) -> Option<usize> {
        self.inner.datagrams().max_size()
    }

    /// What congestion control lets be under way, in bytes.
    pub fn congestion_window(&self) -> u64 {
        self.inner.congestion_state().window()
    }

    /// Bytes of datagrams that can be queued at present.
    pub fn datagram_space(&mut self) -> usize {
        self.inner.datagrams().send_buffer_space()
    }

    /// The next datagram that was received.
    pub fn recv_datagram(&mut self) -> Option<Bytes> {
        self.inner.datagrams().recv()
    }
}

fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}
