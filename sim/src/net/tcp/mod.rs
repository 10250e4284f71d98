//! One end of a TCP connection as a machine: told truly, with its retransmissions, windows, half-open
//! states and resets, and without the bytes of its headers.

mod receiver;
mod sender;

use std::io;
use std::io::IoSlice;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use receiver::Receiver;
pub(crate) use receiver::Sacks;
use sender::{NEVER, Piece, Sender};

/// Header bytes of a segment: IPv4 and TCP without options.
pub(crate) const TCP_HEADERS: usize = 40;
/// How long an acknowledgement may wait for data to travel with.
const DELAYED_ACK: u64 = 40_000_000;
/// How long an end whose program is gone waits for the other to finish.
const ORPHAN: u64 = 60_000_000_000;

/// How a host's TCP behaves. The defaults are those of Linux.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpConfig {
    /// Bytes written and not acknowledged that a socket holds.
    pub send_buffer: usize,
    /// Bytes received and not read that a socket holds.
    pub receive_buffer: usize,
    /// Payload bytes of a segment.
    pub mss: usize,
    /// Times that the first segment is sent again, after 1, 2, 4, … seconds, before `connect` fails.
    pub syn_retries: u32,
    /// Timeouts in a row before a connection is given up.
    pub retries: u32,
    /// Connections that wait to be accepted at one listener.
    pub backlog: usize,
}

impl Default for TcpConfig {
    fn default() -> TcpConfig {
        TcpConfig {
            send_buffer: 256 << 10,
            receive_buffer: 256 << 10,
            mss: 1460,
            syn_retries: 6,
            retries: 15,
            backlog: 1024,
        }
    }
}

/// The flags of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) syn: bool,
    pub(crate) ack: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
}

/// A TCP segment. Numbers count from 0 at each end's SYN and do not wrap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flags: Flags,
    pub(crate) seq: u64,
    pub(crate) ack: u64,
    pub(crate) window: u32,
    pub(crate) sacks: Sacks,
    pub(crate) payload: Bytes,
}

impl Segment {
    /// The answer to a segment that belongs to no connection.
    pub(crate) fn reset_for(other: &Segment) -> Segment {
        let used = other.payload.len() as u64 + u64::from(other.flags.syn) + u64::from(other.flags.fin);
        Segment {
            flags: Flags {
                rst: true,
                ack: true,
                ..Flags::default()
            },
            seq: other.ack,
            ack: other.seq + used,
            ..Segment::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The SYN is under way.
    Calling,
    /// The peer's SYN was answered.
    Answering,
    Open,
    Dead,
}

/// What the owner of a connection has to do after it was fed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Woken {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The connection has just been established.
    pub(crate) opened: bool,
}

/// One end of a connection. Feed it with `segment` and `timeout`; ask `poll` until there is nothing.
pub(crate) struct Tcp {
    config: TcpConfig,
    state: State,
    sender: Sender,
    receiver: Receiver,
    error: Option<io::ErrorKind>,
    first: Option<Piece>,
    ack_due: bool,
    /// Full segments since the last acknowledgement.
    unacked: usize,
    delayed_at: u64,
    reset_due: bool,
    orphan_until: u64,
    orphaned: bool,
    /// This end finished before the other had: it stays to acknowledge the other's FIN again (TIME-WAIT).
    first_to_finish: bool,
}

impl Tcp {
    fn new(now: u64, config: TcpConfig, state: State) -> Tcp {
        let mut sender = Sender::new(config.mss);
        let first = Some(sender.open(now));
        Tcp {
            receiver: Receiver::new(config.receive_buffer),
            config,
            state,
            sender,
            error: None,
            first,
            ack_due: false,
            unacked: 0,
            delayed_at: NEVER,
            reset_due: false,
            orphan_until: NEVER,
            orphaned: false,
            first_to_finish: false,
        }
    }

    /// The end that calls.
    pub(crate) fn connect(now: u64, config: TcpConfig) -> Tcp {
        Tcp::new(now, config, State::Calling)
    }

    /// The end that was called.
    pub(crate) fn answer(now: u64, config: TcpConfig, syn: &Segment) -> Tcp {
        let mut tcp = Tcp::new(now, config, State::Answering);
        tcp.receiver.open();
        tcp.sender
            .acked(now, 0, u64::from(syn.window) + 1, &[], tcp.config.mss);
        tcp
    }

    // ---- for the program ----

    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub(crate) fn error(&self) -> Option<io::ErrorKind> {
        self.error
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.receiver.is_readable() || self.error.is_some()
    }

    pub(crate) fn is_writable(&self) -> bool {
        let room = self.sender.room(&self.config);
        self.error.is_some() || (self.state == State::Open && room >= self.config.send_buffer / 3)
    }

    pub(crate) fn read(&mut self, buf: &mut impl BufMut) -> io::Result<usize> {
        if let Some(kind) = self.error
            && self.receiver.unread() == 0
        {
            return Err(kind.into());
        }
        let count = self.receiver.read(buf);
        if count == 0 && !self.receiver.has_ended() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.ack_due |= self.state == State::Open && self.receiver.has_opened(self.config.mss);
        Ok(count)
    }

    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(kind) = self.error {
            return Err(match kind {
                io::ErrorKind::ConnectionReset => io::ErrorKind::BrokenPipe,
                other => other,
            }
            .into());
        }
        if self.sender.is_finishing() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = self.sender.room(&self.config);
        if room == 0 || self.state != State::Open {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        if let [slice] = slices {
            let count = all.min(room);
            self.sender.write(Bytes::copy_from_slice(&slice[..count]));
            return Ok(count);
        }
        let mut data = BytesMut::with_capacity(all.min(room));
        for slice in slices {
            let part = slice.len().min(room - data.len());
            data.extend_from_slice(&slice[..part]);
        }
        let count = data.len();
        if count > 0 {
            self.sender.write(data.freeze());
        }
        Ok(count)
    }

    pub(crate) fn shutdown(&mut self) -> io::Result<()> {
        if self.state != State::Open {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.finish();
        Ok(())
    }

    fn finish(&mut self) {
        self.first_to_finish |= !self.sender.is_finishing() && !self.receiver.has_ended();
        self.sender.finish();
    }

    /// The program dropped its handle. What was written is still delivered, unless something received
    /// was never read: then the peer is told by a reset, as Linux does.
    pub(crate) fn abandon(&mut self, now: u64) {
        self.orphaned = true;
        if self.state != State::Open || self.receiver.unread() > 0 {
            self.reset(io::ErrorKind::ConnectionAborted);
            return;
        }
        self.finish();
        self.orphan_until = now + ORPHAN;
    }

    /// Ends the connection at once and tells the peer.
    pub(crate) fn reset(&mut self, kind: io::ErrorKind) {
        if self.state != State::Dead {
            self.reset_due = self.state != State::Calling;
            self.die(kind);
        }
    }

    fn die(&mut self, kind: io::ErrorKind) {
        self.state = State::Dead;
        self.error.get_or_insert(kind);
        self.delayed_at = NEVER;
        self.ack_due = false;
    }

    /// Nothing more will come of this end: it may be forgotten once its program has dropped it.
    pub(crate) fn is_over(&self) -> bool {
        let closed = self.sender.is_finishing() && self.sender.is_done() && self.receiver.has_ended();
        (self.state == State::Dead || closed && !self.first_to_finish)
            && !self.reset_due
            && !self.ack_due
            && self.orphaned
    }

    // ---- for the network ----

    /// The next moment to call `timeout` at; `u64::MAX` for none.
    pub(crate) fn deadline(&self) -> u64 {
        if self.state == State::Dead {
            return NEVER;
        }
        self.sender.deadline().min(self.delayed_at).min(self.orphan_until)
    }

    pub(crate) fn timeout(&mut self, now: u64) -> Woken {
        if self.state == State::Dead {
            return Woken::default();
        }
        if self.delayed_at <= now {
            self.delayed_at = NEVER;
            self.ack_due = true;
        }
        if self.orphan_until <= now {
            self.die(io::ErrorKind::TimedOut);
            return Woken::default();
        }
        self.sender.timeout_due(now, self.config.mss);
        let most = match self.state {
            State::Open => self.config.retries,
            _ => self.config.syn_retries,
        };
        if self.sender.timeouts() > most {
            self.die(io::ErrorKind::TimedOut);
            return self.all();
        }
        Woken::default()
    }

    fn all(&self) -> Woken {
        Woken {
            readable: true,
            writable: true,
            opened: false,
        }
    }

    pub(crate) fn segment(&mut self, now: u64, segment: Segment) -> Woken {
        if self.state == State::Dead {
            // The connection is forgotten: whoever still speaks to it is told so.
            self.reset_due |= !segment.flags.rst;
            return Woken::default();
        }
        if segment.flags.rst {
            return self.take_reset(&segment);
        }
        let mut woken = Woken::default();
        match self.state {
            State::Calling => {
                if !(segment.flags.syn && segment.flags.ack && segment.ack == 1) {
                    return woken;
                }
                self.receiver.open();
                self.state = State::Open;
                self.ack_due = true;
                woken.opened = true;
                woken.writable = true;
            }
            State::Answering if segment.flags.ack && segment.ack >= 1 => {
                self.state = State::Open;
                woken.opened = true;
            }
            // The SYN once more: its answer was lost, and follows by its own timer.
            State::Answering => return woken,
            _ if segment.flags.syn => {
                self.ack_due = true;
                return woken;
            }
            _ => {}
        }
        if segment.flags.ack {
            let edge = segment.ack + u64::from(segment.window);
            let mss = self.config.mss;
            let acked = self.sender.acked(now, segment.ack, edge, &segment.sacks, mss);
            woken.writable |= acked.freed && self.is_writable();
        }
        woken.readable = self.take_data(now, segment);
        woken
    }

    fn take_reset(&mut self, segment: &Segment) -> Woken {
        let kind = match self.state {
            State::Calling if segment.ack != 1 => return Woken::default(),
            State::Calling => io::ErrorKind::ConnectionRefused,
            _ => io::ErrorKind::ConnectionReset,
        };
        self.die(kind);
        self.all()
    }

    fn take_data(&mut self, now: u64, segment: Segment) -> bool {
        let len = segment.payload.len();
        if self.orphaned && segment.seq + len as u64 > self.receiver.nxt() && len > 0 {
            // Nobody will ever read this.
            self.reset(io::ErrorKind::ConnectionAborted);
            return false;
        }
        let seq = segment.seq + u64::from(segment.flags.syn);
        let probe_of_closed_window = len == 0 && seq < self.receiver.nxt() && !segment.flags.syn;
        let taken = self.receiver.take(seq, segment.payload, segment.flags.fin);
        self.ack_due |= taken.odd || probe_of_closed_window;
        if len > 0 && !taken.odd {
            self.unacked += 1;
            if self.unacked >= 2 {
                self.ack_due = true;
            } else if self.delayed_at == NEVER {
                self.delayed_at = now + DELAYED_ACK;
            }
        }
        taken.readable
    }

    /// The next segment to send.
    pub(crate) fn poll(&mut self, now: u64) -> Option<Segment> {
        if std::mem::take(&mut self.reset_due) {
            let mut segment = self.header();
            segment.seq = self.sender.nxt();
            segment.flags.rst = true;
            return Some(segment);
        }
        if self.state == State::Dead {
            return None;
        }
        let piece = self
            .first
            .take()
            .or_else(|| self.sender.poll(now, self.config.mss));
        if piece.is_none() && !self.ack_due {
            return None;
        }
        let mut segment = self.header();
        segment.seq = self.sender.nxt();
        if let Some(piece) = piece {
            segment.flags.syn = piece.control && piece.seq == 0;
            segment.flags.fin = piece.control && piece.seq > 0;
            segment.seq = piece.seq;
            segment.payload = piece.data;
        }
        Some(segment)
    }

    /// A segment that acknowledges everything so far.
    fn header(&mut self) -> Segment {
        let mut segment = Segment {
            window: u32::try_from(self.receiver.announce()).unwrap_or(u32::MAX),
            ..Segment::default()
        };
        if self.state != State::Calling {
            segment.flags.ack = true;
            segment.ack = self.receiver.nxt();
            segment.sacks = self.receiver.sacks();
            self.ack_due = false;
            self.unacked = 0;
            self.delayed_at = NEVER;
        }
        segment
    }
}
