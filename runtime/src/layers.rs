//! What lies between a socket and its session: nothing, or a carrier with its buffers; and how a connection
//! comes to be ready for a session.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::BytesMut;
use sheetbend_core::carrier::{Carrier, CarrierError};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;

use crate::pool::{self, give_block};
use crate::rt::Socket;

/// Bytes that a connection is read by until it is a session's.
const FIRST_READ: usize = 4096;
/// Slices in one vectored write.
const MAX_SLICES: usize = 64;

/// A socket, what is spoken on it, and what was read and belongs to the session.
pub(crate) struct Connection {
    pub(crate) socket: Box<dyn Socket>,
    /// `None` where the socket's bytes are records.
    pub(crate) layers: Option<Box<Layers>>,
    pub(crate) input: BytesMut,
    /// Where the socket stands for exchanges over HTTP.
    #[cfg(feature = "http")]
    pub(crate) http: Option<Box<crate::http::Facts>>,
    /// Where the socket stands for a connection of QUIC.
    #[cfg(feature = "quic")]
    pub(crate) quic: Option<Box<crate::quic::Facts>>,
}

impl Connection {
    /// A connection whose bytes are records, as far as is known.
    pub(crate) fn native(socket: Box<dyn Socket>) -> Connection {
        Connection {
            socket,
            layers: None,
            input: BytesMut::new(),
            #[cfg(feature = "http")]
            http: None,
            #[cfg(feature = "quic")]
            quic: None,
        }
    }
}

impl Connection {
    /// Whether records can be expected on it, so that there is nothing to be found out about what it speaks.
    pub(crate) fn is_path(&self) -> bool {
        #[cfg(feature = "http")]
        if self.http.is_some() {
            return true;
        }
        #[cfg(feature = "quic")]
        if self.quic.is_some() {
            return true;
        }
        false
    }
}

/// A carrier and what it keeps beside the link's own buffer.
pub(crate) struct Layers {
    pub(crate) carrier: Carrier,
    /// How many bytes at the front of the input are of records.
    pub(crate) clean: usize,
    /// What the socket received, where the carrier reads it apart.
    pub(crate) wire: BytesMut,
    /// Bytes of the allocation that `wire` lies in.
    block: usize,
}

impl Layers {
    /// Makes `wire` ready for a read. It is emptied by each decoding.
    pub(crate) fn make_room(&mut self) {
        pool::make_room(&mut self.wire, &mut self.block, FIRST_READ);
    }

    /// Keeps no block where nothing waits.
    pub(crate) fn put_aside(&mut self) {
        if self.wire.is_empty() && self.wire.capacity() > 0 {
            give_block(std::mem::take(&mut self.wire), self.block);
        }
    }

    pub(crate) fn new(carrier: Carrier) -> Layers {
        Layers {
            carrier,
            clean: 0,
            wire: BytesMut::new(),
            block: 0,
        }
    }

    /// Decodes what was received.
    pub(crate) fn decode(&mut self, now: Timestamp, input: &mut BytesMut) -> Result<(), CarrierError> {
        self.carrier
            .handle_input(now, &mut self.wire, input, &mut self.clean)
    }

    /// Lets `take` have the records at the front of the input; what it leaves stays there.
    pub(crate) fn with_records<T>(
        &mut self,
        input: &mut BytesMut,
        take: impl FnOnce(&mut BytesMut) -> T,
    ) -> T {
        if self.clean == input.len() {
            let result = take(input);
            self.clean = input.len();
            return result;
        }
        let mut records = input.split_to(self.clean);
        let result = take(&mut records);
        self.clean = records.len();
        if !records.is_empty() {
            // They are neighbours again, so nothing is copied.
            records.unsplit(std::mem::take(input));
            *input = records;
        }
        result
    }
}

/// Time since 1970 at the runtime's time zero.
#[cfg(feature = "tls")]
pub(crate) fn epoch(runtime: &dyn crate::rt::Runtime) -> std::time::Duration {
    let since = runtime.now().since(Timestamp::ZERO);
    runtime.unix_time().saturating_sub(since)
}

/// What a connection has to send before a session has it.
#[derive(Default)]
pub(crate) struct Sending(OutBuffer);

impl Sending {
    pub(crate) fn buffer(&mut self) -> &mut OutBuffer {
        &mut self.0
    }

    /// Puts more behind what is to be sent.
    pub(crate) fn append(&mut self, more: Sending) {
        if self.0.is_empty() {
            self.0 = more.0;
            return;
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = more.0.io_slices(&mut slices);
        for slice in &slices[..count] {
            self.0.put(slice);
        }
    }

    /// Ready when all is written.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, socket: &dyn Socket) -> Poll<io::Result<()>> {
        while !self.0.is_empty() {
            match try_write(socket, &self.0) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => self.0.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(socket.poll_writable(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what the socket takes at once.
    pub(crate) fn write_some(&mut self, socket: &dyn Socket) {
        while !self.0.is_empty() {
            match socket.try_write_vectored(&[IoSlice::new(self.0.chunk())]) {
                Ok(count) if count > 0 => self.0.advance(count),
                _ => return,
            }
        }
    }
}

/// Writes the front of what waits: small output mostly lies in one piece.
pub(crate) fn try_write(socket: &dyn Socket, output: &OutBuffer) -> io::Result<usize> {
    let first = output.chunk();
    if first.len() == output.len() {
        return socket.try_write_vectored(&[IoSlice::new(first)]);
    }
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let count = output.io_slices(&mut slices);
    socket.try_write_vectored(&slices[..count])
}

/// Reads once into the right buffer. `Ok(true)`: something came; `Ok(false)`: the end.
pub(crate) fn poll_read(
    cx: &mut Context<'_>,
    socket: &dyn Socket,
    buffer: &mut BytesMut,
) -> Poll<io::Result<bool>> {
    loop {
        std::task::ready!(socket.poll_readable(cx))?;
        buffer.reserve(FIRST_READ);
        match socket.try_read(buffer) {
            Ok(count) => return Poll::Ready(Ok(count > 0)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// A step of the transport's handshake: ready when it is done and all of ours is written. What came behind it
/// is in the input.
pub(crate) fn poll_handshake(
    cx: &mut Context<'_>,
    now: Timestamp,
    connection: &mut Connection,
    sending: &mut Sending,
) -> Poll<io::Result<()>> {
    let Connection {
        socket,
        layers: Some(layers),
        input,
        ..
    } = connection
    else {
        return Poll::Ready(Ok(()));
    };
    loop {
        if sending.0.is_empty() {
            layers.carrier.prepare(&mut sending.0);
            layers.carrier.seal(now, &mut sending.0);
        }
        let written = sending.poll_write(cx, &**socket)?;
        if layers.carrier.is_ready() && !layers.carrier.has_output() && sending.0.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if written.is_ready() && layers.carrier.has_output() {
            continue;
        }
        let buffer = if layers.carrier.reads_apart() {
            &mut layers.wire
        } else {
            &mut *input
        };
        let ended = match poll_read(cx, &**socket, buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(more)) => !more,
        };
        if ended {
            let what = "the peer closed the connection in the transport's handshake";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
        }
        if let Err(error) = layers.decode(now, input) {
            layers.carrier.close(&mut sending.0);
            sending.write_some(&**socket);
            let kind = match error.is_distrust() {
                true => io::ErrorKind::PermissionDenied,
                false => io::ErrorKind::InvalidData,
            };
            return Poll::Ready(Err(io::Error::new(kind, error)));
        }
    }
}
