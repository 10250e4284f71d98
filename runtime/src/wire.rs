//! One connection below exchanges or a tunnel: its bytes in and out, in plain.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use sheetbend_core::handshake::Exporter;
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;

use crate::layers::{Connection, Layers, Sending};
use crate::pool;
use crate::rt::Socket;

/// A read is not worth its system call with less room than this.
const MIN_ROOM: usize = 8 * 1024;

/// An output buffer for those of several connections that turn out to have something to write.
#[derive(Default)]
pub(crate) struct Spare(Option<OutBuffer>);

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(out) = self.0.take() {
            pool::give_output(out);
        }
    }
}

pub(crate) struct Wire {
    pub(crate) socket: Box<dyn Socket>,
    layers: Option<Box<Layers>>,
    /// What came and was not taken.
    pub(crate) input: BytesMut,
    /// Bytes of the allocation that `input` lies in.
    block: usize,
    sending: Sending,
}

impl Wire {
    /// A connection on which nothing lies above TLS.
    pub(crate) fn new(connection: Connection) -> Wire {
        let Connection {
            socket,
            layers,
            input,
            ..
        } = connection;
        Wire {
            socket,
            layers,
            block: input.capacity(),
            input,
            sending: Sending::default(),
        }
    }

    /// What binds a JOIN to it.
    pub(crate) fn exporter(&self) -> Option<Exporter> {
        self.layers.as_ref()?.carrier.capabilities().exporter
    }

    /// Reads once. `Ok(true)`: something may have come; `Ok(false)`: the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, now: Timestamp) -> Poll<io::Result<bool>> {
        loop {
            ready!(self.socket.poll_readable(cx))?;
            let apart = matches!(&self.layers, Some(layers) if layers.carrier.reads_apart());
            let result = match &mut self.layers {
                Some(layers) if apart => {
                    layers.make_room();
                    self.socket.try_read(&mut layers.wire)
                }
                _ => {
                    pool::make_room(&mut self.input, &mut self.block, MIN_ROOM);
                    self.socket.try_read(&mut self.input)
                }
            };
            match result {
                Ok(0) => return Poll::Ready(Ok(false)),
                Ok(_) => return Poll::Ready(self.decode(now)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn decode(&mut self, now: Timestamp) -> io::Result<bool> {
        let apart = self.layers.as_ref().map_or(0, |layers| layers.wire.len());
        if apart > 0 {
            pool::make_room(&mut self.input, &mut self.block, apart);
        }
        let Some(layers) = &mut self.layers else {
            return Ok(true);
        };
        let before = self.input.len();
        let decoded = layers.decode(now, &mut self.input);
        layers.put_aside();
        decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(self.input.len() > before || !layers.carrier.is_ended())
    }

    /// Keeps no block for input that is taken, or small.
    pub(crate) fn put_aside(&mut self) {
        pool::put_aside(&mut self.input, &mut self.block);
    }

    /// Whether all that was laid out is written.
    pub(crate) fn is_flushed(&mut self) -> bool {
        self.sending.buffer().is_empty()
    }

    /// Lets `lay_out` append what is to be written next. Only where all is written that was laid out before.
    pub(crate) fn lay_out<T>(&mut self, now: Timestamp, lay_out: impl FnOnce(&mut OutBuffer) -> T) -> T {
        self.lay_out_in(now, &mut Spare::default(), lay_out)
    }

    /// [`Wire::lay_out`] in a buffer that is another's next, where nothing comes to lie in it.
    pub(crate) fn lay_out_in<T>(
        &mut self,
        now: Timestamp,
        spare: &mut Spare,
        lay_out: impl FnOnce(&mut OutBuffer) -> T,
    ) -> T {
        debug_assert!(self.is_flushed(), "what is sealed cannot be appended to");
        let mut out = spare.0.take().unwrap_or_else(pool::take_output);
        let result = lay_out(&mut out);
        if let Some(layers) = &mut self.layers {
            layers.carrier.seal(now, &mut out);
        }
        match out.is_empty() {
            true => spare.0 = Some(out),
            false => *self.sending.buffer() = out,
        }
        result
    }

    /// Writes what was laid out; ready when all of it is.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = self.sending.poll_write(cx, &*self.socket);
        if written.is_ready() && self.sending.buffer().capacity() > 0 {
            pool::give_output(std::mem::take(self.sending.buffer()));
        }
        written
    }

    /// Says goodbye, if there is anybody to hear it.
    pub(crate) fn close(&mut self) {
        if !self.is_flushed() {
            return;
        }
        if let Some(layers) = &mut self.layers {
            layers.carrier.close(self.sending.buffer());
            self.sending.write_some(&*self.socket);
        }
        let _ = self.socket.shutdown();
    }
}
