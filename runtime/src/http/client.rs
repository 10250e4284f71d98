//! The client's end of a path over HTTP: up to four connections in one socket.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use parking_lot::Mutex;
use sheetbend_core::carrier::http::{Action, ClientConfig, ClientPath, ExchangeKey, Mode, Slot};
use sheetbend_core::time::Timestamp;

use super::bells::Bells;
use super::{Facts, Keyed, take_waiting};
use crate::address::Address;
use crate::alarm::Alarm;
use crate::endpoint::security;
use crate::layers::Connection;
use crate::reach::{Settings, connect_bare};
use crate::rt::{BoxFuture, Runtime, Socket};
use crate::wire::{Spare, Wire};

/// Nothing more is read while so much waits for the session.
const HIGH_WATER: usize = 256 * 1024;
/// Rounds of reading and writing before others get their turn.
const ROUNDS: usize = 8;
/// The bell of the alarm, behind those of the slots.
const ALARM: usize = Slot::ALL.len();

/// A path over HTTP, the first connection of which stands.
pub(crate) fn open(
    runtime: Arc<dyn Runtime>,
    address: Address,
    settings: Arc<Settings>,
    first: Connection,
) -> Connection {
    let mut config = ClientConfig::new(address.authority(), address.http_target());
    config.mode = address.http_mode();
    config.origin = settings.origin.clone();
    config.first = settings.ways.first(&address, runtime.now());
    let wire = Wire::new(first);
    let exporter = wire.exporter();
    let peer = wire.socket.peer();
    let (transport, security) = (address.transport(), security(&address));
    let state = State {
        mode: config.mode.unwrap_or(config.first),
        path: ClientPath::new(config, runtime.now()),
        slots: [Place::Open(wire), Place::Closed, Place::Closed, Place::Closed],
        runtime,
        address,
        settings,
        alarm: Alarm::default(),
        now: Timestamp::ZERO,
        due: None,
        stirred: true,
        blocked: false,
        only_read: false,
        bells: Bells::new(Waker::noop()),
    };
    let shared = Arc::new(HttpClient {
        state: Mutex::new(state),
    });
    let facts = Facts {
        keyed: shared.clone(),
        transport,
        security,
        exporter,
    };
    let mut connection = Connection::native(Box::new(HttpSocket { shared, peer }));
    connection.http = Some(Box::new(facts));
    connection
}

#[derive(Default)]
enum Place {
    #[default]
    Closed,
    Connecting(BoxFuture<'static, io::Result<Connection>>),
    Open(Wire),
}

struct State {
    path: ClientPath,
    /// The way down that others are to begin with, as they were told.
    mode: Mode,
    slots: [Place; Slot::ALL.len()],
    runtime: Arc<dyn Runtime>,
    address: Address,
    settings: Arc<Settings>,
    alarm: Alarm,
    /// When the driver's turn began.
    now: Timestamp,
    /// When the path is to be asked what it wants to do, unless something comes before.
    due: Option<Timestamp>,
    /// The path may want something that it did not want when it was last asked.
    stirred: bool,
    /// Something that was laid out was not written.
    blocked: bool,
    /// The last turn only read.
    only_read: bool,
    /// What wakes whoever drives the session.
    bells: Bells<{ Slot::ALL.len() + 1 }>,
}

struct HttpClient {
    state: Mutex<State>,
}

struct HttpSocket {
    shared: Arc<HttpClient>,
    peer: String,
}

impl State {
    /// Does all that can be done without waiting.
    fn turn(&mut self) {
        for _ in 0..ROUNDS {
            if !self.bells.any() && !self.stirred {
                return;
            }
            if !self.only_read {
                self.now = self.runtime.now();
            }
            let now = self.now;
            let mut again = false;
            // First what the session waits for, then the answers to what it sent.
            for slot in Slot::ALL.into_iter().rev() {
                again |= self.read(now, slot);
            }
            self.stirred |= self.path.take_news();
            // What came is to be taken first. Whoever takes it asks again, and the rest is done then.
            self.only_read = self.path.held() > 0 && !self.only_read;
            if self.only_read {
                return;
            }
            if self.stirred || self.blocked || self.due.is_some_and(|at| at <= now) {
                again |= self.send(now);
            }
            again |= self.has_expired();
            if !again || self.path.is_over() || self.path.held() > 0 {
                return;
            }
        }
        self.bells.task().wake_by_ref();
    }

    /// Sees to the alarm, and tells whether it went off.
    fn has_expired(&mut self) -> bool {
        if !self.bells.answer(ALARM) && !self.alarm.is_late_for(self.due) {
            return false;
        }
        let mut cx = self.bells.context(ALARM);
        let expired = self
            .alarm
            .poll_soonest(&*self.runtime, self.due, &mut cx)
            .is_ready();
        if expired {
            // It is to be set again, for what is due by now.
            self.bells.ring(ALARM);
        }
        expired
    }

    /// Writes what can be written, on the connections that it takes. Tells whether any were opened or closed.
    fn send(&mut self, now: Timestamp) -> bool {
        self.path.handle_timeout(now);
        self.remember(self.path.mode());
        (self.stirred, self.blocked) = (false, false);
        let (mut again, mut spare) = (false, Spare::default());
        for slot in Slot::ALL {
            again |= self.write(now, slot, &mut spare);
        }
        while let Some(action) = self.path.poll_action() {
            again = true;
            match action {
                Action::Close(slot) => self.slots[slot as usize] = Place::Closed,
                Action::Connect(slot) => {
                    let future =
                        connect_bare(self.runtime.clone(), self.address.clone(), self.settings.clone());
                    self.slots[slot as usize] = Place::Connecting(future);
                    self.bells.ring(slot as usize);
                }
            }
        }
        self.due = self.path.poll_timeout();
        self.stirred = again;
        again
    }

    fn closed(&mut self, now: Timestamp, slot: Slot) {
        self.slots[slot as usize] = Place::Closed;
        self.path.handle_closed(now, slot);
    }

    /// Tells whether something came.
    fn read(&mut self, now: Timestamp, slot: Slot) -> bool {
        if self.path.held() >= HIGH_WATER || !self.bells.answer(slot as usize) {
            return false;
        }
        let mut cx = self.bells.context(slot as usize);
        match &mut self.slots[slot as usize] {
            Place::Closed => return false,
            Place::Connecting(future) => match future.as_mut().poll(&mut cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(connection)) => {
                    self.slots[slot as usize] = Place::Open(Wire::new(connection));
                    self.path.handle_connected(now, slot);
                }
                Poll::Ready(Err(_)) => self.closed(now, slot),
            },
            Place::Open(wire) => match wire.poll_fill(&mut cx, now) {
                Poll::Pending => return false,
                Poll::Ready(Ok(true)) => {
                    self.path.handle_input(now, slot, &mut wire.input);
                    wire.put_aside();
                }
                Poll::Ready(_) => self.closed(now, slot),
            },
        }
        // It was not seen to have nothing more.
        self.bells.ring(slot as usize);
        true
    }

    /// Tells whether the connection broke.
    fn write(&mut self, now: Timestamp, slot: Slot, spare: &mut Spare) -> bool {
        let Place::Open(wire) = &mut self.slots[slot as usize] else {
            return false;
        };
        loop {
            if wire.is_flushed() {
                let path = &mut self.path;
                wire.lay_out_in(now, spare, |out| path.poll_transmit(now, slot, out));
                if wire.is_flushed() {
                    return false;
                }
            }
            match wire.poll_write(&mut self.bells.context(slot as usize)) {
                Poll::Pending => {
                    self.blocked = true;
                    return false;
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.closed(now, slot);
                    return true;
                }
            }
        }
    }

    /// Remembers which way down got through, where one did not.
    fn remember(&mut self, mode: Mode) {
        if std::mem::replace(&mut self.mode, mode) != mode {
            let now = self.runtime.now();
            self.settings.ways.note(&self.address, mode, now);
        }
    }

    /// The session has given the path up.
    fn part(&mut self) {
        let mode = self.path.next_mode(self.runtime.now());
        self.remember(mode);
        self.path.end();
    }

    /// [`State::send`], outside the driver's turn with the session's sockets.
    fn push(&mut self) {
        let now = self.runtime.now();
        if self.send(now) | self.has_expired() {
            // What was opened is to be polled.
            self.bells.task().wake_by_ref();
        }
    }
}

impl Keyed for HttpClient {
    fn set_key(&self, key: ExchangeKey) {
        let mut state = self.state.lock();
        let now = state.runtime.now();
        state.path.set_key(now, key);
        state.push();
    }

    fn failure(&self) -> Option<String> {
        self.state.lock().path.failure().map(ToString::to_string)
    }
}

impl Socket for HttpSocket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.state.lock();
        state.bells.belong_to(cx.waker());
        if state.path.held() == 0 && !state.path.is_over() {
            state.turn();
        }
        match state.path.held() > 0 || state.path.is_over() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Room comes with what is read, and whoever waits for room waits for that, too.
        let state = self.shared.state.lock();
        match state.path.room() > 0 || state.path.is_over() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let mut state = self.shared.state.lock();
        let count = take_waiting(state.path.incoming(), buf);
        if count > 0 {
            return Ok(count);
        }
        match state.path.failure() {
            Some(error) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, error.clone())),
            None if state.path.is_over() => Ok(0),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.shared.state.lock();
        if state.path.is_over() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = state.path.write(slices);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.push();
        Ok(count)
    }

    fn shutdown(&self) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.part();
        state.push();
        Ok(())
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }
}

impl Drop for HttpSocket {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.part();
        // Whoever keeps what lies under the socket keeps no connection.
        state.slots = Default::default();
        state.bells = Bells::new(Waker::noop());
    }
}
