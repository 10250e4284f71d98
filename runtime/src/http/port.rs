//! The server's end of a path over HTTP: what exchanges are brought to, and a socket for the session.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use parking_lot::Mutex;
use sheetbend_core::carrier::http::{
    BodyDecoder, Exchange, ExchangeKey, HttpError, Item, ItemReader, LAST_CHUNK, Mode, Note, Operation,
    ServerConfig, ServerPath, Token, Uploaded, begin_down, put_note,
};
use sheetbend_core::server::Origin;
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;

use super::bells::Bells;
use super::{Keyed, take_waiting};
use crate::alarm::Alarm;
use crate::rt::{Runtime, Socket};
use crate::wire::{Spare, Wire};

/// Nothing more is read while so much waits for the session.
const HIGH_WATER: usize = 256 * 1024;

/// The bells of a path: of its streaming upload, its downlink, and its alarm.
const STREAM: usize = 0;
const DOWN: usize = 1;
const ALARM: usize = 2;

/// The paths of a server, by their tokens.
#[derive(Default)]
pub(crate) struct Ports(Mutex<BTreeMap<Token, Arc<Port>>>);

impl Ports {
    /// A new path, and its socket.
    pub(super) fn open(
        self: &Arc<Self>,
        runtime: Arc<dyn Runtime>,
        token: Token,
        peer: String,
        origin: Origin,
    ) -> (Arc<Port>, PortSocket) {
        let now = runtime.now();
        let state = PortState {
            path: ServerPath::new(ServerConfig::default(), token, now),
            down: None,
            stream: None,
            bells: Bells::new(Waker::noop()),
            asker: None,
            uploader: None,
            alarm: Alarm::default(),
            now,
            stirred: true,
            blocked: false,
            only_read: false,
            gone: false,
        };
        let port = Arc::new(Port {
            state: Mutex::new(state),
            runtime,
        });
        self.0.lock().insert(token, port.clone());
        let socket = PortSocket {
            port: port.clone(),
            ports: self.clone(),
            token,
            peer,
            origin,
        };
        (port, socket)
    }

    pub(super) fn find(&self, token: Token) -> Option<Arc<Port>> {
        self.0.lock().get(&token).cloned()
    }
}

/// A streaming upload.
struct Stream {
    number: u64,
    wire: Wire,
    /// The response to it has begun, and may become the downlink.
    answers: bool,
    body: ItemReader,
}

struct PortState {
    path: ServerPath,
    down: Option<(u64, Wire)>,
    stream: Option<Stream>,
    /// What wakes whoever drives the session.
    bells: Bells<3>,
    /// Who waits for the answer to a poll.
    asker: Option<Waker>,
    /// Who waits for room for what it uploads.
    uploader: Option<Waker>,
    alarm: Alarm,
    /// When the driver's turn began.
    now: Timestamp,
    /// There may be something to write that was not there when it was last looked for.
    stirred: bool,
    /// Something that was laid out was not written.
    blocked: bool,
    /// Whoever drives the session was given what came before anything else was done.
    only_read: bool,
    /// The session has let go of it.
    gone: bool,
}

/// A path that exchanges are brought to.
pub(super) struct Port {
    state: Mutex<PortState>,
    runtime: Arc<dyn Runtime>,
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl PortState {
    /// Reads the streaming upload; tells whether to go on.
    fn read_stream(&mut self, now: Timestamp) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        if self.path.held() >= HIGH_WATER || !self.bells.answer(STREAM) {
            return false;
        }
        let mut cx = self.bells.context(STREAM);
        let filled = match stream.wire.poll_fill(&mut cx, now) {
            Poll::Pending => return false,
            Poll::Ready(filled) => filled,
        };
        // It was not seen to have nothing more.
        self.bells.ring(STREAM);
        let taken =
            matches!(filled, Ok(true)) && matches!(stream.take(&mut self.path, now), Ok(Uploaded::Taken));
        let done = stream.body.is_done();
        if taken && !done {
            return true;
        }
        if let Some(mut stream) = self.stream.take() {
            self.path.lose_stream(now, stream.number);
            if done && stream.wire.is_flushed() {
                let answer = match stream.answers {
                    true => String::new(),
                    false => self.path.upload_answer("Connection: close\r\n"),
                };
                stream.wire.lay_out(now, |out| match stream.answers {
                    true => out.put(LAST_CHUNK),
                    false => out.put(answer.as_bytes()),
                });
                let _ = stream.wire.poll_write(&mut Context::from_waker(Waker::noop()));
            }
            stream.wire.close();
        }
        true
    }

    /// Sees whether the client has closed the downlink.
    fn watch_down(&mut self, now: Timestamp) {
        let Some((number, wire)) = &mut self.down else {
            return;
        };
        if !self.bells.answer(DOWN) {
            return;
        }
        if let Poll::Ready(filled) = wire.poll_fill(&mut self.bells.context(DOWN), now) {
            // Whoever sends behind a request that is not answered does not speak to us.
            drop(filled);
            self.path.lose_down(now, *number);
            self.down = None;
            self.stirred = true;
        }
    }

    /// Writes down what there is.
    fn write_down(&mut self, now: Timestamp, spare: &mut Spare) {
        // It may have taken the place of the downlink that is still written here.
        wake(self.asker.take());
        let Some((number, wire)) = &mut self.down else {
            return;
        };
        loop {
            let mut goes_on = true;
            if wire.is_flushed() {
                let path = &mut self.path;
                goes_on = wire.lay_out_in(now, spare, |out| path.poll_down(now, *number, out));
                if wire.is_flushed() {
                    return;
                }
            }
            let written = wire.poll_write(&mut self.bells.context(DOWN));
            if goes_on && matches!(written, Poll::Ready(Ok(()))) {
                continue;
            }
            if goes_on && written.is_pending() {
                self.blocked = true;
                return;
            }
            if matches!(written, Poll::Ready(Ok(()))) {
                wire.close();
            }
            self.path.lose_down(now, *number);
            self.down = None;
            return;
        }
    }

    /// Writes what is to be said in response to a streaming upload.
    fn write_stream(&mut self, now: Timestamp, spare: &mut Spare) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.answers) else {
            return;
        };
        let (path, number) = (&mut self.path, stream.number);
        loop {
            let mut goes_on = true;
            if stream.wire.is_flushed() {
                if !path.is_turned(number) {
                    return;
                }
                let turned = |out: &mut OutBuffer| path.poll_turned(now, number, out);
                goes_on = stream.wire.lay_out_in(now, spare, turned);
                if stream.wire.is_flushed() {
                    return;
                }
            }
            match stream.wire.poll_write(&mut self.bells.context(STREAM)) {
                Poll::Ready(Ok(())) if goes_on => continue,
                Poll::Pending if goes_on => {
                    self.blocked = true;
                    return;
                }
                Poll::Ready(Ok(())) => stream.wire.close(),
                _ => {}
            }
            path.lose_stream(now, number);
            self.stream = None;
            return;
        }
    }

    /// Writes what there is, on whatever connection.
    fn write(&mut self, now: Timestamp) {
        (self.stirred, self.blocked) = (false, false);
        let mut spare = Spare::default();
        self.write_down(now, &mut spare);
        self.write_stream(now, &mut spare);
    }

    /// [`PortState::write`] where there may be something to write. Tells whether something of the path may be due.
    fn go_on(&mut self, runtime: &dyn Runtime, now: Timestamp) -> bool {
        let mut due = self.path.poll_timeout();
        if self.stirred || self.blocked || due.is_some_and(|at| at <= now) {
            self.write(now);
            due = self.path.poll_timeout();
        }
        // What a downlink has no room for is not due.
        let due = due.filter(|_| !self.blocked);
        if !self.bells.answer(ALARM) && !self.alarm.is_late_for(due) {
            return false;
        }
        let mut cx = self.bells.context(ALARM);
        self.alarm.poll_soonest(runtime, due, &mut cx).is_ready()
    }
}

impl Stream {
    fn take(&mut self, path: &mut ServerPath, now: Timestamp) -> Result<Uploaded, HttpError> {
        let Stream {
            number, wire, body, ..
        } = self;
        while let Some(item) = body.next(&mut wire.input)? {
            let taken = match item {
                Item::Data(count) => {
                    let taken = path.take_streamed(now, *number, body.data(&wire.input, count))?;
                    body.taken(&mut wire.input, count);
                    taken
                }
                Item::Note(note) => path.take_note(now, *number, note)?,
            };
            if taken == Uploaded::Replaced {
                return Ok(taken);
            }
        }
        wire.put_aside();
        Ok(Uploaded::Taken)
    }
}

impl Port {
    fn wake_driver(&self, state: &mut PortState) {
        state.stirred |= state.path.take_news();
        state.bells.task().wake_by_ref();
    }

    /// The path's first bytes.
    pub(super) fn create(&self, bytes: &[u8]) -> Result<(), HttpError> {
        self.state.lock().path.create(bytes)
    }

    /// Whether the exchange may begin.
    pub(super) fn begin(
        &self,
        exchange: &Exchange,
        mode: Mode,
        last_event: Option<u64>,
    ) -> Result<(), HttpError> {
        let mut state = self.state.lock();
        if state.gone {
            return Err(HttpError::Refused {
                status: 410,
                why: "the path is over",
            });
        }
        let full = state.path.room() == 0;
        let result = state.path.begin(self.runtime.now(), exchange, mode, last_event);
        // The driver looks when something of an upload comes, unless it waits for what this says came down.
        if result.is_err() || full || exchange.operation != Operation::Up {
            // It may be replaced, or broken.
            wake(state.asker.take());
            self.wake_driver(&mut state);
        }
        result
    }

    /// Ready when there is room for more of an upload.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.path.held() < HIGH_WATER || state.gone {
            return Poll::Ready(());
        }
        state.uploader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes what an upload brought.
    pub(super) fn take(&self, number: u64, bytes: &[u8]) -> Result<Uploaded, HttpError> {
        let mut state = self.state.lock();
        let taken = state.path.take(number, bytes);
        self.wake_driver(&mut state);
        taken
    }

    /// An upload is whole: its answer.
    pub(super) fn finish_upload(&self, number: u64, ends: bool, cors: &str) -> String {
        let mut state = self.state.lock();
        state.path.finish_upload(number, ends);
        if ends {
            self.wake_driver(&mut state);
        }
        state.path.upload_answer(cors)
    }

    /// Up to where the client's bytes have come.
    pub(super) fn received(&self) -> u64 {
        self.state.lock().path.received()
    }

    /// Hands the connection of a downlink over.
    pub(super) fn adopt_down(&self, number: u64, mode: Mode, cors: &str, mut wire: Wire) {
        let now = self.runtime.now();
        let mut state = self.state.lock();
        let old = state.down.take();
        if let Some((_, mut old)) = old
            && old.is_flushed()
        {
            old.lay_out(now, |out| out.put(LAST_CHUNK));
            let _ = old.poll_write(&mut Context::from_waker(Waker::noop()));
            old.close();
        }
        wire.lay_out(now, |out| begin_down(mode, cors, out));
        state.down = Some((number, wire));
        state.stirred = true;
        state.bells.ring(DOWN);
        if state.gone {
            state.down = None;
        }
        self.wake_driver(&mut state);
    }

    /// Hands the connection of a streaming upload over, with the fields for pages if its response is to begin at once.
    pub(super) fn adopt_stream(&self, number: u64, mut wire: Wire, body: BodyDecoder, answer: Option<&str>) {
        let now = self.runtime.now();
        let mut state = self.state.lock();
        wire.put_aside();
        if let Some(cors) = answer {
            wire.lay_out(now, |out| {
                begin_down(Mode::Binary, cors, out);
                put_note(Mode::Binary, Note::Mark(number), out);
            });
        }
        let mut stream = Stream {
            number,
            wire,
            answers: answer.is_some(),
            body: ItemReader::new(body, Mode::Binary),
        };
        // What came with the head.
        let PortState { path, .. } = &mut *state;
        let taken = stream.take(path, now);
        if taken == Ok(Uploaded::Taken) && !state.gone {
            state.stream = Some(stream);
            state.stirred = true;
            state.bells.ring(STREAM);
        } else {
            state.path.lose_stream(now, number);
        }
        self.wake_driver(&mut state);
    }

    /// Ready with the whole response to a poll, in `out`.
    pub(super) fn poll_answer(
        &self,
        cx: &mut Context<'_>,
        number: u64,
        cors: &str,
        out: &mut OutBuffer,
    ) -> Poll<()> {
        let mut state = self.state.lock();
        if state.gone && state.path.room() > 0 {
            state.path.end();
        }
        match state.path.poll_answer(self.runtime.now(), number, cors, out) {
            Some(()) => {
                // Its client has to come again before long.
                state.stirred = true;
                self.wake_driver(&mut state);
                Poll::Ready(())
            }
            None => {
                state.asker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Nobody waits for the answer to that poll any more.
    pub(super) fn lose_poll(&self, number: u64) {
        let now = self.runtime.now();
        let mut state = self.state.lock();
        state.path.lose_down(now, number);
        self.wake_driver(&mut state);
    }
}

impl Keyed for Port {
    fn set_key(&self, key: ExchangeKey) {
        self.state.lock().path.set_key(key);
    }

    fn failure(&self) -> Option<String> {
        self.state.lock().path.failure().map(str::to_owned)
    }
}

/// What the session has of a path over HTTP.
pub(super) struct PortSocket {
    port: Arc<Port>,
    ports: Arc<Ports>,
    token: Token,
    peer: String,
    origin: Origin,
}

impl Socket for PortSocket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let runtime = &*self.port.runtime;
        let mut state = self.port.state.lock();
        let state = &mut *state;
        state.bells.belong_to(cx.waker());
        let (mut judged, mut came) = (false, false);
        state.stirred |= state.path.take_news();
        while state.stirred || state.bells.any() {
            if !state.only_read {
                state.now = runtime.now();
            }
            let now = state.now;
            while state.path.held() == 0 && state.read_stream(now) {
                came = true;
            }
            state.stirred |= state.path.take_news();
            // What came is to be taken first. Whoever takes it asks again, and the rest is done then.
            state.only_read = came && state.path.held() > 0 && !state.only_read;
            if state.only_read {
                return Poll::Ready(Ok(()));
            }
            state.watch_down(now);
            // What is still due then is for an exchange to do that is not here yet, and that looks when it comes.
            if !state.go_on(runtime, now) || std::mem::replace(&mut judged, true) {
                break;
            }
            state.path.handle_timeout(runtime.now());
            state.stirred = true;
        }
        match state.path.held() > 0 || state.path.is_over() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Room comes with what exchanges say, and with those the driver is woken.
        let state = self.port.state.lock();
        match state.path.room() > 0 || state.path.is_over() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let mut state = self.port.state.lock();
        let count = take_waiting(state.path.incoming(), buf);
        if count > 0 {
            if state.path.held() == 0 {
                wake(state.uploader.take());
            }
            return Ok(count);
        }
        match state.path.failure() {
            Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)),
            None if state.path.is_over() => Ok(0),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.port.state.lock();
        if state.path.is_over() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = state.path.write(slices);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.push(&mut state);
        Ok(count)
    }

    fn shutdown(&self) -> io::Result<()> {
        let mut state = self.port.state.lock();
        state.path.end();
        self.push(&mut state);
        Ok(())
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }

    fn origin(&self) -> Origin {
        self.origin
    }
}

impl PortSocket {
    fn push(&self, state: &mut PortState) {
        state.write(self.port.runtime.now());
    }
}

impl Drop for PortSocket {
    fn drop(&mut self) {
        self.ports.0.lock().remove(&self.token);
        let mut state = self.port.state.lock();
        state.gone = true;
        state.path.end();
        self.push(&mut state);
        state.down = None;
        state.stream = None;
        state.bells = Bells::new(Waker::noop());
        wake(state.asker.take());
        wake(state.uploader.take());
    }
}

#[cfg(test)]
mod tests;
