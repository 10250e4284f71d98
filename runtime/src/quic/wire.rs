//! A connection as it is driven: what came, what is due, what goes out.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::Context;

use sheetbend_core::carrier::quic::{
    Connection, ConnectionEvent, Dir, Event, QuicError, QuicStreamId, StreamEvent, Transmit,
};

use super::early::Early;
use super::lanes::Lanes;
use super::moves::Moves;
use super::port::{Accepted, Inbox, Port};
use super::web::Web;
use crate::alarm::Alarm;

/// Runs of datagrams that are sent before others get their turn.
const SENDS: usize = 32;
/// Datagrams that are taken in before the session has its turn: what it copies is in the cache still.
const BATCH: usize = 128;
/// Batches without an end of what waits before deadlines are looked at anyhow.
const MAX_BEHIND: u32 = 32;

/// The first stream of a connection, which is lane 0.
#[derive(Default)]
pub(super) struct First {
    pub(super) id: Option<QuicStreamId>,
    /// What came on it before it was known to be this.
    pub(super) early: Vec<u8>,
    /// There may be something to read.
    pub(super) readable: bool,
    /// The peer has ended its side, and all of it was read.
    pub(super) ended: bool,
    /// There was no room to write.
    pub(super) blocked: bool,
    /// It is finished once all that waits is written.
    pub(super) finishing: bool,
}

/// A connection and what drives it.
pub(super) struct Wire {
    pub(super) connection: Box<Connection>,
    pub(super) port: Arc<Port>,
    inbox: Arc<Inbox>,
    /// Nobody else receives from the port.
    pub(super) alone: bool,
    waiting: VecDeque<ConnectionEvent>,
    /// Batches in a row that left something waiting.
    behind: u32,
    alarm: Alarm,
    /// The datagrams of `unsent`.
    buffer: Vec<u8>,
    unsent: Option<Transmit>,
    /// Why there is no connection any more.
    pub(super) lost: Option<QuicError>,
    pub(super) connected: bool,
    /// It has gone on to its session, though its handshake may not be done.
    welcomed: bool,
    pub(super) first: First,
    pub(super) early: Early,
    /// Who drives the session calls [`Wire::send`] himself, when all is written.
    pub(super) driven: bool,
    pub(super) lanes: Lanes,
    pub(super) moves: Moves,
    #[cfg_attr(
        not(feature = "webtransport"),
        expect(dead_code, reason = "without HTTP/3 there is nothing in it")
    )]
    pub(super) web: Web,
}

impl Wire {
    /// Drives a connection. `alone`: it receives from the port itself.
    pub(super) fn new(port: Arc<Port>, accepted: Accepted, web: Web, alone: bool) -> Wire {
        let Accepted { connection, inbox } = accepted;
        let remote = connection.remote();
        Wire {
            connection,
            port,
            inbox,
            alone,
            waiting: VecDeque::new(),
            behind: 0,
            alarm: Alarm::default(),
            buffer: Vec::new(),
            unsent: None,
            lost: None,
            connected: false,
            welcomed: false,
            first: First::default(),
            early: Early::default(),
            driven: false,
            lanes: Lanes::default(),
            moves: Moves::new(remote),
            web,
        }
    }

    /// Takes in what came and what is due.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>) {
        if self.alone {
            self.port.relieve(cx);
        }
        if self.alone && self.waiting.len() < BATCH {
            match self.port.receive(cx, &mut |_| {}) {
                Ok(false) => {}
                Ok(true) => cx.waker().wake_by_ref(),
                Err(error) => self.lost = Some(QuicError::Config(error.to_string())),
            }
        }
        self.inbox.take(cx, &mut self.waiting);
        let now = self.port.now();
        let count = self.waiting.len().min(BATCH);
        if count > 0 {
            self.connection.handle_events(now, self.waiting.drain(..count));
        }
        self.moves.look(&self.connection, false);
        self.behind = match self.waiting.is_empty() {
            true => 0,
            false => self.behind.wrapping_add(1),
        };
        if self.behind > 0 {
            cx.waker().wake_by_ref();
        }
        // What has come is no reason to think that it has not; but a flood without end does not stop the clock.
        let judges = self.behind.is_multiple_of(MAX_BEHIND);
        if judges && self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
            self.moves.look(&self.connection, true);
        }
        self.tell_endpoint();
        self.agree();
        self.take_events();
    }

    /// It goes on to its session, and does not count as one in its handshake any more, once that is done.
    pub(super) fn welcome(&mut self) {
        self.welcomed = true;
        if self.connected {
            self.port.settled(self.connection.handle());
        }
    }

    fn tell_endpoint(&mut self) {
        let handle = self.connection.handle();
        while let Some(event) = self.connection.poll_endpoint_event() {
            if event.is_drained() {
                // It is told that when this is dropped, and once only.
                continue;
            }
            if let Some(answer) = self.port.tell(handle, event) {
                let now = self.port.now();
                self.connection.handle_events(now, [answer]);
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Connected => {
                    self.connected = true;
                    self.settle_early();
                    if self.welcomed {
                        self.port.settled(self.connection.handle());
                    }
                }
                Event::ConnectionLost { reason } => {
                    let why = self.connection.why(reason);
                    self.lost.get_or_insert(why);
                }
                Event::Stream(event) => self.take_stream_event(event),
                _ => {}
            }
        }
    }

    fn take_stream_event(&mut self, event: StreamEvent) {
        if !self.hears(&event) {
            return;
        }
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(id) = self.connection.accept(Dir::Bi) {
                    self.first.id.get_or_insert(id);
                    self.first.readable = true;
                }
            }
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(id) = self.connection.accept(Dir::Uni) {
                    self.lanes.accept(id, &[]);
                }
            }
            StreamEvent::Readable { id } if self.first.id == Some(id) => self.first.readable = true,
            StreamEvent::Readable { id } => self.lanes.readable(id),
            StreamEvent::Writable { id } if self.first.id == Some(id) => {
                self.first.blocked = false;
                self.lanes.writable(0);
            }
            StreamEvent::Writable { id } => self.lanes.writable(self.lanes.lane_of(id)),
            StreamEvent::Stopped { id, .. } if self.first.id != Some(id) => {
                self.lanes.lose(self.lanes.lane_of(id));
            }
            _ => {}
        }
    }

    /// Sends what is to be sent, and sets the alarm to the next deadline.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) {
        let now = self.port.now();
        let most = self.port.max_segments();
        for round in 0.. {
            if let Some(transmit) = &self.unsent
                && !self.port.send(cx, transmit, &self.buffer)
            {
                break;
            }
            self.buffer.clear();
            self.unsent = self.connection.poll_transmit(now, most, &mut self.buffer);
            if self.unsent.is_none() {
                if self.buffer.capacity() > 0 && round == 0 {
                    // An idle connection holds no buffer.
                    self.buffer = Vec::new();
                }
                break;
            }
            if round >= SENDS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.tell_endpoint();
        let due = self.connection.poll_timeout();
        let runtime = self.port.runtime.clone();
        if self.alarm.poll_soonest(&*runtime, due, cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// What ended it, as an error of a socket.
    pub(super) fn failure(&self) -> Option<io::Error> {
        let lost = self.lost.as_ref()?;
        let kind = match lost {
            QuicError::Closed { .. } | QuicError::Reset | QuicError::Local => io::ErrorKind::ConnectionReset,
            QuicError::Refused(_) => io::ErrorKind::ConnectionRefused,
            #[cfg(feature = "webtransport")]
            QuicError::NoSession(_) => io::ErrorKind::ConnectionRefused,
            QuicError::TimedOut => io::ErrorKind::TimedOut,
            QuicError::Tls(error) if error.is_distrust() => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::InvalidData,
        };
        Some(io::Error::new(kind, lost.clone()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let now = self.port.now();
        if !self.connection.is_closed() {
            self.connection.close(now, self.close_code(), b"");
        }
        self.buffer.clear();
        // Once, to whoever may listen: what it would go on saying, resets say that the endpoint sends.
        if let Some(transmit) = self.connection.poll_transmit(now, 1, &mut self.buffer) {
            self.port.send_last(&transmit, &self.buffer);
        }
        self.port.forget(self.connection.handle());
    }
}
