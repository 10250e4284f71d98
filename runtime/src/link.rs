//! One socket under a session: what was read and not taken, what is to be written, how it ends.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use sheetbend_core::session::{self, PathEnd, PathKey, Transmit};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;

#[cfg(feature = "quic")]
use crate::laned::Laned;
use crate::layers::{Connection, Layers, try_write};
use crate::pool::{self, give_block, give_output, take_block, take_output};
use crate::rt::Socket;

/// How long a socket may take to be flushed and closed by the peer, once its path has ended.
const CLOSE_LINGER: Duration = Duration::from_secs(1);
/// A read is not worth its system call with less room than this.
const MIN_ROOM: usize = 8 * 1024;
/// Decrypted at once, so that it fits in a block with the rest of a record.
const MAX_PIECE: usize = 48 * 1024;
/// Output of this size means that the session may have more.
const LARGE_OUTPUT: usize = 64 * 1024;

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its path lives.
    Live,
    /// Its path has ended; what is queued is written, until then at most.
    Flushing(Timestamp),
    /// All is written, and the peer is to close first, so that nothing sent is destroyed by a reset.
    Lingering(Timestamp),
    /// To be dropped.
    Gone,
}

/// A socket that carries a path.
pub(crate) struct Link {
    pub(crate) key: PathKey,
    socket: Box<dyn Socket>,
    /// What is spoken on the socket; `None` where its bytes are records.
    layers: Option<Box<Layers>>,
    /// Where the socket is the first of several lanes: all of them.
    #[cfg(feature = "quic")]
    laned: Option<Box<Laned>>,
    /// What waits for the key that proves exchanges, over HTTP.
    #[cfg(feature = "http")]
    unkeyed: Option<std::sync::Arc<dyn crate::http::Keyed>>,
    input: BytesMut,
    /// Bytes of the allocation that `input` lies in.
    block: usize,
    /// Bytes that the record begun in `input` still lacks.
    expected: usize,
    /// Bytes of the last record that was seen to begin at the end of a read.
    record: usize,
    fresh: bool,
    output: Option<OutBuffer>,
    /// The socket had no room for all of `output`: the session was not asked for more since.
    held_up: bool,
    phase: Phase,
    end: Option<PathEnd>,
    /// The session knows that the connection is closed, and has nothing more for it.
    told: bool,
}

fn path_end(error: &io::Error) -> PathEnd {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            PathEnd::Reset
        }
        kind => PathEnd::Io(kind),
    }
}

impl Link {
    /// A link of a connection on which the path's handshake begins, or has begun.
    pub(crate) fn new(key: PathKey, connection: Connection) -> Link {
        let Connection {
            socket,
            layers,
            input,
            #[cfg(feature = "http")]
            http,
            #[cfg(feature = "quic")]
            quic,
        } = connection;
        let fresh = !input.is_empty();
        let block = input.capacity();
        let (output, phase, end) = (None, Phase::Live, None);
        Link {
            key,
            socket,
            layers,
            #[cfg(feature = "quic")]
            laned: quic.map(|facts| Laned::new(facts.lanes)),
            #[cfg(feature = "http")]
            unkeyed: http.map(|facts| facts.keyed),
            input,
            block,
            expected: 0,
            record: 0,
            fresh,
            output,
            held_up: false,
            phase,
            end,
            told: false,
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// When the link is dropped at the latest.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Flushing(at) | Phase::Lingering(at) => Some(at),
            Phase::Live | Phase::Gone => None,
        }
    }

    /// Reads what is there, up to one block. Tells whether there is more.
    pub(crate) fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        if self.end.is_some() || self.is_gone() {
            return false;
        }
        match self.socket.poll_readable(cx) {
            Poll::Pending => return false,
            Poll::Ready(Err(error)) => {
                self.end = Some(path_end(&error));
                return false;
            }
            Poll::Ready(Ok(())) => {}
        }
        let target = match &mut self.layers {
            Some(layers) if layers.carrier.reads_apart() => {
                layers.make_room();
                &mut layers.wire
            }
            _ => {
                self.make_room(MIN_ROOM);
                &mut self.input
            }
        };
        match self.socket.try_read(target) {
            Ok(0) => self.end = Some(PathEnd::Eof),
            Ok(_) => self.fresh = true,
            Err(error) if would_block(&error) => {}
            Err(error) => self.end = Some(path_end(&error)),
        }
        if self.end.is_some() {
            return false;
        }
        // Registers for the next arrival, or finds that more is there already.
        self.socket.poll_readable(cx).is_ready()
    }

    fn make_room(&mut self, least: usize) {
        let room = self.expected.max(least);
        if self.input.capacity() - self.input.len() >= room {
            return;
        }
        let mut block = take_block(self.input.len() + room);
        let size = std::mem::replace(&mut self.block, block.capacity());
        if self.record > 0 && block.capacity() >= self.input.len() + room + pool::LINE {
            pool::align(&mut block);
        }
        // Of a fast stream every record is as long as the last: a read that ends where one does leaves nothing
        // to be moved to the next block.
        if let Some(count) = block.capacity().checked_div(self.record) {
            let whole = count * self.record;
            if whole >= self.input.len() + room {
                drop(block.split_off(whole));
            }
        }
        block.extend_from_slice(&self.input);
        give_block(std::mem::replace(&mut self.input, block), size);
    }

    /// Hands what was read to the session, and the socket's end, if it ended.
    pub(crate) fn deliver(&mut self, now: Timestamp, core: &mut session::Session) {
        if std::mem::take(&mut self.fresh) {
            if self.phase != Phase::Live {
                self.drop_input();
            } else if self.layers.is_some() {
                self.deliver_decoded(now, core);
            } else {
                // The session notes the error and reports it as the path's end; its last words are
                // asked for by `pull` like any other output.
                let _ = core.handle_input(now, self.key, &mut self.input, self.block);
                let record = core.record_len(&self.input);
                self.expected = record.saturating_sub(self.input.len());
                if record > 0 {
                    self.record = record;
                }
            }
        }
        #[cfg(feature = "quic")]
        if let Some(laned) = self.laned.as_mut().filter(|_| self.phase == Phase::Live) {
            laned.deliver(now, core, self.key);
        }
        #[cfg(feature = "http")]
        self.hand_key(core);
        self.put_aside();
        let late = self
            .deadline()
            .is_some_and(|at| at <= now)
            .then_some(PathEnd::Local);
        if let Some(end) = self.end.or(late) {
            self.tell(now, core, end);
            self.drop_output();
            self.phase = Phase::Gone;
        }
    }

    /// Goes on from another address, where the transport can.
    #[cfg(feature = "quic")]
    pub(crate) fn rebind(&mut self) {
        if let Some(laned) = &self.laned {
            laned.rebind();
        }
    }

    /// Gives what lies under it the session's key, once there is one.
    #[cfg(feature = "http")]
    fn hand_key(&mut self, core: &session::Session) {
        if self.unkeyed.is_some()
            && let Some(key) = core.exchange_key()
            && let Some(unkeyed) = self.unkeyed.take()
        {
            unkeyed.set_key(key);
        }
    }

    /// [`Link::deliver`] where a carrier lies between.
    fn deliver_decoded(&mut self, now: Timestamp, core: &mut session::Session) {
        loop {
            // What is decrypted goes to another block, and is no longer than what came.
            let apart = self.layers.as_ref().map_or(0, |layers| layers.wire.len());
            if apart > 0 {
                self.make_room(apart.min(MAX_PIECE));
            }
            let Some(layers) = &mut self.layers else { return };
            let rest = (apart > MAX_PIECE).then(|| layers.wire.split_off(MAX_PIECE));
            let (key, block) = (self.key, self.block);
            let decoded = layers.decode(now, &mut self.input);
            self.expected = layers.with_records(&mut self.input, |records| {
                let _ = core.handle_input(now, key, records, block);
                core.record_len(records).saturating_sub(records.len())
            });
            let end = match decoded {
                Ok(()) if layers.carrier.is_ended() => PathEnd::Eof,
                Ok(()) => match rest {
                    Some(rest) => {
                        layers.wire.unsplit(rest);
                        continue;
                    }
                    None => return,
                },
                Err(_) => PathEnd::Io(io::ErrorKind::InvalidData),
            };
            self.tell(now, core, end);
            self.doom(now);
            self.say_goodbye();
            return;
        }
    }

    /// Adds what the transport says at its end to what is to be written.
    fn say_goodbye(&mut self) {
        if let Some(layers) = &mut self.layers {
            let mut output = self.output.take().unwrap_or_else(take_output);
            layers.carrier.close(&mut output);
            self.keep_output(output);
        }
    }

    fn keep_output(&mut self, output: OutBuffer) {
        if output.is_empty() {
            give_output(output);
        } else {
            self.output = Some(output);
        }
    }

    fn drop_input(&mut self) {
        self.input.clear();
        if let Some(layers) = &mut self.layers {
            layers.clean = 0;
            layers.wire.clear();
        }
    }

    fn tell(&mut self, now: Timestamp, core: &mut session::Session, end: PathEnd) {
        if !std::mem::replace(&mut self.told, true) {
            core.handle_path_closed(now, self.key, end);
        }
    }

    /// Keeps no block for a tail that is small.
    fn put_aside(&mut self) {
        if let Some(layers) = &mut self.layers {
            layers.put_aside();
        }
        pool::put_aside(&mut self.input, &mut self.block);
    }

    fn drop_output(&mut self) {
        if let Some(output) = self.output.take() {
            give_output(output);
        }
    }

    /// The session gave the path up: what is queued has a moment to leave.
    pub(crate) fn doom(&mut self, now: Timestamp) {
        if self.phase == Phase::Live {
            self.phase = Phase::Flushing(now + CLOSE_LINGER);
        }
    }

    /// The session no longer knows the path: what is queued has a moment to leave.
    pub(crate) fn drop_path(&mut self, now: Timestamp) {
        self.told = true;
        self.doom(now);
        self.say_goodbye();
        if self.output.is_none() {
            self.linger();
        }
    }

    /// Asks the session for output, unless the last is still under way.
    pub(crate) fn pull(&mut self, now: Timestamp, core: &mut session::Session) {
        if self.output.is_some() || self.told {
            return;
        }
        #[cfg(feature = "quic")]
        if self.laned.as_ref().is_some_and(|laned| laned.is_full()) {
            return;
        }
        let mut output = take_output();
        #[cfg(feature = "quic")]
        let answer = match &mut self.laned {
            Some(laned) => Some(laned.pull(now, core, self.key, &mut output)),
            None => None,
        };
        #[cfg(not(feature = "quic"))]
        let answer = None;
        let answer = match (answer, &mut self.layers) {
            (Some(answer), _) => answer,
            (None, None) => core.poll_transmit(now, self.key, &mut output),
            (None, Some(layers)) => {
                layers.carrier.prepare(&mut output);
                let answer = core.poll_transmit(now, self.key, &mut output);
                layers.carrier.seal(now, &mut output);
                answer
            }
        };
        self.keep_output(output);
        if answer == Transmit::CloseAfterFlush {
            self.doom(now);
            self.say_goodbye();
            // The session need not keep the path while the last bytes leave.
            self.tell(now, core, PathEnd::Local);
            if self.output.is_none() {
                self.linger();
            }
        }
    }

    /// [`Link::write`] where there are lanes, which take all there is.
    #[cfg(feature = "quic")]
    fn write_lanes(&mut self) -> bool {
        let Some(laned) = &mut self.laned else {
            return false;
        };
        let Some(mut output) = self.output.take() else {
            return laned.is_full() && laned.renew();
        };
        let more = laned.write(&mut output);
        give_output(output);
        if self.end.is_some() || (!self.told && self.phase != Phase::Live) {
            return true;
        }
        self.linger();
        more || matches!(self.phase, Phase::Lingering(_) | Phase::Gone)
    }

    fn linger(&mut self) {
        if let Phase::Flushing(at) = self.phase {
            self.phase = match self.socket.shutdown() {
                Ok(()) => Phase::Lingering(at),
                Err(_) => Phase::Gone,
            };
        }
    }

    /// Writes what is queued. Tells whether the session may have more for this link at once.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let more = self.write(cx);
        #[cfg(feature = "quic")]
        if self.laned.is_some() {
            self.socket.flush(cx);
        }
        more
    }

    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        #[cfg(feature = "quic")]
        if self.laned.is_some() {
            return self.write_lanes();
        }
        let Some(output) = &mut self.output else {
            return false;
        };
        // What the session wanted to send while this was held up, nobody has asked it for.
        let more = output.len() >= LARGE_OUTPUT || std::mem::take(&mut self.held_up);
        while !output.is_empty() && self.end.is_none() {
            match try_write(&*self.socket, output) {
                Ok(0) => self.end = Some(PathEnd::Io(io::ErrorKind::WriteZero)),
                Ok(count) => {
                    let lost = usize::from(sheetbend_core::canary!(LinkTailLost) && count < output.len());
                    output.advance(count + lost);
                }
                Err(error) if would_block(&error) => match self.socket.poll_writable(cx) {
                    Poll::Pending => {
                        self.held_up = true;
                        return false;
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => self.end = Some(path_end(&error)),
                },
                Err(error) => self.end = Some(path_end(&error)),
            }
        }
        self.drop_output();
        if self.end.is_some() {
            return true;
        }
        if !self.told && self.phase != Phase::Live {
            return true;
        }
        self.linger();
        more || matches!(self.phase, Phase::Lingering(_) | Phase::Gone)
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
