//! The first stream of a connection as a socket: to a session it is a byte stream like any other.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use sheetbend_core::carrier::quic::{Read, WriteError};
use sheetbend_core::handshake::Exporter;
use sheetbend_core::session::{LaneRoom, LaneRun, Moved};
use sheetbend_core::wire::OutBuffer;

use super::wire::Wire;
use super::{Facts, Lanes};
use crate::layers::Connection;
use crate::rt::Socket;

/// What the driver of a session and its socket share.
pub(super) type Shared = Arc<Mutex<Wire>>;

/// Lane 0 of a path over QUIC.
struct FirstLane {
    wire: Shared,
    peer: String,
}

/// The others.
struct OtherLanes(Shared);

impl Lanes for OtherLanes {
    fn adopt(&self) {
        self.0.lock().driven = true;
    }

    fn count(&self) -> u16 {
        self.0.lock().lane_count()
    }

    fn acknowledgements(&self) -> u64 {
        self.0.lock().connection.stats().frame_rx.acks
    }

    fn read(&self, take: &mut dyn FnMut(u64, &mut BytesMut, usize) -> bool) {
        self.0.lock().read_lanes(take);
    }

    fn take_lost(&self) -> Option<u16> {
        self.0.lock().take_lost_lane()
    }

    fn write(&self, output: &mut OutBuffer, runs: &mut Vec<LaneRun>) -> bool {
        let mut wire = self.0.lock();
        wire.put_runs(output, runs);
        wire.push_lanes()
    }

    fn room(&self) -> LaneRoom {
        let mut wire = self.0.lock();
        LaneRoom {
            lanes: wire.lane_count(),
            max_datagram: wire.max_datagram(),
            window: wire.connection.congestion_window(),
        }
    }

    fn datagram_space(&self) -> usize {
        self.0.lock().connection.datagram_space()
    }

    fn send_datagram(&self, datagram: Bytes) {
        self.0.lock().send_datagram(datagram);
    }

    fn recv_datagram(&self) -> Option<Bytes> {
        self.0.lock().recv_datagram()
    }

    fn rebind(&self) {
        self.0.lock().rebind();
    }

    fn take_move(&self) -> Option<(Option<Arc<str>>, Moved)> {
        let mut wire = self.0.lock();
        let transport = wire.transport();
        wire.moves.take(transport)
    }

    fn take_early(&self) -> Option<bool> {
        self.0.lock().take_early()
    }

    fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Exporter>>> {
        let mut wire = self.0.lock();
        poll_first(&mut wire, cx, true).map_ok(|()| wire.connection.exporter())
    }

    fn failure(&self) -> Option<io::Error> {
        self.0.lock().failure()
    }

    fn has_room(&self) -> bool {
        self.0.lock().push_lanes()
    }
}

/// A connection that can carry a session: it has its first stream, and its handshake is done, or it begins early.
pub(super) fn connection(mut wire: Wire) -> Connection {
    wire.stock_lanes(0);
    let exporter = wire.connection.exporter();
    let peer = wire.connection.remote().to_string();
    let transport = wire.transport();
    let wire = Arc::new(Mutex::new(wire));
    let facts = Facts {
        transport,
        exporter,
        early: !wire.lock().connected,
        lanes: Arc::new(OtherLanes(wire.clone())),
    };
    let mut connection = Connection::native(Box::new(FirstLane { wire, peer }));
    connection.quic = Some(Box::new(facts));
    connection
}

/// Ready once the connection has its first stream, which the client opens.
pub(super) fn poll_first(wire: &mut Wire, cx: &mut Context<'_>, opens: bool) -> Poll<io::Result<()>> {
    wire.receive(cx);
    if let Some(error) = wire.failure() {
        wire.send(cx);
        return Poll::Ready(Err(error));
    }
    if opens && wire.connected && wire.first.id.is_none() {
        wire.open_first()?;
    }
    wire.send(cx);
    match wire.first.id {
        Some(_) if wire.connected || wire.is_begun_early() => Poll::Ready(Ok(())),
        _ => Poll::Pending,
    }
}

impl Wire {
    /// Whether a read gives something, or the end.
    fn is_readable(&self) -> bool {
        self.first.readable || self.first.ended || self.lost.is_some()
    }

    fn read(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        let Some(id) = self.first.id else {
            return Err(self.failure().unwrap_or_else(would_block));
        };
        let before = buf.len();
        let mut room = buf.capacity() - before;
        if !self.first.early.is_empty() {
            let count = room.min(self.first.early.len());
            buf.extend(self.first.early.drain(..count));
            room -= count;
        }
        if self.first.readable && room > 0 {
            let read = self.connection.read(id, room, |chunk| {
                buf.put_slice(&chunk);
                room -= chunk.len();
                room
            });
            match read {
                Read::More => {}
                Read::Blocked => self.first.readable = false,
                Read::Finished => {
                    self.first.readable = false;
                    self.first.ended = true;
                }
                Read::Reset => {
                    self.first.readable = false;
                    if buf.len() == before {
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                }
            }
        }
        let count = buf.len() - before;
        match (count, self.first.ended, self.failure()) {
            (0, true, _) => Ok(0),
            (0, false, Some(error)) => Err(error),
            (0, false, None) => Err(would_block()),
            _ => Ok(count),
        }
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let Some(id) = self.first.id else {
            return Err(would_block());
        };
        let mut total = 0;
        for slice in slices {
            match self.connection.write_slice(id, slice) {
                Ok(count) => {
                    total += count;
                    if self.keeps_sent() {
                        let sent = Bytes::copy_from_slice(&slice[..count]);
                        self.early.keep(vec![sent], count);
                    }
                    if count < slice.len() {
                        break;
                    }
                }
                Err(WriteError::Blocked) => {
                    self.first.blocked = true;
                    break;
                }
                Err(_) if total == 0 => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(_) => break,
            }
        }
        if total == 0 { Err(would_block()) } else { Ok(total) }
    }
}

fn would_block() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

impl Socket for FirstLane {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire.lock();
        if !wire.is_readable() {
            wire.receive(cx);
        }
        if wire.is_readable() {
            return Poll::Ready(Ok(()));
        }
        if !wire.driven {
            wire.send(cx);
        }
        Poll::Pending
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire.lock();
        wire.receive(cx);
        wire.send(cx);
        if wire.first.blocked && wire.lost.is_none() {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        self.wire.lock().read(buf)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.wire.lock().write(slices)
    }

    fn flush(&self, cx: &mut Context<'_>) {
        let mut wire = self.wire.lock();
        wire.push_lanes();
        wire.send(cx);
    }

    fn shutdown(&self) -> io::Result<()> {
        let mut wire = self.wire.lock();
        if let Some(error) = wire.failure() {
            return Err(error);
        }
        wire.first.finishing = true;
        wire.push_lanes();
        Ok(())
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }
}
